// SPDX-License-Identifier: GPL-2.0-only
//! A write of the guest at every callback: nothing here is random.
//!
//! Each case is a small migration on one kind of host. It is run once to count its callbacks up to the last
//! stage, and then once for each of them, each sector, and each delay of the dirty bit: the guest writes to that
//! sector in that callback, and its dirty bit is set at once or up to eight callbacks later, as by a host whose
//! write ends later. In each run the destination must get what the guest has written. In the classic stream's
//! cases a chunk is a sector; in those of the extended stream it is two or four, each of which has a dirty bit.
//!
//! One case in 113 is run by default. `BLKMIG_GUEST_WRITES=1` runs all of them, `=N` one in N, and
//! `BLKMIG_GUEST_WRITE="CASE CALLBACK SECTOR DELAY"` replays one run and prints its callbacks.
#![allow(clippy::cast_possible_truncation)] // the numbers are those of a few chunks

#[path = "../fuzz/src/host/mod.rs"]
#[allow(dead_code, unused_imports, clippy::pedantic)] // the fuzz targets use the rest, and have lints of their own
mod host;

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use blkmig::geometry::Geometry;

use host::{CallContext, Disk, Event, Features, Instance, NEVER, Options, OutStream, SECTOR, SmallHost, World};

/// The dirty bit is set so many callbacks after the write at most.
const MAX_DELAY: u64 = 8;

/// What is in the sectors of the disks, one letter each: data, zeroes, or what the backing file holds.
const DISKS: [&[&str]; 6] = [&["ddd"], &["zdzz"], &["zzz"], &["bdbd"], &["bb"], &["dz", "bd"]];

/// How reads take their data and complete: see `World::choices`.
const READS: [&[u8]; 5] = [
    &[2],          // at once
    &[0],          // late, with the data of when they complete
    &[1],          // late, with the data of when they began
    &[4, 0, 9],    // in another order
    &[0, 3, 8, 1], // now and then at once
];

/// One kind of host and of migration.
struct Case {
    disks: &'static [&'static str],
    reads: &'static [u8],
    features: Features,
    options: Options,
    shared_base: bool,
    /// The guest writes zeroes.
    zero: bool,
    /// Sectors that the stream takes in a step, if there is a limit.
    limit: Option<u64>,
}

impl Case {
    /// The case of this number, if there is one.
    fn new(number: u64) -> Option<Case> {
        let mut rest = number;
        let mut take = |values: usize| {
            let value = rest % values as u64;
            rest /= values as u64;
            value as usize
        };
        let disks = DISKS[take(DISKS.len())];
        let reads = READS[take(READS.len())];
        let (known_zero, short_extents) = [(false, false), (true, false), (true, true)][take(3)];
        let (shared_base, zero, zero_blocks) = (take(2) == 1, take(2) == 1, take(2) == 1);
        let (owned, next_dirty) = (take(2) == 1, take(2) == 1);
        let (max_buffers, limit) = [(1, None), (2, Some(1)), (4, None)][take(3)];
        let extended = take(2) == 1;
        // The extended stream always says of zeroes that they are zero.
        let (chunk, unit) = if extended { ([2, 4][usize::from(zero_blocks)], 1) } else { (1, 0) };
        let features = Features {
            chunk,
            unit,
            known_zero,
            short_extents,
            owned,
            next_dirty,
            wait: owned,
            tick_ns: 1000,
            ..Features::default()
        };
        let options = Options { max_buffers, zero_blocks, stream: 1 + u32::from(extended), ..Options::default() };
        (rest == 0).then_some(Case { disks, reads, features, options, shared_base, zero, limit })
    }

    fn disks(&self) -> Vec<Disk> {
        let disk = |(index, chunks): (usize, &&str)| {
            let mut disk = Disk::new(&[b'a' + index as u8], chunks.len() as u64, 1);
            for (sector, kind) in chunks.bytes().enumerate() {
                if kind != b'z' {
                    disk.stamp(sector as u64, 1 << 40 | sector as u64);
                }
                disk.allocated[sector] = kind == b'd';
            }
            disk
        };
        self.disks.iter().enumerate().map(disk).collect()
    }

