// SPDX-License-Identifier: GPL-2.0-only
//! The engine's traits, implemented on a [`Machine`].

use std::rc::Rc;

use blkmig::device_name::DeviceName;
use blkmig::error::Errno;
use blkmig::geometry::{Sector, Sectors};
use blkmig::host::{Device, Extent, Host};
use blkmig::request::{ReadRequest, WriteRequest};

use super::disk::{Disk, Kind, run};
use super::guest::GuestMode;
use super::machine::{Features, Machine};
use super::{Call, HostDefect};

pub(crate) struct SimHost(pub(crate) Rc<Machine>);

pub(crate) struct SimDevice {
    machine: Rc<Machine>,
    index: usize,
    /// Whether it has replaced another device with its name.
    replacement: bool,
}

impl Host for SimHost {
    type Device = SimDevice;

    fn devices(&self) -> Vec<SimDevice> {
        self.0.enter(Call::Devices);
        let hidden = self.0.sim.defect == Some(HostDefect::HidesChanges);
        let disks = self.0.disks.borrow();
        let listed = disks.iter().enumerate().filter(|(_, disk)| hidden || !disk.unlisted);
        let device = |(index, disk): (usize, &Disk)| self.0.device(index, disk);
        listed.map(device).collect()
    }

    fn find(&self, name: &DeviceName) -> Option<SimDevice> {
        if self.0.enter(Call::Find) {
            return None;
        }
        let disks = self.0.disks.borrow();
        let index = disks.iter().position(|disk| disk.name == name.as_bytes())?;
        Some(self.0.device(index, &disks[index]))
    }

    fn drain(&self) {
        // Not on a threaded host: the engine would wait up to a real second for its threads.
        let lies = self.0.enter(Call::Drain) && !self.0.features.threaded;
        if self.0.hangs.get() {
            if self.0.canceling.get() {
                return;
            }
            self.0.hangs.set(false);
        }
        let in_flight = self.0.ios.borrow().len();
        if lies && in_flight > 0 {
            self.0.sim.broken.set(true);
            self.0.complete_some(self.0.sim.rng.index(in_flight));
        } else {
            self.0.complete_some(usize::MAX);
        }
    }

    fn wait(&self) -> bool {
        let fails = self.0.enter(Call::Wait);
        if !self.0.features.wait {
            // The engine is about to block, so on a threaded host another thread runs now.
            if self.0.features.threaded {
                self.0.complete_some(1);
            }
            return false;
        }
        // It may return without a completion, but not forever.
        if !fails || self.0.features.threaded {
            self.0.complete_some(1 + self.0.sim.rng.index(3));
        }
        true
    }

    fn threaded(&self) -> bool {
        self.0.enter(Call::Threaded);
        self.0.features.threaded
    }

    fn now_ns(&self) -> i64 {
        let now = self.0.sim.now();
        if self.0.enter(Call::Now) {
            return self.0.sim.rng.pick(&[0, -1, i64::MIN, i64::MAX, now - 1_000_000_000, now + 3_600_000_000_000]);
        }
        self.0.sim.now()
    }

    fn max_downtime_ns(&self) -> u64 {
        if self.0.enter(Call::MaxDowntime) { u64::MAX } else { self.0.features.max_downtime_ns }
    }

    fn ran_short(&self) -> bool {
        let short = self.0.enter(Call::RanShort);
        if short {
            self.0.events.tell();
        }
        short
    }
}

impl Machine {
    fn device(self: &Rc<Self>, index: usize, disk: &Disk) -> SimDevice {
        let hidden = self.sim.defect == Some(HostDefect::HidesChanges);
        SimDevice { machine: Rc::clone(self), index, replacement: disk.replaced && !hidden }
    }
}

impl SimDevice {
    fn enter(&self, call: Call) -> bool {
        self.machine.enter(call)
    }

