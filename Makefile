# SPDX-License-Identifier: GPL-2.0-only
# What one types first; meson is what builds. scripts/meson takes the distribution's, or gets one of its own.
BUILD = build
MESON = scripts/meson
SETUP = --buildtype=release
PREFIX = /usr/local

all: $(BUILD)/build.ninja
	$(MESON) compile -C $(BUILD)

demo: $(BUILD)/build.ninja
	$(MESON) compile -C $(BUILD) demo

test: $(BUILD)/build.ninja
	$(MESON) test -C $(BUILD) --print-errorlogs

# DESTDIR counts, too.
install:
	[ -e build-install/build.ninja ] || $(MESON) setup build-install $(SETUP) -Dtests=false
	$(MESON) configure build-install --prefix=$(PREFIX)
	$(MESON) install -C build-install

$(BUILD)/build.ninja:
	$(MESON) setup $(BUILD) $(SETUP)

# For those who change src/ffi: include/blkmig.h is made of it.
header:
	cargo build --locked --features header

.PHONY: all demo test install header
