// SPDX-License-Identifier: GPL-2.0-only
//! The extended stream: what it carries, what the destination refuses of it, and what the source says of the guest.

use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use blkmig::error::{Errno, Error};
use blkmig::extended::{Entry, HEADER_BYTES, Header, Kind, Start, Total};
use blkmig::settings::Options;
use blkmig::wire::Record;

use crate::fixture::{Fixture, PLAIN, QUICK, record};
use crate::log_messages::logged;
use crate::sim::disk::{Kind as DiskKind, pattern};
use crate::sim::machine::{Features, Machine};
use crate::sim::{Call, Rng};

pub(crate) const EXTENDED: Options = Options {
    max_buffers: 0,
    max_reads: 0,
    max_writes: 0,
    zero_blocks: false,
    accept_tail_garbage: false,
    stream: 2,
    compression: 0,
};

/// One device, "hd0".
fn extended(chunk: u32, sectors: u64, features: Features) -> Fixture {
    Fixture::new(chunk, &[("hd0", DiskKind::Normal, sectors)], features, EXTENDED)
}

fn two_devices() -> Fixture {
    Fixture::new(4, &[("hd0", DiskKind::Normal, 8), ("hd1", DiskKind::Normal, 8)], QUICK, EXTENDED)
}

/// Records made by hand, numbered and with their checksums.
#[derive(Default)]
pub(crate) struct Records {
    pub(crate) bytes: Vec<u8>,
    pub(crate) number: u64,
    total: Total,
}

impl Records {
    /// The first section, with the table of one device.
    pub(crate) fn start(name: &str, bytes: u64) -> Records {
        let entry = Entry { name: name.into(), bytes, unit: 512 };
        let table = Start { required: 1, optional: 0, devices: vec![entry] }.encode().expect("it is short");
        let mut records = Records::default();
        records.put(Kind::Start, 0, 0..0, &table);
        records.put(Kind::End, 0, 0..0, &[]);
        records
    }

    pub(crate) fn put(&mut self, kind: Kind, device: u32, sectors: Range<u64>, payload: &[u8]) {
        let (sector, sectors) = (sectors.start, sectors.end - sectors.start);
        self.put_raw(
            Header { kind, number: self.number, device, length: payload.len() as u32, sector, sectors },
            payload,
        );
    }

    fn put_raw(&mut self, header: Header, payload: &[u8]) {
        let (header_bytes, sum) = header.encode(payload);
        self.bytes.extend(header_bytes);
        self.bytes.extend(payload);
        self.number += 1;
        if matches!(header.kind, Kind::Data | Kind::Zstd | Kind::Zeroes) {
            self.total.note(sum);
        }
    }

    /// The end of the last section.
    pub(crate) fn end(&mut self) {
        let total = self.total.encode();
        self.put(Kind::Totals, 0, 0..0, &total);
        self.put(Kind::End, 0, 100..100, &[]);
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// The records of a section: their headers and payloads.
fn records(mut section: &[u8]) -> Vec<(Header, &[u8])> {
    let mut records = Vec::new();
    while let Some((header, rest)) = section.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(header).expect("the section is right");
        let (payload, rest) = rest.split_at(header.length as usize);
        records.push((header, payload));
        section = rest;
    }
    records
}

type Change = fn(&mut crate::sim::disk::Disk);

#[test]
fn a_wrong_destination_is_refused_with_the_first_section() {
    let shorter = "device hd1 is 3584 bytes long, but the source's 4096: what is past the end would be lost";
    let changes: [(Change, &str, Errno); 5] = [
        (|disk| disk.name = b"hd2".to_vec(), "Error unknown block device hd1", Errno::INVALID),
        (|disk| disk.kind = DiskKind::ReadOnly, "device hd1 is read-only", Errno::READ_ONLY),
        (|disk| disk.data.truncate(7 * 512), shorter, Errno::INVALID),
        (|disk| disk.kind = DiskKind::Gone, "can't take a reference to device hd1: No medium found", Errno::NO_MEDIUM),
        (
            |disk| disk.kind = DiskKind::Empty,
            "Error getting length of block device hd1: Invalid argument",
            Errno::INVALID,
        ),
    ];
    for (change, text, errno) in changes {
        let mut fixture = two_devices();
        change(&mut fixture.destination.disks.borrow_mut()[1]);
        fixture.setup().unwrap();
        let error = fixture.load(&fixture.sections[0]).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.errno()), (text, errno));
        assert_eq!(fixture.to.last_error(), text);
        assert_eq!([fixture.changed(0), fixture.changed(1)], [[0; 0]; 2], "nothing is written");
        // What comes next is refused, too.
        fixture.iterate().unwrap();
        assert_eq!(fixture.load(&fixture.sections[1]), Err(Error::NotStarted));
        assert_eq!(fixture.changed(0), [0; 0]);
    }
}