    fn with<T>(&self, f: impl FnOnce(&mut Disk) -> T) -> T {
        f(&mut self.machine.disks.borrow_mut()[self.index])
    }

    /// Checks that the engine has a reference to the device and tracks it.
    fn tracked<T>(&self, f: impl FnOnce(&mut Disk) -> T) -> T {
        let sound = self.with(|disk| disk.held > 0 && disk.tracking);
        if !sound {
            self.machine.violation("dirty tracking is queried for a device without a reference or tracking");
        }
        self.with(f)
    }
}

impl Device for SimDevice {
    fn name(&self) -> DeviceName {
        self.enter(Call::Name);
        self.with(|disk| disk.name.as_slice().into())
    }

    fn is_same(&self, other: &SimDevice) -> bool {
        (self.index, self.replacement) == (other.index, other.replacement)
    }

    fn take_ref(&self) -> Result<(), Errno> {
        if self.enter(Call::Hold) {
            return Err(Errno::IO);
        }
        self.with(|disk| {
            if disk.kind == Kind::Gone {
                return Err(Errno::NO_MEDIUM);
            }
            disk.held += 1;
            Ok(())
        })
    }

    fn drop_ref(&self) {
        self.enter(Call::Release);
        let machine = &self.machine;
        let (held, tracking) = self.with(|disk| (disk.held, disk.tracking));
        if held == 0 {
            return machine.violation("a reference is dropped that was not taken");
        }
        if !machine.sim.broken.get() && !self.replacement {
            if tracking && machine.is_source() && held == 1 && !machine.sim.fault_was_injected() {
                machine.violation("the last reference to a device is dropped while it is tracked");
            }
            // When the user cancels while storage hangs, requests may outlive the reference.
            let waits = !(machine.hangs.get() && machine.canceling.get());
            if waits && machine.ios.borrow().iter().any(|io| io.disk == self.index) {
                machine.violation("a reference is dropped with requests in flight");
            }
        }
        if !machine.sim.shows_defect(HostDefect::LeaksReference) {
            self.with(|disk| disk.held -= 1);
        }
    }

    fn length(&self) -> Result<i64, Errno> {
        if self.enter(Call::Length) {
            return Err(Errno::IO);
        }
        let length = self.with(|disk| disk.length());
        self.machine.notice_length(self.index, length);
        if self.machine.sim.defect == Some(HostDefect::DropsTail) && !self.machine.is_source() {
            return length.map(|length| (length as u64).next_multiple_of(self.with(|disk| disk.chunk * 512)) as i64);
        }
        if self.machine.sim.defect == Some(HostDefect::HidesChanges) {
            return self.with(|disk| if disk.reported_length.is_some() { Ok(disk.data.len() as i64) } else { length });
        }
        length
    }

    fn is_read_only(&self) -> bool {
        self.enter(Call::IsReadOnly);
        self.with(|disk| disk.kind == Kind::ReadOnly)
    }

    fn allocated(&self, range: Sectors) -> Result<Extent, Errno> {
        let rng = &self.machine.sim.rng;
        if self.enter(Call::Allocated) {
            return match rng.below(4) {
                0 => Err(Errno::IO),
                1 => Ok(Extent { holds: false, sectors: 0 }),
                2 => Ok(Extent { holds: false, sectors: i64::MIN }),
                _ => Ok(Extent { holds: true, sectors: 0 }),
            };
        }
        let (is, sectors) = self.with(|disk| {
            if range.end().0 > disk.sectors() || range.count == 0 {
                return (true, 0);
            }
            run(range, |sector| disk.is_allocated(sector))
        });
        if sectors == 0 {
            self.machine.violation(&format!("asked for the allocation of {range:?}"));
        }
        // Hosts stop early at the end of a table, or report more than the range if the rest is the same.
        let sectors = match rng.below(8) {
            _ if self.machine.features.tiny_extents => 1,
            0 => 1 + rng.below(sectors),
            1 if sectors == u64::from(range.count) => i64::MAX as u64,
            _ => sectors,
        };
        Ok(Extent { holds: is, sectors: sectors as i64 })
    }

