// SPDX-License-Identifier: GPL-2.0-only
//! A hypervisor that is made of nothing at all: no threads, no clock but its own, and one random stream a scenario, so that
//! whatever goes wrong in scenario n goes wrong in it again.
//!
//! | module | what it is |
//! |---|---|
//! | here | what the two machines share: randomness, time, the plan of what is to fail, what went wrong |
//! | [`disk`], [`machine`], [`guest`], [`host`] | a machine: its disks, requests in flight and guest, and the engine's traits of them |
//! | [`events`], [`disturb`] | what goes on around a migration: devices that come, go and change, calls that are out of place |
//! | [`stream`] | the link, and the monitor |
//! | [`model`] | reads the stream by the book, as a destination that shares no code with the engine |
//! | [`scenario`] | what a scenario is made of |
//! | [`run`], [`delivery`], [`ending`], [`checks`] | runs one, and holds the engine to its promises at every step |
//! | [`verdict`] | the promise at the end, byte for byte |
#![allow(dead_code, reason = "each test program uses its part of it")]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]
#![allow(clippy::struct_excessive_bools, reason = "a host's features and a scenario's choices are just that")]

pub(crate) mod checks;
pub(crate) mod delivery;
pub(crate) mod disk;
pub(crate) mod disturb;
pub(crate) mod ending;
pub(crate) mod events;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod machine;
pub(crate) mod model;
pub(crate) mod run;
pub(crate) mod scenario;
pub(crate) mod stream;
pub(crate) mod verdict;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// Random numbers: splitmix64.
pub(crate) struct Rng(Cell<u64>);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        let rng = Rng(Cell::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        rng.next();
        rng
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1; 0 for an `n` of 0.
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(crate) fn index(&self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.index(of.len())]
    }
}

/// What the engine calls, for plans and traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Devices,
    Find,
    Drain,
    Wait,
    Threaded,
    Now,
    MaxDowntime,
    RanShort,
    Name,
    Hold,
    Release,
    Length,
    IsReadOnly,
    Allocated,
    KnownZero,
    Read,
    Write,
    HasWriteAsync,
    WriteAsync,
    WriteZeroes,
    HasWriteZeroes,
    ClusterBytes,
    Activate,
    Flush,
    TrackingOn,
    TrackingOff,
    IsDirty,
    ResetDirty,
    DirtyChunks,
    NextDirty,
    Put,
    PutOwned,
    Get,
    IsRateLimited,
    RateLimit,
    Error,
    SetError,
    StreamFlush,
    Print,
    MonitorFlush,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It fails, lies or loses, each call in its own way.
    Error,
    /// It panics before it does anything.
    Panic,
    /// It panics when it has done its work.
    LatePanic,
}

/// The one call, counted from 0, that is to go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) at: u64,
    pub(crate) blow: Blow,
}

/// A host that breaks its side of the contract in silence. The engine can't notice; the simulator must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A write of the guest does not make its chunk dirty.
    ForgetsDirty,
    /// Making a chunk clean makes its neighbours clean too.
    ResetsNeighbour,
    /// A read gives what was there some time ago.
    StaleRead,
    /// A write to the destination is said to be done and was not.
    LosesWrite,
    /// Two writes to the destination change places.
    SwapsWrites,
    /// A reference is not given back.
    LeaksReference,
    /// The stream loses a chunk's data and says nothing.
    CorruptsStream,
    /// A flush at the destination is said to be done and was not.
    LyingFlush,
    /// A buffer is never released.
    KeepsBuffer,
    /// Nobody is told of a device that goes away, changes, appears or is replaced.
    HidesChanges,
    /// Tracking starts with writes in flight that will not make their chunks dirty.
    NoWait,
    /// Two streams have the same identity.
    OneIdentity,
    /// A read that was still in flight when its migration was cancelled never completes.
    LosesRequest,
    /// The destination takes data past the end of a disk and says nothing.
    DropsTail,
}

/// More calls than any scenario needs.
const ENDLESS: u64 = 1_000_000;

