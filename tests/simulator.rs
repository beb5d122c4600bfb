// SPDX-License-Identifier: GPL-2.0-only
//! The main test: whole migrations between two simulated hypervisors, each scenario derived from its number.
//!
//! `BLKMIG_SCENARIOS=n` runs n scenarios instead of 20,000, `BLKMIG_FIRST=n` starts with scenario n, and
//! `BLKMIG_SCENARIO=n` replays scenario n and prints everything that happens in it.

mod sim;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use sim::run::{End, RunOptions, run};
use sim::scenario::{Decision, Scenario};

/// The test stops after this many failures.
const MOST_FAILURES: usize = 5;

/// What the scenarios must have covered often enough: the event, and whether migrations with it fail, succeed, or both.
const COVERAGE: [(&str, bool, bool); 14] = [
    ("gone", true, true),
    ("gone at the destination", true, true),
    ("resized", true, true),
    ("resized and back", true, true),
    ("appears", true, true),
    ("replaced", true, true),
    ("unlisted", true, true),
    ("in the middle of a call", true, true),
    ("canceled with reads in flight", true, false),
    ("abandoned", true, false),
    ("writes in flight when tracking starts", true, true),
    ("garbage in a tail", true, true),
    ("shorter by data", true, true),
    ("shorter by zeroes", false, true),
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn every_scenario_keeps_the_promise() {
    if let Some(number) = number("BLKMIG_SCENARIO") {
        let report = run(Scenario::new(number), RunOptions { traced: true, ..RunOptions::default() });
        assert!(report.violations.is_empty(), "scenario {number}: {:#?}", report.violations);
        return;
    }
    let first = number("BLKMIG_FIRST").unwrap_or(0);
    let count = number("BLKMIG_SCENARIOS").unwrap_or(20_000);
    let next = AtomicU64::new(first);
    let failures = Mutex::new(BTreeMap::new());
    let ends = Mutex::new(BTreeMap::new());
    let seen = Mutex::new(BTreeMap::<_, [u64; 2]>::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= first + count || failures.lock().unwrap().len() >= MOST_FAILURES {
                        return;
                    }
                    let report = run(Scenario::new(number), RunOptions::default());
                    *ends.lock().unwrap().entry(format!("{:?}", report.end)).or_insert(0_u64) += 1;
                    for what in report.seen {
                        seen.lock().unwrap().entry(what).or_insert([0; 2])[usize::from(report.arrived)] += 1;
                    }
                    if !report.violations.is_empty() {
                        failures.lock().unwrap().insert(number, report.violations);
                    }
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    println!("{count} scenarios in {:.1?}: {:?}", began.elapsed(), ends.lock().unwrap());
    println!("events in them, and how often such a migration failed and succeeded: {seen:?}");
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "replay with BLKMIG_SCENARIO=<number>: {failures:#?}");
    let ends = ends.into_inner().unwrap();
    let completed = ends.get(&format!("{:?}", End::Completed)).copied().unwrap_or(0);
    assert!(completed > count / 2, "too few scenarios complete to prove anything: {ends:?}");
    for (what, fails, arrives) in COVERAGE.into_iter().filter(|_| count >= 20_000) {
        let [failed, arrived] = seen.get(what).copied().unwrap_or_default();
        // It is rare that an event comes too late to matter.
        assert!(!fails || failed > count / 1000, "{what}: failed {failed} times");
        assert!(!arrives || arrived >= count / 20_000, "{what}: succeeded {arrived} times");
    }
}

/// Large, sparse images: a step ends its search for allocated sectors before it finds any, and the last stage begins.
#[test]
fn searches_for_allocated_sectors_may_take_several_steps() {
    for number in 0..300 {
        let mut scenario = Scenario::new(number).without_errors();
        scenario.chunk_sectors = 1;
        scenario.disks = vec![("thin".into(), sim::disk::Kind::Normal, 1030 + number * 5)];
        scenario.shared_base = true;
        scenario.source.tiny_extents = true;
        scenario.guest_burst = 10;
        scenario.decision = Decision::Steps(number % 3);
        let report = run(scenario, RunOptions::default());
        assert!(report.violations.is_empty(), "scenario {number}: {:#?}", report.violations);
    }
}

/// The host's answer about zeroes is true only at that moment: here, the guest writes during almost every other call.
#[test]
fn guest_writes_to_sectors_known_to_be_zero_are_sent() {
    for number in 0..3000 {
        let mut scenario = Scenario::new(number).without_errors();
        scenario.source.known_zero = true;
        scenario.shared_base = false;
        scenario.guest.1 = 400;
        let report = run(scenario, RunOptions::default());
        assert!(report.violations.is_empty(), "scenario {number}: {:#?}", report.violations);
    }
}
