// SPDX-License-Identifier: GPL-2.0-only
//! A simulated hypervisor: no threads, a clock of its own, and one random number generator for each scenario, so that
//! whatever goes wrong in scenario n goes wrong every time it is run.
//!
//! | module | what it is |
//! |---|---|
//! | here | what the two machines share: random numbers, time, faults to inject, violations found |
//! | [`disk`], [`machine`], [`guest`], [`host`] | a machine: disks, guest, requests, the engine's traits |
//! | [`events`], [`misuse`] | devices that come, go and change during a migration; calls out of turn |
//! | [`stream`] | the link, and the monitor |
//! | [`model`] | reads the stream by the format's rules, without any of the engine's code |
//! | [`scenario`] | what a scenario is made of |
//! | [`run`], [`delivery`], [`ending`], [`checks`] | runs a scenario and checks the engine's promises at every step |
//! | [`verdict`] | checks the promise at the end, byte for byte |
#![allow(dead_code, reason = "each test program uses its part of it")]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]
#![allow(clippy::struct_excessive_bools, reason = "a host's features and a scenario's choices are just that")]

pub(crate) mod checks;
pub(crate) mod delivery;
pub(crate) mod disk;
pub(crate) mod ending;
pub(crate) mod events;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod machine;
pub(crate) mod misuse;
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

    /// True in `per_mille` of a thousand cases.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.index(of.len())]
    }
}

/// The calls that the engine makes to its host, for fault injection and traces.
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
    DirtyUnit,
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

/// How a call goes wrong when a fault is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, lies or loses data, each kind of call in its own way.
    Error,
    /// It panics before it does anything.
    Panic,
    /// It panics after it has done its work.
    LatePanic,
}

/// The one call, counted from 0, that gets a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    pub(crate) at: u64,
    pub(crate) fault: Fault,
}

/// A defect of the host that breaks the contract silently. The engine cannot notice it, but the simulator must: this is
/// for the simulator's self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostDefect {
    /// A write of the guest does not make its chunk dirty.
    ForgetsDirty,
    /// Making a chunk clean makes its neighbors clean too.
    ResetsNeighbor,
    /// A read returns old data.
    StaleRead,
    /// A write at the destination is reported as done but was not.
    LosesWrite,
    /// Two writes at the destination are swapped.
    SwapsWrites,
    /// A reference is not given back.
    LeaksReference,
    /// The stream loses a chunk's data and reports no error.
    CorruptsStream,
    /// A flush at the destination is reported as done but was not.
    LyingFlush,
    /// A buffer is never released.
    KeepsBuffer,
    /// The host hides that a device has disappeared, changed, appeared or been replaced.
    HidesChanges,
    /// Tracking starts while writes are in flight that will not make their chunks dirty.
    NoWait,
    /// Two streams have the same identity.
    OneIdentity,
    /// A read that was in flight when its migration was canceled never completes.
    LosesRequest,
    /// The destination accepts data past the end of a disk and drops them.
    DropsTail,
}

/// More calls than any scenario needs: the engine is in an endless loop.
const CALL_LIMIT: u64 = 1_000_000;

/// What the two machines of a scenario share.
pub(crate) struct Sim {
    pub(crate) rng: Rng,
    now: Cell<i64>,
    traced: bool,
    calls: Cell<u64>,
    injection: Cell<Option<Injection>>,
    late: Cell<bool>,
    /// Set after a drain that returned with requests in flight, or after a panic: some checks no longer apply.
    pub(crate) broken: Cell<bool>,
    /// Of ten thousand calls, this many fail.
    pub(crate) error_rate: Cell<u64>,
    pub(crate) defect: Option<HostDefect>,
    /// The calls that got a fault.
    injected: RefCell<Vec<(Call, Fault)>>,
    /// The events that this scenario has covered.
    seen: RefCell<BTreeSet<&'static str>>,
    violations: RefCell<Vec<String>>,
}

impl Sim {
    pub(crate) fn new(seed: u64, traced: bool, injection: Option<Injection>, defect: Option<HostDefect>) -> Sim {
        Sim {
            rng: Rng::new(seed),
            now: Cell::new(1_000_000_000),
            traced,
            calls: Cell::new(0),
            injection: Cell::new(injection),
            late: Cell::new(false),
            broken: Cell::new(false),
            error_rate: Cell::new(0),
            defect,
            injected: RefCell::default(),
            seen: RefCell::default(),
            violations: RefCell::default(),
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

    /// Records something that must not happen.
    pub(crate) fn violation(&self, text: impl Into<String>) {
        let text = text.into();
        self.trace(|| format!("WRONG: {text}"));
        self.violations.borrow_mut().push(text);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.borrow().clone()
    }

    /// Records an event that the scenarios are meant to cover.
    pub(crate) fn cover(&self, what: &'static str) {
        self.seen.borrow_mut().insert(what);
    }

    pub(crate) fn seen(&self) -> BTreeSet<&'static str> {
        self.seen.borrow().clone()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.get()
    }

    pub(crate) fn injected_faults(&self) -> Vec<(Call, Fault)> {
        self.injected.borrow().clone()
    }

    pub(crate) fn fault_was_injected(&self) -> bool {
        !self.injected.borrow().is_empty()
    }

    pub(crate) fn shows_defect(&self, defect: HostDefect) -> bool {
        self.defect == Some(defect) && self.rng.chance(100)
    }

    /// Counts a call. Returns whether it must fail; panics if a panic is to be injected here.
    pub(crate) fn count_call(&self, machine: &str, call: Call) -> bool {
        let number = self.calls.get();
        self.calls.set(number + 1);
        self.late.set(false);
        self.trace(|| format!("{machine}.{call:?}"));
        if number % CALL_LIMIT == CALL_LIMIT - 1 {
            self.violation("the engine is in an endless loop");
            std::panic::resume_unwind(Box::new("endless loop"));
        }
        if let Some(injection) = self.injection.get() {
            if injection.at == number {
                match injection.fault {
                    Fault::Error => return self.record_fault(call, Fault::Error),
                    Fault::LatePanic => self.late.set(true),
                    Fault::Panic => {
                        self.record_fault(call, Fault::Panic);
                        // Not panic!, which would print a message.
                        std::panic::resume_unwind(Box::new("injected panic"));
                    }
                }
            }
        }
        self.error_rate.get() > 0
            && self.rng.below(10_000) < self.error_rate.get()
            && self.record_fault(call, Fault::Error)
    }

    /// The end of a call, where a late panic may be injected.
    pub(crate) fn leave(&self, call: Call) {
        if self.late.replace(false) {
            self.record_fault(call, Fault::LatePanic);
            std::panic::resume_unwind(Box::new("injected late panic"));
        }
    }

    fn record_fault(&self, call: Call, fault: Fault) -> bool {
        if fault != Fault::Error {
            self.broken.set(true);
        }
        self.trace(|| format!("injected into {call:?}: {fault:?}"));
        self.injected.borrow_mut().push((call, fault));
        true
    }
}
