// SPDX-License-Identifier: GPL-2.0-only
//! Self-test of the simulator: it must notice every kind of error that it is there to find.
//!
//! A host with a silent defect damages the data as a defective engine would, so the simulator has to report it. The
//! parts that judge outcomes and sections are also given made-up ones, each wrong in exactly one way.

#![allow(clippy::cast_possible_truncation)]

mod sim;

use sim::HostDefect;
use sim::events::{Event, PlannedEvent};
use sim::guest::GuestMode;
use sim::model::{Model, ModelDisk};
use sim::run::{RunOptions, run};
use sim::scenario::{Mismatch, Scenario};
use sim::verdict::{Outcome, Pair, judge};

/// Runs scenarios whose host has this defect and in which nothing else goes wrong, except what `adjust` adds.
/// Returns how many of them reported a violation, and the first violation of each.
fn run_with_defect(defect: HostDefect, adjust: impl Fn(&mut Scenario)) -> (usize, String) {
    let mut wrong = Vec::new();
    for number in 0..600 {
        let mut scenario = Scenario::new(number).without_errors();
        adjust(&mut scenario);
        let report = run(scenario, RunOptions { defect: Some(defect), ..RunOptions::default() });
        wrong.extend(report.violations.first().cloned());
    }
    (wrong.len(), wrong.join("\n"))
}

#[track_caller]
fn expect_noticed(defect: HostDefect, violation: &str) {
    expect_noticed_with(defect, violation, |_| {});
}

#[track_caller]
fn expect_noticed_with(defect: HostDefect, violation: &str, adjust: impl Fn(&mut Scenario)) {
    let (count, texts) = run_with_defect(defect, adjust);
    assert!(count >= 20, "{defect:?} was noticed in only {count} scenarios");
    assert!(texts.contains(violation), "{defect:?}: {texts}");
}

#[test]
fn notices_a_guest_write_that_sets_no_dirty_bit() {
    expect_noticed(HostDefect::ForgetsDirty, "lacks");
}

#[test]
fn notices_a_lost_dirty_bit() {
    expect_noticed(HostDefect::ResetsNeighbor, "lacks");
}

#[test]
fn notices_a_read_of_old_data() {
    expect_noticed(HostDefect::StaleRead, "lacks");
}

#[test]
fn notices_a_lost_write_at_the_destination() {
    expect_noticed(HostDefect::LosesWrite, "completed, but ");
}

#[test]
fn notices_writes_in_the_wrong_order_at_the_destination() {
    expect_noticed(HostDefect::SwapsWrites, "completed, but ");
}

#[test]
fn notices_a_flush_that_does_nothing() {
    expect_noticed(HostDefect::LyingFlush, "completed, but ");
}

#[test]
fn notices_a_chunk_lost_by_the_stream() {
    expect_noticed(HostDefect::CorruptsStream, "lacks");
}

#[test]
fn notices_a_leaked_reference() {
    expect_noticed(HostDefect::LeaksReference, "references to");
}

#[test]
fn notices_a_leaked_buffer() {
    expect_noticed(HostDefect::KeepsBuffer, "buffers are left");
}

/// Plans this event for the second step.
fn plan_event(scenario: &mut Scenario, event: Event) {
    scenario.event =
        Some(PlannedEvent { event, at_destination: false, step: Some(1), call: 5, which: scenario.number });
}

#[test]
fn notices_device_changes_that_the_host_hides() {
    for event in [Event::Resized(1, None), Event::Resized(-1, None), Event::Unlisted, Event::Replaced] {
        expect_noticed_with(HostDefect::HidesChanges, "went well, though", |scenario| plan_event(scenario, event));
    }
}

#[test]
fn notices_tracking_that_misses_writes_in_flight() {
    expect_noticed_with(HostDefect::NoWait, "lacks", |scenario| {
        scenario.guest = (GuestMode::Seen, 0);
        scenario.guest_burst = 8;
    });
}

#[test]
fn notices_two_streams_with_one_identity() {
    expect_noticed(HostDefect::OneIdentity, "on another stream, but");
}

#[test]
fn notices_a_read_that_never_completes() {
    expect_noticed_with(HostDefect::LosesRequest, "buffers are left", |scenario| {
        scenario.source.threaded = false;
        scenario.cancel_at = Some(2);
        scenario.hangs_at = Some(1);
    });
}

#[test]
fn notices_data_dropped_past_the_end_of_a_shorter_disk() {
    expect_noticed_with(HostDefect::DropsTail, "completed, but ", |scenario| scenario.mismatch = Some(Mismatch::Tail));
}

fn good_outcome() -> Outcome {
    let pair = |name: &str, migrates| Pair {
        name: name.to_owned(),
        source: vec![1; 1024],
        destination: vec![if migrates { 1 } else { 7 }; 1024],
        migrates,
        destination_before: vec![7; 1024],
        references: 0,
        tracking: false,
    };
    Outcome {
        completed: true,
        source_reported: false,
        destination_reported: false,
        pairs: vec![pair("hd0", true), pair("cd0", false)],
        buffers_in_use: [0, 0],
        active: false,
    }
}

