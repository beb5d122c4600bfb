// SPDX-License-Identifier: GPL-2.0-only
//! What a source does with any sequence of calls: in any order, on several streams, from within one another, while the
//! guest writes and the host fails or lies.
//!
//! At the end of each input the host is well again: what still runs must then end well if nothing has disturbed it, and
//! another migration must work from its start to its end.

mod checks;
mod config;
mod peer;

use std::cell::Cell;
use std::rc::Rc;

use blkmig::error::{Errno, Error};

use crate::host::{CallContext, Event, Instance, Options, OutStream, SECTOR, SmallHost, SmallMonitor, World};
use crate::input::{Bits, Input};
use peer::Peer;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut source = Source::new(&mut input);
    while !input.is_empty() {
        source.step(&mut input);
    }
    source.end_well();
    source.end();
}

/// What the model knows of the migration.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Idle,
    /// On the stream of this number.
    Running(usize),
    /// By this error, if the call told it.
    Failed(Option<Error>),
}

/// What the callbacks of the call that runs find.
#[derive(Clone, Copy, PartialEq)]
enum Outer {
    /// No migration that the call works on.
    NotInUse,
    InUse,
    /// But not any more when the stream is told of an error.
    InUseByStage,
}

struct Source {
    world: Rc<World>,
    instance: Rc<Instance<SmallHost>>,
    streams: [OutStream; 2],
    has_monitor: bool,
    /// Bytes a step for new streams.
    limit: Option<u64>,
    options: Options,
    has_host: bool,
    outer: Rc<Cell<Outer>>,
    state: State,
    /// Enabled, shared base.
    params: Option<(bool, bool)>,
    /// The stream of the last stage 1.
    staged: Option<usize>,
    /// The destination of the migration that runs, or of the last one.
    peer: Peer,
    peer_features: u8,
    /// How many faults there were when the migration was set up, and how many that disguised a disk.
    faults_before: u64,
    disguises_before: u64,
    /// A disk has changed since.
    changed: bool,
    /// One had another length than it said.
    lied: bool,
}

impl Source {
    fn step(&mut self, input: &mut Input) {
        let step = input.byte();
        let mut bits = Bits(step >> 4);
        if self.world.trace {
            eprintln!("step {} {}; {:?}", step & 15, step >> 4, self.state);
        }
        let now = self.world.callbacks.get();
        match step & 15 {
            0 => {
                let stream = usize::from(bits.take(1));
                if bits.flag() {
                    self.open(stream);
                }
                self.setup(stream);
            }
            1 => self.iterate(usize::from(bits.take(1))),
            2 => self.complete(usize::from(bits.take(1))),
            3 => self.cleanup(),
            4 => self.ask_pending(u64::from(input.byte()) * 100),
            5 => {
                let stream = usize::from(bits.take(1));
                if bits.flag() {
                    self.open(stream);
                }
                self.save_live(i32::from(input.byte() % 6) - 1, stream);
            }
            6 => self.guest_writes(None, input),
            7 => self.world.complete(1 + usize::from(bits.take(4))),
            8 => self.guest_writes(Some(now + u64::from(input.byte())), input),
            9 => self.world.plan(now + u64::from(input.byte()), Event::Fault(step >> 4)),
            10 => self.world.plan(now + u64::from(input.byte()), Event::CallBack(step >> 4)),
            11 => self.set_params(bits.flag(), bits.flag()),
            12 => self.set_up_instance(bits.take(4)),
            13 => {
                let give_back = usize::from(bits.take(2));
                self.streams.iter_mut().for_each(|stream| stream.next_step(give_back));
                self.world.clock.set(self.world.clock.get() + (i64::from(bits.take(2)) << 26));
            }
            14 => self.change_disk(usize::from(bits.take(2)), input.byte()),
            _ => self.world.plan(now + u64::from(input.byte()), Event::Complete),
        }
        self.check_always();
    }

