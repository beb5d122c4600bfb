// SPDX-License-Identifier: GPL-2.0-only
//! How fast the guest makes the devices dirty, as far as their dirty tracking shows it: what is dirty already can't get
//! dirtier.
#![forbid(unsafe_code)]

use super::rate::Rate;

/// In less than this, one write looks like a storm.
const LEAST_NS: u64 = 1_000_000;

/// For how long the guest must be faster than the stream before the user is told.
const PATIENCE_NS: i64 = 10_000_000_000;

/// How fast that is.
#[derive(Debug, Default)]
pub(super) struct DirtyRate {
    rate: Rate,
    /// When the last step ended, what was dirty then, and what the engine has made clean since.
    since: Option<i64>,
    before: u64,
    cleared: u64,
    /// Since when it has been faster than the stream.
    faster_since: Option<i64>,
    warned: bool,
}

impl DirtyRate {
    /// The engine has made so many bytes clean.
    pub(super) fn cleared(&mut self, bytes: u64) {
        self.cleared = self.cleared.saturating_add(bytes);
    }

    /// A step ends, with so many bytes dirty.
    pub(super) fn note(&mut self, now: i64, dirty: u64) {
        if let Some(since) = self.since {
            self.rate.add(dirty.saturating_add(self.cleared).saturating_sub(self.before), since, now);
        }
        (self.since, self.before, self.cleared) = (Some(now), dirty, 0);
    }

    /// Bytes a second; 0 while unknown.
    pub(super) fn rate(&self) -> u64 {
        self.rate.per_second(LEAST_NS)
    }

    /// Tells the user, once, if the guest has been faster than the stream for long.
    pub(super) fn warn(&mut self, now: i64, bandwidth: u64) {
        if bandwidth == 0 || self.rate() <= bandwidth {
            self.faster_since = None;
            return;
        }
        let since = *self.faster_since.get_or_insert(now);
        if now.saturating_sub(since) >= PATIENCE_NS && !std::mem::replace(&mut self.warned, true) {
            log::warn!(
                "for 10 seconds the guest has written {} bytes a second, and {bandwidth} were sent: \
                 the migration will not end by itself",
                self.rate()
            );
        }
    }
}
