// SPDX-License-Identifier: GPL-2.0-only
//! Rows about what is read and sent, and when.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use blkmig::error::{Errno, Error};
use blkmig::settings::Options;

use crate::bench::{Bench, PLAIN, QUICK, once, record, write};
use crate::sim::Call;
use crate::sim::disk::Kind;
use crate::sim::machine::{Features, Machine};

#[test]
fn row_01_the_last_stage_sends_all_whatever_the_limit() {
    for limit in [Some(0), Some(1), Some(10 << 30)] {
        let mut bench = Bench::one(1, 40, PLAIN);
        bench.stream.limit = limit;
        bench.stream.frozen = true;
        bench.setup().unwrap();
        bench.iterate().unwrap();
        bench.settle();
        bench.complete().unwrap();
        bench.check_migrated();
    }
}

#[test]
fn row_02_what_is_in_flight_or_queued_keeps_it_from_finishing() {
    // A link of 512 bytes a second, and a downtime limit that fits no chunk: each of the four must be sent first.
    let mut bench = Bench::one(1, 8, Features { max_downtime_ns: 1000, ..PLAIN });
    bench.setup().unwrap();
    bench.iterate().unwrap();
    bench.sim.advance(1_000_000_000);
    // Reads in flight alone, the bulk phase done.
    assert_eq!(bench.in_flight(), 8);
    assert!(!bench.iterate().unwrap().can_finish, "reads are in flight");
    // Blocks that wait to be sent alone.
    bench.settle();
    bench.stream.frozen = true;
    bench.sim.advance(1_000_000_000);
    assert!(!bench.iterate().unwrap().can_finish, "blocks are queued");
    assert_eq!(bench.from.pending(), 8 * 512);
    // Nothing.
    bench.stream.frozen = false;
    bench.sim.advance(1_000_000_000);
    assert!(bench.iterate().unwrap().can_finish, "nothing is left");
    // Dirty chunks alone.
    bench.write(0, 3..4, 7);
    bench.stream.frozen = true;
    assert!(!bench.iterate().unwrap().can_finish, "a chunk is dirty, or in flight");
    bench.stream.frozen = false;
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_02_bulk_that_is_not_read_keeps_it_from_finishing() {
    let options = Options { max_reads: 2, ..Options::default() };
    let disks = [("hd0", Kind::Normal, 1000)];
    let mut bench = Bench::new(1, &disks, Features { max_downtime_ns: 1_000_000, tick_ns: 2, ..PLAIN }, options);
    bench.setup().unwrap();
    for _ in 0..100 {
        let step = bench.iterate().unwrap();
        assert!(!step.can_finish, "{} bytes pending, {:?}", bench.from.pending(), bench.from.status());
        bench.sim.advance(10_000_000);
        bench.settle();
    }
    assert!(bench.from.status().is_bulk_active());
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_03_pending_is_what_the_destination_lacks_always() {
    let options = Options { max_reads: 3, ..Options::default() };
    let mut bench = Bench::new(4, &[("hd0", Kind::Normal, 90), ("hd1", Kind::Normal, 7)], PLAIN, options);
    bench.stream.limit = Some(4096);
    bench.setup().unwrap();
    assert_eq!(bench.from.pending(), 97 * 512, "all of it, before anything was read");
    for step in 0..60 {
        bench.iterate().unwrap();
        assert_eq!(bench.from.pending(), bench.lacking(0) + bench.lacking(1), "step {step}");
        if step % 3 > 0 {
            bench.settle();
        }
    }
    assert_eq!(bench.from.pending(), 0);
    bench.write(1, 6..7, 5);
    assert_eq!(bench.from.pending(), 3 * 512, "the tail is as long as it is");
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_04_a_chunk_is_not_read_again_before_the_first_read_is_sent() {
    let mut bench = Bench::one(1, 2, PLAIN);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    assert_eq!(bench.in_flight(), 2);
    // The bulk phase is over; the guest writes to what it is still reading.
    bench.write(0, 0..2, 9);
    bench.iterate().unwrap();
    assert_eq!(bench.in_flight(), 2, "one read in flight per chunk");
    bench.settle();
    // The older data are queued, and must not go out after newer ones.
    bench.stream.frozen = true;
    bench.iterate().unwrap();
    assert_eq!(bench.in_flight(), 0, "the older block is still to be sent");
    bench.stream.frozen = false;
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_05_the_dirty_bit_is_cleared_before_the_read() {
    for rewritten in [false, true] {
        let mut bench = Bench::one(1, 1, QUICK);
        bench.setup().unwrap();
        if rewritten {
            bench.iterate().unwrap();
            bench.write(0, 0..1, 3);
        }
        let calls = record(&bench.source);
        bench.iterate().unwrap();
        let calls = calls.take();
        let at = |kind| calls.iter().position(|call| *call == kind).expect("it is called");
        assert!(at(Call::ResetDirty) < at(Call::Read));
        // In between, the guest writes: that is sent again.
        bench.write(0, 0..1, 4);
        once(&bench.source, Call::Read, |source| write(source, 0, 0..1, 5));
        bench.iterate().unwrap();
        assert!(bench.source.disks.borrow()[0].dirty[0], "the write between reset and read is forgotten");
        *bench.source.script.borrow_mut() = None;
        bench.complete().unwrap();
        bench.check_migrated();
    }
}

#[test]
fn row_05_a_write_while_the_read_is_in_flight_is_sent() {
    for call in [Call::IsDirty, Call::ResetDirty, Call::Read, Call::Put, Call::DirtyChunks, Call::Now] {
        let mut bench = Bench::one(1, 3, PLAIN);
        bench.setup().unwrap();
        once(&bench.source, call, |source| write(source, 0, 0..3, 8));
        for _ in 0..4 {
            bench.iterate().unwrap();
            bench.settle();
        }
        bench.complete().unwrap();
        bench.check_migrated();
    }
}

#[test]
fn row_06_parallel_reads_do_not_make_the_link_slow() {
    // 16 reads at a time that take 100 ms each: 16 chunks in 100 ms, not in 1.6 s.
    let mut bench = Bench::one(1, 320, PLAIN);
    bench.setup().unwrap();
    for _ in 0..20 {
        bench.iterate().unwrap();
        assert!(bench.in_flight() <= 16);
        bench.sim.advance(100_000_000);
        bench.settle();
    }
    let bandwidth = bench.from.status().bandwidth.load(Relaxed);
    assert!((60_000..120_000).contains(&bandwidth), "{bandwidth} bytes a second, should be some 16 * 512 * 10");
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_07_no_read_has_finished_yet() {
    let mut bench = Bench::one(1, 4, Features { max_downtime_ns: u64::MAX, tick_ns: 100, ..PLAIN });
    bench.setup().unwrap();
    for _ in 0..5 {
        let step = bench.iterate().unwrap();
        assert!(!step.sent && !step.can_finish, "an unknown bandwidth means: not yet");
    }
    assert_eq!(bench.from.status().bandwidth.load(Relaxed), 0);
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_08_memory_is_bounded_whatever_the_limit() {
    for limit in [None, Some(1 << 31), Some(10 << 30), Some(u64::MAX)] {
        for features in [PLAIN, QUICK, Features { owned_buffers: true, ..QUICK }] {
            let options = Options { max_buffers: 5, max_reads: 3, ..Options::default() };
            let mut bench = Bench::new(1, &[("hd0", Kind::Normal, 100)], features, options);
            bench.stream.limit = limit;
            bench.setup().unwrap();
            for frozen in [true, true, false, true] {
                bench.stream.frozen = frozen;
                bench.iterate().unwrap();
                assert!(bench.in_flight() <= 3);
                bench.settle();
            }
            bench.stream.frozen = false;
            bench.run_dry();
            bench.complete().unwrap();
            assert!(bench.from.status().buffers().1 <= 5, "{:?} buffers", bench.from.status().buffers());
            bench.check_migrated();
        }
    }
}

#[test]
fn row_09_cancel_flushes_first() {
    let mut bench = Bench::one(1, 4, PLAIN);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    let calls = record(&bench.source);
    bench.from.cleanup(None);
    let calls = calls.take();
    let at = |kind| calls.iter().position(|call| *call == kind).expect("it is called");
    assert!(at(Call::Drain) < at(Call::TrackingOff) && at(Call::TrackingOff) < at(Call::Release));
    bench.check_released();
    bench.from.cleanup(None);
    bench.check_released();
}

#[test]
fn row_09_an_error_flushes_before_it_frees() {
    let mut bench = Bench::one(1, 4, PLAIN);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    bench.stream.failed = Some(Errno::IO);
    assert_eq!(bench.iterate(), Err(Error::Stream(Errno::IO)));
    bench.check_released();
    bench.stream.failed = None;
    bench.sections.clear();
    bench.setup().unwrap();
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_09_completions_that_come_late_are_harmless() {
    let mut bench = Bench::one(1, 4, PLAIN);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    // A flush that returns with all of them in flight.
    let forgotten = Rc::new(Cell::new(Vec::new()));
    let keep = Rc::clone(&forgotten);
    once(&bench.source, Call::Drain, move |source| keep.set(source.ios.take()));
    bench.sim.broken.set(true);
    bench.from.cleanup(None);
    assert_eq!(bench.source.disks.borrow()[0].held, 0);
    // They end in the middle of the next migration.
    bench.sections.clear();
    bench.setup().unwrap();
    bench.iterate().unwrap();
    bench.source.ios.borrow_mut().extend(forgotten.take());
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_10_the_last_stage_waits_for_reads_in_flight() {
    for features in [PLAIN, Features { wait: true, ..PLAIN }] {
        let mut bench = Bench::one(1, 12, features);
        bench.setup().unwrap();
        bench.iterate().unwrap();
        assert_eq!(bench.in_flight(), 12);
        bench.complete().unwrap();
        bench.check_migrated();
    }
}

#[test]
fn row_11_a_read_error_in_the_last_stage_ends_it() {
    // The read does not start, or it starts and fails: which of them is the luck of the round.
    for round in 0..16 {
        let stages = round % 2 == 0;
        let mut bench = Bench::one(1, 6, QUICK);
        for _ in 0..round {
            bench.sim.rng.next();
        }
        bench.from.set_params(true, false);
        bench.setup().unwrap();
        bench.run_dry();
        bench.write(0, 3..4, 6);
        let reads_fail =
            |source: &Machine, call| source.sim.error_rate.set(if call == Call::Read { 10_000 } else { 0 });
        *bench.source.script.borrow_mut() = Some(Rc::new(reads_fail));
        if stages {
            let mut context = blkmig::call::CallContext { stream: &mut bench.stream, monitor: None };
            assert_eq!(bench.from.save_live(&mut context, 3), 0);
        } else {
            let error = bench.complete().unwrap_err();
            assert!(matches!(&error, Error::Read { device, sector: 3, .. } if device.as_bytes() == b"hd0"), "{error}");
        }
        assert!(bench.stream.failed.is_some(), "the stream has the error");
        assert_ne!(bench.from.last_error(), "");
        bench.check_released();
    }
}

#[test]
fn row_12_disks_of_every_small_size() {
    for chunk in [1, 4] {
        for sectors in 1..=140 {
            let mut bench = Bench::one(chunk, sectors, QUICK);
            bench.setup().unwrap();
            bench.iterate().unwrap();
            bench.write(0, sectors - 1..sectors, 5);
            bench.run_dry();
            bench.complete().unwrap();
            bench.check_migrated();
        }
    }
}

#[test]
fn row_13_a_tail_is_padded_with_zeroes() {
    // Buffers that have held other chunks; the section is by the book only with a padding of zeroes.
    let options = Options { max_buffers: 1, ..Options::default() };
    for sectors in 5..8 {
        let mut bench = Bench::new(4, &[("hd0", Kind::Normal, sectors)], QUICK, options);
        bench.setup().unwrap();
        bench.run_dry();
        let padding = (8 - sectors as usize) * 512;
        let last = bench.sections.iter().rev().find(|section| section.len() > 2048).expect("the tail was sent");
        // The chunk, a progress record and the end.
        let end = last.len() - 16;
        assert!(last[end - padding..end].iter().all(|&byte| byte == 0));
        assert!(last[end - 2048..end - padding].iter().any(|&byte| byte != 0));
        bench.complete().unwrap();
        bench.check_migrated();
    }
}

#[test]
fn row_13_a_tail_of_zeroes_is_a_zero_block() {
    let options = Options { max_buffers: 1, zero_blocks: true, ..Options::default() };
    let mut bench = Bench::new(4, &[("hd0", Kind::Normal, 5)], QUICK, options);
    bench.write(0, 4..5, 0);
    bench.setup().unwrap();
    bench.run_dry();
    assert_eq!(bench.from.status().chunks_zero.load(Relaxed), 1, "garbage in the padding hides the zeroes");
    bench.complete().unwrap();
    bench.check_migrated();
}

#[test]
fn row_22_dirty_chunks_do_not_wait_for_all_reads() {
    for next_dirty in [false, true] {
        let mut bench = Bench::one(1, 10, Features { next_dirty, wait: true, ..PLAIN });
        bench.setup().unwrap();
        for _ in 0..3 {
            bench.iterate().unwrap();
            bench.settle();
        }
        assert_eq!(bench.from.pending(), 0);
        bench.write(0, 2..6, 4);
        let calls = record(&bench.source);
        bench.iterate().unwrap();
        assert_eq!(bench.in_flight(), 4, "all the dirty chunks are read at the same time");
        // More of them, one of which is in flight: only that one is left for later.
        bench.write(0, 5..8, 5);
        bench.iterate().unwrap();
        assert_eq!(bench.in_flight(), 6);
        assert!(!calls.borrow().iter().any(|call| matches!(call, Call::Drain | Call::Wait)), "it waited");
        bench.complete().unwrap();
        bench.check_migrated();
    }
}

/// More dirty chunks than a search passes over in one go, again and again.
#[test]
fn thousands_of_dirty_chunks() {
    for next_dirty in [false, true] {
        let options = Options { max_buffers: 64, max_reads: 40, ..Options::default() };
        let features = Features { next_dirty, max_downtime_ns: 0, ..QUICK };
        let mut bench = Bench::new(1, &[("hd0", Kind::Normal, 3000)], features, options);
        bench.setup().unwrap();
        for stamp in 0..3 {
            bench.write(0, 0..3000, 1000 + stamp);
            for _ in 0..30 {
                bench.iterate().unwrap();
                assert!(bench.from.pending() >= bench.lacking(0));
            }
        }
        bench.write(0, 0..3000, 2000);
        if next_dirty {
            bench.run_dry();
        }
        bench.complete().unwrap();
        bench.check_migrated();
    }
}

/// One that is written to whenever it is read is sent all the same, if there is nothing else to send.
#[test]
fn a_hot_chunk_that_is_alone_is_sent() {
    let mut bench = Bench::one(1, 1, PLAIN);
    bench.setup().unwrap();
    bench.iterate().unwrap();
    for stamp in 0..3 {
        assert_eq!(bench.in_flight(), 1);
        bench.write(0, 0..1, 50 + stamp);
        bench.settle();
        assert!(bench.iterate().unwrap().sent);
        assert_eq!(bench.from.pending(), 512);
    }
    bench.complete().unwrap();
    bench.check_migrated();
}

/// For what can be sent while it runs, the guest is not stopped by a threshold of the host's.
#[test]
fn the_guest_runs_on_while_the_rest_can_be_sent_or_shrinks() {
    let mut bench = Bench::one(1, 8, PLAIN);
    let threshold = 1 << 40;
    let pending = |bench: &Bench| (bench.from.pending(), bench.from.pending_switchover(threshold));
    assert_eq!(pending(&bench), (0, 0));
    bench.setup().unwrap();
    // In the bulk phase, however little it is; and after it, while reads and blocks are on their way and nothing is known.
    assert_eq!(pending(&bench), (8 * 512, threshold + 1));
    bench.iterate().unwrap();
    assert_eq!(pending(&bench), (8 * 512, threshold + 1));
    // 512 bytes take 20 ms from here on.
    let step = |bench: &mut Bench, dirty: u64| {
        bench.stream.limit = Some(512);
        bench.settle();
        bench.sim.advance(20_000_000);
        bench.write(0, 0..dirty, 9);
        bench.iterate().unwrap();
        pending(bench)
    };
    let mut last = 8 * 512;
    while last > 2 * 512 {
        let (all, told) = step(&mut bench, 0);
        assert!(all < last && told == threshold + 1, "{all} bytes are left, {told} are told");
        last = all;
    }
    // The guest dirties as much as is sent: in vain, and the host's limit decides.
    let stuck = (0..30).position(|_| {
        let (all, told) = step(&mut bench, 4);
        assert!(told == threshold + 1 || told == all);
        told == all
    });
    assert!(stuck.is_some_and(|steps| steps > 3), "{stuck:?}");
}
