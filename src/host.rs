// SPDX-License-Identifier: GPL-2.0-only
//! The one seam: what the engine needs from a hypervisor.
//!
//! `ffi/` makes these traits of the C tables; the simulator in `tests/` makes them of nothing at all. Every
//! method is called on the thread that called into the engine, and none while a lock of the engine is held, so
//! a host may call back.
#![forbid(unsafe_code)]

use crate::buffers::Buffer;
use crate::device_name::DeviceName;
use crate::error::{Errno, Error};
use crate::geometry::{Sector, Sectors};
use crate::request::{ReadRequest, WriteRequest};

/// A hypervisor. Here and below, what a host may leave out has a default.
pub trait Host {
    /// A block device's handle.
    type Device: Device;

    /// Every device once, in the host's order.
    fn devices(&self) -> Vec<Self::Device>;

    /// The device of that name.
    fn find(&self, name: &DeviceName) -> Option<Self::Device>;

    /// Returns when no request is in flight any more: each has been completed.
    fn drain(&self);

    /// Completes at least one request; called only with one in flight. `false` if the host knows no such call.
    fn wait(&self) -> bool {
        false
    }

    /// Whether completions come by themselves, on another thread, so that the engine may block for one.
    fn threaded(&self) -> bool {
        false
    }

    /// A monotonic clock, in nanoseconds.
    fn now_ns(&self) -> i64;

    /// How long the guest may stand still at the end, in nanoseconds.
    fn max_downtime_ns(&self) -> u64;

    /// Whether memory ran short since this was last asked, so that the migration should end while it still can.
    fn ran_short(&self) -> bool {
        false
    }

    /// A shortage that nobody has asked about yet is another migration's.
    fn forget_shortage(&self) {}

    /// Fails if memory ran short.
    ///
    /// # Errors
    /// [`Error::RanShort`].
    fn check_memory(&self) -> Result<(), Error> {
        if self.ran_short() { Err(Error::RanShort) } else { Ok(()) }
    }
}

/// What a host says of the sectors at the start of a range: the engine checks it before it believes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Whether what was asked (allocated, zero) holds for them.
    pub holds: bool,
    /// How many sectors the answer is about.
    pub sectors: i64,
}

/// A block device of the host.
pub trait Device {
    /// Its name.
    fn name(&self) -> DeviceName;

    /// Whether both stand for one device, the writes to which are tracked as those to one.
    fn is_same(&self, other: &Self) -> bool;