#[test]
fn a_longer_device_is_accepted_with_a_warning_and_keeps_what_it_has_past_the_end() {
    let mut fixture = two_devices();
    fixture.destination.disks.borrow_mut()[1].data.extend([7; 3 * 512]);
    fixture.setup().unwrap();
    fixture.run_dry();
    fixture.complete().unwrap();
    let lines = logged(log::Level::Warn, || {
        for section in &fixture.sections {
            fixture.load(section).unwrap();
        }
    });
    let warning = "device hd1 is 5632 bytes long, the source's 4096: what is past that stays as it is";
    assert_eq!(lines, [warning]);
    let disks = fixture.destination.disks.borrow();
    assert_eq!(disks[1].data[..8 * 512], fixture.source.disks.borrow()[1].data);
    assert_eq!(disks[1].data[8 * 512..], [7; 3 * 512]);
}

#[test]
fn a_destination_that_knows_the_classic_stream_alone_refuses_the_first_word() {
    let mut fixture = two_devices();
    fixture.setup().unwrap();
    let word = fixture.sections[0][..8].try_into().unwrap();
    let refused = Record::decode(word, |_, _| unreachable!("it reads no further")).unwrap_err();
    assert_eq!(refused.to_string(), "Unknown flags 0x10 in the record with header 0x0000000000000010");
}

#[test]
fn a_wrong_option_is_refused_by_name() {
    let fixture = Fixture::one(4, 8, PLAIN);
    let options = |stream, compression| Options { stream, compression, ..Options::default() };
    let needs = "but the classic stream can't be compressed: stream must be 2";
    for (wrong, text) in [
        (options(3, 0), "stream is 3; it may be 0 to 2".to_owned()),
        (options(u32::MAX, 0), "stream is 4294967295; it may be 0 to 2".to_owned()),
        (options(2, 20), "compression is 20; it may be -7 to 19".to_owned()),
        (options(2, -8), "compression is -8; it may be -7 to 19".to_owned()),
        (options(0, i32::MIN), "compression is -2147483648; it may be -7 to 19".to_owned()),
        (options(0, 1), format!("compression is 1, {needs}")),
        (options(1, -1), format!("compression is -1, {needs}")),
    ] {
        let error = fixture.from.set_options(wrong).unwrap_err();
        assert_eq!((error.to_string(), error.errno()), (text, Errno::INVALID));
    }
    for right in [options(0, 0), options(1, 0), options(2, 0), options(2, -7), options(2, 19)] {
        assert_eq!(fixture.from.set_options(right), Ok(()));
    }
}

#[test]
fn the_dirty_phase_reads_and_sends_the_dirty_runs_alone() {
    for next_dirty in [false, true] {
        let mut fixture = extended(8, 33, Features { next_dirty, ..PLAIN });
        fixture.source.disks.borrow_mut()[0].set_unit(1);
        fixture.setup().unwrap();
        fixture.run_dry();
        for sectors in [3..5, 7..8, 9..10, 15..17, 32..33] {
            fixture.write(0, sectors, 300);
        }
        assert_eq!(fixture.from.pending(), 7 * 512);
        let before = fixture.sections.len();
        let mut reads = Vec::new();
        while fixture.from.pending() > 0 {
            fixture.iterate().unwrap();
            reads.extend(fixture.source.ios.borrow().iter().map(|io| io.sectors.start.0..io.sectors.end().0));
            fixture.settle();
        }
        reads.sort_by_key(|run| run.start);
        // A run ends where its chunk does.
        assert_eq!(reads, [3..5, 7..8, 9..10, 15..16, 16..17, 32..33]);
        let mut sent: Vec<_> = fixture.sections[before..].iter().flat_map(|section| records(section)).collect();
        sent.retain(|(header, _)| header.kind != Kind::End);
        assert!(
            sent.iter().all(|(header, data)| header.kind == Kind::Data && data.len() as u64 == header.sectors * 512)
        );
        let mut sent: Vec<_> = sent.iter().map(|(header, _)| header.sector..header.sector + header.sectors).collect();
        sent.sort_by_key(|run| run.start);
        assert_eq!(sent, reads);
        fixture.complete().unwrap();
        fixture.check_migrated();
    }
}

