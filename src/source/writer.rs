// SPDX-License-Identifier: GPL-2.0-only
//! What an outgoing migration puts into the stream, and how much that was: the classic stream here, the extended
//! one in [`extended`](super::extended).
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use super::device::SourceDevice;
use super::extended::ExtendedRecords;
use super::out::Out;
use crate::buffers::Buffer;
use crate::call::CallContext;
use crate::device_name::DeviceName;
use crate::error::Error;
use crate::geometry::{Sector, Sectors};
use crate::host::Device;
use crate::settings::Settings;
use crate::status::Status;
use crate::wire::Record;

/// A device as records name it: its place in the list, and its name.
pub(super) type Named<'a> = (usize, &'a DeviceName);

/// Puts records into the stream, and counts.
pub(super) struct Writer {
    out: Out,
    /// The percentage that was said last.
    progress: Option<u8>,
    /// Bytes of a record's data in the classic stream.
    chunk_bytes: usize,
    /// Whether that says of zeroes that they are zero.
    zero_blocks: bool,
    /// For the extended stream.
    extended: Option<Box<ExtendedRecords>>,
}

impl Writer {
    pub(super) fn new(settings: &Settings, status: &Arc<Status>) -> Writer {
        Writer {
            out: Out::new(status),
            progress: None,
            chunk_bytes: settings.geometry.chunk_bytes(),
            zero_blocks: settings.zero_blocks,
            extended: settings.extended.then(|| Box::new(ExtendedRecords::new(settings))),
        }
    }

    /// Puts the first section.
    pub(super) fn start<D: Device>(
        &mut self,
        call: &mut CallContext,
        devices: &[SourceDevice<D>],
    ) -> Result<(), Error> {
        if let Some(extended) = &mut self.extended {
            return extended.start(&mut self.out, call, devices);
        }
        self.put(call, &Record::End);
        Ok(())
    }

    /// A step begins.
    pub(super) fn begin_step(&mut self) {
        self.out.begin_step();
    }

    /// Bytes put into the stream since the step began, data as long as it was before it was compressed.
    pub(super) fn step_bytes(&self) -> u64 {
        self.out.step_bytes()
    }

    fn put(&mut self, call: &mut CallContext, record: &Record) {
        self.out.put(call, &record.encode());
    }

    /// Puts a record with data, and says when that is done.
    pub(super) fn put_data(
        &mut self,
        call: &mut CallContext,
        device: Named,
        sectors: Sectors,
        data: Buffer,
        lend: bool,
        now: impl Fn() -> i64,
    ) {
        if let Some(extended) = &mut self.extended {
            return extended.put_data(&mut self.out, call, device.0, sectors, data, lend, now);
        }
        self.put(call, &Record::Block(device.1.clone(), sectors.start));
        self.out.put_data(call, data, self.chunk_bytes, lend);
    }

    /// Puts a record that says that these sectors are zero, or data that is. Returns whether it was the former.
    pub(super) fn put_zeroes(&mut self, call: &mut CallContext, device: Named, sectors: &Range<u64>) -> bool {
        static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
        if let Some(extended) = &mut self.extended {
            extended.put_zeroes(&mut self.out, call, device.0, sectors);
            return true;
        }
        let (name, start) = (device.1.clone(), Sector(sectors.start));
        if self.zero_blocks {
            self.put(call, &Record::ZeroBlock(name, start));
            return true;
        }
        self.put(call, &Record::Block(name, start));
        self.out.count_data(self.chunk_bytes, self.chunk_bytes);
        let mut left = self.chunk_bytes;
        while left > 0 {
            let bytes = left.min(ZEROES.len());
            self.out.put(call, &ZEROES[..bytes]);
            left -= bytes;
        }
        false
    }

    /// Ends a step's section, and says how far the bulk phase is, where that is news.
    pub(super) fn end_step(&mut self, call: &mut CallContext, now: impl Fn() -> i64) {
        let (total, transferred) = self.out.status.bytes();
        let percent = u128::from(transferred) * 100 / u128::from(total.max(1));
        let percent = if total == 0 { 100 } else { u8::try_from(percent).unwrap_or(100) };
        let news = self.progress.replace(percent) != Some(percent);
        if let Some(extended) = &mut self.extended {
            extended.end_section(&mut self.out, call, percent);
            extended.end_step(now, call.stream.is_rate_limited());
        } else {
            if news {
                self.put(call, &Record::Progress(percent));
            }
            self.put(call, &Record::End);
        }
        if let Some(monitor) = call.monitor.filter(|_| news) {
            monitor.print(&format!("Completed {percent} %\r"));
            monitor.flush();
        }
    }

    /// Ends the last section.
    pub(super) fn end_migration(&mut self, call: &mut CallContext) {
        if let Some(extended) = &mut self.extended {
            return extended.end_migration(&mut self.out, call);
        }
        self.put(call, &Record::Progress(100));
        self.put(call, &Record::End);
    }
}
