// SPDX-License-Identifier: GPL-2.0-only
//! Writes `include/blkmig.h` and gives the shared library its soname.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=src/ffi");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=include/blkmig.h");

    // rustc's own version script already exports the blk_mig_* functions and nothing else.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        let major = env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets it");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libblkmig.so.{major}");
    }

    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let config = cbindgen::Config::from_file(Path::new(&root).join("cbindgen.toml")).expect("cbindgen.toml is sound");
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(Path::new(&root).join("src/ffi/tables.rs"))
        .with_src(Path::new(&root).join("src/ffi/exports.rs"))
        .generate()
        .expect("the header can be made of src/ffi")
        .write(&mut text);
    // Written only when it differs, so that a clean checkout stays clean and a read-only one builds.
    let header = Path::new(&root).join("include/blkmig.h");
    if fs::read(&header).ok().as_deref() != Some(text.as_slice()) {
        if let Err(error) = fs::write(&header, &text) {
            println!("cargo:warning=include/blkmig.h is out of date and can't be written: {error}");
        }
    }
}
