// SPDX-License-Identifier: GPL-2.0-only
//! The C tables, checked once, as the engine's [`Host`].

use std::ffi::{CStr, CString};
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use libc::{c_int, c_void};

use super::exports::{completed, released, visit};
use super::logger::c_text;
use super::reserve;
use super::tables::{
    BLK_MIG_ABI_VERSION, BLK_MIG_HOST_THREADED, BlkMigBdrvOps, BlkMigDirtyOps, BlkMigFileOps, BlkMigHost,
    BlkMigMonitorOps, BlkMigSystemOps, BlockDriverState, Monitor, QEMUFile,
};
use super::tickets::{Parked, park, redeem};
use crate::buffers::Buffer;
use crate::error::{Errno, Error};
use crate::geometry::{SECTOR_LEN, Sector, Sectors};
use crate::host::{self, Device, Extent, Host, Stream};
use crate::request::{ReadRequest, WriteRequest};

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
        return Err(Error::NullPointer(what));
    }
    // SAFETY: the caller's promise; nothing is assumed about alignment.
    let size = unsafe { ptr::read_unaligned(source.cast::<usize>()) };
    if size < size_of::<usize>() {
        return Err(Error::BadTable(format!("{name}.struct_size is {size}")));
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
    bdrv: BlkMigBdrvOps,
    dirty: BlkMigDirtyOps,
    file: BlkMigFileOps,
    monitor: Option<BlkMigMonitorOps>,
    pub(super) system: BlkMigSystemOps,
    threaded: bool,
}

