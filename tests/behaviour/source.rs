// SPDX-License-Identifier: GPL-2.0-only
//! What the source reads and sends, and when.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use blkmig::error::Error;
use blkmig::settings::Options;

use crate::fixture::{Fixture, PLAIN, QUICK, once, record, write};
use crate::sim::Call;
use crate::sim::disk::Kind;
use crate::sim::machine::{Features, Machine};

/// B-01: the rate limit does not apply to the last stage, so no chunk that was read is left unsent.
#[test]
fn the_last_stage_sends_everything_whatever_the_rate_limit() {
    for limit in [Some(0), Some(1), Some(10 << 30)] {
        let mut fixture = Fixture::one(1, 40, PLAIN);
        fixture.stream.limit = limit;
        fixture.stream.frozen = true;
        fixture.setup().unwrap();
        fixture.iterate().unwrap();
        fixture.settle();
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

/// B-02: a migration can finish only when reads in flight, queued chunks and dirty chunks all fit the downtime.
#[test]
fn reads_in_flight_and_queued_chunks_keep_a_migration_from_finishing() {
    // A link of 512 bytes a second, and a downtime too short for a single chunk: each kind of remainder must keep the
    // migration from finishing.
    let mut fixture = Fixture::one(1, 8, Features { max_downtime_ns: 1000, ..PLAIN });
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    fixture.sim.advance(1_000_000_000);
    // Only reads in flight are left; the bulk phase is over.
    assert_eq!(fixture.in_flight(), 8);
    assert!(!fixture.iterate().unwrap().can_finish, "reads are in flight");
    // Only queued chunks are left.
    fixture.settle();
    fixture.stream.frozen = true;
    fixture.sim.advance(1_000_000_000);
    assert!(!fixture.iterate().unwrap().can_finish, "chunks are queued");
    assert_eq!(fixture.from.pending(), 8 * 512);
    // Nothing is left.
    fixture.stream.frozen = false;
    fixture.sim.advance(1_000_000_000);
    assert!(fixture.iterate().unwrap().can_finish, "nothing is left");
    // Only a dirty chunk is left.
    fixture.write(0, 3..4, 7);
    fixture.stream.frozen = true;
    assert!(!fixture.iterate().unwrap().can_finish, "a chunk is dirty, or in flight");
    fixture.stream.frozen = false;
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-02: what the bulk phase has not read yet counts as well.
#[test]
fn chunks_not_yet_read_keep_a_migration_from_finishing() {
    let options = Options { max_reads: 2, ..Options::default() };
    let disks = [("hd0", Kind::Normal, 1000)];
    let mut fixture = Fixture::new(1, &disks, Features { max_downtime_ns: 1_000_000, tick_ns: 2, ..PLAIN }, options);
    fixture.setup().unwrap();
    for _ in 0..100 {
        let step = fixture.iterate().unwrap();
        assert!(!step.can_finish, "{} bytes pending, {:?}", fixture.from.pending(), fixture.from.status());
        fixture.sim.advance(10_000_000);
        fixture.settle();
    }
    assert!(fixture.from.status().is_bulk_active());
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-03: `pending` is exact in every step of the bulk phase, and after it.
#[test]
fn pending_always_counts_every_byte_the_destination_lacks() {
    let options = Options { max_reads: 3, ..Options::default() };
    let mut fixture = Fixture::new(4, &[("hd0", Kind::Normal, 90), ("hd1", Kind::Normal, 7)], PLAIN, options);
    fixture.stream.limit = Some(4096);
    fixture.setup().unwrap();
    assert_eq!(fixture.from.pending(), 97 * 512, "everything is pending before anything was read");
    for step in 0..60 {
        fixture.iterate().unwrap();
        assert_eq!(fixture.from.pending(), fixture.lacking(0) + fixture.lacking(1), "step {step}");
        if step % 3 > 0 {
            fixture.settle();
        }
    }
    assert_eq!(fixture.from.pending(), 0);
    fixture.write(1, 6..7, 5);
    assert_eq!(fixture.from.pending(), 3 * 512, "the last chunk counts with its real length");
    fixture.complete().unwrap();
    fixture.check_migrated();
}

#[test]
fn chunks_are_pending_whole_and_once_though_the_host_tracks_finer() {
    // More dirty chunks than are counted one by one are as many as there can be.
    for (next_dirty, chunks, expected) in [(true, 3..=3, 3), (true, 1300..=1500, 1300), (false, 3..=6, 3)] {
        let mut fixture = Fixture::one(8, 12000, Features { next_dirty, ..QUICK });
        fixture.source.disks.borrow_mut()[0].set_unit(1);
        fixture.setup().unwrap();
        fixture.run_dry();
        for chunk in 0..expected {
            fixture.write(0, chunk * 8 + 3..chunk * 8 + 5, 300);
        }
        let pending = fixture.from.pending() / 4096;
        assert!(chunks.contains(&pending), "{pending} chunks, not {chunks:?}");
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

/// B-04: there is one read in flight per chunk, and data of a chunk are sent in the order in which they were read.
#[test]
fn a_chunk_is_not_read_again_before_its_first_read_is_sent() {
    let mut fixture = Fixture::one(1, 2, PLAIN);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    assert_eq!(fixture.in_flight(), 2);
    // The bulk phase is over; the guest writes to chunks whose reads are in flight.
    fixture.write(0, 0..2, 9);
    fixture.iterate().unwrap();
    assert_eq!(fixture.in_flight(), 2, "one read in flight per chunk");
    fixture.settle();
    // The older data are queued, and must not be sent after newer data.
    fixture.stream.frozen = true;
    fixture.iterate().unwrap();
    assert_eq!(fixture.in_flight(), 0, "the older data must be sent first");
    fixture.stream.frozen = false;
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-05: a guest write between the two sets the dirty bit again, and so the chunk is sent again.
#[test]
fn the_dirty_bit_is_cleared_before_the_read() {
    for rewritten in [false, true] {
        let mut fixture = Fixture::one(1, 1, QUICK);
        fixture.setup().unwrap();
        if rewritten {
            fixture.iterate().unwrap();
            fixture.write(0, 0..1, 3);
        }
        let calls = record(&fixture.source);
        fixture.iterate().unwrap();
        let calls = calls.take();
        let at = |kind| calls.iter().position(|call| *call == kind).expect("it is called");
        assert!(at(Call::ResetDirty) < at(Call::Read));
        // A guest write between the two is sent later.
        fixture.write(0, 0..1, 4);
        once(&fixture.source, Call::Read, |source| write(source, 0, 0..1, 5));
        fixture.iterate().unwrap();
        assert!(fixture.source.disks.borrow()[0].dirty[0], "the write between reset and read is lost");
        *fixture.source.script.borrow_mut() = None;
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

/// B-05: whichever call to the host the guest writes in, what it wrote arrives.
#[test]
fn a_guest_write_during_any_call_of_the_host_is_sent() {
    for call in [Call::IsDirty, Call::ResetDirty, Call::Read, Call::Put, Call::DirtyChunks, Call::Now] {
        let mut fixture = Fixture::one(1, 3, PLAIN);
        fixture.setup().unwrap();
        once(&fixture.source, call, |source| write(source, 0, 0..3, 8));
        for _ in 0..4 {
            fixture.iterate().unwrap();
            fixture.settle();
        }
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

/// B-06: the bandwidth is bytes over wall time; the latencies of parallel reads are not added up.
#[test]
fn parallel_reads_do_not_lower_the_measured_bandwidth() {
    // 16 parallel reads that take 100 ms each: 16 chunks in 100 ms, not in 1.6 s.
    let mut fixture = Fixture::one(1, 320, PLAIN);
    fixture.setup().unwrap();
    for _ in 0..20 {
        fixture.iterate().unwrap();
        assert!(fixture.in_flight() <= 16);
        fixture.sim.advance(100_000_000);
        fixture.settle();
    }
    let bandwidth = fixture.from.status().bandwidth.load(Relaxed);
    assert!((60_000..120_000).contains(&bandwidth), "{bandwidth} bytes a second, expected about 16 * 512 * 10");
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-07: as long as no read has finished, the migration can not finish, and nothing aborts.
#[test]
fn an_unknown_bandwidth_means_not_yet() {
    let mut fixture = Fixture::one(1, 4, Features { max_downtime_ns: u64::MAX, tick_ns: 100, ..PLAIN });
    fixture.setup().unwrap();
    for _ in 0..5 {
        let step = fixture.iterate().unwrap();
        assert!(!step.sent && !step.can_finish, "an unknown bandwidth means: not yet");
    }
    assert_eq!(fixture.from.status().bandwidth.load(Relaxed), 0);
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-08: at most `max_buffers` chunks are held in memory.
#[test]
fn memory_is_bounded_whatever_the_rate_limit() {
    for limit in [None, Some(1 << 31), Some(10 << 30), Some(u64::MAX)] {
        for features in [PLAIN, QUICK, Features { owned_buffers: true, ..QUICK }] {
            let options = Options { max_buffers: 5, max_reads: 3, ..Options::default() };
            let mut fixture = Fixture::new(1, &[("hd0", Kind::Normal, 100)], features, options);
            fixture.stream.limit = limit;
            fixture.setup().unwrap();
            for frozen in [true, true, false, true] {
                fixture.stream.frozen = frozen;
                fixture.iterate().unwrap();
                assert!(fixture.in_flight() <= 3);
                fixture.settle();
            }
            fixture.stream.frozen = false;
            fixture.run_dry();
            fixture.complete().unwrap();
            assert!(fixture.from.status().buffers().1 <= 5, "{:?} buffers", fixture.from.status().buffers());
            fixture.check_migrated();
        }
    }
}

/// B-10: reads in flight are no error in the last stage; it waits for them and sends their data.
#[test]
fn the_last_stage_waits_for_reads_in_flight() {
    for features in [PLAIN, Features { wait: true, ..PLAIN }] {
        let mut fixture = Fixture::one(1, 12, features);
        fixture.setup().unwrap();
        fixture.iterate().unwrap();
        assert_eq!(fixture.in_flight(), 12);
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

/// B-12: the maps of chunks are as long as the device needs, so an access past their end would panic here.
#[test]
fn disks_of_every_small_size_migrate() {
    for chunk in [1, 4] {
        for sectors in 1..=140 {
            let mut fixture = Fixture::one(chunk, sectors, QUICK);
            fixture.setup().unwrap();
            fixture.iterate().unwrap();
            fixture.write(0, sectors - 1..sectors, 5);
            fixture.run_dry();
            fixture.complete().unwrap();
            fixture.check_migrated();
        }
    }
}

/// B-13: a buffer that held another chunk before shows nothing of it to the peer.
#[test]
fn the_last_chunk_is_padded_with_zeroes() {
    // With one buffer, the last chunk gets one that held another chunk before.
    let options = Options { max_buffers: 1, ..Options::default() };
    for sectors in 5..8 {
        let mut fixture = Fixture::new(4, &[("hd0", Kind::Normal, sectors)], QUICK, options);
        fixture.setup().unwrap();
        fixture.run_dry();
        let padding = (8 - sectors as usize) * 512;
        let last = fixture.sections.iter().rev().find(|section| section.len() > 2048).expect("the last chunk was sent");
        // The section ends with the chunk, a progress record and the end record.
        let end = last.len() - 16;
        assert!(last[end - padding..end].iter().all(|&byte| byte == 0));
        assert!(last[end - 2048..end - padding].iter().any(|&byte| byte != 0));
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

/// B-13: old data in the padding would hide that the chunk is all zeroes.
#[test]
fn a_last_chunk_of_zeroes_is_sent_as_a_zero_block() {
    let options = Options { max_buffers: 1, zero_blocks: true, ..Options::default() };
    let mut fixture = Fixture::new(4, &[("hd0", Kind::Normal, 5)], QUICK, options);
    fixture.write(0, 4..5, 0);
    fixture.setup().unwrap();
    fixture.run_dry();
    assert_eq!(fixture.from.status().chunks_zero.load(Relaxed), 1, "old data in the padding hide the zeroes");
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// B-22: only a chunk that is itself in flight has to wait.
#[test]
fn dirty_chunks_are_read_in_parallel() {
    for next_dirty in [false, true] {
        let mut fixture = Fixture::one(1, 10, Features { next_dirty, wait: true, ..PLAIN });
        fixture.setup().unwrap();
        for _ in 0..3 {
            fixture.iterate().unwrap();
            fixture.settle();
        }
        assert_eq!(fixture.from.pending(), 0);
        fixture.write(0, 2..6, 4);
        let calls = record(&fixture.source);
        fixture.iterate().unwrap();
        assert_eq!(fixture.in_flight(), 4, "all dirty chunks are read in parallel");
        // Three more, one of which is in flight already: only that one has to wait.
        fixture.write(0, 5..8, 5);
        fixture.iterate().unwrap();
        assert_eq!(fixture.in_flight(), 6);
        assert!(!calls.borrow().iter().any(|call| matches!(call, Call::Drain | Call::Wait)), "it waited");
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

/// More dirty chunks than one step can send, several times in a row.
#[test]
fn thousands_of_dirty_chunks_are_all_sent() {
    for next_dirty in [false, true] {
        let options = Options { max_buffers: 64, max_reads: 40, ..Options::default() };
        let features = Features { next_dirty, max_downtime_ns: 0, ..QUICK };
        let mut fixture = Fixture::new(1, &[("hd0", Kind::Normal, 3000)], features, options);
        fixture.setup().unwrap();
        for stamp in 0..3 {
            fixture.write(0, 0..3000, 1000 + stamp);
            for _ in 0..30 {
                fixture.iterate().unwrap();
                assert!(fixture.from.pending() >= fixture.lacking(0));
            }
        }
        fixture.write(0, 0..3000, 2000);
        if next_dirty {
            fixture.run_dry();
        }
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

/// If there is nothing else to send, a chunk is sent even though the guest keeps writing to it.
#[test]
fn a_chunk_written_during_each_of_its_reads_is_still_sent() {
    let mut fixture = Fixture::one(1, 1, PLAIN);
    fixture.setup().unwrap();
    fixture.iterate().unwrap();
    for stamp in 0..3 {
        assert_eq!(fixture.in_flight(), 1);
        fixture.write(0, 0..1, 50 + stamp);
        fixture.settle();
        assert!(fixture.iterate().unwrap().sent);
        assert_eq!(fixture.from.pending(), 512);
    }
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// A host that says once that a chunk is dirty, and then that none is: the bulk phase leaves the chunk to the
/// dirty phase, which does not find it. Nothing may be called complete that was never sent.
#[test]
fn a_chunk_that_neither_phase_has_sent_is_missed_at_the_end() {
    let mut fixture = Fixture::one(1, 3, QUICK);
    fixture.setup().unwrap();
    let asked = Cell::new(0);
    let lie = move |machine: &Machine, call| {
        asked.set(asked.get() + u32::from(call == Call::IsDirty));
        machine.disks.borrow_mut()[0].dirty[0] = call == Call::IsDirty && asked.get() == 1;
    };
    *fixture.source.script.borrow_mut() = Some(Rc::new(lie));
    assert_eq!(fixture.complete(), Err(Error::Unfinished(512)));
    fixture.check_released();
}

/// The same in the dirty phase: a copy that is not sent, since its chunk was said to be dirty again, must be missed.
#[test]
fn a_copy_that_was_dropped_for_a_dirty_bit_that_never_was_is_missed_at_the_end() {
    let mut refused = 0;
    for lie_at in 1..20 {
        let mut fixture = Fixture::one(1, 4, QUICK);
        fixture.setup().unwrap();
        fixture.run_dry();
        fixture.write(0, 0..2, 300);
        let asked = Cell::new(0);
        let lie = move |machine: &Machine, call| {
            asked.set(asked.get() + u32::from(call == Call::IsDirty));
            if asked.get() == lie_at {
                machine.disks.borrow_mut()[0].dirty[0] = call == Call::IsDirty;
            }
        };
        *fixture.source.script.borrow_mut() = Some(Rc::new(lie));
        fixture.iterate().unwrap();
        *fixture.source.script.borrow_mut() = None;
        let lacking = fixture.lacking(0);
        match fixture.complete() {
            Ok(()) => assert_eq!(fixture.lacking(0), 0, "completed, but {lacking} bytes lack; the lie was at {lie_at}"),
            Err(error) => {
                assert_eq!(error, Error::Unfinished(512));
                refused += 1;
            }
        }
        fixture.stream.close();
        fixture.check_released();
    }
    assert!(refused > 0, "no lie made the source drop a copy");
}
