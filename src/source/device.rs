// SPDX-License-Identifier: GPL-2.0-only
//! One device on its way out: what it is, and which of its chunks are on their way or were sent. Where to go on is the
//! business of [`BulkWalk`] and [`DirtySearch`].
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use bitvec::vec::BitVec;

use super::bulk::{BulkWalk, LONG_QUESTION_SECTORS, QUESTION_SECTORS, Walked};
use super::disk::{Disk, run};
use super::search::{DirtyMap, DirtySearch, NextDirty};
use crate::device_name::DeviceName;
use crate::error::{Errno, Error};
use crate::geometry::{Chunk, SECTOR_BYTES, Sector, Sectors};
use crate::host::{Device, DeviceRef, known_zeroes};
use crate::settings::{Selection, Settings};
use crate::wire::MAX_NAME;

/// The longest device, in chunks: its bitmaps take two gigabytes. A host that speaks of more has made a mistake.
const MAX_CHUNKS: u64 = 1 << 32;

/// Dirty chunks, or runs of unallocated ones, that the bulk phase passes over in one go, so that a step ends soon.
const MAX_PASSED_OVER: u64 = 1024;

/// Dirty chunks that are counted one by one: no more, so that a step ends soon.
const MAX_COUNTED: u64 = 1024;

/// What is to be sent next.
pub(super) enum ToDo {
    /// A copy of these sectors, of which one chunk has all.
    Copy(CopyToRead),
    /// The host knows that these sectors read as zeroes; the extended stream takes them as one record. What the
    /// guest has written to them since, or writes, makes them dirty, and their dirty bits are left alone.
    Zeroes(Range<u64>),
}

/// Sectors to read and send: a chunk, or with the extended stream what is dirty of one.
pub(super) struct CopyToRead {
    /// Which ones.
    pub(super) sectors: Sectors,
    /// Whether the host was heard to know that they read as zeroes. They were clean then and later, and their
    /// dirty bit is left alone: what the guest writes to them meanwhile makes them dirty.
    known_zero: bool,
    /// How many bytes of them were dirty when they were found.
    dirty: u64,
}

