// SPDX-License-Identifier: GPL-2.0-only
//! A second implementation of the destination that shares no code with the engine. After each section it holds exactly
//! what the source has sent, independent of what the real destination did with it.

use std::ops::Range;

use twox_hash::XxHash3_64;

use super::disk::SECTOR;

pub(crate) struct ModelDisk {
    pub(crate) name: Vec<u8>,
    pub(crate) migrates: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) sent: Vec<bool>,
}

pub(crate) struct Model {
    pub(crate) disks: Vec<ModelDisk>,
    chunk_sectors: u64,
    zero_allowed: bool,
    pub(crate) progress: Option<u64>,
    /// Chunks sent in all, chunks sent before, and zero chunks.
    pub(crate) chunks: u64,
    pub(crate) resent: u64,
    pub(crate) zero: u64,
    /// Of the extended stream: the number of the next record, the disks in the order of their numbers, and how many
    /// records each has had and their sum.
    records: u64,
    table: Vec<(usize, u64, u64)>,
}

/// Removes bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (front, rest) = bytes.split_at_checked(count).ok_or("a section is cut")?;
    *bytes = rest;
    Ok(front)
}

impl Model {
    pub(crate) fn new(disks: Vec<ModelDisk>, chunk_sectors: u64, zero_allowed: bool) -> Model {
        Model {
            disks,
            chunk_sectors,
            zero_allowed,
            progress: None,
            chunks: 0,
            resent: 0,
            zero: 0,
            records: 0,
            table: Vec::new(),
        }
    }

    /// Applies exactly one section. The last section must end with progress 100.
    pub(crate) fn section(&mut self, bytes: &[u8], last: bool) -> Result<(), String> {
        if bytes.get(7) == Some(&0x10) { self.extended(bytes, last) } else { self.classic(bytes, last) }
    }

    fn classic(&mut self, mut bytes: &[u8], last: bool) -> Result<(), String> {
        let mut progress_last = false;
        loop {
            let word = u64::from_be_bytes(take(&mut bytes, 8)?.try_into().expect("8 bytes"));
            let value = word >> 9;
            match word & 0x1ff {
                0x01 => self.block(&mut bytes, value, false)?,
                0x09 if self.zero_allowed => self.block(&mut bytes, value, true)?,
                0x02 if value == 0 => break,
                0x04 if value <= 100 && self.progress.is_none_or(|before| before <= value) => {
                    self.progress = Some(value);
                }
                _ => return Err(format!("a record with header {word:#x}")),
            }
            progress_last = word & 0x1ff == 0x04;
        }
        if !bytes.is_empty() {
            return Err(format!("{} bytes after the section's end", bytes.len()));
        }
        if last && !(progress_last && self.progress == Some(100)) {
            return Err("the last section does not end with progress 100".to_owned());
        }
        Ok(())
    }

    /// The ranges of a section that are padding past the end of a device.
    pub(crate) fn paddings(&self, section: &[u8]) -> Vec<Range<usize>> {
        let mut paddings = Vec::new();
        let chunk = self.chunk_sectors as usize * SECTOR;
        let mut at = 0;
        while at < section.len() {
            let word = u64::from_be_bytes(section[at..at + 8].try_into().expect("8 bytes"));
            at += 8;
            if word & 0x01 == 0 {
                continue;
            }
            let name = &section[at + 1..][..section[at].into()];
            at += 1 + name.len();
            if word & 0x08 == 0 {
                let disk = self.disks.iter().find(|disk| disk.name == name).expect("the section is valid");
                let length = disk.data.len() - (word >> 9) as usize * SECTOR;
                paddings.extend((length < chunk).then_some(at + length..at + chunk));
                at += chunk;
            }
        }
        paddings
    }

    fn block(&mut self, bytes: &mut &[u8], sector: u64, zero: bool) -> Result<(), String> {
        let length = take(bytes, 1)?[0];
        let name = take(bytes, length.into())?;
        let disk = self.disks.iter_mut().find(|disk| disk.name == name && disk.migrates);
        let disk = disk.ok_or_else(|| format!("a block for device {}", String::from_utf8_lossy(name)))?;
        let total = (disk.data.len() / SECTOR) as u64;
        if sector % self.chunk_sectors != 0 || sector >= total {
            return Err(format!("a block at sector {sector} of {total}"));
        }
        let chunk = self.chunk_sectors as usize * SECTOR;
        let at = sector as usize * SECTOR;
        let length = chunk.min(disk.data.len() - at);
        let target = &mut disk.data[at..at + length];
        if zero {
            target.fill(0);
            self.zero += 1;
        } else {
            let payload = take(bytes, chunk)?;
            target.copy_from_slice(&payload[..length]);
            if payload[length..].iter().any(|&byte| byte != 0) {
                return Err("the padding of a tail is not zero".to_owned());
            }
        }
        self.chunks += 1;
        self.resent += u64::from(std::mem::replace(&mut disk.sent[(sector / self.chunk_sectors) as usize], true));
        Ok(())
    }

