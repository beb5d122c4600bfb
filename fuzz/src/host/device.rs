// SPDX-License-Identifier: GPL-2.0-only
//! The engine's traits of a host and its devices, made of a [`World`].

use std::rc::Rc;

use blkmig::device_name::DeviceName;
use blkmig::error::Errno;
use blkmig::geometry::{Sector, Sectors};
use blkmig::host::{Device, Extent, Host};
use blkmig::request::{ReadRequest, WriteRequest};

use super::{Disk, Features, InFlight, Request, SECTOR, World};

pub(crate) struct SmallHost(pub(crate) Rc<World>);

pub(crate) struct SmallDevice {
    world: Rc<World>,
    index: usize,
}

impl Host for SmallHost {
    type Device = SmallDevice;

    fn devices(&self) -> Vec<SmallDevice> {
        let hidden = self.0.enter("devices").map(|how| self.0.disguise(usize::from(how & 1)));
        let disks = self.0.disks.borrow();
        let listed = (0..disks.len()).filter(|&index| !disks[index].unlisted && hidden != Some(index));
        listed.map(|index| SmallDevice { world: Rc::clone(&self.0), index }).collect()
    }

    fn find(&self, name: &DeviceName) -> Option<SmallDevice> {
        if self.0.enter("find").is_some() {
            return self.0.fatal(None);
        }
        let index = self.0.disks.borrow().iter().position(|disk| disk.name == name.as_bytes())?;
        Some(SmallDevice { world: Rc::clone(&self.0), index })
    }

    fn drain(&self) {
        let lies = self.0.enter("drain").filter(|_| !self.0.features.threaded);
        let left = lies.map_or(0, |how| usize::from(how % 4)).min(self.0.requests());
        self.0.complete(self.0.requests() - left);
        if left > 0 {
            self.0.lost_requests.set(true);
            self.0.fault(());
        }
    }

    fn wait(&self) -> bool {
        let lies = self.0.enter("wait").is_some() && !self.0.features.threaded;
        // Where the engine is about to block, another thread gets its turn.
        if (self.0.features.wait || self.0.features.threaded) && !lies {
            self.0.complete(1 + usize::from(self.0.choose() & 1));
        }
        self.0.features.wait
    }

    fn threaded(&self) -> bool {
        self.0.features.threaded
    }

    fn now_ns(&self) -> i64 {
        let now = self.0.clock.get();
        match self.0.enter("now_ns") {
            Some(how) => self.0.fault([0, -1, i64::MIN, i64::MAX, now - 1_000_000][usize::from(how % 5)]),
            None => now,
        }
    }

    fn max_downtime_ns(&self) -> u64 {
        match self.0.enter("max_downtime_ns") {
            Some(how) => self.0.fault(if how & 1 == 0 { 0 } else { u64::MAX }),
            None => self.0.features.max_downtime_ns,
        }
    }

    fn ran_short(&self) -> bool {
        self.0.enter("ran_short").is_some() && self.0.fatal(true)
    }
}

impl SmallDevice {
    fn with<T>(&self, f: impl FnOnce(&mut Disk) -> T) -> T {
        f(&mut self.world.disks.borrow_mut()[self.index])
    }

    fn tracked<T>(&self, f: impl FnOnce(&mut Disk) -> T) -> T {
        self.with(|disk| {
            assert!(disk.held > 0 && disk.tracking, "dirty tracking is asked about a device that is not tracked");
            f(disk)
        })
    }
}

impl Device for SmallDevice {
    fn name(&self) -> DeviceName {
        self.world.enter("name");
        self.with(|disk| disk.name.as_slice().into())
    }

    fn is_same(&self, other: &SmallDevice) -> bool {
        self.index == other.index
    }

    fn take_ref(&self) -> Result<(), Errno> {
        match self.world.enter("hold") {
            Some(how) if how & 1 == 0 || !self.world.features.lies => self.world.fatal(Err(Errno::IO)),
            // At setup this leaves the device out, which the last stage notices.
            Some(_) => self.world.disguise(Err(Errno::NO_MEDIUM)),
            None if self.with(|disk| disk.gone) => Err(Errno::NO_MEDIUM),
            None => {
                self.with(|disk| disk.held += 1);
                Ok(())
            }
        }
    }

