// SPDX-License-Identifier: GPL-2.0-only
//! A disk: its data, what is known about them, and the dirty tracking.

use std::ops::Range;

use blkmig::error::Errno;
use blkmig::geometry::{SECTOR_BYTES, Sectors};

pub(crate) const SECTOR: usize = SECTOR_BYTES as usize;

/// The sectors of a medium that is put into an empty drive.
const INSERTED: u64 = 5;

/// Whether a disk migrates and, if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    ReadOnly,
    Empty,
    NoMedium,
    /// Taking a reference fails, because there is nothing behind the device any more.
    Gone,
    /// It could migrate, but the user has not chosen it.
    NotChosen,
}

pub(crate) struct Disk {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) data: Vec<u8>,
    /// The data that survive a power cut: those of the last flush.
    pub(crate) stable: Vec<u8>,
    /// The length that the host reports, if it has changed since setup. With an error here, requests fail as well.
    pub(crate) reported_length: Option<Result<i64, Errno>>,
    /// The sectors in an allocation unit, and which units are in the disk's own image.
    pub(crate) cluster: u64,
    pub(crate) allocated: Vec<bool>,
    /// The sectors in a chunk.
    pub(crate) chunk: u64,
    /// The sectors in a unit of dirty tracking, and which units are dirty.
    pub(crate) unit: u64,
    pub(crate) dirty: Vec<bool>,
    pub(crate) tracking: bool,
    /// Another device has taken its place since tracking began. Guest writes to that one are not tracked.
    pub(crate) replaced: bool,
    /// It is missing in the host's list of devices.
    pub(crate) unlisted: bool,
    pub(crate) held: u32,
}

impl Disk {
    pub(crate) fn new(name: &[u8], kind: Kind, sectors: u64, chunk: u64, cluster: u64) -> Disk {
        Disk {
            name: name.to_vec(),
            kind,
            data: vec![0; sectors as usize * SECTOR],
            stable: Vec::new(),
            reported_length: None,
            cluster,
            allocated: vec![false; sectors.div_ceil(cluster) as usize],
            chunk,
            unit: chunk,
            dirty: vec![false; sectors.div_ceil(chunk) as usize],
            tracking: false,
            replaced: false,
            unlisted: false,
            held: 0,
        }
    }

    pub(crate) fn sectors(&self) -> u64 {
        (self.data.len() / SECTOR) as u64
    }

    pub(crate) fn migrates(&self) -> bool {
        self.kind == Kind::Normal
    }

    /// Undoes all events of the previous migration.
    pub(crate) fn settle(&mut self) {
        self.reported_length = None;
        self.replaced = false;
        self.unlisted = false;
        self.stable = self.data.clone();
    }

    /// A skipped disk gets what it lacked: a medium, a length, something behind it, or write access.
    pub(crate) fn insert(&mut self) {
        self.kind = Kind::Normal;
        self.resize(self.sectors().max(INSERTED));
    }

    /// Undoes `insert`.
    pub(crate) fn remove(&mut self, kind: Kind, sectors: u64) {
        self.kind = kind;
        self.resize(sectors);
    }

    fn resize(&mut self, sectors: u64) {
        self.data.resize(sectors as usize * SECTOR, 0);
        self.allocated.resize(sectors.div_ceil(self.cluster) as usize, false);
        self.dirty.resize(sectors.div_ceil(self.unit) as usize, false);
    }

    /// Tracks writes in units of so many sectors.
    pub(crate) fn set_unit(&mut self, unit: u64) {
        self.unit = unit;
        self.resize(self.sectors());
    }

    /// Whether there is still something behind the device.
    pub(crate) fn is_there(&self) -> Result<(), Errno> {
        self.reported_length.unwrap_or(Ok(0)).map(drop)
    }

    pub(crate) fn length(&self) -> Result<i64, Errno> {
        if let Some(length) = self.reported_length {
            return length;
        }
        match self.kind {
            Kind::Empty => Ok(0),
            Kind::NoMedium => Err(Errno::NO_MEDIUM),
            _ => Ok(self.data.len() as i64),
        }
    }

    pub(crate) fn bytes(&self, range: Sectors) -> &[u8] {
        &self.data[span(range)]
    }

    /// Data past the end are dropped: the caller has already reported them, or has a defect that hides them.
    pub(crate) fn put(&mut self, start: u64, data: &[u8]) {
        let at = (start as usize * SECTOR).min(self.data.len());
        let data = &data[..data.len().min(self.data.len() - at)];
        self.data[at..at + data.len()].copy_from_slice(data);
        let end = start + (data.len() / SECTOR) as u64;
        for unit in start / self.cluster..end.div_ceil(self.cluster) {
            self.allocated[unit as usize] = true;
        }
    }

    /// Fills sectors, each with its own pattern, or with zeroes if the stamp is 0.
    pub(crate) fn stamp(&mut self, sectors: Range<u64>, stamp: u64) {
        for sector in sectors {
            self.put(sector, &pattern(sector, stamp));
        }
    }

    pub(crate) fn mark_dirty(&mut self, sectors: Range<u64>) {
        if self.tracking && !self.replaced && !sectors.is_empty() {
            for unit in sectors.start / self.unit..sectors.end.div_ceil(self.unit) {
                self.dirty[unit as usize] = true;
            }
        }
    }

    pub(crate) fn is_allocated(&self, sector: u64) -> bool {
        self.allocated[(sector / self.cluster) as usize]
    }

    pub(crate) fn is_zero(&self, sector: u64) -> bool {
        self.data.iter().skip(sector as usize * SECTOR).take(SECTOR).all(|&byte| byte == 0)
    }
}

/// The answer at the start of `range`, and the number of sectors for which it stays the same.
pub(crate) fn run(range: Sectors, answer: impl Fn(u64) -> bool) -> (bool, u64) {
    let first = answer(range.start.0);
    let end = (range.start.0..range.end().0).find(|&sector| answer(sector) != first).unwrap_or(range.end().0);
    (first, end - range.start.0)
}

pub(crate) fn span(range: Sectors) -> Range<usize> {
    range.start.0 as usize * SECTOR..range.end().0 as usize * SECTOR
}

pub(crate) fn pattern(sector: u64, stamp: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    if stamp != 0 {
        let word = (stamp << 24 | sector).to_le_bytes();
        for part in bytes.chunks_exact_mut(word.len()) {
            part.copy_from_slice(&word);
        }
    }
    bytes
}
