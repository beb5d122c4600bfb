// SPDX-License-Identifier: GPL-2.0-only
//! The guest: its writes take time, and make their chunks dirty at different moments.

use std::cell::{Cell, RefCell};

use super::HostDefect;
use super::machine::Machine;

/// When a guest write makes its chunks dirty. All are allowed: a bit is never set before the data it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestMode {
    /// At once.
    Atomic,
    /// Some time after the data were written.
    After,
    /// With the first half of the data, and again with the second.
    Twice,
    /// As `Twice`, but only for writes that began while tracking was on. To start it, the host waits for the others.
    Seen,
}

pub(crate) struct Guest {
    pub(crate) mode: GuestMode,
    /// In this many of a thousand calls, it starts or ends a write.
    pub(crate) rate: u64,
    pub(crate) runs: Cell<bool>,
    /// Writes that, against the contract, come in the last stage.
    pub(crate) late: Cell<u64>,
    stamp: Cell<u64>,
    pub(crate) unfinished: RefCell<Vec<Unfinished>>,
}

pub(crate) struct Unfinished {
    pub(crate) disk: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
    stamp: u64,
    /// Whether tracking was on when it began.
    tracked: bool,
}

impl Guest {
    pub(crate) fn new(mode: GuestMode, rate: u64) -> Guest {
        Guest {
            mode,
            rate,
            runs: Cell::new(false),
            late: Cell::new(0),
            stamp: Cell::new(0),
            unfinished: RefCell::default(),
        }
    }
}

impl Machine {
    /// Starts a guest write, or ends one that was started.
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
        if matches!(self.guest.mode, GuestMode::Twice | GuestMode::Seen) {
            disk.stamp(write.start + (write.end - write.start) / 2..write.end, write.stamp);
        }
        if write.tracked || self.guest.mode != GuestMode::Seen {
            disk.mark_dirty(write.start..write.end);
        }
        self.sim.trace(|| format!("  guest ends write {}:{}..{}", write.disk, write.start, write.end));
    }

    pub(crate) fn guest_write(&self, mode: GuestMode) {
        let rng = &self.sim.rng;
        let mut disks = self.disks.borrow_mut();
        let index = rng.index(disks.len());
        let disk = &mut disks[index];
        if !disk.migrates() {
            return;
        }
        let sectors = disk.sectors();
        // Most writes go to the same few places.
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
            GuestMode::Twice | GuestMode::Seen => disk.stamp(start..half, stamp),
        }
        if mode != GuestMode::After && !self.sim.shows_defect(HostDefect::ForgetsDirty) {
            disk.mark_dirty(start..end);
        }
        if mode != GuestMode::Atomic {
            let tracked = disk.tracking;
            self.guest.unfinished.borrow_mut().push(Unfinished { disk: index, start, end, stamp, tracked });
        }
    }

    /// Stops the guest. As in a real hypervisor, its writes have ended when this returns.
    pub(crate) fn stop_guest(&self) {
        self.guest.runs.set(false);
        self.finish_writes();
    }

    /// Waits for guest writes in flight.
    pub(crate) fn finish_writes(&self) {
        let unfinished = std::mem::take(&mut *self.guest.unfinished.borrow_mut());
        for write in &unfinished {
            self.finish_write(write);
        }
    }
}
