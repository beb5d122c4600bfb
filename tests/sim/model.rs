// SPDX-License-Identifier: GPL-2.0-only
//! A second implementation of the destination that shares no code with the engine. After each section it holds exactly
//! what the source has sent, independent of what the real destination did with it.

use std::ops::Range;

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
}

/// Removes bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (front, rest) = bytes.split_at_checked(count).ok_or("a section is cut")?;
    *bytes = rest;
    Ok(front)
}

impl Model {
    pub(crate) fn new(disks: Vec<ModelDisk>, chunk_sectors: u64, zero_allowed: bool) -> Model {
        Model { disks, chunk_sectors, zero_allowed, progress: None, chunks: 0, resent: 0, zero: 0 }
    }

    /// Applies exactly one section. The last section must end with progress 100.
    pub(crate) fn section(&mut self, mut bytes: &[u8], last: bool) -> Result<(), String> {
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
}
