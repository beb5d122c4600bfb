// SPDX-License-Identifier: GPL-2.0-only
//! One device on its way in, and the ranges of a chunk that it takes as data and as zeroes.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::buffers::is_zero;
use crate::device_name::DeviceName;
use crate::error::{Errno, Error};
use crate::geometry::{Geometry, SECTOR_BYTES, SECTOR_LEN, Sector, Sectors};
use crate::host::{Device, DeviceRef, Host, known_zeroes};

pub(super) struct Target<D: Device> {
    pub(super) name: DeviceName,
    pub(super) device: DeviceRef<D>,
    /// Sectors.
    pub(super) total: u64,
    /// Bytes of the units in which zeroes are looked for; `None` where looking is no use.
    zero_unit: Option<usize>,
    /// Whether the section has written to it.
    pub(super) written: bool,
    /// Whether the user was told of data past its end.
    warned: bool,
}

impl<D: Device> Target<D> {
    /// Finds a device and makes it ready for writes.
    pub(super) fn open<H: Host<Device = D>>(
        host: &H,
        name: &DeviceName,
        geometry: Geometry,
    ) -> Result<Target<D>, Error> {
        let failed = |why, errno| Error::Device { device: name.clone(), why, errno };
        let device = find(host, name, Error::UnknownDevice)?;
        if device.is_read_only() {
            return Err(Error::ReadOnly(name.clone()));
        }
        let length = match device.length() {
            Ok(length) if length > 0 => length,
            Ok(_) => return Err(Error::Length { device: name.clone(), errno: Errno::INVALID }),
            Err(errno) => return Err(Error::Length { device: name.clone(), errno }),
        };
        if length.unsigned_abs() % SECTOR_BYTES != 0 {
            return Err(Error::OddLength { device: name.clone(), length });
        }
        device.activate().map_err(|errno| failed("activate", errno))?;
        let zero_unit = device.has_write_zeroes().then(|| zero_unit(device.cluster_bytes(), geometry));
        let total = length.unsigned_abs() / SECTOR_BYTES;
        Ok(Target { name: name.clone(), device, total, zero_unit, written: false, warned: false })
    }

    /// Brings what was written to stable storage.
    pub(super) fn flush(&self) -> Result<(), Error> {
        flush(&*self.device, &self.name)
    }

    /// The same for a device that another section has written to.
    pub(super) fn flush_again<H: Host<Device = D>>(host: &H, name: &DeviceName) -> Result<(), Error> {
        flush(&*find(host, name, Error::WentAway)?, name)
    }

    /// What a chunk holds past the end of the device, as padding: zeroes, or the source's device is longer, and
    /// its data would be lost. But sources from 2011 to QEMU 9.0 leave there what was in their memory.
    pub(super) fn check_tail(&mut self, sector: Sector, padding: &[u8], accept: bool) -> Result<(), Error> {
        if is_zero(padding) {
            return Ok(());
        }
        if !accept {
            let used = padding.iter().rposition(|&byte| byte != 0).map_or(0, |last| last / SECTOR_LEN + 1);
            let length = self.total * SECTOR_BYTES;
            return Err(Error::TooShort {
                device: self.name.clone(),
                length,
                source_length: length + (used * SECTOR_LEN) as u64,
            });
        }
        if !std::mem::replace(&mut self.warned, true) {
            log::warn!(
                "the chunk at sector {} goes past the end of device {}; {} bytes are dropped",
                sector.0,
                self.name,
                padding.len()
            );
        }
        Ok(())
    }

    /// The run of data that begins at byte `from` of what goes to the device: whether it is zeroes that need
    /// not be written as data, and where it ends.
    pub(super) fn next_run(&self, data: &[u8], from: usize) -> (bool, Range<usize>) {
        let Some(unit) = self.zero_unit else {
            return (false, from..data.len());
        };
        let mut clusters = data[from..].chunks(unit).map(|cluster| (is_zero(cluster), cluster.len()));
        let (zero, length) = clusters.next().unwrap_or_default();
        let more: usize = clusters.take_while(|(other, _)| *other == zero).map(|(_, length)| length).sum();
        (zero, from..from + length + more)
    }

    /// Whether the device knows to be zero in this range already.
    pub(super) fn is_known_zero(&self, range: Sectors) -> bool {
        known_zeroes(&*self.device, range.start, range.end(), |at| range.end().0 - at).is_some()
    }

    pub(super) fn write_failed(&self, start: u64, errno: Errno) -> Error {
        Error::Write { device: self.name.clone(), sector: start, errno }
    }
}

fn find<H: Host>(
    host: &H,
    name: &DeviceName,
    missing: impl FnOnce(DeviceName) -> Error,
) -> Result<DeviceRef<H::Device>, Error> {
    let device = host.find(name).ok_or_else(|| missing(name.clone()))?;
    let failed = |errno| Error::Device { device: name.clone(), why: "take a reference to", errno };
    DeviceRef::new(device).map_err(failed)
}

fn flush(device: &impl Device, name: &DeviceName) -> Result<(), Error> {
    device.flush().map_err(|errno| Error::Device { device: name.clone(), why: "flush", errno })
}

/// A cluster, if it is made of sectors and a chunk is made of it; else a chunk.
fn zero_unit(cluster: Option<u64>, geometry: Geometry) -> usize {
    let chunk = geometry.chunk_bytes();
    cluster
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|&bytes| bytes > 0 && bytes % SECTOR_LEN == 0 && chunk % bytes == 0)
        .unwrap_or(chunk)
}
