# SPDX-License-Identifier: GPL-2.0-only
# What one types first; meson is what builds. scripts/meson takes the distribution's, or gets one of its own.
BUILD = build
MESON = scripts/meson
SETUP = --buildtype=release

all: $(BUILD)/build.ninja
	$(MESON) compile -C $(BUILD)

demo: $(BUILD)/build.ninja
	$(MESON) compile -C $(BUILD) demo

test: $(BUILD)/build.ninja
	$(MESON) test -C $(BUILD) --print-errorlogs

$(BUILD)/build.ninja:
	$(MESON) setup $(BUILD) $(SETUP)

# For those who change src/ffi: include/blkmig.h is made of it.
header:
	cargo build --locked --features header

.PHONY: all demo test header
