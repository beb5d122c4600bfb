// SPDX-License-Identifier: GPL-2.0-only
//! One of the two machines: its disks, its guest and its requests in flight.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use blkmig::call::CallContext;
use blkmig::error::Errno;
use blkmig::geometry::Sectors;
use blkmig::instance::Instance;
use blkmig::request::{ReadRequest, WriteRequest};

use super::disk::Disk;
use super::events::DeviceEvents;
use super::guest::{Guest, GuestMode};
use super::host::SimHost;
use super::misuse::StrayStream;
use super::{Call, HostDefect, Sim};

/// The optional functions a host has, and how it behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    pub(crate) async_writes: bool,
    pub(crate) wait: bool,
    pub(crate) next_dirty: bool,
    pub(crate) write_zeroes: bool,
    /// The host has `write_zeroes`, but its disks do not support it.
    pub(crate) zeroes_unsupported: bool,
    pub(crate) known_zero: bool,
    /// Each answer about allocation or zeroes covers only one sector.
    pub(crate) tiny_extents: bool,
    pub(crate) cluster: Option<u64>,
    pub(crate) owned_buffers: bool,
    pub(crate) threaded: bool,
    /// Requests complete during any call, not only while the engine waits.
    pub(crate) sudden: bool,
    /// Of a thousand requests, this many complete before the submitting call returns.
    pub(crate) immediate: u64,
    /// The host calls the engine from inside the engine's calls.
    pub(crate) calls_back: bool,
    /// The clock advances by less than this in one call.
    pub(crate) tick_ns: u64,
    pub(crate) max_downtime_ns: u64,
}

/// When a request copies its data: at its start, at its end, or half and half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Early,
    Late,
    /// The first half early, the second half late.
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

    fn has_buffer(&self, start: *mut u8) -> bool {
        matches!(&self.request, Request::Read(request) if request.as_ptr() == start)
    }
}

/// The content of buffers whose reads outlived their migration.
const ORPHANED: u8 = 0x5a;

pub(crate) type Script = Rc<dyn Fn(&Machine, Call)>;

