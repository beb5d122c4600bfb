// SPDX-License-Identifier: GPL-2.0-only
//! The extended stream for the target `incoming`: records made of a few bytes of the input, right unless the input says
//! otherwise, and a model of what a destination makes of them.
//!
//! The model reads by `docs/protocol.md`, and shares nothing with the engine.

use twox_hash::XxHash3_64;

use crate::host::{Disk, SECTOR, World};
use crate::incoming::{Model, take, usable};
use crate::input::{Bits, Input};

const HEADER: usize = 48;

const DATA: u64 = 1;
const ZSTD: u64 = 2;
const ZEROES: u64 = 3;
const END: u64 = 4;
const TOTALS: u64 = 5;

fn checksum(header: &[u8], payload: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&header[..HEADER - 8]), payload)
}

/// How many records a device has had, and their digest.
type Total = (u64, u64);

fn note(total: &mut Total, sum: u64) {
    *total = (total.0 + 1, XxHash3_64::oneshot_with_seed(total.1, &sum.to_be_bytes()));
}

fn totals<'a>(all: impl Iterator<Item = &'a Total>) -> Vec<u8> {
    all.flat_map(|(records, digest)| [*records, *digest]).flat_map(u64::to_be_bytes).collect()
}

/// What the next record is to get wrong.
#[derive(Clone, Copy)]
struct Mistake {
    bit: u8,
    byte: u8,
    /// The checksum is that of what is wrong.
    summed: bool,
}

/// Writes records, with the numbers, checksums and totals that they should have.
pub(crate) struct Sender {
    /// Whether steps make records of this stream, and not of the classic one.
    pub(crate) on: bool,
    number: u64,
    totals: Vec<Total>,
    mistake: Option<Mistake>,
}

impl Sender {
    pub(crate) fn new(on: bool) -> Sender {
        Sender { on, number: 0, totals: Vec::new(), mistake: None }
    }

    pub(crate) fn control(&mut self, which: u8, input: &mut Input) {
        if which == 1 {
            self.on = !self.on;
        } else {
            let mut bits = Bits(input.byte());
            self.mistake =
                Some(Mistake { bit: bits.take(3), byte: bits.take(5) | input.byte() << 5, summed: which == 3 });
        }
    }

    /// The record of a step of this kind.
    pub(crate) fn record(&mut self, kind: u8, how: u8, input: &mut Input, world: &World, stamp: &mut u64) -> Vec<u8> {
        match kind {
            0 | 1 => {
                let (device, sector, count) = place(input);
                let data = data(u64::from(count), input.byte(), stamp);
                self.put(DATA, device, (sector, count.into()), &data)
            }
            2 => {
                let (device, sector, count) = place(input);
                self.put(ZEROES, device, (sector, u64::from(count) << (how & 3)), &[])
            }
            3 => {
                self.number = 0;
                let table = self.table(&mut Bits(how), &world.disks.borrow());
                self.put(0, 0, (0, 0), &table)
            }
            4 => {
                let percent = if how == 0 { input.byte() } else { how * 4 };
                self.put(END, 0, (percent.into(), 0), &[])
            }
            5 => {
                let (device, sector, count) = place(input);
                let frame = frame(how, data(u64::from(count), input.byte(), stamp));
                self.put(ZSTD, device, (sector, count.into()), &frame)
            }
            _ => {
                let mut totals = totals(self.totals.iter());
                totals.truncate(totals.len().saturating_sub(usize::from(how)));
                self.put(TOTALS, 0, (0, 0), &totals)
            }
        }
    }

