// SPDX-License-Identifier: GPL-2.0-only
//! Runs a scenario: the two hypervisors' migration code, and all that happens around it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use blkmig::error::{Errno, Error};
use blkmig::geometry::Geometry;
use blkmig::host::Monitor;
use blkmig::module::Module;
use blkmig::source::Link;

use super::checks::Watch;
use super::host::SimHost;
use super::machine::Machine;
use super::model::{Model, ModelDisk};
use super::scenario::{Decision, Delivery, Event, Scenario};
use super::stream::{InStream, OutStream, SimMonitor};
use super::verdict::{Outcome, Pair, judge};
use super::{Blow, Call, Plan, Sabotage, Sim};

/// How a scenario is to be run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    pub(crate) traced: bool,
    pub(crate) plan: Option<Plan>,
    pub(crate) sabotage: Option<Sabotage>,
}

/// What came of it.
pub(crate) struct Report {
    pub(crate) wrong: Vec<String>,
    /// How the first migration ended.
    pub(crate) end: End,
    /// Calls of the engine in the first migration.
    pub(crate) calls: u64,
    pub(crate) struck: Vec<(Call, Blow)>,
    /// The texts of the errors that the modules had then.
    pub(crate) first_errors: [String; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    Failed,
    Cancelled,
}

pub(crate) struct Run {
    pub(crate) scenario: Scenario,
    pub(crate) sim: Rc<Sim>,
    pub(crate) source: Rc<Machine>,
    pub(crate) destination: Rc<Machine>,
    pub(crate) source_module: Rc<Module<SimHost>>,
    pub(crate) destination_module: Rc<Module<SimHost>>,
    pub(crate) model: Model,
    pub(crate) watch: Watch,
    /// Sections on their way.
    queue: VecDeque<Vec<u8>>,
    destination_failed: bool,
    /// Whether a source's disk has changed so that the migration must not complete.
    spoilt: bool,
}

/// Runs it.
pub(crate) fn run(scenario: Scenario, how: How) -> Report {
    Run::new(scenario, how).whole()
}

impl Run {
    fn new(scenario: Scenario, how: How) -> Run {
        let sim = Rc::new(Sim::new(scenario.number ^ 0x5eed << 40, how.traced, how.plan, how.sabotage));
        sim.trace(|| format!("{scenario:#?}"));
        let (source_disks, destination_disks) = scenario.make_disks(&sim.rng);
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
        let [source_module, destination_module] = [&source, &destination].map(|machine| {
            let geometry = Geometry::new(scenario.chunk_sectors).expect("a scenario's geometry is sound");
            let module = Rc::new(Module::new(geometry));
            module.set_options(scenario.options).expect("nothing runs");
            module.set_host(SimHost(Rc::clone(machine))).expect("nothing runs");
            *machine.module.borrow_mut() = Rc::downgrade(&module);
            module
        });
        Run {
            model: Model::new(Vec::new(), 1, false),
            watch: Watch::default(),
            queue: VecDeque::new(),
            destination_failed: false,
            spoilt: false,
            scenario,
            sim,
            source,
            destination,
            source_module,
            destination_module,
        }
    }

    pub(crate) fn wrong(&self, text: impl Into<String>) {
        self.sim.wrong(text);
    }

    /// One migration with whatever the scenario has in store, then one where all goes well, if the first did not.
    fn whole(mut self) -> Report {
        self.sim.error_rate.set(self.scenario.error_rate);
        let end = self.migrate();
        let calls = self.sim.calls();
        let struck = self.sim.struck();
        let first_errors = [self.source_module.last_error(), self.destination_module.last_error()];
        let scenario = &self.scenario;
        let disturbed = scenario.cancel_at.is_some()
            || scenario.link_fails_at.is_some()
            || scenario.mismatch.is_some()
            || scenario.event.is_some();
        if !disturbed
            && scenario.late_writes == 0
            && struck.is_empty()
            && (end != End::Completed || self.destination_failed)
        {
            self.wrong(format!("{end:?}, though nothing went wrong"));
        }
        if self.sim.all_wrong().is_empty() && (end != End::Completed || self.destination_failed) {
            self.sim.trace(|| "SECOND MIGRATION".to_owned());
            self.sim.error_rate.set(0);
            self.scenario = self.scenario.clone().without_errors();
            self.restore_destination();
            self.sim.broken.set(false);
            let end = self.migrate();
            if end != End::Completed || self.destination_failed {
                self.wrong("the second migration, in which nothing went wrong, did not succeed");
            }
        }
        Report { wrong: self.sim.all_wrong(), end, calls, struck, first_errors }
    }

