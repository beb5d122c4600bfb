// SPDX-License-Identifier: GPL-2.0-only
//! The C face, and the only unsafe code beside the buffers.
//!
//! `exports` → [`crate::module`] → the engine → `host` → the host's tables. What the host calls later it calls with a
//! ticket, never with a pointer into our memory: see `tickets`.

pub mod exports;
mod host;
mod logger;
mod reserve;
pub mod tables;
mod tickets;