/// What the machines of a scenario share.
pub(crate) struct Sim {
    pub(crate) rng: Rng,
    now: Cell<i64>,
    traced: bool,
    calls: Cell<u64>,
    plan: Cell<Option<Plan>>,
    late: Cell<bool>,
    /// After a flush that returned with requests in flight, or a panic: what follows need not be in order.
    pub(crate) broken: Cell<bool>,
    /// Of ten thousand calls, so many fail.
    pub(crate) error_rate: Cell<u64>,
    pub(crate) sabotage: Option<Sabotage>,
    /// The calls that were made to go wrong.
    struck: RefCell<Vec<(Call, Blow)>>,
    /// What has happened that a scenario is about.
    seen: RefCell<BTreeSet<&'static str>>,
    wrong: RefCell<Vec<String>>,
}

impl Sim {
    pub(crate) fn new(seed: u64, traced: bool, plan: Option<Plan>, sabotage: Option<Sabotage>) -> Sim {
        Sim {
            rng: Rng::new(seed),
            now: Cell::new(1_000_000_000),
            traced,
            calls: Cell::new(0),
            plan: Cell::new(plan),
            late: Cell::new(false),
            broken: Cell::new(false),
            error_rate: Cell::new(0),
            sabotage,
            struck: RefCell::default(),
            seen: RefCell::default(),
            wrong: RefCell::default(),
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.now.get()
    }

    pub(crate) fn advance(&self, ns: u64) {
        self.now.set(self.now.get() + ns as i64);
    }

    pub(crate) fn trace(&self, text: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{:>12} #{:<5} {}", self.now.get(), self.calls.get(), text());
        }
    }

    /// Something that must not be.
    pub(crate) fn wrong(&self, text: impl Into<String>) {
        let text = text.into();
        self.trace(|| format!("WRONG: {text}"));
        self.wrong.borrow_mut().push(text);
    }

    pub(crate) fn all_wrong(&self) -> Vec<String> {
        self.wrong.borrow().clone()
    }

    /// Something of interest has happened.
    pub(crate) fn saw(&self, what: &'static str) {
        self.seen.borrow_mut().insert(what);
    }

    pub(crate) fn seen(&self) -> BTreeSet<&'static str> {
        self.seen.borrow().clone()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.get()
    }

    pub(crate) fn struck(&self) -> Vec<(Call, Blow)> {
        self.struck.borrow().clone()
    }

    pub(crate) fn was_struck(&self) -> bool {
        !self.struck.borrow().is_empty()
    }

    pub(crate) fn sabotaged(&self, how: Sabotage) -> bool {
        self.sabotage == Some(how) && self.rng.chance(100)
    }

    /// Counts a call; whether it is to go wrong, if the plan does not make it panic.
    pub(crate) fn strike(&self, machine: &str, call: Call) -> bool {
        let number = self.calls.get();
        self.calls.set(number + 1);
        self.late.set(false);
        self.trace(|| format!("{machine}.{call:?}"));
        if number % ENDLESS == ENDLESS - 1 {
            self.wrong("the engine does not come to an end");
            std::panic::resume_unwind(Box::new("endless"));
        }
        if let Some(plan) = self.plan.get() {
            if plan.at == number {
                match plan.blow {
                    Blow::Error => return self.note(call, Blow::Error),
                    Blow::LatePanic => self.late.set(true),
                    Blow::Panic => {
                        self.note(call, Blow::Panic);
                        // Not panic!, which would print what is no news here.
                        std::panic::resume_unwind(Box::new("planned panic"));
                    }
                }
            }
        }
        self.error_rate.get() > 0 && self.rng.below(10_000) < self.error_rate.get() && self.note(call, Blow::Error)
    }

    /// The end of a call that a late panic may be planned for.
    pub(crate) fn leave(&self, call: Call) {
        if self.late.replace(false) {
            self.note(call, Blow::LatePanic);
            std::panic::resume_unwind(Box::new("planned late panic"));
        }
    }

    fn note(&self, call: Call, blow: Blow) -> bool {
        if blow != Blow::Error {
            self.broken.set(true);
        }
        self.trace(|| format!("{call:?} goes wrong: {blow:?}"));
        self.struck.borrow_mut().push((call, blow));
        true
    }
}
