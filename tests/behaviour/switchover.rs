// SPDX-License-Identifier: GPL-2.0-only
//! When the host is told that the guest may be stopped.

use crate::fixture::{Fixture, PLAIN};

#[test]
fn the_guest_is_not_stopped_while_the_last_reads_stall() {
    let mut fixture = Fixture::one(1, 20, PLAIN);
    fixture.setup().unwrap();
    while fixture.from.pending() > 4 * 512 {
        fixture.iterate().unwrap();
        fixture.sim.advance(1_000_000);
        fixture.settle();
    }
    fixture.write(0, 0..1, 300);
    fixture.iterate().unwrap();
    assert!(fixture.in_flight() > 0);
    // The remainder is small enough to stop the guest, but the reads in flight have not returned for a while.
    for ms in [50, 60, 10_000] {
        fixture.sim.advance(ms * 1_000_000);
        let step = fixture.iterate().unwrap();
        let stalled = ms > 50;
        assert_eq!(step.can_finish, !stalled);
        assert_eq!(fixture.from.pending_switchover(1 << 20) > 1 << 20, stalled);
    }
    fixture.settle();
    assert!(fixture.iterate().unwrap().can_finish);
    fixture.complete().unwrap();
    fixture.check_migrated();
}

#[test]
fn the_guest_is_not_stopped_before_everything_was_sent_once() {
    let mut fixture = Fixture::one(1, 20, PLAIN);
    fixture.setup().unwrap();
    let mut steps = 0;
    loop {
        let can_finish = fixture.iterate().unwrap().can_finish;
        let lacking = fixture.lacking(0);
        assert_eq!(can_finish, lacking == 0, "with {lacking} bytes left");
        assert_eq!(fixture.from.pending_switchover(1 << 20) <= 1 << 20, lacking == 0);
        if lacking == 0 {
            break;
        }
        steps += 1;
        fixture.sim.advance(1_000);
        fixture.source.complete_some(1);
    }
    assert!(steps >= 10);
    fixture.complete().unwrap();
    fixture.check_migrated();
}

#[test]
fn chunks_dirtied_after_a_quiet_time_are_sent_before_the_guest_is_stopped() {
    let mut fixture = Fixture::one(1, 200, PLAIN);
    fixture.setup().unwrap();
    while fixture.from.pending() > 0 {
        fixture.iterate().unwrap();
        fixture.sim.advance(10_000_000);
        fixture.settle();
    }
    // The host has not stopped the guest, which writes again a second later.
    fixture.iterate().unwrap();
    fixture.sim.advance(1_000_000_000);
    fixture.write(0, 0..100, 300);
    fixture.iterate().unwrap();
    assert!(fixture.from.pending_switchover(1 << 20) > 1 << 20, "it may still shrink");
    fixture.settle();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// Even when the host uses its own threshold, the guest is not stopped for data that can be sent while it runs.
#[test]
fn the_guest_is_not_stopped_while_the_remainder_shrinks() {
    let mut fixture = Fixture::one(1, 8, PLAIN);
    let threshold = 1 << 40;
    let pending = |fixture: &Fixture| (fixture.from.pending(), fixture.from.pending_switchover(threshold));
    assert_eq!(pending(&fixture), (0, 0));
    fixture.setup().unwrap();
    // Not in the bulk phase, however little is left, and not while chunks are in flight and the bandwidth is unknown.
    assert_eq!(pending(&fixture), (8 * 512, threshold + 1));
    fixture.iterate().unwrap();
    assert_eq!(pending(&fixture), (8 * 512, threshold + 1));
    // 512 bytes take 20 ms from here on.
    let step = |fixture: &mut Fixture, dirty: u64| {
        fixture.stream.limit = Some(512);
        fixture.settle();
        fixture.sim.advance(20_000_000);
        fixture.write(0, 0..dirty, 9);
        fixture.iterate().unwrap();
        pending(fixture)
    };
    let mut last = 8 * 512;
    while last > 2 * 512 {
        let (all, told) = step(&mut fixture, 0);
        assert!(all < last && told == threshold + 1, "{all} bytes are left, {told} are told");
        last = all;
    }
    // The guest dirties as much as is sent, so the remainder no longer shrinks and the host's threshold decides.
    let stuck = (0..30).position(|_| {
        let (all, told) = step(&mut fixture, 4);
        assert!(told == threshold + 1 || told == all);
        told == all
    });
    assert!(stuck.is_some_and(|steps| steps > 3), "{stuck:?}");
}
