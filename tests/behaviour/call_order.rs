// SPDX-License-Identifier: GPL-2.0-only
//! Calls of the host in every order: the stages of `save_live`, the phase functions, calls out of turn and calls
//! from callbacks.

use std::cell::RefCell;
use std::rc::Rc;

use blkmig::call::CallContext;
use blkmig::error::{Errno, Error};
use blkmig::settings::{MAX_NUMBER, Options};
use blkmig::source::Step;

use crate::fixture::{Fixture, PLAIN, QUICK};
use crate::sim::Call;
use crate::sim::machine::Machine;
use crate::sim::stream::{OutStream, SimMonitor};

const EMPTY: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 2];

fn live(fixture: &mut Fixture, stage: i32) -> (i32, Vec<u8>) {
    fixture.stream.section.clear();
    let ret = fixture.from.save_live(&mut CallContext { stream: &mut fixture.stream, monitor: None }, stage);
    (ret, fixture.stream.section.clone())
}

#[test]
fn stage_1_cleans_up_an_abandoned_migration() {
    let mut fixture = Fixture::one(1, 4, PLAIN);
    fixture.from.set_params(true, false);
    for identity in [1, 2] {
        fixture.stream.identity = identity;
        fixture.stream.section.clear();
        assert_eq!(fixture.from.save_live(&mut CallContext { stream: &mut fixture.stream, monitor: None }, 1), 0);
        assert_eq!((fixture.stream.failed, fixture.source.disks.borrow()[0].held), (None, 1));
        fixture.sections = vec![std::mem::take(&mut fixture.stream.section)];
        fixture.iterate().unwrap();
    }
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

#[test]
fn a_stage_on_another_stream_is_refused() {
    let mut fixture = Fixture::one(1, 5, QUICK);
    fixture.stream.identity = 1;
    fixture.from.set_params(true, false);
    let live =
        |stream: &mut OutStream, stage| fixture.from.save_live(&mut CallContext { stream, monitor: None }, stage);
    assert_eq!(live(&mut fixture.stream, 1), 0);
    for stage in [2, 3] {
        let mut other = OutStream::new(&fixture.source, None);
        other.identity = 2;
        assert_eq!((live(&mut other, stage), other.failed), (0, Some(Errno::INVALID)));
        assert!(other.section.is_empty());
    }
    fixture.sections.push(std::mem::take(&mut fixture.stream.section));
    let mut other = OutStream::new(&fixture.source, None);
    other.identity = 2;
    assert_eq!(fixture.from.iterate(&mut CallContext { stream: &mut other, monitor: None }), Err(Error::OtherStream));
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

#[test]
fn completing_on_another_stream_is_refused_and_the_migration_continues() {
    let mut fixture = Fixture::one(1, 5, QUICK);
    fixture.stream.identity = 1;
    fixture.setup().unwrap();
    let mut other = OutStream::new(&fixture.source, None);
    other.identity = 2;
    assert_eq!(fixture.from.complete(&mut CallContext { stream: &mut other, monitor: None }), Err(Error::OtherStream));
    assert!(other.section.is_empty());
    assert_eq!(Error::OtherStream.errno(), Errno::INVALID);
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

#[test]
fn set_params_does_not_revive_a_failed_migration() {
    let mut fixture = Fixture::one(1, 5, QUICK);
    fixture.setup().unwrap();
    fixture.stream.failed = Some(Errno::IO);
    let failed = fixture.iterate().unwrap_err();
    fixture.from.set_params(false, false);
    fixture.stream.failed = None;
    assert_eq!(fixture.complete(), Err(failed));
    fixture.from.cleanup(None);
    fixture.check_released();
}

#[test]
fn stages_without_set_params_send_empty_sections() {
    let fixture = Fixture::one(1, 5, QUICK);
    for stage in 1..=3 {
        let mut stream = OutStream::new(&fixture.source, None);
        assert_eq!(fixture.from.save_live(&mut CallContext { stream: &mut stream, monitor: None }, stage), 1);
        assert_eq!((stream.section, stream.failed), (2_u64.to_be_bytes().to_vec(), None));
    }
    // An unknown stage or one out of turn sets the stream's error.
    fixture.from.set_params(true, false);
    for stage in [0, 2, 3, 4] {
        let mut stream = OutStream::new(&fixture.source, None);
        assert_eq!(fixture.from.save_live(&mut CallContext { stream: &mut stream, monitor: None }, stage), 0);
        assert_eq!(stream.failed, Some(Errno::INVALID), "stage {stage}");
    }
}

#[test]
fn a_call_from_inside_a_callback_is_refused() {
    let mut fixture = Fixture::one(1, 5, PLAIN);
    fixture.monitor = Some(SimMonitor::new(&fixture.source));
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    fixture.stream.failed = Some(Errno::IO);
    let inner = Rc::new(RefCell::new(Vec::new()));
    let (results, instance) = (Rc::clone(&inner), Rc::clone(&fixture.from));
    let machine = Rc::downgrade(&fixture.source);
    *fixture.source.script.borrow_mut() = Some(Rc::new(move |_: &Machine, call| {
        if call == Call::Print {
            let mut stream = OutStream::new(&machine.upgrade().expect("it runs"), None);
            results.borrow_mut().push(instance.complete(&mut CallContext { stream: &mut stream, monitor: None }));
        }
    }));
    assert_eq!(fixture.complete(), Err(Error::Stream(Errno::IO)));
    *fixture.source.script.borrow_mut() = None;
    let inner = inner.take();
    assert!(!inner.is_empty() && inner.iter().all(Result::is_err), "{inner:?}");
    fixture.check_released();
}

#[test]
fn options_out_of_range_are_refused_by_name_and_change_nothing() {
    let mut fixture = Fixture::one(1, 5, PLAIN);
    fixture.from.set_options(Options { max_reads: 2, ..Options::default() }).unwrap();
    let absurd = [
        ("max_buffers", Options { max_buffers: MAX_NUMBER + 1, ..Options::default() }),
        ("max_reads", Options { max_reads: MAX_NUMBER + 1, ..Options::default() }),
        ("max_writes", Options { max_writes: MAX_NUMBER + 1, ..Options::default() }),
    ];
    for (field, options) in absurd {
        let error = fixture.from.set_options(options).unwrap_err();
        assert_eq!(error.to_string(), format!("{field} is 1048577; it may be 0 to 1048576"));
        assert_eq!(error.errno(), Errno::INVALID);
        assert_eq!(fixture.from.last_error(), error.to_string());
    }
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    assert_eq!(fixture.source.ios.borrow().len(), 2, "reads in flight");
    fixture.from.cleanup(None);
    let largest =
        Options { max_buffers: MAX_NUMBER, max_reads: MAX_NUMBER, max_writes: MAX_NUMBER, ..Options::default() };
    fixture.from.set_options(largest).unwrap();
    assert_eq!(fixture.from.last_error(), "");
}

#[test]
fn a_call_that_succeeds_clears_the_last_error() {
    let mut fixture = Fixture::one(1, 5, QUICK);
    fixture.setup().unwrap();
    let fail = |fixture: &Fixture| {
        assert_eq!(fixture.from.set_options(Options::default()), Err(Error::Busy));
        assert_eq!(fixture.from.last_error(), Error::Busy.to_string());
    };
    fail(&fixture);
    assert!(fixture.from.pending() > 0);
    assert_eq!(fixture.from.last_error(), Error::Busy.to_string(), "a query does not clear it");
    fixture.iterate().unwrap();
    assert_eq!(fixture.from.last_error(), "");
    fixture.run_dry();
    fail(&fixture);
    fixture.complete().unwrap();
    assert_eq!(fixture.from.last_error(), "");
}

// SPDX-License-Identifier: GPL-2.0-only
#[test]
fn save_live_migrates_only_after_set_params_asked_for_it() {
    // Neither before `set_params` nor after one that turned migration off.
    for told in [false, true] {
        let mut fixture = Fixture::one(1, 4, QUICK);
        if told {
            fixture.from.set_params(false, false);
        }
        for stage in [1, 2, 3] {
            let stage = if told { stage } else { 1 };
            assert_eq!(live(&mut fixture, stage), (1, EMPTY.to_vec()));
        }
        assert_eq!(fixture.stream.failed, None);
        fixture.check_released();
    }
}

#[test]
fn the_phase_functions_migrate_unless_set_params_said_no() {
    let mut fixture = Fixture::one(1, 4, QUICK);
    fixture.setup().unwrap();
    fixture.complete().unwrap();
    fixture.check_migrated();
    fixture.from.set_params(false, false);
    fixture.setup().unwrap();
    assert_eq!(fixture.iterate(), Ok(Step { sent: false, can_finish: true }));
    assert_eq!(fixture.from.pending(), 0);
    let mut context = CallContext { stream: &mut fixture.stream, monitor: None };
    assert_eq!(fixture.from.complete(&mut context), Ok(()));
    assert_eq!(std::mem::take(&mut fixture.stream.section), EMPTY);
    fixture.check_released();
    // A shared base implies that disks are migrated.
    fixture.from.set_params(false, true);
    fixture.setup().unwrap();
    assert_eq!(fixture.from.pending(), 4 * 512);
}

#[test]
fn save_live_runs_stages_1_to_3() {
    let mut fixture = Fixture::one(1, 4, QUICK);
    fixture.from.set_params(true, false);
    assert_eq!(live(&mut fixture, 1).0, 0);
    assert_eq!(live(&mut fixture, 2).0, 1, "everything was sent in one step, so the stage is done");
    assert_eq!(live(&mut fixture, 3).0, 0);
    assert_eq!((fixture.stream.failed, fixture.from.last_error()), (None, String::new()));
    // Canceling a migration that has ended does nothing.
    assert_eq!(live(&mut fixture, -1), (0, Vec::new()));
    fixture.check_released();
    // An unknown stage sets the stream's error.
    assert_eq!(live(&mut fixture, 4).0, 0);
    assert_eq!(fixture.stream.failed, Some(Errno::INVALID));
}

#[test]
fn steps_without_a_setup_are_refused() {
    let mut fixture = Fixture::one(1, 4, QUICK);
    assert_eq!(fixture.iterate(), Err(Error::NotRunning));
    assert_eq!(fixture.stream.failed.take(), Some(Errno::INVALID));
    assert_eq!(fixture.complete(), Err(Error::NotRunning));
    assert_eq!(fixture.from.pending(), 0);
    fixture.from.cleanup(None);
    fixture.stream.failed = None;
    fixture.sections.clear();
    fixture.setup().unwrap();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

#[test]
fn a_failed_migration_stays_failed_until_cleanup_or_setup() {
    for clean in [false, true] {
        let mut fixture = Fixture::one(1, 4, QUICK);
        fixture.setup().unwrap();
        fixture.stream.failed = Some(Errno::IO);
        let error = Error::Stream(Errno::IO);
        assert_eq!(fixture.iterate(), Err(error.clone()));
        assert_eq!(fixture.complete(), Err(error.clone()));
        assert_eq!(fixture.from.last_error(), error.to_string());
        fixture.check_released();
        if clean {
            fixture.from.cleanup(None);
            fixture.stream.failed = None;
            assert_eq!(fixture.iterate(), Err(Error::NotRunning));
        }
        fixture.stream.failed = None;
        fixture.sections.clear();
        fixture.setup().unwrap();
        fixture.complete().unwrap();
        fixture.check_migrated();
        assert_eq!(fixture.from.last_error(), "");
    }
}