    fn drop_ref(&self) {
        self.world.enter("release");
        self.with(|disk| {
            assert!(disk.held > 0, "a reference is given back that was not taken");
            disk.held -= 1;
            assert!(disk.held > 0 || !disk.tracking, "a device is let go while it is tracked");
        });
        let in_flight = self.world.in_flight.borrow().iter().any(|io| io.disk == self.index);
        assert!(!in_flight || self.world.lost_requests.get(), "a device is let go with requests in flight");
    }

    fn length(&self) -> Result<i64, Errno> {
        let truth = self.with(|disk| disk.length());
        let how = self.world.enter("length");
        if how.is_some() && !self.world.features.lies {
            return self.world.fatal(Err(Errno::IO));
        }
        let long = truth.unwrap_or(0);
        how.map_or(truth, |how| {
            self.world.disguise(match how % 8 {
                0 | 1 => Err(Errno::IO),
                2 => Err(Errno::NO_MEDIUM),
                3 => Ok(long + SECTOR as i64),
                4 => Ok(long - SECTOR as i64),
                5 => Ok(long + 1),
                6 => Ok(-long),
                _ => Ok(i64::MAX),
            })
        })
    }

    fn is_read_only(&self) -> bool {
        self.world.enter("is_read_only");
        self.with(|disk| disk.read_only)
    }

    fn allocated(&self, range: Sectors) -> Result<Extent, Errno> {
        if let Some(how) = self.world.enter("allocated") {
            let odd = |is, sectors| Ok(Extent { holds: is, sectors });
            return self.world.fault(match how % 4 {
                0 => Err(Errno::IO),
                1 => odd(false, 0),
                2 => odd(false, i64::MIN),
                _ => odd(true, 0),
            });
        }
        let allocated = |disk: &mut Disk| {
            self.world.extent(range, |sector| disk.allocated.get(sector as usize).is_none_or(|&allocated| allocated))
        };
        Ok(self.with(allocated))
    }

    fn known_zero(&self, range: Sectors) -> Option<Extent> {
        if let Some(how) = self.world.enter("known_zero") {
            let odd = |is, sectors| Some(Extent { holds: is, sectors });
            return self.world.fault([None, odd(true, 0), odd(true, -7), odd(false, 1)][usize::from(how % 4)]);
        }
        self.world
            .features
            .known_zero
            .then(|| self.with(|disk| self.world.extent(range, |sector| disk.is_zero(sector))))
    }

    fn read(&self, request: ReadRequest) -> Result<(), Errno> {
        let fault = self.world.enter("read");
        if fault.is_some_and(|how| how & 1 == 0) {
            return self.world.fatal(Err(Errno::IO));
        }
        self.world.submit(self.index, request.sectors(), Request::Read(request), fault.is_some());
        Ok(())
    }

    fn write(&self, start: Sector, data: &[u8]) -> Result<(), Errno> {
        let fails = self.world.enter("write").is_some();
        let sectors = Sectors { start, count: (data.len() / SECTOR) as u32 };
        self.world.check_range(self.index, sectors, true);
        assert!(!self.world.features.write_async, "a synchronous write on a host that has others");
        // A disk may have done half of what has failed.
        let done = if fails { data.len() / SECTOR / 2 * SECTOR } else { data.len() };
        self.with(|disk| {
            disk.put(start.0, &data[..done]);
            disk.unflushed = true;
        });
        if fails { self.world.fatal(Err(Errno::IO)) } else { Ok(()) }
    }

    fn has_write_async(&self) -> bool {
        self.world.features.write_async
    }

    fn write_async(&self, request: WriteRequest) -> Result<(), Errno> {
        let fault = self.world.enter("write_async");
        if fault.is_some_and(|how| how & 1 == 0) {
            return self.world.fatal(Err(Errno::IO));
        }
        self.world.submit(self.index, request.sectors(), Request::Write(request), fault.is_some());
        Ok(())
    }

    fn write_zeroes(&self, range: Sectors) -> Option<Result<(), Errno>> {
        let fails = self.world.enter("write_zeroes").is_some();
        if !self.world.features.write_zeroes {
            return None;
        }
        self.world.check_range(self.index, range, true);
        let overlaps = |io: &InFlight| io.disk == self.index && io.sectors.overlaps(range);
        let in_order = self.world.lost_requests.get() || !self.world.in_flight.borrow().iter().any(overlaps);
        assert!(in_order, "zeroes overlap with requests in flight: {range:?}");
        if fails {
            return Some(self.world.fatal(Err(Errno::IO)));
        }
        if self.world.features.zeroes_unsupported {
            return Some(Err(Errno::NOT_SUPPORTED));
        }
        self.with(|disk| {
            let kept = disk.sectors().saturating_sub(range.start.0).min(range.count.into()) as usize;
            disk.put(range.start.0, &vec![0; kept * SECTOR]);
            disk.unflushed = true;
        });
        Some(Ok(()))
    }

