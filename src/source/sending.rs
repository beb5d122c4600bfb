// SPDX-License-Identifier: GPL-2.0-only
//! The way of a copy, or of a run of zeroes, from the queue into the stream.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::{Outgoing, ToSend};
use crate::buffers::{Buffer, is_zero};
use crate::call::CallContext;
use crate::error::Error;
use crate::geometry::Sectors;
use crate::host::Host;
use crate::status::Phase;

/// What is shorter than this part of a chunk, 1/64, counts as long as that, so that a step ends soon.
pub(super) const LEAST: u64 = 64;

impl<H: Host> Outgoing<H> {
    /// Sends what waits to be sent, as far as the stream and this limit in bytes allow. Returns how many bytes that
    /// was; a short run, or one of zeroes, counts for more than it has.
    pub(super) fn send_ready(&mut self, call: &mut CallContext, limit: u64) -> Result<u64, Error> {
        let completing = self.status.phase() == Phase::Completing;
        let least = self.settings.geometry.chunk_bytes() as u64 / LEAST;
        let mut sent = 0;
        while sent < limit && !self.to_send.is_empty() && (completing || !call.stream.is_rate_limited()) {
            let Some(next) = self.to_send.pop_front() else { break };
            match next {
                ToSend::Zeroes(index, sectors) => {
                    self.devices[index].end_zeroes(&sectors);
                    self.send_zeroes(call, index, &sectors);
                    sent += least;
                }
                ToSend::Copy(index, sectors, data) => {
                    let device = &mut self.devices[index];
                    device.end_copy(sectors);
                    // What the guest has written to meanwhile must be sent again anyway: others go first, where
                    // there are any.
                    let others = !self.to_send.is_empty() || self.in_flight.count() > 0;
                    if !completing && others && device.is_in_vain(sectors)? {
                        device.drop_copy(sectors);
                        continue;
                    }
                    self.send_copy(call, index, sectors, data);
                    sent += least.max(sectors.bytes() as u64);
                }
            }
            call.check_stream()?;
            self.host.check_memory()?;
        }
        Ok(sent)
    }

    /// Puts a copy into the stream, as a zero record if that is asked for and will do.
    fn send_copy(&mut self, call: &mut CallContext, index: usize, sectors: Sectors, data: Option<Buffer>) {
        let range = sectors.range();
        let Some(data) = data.filter(|data| !self.settings.sends_zeroes() || !is_zero(&data[..sectors.bytes()])) else {
            return self.send_zeroes(call, index, &range);
        };
        self.count_sent(index, &range);
        let lend = self.may_lend();
        let host = &self.host;
        self.writer.put_data(call, (index, self.devices[index].name()), sectors, data, lend, || host.now_ns());
    }

    /// Puts zeroes into the stream.
    fn send_zeroes(&mut self, call: &mut CallContext, index: usize, sectors: &Range<u64>) {
        self.count_sent(index, sectors);
        if self.writer.put_zeroes(call, (index, self.devices[index].name()), sectors) {
            self.status.chunks_zero.fetch_add(self.chunks_in(sectors), Relaxed);
        }
    }

    fn chunks_in(&self, sectors: &Range<u64>) -> u64 {
        self.settings.geometry.chunks(sectors.end - sectors.start)
    }

    fn count_sent(&mut self, index: usize, sectors: &Range<u64>) {
        let new = self.devices[index].mark_sent(sectors);
        self.status.add_transferred(new);
        let chunks = self.chunks_in(sectors);
        self.status.chunks_sent.fetch_add(chunks, Relaxed);
        if new == 0 {
            self.status.chunks_resent.fetch_add(chunks, Relaxed);
        }
    }

    /// Whether the stream may keep one more buffer. What it keeps is bounded, so that reads always find buffers
    /// and nothing waits for the stream.
    fn may_lend(&self) -> bool {
        let waiting = self.to_send.iter().filter(|next| matches!(next, ToSend::Copy(_, _, Some(_)))).count();
        // One more is the buffer that is to be sent.
        let lent = self.pool.in_use().saturating_sub(self.in_flight.count() + waiting + 1);
        lent < self.pool.limit() / 2
    }
}