    fn known_zero(&self, range: Sectors) -> Option<Extent> {
        let rng = &self.machine.sim.rng;
        if self.enter(Call::KnownZero) {
            return rng.pick(&[
                None,
                Some(Extent { holds: true, sectors: 0 }),
                Some(Extent { holds: true, sectors: -7 }),
            ]);
        }
        let Features { known_zero, tiny_extents, .. } = self.machine.features;
        if !known_zero || (!tiny_extents && rng.chance(100)) {
            return None;
        }
        let (is, sectors) = self.with(|disk| run(range, |sector| disk.is_zero(sector)));
        let sectors = match rng.below(5) {
            _ if tiny_extents => 1,
            0 => 1 + rng.below(sectors),
            _ => sectors,
        };
        Some(Extent { holds: is, sectors: sectors as i64 })
    }

    fn read(&self, request: ReadRequest) -> Result<(), Errno> {
        let fails = self.enter(Call::Read);
        self.with(|disk| disk.is_there())?;
        if fails && self.machine.sim.rng.chance(300) {
            return Err(Errno::IO); // it could not start
        }
        self.machine.submit_read(self.index, request, fails);
        self.machine.sim.leave(Call::Read);
        Ok(())
    }

    fn write(&self, start: Sector, data: &[u8]) -> Result<(), Errno> {
        let fails = self.enter(Call::Write);
        self.machine.check_write(self.index, Sectors { start, count: (data.len() / 512) as u32 });
        if self.machine.features.async_writes {
            self.machine.violation("a synchronous write on a host with asynchronous writes");
        }
        if fails {
            // Half of it may have reached the disk.
            self.machine.store(self.index, start.0, &data[..data.len() / 1024 * 512]);
            return Err(Errno::IO);
        }
        self.with(|disk| disk.is_there())?;
        self.machine.store(self.index, start.0, data);
        Ok(())
    }

    fn has_write_async(&self) -> bool {
        self.enter(Call::HasWriteAsync);
        self.machine.features.async_writes
    }

    fn write_async(&self, request: WriteRequest) -> Result<(), Errno> {
        let fails = self.enter(Call::WriteAsync);
        if !self.machine.features.async_writes {
            self.machine.violation("an asynchronous write on a host without them");
        }
        self.with(|disk| disk.is_there())?;
        if fails && self.machine.sim.rng.chance(300) {
            return Err(Errno::IO);
        }
        self.machine.submit_write(self.index, request, fails);
        self.machine.sim.leave(Call::WriteAsync);
        Ok(())
    }

    fn write_zeroes(&self, range: Sectors) -> Option<Result<(), Errno>> {
        let fails = self.enter(Call::WriteZeroes);
        if !self.machine.features.write_zeroes {
            return None;
        }
        self.machine.check_write(self.index, range);
        if fails {
            return Some(Err(Errno::IO));
        }
        if let Err(gone) = self.with(|disk| disk.is_there()) {
            return Some(Err(gone));
        }
        if self.machine.features.zeroes_unsupported {
            return Some(Err(Errno::NOT_SUPPORTED));
        }
        self.machine.store(self.index, range.start.0, &vec![0; range.bytes()]);
        Some(Ok(()))
    }

    fn has_write_zeroes(&self) -> bool {
        self.enter(Call::HasWriteZeroes);
        self.machine.features.write_zeroes
    }

    fn cluster_bytes(&self) -> Option<u64> {
        if self.enter(Call::ClusterBytes) { Some(0) } else { self.machine.features.cluster }
    }

    fn activate(&self) -> Result<(), Errno> {
        if self.enter(Call::Activate) { Err(Errno::IO) } else { self.with(|disk| disk.is_there()) }
    }

