// SPDX-License-Identifier: GPL-2.0-only
//! Gives the shared library its soname and, with the feature `header`, writes `include/blkmig.h`.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // rustc's own version script already exports the blk_mig_* functions and nothing else.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        let major = env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets it");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libblkmig.so.{major}");
    }
    #[cfg(feature = "header")]
    write_header();
}

#[cfg(feature = "header")]
fn write_header() {
    use std::{fs, path::Path};

    for source in ["src/ffi", "cbindgen.toml", "include/blkmig.h"] {
        println!("cargo:rerun-if-changed={source}");
    }
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let root = Path::new(&root);
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is sound");
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/ffi/tables.rs"))
        .with_src(root.join("src/ffi/exports.rs"))
        .generate()
        .expect("the header can be made of src/ffi")
        .write(&mut text);
    // Written only where it differs, so that nothing that includes it is built again.
    let header = root.join("include/blkmig.h");
    if fs::read(&header).ok().as_deref() != Some(text.as_slice()) {
        fs::write(&header, &text).expect("include/blkmig.h can be written");
    }
}