    fn extended(&mut self, mut bytes: &[u8], last: bool) -> Result<(), String> {
        let mut totals = false;
        loop {
            match self.extended_record(&mut bytes)? {
                4 => break,
                5 if last && !totals => totals = true,
                5 => return Err("totals where none belong".to_owned()),
                _ => {}
            }
        }
        if !bytes.is_empty() {
            return Err(format!("{} bytes after the section's end", bytes.len()));
        }
        if last && !(totals && self.progress == Some(100)) {
            return Err("the last section does not end with totals and progress 100".to_owned());
        }
        Ok(())
    }

    /// Takes one record of the extended stream from the front, and applies it. Returns its kind.
    pub(crate) fn extended_record(&mut self, bytes: &mut &[u8]) -> Result<u64, String> {
        let header = take(bytes, 48)?;
        let word = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let (device, length) = (word(16) >> 32, (word(16) & 0xffff_ffff) as usize);
        let (sector, sectors) = (word(24), word(32));
        let payload = take(bytes, length)?;
        if word(8) != self.records || word(0) & 0x1ff != 0x10 {
            return Err(format!("record {} came instead of record {}", word(8), self.records));
        }
        self.records += 1;
        if word(40) != XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&header[..40]), payload) {
            return Err("a wrong checksum".to_owned());
        }
        match word(0) >> 9 {
            0 if self.records == 1 => self.start(payload)?,
            1 => self.run(device, sector..sector + sectors, word(40), Some(payload.to_vec()))?,
            2 => {
                let mut plain = vec![0; sectors as usize * SECTOR];
                if zstd_safe::decompress(&mut plain[..], payload) != Ok(plain.len()) || length >= plain.len() {
                    return Err("no zstd frame of these sectors, or one that is longer than they are".to_owned());
                }
                self.run(device, sector..sector + sectors, word(40), Some(plain))?;
            }
            3 if length == 0 => self.run(device, sector..sector + sectors, word(40), None)?,
            4 if length == 0 && self.progress.is_none_or(|before| before <= sector) => self.progress = Some(sector),
            5 => {
                let sent = self.table.iter().flat_map(|(_, count, sum)| [*count, *sum]).flat_map(u64::to_be_bytes);
                if !sent.eq(payload.iter().copied()) {
                    return Err("the totals are wrong".to_owned());
                }
            }
            kind => return Err(format!("a record of kind {kind}")),
        }
        Ok(word(0) >> 9)
    }

    fn start(&mut self, mut table: &[u8]) -> Result<(), String> {
        let head = take(&mut table, 16)?;
        if head[..4] != [0, 0, 0, 1] {
            return Err("another version".to_owned());
        }
        while !table.is_empty() {
            let bytes = u64::from_be_bytes(take(&mut table, 8)?.try_into().expect("8 bytes"));
            let _unit = take(&mut table, 4)?;
            let length = take(&mut table, 1)?[0];
            let name = take(&mut table, length.into())?;
            let found = |disk: &ModelDisk| disk.name == name && disk.migrates && disk.data.len() as u64 == bytes;
            self.table.push((self.disks.iter().position(found).ok_or("the table has an unknown disk")?, 0, 0));
        }
        let migrate = self.disks.iter().filter(|disk| disk.migrates).count();
        if self.table.len() != migrate || head[15] as usize != migrate {
            return Err("the table lacks a disk".to_owned());
        }
        Ok(())
    }

    fn run(&mut self, device: u64, range: Range<u64>, sum: u64, data: Option<Vec<u8>>) -> Result<(), String> {
        let (disk, count, total) = self.table.get_mut(device as usize).ok_or("an unknown disk")?;
        *count += 1;
        *total = XxHash3_64::oneshot_with_seed(*total, &sum.to_be_bytes());
        let disk = &mut self.disks[*disk];
        let chunks = range.start / self.chunk_sectors..range.end.div_ceil(self.chunk_sectors);
        if data.is_some() && chunks.end - chunks.start != 1 {
            return Err(format!("data of more than a chunk, or none: {range:?}"));
        }
        let bytes = range.start as usize * SECTOR..range.end as usize * SECTOR;
        let target = disk.data.get_mut(bytes).ok_or("sectors past the end")?;
        match data {
            Some(data) if data.len() == target.len() => target.copy_from_slice(&data),
            Some(_) => return Err("the payload is not as long as the sectors".to_owned()),
            None => target.fill(0),
        }
        self.chunks += chunks.end - chunks.start;
        Ok(())
    }
}
