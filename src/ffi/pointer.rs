// SPDX-License-Identifier: GPL-2.0-only
//! Pointers of the host's.

use std::ptr::NonNull;

/// A pointer of the host's that is only ever handed back to it.
#[derive(Debug)]
pub(super) struct Pointer<T>(pub(super) NonNull<T>);

// SAFETY: the module does not follow the pointer, and the contract says on which threads the host gets it back.
unsafe impl<T> Send for Pointer<T> {}
