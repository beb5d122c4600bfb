// SPDX-License-Identifier: GPL-2.0-only
//! What goes on around a migration: devices that come, go and change, calls that are out of place, data that must last.

use std::cell::RefCell;
use std::rc::Rc;

use blkmig::call::CallContext;
use blkmig::error::{Errno, Error};
use blkmig::settings::{MAX_NUMBER, Options};

use crate::bench::{Bench, PLAIN, QUICK, once, record};
use crate::sim::Call;
use crate::sim::disk::{Kind, pattern};
use crate::sim::machine::{Features, Machine};
use crate::sim::stream::{OutStream, SimMonitor};

#[test]
fn a_length_that_changes_and_changes_back_ends_the_migration() {
    for sectors in [4, 6] {
        let mut bench = Bench::one(1, 5, QUICK);
        bench.setup().unwrap();
        bench.source.disks.borrow_mut()[0].says = Some(Ok(sectors * 512));
        let resized = Error::Resized { device: "hd0".into(), was: 5 * 512, is: sectors * 512 };
        assert_eq!(bench.iterate(), Err(resized.clone()));
        bench.source.disks.borrow_mut()[0].says = None;
        assert_eq!(bench.complete(), Err(resized), "it stays failed");
        bench.check_released();
    }
}

#[test]
fn a_device_that_appears_or_goes_away_ends_the_migration() {
    for kind in [Kind::ReadOnly, Kind::Gone] {
        let mut bench = Bench::new(1, &[("hd0", Kind::Normal, 5), ("hd1", kind, 3)], QUICK, Options::default());
        bench.setup().unwrap();
        bench.run_dry();
        bench.source.disks.borrow_mut()[1].kind = Kind::Normal;
        assert_eq!(bench.complete(), Err(Error::Appeared("hd1".into())));
        bench.check_released();
    }
    let disks = [("hd0", Kind::Normal, 5), ("hd1", Kind::Normal, 3)];
    let mut bench = Bench::new(1, &disks, QUICK, Options::default());
    bench.setup().unwrap();
    bench.run_dry();
    bench.source.disks.borrow_mut()[1].says = Some(Err(Errno::NO_MEDIUM));
    let error = bench.complete().unwrap_err();
    assert!(error.to_string().contains("hd1"), "{error}");
    bench.check_released();
}

#[test]
fn a_device_that_is_replaced_or_not_listed_any_more_ends_the_migration() {
    for (replaced, error) in [(true, Error::Appeared("hd0".into())), (false, Error::WentAway("hd0".into()))] {
        // Before the last stage, and in its midst: at the last read of all.
        for late in [false, true] {
            let change = move |machine: &Machine| {
                let disk = &mut machine.disks.borrow_mut()[0];
                disk.replaced = replaced;
                disk.unlisted = !replaced;
            };
            let mut bench = Bench::one(1, 5, QUICK);
            bench.setup().unwrap();
            bench.run_dry();
            bench.write(0, 2..3, 7);
            if late {
                once(&bench.source, Call::Read, change);
                assert_eq!(bench.complete(), Err(error.clone()));
            } else {
                change(&bench.source);
                let calls = record(&bench.source);
                assert_eq!(bench.complete(), Err(error.clone()));
                assert!(!calls.borrow().contains(&Call::Read), "it is known at the start");
            }
            bench.check_released();
        }
    }
}

#[test]
fn a_read_from_a_device_that_went_away_says_so() {
    let mut bench = Bench::one(1, 5, PLAIN);
    bench.setup().unwrap();
    // It goes while a step is at work, and what was being read fails.
    let machine = Rc::downgrade(&bench.source);
    *bench.source.script.borrow_mut() = Some(Rc::new(move |_: &Machine, call| {
        let machine = machine.upgrade().expect("it runs");
        if call == Call::Read && machine.ios.borrow().len() == 2 {
            machine.disks.borrow_mut()[0].says = Some(Err(Errno::NO_MEDIUM));
            machine.ios.borrow_mut().iter_mut().for_each(|io| io.fails = true);
            machine.complete_some(2);
        }
    }));
    let error = bench.iterate().unwrap_err();
    assert_eq!(error.to_string(), "can't get the length of device hd0: No medium found");
    *bench.source.script.borrow_mut() = None;
    bench.check_released();
}

