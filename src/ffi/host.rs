// SPDX-License-Identifier: GPL-2.0-only
//! The host's block layer and dirty tracking, as the engine's [`Host`] and [`Device`].

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::sync::Arc;

use libc::{c_int, c_void};

use super::callbacks::{completed, visit};
use super::checked_tables::{Tables, call};
use super::pointer::Pointer;
use super::reserve;
use super::tables::BlockDriverState;
use super::tickets::{Parked, park, redeem};
use crate::device_name::DeviceName;
use crate::error::Errno;
use crate::geometry::{SECTOR_LEN, Sector, Sectors};
use crate::host::{Device, Extent, Host};
use crate::request::{ReadRequest, WriteRequest};

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

    fn find(&self, name: &DeviceName) -> Option<CDevice> {
        let name = CString::new(name.as_bytes()).ok()?;
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

/// What `aio_read` and `aio_write` return: NULL means that the request was not started, even if the host has
/// completed it.
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
    fn name(&self) -> DeviceName {
        let name = call!(self.tables.bdrv.get_device_name, self.bs());
        if name.is_null() {
            return DeviceName::from("");
        }
        // SAFETY: the contract: a string that stays valid until the next call into the host. It is copied here.
        DeviceName::from(unsafe { CStr::from_ptr(name) }.to_bytes())
    }

    fn is_same(&self, other: &CDevice) -> bool {
        self.pointer.0 == other.pointer.0
    }

    fn take_ref(&self) -> Result<(), Errno> {
        if self.tables.bdrv.r#ref.is_none() {
            return Ok(());
        }
        Errno::check(call!(self.tables.bdrv.r#ref, self.bs()).into())
    }

    fn drop_ref(&self) {
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
        let ret =
            call!(self.tables.bdrv.is_allocated, self.bs(), c_sector(range.start), c_count(range), &raw mut sectors);
        Errno::check(ret.into()).map(|()| Extent { holds: ret != 0, sectors: sectors.into() })
    }

    fn known_zero(&self, range: Sectors) -> Option<Extent> {
        self.tables.bdrv.is_zero?;
        let mut sectors = 0;
        let ret = call!(self.tables.bdrv.is_zero, self.bs(), c_sector(range.start), c_count(range), &raw mut sectors);
        Some(Extent { holds: ret == 1, sectors: sectors.into() })
    }

    fn read(&self, request: ReadRequest) -> Result<(), Errno> {
        let (range, buffer) = (request.sectors(), request.as_ptr());
        let ticket = park(Parked::Read { request, clock: self.tables.system.clock_ns });
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

    fn dirty_unit(&self) -> Option<i64> {
        self.tables.dirty.granularity?;
        Some(call!(self.tables.dirty.granularity, self.bs()))
    }

    fn dirty_units(&self) -> Result<u64, Errno> {
        let count = call!(self.tables.dirty.get_count, self.bs());
        Errno::check(count).map(|()| count.unsigned_abs())
    }

    fn next_dirty(&self, from: Sector) -> Option<i64> {
        self.tables.dirty.next?;
        Some(call!(self.tables.dirty.next, self.bs(), c_sector(from)))
    }
}
