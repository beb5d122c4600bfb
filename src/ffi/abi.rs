// SPDX-License-Identifier: GPL-2.0-only
//! The layout of the contract's structs, held at compile time. Hosts that are built already rely on it: a field
//! may be added at the end of a struct, which changes its two numbers here, and nothing else may change.
//!
//! `c-tests/abi` holds the same for C, for each version that was released.

use std::mem::offset_of;

use super::tables::{
    BlkMigBdrvOps, BlkMigDirtyOps, BlkMigFileOps, BlkMigHost, BlkMigMonitorOps, BlkMigOptions, BlkMigStats,
    BlkMigSystemOps,
};

/// Fails to compile if a struct is not as long as this, or if its last field is not at this offset.
macro_rules! layout {
    ($($name:ident: $size:literal, $last:ident at $offset:literal;)*) => {$(
        const _: () = assert!(size_of::<$name>() == $size, concat!("the size of ", stringify!($name), " has changed"));
        const _: () = assert!(
            offset_of!($name, $last) == $offset,
            concat!(stringify!($name), ".", stringify!($last), " has moved")
        );
    )*};
}

#[cfg(target_pointer_width = "64")]
layout! {
    BlkMigBdrvOps: 160, flush at 152;
    BlkMigDirtyOps: 56, granularity at 48;
    BlkMigFileOps: 104, put_buffer_nocopy at 96;
    BlkMigMonitorOps: 24, flush at 16;
    BlkMigSystemOps: 48, log at 40;
    BlkMigHost: 56, system at 48;
    BlkMigOptions: 40, compression at 32;
    BlkMigStats: 144, checksummed_bytes at 136;
}