    /// Disk and number of all sectors.
    fn sectors(&self) -> Vec<(usize, u64)> {
        let of = |(index, chunks): (usize, &&str)| (0..chunks.len() as u64).map(move |sector| (index, sector));
        self.disks.iter().enumerate().flat_map(of).collect()
    }

    /// Migrates, with a write in the middle or without; how many callbacks there were until the guest stopped.
    fn migrate(&self, disks: &[Disk], write: Option<(u64, Event)>) -> Result<u64, String> {
        let world = World::new(self.features, disks.to_vec(), self.reads.to_vec());
        // Which of the guest's writes are zeroes, goes by their number.
        world.writes.set(if self.zero { 2 } else { 0 });
        if let Some((at, event)) = write {
            world.plan(at, event);
        }
        let instance = Instance::new(Geometry::new(self.features.chunk as u32).expect("a small chunk"));
        instance.set_options(self.options).expect("nothing runs");
        instance.set_params(true, self.shared_base);
        instance.set_host(SmallHost(Rc::clone(&world))).expect("nothing runs");
        let mut stream = OutStream::new(&world, 0, self.limit.map(|sectors| sectors * SECTOR as u64));
        let callbacks = Case::run(&instance, &world, &mut stream).map_err(|error| error.to_string())?;
        self.check(&stream.bytes, disks, &world.disks.borrow())?;
        stream.next_step(usize::MAX);
        let kept = instance.status().buffers().0 > 0 || world.disks.borrow().iter().any(|disk| disk.held > 0);
        if kept { Err("something was not given back".to_owned()) } else { Ok(callbacks) }
    }

    fn run(instance: &Instance<SmallHost>, world: &World, stream: &mut OutStream) -> Result<u64, blkmig::error::Error> {
        instance.setup(&mut CallContext { stream, monitor: None })?;
        for step in 0..16 {
            instance.iterate(&mut CallContext { stream, monitor: None })?;
            if instance.pending() == 0 {
                break;
            }
            stream.next_step(1);
            world.complete(1 + step % 3);
        }
        let callbacks = world.callbacks.get();
        world.stop_guest();
        instance.complete(&mut CallContext { stream, monitor: None })?;
        Ok(callbacks)
    }

    /// The stream, written to disks that hold something else, or the backing file, makes them the source's.
    fn check(&self, stream: &[u8], before: &[Disk], source: &[Disk]) -> Result<(), String> {
        let mut image: Vec<Vec<u8>> = before.iter().map(|disk| vec![0xaa; disk.data.len()]).collect();
        for (image, disk) in image.iter_mut().zip(before).filter(|_| self.shared_base) {
            for sector in (0..disk.allocated.len()).filter(|&sector| !disk.allocated[sector]) {
                let at = sector * SECTOR;
                image[at..at + SECTOR].copy_from_slice(&disk.data[at..at + SECTOR]);
            }
        }
        if self.options.stream == 2 {
            read_extended(stream, &mut image);
        } else {
            read_classic(stream, &mut image);
        }
        let same = image.iter().zip(source).all(|(image, disk)| *image == disk.data);
        if same { Ok(()) } else { Err("the destination lacks a write".to_owned()) }
    }

    /// Runs the case with a write everywhere; how many migrations that were.
    fn write_everywhere(&self, number: u64, delays: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
        let disks = self.disks();
        let callbacks = self.migrate(&disks, None)?;
        let mut runs = 1;
        for at in 1..=callbacks {
            for (place, (disk, sector)) in self.sectors().into_iter().enumerate() {
                for dirty_after in delays.clone() {
                    let event = Event::Write { disk, sector, count: 1, dirty_after };
                    let migrated = self.migrate(&disks, Some((at, event)));
                    migrated.map_err(|what| format!("\"{number} {at} {place} {dirty_after}\": {what}"))?;
                    runs += 1;
                }
            }
        }
        Ok(runs)
    }
}

