// SPDX-License-Identifier: GPL-2.0-only
//! The search for dirty chunks on one device. It knows chunk numbers alone, and asks a [`DirtyMap`].
//!
//! A step's search makes two passes around the device, each from where the one before it ended, and each until
//! it has met as many dirty chunks as there were when the step began. The first is for chunks that no search
//! has found before: one that was found is likely to be written to again, so it can wait. The second is for the
//! rest.
//!
//! ```text
//! chunks           0 1 2 3 4 5 6 7     d: dirty; f: dirty, and found before
//!                  . f . d . f d .
//!
//! first pass           - 3 - * 6 -     from the cursor at 2: finds 3, skips 5, finds 6, ...
//!                  - *                 ... skips 1: it has met all four, and the cursor is at 2
//! second pass      - 1 - - - 5         finds the two that are left, from the device's start
//!                                      or from the cursor: see `choose_order`
//! ```
//!
//! A chunk of which a copy is on its way is never found: an older copy could overtake a newer one.
#![forbid(unsafe_code)]

use bitvec::vec::BitVec;

use crate::error::Error;
use crate::geometry::Chunk;

/// Chunks that one step asks about one by one, where the host can only say whether a chunk is dirty. A step
/// must end soon, so on a device of more than 64 GiB the next step goes on from there.
const MAX_QUESTIONS: u64 = 1 << 16;

/// Chunks found before that one step skips, for the same reason.
const MAX_SKIPS: u64 = 1024;

/// What a host says to the question for the next dirty chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextDirty {
    /// This one, at or after the one asked from.
    Chunk(Chunk),
    /// None up to the end of the device.
    End,
    /// It can only say of one chunk whether that is dirty.
    Unsupported,
}

/// A device's dirty tracking, as the search asks it.
pub trait DirtyMap {
    /// The first dirty chunk at or after this one.
    ///
    /// # Errors
    /// If the answer makes no sense.
    fn next_dirty(&self, from: Chunk) -> Result<NextDirty, Error>;

    /// Whether a chunk is dirty.
    fn is_dirty(&self, chunk: Chunk) -> bool;

    /// Whether a copy of the chunk is on its way.
    fn is_on_its_way(&self, chunk: Chunk) -> bool;
}

/// Where to look for dirty chunks, and how far to go in this step.
pub struct DirtySearch {
    /// Chunks of the device.
    chunks: u64,
    /// The chunk at which the pass goes on.
    cursor: u64,
    /// Chunks that this pass has not looked at.
    pass_chunks: u64,
    /// Dirty chunks that it may still meet.
    pass_dirty: u64,
    /// Dirty chunks when the step began.
    dirty: u64,
    /// How many more chunks this step may ask about one by one.
    questions: u64,
    /// Chunks that a search has found before.
    found_before: BitVec,
    /// How many of them this step may still skip; 0: the first pass is over.
    skips: u64,
    /// How many more chunks second passes read until their order changes.
    until_change: u64,
    /// Whether second passes begin at the start of the device, and not where the last pass ended.
    from_start: bool,
}

impl DirtySearch {
    /// A search over a device of `chunks` chunks, for which `found_before` has a bit each, all 0.
    #[must_use]
    pub fn new(chunks: u64, found_before: BitVec) -> DirtySearch {
        DirtySearch {
            chunks,
            cursor: 0,
            pass_chunks: 0,
            pass_dirty: 0,
            dirty: 0,
            questions: 0,
            found_before,
            skips: 0,
            until_change: 0,
            from_start: false,
        }
    }

    /// Begins a step's search, with `dirty` chunks dirty: of all of them, or as far as one step goes.
    pub fn begin(&mut self, dirty: u64, all: bool) {
        self.questions = if all { u64::MAX } else { MAX_QUESTIONS };
        self.dirty = dirty;
        self.skips = MAX_SKIPS;
        self.begin_pass();
    }

    fn begin_pass(&mut self) {
        self.pass_dirty = self.dirty;
        self.pass_chunks = if self.dirty == 0 { 0 } else { self.chunks };
    }

    /// Whether this step may still find one.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.pass_chunks > 0 && self.pass_dirty > 0 && self.questions > 0
    }

    /// The next dirty chunk to read, if this step still finds one.
    ///
    /// # Errors
    /// What the map says.
    pub fn next(&mut self, map: &impl DirtyMap) -> Result<Option<Chunk>, Error> {
        while self.skips > 0 {
            match self.next_in_pass(map)? {
                Some(chunk) if self.found_before.replace(index(chunk), true) => self.skips -= 1,
                Some(chunk) => return Ok(Some(chunk)),
                None if self.questions == 0 => return Ok(None),
                None => self.skips = 0,
            }
            if self.skips == 0 {
                self.begin_pass();
                self.choose_order();
            }
        }
        self.until_change = self.until_change.saturating_sub(1);
        self.next_in_pass(map)
    }

    /// Chooses where the second pass begins. From the device's start, it stays just behind a guest that writes
    /// in order, which comes back to those chunks as late as can be. But the others must have their turn, too:
    /// after as many reads as two passes make, passes begin where the last one ended, and so on in turn. In
    /// that order alone they might stay just before such a guest, and everything that is sent would be dirty
    /// again at once.
    fn choose_order(&mut self) {
        if self.until_change == 0 {
            self.until_change = 2 * self.dirty;
            self.from_start = !self.from_start;
        }
        // Where a step does not get around the device, it would see the start alone.
        if self.from_start && self.chunks <= MAX_QUESTIONS {
            self.cursor = 0;
        }
    }

    /// The next dirty chunk of this pass of which no copy is on its way.
    fn next_in_pass(&mut self, map: &impl DirtyMap) -> Result<Option<Chunk>, Error> {
        while self.has_work() {
            let from = self.cursor;
            let found = match map.next_dirty(Chunk(from))? {
                NextDirty::Chunk(chunk) => chunk.0,
                // The pass goes on at the start of the device.
                NextDirty::End => {
                    self.pass_chunks = self.pass_chunks.saturating_sub(self.chunks - from);
                    self.cursor = 0;
                    continue;
                }
                NextDirty::Unsupported => {
                    self.questions -= 1;
                    from
                }
            };
            self.pass_chunks = self.pass_chunks.saturating_sub(found - from + 1);
            self.cursor = (found + 1) % self.chunks;
            // A host that was asked for the next one may have named any sector of its chunk; one that can't
            // search has not been asked yet.
            if map.is_dirty(Chunk(found)) {
                self.pass_dirty -= 1;
                if !map.is_on_its_way(Chunk(found)) {
                    return Ok(Some(Chunk(found)));
                }
            }
        }
        Ok(None)
    }
}

fn index(chunk: Chunk) -> usize {
    usize::try_from(chunk.0).expect("a bitmap of this size was allocated")
}
