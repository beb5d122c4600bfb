// SPDX-License-Identifier: GPL-2.0-only
//! Live block migration: moves a running guest's disks to another machine inside the migration stream.
//!
//! A drop-in for the `block-migration.c` that QEMU had from 2009 to 2024, by its symbols and its stream. The promise: when
//! the source says "completed", every byte of every migrated device is on the destination as the guest last wrote it; in
//! every other case an error is reported on the side that saw it, and the source keeps running unharmed.
//!
//! C hosts link the library and include `blkmig.h`. Inside, everything goes one way:
//!
//! | module | what it does |
//! |---|---|
//! | `ffi` | the C face: tables, exports, the one global instance; the only unsafe code beside the buffers |
//! | [`module`] | one instance: its state, its settings, and the boundary that catches panics |
//! | [`source`], [`destination`] | the engine: outgoing and incoming |
//! | [`wire`], [`geometry`] | the stream's records; sectors and chunks |
//! | [`request`], [`buffers`] | what is in flight, and its memory |
//! | [`host`] | the seam: what the engine needs of a hypervisor |
//! | [`status`], [`error`] | what queries read; what can fail |

pub mod buffers;
pub mod destination;
pub mod error;
pub mod ffi;
pub mod geometry;
pub mod host;
pub mod module;
pub mod request;
pub mod source;
pub mod status;
pub mod wire;
