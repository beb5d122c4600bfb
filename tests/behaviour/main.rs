// SPDX-License-Identifier: GPL-2.0-only
//! The promised behaviors, one test or more for each, against the engine without its C interface.
//!
//! A test that proves B-nn of `docs/behaviour.md` names it first in its doc comment, and fails on what the original
//! code does. B-25, and the part of B-09 that needs threads, is in `tests/threads`; what concerns the C interface is in
//! `c-tests`.
#![allow(clippy::cast_possible_truncation)]

mod call_order;
mod cancel_and_errors;
mod compression;
mod destination;
mod device_changes;
mod extended;
mod fixture;
mod large_devices;
mod log_messages;
mod setup;
#[path = "../sim/mod.rs"]
mod sim;
mod source;
mod switchover;