#[test]
fn data_that_shrinks_comes_out_as_it_was() {
    for compression in [-7, 1, 19] {
        let options = Options { compression, ..EXTENDED };
        let mut fixture = Fixture::new(8, &[("hd0", DiskKind::Normal, 43)], QUICK, options);
        // Every other chunk can't be compressed.
        let rng = Rng::new(1);
        for sector in (0..43).filter(|sector| sector / 8 % 2 == 1) {
            let noise: Vec<u8> = (0..512).map(|_| rng.next() as u8).collect();
            fixture.source.disks.borrow_mut()[0].put(sector, &noise);
        }
        fixture.setup().unwrap();
        fixture.run_dry();
        fixture.complete().unwrap();
        let kinds: Vec<_> = fixture.sections.iter().flat_map(|section| records(section)).collect();
        let count = |kind| kinds.iter().filter(|(header, _)| header.kind == kind).count();
        assert!(count(Kind::Zstd) >= 2 && count(Kind::Data) >= 2, "{kinds:?}");
        let payload: usize = kinds
            .iter()
            .filter(|(header, _)| matches!(header.kind, Kind::Data | Kind::Zstd))
            .map(|(_, payload)| payload.len())
            .sum();
        let status = fixture.from.status();
        assert_eq!(status.payload_bytes.load(Relaxed), payload as u64);
        assert_eq!(status.data_bytes.load(Relaxed), 43 * 512);
        fixture.check_migrated();
    }
}

fn compress(data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; data.len() + 100];
    let length = zstd_safe::compress(&mut frame[..], data, 1).unwrap();
    frame.truncate(length);
    frame
}

#[test]
fn what_cannot_be_decompressed_to_its_sectors_is_refused_and_not_written() {
    let sector = compress(&pattern(0, 300));
    let bomb = compress(&vec![0; 1 << 20]);
    assert!(bomb.len() < 1024, "{} bytes", bomb.len());
    let frames = [
        vec![],
        b"this is no frame".to_vec(),
        bomb,
        compress(&[1; 513]),
        compress(&[1; 511]),
        compress(&[]),
        sector[..sector.len() - 1].to_vec(),
        [&sector[..], b"x"].concat(),
        [&sector[..], &sector].concat(),
    ];
    for frame in frames {
        let fixture = extended(8, 32, QUICK);
        let mut stream = Records::start("hd0", 32 * 512);
        fixture.load(&stream.take()).unwrap();
        stream.put(Kind::Zstd, 0, 4..5, &sector);
        stream.put(Kind::Zstd, 0, 5..6, &frame);
        stream.put(Kind::Data, 0, 6..7, &pattern(6, 300));
        stream.end();
        let error = fixture.load(&stream.take()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the data can't be decompressed in record 3 of the extended stream",
            "{frame:x?}"
        );
        assert_eq!(fixture.changed(0), [4], "the record before it is written, and no more");
        fixture.check_released();
    }
}

