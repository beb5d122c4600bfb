// SPDX-License-Identifier: GPL-2.0-only
//! One instance of the module: what lasts between a host's calls, and the boundary that a panic does not pass.
//!
//! A migration is taken out of its slot while a call works on it, so that no lock is held while the host is
//! called, and a call that the host makes from within another finds the slot in use instead of a deadlock.
#![forbid(unsafe_code)]

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::call::CallContext;
use crate::destination::Incoming;
use crate::error::Error;
use crate::geometry::Geometry;
use crate::host::{Host, Monitor, Stream};
use crate::settings::{Options, Selection, Settings};
use crate::source::{Outgoing, Step};
use crate::status::Status;
use crate::wire::{Record, SECTION_VERSION};

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
struct Params {
    enabled: bool,
    shared_base: bool,
}

enum Slot<H: Host> {
    Idle,
    Running(Box<Outgoing<H>>),
    /// A call is working on it.
    InUse,
    /// Over, by this; all was given back to the host. Calls get the error again until cleanup or another setup.
    Failed(Error),
}

/// An instance. Every method may be called from any thread; those that migrate, by one at a time.
pub struct Instance<H: Host> {
    geometry: Geometry,
    host: Mutex<Option<Arc<H>>>,
    settings: Mutex<Settings>,
    selection: Mutex<Selection>,
    params: Mutex<Option<Params>>,
    outgoing: Mutex<Slot<H>>,
    /// The stream of the last stage 1.
    staged: Mutex<Option<usize>>,
    /// `None` while a load works on it.
    incoming: Mutex<Option<Incoming>>,
    failure: Mutex<String>,
    status: Arc<Status>,
}

/// Runs `f`; a panic in it becomes an error.
fn catch<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| Err(Error::Panic(panic_text(&*panic))))
}

