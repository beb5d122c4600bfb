// SPDX-License-Identifier: GPL-2.0-only
//! The end of a migration: what the host does, what must hold, and the outcome to judge.

use blkmig::host::Monitor;

use super::Fault;
use super::disk::Disk;
use super::model::ModelDisk;
use super::run::{End, Run};
use super::stream::OutStream;
use super::verdict::{Outcome, Pair};

impl Run {
    pub(crate) fn check_completed(&self, stream: &OutStream) {
        self.check_released("after completion");
        self.check_counts(stream);
        self.check_memory();
        let lacking = self.lacking();
        if lacking > 0 {
            self.violation(format!("completed, but {lacking} bytes were not sent"));
        }
        let (total, transferred) = self.source_instance.status().bytes();
        if total != transferred {
            self.violation(format!("completed with {transferred} of {total} bytes transferred"));
        }
        if !self.source_instance.last_error().is_empty() {
            self.violation("completed, but the last error is not empty");
        }
    }

    /// What the host does at the end of any migration, successful or not.
    pub(crate) fn end(&mut self, stream: &mut OutStream, monitor: Option<&dyn Monitor>, end: End) {
        self.sim.trace(|| format!("END {end:?}"));
        if end == End::Failed {
            self.check_released("after an error");
            self.misuse_after_failure(stream);
        }
        // Some hosts clean up after an error or a success, others do not. Canceling always takes a call.
        if end == End::Cancelled || self.sim.rng.chance(500) {
            let stages = self.scenario.stages;
            self.source.canceling.set(true);
            self.call(stream, monitor, |instance, context| {
                if stages {
                    instance.save_live(context, -1);
                } else {
                    instance.cleanup(context.monitor);
                }
            });
            self.source.canceling.set(false);
            let in_flight = self.source.ios.borrow().len();
            if in_flight > 0 && self.source.hangs.get() {
                self.orphaned = in_flight;
                self.sim.cover("canceled with reads in flight");
                self.source.orphan_reads();
            }
            self.check_released("after cleanup");
            self.misuse_after_end(stream);
        } else if end == End::Completed {
            self.misuse_after_end(stream);
        }
        self.deliver(usize::MAX);
        if !stream.section.is_empty() && !self.destination_failed {
            self.load(&std::mem::take(&mut stream.section), false);
        }
        // Late completions, of a host whose drain returns too early, and late releases do no harm.
        self.source.complete_some(usize::MAX);
        if end != End::Cancelled {
            self.source.complete_orphans(usize::MAX);
        }
        self.destination.complete_some(usize::MAX);
        stream.close();
        if stream.failed.is_none() && end == End::Failed {
            self.violation("failed, but the stream has no error");
        }
        self.source.stop_guest();
    }

    pub(crate) fn outcome(&self, before: &[(Vec<u8>, Vec<u8>)], completed: bool, source_reported: bool) -> Outcome {
        let destination = self.destination.disks.borrow();
        let disks = self.source.disks.borrow();
        let pairs = disks.iter().zip(&self.model.disks).map(|(disk, ModelDisk { migrates, .. })| {
            let other = destination.iter().find(|other| other.name == disk.name);
            let before = before.iter().find(|(name, _)| *name == disk.name);
            // If the call that returns a resource panics, the engine may keep that resource.
            let panicked = self.sim.injected_faults().iter().any(|(_, fault)| *fault != Fault::Error);
            Pair {
                name: String::from_utf8_lossy(&disk.name).into_owned(),
                source: self.due(disk, other),
                destination: other.map_or(Vec::new(), |other| {
                    // What a power cut would leave. A device that does not migrate must not have been changed at all.
                    if *migrates { other.stable.clone() } else { other.data.clone() }
                }),
                migrates: *migrates,
                destination_before: before.map_or(Vec::new(), |(_, data)| data.clone()),
                references: if panicked { 0 } else { disk.held + other.map_or(0, |other| other.held) },
                tracking: disk.tracking && !panicked,
            }
        });
        Outcome {
            completed,
            source_reported,
            destination_reported: self.destination_failed,
            pairs: pairs.collect(),
            buffers_in_use: [
                self.source_instance.status().buffers().0 - self.source.orphans.borrow().len() as u32,
                self.destination_instance.status().buffers().0,
            ],
            active: self.source_instance.status().is_active(),
        }
    }

    /// What must be on the destination's disk at the end: everything, except zeroes past the end of a shorter disk, or
    /// garbage there that its user accepts to lose.
    fn due(&self, source: &Disk, destination: Option<&Disk>) -> Vec<u8> {
        let mut due = source.data.clone();
        let Some(destination) = destination else { return due };
        let chunk = self.scenario.chunk_sectors as usize * 512;
        let length = destination.data.len();
        if length < due.len() && due.len() <= length.next_multiple_of(chunk) {
            let lost = due[length..].iter().any(|&byte| byte != 0);
            self.sim.cover(if lost { "shorter by data" } else { "shorter by zeroes" });
            if !lost || self.scenario.options.accept_tail_garbage {
                due.truncate(length);
            }
        }
        due
    }
}