#[test]
fn a_record_that_makes_no_sense_is_refused_though_its_checksum_is_right() {
    let bad = |what| Error::BadRecord { number: 2, what };
    let run = |sector, sectors| Error::Run { device: "hd0".into(), sector, sectors, total: 32 };
    let (data, chunk) = ([7; 512], [7; 8 * 512]);
    let header = |kind, device, sector, sectors| Header { kind, number: 2, device, length: 0, sector, sectors };
    let of_512 = |header: Header| Header { length: 512, ..header };
    let cases: [(Header, &[u8], Error); 17] = [
        (of_512(header(Kind::Data, 1, 0, 1)), &data, bad("there is no such device")),
        (header(Kind::Zeroes, u32::MAX, 0, 1), &[], bad("there is no such device")),
        (header(Kind::Data, 0, 3, 0), &[], bad("there are no sectors")),
        (header(Kind::Zeroes, 0, 3, 0), &[], bad("there are no sectors")),
        (of_512(header(Kind::Data, 0, 32, 1)), &data, run(32, 1)),
        (of_512(header(Kind::Data, 0, u64::MAX, 1)), &data, run(u64::MAX, 1)),
        (header(Kind::Zeroes, 0, 1, u64::MAX), &[], run(1, u64::MAX)),
        (header(Kind::Zeroes, 0, 31, 2), &[], run(31, 2)),
        (of_512(header(Kind::Data, 0, 0, 2)), &data, bad("the payload is not as long as the sectors")),
        (of_512(header(Kind::Data, 0, 0, 9)), &data, bad("there are more sectors than a chunk has")),
        (Header { length: 4097, ..header(Kind::Data, 0, 0, 9) }, &[7; 4097], bad("the payload is too long")),
        (of_512(header(Kind::Zeroes, 0, 0, 1)), &data, bad("the payload is too long")),
        (header(Kind::End, 0, 50, 1), &[], bad("there are sectors where none belong")),
        (header(Kind::End, 1, 50, 0), &[], bad("there are sectors where none belong")),
        (header(Kind::End, 0, 101, 0), &[], Error::Progress(101)),
        (header(Kind::Totals, 0, 0, 0), &[], bad("there is not one total for each device")),
        (
            Header { number: 3, length: 4096, ..header(Kind::Data, 0, 0, 8) },
            &chunk,
            Error::RecordNumber { got: 3, wanted: 2 },
        ),
    ];
    for (header, payload, error) in cases {
        let fixture = extended(8, 32, QUICK);
        let mut stream = Records::start("hd0", 32 * 512);
        fixture.load(&stream.take()).unwrap();
        stream.put_raw(header, payload);
        assert_eq!(fixture.load(&stream.take()), Err(error), "{header:?}");
        assert_eq!(fixture.changed(0), [0; 0]);
        fixture.check_released();
    }
}

#[test]
fn records_out_of_their_place_are_refused() {
    let fixture = || extended(8, 32, QUICK);
    // After the totals, only the end may come.
    let mut stream = Records::start("hd0", 32 * 512);
    stream.end();
    let end = stream.bytes.len() - HEADER_BYTES;
    stream.bytes.truncate(end);
    stream.number -= 1;
    stream.put(Kind::Zeroes, 0, 0..8, &[]);
    let bytes = stream.take();
    let target = fixture();
    let first = records(&bytes)[0].1.len() + 2 * HEADER_BYTES;
    target.load(&bytes[..first]).unwrap();
    let what = "there is more after the totals";
    assert_eq!(target.load(&bytes[first..]), Err(Error::BadRecord { number: 3, what }));
    // The end says that all is there.
    let mut stream = Records::start("hd0", 32 * 512);
    let target = fixture();
    target.load(&stream.take()).unwrap();
    stream.put(Kind::Totals, 0, 0..0, &Total::default().encode());
    stream.put(Kind::End, 0, 99..99, &[]);
    let what = "the last section does not end at 100 %";
    assert_eq!(target.load(&stream.take()), Err(Error::BadRecord { number: 4, what }));
    // Once the last section is loaded, the migration is over.
    let mut stream = Records::start("hd0", 32 * 512);
    let target = fixture();
    target.load(&stream.take()).unwrap();
    stream.end();
    target.load(&stream.take()).unwrap();
    stream.put(Kind::Data, 0, 0..1, &[7; 512]);
    assert_eq!(target.load(&stream.take()), Err(Error::NotStarted));
    // Another may begin, which is not the first one's.
    let target = fixture();
    target.load(&Records::start("hd0", 32 * 512).bytes).unwrap();
    let told = logged(log::Level::Warn, || {
        target.load(&Records::start("hd0", 32 * 512).bytes).unwrap();
        target.load(&Record::End.encode()).unwrap();
        target.load(&Record::End.encode()).unwrap();
    });
    assert_eq!(told, ["the extended stream before this one has not come to its end"; 2]);
    assert_eq!(target.changed(0), [0; 0]);
}

