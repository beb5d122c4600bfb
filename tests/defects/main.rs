// SPDX-License-Identifier: GPL-2.0-only
//! One test, or more, for each row of the table of the ancestors' defects, named after the row: each fails on what the
//! original does; and for what goes on around a migration in a busy hypervisor. Row 25, and what else of row 9 needs threads, is in `tests/threads.rs`; what is about the C boundary
//! is in `c-tests/`.
#![allow(clippy::cast_possible_truncation)]

mod around;
mod bench;
mod destination;
mod devices;
mod endless;
#[path = "../sim/mod.rs"]
mod sim;
mod source;
mod styles;
mod words;
