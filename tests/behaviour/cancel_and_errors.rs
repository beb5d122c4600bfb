// SPDX-License-Identifier: GPL-2.0-only
//! How a migration ends early: canceled, after an error, or with storage that does not respond.

use std::cell::Cell;
use std::rc::Rc;

use blkmig::call::CallContext;
use blkmig::error::{Errno, Error};
use blkmig::host::Monitor;

use crate::fixture::{Fixture, PLAIN, QUICK, once, record, write};
use crate::sim::Call;
use crate::sim::machine::Machine;

#[test]
fn canceling_does_not_wait_for_storage_that_hangs() {
    let mut fixture = Fixture::one(1, 4, PLAIN);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    assert_eq!(fixture.in_flight(), 4);
    fixture.source.hangs.set(true);
    fixture.source.canceling.set(true);
    fixture.from.cleanup(None);
    fixture.source.canceling.set(false);
    assert_eq!(fixture.in_flight(), 4);
    fixture.source.orphan_reads();
    // Everything except the buffers has been returned.
    assert_eq!(fixture.from.status().buffers().0, 4);
    let held = fixture.source.disks.borrow().iter().any(|disk| disk.held > 0 || disk.tracking);
    assert!(!held && !fixture.from.status().is_active());
    // The reads complete during the next migration, and must not affect it.
    fixture.source.hangs.set(false);
    fixture.sections.clear();
    fixture.write(0, 0..4, 8);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    assert_eq!((fixture.in_flight(), fixture.from.status().reads_in_flight()), (4, 8));
    fixture.source.complete_orphans(usize::MAX);
    assert_eq!(fixture.from.status().reads_in_flight(), 4);
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

#[test]
fn a_failed_allocation_ends_the_next_step_and_the_next_load() {
    let short = |machine: &Machine, call| machine.sim.error_rate.set(if call == Call::RanShort { 10_000 } else { 0 });
    let mut fixture = Fixture::one(1, 5, QUICK);
    fixture.setup().unwrap();
    *fixture.source.script.borrow_mut() = Some(Rc::new(short));
    assert_eq!(fixture.iterate(), Err(Error::RanShort));
    assert_eq!((Error::RanShort.errno(), fixture.stream.failed), (Errno::NO_MEMORY, Some(Errno::NO_MEMORY)));
    fixture.check_released();
    *fixture.destination.script.borrow_mut() = Some(Rc::new(short));
    assert_eq!(fixture.load(&2_u64.to_be_bytes()), Err(Error::RanShort));
    fixture.check_released();
}

#[test]
fn guest_writes_in_the_last_stage_are_an_error() {
    let mut fixture = Fixture::one(1, 4, QUICK);
    fixture.setup().unwrap();
    let script = |machine: &Machine, call| {
        if call == Call::Read {
            write(machine, 0, 0..4, 9);
        }
    };
    *fixture.source.script.borrow_mut() = Some(Rc::new(script));
    let error = fixture.complete().unwrap_err();
    assert_eq!(error, Error::StillWritten("hd0".into()));
    assert_eq!(fixture.stream.failed, Some(Errno::BUSY));
    fixture.check_released();
}

/// The monitor panics while an error is printed. The migration ends nevertheless.
#[test]
fn a_panic_while_an_error_is_printed_leaves_nothing_running() {
    struct Broken;
    impl Monitor for Broken {
        fn print(&self, _text: &str) {
            std::panic::resume_unwind(Box::new("injected"));
        }
        fn flush(&self) {}
    }
    let mut fixture = Fixture::one(1, 4, QUICK);
    fixture.setup().unwrap();
    fixture.source.sim.error_rate.set(10_000);
    let mut context = CallContext { stream: &mut fixture.stream, monitor: Some(&Broken) };
    assert!(fixture.from.iterate(&mut context).is_err());
    fixture.source.sim.error_rate.set(0);
    fixture.check_released();
    assert!(fixture.complete().is_err());
}

/// B-09: cleanup drains the requests first, then ends the tracking, then drops the references.
#[test]
fn canceling_waits_for_reads_before_it_frees_anything() {
    let mut fixture = Fixture::one(1, 4, PLAIN);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    let calls = record(&fixture.source);
    fixture.from.cleanup(None);
    let calls = calls.take();
    let at = |kind| calls.iter().position(|call| *call == kind).expect("it is called");
    assert!(at(Call::Drain) < at(Call::TrackingOff) && at(Call::TrackingOff) < at(Call::Release));
    fixture.check_released();
    fixture.from.cleanup(None);
    fixture.check_released();
}

/// B-09: a migration that fails with reads in flight leaves none of them behind.
#[test]
fn an_error_waits_for_reads_before_anything_is_freed() {
    let mut fixture = Fixture::one(1, 4, PLAIN);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    fixture.stream.failed = Some(Errno::IO);
    assert_eq!(fixture.iterate(), Err(Error::Stream(Errno::IO)));
    fixture.check_released();
    fixture.stream.failed = None;
    fixture.sections.clear();
    fixture.setup().unwrap();
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-09: even when the host's drain returns too early, a late completion touches no memory of the next migration.
#[test]
fn completions_that_come_late_are_harmless() {
    let mut fixture = Fixture::one(1, 4, PLAIN);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    // A drain that returns while all of them are in flight.
    let forgotten = Rc::new(Cell::new(Vec::new()));
    let keep = Rc::clone(&forgotten);
    once(&fixture.source, Call::Drain, move |source| keep.set(source.ios.take()));
    fixture.sim.broken.set(true);
    fixture.from.cleanup(None);
    assert_eq!(fixture.source.disks.borrow()[0].held, 0);
    // They complete during the next migration.
    fixture.sections.clear();
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    fixture.source.ios.borrow_mut().extend(forgotten.take());
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-11: the error is reported and the guest can run again; nothing is retried forever.
#[test]
fn a_read_error_in_the_last_stage_ends_the_migration() {
    // The read cannot start, or it starts and fails; the random numbers of the round decide which.
    for round in 0..16 {
        let stages = round % 2 == 0;
        let mut fixture = Fixture::one(1, 6, QUICK);
        for _ in 0..round {
            fixture.sim.rng.next();
        }
        fixture.from.set_params(true, false);
        fixture.setup().unwrap();
        fixture.run_dry();
        fixture.write(0, 3..4, 6);
        let reads_fail =
            |source: &Machine, call| source.sim.error_rate.set(if call == Call::Read { 10_000 } else { 0 });
        *fixture.source.script.borrow_mut() = Some(Rc::new(reads_fail));
        if stages {
            let mut context = blkmig::call::CallContext { stream: &mut fixture.stream, monitor: None };
            assert_eq!(fixture.from.save_live(&mut context, 3), 0);
        } else {
            let error = fixture.complete().unwrap_err();
            assert!(matches!(&error, Error::Read { device, sector: 3, .. } if device.as_bytes() == b"hd0"), "{error}");
        }
        assert!(fixture.stream.failed.is_some(), "the stream has the error");
        assert_ne!(fixture.from.last_error(), "");
        fixture.check_released();
    }
}
