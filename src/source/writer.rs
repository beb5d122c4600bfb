// SPDX-License-Identifier: GPL-2.0-only
//! What an outgoing migration puts into the stream, and how much that was.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::buffers::Buffer;
use crate::call::CallContext;
use crate::status::Status;
use crate::wire::Record;

/// Puts records into the stream, and counts.
pub(super) struct Writer {
    status: Arc<Status>,
    /// Bytes put into the stream in this step.
    step_bytes: u64,
    /// The percentage that the last progress record said.
    progress: Option<u8>,
}

impl Writer {
    pub(super) fn new(status: &Arc<Status>) -> Writer {
        Writer { status: Arc::clone(status), step_bytes: 0, progress: None }
    }

    /// A step begins.
    pub(super) fn begin_step(&mut self) {
        self.step_bytes = 0;
    }

    /// Bytes put into the stream since the step began.
    pub(super) fn step_bytes(&self) -> u64 {
        self.step_bytes
    }

    /// Puts a record, without a block's data.
    pub(super) fn put(&mut self, call: &mut CallContext, record: &Record) {
        self.put_bytes(call, &record.encode());
    }

    fn put_bytes(&mut self, call: &mut CallContext, bytes: &[u8]) {
        call.stream.put(bytes);
        self.count(bytes.len());
    }

    fn count(&mut self, bytes: usize) {
        self.step_bytes += bytes as u64;
        self.status.wire_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Puts a block's data, which the stream may keep instead of copying it if `lend`.
    pub(super) fn put_data(&mut self, call: &mut CallContext, data: Buffer, lend: bool) {
        self.count(data.len());
        let kept = if lend { call.stream.put_owned(data) } else { Err(data) };
        if let Err(data) = kept {
            call.stream.put(&data);
        }
    }

    /// Puts so many zeroes as a block's data.
    pub(super) fn put_zeroes(&mut self, call: &mut CallContext, bytes: usize) {
        static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
        let mut left = bytes;
        while left > 0 {
            let bytes = left.min(ZEROES.len());
            self.put_bytes(call, &ZEROES[..bytes]);
            left -= bytes;
        }
    }

    /// Says how far the bulk phase is, where that is news.
    pub(super) fn report_progress(&mut self, call: &mut CallContext) {
        let (total, transferred) = self.status.bytes();
        let percent = u128::from(transferred) * 100 / u128::from(total.max(1));
        let percent = if total == 0 { 100 } else { u8::try_from(percent).unwrap_or(100) };
        if self.progress.replace(percent) != Some(percent) {
            self.put(call, &Record::Progress(percent));
            if let Some(monitor) = call.monitor {
                monitor.print(&format!("Completed {percent} %\r"));
                monitor.flush();
            }
        }
    }
}
