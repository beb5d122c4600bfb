// SPDX-License-Identifier: GPL-2.0-only
//! The devices of a migration: which of the host's are taken in at setup, and whether they are still the same later.
#![forbid(unsafe_code)]

use super::device::{SourceDevice, check_left_out};
use crate::call::CallContext;
use crate::error::Error;
use crate::host::{Device, Host};
use crate::settings::{Selection, Settings};

/// Takes in every chosen device that can be migrated, and starts to track the writes to it.
pub(super) fn take_devices<H: Host>(
    host: &H,
    settings: &Settings,
    selection: &Selection,
    call: &CallContext,
) -> Result<Vec<SourceDevice<H::Device>>, Error> {
    let mut devices: Vec<SourceDevice<H::Device>> = Vec::new();
    let mut there = Vec::new();
    for device in host.devices() {
        host.check_memory()?;
        let name = device.name();
        there.try_reserve(1)?;
        there.push(name.clone());
        let Some(device) = SourceDevice::new(device, name, settings, selection)? else {
            continue;
        };
        if devices.iter().any(|other| other.name() == device.name()) {
            return Err(Error::DuplicateName(device.name().clone()));
        }
        call.print(&if settings.shared_base {
            format!("Start migration for {} with shared base image\n", device.name())
        } else {
            format!("Start full migration for {}\n", device.name())
        });
        devices.try_reserve(1)?;
        devices.push(device);
    }
    selection.check_all_there(&there)?;
    for device in &mut devices {
        device.start_tracking()?;
    }
    Ok(devices)
}

/// Fails if a device has gone or was replaced, or if one could be migrated now that could not at setup.
pub(super) fn check_same_devices<H: Host>(
    host: &H,
    devices: &[SourceDevice<H::Device>],
    selection: &Selection,
) -> Result<(), Error> {
    let mut missing: Vec<&SourceDevice<H::Device>> = devices.iter().collect();
    for device in host.devices() {
        match missing.iter().position(|ours| ours.device().is_same(&device)) {
            Some(index) => drop(missing.swap_remove(index)),
            None => check_left_out(device, selection)?,
        }
    }
    missing.first().map_or(Ok(()), |device| Err(Error::WentAway(device.name().clone())))
}
