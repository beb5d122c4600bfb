// SPDX-License-Identifier: GPL-2.0-only
//! A small host: disks in memory, requests that complete when they are told to, a guest, and faults at chosen
//! callbacks.
//!
//! Nothing in it is random. All that it could choose, such as which request completes first, comes from the bytes of
//! `choices`, over and over; what happens in the middle of a call is an [`Event`] at the number of a callback.

mod device;
mod streams;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

pub(crate) use blkmig::call::CallContext;
use blkmig::error::Errno;
use blkmig::geometry::Sectors;
use blkmig::host::Extent;
pub(crate) use blkmig::instance::Instance;
use blkmig::request::{ReadRequest, WriteRequest};
pub(crate) use blkmig::settings::Options;

pub(crate) use device::SmallHost;
pub(crate) use streams::{InStream, OutStream, SmallMonitor};

pub(crate) const SECTOR: usize = 512;

/// When a dirty bit is set that no guest's write sets.
pub(crate) const NEVER: u64 = u64::MAX;

/// What the host has, and how it behaves.
#[derive(Clone, Copy, Default)]
pub(crate) struct Features {
    /// Sectors in a chunk.
    pub(crate) chunk: u64,
    /// Sectors in a unit of dirty tracking, if that is not a chunk; else 0.
    pub(crate) unit: u64,
    pub(crate) write_async: bool,
    pub(crate) write_zeroes: bool,
    /// `write_zeroes` is there, but the disks can't do it.
    pub(crate) zeroes_unsupported: bool,
    pub(crate) cluster: Option<u64>,
    pub(crate) known_zero: bool,
    /// Questions about a range are answered for one sector at a time.
    pub(crate) short_extents: bool,
    pub(crate) wait: bool,
    pub(crate) threaded: bool,
    pub(crate) next_dirty: bool,
    /// The stream keeps the buffers that it gets.
    pub(crate) owned: bool,
    /// A fault may make a device seem to be another, and does not only fail.
    pub(crate) lies: bool,
    /// How far the clock goes in each callback.
    pub(crate) tick_ns: i64,
    pub(crate) max_downtime_ns: u64,
}

impl Features {
    /// Sectors in a unit of dirty tracking.
    pub(crate) fn unit(&self) -> u64 {
        if self.unit == 0 { self.chunk } else { self.unit }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) name: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// For each sector, whether it is in the disk's own image.
    pub(crate) allocated: Vec<bool>,
    /// For each unit of dirty tracking.
    pub(crate) dirty: Vec<bool>,
    pub(crate) tracking: bool,
    pub(crate) held: u32,
    pub(crate) read_only: bool,
    /// There is nothing behind it any more.
    pub(crate) gone: bool,
    pub(crate) unlisted: bool,
    /// What it says of its length, if not the truth.
    pub(crate) says: Option<Result<i64, Errno>>,
    /// Written to, and not flushed since.
    pub(crate) unflushed: bool,
}

impl Disk {
    pub(crate) fn new(name: &[u8], sectors: u64, unit: u64) -> Disk {
        Disk {
            name: name.to_vec(),
            data: vec![0; sectors as usize * SECTOR],
            allocated: vec![false; sectors as usize],
            dirty: vec![false; sectors.div_ceil(unit) as usize],
            ..Disk::default()
        }
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.allocated.len() as u64
    }

    fn length(&self) -> Result<i64, Errno> {
        self.says.unwrap_or(Ok(self.data.len() as i64))
    }

    /// What lies past the end is dropped: of a disk that says it is longer, no more is kept.
    fn put(&mut self, start: u64, data: &[u8]) {
        for (sector, bytes) in (start..self.sectors()).zip(data.chunks(SECTOR)) {
            self.data[sector as usize * SECTOR..][..SECTOR].copy_from_slice(bytes);
            self.allocated[sector as usize] = true;
        }
    }

    /// A sector of the guest's: full of `stamp`.
    pub(crate) fn stamp(&mut self, sector: u64, stamp: u64) {
        self.put(sector, &stamp.to_le_bytes().repeat(SECTOR / 8));
    }

    fn is_zero(&self, sector: u64) -> bool {
        self.data.chunks(SECTOR).nth(sector as usize) == Some(&[0; SECTOR])
    }
}

/// Something that happens in the middle of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The callback fails or lies, in a way that this number chooses.
    Fault(u8),
    /// The guest writes so many sectors, and makes them dirty so many callbacks later.
    Write { disk: usize, sector: u64, count: u64, dirty_after: u64 },
    /// A request completes.
    Complete,
    /// The host calls the engine.
    CallBack(u8),
}

enum Request {
    Read(ReadRequest),
    Write(WriteRequest),
}

struct InFlight {
    request: Request,
    disk: usize,
    sectors: Sectors,
    /// Its data were taken when it was submitted.
    taken: bool,
    fails: bool,
}

