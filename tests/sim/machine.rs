// SPDX-License-Identifier: GPL-2.0-only
//! One of the two machines: its disks, its guest, and the requests that are in flight in it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use blkmig::error::Errno;
use blkmig::geometry::Sectors;
use blkmig::module::Module;
use blkmig::request::{ReadRequest, WriteRequest};

use super::disk::Disk;
use super::host::SimHost;
use super::{Call, Sabotage, Sim};

/// What a host has, and how it behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    pub(crate) async_writes: bool,
    pub(crate) wait: bool,
    pub(crate) next_dirty: bool,
    pub(crate) write_zeroes: bool,
    /// `write_zeroes` is there, but the disks don't have it.
    pub(crate) zeroes_unsupported: bool,
    pub(crate) known_zero: bool,
    /// It tells of one sector at a time whether it is allocated.
    pub(crate) tiny_extents: bool,
    pub(crate) cluster: Option<u64>,
    pub(crate) owned_buffers: bool,
    pub(crate) threaded: bool,
    /// Requests complete while the engine is in any call, and not only where it waits.
    pub(crate) sudden: bool,
    /// Of a thousand requests, so many complete before they return.
    pub(crate) immediate: u64,
    /// Calls back into the engine from within calls.
    pub(crate) calls_back: bool,
    /// The most that its clock moves in one call.
    pub(crate) tick_ns: u64,
    pub(crate) max_downtime_ns: u64,
}

/// When a write of the guest makes its chunks dirty. Each is sound: a bit is set no earlier than the data it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestMode {
    /// At once.
    Atomic,
    /// Some time after the data.
    After,
    /// With the first half of the data, and again with the second.
    Twice,
}

pub(crate) struct Guest {
    pub(crate) mode: GuestMode,
    /// Of a thousand calls, in so many it starts or ends a write.
    pub(crate) rate: u64,
    pub(crate) runs: Cell<bool>,
    /// Writes that come in the last stage all the same.
    pub(crate) late: Cell<u64>,
    stamp: Cell<u64>,
    pub(crate) unfinished: RefCell<Vec<Unfinished>>,
}

pub(crate) struct Unfinished {
    pub(crate) disk: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
    stamp: u64,
}

/// When a request takes its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Early,
    Late,
    /// The first half early, the second late.
    Torn,
}

enum Request {
    Read(ReadRequest),
    Write(WriteRequest),
}

pub(crate) struct Io {
    request: Request,
    pub(crate) disk: usize,
    pub(crate) sectors: Sectors,
    taken: Taken,
    pub(crate) fails: bool,
}

impl Io {
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.request, Request::Read(_))
    }
}

pub(crate) type Script = Rc<dyn Fn(&Machine, Call)>;

pub(crate) struct Machine {
    pub(crate) label: &'static str,
    pub(crate) sim: Rc<Sim>,
    pub(crate) features: Features,
    pub(crate) disks: RefCell<Vec<Disk>>,
    pub(crate) ios: RefCell<Vec<Io>>,
    pub(crate) guest: Guest,
    pub(crate) module: RefCell<Weak<Module<SimHost>>>,
    pub(crate) max_reads: usize,
    pub(crate) max_writes: usize,
    /// What a test does in the middle of calls.
    pub(crate) script: RefCell<Option<Script>>,
    /// What a sabotage keeps.
    kept: RefCell<Vec<(usize, u64, Vec<u8>)>>,
}

impl Machine {
    pub(crate) fn new(
        label: &'static str,
        sim: Rc<Sim>,
        features: Features,
        disks: Vec<Disk>,
        (mode, rate): (GuestMode, u64),
        (max_reads, max_writes): (usize, usize),
    ) -> Rc<Machine> {
        let guest = Guest {
            mode,
            rate,
            runs: Cell::new(false),
            late: Cell::new(0),
            stamp: Cell::new(0),
            unfinished: RefCell::default(),
        };
        Rc::new(Machine {
            label,
            sim,
            features,
            disks: RefCell::new(disks),
            ios: RefCell::default(),
            guest,
            module: RefCell::default(),
            max_reads,
            max_writes,
            script: RefCell::default(),
            kept: RefCell::default(),
        })
    }

    pub(crate) fn is_source(&self) -> bool {
        self.label == "source"
    }

    pub(crate) fn wrong(&self, text: &str) {
        self.sim.wrong(format!("{}: {text}", self.label));
    }

    /// Every call of the engine comes through here. Whatever can happen in a hypervisor meanwhile may happen now; returns
    /// whether the call is to go wrong.
    pub(crate) fn enter(&self, call: Call) -> bool {
        let rng = &self.sim.rng;
        self.sim.advance(rng.below(self.features.tick_ns));
        if self.features.sudden && rng.chance(150) {
            self.complete_some(1);
        }
        if self.guest.runs.get() && rng.chance(self.guest.rate) {
            self.guest_step();
        }
        // Only where the engine must still look for dirty chunks afterwards: later writes nobody could notice.
        if self.guest.late.get() > 0 && matches!(call, Call::Read | Call::Wait | Call::Drain | Call::ResetDirty) {
            self.guest.late.set(self.guest.late.get() - 1);
            self.guest_write(GuestMode::Atomic);
        }
        if self.features.calls_back && rng.chance(20) {
            self.call_back();
        }
        let script = self.script.borrow().clone();
        if let Some(script) = script {
            script(self, call);
        }
        self.sim.strike(self.label, call)
    }