    fn put(&mut self, kind: u64, device: u32, (sector, sectors): (u64, u64), payload: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(HEADER + payload.len());
        for word in [kind << 9 | 0x10, self.number, u64::from(device) << 32 | payload.len() as u64, sector, sectors, 0]
        {
            record.extend(word.to_be_bytes());
        }
        record.extend(payload);
        self.number += 1;
        let mistake = self.mistake.take();
        let flip = |record: &mut Vec<u8>, mistake: Mistake| {
            let at = usize::from(mistake.byte) % record.len();
            // More sectors than a few hundred would take longer than a fuzzer waits.
            if !(32..39).contains(&at) {
                record[at] ^= 1 << mistake.bit;
            }
        };
        mistake.filter(|mistake| mistake.summed).into_iter().for_each(|mistake| flip(&mut record, mistake));
        let sum = checksum(&record, &record[HEADER..]);
        record[40..HEADER].copy_from_slice(&sum.to_be_bytes());
        mistake.filter(|mistake| !mistake.summed).into_iter().for_each(|mistake| flip(&mut record, mistake));
        if (DATA..=ZEROES).contains(&kind) {
            if let Some(total) = self.totals.get_mut(device as usize) {
                note(total, sum);
            }
        }
        record
    }

    /// The table of all disks that can be written to, or one that is wrong.
    fn table(&mut self, how: &mut Bits, disks: &[Disk]) -> Vec<u8> {
        let wrong = how.take(3);
        let all = how.flag();
        let chosen: Vec<&Disk> = disks.iter().filter(|disk| all || usable(disk)).collect();
        self.totals = vec![(0, 0); chosen.len()];
        let mut table = Vec::new();
        let (version, required) = (if wrong == 1 { 2 } else { 1 }, if wrong == 2 { 3 } else { 1 });
        for number in [version, required, 0xffff, chosen.len() as u32 + u32::from(wrong == 3)] {
            table.extend(u32::to_be_bytes(number));
        }
        for disk in chosen {
            let length = disk.says.map_or(disk.data.len() as u64, |says| says.unwrap_or(512).unsigned_abs());
            let length = match wrong {
                4 => length + 512,
                5 => length.saturating_sub(512),
                6 => length + 1,
                _ => length,
            };
            table.extend(length.to_be_bytes());
            table.extend(512_u32.to_be_bytes());
            table.push(disk.name.len() as u8);
            table.extend(&disk.name);
        }
        if wrong == 7 {
            table.pop();
        }
        table
    }
}

/// Device, first sector, and how many.
fn place(input: &mut Input) -> (u32, u64, u8) {
    let mut place = Bits(input.byte());
    let (sector, device) = (place.take(5).into(), place.take(3));
    // Mostly one of those that there are.
    let device = if device == 7 { 9 } else { device % 3 };
    (device.into(), sector, input.byte() & 15)
}

/// Sectors of which none is like another, and some are zero.
fn data(sectors: u64, zero: u8, stamp: &mut u64) -> Vec<u8> {
    let sector = |number: u64| {
        *stamp += 1;
        let content = if zero >> (number & 7) & 1 == 1 { 0 } else { *stamp << 8 | 0xda };
        content.to_le_bytes().repeat(SECTOR / 8)
    };
    (0..sectors).flat_map(sector).collect()
}

/// The data as a frame, or as one that is wrong.
fn frame(how: u8, mut data: Vec<u8>) -> Vec<u8> {
    match how & 7 {
        1 => data.push(0),
        2 => drop(data.pop()),
        3 => data.resize(1 << 17, 0),
        4 => return data,
        _ => {}
    }
    let mut frame = vec![0; data.len() + 64];
    let length = zstd_safe::compress(&mut frame[..], &data, 1).expect("there is room");
    frame.truncate(length);
    match how & 7 {
        5 => drop(frame.pop()),
        6 => frame.push(0x28),
        _ => {}
    }
    frame
}

/// Where a destination is in the stream.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// `None` before the first record, and after the last section.
    running: Option<Running>,
}

#[derive(Clone, Default)]
struct Running {
    number: u64,
    /// Which disk, its length by the table, and what has come of it.
    table: Vec<(usize, u64, Total)>,
    ended: bool,
    percent: Option<u64>,
}