#[track_caller]
fn expect_judged_wrong(spoil: impl FnOnce(&mut Outcome), what: &str) {
    let mut outcome = good_outcome();
    spoil(&mut outcome);
    let wrong = judge(&outcome);
    assert!(wrong.len() == 1 && wrong[0].contains(what), "{wrong:?}");
}

#[test]
fn a_correct_outcome_is_accepted() {
    assert_eq!(judge(&good_outcome()), Vec::<String>::new());
    // If either side has reported an error, data may be missing.
    let mut outcome = good_outcome();
    outcome.pairs[0].destination[700] = 0;
    outcome.destination_reported = true;
    assert_eq!(judge(&outcome), Vec::<String>::new());
    outcome.destination_reported = false;
    outcome.completed = false;
    outcome.source_reported = true;
    assert_eq!(judge(&outcome), Vec::<String>::new());
}

#[test]
fn each_wrong_outcome_is_rejected() {
    expect_judged_wrong(|outcome| outcome.pairs[0].destination[700] = 0, "hd0 differs at sector 1");
    expect_judged_wrong(|outcome| outcome.pairs[0].destination.truncate(512), "hd0 differs at sector 1");
    expect_judged_wrong(|outcome| outcome.pairs[0].source[3] = 0, "hd0 differs at sector 0");
    expect_judged_wrong(|outcome| outcome.completed = false, "no error was reported");
    expect_judged_wrong(|outcome| outcome.pairs[1].destination[0] = 1, "cd0 does not migrate, but has changed");
    expect_judged_wrong(|outcome| outcome.pairs[0].references = 2, "2 references to hd0");
    expect_judged_wrong(|outcome| outcome.pairs[1].tracking = true, "cd0 is still tracked");
    expect_judged_wrong(|outcome| outcome.buffers_in_use[1] = 1, "buffers are left");
    expect_judged_wrong(|outcome| outcome.active = true, "still active");
}

/// A model with one device of three sectors that migrates. A chunk has two sectors.
fn model(zero_allowed: bool) -> Model {
    let disk = ModelDisk { name: b"d".to_vec(), migrates: true, data: vec![9; 1536], sent: vec![false; 2] };
    let other = ModelDisk { name: b"ro".to_vec(), migrates: false, data: vec![9; 512], sent: vec![false] };
    Model::new(vec![disk, other], 2, zero_allowed)
}

fn word(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

fn block(sector: u64, name: &str, payload: &[u8]) -> Vec<u8> {
    [word(sector << 9 | 1), vec![name.len() as u8], name.as_bytes().to_vec(), payload.to_vec()].concat()
}

const END: u64 = 2;
const DONE: u64 = 100 << 9 | 4;

#[test]
fn a_valid_section_is_accepted() {
    let tail = [vec![5; 512], vec![0; 512]].concat();
    let zero = [word(9), vec![1, b'd']].concat();
    let section = [block(0, "d", &[4; 1024]), block(2, "d", &tail), zero, word(DONE), word(END)].concat();
    let mut model = model(true);
    assert_eq!(model.section(&section, true), Ok(()));
    assert_eq!(model.disks[0].data, [vec![0; 1024], vec![5; 512]].concat());
    assert_eq!((model.chunks, model.resent, model.zero), (3, 1, 1));
}

#[track_caller]
fn expect_refused(parts: &[Vec<u8>], last: bool, what: &str) {
    let found = model(false).section(&parts.concat(), last).expect_err("it is wrong");
    assert!(found.contains(what), "{found}");
}

#[test]
fn each_invalid_section_is_rejected() {
    let end = || word(END);
    expect_refused(&[block(0, "d", &[4; 1024])], false, "cut");
    expect_refused(&[block(0, "d", &[4; 1000]), end()], false, "cut");
    expect_refused(&[end(), end()], false, "8 bytes after");
    expect_refused(&[block(1, "d", &[4; 1024]), end()], false, "sector 1");
    expect_refused(&[block(4, "d", &[4; 1024]), end()], false, "sector 4");
    expect_refused(&[block(2, "d", &[4; 1024]), end()], false, "padding");
    expect_refused(&[block(0, "e", &[4; 1024]), end()], false, "device e");
    expect_refused(&[block(0, "ro", &[4; 1024]), end()], false, "device ro");
    expect_refused(&[word(9), vec![1, b'd'], end()], false, "header 0x9");
    expect_refused(&[word(50 << 9 | 4), word(49 << 9 | 4), end()], false, "header");
    expect_refused(&[word(101 << 9 | 4), end()], false, "header");
    expect_refused(&[end()], true, "progress 100");
    expect_refused(&[word(DONE), block(0, "d", &[4; 1024]), end()], true, "progress 100");
}
