// SPDX-License-Identifier: GPL-2.0-only
//! Which devices are migrated, how a migration begins, and which messages the user sees.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use blkmig::error::{Errno, Error};
use blkmig::settings::{Options, Selection};

use crate::fixture::{Fixture, QUICK, record};
use crate::sim::Call;
use crate::sim::disk::Kind;
use crate::sim::machine::Machine;
use crate::sim::stream::SimMonitor;

/// B-19: an empty device neither crashes the setup nor ends the list of devices.
#[test]
fn devices_without_a_medium_are_skipped_and_the_others_migrate() {
    let disks = [
        ("gone", Kind::Gone, 4),
        ("empty", Kind::Empty, 0),
        ("hd0", Kind::Normal, 5),
        ("cd", Kind::NoMedium, 0),
        ("ro", Kind::ReadOnly, 3),
        ("hd1", Kind::Normal, 9),
    ];
    let mut fixture = Fixture::new(1, &disks, QUICK, Options::default());
    fixture.setup().unwrap();
    assert_eq!(fixture.from.status().bytes().0, 14 * 512);
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// The devices that were not chosen are not touched, and may do what they like.
#[test]
fn only_chosen_devices_migrate_and_the_others_may_change() {
    let disks = [("hd0", Kind::Normal, 5), ("hd1", Kind::Normal, 9), ("cd", Kind::NoMedium, 0)];
    let named = |names: &[&str]| Selection::Named(names.iter().map(|&name| name.into()).collect());
    let mut fixture = Fixture::new(1, &disks, QUICK, Options::default());
    fixture.from.set_devices(named(&["hd1", "hd7"])).unwrap();
    assert_eq!(fixture.setup().unwrap_err(), Error::NotThere("hd7".into()));
    assert_eq!(Error::NotThere("hd7".into()).errno(), Errno::NO_DEVICE);

    let mut fixture = Fixture::new(1, &disks, QUICK, Options::default());
    fixture.from.set_devices(named(&["hd1", "cd"])).unwrap();
    fixture.setup().unwrap();
    assert_eq!(fixture.from.set_devices(Selection::All), Err(Error::Busy));
    assert_eq!(fixture.from.status().bytes().0, 9 * 512);
    {
        let mut disks = fixture.source.disks.borrow_mut();
        assert_eq!(disks[0].held, 0);
        disks[0].kind = Kind::Gone;
    }
    fixture.run_dry();
    fixture.complete().unwrap();
}

/// B-20: no device is listed twice.
#[test]
fn a_second_start_is_refused_and_after_cleanup_starts_afresh() {
    let mut fixture = Fixture::one(1, 6, QUICK);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    assert_eq!(fixture.from.setup(&mut context(&mut Fixture::one(1, 1, QUICK))), Err(Error::Busy));
    assert_eq!(fixture.from.status().bytes().0, 6 * 512, "the running migration is not affected");
    assert_eq!(Error::Busy.errno(), Errno::BUSY);
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
    // After cleanup, a new migration starts from the beginning.
    fixture.setup().unwrap();
    fixture.from.cleanup(None);
    fixture.sections.clear();
    fixture.setup().unwrap();
    assert_eq!(fixture.from.status().bytes(), (6 * 512, 0));
    assert_eq!(fixture.source.disks.borrow()[0].held, 1);
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

fn context(fixture: &mut Fixture) -> blkmig::call::CallContext<'_> {
    blkmig::call::CallContext { stream: &mut fixture.stream, monitor: None }
}

/// B-21: the search for allocated sectors neither loops nor skips data.
#[test]
fn no_progress_or_an_error_counts_as_allocated() {
    let mut fixture = Fixture::one(1, 20, QUICK);
    fixture.from.set_params(true, true);
    fixture.source.disks.borrow_mut()[0].allocated.fill(false);
    // Each answer about allocation is an error, or has 0 sectors or fewer.
    let machine = Rc::clone(&fixture.source);
    *machine.script.borrow_mut() = Some(Rc::new(|machine: &Machine, call| {
        machine.sim.error_rate.set(if call == Call::Allocated { 10_000 } else { 0 });
    }));
    fixture.setup().unwrap();
    fixture.run_dry();
    assert_eq!(fixture.from.status().chunks_sent.load(Relaxed), 20);
    fixture.complete().unwrap();
    fixture.sim.error_rate.set(0);
    fixture.check_migrated();
}

/// B-21: only what the device's own image holds is sent.
#[test]
fn sectors_of_the_shared_base_are_not_sent() {
    let mut fixture = Fixture::one(2, 20, QUICK);
    fixture.from.set_params(true, true);
    fixture.source.disks.borrow_mut()[0].allocated.fill(false);
    fixture.source.disks.borrow_mut()[0].allocated[7] = true;
    fixture.setup().unwrap();
    fixture.run_dry();
    fixture.complete().unwrap();
    for section in std::mem::take(&mut fixture.sections) {
        fixture.load(&section).unwrap();
    }
    assert_eq!(fixture.changed(0), [6, 7]);
    assert_eq!(fixture.from.status().bytes(), (20 * 512, 20 * 512));
}

/// B-23: the error names the device; 255 bytes fit.
#[test]
fn a_device_name_that_does_not_fit_the_stream_fails_the_setup() {
    for length in [0, 256, 257, 600] {
        let name = "n".repeat(length);
        let mut fixture =
            Fixture::new(1, &[("hd0", Kind::Normal, 5), (&name, Kind::Normal, 5)], QUICK, Options::default());
        let error = fixture.setup().unwrap_err();
        assert!(error.to_string().contains(&format!("device {name} has {length} bytes")), "{error}");
        assert_eq!(error.errno(), Errno::INVALID);
        fixture.check_released();
    }
    let name = "n".repeat(255);
    let mut fixture = Fixture::new(1, &[(&name, Kind::Normal, 5)], QUICK, Options::default());
    fixture.setup().unwrap();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-24: without a monitor there is no output; with one, users see the messages of the original.
#[test]
fn progress_is_printed_only_if_there_is_a_monitor() {
    for shared in [false, true] {
        for monitor in [false, true] {
            let mut fixture = Fixture::one(1, 5, QUICK);
            fixture.from.set_params(true, shared);
            fixture.monitor = monitor.then(|| SimMonitor::new(&fixture.source));
            let calls = record(&fixture.source);
            fixture.setup().unwrap();
            fixture.run_dry();
            fixture.complete().unwrap();
            let printed = calls.borrow().contains(&Call::Print);
            assert_eq!(printed, monitor);
            if let Some(monitor) = &fixture.monitor {
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
                fixture.check_migrated();
            }
        }
    }
}

#[test]
fn two_devices_with_one_name_fail_the_setup() {
    use crate::sim::disk::Kind::Normal;
    let mut fixture = Fixture::new(1, &[("hd0", Normal, 4), ("hd0", Normal, 5)], QUICK, Options::default());
    assert_eq!(fixture.setup(), Err(Error::DuplicateName("hd0".into())));
    fixture.check_released();
}
