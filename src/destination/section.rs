// SPDX-License-Identifier: GPL-2.0-only
//! One section on its way in: its records, the writes that they make, and the order of those.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use super::extended::ExtendedStream;
use super::target::Target;
use crate::buffers::{Buffer, NoBuffer, Pool};
use crate::device_name::DeviceName;
use crate::error::{Errno, Error};
use crate::extended;
use crate::geometry::{SECTOR_LEN, Sector, Sectors};
use crate::host::{Device, Host, Stream};
use crate::in_flight::InFlight;
use crate::settings::Settings;
use crate::status::Status;
use crate::wire::Record;

/// Sectors that are made zero with one call at most: 1 GiB, far from the end of a C int.
pub(super) const MAX_ZERO_RUN: u32 = 1 << 21;

/// A run of sectors of one target.
#[derive(Clone, Copy)]
pub(super) struct TargetRange {
    pub(super) target: usize,
    pub(super) sectors: Sectors,
}

impl TargetRange {
    fn overlaps(self, other: TargetRange) -> bool {
        self.target == other.target && self.sectors.overlaps(other.sectors)
    }
}

/// A section that is being loaded.
pub(super) struct Section<'a, H: Host> {
    /// Whose devices are written to.
    pub(super) host: &'a H,
    /// The options in force.
    pub(super) settings: Settings,
    /// Where the records come from.
    stream: &'a mut dyn Stream,
    /// The memory of the chunks that are written.
    pool: Pool,
    /// The devices that its records have named.
    pub(super) targets: Vec<Target<H::Device>>,
    /// The target of the last record: mostly that of the next one, too.
    current: usize,
    /// Writes that the host has not completed.
    in_flight: InFlight,
    /// Where the writes in flight go.
    writes: Vec<TargetRange>,
    /// Zeroes that are not written yet, since the next record may go on where they end.
    zeroes: Option<TargetRange>,
    /// Bytes that were written as data; zeroes that the host writes in its own way are few bytes to it.
    bytes_written: u64,
}

