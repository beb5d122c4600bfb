// SPDX-License-Identifier: GPL-2.0-only
//! How far an extended stream on its way in has come, and what a record may say there.
#![forbid(unsafe_code)]

use zstd_safe::DCtx;

use crate::error::Error;
use crate::extended::{Entry, Header, Kind, Total};
use crate::geometry::SECTOR_BYTES;

/// Where an extended stream is, from one section to the next.
#[derive(Default)]
pub(super) struct ExtendedStream {
    /// `None` before the first record, and once the totals have come.
    pub(super) running: Option<Running>,
}

/// A migration of which the first record has come.
#[derive(Default)]
pub(super) struct Running {
    /// The number of the next record.
    pub(super) number: u64,
    /// The source's devices, and what has come for each.
    pub(super) devices: Vec<(Entry, Total)>,
    /// What decompresses, once that has been needed.
    pub(super) context: Option<DCtx<'static>>,
    /// Payloads that are no data to be written as it is.
    pub(super) payload: Vec<u8>,
    /// The percentage that the last section said.
    pub(super) percent: Option<u8>,
    /// Whether the totals have come: only the end of the section may follow.
    pub(super) ended: bool,
}

impl ExtendedStream {
    /// Another migration begins: an extended one, or a classic one.
    pub(super) fn restart(&mut self, running: Option<Running>) {
        if self.running.is_some() {
            log::warn!("the extended stream before this one has not come to its end");
        }
        self.running = running;
    }
}

impl Running {
    pub(super) fn bad(&self, what: &'static str) -> Error {
        Error::BadRecord { number: self.number, what }
    }

    /// The record is the one that should come now, and its fields make sense for its kind.
    pub(super) fn check(&self, record: &Header) -> Result<(), Error> {
        if record.number != self.number {
            return Err(Error::RecordNumber { got: record.number, wanted: self.number });
        }
        if self.ended && record.kind != Kind::End {
            return Err(self.bad("there is more after the totals"));
        }
        let of_device = matches!(record.kind, Kind::Data | Kind::Zstd | Kind::Zeroes);
        if !of_device && (record.device, record.sectors) != (0, 0) {
            return Err(self.bad("there are sectors where none belong"));
        }
        if !of_device && record.kind != Kind::End && record.sector != 0 {
            return Err(self.bad("there is a sector where none belongs"));
        }
        Ok(())
    }

    /// The record's device, and its sectors, of which the device has all.
    pub(super) fn place(&mut self, record: &Header) -> Result<&mut (Entry, Total), Error> {
        let no_device = self.bad("there is no such device");
        let no_sectors = self.bad("there are no sectors");
        let place = usize::try_from(record.device).ok().and_then(|index| self.devices.get_mut(index));
        let place = place.ok_or(no_device)?;
        let total = place.0.bytes / SECTOR_BYTES;
        if record.sectors == 0 {
            return Err(no_sectors);
        }
        if record.sector.checked_add(record.sectors).is_none_or(|end| end > total) {
            let (device, sector, sectors) = (place.0.name.clone(), record.sector, record.sectors);
            return Err(Error::Run { device, sector, sectors, total });
        }
        Ok(place)
    }

    /// Everything has been sent: has it all come?
    pub(super) fn check_totals(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() != self.devices.len() * Total::BYTES {
            return Err(self.bad("there is not one total for each device"));
        }
        for ((entry, total), sent) in self.devices.iter().zip(payload.chunks(Total::BYTES)) {
            if total.encode() != *sent {
                return Err(Error::Incomplete(entry.name.clone()));
            }
        }
        self.ended = true;
        Ok(())
    }
}
