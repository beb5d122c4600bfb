// SPDX-License-Identifier: GPL-2.0-only
//! Runs a scenario: the migration code of both hypervisors, and everything that happens meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use blkmig::call::CallContext;
use blkmig::device_name::DeviceName;
use blkmig::error::{Errno, Error};
use blkmig::geometry::Geometry;
use blkmig::host::Monitor;
use blkmig::instance::Instance;
use blkmig::settings::Selection;

use super::checks::Watch;
use super::disk::{Disk, Kind};
use super::host::SimHost;
use super::machine::Machine;
use super::model::{Model, ModelDisk};
use super::scenario::{Decision, Delivery, Mismatch, Scenario};
use super::stream::{OutStream, SimMonitor};
use super::verdict::judge;
use super::{Call, Fault, HostDefect, Injection, Sim};

/// In this step of the next migration, storage that was hanging works again.
const HANG_ENDS: u64 = 3;

/// How a scenario is to be run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunOptions {
    pub(crate) traced: bool,
    pub(crate) injection: Option<Injection>,
    pub(crate) defect: Option<HostDefect>,
}

/// The result of a scenario.
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    /// How the first migration ended.
    pub(crate) end: End,
    /// Calls of the engine in the first migration.
    pub(crate) calls: u64,
    pub(crate) injected: Vec<(Call, Fault)>,
    /// The error texts of the source and the destination.
    pub(crate) first_errors: [String; 2],
    /// Whether the first migration succeeded on both sides.
    pub(crate) arrived: bool,
    /// The events that it covered.
    pub(crate) seen: BTreeSet<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    Failed,
    Cancelled,
    /// The host has started a new migration without canceling this one.
    Abandoned,
}

pub(crate) struct Run {
    pub(crate) scenario: Scenario,
    pub(crate) sim: Rc<Sim>,
    pub(crate) source: Rc<Machine>,
    pub(crate) destination: Rc<Machine>,
    pub(crate) source_instance: Rc<Instance<SimHost>>,
    pub(crate) destination_instance: Rc<Instance<SimHost>>,
    pub(crate) model: Model,
    pub(crate) watch: Watch,
    /// Sections on the link.
    pub(crate) queue: VecDeque<Vec<u8>>,
    pub(crate) destination_failed: bool,
    /// The errors of this migration, of the source and the destination.
    pub(crate) errors: [String; 2],
    /// The disk that does not match at the destination.
    pub(crate) mismatched: Option<Vec<u8>>,
    pub(crate) garbage_sent: bool,
    /// How many reads were in flight when the migration before this one was canceled.
    pub(crate) orphaned: usize,
    migrations: usize,
}

/// Runs a scenario.
pub(crate) fn run(scenario: Scenario, options: RunOptions) -> Report {
    Run::new(scenario, options).whole()
}

impl Run {
    fn new(scenario: Scenario, options: RunOptions) -> Run {
        let sim = Rc::new(Sim::new(scenario.number ^ 0x5eed << 40, options.traced, options.injection, options.defect));
        sim.trace(|| format!("{scenario:#?}"));
        let (source_disks, destination_disks, mismatched) = scenario.make_disks(&sim.rng);
        let is_chosen = |disk: &&Disk| disk.kind != Kind::NotChosen;
        let chosen: Vec<DeviceName> =
            source_disks.iter().filter(is_chosen).map(|disk| disk.name.as_slice().into()).collect();
        let chooses = chosen.len() < source_disks.len();
        let or = |value: u32| if value == 0 { 16 } else { value as usize };
        let limits = (or(scenario.options.max_reads), or(scenario.options.max_writes));
        let source = Machine::new("source", Rc::clone(&sim), scenario.source, source_disks, scenario.guest, limits);
        let destination = Machine::new(
            "destination",
            Rc::clone(&sim),
            scenario.destination,
            destination_disks,
            (scenario.guest.0, 0),
            limits,
        );
        let [source_instance, destination_instance] = [&source, &destination].map(|machine| {
            let geometry = Geometry::new(scenario.chunk_sectors).expect("scenarios have a valid geometry");
            let instance = Rc::new(Instance::new(geometry));
            instance.set_options(scenario.options).expect("nothing runs");
            instance.set_host(SimHost(Rc::clone(machine))).expect("nothing runs");
            *machine.instance.borrow_mut() = Rc::downgrade(&instance);
            instance
        });
        if chooses {
            source_instance.set_devices(Selection::Named(chosen.into())).expect("nothing runs");
        }
        Run {
            model: Model::new(Vec::new(), 1, false),
            watch: Watch::default(),
            queue: VecDeque::new(),
            destination_failed: false,
            errors: Default::default(),
            mismatched,
            garbage_sent: false,
            orphaned: 0,
            migrations: 0,
            scenario,
            sim,
            source,
            destination,
            source_instance,
            destination_instance,
        }
    }