/// Tells the host something; a panic in that changes nothing.
fn tell(f: impl FnOnce()) {
    let told = catch(|| {
        f();
        Ok(())
    });
    if let Err(error) = told {
        log::error!("{error}");
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

impl<H: Host> Instance<H> {
    /// An instance without a host.
    #[must_use]
    pub fn new(geometry: Geometry) -> Instance<H> {
        Instance {
            geometry,
            host: Mutex::new(None),
            settings: Mutex::new(Settings::default_for(geometry)),
            selection: Mutex::default(),
            params: Mutex::new(None),
            outgoing: Mutex::new(Slot::Idle),
            staged: Mutex::default(),
            incoming: Mutex::new(Some(Incoming::default())),
            failure: Mutex::default(),
            status: Arc::default(),
        }
    }

    /// What queries read.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The text of the last failure; empty after a call that could have failed and did not. Queries and
    /// [`cleanup`](Self::cleanup) leave it: a host cleans up first and asks then.
    #[must_use]
    pub fn last_error(&self) -> String {
        self.failure.lock().clone()
    }

    /// Makes a failure known; gives it back.
    pub fn fail(&self, error: Error) -> Error {
        log::error!("{error}");
        self.remember(error)
    }

    /// Keeps a failure for those who ask; gives it back.
    fn remember(&self, error: Error) -> Error {
        self.status.last_error.store(error.errno().ret(), Relaxed);
        *self.failure.lock() = error.to_string();
        error
    }

    /// Forgets the last failure.
    pub(crate) fn clear_error(&self) {
        self.status.last_error.store(0, Relaxed);
        self.failure.lock().clear();
    }

    fn is_running(&self) -> bool {
        matches!(*self.outgoing.lock(), Slot::Running(_) | Slot::InUse) || self.incoming.lock().is_none()
    }

    /// The host.
    ///
    /// # Errors
    /// If there is none.
    pub fn host(&self) -> Result<Arc<H>, Error> {
        self.host.lock().clone().ok_or(Error::NoHost)
    }

    /// Takes another host.
    ///
    /// # Errors
    /// [`Error::Busy`] while a migration runs.
    pub fn set_host(&self, host: H) -> Result<(), Error> {
        if self.is_running() {
            return Err(self.fail(Error::Busy));
        }
        *self.host.lock() = Some(Arc::new(host));
        self.clear_error();
        Ok(())
    }

    /// Takes other settings.
    ///
    /// # Errors
    /// [`Error::Busy`] while a migration runs; [`Error::Option`] for a number that is absurd. The old settings
    /// stay then.
    pub fn set_options(&self, options: Options) -> Result<(), Error> {
        let settings = Settings::new(self.geometry, options).map_err(|error| self.fail(error))?;
        if self.is_running() {
            return Err(self.fail(Error::Busy));
        }
        *self.settings.lock() = settings;
        self.clear_error();
        Ok(())
    }

    /// Chooses the devices of the migrations to come.
    ///
    /// # Errors
    /// [`Error::Busy`] while a migration runs.
    pub fn set_devices(&self, selection: Selection) -> Result<(), Error> {
        if self.is_running() {
            return Err(self.fail(Error::Busy));
        }
        *self.selection.lock() = selection;
        self.clear_error();
        Ok(())
    }

    /// What the next setup is to do. A shared base means that disks are migrated.
    pub fn set_params(&self, enabled: bool, shared_base: bool) {
        *self.params.lock() = Some(Params { enabled: enabled || shared_base, shared_base });
    }

    /// The settings of a migration that begins now.
    fn settings(&self) -> Settings {
        let shared_base = self.params.lock().is_some_and(|params| params.shared_base);
        Settings { shared_base, ..*self.settings.lock() }
    }

    /// Whether disks are not to be migrated: the section is then empty. Hosts that have never said so want them
    /// migrated, or they would not call.
    fn is_disabled(&self) -> bool {
        self.params.lock().is_some_and(|params| !params.enabled)
    }

    fn is_idle(&self) -> bool {
        matches!(*self.outgoing.lock(), Slot::Idle)
    }

    /// `save_live` of the original. 1: the stage is done. Errors, a stage that is unknown or out of turn among
    /// them, are the stream's, as the hosts of its time expect: they would take any value but 0 for success.
    pub fn save_live(&self, call: &mut CallContext, stage: i32) -> i32 {
        if stage < 0 {
            self.cleanup(call.monitor);
            return 0;
        }
        let stream = call.stream.identity();
        if stage == 1 {
            // Those hosts refuse a second migration themselves, and some forget to cancel one whose stream has broken.
            self.cleanup(call.monitor);
        }
        // A stage 1 that came in between, as for a snapshot, may have ended the migration that this stage belongs to.
        let other_stream = self.staged.lock().is_some_and(|staged| staged != stream);
        // They also say before each migration whether disks are part of it.
        let disabled = self.is_disabled() || self.params.lock().is_none();
        let result = match stage {
            2 | 3 if other_stream => Err(self.fail(Error::OtherStream)),
            1..=3 if disabled && self.is_idle() => self.empty_section(call).map(|()| true),
            1 => self.setup(call).map(|()| false),
            2 => self.iterate(call).map(|step| step.can_finish),
            3 => self.complete(call).map(|()| false),
            _ => Err(self.fail(Error::UnknownStage(stage))),
        };
        // Refused, as within another call, it has no claim on the stages that follow.
        if stage == 1 && result != Err(Error::Busy) {
            *self.staged.lock() = Some(stream);
        }
        match result {
            Ok(done) => i32::from(done),
            Err(error) => {
                tell(|| call.stream.set_error(error.errno()));
                0
            }
        }
    }

    fn empty_section(&self, call: &mut CallContext) -> Result<(), Error> {
        let written = catch(|| {
            call.stream.put(&Record::End.encode());
            call.check_stream()
        });
        match written {
            Ok(()) => {
                self.clear_error();
                Ok(())
            }
            Err(error) => {
                tell(|| call.stream.set_error(error.errno()));
                Err(self.fail(error))
            }
        }
    }

    /// Sets a migration up and writes the first section.
    ///
    /// # Errors
    /// [`Error::Busy`] if one runs, which goes on; whatever keeps a device from being migrated, and then nothing is
    /// left behind.
    pub fn setup(&self, call: &mut CallContext) -> Result<(), Error> {
        let host = self.host().map_err(|error| self.fail(error))?;
        {
            let mut slot = self.outgoing.lock();
            if matches!(*slot, Slot::Running(_) | Slot::InUse) {
                drop(slot);
                return Err(self.fail(Error::Busy));
            }
            *slot = if self.is_disabled() { Slot::Idle } else { Slot::InUse };
        }
        if self.is_disabled() {
            return self.empty_section(call);
        }
        let started = catch(|| {
            let selection = self.selection.lock().clone();
            Outgoing::start(host, self.settings(), selection, Arc::clone(&self.status), call)
        });
        match started {
            Ok(migration) => {
                *self.outgoing.lock() = Slot::Running(Box::new(migration));
                self.clear_error();
                Ok(())
            }
            Err(error) => {
                self.status.stop();
                Err(self.fail_migration(None, call, error))
            }
        }
    }

    /// One step: sends what the stream takes, one section.
    ///
    /// # Errors
    /// If anything fails; the migration is over then, and all was given back to the host.
    pub fn iterate(&self, call: &mut CallContext) -> Result<Step, Error> {
        if self.is_disabled() && self.is_idle() {
            return self.empty_section(call).map(|()| Step { sent: false, can_finish: true });
        }
        let (step, migration) = self.run(call, Outgoing::iterate)?;
        *self.outgoing.lock() = Slot::Running(migration);
        self.clear_error();
        Ok(step)
    }

    /// The last stage, with the guest stopped: sends all there is, and ends the migration.
    ///
    /// # Errors
    /// As for [`iterate`](Self::iterate).
    pub fn complete(&self, call: &mut CallContext) -> Result<(), Error> {
        if self.is_disabled() && self.is_idle() {
            return self.empty_section(call);
        }
        let ((), migration) = self.run(call, Outgoing::complete)?;
        self.end(migration, Slot::Idle);
        self.clear_error();
        Ok(())
    }

    /// Every byte that the destination still lacks; 0 when no migration runs. From within a call that works on
    /// the migration, all there are.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.ask(|_, remaining| remaining)
    }

    /// The same, for a host that stops the guest as soon as this is no more than a threshold of its own: above
    /// the threshold as long as the guest should run on, whatever remains.
    #[must_use]
    pub fn pending_switchover(&self, threshold: u64) -> u64 {
        let run_on = |remaining: u64| remaining.max(threshold.saturating_add(1));
        self.ask(|migration, remaining| match migration {
            Some(migration) if migration.should_stop(remaining) => remaining,
            _ => run_on(remaining),
        })
    }

    /// Asks the migration that runs something, with the bytes that remain; 0 if none runs. There is no migration to ask
    /// in the middle of a call, nor where the host can't count what remains: all its bytes do then.
    fn ask(&self, question: impl FnOnce(Option<&Outgoing<H>>, u64) -> u64) -> u64 {
        let all = self.status.bytes().0;
        match self.take_running() {
            Ok(migration) => {
                let remaining = catch(|| migration.remaining());
                let answer = match remaining {
                    Ok(remaining) => question(Some(&migration), remaining),
                    // The next step will meet the same error and report it.
                    Err(_) => question(None, all),
                };
                *self.outgoing.lock() = Slot::Running(migration);
                answer
            }
            Err(Error::Busy) => question(None, all),
            Err(_) => 0,
        }
    }

    /// Ends whatever runs, and gives everything back to the host. Harmless when nothing does.
    pub fn cleanup(&self, monitor: Option<&dyn Monitor>) {
        match self.take_running() {
            Ok(migration) => {
                if let Some(monitor) = monitor {
                    tell(|| monitor.print("\n"));
                }
                self.end(migration, Slot::Idle);
            }
            Err(Error::Busy) => log::error!("cleanup was called while another call works on the migration; ignored"),
            Err(_) => *self.outgoing.lock() = Slot::Idle,
        }
    }

    /// Reads one section from the stream and writes it to the devices.
    ///
    /// # Errors
    /// Whatever is wrong with the section or the devices; see [`Incoming::load`].
    pub fn load(&self, stream: &mut dyn Stream, version: i32) -> Result<(), Error> {
        if version > SECTION_VERSION {
            return Err(self.fail(Error::Version { version, newest: SECTION_VERSION }));
        }
        let host = self.host().map_err(|error| self.fail(error))?;
        let Some(mut incoming) = self.incoming.lock().take() else {
            return Err(self.fail(Error::Busy));
        };
        let result = catch(|| incoming.load(&*host, self.settings(), &self.status, &mut *stream)).map_err(|error| {
            if matches!(error, Error::Panic(_)) {
                tell(|| stream.set_error(error.errno()));
            }
            self.fail(error)
        });
        *self.incoming.lock() = Some(incoming);
        if result.is_ok() {
            self.clear_error();
        }
        result
    }

    fn take_running(&self) -> Result<Box<Outgoing<H>>, Error> {
        let mut slot = self.outgoing.lock();
        match mem::replace(&mut *slot, Slot::InUse) {
            Slot::Running(migration) => Ok(migration),
            Slot::InUse => Err(Error::Busy),
            Slot::Idle => {
                *slot = Slot::Idle;
                Err(Error::NotRunning)
            }
            Slot::Failed(error) => {
                *slot = Slot::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// Does a step of the migration, which ends if the step fails; else gives it back, and its place is to be
    /// filled again. Until then a call that the host makes from within this one finds it in use.
    fn run<T>(
        &self,
        call: &mut CallContext,
        step: impl FnOnce(&mut Outgoing<H>, &mut CallContext) -> Result<T, Error>,
    ) -> Result<(T, Box<Outgoing<H>>), Error> {
        let mut migration = match self.take_running() {
            Ok(migration) => migration,
            Err(Error::Busy) => return Err(self.fail(Error::Busy)),
            Err(error) => {
                tell(|| call.stream.set_error(error.errno()));
                // What has failed has been reported; some hosts go on all the same, ten times a second.
                return Err(if error == Error::NotRunning { self.fail(error) } else { self.remember(error) });
            }
        };
        if migration.stream() != call.stream.identity() {
            *self.outgoing.lock() = Slot::Running(migration);
            return Err(self.fail(Error::OtherStream));
        }
        match catch(|| step(&mut migration, call)) {
            Ok(value) => Ok((value, migration)),
            Err(error) => {
                if let Some(monitor) = call.monitor {
                    tell(|| monitor.print(&format!("\n{error}\n")));
                }
                Err(self.fail_migration(Some(migration), call, error))
            }
        }
    }

    /// Ends what runs, or was about to, by an error. It is told while the slot is in use: what the host calls
    /// from there is refused, and what that was must not be remembered instead.
    fn fail_migration(&self, migration: Option<Box<Outgoing<H>>>, call: &mut CallContext, error: Error) -> Error {
        tell(|| call.stream.set_error(error.errno()));
        let error = self.fail(error);
        self.end(migration, Slot::Failed(error.clone()));
        self.remember(error)
    }

    /// Gives everything back to the host; the slot stays in use while that lasts.
    fn end<T>(&self, migration: T, then: Slot<H>) {
        if let Err(error) = catch(|| {
            drop(migration);
            Ok(())
        }) {
            self.fail(error);
        }
        *self.outgoing.lock() = then;
    }
}