    /// Keeps the device from going away until [`drop_ref`](Device::drop_ref).
    ///
    /// # Errors
    /// The host's error; see [`Errno::means_empty`].
    fn take_ref(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Undoes one [`take_ref`](Device::take_ref).
    fn drop_ref(&self) {}

    /// The length in bytes.
    ///
    /// # Errors
    /// The host's error; see [`Errno::means_empty`].
    fn length(&self) -> Result<i64, Errno>;

    /// Whether it can't be written to.
    fn is_read_only(&self) -> bool;

    /// Whether the start of the range is in the device's own image rather than in its backing file.
    ///
    /// # Errors
    /// The host's error.
    fn allocated(&self, range: Sectors) -> Result<Extent, Errno>;

    /// Whether the start of the range is known to read as zeroes without reading it; `None` if the host can't tell.
    fn known_zero(&self, _range: Sectors) -> Option<Extent> {
        None
    }

    /// Starts the read that the request describes: it is completed before this returns, or later, on any thread.
    ///
    /// # Errors
    /// If it could not be started, and the request was dropped.
    fn read(&self, request: ReadRequest) -> Result<(), Errno>;

    /// Writes, and returns when that is done.
    ///
    /// # Errors
    /// The host's error.
    fn write(&self, start: Sector, data: &[u8]) -> Result<(), Errno>;

    /// Whether there is [`write_async`](Device::write_async).
    fn has_write_async(&self) -> bool {
        false
    }

    /// Starts the write that the request describes, as [`read`](Device::read).
    ///
    /// # Errors
    /// If it could not be started, and the request was dropped.
    fn write_async(&self, _request: WriteRequest) -> Result<(), Errno> {
        Err(Errno::NOT_SUPPORTED)
    }

    /// Makes the range read as zeroes; `None` if the host has no better way than to write them.
    fn write_zeroes(&self, _range: Sectors) -> Option<Result<(), Errno>> {
        None
    }

    /// Whether there is [`write_zeroes`](Device::write_zeroes), so that looking for zeroes in the data is worth it.
    fn has_write_zeroes(&self) -> bool {
        false
    }

    /// The size in bytes of the units in which the device's image allocates, if there is one.
    fn cluster_bytes(&self) -> Option<u64> {
        None
    }

    /// Makes an incoming device ready for writes.
    ///
    /// # Errors
    /// The host's error.
    fn activate(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Returns when what was written is on stable storage.
    ///
    /// # Errors
    /// The host's error.
    fn flush(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Starts, with nothing dirty, or ends the tracking of the guest's writes.
    ///
    /// # Errors
    /// The host's error.
    fn set_tracking(&self, on: bool) -> Result<(), Errno>;

    /// The bytes that one dirty bit stands for, if that is less than a chunk; asked once tracking has started.
    fn dirty_unit(&self) -> Option<i64> {
        None
    }

    /// Whether the unit of dirty tracking that holds this sector, a chunk or less, is dirty.
    fn is_dirty(&self, sector: Sector) -> bool;

    /// Makes the units that hold these sectors clean.
    fn reset_dirty(&self, range: Sectors);

    /// How many units are dirty.
    ///
    /// # Errors
    /// The host's error.
    fn dirty_units(&self) -> Result<u64, Errno>;

    /// The first dirty sector at or after this one, below 0 for none; `None` if the host can only answer
    /// [`is_dirty`](Device::is_dirty).
    fn next_dirty(&self, _from: Sector) -> Option<i64> {
        None
    }
}

/// Up to which sector the device is known to read as zeroes from `start` on, if that is as far as `end`. It is
/// asked for `ask(sector)` sectors at a time, since its answers may be shorter than the questions.
pub(crate) fn known_zeroes(
    device: &impl Device,
    start: Sector,
    end: Sector,
    ask: impl Fn(u64) -> u64,
) -> Option<Sector> {
    let mut known = start.0;
    while known < end.0 {
        let asked = ask(known);
        let range = Sectors { start: Sector(known), count: u32::try_from(asked).expect("a question fits u32") };
        match device.known_zero(range) {
            Some(Extent { holds: true, sectors }) if sectors > 0 => known += sectors.unsigned_abs().min(asked),
            _ => return None,
        }
    }
    Some(Sector(known))
}

/// The host's migration stream: one direction of it.
pub trait Stream {
    /// A number that no other open stream of the host has.
    fn identity(&self) -> usize {
        0
    }

    /// Appends these bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Appends the first `bytes` of a buffer without copying them; the stream drops it when they have been sent. Gives
    /// it back if the host can't.
    ///
    /// # Errors
    /// The buffer.
    fn put_owned(&mut self, buffer: Buffer, _bytes: usize) -> Result<(), Buffer> {
        Err(buffer)
    }

    /// Fills `into`; returns the bytes got, fewer at the end of the stream.
    fn get(&mut self, into: &mut [u8]) -> usize;

    /// Whether no more should be sent in this step.
    fn is_rate_limited(&mut self) -> bool;

    /// Bytes a step, if there is a limit.
    fn rate_limit(&mut self) -> Option<u64>;

    /// The stream's error, if it has failed.
    fn error(&mut self) -> Option<Errno>;

    /// Marks it as failed.
    fn set_error(&mut self, errno: Errno);

    /// Sends what is buffered.
    fn flush(&mut self) {}
}

/// Where the source's user reads.
pub trait Monitor {
    /// Prints this text.
    fn print(&self, text: &str);

    /// Shows what was printed.
    fn flush(&self);
}

/// A reference to a device, which stays until this is dropped.
pub(crate) struct DeviceRef<D: Device>(D);

impl<D: Device> DeviceRef<D> {
    pub(crate) fn new(device: D) -> Result<DeviceRef<D>, Errno> {
        device.take_ref().map(|()| DeviceRef(device))
    }
}

impl<D: Device> Drop for DeviceRef<D> {
    fn drop(&mut self) {
        self.0.drop_ref();
    }
}

impl<D: Device> std::ops::Deref for DeviceRef<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.0
    }
}