    pub(crate) fn violation(&self, text: impl Into<String>) {
        self.sim.violation(text);
    }

    /// One migration with everything that the scenario plans and, if it failed, a second one without faults.
    fn whole(mut self) -> Report {
        self.sim.error_rate.set(self.scenario.error_rate);
        let end = self.migrate();
        let calls = self.sim.calls();
        let injected = self.sim.injected_faults();
        let first_errors = self.errors.clone();
        let arrived = end == End::Completed && !self.destination_failed;
        let seen = self.sim.seen();
        let scenario = &self.scenario;
        // The extended stream says the devices' lengths.
        let accepts = scenario.options.accept_tail_garbage && !scenario.extended();
        let may_fail = scenario.cancel_at.is_some()
            || scenario.link_fails_at.is_some()
            || scenario.mismatch.is_some_and(|mismatch| mismatch != Mismatch::Tail || !accepts)
            || (scenario.tail_garbage && !accepts)
            || scenario.event.is_some();
        if !may_fail
            && scenario.late_writes == 0
            && injected.is_empty()
            && (end != End::Completed || self.destination_failed)
        {
            self.violation(format!("the migration ended as {end:?} although nothing went wrong"));
        }
        if self.sim.violations().is_empty() && (end != End::Completed || self.destination_failed) {
            self.sim.trace(|| "SECOND MIGRATION".to_owned());
            self.sim.error_rate.set(0);
            self.scenario = self.scenario.clone().without_errors();
            self.restore(end);
            self.sim.broken.set(false);
            let end = self.migrate();
            if end != End::Completed || self.destination_failed {
                self.violation("the second migration, in which nothing went wrong, did not succeed");
            }
        }
        Report { violations: self.sim.violations(), end, calls, injected, first_errors, arrived, seen }
    }

    fn migrate(&mut self) -> End {
        self.watch = Watch::default();
        self.queue.clear();
        self.destination_failed = false;
        self.errors = Default::default();
        self.garbage_sent = false;
        self.migrations += 1;
        for machine in [&self.source, &self.destination] {
            machine.disks.borrow_mut().iter_mut().for_each(Disk::settle);
            machine.forget_events();
        }
        self.model = self.new_model();
        let before: Vec<_> = self.destination.disks.borrow().iter().map(|d| (d.name.clone(), d.data.clone())).collect();
        let mut stream = OutStream::new(&self.source, self.scenario.limit);
        stream.identity = self.migrations;
        let monitor = self.scenario.monitor.then(|| SimMonitor::new(&self.source));
        let monitor = monitor.as_ref().map(|monitor| monitor as &dyn Monitor);

        self.source.guest.runs.set(true);
        let end = self.drive(&mut stream, monitor);
        if end == End::Abandoned {
            self.sim.cover("abandoned");
            return end;
        }
        self.end(&mut stream, monitor, end);

        let completed = end == End::Completed && stream.failed.is_none();
        let source_reported = end == End::Cancelled || stream.failed.is_some();
        let outcome = self.outcome(&before, completed, source_reported);
        for wrong in judge(&outcome) {
            self.violation(wrong);
        }
        if completed {
            End::Completed
        } else if end == End::Cancelled {
            end
        } else {
            End::Failed
        }
    }

    fn new_model(&self) -> Model {
        let destination = self.destination.disks.borrow();
        let disks = self.source.disks.borrow();
        let disks = disks.iter().map(|disk| {
            let mut data =
                destination.iter().find(|other| other.name == disk.name).map_or(Vec::new(), |d| d.data.clone());
            data.resize(disk.data.len(), 0xaa);
            let sent = vec![false; disk.sectors().div_ceil(disk.chunk) as usize];
            ModelDisk { name: disk.name.clone(), migrates: disk.migrates(), data, sent }
        });
        let zeroes = self.scenario.options.zero_blocks || self.scenario.extended();
        Model::new(disks.collect(), self.scenario.chunk_sectors.into(), zeroes)
    }

