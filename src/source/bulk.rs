// SPDX-License-Identifier: GPL-2.0-only
//! The bulk phase's walk over one device: from its first chunk to its last, past what need not be sent. It
//! knows numbers alone; the device is asked by whoever walks.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::error::Errno;
use crate::geometry::{Chunk, Geometry, Sector, Sectors};
use crate::host::Extent;

/// Sectors that one question about allocation, or about zeroes, covers, as the original asked the former.
pub(super) const QUESTION_SECTORS: u64 = 65536;

/// The same for zeroes where one record can say so of any number of sectors: 512 GiB, which fits a C int.
pub(super) const LONG_QUESTION_SECTORS: u64 = 1 << 30;

/// Questions about allocation in one go, so that a large empty image does not hold up a step: 32 GiB at the most.
const MAX_QUESTIONS: usize = 1024;

/// What one step of the walk came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Walked {
    /// The chunks that it passed over, since the destination has their backing file.
    pub skipped: Range<u64>,
    /// The chunk after them. None does not mean the end: see [`BulkWalk::is_done`].
    pub chunk: Option<Chunk>,
}

/// How far the bulk phase is on a device.
#[derive(Debug)]
pub struct BulkWalk {
    /// How the device is cut into chunks.
    geometry: Geometry,
    /// The device's length in sectors.
    total: u64,
    /// Whether sectors that are not in the device's own image are passed over.
    shared_base: bool,
    /// The first chunk that the walk has not come to.
    next: u64,
    /// Up to which sector it has looked for allocated ones.
    searched: u64,
    /// The chunk up to which the host knew of zeroes when it was last asked, from where the walk was then.
    zeroes_end: u64,
}

impl BulkWalk {
    /// The walk over a device of `total` sectors.
    #[must_use]
    pub fn new(geometry: Geometry, total: u64, shared_base: bool) -> BulkWalk {
        BulkWalk { geometry, total, shared_base, next: 0, searched: 0, zeroes_end: 0 }
    }

    fn chunks(&self) -> u64 {
        self.geometry.chunks(self.total)
    }

    /// Whether it has come to every chunk.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.next >= self.chunks()
    }

    /// Bytes in chunks that it has not come to.
    #[must_use]
    pub fn remaining_bytes(&self) -> u64 {
        self.geometry.bytes(self.next..self.chunks(), self.total)
    }

    /// Goes on to the next chunk. `allocated` says whether the start of a range is in the device's own image;
    /// whatever it is not sure of counts as allocated.
    pub fn step(&mut self, allocated: impl Fn(Sectors) -> Result<Extent, Errno>) -> Walked {
        let from = self.next;
        let found = !self.is_done() && (!self.shared_base || self.seek_allocated(allocated));
        let skipped = from..self.next;
        if !found {
            return Walked { skipped, chunk: None };
        }
        let chunk = Chunk(self.next);
        self.next += 1;
        self.searched = self.geometry.start(Chunk(self.next)).0;
        Walked { skipped, chunk: Some(chunk) }
    }

    /// Moves on to the chunk with the next allocated sector.
    fn seek_allocated(&mut self, allocated: impl Fn(Sectors) -> Result<Extent, Errno>) -> bool {
        let mut found = false;
        for _ in 0..MAX_QUESTIONS {
            let left = self.total.saturating_sub(self.searched).min(QUESTION_SECTORS);
            if left == 0 {
                break;
            }
            let range =
                Sectors { start: Sector(self.searched), count: u32::try_from(left).expect("a question fits u32") };
            match allocated(range) {
                Ok(Extent { holds: false, sectors }) if sectors > 0 => {
                    self.searched += sectors.unsigned_abs().min(left);
                }
                _ => {
                    found = true;
                    break;
                }
            }
        }
        let done = self.searched >= self.total;
        self.next = if done { self.chunks() } else { self.geometry.chunk_of(Sector(self.searched)).0 };
        found
    }

    /// The host knows that the device reads as zeroes from this chunk up to `end`.
    pub fn note_zeroes(&mut self, chunk: Chunk, end: Sector) {
        // Past what the walk has come to, this would not be heard in time.
        if chunk.0 < self.next {
            self.zeroes_end = if end.0 == self.total { self.chunks() } else { self.geometry.chunk_of(end).0 };
        }
    }

    /// Whether the host was heard to know that a chunk to which the walk has just come reads as zeroes.
    #[must_use]
    pub fn is_known_zero(&self, chunk: Chunk) -> bool {
        chunk.0 < self.zeroes_end
    }

    /// Passes over the rest of the zeroes that the chunk to which the walk has just come belongs to. Returns the
    /// sector that is the start of the chunk after them.
    pub fn skip_zeroes(&mut self) -> Sector {
        self.next = self.next.max(self.zeroes_end);
        let end = self.geometry.start(Chunk(self.next));
        self.searched = end.0;
        end
    }
}
