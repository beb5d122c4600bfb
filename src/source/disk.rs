// SPDX-License-Identifier: GPL-2.0-only
//! What a device is, apart from the state of its migration, and what its dirty tracking says.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use super::search::{DirtyMap, NextDirty};
use crate::device_name::DeviceName;
use crate::error::Error;
use crate::geometry::{Chunk, Geometry, SECTOR_BYTES, Sector, Sectors};
use crate::host::{Device, DeviceRef};

/// What a device is, apart from the state of its migration.
pub(super) struct Disk<D: Device> {
    /// The host's device, which stays as long as this.
    pub(super) device: DeviceRef<D>,
    /// As it was at setup.
    pub(super) name: DeviceName,
    /// How it is cut into chunks.
    pub(super) geometry: Geometry,
    /// Its length in sectors at setup.
    pub(super) total: u64,
    /// Its length in chunks, the last of which may be short.
    pub(super) chunks: u64,
    /// Sectors that one dirty bit stands for: a chunk's, or less if the host tracks finer.
    pub(super) unit: u32,
    /// Chunks of which copies are being read or wait to be sent, and how many. The copies of a chunk have no
    /// sector in common, so that no older copy overtakes.
    pub(super) on_their_way: BTreeMap<Chunk, u32>,
}

/// A range of the sectors of one chunk.
pub(super) fn run(range: &Range<u64>) -> Sectors {
    let count = u32::try_from(range.end - range.start).expect("a chunk at most");
    Sectors { start: Sector(range.start), count }
}

/// What the host says to the question for the next dirty sector.
enum NextSector {
    /// This one.
    At(u64),
    /// None up to the end of the device.
    End,
    /// It can only say of one unit whether that is dirty.
    Unsupported,
}

impl<D: Device> Disk<D> {
    /// The first dirty sector at or after this one.
    fn next_sector(&self, from: u64) -> Result<NextSector, Error> {
        match self.device.next_dirty(Sector(from)) {
            None => Ok(NextSector::Unsupported),
            Some(answer) if answer < 0 => Ok(NextSector::End),
            Some(answer) if (from..self.total).contains(&answer.unsigned_abs()) => {
                Ok(NextSector::At(answer.unsigned_abs()))
            }
            Some(answer) => Err(Error::DirtyTracking { device: self.name.clone(), sector: from, answer }),
        }
    }

    /// The units of dirty tracking in this range, which begins with one.
    pub(super) fn units(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let unit = u64::from(self.unit);
        let mut start = range.start;
        std::iter::from_fn(move || {
            let found = start..(start + unit).min(range.end);
            start = found.end;
            (!found.is_empty()).then_some(found)
        })
    }

    /// The first dirty unit in the range, which begins with a unit.
    pub(super) fn first_dirty(&self, range: Range<u64>) -> Result<Option<Range<u64>>, Error> {
        let unit = u64::from(self.unit);
        if range.end - range.start > unit {
            match self.next_sector(range.start)? {
                NextSector::At(sector) if sector < range.end => {
                    let start = sector / unit * unit;
                    return Ok(Some(start..(start + unit).min(range.end)));
                }
                NextSector::At(_) | NextSector::End => return Ok(None),
                NextSector::Unsupported => {}
            }
        }
        Ok(self.units(range).find(|unit| self.device.is_dirty(Sector(unit.start))))
    }

    /// Bytes in the range's dirty units.
    pub(super) fn dirty_bytes_in(&self, range: Range<u64>) -> Result<u64, Error> {
        let Some(first) = self.first_dirty(range.clone())? else { return Ok(0) };
        let others = self.units(first.end..range.end).filter(|unit| self.device.is_dirty(Sector(unit.start)));
        let sectors: u64 = others.map(|unit| unit.end - unit.start).sum();
        Ok((first.end - first.start + sectors) * SECTOR_BYTES)
    }
}

impl<D: Device> DirtyMap for Disk<D> {
    fn next_dirty(&self, from: Chunk) -> Result<NextDirty, Error> {
        Ok(match self.next_sector(self.geometry.start(from).0)? {
            NextSector::Unsupported => NextDirty::Unsupported,
            NextSector::End => NextDirty::End,
            NextSector::At(sector) => NextDirty::Chunk(self.geometry.chunk_of(Sector(sector))),
        })
    }

    fn is_dirty(&self, chunk: Chunk) -> bool {
        let sectors = self.geometry.sectors(chunk, self.total);
        // What the host says wrong here counts as dirty: whoever looks closer meets the error again.
        self.first_dirty(sectors.range()).map_or(true, |found| found.is_some())
    }

    fn is_on_its_way(&self, chunk: Chunk) -> bool {
        self.on_their_way.contains_key(&chunk)
    }
}