impl<'a, H: Host> Section<'a, H> {
    pub(super) fn new(
        host: &'a H,
        settings: Settings,
        stream: &'a mut dyn Stream,
        pool: Pool,
        status: &Arc<Status>,
    ) -> Section<'a, H> {
        Section {
            host,
            settings,
            stream,
            pool,
            targets: Vec::new(),
            current: 0,
            in_flight: InFlight::new(status),
            writes: Vec::new(),
            zeroes: None,
            bytes_written: 0,
        }
    }

    /// Bytes that were written as data.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Reads the records up to the section's end. Its first record tells which of the two streams it belongs to.
    /// Returns the percentage that the section said last, if it did.
    pub(super) fn read_records(
        &mut self,
        extended: &mut ExtendedStream,
        progress: impl FnMut(u8),
    ) -> Result<Option<u8>, Error> {
        let word = self.get_word()?;
        if extended::begins_record(word) {
            return self.read_extended(word, extended, progress);
        }
        extended.restart(None);
        self.read_classic(word, progress)
    }

    fn read_classic(&mut self, mut word: [u8; 8], mut progress: impl FnMut(u8)) -> Result<Option<u8>, Error> {
        let mut last = None;
        loop {
            self.host.check_memory()?;
            match Record::decode(word, |into, what| self.get(into, what))? {
                Record::Block(name, sector) => self.load_block(&name, sector)?,
                Record::ZeroBlock(name, sector) => {
                    let range = self.chunk_range(&name, sector)?;
                    self.write_zeroes(range)?;
                }
                Record::Progress(percent) => {
                    last = Some(percent);
                    progress(percent);
                }
                Record::End => return Ok(last),
            }
            word = self.get_word()?;
        }
    }

    fn get_word(&mut self) -> Result<[u8; 8], Error> {
        let mut word = [0; 8];
        self.get(&mut word, "a record's header").map(|()| word)
    }

    /// Adds the devices that this section has written to.
    pub(super) fn note_written(&self, names: &mut Vec<DeviceName>) -> Result<(), Error> {
        for target in self.targets.iter().filter(|target| target.written) {
            if !names.contains(&target.name) {
                self.host.check_memory()?;
                names.try_reserve(1)?;
                names.push(target.name.clone());
            }
        }
        Ok(())
    }

    /// Brings what was written to these devices to stable storage, and forgets them.
    pub(super) fn flush(&mut self, names: &mut Vec<DeviceName>) -> Result<(), Error> {
        for name in names.drain(..) {
            match self.targets.iter().find(|target| target.name == name) {
                Some(target) => target.flush()?,
                None => Target::flush_again(self.host, &name)?,
            }
        }
        Ok(())
    }

    /// Fills `into`, or fails: a cut stream must not pass for data.
    pub(super) fn get(&mut self, into: &mut [u8], what: &'static str) -> Result<(), Error> {
        let got = self.stream.get(into);
        if let Some(errno) = self.stream.error() {
            return Err(Error::Stream(errno));
        }
        if got < into.len() { Err(Error::Short(what)) } else { Ok(()) }
    }

    /// Checks a record's sector against its device: where the chunk goes.
    fn chunk_range(&mut self, name: &DeviceName, sector: Sector) -> Result<TargetRange, Error> {
        let target = self.target(name)?;
        let total = self.targets[target].total;
        if sector.0 >= total {
            return Err(Error::Address { device: name.clone(), sector: sector.0, total });
        }
        Ok(TargetRange { target, sectors: self.settings.geometry.clip(sector, total) })
    }

    /// The place of a device in the list; opened if no record has named it before.
    pub(super) fn target(&mut self, name: &DeviceName) -> Result<usize, Error> {
        if self.targets.get(self.current).is_none_or(|target| target.name != *name) {
            self.current = if let Some(index) = self.targets.iter().position(|target| target.name == *name) {
                index
            } else {
                self.targets.try_reserve(1)?;
                self.targets.push(Target::open(self.host, name, self.settings.geometry)?);
                self.targets.len() - 1
            };
        }
        Ok(self.current)
    }

    fn load_block(&mut self, name: &DeviceName, sector: Sector) -> Result<(), Error> {
        let chunk = self.chunk_range(name, sector)?;
        let mut buffer = self.take_data_buffer()?;
        self.get(&mut buffer, "a chunk's data")?;
        let length = chunk.sectors.bytes();
        let target = &mut self.targets[chunk.target];
        target.check_tail(sector, &buffer[length..], self.settings.accept_tail_garbage)?;
        self.write_data(chunk, buffer)
    }

    /// Writes what the buffer begins with: zeroes in the host's own way where that is better.
    pub(super) fn write_data(&mut self, to: TargetRange, data: Buffer) -> Result<(), Error> {
        let length = to.sectors.bytes();
        let data = Arc::new(data);
        let mut done = 0;
        while done < length {
            let (zero, bytes) = self.targets[to.target].next_run(&data[..length], done);
            done = bytes.end;
            let range = TargetRange { target: to.target, sectors: part(to.sectors, &bytes) };
            if zero && !self.has_sole_buffer() {
                self.write_zeroes(range)?;
            } else {
                self.write(range, &data, bytes)?;
            }
        }
        Ok(())
    }

    /// Whether there is but one buffer. Zeroes may have to be written from a buffer, too: then not while data has it.
    fn has_sole_buffer(&self) -> bool {
        self.pool.limit() == 1
    }

    /// A buffer for data from the stream.
    pub(super) fn take_data_buffer(&mut self) -> Result<Buffer, Error> {
        if self.has_sole_buffer() {
            self.flush_zeroes()?;
        }
        self.take_buffer()
    }

    fn take_buffer(&mut self) -> Result<Buffer, Error> {
        loop {
            match self.pool.take() {
                Ok(buffer) => return Ok(buffer),
                Err(NoBuffer::InUse) if self.in_flight.count() > 0 => self.wait_for_one()?,
                // Requests that a host has lost in an earlier section hold them.
                Err(NoBuffer::InUse) => return Err(Error::Lost(self.pool.in_use())),
                Err(NoBuffer::NoMemory) => return Err(Error::NoMemory("a chunk".to_owned())),
            }
        }
    }

    /// Writes these bytes of the data, asynchronously where the host can.
    fn write(&mut self, to: TargetRange, data: &Arc<Buffer>, bytes: Range<usize>) -> Result<(), Error> {
        self.order(to)?;
        while self.in_flight.count() >= self.settings.max_writes as usize {
            self.wait_for_one()?;
        }
        let target = &mut self.targets[to.target];
        target.written = true;
        self.bytes_written += bytes.len() as u64;
        let start = to.sectors.start;
        let failed = |errno| target.write_failed(start.0, errno);
        if !target.device.has_write_async() {
            return target.device.write(start, &data[bytes]).map_err(failed);
        }
        self.host.check_memory()?;
        self.in_flight.reserve()?;
        self.writes.try_reserve(1)?;
        self.writes.push(to);
        let request = self.in_flight.write(to.target, start, Arc::clone(data), bytes);
        target.device.write_async(request).map_err(failed)?;
        self.collect()
    }

    /// Takes zeroes, to be written with those that follow on them.
    pub(super) fn write_zeroes(&mut self, range: TargetRange) -> Result<(), Error> {
        if let Some(run) = &mut self.zeroes {
            let follows = run.target == range.target && run.sectors.end() == range.sectors.start;
            if follows && run.sectors.count + range.sectors.count <= MAX_ZERO_RUN {
                run.sectors.count += range.sectors.count;
                return Ok(());
            }
        }
        self.flush_zeroes()?;
        self.zeroes = Some(range);
        Ok(())
    }

    fn flush_zeroes(&mut self) -> Result<(), Error> {
        let Some(run) = self.zeroes.take() else { return Ok(()) };
        self.order(run)?;
        let target = &mut self.targets[run.target];
        if target.is_known_zero(run.sectors) {
            return Ok(());
        }
        target.written = true;
        match target.device.write_zeroes(run.sectors) {
            Some(Err(errno)) if errno != Errno::NOT_SUPPORTED => Err(target.write_failed(run.sectors.start.0, errno)),
            Some(Ok(())) => Ok(()),
            _ => self.write_zero_data(run),
        }
    }

    /// Writes zeroes as data: the host has no better way.
    fn write_zero_data(&mut self, mut run: TargetRange) -> Result<(), Error> {
        while run.sectors.count > 0 {
            let sectors = Sectors {
                start: run.sectors.start,
                count: run.sectors.count.min(self.settings.geometry.sectors_per_chunk()),
            };
            let mut buffer = self.take_buffer()?;
            buffer[..sectors.bytes()].fill(0);
            self.write(TargetRange { target: run.target, sectors }, &Arc::new(buffer), 0..sectors.bytes())?;
            run.sectors = Sectors { start: sectors.end(), count: run.sectors.count - sectors.count };
        }
        Ok(())
    }

    /// Returns when nothing that was to be written before overlaps this range any more.
    fn order(&mut self, range: TargetRange) -> Result<(), Error> {
        if self.zeroes.is_some_and(|run| run.overlaps(range)) {
            self.flush_zeroes()?;
        }
        while self.writes.iter().any(|write| write.overlaps(range)) {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), Error> {
        self.in_flight.wait_for_host(self.host)?;
        self.collect()
    }

    /// Takes the writes that have completed.
    fn collect(&mut self) -> Result<(), Error> {
        while let Some(done) = self.in_flight.pop() {
            let same = |write: &TargetRange| write.target == done.device && write.sectors == done.sectors;
            if let Some(index) = self.writes.iter().position(same) {
                self.writes.swap_remove(index);
            }
            if let Err(errno) = done.result {
                return Err(self.targets[done.device].write_failed(done.sectors.start.0, errno));
            }
        }
        Ok(())
    }

    /// Writes what is still to be written, if all went well, and waits for what is in flight in any case.
    pub(super) fn finish(&mut self, well: bool) -> Result<(), Error> {
        let mut result = if well { self.flush_zeroes() } else { Ok(()) };
        while self.in_flight.count() > 0 {
            let waited = self.in_flight.wait_for_host(self.host);
            let lost = waited.is_err();
            let collected = waited.and_then(|()| self.collect());
            result = result.and(collected);
            if lost {
                break;
            }
        }
        result
    }
}

impl<H: Host> Drop for Section<'_, H> {
    fn drop(&mut self) {
        // Only after a panic, or if the host has lost a write: the devices must not be let go before that ends.
        self.in_flight.abandon(self.host);
    }
}

/// The sectors that a range of a chunk's bytes goes to.
fn part(sectors: Sectors, range: &Range<usize>) -> Sectors {
    let count = |bytes: usize| u32::try_from(bytes / SECTOR_LEN).expect("part of a chunk");
    Sectors { start: Sector(sectors.start.0 + u64::from(count(range.start))), count: count(range.len()) }
}
