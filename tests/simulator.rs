// SPDX-License-Identifier: GPL-2.0-only
//! The main test: whole migrations in a simulated world.
//!
//! `BLKMIG_SCENARIOS=n` runs n scenarios instead of 20,000, `BLKMIG_FIRST=n` begins with that one, and `BLKMIG_SCENARIO=n`
//! replays one and prints all that happens in it.

mod sim;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use sim::run::{End, How, run};
use sim::scenario::{Decision, Scenario};

/// How many failures are worth reading.
const MOST_FAILURES: usize = 5;

/// What must have happened often enough, and whether the migration fails then, or arrives, or now the one and now the other.
const WHAT_HAPPENS: [(&str, bool, bool); 14] = [
    ("gone", true, true),
    ("gone at the destination", true, true),
    ("resized", true, true),
    ("resized and back", true, true),
    ("appears", true, true),
    ("replaced", true, true),
    ("unlisted", true, true),
    ("in the middle of a call", true, true),
    ("cancelled with reads in flight", true, false),
    ("left alone", true, false),
    ("writes in flight when tracking starts", true, true),
    ("garbage in a tail", true, true),
    ("shorter by data", true, true),
    ("shorter by zeroes", false, true),
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

#[test]
fn no_scenario_goes_wrong() {
    if let Some(number) = number("BLKMIG_SCENARIO") {
        let report = run(Scenario::new(number), How { traced: true, ..How::default() });
        assert!(report.wrong.is_empty(), "scenario {number}: {:#?}", report.wrong);
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
                    let report = run(Scenario::new(number), How::default());
                    *ends.lock().unwrap().entry(format!("{:?}", report.end)).or_insert(0_u64) += 1;
                    for what in report.seen {
                        seen.lock().unwrap().entry(what).or_insert([0; 2])[usize::from(report.arrived)] += 1;
                    }
                    if !report.wrong.is_empty() {
                        failures.lock().unwrap().insert(number, report.wrong);
                    }
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    println!("{count} scenarios in {:.1?}: {:?}", began.elapsed(), ends.lock().unwrap());
    println!("what happened in them, and how often the migration failed and arrived: {seen:?}");
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "replay with BLKMIG_SCENARIO=<number>: {failures:#?}");
    let ends = ends.into_inner().unwrap();
    let completed = ends.get(&format!("{:?}", End::Completed)).copied().unwrap_or(0);
    assert!(completed > count / 2, "most scenarios must come to a good end, or they show little: {ends:?}");
    for (what, fails, arrives) in WHAT_HAPPENS.into_iter().filter(|_| count >= 20_000) {
        let [failed, arrived] = seen.get(what).copied().unwrap_or_default();
        // That it comes too late to matter is rare.
        assert!(!fails || failed > count / 1000, "{what}: failed {failed} times");
        assert!(!arrives || arrived > count / 20_000, "{what}: arrived {arrived} times");
    }
}

/// Large, thin images: the search for allocated sectors ends before it finds any, and the last stage begins meanwhile.
#[test]
fn a_search_that_takes_several_steps_goes_well() {
    for number in 0..300 {
        let mut scenario = Scenario::new(number).without_errors();
        scenario.chunk_sectors = 1;
        scenario.disks = vec![("thin".into(), sim::disk::Kind::Normal, 1030 + number * 5)];
        scenario.shared_base = true;
        scenario.source.tiny_extents = true;
        scenario.guest_burst = 10;
        scenario.decision = Decision::Steps(number % 3);
        let report = run(scenario, How::default());
        assert!(report.wrong.is_empty(), "scenario {number}: {:#?}", report.wrong);
    }
}

/// What the host says of zeroes holds for the moment in which it says so: guests that write in every other call.
#[test]
fn zeroes_that_are_known_and_written_to() {
    for number in 0..3000 {
        let mut scenario = Scenario::new(number).without_errors();
        scenario.source.known_zero = true;
        scenario.shared_base = false;
        scenario.guest.1 = 400;
        let report = run(scenario, How::default());
        assert!(report.wrong.is_empty(), "scenario {number}: {:#?}", report.wrong);
    }
}
