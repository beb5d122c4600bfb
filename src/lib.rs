// SPDX-License-Identifier: GPL-2.0-only
//! Live block migration: moves a running guest's disks to another machine inside the migration stream.
//!
//! A drop-in for the `block-migration.c` that QEMU had from 2009 to 2024, by its symbols and its stream. The
//! promise: when the source says "completed", every byte of every migrated device is on the destination as the
//! guest last wrote it; in every other case an error is reported on the side that saw it, and the source keeps
//! running.
//!
//! C hosts link the library and include `blkmig.h`; the C interface and the streams are stable. The Rust
//! modules are not: they are public for the project's own tests, benchmarks and fuzzers, and may change in any
//! release.
//!
//! Inside, everything goes one way: each module uses only those below it in this table.
//!
//! | module | what it does |
//! |---|---|
//! | `ffi` | the C interface: tables, exports, the one global instance; the only unsafe code beside the buffers |
//! | [`instance`] | one instance: its state, its settings, and the boundary that catches panics |
//! | [`source`], [`destination`] | the engine: outgoing and incoming |
//! | `in_flight`, [`call`] | waiting for requests; what a host's call brings with it |
//! | [`host`] | the seam: what the engine needs of a hypervisor |
//! | [`request`], [`buffers`] | requests that the host gets, and their memory |
//! | [`wire`], [`extended`], [`settings`] | the records of the two streams; what a user can set |
//! | [`status`], [`error`] | what queries read; what can fail |
//! | [`geometry`], [`device_name`] | sectors and chunks; the names of devices |
//!
//! `docs/architecture.md` tells the rest.

#[doc(hidden)]
pub mod buffers;
#[doc(hidden)]
pub mod call;
#[doc(hidden)]
pub mod destination;
#[doc(hidden)]
pub mod device_name;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod extended;
pub mod ffi;
#[doc(hidden)]
pub mod geometry;
#[doc(hidden)]
pub mod host;
mod in_flight;
#[doc(hidden)]
pub mod instance;
#[doc(hidden)]
pub mod request;
#[doc(hidden)]
pub mod settings;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod status;
#[doc(hidden)]
pub mod wire;
