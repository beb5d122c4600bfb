// SPDX-License-Identifier: GPL-2.0-only
//! One device on its way in, and the ranges of a chunk that it takes as data and as zeroes.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::buffers::is_zero;
use crate::error::{Errno, Error};
use crate::geometry::{Geometry, SECTOR_BYTES, SECTOR_LEN, Sectors};
use crate::host::{Device, Extent, Held, Host};
use crate::source::label;

pub(super) struct Target<D: Device> {
    pub(super) name: Vec<u8>,
    pub(super) device: Held<D>,
    /// Sectors.
    pub(super) total: u64,
    /// Bytes of the units in which zeroes are looked for; `None` where looking is no use.
    zero_unit: Option<usize>,
}

impl<D: Device> Target<D> {
    /// Finds a device and makes it ready for writes.
    pub(super) fn open<H: Host<Device = D>>(host: &H, name: &[u8], geometry: Geometry) -> Result<Target<D>, Error> {
        let failed = |why, errno| Error::Device { device: label(name), why, errno };
        let device = host.find(name).ok_or_else(|| Error::UnknownDevice(label(name)))?;
        let device = Held::new(device).map_err(|errno| failed("take a reference to", errno))?;
        if device.is_read_only() {
            return Err(Error::ReadOnly(label(name)));
        }
        let length = match device.length() {
            Ok(length) if length > 0 => length,
            Ok(_) => return Err(Error::Length { device: label(name), errno: Errno::INVALID }),
            Err(errno) => return Err(Error::Length { device: label(name), errno }),
        };
        if length.unsigned_abs() % SECTOR_BYTES != 0 {
            return Err(Error::OddLength { device: label(name), length });
        }
        device.activate().map_err(|errno| failed("activate", errno))?;
        let zero_unit = device.has_write_zeroes().then(|| zero_unit(device.cluster_bytes(), geometry));
        let total = length.unsigned_abs() / SECTOR_BYTES;
        Ok(Target { name: name.to_vec(), device, total, zero_unit })
    }

    /// Cuts data that goes to the device into runs, as bytes of it: `true` for zeroes that need not be written as data.
    pub(super) fn runs(&self, data: &[u8]) -> Vec<(bool, Range<usize>)> {
        let Some(unit) = self.zero_unit else {
            return vec![(false, 0..data.len())];
        };
        let mut runs: Vec<(bool, Range<usize>)> = Vec::new();
        for (index, cluster) in data.chunks(unit).enumerate() {
            let zero = is_zero(cluster);
            let start = index * unit;
            match runs.last_mut() {
                Some((kind, run)) if *kind == zero => run.end = start + cluster.len(),
                _ => runs.push((zero, start..start + cluster.len())),
            }
        }
        runs
    }

    /// Whether the device knows to be zero in this range already.
    pub(super) fn is_known_zero(&self, range: Sectors) -> bool {
        matches!(self.device.known_zero(range), Some(Extent { is: true, sectors }) if sectors >= i64::from(range.count))
    }

    pub(super) fn write_failed(&self, start: u64, errno: Errno) -> Error {
        Error::Write { device: label(&self.name), sector: start, errno }
    }
}

/// A cluster, if it is made of sectors and a chunk is made of it; else a chunk.
fn zero_unit(cluster: Option<u64>, geometry: Geometry) -> usize {
    let chunk = geometry.chunk_bytes();
    cluster
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|&bytes| bytes > 0 && bytes % SECTOR_LEN == 0 && chunk % bytes == 0)
        .unwrap_or(chunk)
}