    /// Another stream with the same identity.
    fn open(&mut self, stream: usize) {
        if self.state != State::Running(stream) {
            self.streams[stream] = OutStream::new(&self.world, stream, self.limit);
        }
    }

    fn guest_writes(&mut self, at: Option<u64>, input: &mut Input) {
        let mut place = Bits(input.byte());
        let (disk, sector, count) = (usize::from(place.take(2)), place.take(3).into(), 1 + u64::from(place.take(2)));
        let dirty_after = u64::from(input.byte() % 9);
        match at {
            None => self.world.guest_writes(disk, sector, count, dirty_after),
            Some(at) => self.world.plan(at, Event::Write { disk, sector, count, dirty_after }),
        }
    }

    fn change_disk(&mut self, index: usize, how: u8) {
        self.changed = true;
        let mut disks = self.world.disks.borrow_mut();
        let Some(disk) = disks.get_mut(index) else { return };
        let length = disk.data.len() as i64;
        match how % 9 {
            0 => disk.says = None,
            1 => disk.says = Some(Err(Errno::IO)),
            2 => disk.says = Some(Err(Errno::NO_MEDIUM)),
            3 => disk.says = Some(Ok(0)),
            4 => disk.says = Some(Ok(length + SECTOR as i64)),
            5 => disk.says = Some(Ok(length - SECTOR as i64)),
            6 => disk.says = Some(Ok(length - 1)),
            7 => disk.gone = !disk.gone,
            _ => disk.unlisted = !disk.unlisted,
        }
    }

    /// Calls the engine, with what its callbacks may find.
    fn call<T>(
        &mut self,
        outer: Outer,
        stream: usize,
        call: impl FnOnce(&Instance<SmallHost>, &mut CallContext) -> T,
    ) -> T {
        self.outer.set(outer);
        self.world.limit.set(self.world.callbacks.get() + 100_000);
        let monitor = SmallMonitor(Rc::clone(&self.world));
        let monitor = self.has_monitor.then_some(&monitor as _);
        let result = call(&self.instance, &mut CallContext { stream: &mut self.streams[stream], monitor });
        self.outer.set(Outer::NotInUse);
        result
    }

    fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    fn is_disabled(&self) -> bool {
        self.params.is_some_and(|(enabled, _)| !enabled)
    }

    fn in_use_if(in_use: bool) -> Outer {
        if in_use { Outer::InUse } else { Outer::NotInUse }
    }

    fn setup(&mut self, stream: usize) {
        let starts = self.has_host && !self.is_running() && !self.is_disabled();
        let before = self.before(stream, starts);
        let result = self.call(Self::in_use_if(starts), stream, |instance, context| instance.setup(context));
        if !self.has_host {
            assert_eq!(result, Err(Error::NoHost));
        } else if self.is_running() {
            assert_eq!(result, Err(Error::Busy));
        } else if self.is_disabled() {
            self.state = State::Idle;
            self.check_empty_section(stream, &before, result.is_ok());
        } else {
            self.after_setup(stream, &before, result.map_err(Some));
        }
    }

    fn iterate(&mut self, stream: usize) {
        let before = self.before(stream, false);
        let runs = self.state == State::Running(stream);
        let result = self.call(Self::in_use_if(runs), stream, |instance, context| instance.iterate(context));
        if self.is_disabled() && self.state == State::Idle {
            self.check_empty_section(stream, &before, result.is_ok());
        } else if self.refused(stream, &result.clone().map(drop)) {
            return;
        } else {
            self.after_step(stream, &before, result.map(drop).map_err(Some));
        }
    }

    fn complete(&mut self, stream: usize) {
        self.world.stop_guest();
        let before = self.before(stream, false);
        let runs = self.state == State::Running(stream);
        let result = self.call(Self::in_use_if(runs), stream, |instance, context| instance.complete(context));
        if self.is_disabled() && self.state == State::Idle {
            self.check_empty_section(stream, &before, result.is_ok());
        } else if !self.refused(stream, &result) {
            self.after_complete(stream, &before, result.map_err(Some));
        }
    }

