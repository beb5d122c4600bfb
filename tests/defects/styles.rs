// SPDX-License-Identifier: GPL-2.0-only
//! What a host may do out of turn, and what each style of host gets for it.

use std::rc::Rc;

use blkmig::call::CallContext;
use blkmig::error::{Errno, Error};
use blkmig::host::Monitor;
use blkmig::settings::Options;
use blkmig::source::Step;

use crate::bench::{Bench, QUICK, write};
use crate::sim::Call;
use crate::sim::machine::Machine;
use crate::sim::stream::InStream;

const EMPTY: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 2];

fn live(bench: &mut Bench, stage: i32) -> (i32, Vec<u8>) {
    bench.stream.section.clear();
    let ret = bench.from.save_live(&mut CallContext { stream: &mut bench.stream, monitor: None }, stage);
    (ret, bench.stream.section.clone())
}

#[test]
fn save_live_migrates_only_what_it_was_told_to() {
    // Neither before blk_mig_set_params nor after one that says no.
    for told in [false, true] {
        let mut bench = Bench::one(1, 4, QUICK);
        if told {
            bench.from.set_params(false, false);
        }
        for stage in [1, 2, 3] {
            let stage = if told { stage } else { 1 };
            assert_eq!(live(&mut bench, stage), (1, EMPTY.to_vec()));
        }
        assert_eq!(bench.stream.failed, None);
        bench.check_released();
    }
}

#[test]
fn the_phases_migrate_unless_told_not_to() {
    let mut bench = Bench::one(1, 4, QUICK);
    bench.setup().unwrap();
    bench.complete().unwrap();
    bench.check_migrated();
    bench.from.set_params(false, false);
    bench.setup().unwrap();
    assert_eq!(bench.iterate(), Ok(Step { sent: false, can_finish: true }));
    assert_eq!(bench.from.pending(), 0);
    let mut context = CallContext { stream: &mut bench.stream, monitor: None };
    assert_eq!(bench.from.complete(&mut context), Ok(()));
    assert_eq!(std::mem::take(&mut bench.stream.section), EMPTY);
    bench.check_released();
    // A shared base means that disks are migrated.
    bench.from.set_params(false, true);
    bench.setup().unwrap();
    assert_eq!(bench.from.pending(), 4 * 512);
}

#[test]
fn the_stages_of_save_live() {
    let mut bench = Bench::one(1, 4, QUICK);
    bench.from.set_params(true, false);
    assert_eq!(live(&mut bench, 1).0, 0);
    assert_eq!(live(&mut bench, 2).0, 1, "all was sent in one step, so the stage is done");
    assert_eq!(live(&mut bench, 3).0, 0);
    assert_eq!((bench.stream.failed, bench.from.last_error()), (None, String::new()));
    // To cancel what is over is harmless.
    assert_eq!(live(&mut bench, -1), (0, Vec::new()));
    bench.check_released();
    // An unknown stage is an error of the stream.
    assert_eq!(live(&mut bench, 4).0, 0);
    assert_eq!(bench.stream.failed, Some(Errno::INVALID));
}

#[test]
fn steps_without_a_setup_are_refused() {
    let mut bench = Bench::one(1, 4, QUICK);
    assert_eq!(bench.iterate(), Err(Error::NotRunning));
    assert_eq!(bench.stream.failed.take(), Some(Errno::INVALID));
    assert_eq!(bench.complete(), Err(Error::NotRunning));
    assert_eq!(bench.from.pending(), 0);
    bench.from.cleanup(None);
    bench.stream.failed = None;
    bench.sections.clear();
    bench.setup().unwrap();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn a_failed_migration_stays_failed_until_it_is_cleaned_up_or_set_up_anew() {
    for clean in [false, true] {
        let mut bench = Bench::one(1, 4, QUICK);
        bench.setup().unwrap();
        bench.stream.failed = Some(Errno::IO);
        let error = Error::Stream(Errno::IO);
        assert_eq!(bench.iterate(), Err(error.clone()));
        assert_eq!(bench.complete(), Err(error.clone()));
        assert_eq!(bench.from.last_error(), error.to_string());
        bench.check_released();
        if clean {
            bench.from.cleanup(None);
            bench.stream.failed = None;
            assert_eq!(bench.iterate(), Err(Error::NotRunning));
        }
        bench.stream.failed = None;
        bench.sections.clear();
        bench.setup().unwrap();
        bench.complete().unwrap();
        bench.check_migrated();
        assert_eq!(bench.from.last_error(), "");
    }
}

#[test]
fn a_guest_that_goes_on_writing_in_the_last_stage_is_reported() {
    let mut bench = Bench::one(1, 4, QUICK);
    bench.setup().unwrap();
    let script = |machine: &Machine, call| {
        if call == Call::Read {
            write(machine, 0, 0..4, 9);
        }
    };
    *bench.source.script.borrow_mut() = Some(Rc::new(script));
    let error = bench.complete().unwrap_err();
    assert_eq!(error, Error::StillWritten("hd0".into()));
    assert_eq!(bench.stream.failed, Some(Errno::BUSY));
    bench.check_released();
}

#[test]
fn a_device_that_was_resized_is_reported() {
    let mut bench = Bench::one(1, 4, QUICK);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    bench.source.disks.borrow_mut()[0].data.resize(5 * 512, 7);
    let error = bench.complete().unwrap_err();
    assert_eq!(error, Error::Resized { device: "hd0".into(), was: 2048, is: 2560 });
    bench.check_released();
}

#[test]
fn a_newer_section_is_refused() {
    let bench = Bench::one(1, 4, QUICK);
    assert_eq!(
        bench.to.load(&mut InStream::new(&bench.destination, &EMPTY), 2),
        Err(Error::Version { version: 2, newest: 1 })
    );
    assert_eq!(bench.to.load(&mut InStream::new(&bench.destination, &EMPTY), 1), Ok(()));
}

#[test]
fn two_devices_of_one_name_are_refused() {
    use crate::sim::disk::Kind::Normal;
    let mut bench = Bench::new(1, &[("hd0", Normal, 4), ("hd0", Normal, 5)], QUICK, Options::default());
    assert_eq!(bench.setup(), Err(Error::DuplicateName("hd0".into())));
    bench.check_released();
}

/// A monitor that panics while it is told of an error: the migration is over all the same.
#[test]
fn a_panic_while_an_error_is_told_leaves_nothing_running() {
    struct Broken;
    impl Monitor for Broken {
        fn print(&self, _text: &str) {
            std::panic::resume_unwind(Box::new("planned"));
        }
        fn flush(&self) {}
    }
    let mut bench = Bench::one(1, 4, QUICK);
    bench.setup().unwrap();
    bench.source.sim.error_rate.set(10_000);
    let mut context = CallContext { stream: &mut bench.stream, monitor: Some(&Broken) };
    assert!(bench.from.iterate(&mut context).is_err());
    bench.source.sim.error_rate.set(0);
    bench.check_released();
    assert!(bench.complete().is_err());
}