impl State {
    /// The records of a section. `None` at the first thing that is wrong.
    pub(crate) fn records(
        &mut self,
        model: &mut Model,
        rest: &mut &[u8],
        disks: &[Disk],
        chunk: u64,
    ) -> Option<Option<u64>> {
        if rest.len() >= HEADER && rest[..8] == 0x10_u64.to_be_bytes() {
            self.running = Some(Running::default());
        }
        let mut running = self.running.take()?;
        loop {
            let header = take(rest, HEADER)?;
            if let Some(percent) = running.record(header, model, rest, disks, chunk)? {
                if running.ended {
                    return Some(Some(percent));
                }
                // It asks for a flush but once.
                let news = running.percent.replace(percent) != Some(percent);
                self.running = Some(running);
                return Some(news.then_some(percent));
            }
        }
    }
}

impl Running {
    /// One record; the percentage if it ends the section.
    fn record(
        &mut self,
        header: &[u8],
        model: &mut Model,
        rest: &mut &[u8],
        disks: &[Disk],
        chunk: u64,
    ) -> Option<Option<u64>> {
        let word = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let (kind, device, length) = (word(0) >> 9, word(16) >> 32, word(16) & 0xffff_ffff);
        let (sector, sectors, sum) = (word(24), word(32), word(40));
        let most = match kind {
            DATA | ZSTD => chunk * SECTOR as u64,
            0 | TOTALS => 1 << 20,
            _ => 0,
        };
        if word(0) & 0x1ff != 0x10 || kind > TOTALS || length > most {
            return None;
        }
        let payload = take(rest, length as usize)?;
        let of_device = (DATA..=ZEROES).contains(&kind);
        let unused = of_device || (device, sectors) == (0, 0) && (kind == END || sector == 0);
        if sum != checksum(header, payload) || word(8) != self.number || !unused || self.ended && kind != END {
            return None;
        }
        match kind {
            0 => self.start(payload, disks)?,
            END => {
                let right = sector == 100 || sector < 100 && !self.ended;
                return right.then_some(Some(sector)).inspect(|_| self.number += 1);
            }
            TOTALS => {
                self.ended = payload == totals(self.table.iter().map(|(.., total)| total));
                self.ended.then_some(())?;
            }
            _ => {
                let (disk, bytes, total) = self.table.get_mut(device as usize)?;
                let inside = sector.checked_add(sectors).is_some_and(|end| end <= *bytes / SECTOR as u64);
                if sectors == 0 || !inside || kind != ZEROES && sectors > chunk {
                    return None;
                }
                let data = content(kind, payload, sectors)?;
                note(total, sum);
                for at in 0..sectors {
                    let content = data.as_ref().map(|data| data[at as usize * SECTOR..][..SECTOR].to_vec());
                    model.writes.push((*disk, sector + at, content));
                }
            }
        }
        self.number += 1;
        Some(None)
    }

    fn start(&mut self, mut table: &[u8], disks: &[Disk]) -> Option<()> {
        let head = take(&mut table, 16)?;
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        if self.number > 0 || number(0) != 1 || number(4) > 1 {
            return None;
        }
        for _ in 0..number(12) {
            let bytes = u64::from_be_bytes(take(&mut table, 8)?.try_into().ok()?);
            let length = take(&mut table, 5)?[4];
            let name = take(&mut table, length.into())?;
            let disk = disks.iter().position(|disk| disk.name == name && usable(disk))?;
            let known = self.table.iter().any(|(other, ..)| *other == disk);
            let is = disks[disk].says.map_or(disks[disk].data.len() as u64, |says| says.unwrap_or(0) as u64);
            if known || bytes == 0 || bytes % SECTOR as u64 != 0 || is < bytes {
                return None;
            }
            self.table.push((disk, bytes, (0, 0)));
        }
        table.is_empty().then_some(())
    }
}

/// What a record puts on the disk; `None` within: zeroes.
fn content(kind: u64, payload: &[u8], sectors: u64) -> Option<Option<Vec<u8>>> {
    let length = sectors as usize * SECTOR;
    match kind {
        DATA => (payload.len() == length).then(|| Some(payload.to_vec())),
        ZSTD => {
            let mut data = vec![0; length];
            (zstd_safe::decompress(&mut data[..], payload) == Ok(length)).then_some(Some(data))
        }
        _ => Some(None),
    }
}
