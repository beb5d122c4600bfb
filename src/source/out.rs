// SPDX-License-Identifier: GPL-2.0-only
//! Puts bytes into the stream, and counts them.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::buffers::Buffer;
use crate::call::CallContext;
use crate::status::Status;

/// Where the records go.
pub(super) struct Out {
    pub(super) status: Arc<Status>,
    /// Bytes put into the stream in this step, data as long as it was before it was compressed.
    step_bytes: u64,
}

impl Out {
    pub(super) fn new(status: &Arc<Status>) -> Out {
        Out { status: Arc::clone(status), step_bytes: 0 }
    }

    /// A step begins.
    pub(super) fn begin_step(&mut self) {
        self.step_bytes = 0;
    }

    /// Bytes put into the stream since the step began, data as long as it was before it was compressed.
    pub(super) fn step_bytes(&self) -> u64 {
        self.step_bytes
    }

    /// Puts these bytes.
    pub(super) fn put(&mut self, call: &mut CallContext, bytes: &[u8]) {
        call.stream.put(bytes);
        self.count(bytes.len());
    }

    fn count(&mut self, bytes: usize) {
        self.step_bytes += bytes as u64;
        self.status.wire_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Puts `compressed`, which stands for so many bytes of data.
    pub(super) fn put_compressed(&mut self, call: &mut CallContext, compressed: &[u8], data_bytes: usize) {
        self.put(call, compressed);
        self.count_data(data_bytes, compressed.len());
        self.step_bytes += data_bytes.saturating_sub(compressed.len()) as u64;
    }

    /// Puts the first `bytes` of the data, which the stream may keep instead of copying them if `lend`.
    pub(super) fn put_data(&mut self, call: &mut CallContext, data: Buffer, bytes: usize, lend: bool) {
        self.count(bytes);
        self.count_data(bytes, bytes);
        let kept = if lend { call.stream.put_owned(data, bytes) } else { Err(data) };
        if let Err(data) = kept {
            call.stream.put(&data[..bytes]);
        }
    }

    pub(super) fn count_data(&self, data: usize, payload: usize) {
        self.status.data_bytes.fetch_add(data as u64, Relaxed);
        self.status.payload_bytes.fetch_add(payload as u64, Relaxed);
    }
}