    fn migrate(&mut self) -> End {
        self.watch = Watch::default();
        self.queue.clear();
        self.destination_failed = false;
        self.spoilt = false;
        for machine in [&self.source, &self.destination] {
            for disk in machine.disks.borrow_mut().iter_mut() {
                disk.says = None;
                disk.stable = disk.data.clone();
            }
        }
        self.model = self.new_model();
        let before: Vec<_> = self.destination.disks.borrow().iter().map(|d| (d.name.clone(), d.data.clone())).collect();
        let mut stream = OutStream::new(&self.source, self.scenario.limit);
        let monitor = self.scenario.monitor.then(|| SimMonitor::new(&self.source));
        let monitor = monitor.as_ref().map(|monitor| monitor as &dyn Monitor);

        self.source.guest.runs.set(true);
        let end = self.drive(&mut stream, monitor);
        self.end(&mut stream, monitor, end);

        let completed = end == End::Completed && stream.failed.is_none();
        let source_reported = end == End::Cancelled || stream.failed.is_some();
        if completed && self.spoilt {
            self.wrong("completed, though a device went away or changed its length");
        }
        let outcome = self.outcome(&before, completed, source_reported);
        for wrong in judge(&outcome) {
            self.wrong(wrong);
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
            let sent = vec![false; disk.dirty.len()];
            ModelDisk { name: disk.name.clone(), migrates: disk.migrates(), data, sent }
        });
        Model::new(disks.collect(), self.scenario.chunk_sectors.into(), self.scenario.options.zero_blocks)
    }

    /// Calls the source's module. Whatever the host does, no panic may come out of it.
    fn call<T>(
        &self,
        stream: &mut OutStream,
        monitor: Option<&dyn Monitor>,
        call: impl FnOnce(&Module<SimHost>, &mut Link) -> T,
    ) -> Option<T> {
        stream.section.clear();
        let mut link = Link { stream, monitor };
        let result = catch_unwind(AssertUnwindSafe(|| call(&self.source_module, &mut link)));
        if result.is_err() {
            self.wrong("a panic passed the source's boundary");
        }
        result.ok()
    }

    /// One step of either style: whether it went well, and whether the engine thinks that it can finish.
    fn step(&mut self, stream: &mut OutStream, monitor: Option<&dyn Monitor>, stage: i32) -> Option<bool> {
        self.sim.trace(|| format!("STAGE {stage}"));
        let result = if self.scenario.stages {
            self.call(stream, monitor, |module, link| module.save_live(link, stage))
                .map(|ret| if stage == 2 { Ok(ret == 1) } else { Ok(false) })
        } else {
            self.call(stream, monitor, |module, link| match stage {
                1 => module.setup(link).map(|()| false),
                2 => module.iterate(link).map(|step| step.can_finish),
                _ => module.complete(link).map(|()| false),
            })
        };
        let result: Result<bool, Option<Error>> = result.map_or(Err(None), |result| result.map_err(Some));
        match result {
            Ok(done) if stream.failed.is_none() => {
                if let Err(what) = self.model.section(&stream.section, stage == 3) {
                    self.wrong(format!("stage {stage}: {what}"));
                }
                self.queue.push_back(std::mem::take(&mut stream.section));
                Some(done)
            }
            Ok(_) => {
                // An error that only the stream tells, as hosts of the original's time expect; or one that came too late.
                if self.scenario.stages && self.source_module.last_error().is_empty() && !self.sim.was_struck() {
                    self.wrong(format!("stage {stage}: failed without a word"));
                }
                None
            }
            Err(error) => {
                self.sim.trace(|| format!("stage {stage} failed: {error:?}"));
                if stream.failed.is_none() && !self.sim.broken.get() {
                    self.wrong(format!("stage {stage} failed, but the stream has no error: {error:?}"));
                }
                if self.source_module.last_error().is_empty() {
                    self.wrong("an error without a text");
                }
                stream.failed.get_or_insert(Errno::IO);
                None
            }
        }
    }

