// SPDX-License-Identifier: GPL-2.0-only
//! Devices of gigabytes and terabytes. The simulated disk is known to be zero and the stream takes 1 GB/s and drops it,
//! so that such a migration takes neither time nor memory.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use std::collections::BTreeSet;

use std::rc::Rc;

use std::sync::atomic::Ordering::Relaxed;

use blkmig::device_name::DeviceName;
use blkmig::error::Errno;
use blkmig::extended::Kind;

use blkmig::geometry::{Geometry, Sector, Sectors};

use blkmig::host::{Device, Extent, Host, Stream};

use blkmig::instance::Instance;
use blkmig::settings::Options;

use blkmig::request::ReadRequest;

use blkmig::call::CallContext;

use crate::extended::Records;

struct World {
    bytes: u64,
    now: Cell<i64>,
    dirty: RefCell<BTreeSet<u64>>,
    max_downtime_ns: u64,
    /// Whether the host has `next_dirty`, and how many times it was asked about a single chunk instead.
    can_search: Cell<bool>,
    looks: Cell<u64>,
    /// Whether the host knows what is zero, and how many times it was asked.
    knows_zeroes: Cell<bool>,
    questions: Cell<u64>,
    /// What was made zero, as a destination.
    zeroed: RefCell<Vec<Sectors>>,
}

#[derive(Clone)]
struct ZeroDisk(Rc<World>);

impl Host for ZeroDisk {
    type Device = ZeroDisk;

    fn devices(&self) -> Vec<ZeroDisk> {
        vec![self.clone()]
    }
    fn find(&self, name: &DeviceName) -> Option<ZeroDisk> {
        (*name == self.name()).then(|| self.clone())
    }
    fn drain(&self) {}
    fn now_ns(&self) -> i64 {
        self.0.now.get()
    }
    fn max_downtime_ns(&self) -> u64 {
        self.0.max_downtime_ns
    }
}

impl Device for ZeroDisk {
    fn is_same(&self, _other: &ZeroDisk) -> bool {
        true
    }

    fn name(&self) -> DeviceName {
        "endless".into()
    }
    fn length(&self) -> Result<i64, Errno> {
        Ok(i64::try_from(self.0.bytes).expect("it is no more than 8 EiB"))
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn allocated(&self, range: Sectors) -> Result<Extent, Errno> {
        Ok(Extent { holds: true, sectors: range.count.into() })
    }
    fn known_zero(&self, range: Sectors) -> Option<Extent> {
        self.0.questions.set(self.0.questions.get() + 1);
        Some(Extent { holds: self.0.knows_zeroes.get(), sectors: range.count.into() })
    }
    fn write_zeroes(&self, range: Sectors) -> Option<Result<(), Errno>> {
        self.0.zeroed.borrow_mut().push(range);
        Some(Ok(()))
    }
    fn has_write_zeroes(&self) -> bool {
        true
    }
    fn read(&self, _request: ReadRequest) -> Result<(), Errno> {
        unreachable!("it is known to be zero")
    }
    fn write(&self, _start: Sector, _data: &[u8]) -> Result<(), Errno> {
        unreachable!("it is the source")
    }
    fn set_tracking(&self, _on: bool) -> Result<(), Errno> {
        self.0.dirty.borrow_mut().clear();
        Ok(())
    }
    fn is_dirty(&self, sector: Sector) -> bool {
        self.0.looks.set(self.0.looks.get() + 1);
        self.0.dirty.borrow().contains(&(sector.0 / 2048))
    }
    fn reset_dirty(&self, range: Sectors) {
        self.0.dirty.borrow_mut().remove(&(range.start.0 / 2048));
    }
    fn dirty_units(&self) -> Result<u64, Errno> {
        Ok(self.0.dirty.borrow().len() as u64)
    }
    fn next_dirty(&self, from: Sector) -> Option<i64> {
        if !self.0.can_search.get() {
            return None;
        }
        let found = self.0.dirty.borrow().range(from.0.div_ceil(2048)..).next().copied();
        Some(found.map_or(-1, |chunk| i64::try_from(chunk * 2048).expect("a sector fits")))
    }
}

/// A stream that drops everything and takes a nanosecond for each byte, and that gives what is left in it.
struct Sink<'a>(Rc<World>, &'a [u8]);

