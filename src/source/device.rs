// SPDX-License-Identifier: GPL-2.0-only
//! One device on its way out: what the bulk phase has not come to, what is in flight, where to look for dirty chunks.
#![forbid(unsafe_code)]

use bitvec::vec::BitVec;

use crate::error::{Errno, Error};
use crate::geometry::{Chunk, Geometry, SECTOR_BYTES, Sector, Sectors};
use crate::host::{Device, Extent, Held, known_zeroes};
use crate::wire::MAX_NAME;

/// Sectors that one question about allocation, or about zeroes, covers, as the original asked the former.
const ALLOCATION_STEP: u64 = 65536;

/// The longest device, in chunks: its bitmaps take a gigabyte. A host that speaks of more has made a mistake.
const MAX_CHUNKS: u64 = 1 << 32;

/// Chunks that one search for dirty ones looks at, where the host can only say whether one is dirty. A step must end soon, so
/// on a device of more than 64 GiB the next goes on from there.
const MAX_LOOKS: u64 = 1 << 16;

/// Such questions in one go, so that a large empty image does not hold up a step: 32 GiB at the most.
const ALLOCATION_QUESTIONS: usize = 1024;

/// Dirty chunks that are passed over in one go, for the same reason.
const PASS_OVER: u64 = 1024;

/// A chunk to read and send.
pub(super) struct Found {
    pub(super) chunk: Chunk,
    /// Whether the host was heard to know that it reads as zeroes. It was clean then and later, and its dirty bit is left
    /// alone: what the guest writes to it meanwhile makes it dirty.
    zero: bool,
}

impl Found {
    pub(super) fn dirty(chunk: Chunk) -> Found {
        Found { chunk, zero: false }
    }
}

pub(super) struct SourceDevice<D: Device> {
    /// Before the reference, which must outlast it.
    tracking: bool,
    device: Held<D>,
    name: Vec<u8>,
    geometry: Geometry,
    total: u64,
    chunks: u64,
    shared_base: bool,
    /// The first chunk that the bulk phase has not come to, and how far it has looked for allocated sectors from there.
    bulk: u64,
    searched: u64,
    /// Up to where the host knew of zeroes when it was last asked: chunks from `bulk` to this one.
    zeroes: u64,
    /// Chunks that are being read or wait to be sent. At most one copy of a chunk is on its way, so no older one can overtake.
    busy: BitVec,
    busy_bytes: u64,
    /// Chunks that the bulk phase has done with: sent, or passed over.
    done: BitVec,
    /// Where the search for dirty chunks goes on, and how much is left of this lap, in chunks and in dirty ones.
    cursor: u64,
    lap_chunks: u64,
    lap_dirty: u64,
    /// How many more chunks this search may look at one by one.
    looks: u64,
    /// How many chunks were dirty when this search began.
    dirty: u64,
    /// Chunks that the search has found before, and how many of them it may still pass over to find others.
    again: BitVec,
    patience: u64,
    /// How many of them are read until the order changes, and whether it is from the device's start in each search.
    round: u64,
    from_start: bool,
    /// Reads in flight.
    pub(super) reads: usize,
}

/// Names are bytes, on the destination the peer's. In texts they stand as UTF-8 as far as they are that, and what would not
/// print is escaped, so that a name can't forge a line of the log.
pub(crate) fn label(name: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(name).chars() {
        if matches!(c, '\'' | '"' | '\\') { text.push(c) } else { text.extend(c.escape_debug()) }
    }
    text
}

/// Why a device is no part of a migration.
pub(super) type LeftOut = &'static str;

/// A device that migrates, with its length in bytes; or why it does not.
fn take_in<D: Device>(device: D) -> Result<Result<(Held<D>, i64), LeftOut>, Error> {
    if device.is_read_only() {
        return Ok(Err("it is read-only"));
    }
    let failed = |device: &D, why, errno| Error::Device { device: label(&device.name()), why, errno };
    let length = match device.length() {
        Ok(0) => return Ok(Err("its length is 0")),
        Ok(length) => length,
        Err(errno) if errno.means_empty() => return Ok(Err("it is empty")),
        Err(errno) => return Err(failed(&device, "get the length of", errno)),
    };
    let name = device.name();
    match Held::new(device) {
        Ok(device) => Ok(Ok((device, length))),
        Err(errno) if errno.means_empty() => Ok(Err("there is nothing behind it")),
        Err(errno) => Err(Error::Device { device: label(&name), why: "take a reference to", errno }),
    }
}