    /// Calls the source's engine, from which no panic may escape.
    pub(crate) fn call<T>(
        &self,
        stream: &mut OutStream,
        monitor: Option<&dyn Monitor>,
        call: impl FnOnce(&Instance<SimHost>, &mut CallContext) -> T,
    ) -> Option<T> {
        stream.section.clear();
        let mut context = CallContext { stream, monitor };
        let result = catch_unwind(AssertUnwindSafe(|| call(&self.source_instance, &mut context)));
        if result.is_err() {
            self.violation("a panic escaped from the source");
        }
        result.ok()
    }

    /// One stage, by `save_live` or a phase function. Returns `None` if it failed, otherwise whether it can finish.
    fn step(&mut self, stream: &mut OutStream, monitor: Option<&dyn Monitor>, stage: i32) -> Option<bool> {
        self.sim.trace(|| format!("STAGE {stage}"));
        let (sound, before) = (stream.failed.is_none(), self.source.events.present());
        let result = if self.scenario.stages {
            self.call(stream, monitor, |instance, context| instance.save_live(context, stage))
                .map(|ret| if stage == 2 { Ok(ret == 1) } else { Ok(false) })
        } else {
            self.call(stream, monitor, |instance, context| match stage {
                1 => instance.setup(context).map(|()| false),
                2 => instance.iterate(context).map(|step| step.can_finish),
                _ => instance.complete(context).map(|()| false),
            })
        };
        let result: Result<bool, Option<Error>> = result.map_or(Err(None), |result| result.map_err(Some));
        match result {
            Ok(done) if stream.failed.is_none() => {
                if let Err(what) = self.model.section(&stream.section, stage == 3) {
                    self.violation(format!("stage {stage}: {what}"));
                }
                if self.source.events.must_have_failed(before) {
                    self.violation(format!(
                        "stage {stage} went well, though the host has told the engine of a reason to fail"
                    ));
                }
                let section = std::mem::take(&mut stream.section);
                self.send(section);
                Some(done)
            }
            Ok(_) => {
                // Only the stream has the error, as hosts of the original expect it, or the error came too late.
                if self.scenario.stages
                    && self.source_instance.last_error().is_empty()
                    && !self.sim.fault_was_injected()
                {
                    self.violation(format!("stage {stage} failed without an error text"));
                }
                self.note_failure(stage, sound);
                None
            }
            Err(error) => {
                self.sim.trace(|| format!("stage {stage} failed: {error:?}"));
                if stream.failed.is_none() && !self.sim.broken.get() {
                    self.violation(format!("stage {stage} failed, but the stream has no error: {error:?}"));
                }
                if self.source_instance.last_error().is_empty() {
                    self.violation("an error without a text");
                }
                stream.failed.get_or_insert(Errno::IO);
                self.note_failure(stage, sound);
                None
            }
        }
    }

    /// Checks that a failed stage had a reason that the scenario planned. `sound`: the stream had no error before it.
    fn note_failure(&mut self, stage: i32, sound: bool) {
        self.errors[0] = self.source_instance.last_error();
        if !sound || self.sim.fault_was_injected() || (stage == 3 && self.scenario.late_writes > 0) {
            return;
        }
        let text = &self.errors[0];
        let changed = self.source.events.changed().map(|disk| self.source.disks.borrow()[disk].name.clone());
        if !changed.is_some_and(|name| text.contains(&*String::from_utf8_lossy(&name))) {
            self.violation(format!(
                "stage {stage} failed, though nothing went wrong, or without the device's name: {text}"
            ));
        }
    }