impl Stream for Sink<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.now.set(self.0.now.get() + i64::try_from(bytes.len()).expect("a slice is no longer"));
    }
    fn get(&mut self, into: &mut [u8]) -> usize {
        std::io::Read::read(&mut self.1, into).expect("memory can be read")
    }
    fn is_rate_limited(&mut self) -> bool {
        false
    }
    fn rate_limit(&mut self) -> Option<u64> {
        None
    }
    fn error(&mut self) -> Option<Errno> {
        None
    }
    fn set_error(&mut self, _errno: Errno) {}
}

fn zero_disk(bytes: u64, options: Options) -> (Rc<World>, Instance<ZeroDisk>) {
    let world = Rc::new(World {
        bytes,
        now: Cell::new(1),
        dirty: RefCell::default(),
        max_downtime_ns: 30_000_000,
        can_search: Cell::new(true),
        looks: Cell::default(),
        knows_zeroes: Cell::new(true),
        questions: Cell::default(),
        zeroed: RefCell::default(),
    });
    let instance = Instance::new(Geometry::QEMU);
    instance.set_options(options).expect("nothing runs");
    instance.set_host(ZeroDisk(Rc::clone(&world))).expect("nothing runs");
    (world, instance)
}

/// B-06: 5 GiB at 1 GB/s give 1 GB/s; a 32-bit count of bytes would overflow.
#[test]
fn the_bandwidth_is_right_past_two_gibibytes() {
    let (world, instance) = zero_disk(5 << 30, Options::default());
    let mut stream = Sink(Rc::clone(&world), &[]);
    instance.setup(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    let mut steps = 0;
    while instance.pending() > 0 {
        let step = instance.iterate(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
        let pending = instance.pending();
        // 30 ms are 30 MB, apart from the record headers.
        assert!(step.can_finish || pending >= 29_000_000, "{pending} bytes fit the downtime");
        assert!(!step.can_finish || pending <= 31_000_000, "{pending} bytes do not fit the downtime");
        steps += 1;
        assert!(steps < 1000);
    }
    let bandwidth = instance.status().bandwidth.load(Relaxed);
    assert!((990_000_000..1_010_000_000).contains(&bandwidth), "{bandwidth} bytes a second");
    assert_eq!(instance.status().bytes(), (5 << 30, 5 << 30));
    // 1 GiB takes a second, far more than the downtime allows; a 32-bit overflow would say otherwise.
    world.dirty.borrow_mut().extend(0..1024);
    assert!(!instance.iterate(&mut CallContext { stream: &mut stream, monitor: None }).unwrap().can_finish);
    instance.complete(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    assert!(instance.status().wire_bytes.load(Relaxed) > 6 << 30);
}

/// B-06: neither do the counters of chunks and bytes overflow.
#[test]
fn bytes_of_a_device_of_four_tebibytes_are_counted() {
    let (world, instance) =
        zero_disk(4 << 40, Options { zero_blocks: true, max_buffers: 1 << 20, ..Options::default() });
    let mut stream = Sink(Rc::clone(&world), &[]);
    instance.setup(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    assert_eq!(instance.pending(), 4 << 40);
    world.dirty.borrow_mut().insert((4 << 20) - 1);
    instance.complete(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    assert_eq!(instance.status().bytes(), (4 << 40, 4 << 40));
    assert_eq!(instance.status().chunks_zero.load(Relaxed), 4 << 20);
    assert!(world.dirty.borrow().is_empty());
}

/// Without `next_dirty`, one step asks about a limited number of chunks. The last stage asks about all of them.
#[test]
fn a_step_asks_about_a_bounded_number_of_chunks() {
    const CHUNKS: u64 = 1 << 20;
    let (world, instance) =
        zero_disk(CHUNKS << 20, Options { zero_blocks: true, max_buffers: 1 << 20, ..Options::default() });
    world.can_search.set(false);
    let mut stream = Sink(Rc::clone(&world), &[]);
    instance.setup(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    while instance.status().is_bulk_active() {
        instance.iterate(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    }
    let mut step = || {
        world.looks.set(0);
        instance.iterate(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
        world.looks.get()
    };
    let dirty = |chunks: &[u64]| world.dirty.borrow_mut().extend(chunks);
    dirty(&[CHUNKS - 1]);
    let mut steps = 0;
    while !world.dirty.borrow().is_empty() {
        let looks = step();
        assert!(looks <= 70_000, "{looks} chunks in one step");
        steps += 1;
        assert!(steps <= 20, "the search makes no progress");
    }
    assert!(steps > 10, "{steps} steps for a million chunks");
    dirty(&[0, 7, CHUNKS / 2, CHUNKS - 1]);
    instance.complete(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    assert!(world.dirty.borrow().is_empty());
}

/// The extended stream says of a thin disk in a few records that it is zero, and asks the host as few questions.
#[test]
fn a_thin_tebibyte_is_a_few_records() {
    let (world, instance) = zero_disk(1 << 40, Options { stream: 2, ..Options::default() });
    let mut stream = Sink(Rc::clone(&world), &[]);
    instance.setup(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    assert_eq!(instance.pending(), 1 << 40);
    let mut steps = 0;
    while instance.pending() > 0 {
        instance.iterate(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
        steps += 1;
        assert!(steps <= 10, "no end");
    }
    world.dirty.borrow_mut().insert((1 << 20) - 1);
    instance.complete(&mut CallContext { stream: &mut stream, monitor: None }).unwrap();
    assert!(world.dirty.borrow().is_empty());
    let status = instance.status();
    assert_eq!(status.bytes(), (1 << 40, 1 << 40));
    let (wire, questions, looks) = (status.wire_bytes.load(Relaxed), world.questions.get(), world.looks.get());
    assert!(wire < 2000, "{wire} bytes");
    assert!(questions < 20, "{questions} questions about zeroes");
    assert!(looks < 20, "{looks} questions about dirty chunks");
}

/// Hosts count such a call's bytes in a C int, some even those of neighbors together.
#[test]
fn zero_runs_of_any_length_are_written_in_pieces_whose_bytes_fit_a_c_int() {
    const TOTAL: u64 = 1 << 31;
    let one = |start, end| Range { start, end };
    let middle = TOTAL / 2 + 7;
    let runs =
        [vec![one(0, TOTAL)], vec![one(0, 1), one(1, middle), one(middle, TOTAL)], vec![one(0, (1 << 22) - 2048)]];
    for runs in runs {
        let (world, instance) = zero_disk(TOTAL * 512, Options::default());
        world.knows_zeroes.set(false);
        let mut records = Records::start("endless", TOTAL * 512);
        instance.load(&mut Sink(Rc::clone(&world), &records.take()), 1).unwrap();
        for run in &runs {
            records.put(Kind::Zeroes, 0, run.clone(), &[]);
        }
        records.end();
        instance.load(&mut Sink(Rc::clone(&world), &records.take()), 1).unwrap();
        let mut end = 0;
        for piece in world.zeroed.borrow().iter() {
            assert_eq!(piece.start.0, end, "something is left out, or written twice");
            assert!(i32::try_from(piece.bytes()).is_ok(), "{piece:?}");
            end = piece.end().0;
        }
        assert_eq!(end, runs.last().unwrap().end);
        assert!(world.zeroed.borrow().len() < 1100, "{} pieces", world.zeroed.borrow().len());
    }
}
