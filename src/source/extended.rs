// SPDX-License-Identifier: GPL-2.0-only
//! The records of the extended stream on their way out: numbers, checksums, totals, runs of zeroes, compression.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::compression::Compressor;
use super::device::SourceDevice;
use super::out::Out;
use crate::buffers::Buffer;
use crate::call::CallContext;
use crate::error::Error;
use crate::extended::{Entry, FEATURE_ZSTD, HEADER_BYTES, Header, Kind, Start, Total};
use crate::geometry::Sectors;
use crate::host::Device;
use crate::settings::Settings;

/// What the next records depend on.
pub(super) struct ExtendedRecords {
    /// The number of the next record.
    number: u64,
    /// A total for each device.
    totals: Vec<Total>,
    /// Zeroes that are not in the stream yet, since the next ones may go on where they end: the device and the sectors.
    zeroes: Option<(usize, Range<u64>)>,
    /// What compresses, if that is asked for.
    compressor: Option<Compressor>,
}

impl ExtendedRecords {
    pub(super) fn new(settings: &Settings) -> ExtendedRecords {
        ExtendedRecords {
            number: 0,
            totals: Vec::new(),
            zeroes: None,
            compressor: (settings.compression != 0).then(|| Compressor::new(settings.compression)),
        }
    }

    /// Puts the first section: the table of the devices.
    pub(super) fn start<D: Device>(
        &mut self,
        out: &mut Out,
        call: &mut CallContext,
        devices: &[SourceDevice<D>],
    ) -> Result<(), Error> {
        let entry = |device: &SourceDevice<D>| Entry {
            name: device.name().clone(),
            bytes: device.total_bytes(),
            unit: device.unit_bytes(),
        };
        let start = Start {
            required: if self.compressor.is_some() { FEATURE_ZSTD } else { 0 },
            optional: 0,
            devices: devices.iter().map(entry).collect(),
        };
        self.totals = vec![Total::default(); devices.len()];
        let table = start.encode()?;
        self.put(out, call, Kind::Start, 0, &(0..0), &table);
        out.put(call, &table);
        self.end_section(out, call, 0);
        Ok(())
    }

    /// A step has ended; `limited` is whether the host lets the stream take so much a step.
    pub(super) fn end_step(&mut self, now: impl Fn() -> i64, limited: bool) {
        if let Some(compressor) = &mut self.compressor {
            compressor.end_step(now(), limited);
        }
    }

    /// Puts a header; the payload comes after it. Returns the checksum.
    fn put(
        &mut self,
        out: &mut Out,
        call: &mut CallContext,
        kind: Kind,
        device: usize,
        sectors: &Range<u64>,
        payload: &[u8],
    ) -> u64 {
        let header = Header {
            kind,
            number: self.number,
            device: u32::try_from(device).expect("the table has room for fewer"),
            length: u32::try_from(payload.len()).expect("a chunk or a table"),
            sector: sectors.start,
            sectors: sectors.end - sectors.start,
        };
        self.number += 1;
        let (bytes, sum) = header.encode(payload);
        out.put(call, &bytes);
        out.status.checksummed_bytes.fetch_add((HEADER_BYTES + payload.len()) as u64, Relaxed);
        sum
    }

    /// Puts these sectors, compressed if that makes them shorter.
    #[allow(clippy::too_many_arguments)] // what a record has, and where it goes
    pub(super) fn put_data(
        &mut self,
        out: &mut Out,
        call: &mut CallContext,
        device: usize,
        sectors: Sectors,
        data: Buffer,
        lend: bool,
        now: impl Fn() -> i64,
    ) {
        self.put_pending_zeroes(out, call);
        let range = sectors.range();
        let bytes = sectors.bytes();
        let mut compressor = self.compressor.take();
        let compressed = compressor.as_mut().and_then(|compressor| compressor.compress(&data[..bytes], now()));
        let sum = if let Some(compressed) = compressed {
            let sum = self.put(out, call, Kind::Zstd, device, &range, compressed);
            out.put_compressed(call, compressed, bytes);
            sum
        } else {
            let sum = self.put(out, call, Kind::Data, device, &range, &data[..bytes]);
            out.put_data(call, data, bytes, lend);
            sum
        };
        self.compressor = compressor;
        self.totals[device].note(sum);
    }

    /// Says that these sectors are zero, now or with those that follow on them.
    pub(super) fn put_zeroes(&mut self, out: &mut Out, call: &mut CallContext, device: usize, sectors: &Range<u64>) {
        if let Some((same, run)) = &mut self.zeroes {
            if *same == device && run.end == sectors.start {
                run.end = sectors.end;
                return;
            }
        }
        self.put_pending_zeroes(out, call);
        self.zeroes = Some((device, sectors.clone()));
    }

    fn put_pending_zeroes(&mut self, out: &mut Out, call: &mut CallContext) {
        if let Some((device, sectors)) = self.zeroes.take() {
            let sum = self.put(out, call, Kind::Zeroes, device, &sectors, &[]);
            self.totals[device].note(sum);
        }
    }

    /// Ends a section, and says how many per cent of the bulk phase are done.
    pub(super) fn end_section(&mut self, out: &mut Out, call: &mut CallContext, percent: u8) {
        self.put_pending_zeroes(out, call);
        let percent = u64::from(percent);
        self.put(out, call, Kind::End, 0, &(percent..percent), &[]);
    }

    /// Ends the last section, with the totals.
    pub(super) fn end_migration(&mut self, out: &mut Out, call: &mut CallContext) {
        self.put_pending_zeroes(out, call);
        let totals: Vec<u8> = self.totals.iter().flat_map(Total::encode).collect();
        self.put(out, call, Kind::Totals, 0, &(0..0), &totals);
        out.put(call, &totals);
        self.end_section(out, call, 100);
    }
}
