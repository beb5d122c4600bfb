// SPDX-License-Identifier: GPL-2.0-only
//! Single faults in extended streams: a flipped bit, a cut, a record that comes twice, not at all, or in the place of
//! another. The destination must report each of them in the section in which it is, and its disks must hold nothing but
//! what the records before the fault say. One it can't see itself: a section's end that comes twice. The second one is
//! left over, and the host, which reads on there, does not find what frames its sections.
//!
//! `BLKMIG_FAULTS=n` tries n faults instead of 100,000; `BLKMIG_FAULT="STREAM NUMBER"` replays one, and prints it.

#![allow(clippy::cast_possible_truncation)] // the numbers are those of small disks

#[path = "behaviour/fixture.rs"]
#[allow(dead_code)] // the behavior tests use all of it
mod fixture;
mod sim;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use blkmig::error::Error;
use blkmig::extended::{self, HEADER_BYTES, Header};
use blkmig::settings::Options;

use fixture::{Fixture, PLAIN};
use sim::Rng;
use sim::disk::{Disk, Kind, SECTOR};
use sim::machine::Features;
use sim::model::{Model, ModelDisk};
use sim::stream::InStream;

/// Streams that get the faults, one after the other.
const STREAMS: u64 = 96;

const NAMES: [&str; 3] = ["hd0", "hd1", "a-disk-with-a-longer-name"];

/// What the destinations can do.
fn destination(number: u64) -> Features {
    let asynchronous = Features { async_writes: true, wait: true, ..PLAIN };
    let zeroes = Features { write_zeroes: true, cluster: Some(512), ..PLAIN };
    let known = Features { write_zeroes: true, known_zero: true, ..asynchronous };
    [PLAIN, asynchronous, zeroes, known][number as usize % 4]
}

/// A whole migration's stream, and what each of its records makes of the destination's disks.
struct Stream {
    chunk: u32,
    disks: Vec<(&'static str, Kind, u64)>,
    options: Options,
    features: Features,
    records: Vec<Vec<u8>>,
    /// The section of each record.
    sections: Vec<usize>,
    /// The disks after no record, after the first, and so on.
    states: Vec<Vec<Vec<u8>>>,
}

impl Stream {
    fn new(number: u64) -> Stream {
        let rng = Rng::new(number);
        let chunk: u32 = rng.pick(&[1, 4, 8]);
        let disks = (0..=rng.index(3)).map(|index| (NAMES[index], Kind::Normal, 1 + rng.below(16 * u64::from(chunk))));
        let disks: Vec<_> = disks.collect();
        let options = Options { stream: 2, compression: rng.pick(&[0, 1]), max_buffers: 8, ..Options::default() };
        let sections = migrate(&rng, chunk, &disks, options);
        let mut stream = Stream {
            chunk,
            disks,
            options,
            features: destination(number),
            records: Vec::new(),
            sections: Vec::new(),
            states: Vec::new(),
        };
        let fixture = stream.destination();
        let before = fixture.destination.disks.borrow();
        let model = before.iter().map(|disk| ModelDisk {
            name: disk.name.clone(),
            migrates: true,
            data: disk.data.clone(),
            sent: Vec::new(),
        });
        let mut model = Model::new(model.collect(), chunk.into(), true);
        let state = |model: &Model| model.disks.iter().map(|disk| disk.data.clone()).collect();
        stream.states.push(state(&model));
        for (index, section) in sections.iter().enumerate() {
            let mut rest = &section[..];
            while !rest.is_empty() {
                let before = rest;
                model.extended_record(&mut rest).expect("the source writes what is right");
                stream.records.push(before[..before.len() - rest.len()].to_vec());
                stream.sections.push(index);
                stream.states.push(state(&model));
            }
        }
        stream
    }

    fn destination(&self) -> Fixture {
        Fixture::new(self.chunk, &self.disks, self.features, self.options)
    }

    fn kind(&self, record: usize) -> extended::Kind {
        Header::decode(self.records[record][..HEADER_BYTES].try_into().expect("a header")).expect("it is right").kind
    }

    /// The sections with the fault, and how many records before it are right.
    fn with(&self, fault: Fault) -> (Vec<Vec<u8>>, usize) {
        let mut records = self.records.clone();
        let right = match fault {
            Fault::None => records.len(),
            Fault::Flip(at, bit) => {
                records[at][bit / 8] ^= 1 << (bit % 8);
                at
            }
            Fault::Cut(at, length) => {
                let section = self.sections[at];
                records[at].truncate(length);
                (at + 1..records.len())
                    .filter(|&next| self.sections[next] == section)
                    .for_each(|next| records[next].clear());
                at
            }
            Fault::Twice(of, at) => {
                records[at] = [&self.records[of][..], &self.records[at]].concat();
                if of == at { at + 1 } else { at }
            }
            Fault::Lost(at) => {
                records[at].clear();
                at
            }
            Fault::Swap(one, other) => {
                records.swap(one, other);
                one.min(other)
            }
        };
        let mut sections = vec![Vec::new(); self.sections.last().map_or(0, |last| last + 1)];
        for (record, section) in records.iter().zip(&self.sections) {
            sections[*section].extend_from_slice(record);
        }
        (sections, right)
    }