    fn has_write_zeroes(&self) -> bool {
        self.world.features.write_zeroes
    }

    fn cluster_bytes(&self) -> Option<u64> {
        match self.world.enter("cluster_bytes") {
            Some(how) => self.world.fault([Some(0), Some(513), Some(u64::MAX), None][usize::from(how % 4)]),
            None => self.world.features.cluster,
        }
    }

    fn activate(&self) -> Result<(), Errno> {
        if self.world.enter("activate").is_some() { self.world.fatal(Err(Errno::IO)) } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Errno> {
        if self.world.enter("flush").is_some() {
            return self.world.fatal(Err(Errno::IO));
        }
        let in_flight = self.world.in_flight.borrow().iter().any(|io| io.disk == self.index);
        assert!(!in_flight || self.world.lost_requests.get(), "a flush with writes in flight");
        self.with(|disk| disk.unflushed = false);
        Ok(())
    }

    fn set_tracking(&self, on: bool) -> Result<(), Errno> {
        let fails = self.world.enter("set_tracking").is_some();
        self.with(|disk| {
            assert!(disk.held > 0 && disk.tracking != on, "tracking is set to {on} without a reference, or again");
            // Where ending it fails, nothing more can be asked of the engine.
            disk.tracking = on && !fails;
            disk.dirty.fill(false);
        });
        match (fails, on) {
            (false, _) => Ok(()),
            (true, true) => self.world.fatal(Err(Errno::IO)),
            (true, false) => self.world.fault(Err(Errno::IO)),
        }
    }

    fn dirty_unit(&self) -> Option<i64> {
        let Features { chunk, unit, .. } = self.world.features;
        if unit == 0 {
            return None;
        }
        let odd = [0, -1, i64::MIN, i64::MAX, 256, 513, 1536, 2 * chunk as i64 * SECTOR as i64];
        match self.world.enter("dirty_unit") {
            Some(how) => self.world.fatal(Some(odd[usize::from(how) % odd.len()])),
            None => self.tracked(|_| Some(unit as i64 * SECTOR as i64)),
        }
    }

    fn is_dirty(&self, sector: Sector) -> bool {
        let fault = self.world.enter("is_dirty");
        let unit = sector.0 / self.world.features.unit();
        let truth = self.tracked(|disk| disk.dirty.get(unit as usize) == Some(&true));
        fault.map_or(truth, |how| self.world.fault(how & 1 == 1))
    }

    fn reset_dirty(&self, range: Sectors) {
        self.world.enter("reset_dirty");
        let unit = self.world.features.unit();
        let (start, end) = (range.start.0 / unit, range.end().0.div_ceil(unit));
        self.tracked(|disk| disk.dirty.iter_mut().take(end as usize).skip(start as usize).for_each(|bit| *bit = false));
    }

    fn dirty_units(&self) -> Result<u64, Errno> {
        let fault = self.world.enter("dirty_units");
        let truth = self.tracked(|disk| disk.dirty.iter().filter(|&&dirty| dirty).count() as u64);
        match fault.map(|how| how % 4) {
            None => Ok(truth),
            Some(0) => self.world.fatal(Err(Errno::IO)),
            Some(1) => self.world.fault(Ok(u64::MAX)),
            Some(2) => self.world.fault(Ok(truth + 1)),
            Some(_) => {
                self.world.hid_dirty.set(true);
                self.world.fault(Ok(0))
            }
        }
    }

    fn next_dirty(&self, from: Sector) -> Option<i64> {
        let fault = self.world.enter("next_dirty");
        if !self.world.features.next_dirty {
            return None;
        }
        self.tracked(|disk| {
            let total = disk.sectors() as i64;
            let past_end = from.0 as i64 >= total && self.world.faults.get() == 0 && disk.says.is_none();
            assert!(!past_end, "dirty sectors are looked for past the end");
            if let Some(how) = fault {
                let odd = [-1, i64::MIN, i64::MAX, total, total - 1, from.0 as i64 - 1, from.0 as i64];
                return Some(self.world.fault(odd[usize::from(how % 7)]));
            }
            let dirty = |sector: &i64| disk.dirty[*sector as usize / self.world.features.unit() as usize];
            Some((from.0 as i64..total).find(dirty).unwrap_or(-1))
        })
    }
}