/// A device that migrates.
pub(super) struct SourceDevice<D: Device> {
    /// Whether the host tracks the guest's writes for us.
    tracking: bool,
    /// What it is.
    disk: Disk<D>,
    /// Whether what is dirty is sent alone, and not with the rest of its chunk: the extended stream.
    fine: bool,
    /// Bytes that are on their way.
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
    /// The sectors of the dirty chunk that it has come to which have not been looked at.
    rest: Range<u64>,
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
        let sent = bitmap(chunks).ok_or_else(no_memory)?;
        let owed = bitmap(chunks).ok_or_else(no_memory)?;
        let found_before = bitmap(chunks).ok_or_else(no_memory)?;
        Ok(Some(SourceDevice {
            tracking: false,
            disk: Disk {
                device,
                name,
                geometry,
                total,
                chunks,
                unit: geometry.sectors_per_chunk(),
                on_their_way: BTreeMap::new(),
            },
            fine: settings.extended,
            bytes_on_their_way: 0,
            sent,
            owed,
            bulk: BulkWalk::new(geometry, total, settings.shared_base),
            search: DirtySearch::new(chunks, found_before),
            rest: 0..0,
            reads: 0,
        }))
    }

    pub(super) fn start_tracking(&mut self) -> Result<(), Error> {
        self.disk.device.set_tracking(true).map_err(|errno| self.failed("track the writes to", errno))?;
        self.tracking = true;
        let Some(unit) = self.disk.device.dirty_unit() else { return Ok(()) };
        let most = self.disk.geometry.chunk_bytes() as u64;
        let good = |unit: &u64| unit.is_power_of_two() && *unit >= SECTOR_BYTES && *unit <= most && most % unit == 0;
        let bytes = u64::try_from(unit).ok().filter(good);
        let bytes = bytes.ok_or_else(|| Error::DirtyUnit { device: self.name().clone(), unit, most })?;
        self.disk.unit = u32::try_from(bytes / SECTOR_BYTES).expect("a chunk at most");
        Ok(())
    }

    /// Bytes that one bit of its dirty tracking stands for.
    pub(super) fn unit_bytes(&self) -> u32 {
        self.disk.unit * u32::try_from(SECTOR_BYTES).expect("512")
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

    /// Moves the bulk phase on: the bytes that it passed over, since they need not be sent, and what it came to.
    /// Nothing does not mean the end: see [`bulk_done`](Self::bulk_done).
    pub(super) fn next_bulk(&mut self) -> Result<(u64, Option<ToDo>), Error> {
        let mut passed = 0;
        for _ in 0..MAX_PASSED_OVER {
            let Walked { skipped, chunk } = self.bulk.step(|range| self.disk.device.allocated(range));
            passed += self.disk.geometry.bytes(skipped.clone(), self.disk.total);
            self.sent[index(Chunk(skipped.start))..index(Chunk(skipped.end))].fill(true);
            let Some(chunk) = chunk else { break };
            let sectors = self.sectors(chunk);
            if self.fine && self.bulk.is_known_zero(chunk) {
                let end = self.bulk.skip_zeroes();
                return Ok((passed, Some(ToDo::Zeroes(sectors.start.0..end.0.min(self.disk.total)))));
            }
            let dirty = self.disk.dirty_bytes_in(sectors.range())?;
            if !self.comes_again(sectors, dirty) {
                let known_zero = self.bulk.is_known_zero(chunk);
                return Ok((passed, Some(ToDo::Copy(CopyToRead { sectors, known_zero, dirty }))));
            }
            self.owed.set(index(chunk), true);
        }
        Ok((passed, None))
    }

    /// Whether sectors with so many dirty bytes will all be sent in the dirty phase, so that sending them now
    /// would be in vain: a chunk that is dirty, or with the extended stream dirty all over.
    fn comes_again(&self, sectors: Sectors, dirty: u64) -> bool {
        if self.fine {
            sectors == self.sectors(self.disk.geometry.chunk_of(sectors.start)) && dirty == sectors.bytes() as u64
        } else {
            dirty > 0
        }
    }

    /// Whether a copy need not be sent, since all of it is dirty again. Ask it after [`end_copy`](Self::end_copy).
    pub(super) fn is_in_vain(&self, sectors: Sectors) -> Result<bool, Error> {
        Ok(self.comes_again(sectors, self.disk.dirty_bytes_in(sectors.range())?))
    }

    /// Begins a search for dirty chunks: of all of them, or as far as one step goes.
    pub(super) fn begin_search(&mut self, all: bool) -> Result<(), Error> {
        let dirty = self.dirty_units()?.min(self.disk.chunks);
        self.search.begin(dirty, all);
        Ok(())
    }

    /// Whether there may be a chunk to read.
    pub(super) fn has_work(&self) -> bool {
        !self.bulk_done() || !self.rest.is_empty() || self.search.has_work()
    }

    /// What is dirty and to be read next: a chunk, or with the extended stream the next dirty run of one.
    pub(super) fn next_dirty(&mut self) -> Result<Option<ToDo>, Error> {
        loop {
            if let Some(run) = self.next_run()? {
                return Ok(Some(run));
            }
            let Some(chunk) = self.search.next(&self.disk)? else { return Ok(None) };
            let sectors = self.sectors(chunk);
            // What the bulk phase has left to this one was all dirty, and must be sent whole.
            if !self.fine || self.owed[index(chunk)] {
                let dirty = sectors.bytes() as u64;
                return Ok(Some(ToDo::Copy(CopyToRead { sectors, known_zero: false, dirty })));
            }
            self.rest = sectors.range();
        }
    }

    /// The next dirty run of the chunk that the search has come to.
    fn next_run(&mut self) -> Result<Option<ToDo>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some(mut found) = self.disk.first_dirty(self.rest.clone())? else {
            self.rest = 0..0;
            return Ok(None);
        };
        let rest = self.disk.units(found.end..self.rest.end);
        let more = rest.take_while(|unit| self.disk.device.is_dirty(Sector(unit.start)));
        found.end = more.last().map_or(found.end, |unit| unit.end);
        self.rest.start = found.end;
        let dirty = (found.end - found.start) * SECTOR_BYTES;
        Ok(Some(ToDo::Copy(CopyToRead { sectors: run(&found), known_zero: false, dirty })))
    }

    pub(super) fn dirty_units(&self) -> Result<u64, Error> {
        self.disk.device.dirty_units().map_err(|errno| self.failed("count the dirty chunks of", errno))
    }

    /// Bytes to send for what is dirty: whole chunks with the classic stream, dirty units with the extended one.
    pub(super) fn dirty_bytes(&self) -> Result<u64, Error> {
        let unit = if self.fine { self.disk.unit } else { self.disk.geometry.sectors_per_chunk() };
        let units = self.disk.total.div_ceil(unit.into());
        let tail = (units - 1) * u64::from(unit)..self.disk.total;
        let padding = u64::from(unit) - (tail.end - tail.start);
        // Before they are counted: a tail that the guest dirties in between is then counted as too long, not as
        // too short.
        let dirty_tail = padding > 0 && self.disk.first_dirty(tail)?.is_some();
        let dirty = if unit == self.disk.unit { self.dirty_units()? } else { self.dirty_chunks()? };
        let counted = dirty.min(units) * u64::from(unit);
        Ok(counted.saturating_sub(if dirty_tail { padding } else { 0 }) * SECTOR_BYTES)
    }

    /// Chunks of which something is dirty, where the host counts smaller units. The first ones are counted, and of
    /// what comes after them there are as many as there can be.
    fn dirty_chunks(&self) -> Result<u64, Error> {
        let most = self.dirty_units()?;
        let (mut found, mut from) = (0, Chunk(0));
        while found < most.min(MAX_COUNTED) && from.0 < self.disk.chunks {
            match self.disk.next_dirty(from)? {
                NextDirty::Chunk(chunk) => (found, from) = (found + 1, Chunk(chunk.0 + 1)),
                NextDirty::End => return Ok(found),
                NextDirty::Unsupported => return Ok(most),
            }
        }
        Ok(found + (most - found).min(self.disk.chunks.saturating_sub(from.0)))
    }

    /// Every byte that the destination still lacks, `dirty` of them in dirty chunks. Chunks that are dirty and
    /// not yet read by the bulk phase, or on their way, count twice, but never for more than the device.
    pub(super) fn remaining_bytes(&self, dirty: u64) -> u64 {
        (self.bulk.remaining_bytes() + self.bytes_on_their_way + dirty).min(self.total_bytes())
    }

    /// A copy is on its way from now on. Clears its dirty bits, before anything of it is read: what the guest
    /// writes after this makes it dirty again. Returns how many dirty bytes those were.
    pub(super) fn begin_copy(&mut self, copy: &CopyToRead) -> u64 {
        *self.disk.on_their_way.entry(self.disk.geometry.chunk_of(copy.sectors.start)).or_default() += 1;
        self.bytes_on_their_way += copy.sectors.bytes() as u64;
        if copy.known_zero {
            return 0;
        }
        self.disk.device.reset_dirty(copy.sectors);
        copy.dirty
    }

    /// The copy was put into the stream, or was [dropped](Self::drop_copy).
    pub(super) fn end_copy(&mut self, sectors: Sectors) {
        let chunk = self.disk.geometry.chunk_of(sectors.start);
        if let Some(copies) = self.disk.on_their_way.get_mut(&chunk) {
            *copies -= 1;
            if *copies == 0 {
                self.disk.on_their_way.remove(&chunk);
            }
        }
        self.bytes_on_their_way -= sectors.bytes() as u64;
    }

    /// Zeroes are on their way from now on. No copy of theirs can overtake them: one that is read later is sent later.
    pub(super) fn begin_zeroes(&mut self, sectors: &Range<u64>) {
        self.bytes_on_their_way += (sectors.end - sectors.start) * SECTOR_BYTES;
    }

    /// They were put into the stream.
    pub(super) fn end_zeroes(&mut self, sectors: &Range<u64>) {
        self.bytes_on_their_way -= (sectors.end - sectors.start) * SECTOR_BYTES;
    }

    /// The chunk, whose copy has just ended, is not sent now, since it is dirty again.
    pub(super) fn drop_copy(&mut self, sectors: Sectors) {
        self.owed.set(index(self.disk.geometry.chunk_of(sectors.start)), true);
    }

    /// These sectors were sent. Returns the bytes in chunks that were sent for the first time.
    pub(super) fn mark_sent(&mut self, sectors: &Range<u64>) -> u64 {
        let geometry = self.disk.geometry;
        let first = sectors.start.div_ceil(geometry.sectors_per_chunk().into());
        let end =
            if sectors.end == self.disk.total { self.disk.chunks } else { geometry.chunk_of(Sector(sectors.end)).0 };
        // Less than a chunk counts for nothing: it is sent again because it was written to.
        let mut new = 0;
        for chunk in first..end {
            let at = index(Chunk(chunk));
            if !self.sent.replace(at, true) {
                new += geometry.bytes(chunk..chunk + 1, self.disk.total);
            }
            self.owed.set(at, false);
        }
        new
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

    /// Whether the host knows that a copy reads as zeroes. Ask it after [`begin_copy`](Self::begin_copy), for
    /// the reason given there.
    pub(super) fn is_known_zero(&mut self, copy: &CopyToRead) -> bool {
        if copy.known_zero {
            return true;
        }
        let most = if self.fine { LONG_QUESTION_SECTORS } else { QUESTION_SECTORS };
        let ask = |at: u64| (self.disk.total - at).min(most);
        let wanted = copy.sectors;
        let Some(end) = known_zeroes(self.device(), wanted.start, wanted.end(), ask) else { return false };
        self.bulk.note_zeroes(self.disk.geometry.chunk_of(wanted.start), end);
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