    /// Loads the stream with the fault. Returns the error, or `None` if bytes are left that nobody has read.
    fn load(&self, fault: Fault) -> Result<Option<Error>, String> {
        let fixture = self.destination();
        let (sections, right) = self.with(fault);
        for (number, section) in sections.iter().enumerate() {
            let mut stream = InStream::new(&fixture.destination, section);
            let loaded = fixture.to.load(&mut stream, 1);
            if loaded.is_ok() && stream.left() == 0 {
                continue;
            }
            if self.sections.get(right.min(self.sections.len() - 1)) != Some(&number) && stream.left() == 0 {
                return Err(format!("it was found in section {number} only: {loaded:?}"));
            }
            let first = self.sections.iter().position(|section| *section == number).expect("it has records");
            self.check_disks(&fixture.destination.disks.borrow(), first, right)?;
            fixture.check_released();
            return Ok(loaded.err());
        }
        Err("it was not found".to_owned())
    }

    /// Each sector must hold what some of the right records of this section have made of it, or those before.
    fn check_disks(&self, disks: &[Disk], first: usize, right: usize) -> Result<(), String> {
        for (index, disk) in disks.iter().enumerate() {
            for (sector, data) in disk.data.chunks(SECTOR).enumerate() {
                let at = sector * SECTOR..(sector + 1) * SECTOR;
                let mut states = self.states[first..=right].iter();
                if !states.any(|state| state[index][at.clone()] == *data) {
                    return Err(format!("sector {sector} of {} holds what no right record says", self.disks[index].0));
                }
            }
        }
        Ok(())
    }
}

/// Migrates disks of data, of data that can be compressed, and of zeroes, while a guest writes all three.
fn migrate(rng: &Rng, chunk: u32, disks: &[(&'static str, Kind, u64)], options: Options) -> Vec<Vec<u8>> {
    let known_zero = rng.chance(500);
    let features = Features { immediate: 1000, known_zero, next_dirty: rng.chance(500), ..PLAIN };
    let mut fixture = Fixture::new(chunk, disks, features, options);
    let unit = rng.pick(&[1, u64::from(chunk)]);
    for disk in fixture.source.disks.borrow_mut().iter_mut() {
        disk.set_unit(unit);
        for sector in 0..disk.sectors() {
            fill(rng, disk, sector);
        }
    }
    fixture.stream.limit = Some(u64::from(chunk) * 512 * (1 + rng.below(4)));
    fixture.setup().expect("it starts");
    for step in 0..200 {
        let writes = if step < 4 { rng.below(4) } else { 0 };
        for _ in 0..writes {
            let mut disks = fixture.source.disks.borrow_mut();
            let index = rng.index(disks.len());
            let sector = rng.below(disks[index].sectors());
            fill(rng, &mut disks[index], sector);
            disks[index].mark_dirty(sector..sector + 1);
        }
        fixture.iterate().expect("nothing goes wrong");
        if fixture.from.pending() == 0 {
            break;
        }
    }
    let last = fixture.source.disks.borrow()[0].sectors() - 1;
    fixture.write(0, last..last + 1, 77);
    fixture.complete().expect("nothing goes wrong");
    let sections = fixture.sections.clone();
    fixture.check_migrated();
    sections
}

fn fill(rng: &Rng, disk: &mut Disk, sector: u64) {
    match rng.below(4) {
        0 => disk.stamp(sector..sector + 1, 0),
        1 => disk.stamp(sector..sector + 1, 1 + rng.below(1000)),
        _ => {
            let noise: Vec<u8> = (0..SECTOR).map(|_| rng.next() as u8).collect();
            disk.put(sector, &noise);
        }
    }
}

/// A fault, and the records that it hits.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// This bit of the record is flipped.
    Flip(usize, usize),
    /// The section ends in the record, after so many bytes of it.
    Cut(usize, usize),
    /// The first record comes another time, before the second.
    Twice(usize, usize),
    /// The record does not come.
    Lost(usize),
    /// Each comes in the place of the other.
    Swap(usize, usize),
}

impl Fault {
    /// The fault of this number.
    fn new(stream: &Stream, seed: u64, number: u64) -> Fault {
        let rng = Rng::new(seed << 40 | number);
        let record = || rng.index(stream.records.len());
        let at = record();
        let length = stream.records[at].len();
        match rng.below(6) {
            // In the header, as often as in what follows.
            0 => Fault::Flip(at, rng.index(HEADER_BYTES * 8)),
            1 => Fault::Flip(at, rng.index(length * 8)),
            2 => Fault::Cut(at, rng.index(length)),
            3 if rng.chance(500) => Fault::Twice(at, at),
            3 => Fault::Twice(at, record()),
            4 => Fault::Lost(at),
            _ => Fault::Swap(at, (at + 1 + rng.index(stream.records.len() - 1)) % stream.records.len()),
        }
    }

    /// Whether only the host can find it: the section's end has come, and once more after it.
    fn is_twice_the_end(self, stream: &Stream) -> bool {
        matches!(self, Fault::Twice(of, at) if of == at && stream.kind(of) == extended::Kind::End)
    }
}

/// How a fault was found, in a word.
fn found(stream: &Stream, fault: Fault) -> Result<String, String> {
    match stream.load(fault)? {
        None if fault.is_twice_the_end(stream) => Ok("left over".to_owned()),
        None => Err("bytes were left over, and there was no error".to_owned()),
        Some(error) => Ok(format!("{error:?}").split([' ', '(']).next().unwrap_or_default().to_owned()),
    }
}

fn replay(fault: &str) {
    let numbers: Vec<u64> = fault.split(' ').map(|number| number.parse().expect("two numbers")).collect();
    let &[number, fault] = &numbers[..] else { panic!("STREAM NUMBER") };
    let stream = Stream::new(number);
    let fault = Fault::new(&stream, number, fault);
    println!("{fault:?} in {} records of {:?} bytes", stream.records.len(), stream.records.iter().map(Vec::len));
    println!("found: {}", found(&stream, fault).expect("it is found"));
}

#[test]
fn every_single_fault_is_found_before_anything_wrong_is_written() {
    if let Ok(fault) = std::env::var("BLKMIG_FAULT") {
        return replay(&fault);
    }
    let count: u64 = std::env::var("BLKMIG_FAULTS").map_or(100_000, |text| text.parse().expect("a number"));
    let next = AtomicU64::new(0);
    let ways = Mutex::new(BTreeMap::<String, u64>::new());
    let wrong = Mutex::new(Vec::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= STREAMS || !wrong.lock().unwrap().is_empty() {
                        return;
                    }
                    let stream = Stream::new(number);
                    for fault in 0..count.div_ceil(STREAMS) {
                        match found(&stream, Fault::new(&stream, number, fault)) {
                            Ok(way) => *ways.lock().unwrap().entry(way).or_default() += 1,
                            Err(what) => wrong.lock().unwrap().push(format!("\"{number} {fault}\": {what}")),
                        }
                    }
                }
            });
        }
    });
    let ways = ways.into_inner().unwrap();
    println!("{} faults in {:.1?}, found as {ways:?}", ways.values().sum::<u64>(), began.elapsed());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "replay each with BLKMIG_FAULT=…: {:#?}", &wrong[..wrong.len().min(5)]);
}