    fn drive(&mut self, stream: &mut OutStream, monitor: Option<&dyn Monitor>) -> End {
        self.source_module.set_params(true, self.scenario.shared_base);
        if self.step(stream, monitor, 1).is_none() {
            return End::Failed;
        }
        self.check_running(stream);
        // Each step sends a chunk at least, once the guest is quiet.
        let bound = self.scenario.quiet_at + 50 + 6 * self.scenario.chunks();
        for step in 0.. {
            self.between(step, stream);
            if self.scenario.cancel_at == Some(step) {
                return End::Cancelled;
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
                self.wrong("it can finish, before the first chunk has been read");
            }
            let finish = match self.scenario.decision {
                Decision::Estimate | Decision::Steps(_) => can_finish,
                Decision::Pending(bytes) => self.source_module.pending() <= bytes,
                Decision::Switchover(bytes) => self.source_module.pending_switchover(bytes) <= bytes,
            };
            if finish {
                break;
            }
            if step > bound {
                if !self.sim.was_struck() {
                    self.wrong(format!("no end after {step} steps"));
                }
                break;
            }
        }
        self.source.stop_guest();
        self.source.guest.late.set(self.scenario.late_writes);
        let completed = self.step(stream, monitor, 3).is_some();
        self.source.guest.late.set(0);
        if !completed {
            self.source.guest.runs.set(true);
            return End::Failed;
        }
        self.check_completed(stream);
        End::Completed
    }

    fn check_completed(&self, stream: &OutStream) {
        self.check_released("after completion");
        self.check_counts(stream);
        self.check_memory();
        let lacking = self.lacking();
        if lacking > 0 {
            self.wrong(format!("completed, but {lacking} bytes were not sent"));
        }
        let (total, transferred) = self.source_module.status().bytes();
        if total != transferred {
            self.wrong(format!("completed with {transferred} of {total} bytes transferred"));
        }
        if !self.source_module.last_error().is_empty() {
            self.wrong("completed, but there is an error's text");
        }
    }

    /// A disk changes under the migration.
    fn happen(&mut self, step: u64) {
        let Some((at, event)) = self.scenario.event else { return };
        let machine = if event == Event::DestinationGone { &self.destination } else { &self.source };
        let mut disks = machine.disks.borrow_mut();
        let Some(disk) = disks.iter_mut().find(|disk| disk.migrates()) else { return };
        if at + 1 == step && matches!(event, Event::Resized(_)) {
            disk.says = None;
        }
        if at == step {
            disk.says = Some(match event {
                Event::Resized(by) => Ok(disk.data.len() as i64 + by * 512),
                _ => Err(Errno::NO_MEDIUM),
            });
            self.spoilt = event != Event::DestinationGone;
        }
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
        self.happen(step);
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
        if rng.chance(30) {
            self.disturb();
        }
    }

    /// Calls that are out of place while a migration runs: they are refused, and it goes on.
    fn disturb(&self) {
        let mut other = OutStream::new(&self.source, None);
        let busy = self.call(&mut other, None, Module::setup);
        if !matches!(busy, Some(Err(Error::Busy))) && !self.sim.broken.get() {
            self.wrong(format!("a second setup gave {busy:?}"));
        }
        let options = self.source_module.set_options(self.scenario.options);
        let host = self.source_module.set_host(SimHost(Rc::clone(&self.source)));
        if !matches!((options, host), (Err(Error::Busy), Err(Error::Busy))) {
            self.wrong("other options or another host in the middle of a migration");
        }
    }

