// SPDX-License-Identifier: GPL-2.0-only
//! What must hold after every call to the engine, not only at the end.

use std::sync::atomic::Ordering::Relaxed;

use super::Call;
use super::disk::SECTOR;
use super::events::Event;
use super::machine::Machine;
use super::run::Run;
use super::stream::OutStream;

/// The statistics of the previous check.
#[derive(Default)]
pub(crate) struct Watch {
    transferred: u64,
    bulk_over: bool,
}

impl Run {
    /// The bytes of all devices that migrate.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.model.disks.iter().filter(|disk| disk.migrates).map(|disk| disk.data.len() as u64).sum()
    }

    /// Checks that hold while a migration runs.
    pub(crate) fn check_running(&mut self, stream: &OutStream) {
        let status = self.source_instance.status();
        let (total, transferred) = status.bytes();
        if total != self.total_bytes() || transferred > total {
            self.violation(format!(
                "{transferred} of {total} bytes are transferred; the devices have {}",
                self.total_bytes()
            ));
        }
        let bulk = status.is_bulk_active();
        if bulk && self.watch.bulk_over {
            self.violation("the bulk phase is active again");
        }
        if transferred < self.watch.transferred {
            self.violation(format!("transferred bytes fall from {} to {transferred}", self.watch.transferred));
        }
        self.watch = Watch { transferred, bulk_over: !bulk };
        if !status.is_active() && total > 0 {
            self.violation("a migration runs, but is not active");
        }
        let in_flight = self.source.ios.borrow().len() + self.source.orphans.borrow().len();
        if status.reads_in_flight() as usize != in_flight && !self.sim.broken.get() {
            self.violation(format!("status says {} reads in flight; there are {in_flight}", status.reads_in_flight()));
        }
        self.check_counts(stream);
        self.check_memory();
        self.check_pending();
    }

    /// Compares the statistics with the content of the stream.
    pub(crate) fn check_counts(&self, stream: &OutStream) {
        if self.sim.fault_was_injected() {
            return; // what a failing stream has lost was counted all the same
        }
        let status = self.source_instance.status();
        let told = [&status.wire_bytes, &status.chunks_sent, &status.chunks_resent, &status.chunks_zero];
        let told = told.map(|number| number.load(Relaxed));
        let mut true_ones = [stream.wire_bytes, self.model.chunks, self.model.resent, self.model.zero];
        if self.scenario.shared_base {
            // Chunks skipped because they are in the backing file count as already sent.
            true_ones[2] = told[2].clamp(true_ones[2], told[1]);
        }
        if self.scenario.extended() {
            // A zero record may stand for any number of chunks and parts of chunks.
            true_ones[1..].copy_from_slice(&told[1..]);
        }
        if told != true_ones && stream.failed.is_none() {
            self.violation(format!("the statistics are {told:?}, but the stream has {true_ones:?}"));
        }
    }

    pub(crate) fn check_memory(&self) {
        let most = if self.scenario.options.max_buffers == 0 { 64 } else { self.scenario.options.max_buffers };
        for (instance, label) in [(&self.source_instance, "source"), (&self.destination_instance, "destination")] {
            // Reads that a canceled migration did not wait for keep their buffers.
            let most = most + if label == "source" { self.orphaned as u32 } else { 0 };
            let (in_use, peak) = instance.status().buffers();
            if peak > most || in_use > peak {
                self.violation(format!("{label}: {in_use} buffers in use, {peak} at most, {most} allowed"));
            }
        }
    }

    /// `pending` counts everything that the destination lacks, and never more than the devices' size.
    fn check_pending(&self) {
        let lacking = self.lacking();
        let pending = self.source_instance.pending();
        self.sim.trace(|| format!("  pending {pending}, lacking {lacking}"));
        // Writes to a replacement device are not tracked and so cannot be counted. A host that has called a chunk dirty
        // that is not must not make the engine say "completed", but what is left out for that is not counted before.
        let lied = self.sim.injected_faults().iter().any(|(call, _)| *call == Call::NextDirty);
        if pending < lacking && !lied && self.source.events.present() != Some(Event::Replaced) {
            self.violation(format!("{pending} bytes pending, but the destination lacks {lacking}"));
        }
        let threshold = self.total_bytes();
        let told = self.source_instance.pending_switchover(threshold);
        let bulk = self.source_instance.status().is_bulk_active();
        if bulk && pending > 0 && told <= threshold {
            self.violation(format!("{told} bytes would stop the guest in the bulk phase"));
        }
        let quiet = !self.source.guest.runs.get() && !self.sim.fault_was_injected();
        if quiet && told != pending && told != threshold + 1 {
            self.violation(format!("{told} bytes are pending for the switchover; in fact {pending}"));
        }
        if pending > self.total_bytes() {
            self.violation(format!("{pending} bytes pending of {}", self.total_bytes()));
        }
    }

    /// The bytes of chunks that differ from what was sent. Chunks that the guest is writing to right now do not count,
    /// because the engine cannot know of them yet.
    pub(crate) fn lacking(&self) -> u64 {
        let disks = self.source.disks.borrow();
        let unfinished = self.source.guest.unfinished.borrow();
        let mut lacking = 0;
        for (index, (disk, model)) in disks.iter().zip(&self.model.disks).enumerate() {
            if !model.migrates || disk.data == model.data {
                continue;
            }
            let sectors = if self.scenario.extended() { disk.unit } else { disk.chunk };
            let bytes = sectors as usize * SECTOR;
            for (unit, (here, there)) in disk.data.chunks(bytes).zip(model.data.chunks(bytes)).enumerate() {
                let (start, end) = (unit as u64 * sectors, (unit as u64 + 1) * sectors);
                let written = unfinished.iter().any(|w| w.disk == index && w.start < end && start < w.end);
                if here != there && !written {
                    lacking += here.len() as u64;
                }
            }
        }
        lacking
    }

    /// When a migration has ended, successfully or with an error, the host has everything back at once.
    pub(crate) fn check_released(&self, when: &str) {
        if self.sim.broken.get() || self.sim.defect.is_some() {
            return;
        }
        self.check_idle(&self.source, when);
        let status = self.source_instance.status();
        if status.is_active() || status.is_bulk_active() {
            self.violation(format!("{when}: still active"));
        }
        if self.source_instance.pending() != 0 {
            self.violation(format!("{when}: bytes are pending"));
        }
    }

    /// The engine holds no reference, tracks no device and has no request in flight.
    pub(crate) fn check_idle(&self, machine: &Machine, when: &str) {
        if self.sim.broken.get() || self.sim.defect.is_some() {
            return;
        }
        for disk in machine.disks.borrow().iter() {
            if disk.held > 0 || disk.tracking {
                let name = String::from_utf8_lossy(&disk.name).into_owned();
                machine.violation(&format!("{when}: {name} has {} references, tracking {}", disk.held, disk.tracking));
            }
        }
        if !machine.ios.borrow().is_empty() {
            machine.violation(&format!("{when}: requests are in flight"));
        }
    }
}
