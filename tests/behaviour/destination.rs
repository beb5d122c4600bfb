// SPDX-License-Identifier: GPL-2.0-only
//! What the destination accepts, refuses, writes and flushes. The tests make the sections by hand.

use blkmig::error::{Errno, Error};
use blkmig::settings::Options;

use crate::fixture::{Fixture, PLAIN, QUICK, record};
use crate::sim::disk::{Kind, pattern};
use crate::sim::machine::Features;
use crate::sim::stream::InStream;
use crate::sim::{Call, Rng};

const END: u64 = 2;

fn word(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// The data of a chunk: each sector has its own pattern.
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

/// Hosts with each way of writing.
fn hosts() -> Vec<Features> {
    let asynchronous = Features { async_writes: true, wait: true, ..PLAIN };
    let zeroes = Features { write_zeroes: true, cluster: Some(512), ..PLAIN };
    vec![PLAIN, asynchronous, zeroes, Features { write_zeroes: true, known_zero: true, ..asynchronous }]
}

/// B-14: addresses are checked as 64-bit numbers before anything is written.
#[test]
fn an_address_past_the_end_of_the_device_is_refused() {
    for features in hosts() {
        for sector in [10, 11, 12, 1 << 31, (1 << 31) + 4, 1 << 32, (1 << 32) + 4, (1 << 55) - 1] {
            for zero in [false, true] {
                let fixture = Fixture::one(4, 10, features);
                let bad = if zero { zero_block(sector, "hd0") } else { block(sector, "hd0", &payload(0, 4)) };
                let error = fixture.load(&section(&[bad])).unwrap_err();
                let expected = Error::Address { device: "hd0".into(), sector, total: 10 };
                assert_eq!(error, expected);
                assert_eq!(error.errno(), Errno::INVALID);
                assert_eq!(fixture.changed(0), [] as [u64; 0], "nothing is written");
                fixture.check_released();
            }
        }
    }
}

/// B-15: a short read is noticed before the write, so no old memory reaches the disk.
#[test]
fn a_stream_cut_at_any_byte_writes_no_partial_record() {
    let whole = section(&[block(0, "hd0", &payload(0, 2)), zero_block(2, "hd0"), block(4, "hd0", &payload(4, 2))]);
    for features in hosts() {
        for length in 0..whole.len() {
            let fixture = Fixture::one(2, 6, features);
            let error = fixture.load(&whole[..length]).unwrap_err();
            assert!(matches!(error, Error::Short(_)), "{error}");
            assert_eq!(error.errno(), Errno::IO);
            // Whole records may have been written, and nothing else.
            let allowed: &[u64] = match length {
                0..1036 => &[],
                1036..1048 => &[0, 1],
                1048..2084 => &[0, 1, 2, 3],
                _ => &[0, 1, 2, 3, 4, 5],
            };
            let changed = fixture.changed(0);
            assert!(changed.iter().all(|sector| allowed.contains(sector)), "cut at {length}: {changed:?}");
            fixture.check_released();
        }
        let fixture = Fixture::one(2, 6, features);
        fixture.load(&whole).unwrap();
        assert_eq!(fixture.changed(0), [0, 1, 2, 3, 4, 5]);
    }
}

/// B-16: exactly the device's sectors are written, whatever its cluster size.
#[test]
fn the_last_chunk_is_written_up_to_the_end_of_the_device() {
    // The simulated device reports a write past its end.
    for features in hosts() {
        for cluster in [None, Some(1024), Some(4096)] {
            for sectors in 1..12_u64 {
                let fixture = Fixture::one(4, sectors, Features { cluster, ..features });
                let records: Vec<_> = (0..sectors.div_ceil(4))
                    .map(|chunk| {
                        let mut data = payload(chunk * 4, 4);
                        let length = (sectors - chunk * 4).min(4) as usize * 512;
                        data[length..].fill(0);
                        block(chunk * 4, "hd0", &data)
                    })
                    .collect();
                fixture.load(&section(&records)).unwrap();
                assert_eq!(fixture.destination.disks.borrow()[0].data, payload(0, sectors));
                let zeroes: Vec<_> = (0..sectors.div_ceil(4)).map(|chunk| zero_block(chunk * 4, "hd0")).collect();
                fixture.load(&section(&zeroes)).unwrap();
                assert_eq!(fixture.destination.disks.borrow()[0].data, vec![0; sectors as usize * 512]);
                fixture.check_released();
            }
        }
    }
}

/// B-17: a read-only, missing or unknown device is an error, and the instance can be used again.
#[test]
fn an_unusable_target_gives_an_error_that_names_it() {
    for (kind, what) in [
        (Kind::ReadOnly, "device hd1 is read-only"),
        (Kind::Gone, "device hd1: No medium found"),
        (Kind::NoMedium, "device hd1: No medium found"),
        (Kind::Empty, "device hd1: Invalid argument"),
    ] {
        let fixture = Fixture::new(1, &[("hd0", Kind::Normal, 4), ("hd1", kind, 4)], PLAIN, Options::default());
        let error = fixture.load(&section(&[block(0, "hd1", &payload(0, 1))])).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(fixture.to.last_error(), error.to_string());
        fixture.check_released();
        // The same instance can load again.
        fixture.load(&section(&[block(0, "hd0", &payload(0, 1))])).unwrap();
        assert_eq!(fixture.changed(0), [0]);
    }
    let fixture = Fixture::one(1, 4, PLAIN);
    let error = fixture.load(&section(&[block(0, "other", &payload(0, 1))])).unwrap_err();
    assert_eq!(error.to_string(), "Error unknown block device other");
    assert_eq!(error.errno(), Errno::INVALID);
}

/// B-18: of the 512 combinations of flags three are data or progress; all others give -EINVAL with their value.
#[test]
fn records_with_unknown_or_mixed_flags_are_refused() {
    for flags in 0..512_u64 {
        let fixture = Fixture::one(1, 8, PLAIN);
        // Whatever the flags mean, a fitting payload follows.
        let record = [word(3 << 9 | flags), vec![3], b"hd0".to_vec(), payload(3, 1)].concat();
        let result = match flags {
            // A zero block and a progress record have no payload.
            0x09 => fixture.load(&section(&[zero_block(3, "hd0")])),
            0x04 => fixture.load(&section(&[word(3 << 9 | flags)])),
            _ => fixture.load(&section(&[record])),
        };
        if matches!(flags, 0x01 | 0x09 | 0x04) {
            assert_eq!(result, Ok(()), "{flags:#x}");
        } else if flags == 0x10 {
            // A record of the extended stream, which has a first record.
            assert_eq!(result, Err(Error::NotStarted));
        } else {
            let error = result.unwrap_err();
            assert_eq!(error, Error::Flags { flags, header: 3 << 9 | flags });
            assert_eq!(error.errno(), Errno::INVALID);
            assert!(error.to_string().contains(&format!("{flags:#x}")), "{error}");
            assert_eq!(fixture.changed(0), [] as [u64; 0]);
        }
        fixture.check_released();
    }
}

/// B-18: a progress record holds a percentage.
#[test]
fn progress_over_100_percent_is_refused() {
    for percent in [0, 1, 99, 100, 101, 255, 256, 1 << 40] {
        let fixture = Fixture::one(1, 8, PLAIN);
        let result = fixture.load(&section(&[word(percent << 9 | 4)]));
        if percent <= 100 {
            assert_eq!(result, Ok(()));
        } else {
            assert_eq!(result, Err(Error::Progress(percent)));
            assert_eq!(Error::Progress(percent).errno(), Errno::INVALID);
        }
    }
}

#[test]
fn a_chunk_that_is_sent_twice_is_written_in_order() {
    for features in hosts() {
        for immediate in [0, 500] {
            for (old, new) in [(true, false), (false, true)] {
                let features = Features { immediate, cluster: Some(512), ..features };
                let fixture = Fixture::one(2, 6, features);
                let make = |zero| if zero { zero_block(2, "hd0") } else { block(2, "hd0", &payload(2, 2)) };
                fixture.load(&section(&[make(old), make(new)])).unwrap();
                let expected = if new { vec![0; 1024] } else { payload(2, 2) };
                assert_eq!(fixture.destination.disks.borrow()[0].data[1024..2048], expected);
                fixture.check_released();
            }
        }
    }
}

/// The error has the device and the sector, and no write is in flight when the load returns.
#[test]
fn a_failed_write_fails_the_load() {
    for features in hosts() {
        let fixture = Fixture::one(1, 6, features);
        fixture.load(&section(&[zero_block(0, "hd0")])).unwrap();
        fixture.sim.error_rate.set(0);
        let script = |machine: &crate::sim::machine::Machine, call| {
            use crate::sim::Call::{Write, WriteAsync, WriteZeroes};
            machine.sim.error_rate.set(if matches!(call, Write | WriteAsync | WriteZeroes) { 10_000 } else { 0 });
        };
        *fixture.destination.script.borrow_mut() = Some(std::rc::Rc::new(script));
        let error =
            fixture.load(&section(&[block(4, "hd0", &payload(4, 1)), block(5, "hd0", &payload(5, 1))])).unwrap_err();
        assert!(
            matches!(&error, Error::Write { device, sector: 4 | 5, errno: Errno::IO } if device.as_bytes() == b"hd0"),
            "{error}"
        );
        fixture.check_released();
    }
}

/// Even for zero blocks, and zeroes inside a block, on hosts that cannot write zeroes by themselves.
#[test]
fn one_buffer_is_enough_to_load_any_section() {
    for unsupported in [false, true] {
        let options = Options { max_buffers: 1, ..Options::default() };
        let features =
            Features { write_zeroes: unsupported, zeroes_unsupported: unsupported, cluster: Some(512), ..QUICK };
        let fixture = Fixture::new(2, &[("hd0", Kind::Normal, 8)], features, options);
        let half = [payload(4, 1), vec![0; 512]].concat();
        let records =
            [zero_block(0, "hd0"), block(0, "hd0", &half), block(4, "hd0", &half), block(6, "hd0", &payload(6, 2))];
        fixture.load(&section(&records)).unwrap();
        assert_eq!(fixture.to.status().buffers(), (0, 1));
        fixture.check_released();
    }
}

/// No known source sends blocks that overlap, but the format allows them; the later block wins.
#[test]
fn blocks_that_overlap_are_written_in_order() {
    for features in hosts() {
        for immediate in [0, 500, 1000] {
            let fixture = Fixture::one(4, 11, Features { immediate, cluster: Some(512), ..features });
            let records = [
                block(0, "hd0", &payload(0, 4)),
                zero_block(2, "hd0"),
                block(5, "hd0", &[payload(5, 2), vec![0; 1024]].concat()),
                zero_block(9, "hd0"),
                block(7, "hd0", &payload(7, 4)),
            ];
            fixture.load(&section(&records)).unwrap();
            let expected = [payload(0, 2), vec![0; 3 * 512], payload(5, 6)].concat();
            assert_eq!(fixture.destination.disks.borrow()[0].data, expected);
            fixture.check_released();
        }
    }
}

/// Each answer of the host covers one sector, as at the end of a metadata cache. Still, neither side reads or writes
/// sectors that both know to be zero.
#[test]
fn zeroes_known_sector_by_sector_are_neither_read_nor_written() {
    let features = Features { known_zero: true, tiny_extents: true, write_zeroes: true, ..QUICK };
    let options = Options { zero_blocks: true, ..Options::default() };
    let mut fixture = Fixture::new(4, &[("hd0", Kind::Normal, 41)], features, options);
    fixture.write(0, 0..41, 0);
    fixture.destination.disks.borrow_mut()[0].stamp(0..41, 0);
    let calls = [&fixture.source, &fixture.destination].map(|machine| record(machine));
    fixture.setup().unwrap();
    fixture.run_dry();
    fixture.complete().unwrap();
    fixture.check_migrated();
    let useless = [Call::Read, Call::Write, Call::WriteZeroes];
    assert!(!calls.iter().any(|calls| calls.borrow().iter().any(|call| useless.contains(call))));
}

/// No check of the simulator may fail meanwhile.
#[test]
fn random_streams_fail_or_load_and_do_no_harm() {
    let rng = Rng::new(14);
    let mut loaded = 0;
    for round in 0..4000 {
        let features = rng.pick(&hosts());
        let options =
            Options { max_buffers: rng.pick(&[0, 1, 2]), max_writes: rng.pick(&[0, 1]), ..Options::default() };
        let disks = [("hd0", Kind::Normal, 1 + rng.below(12)), ("ro", Kind::ReadOnly, 4), ("hd1", Kind::Normal, 4)];
        let fixture = Fixture::new(4, &disks, features, options);
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
        let result = fixture.load(&stream);
        loaded += u32::from(result.is_ok());
        assert_eq!(result.is_err(), !fixture.to.last_error().is_empty(), "round {round}");
        fixture.check_released();
    }
    assert!(loaded > 400, "too few of the random streams are valid: {loaded}");
}

#[test]
fn written_data_are_flushed_before_the_last_load_returns() {
    let chunk = [(1_u64).to_be_bytes().to_vec(), vec![3], b"hd0".to_vec(), pattern(0, 300).to_vec()].concat();
    let section = |percent: u64| [(percent << 9 | 4).to_be_bytes(), 2_u64.to_be_bytes()].concat();
    let fixture = Fixture::one(1, 5, PLAIN);
    let calls = record(&fixture.destination);
    fixture.load(&[chunk.clone(), section(99)].concat()).unwrap();
    assert!(!calls.borrow().contains(&Call::Flush));
    fixture.load(&section(100)).unwrap();
    assert!(calls.borrow().contains(&Call::Flush));
    {
        let disks = fixture.destination.disks.borrow();
        assert_eq!(disks[0].stable, disks[0].data);
    }
    // Large amounts are flushed earlier, because the guest waits during the last flush.
    calls.borrow_mut().clear();
    for chunk_number in 0..600 {
        fixture.load(&[chunk.clone(), section(99)].concat()).unwrap();
        let flushes = calls.borrow().iter().filter(|call| **call == Call::Flush).count();
        assert_eq!(flushes, (chunk_number + 1) / 256);
    }
    // A device that cannot be flushed fails the load, and the error names it.
    fixture.load(&[chunk, section(99)].concat()).unwrap();
    fixture.destination.disks.borrow_mut()[0].reported_length = Some(Err(Errno::NO_MEDIUM));
    let error = fixture.load(&section(100)).unwrap_err();
    assert_eq!(error.to_string(), "can't flush device hd0: No medium found");
    fixture.check_released();
}

#[test]
fn data_past_the_end_of_a_shorter_device_are_refused() {
    let block = [1_u64.to_be_bytes().to_vec(), vec![3], b"hd0".to_vec(), vec![7; 4 * 512]].concat();
    let section = [block, 2_u64.to_be_bytes().to_vec()].concat();
    for accept in [false, true] {
        let options = Options { accept_tail_garbage: accept, ..Options::default() };
        let fixture = Fixture::new(4, &[("hd0", Kind::Normal, 3)], PLAIN, options);
        let short = Error::TooShort { device: "hd0".into(), length: 3 * 512, source_length: 4 * 512 };
        assert_eq!(fixture.load(&section), if accept { Ok(()) } else { Err(short) });
        assert_eq!(fixture.changed(0).len(), if accept { 3 } else { 0 });
        fixture.check_released();
    }
}

#[test]
fn a_section_of_a_newer_version_is_refused() {
    let fixture = Fixture::one(1, 4, QUICK);
    assert_eq!(
        fixture.to.load(&mut InStream::new(&fixture.destination, &word(END)), 2),
        Err(Error::Version { version: 2, newest: 1 })
    );
    assert_eq!(fixture.to.load(&mut InStream::new(&fixture.destination, &word(END)), 1), Ok(()));
}