    fn flush(&self) -> Result<(), Errno> {
        if self.enter(Call::Flush) {
            return Err(Errno::IO);
        }
        if self.machine.is_source() {
            self.machine.violation("the source's disk is flushed");
        }
        if self.machine.ios.borrow().iter().any(|io| io.disk == self.index) && !self.machine.sim.broken.get() {
            self.machine.violation("a flush with writes in flight");
        }
        if self.with(|disk| disk.held == 0) {
            self.machine.violation("a flush of a device without a reference");
        }
        let lies = self.machine.sim.shows_defect(HostDefect::LyingFlush);
        self.with(|disk| {
            disk.is_there()?;
            if !lies {
                disk.stable = disk.data.clone();
            }
            Ok(())
        })
    }

    fn set_tracking(&self, on: bool) -> Result<(), Errno> {
        if self.enter(if on { Call::TrackingOn } else { Call::TrackingOff }) {
            // If turning it off fails, it is off nevertheless: the engine cannot do more.
            self.with(|disk| disk.tracking &= on);
            return Err(Errno::IO);
        }
        if on && !self.machine.guest.unfinished.borrow().is_empty() {
            self.machine.sim.cover("writes in flight when tracking starts");
        }
        if on && self.machine.guest.mode == GuestMode::Seen && self.machine.sim.defect != Some(HostDefect::NoWait) {
            self.machine.finish_writes();
        }
        let sound = self.with(|disk| {
            let sound = disk.held > 0 && disk.tracking != on;
            disk.tracking = on;
            disk.dirty.fill(false);
            sound
        });
        if !sound {
            self.machine.violation(&format!("tracking is set to {on} without a reference, or for the second time"));
        }
        Ok(())
    }

    fn dirty_unit(&self) -> Option<i64> {
        let fails = self.enter(Call::DirtyUnit);
        let (unit, chunk) = self.tracked(|disk| (disk.unit as i64, disk.chunk as i64));
        if fails {
            let rng = &self.machine.sim.rng;
            return Some(rng.pick(&[0, -1, i64::MIN, i64::MAX, 1, 256, 513, 1536, 2 * chunk * 512]));
        }
        (unit < chunk).then_some(unit * 512)
    }

    fn is_dirty(&self, sector: Sector) -> bool {
        self.enter(Call::IsDirty);
        self.tracked(|disk| disk.dirty[(sector.0 / disk.unit) as usize])
    }

    fn reset_dirty(&self, range: Sectors) {
        self.enter(Call::ResetDirty);
        let extra = usize::from(self.machine.sim.shows_defect(HostDefect::ResetsNeighbor));
        self.tracked(|disk| {
            let end = range.end().0.div_ceil(disk.unit) as usize + extra;
            let end = end.min(disk.dirty.len());
            disk.dirty[(range.start.0 / disk.unit) as usize..end].fill(false);
        });
    }

    fn dirty_units(&self) -> Result<u64, Errno> {
        if self.enter(Call::DirtyChunks) {
            return Err(Errno::IO);
        }
        self.with(|disk| disk.is_there())?;
        Ok(self.tracked(|disk| disk.dirty.iter().filter(|&&dirty| dirty).count() as u64))
    }

    fn next_dirty(&self, from: Sector) -> Option<i64> {
        let fails = self.enter(Call::NextDirty);
        if !self.machine.features.next_dirty {
            return None;
        }
        let total = self.tracked(|disk| disk.sectors());
        if fails {
            let rng = &self.machine.sim.rng;
            return Some(rng.pick(&[-1, -5, i64::MIN, i64::MAX, total as i64, from.0 as i64 - 1, total as i64 - 1]));
        }
        if from.0 >= total {
            self.machine.violation("looks for dirty sectors past the end");
        }
        self.tracked(|disk| {
            let found = (from.0..total).find(|&sector| disk.dirty[(sector / disk.unit) as usize]);
            Some(found.map_or(-1, |sector| sector as i64))
        })
    }
}
