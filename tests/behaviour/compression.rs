// SPDX-License-Identifier: GPL-2.0-only
//! When the extended stream compresses, and when it does not.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use blkmig::settings::Options;

use crate::extended::EXTENDED;
use crate::fixture::{Fixture, QUICK};
use crate::sim::disk::Kind;
use crate::sim::machine::Machine;
use crate::sim::{Call, Rng};

/// MiB that reach the stream, of a disk of which some sectors can be compressed. Before each put, time goes on by what
/// `time` says of the bytes that were put until then.
fn compressed_mib(mib: u64, shrinks: impl Fn(u64) -> bool, mut time: impl FnMut(u64) -> u64 + 'static) -> u64 {
    let options = Options { compression: 1, ..EXTENDED };
    let mut fixture = Fixture::new(128, &[("hd0", Kind::Normal, mib << 11)], QUICK, options);
    let rng = Rng::new(1);
    for sector in (0..mib << 11).filter(|&sector| !shrinks(sector)) {
        let noise: Vec<u8> = (0..512).map(|_| rng.next() as u8).collect();
        fixture.source.disks.borrow_mut()[0].put(sector, &noise);
    }
    let from = Rc::clone(&fixture.from);
    let time = RefCell::new(move |machine: &Machine| {
        machine.sim.advance(time(from.status().wire_bytes.load(Relaxed)));
    });
    let script = move |machine: &Machine, call| {
        if call == Call::Put {
            time.borrow_mut()(machine);
        }
    };
    *fixture.source.script.borrow_mut() = Some(Rc::new(script));
    fixture.setup().unwrap();
    fixture.run_dry();
    *fixture.source.script.borrow_mut() = None;
    fixture.complete().unwrap();
    fixture.check_migrated();
    fixture.from.status().payload_bytes.load(Relaxed) >> 20
}

#[test]
fn compression_goes_on_after_data_that_does_not_shrink() {
    let mut before = 0;
    // 10 MB a second.
    let mib = compressed_mib(
        60,
        |sector| sector >> 11 >= 20,
        move |bytes| 100 * (bytes - std::mem::replace(&mut before, bytes)),
    );
    // The 20 that can't be compressed, and perhaps 8 to measure the other way.
    assert!((20..32).contains(&mib), "{mib} MiB");
}

#[test]
fn compression_that_makes_nothing_faster_ends() {
    let mib = compressed_mib(60, |_| true, |_| 1_000_000);
    assert!(mib > 40, "{mib} MiB");
    // Only every other record, which is 64 KiB long, can be compressed, as with two devices in turn.
    let mib = compressed_mib(60, |sector| sector >> 7 & 1 == 1, |_| 1_000_000);
    assert!(mib > 50, "{mib} MiB");
}

#[test]
fn one_slow_moment_does_not_end_compression() {
    for slow_at in [1 << 10, 50 << 10, 5 << 20] {
        let (mut before, mut slow) = (0, Some(slow_at));
        let mib = compressed_mib(
            60,
            |_| true,
            move |bytes| {
                let moment = slow.take_if(|at| bytes > *at).map_or(0, |_| 1_000_000_000);
                moment + 100 * (bytes - std::mem::replace(&mut before, bytes))
            },
        );
        assert!(mib < 20, "{mib} MiB");
    }
}