/// Writes what a stream says to the images of the disks.
fn read_classic(stream: &[u8], image: &mut [Vec<u8>]) {
    let mut at = 0;
    while at < stream.len() {
        let word = u64::from_be_bytes(stream[at..at + 8].try_into().expect("eight bytes"));
        at += 8;
        if word & 1 == 0 {
            continue; // progress, or a section's end
        }
        // A name of one letter.
        let disk = usize::from(stream[at + 1] - b'a');
        at += 2;
        let place = (word >> 9) as usize * SECTOR;
        let place = &mut image[disk][place..place + SECTOR];
        if word & 8 == 8 {
            place.fill(0);
        } else {
            place.copy_from_slice(&stream[at..at + SECTOR]);
            at += SECTOR;
        }
    }
}

/// The same, with the numbers of the disks as the table says them: their names are "a" and "b".
fn read_extended(stream: &[u8], image: &mut [Vec<u8>]) {
    let mut disks = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let word = |from: usize| u64::from_be_bytes(stream[at + from..at + from + 8].try_into().expect("eight bytes"));
        let (kind, device, length) = (word(0) >> 9, (word(16) >> 32) as usize, (word(16) & 0xffff_ffff) as usize);
        let (first, sectors) = (word(24) as usize, word(32) as usize);
        let payload = &stream[at + 48..at + 48 + length];
        at += 48 + length;
        if kind == 0 {
            disks = payload[16..].chunks(14).map(|entry| usize::from(entry[13] - b'a')).collect();
        } else if kind == 1 || kind == 3 {
            let place = &mut image[disks[device]][first * SECTOR..(first + sectors) * SECTOR];
            if kind == 1 { place.copy_from_slice(payload) } else { place.fill(0) }
        }
    }
}

fn replay(run: &str) {
    let numbers: Vec<u64> = run.split(' ').map(|number| number.parse().expect("four numbers")).collect();
    let &[case, at, sector, dirty_after] = &numbers[..] else { panic!("CASE CALLBACK SECTOR DELAY") };
    let case = Case::new(case).expect("there is such a case");
    let (disk, sector) = case.sectors()[sector as usize];
    case.migrate(&case.disks(), Some((at, Event::Write { disk, sector, count: 1, dirty_after }))).unwrap();
}

#[test]
fn a_write_at_any_callback_reaches_the_destination() {
    if let Ok(run) = std::env::var("BLKMIG_GUEST_WRITE") {
        return replay(&run);
    }
    let one_in = std::env::var("BLKMIG_GUEST_WRITES").map_or(113, |text| text.parse().expect("a number"));
    let (next, runs, cases) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let wrong = Mutex::new(Vec::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(one_in, Relaxed);
                    let Some(case) = Case::new(number) else { return };
                    match case.write_everywhere(number, 0..=MAX_DELAY) {
                        Ok(count) => runs.fetch_add(count, Relaxed),
                        Err(what) => {
                            wrong.lock().unwrap().push(what);
                            return next.store(u64::MAX / 2, Relaxed); // the others end, too
                        }
                    };
                    cases.fetch_add(1, Relaxed);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "replay each with BLKMIG_GUEST_WRITE=…: {wrong:#?}");
    println!("{runs:?} migrations of {cases:?} cases in {:.1?}", began.elapsed());
    assert!(runs.into_inner() > cases.into_inner() * 50, "there were too few callbacks to write in");
}

/// What the test above is worth: a write that is never made dirty must be missed.
#[test]
fn a_write_that_is_not_made_dirty_is_missed() {
    // The second half of the cases are those of the extended stream.
    for number in (0..10).chain(8640..8650) {
        let case = Case::new(number).expect("there is such a case");
        let missed = case.write_everywhere(number, NEVER..=NEVER);
        assert!(missed.is_err_and(|what| what.contains("lacks a write")), "case {number}");
    }
}
