// SPDX-License-Identifier: GPL-2.0-only
//! Another static library of Rust's, for `with_another_rust_library.c`.

use std::hint::black_box;
use std::panic::catch_unwind;

/// The sum, by way of the heap.
#[unsafe(no_mangle)]
pub extern "C" fn other_add(a: i32, b: i32) -> i32 {
    black_box(vec![a, b]).iter().sum()
}

/// 1 if a panic was caught.
#[unsafe(no_mangle)]
pub extern "C" fn other_catches() -> i32 {
    catch_unwind(|| assert!(black_box(false), "to be caught")).is_err().into()
}