    /// A host that asks for something while the engine is in a call of its own.
    fn call_back(&self) {
        let Some(module) = self.module.borrow().upgrade() else { return };
        let (total, transferred) = module.status().bytes();
        if transferred > total {
            self.wrong("more bytes are transferred than there are");
        }
        if self.sim.rng.chance(300) {
            let _ = module.pending();
            module.cleanup(None);
        }
    }

    /// Starts a write of the guest, or ends one that it has started.
    pub(crate) fn guest_step(&self) {
        let unfinished = self.guest.unfinished.borrow().len();
        if unfinished > 0 && (unfinished > 3 || self.sim.rng.chance(500)) {
            let write = self.guest.unfinished.borrow_mut().swap_remove(self.sim.rng.index(unfinished));
            self.finish_write(&write);
        } else {
            self.guest_write(self.guest.mode);
        }
    }

    fn finish_write(&self, write: &Unfinished) {
        let mut disks = self.disks.borrow_mut();
        let disk = &mut disks[write.disk];
        if self.guest.mode == GuestMode::Twice {
            disk.stamp(write.start + (write.end - write.start) / 2..write.end, write.stamp);
        }
        disk.mark_dirty(write.start..write.end);
        self.sim.trace(|| format!("  guest ends write {}:{}..{}", write.disk, write.start, write.end));
    }

    fn guest_write(&self, mode: GuestMode) {
        let rng = &self.sim.rng;
        let mut disks = self.disks.borrow_mut();
        let index = rng.index(disks.len());
        let disk = &mut disks[index];
        if !disk.migrates() {
            return;
        }
        let sectors = disk.sectors();
        // Most writes go to the same places.
        let start = if rng.chance(700) { rng.below(sectors.div_ceil(5)) } else { rng.below(sectors) };
        let end = (start + 1 + rng.below(disk.chunk + 2)).min(sectors);
        if self
            .guest
            .unfinished
            .borrow()
            .iter()
            .any(|write| write.disk == index && write.start < end && start < write.end)
        {
            return; // guests do not write to one place twice at the same time
        }
        self.guest.stamp.set(self.guest.stamp.get() + 1);
        let stamp = if rng.chance(200) { 0 } else { self.guest.stamp.get() };
        self.sim.trace(|| format!("  guest writes {index}:{start}..{end} stamp {stamp} ({mode:?})"));
        let half = start + (end - start) / 2;
        match mode {
            GuestMode::Atomic | GuestMode::After => disk.stamp(start..end, stamp),
            GuestMode::Twice => disk.stamp(start..half, stamp),
        }
        if mode != GuestMode::After && !self.sim.sabotaged(Sabotage::ForgetsDirty) {
            disk.mark_dirty(start..end);
        }
        if mode != GuestMode::Atomic {
            self.guest.unfinished.borrow_mut().push(Unfinished { disk: index, start, end, stamp });
        }
    }

    /// The guest stops, as a hypervisor stops one: its writes are over when this returns.
    pub(crate) fn stop_guest(&self) {
        self.guest.runs.set(false);
        let unfinished = std::mem::take(&mut *self.guest.unfinished.borrow_mut());
        for write in &unfinished {
            self.finish_write(write);
        }
    }

    /// Takes a request. The checks are the contract's: what the engine must never ask for.
    pub(crate) fn submit_read(&self, disk: usize, mut request: ReadRequest, fails: bool) {
        let sectors = request.sectors();
        {
            let disks = self.disks.borrow();
            let ios = self.ios.borrow();
            let target = &disks[disk];
            if !self.is_source() {
                self.wrong("the destination is read");
            }
            if target.held == 0 || !target.tracking {
                self.wrong("a read from a device that is not held and tracked");
            }
            if sectors.count == 0 || sectors.end().0 > target.sectors() || sectors.start.0 % target.chunk != 0 {
                self.wrong(&format!("a read of {sectors:?} from a device of {}", target.sectors()));
            }
            if request.as_ptr() as usize % 4096 != 0 {
                self.wrong("a buffer that is not aligned");
            }
            if !self.sim.broken.get() {
                if ios.iter().any(|io| io.disk == disk && io.sectors.overlaps(sectors)) {
                    self.wrong(&format!("two reads of {sectors:?} in flight"));
                }
                if ios.len() >= self.max_reads {
                    self.wrong("more reads in flight than max_reads");
                }
            }
        }
        let taken = self.sim.rng.pick(&[Taken::Early, Taken::Late, Taken::Torn]);
        self.fill(&mut request, disk, if taken == Taken::Torn { sectors.count.div_ceil(2) } else { sectors.count });
        if self.sim.sabotage == Some(Sabotage::StaleRead) {
            self.keep_old(disk, &mut request);
        }
        self.start(Io { request: Request::Read(request), disk, sectors, taken, fails });
    }