pub(crate) struct Machine {
    pub(crate) label: &'static str,
    pub(crate) sim: Rc<Sim>,
    pub(crate) features: Features,
    pub(crate) disks: RefCell<Vec<Disk>>,
    pub(crate) ios: RefCell<Vec<Io>>,
    pub(crate) guest: Guest,
    pub(crate) events: DeviceEvents,
    /// The storage hangs: requests in flight do not complete.
    pub(crate) hangs: Cell<bool>,
    /// The user has canceled, so the engine need not wait for requests in flight.
    pub(crate) canceling: Cell<bool>,
    /// Reads of a migration that was canceled before they completed.
    pub(crate) orphans: RefCell<Vec<Io>>,
    pub(crate) instance: RefCell<Weak<Instance<SimHost>>>,
    pub(crate) max_reads: usize,
    pub(crate) max_writes: usize,
    /// What a test does during each call.
    pub(crate) script: RefCell<Option<Script>>,
    /// Old data kept for the defects that return or swap them.
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
        Rc::new(Machine {
            label,
            sim,
            features,
            disks: RefCell::new(disks),
            ios: RefCell::default(),
            guest: Guest::new(mode, rate),
            events: DeviceEvents::default(),
            hangs: Cell::new(false),
            canceling: Cell::new(false),
            orphans: RefCell::default(),
            instance: RefCell::default(),
            max_reads,
            max_writes,
            script: RefCell::default(),
            kept: RefCell::default(),
        })
    }

    pub(crate) fn is_source(&self) -> bool {
        self.label == "source"
    }

    pub(crate) fn violation(&self, text: &str) {
        self.sim.violation(format!("{}: {text}", self.label));
    }

    /// Every call of the engine passes through here, and whatever can happen in a hypervisor meanwhile may happen now.
    /// Returns whether the call must fail.
    pub(crate) fn enter(&self, call: Call) -> bool {
        let rng = &self.sim.rng;
        self.sim.advance(rng.below(self.features.tick_ns));
        self.run_events(true);
        if self.features.sudden && rng.chance(150) {
            self.complete_some(1);
        }
        if !self.orphans.borrow().is_empty() && rng.chance(10) {
            self.complete_orphans(1);
        }
        if self.guest.runs.get() && rng.chance(self.guest.rate) {
            self.guest_step();
        }
        // Only in calls after which the engine still has to look for dirty chunks. It could not notice later writes.
        if self.guest.late.get() > 0 && matches!(call, Call::Read | Call::Wait | Call::Drain | Call::ResetDirty) {
            self.guest.late.set(self.guest.late.get() - 1);
            self.guest_write(GuestMode::Atomic);
        }
        if self.features.calls_back && rng.chance(20) {
            self.call_back(call);
        }
        let script = self.script.borrow().clone();
        if let Some(script) = script {
            script(self, call);
        }
        self.sim.count_call(self.label, call)
    }

    /// The host calls the engine while the engine is in a call to the host.
    fn call_back(&self, call: Call) {
        let Some(instance) = self.instance.borrow().upgrade() else { return };
        let (total, transferred) = instance.status().bytes();
        if transferred > total {
            self.violation("more bytes are transferred than there are");
        }
        // While an error is being reported the migration may already be over. In any other call it must still run.
        if matches!(call, Call::SetError | Call::Print) {
            return;
        }
        if self.sim.rng.chance(300) {
            let _ = instance.pending();
            instance.cleanup(None);
        }
        if self.is_source() && self.sim.rng.chance(300) {
            let mut stray = StrayStream::default();
            let context = &mut CallContext { stream: &mut stray, monitor: None };
            let result =
                if self.sim.rng.chance(500) { instance.iterate(context).map(drop) } else { instance.complete(context) };
            if result.is_ok() || stray.put > 0 {
                self.violation(&format!("a call from inside {call:?} was accepted: {result:?}"));
            }
        }
    }

    /// Takes a read request and checks that the contract allows it.
    pub(crate) fn submit_read(&self, disk: usize, mut request: ReadRequest, fails: bool) {
        let sectors = request.sectors();
        {
            let disks = self.disks.borrow();
            let ios = self.ios.borrow();
            let target = &disks[disk];
            if !self.is_source() {
                self.violation("the destination is read");
            }
            if target.held == 0 || !target.tracking {
                self.violation("a read from a device without a reference or tracking");
            }
            if sectors.count == 0 || sectors.end().0 > target.sectors() || sectors.start.0 % target.unit != 0 {
                self.violation(&format!("a read of {sectors:?} from a device of {}", target.sectors()));
            }
            if request.as_ptr() as usize % 4096 != 0 {
                self.violation("a buffer that is not aligned");
            }
            if ios.iter().chain(self.orphans.borrow().iter()).any(|io| io.has_buffer(request.as_ptr())) {
                self.violation("two reads into one buffer");
            }
            self.notice_read();
            if !self.sim.broken.get() {
                if ios.iter().any(|io| io.disk == disk && io.sectors.overlaps(sectors)) {
                    self.violation(&format!("two reads of {sectors:?} in flight"));
                }
                if ios.len() >= self.max_reads {
                    self.violation("more reads in flight than max_reads");
                }
            }
        }
        let taken = self.sim.rng.pick(&[Taken::Early, Taken::Late, Taken::Torn]);
        self.fill(&mut request, disk, if taken == Taken::Torn { sectors.count.div_ceil(2) } else { sectors.count });
        if self.sim.defect == Some(HostDefect::StaleRead) {
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
            self.violation("more writes in flight than max_writes");
        }
        let taken = self.sim.rng.pick(&[Taken::Early, Taken::Late, Taken::Torn]);
        if taken != Taken::Late {
            let bytes = request.data().len() / if taken == Taken::Torn { 2 } else { 1 };
            self.store(disk, sectors.start.0, &request.data()[..bytes / 512 * 512]);
        }
        self.start(Io { request: Request::Write(request), disk, sectors, taken, fails });
    }

    /// Checks that the contract allows this write.
    pub(crate) fn check_write(&self, disk: usize, sectors: Sectors) {
        let disks = self.disks.borrow();
        let target = &disks[disk];
        if self.is_source() {
            self.violation("the source's disk is written to");
        }
        if target.held == 0 || !target.migrates() {
            self.violation("a write to a device without a reference, or that cannot be written to");
        }
        let past_end = sectors.end().0 > target.sectors() && self.sim.defect != Some(HostDefect::DropsTail);
        if sectors.count == 0 || past_end {
            self.violation(&format!("a write of {sectors:?} to a device of {} sectors", target.sectors()));
        }
        let overlaps = self.ios.borrow().iter().any(|io| io.disk == disk && io.sectors.overlaps(sectors));
        if overlaps && !self.sim.broken.get() {
            self.violation(&format!("a write of {sectors:?} that overlaps another write in flight"));
        }
    }

    pub(crate) fn store(&self, disk: usize, start: u64, data: &[u8]) {
        if self.sim.shows_defect(HostDefect::LosesWrite) {
            return;
        }
        let mut disks = self.disks.borrow_mut();
        let target = &mut disks[disk];
        // A write past the end was reported above.
        let room = (target.data.len() as u64).saturating_sub(start * 512) as usize;
        let data = &data[..data.len().min(room)];
        if self.sim.defect == Some(HostDefect::SwapsWrites) {
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
        if !self.hangs.get() && self.sim.rng.chance(self.features.immediate) {
            let last = self.ios.borrow().len() - 1;
            self.complete(last);
        }
    }

    /// Completes at most this many requests, in random order. Returns how many it completed.
    pub(crate) fn complete_some(&self, most: usize) -> usize {
        let mut completed = 0;
        while completed < most && !self.hangs.get() {
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
        let fails = fails || self.disks.borrow()[disk].is_there().is_err();
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

    /// The migration has ended before its reads completed. Until they do, nobody else may use their buffers.
    pub(crate) fn orphan_reads(&self) {
        for mut io in self.ios.take() {
            if let Request::Read(request) = &mut io.request {
                request.data().fill(ORPHANED);
            }
            self.orphans.borrow_mut().push(io);
        }
    }

    /// Completes at most this many of those reads.
    pub(crate) fn complete_orphans(&self, most: usize) {
        for _ in 0..most {
            let Some(io) = self.orphans.borrow_mut().pop() else { return };
            let Request::Read(mut request) = io.request else { return };
            if request.data().iter().any(|&byte| byte != ORPHANED) {
                self.violation("a buffer has changed while a read into it was in flight");
            }
            self.fill(&mut request, io.disk, io.sectors.count);
            if self.sim.defect == Some(HostDefect::LosesRequest) {
                std::mem::forget(request);
            } else {
                request.complete(self.sim.now(), Ok(()));
            }
        }
    }
}
