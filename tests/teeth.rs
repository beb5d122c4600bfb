// SPDX-License-Identifier: GPL-2.0-only
//! The simulator's own test: what it must notice, it notices.
//!
//! Hosts that break their side of the contract in silence do to the data what a broken engine would do; and made-up
//! outcomes and sections, each wrong in one way, go to the parts that judge them.

#![allow(clippy::cast_possible_truncation)]

mod sim;

use sim::Sabotage;
use sim::events::{Event, Happening};
use sim::guest::GuestMode;
use sim::model::{Model, ModelDisk};
use sim::run::{How, run};
use sim::scenario::{Mismatch, Scenario};
use sim::verdict::{Outcome, Pair, judge};

/// Runs scenarios with a host that does this, and in which nothing else goes wrong but what `around` adds; how many of them
/// went wrong, and all that was said.
fn sabotaged(how: Sabotage, around: impl Fn(&mut Scenario)) -> (usize, String) {
    let mut wrong = Vec::new();
    for number in 0..400 {
        let mut scenario = Scenario::new(number).without_errors();
        around(&mut scenario);
        let report = run(scenario, How { sabotage: Some(how), ..How::default() });
        wrong.extend(report.wrong.first().cloned());
    }
    (wrong.len(), wrong.join("\n"))
}

#[track_caller]
fn notices(how: Sabotage, what: &str) {
    notices_with(how, what, |_| {});
}

#[track_caller]
fn notices_with(how: Sabotage, what: &str, around: impl Fn(&mut Scenario)) {
    let (count, texts) = sabotaged(how, around);
    assert!(count >= 20, "{how:?} was noticed in {count} scenarios");
    assert!(texts.contains(what), "{how:?}: {texts}");
}

#[test]
fn a_write_of_the_guest_that_is_forgotten() {
    notices(Sabotage::ForgetsDirty, "lacks");
}

#[test]
fn a_dirty_bit_that_is_lost() {
    notices(Sabotage::ResetsNeighbour, "lacks");
}

#[test]
fn a_read_of_old_data() {
    notices(Sabotage::StaleRead, "lacks");
}

#[test]
fn a_write_to_the_destination_that_is_lost() {
    notices(Sabotage::LosesWrite, "completed, but ");
}

#[test]
fn writes_to_the_destination_in_the_wrong_order() {
    notices(Sabotage::SwapsWrites, "completed, but ");
}

#[test]
fn a_flush_that_lies() {
    notices(Sabotage::LyingFlush, "completed, but ");
}

#[test]
fn a_chunk_that_the_stream_loses() {
    notices(Sabotage::CorruptsStream, "lacks");
}

#[test]
fn a_reference_that_is_left() {
    notices(Sabotage::LeaksReference, "references to");
}

#[test]
fn a_buffer_that_is_left() {
    notices(Sabotage::KeepsBuffer, "buffers are left");
}

/// Something happens to a disk in the second step.
fn happens(scenario: &mut Scenario, event: Event) {
    scenario.event = Some(Happening { event, at_destination: false, step: Some(1), call: 5, which: scenario.number });
}

#[test]
fn changes_that_nobody_is_told_of() {
    for event in [Event::Resized(1, None), Event::Resized(-1, None), Event::Unlisted, Event::Replaced] {
        notices_with(Sabotage::HidesChanges, "went well, though", |scenario| happens(scenario, event));
    }
}

#[test]
fn writes_that_tracking_does_not_wait_for() {
    notices_with(Sabotage::NoWait, "lacks", |scenario| {
        scenario.guest = (GuestMode::Seen, 0);
        scenario.guest_burst = 8;
    });
}

#[test]
fn two_streams_of_one_identity() {
    notices(Sabotage::OneIdentity, "on another stream, but");
}

#[test]
fn a_read_that_never_comes_back() {
    notices_with(Sabotage::LosesRequest, "buffers are left", |scenario| {
        scenario.source.threaded = false;
        scenario.cancel_at = Some(2);
        scenario.hangs_at = Some(1);
    });
}