    fn fill(&self, request: &mut ReadRequest, disk: usize, sectors: u32) {
        let range = Sectors { count: sectors, ..request.sectors() };
        request.data()[..range.bytes()].copy_from_slice(self.disks.borrow()[disk].bytes(range));
    }

    fn keep_old(&self, disk: usize, request: &mut ReadRequest) {
        let start = request.sectors().start.0;
        let fresh = request.data().to_vec();
        let mut kept = self.kept.borrow_mut();
        match kept.iter_mut().find(|(d, s, _)| *d == disk && *s == start) {
            Some((_, _, old)) => request.data().copy_from_slice(&std::mem::replace(old, fresh)),
            None => kept.push((disk, start, fresh)),
        }
    }

    pub(crate) fn submit_write(&self, disk: usize, request: WriteRequest, fails: bool) {
        let sectors = request.sectors();
        self.check_write(disk, sectors);
        if self.ios.borrow().len() >= self.max_writes && !self.sim.broken.get() {
            self.wrong("more writes in flight than max_writes");
        }
        let taken = self.sim.rng.pick(&[Taken::Early, Taken::Late, Taken::Torn]);
        if taken != Taken::Late {
            let bytes = request.data().len() / if taken == Taken::Torn { 2 } else { 1 };
            self.store(disk, sectors.start.0, &request.data()[..bytes / 512 * 512]);
        }
        self.start(Io { request: Request::Write(request), disk, sectors, taken, fails });
    }

    /// What any write must be like.
    pub(crate) fn check_write(&self, disk: usize, sectors: Sectors) {
        let disks = self.disks.borrow();
        let target = &disks[disk];
        if self.is_source() {
            self.wrong("the source's disk is written to");
        }
        if target.held == 0 || !target.migrates() {
            self.wrong("a write to a device that is not held, or can't be written to");
        }
        if sectors.count == 0 || sectors.end().0 > target.sectors() {
            self.wrong(&format!("a write of {sectors:?} to a device of {} sectors", target.sectors()));
        }
        let overlaps = self.ios.borrow().iter().any(|io| io.disk == disk && io.sectors.overlaps(sectors));
        if overlaps && !self.sim.broken.get() {
            self.wrong(&format!("a write of {sectors:?} while another one to the same place is in flight"));
        }
    }

    pub(crate) fn store(&self, disk: usize, start: u64, data: &[u8]) {
        if self.sim.sabotaged(Sabotage::LosesWrite) {
            return;
        }
        let mut disks = self.disks.borrow_mut();
        let target = &mut disks[disk];
        // A write past the end was reported above.
        let room = (target.data.len() as u64).saturating_sub(start * 512) as usize;
        let data = &data[..data.len().min(room)];
        if self.sim.sabotage == Some(Sabotage::SwapsWrites) {
            let mut kept = self.kept.borrow_mut();
            if let Some(index) = kept.iter().position(|(d, s, _)| (*d, *s) == (disk, start)) {
                target.put(start, data);
                return target.put(start, &kept.swap_remove(index).2);
            }
            kept.push((disk, start, data.to_vec()));
        }
        target.put(start, data);
    }

    fn start(&self, io: Io) {
        self.ios.borrow_mut().push(io);
        if self.sim.rng.chance(self.features.immediate) {
            let last = self.ios.borrow().len() - 1;
            self.complete(last);
        }
    }

    /// Completes requests in any order, at most so many; returns how many that were.
    pub(crate) fn complete_some(&self, most: usize) -> usize {
        let mut completed = 0;
        while completed < most {
            let in_flight = self.ios.borrow().len();
            if in_flight == 0 {
                break;
            }
            self.complete(self.sim.rng.index(in_flight));
            completed += 1;
        }
        completed
    }

    fn complete(&self, index: usize) {
        let Io { request, disk, sectors, taken, fails } = self.ios.borrow_mut().swap_remove(index);
        let kind = if matches!(request, Request::Read(_)) { "read" } else { "write" };
        self.sim.trace(|| {
            let result = if fails { "fails" } else { "done" };
            format!("  {} {kind} {disk}:{}+{} {result} ({taken:?})", self.label, sectors.start.0, sectors.count)
        });
        let result = if fails { Err(Errno::IO) } else { Ok(()) };
        match request {
            Request::Read(mut request) => {
                if fails {
                    request.data().fill(0xee);
                } else if taken == Taken::Late {
                    self.fill(&mut request, disk, sectors.count);
                } else if taken == Taken::Torn {
                    let from = sectors.count.div_ceil(2);
                    let disks = self.disks.borrow();
                    let at = from as usize * 512;
                    request.data()[at..].copy_from_slice(&disks[disk].bytes(sectors)[at..]);
                }
                request.complete(self.sim.now(), result);
            }
            Request::Write(request) => {
                if !fails {
                    self.store(disk, sectors.start.0, request.data());
                }
                request.complete(result);
            }
        }
    }
}
