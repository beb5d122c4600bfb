// SPDX-License-Identifier: GPL-2.0-only
//! Fault injection: every call that the engine makes to its host goes wrong once. It fails, or it panics before or
//! after it has done its work.
//!
//! Each scenario is run once without faults to count the calls, and then once for every call with a fault injected
//! there. The simulator's checks must hold in all of these runs, and after a failed migration a second one must
//! succeed.

mod sim;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sim::run::{End, RunOptions, run};
use sim::scenario::{Decision, Scenario};
use sim::{Call, Fault, Injection};

/// Enough to reach every kind of call; the tests check that.
const SCENARIOS: u64 = 60;

/// Runs each scenario once for each of its calls. Returns the kinds of call that got the fault.
fn inject_at_every_call(fault: Fault) -> BTreeSet<Call> {
    let next = AtomicU64::new(0);
    let injected = Mutex::new(BTreeSet::new());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= SCENARIOS {
                        return;
                    }
                    match inject_at_each_call_of(number, fault) {
                        Ok(calls) => injected.lock().unwrap().extend(calls),
                        Err(what) => wrong.lock().unwrap().push(what),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    injected.into_inner().unwrap()
}

fn inject_at_each_call_of(number: u64, fault: Fault) -> Result<BTreeSet<Call>, String> {
    let scenario = small(number);
    let calls = run(scenario.clone(), RunOptions::default()).calls;
    let mut injected = BTreeSet::new();
    for at in 0..calls {
        let report =
            run(scenario.clone(), RunOptions { injection: Some(Injection { at, fault }), ..RunOptions::default() });
        let what = format!("scenario {number}, call {at}, {:?}", report.injected);
        if !report.violations.is_empty() {
            return Err(format!("{what}: {:#?}", report.violations));
        }
        let mentioned = report.first_errors.iter().any(|error| error.contains("injected"));
        if fault != Fault::Error && report.end == End::Failed && !mentioned {
            return Err(format!("{what}: no error mentions the panic: {:?}", report.first_errors));
        }
        injected.extend(report.injected.iter().map(|(call, _)| *call));
    }
    Ok(injected)
}

/// The scenario, shortened so that it makes few calls.
fn small(number: u64) -> Scenario {
    let mut scenario = Scenario::new(number).without_errors();
    for (_, _, sectors) in &mut scenario.disks {
        *sectors = (*sectors).min(u64::from(scenario.chunk_sectors) * 5 + 1);
    }
    scenario.quiet_at = scenario.quiet_at.min(4);
    if let Decision::Steps(steps) = &mut scenario.decision {
        *steps = (*steps).min(5);
    }
    scenario
}

const ALL: [Call; 40] = [
    Call::Devices,
    Call::Find,
    Call::Drain,
    Call::Wait,
    Call::Threaded,
    Call::Now,
    Call::MaxDowntime,
    Call::RanShort,
    Call::Name,
    Call::Hold,
    Call::Release,
    Call::Length,
    Call::IsReadOnly,
    Call::Allocated,
    Call::KnownZero,
    Call::Read,
    Call::Write,
    Call::HasWriteAsync,
    Call::WriteAsync,
    Call::WriteZeroes,
    Call::HasWriteZeroes,
    Call::ClusterBytes,
    Call::Activate,
    Call::Flush,
    Call::TrackingOn,
    Call::TrackingOff,
    Call::IsDirty,
    Call::ResetDirty,
    Call::DirtyChunks,
    Call::NextDirty,
    Call::Put,
    Call::PutOwned,
    Call::Get,
    Call::IsRateLimited,
    Call::RateLimit,
    Call::Error,
    Call::SetError,
    Call::StreamFlush,
    Call::Print,
    Call::MonitorFlush,
];

fn assert_all_but(exceptions: &[Call], injected: &BTreeSet<Call>) {
    let missing: Vec<_> = ALL.iter().filter(|call| !injected.contains(call) && !exceptions.contains(call)).collect();
    assert!(missing.is_empty(), "no fault was injected into these calls: {missing:?}");
}

#[test]
fn an_error_in_every_call_is_handled() {
    let injected = inject_at_every_call(Fault::Error);
    // The engine sets the stream's error only after something else has failed.
    assert_all_but(&[Call::SetError], &injected);
}

#[test]
fn a_panic_in_every_call_is_handled() {
    let injected = inject_at_every_call(Fault::Panic);
    assert_all_but(&[Call::SetError], &injected);
}

#[test]
fn a_panic_after_the_work_of_a_call_is_handled() {
    let injected = inject_at_every_call(Fault::LatePanic);
    assert_eq!(injected, BTreeSet::from([Call::Read, Call::WriteAsync, Call::Put]));
}

/// These calls are made only after something else has failed, which is a read here.
#[test]
fn a_panic_while_an_error_is_reported_is_handled() {
    let mut injected = BTreeSet::new();
    for number in 0..200 {
        let mut scenario = small(number);
        scenario.error_rate = 100;
        let calls = run(scenario.clone(), RunOptions::default()).calls;
        for at in calls.saturating_sub(30)..calls {
            let report = run(
                scenario.clone(),
                RunOptions { injection: Some(Injection { at, fault: Fault::Panic }), ..RunOptions::default() },
            );
            assert!(report.violations.is_empty(), "scenario {number}, panic at call {at}: {:#?}", report.violations);
            injected.extend(report.injected.iter().filter(|(_, fault)| *fault == Fault::Panic).map(|(call, _)| *call));
        }
    }
    assert!(injected.contains(&Call::SetError) && injected.contains(&Call::Print), "{injected:?}");
}