/// Fails if a device that was left out at setup would migrate now.
pub(super) fn check_left_out<D: Device>(device: D) -> Result<(), Error> {
    let name = device.name();
    if take_in(device)?.is_ok() { Err(Error::Appeared(label(&name))) } else { Ok(()) }
}

fn bitmap(bits: u64) -> Option<BitVec> {
    let words = usize::try_from(bits.div_ceil(u64::from(usize::BITS))).ok()?;
    let mut storage: Vec<usize> = Vec::new();
    storage.try_reserve_exact(words).ok()?;
    storage.resize(words, 0);
    BitVec::try_from_vec(storage).ok()
}

impl<D: Device> SourceDevice<D> {
    /// Takes a device in, or `None` if there is nothing in it to migrate: read-only, empty, or with nothing behind it.
    pub(super) fn new(device: D, geometry: Geometry, shared_base: bool) -> Result<Option<SourceDevice<D>>, Error> {
        let name = device.name();
        let (device, length) = match take_in(device)? {
            Ok(taken) => taken,
            Err(reason) => {
                log::info!("device {} is not migrated: {reason}", label(&name));
                return Ok(None);
            }
        };
        if !(1..=MAX_NAME).contains(&name.len()) {
            return Err(Error::NameLength { device: label(&name), length: name.len() });
        }
        let total = u64::try_from(length).ok().filter(|bytes| bytes % SECTOR_BYTES == 0);
        let Some(total) = total.map(|bytes| bytes / SECTOR_BYTES) else {
            return Err(Error::OddLength { device: label(&name), length });
        };
        let chunks = geometry.chunks(total);
        if chunks > MAX_CHUNKS {
            return Err(Error::TooLong { device: label(&name), length });
        }
        let no_memory = || Error::NoMemory(format!("the bitmaps of device {}", label(&name)));
        let busy = bitmap(chunks).ok_or_else(no_memory)?;
        let done = bitmap(chunks).ok_or_else(no_memory)?;
        let again = bitmap(chunks).ok_or_else(no_memory)?;
        Ok(Some(SourceDevice {
            tracking: false,
            device,
            name,
            geometry,
            total,
            chunks,
            shared_base,
            bulk: 0,
            searched: 0,
            zeroes: 0,
            busy,
            busy_bytes: 0,
            done,
            cursor: 0,
            lap_chunks: 0,
            lap_dirty: 0,
            looks: 0,
            dirty: 0,
            again,
            patience: 0,
            round: 0,
            from_start: false,
            reads: 0,
        }))
    }

    pub(super) fn start_tracking(&mut self) -> Result<(), Error> {
        self.device.set_tracking(true).map_err(|errno| self.failed("track the writes to", errno))?;
        self.tracking = true;
        Ok(())
    }

    fn failed(&self, why: &'static str, errno: Errno) -> Error {
        Error::Device { device: self.label(), why, errno }
    }

    /// Why a read failed: what happened to the device itself says more than an I/O error.
    pub(super) fn read_failed(&self, sector: Sector, errno: Errno) -> Error {
        match self.check_length() {
            Err(error) if error.errno() != Errno::IO => error,
            _ => Error::Read { device: self.label(), sector: sector.0, errno },
        }
    }

