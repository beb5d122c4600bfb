// SPDX-License-Identifier: GPL-2.0-only
//! One device on its way out: what it is, and which of its chunks are on their way or were sent. Where to go on is the
//! business of [`BulkWalk`] and [`DirtySearch`].
#![forbid(unsafe_code)]

use bitvec::vec::BitVec;

use super::bulk::{BulkWalk, QUESTION_SECTORS, Walked};
use super::search::{DirtyMap, DirtySearch, NextDirty};
use crate::device_name::DeviceName;
use crate::error::{Errno, Error};
use crate::geometry::{Chunk, Geometry, SECTOR_BYTES, Sector, Sectors};
use crate::host::{Device, DeviceRef, known_zeroes};
use crate::settings::{Selection, Settings};
use crate::wire::MAX_NAME;

/// The longest device, in chunks: its bitmaps take two gigabytes. A host that speaks of more has made a mistake.
const MAX_CHUNKS: u64 = 1 << 32;

/// Dirty chunks, or runs of unallocated ones, that the bulk phase passes over in one go, so that a step ends soon.
const MAX_PASSED_OVER: u64 = 1024;

/// A chunk to read and send.
pub(super) struct ChunkToRead {
    /// Its number on the device.
    pub(super) chunk: Chunk,
    /// Whether the host was heard to know that it reads as zeroes. It was clean then and later, and its dirty
    /// bit is left alone: what the guest writes to it meanwhile makes it dirty.
    known_zero: bool,
}

/// What a device is, apart from the state of its migration.
struct Disk<D: Device> {
    /// The host's device, which stays as long as this.
    device: DeviceRef<D>,
    /// As it was at setup.
    name: DeviceName,
    /// How it is cut into chunks.
    geometry: Geometry,
    /// Its length in sectors at setup.
    total: u64,
    /// Its length in chunks, the last of which may be short.
    chunks: u64,
    /// Chunks of which a copy is being read or waits to be sent: at most one at a time, so that no older copy
    /// overtakes.
    on_their_way: BitVec,
}

/// A device that migrates.
pub(super) struct SourceDevice<D: Device> {
    /// Whether the host tracks the guest's writes for us.
    tracking: bool,
    /// What it is.
    disk: Disk<D>,
    /// Bytes in chunks that are on their way.
    bytes_on_their_way: u64,
    /// Chunks that were sent once, or need not be.
    sent: BitVec,
    /// Chunks that were passed over because they were dirty, so that they are sent later. A host that says of
    /// such a chunk that it is not dirty any more must not make anyone believe that all was sent.
    owed: BitVec,
    /// Where the bulk phase is.
    bulk: BulkWalk,
    /// Where the search for dirty chunks is.
    search: DirtySearch,
    /// Reads in flight.
    pub(super) reads: usize,
}

/// Why a device is no part of a migration.
type LeftOut = &'static str;

/// A device that migrates, with its length in bytes; or why it does not.
fn take_in<D: Device>(
    device: D,
    name: &DeviceName,
    selection: &Selection,
) -> Result<Result<(DeviceRef<D>, i64), LeftOut>, Error> {
    if !selection.includes(name) {
        return Ok(Err("it was not chosen"));
    }
    if device.is_read_only() {
        return Ok(Err("it is read-only"));
    }
    let failed = |why, errno| Error::Device { device: name.clone(), why, errno };
    let length = match device.length() {
        Ok(0) => return Ok(Err("its length is 0")),
        Ok(length) => length,
        Err(errno) if errno.means_empty() => return Ok(Err("it is empty")),
        Err(errno) => return Err(failed("get the length of", errno)),
    };
    match DeviceRef::new(device) {
        Ok(device) => Ok(Ok((device, length))),
        Err(errno) if errno.means_empty() => Ok(Err("there is nothing behind it")),
        Err(errno) => Err(failed("take a reference to", errno)),
    }
}

/// Fails if a device that was left out at setup would migrate now.
pub(super) fn check_left_out<D: Device>(device: D, selection: &Selection) -> Result<(), Error> {
    let name = device.name();
    if take_in(device, &name, selection)?.is_ok() { Err(Error::Appeared(name)) } else { Ok(()) }
}

fn bitmap(bits: u64) -> Option<BitVec> {
    let words = usize::try_from(bits.div_ceil(u64::from(usize::BITS))).ok()?;
    let mut storage: Vec<usize> = Vec::new();
    storage.try_reserve_exact(words).ok()?;
    storage.resize(words, 0);
    BitVec::try_from_vec(storage).ok()
}

fn index(chunk: Chunk) -> usize {
    usize::try_from(chunk.0).expect("a bitmap of this size was allocated")
}

