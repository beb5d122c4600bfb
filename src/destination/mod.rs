// SPDX-License-Identifier: GPL-2.0-only
//! Incoming: takes a section from the stream and writes it to the devices.
//!
//! The stream is hostile: everything that a record says is checked before any of it is written. Writes may be in flight
//! while the next record is read, but never two that overlap, and none any more when the section's load returns.
#![forbid(unsafe_code)]

mod target;

use std::ops::Range;
use std::sync::Arc;

use crate::buffers::{Buffer, NoBuffer, Pool};
use crate::error::{Errno, Error};
use crate::geometry::{SECTOR_LEN, Sector, Sectors};
use crate::host::{Device, Host, Stream};
use crate::request::{Completions, WriteRequest};
use crate::source::{Settings, label};
use crate::status::Status;
use crate::wire::{HEADER_BYTES, Header};

use target::Target;

/// The most lines about its progress that one stream can bring into the log; an honest one needs a hundred.
const MAX_PROGRESS_LINES: u32 = 256;

/// Sectors that are made zero with one call at most: 1 GiB, far from the end of a C int.
const MAX_ZERO_RUN: u32 = 1 << 21;

/// So many chunks of data are flushed at once, at the end of a section: 256 MiB.
const FLUSH_AFTER_CHUNKS: u64 = 256;

/// What is kept from one section to the next: nothing of the host's.
#[derive(Default)]
pub struct Incoming {
    /// The buffers, so that a section need not fault in memory anew.
    pool: Option<Pool>,
    /// The stream that the last section came from.
    stream: Option<usize>,
    progress: Progress,
    /// The devices that were written to and not flushed since.
    written: Vec<Vec<u8>>,
    /// How many bytes that were.
    unflushed: u64,
}

/// What the progress records have said, for the log.
#[derive(Default)]
struct Progress {
    /// The last one. One that is lower starts another migration.
    last: Option<u8>,
    lines: u32,
}

impl Progress {
    fn log(&mut self, percent: u8) {
        let last = self.last.replace(percent);
        if last.is_none_or(|last| percent < last) {
            self.line(format_args!("Receiving block device images"));
        }
        // The end of the bulk phase and that of the migration both say 100.
        if last != Some(percent) {
            self.line(format_args!("Completed {percent} %"));
        }
    }

    /// The peer decides how many records there are, but not how long the log gets.
    fn line(&mut self, text: std::fmt::Arguments) {
        if self.lines < MAX_PROGRESS_LINES {
            self.lines += 1;
            log::info!("{text}");
        }
    }
}

impl Incoming {
    /// Reads one section and writes what it holds. All writes are done when this returns, and after a section that says
    /// 100 %, as the last one does, all that was written is on stable storage. So is what came before, now and then: the guest
    /// stands still while the last section is loaded.
    ///
    /// # Errors
    /// If the section breaks the format, names what is not there, ends too soon, or if a write or a flush fails. Of the record
    /// that is wrong, nothing has been written.
    pub fn load<H: Host>(
        &mut self,
        host: &H,
        settings: Settings,
        status: &Arc<Status>,
        stream: &mut dyn Stream,
    ) -> Result<(), Error> {
        let identity = stream.identity();
        if self.stream.replace(identity) != Some(identity) {
            self.forget();
        }
        host.forget_shortage();
        let bytes = settings.geometry.chunk_bytes();
        let kept = self.pool.take().filter(|pool| pool.limit() == settings.max_buffers as usize);
        let pool = kept.unwrap_or_else(|| Pool::new(settings.max_buffers, bytes, Arc::clone(status)));
        let mut section = Section {
            host,
            settings,
            stream,
            pool: pool.clone(),
            completions: Completions::new(Arc::clone(status)),
            targets: Vec::new(),
            current: 0,
            in_flight: Vec::new(),
            zeroes: None,
            bytes_written: 0,
        };
        let read = section.read_records(&mut self.progress);
        // Even after an error nothing may be left in flight, and the first error is the one to report.
        let finished = section.finish(read.is_ok());
        let result = read.and_then(|percent| finished.map(|()| percent)).and_then(|percent| {
            section.note_written(&mut self.written)?;
            self.unflushed += section.bytes_written;
            if percent == Some(100) || self.unflushed >= FLUSH_AFTER_CHUNKS * bytes as u64 {
                self.unflushed = 0;
                section.flush(&mut self.written)
            } else {
                Ok(())
            }
        });
        drop(section);
        if result.is_err() {
            self.stream = None;
        } else if self.progress.last != Some(100) {
            self.pool = Some(pool);
        }
        result
    }

