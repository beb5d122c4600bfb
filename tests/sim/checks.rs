// SPDX-License-Identifier: GPL-2.0-only
//! What must hold after every call of the host's, not only at the end.

use std::sync::atomic::Ordering::Relaxed;

use super::disk::SECTOR;
use super::events::Event;
use super::machine::Machine;
use super::run::Run;
use super::stream::OutStream;

/// What was seen the last time.
#[derive(Default)]
pub(crate) struct Watch {
    transferred: u64,
    bulk_over: bool,
}

impl Run {
    /// Bytes of all devices that migrate.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.model.disks.iter().filter(|disk| disk.migrates).map(|disk| disk.data.len() as u64).sum()
    }

    /// While a migration runs.
    pub(crate) fn check_running(&mut self, stream: &OutStream) {
        let status = self.source_instance.status();
        let (total, transferred) = status.bytes();
        if total != self.total_bytes() || transferred > total {
            self.wrong(format!("{transferred} of {total} bytes are transferred, of {} in truth", self.total_bytes()));
        }
        let bulk = status.is_bulk_active();
        if bulk && self.watch.bulk_over {
            self.wrong("the bulk phase is active again");
        }
        if transferred < self.watch.transferred {
            self.wrong(format!("transferred bytes fall from {} to {transferred}", self.watch.transferred));
        }
        self.watch = Watch { transferred, bulk_over: !bulk };
        if !status.is_active() && total > 0 {
            self.wrong("a migration runs, but is not active");
        }
        let in_flight = self.source.ios.borrow().len() + self.source.orphans.borrow().len();
        if status.reads_in_flight() as usize != in_flight && !self.sim.broken.get() {
            self.wrong(format!("{} reads in flight, {in_flight} in truth", status.reads_in_flight()));
        }
        self.check_counts(stream);
        self.check_memory();
        self.check_pending();
    }

    /// The statistics against what the stream holds.
    pub(crate) fn check_counts(&self, stream: &OutStream) {
        if self.sim.was_struck() {
            return; // what a failing stream has lost was counted all the same
        }
        let status = self.source_instance.status();
        let told = [&status.wire_bytes, &status.chunks_sent, &status.chunks_resent, &status.chunks_zero];
        let told = told.map(|number| number.load(Relaxed));
        let mut true_ones = [stream.wire_bytes, self.model.chunks, self.model.resent, self.model.zero];
        if self.scenario.shared_base {
            // What was passed over, since it is in the backing file, counts as sent before.
            true_ones[2] = told[2].clamp(true_ones[2], told[1]);
        }
        if told != true_ones && stream.failed.is_none() {
            self.wrong(format!("statistics say {told:?}, the stream {true_ones:?}"));
        }
    }

    pub(crate) fn check_memory(&self) {
        let most = if self.scenario.options.max_buffers == 0 { 64 } else { self.scenario.options.max_buffers };
        for (instance, label) in [(&self.source_instance, "source"), (&self.destination_instance, "destination")] {
            // Reads that a migration did not wait for keep their buffers.
            let most = most + if label == "source" { self.orphaned as u32 } else { 0 };
            let (in_use, peak) = instance.status().buffers();
            if peak > most || in_use > peak {
                self.wrong(format!("{label}: {in_use} buffers in use, {peak} at most, {most} allowed"));
            }
        }
    }

    /// `pending` counts all that the destination lacks, and no more than there is.
    fn check_pending(&self) {
        let lacking = self.lacking();
        let pending = self.source_instance.pending();
        self.sim.trace(|| format!("  pending {pending}, lacking {lacking}"));
        // What is written to a device that nobody tracks can't be counted.
        if pending < lacking && self.source.around.present() != Some(Event::Replaced) {
            self.wrong(format!("{pending} bytes pending, but the destination lacks {lacking}"));
        }
        let threshold = self.total_bytes();
        let told = self.source_instance.pending_switchover(threshold);
        let bulk = self.source_instance.status().is_bulk_active();
        if bulk && pending > 0 && told <= threshold {
            self.wrong(format!("{told} bytes let the guest be stopped in the bulk phase"));
        }
        let quiet = !self.source.guest.runs.get() && !self.sim.was_struck();
        if quiet && told != pending && told != threshold + 1 {
            self.wrong(format!("{told} bytes are pending for the switchover, {pending} in truth"));
        }
        if pending > self.total_bytes() {
            self.wrong(format!("{pending} bytes pending of {}", self.total_bytes()));
        }
    }

    /// Bytes in chunks that differ from what was sent, but for those that the guest is writing to: the engine can't know.
    pub(crate) fn lacking(&self) -> u64 {
        let disks = self.source.disks.borrow();
        let unfinished = self.source.guest.unfinished.borrow();
        let mut lacking = 0;
        for (index, (disk, model)) in disks.iter().zip(&self.model.disks).enumerate() {
            if !model.migrates || disk.data == model.data {
                continue;
            }
            let bytes = disk.chunk as usize * SECTOR;
            for (chunk, (here, there)) in disk.data.chunks(bytes).zip(model.data.chunks(bytes)).enumerate() {
                let (start, end) = (chunk as u64 * disk.chunk, (chunk as u64 + 1) * disk.chunk);
                let written = unfinished.iter().any(|w| w.disk == index && w.start < end && start < w.end);
                if here != there && !written {
                    lacking += here.len() as u64;
                }
            }
        }
        lacking
    }

    /// When a migration has ended, by itself or by an error: the host has everything back, at once.
    pub(crate) fn check_released(&self, when: &str) {
        if self.sim.broken.get() || self.sim.sabotage.is_some() {
            return;
        }
        self.check_idle(&self.source, when);
        let status = self.source_instance.status();
        if status.is_active() || status.is_bulk_active() {
            self.wrong(format!("{when}: still active"));
        }
        if self.source_instance.pending() != 0 {
            self.wrong(format!("{when}: bytes are pending"));
        }
    }

    /// No reference, no tracking, no request.
    pub(crate) fn check_idle(&self, machine: &Machine, when: &str) {
        if self.sim.broken.get() || self.sim.sabotage.is_some() {
            return;
        }
        for disk in machine.disks.borrow().iter() {
            if disk.held > 0 || disk.tracking {
                let name = String::from_utf8_lossy(&disk.name).into_owned();
                machine.wrong(&format!("{when}: {name} has {} references, tracking {}", disk.held, disk.tracking));
            }
        }
        if !machine.ios.borrow().is_empty() {
            machine.wrong(&format!("{when}: requests are in flight"));
        }
    }
}