    fn drive(&mut self, stream: &mut OutStream, monitor: Option<&dyn Monitor>) -> End {
        self.source_instance.set_params(true, self.scenario.shared_base);
        self.misuse_before();
        for _ in 0..self.sim.rng.below(self.scenario.guest_burst + 1) {
            self.source.guest_step();
        }
        if self.step(stream, monitor, 1).is_none() {
            return End::Failed;
        }
        self.check_running(stream);
        // Once the guest is quiet, each step sends at least one chunk.
        let bound = self.scenario.quiet_at + 50 + 6 * self.scenario.units();
        for step in 0.. {
            self.between(step, stream);
            if self.scenario.cancel_at == Some(step) {
                return if self.scenario.abandons { End::Abandoned } else { End::Cancelled };
            }
            if self.scenario.link_fails_at == Some(step) {
                stream.failed = Some(Errno::IO);
            }
            if self.scenario.decision == Decision::Steps(step) {
                break;
            }
            let Some(can_finish) = self.step(stream, monitor, 2) else { return End::Failed };
            self.check_running(stream);
            if can_finish && self.model.chunks == 0 && !self.source.ios.borrow().is_empty() {
                self.violation("it can finish before the first chunk was read");
            }
            let finish = match self.scenario.decision {
                Decision::Estimate | Decision::Steps(_) => can_finish,
                Decision::Pending(bytes) => self.source_instance.pending() <= bytes,
                Decision::Switchover(bytes) => self.source_instance.pending_switchover(bytes) <= bytes,
            };
            if finish {
                break;
            }
            if step > bound {
                if !self.sim.fault_was_injected() {
                    self.violation(format!("no end after {step} steps"));
                }
                break;
            }
        }
        self.source.stop_guest();
        self.source.guest.late.set(self.scenario.late_writes);
        self.plan_event(None);
        self.source.events.begin_last_stage();
        let completed = self.step(stream, monitor, 3).is_some();
        self.source.guest.late.set(0);
        if !completed {
            self.source.guest.runs.set(true);
            return End::Failed;
        }
        self.check_completed(stream);
        End::Completed
    }

    /// What happens between two steps.
    fn between(&mut self, step: u64, stream: &mut OutStream) {
        let sim = Rc::clone(&self.sim);
        let rng = &sim.rng;
        sim.advance(rng.below(20 * self.scenario.source.tick_ns));
        if step == self.scenario.quiet_at {
            self.source.stop_guest();
        }
        if self.source.guest.runs.get() {
            for _ in 0..rng.below(self.scenario.guest_burst + 1) {
                self.source.guest_step();
            }
        }
        self.plan_event(Some(step));
        if self.scenario.hangs_at == Some(step) {
            self.source.hangs.set(true);
        } else if step == HANG_ENDS && self.scenario.hangs_at.is_none() {
            self.source.hangs.set(false);
        }
        self.source.complete_some(1 + rng.index(4));
        sim.trace(|| format!("-- step {step}"));
        stream.next_step();
        stream.frozen = step < self.scenario.quiet_at && rng.chance(self.scenario.freeze);
        let deliver = match self.scenario.delivery {
            Delivery::AtOnce => usize::MAX,
            Delivery::Buffered => rng.index(3),
            Delivery::AtTheEnd => 0,
        };
        self.deliver(deliver);
        if self.destination_failed && rng.chance(300) {
            stream.failed.get_or_insert(Errno::IO); // the peer is gone
        }
        if rng.chance(50) {
            self.misuse(stream);
        }
    }

    /// Starts the event that is planned for this step, or for the last stage if it is `None`.
    fn plan_event(&self, step: Option<u64>) {
        if let Some(planned) = self.scenario.event.filter(|planned| planned.step == step) {
            let machine = if planned.at_destination { &self.destination } else { &self.source };
            machine.plan(planned);
        }
    }

    /// What users do before they try again.
    fn restore(&mut self, end: End) {
        let sim = Rc::new(Sim::new(self.scenario.number ^ 0x5eed << 40, false, None, None));
        *self.destination.disks.borrow_mut() = self.scenario.make_disks(&sim.rng).1;
        self.mismatched = None;
        self.source.stop_guest();
        for (disk, (_, kind, sectors)) in self.source.disks.borrow_mut().iter_mut().zip(&self.scenario.disks) {
            disk.remove(*kind, *sectors);
            if end != End::Abandoned {
                disk.held = 0;
                disk.tracking = false;
            }
        }
        if self.sim.rng.chance(500) {
            self.source.hangs.set(false);
        }
    }
}
