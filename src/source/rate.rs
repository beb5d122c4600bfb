// SPDX-License-Identifier: GPL-2.0-only
//! Bytes and the time that they took, the recent past weighing most.
#![forbid(unsafe_code)]

pub(super) const SECOND: u64 = 1_000_000_000;

/// A rate, measured over about the last second.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Halved together with their time as that grows.
    bytes: u64,
    /// Nanoseconds.
    ns: u64,
}

impl Rate {
    /// So many bytes took from `since` to `until`. A clock that goes backwards counts as one that stands still.
    pub(super) fn add(&mut self, bytes: u64, since: i64, until: i64) {
        let ns = u64::try_from(until.saturating_sub(since)).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(bytes);
        self.ns = self.ns.saturating_add(ns);
        // Halving keeps the quotient and lets what comes next weigh as much as the last second.
        while self.ns > SECOND {
            self.ns /= 2;
            self.bytes /= 2;
        }
    }

    /// Bytes a second; 0 while it is known of less than `least_ns`, which is at least 1.
    pub(super) fn per_second(&self, least_ns: u64) -> u64 {
        if self.ns < least_ns {
            return 0;
        }
        u64::try_from(u128::from(self.bytes) * u128::from(SECOND) / u128::from(self.ns)).unwrap_or(u64::MAX)
    }
}
