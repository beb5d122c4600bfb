// SPDX-License-Identifier: GPL-2.0-only
//! Compression of the extended stream's data, as far as it makes the migration faster: on a fast link it does not.
//!
//! The two ways, compressed and as it is, are measured one after the other in windows of the host's time, whole and
//! with all that a window holds: reading, compressing, waiting for the stream. The faster one is taken, and the other
//! is tried again now and then.
#![forbid(unsafe_code)]

use zstd_safe::CCtx;

/// A window has at least this much data, far more than sockets buffer,
const MIN_BYTES: u64 = 8 << 20;

/// and takes at least this long,
const MIN_NS: u64 = 20_000_000;

/// but it ends after so long even if there is little data.
const MAX_NS: u64 = 1_000_000_000;

/// The other way is tried again after this many windows at first, then twice as many, and so on up to the most.
const FIRST_PAUSE: u32 = 32;
const MOST_PAUSE: u32 = 256;

/// Data counts as compressible if this part of it at least is saved: 1/16.
const SAVED: usize = 16;

/// So many times in a row data that can't be compressed doubles the data that is not tried, up to 2 to the power of it.
const MOST_MISSES: u32 = 6;

/// Compresses what is worth it.
pub(super) struct Compressor {
    level: i32,
    /// `None` if there was no memory for it.
    context: Option<CCtx<'static>>,
    /// What the last data was compressed to.
    output: Vec<u8>,
    choice: Choice,
    /// How often in a row data could not be compressed.
    misses: u32,
    /// How many records are not tried for that.
    skip: u32,
}

impl Compressor {
    pub(super) fn new(level: i32) -> Compressor {
        let context = CCtx::try_create();
        if context.is_none() {
            log::warn!("not enough memory to compress; the data is sent as it is");
        }
        Compressor { level, context, output: Vec::new(), choice: Choice::default(), misses: 0, skip: 0 }
    }

    /// A step begins; `stream_full` is whether the last one ended because the stream took no more.
    pub(super) fn begin_step(&mut self, now: i64, stream_full: bool) {
        self.choice.stream_full = stream_full;
        self.choice.end_window(now);
    }

    /// The data compressed, if it is to be sent so.
    pub(super) fn compress(&mut self, data: &[u8], now: impl Fn() -> i64) -> Option<&[u8]> {
        if !self.choice.stream_full {
            self.choice.end_window(now());
        }
        self.choice.bytes += data.len() as u64;
        if !self.choice.compresses || self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return None;
        }
        let room = data.len() - data.len() / SAVED - 1;
        if self.output.len() < room {
            self.output.try_reserve(room - self.output.len()).ok()?;
            self.output.resize(room, 0);
        }
        let length = self.context.as_mut()?.compress(&mut self.output[..room], data, self.level);
        if let Ok(length) = length {
            self.misses = 0;
            return Some(&self.output[..length]);
        }
        self.misses = (self.misses + 1).min(MOST_MISSES);
        self.skip = (1 << self.misses) - 2;
        None
    }
}

/// Which way is the faster one.
#[derive(Debug)]
struct Choice {
    /// Whether data is compressed in this window.
    compresses: bool,
    /// When the window began, and the data that it has had.
    since: Option<i64>,
    bytes: u64,
    /// Whether the host lets the stream take so much a step, so that a window must have whole steps.
    stream_full: bool,
    /// What a MiB has cost in nanoseconds, compressed and as it is.
    costs: [Option<u64>; 2],
    /// Whether this window is a trial of the other way.
    trial: bool,
    /// Windows until the next trial, and how many those are.
    until_trial: u32,
    pause: u32,
}

impl Default for Choice {
    fn default() -> Choice {
        Choice {
            compresses: true,
            since: None,
            bytes: 0,
            stream_full: false,
            costs: [None; 2],
            trial: false,
            until_trial: 0,
            pause: FIRST_PAUSE,
        }
    }
}

impl Choice {
    /// Ends the window if it says enough, and begins another.
    fn end_window(&mut self, now: i64) {
        let since = *self.since.get_or_insert(now);
        let ns = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
        let enough = self.bytes >= MIN_BYTES && ns >= MIN_NS;
        if !enough && (self.bytes == 0 || ns < MAX_NS) {
            return;
        }
        self.costs[usize::from(!self.compresses)] = Some(ns.saturating_mul(1 << 20) / self.bytes);
        (self.since, self.bytes) = (Some(now), 0);
        let [Some(compressed), Some(plain)] = self.costs else {
            // The other way is not known yet.
            self.compresses = !self.compresses;
            return;
        };
        // Compression must be worth it: it also takes the CPU's time.
        let best = compressed < plain - plain / 32;
        if self.trial {
            self.trial = false;
            let changes = best == self.compresses;
            self.pause = if changes { FIRST_PAUSE } else { (self.pause * 2).min(MOST_PAUSE) };
            self.until_trial = self.pause;
            self.compresses = best;
        } else if self.until_trial > 0 {
            self.until_trial -= 1;
            self.compresses = best;
        } else {
            self.trial = true;
            self.compresses = !best;
        }
    }
}
