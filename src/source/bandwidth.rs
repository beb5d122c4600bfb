// SPDX-License-Identifier: GPL-2.0-only
//! How fast data reaches the stream, and so how long the rest would take: from bytes over wall time, in 64 bits.
#![forbid(unsafe_code)]

use super::rate::{Rate, SECOND};

/// What remains counts as shrinking for this long at least after it has shrunk.
const MIN_WAIT_NS: u64 = 100_000_000;

/// The longest that one step waits for a read, where the host is threaded.
pub(super) const STEP_WAIT_NS: i64 = 100_000_000;

/// What a step left the rest of the work waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The stream, which takes no more in this step.
    Stream,
    /// Reads in flight.
    Reads,
}

/// Bytes and the time that they took, the recent past weighing most.
///
/// Time counts while there is something to send or to read: a guest that writes little must not look like a
/// slow link, nor a host that looks in ten times a second like a slow disk.
#[derive(Debug, Default)]
pub(super) struct BandwidthEstimate {
    /// What reached the stream.
    rate: Rate,
    /// From when on the time has not been accounted for.
    since: i64,
    /// What was waited for in it.
    waiting: Option<Wait>,
    /// Bytes that the stream has got in the last step and is taking its time for.
    held: u64,
    /// When a step last began with no read in flight.
    no_reads: i64,
}

impl BandwidthEstimate {
    /// A step begins; `reads_done` is when the last read completed, if none is in flight now.
    pub(super) fn begin(&mut self, now: i64, reads_done: Option<i64>) {
        if reads_done.is_some() {
            self.no_reads = now;
        }
        match self.waiting.take() {
            None => {}
            Some(Wait::Stream) => self.account(now, self.held),
            Some(Wait::Reads) => self.account(reads_done.map_or(now, |done| done.min(now)), 0),
        }
        self.since = now;
    }

    /// The step ends, having sent so many bytes.
    pub(super) fn end(&mut self, now: i64, sent: u64, waiting: Option<Wait>) {
        if waiting == Some(Wait::Stream) {
            // That it took them in no time only means that it has a buffer.
            self.held = sent;
        } else {
            self.account(now, sent);
            self.since = now;
        }
        self.waiting = waiting;
    }

    fn account(&mut self, until: i64, bytes: u64) {
        self.rate.add(bytes, self.since, until);
    }

    /// Whether nothing has been heard of the reads in flight for as long as a step waits for one.
    pub(super) fn stalls(&self, now: i64, last_read: i64) -> bool {
        now.saturating_sub(self.no_reads.max(last_read)) >= STEP_WAIT_NS
    }

    /// Bytes a second; 0 while unknown.
    pub(super) fn bandwidth(&self) -> u64 {
        self.rate.per_second(1)
    }

    /// Nanoseconds that sending `bytes` would take; `None` while unknown.
    pub(super) fn time_for(&self, bytes: u64) -> Option<u64> {
        match self.bandwidth() {
            _ if bytes == 0 => Some(0),
            0 => None,
            bandwidth => {
                let ns = u128::from(bytes) * u128::from(SECOND) / u128::from(bandwidth);
                Some(u64::try_from(ns).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Whether what remains still gets less while the guest runs.
#[derive(Debug, Default)]
pub(super) struct Convergence {
    /// The least that was seen, as far as it was a good deal less than before, and when.
    least: Option<(u64, i64)>,
    /// Whether it has not become less for long enough.
    ended: bool,
}

impl Convergence {
    /// After a step: so much remains, which takes so long to send if that is known.
    pub(super) fn note(&mut self, now: i64, remaining: u64, time: Option<u64>) {
        match self.least {
            // After nothing was left, what comes is a new start.
            Some((least, since)) if least > 0 && remaining > least - least / 8 => {
                // In twice the time that all of it takes, all of it was sent, and as much came.
                let wait = MIN_WAIT_NS.max(time.unwrap_or(0).saturating_mul(2));
                self.ended |= u64::try_from(now.saturating_sub(since)).is_ok_and(|waited| waited >= wait);
            }
            _ => *self = Convergence { least: Some((remaining, now)), ended: false },
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}
