// SPDX-License-Identifier: GPL-2.0-only
//! The C face, and the only unsafe code beside the buffers.
//!
//! `exports` → [`crate::instance`] → the engine → `host` → the host's tables. What the host calls later it calls with a
//! ticket, never with a pointer into our memory: see `tickets`.

mod abi;
mod callbacks;
mod checked_tables;
pub mod exports;
mod host;
mod logger;
mod pointer;
mod reserve;
mod stream;
pub mod tables;
mod tickets;
