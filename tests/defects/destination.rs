// SPDX-License-Identifier: GPL-2.0-only
//! Rows about the incoming side. The sections are made here by hand.

use blkmig::error::{Errno, Error};
use blkmig::settings::Options;

use crate::bench::{Bench, PLAIN, QUICK, record};
use crate::sim::disk::{Kind, pattern};
use crate::sim::machine::Features;
use crate::sim::{Call, Rng};

const END: u64 = 2;

fn word(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// A chunk's data: each sector with a pattern of its own.
fn payload(sector: u64, sectors: u64) -> Vec<u8> {
    (sector..sector + sectors).flat_map(|sector| pattern(sector, 300)).collect()
}

fn block(sector: u64, name: &str, data: &[u8]) -> Vec<u8> {
    [word(sector << 9 | 1), vec![u8::try_from(name.len()).unwrap()], name.as_bytes().to_vec(), data.to_vec()].concat()
}

fn zero_block(sector: u64, name: &str) -> Vec<u8> {
    [word(sector << 9 | 9), vec![u8::try_from(name.len()).unwrap()], name.as_bytes().to_vec()].concat()
}

fn section(records: &[Vec<u8>]) -> Vec<u8> {
    [records.concat(), word(END)].concat()
}

/// Hosts that write in each of the ways there are.
fn hosts() -> Vec<Features> {
    let asynchronous = Features { async_writes: true, wait: true, ..PLAIN };
    let zeroes = Features { write_zeroes: true, cluster: Some(512), ..PLAIN };
    vec![PLAIN, asynchronous, zeroes, Features { write_zeroes: true, known_zero: true, ..asynchronous }]
}

#[test]
fn row_14_an_address_past_the_end_is_refused() {
    for features in hosts() {
        for sector in [10, 11, 12, 1 << 31, (1 << 31) + 4, 1 << 32, (1 << 32) + 4, (1 << 55) - 1] {
            for zero in [false, true] {
                let bench = Bench::one(4, 10, features);
                let bad = if zero { zero_block(sector, "hd0") } else { block(sector, "hd0", &payload(0, 4)) };
                let error = bench.load(&section(&[bad])).unwrap_err();
                let expected = Error::Address { device: "hd0".into(), sector, total: 10 };
                assert_eq!(error, expected);
                assert_eq!(error.errno(), Errno::INVALID);
                assert_eq!(bench.changed(0), [] as [u64; 0], "nothing is written");
                bench.check_released();
            }
        }
    }
}

#[test]
fn row_15_a_stream_cut_anywhere_writes_nothing_stale() {
    let whole = section(&[block(0, "hd0", &payload(0, 2)), zero_block(2, "hd0"), block(4, "hd0", &payload(4, 2))]);
    for features in hosts() {
        for length in 0..whole.len() {
            let bench = Bench::one(2, 6, features);
            let error = bench.load(&whole[..length]).unwrap_err();
            assert!(matches!(error, Error::Short(_)), "{error}");
            assert_eq!(error.errno(), Errno::IO);
            // Whole records may have been written, and nothing else.
            let allowed: &[u64] = match length {
                0..1036 => &[],
                1036..1048 => &[0, 1],
                1048..2084 => &[0, 1, 2, 3],
                _ => &[0, 1, 2, 3, 4, 5],
            };
            let changed = bench.changed(0);
            assert!(changed.iter().all(|sector| allowed.contains(sector)), "cut at {length}: {changed:?}");
            bench.check_released();
        }
        let bench = Bench::one(2, 6, features);
        bench.load(&whole).unwrap();
        assert_eq!(bench.changed(0), [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn row_16_a_tail_is_written_as_long_as_it_is() {
    // The simulated device reports a write past its end.
    for features in hosts() {
        for cluster in [None, Some(1024), Some(4096)] {
            for sectors in 1..12_u64 {
                let bench = Bench::one(4, sectors, Features { cluster, ..features });
                let records: Vec<_> = (0..sectors.div_ceil(4))
                    .map(|chunk| {
                        let mut data = payload(chunk * 4, 4);
                        let length = (sectors - chunk * 4).min(4) as usize * 512;
                        data[length..].fill(0);
                        block(chunk * 4, "hd0", &data)
                    })
                    .collect();
                bench.load(&section(&records)).unwrap();
                assert_eq!(bench.destination.disks.borrow()[0].data, payload(0, sectors));
                let zeroes: Vec<_> = (0..sectors.div_ceil(4)).map(|chunk| zero_block(chunk * 4, "hd0")).collect();
                bench.load(&section(&zeroes)).unwrap();
                assert_eq!(bench.destination.disks.borrow()[0].data, vec![0; sectors as usize * 512]);
                bench.check_released();
            }
        }
    }
}

#[test]
fn row_17_an_unusable_target_is_named() {
    for (kind, what) in [
        (Kind::ReadOnly, "device hd1 is read-only"),
        (Kind::Gone, "device hd1: No medium found"),
        (Kind::NoMedium, "device hd1: No medium found"),
        (Kind::Empty, "device hd1: Invalid argument"),
    ] {
        let bench = Bench::new(1, &[("hd0", Kind::Normal, 4), ("hd1", kind, 4)], PLAIN, Options::default());
        let error = bench.load(&section(&[block(0, "hd1", &payload(0, 1))])).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(bench.to.last_error(), error.to_string());
        bench.check_released();
        // The module is as good as before.
        bench.load(&section(&[block(0, "hd0", &payload(0, 1))])).unwrap();
        assert_eq!(bench.changed(0), [0]);
    }
    let bench = Bench::one(1, 4, PLAIN);
    let error = bench.load(&section(&[block(0, "other", &payload(0, 1))])).unwrap_err();
    assert_eq!(error.to_string(), "Error unknown block device other");
    assert_eq!(error.errno(), Errno::INVALID);
}

#[test]
fn row_18_only_the_flags_of_the_table_are_taken() {
    for flags in 0..512_u64 {
        let bench = Bench::one(1, 8, PLAIN);
        // Whatever the flags stand for, what follows would do for it.
        let record = [word(3 << 9 | flags), vec![3], b"hd0".to_vec(), payload(3, 1)].concat();
        let result = match flags {
            // A zero block has no payload; after progress and end, a section goes on or is over.
            0x09 => bench.load(&section(&[zero_block(3, "hd0")])),
            0x04 => bench.load(&section(&[word(3 << 9 | flags)])),
            _ => bench.load(&section(&[record])),
        };
        if matches!(flags, 0x01 | 0x09 | 0x04) {
            assert_eq!(result, Ok(()), "{flags:#x}");
        } else {
            let error = result.unwrap_err();
            assert_eq!(error, Error::Flags { flags, header: 3 << 9 | flags });
            assert_eq!(error.errno(), Errno::INVALID);
            assert!(error.to_string().contains(&format!("{flags:#x}")), "{error}");
            assert_eq!(bench.changed(0), [] as [u64; 0]);
        }
        bench.check_released();
    }
}

#[test]
fn row_18_progress_is_a_percentage() {
    for percent in [0, 1, 99, 100, 101, 255, 256, 1 << 40] {
        let bench = Bench::one(1, 8, PLAIN);
        let result = bench.load(&section(&[word(percent << 9 | 4)]));
        if percent <= 100 {
            assert_eq!(result, Ok(()));
        } else {
            assert_eq!(result, Err(Error::Progress(percent)));
            assert_eq!(Error::Progress(percent).errno(), Errno::INVALID);
        }
    }
}

#[test]
fn a_chunk_that_is_sent_twice_is_written_in_that_order() {
    for features in hosts() {
        for immediate in [0, 500] {
            for (old, new) in [(true, false), (false, true)] {
                let features = Features { immediate, cluster: Some(512), ..features };
                let bench = Bench::one(2, 6, features);
                let make = |zero| if zero { zero_block(2, "hd0") } else { block(2, "hd0", &payload(2, 2)) };
                bench.load(&section(&[make(old), make(new)])).unwrap();
                let expected = if new { vec![0; 1024] } else { payload(2, 2) };
                assert_eq!(bench.destination.disks.borrow()[0].data[1024..2048], expected);
                bench.check_released();
            }
        }
    }
}

/// A write that fails is reported with its place, and no write is in flight when the load returns.
#[test]
fn a_failed_write_ends_the_load() {
    for features in hosts() {
        let bench = Bench::one(1, 6, features);
        bench.load(&section(&[zero_block(0, "hd0")])).unwrap();
        bench.sim.error_rate.set(0);
        let script = |machine: &crate::sim::machine::Machine, call| {
            use crate::sim::Call::{Write, WriteAsync, WriteZeroes};
            machine.sim.error_rate.set(if matches!(call, Write | WriteAsync | WriteZeroes) { 10_000 } else { 0 });
        };
        *bench.destination.script.borrow_mut() = Some(std::rc::Rc::new(script));
        let error =
            bench.load(&section(&[block(4, "hd0", &payload(4, 1)), block(5, "hd0", &payload(5, 1))])).unwrap_err();
        assert!(
            matches!(&error, Error::Write { device, sector: 4 | 5, errno: Errno::IO } if device.as_bytes() == b"hd0"),
            "{error}"
        );
        bench.check_released();
    }
}

/// One buffer is enough for anything: zeroes before a block, zeroes in it, on hosts that have nothing for them.
#[test]
fn one_buffer_is_enough() {
    for unsupported in [false, true] {
        let options = Options { max_buffers: 1, ..Options::default() };
        let features =
            Features { write_zeroes: unsupported, zeroes_unsupported: unsupported, cluster: Some(512), ..QUICK };
        let bench = Bench::new(2, &[("hd0", Kind::Normal, 8)], features, options);
        let half = [payload(4, 1), vec![0; 512]].concat();
        let records =
            [zero_block(0, "hd0"), block(0, "hd0", &half), block(4, "hd0", &half), block(6, "hd0", &payload(6, 2))];
        bench.load(&section(&records)).unwrap();
        assert_eq!(bench.to.status().buffers(), (0, 1));
        bench.check_released();
    }
}

/// Old peers never send such blocks, but nothing forbids them; where two overlap, the later one holds.
#[test]
fn blocks_that_overlap_are_written_in_that_order() {
    for features in hosts() {
        for immediate in [0, 500, 1000] {
            let bench = Bench::one(4, 11, Features { immediate, cluster: Some(512), ..features });
            let records = [
                block(0, "hd0", &payload(0, 4)),
                zero_block(2, "hd0"),
                block(5, "hd0", &[payload(5, 2), vec![0; 1024]].concat()),
                zero_block(9, "hd0"),
                block(7, "hd0", &payload(7, 4)),
            ];
            bench.load(&section(&records)).unwrap();
            let expected = [payload(0, 2), vec![0; 3 * 512], payload(5, 6)].concat();
            assert_eq!(bench.destination.disks.borrow()[0].data, expected);
            bench.check_released();
        }
    }
}

/// Hosts that know of zeroes bit by bit, as where a metadata cache ends: neither side reads or writes what both know.
#[test]
fn zeroes_that_are_told_of_bit_by_bit_stay_thin() {
    let features = Features { known_zero: true, tiny_extents: true, write_zeroes: true, ..QUICK };
    let options = Options { zero_blocks: true, ..Options::default() };
    let mut bench = Bench::new(4, &[("hd0", Kind::Normal, 41)], features, options);
    bench.write(0, 0..41, 0);
    bench.destination.disks.borrow_mut()[0].stamp(0..41, 0);
    let calls = [&bench.source, &bench.destination].map(|machine| record(machine));
    bench.setup().unwrap();
    bench.run_dry();
    bench.complete().unwrap();
    bench.check_migrated();
    let useless = [Call::Read, Call::Write, Call::WriteZeroes];
    assert!(!calls.iter().any(|calls| calls.borrow().iter().any(|call| useless.contains(call))));
}

/// Streams of anything: they fail or load, and nothing out of order happens on the way.
#[test]
fn hostile_streams_are_harmless() {
    let rng = Rng::new(14);
    let mut loaded = 0;
    for round in 0..4000 {
        let features = rng.pick(&hosts());
        let options =
            Options { max_buffers: rng.pick(&[0, 1, 2]), max_writes: rng.pick(&[0, 1]), ..Options::default() };
        let disks = [("hd0", Kind::Normal, 1 + rng.below(12)), ("ro", Kind::ReadOnly, 4), ("hd1", Kind::Normal, 4)];
        let bench = Bench::new(4, &disks, features, options);
        let mut stream = Vec::new();
        for _ in 0..rng.below(6) {
            let name = rng.pick(&["hd0", "hd0", "hd0", "hd0", "hd1", "ro", "none", "", "hd\0"]);
            let sector = if rng.chance(800) { rng.below(4) } else { rng.next() >> rng.below(64) & (u64::MAX >> 9) };
            let data: Vec<u8> = if rng.chance(300) { vec![0; 2048] } else { payload(rng.below(100), 4) };
            match rng.below(20) {
                0 => stream.extend(rng.next().to_be_bytes()),
                1 => stream.extend((0..rng.below(40)).map(|_| rng.next() as u8)),
                2..8 => stream.extend(zero_block(sector, name)),
                8..10 => stream.extend(word(rng.below(101) << 9 | 4)),
                _ => stream.extend(block(sector, name, &data)),
            }
        }
        stream.extend(word(END));
        if rng.chance(200) {
            stream.truncate(rng.index(stream.len()));
        }
        let result = bench.load(&stream);
        loaded += u32::from(result.is_ok());
        assert_eq!(result.is_err(), !bench.to.last_error().is_empty(), "round {round}");
        bench.check_released();
    }
    assert!(loaded > 400, "too few of them are good: {loaded}");
}
