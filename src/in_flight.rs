// SPDX-License-Identifier: GPL-2.0-only
//! What is in flight: how many requests the host has been given and has not completed, and the ways to wait for them.
#![forbid(unsafe_code)]

use std::collections::TryReserveError;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::buffers::Buffer;
use crate::error::Error;
use crate::geometry::{Sector, Sectors};
use crate::host::Host;
use crate::request::{Completions, Done, ReadRequest, WriteRequest};
use crate::status::Status;

/// How often a host that waits without completing anything is asked to wait again.
const MAX_WAITS: usize = 1000;

/// How long a completion on another thread may take to arrive before the host is told to flush.
const COMPLETION_WAIT: Duration = Duration::from_millis(100);

/// How long one may be behind a flush that has returned.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// The requests in flight of a migration, or of one load.
pub(crate) struct InFlight {
    completions: Arc<Completions>,
    count: usize,
}

impl InFlight {
    pub(crate) fn new(status: &Arc<Status>) -> InFlight {
        InFlight { completions: Completions::new(Arc::clone(status)), count: 0 }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Makes room for one more: what completes a request can't report that memory is short.
    pub(crate) fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.completions.make_room(self.count + 1)
    }

    /// A read into `buffer`, in flight from now on. `device` is the caller's number of the device.
    pub(crate) fn read(&mut self, device: usize, sectors: Sectors, buffer: Buffer) -> ReadRequest {
        self.count += 1;
        ReadRequest::new(&self.completions, device, sectors, buffer)
    }

    /// A write of a range of `data`, in flight from now on.
    pub(crate) fn write(
        &mut self,
        device: usize,
        start: Sector,
        data: Arc<Buffer>,
        range: Range<usize>,
    ) -> WriteRequest {
        self.count += 1;
        WriteRequest::new(&self.completions, device, start, data, range)
    }

    /// Takes a request that has completed.
    pub(crate) fn pop(&mut self) -> Option<Done> {
        let done = self.completions.pop()?;
        self.count -= 1;
        Some(done)
    }

    /// Blocks until a completion is there, at most for `limit`. Only for hosts whose completions come on
    /// another thread.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        self.completions.wait(limit)
    }

    /// Whether a completion is there, after a wait of at most `limit` where it may come on another thread.
    fn arrives(&self, host: &impl Host, limit: Duration) -> bool {
        !self.completions.is_empty() || (host.threaded() && self.wait(limit))
    }

    /// Returns when a completion is there, by whatever means the host has. Call it only with a request in flight.
    ///
    /// If the host's flush returns and still none has completed, the host has lost them: that is an error,
    /// since waiting on would be forever, with the guest stopped.
    pub(crate) fn wait_for_host(&self, host: &impl Host) -> Result<(), Error> {
        // The host's own wait comes first: on some hosts, completions need this thread even if they run on others too.
        for _ in 0..MAX_WAITS {
            if !self.completions.is_empty() || !host.wait() {
                break;
            }
        }
        if self.arrives(host, COMPLETION_WAIT) {
            return Ok(());
        }
        host.drain();
        if self.arrives(host, FLUSH_WAIT) { Ok(()) } else { Err(Error::Lost(self.count)) }
    }

    /// Has the host end what is in flight, whose results nobody wants any more. A host whose storage hangs may
    /// return before all has ended: the rest is left to its completions, which own the memory.
    pub(crate) fn abandon(&mut self, host: &impl Host) {
        if self.count == 0 {
            return;
        }
        host.drain();
        while self.count > 0 && self.arrives(host, COMPLETION_WAIT) {
            self.pop();
        }
        if self.count > 0 {
            log::debug!("{} requests are still in flight", self.count);
        }
    }
}
