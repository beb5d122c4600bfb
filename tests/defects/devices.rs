// SPDX-License-Identifier: GPL-2.0-only
//! Rows about which devices are migrated, how a migration begins, and what its user sees.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use blkmig::error::{Errno, Error};
use blkmig::settings::Options;

use crate::bench::{Bench, QUICK, record};
use crate::sim::Call;
use crate::sim::disk::Kind;
use crate::sim::machine::Machine;
use crate::sim::stream::SimMonitor;

#[test]
fn row_19_devices_without_anything_in_them_are_skipped() {
    let disks = [
        ("gone", Kind::Gone, 4),
        ("empty", Kind::Empty, 0),
        ("hd0", Kind::Normal, 5),
        ("cd", Kind::NoMedium, 0),
        ("ro", Kind::ReadOnly, 3),
        ("hd1", Kind::Normal, 9),
    ];
    let mut bench = Bench::new(1, &disks, QUICK, Options::default());
    bench.setup().unwrap();
    assert_eq!(bench.from.status().bytes().0, 14 * 512);
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_20_a_second_start_is_refused_or_clean() {
    let mut bench = Bench::one(1, 6, QUICK);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    assert_eq!(bench.from.setup(&mut context(&mut Bench::one(1, 1, QUICK))), Err(Error::Busy));
    assert_eq!(bench.from.status().bytes().0, 6 * 512, "it goes on unharmed");
    assert_eq!(Error::Busy.errno(), Errno::BUSY);
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
    // And after cleanup, from the beginning.
    bench.setup().unwrap();
    bench.from.cleanup(None);
    bench.sections.clear();
    bench.setup().unwrap();
    assert_eq!(bench.from.status().bytes(), (6 * 512, 0));
    assert_eq!(bench.source.disks.borrow()[0].held, 1);
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

fn context(bench: &mut Bench) -> blkmig::call::CallContext<'_> {
    blkmig::call::CallContext { stream: &mut bench.stream, monitor: None }
}

#[test]
fn row_21_no_progress_or_an_error_counts_as_allocated() {
    let mut bench = Bench::one(1, 20, QUICK);
    bench.from.set_params(true, true);
    bench.source.disks.borrow_mut()[0].allocated.fill(false);
    // Each answer about allocation is an error, 0 sectors or fewer.
    let machine = Rc::clone(&bench.source);
    *machine.script.borrow_mut() = Some(Rc::new(|machine: &Machine, call| {
        machine.sim.error_rate.set(if call == Call::Allocated { 10_000 } else { 0 });
    }));
    bench.setup().unwrap();
    bench.run_dry();
    assert_eq!(bench.from.status().chunks_sent.load(Relaxed), 20);
    bench.complete().unwrap();
    bench.sim.error_rate.set(0);
    bench.check_migrated();
}

#[test]
fn row_21_what_is_not_allocated_is_passed_over() {
    let mut bench = Bench::one(2, 20, QUICK);
    bench.from.set_params(true, true);
    bench.source.disks.borrow_mut()[0].allocated.fill(false);
    bench.source.disks.borrow_mut()[0].allocated[7] = true;
    bench.setup().unwrap();
    bench.run_dry();
    bench.complete().unwrap();
    for section in std::mem::take(&mut bench.sections) {
        bench.load(&section).unwrap();
    }
    assert_eq!(bench.changed(0), [6, 7]);
    assert_eq!(bench.from.status().bytes(), (20 * 512, 20 * 512));
}

#[test]
fn row_23_a_name_that_does_not_fit_fails_the_setup() {
    for length in [0, 256, 257, 600] {
        let name = "n".repeat(length);
        let mut bench = Bench::new(1, &[("hd0", Kind::Normal, 5), (&name, Kind::Normal, 5)], QUICK, Options::default());
        let error = bench.setup().unwrap_err();
        assert!(error.to_string().contains(&format!("device {name} has {length} bytes")), "{error}");
        assert_eq!(error.errno(), Errno::INVALID);
        bench.check_released();
    }
    let name = "n".repeat(255);
    let mut bench = Bench::new(1, &[(&name, Kind::Normal, 5)], QUICK, Options::default());
    bench.setup().unwrap();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_24_without_a_monitor_nothing_is_printed_and_with_one_what_users_know() {
    for shared in [false, true] {
        for monitor in [false, true] {
            let mut bench = Bench::one(1, 5, QUICK);
            bench.from.set_params(true, shared);
            bench.monitor = monitor.then(|| SimMonitor::new(&bench.source));
            let calls = record(&bench.source);
            bench.setup().unwrap();
            bench.run_dry();
            bench.complete().unwrap();
            let printed = calls.borrow().contains(&Call::Print);
            assert_eq!(printed, monitor);
            if let Some(monitor) = &bench.monitor {
                let text = monitor.text.borrow();
                let start = if shared {
                    "Start migration for hd0 with shared base image\n"
                } else {
                    "Start full migration for hd0\n"
                };
                assert!(text.starts_with(start), "{text:?}");
                assert!(text.contains("Completed 100 %\r"), "{text:?}");
                assert!(text.ends_with("\nBlock migration completed\n"), "{text:?}");
            }
            if !shared {
                bench.check_migrated();
            }
        }
    }
}