    /// Gives sections to the destination.
    fn deliver(&mut self, most: usize) {
        for _ in 0..most {
            let Some(section) = self.queue.pop_front() else { return };
            if !self.destination_failed {
                self.load(&section);
            }
        }
    }

    fn load(&mut self, section: &[u8]) {
        self.sim.trace(|| format!("LOAD {} bytes", section.len()));
        let mut stream = InStream::new(&self.destination, section);
        let result = catch_unwind(AssertUnwindSafe(|| self.destination_module.load(&mut stream, 1)));
        match result {
            Err(_) => self.wrong("a panic passed the destination's boundary"),
            Ok(Ok(())) => {
                if stream.left() > 0 || !section.ends_with(&[0, 0, 0, 0, 0, 0, 0, 2]) {
                    self.wrong("a load says Ok, but has not read the whole section");
                }
                if stream.failed.is_some() && !self.sim.was_struck() {
                    self.wrong("a load says Ok, but the stream has failed");
                }
            }
            Ok(Err(error)) => {
                self.sim.trace(|| format!("load failed: {error:?}"));
                self.destination_failed = true;
                if self.destination_module.last_error() != error.to_string() {
                    self.wrong("a load's error is not the last error");
                }
            }
        }
        self.destination_failed |= stream.failed.is_some();
        self.check_idle(&self.destination, "after a load");
        self.check_memory();
    }

    /// The end of a migration, however it went: what the host does in any case.
    fn end(&mut self, stream: &mut OutStream, monitor: Option<&dyn Monitor>, end: End) {
        self.sim.trace(|| format!("END {end:?}"));
        if end == End::Failed {
            self.check_released("after an error");
        }
        // Some hosts clean up after an error or a success, some don't; cancelling is always a call.
        if end == End::Cancelled || self.sim.rng.chance(500) {
            let stages = self.scenario.stages;
            self.call(stream, monitor, |module, link| {
                if stages {
                    module.save_live(link, -1);
                } else {
                    module.cleanup(link.monitor);
                }
            });
            self.check_released("after cleanup");
        }
        self.deliver(usize::MAX);
        if !stream.section.is_empty() && !self.destination_failed {
            self.load(&std::mem::take(&mut stream.section));
        }
        // Late completions, of a host whose flush lies, and late releases are harmless.
        self.source.complete_some(usize::MAX);
        self.destination.complete_some(usize::MAX);
        stream.close();
        if stream.failed.is_none() && end == End::Failed {
            self.wrong("failed, but the stream has no error");
        }
        self.source.stop_guest();
    }

    fn outcome(&self, before: &[(Vec<u8>, Vec<u8>)], completed: bool, source_reported: bool) -> Outcome {
        let destination = self.destination.disks.borrow();
        let disks = self.source.disks.borrow();
        let pairs = disks.iter().map(|disk| {
            let other = destination.iter().find(|other| other.name == disk.name);
            let before = before.iter().find(|(name, _)| *name == disk.name);
            // After a panic in the call that gives it back, a thing may stay with the engine.
            let panicked = self.sim.struck().iter().any(|(_, blow)| *blow != Blow::Error);
            Pair {
                name: String::from_utf8_lossy(&disk.name).into_owned(),
                source: disk.data.clone(),
                destination: other.map_or(Vec::new(), |other| {
                    // As after a power cut; what does not migrate must not have been touched at all.
                    if disk.migrates() { other.stable.clone() } else { other.data.clone() }
                }),
                migrates: disk.migrates(),
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
            buffers_in_use: [&self.source_module, &self.destination_module].map(|module| module.status().buffers().0),
            active: self.source_module.status().active.load(std::sync::atomic::Ordering::Relaxed),
        }
    }

    /// What the destination's user does before trying again.
    fn restore_destination(&mut self) {
        let original = self.scenario.clone().without_errors();
        let sim = Rc::new(Sim::new(self.scenario.number ^ 0x5eed << 40, false, None, None));
        *self.destination.disks.borrow_mut() = original.make_disks(&sim.rng).1;
        for disk in self.source.disks.borrow_mut().iter_mut() {
            disk.held = 0;
            disk.tracking = false;
        }
    }
}
