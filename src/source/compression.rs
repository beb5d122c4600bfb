// SPDX-License-Identifier: GPL-2.0-only
//! Compression of the extended stream's data, as far as it makes the migration faster: on a fast link it does not.
//!
//! The two ways, compressed and as it is, are measured one after the other over some MiB of data, with all that a
//! record takes: reading, compressing, waiting for the stream. The faster one is taken, and the other is tried again
//! now and then. What turns out not to shrink tells nothing about compression, so it is left out there, and is tried
//! more and more seldom.
#![forbid(unsafe_code)]

use zstd_safe::CCtx;

/// A measurement is of at least this much data, far more than sockets buffer,
const MIN_BYTES: u64 = 4 << 20;

/// and of at least this long,
const MIN_NS: u64 = 10_000_000;

/// but not longer than this if there is little data.
const MAX_NS: u64 = 500_000_000;

/// The other way is tried again when so many times what the last trial took has passed: trials cost 3 % at most.
const TRIALS: u64 = 32;

/// Data counts as compressible if this part of it at least is saved: 1/16.
const SAVED: usize = 16;

/// So many times data that can't be compressed doubles the data that is not tried, up to 2 to the power of it.
const MOST_MISSES: u32 = 7;

/// Compresses what is worth it.
pub(super) struct Compressor {
    level: i32,
    /// `None` if there was no memory for it.
    context: Option<CCtx<'static>>,
    /// What the last data was compressed to.
    output: Vec<u8>,
    choice: Choice,
    /// How often data could not be compressed, of late.
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

    /// A step has ended; `limited` is whether the host lets the stream take so much a step.
    pub(super) fn end_step(&mut self, now: i64, limited: bool) {
        self.choice.end_step(now, limited);
    }

    /// The data compressed, if it is to be sent so.
    pub(super) fn compress(&mut self, data: &[u8], now: i64) -> Option<&[u8]> {
        self.choice.begin_record(now);
        let length = if self.choice.compresses { self.try_compress(data) } else { None };
        self.choice.count(data.len(), length.is_some());
        length.map(|length| &self.output[..length])
    }

    /// Compresses the data to `output`, unless that is no use.
    fn try_compress(&mut self, data: &[u8]) -> Option<usize> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let room = data.len() - data.len() / SAVED - 1;
        if self.output.len() < room {
            self.output.try_reserve(room - self.output.len()).ok()?;
            self.output.resize(room, 0);
        }
        let length = self.context.as_mut()?.compress(&mut self.output[..room], data, self.level).ok();
        if length.is_some() {
            // Not forgotten all at once: some data that can be compressed may be among much that can't.
            self.misses /= 2;
        } else {
            self.misses = (self.misses + 1).min(MOST_MISSES);
            self.skip = (1 << self.misses) - 2;
        }
        length
    }
}

/// Which way is the faster one.
#[derive(Debug)]
struct Choice {
    /// Whether data is compressed now.
    compresses: bool,
    /// Whether the host lets the stream take so much a step, so that only whole steps can be measured.
    limited: bool,
    /// When the last record began, and how much data it has, if it is to be measured.
    last: Option<(i64, u64)>,
    /// What is being measured.
    bytes: u64,
    ns: u64,
    /// What a MiB of this way has cost in the last measurement, in nanoseconds.
    before: Option<u64>,
    /// What a MiB costs, compressed and as it is.
    costs: [Option<u64>; 2],
    /// How long this way has been measured.
    taken: u64,
    /// Nanoseconds until the slower way is tried; none while it is being tried.
    until_trial: Option<u64>,
}

impl Default for Choice {
    fn default() -> Choice {
        Choice {
            compresses: true,
            limited: false,
            last: None,
            bytes: 0,
            ns: 0,
            before: None,
            costs: [None; 2],
            taken: 0,
            until_trial: Some(0),
        }
    }
}

impl Choice {
    /// A record begins, so that the one before has ended.
    fn begin_record(&mut self, now: i64) {
        if let Some((since, bytes)) = self.last.replace((now, 0)) {
            if bytes > 0 {
                self.bytes += bytes;
                self.ns += u64::try_from(now.saturating_sub(since)).unwrap_or(0);
            }
        }
        if !self.limited {
            self.decide();
        }
    }

    /// The record that has begun is so long, and is sent compressed or as it is.
    fn count(&mut self, bytes: usize, compressed: bool) {
        if let Some((_, measured)) = self.last.as_mut().filter(|_| compressed == self.compresses) {
            *measured = bytes as u64;
        }
    }

    fn end_step(&mut self, now: i64, limited: bool) {
        if limited {
            // The pause before the next step is part of what the stream takes.
            self.decide();
        } else if self.last.is_some() {
            // What comes until the next step says nothing.
            self.begin_record(now);
            self.last = None;
        }
        self.limited = limited;
    }

    /// Chooses, if enough was measured.
    fn decide(&mut self) {
        if (self.bytes < MIN_BYTES || self.ns < MIN_NS) && self.ns < MAX_NS {
            return;
        }
        let (cost, ns) = (self.ns.saturating_mul(1 << 20) / self.bytes, self.ns);
        self.taken = self.taken.saturating_add(ns);
        (self.bytes, self.ns) = (0, 0);
        // One measurement alone may have met something else, such as a flush: the better one of two counts.
        let Some(before) = self.before.replace(cost) else { return };
        self.costs[usize::from(!self.compresses)] = Some(cost.min(before));
        let [Some(compressed), Some(plain)] = self.costs else { return self.try_other() };
        // Compression must be worth it: it also takes the CPU's time.
        let best = compressed < plain - plain / 32;
        match self.until_trial {
            None => {
                self.until_trial = Some(self.taken.saturating_mul(TRIALS));
                self.take(best);
            }
            Some(left) if left > ns && best == self.compresses => self.until_trial = Some(left - ns),
            Some(_) => self.try_other(),
        }
    }

    fn try_other(&mut self) {
        self.until_trial = None;
        self.take(!self.compresses);
    }

    /// Takes this way from now on.
    fn take(&mut self, compresses: bool) {
        if compresses != self.compresses {
            self.compresses = compresses;
            self.before = None;
            self.taken = 0;
            // The record that is not measured yet went the other way.
            self.last = self.last.map(|(since, _)| (since, 0));
        }
    }
}
