// SPDX-License-Identifier: GPL-2.0-only
//! Two fuzz targets: what a destination does with any stream, and what a source does with any sequence of calls.
//!
//! Each input is a short program: a few bytes choose the host, the rest are steps. It runs against the engine
//! and a model of it that is simple enough to be checked by reading; where the two differ, the target panics.

pub mod calls;
mod extended;
mod host;
pub mod incoming;
mod input;
