// SPDX-License-Identifier: GPL-2.0-only
//! What queries and statistics read, from any thread and without a lock.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Where an outgoing migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// None runs.
    Idle,
    /// Each device is read from its first chunk to its last.
    Bulk,
    /// What the guest has written since is read.
    Dirty,
    /// The guest is stopped, and all that the destination lacks is sent.
    Completing,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Idle, Phase::Bulk, Phase::Dirty, Phase::Completing];
}

/// The numbers of the migration that runs, or else of the last one. Each is exact; together they are a snapshot
/// only as far as [`Status::bytes`] makes them one, which is all that the contract asks for.
#[derive(Debug, Default)]
pub struct Status {
    /// A [`Phase`].
    phase: AtomicU8,
    total: AtomicU64,
    transferred: AtomicU64,
    /// Chunks put into the stream.
    pub chunks_sent: AtomicU64,
    /// Of these, chunks that were sent again.
    pub chunks_resent: AtomicU64,
    /// Of these, zero records.
    pub chunks_zero: AtomicU64,
    /// Bytes put into the stream.
    pub wire_bytes: AtomicU64,
    /// Bytes in dirty chunks when the engine last looked.
    pub dirty_bytes: AtomicU64,
    reads_in_flight: AtomicU32,
    buffers_in_use: AtomicU32,
    buffers_peak: AtomicU32,
    /// -errno of the last failure, 0 after a success.
    pub last_error: AtomicI32,
    /// Bytes a second that reach the stream; 0 until known.
    pub bandwidth: AtomicU64,
    /// How long sending the rest would take.
    pub expected_downtime_ns: AtomicU64,
    /// Time since setup.
    pub elapsed_ns: AtomicU64,
    /// Bytes a second that the guest makes dirty.
    pub dirty_rate: AtomicU64,
    /// Bytes of the devices in data records.
    pub data_bytes: AtomicU64,
    /// What they took in the stream, compressed or not.
    pub payload_bytes: AtomicU64,
    /// Bytes of records that have a checksum.
    pub checksummed_bytes: AtomicU64,
}

impl Status {
    /// A migration of `total` bytes starts: its numbers, but for those of memory that is still in use, start at 0.
    pub(crate) fn start(&self, total: u64) {
        for number in [
            &self.transferred,
            &self.chunks_sent,
            &self.chunks_resent,
            &self.chunks_zero,
            &self.wire_bytes,
            &self.dirty_bytes,
            &self.bandwidth,
            &self.expected_downtime_ns,
            &self.elapsed_ns,
            &self.dirty_rate,
            &self.data_bytes,
            &self.payload_bytes,
            &self.checksummed_bytes,
        ] {
            number.store(0, Relaxed);
        }
        self.total.store(total, Relaxed);
        self.buffers_peak.store(self.buffers_in_use.load(Relaxed), Relaxed);
        self.set_phase(Phase::Bulk);
    }

    /// It has ended, one way or the other.
    pub(crate) fn stop(&self) {
        self.set_phase(Phase::Idle);
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Where the migration is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed))]
    }

    /// Whether devices are being migrated.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.phase() != Phase::Idle && self.total.load(Relaxed) > 0
    }

    /// Whether the bulk phase still runs.
    #[must_use]
    pub fn is_bulk_active(&self) -> bool {
        self.phase() == Phase::Bulk && self.total.load(Relaxed) > 0
    }

    pub(crate) fn add_transferred(&self, bytes: u64) {
        self.transferred.fetch_add(bytes, Relaxed);
    }

    /// Total and transferred bytes, the second never above the first, whatever happens between the two loads.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let transferred = self.transferred.load(Relaxed);
        let total = self.total.load(Relaxed);
        (total, transferred.min(total))
    }

    pub(crate) fn read_started(&self) {
        self.reads_in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn read_ended(&self) {
        self.reads_in_flight.fetch_sub(1, Relaxed);
    }

    /// Reads in flight.
    #[must_use]
    pub fn reads_in_flight(&self) -> u32 {
        self.reads_in_flight.load(Relaxed)
    }

    pub(crate) fn buffer_taken(&self) {
        let in_use = self.buffers_in_use.fetch_add(1, Relaxed) + 1;
        self.buffers_peak.fetch_max(in_use, Relaxed);
    }

    pub(crate) fn buffer_returned(&self) {
        self.buffers_in_use.fetch_sub(1, Relaxed);
    }

    /// Buffers in use now, and the most that were.
    #[must_use]
    pub fn buffers(&self) -> (u32, u32) {
        (self.buffers_in_use.load(Relaxed), self.buffers_peak.load(Relaxed))
    }
}