#[test]
fn a_device_that_goes_away_at_the_destination_ends_the_load() {
    let chunk = [1_u64.to_be_bytes().to_vec(), vec![3], b"hd0".to_vec(), pattern(0, 300).to_vec()].concat();
    let section = [chunk, 2_u64.to_be_bytes().to_vec()].concat();
    for async_writes in [false, true] {
        // Before it is opened, and between that and the write.
        for call in [None, Some(Call::Activate), Some(if async_writes { Call::WriteAsync } else { Call::Write })] {
            let bench = Bench::one(1, 5, Features { async_writes, ..PLAIN });
            let go = |machine: &Machine| machine.disks.borrow_mut()[0].says = Some(Err(Errno::NO_MEDIUM));
            if let Some(call) = call {
                once(&bench.destination, call, go);
            } else {
                go(&bench.destination);
            }
            let error = bench.load(&section).unwrap_err();
            assert!(error.to_string().contains("device hd0: No medium found"), "{error}");
            bench.check_released();
            // When it is back, the module is as good as before.
            bench.destination.disks.borrow_mut()[0].says = None;
            bench.load(&section).unwrap();
            assert_eq!(bench.changed(0), [0]);
        }
    }
}

#[test]
fn a_cancel_does_not_wait_for_storage_that_hangs() {
    let mut bench = Bench::one(1, 4, PLAIN);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    assert_eq!(bench.in_flight(), 4);
    bench.source.hangs.set(true);
    bench.source.leaving.set(true);
    bench.from.cleanup(None);
    bench.source.leaving.set(false);
    assert_eq!(bench.in_flight(), 4);
    bench.source.orphan_reads();
    // All but the buffers has been given back.
    assert_eq!(bench.from.status().buffers().0, 4);
    let held = bench.source.disks.borrow().iter().any(|disk| disk.held > 0 || disk.tracking);
    assert!(!held && !bench.from.status().is_active());
    // The reads end in the middle of the next migration, which has nothing of theirs.
    bench.source.hangs.set(false);
    bench.sections.clear();
    bench.write(0, 0..4, 8);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    assert_eq!((bench.in_flight(), bench.from.status().reads_in_flight()), (4, 8));
    bench.source.complete_orphans(usize::MAX);
    assert_eq!(bench.from.status().reads_in_flight(), 4);
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn memory_that_ran_short_ends_the_next_step_and_the_next_load() {
    let short = |machine: &Machine, call| machine.sim.error_rate.set(if call == Call::RanShort { 10_000 } else { 0 });
    let mut bench = Bench::one(1, 5, QUICK);
    bench.setup().unwrap();
    *bench.source.script.borrow_mut() = Some(Rc::new(short));
    assert_eq!(bench.iterate(), Err(Error::RanShort));
    assert_eq!((Error::RanShort.errno(), bench.stream.failed), (Errno::NO_MEMORY, Some(Errno::NO_MEMORY)));
    bench.check_released();
    *bench.destination.script.borrow_mut() = Some(Rc::new(short));
    assert_eq!(bench.load(&2_u64.to_be_bytes()), Err(Error::RanShort));
    bench.check_released();
}

#[test]
fn stage_1_takes_over_what_an_earlier_migration_has_left() {
    let mut bench = Bench::one(1, 4, PLAIN);
    bench.from.set_params(true, false);
    for identity in [1, 2] {
        bench.stream.identity = identity;
        bench.stream.section.clear();
        assert_eq!(bench.from.save_live(&mut CallContext { stream: &mut bench.stream, monitor: None }, 1), 0);
        assert_eq!((bench.stream.failed, bench.source.disks.borrow()[0].held), (None, 1));
        bench.sections = vec![std::mem::take(&mut bench.stream.section)];
        bench.iterate().unwrap();
    }
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn another_stream_is_refused_in_every_stage() {
    let mut bench = Bench::one(1, 5, QUICK);
    bench.stream.identity = 1;
    bench.from.set_params(true, false);
    let live = |stream: &mut OutStream, stage| bench.from.save_live(&mut CallContext { stream, monitor: None }, stage);
    assert_eq!(live(&mut bench.stream, 1), 0);
    for stage in [2, 3] {
        let mut other = OutStream::new(&bench.source, None);
        other.identity = 2;
        assert_eq!((live(&mut other, stage), other.failed), (0, Some(Errno::INVALID)));
        assert!(other.section.is_empty());
    }
    bench.sections.push(std::mem::take(&mut bench.stream.section));
    let mut other = OutStream::new(&bench.source, None);
    other.identity = 2;
    assert_eq!(bench.from.iterate(&mut CallContext { stream: &mut other, monitor: None }), Err(Error::OtherStream));
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn another_stream_is_refused_and_the_migration_goes_on() {
    let mut bench = Bench::one(1, 5, QUICK);
    bench.stream.identity = 1;
    bench.setup().unwrap();
    let mut other = OutStream::new(&bench.source, None);
    other.identity = 2;
    assert_eq!(bench.from.complete(&mut CallContext { stream: &mut other, monitor: None }), Err(Error::OtherStream));
    assert!(other.section.is_empty());
    assert_eq!(Error::OtherStream.errno(), Errno::INVALID);
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn a_failed_migration_stays_failed_whatever_the_parameters() {
    let mut bench = Bench::one(1, 5, QUICK);
    bench.setup().unwrap();
    bench.stream.failed = Some(Errno::IO);
    let failed = bench.iterate().unwrap_err();
    bench.from.set_params(false, false);
    bench.stream.failed = None;
    assert_eq!(bench.complete(), Err(failed));
    bench.from.cleanup(None);
    bench.check_released();
}

#[test]
fn stages_of_a_host_that_never_set_parameters_are_empty() {
    let bench = Bench::one(1, 5, QUICK);
    for stage in 1..=3 {
        let mut stream = OutStream::new(&bench.source, None);
        assert_eq!(bench.from.save_live(&mut CallContext { stream: &mut stream, monitor: None }, stage), 1);
        assert_eq!((stream.section, stream.failed), (2_u64.to_be_bytes().to_vec(), None));
    }
    // One that is unknown, or out of turn, is the stream's error.
    bench.from.set_params(true, false);
    for stage in [0, 2, 3, 4] {
        let mut stream = OutStream::new(&bench.source, None);
        assert_eq!(bench.from.save_live(&mut CallContext { stream: &mut stream, monitor: None }, stage), 0);
        assert_eq!(stream.failed, Some(Errno::INVALID), "stage {stage}");
    }
}

#[test]
fn a_call_from_within_another_is_refused() {
    let mut bench = Bench::one(1, 5, PLAIN);
    bench.monitor = Some(SimMonitor::new(&bench.source));
    bench.setup().unwrap();
    bench.iterate().unwrap();
    bench.stream.failed = Some(Errno::IO);
    let inner = Rc::new(RefCell::new(Vec::new()));
    let (results, instance) = (Rc::clone(&inner), Rc::clone(&bench.from));
    let machine = Rc::downgrade(&bench.source);
    *bench.source.script.borrow_mut() = Some(Rc::new(move |_: &Machine, call| {
        if call == Call::Print {
            let mut stream = OutStream::new(&machine.upgrade().expect("it runs"), None);
            results.borrow_mut().push(instance.complete(&mut CallContext { stream: &mut stream, monitor: None }));
        }
    }));
    assert_eq!(bench.complete(), Err(Error::Stream(Errno::IO)));
    *bench.source.script.borrow_mut() = None;
    let inner = inner.take();
    assert!(!inner.is_empty() && inner.iter().all(Result::is_err), "{inner:?}");
    bench.check_released();
}

#[test]
fn what_was_written_is_flushed_before_the_last_load_returns() {
    let chunk = [(1_u64).to_be_bytes().to_vec(), vec![3], b"hd0".to_vec(), pattern(0, 300).to_vec()].concat();
    let section = |percent: u64| [(percent << 9 | 4).to_be_bytes(), 2_u64.to_be_bytes()].concat();
    let bench = Bench::one(1, 5, PLAIN);
    let calls = record(&bench.destination);
    bench.load(&[chunk.clone(), section(99)].concat()).unwrap();
    assert!(!calls.borrow().contains(&Call::Flush));
    bench.load(&section(100)).unwrap();
    assert!(calls.borrow().contains(&Call::Flush));
    {
        let disks = bench.destination.disks.borrow();
        assert_eq!(disks[0].stable, disks[0].data);
    }
    // So is what comes before, if it is much: the guest waits at the end.
    calls.borrow_mut().clear();
    for chunk_number in 0..600 {
        bench.load(&[chunk.clone(), section(99)].concat()).unwrap();
        let flushes = calls.borrow().iter().filter(|call| **call == Call::Flush).count();
        assert_eq!(flushes, (chunk_number + 1) / 256);
    }
    // One that can't be flushed fails the load, by name.
    bench.load(&[chunk, section(99)].concat()).unwrap();
    bench.destination.disks.borrow_mut()[0].says = Some(Err(Errno::NO_MEDIUM));
    let error = bench.load(&section(100)).unwrap_err();
    assert_eq!(error.to_string(), "can't flush device hd0: No medium found");
    bench.check_released();
}

#[test]
fn data_past_the_end_of_a_shorter_device() {
    let block = [1_u64.to_be_bytes().to_vec(), vec![3], b"hd0".to_vec(), vec![7; 4 * 512]].concat();
    let section = [block, 2_u64.to_be_bytes().to_vec()].concat();
    for accept in [false, true] {
        let options = Options { accept_tail_garbage: accept, ..Options::default() };
        let bench = Bench::new(4, &[("hd0", Kind::Normal, 3)], PLAIN, options);
        let short = Error::TooShort { device: "hd0".into(), length: 3 * 512, source_length: 4 * 512 };
        assert_eq!(bench.load(&section), if accept { Ok(()) } else { Err(short) });
        assert_eq!(bench.changed(0).len(), if accept { 3 } else { 0 });
        bench.check_released();
    }
}

#[test]
fn the_guest_runs_on_while_the_last_reads_stall() {
    let mut bench = Bench::one(1, 20, PLAIN);
    bench.setup().unwrap();
    while bench.from.pending() > 4 * 512 {
        bench.iterate().unwrap();
        bench.sim.advance(1_000_000);
        bench.settle();
    }
    bench.write(0, 0..1, 300);
    bench.iterate().unwrap();
    assert!(bench.in_flight() > 0);
    // So little is left that the guest could be stopped for it, but for the read.
    for ms in [50, 60, 10_000] {
        bench.sim.advance(ms * 1_000_000);
        let step = bench.iterate().unwrap();
        let stalled = ms > 50;
        assert_eq!(step.can_finish, !stalled);
        assert_eq!(bench.from.pending_switchover(1 << 20) > 1 << 20, stalled);
    }
    bench.settle();
    assert!(bench.iterate().unwrap().can_finish);
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn the_guest_runs_on_until_all_was_sent_once() {
    let mut bench = Bench::one(1, 20, PLAIN);
    bench.setup().unwrap();
    let mut steps = 0;
    loop {
        let can_finish = bench.iterate().unwrap().can_finish;
        let lacking = bench.lacking(0);
        assert_eq!(can_finish, lacking == 0, "with {lacking} bytes left");
        assert_eq!(bench.from.pending_switchover(1 << 20) <= 1 << 20, lacking == 0);
        if lacking == 0 {
            break;
        }
        steps += 1;
        bench.sim.advance(1_000);
        bench.source.complete_some(1);
    }
    assert!(steps >= 10);
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn what_is_written_after_nothing_was_left_may_shrink_first() {
    let mut bench = Bench::one(1, 200, PLAIN);
    bench.setup().unwrap();
    while bench.from.pending() > 0 {
        bench.iterate().unwrap();
        bench.sim.advance(10_000_000);
        bench.settle();
    }
    // The host has not stopped the guest; a good while later it writes.
    bench.iterate().unwrap();
    bench.sim.advance(1_000_000_000);
    bench.write(0, 0..100, 300);
    bench.iterate().unwrap();
    assert!(bench.from.pending_switchover(1 << 20) > 1 << 20, "it may still shrink");
    bench.settle();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn absurd_options_are_refused_by_name_and_change_nothing() {
    let mut bench = Bench::one(1, 5, PLAIN);
    bench.from.set_options(Options { max_reads: 2, ..Options::default() }).unwrap();
    let absurd = [
        ("max_buffers", Options { max_buffers: MAX_NUMBER + 1, ..Options::default() }),
        ("max_reads", Options { max_reads: MAX_NUMBER + 1, ..Options::default() }),
        ("max_writes", Options { max_writes: MAX_NUMBER + 1, ..Options::default() }),
    ];
    for (field, options) in absurd {
        let error = bench.from.set_options(options).unwrap_err();
        assert_eq!(error.to_string(), format!("{field} is 1048577; it may be 0 to 1048576"));
        assert_eq!(error.errno(), Errno::INVALID);
        assert_eq!(bench.from.last_error(), error.to_string());
    }
    bench.setup().unwrap();
    bench.iterate().unwrap();
    assert_eq!(bench.source.ios.borrow().len(), 2, "reads in flight");
    bench.from.cleanup(None);
    let largest =
        Options { max_buffers: MAX_NUMBER, max_reads: MAX_NUMBER, max_writes: MAX_NUMBER, ..Options::default() };
    bench.from.set_options(largest).unwrap();
    assert_eq!(bench.from.last_error(), "");
}

#[test]
fn a_call_that_could_fail_and_did_not_ends_what_last_error_says() {
    let mut bench = Bench::one(1, 5, QUICK);
    bench.setup().unwrap();
    let fail = |bench: &Bench| {
        assert_eq!(bench.from.set_options(Options::default()), Err(Error::Busy));
        assert_eq!(bench.from.last_error(), Error::Busy.to_string());
    };
    fail(&bench);
    assert!(bench.from.pending() > 0);
    assert_eq!(bench.from.last_error(), Error::Busy.to_string(), "a query leaves it");
    bench.iterate().unwrap();
    assert_eq!(bench.from.last_error(), "");
    bench.run_dry();
    fail(&bench);
    bench.complete().unwrap();
    assert_eq!(bench.from.last_error(), "");
}
