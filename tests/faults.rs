// SPDX-License-Identifier: GPL-2.0-only
//! Every call of every trait goes wrong, one at a time: it fails, it panics, or it panics when it has done its work.
//!
//! A set of scenarios in which nothing goes wrong by itself is run once to count the calls, and then once for each of them.
//! The simulator's checks hold in all of these runs, and a second migration must succeed after each that failed.

mod sim;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sim::run::{End, How, run};
use sim::scenario::{Decision, Scenario};
use sim::{Blow, Call, Plan};

/// Calls of all kinds are made in these, which is checked.
const SCENARIOS: u64 = 60;

/// Runs each scenario once for each of its calls; what was struck in all.
fn strike_every_call(blow: Blow) -> BTreeSet<Call> {
    let next = AtomicU64::new(0);
    let struck = Mutex::new(BTreeSet::new());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= SCENARIOS {
                        return;
                    }
                    match strike(number, blow) {
                        Ok(calls) => struck.lock().unwrap().extend(calls),
                        Err(what) => wrong.lock().unwrap().push(what),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    struck.into_inner().unwrap()
}

fn strike(number: u64, blow: Blow) -> Result<BTreeSet<Call>, String> {
    let scenario = small(number);
    let calls = run(scenario.clone(), How::default()).calls;
    let mut struck = BTreeSet::new();
    for at in 0..calls {
        let report = run(scenario.clone(), How { plan: Some(Plan { at, blow }), ..How::default() });
        let what = format!("scenario {number}, call {at}, {:?}", report.struck);
        if !report.wrong.is_empty() {
            return Err(format!("{what}: {:#?}", report.wrong));
        }
        let told = report.first_errors.iter().any(|error| error.contains("planned"));
        if blow != Blow::Error && report.end == End::Failed && !told {
            return Err(format!("{what}: the errors do not tell of the panic: {:?}", report.first_errors));
        }
        struck.extend(report.struck.iter().map(|(call, _)| *call));
    }
    Ok(struck)
}

/// A scenario of few calls.
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

fn assert_all(struck: &BTreeSet<Call>, but: &[Call]) {
    let missing: Vec<_> = ALL.iter().filter(|call| !struck.contains(call) && !but.contains(call)).collect();
    assert!(missing.is_empty(), "these calls were never struck: {missing:?}");
}

#[test]
fn an_error_at_every_call() {
    let struck = strike_every_call(Blow::Error);
    // Where nothing goes wrong, no error is set.
    assert_all(&struck, &[Call::SetError]);
}

#[test]
fn a_panic_at_every_call() {
    let struck = strike_every_call(Blow::Panic);
    assert_all(&struck, &[Call::SetError]);
}

#[test]
fn a_panic_at_the_end_of_every_call() {
    let struck = strike_every_call(Blow::LatePanic);
    assert_eq!(struck, BTreeSet::from([Call::Read, Call::WriteAsync, Call::Put]));
}

/// The stream's error can only be set when something else has failed: a read, here.
#[test]
fn a_panic_where_an_error_is_told() {
    let mut struck = BTreeSet::new();
    for number in 0..200 {
        let mut scenario = small(number);
        scenario.error_rate = 100;
        let calls = run(scenario.clone(), How::default()).calls;
        for at in calls.saturating_sub(30)..calls {
            let report = run(scenario.clone(), How { plan: Some(Plan { at, blow: Blow::Panic }), ..How::default() });
            assert!(report.wrong.is_empty(), "scenario {number}, panic at call {at}: {:#?}", report.wrong);
            struck.extend(report.struck.iter().filter(|(_, blow)| *blow == Blow::Panic).map(|(call, _)| *call));
        }
    }
    assert!(struck.contains(&Call::SetError) && struck.contains(&Call::Print), "{struck:?}");
}
