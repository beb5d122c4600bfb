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

# To PREFIX, below DESTDIR. Root need not have Rust: what a user built with "make build-for-install" is taken as it is.
install:
	[ -e $(BUILD)-install/libblkmig.a ] || $(MAKE) build-for-install
	$(MESON) install -C $(BUILD)-install --no-rebuild

build-for-install:
	[ -e $(BUILD)-install/build.ninja ] || $(MESON) setup $(BUILD)-install $(SETUP) -Dtests=false
	$(MESON) configure $(BUILD)-install --prefix=$(PREFIX)
	$(MESON) compile -C $(BUILD)-install

$(BUILD)/build.ninja:
	$(MESON) setup $(BUILD) $(SETUP)

# For those who change src/ffi: include/blkmig.h is made of it.
header:
	cargo build --locked --features header

.PHONY: all demo test install build-for-install header
