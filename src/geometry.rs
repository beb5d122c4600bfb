// SPDX-License-Identifier: GPL-2.0-only
//! Sectors, chunks and tails, each its own type, so that a sector is never taken for a chunk.
//!
//! The size of a chunk is a value and not a constant: production uses [`Geometry::QEMU`], the simulator chunks of one
//! sector, so that it runs thousands of whole migrations a second.
#![forbid(unsafe_code)]

use std::ops::Range;

/// Bytes in a sector, the unit of every address in the stream and in the host's tables.
pub const SECTOR_BYTES: u64 = SECTOR_LEN as u64;

/// The same as the length of a slice.
pub(crate) const SECTOR_LEN: usize = 512;

/// The bits that a sector number leaves free in the stream's header words: the record's flags.
pub(crate) const SECTOR_BITS: u32 = SECTOR_BYTES.trailing_zeros();

/// A sector's number on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

/// A chunk's number on a device: the unit of dirty tracking and of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chunk(pub u64);

/// A run of sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sectors {
    /// The first one.
    pub start: Sector,
    /// How many; the tables carry it as a C `int`, so it fits one.
    pub count: u32,
}

impl Sectors {
    /// The sector after the last.
    #[must_use]
    pub fn end(self) -> Sector {
        Sector(self.start.0 + u64::from(self.count))
    }

    /// The numbers of the sectors.
    #[must_use]
    pub fn range(self) -> Range<u64> {
        self.start.0..self.end().0
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.count as usize * SECTOR_LEN
    }

    /// Whether the two runs share a sector.
    #[must_use]
    pub fn overlaps(self, other: Sectors) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// How a device is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    sectors_per_chunk: u32,
}

impl Geometry {
    /// 2048 sectors, 1 MiB: the stream's unit since 2009.
    pub const QEMU: Geometry = Geometry { sectors_per_chunk: 2048 };

    /// A geometry of `sectors_per_chunk`, or `None` if a chunk would be empty or larger than 1 GiB.
    #[must_use]
    pub fn new(sectors_per_chunk: u32) -> Option<Geometry> {
        (1..=1 << 21).contains(&sectors_per_chunk).then_some(Geometry { sectors_per_chunk })
    }

    /// Sectors in a chunk.
    #[must_use]
    pub fn sectors_per_chunk(self) -> u32 {
        self.sectors_per_chunk
    }

    /// Bytes in a chunk, which is what a device block of the stream carries.
    #[must_use]
    pub fn chunk_bytes(self) -> usize {
        self.sectors_per_chunk as usize * SECTOR_LEN
    }

    /// How many chunks a device of `sectors` has; the last may be a tail.
    #[must_use]
    pub fn chunks(self, sectors: u64) -> u64 {
        sectors.div_ceil(u64::from(self.sectors_per_chunk))
    }

    /// The chunk that holds a sector.
    #[must_use]
    pub fn chunk_of(self, sector: Sector) -> Chunk {
        Chunk(sector.0 / u64::from(self.sectors_per_chunk))
    }

    /// A chunk's first sector.
    #[must_use]
    pub fn start(self, chunk: Chunk) -> Sector {
        Sector(chunk.0 * u64::from(self.sectors_per_chunk))
    }

    /// The sectors of a chunk that a device of `total` sectors has; for all but the tail a whole chunk.
    #[must_use]
    pub fn sectors(self, chunk: Chunk, total: u64) -> Sectors {
        self.clip(self.start(chunk), total)
    }

    /// One chunk's worth of sectors from `start`, cut at the end of a device of `total` sectors.
    #[must_use]
    pub fn clip(self, start: Sector, total: u64) -> Sectors {
        let left = total.saturating_sub(start.0).min(u64::from(self.sectors_per_chunk));
        Sectors { start, count: u32::try_from(left).expect("a chunk's sectors fit u32") }
    }

    /// The size in bytes of a run of chunks on a device of `total` sectors, its tail counted as long as it is.
    #[must_use]
    pub fn bytes(self, chunks: Range<u64>, total: u64) -> u64 {
        let sector = |chunk: u64| chunk.saturating_mul(u64::from(self.sectors_per_chunk)).min(total);
        sector(chunks.end).saturating_sub(sector(chunks.start)) * SECTOR_BYTES
    }
}