/// So it is not by chance that the test above finds nothing.
#[test]
fn a_fault_that_is_not_there_is_not_found() {
    for number in 0..STREAMS {
        let stream = Stream::new(number);
        assert_eq!(found(&stream, Fault::None), Err("it was not found".to_owned()), "stream {number}");
        let mut disks = stream.destination();
        disks.sections.clear();
        let mut disks = disks.destination.disks.borrow_mut();
        disks[0].data[7] ^= 1;
        assert!(stream.check_disks(&disks, 0, stream.records.len()).is_err(), "stream {number}");
    }
}

/// Data that have changed together with their checksum are found by the totals, in the last section.
#[test]
fn a_record_that_was_replaced_by_another_right_one_is_found_at_the_end() {
    let mut replaced = 0;
    for number in 0..STREAMS {
        let mut stream = Stream::new(number);
        let Some(at) = (0..stream.records.len()).find(|&at| stream.kind(at) == extended::Kind::Data) else {
            continue;
        };
        let (header, data) = stream.records[at].split_at(HEADER_BYTES);
        let header = Header::decode(header.try_into().expect("a header")).expect("it is right");
        let data: Vec<u8> = data.iter().map(|byte| !byte).collect();
        stream.records[at] = [&header.encode(&data).0[..], &data].concat();
        let fixture = stream.destination();
        let (sections, _) = stream.with(Fault::None);
        let (last, others) = sections.split_last().expect("there are sections");
        assert!(others.iter().all(|section| fixture.load(section).is_ok()), "stream {number}");
        let name = NAMES[header.device as usize];
        assert_eq!(fixture.load(last), Err(Error::Incomplete(name.into())), "stream {number}");
        replaced += 1;
    }
    assert!(replaced > STREAMS / 2);
}