    /// Another migration begins.
    fn forget(&mut self) {
        self.progress = Progress::default();
        self.written.clear();
        self.unflushed = 0;
    }
}

/// A run of sectors of one target.
#[derive(Clone, Copy)]
struct Place {
    target: usize,
    sectors: Sectors,
}

impl Place {
    fn overlaps(self, other: Place) -> bool {
        self.target == other.target && self.sectors.overlaps(other.sectors)
    }
}

struct Section<'a, H: Host> {
    host: &'a H,
    settings: Settings,
    stream: &'a mut dyn Stream,
    pool: Pool,
    completions: Arc<Completions>,
    targets: Vec<Target<H::Device>>,
    /// The target of the last record: mostly that of the next one too.
    current: usize,
    /// Writes that the host has not completed.
    in_flight: Vec<Place>,
    /// Zeroes that are not written yet, since the next record may go on where they end.
    zeroes: Option<Place>,
    /// As data; zeroes that the host writes in its own way are few bytes to it.
    bytes_written: u64,
}

impl<H: Host> Section<'_, H> {
    /// Returns the percentage that the section's last progress record says, if it has one.
    fn read_records(&mut self, progress: &mut Progress) -> Result<Option<u8>, Error> {
        let mut last = None;
        loop {
            self.host.check_memory()?;
            let mut header = [0; HEADER_BYTES];
            self.get(&mut header, "a record's header")?;
            match Header::decode(header)? {
                Header::Block(sector) => self.load_block(sector)?,
                Header::ZeroBlock(sector) => {
                    let place = self.load_place(sector)?;
                    self.write_zeroes(place)?;
                }
                Header::Progress(percent) => {
                    last = Some(percent);
                    progress.log(percent);
                }
                Header::End => return Ok(last),
            }
        }
    }

    /// Adds the devices that this section has written to.
    fn note_written(&self, names: &mut Vec<Vec<u8>>) -> Result<(), Error> {
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
    fn flush(&mut self, names: &mut Vec<Vec<u8>>) -> Result<(), Error> {
        for name in names.drain(..) {
            match self.targets.iter().find(|target| target.name == name) {
                Some(target) => target.flush()?,
                None => Target::flush_again(self.host, &name)?,
            }
        }
        Ok(())
    }

    /// Fills `into`, or fails: a cut stream must not pass for data.
    fn get(&mut self, into: &mut [u8], what: &'static str) -> Result<(), Error> {
        let got = self.stream.get(into);
        if let Some(errno) = self.stream.error() {
            return Err(Error::Stream(errno));
        }
        if got < into.len() { Err(Error::Short(what)) } else { Ok(()) }
    }

    /// Reads the device's name and checks the sector against the device: where the record goes.
    fn load_place(&mut self, sector: Sector) -> Result<Place, Error> {
        let mut length = [0];
        self.get(&mut length, "a device name")?;
        let mut name = vec![0; usize::from(length[0])];
        self.get(&mut name, "a device name")?;
        if name.is_empty() || name.contains(&0) {
            return Err(Error::Name(label(&name)));
        }
        let target = self.target(&name)?;
        let total = self.targets[target].total;
        if sector.0 >= total {
            return Err(Error::Address { device: label(&name), sector: sector.0, total });
        }
        Ok(Place { target, sectors: self.settings.geometry.clip(sector, total) })
    }

    fn target(&mut self, name: &[u8]) -> Result<usize, Error> {
        if self.targets.get(self.current).is_none_or(|target| target.name != name) {
            self.current = if let Some(index) = self.targets.iter().position(|target| target.name == name) {
                index
            } else {
                self.targets.try_reserve(1)?;
                self.targets.push(Target::open(self.host, name, self.settings.geometry)?);
                self.targets.len() - 1
            };
        }
        Ok(self.current)
    }

    fn load_block(&mut self, sector: Sector) -> Result<(), Error> {
        let place = self.load_place(sector)?;
        // Zeroes may have to be written from a buffer too: if there is but one, not while this block has it.
        let sole = self.pool.limit() == 1;
        if sole {
            self.flush_zeroes()?;
        }
        let mut buffer = self.take_buffer()?;
        self.get(&mut buffer, "a chunk's data")?;
        let bytes = place.sectors.bytes();
        let target = &mut self.targets[place.target];
        target.check_tail(sector, &buffer[bytes..], self.settings.accept_tail_garbage)?;
        let buffer = Arc::new(buffer);
        let mut done = 0;
        while done < bytes {
            let (zero, range) = self.targets[place.target].next_run(&buffer[..bytes], done);
            done = range.end;
            let place = Place { target: place.target, sectors: part(place.sectors, &range) };
            if zero && !sole {
                self.write_zeroes(place)?;
            } else {
                self.write(place, &buffer, range)?;
            }
        }
        Ok(())
    }

    fn take_buffer(&mut self) -> Result<Buffer, Error> {
        loop {
            match self.pool.take() {
                Ok(buffer) => return Ok(buffer),
                Err(NoBuffer::InUse) if !self.in_flight.is_empty() => self.wait_for_one()?,
                // Requests that a host has lost in an earlier section hold them.
                Err(NoBuffer::InUse) => return Err(Error::Lost(self.pool.in_use())),
                Err(NoBuffer::NoMemory) => return Err(Error::NoMemory("a chunk".to_owned())),
            }
        }
    }

    /// Writes data, asynchronously where the host can.
    fn write(&mut self, place: Place, data: &Arc<Buffer>, range: Range<usize>) -> Result<(), Error> {
        self.order(place)?;
        while self.in_flight.len() >= self.settings.max_writes as usize {
            self.wait_for_one()?;
        }
        let target = &mut self.targets[place.target];
        target.written = true;
        self.bytes_written += range.len() as u64;
        let start = place.sectors.start;
        let failed = |errno| target.write_failed(start.0, errno);
        if !target.device.has_write_async() {
            return target.device.write(start, &data[range]).map_err(failed);
        }
        self.host.check_memory()?;
        self.completions.make_room(self.in_flight.len() + 1)?;
        self.in_flight.try_reserve(1)?;
        let request = WriteRequest::new(&self.completions, place.target, start, Arc::clone(data), range);
        self.in_flight.push(place);
        target.device.write_async(request).map_err(failed)?;
        self.collect()
    }

    /// Takes zeroes, to be written with those that follow on them.
    fn write_zeroes(&mut self, place: Place) -> Result<(), Error> {
        if let Some(run) = &mut self.zeroes {
            let follows = run.target == place.target && run.sectors.end() == place.sectors.start;
            if follows && run.sectors.count <= MAX_ZERO_RUN {
                run.sectors.count += place.sectors.count;
                return Ok(());
            }
        }
        self.flush_zeroes()?;
        self.zeroes = Some(place);
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
    fn write_zero_data(&mut self, mut run: Place) -> Result<(), Error> {
        while run.sectors.count > 0 {
            let sectors = Sectors {
                start: run.sectors.start,
                count: run.sectors.count.min(self.settings.geometry.sectors_per_chunk()),
            };
            let mut buffer = self.take_buffer()?;
            buffer[..sectors.bytes()].fill(0);
            self.write(Place { target: run.target, sectors }, &Arc::new(buffer), 0..sectors.bytes())?;
            run.sectors = Sectors { start: sectors.end(), count: run.sectors.count - sectors.count };
        }
        Ok(())
    }

    /// Returns when nothing that was to be written before overlaps this place any more.
    fn order(&mut self, place: Place) -> Result<(), Error> {
        if self.zeroes.is_some_and(|run| run.overlaps(place)) {
            self.flush_zeroes()?;
        }
        while self.in_flight.iter().any(|write| write.overlaps(place)) {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), Error> {
        self.completions.wait_for_host(self.host, self.in_flight.len())?;
        self.collect()
    }

    /// Takes the writes that have completed.
    fn collect(&mut self) -> Result<(), Error> {
        while let Some(done) = self.completions.pop() {
            let same = |place: &Place| place.target == done.device && place.sectors == done.sectors;
            if let Some(index) = self.in_flight.iter().position(same) {
                self.in_flight.swap_remove(index);
            }
            if let Err(errno) = done.result {
                return Err(self.targets[done.device].write_failed(done.sectors.start.0, errno));
            }
        }
        Ok(())
    }

    /// Writes what is still to be written, if all went well, and waits for what is in flight in any case.
    fn finish(&mut self, well: bool) -> Result<(), Error> {
        let mut result = if well { self.flush_zeroes() } else { Ok(()) };
        while !self.in_flight.is_empty() {
            let waited = self.completions.wait_for_host(self.host, self.in_flight.len());
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
        if !self.in_flight.is_empty() {
            self.host.drain();
        }
    }
}

/// The sectors that a range of a chunk's bytes goes to.
fn part(sectors: Sectors, range: &Range<usize>) -> Sectors {
    let count = |bytes: usize| u32::try_from(bytes / SECTOR_LEN).expect("part of a chunk");
    Sectors { start: Sector(sectors.start.0 + u64::from(count(range.start))), count: count(range.len()) }
}
