// SPDX-License-Identifier: GPL-2.0-only
//! The host's tables, copied and checked once.

use std::mem;
use std::ptr;

use libc::c_void;

use super::tables::{
    BLK_MIG_ABI_VERSION, BLK_MIG_HOST_THREADED, BlkMigBdrvOps, BlkMigDirtyOps, BlkMigFileOps, BlkMigHost,
    BlkMigMonitorOps, BlkMigSystemOps,
};
use crate::error::{Errno, Error};

/// An argument of C's that is wrong.
pub(super) fn invalid(text: String) -> Error {
    Error::Interface { text, errno: Errno::INVALID }
}

/// A pointer of C's that must not be NULL.
pub(super) fn null(what: &str) -> Error {
    invalid(format!("{what} is NULL"))
}

/// A struct of the contract that C fills: starts with a `size_t struct_size`, and is valid when all its bytes are 0.
///
/// # Safety
/// That is so, and every field is at least as long as `STEP` and a multiple of it, where it starts at a multiple of it.
pub(super) unsafe trait CStruct: Sized {
    /// The length of the shortest field: a size that ends within a field counts as ending before it.
    const STEP: usize = size_of::<*const c_void>();
    const NAME: &'static str;
}

macro_rules! c_structs {
    ($($name:ident),*) => {$(
        // SAFETY: repr(C), a size_t first, then nothing but pointers and nullable function pointers.
        unsafe impl CStruct for $name {
            const NAME: &'static str = stringify!($name);
        }
    )*};
}
c_structs!(BlkMigBdrvOps, BlkMigDirtyOps, BlkMigFileOps, BlkMigMonitorOps, BlkMigSystemOps, BlkMigHost);

/// What a struct of C says of its own size; at least that of the number itself.
///
/// # Safety
/// `source` is NULL or points to a `size_t`.
pub(super) unsafe fn struct_size<T>(source: *const T, what: &'static str, name: &'static str) -> Result<usize, Error> {
    if source.is_null() {
        return Err(null(what));
    }
    // SAFETY: the caller's promise; nothing is assumed about alignment.
    let size = unsafe { ptr::read_unaligned(source.cast::<usize>()) };
    if size < size_of::<usize>() {
        return Err(invalid(format!("{name}.struct_size is {size}")));
    }
    Ok(size)
}

/// Reads a struct of C, as far as its `struct_size` goes; what lies past that is 0.
///
/// # Safety
/// `source` is NULL or points to as many bytes as the `size_t` there says.
pub(super) unsafe fn read_struct<T: CStruct>(source: *const T, what: &'static str) -> Result<T, Error> {
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(source, what, T::NAME)? };
    let size = size.min(size_of::<T>()) / T::STEP * T::STEP;
    // SAFETY: `CStruct` promises that all zeroes are a valid value.
    let mut value: T = unsafe { mem::zeroed() };
    // SAFETY: both sides have at least `size` bytes, and `value` is ours alone.
    unsafe { ptr::copy_nonoverlapping(source.cast::<u8>(), (&raw mut value).cast::<u8>(), size) };
    Ok(value)
}

/// The host's tables, with all required functions there.
pub(super) struct Tables {
    pub(super) bdrv: BlkMigBdrvOps,
    pub(super) dirty: BlkMigDirtyOps,
    pub(super) file: BlkMigFileOps,
    pub(super) monitor: Option<BlkMigMonitorOps>,
    pub(super) system: BlkMigSystemOps,
    pub(super) threaded: bool,
}

macro_rules! require {
    ($table:expr, $name:literal: $($field:ident),+) => {
        $(if $table.$field.is_none() {
            return Err(invalid(concat!($name, ".", stringify!($field), " is NULL").to_owned()));
        })+
    };
}

impl Tables {
    /// Copies and checks a host's tables.
    ///
    /// # Safety
    /// `host`, and each table that it points to, is NULL or points to as many bytes as its `struct_size` says.
    pub(super) unsafe fn new(host: *const BlkMigHost) -> Result<Tables, Error> {
        // SAFETY: the caller's promise.
        let host = unsafe { read_struct(host, "BlkMigHost")? };
        if host.abi_version != BLK_MIG_ABI_VERSION {
            return Err(invalid(format!("BlkMigHost.abi_version is {}, not 1", host.abi_version)));
        }
        if host.flags & !BLK_MIG_HOST_THREADED != 0 {
            return Err(invalid(format!("BlkMigHost.flags has unknown bits: {:#x}", host.flags)));
        }
        // SAFETY: the caller's promise, for this and the tables that follow.
        let bdrv = unsafe { read_struct(host.bdrv, "BlkMigHost.bdrv")? };
        // SAFETY: as above.
        let dirty = unsafe { read_struct(host.dirty, "BlkMigHost.dirty")? };
        // SAFETY: as above.
        let file = unsafe { read_struct(host.file, "BlkMigHost.file")? };
        // SAFETY: as above.
        let system = unsafe { read_struct(host.system, "BlkMigHost.system")? };
        let monitor = if host.monitor.is_null() {
            None
        } else {
            // SAFETY: as above.
            Some(unsafe { read_struct(host.monitor, "BlkMigHost.monitor")? })
        };
        let threaded = host.flags & BLK_MIG_HOST_THREADED != 0;
        Tables { bdrv, dirty, file, monitor, system, threaded }.check()
    }

    fn check(self) -> Result<Tables, Error> {
        require!(self.bdrv, "BlkMigBdrvOps": iterate, find, get_device_name, getlength, is_read_only,
            is_allocated, read, write, aio_read, aio_flush);
        // One of the two alone can't be balanced.
        if self.bdrv.r#ref.is_some() {
            require!(self.bdrv, "BlkMigBdrvOps": unref);
        } else if self.bdrv.unref.is_some() {
            return Err(invalid("BlkMigBdrvOps.ref is NULL, but unref is not".to_owned()));
        }
        require!(self.dirty, "BlkMigDirtyOps": set_tracking, get, reset, get_count);
        require!(self.file, "BlkMigFileOps": put_buffer, put_byte, put_be64, get_buffer, get_byte, get_be64, rate_limit,
            get_rate_limit, has_error, set_error);
        if let Some(monitor) = &self.monitor {
            require!(monitor, "BlkMigMonitorOps": printf, flush);
        }
        require!(self.system, "BlkMigSystemOps": register_savevm_live, clock_ns, max_downtime_ns);
        Ok(self)
    }
}

/// Calls a function of the host's tables. `Tables::check` has seen to it that the required ones are there; a
/// bug in that would end in a panic, which the boundary catches.
macro_rules! call {
    ($function:expr $(, $argument:expr)*) => {{
        let function = $function.expect("the table was checked");
        // SAFETY: the host has given a function of this type, and pointers that are its own or live until it returns.
        unsafe { function($($argument),*) }
    }};
}
pub(super) use call;