impl<D: Device> DirtyMap for Disk<D> {
    fn next_dirty(&self, from: Chunk) -> Result<NextDirty, Error> {
        let sector = self.geometry.start(from);
        match self.device.next_dirty(sector) {
            None => Ok(NextDirty::Unsupported),
            Some(answer) if answer < 0 => Ok(NextDirty::End),
            Some(answer) if (sector.0..self.total).contains(&answer.unsigned_abs()) => {
                Ok(NextDirty::Chunk(self.geometry.chunk_of(Sector(answer.unsigned_abs()))))
            }
            Some(answer) => Err(Error::DirtyTracking { device: self.name.clone(), sector: sector.0, answer }),
        }
    }

    fn is_dirty(&self, chunk: Chunk) -> bool {
        self.device.is_dirty(self.geometry.start(chunk))
    }

    fn is_on_its_way(&self, chunk: Chunk) -> bool {
        self.on_their_way[index(chunk)]
    }
}

impl<D: Device> SourceDevice<D> {
    /// Takes a device in, or `None` if it was not chosen or there is nothing in it to migrate: read-only,
    /// empty, or with nothing behind it.
    pub(super) fn new(
        device: D,
        name: DeviceName,
        settings: &Settings,
        selection: &Selection,
    ) -> Result<Option<SourceDevice<D>>, Error> {
        let (device, length) = match take_in(device, &name, selection)? {
            Ok(taken) => taken,
            Err(reason) => {
                log::info!("device {name} is not migrated: {reason}");
                return Ok(None);
            }
        };
        let geometry = settings.geometry;
        let bytes = name.as_bytes().len();
        if !(1..=MAX_NAME).contains(&bytes) {
            return Err(Error::NameLength { device: name, length: bytes });
        }
        let total = u64::try_from(length).ok().filter(|bytes| bytes % SECTOR_BYTES == 0);
        let Some(total) = total.map(|bytes| bytes / SECTOR_BYTES) else {
            return Err(Error::OddLength { device: name, length });
        };
        let chunks = geometry.chunks(total);
        if chunks > MAX_CHUNKS {
            return Err(Error::TooLong { device: name, length });
        }
        let no_memory = || Error::NoMemory(format!("the bitmaps of device {name}"));
        let on_their_way = bitmap(chunks).ok_or_else(no_memory)?;
        let sent = bitmap(chunks).ok_or_else(no_memory)?;
        let owed = bitmap(chunks).ok_or_else(no_memory)?;
        let found_before = bitmap(chunks).ok_or_else(no_memory)?;
        Ok(Some(SourceDevice {
            tracking: false,
            disk: Disk { device, name, geometry, total, chunks, on_their_way },
            bytes_on_their_way: 0,
            sent,
            owed,
            bulk: BulkWalk::new(geometry, total, settings.shared_base),
            search: DirtySearch::new(chunks, found_before),
            reads: 0,
        }))
    }

    pub(super) fn start_tracking(&mut self) -> Result<(), Error> {
        self.disk.device.set_tracking(true).map_err(|errno| self.failed("track the writes to", errno))?;
        self.tracking = true;
        Ok(())
    }

    fn failed(&self, why: &'static str, errno: Errno) -> Error {
        Error::Device { device: self.name().clone(), why, errno }
    }

    /// Why a read failed: what happened to the device itself says more than an I/O error.
    pub(super) fn read_failed(&self, sector: Sector, errno: Errno) -> Error {
        match self.check_length() {
            Err(error) if error.errno() != Errno::IO => error,
            _ => Error::Read { device: self.name().clone(), sector: sector.0, errno },
        }
    }

    pub(super) fn device(&self) -> &D {
        &self.disk.device
    }

    pub(super) fn name(&self) -> &DeviceName {
        &self.disk.name
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.disk.total * SECTOR_BYTES
    }

    pub(super) fn sectors(&self, chunk: Chunk) -> Sectors {
        self.disk.geometry.sectors(chunk, self.disk.total)
    }

    pub(super) fn bulk_done(&self) -> bool {
        self.bulk.is_done()
    }

    /// Moves the bulk phase on: the bytes that it passed over, since they need not be sent, and the chunk that
    /// it came to. No chunk does not mean the end: see [`bulk_done`](Self::bulk_done).
    pub(super) fn next_bulk(&mut self) -> (u64, Option<ChunkToRead>) {
        let mut passed = 0;
        for _ in 0..MAX_PASSED_OVER {
            let Walked { skipped, chunk } = self.bulk.step(|range| self.disk.device.allocated(range));
            passed += self.disk.geometry.bytes(skipped.clone(), self.disk.total);
            self.sent[index(Chunk(skipped.start))..index(Chunk(skipped.end))].fill(true);
            let Some(chunk) = chunk else { break };
            // What the guest has written to is left to the dirty phase: sent now, it might have to be sent again.
            if !self.is_dirty(chunk) {
                return (passed, Some(ChunkToRead { chunk, known_zero: self.bulk.is_known_zero(chunk) }));
            }
            self.owed.set(index(chunk), true);
        }
        (passed, None)
    }