#[test]
fn a_tail_that_is_dropped() {
    notices_with(Sabotage::DropsTail, "completed, but ", |scenario| scenario.mismatch = Some(Mismatch::Tail));
}

fn good() -> Outcome {
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
fn condemned(spoil: impl FnOnce(&mut Outcome), what: &str) {
    let mut outcome = good();
    spoil(&mut outcome);
    let wrong = judge(&outcome);
    assert!(wrong.len() == 1 && wrong[0].contains(what), "{wrong:?}");
}

#[test]
fn a_good_outcome_is_good() {
    assert_eq!(judge(&good()), Vec::<String>::new());
    // An error that was reported excuses what has not arrived, on either side.
    let mut outcome = good();
    outcome.pairs[0].destination[700] = 0;
    outcome.destination_reported = true;
    assert_eq!(judge(&outcome), Vec::<String>::new());
    outcome.destination_reported = false;
    outcome.completed = false;
    outcome.source_reported = true;
    assert_eq!(judge(&outcome), Vec::<String>::new());
}

#[test]
fn each_bad_outcome_is_bad() {
    condemned(|outcome| outcome.pairs[0].destination[700] = 0, "hd0 differs at sector 1");
    condemned(|outcome| outcome.pairs[0].destination.truncate(512), "hd0 differs at sector 1");
    condemned(|outcome| outcome.pairs[0].source[3] = 0, "hd0 differs at sector 0");
    condemned(|outcome| outcome.completed = false, "nobody was told");
    condemned(|outcome| outcome.pairs[1].destination[0] = 1, "cd0 does not migrate, but has changed");
    condemned(|outcome| outcome.pairs[0].references = 2, "2 references to hd0");
    condemned(|outcome| outcome.pairs[1].tracking = true, "cd0 is still tracked");
    condemned(|outcome| outcome.buffers_in_use[1] = 1, "buffers are left");
    condemned(|outcome| outcome.active = true, "still active");
}

/// A model of one device of three sectors, two of which make a chunk.
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
fn a_good_section_is_good() {
    let tail = [vec![5; 512], vec![0; 512]].concat();
    let zero = [word(9), vec![1, b'd']].concat();
    let section = [block(0, "d", &[4; 1024]), block(2, "d", &tail), zero, word(DONE), word(END)].concat();
    let mut model = model(true);
    assert_eq!(model.section(&section, true), Ok(()));
    assert_eq!(model.disks[0].data, [vec![0; 1024], vec![5; 512]].concat());
    assert_eq!((model.chunks, model.resent, model.zero), (3, 1, 1));
}

#[track_caller]
fn refused(parts: &[Vec<u8>], last: bool, what: &str) {
    let found = model(false).section(&parts.concat(), last).expect_err("it is wrong");
    assert!(found.contains(what), "{found}");
}

#[test]
fn each_bad_section_is_bad() {
    let end = || word(END);
    refused(&[block(0, "d", &[4; 1024])], false, "cut");
    refused(&[block(0, "d", &[4; 1000]), end()], false, "cut");
    refused(&[end(), end()], false, "8 bytes after");
    refused(&[block(1, "d", &[4; 1024]), end()], false, "sector 1");
    refused(&[block(4, "d", &[4; 1024]), end()], false, "sector 4");
    refused(&[block(2, "d", &[4; 1024]), end()], false, "padding");
    refused(&[block(0, "e", &[4; 1024]), end()], false, "device e");
    refused(&[block(0, "ro", &[4; 1024]), end()], false, "device ro");
    refused(&[word(9), vec![1, b'd'], end()], false, "header 0x9");
    refused(&[word(50 << 9 | 4), word(49 << 9 | 4), end()], false, "header");
    refused(&[word(101 << 9 | 4), end()], false, "header");
    refused(&[end()], true, "progress 100");
    refused(&[word(DONE), block(0, "d", &[4; 1024]), end()], true, "progress 100");
}