type CallBack = Box<dyn Fn(&Rc<World>, &'static str, u8)>;

#[derive(Default)]
pub(crate) struct World {
    this: Weak<World>,
    pub(crate) features: Features,
    pub(crate) disks: RefCell<Vec<Disk>>,
    pub(crate) choices: Vec<u8>,
    chosen: Cell<usize>,
    in_flight: RefCell<Vec<InFlight>>,
    /// How many of them there may be at once.
    pub(crate) max_requests: Cell<usize>,
    /// How many callbacks there were, how many there may be, and before which nothing happens.
    pub(crate) callbacks: Cell<u64>,
    pub(crate) limit: Cell<u64>,
    next: Cell<u64>,
    pub(crate) events: RefCell<Vec<(u64, Event)>>,
    /// Units that the guest has written to and not made dirty yet, and when it will.
    pub(crate) late_bits: RefCell<Vec<(u64, usize, u64)>>,
    /// How many writes of the guest there were.
    pub(crate) writes: Cell<u64>,
    pub(crate) clock: Cell<i64>,
    /// What `Event::CallBack` does.
    pub(crate) call_back: RefCell<Option<CallBack>>,
    /// Faults that the engine has met; of these, those that made a disk seem to be another, and those that it must
    /// report.
    pub(crate) faults: Cell<u64>,
    pub(crate) disguises: Cell<u64>,
    pub(crate) fatal: Cell<u64>,
    /// A drain has left requests in flight, or the dirty chunks were said to be fewer than they are.
    pub(crate) lost_requests: Cell<bool>,
    pub(crate) hid_dirty: Cell<bool>,
    pub(crate) trace: bool,
}

impl World {
    pub(crate) fn new(features: Features, disks: Vec<Disk>, choices: Vec<u8>) -> Rc<World> {
        let trace = std::env::var_os("FUZZ_TRACE").is_some();
        let disks = RefCell::new(disks);
        let world = Rc::new_cyclic(|this| World {
            this: Weak::clone(this),
            features,
            disks,
            choices,
            trace,
            ..World::default()
        });
        world.max_requests.set(usize::MAX);
        world.limit.set(u64::MAX);
        world.next.set(u64::MAX);
        world
    }

    pub(crate) fn choose(&self) -> u8 {
        let at = self.chosen.get();
        self.chosen.set(at + 1);
        self.choices.get(at % self.choices.len().max(1)).copied().unwrap_or(0)
    }

    /// Every callback begins here. `Some`: it is to fail.
    fn enter(&self, name: &'static str) -> Option<u8> {
        let now = self.callbacks.get() + 1;
        self.callbacks.set(now);
        assert!(now < self.limit.get(), "the engine makes callbacks without end");
        self.clock.set(self.clock.get() + self.features.tick_ns);
        if self.trace {
            eprintln!("    {now} {name}");
        }
        if now < self.next.get() { None } else { self.happen(now, name) }
    }

    /// At callback `at`, or the next one if that is over, this happens.
    pub(crate) fn plan(&self, at: u64, event: Event) {
        self.events.borrow_mut().push((at, event));
        self.next.set(self.next.get().min(at));
    }

    fn happen(&self, now: u64, name: &'static str) -> Option<u8> {
        let mut fault = None;
        loop {
            let due = self.events.borrow().iter().position(|(at, _)| *at <= now);
            let Some(index) = due else { break };
            let (_, event) = self.events.borrow_mut().remove(index);
            if self.trace {
                eprintln!("    {name}: {event:?}");
            }
            match event {
                Event::Fault(how) => fault = Some(how),
                Event::Write { disk, sector, count, dirty_after } => {
                    self.guest_writes(disk, sector, count, dirty_after)
                }
                Event::Complete => self.complete(1),
                Event::CallBack(which) => {
                    if let Some(call_back) = &*self.call_back.borrow() {
                        call_back(&self.this.upgrade().expect("the host has it"), name, which);
                    }
                }
            }
        }
        self.set_late_bits(now);
        let events = self.events.borrow().iter().map(|(at, _)| *at).min();
        let bits = self.late_bits.borrow().iter().map(|(due, ..)| *due).min();
        self.next.set(events.into_iter().chain(bits).min().unwrap_or(u64::MAX));
        fault
    }

    pub(crate) fn guest_writes(&self, disk: usize, sector: u64, count: u64, dirty_after: u64) {
        let mut disks = self.disks.borrow_mut();
        let Some(target) = disks.get_mut(disk) else { return };
        let stamp = self.writes.get() + 1;
        self.writes.set(stamp);
        for sector in sector..(sector + count).min(target.sectors()) {
            // Some of what a guest writes is zeroes.
            target.stamp(sector, if stamp % 4 == 3 { 0 } else { stamp << 32 | sector });
            let due = self.callbacks.get().saturating_add(dirty_after);
            self.late_bits.borrow_mut().push((due, disk, sector / self.features.unit()));
            self.next.set(self.next.get().min(due));
        }
        drop(disks);
        self.set_late_bits(self.callbacks.get());
    }

    /// Makes those units dirty whose time has come.
    pub(crate) fn set_late_bits(&self, now: u64) {
        let mut disks = self.disks.borrow_mut();
        self.late_bits.borrow_mut().retain(|&(due, disk, unit)| {
            if due <= now && disks[disk].tracking {
                disks[disk].dirty[unit as usize] = true;
            }
            due > now
        });
    }

    /// Stops the guest: it begins no more writes, and those it has begun end.
    pub(crate) fn stop_guest(&self) {
        self.events.borrow_mut().retain(|(_, event)| !matches!(event, Event::Write { .. }));
        self.set_late_bits(NEVER - 1);
    }

    /// The engine has met a fault that it need not report.
    fn fault<T>(&self, answer: T) -> T {
        self.faults.set(self.faults.get() + 1);
        answer
    }

    /// The engine has met a fault that makes a disk seem to be another.
    fn disguise<T>(&self, answer: T) -> T {
        self.disguises.set(self.disguises.get() + 1);
        self.fault(answer)
    }

    /// The engine has met a fault that must end what it does.
    fn fatal<T>(&self, answer: T) -> T {
        self.fatal.set(self.fatal.get() + 1);
        self.fault(answer)
    }

    fn submit(&self, disk: usize, sectors: Sectors, request: Request, fails: bool) {
        let how = self.choose();
        let write = matches!(request, Request::Write(_));
        let overlaps = |other: &InFlight| other.disk == disk && other.sectors.overlaps(sectors);
        let lost = self.lost_requests.get();
        assert!(lost || !self.in_flight.borrow().iter().any(overlaps), "requests in flight overlap: {sectors:?}");
        assert!(lost || self.requests() < self.max_requests.get(), "too many requests are in flight");
        self.check_range(disk, sectors, write);
        let mut request = InFlight { request, disk, sectors, taken: false, fails };
        if how & 1 == 1 {
            self.transfer(&mut request);
        }
        self.in_flight.borrow_mut().push(request);
        if how & 2 == 2 {
            let last = self.in_flight.borrow().len() - 1;
            self.complete_at(last);
        }
    }

    fn check_range(&self, disk: usize, sectors: Sectors, write: bool) {
        let disk = &self.disks.borrow()[disk];
        assert!(disk.held > 0, "a request to a device without a reference to it");
        let end = sectors.end().0 as i64 * SECTOR as i64;
        let inside = sectors.count > 0 && (disk.length().is_ok_and(|length| end <= length) || !write);
        assert!(inside, "a request outside of the device: {sectors:?}");
        assert!(!(write && disk.read_only), "a write to a read-only device");
    }

    fn transfer(&self, io: &mut InFlight) {
        if std::mem::replace(&mut io.taken, true) || io.fails {
            return;
        }
        let disk = &mut self.disks.borrow_mut()[io.disk];
        match &mut io.request {
            Request::Write(request) => {
                disk.put(io.sectors.start.0, request.data());
                disk.unflushed = true;
            }
            Request::Read(request) => {
                let from = io.sectors.start.0 as usize * SECTOR;
                let bytes = request.data();
                // A disk that was said to be longer than it is.
                let end = (from + bytes.len()).min(disk.data.len()).max(from);
                bytes.fill(0xbb);
                bytes[..end - from].copy_from_slice(disk.data.get(from..end).unwrap_or(&[]));
            }
        }
    }

    fn complete_at(&self, index: usize) {
        let mut io = self.in_flight.borrow_mut().remove(index);
        self.transfer(&mut io);
        let result = if io.fails { self.fatal(Err(Errno::IO)) } else { Ok(()) };
        match io.request {
            Request::Read(request) => request.complete(self.clock.get(), result),
            Request::Write(request) => request.complete(result),
        }
    }

    /// Completes so many requests, in any order.
    pub(crate) fn complete(&self, count: usize) {
        for _ in 0..count.min(self.requests()) {
            let index = usize::from(self.choose() >> 2) % self.requests();
            self.complete_at(index);
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.in_flight.borrow().len()
    }

    /// How far from the start of `range` the answer stays what it is there.
    fn extent(&self, range: Sectors, answer: impl Fn(u64) -> bool) -> Extent {
        let is = answer(range.start.0);
        let end = (range.start.0..range.end().0).find(|&sector| answer(sector) != is).unwrap_or(range.end().0);
        let sectors = match end - range.start.0 {
            _ if self.features.short_extents => 1,
            // Answers may go past the question.
            all if all == u64::from(range.count) => i64::MAX,
            some => some as i64,
        };
        Extent { holds: is, sectors }
    }
}