    /// Begins a search for dirty chunks: of all of them, or as far as one step goes.
    pub(super) fn begin_search(&mut self, all: bool) -> Result<(), Error> {
        let dirty = self.dirty_chunks()?.min(self.disk.chunks);
        self.search.begin(dirty, all);
        Ok(())
    }

    /// Whether there may be a chunk to read.
    pub(super) fn has_work(&self) -> bool {
        !self.bulk_done() || self.search.has_work()
    }

    /// The next dirty chunk to read.
    pub(super) fn next_dirty(&mut self) -> Result<Option<ChunkToRead>, Error> {
        let chunk = self.search.next(&self.disk)?;
        Ok(chunk.map(|chunk| ChunkToRead { chunk, known_zero: false }))
    }

    pub(super) fn is_dirty(&self, chunk: Chunk) -> bool {
        self.disk.is_dirty(chunk)
    }

    pub(super) fn dirty_chunks(&self) -> Result<u64, Error> {
        self.disk.device.dirty_chunks().map_err(|errno| self.failed("count the dirty chunks of", errno))
    }

    /// Bytes in dirty chunks.
    pub(super) fn dirty_bytes(&self) -> Result<u64, Error> {
        let chunk_bytes = self.disk.geometry.chunk_bytes() as u64;
        let tail = Chunk(self.disk.chunks - 1);
        let padding = chunk_bytes - self.sectors(tail).bytes() as u64;
        // Before they are counted: a tail that the guest dirties in between is then counted as too long, not as
        // too short.
        let dirty_tail = padding > 0 && self.is_dirty(tail);
        let counted = self.dirty_chunks()?.min(self.disk.chunks) * chunk_bytes;
        Ok(counted.saturating_sub(if dirty_tail { padding } else { 0 }))
    }

    /// Every byte that the destination still lacks, `dirty` of them in dirty chunks. Chunks that are dirty and
    /// not yet read by the bulk phase, or on their way, count twice, but never for more than the device.
    pub(super) fn remaining_bytes(&self, dirty: u64) -> u64 {
        (self.bulk.remaining_bytes() + self.bytes_on_their_way + dirty).min(self.total_bytes())
    }

    /// A copy of the chunk is on its way from now on. Clears its dirty bit, before anything of it is read: what
    /// the guest writes after this makes it dirty again.
    pub(super) fn begin_copy(&mut self, found: &ChunkToRead) {
        let sectors = self.sectors(found.chunk);
        self.disk.on_their_way.set(index(found.chunk), true);
        self.bytes_on_their_way += sectors.bytes() as u64;
        if !found.known_zero {
            self.disk.device.reset_dirty(sectors);
        }
    }

    /// The copy was put into the stream, or was [dropped](Self::drop_copy).
    pub(super) fn end_copy(&mut self, chunk: Chunk) {
        self.disk.on_their_way.set(index(chunk), false);
        self.bytes_on_their_way -= self.sectors(chunk).bytes() as u64;
    }

    /// The chunk, whose copy has just ended, is not sent now, since it is dirty again.
    pub(super) fn drop_copy(&mut self, chunk: Chunk) {
        self.owed.set(index(chunk), true);
    }

    /// The chunk was sent; whether that was for the first time.
    pub(super) fn mark_sent(&mut self, chunk: Chunk) -> bool {
        self.owed.set(index(chunk), false);
        !self.sent.replace(index(chunk), true)
    }

    /// Bytes in chunks that were passed over and have not been sent since.
    pub(super) fn owed_bytes(&self) -> u64 {
        self.owed.iter_ones().map(|chunk| self.sectors(Chunk(chunk as u64)).bytes() as u64).sum()
    }

    /// Fails if the device no longer has the length that it had at setup: what was added, or taken away and
    /// added again, would be lost.
    pub(super) fn check_length(&self) -> Result<(), Error> {
        let is = self.disk.device.length().map_err(|errno| self.failed("get the length of", errno))?;
        let was = self.total_bytes();
        if u64::try_from(is) == Ok(was) { Ok(()) } else { Err(Error::Resized { device: self.name().clone(), was, is }) }
    }

    /// Whether the host knows that a chunk reads as zeroes. Ask it after [`begin_copy`](Self::begin_copy), for
    /// the reason given there.
    pub(super) fn is_known_zero(&mut self, found: &ChunkToRead) -> bool {
        if found.known_zero {
            return true;
        }
        let wanted = self.sectors(found.chunk);
        let ask = |at: u64| (self.disk.total - at).min(QUESTION_SECTORS);
        let Some(end) = known_zeroes(self.device(), wanted.start, wanted.end(), ask) else { return false };
        self.bulk.note_zeroes(found.chunk, end);
        true
    }
}

impl<D: Device> Drop for SourceDevice<D> {
    fn drop(&mut self) {
        if self.tracking {
            if let Err(errno) = self.disk.device.set_tracking(false) {
                log::warn!("can't end the tracking of writes to device {}: {errno}", self.name());
            }
        }
    }
}
