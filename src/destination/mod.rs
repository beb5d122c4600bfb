// SPDX-License-Identifier: GPL-2.0-only
//! Incoming: takes a section from the stream and writes it to the devices.
//!
//! The stream is hostile: everything that a record says is checked before any of it is written. Writes may be in flight
//! while the next record is read, but never two that overlap, and none any more when the section's load returns.
#![forbid(unsafe_code)]

mod extended;
mod extended_section;
mod section;
mod target;

use std::sync::Arc;

use crate::buffers::Pool;
use crate::device_name::DeviceName;
use crate::error::Error;
use crate::host::{Host, Stream};
use crate::settings::Settings;
use crate::status::Status;

use extended::ExtendedStream;
use section::Section;

/// The most lines about its progress that one stream can bring into the log; an honest one needs a hundred.
const MAX_PROGRESS_LINES: u32 = 256;

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
    /// Where the extended stream is.
    extended: ExtendedStream,
    /// The devices that were written to and not flushed since.
    written: Vec<DeviceName>,
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
    /// Reads one section and writes what it holds. All writes are done when this returns, and after a section
    /// that says 100 %, as the last one does, all that was written is on stable storage. So is what came
    /// before, now and then: the guest stands still while the last section is loaded.
    ///
    /// # Errors
    /// If the section breaks the format, names what is not there, ends too soon, or if a write or a flush
    /// fails. Of the record that is wrong, nothing has been written.
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
        let mut section = Section::new(host, settings, stream, pool.clone(), status);
        let read = section.read_records(&mut self.extended, |percent| self.progress.log(percent));
        // Even after an error nothing may be left in flight, and the first error is the one to report.
        let finished = section.finish(read.is_ok());
        let result = read.and_then(|percent| finished.map(|()| percent)).and_then(|percent| {
            section.note_written(&mut self.written)?;
            self.unflushed += section.bytes_written();
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
            self.extended = ExtendedStream::default();
        } else if self.progress.last != Some(100) {
            self.pool = Some(pool);
        }
        result
    }

    /// Another migration begins.
    fn forget(&mut self) {
        self.progress = Progress::default();
        self.extended = ExtendedStream::default();
        self.written.clear();
        self.unflushed = 0;
    }
}