macro_rules! require {
    ($table:expr, $name:literal: $($field:ident),+) => {
        $(if $table.$field.is_none() {
            return Err(Error::BadTable(concat!($name, ".", stringify!($field), " is NULL").to_owned()));
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
            return Err(Error::BadTable(format!("BlkMigHost.abi_version is {}, not 1", host.abi_version)));
        }
        if host.flags & !BLK_MIG_HOST_THREADED != 0 {
            return Err(Error::BadTable(format!("BlkMigHost.flags has unknown bits: {:#x}", host.flags)));
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
        require!(self.bdrv, "BlkMigBdrvOps": iterate, find, get_device_name, getlength, is_read_only, is_allocated, read,
            write, aio_read, aio_flush);
        // One of the two alone can't be balanced.
        if self.bdrv.r#ref.is_some() {
            require!(self.bdrv, "BlkMigBdrvOps": unref);
        } else if self.bdrv.unref.is_some() {
            return Err(Error::BadTable("BlkMigBdrvOps.ref is NULL, but unref is not".to_owned()));
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

/// Calls a function of the host's tables. `Tables::check` has seen to it that the required ones are there; a bug in that
/// would end in a panic, which the boundary catches.
macro_rules! call {
    ($function:expr $(, $argument:expr)*) => {{
        let function = $function.expect("the table was checked");
        // SAFETY: the host has given a function of this type, and pointers that are its own or live until it returns.
        unsafe { function($($argument),*) }
    }};
}

/// A pointer of the host's that is only ever handed back to it.
#[derive(Debug)]
pub(super) struct Pointer<T>(pub(super) NonNull<T>);

// SAFETY: the module does not follow the pointer, and the contract says on which threads the host gets it back.
unsafe impl<T> Send for Pointer<T> {}

/// The host.
pub(super) struct CHost(pub(super) Arc<Tables>);

/// A block device of the host.
pub(super) struct CDevice {
    pointer: Pointer<BlockDriverState>,
    tables: Arc<Tables>,
}

impl CHost {
    fn device(&self, pointer: Pointer<BlockDriverState>) -> CDevice {
        CDevice { pointer, tables: Arc::clone(&self.0) }
    }
}

impl Host for CHost {
    type Device = CDevice;

    fn devices(&self) -> Vec<CDevice> {
        let ticket = park(Parked::Visit(Vec::new()));
        call!(self.0.bdrv.iterate, Some(visit), ticket);
        match redeem(ticket, |_| true) {
            Some(Parked::Visit(devices)) => devices.into_iter().map(|pointer| self.device(pointer)).collect(),
            _ => Vec::new(),
        }
    }

    fn find(&self, name: &[u8]) -> Option<CDevice> {
        let name = CString::new(name).ok()?;
        NonNull::new(call!(self.0.bdrv.find, name.as_ptr())).map(|bs| self.device(Pointer(bs)))
    }

    fn drain(&self) {
        call!(self.0.bdrv.aio_flush);
    }

    fn wait(&self) -> bool {
        if self.0.bdrv.aio_wait.is_none() {
            return false;
        }
        call!(self.0.bdrv.aio_wait);
        true
    }

    fn threaded(&self) -> bool {
        self.0.threaded
    }

    fn now_ns(&self) -> i64 {
        call!(self.0.system.clock_ns)
    }

    fn max_downtime_ns(&self) -> u64 {
        call!(self.0.system.max_downtime_ns)
    }

    fn ran_short(&self) -> bool {
        reserve::ran_short()
    }

    fn forget_shortage(&self) {
        reserve::ran_short();
    }
}

/// A sector number as C has it; one that does not fit is past the end of any device.
fn c_sector(sector: Sector) -> i64 {
    i64::try_from(sector.0).unwrap_or(i64::MAX)
}

fn c_count(range: Sectors) -> c_int {
    c_int::try_from(range.count).unwrap_or(c_int::MAX)
}

/// What `aio_read` and `aio_write` return: NULL means that the request was not started, even if the host has completed it.
fn accepted(started: *mut c_void, ticket: *mut c_void) -> Result<(), Errno> {
    if started.is_null() {
        drop(redeem(ticket, |_| true));
        return Err(Errno::IO);
    }
    Ok(())
}

impl CDevice {
    fn bs(&self) -> *mut BlockDriverState {
        self.pointer.0.as_ptr()
    }
}

impl Device for CDevice {
    fn name(&self) -> Vec<u8> {
        let name = call!(self.tables.bdrv.get_device_name, self.bs());
        if name.is_null() {
            return Vec::new();
        }
        // SAFETY: the contract: a string that stays valid until the next call into the host. It is copied here.
        unsafe { CStr::from_ptr(name) }.to_bytes().to_vec()
    }

    fn is_same(&self, other: &CDevice) -> bool {
        self.pointer.0 == other.pointer.0
    }

    fn hold(&self) -> Result<(), Errno> {
        if self.tables.bdrv.r#ref.is_none() {
            return Ok(());
        }
        Errno::check(call!(self.tables.bdrv.r#ref, self.bs()).into())
    }

    fn release(&self) {
        if self.tables.bdrv.unref.is_some() {
            call!(self.tables.bdrv.unref, self.bs());
        }
    }

    fn length(&self) -> Result<i64, Errno> {
        let length = call!(self.tables.bdrv.getlength, self.bs());
        Errno::check(length).map(|()| length)
    }

    fn is_read_only(&self) -> bool {
        call!(self.tables.bdrv.is_read_only, self.bs()) != 0
    }

    fn allocated(&self, range: Sectors) -> Result<Extent, Errno> {
        let mut sectors = 0;
        let is =
            call!(self.tables.bdrv.is_allocated, self.bs(), c_sector(range.start), c_count(range), &raw mut sectors);
        Errno::check(is.into()).map(|()| Extent { is: is != 0, sectors: sectors.into() })
    }

    fn known_zero(&self, range: Sectors) -> Option<Extent> {
        self.tables.bdrv.is_zero?;
        let mut sectors = 0;
        let is = call!(self.tables.bdrv.is_zero, self.bs(), c_sector(range.start), c_count(range), &raw mut sectors);
        Some(Extent { is: is == 1, sectors: sectors.into() })
    }

    fn read(&self, request: ReadRequest) -> Result<(), Errno> {
        let (range, buffer) = (request.sectors(), request.as_ptr());
        let ticket = park(Parked::Read(request));
        let (start, count) = (c_sector(range.start), c_count(range));
        let started = call!(self.tables.bdrv.aio_read, self.bs(), start, buffer, count, Some(completed), ticket);
        accepted(started, ticket)
    }

    fn write(&self, start: Sector, data: &[u8]) -> Result<(), Errno> {
        let count = c_int::try_from(data.len() / SECTOR_LEN).map_err(|_| Errno::INVALID)?;
        Errno::check(call!(self.tables.bdrv.write, self.bs(), c_sector(start), data.as_ptr(), count).into())
    }

    fn has_write_async(&self) -> bool {
        self.tables.bdrv.aio_write.is_some()
    }

    fn write_async(&self, request: WriteRequest) -> Result<(), Errno> {
        let (range, data) = (request.sectors(), request.data().as_ptr());
        let ticket = park(Parked::Write(request));
        let (start, count) = (c_sector(range.start), c_count(range));
        let started = call!(self.tables.bdrv.aio_write, self.bs(), start, data, count, Some(completed), ticket);
        accepted(started, ticket)
    }

    fn write_zeroes(&self, range: Sectors) -> Option<Result<(), Errno>> {
        self.tables.bdrv.write_zeroes?;
        let ret = call!(self.tables.bdrv.write_zeroes, self.bs(), c_sector(range.start), c_count(range));
        Some(Errno::check(ret.into()))
    }

    fn has_write_zeroes(&self) -> bool {
        self.tables.bdrv.write_zeroes.is_some()
    }

    fn cluster_bytes(&self) -> Option<u64> {
        self.tables.bdrv.cluster_size?;
        u64::try_from(call!(self.tables.bdrv.cluster_size, self.bs())).ok()
    }

    fn activate(&self) -> Result<(), Errno> {
        if self.tables.bdrv.activate.is_none() {
            return Ok(());
        }
        Errno::check(call!(self.tables.bdrv.activate, self.bs()).into())
    }

    fn flush(&self) -> Result<(), Errno> {
        if self.tables.bdrv.flush.is_none() {
            return Ok(());
        }
        Errno::check(call!(self.tables.bdrv.flush, self.bs()).into())
    }

    fn set_tracking(&self, on: bool) -> Result<(), Errno> {
        Errno::check(call!(self.tables.dirty.set_tracking, self.bs(), c_int::from(on)).into())
    }

    fn is_dirty(&self, sector: Sector) -> bool {
        call!(self.tables.dirty.get, self.bs(), c_sector(sector)) != 0
    }

    fn reset_dirty(&self, range: Sectors) {
        call!(self.tables.dirty.reset, self.bs(), c_sector(range.start), c_count(range));
    }

    fn dirty_chunks(&self) -> Result<u64, Errno> {
        let count = call!(self.tables.dirty.get_count, self.bs());
        Errno::check(count).map(|()| count.unsigned_abs())
    }

    fn next_dirty(&self, from: Sector) -> Option<i64> {
        self.tables.dirty.next?;
        Some(call!(self.tables.dirty.next, self.bs(), c_sector(from)))
    }
}

/// The stream of one call.
pub(super) struct CStream {
    file: Pointer<QEMUFile>,
    tables: Arc<Tables>,
}

impl CStream {
    pub(super) fn new(file: *mut QEMUFile, tables: &Arc<Tables>) -> Result<CStream, Error> {
        let file = NonNull::new(file).ok_or(Error::NullPointer("QEMUFile"))?;
        Ok(CStream { file: Pointer(file), tables: Arc::clone(tables) })
    }

    fn f(&self) -> *mut QEMUFile {
        self.file.0.as_ptr()
    }
}

/// A length as C has it. The engine puts and gets a chunk at most, which fits.
fn c_size(bytes: usize) -> c_int {
    c_int::try_from(bytes).expect("a chunk at most")
}

impl Stream for CStream {
    fn identity(&self) -> usize {
        self.f() as usize
    }

    fn put(&mut self, bytes: &[u8]) {
        call!(self.tables.file.put_buffer, self.f(), bytes.as_ptr(), c_size(bytes.len()));
    }

    fn put_owned(&mut self, buffer: Buffer) -> Result<(), Buffer> {
        if self.tables.file.put_buffer_nocopy.is_none() {
            return Err(buffer);
        }
        let (start, size) = (buffer.as_ptr(), c_size(buffer.len()));
        let ticket = park(Parked::Lent(buffer));
        call!(self.tables.file.put_buffer_nocopy, self.f(), start, size, Some(released), ticket);
        Ok(())
    }

    fn get(&mut self, into: &mut [u8]) -> usize {
        if into.is_empty() {
            return 0;
        }
        let got = call!(self.tables.file.get_buffer, self.f(), into.as_mut_ptr(), c_size(into.len()));
        usize::try_from(got).map_or(0, |got| got.min(into.len()))
    }

    fn is_rate_limited(&mut self) -> bool {
        call!(self.tables.file.rate_limit, self.f()) != 0
    }

    fn rate_limit(&mut self) -> Option<u64> {
        u64::try_from(call!(self.tables.file.get_rate_limit, self.f())).ok().filter(|&limit| limit > 0)
    }

    fn error(&mut self) -> Option<Errno> {
        let error = call!(self.tables.file.has_error, self.f());
        // Some hosts only know that there is one.
        (error != 0).then(|| Errno::from_ret(error.into()).unwrap_or(Errno::IO))
    }

    fn set_error(&mut self, errno: Errno) {
        call!(self.tables.file.set_error, self.f(), errno.ret());
    }

    fn flush(&mut self) {
        if self.tables.file.flush.is_some() {
            call!(self.tables.file.flush, self.f());
        }
    }
}

/// The monitor of one call.
pub(super) struct CMonitor {
    monitor: Pointer<Monitor>,
    tables: Arc<Tables>,
}

impl CMonitor {
    /// `None` where there is nobody to read.
    pub(super) fn new(monitor: *mut Monitor, tables: &Arc<Tables>) -> Option<CMonitor> {
        let monitor = NonNull::new(monitor).filter(|_| tables.monitor.is_some())?;
        Some(CMonitor { monitor: Pointer(monitor), tables: Arc::clone(tables) })
    }
}

impl host::Monitor for CMonitor {
    fn print(&self, text: &str) {
        if let Some(table) = &self.tables.monitor {
            let text = c_text(text);
            call!(table.printf, self.monitor.0.as_ptr(), c"%s".as_ptr(), text.as_ptr());
        }
    }

    fn flush(&self) {
        if let Some(table) = &self.tables.monitor {
            call!(table.flush, self.monitor.0.as_ptr());
        }
    }
}