#[test]
fn a_section_with_little_in_it_is_not_flushed() {
    for options in [Options::default(), EXTENDED] {
        let mut fixture = Fixture::new(8, &[("hd0", DiskKind::Normal, 800)], QUICK, options);
        let flushes = record(&fixture.destination);
        fixture.setup().unwrap();
        fixture.run_dry();
        for sector in 0..100 {
            fixture.write(0, sector..sector + 1, 300);
            fixture.iterate().unwrap();
        }
        fixture.complete().unwrap();
        for section in &fixture.sections {
            fixture.load(section).unwrap();
        }
        let flushes = flushes.borrow().iter().filter(|&&call| call == Call::Flush).count();
        assert_eq!(flushes, 2, "at the end of the bulk phase, and of all");
    }
}

#[test]
fn a_step_takes_as_many_runs_as_make_some_chunks() {
    let mut fixture = extended(128, 128_000, Features { next_dirty: true, ..QUICK });
    fixture.source.disks.borrow_mut()[0].set_unit(1);
    fixture.setup().unwrap();
    fixture.run_dry();
    for chunk in 0..1000 {
        fixture.write(0, chunk * 128..chunk * 128 + 2, 300);
    }
    fixture.iterate().unwrap();
    assert_eq!(fixture.from.pending(), 0);
    fixture.complete().unwrap();
    fixture.check_migrated();
}

/// Lets the stream take so long for whatever is put into it.
fn slow_stream(fixture: &Fixture, ns: u64) {
    let script = move |machine: &Machine, call| {
        if call == Call::Put {
            machine.sim.advance(ns);
        }
    };
    *fixture.source.script.borrow_mut() = Some(Rc::new(script));
}

/// For so many seconds, the guest writes so many sectors a second, each of them clean before.
fn guest_writes(fixture: &mut Fixture, seconds: u64, sectors: u64) -> u64 {
    let mut dirty = 0;
    for second in 0..seconds {
        for _ in 0..sectors {
            let total = fixture.source.disks.borrow()[0].sectors();
            let clean = (dirty..dirty + total).map(|sector| sector % total);
            let clean = { clean.into_iter().find(|&sector| !fixture.source.disks.borrow()[0].dirty[sector as usize]) };
            let sector = clean.expect("some sectors are clean");
            fixture.write(0, sector..sector + 1, 1000 + second);
            dirty = sector + 1;
        }
        let now = fixture.sim.now();
        fixture.iterate().unwrap();
        let took = (fixture.sim.now() - now).unsigned_abs();
        fixture.sim.advance(1_000_000_000_u64.saturating_sub(took));
    }
    fixture.from.status().dirty_rate.load(Relaxed)
}

#[test]
fn the_dirty_rate_is_what_the_guest_writes_and_the_user_is_told_once_if_it_is_too_fast() {
    let mut fixture = extended(8, 8000, Features { next_dirty: true, ..QUICK });
    fixture.source.disks.borrow_mut()[0].set_unit(1);
    fixture.setup().unwrap();
    fixture.run_dry();
    // A record takes 4 ms: 128 kB a second in runs of one sector, more in longer ones.
    slow_stream(&fixture, 2_000_000);
    let told = logged(log::Level::Warn, || {
        for sectors in [10, 40, 20] {
            let rate = guest_writes(&mut fixture, 12, sectors);
            let expected = sectors * 512;
            assert!((expected * 9 / 10..expected * 11 / 10).contains(&rate), "{rate} bytes a second, not {expected}");
        }
    });
    assert_eq!(told, [""; 0]);
    fixture.stream.limit = Some(5_000);
    slow_stream(&fixture, 50_000_000);
    let told = logged(log::Level::Warn, || {
        let rate = guest_writes(&mut fixture, 9, 200);
        assert!((90_000..115_000).contains(&rate), "{rate} bytes a second");
    });
    assert_eq!(told, [""; 0], "it has not been long");
    let told = logged(log::Level::Warn, || {
        guest_writes(&mut fixture, 12, 150);
    });
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("for 10 seconds the guest has written"), "{told:?}");
    assert!(told[0].ends_with("the migration will not end by itself"), "{told:?}");
    *fixture.source.script.borrow_mut() = None;
    fixture.stream.limit = None;
    fixture.complete().unwrap();
    fixture.check_migrated();
}
