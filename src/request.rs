// SPDX-License-Identifier: GPL-2.0-only
//! The requests that the host gets, and where their completions arrive. A request owns its buffer until the
//! host completes it, so nothing can free memory under the host; a request that is dropped without an answer
//! counts as failed, so nothing waits forever either.
#![forbid(unsafe_code)]

use std::collections::{TryReserveError, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::buffers::Buffer;
use crate::error::Errno;
use crate::geometry::{SECTOR_LEN, Sector, Sectors};
use crate::status::Status;

/// A request that the host has completed.
#[derive(Debug)]
pub(crate) struct Done {
    /// The engine's number of the device.
    pub(crate) device: usize,
    pub(crate) sectors: Sectors,
    /// What was read.
    pub(crate) buffer: Option<Buffer>,
    pub(crate) result: Result<(), Errno>,
    /// When a read completed, by the host's clock.
    pub(crate) when: Option<i64>,
}

/// Where completions arrive, from any thread. Each migration has its own, so a late one finds a place that
/// nobody reads.
pub(crate) struct Completions {
    done: Mutex<VecDeque<Done>>,
    arrived: Condvar,
    status: Arc<Status>,
}

impl Completions {
    pub(crate) fn new(status: Arc<Status>) -> Arc<Completions> {
        Arc::new(Completions { done: Mutex::default(), arrived: Condvar::new(), status })
    }

    /// Makes room for so many requests in flight: what completes them can't report that memory is short.
    pub(crate) fn make_room(&self, requests: usize) -> Result<(), TryReserveError> {
        let mut done = self.done.lock();
        let more = requests.saturating_sub(done.len());
        done.try_reserve(more)
    }

    fn push(&self, done: Done) {
        self.done.lock().push_back(done);
        self.arrived.notify_one();
    }

    pub(crate) fn pop(&self) -> Option<Done> {
        self.done.lock().pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.done.lock().is_empty()
    }

    /// Blocks until a completion is there, at most for `limit`. Only for hosts whose completions come on
    /// another thread.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut done = self.done.lock();
        while done.is_empty() {
            if self.arrived.wait_until(&mut done, deadline).timed_out() {
                break;
            }
        }
        !done.is_empty()
    }
}

/// A read to do: fill the buffer from these sectors, then [`complete`](ReadRequest::complete).
#[derive(Debug)]
pub struct ReadRequest(Pending);

/// A write to do: write the data to these sectors, then [`complete`](WriteRequest::complete).
#[derive(Debug)]
pub struct WriteRequest {
    // First, so that a request that is dropped gives its buffer back before the engine hears of it.
    data: Arc<Buffer>,
    range: Range<usize>,
    pending: Pending,
}

/// The duty to answer, which dropping also does.
struct Pending {
    done: Option<Done>,
    completions: Arc<Completions>,
    is_read: bool,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.done.fmt(f)
    }
}

impl Pending {
    fn new(completions: &Arc<Completions>, device: usize, sectors: Sectors, buffer: Option<Buffer>) -> Pending {
        let is_read = buffer.is_some();
        if is_read {
            completions.status.read_started();
        }
        // An answer that never comes is an error.
        let done = Some(Done { device, sectors, buffer, result: Err(Errno::IO), when: None });
        Pending { done, completions: Arc::clone(completions), is_read }
    }

    fn done(&self) -> &Done {
        self.done.as_ref().expect("it is taken in drop alone")
    }

    fn answer(mut self, result: Result<(), Errno>, when: Option<i64>) {
        if let Some(done) = &mut self.done {
            done.result = result;
            done.when = when;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            if self.is_read {
                self.completions.status.read_ended();
            }
            self.completions.push(done);
        }
    }
}

impl ReadRequest {
    pub(crate) fn new(completions: &Arc<Completions>, device: usize, sectors: Sectors, buffer: Buffer) -> ReadRequest {
        debug_assert!(sectors.bytes() <= buffer.len());
        ReadRequest(Pending::new(completions, device, sectors, Some(buffer)))
    }

    /// The sectors to read.
    #[must_use]
    pub fn sectors(&self) -> Sectors {
        self.0.done().sectors
    }

    /// Where they go, just as long as they are.
    pub fn data(&mut self) -> &mut [u8] {
        let done = self.0.done.as_mut().expect("it is taken in drop alone");
        let bytes = done.sectors.bytes();
        &mut done.buffer.as_mut().expect("a read has a buffer")[..bytes]
    }

    /// The same memory for a host that is not Rust. No other reference into it may exist while that host fills it.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.done().buffer.as_ref().expect("a read has a buffer").as_ptr()
    }

    /// Tells the engine how it went, and when, in nanoseconds of the host's clock; from any thread.
    pub fn complete(self, now_ns: i64, result: Result<(), Errno>) {
        self.0.answer(result, Some(now_ns));
    }
}

impl WriteRequest {
    pub(crate) fn new(
        completions: &Arc<Completions>,
        device: usize,
        start: Sector,
        data: Arc<Buffer>,
        range: Range<usize>,
    ) -> WriteRequest {
        let count = u32::try_from(range.len() / SECTOR_LEN).expect("part of a chunk");
        let pending = Pending::new(completions, device, Sectors { start, count }, None);
        WriteRequest { data, range, pending }
    }

    /// The sectors to write.
    #[must_use]
    pub fn sectors(&self) -> Sectors {
        self.pending.done().sectors
    }

    /// What goes there, just as long as they are.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data[self.range.clone()]
    }

    /// Tells the engine how it went; from any thread.
    pub fn complete(self, result: Result<(), Errno>) {
        let WriteRequest { pending, data, .. } = self;
        // The engine may need the buffer as soon as it hears of this.
        drop(data);
        pending.answer(result, None);
    }
}