    pub(super) fn device(&self) -> &D {
        &self.device
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn label(&self) -> String {
        label(&self.name)
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.total * SECTOR_BYTES
    }

    pub(super) fn sectors(&self, chunk: Chunk) -> Sectors {
        self.geometry.sectors(chunk, self.total)
    }

    pub(super) fn bulk_done(&self) -> bool {
        self.bulk >= self.chunks
    }

    /// Moves the bulk phase on: the bytes that it passed over, since they need not be sent, and the chunk that it came to.
    /// No chunk does not mean the end: see [`bulk_done`](Self::bulk_done).
    pub(super) fn next_bulk(&mut self) -> (u64, Option<Found>) {
        let mut passed = 0;
        for _ in 0..PASS_OVER {
            let from = self.bulk;
            let found = !self.bulk_done() && (!self.shared_base || self.seek_allocated());
            passed += self.geometry.bytes(from..self.bulk, self.total);
            self.done[index(Chunk(from))..index(Chunk(self.bulk))].fill(true);
            if !found {
                break;
            }
            let chunk = Chunk(self.bulk);
            self.bulk += 1;
            self.searched = self.geometry.start(Chunk(self.bulk)).0;
            // What the guest has written to is left to the dirty phase: sent now, it might have to be sent again.
            if !self.is_dirty(chunk) {
                return (passed, Some(Found { chunk, zero: chunk.0 < self.zeroes }));
            }
        }
        (passed, None)
    }

    /// Moves on to the next chunk with an allocated sector. Whatever the host is not sure of counts as allocated.
    fn seek_allocated(&mut self) -> bool {
        let mut found = false;
        for _ in 0..ALLOCATION_QUESTIONS {
            let left = self.total.saturating_sub(self.searched).min(ALLOCATION_STEP);
            if left == 0 {
                break;
            }
            let range = Sectors { start: Sector(self.searched), count: u32::try_from(left).expect("a step fits u32") };
            match self.device.allocated(range) {
                Ok(Extent { is: false, sectors }) if sectors > 0 => self.searched += sectors.unsigned_abs().min(left),
                _ => {
                    found = true;
                    break;
                }
            }
        }
        let done = self.searched >= self.total;
        self.bulk = if done { self.chunks } else { self.geometry.chunk_of(Sector(self.searched)).0 };
        found
    }

    /// Begins a search for dirty chunks: of all of them, or as far as one step goes.
    pub(super) fn begin_search(&mut self, all: bool) -> Result<(), Error> {
        self.looks = if all { u64::MAX } else { MAX_LOOKS };
        self.dirty = self.dirty_chunks()?.min(self.chunks);
        self.patience = PASS_OVER;
        self.begin_lap();
        Ok(())
    }

    /// Begins a lap around the device, from where the last one ended.
    fn begin_lap(&mut self) {
        self.lap_dirty = self.dirty;
        self.lap_chunks = if self.dirty == 0 { 0 } else { self.chunks };
    }

    /// Whether there may be a chunk to read.
    pub(super) fn has_work(&self) -> bool {
        !self.bulk_done() || (self.lap_chunks > 0 && self.lap_dirty > 0 && self.looks > 0)
    }

    /// The next dirty chunk to read: those first that were not found before, for one that was is likely to be written to
    /// again. One lap is for them, another for the rest.
    pub(super) fn next_dirty(&mut self) -> Result<Option<Chunk>, Error> {
        while self.patience > 0 {
            match self.next_in_lap()? {
                Some(chunk) if self.again.replace(index(chunk), true) => self.patience -= 1,
                Some(chunk) => return Ok(Some(chunk)),
                None if self.looks == 0 => return Ok(None),
                None => self.patience = 0,
            }
            if self.patience == 0 {
                self.begin_lap();
                self.choose_order();
            }
        }
        self.round = self.round.saturating_sub(1);
        self.next_in_lap()
    }

    /// Where the lap for chunks that were found before begins. At the device's start, it keeps just behind a guest that
    /// writes in order, which comes back to them as late as can be. But the others must have their turn, too: after two
    /// laps' worth of reads laps go on where the last one ended, and so on. In that order alone they might keep just before
    /// such a guest, and all that is sent be dirty again at once.
    fn choose_order(&mut self) {
        if self.round == 0 {
            self.round = 2 * self.dirty;
            self.from_start = !self.from_start;
        }
        // Where a search does not come around the device, it would see the start alone.
        if self.from_start && self.chunks <= MAX_LOOKS {
            self.cursor = 0;
        }
    }

    /// The next dirty chunk of this lap of which no copy is on its way.
    fn next_in_lap(&mut self) -> Result<Option<Chunk>, Error> {
        while self.lap_chunks > 0 && self.lap_dirty > 0 && self.looks > 0 {
            let from = self.cursor;
            let sector = self.geometry.start(Chunk(from));
            let found = match self.device.next_dirty(sector) {
                // None up to the end of the device: the lap goes on at its start.
                Some(answer) if answer < 0 => {
                    self.lap_chunks = self.lap_chunks.saturating_sub(self.chunks - from);
                    self.cursor = 0;
                    continue;
                }
                Some(answer) => match answer.unsigned_abs() {
                    dirty if (sector.0..self.total).contains(&dirty) => self.geometry.chunk_of(Sector(dirty)).0,
                    _ => return Err(Error::DirtyTracking { device: self.label(), sector: sector.0, answer }),
                },
                None => {
                    self.looks -= 1;
                    from
                }
            };
            self.lap_chunks = self.lap_chunks.saturating_sub(found - from + 1);
            self.cursor = (found + 1) % self.chunks;
            // Where there is no search, this is it.
            if self.is_dirty(Chunk(found)) {
                self.lap_dirty -= 1;
                if !self.is_busy(Chunk(found)) {
                    return Ok(Some(Chunk(found)));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn is_dirty(&self, chunk: Chunk) -> bool {
        self.device.is_dirty(self.geometry.start(chunk))
    }

    pub(super) fn dirty_chunks(&self) -> Result<u64, Error> {
        self.device.dirty_chunks().map_err(|errno| self.failed("count the dirty chunks of", errno))
    }

    /// Bytes in dirty chunks.
    pub(super) fn dirty_bytes(&self) -> Result<u64, Error> {
        let tail = Chunk(self.chunks - 1);
        let padding = self.geometry.chunk_bytes() - self.sectors(tail).bytes();
        // Before they are counted: a tail that the guest dirties in between is then counted as too long, not as too short.
        let dirty_tail = padding > 0 && self.is_dirty(tail);
        let chunks = self.dirty_chunks()?.min(self.chunks);
        let counted = chunks * self.geometry.chunk_bytes() as u64;
        Ok(counted.saturating_sub(if dirty_tail { padding as u64 } else { 0 }))
    }

    /// Every byte that the destination still lacks, `dirty` of them in dirty chunks. Chunks that are dirty and not yet read
    /// by the bulk phase, or on their way, count twice, but never for more than the device.
    pub(super) fn remaining_bytes(&self, dirty: u64) -> u64 {
        let bulk = self.geometry.bytes(self.bulk..self.chunks, self.total);
        (bulk + self.busy_bytes + dirty).min(self.total_bytes())
    }

    fn is_busy(&self, chunk: Chunk) -> bool {
        self.busy[index(chunk)]
    }

    /// A copy of the chunk is on its way from now on. Clears its dirty bit, before anything of it is read: what the guest
    /// writes after this makes it dirty again.
    pub(super) fn take(&mut self, found: &Found) {
        let sectors = self.sectors(found.chunk);
        self.busy.set(index(found.chunk), true);
        self.busy_bytes += sectors.bytes() as u64;
        if !found.zero {
            self.device.reset_dirty(sectors);
        }
    }

    /// The copy was put into the stream, or dropped.
    pub(super) fn give_back(&mut self, chunk: Chunk) {
        self.busy.set(index(chunk), false);
        self.busy_bytes -= self.sectors(chunk).bytes() as u64;
    }

    /// The chunk was sent; whether that was for the first time.
    pub(super) fn mark_sent(&mut self, chunk: Chunk) -> bool {
        !self.done.replace(index(chunk), true)
    }

    /// Fails if the device has not the length any more that it had at setup: what was added, or taken away and added again,
    /// would be lost.
    pub(super) fn check_length(&self) -> Result<(), Error> {
        let is = self.device.length().map_err(|errno| self.failed("get the length of", errno))?;
        let was = self.total_bytes();
        if u64::try_from(is) == Ok(was) { Ok(()) } else { Err(Error::Resized { device: self.label(), was, is }) }
    }

    /// Whether the host knows that a chunk reads as zeroes. Ask it after [`take`](Self::take), for the reason given there.
    pub(super) fn is_known_zero(&mut self, found: &Found) -> bool {
        if found.zero {
            return true;
        }
        let wanted = self.sectors(found.chunk);
        let ask = |at: u64| (self.total - at).min(ALLOCATION_STEP);
        let Some(Sector(known)) = known_zeroes(&*self.device, wanted.start, wanted.end(), ask) else { return false };
        // Past what the bulk phase has come to, this would not be heard in time.
        if found.chunk.0 < self.bulk {
            self.zeroes = if known == self.total { self.chunks } else { self.geometry.chunk_of(Sector(known)).0 };
        }
        true
    }
}

impl<D: Device> Drop for SourceDevice<D> {
    fn drop(&mut self) {
        if self.tracking {
            if let Err(errno) = self.device.set_tracking(false) {
                log::warn!("can't end the tracking of writes to device {}: {errno}", self.label());
            }
        }
    }
}

fn index(chunk: Chunk) -> usize {
    usize::try_from(chunk.0).expect("a bitmap of this size was allocated")
}
