// SPDX-License-Identifier: GPL-2.0-only
//! A write of the guest at every callback: nothing here is random.
//!
//! Each case is a small migration on one kind of host. It is run once to count its callbacks up to the last
//! stage, and then once for each of them, each chunk, and each delay of the dirty bit: the guest writes to that
//! chunk in that callback, and the chunk's dirty bit is set at once or up to eight callbacks later, as by a
//! host whose write ends later. In each run the destination must get what the guest has written.
//!
//! One case in 61 is run by default. `BLKMIG_GUEST_WRITES=1` runs all of them, `=N` one in N, and
//! `BLKMIG_GUEST_WRITE="CASE CALLBACK CHUNK DELAY"` replays one run and prints its callbacks.
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

/// What is in the chunks of the disks, one letter each: data, zeroes, or what the backing file holds.
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
    /// Chunks that the stream takes in a step, if there is a limit.
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
        let features = Features {
            chunk: 1,
            known_zero,
            short_extents,
            owned,
            next_dirty,
            wait: owned,
            tick_ns: 1000,
            ..Features::default()
        };
        let options = Options { max_buffers, zero_blocks, ..Options::default() };
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

    /// Disk and sector of all chunks.
    fn chunks(&self) -> Vec<(usize, u64)> {
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
        let instance = Instance::new(Geometry::new(1).expect("a small chunk"));
        instance.set_options(self.options).expect("nothing runs");
        instance.set_params(true, self.shared_base);
        instance.set_host(SmallHost(Rc::clone(&world))).expect("nothing runs");
        let mut stream = OutStream::new(&world, 0, self.limit.map(|chunks| chunks * SECTOR as u64));
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
        let same = image.iter().zip(source).all(|(image, disk)| *image == disk.data);
        if same { Ok(()) } else { Err("the destination lacks a write".to_owned()) }
    }

    /// Runs the case with a write everywhere; how many migrations that were.
    fn write_everywhere(&self, number: u64, delays: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
        let disks = self.disks();
        let callbacks = self.migrate(&disks, None)?;
        let mut runs = 1;
        for at in 1..=callbacks {
            for (chunk, (disk, sector)) in self.chunks().into_iter().enumerate() {
                for dirty_after in delays.clone() {
                    let event = Event::Write { disk, sector, count: 1, dirty_after };
                    let migrated = self.migrate(&disks, Some((at, event)));
                    migrated.map_err(|what| format!("\"{number} {at} {chunk} {dirty_after}\": {what}"))?;
                    runs += 1;
                }
            }
        }
        Ok(runs)
    }
}

fn replay(run: &str) {
    let numbers: Vec<u64> = run.split(' ').map(|number| number.parse().expect("four numbers")).collect();
    let &[case, at, chunk, dirty_after] = &numbers[..] else { panic!("CASE CALLBACK CHUNK DELAY") };
    let case = Case::new(case).expect("there is such a case");
    let (disk, sector) = case.chunks()[chunk as usize];
    case.migrate(&case.disks(), Some((at, Event::Write { disk, sector, count: 1, dirty_after }))).unwrap();
}

#[test]
fn a_write_at_any_callback_reaches_the_destination() {
    if let Ok(run) = std::env::var("BLKMIG_GUEST_WRITE") {
        return replay(&run);
    }
    let one_in = std::env::var("BLKMIG_GUEST_WRITES").map_or(61, |text| text.parse().expect("a number"));
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
    for number in 0..10 {
        let case = Case::new(number).expect("there is such a case");
        let missed = case.write_everywhere(number, NEVER..=NEVER);
        assert!(missed.is_err_and(|what| what.contains("lacks a write")), "case {number}");
    }
}
