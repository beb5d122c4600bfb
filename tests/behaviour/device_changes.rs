// SPDX-License-Identifier: GPL-2.0-only
//! Devices that are resized, replaced, added or removed while a migration runs.

use std::rc::Rc;

use blkmig::error::{Errno, Error};
use blkmig::settings::Options;

use crate::fixture::{Fixture, PLAIN, QUICK, once, record};
use crate::sim::Call;
use crate::sim::disk::{Kind, pattern};
use crate::sim::machine::{Features, Machine};

#[test]
fn a_length_that_changes_and_changes_back_ends_the_migration() {
    for sectors in [4, 6] {
        let mut fixture = Fixture::one(1, 5, QUICK);
        fixture.setup().unwrap();
        fixture.source.disks.borrow_mut()[0].reported_length = Some(Ok(sectors * 512));
        let resized = Error::Resized { device: "hd0".into(), was: 5 * 512, is: sectors * 512 };
        assert_eq!(fixture.iterate(), Err(resized.clone()));
        fixture.source.disks.borrow_mut()[0].reported_length = None;
        assert_eq!(fixture.complete(), Err(resized), "the migration stays failed");
        fixture.check_released();
    }
}

#[test]
fn a_device_that_appears_or_disappears_ends_the_migration() {
    for kind in [Kind::ReadOnly, Kind::Gone] {
        let mut fixture = Fixture::new(1, &[("hd0", Kind::Normal, 5), ("hd1", kind, 3)], QUICK, Options::default());
        fixture.setup().unwrap();
        fixture.run_dry();
        fixture.source.disks.borrow_mut()[1].kind = Kind::Normal;
        assert_eq!(fixture.complete(), Err(Error::Appeared("hd1".into())));
        fixture.check_released();
    }
    let disks = [("hd0", Kind::Normal, 5), ("hd1", Kind::Normal, 3)];
    let mut fixture = Fixture::new(1, &disks, QUICK, Options::default());
    fixture.setup().unwrap();
    fixture.run_dry();
    fixture.source.disks.borrow_mut()[1].reported_length = Some(Err(Errno::NO_MEDIUM));
    let error = fixture.complete().unwrap_err();
    assert!(error.to_string().contains("hd1"), "{error}");
    fixture.check_released();
}

#[test]
fn a_device_that_is_replaced_or_no_longer_listed_ends_the_migration() {
    for (replaced, error) in [(true, Error::Appeared("hd0".into())), (false, Error::WentAway("hd0".into()))] {
        // Before the last stage, or during it: at the very last read.
        for late in [false, true] {
            let change = move |machine: &Machine| {
                let disk = &mut machine.disks.borrow_mut()[0];
                disk.replaced = replaced;
                disk.unlisted = !replaced;
            };
            let mut fixture = Fixture::one(1, 5, QUICK);
            fixture.setup().unwrap();
            fixture.run_dry();
            fixture.write(0, 2..3, 7);
            if late {
                once(&fixture.source, Call::Read, change);
                assert_eq!(fixture.complete(), Err(error.clone()));
            } else {
                change(&fixture.source);
                let calls = record(&fixture.source);
                assert_eq!(fixture.complete(), Err(error.clone()));
                assert!(!calls.borrow().contains(&Call::Read), "it is noticed at the start");
            }
            fixture.check_released();
        }
    }
}

#[test]
fn a_failed_read_from_a_device_that_disappeared_says_so() {
    let mut fixture = Fixture::one(1, 5, PLAIN);
    fixture.setup().unwrap();
    // It disappears during a step, and the reads in flight fail.
    let machine = Rc::downgrade(&fixture.source);
    *fixture.source.script.borrow_mut() = Some(Rc::new(move |_: &Machine, call| {
        let machine = machine.upgrade().expect("it runs");
        if call == Call::Read && machine.ios.borrow().len() == 2 {
            machine.disks.borrow_mut()[0].reported_length = Some(Err(Errno::NO_MEDIUM));
            machine.ios.borrow_mut().iter_mut().for_each(|io| io.fails = true);
            machine.complete_some(2);
        }
    }));
    let error = fixture.iterate().unwrap_err();
    assert_eq!(error.to_string(), "can't get the length of device hd0: No medium found");
    *fixture.source.script.borrow_mut() = None;
    fixture.check_released();
}

#[test]
fn a_device_that_disappears_at_the_destination_fails_the_load() {
    let chunk = [1_u64.to_be_bytes().to_vec(), vec![3], b"hd0".to_vec(), pattern(0, 300).to_vec()].concat();
    let section = [chunk, 2_u64.to_be_bytes().to_vec()].concat();
    for async_writes in [false, true] {
        // Before it is opened, or between that and the write.
        for call in [None, Some(Call::Activate), Some(if async_writes { Call::WriteAsync } else { Call::Write })] {
            let fixture = Fixture::one(1, 5, Features { async_writes, ..PLAIN });
            let go = |machine: &Machine| machine.disks.borrow_mut()[0].reported_length = Some(Err(Errno::NO_MEDIUM));
            if let Some(call) = call {
                once(&fixture.destination, call, go);
            } else {
                go(&fixture.destination);
            }
            let error = fixture.load(&section).unwrap_err();
            assert!(error.to_string().contains("device hd0: No medium found"), "{error}");
            fixture.check_released();
            // When it is back, the same instance can load again.
            fixture.destination.disks.borrow_mut()[0].reported_length = None;
            fixture.load(&section).unwrap();
            assert_eq!(fixture.changed(0), [0]);
        }
    }
}

#[test]
fn a_device_that_was_resized_ends_the_migration() {
    let mut fixture = Fixture::one(1, 4, QUICK);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    fixture.source.disks.borrow_mut()[0].data.resize(5 * 512, 7);
    let error = fixture.complete().unwrap_err();
    assert_eq!(error, Error::Resized { device: "hd0".into(), was: 2048, is: 2560 });
    fixture.check_released();
}
