// SPDX-License-Identifier: GPL-2.0-only
//! A section of the extended stream on its way in. Nothing of a record is used before its checksum has been compared,
//! but for the length of its payload, which is bounded.
#![forbid(unsafe_code)]

use zstd_safe::DCtx;

use super::extended::{ExtendedStream, Running};
use super::section::{MAX_ZERO_RUN, Section, TargetRange};
use crate::error::Error;
use crate::extended::{Entry, HEADER_BYTES, Header, Kind, MAX_TABLE, Start, Total, check};
use crate::geometry::{SECTOR_BYTES, Sector, Sectors};
use crate::host::Host;

impl<H: Host> Section<'_, H> {
    /// Reads the records up to the section's end, the first of which begins with this word. Returns the percentage
    /// that the section said, if that is news.
    pub(super) fn read_extended(
        &mut self,
        word: [u8; 8],
        stream: &mut ExtendedStream,
        mut progress: impl FnMut(u8),
    ) -> Result<Option<u8>, Error> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&word);
        self.get(&mut header[8..], "a record's header")?;
        let mut record = Header::decode(&header)?;
        // The first record may come again in another section only: it starts another migration then.
        if record.kind == Kind::Start {
            stream.restart(Some(Running::default()));
        }
        let mut running = stream.running.take().ok_or(Error::NotStarted)?;
        loop {
            self.host.check_memory()?;
            self.read_record(&mut running, &header, &record)?;
            if record.kind == Kind::End {
                let percent = u8::try_from(record.sector).ok().filter(|&percent| percent <= 100);
                let percent = percent.ok_or(Error::Progress(record.sector))?;
                progress(percent);
                if !running.ended {
                    // Every section says it: it is news but once.
                    let news = running.percent.replace(percent) != Some(percent);
                    stream.running = Some(running);
                    return Ok(news.then_some(percent));
                }
                if percent != 100 {
                    return Err(running.bad("the last section does not end at 100 %"));
                }
                return Ok(Some(percent));
            }
            self.get(&mut header, "a record's header")?;
            record = Header::decode(&header)?;
        }
    }

    /// Reads the rest of a record, checks it, and does what it says.
    fn read_record(
        &mut self,
        running: &mut Running,
        header: &[u8; HEADER_BYTES],
        record: &Header,
    ) -> Result<(), Error> {
        let length = usize::try_from(record.length).unwrap_or(usize::MAX);
        let chunk = self.settings.geometry.chunk_bytes();
        let most = match record.kind {
            Kind::Data | Kind::Zstd => chunk,
            Kind::Start | Kind::Totals => MAX_TABLE.max(running.devices.len() * Total::BYTES),
            Kind::Zeroes | Kind::End => 0,
        };
        if length > most {
            return Err(running.bad("the payload is too long"));
        }
        if record.kind == Kind::Data {
            let mut data = self.take_data_buffer()?;
            self.get(&mut data[..length], "a record's data")?;
            let sum = check(header, &data[..length])?;
            running.check(record)?;
            let range = self.data_range(running, record, sum)?;
            if range.sectors.bytes() != length {
                return Err(running.bad("the payload is not as long as the sectors"));
            }
            running.number += 1;
            return self.write_data(range, data);
        }
        let mut payload = std::mem::take(&mut running.payload);
        if payload.len() < length {
            payload.try_reserve(length - payload.len())?;
            payload.resize(length, 0);
        }
        let bytes = &mut payload[..length];
        self.get(bytes, "a record's payload")?;
        let sum = check(header, bytes)?;
        running.check(record)?;
        match record.kind {
            Kind::Start => self.start(running, Start::decode(bytes)?)?,
            Kind::Zstd => self.load_compressed(running, record, sum, bytes)?,
            Kind::Zeroes => self.load_zeroes(running, record, sum)?,
            Kind::Totals => running.check_totals(bytes)?,
            Kind::End | Kind::Data => {}
        }
        running.number += 1;
        running.payload = payload;
        Ok(())
    }

    /// Takes the table of devices: all of them must be there, and long enough.
    fn start(&mut self, running: &mut Running, start: Start) -> Result<(), Error> {
        if running.number > 0 {
            return Err(running.bad("there is a second start"));
        }
        running.devices.try_reserve(start.devices.len())?;
        for entry in start.devices {
            let target = self.known_target(&entry)?;
            let length = self.targets[target].total * SECTOR_BYTES;
            if length > entry.bytes {
                log::warn!(
                    "device {} is {length} bytes long, the source's {}: what is past that stays as it is",
                    entry.name,
                    entry.bytes
                );
            }
            running.devices.push((entry, Total::default()));
        }
        Ok(())
    }

    /// Where a data record goes; counts it.
    fn data_range(&mut self, running: &mut Running, record: &Header, sum: u64) -> Result<TargetRange, Error> {
        let too_many = running.bad("there are more sectors than a chunk has");
        let (entry, total) = running.place(record)?;
        let count = u32::try_from(record.sectors).ok();
        let count = count.filter(|&count| count <= self.settings.geometry.sectors_per_chunk()).ok_or(too_many)?;
        total.note(sum);
        let sectors = Sectors { start: Sector(record.sector), count };
        Ok(TargetRange { target: self.known_target(entry)?, sectors })
    }

    /// A device of the table: long enough, though it may have become shorter since.
    fn known_target(&mut self, entry: &Entry) -> Result<usize, Error> {
        let target = self.target(&entry.name)?;
        let length = self.targets[target].total * SECTOR_BYTES;
        if length < entry.bytes {
            return Err(Error::Shorter { device: entry.name.clone(), length, source_length: entry.bytes });
        }
        Ok(target)
    }

    fn load_compressed(
        &mut self,
        running: &mut Running,
        record: &Header,
        sum: u64,
        payload: &[u8],
    ) -> Result<(), Error> {
        let range = self.data_range(running, record, sum)?;
        let length = range.sectors.bytes();
        let mut data = self.take_data_buffer()?;
        if running.context.is_none() {
            running.context = DCtx::try_create();
        }
        let context = running.context.as_mut().ok_or(Error::RanShort)?;
        if context.decompress(&mut data[..length], payload) != Ok(length) {
            return Err(running.bad("the data can't be decompressed"));
        }
        self.write_data(range, data)
    }

    fn load_zeroes(&mut self, running: &mut Running, record: &Header, sum: u64) -> Result<(), Error> {
        let (entry, total) = running.place(record)?;
        total.note(sum);
        let target = self.known_target(entry)?;
        let (mut start, mut left) = (record.sector, record.sectors);
        while left > 0 {
            let count = u32::try_from(left).unwrap_or(u32::MAX).min(MAX_ZERO_RUN);
            self.write_zeroes(TargetRange { target, sectors: Sectors { start: Sector(start), count } })?;
            start += u64::from(count);
            left -= u64::from(count);
        }
        Ok(())
    }
}
