// SPDX-License-Identifier: GPL-2.0-only
//! How fast the stream takes data, and so how long the rest would take: from bytes over wall time, in 64 bits.
#![forbid(unsafe_code)]

const SECOND: u64 = 1_000_000_000;

/// Bytes and the time that they took, the recent past weighing most.
///
/// Time counts only while there is something left to send: a guest that writes little must not look like a slow link.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    ns: u64,
    /// When the step began that has not been accounted for, and what it sent.
    open: Option<(i64, u64)>,
}

impl Pace {
    /// A step begins. If the last one left work over, the time until now was spent on what it sent: on a host with a rate
    /// limit that is most of the time.
    pub(super) fn begin(&mut self, now: i64) {
        if let Some((since, sent)) = self.open {
            self.account(since, now, sent);
        }
        self.open = Some((now, 0));
    }

    /// The step ends, having sent so many bytes, with or without more to send.
    pub(super) fn end(&mut self, now: i64, sent: u64, backlog: bool) {
        if let Some((since, bytes)) = &mut self.open {
            if backlog {
                *bytes = sent;
            } else {
                let since = *since;
                self.account(since, now, sent);
                self.open = None;
            }
        }
    }

    fn account(&mut self, since: i64, now: i64, bytes: u64) {
        // A clock that goes backwards counts as one that stands still.
        let ns = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(bytes);
        self.ns = self.ns.saturating_add(ns);
        // Halving keeps the quotient and lets what comes next weigh as much as the last second.
        while self.ns > SECOND {
            self.ns /= 2;
            self.bytes /= 2;
        }
    }

    /// Bytes a second; 0 while unknown.
    pub(super) fn bandwidth(&self) -> u64 {
        if self.ns == 0 {
            return 0;
        }
        u64::try_from(u128::from(self.bytes) * u128::from(SECOND) / u128::from(self.ns)).unwrap_or(u64::MAX)
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
