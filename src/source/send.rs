// SPDX-License-Identifier: GPL-2.0-only
//! What an outgoing migration puts into the stream.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;

use super::{Link, Outgoing, Phase, Ready};
use crate::buffers::{Buffer, is_zero};
use crate::error::Error;
use crate::geometry::Chunk;
use crate::host::Host;
use crate::wire::{self, Header};

impl<H: Host> Outgoing<H> {
    /// Sends what is ready, as far as the step's limits allow; returns how many chunks that were.
    pub(super) fn send_ready(&mut self, link: &mut Link, limit: usize) -> Result<usize, Error> {
        let completing = self.phase == Phase::Completing;
        let mut sent = 0;
        while sent < limit && !self.ready.is_empty() && (completing || !link.stream.is_rate_limited()) {
            let Some(Ready { device: index, chunk, data }) = self.ready.pop_front() else { break };
            let device = &mut self.devices[index];
            device.give_back(chunk);
            // What the guest has written to meanwhile must be sent again anyway: others go first, where there are any.
            let others = !self.ready.is_empty() || self.in_flight > 0;
            if !completing && others && device.is_dirty(chunk) {
                continue;
            }
            self.send(link, index, chunk, data);
            link.check()?;
            self.host.check_memory()?;
            sent += 1;
        }
        Ok(sent)
    }

    /// Puts one chunk into the stream, as a zero record if that is asked for and will do.
    fn send(&mut self, link: &mut Link, index: usize, chunk: Chunk, data: Option<Buffer>) {
        let device = &mut self.devices[index];
        let sectors = device.sectors(chunk);
        if device.mark_sent(chunk) {
            self.status.add_transferred(sectors.bytes() as u64);
        } else {
            self.status.chunks_resent.fetch_add(1, Relaxed);
        }
        self.status.chunks_sent.fetch_add(1, Relaxed);
        if self.settings.zero_blocks && data.as_deref().is_none_or(is_zero) {
            self.status.chunks_zero.fetch_add(1, Relaxed);
            let prefix = wire::block_prefix(Header::ZeroBlock(sectors.start), self.devices[index].name());
            return self.put(link, &prefix);
        }
        let prefix = wire::block_prefix(Header::Block(sectors.start), self.devices[index].name());
        self.put(link, &prefix);
        match data {
            Some(buffer) => self.put_chunk(link, buffer),
            None => self.put_zeroes(link),
        }
    }

    fn put_chunk(&mut self, link: &mut Link, buffer: Buffer) {
        let bytes = buffer.len() as u64;
        // What the stream keeps is bounded, so that reads always find buffers and nothing waits for a release.
        let reading = self.in_flight + self.ready.iter().filter(|ready| ready.data.is_some()).count() + 1;
        let lent = self.pool.in_use().saturating_sub(reading);
        if lent >= self.pool.limit() / 2 {
            link.stream.put(&buffer);
        } else if let Err(buffer) = link.stream.put_owned(buffer) {
            link.stream.put(&buffer);
        }
        self.count(bytes);
    }

    fn put_zeroes(&mut self, link: &mut Link) {
        static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
        let mut left = self.settings.geometry.chunk_bytes();
        while left > 0 {
            let bytes = left.min(ZEROES.len());
            self.put(link, &ZEROES[..bytes]);
            left -= bytes;
        }
    }

    pub(super) fn put(&mut self, link: &mut Link, bytes: &[u8]) {
        link.stream.put(bytes);
        self.count(bytes.len() as u64);
    }

    fn count(&mut self, bytes: u64) {
        self.step_bytes += bytes;
        self.status.wire_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn report_progress(&mut self, link: &mut Link) {
        let (total, transferred) = self.status.bytes();
        let percent = u128::from(transferred) * 100 / u128::from(total.max(1));
        let percent = if total == 0 { 100 } else { u8::try_from(percent).unwrap_or(100) };
        if self.progress.replace(percent) != Some(percent) {
            self.put(link, &Header::Progress(percent).encode());
            if let Some(monitor) = link.monitor {
                monitor.print(&format!("Completed {percent} %\r"));
                monitor.flush();
            }
        }
    }
}