    /// Whether a step was out of turn, which must have been refused.
    fn refused(&mut self, stream: usize, result: &Result<(), Error>) -> bool {
        match &self.state {
            State::Idle => assert_eq!(*result, Err(Error::NotRunning)),
            State::Failed(Some(error)) => assert_eq!(result.as_ref(), Err(error)),
            State::Failed(None) => assert!(result.is_err()),
            State::Running(other) if *other != stream => assert_eq!(*result, Err(Error::OtherStream)),
            State::Running(_) => return false,
        }
        true
    }

    fn cleanup(&mut self) {
        let monitor = SmallMonitor(Rc::clone(&self.world));
        let monitor = self.has_monitor.then_some(&monitor as _);
        self.call(Self::in_use_if(self.is_running()), 0, |instance, _| instance.cleanup(monitor));
        self.state = State::Idle;
        self.check_given_back();
    }

    fn save_live(&mut self, stage: i32, stream: usize) {
        let was_running = self.is_running();
        let disabled = self.params.is_none_or(|(enabled, _)| !enabled);
        if stage < 0 || stage == 1 {
            // What there is to clean up, is cleaned up first.
            self.state = State::Idle;
        }
        if stage == 3 {
            self.world.stop_guest();
        }
        let strange = self.staged.is_some_and(|staged| staged != stream);
        let idle = self.state == State::Idle;
        let works = match stage {
            1 => !disabled && self.has_host,
            2 | 3 => self.state == State::Running(stream) && !strange,
            stage => stage < 0 && was_running,
        };
        let before = self.before(stream, stage == 1 && works);
        let outer = if works { Outer::InUseByStage } else { Outer::NotInUse };
        let ret = self.call(outer, stream, |instance, context| instance.save_live(context, stage));
        let result = if self.streams[stream].failed.is_none() { Ok(()) } else { Err(None) };
        let empty = disabled && idle && (stage == 1 || (matches!(stage, 2 | 3) && !strange));
        let done = result.is_ok() && (empty || (stage == 2 && ret == 1));
        assert_eq!(ret, i32::from(done), "stage {stage}");
        if stage == 1 {
            self.staged = Some(stream);
        }
        match stage {
            ..=-1 => self.check_given_back(),
            2 | 3 if strange => assert!(result.is_err()),
            1..=3 if disabled && idle => self.check_empty_section(stream, &before, result.is_ok()),
            1 if !self.has_host => assert!(result.is_err()),
            1 => self.after_setup(stream, &before, result),
            2 | 3 if !works => assert!(result.is_err()),
            2 => self.after_step(stream, &before, result),
            3 => self.after_complete(stream, &before, result),
            _ => assert!(result.is_err()),
        }
    }

    fn set_params(&mut self, enabled: bool, shared_base: bool) {
        self.instance.set_params(enabled, shared_base);
        self.params = Some((enabled || shared_base, shared_base));
    }

    fn set_up_instance(&mut self, how: u8) {
        let busy = self.is_running();
        let result = match how & 3 {
            0 => {
                let result = self.instance.set_host(SmallHost(Rc::clone(&self.world)));
                self.has_host |= result.is_ok();
                result
            }
            1 => {
                let bad = Options { max_reads: u32::MAX, ..Options::default() };
                let result = self.instance.set_options(bad);
                assert!(matches!(result, Err(Error::Option { .. })));
                return;
            }
            _ => {
                let max_buffers = 1 + u32::from(how >> 3);
                let options = Options { zero_blocks: how & 4 == 4, max_buffers, ..self.options };
                self.options = if busy { self.options } else { options };
                self.instance.set_options(options)
            }
        };
        assert_eq!(result, if busy { Err(Error::Busy) } else { Ok(()) });
    }
}
