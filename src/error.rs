// SPDX-License-Identifier: GPL-2.0-only
//! What can fail, said once: with the device, the sector or the field, as text and as an errno.
#![forbid(unsafe_code)]

use std::collections::TryReserveError;
use std::{fmt, io};

use crate::device_name::DeviceName;

/// An error number, positive, as in errno.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// EIO
    pub const IO: Errno = Errno(libc::EIO);
    /// EINVAL
    pub const INVALID: Errno = Errno(libc::EINVAL);
    /// EBUSY
    pub const BUSY: Errno = Errno(libc::EBUSY);
    /// ENOMEM
    pub const NO_MEMORY: Errno = Errno(libc::ENOMEM);
    /// EROFS
    pub const READ_ONLY: Errno = Errno(libc::EROFS);
    /// ENOTSUP
    pub const NOT_SUPPORTED: Errno = Errno(libc::ENOTSUP);
    /// ENODEV
    pub const NO_DEVICE: Errno = Errno(libc::ENODEV);
    /// ENOMEDIUM
    pub const NO_MEDIUM: Errno = Errno(libc::ENOMEDIUM);

    /// The error in a host's return value: anything below 0.
    #[must_use]
    pub fn from_ret(ret: i64) -> Option<Errno> {
        // A value that no errno has can only be a host's "something is wrong".
        (ret < 0).then(|| ret.checked_neg().and_then(|n| i32::try_from(n).ok()).map_or(Errno::IO, Errno))
    }

    /// `Ok` for a return value of 0 or more.
    ///
    /// # Errors
    /// The error of a return value below 0.
    pub fn check(ret: i64) -> Result<(), Errno> {
        Errno::from_ret(ret).map_or(Ok(()), Err)
    }

    /// The return value for C: -errno.
    #[must_use]
    pub fn ret(self) -> i32 {
        -self.0
    }

    /// Whether a device that gives this error has nothing behind it, rather than something that fails.
    #[must_use]
    pub fn means_empty(self) -> bool {
        matches!(self.0, libc::ENOMEDIUM | libc::ENODEV | libc::ENXIO | libc::ENOENT)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The number that the standard library adds says nothing to a user.
        let text = io::Error::from_raw_os_error(self.0).to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a call failed. Its text is one line for the host's user; devices stand in it by name.
///
/// Texts that begin with a capital letter are the original's, which people may look for in their logs; their
/// words stay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the texts say it
pub enum Error {
    // The host and its calls.
    #[error("no host has been set")]
    NoHost,
    /// What a language's interface to the engine found wrong, in its own words.
    #[error("{text}")]
    Interface { text: String, errno: Errno },
    #[error("{field} is {value}; it may be 0 to {most}")]
    Option { field: &'static str, value: u32, most: u32 },
    #[error("{field} is {value}; it may be {least} to {most}")]
    Level { field: &'static str, value: i32, least: i32, most: i32 },
    #[error("compression is {0}, but the classic stream can't be compressed: stream must be 2")]
    ClassicCompression(i32),
    #[error("a migration is running")]
    Busy,
    #[error("no migration is running")]
    NotRunning,
    #[error("unknown stage {0}")]
    UnknownStage(i32),
    #[error("internal error, please report it: {0}")]
    Panic(String),

    // Setup.
    #[error("can't {why} device {device}: {errno}")]
    Device { device: DeviceName, why: &'static str, errno: Errno },
    #[error("device {device} is {length} bytes long, which is no multiple of 512")]
    OddLength { device: DeviceName, length: i64 },
    #[error("device {device} is {length} bytes long; more than 4 PiB can't be migrated")]
    TooLong { device: DeviceName, length: i64 },
    #[error("the name of device {device} has {length} bytes; the stream carries 1 to 255")]
    NameLength { device: DeviceName, length: usize },
    #[error("no device is named {0}, which was chosen to be migrated")]
    NotThere(DeviceName),
    #[error("two devices are named {0}: the destination could not tell them apart")]
    DuplicateName(DeviceName),
    #[error(
        "the dirty tracking of device {device} has units of {unit} bytes; they must be a power of two, 512 to {most}"
    )]
    DirtyUnit { device: DeviceName, unit: i64, most: u64 },
    #[error("{0} devices are too many for the extended stream")]
    TooManyDevices(usize),
    #[error("not enough memory for {0}")]
    NoMemory(String),
    #[error("not enough memory")]
    RanShort,

    // Outgoing.
    #[error("Error reading sector {sector} of device {device}: {errno}")]
    Read { device: DeviceName, sector: u64, errno: Errno },
    #[error("the migration stream failed: {0}")]
    Stream(Errno),
    #[error("the host has flushed its requests, but {0} of them have not completed")]
    Lost(usize),
    #[error("dirty tracking of device {device} answered {answer} when asked from sector {sector}")]
    DirtyTracking { device: DeviceName, sector: u64, answer: i64 },
    #[error("device {0} is still being written to in the last stage")]
    StillWritten(DeviceName),
    #[error("device {device} was resized from {was} to {is} bytes while it was migrated")]
    Resized { device: DeviceName, was: u64, is: i64 },
    #[error("device {0} went away before its migration ended")]
    WentAway(DeviceName),
    #[error("device {0} came, or was replaced, while the others were migrated: what is on it would be lost")]
    Appeared(DeviceName),
    #[error("{0} bytes are left after the last stage")]
    Unfinished(u64),
    #[error("the migration was set up on another stream")]
    OtherStream,

    // Incoming.
    #[error("Error unknown block device {0}")]
    UnknownDevice(DeviceName),
    #[error("Error getting length of block device {device}: {errno}")]
    Length { device: DeviceName, errno: Errno },
    #[error("device {0} is read-only")]
    ReadOnly(DeviceName),
    #[error("Unknown flags {flags:#x} in the record with header {header:#018x}")]
    Flags { flags: u64, header: u64 },
    #[error("bad progress {0} %")]
    Progress(u64),
    #[error("a device name in the stream is empty or holds a NUL: {0}")]
    Name(DeviceName),
    #[error(
        "device {device} is {length} bytes long, but the source's at least {source_length}: \
         what is past the end would be lost"
    )]
    TooShort { device: DeviceName, length: u64, source_length: u64 },
    #[error("sector {sector} is past the end of device {device}, which has {total}")]
    Address { device: DeviceName, sector: u64, total: u64 },
    #[error("the stream ended in the middle of {0}")]
    Short(&'static str),
    #[error("Error writing sector {sector} of device {device}: {errno}")]
    Write { device: DeviceName, sector: u64, errno: Errno },
    #[error("the extended stream does not begin with its first record")]
    NotStarted,
    #[error("the checksum of record {0} of the extended stream is wrong")]
    Checksum(u64),
    #[error("record {got} of the extended stream came where {wanted} should be")]
    RecordNumber { got: u64, wanted: u64 },
    #[error("{what} in record {number} of the extended stream")]
    BadRecord { number: u64, what: &'static str },
    #[error("the extended stream has version {version}; only {known} is known")]
    ExtendedVersion { version: u32, known: u32 },
    #[error("the extended stream needs features that are unknown: {0:#x}")]
    Features(u32),
    #[error("the extended stream's table of devices {0}")]
    Table(&'static str),
    #[error(
        "device {device} is {length} bytes long, but the source's {source_length}: what is past the end would be lost"
    )]
    Shorter { device: DeviceName, length: u64, source_length: u64 },
    #[error("device {device}: {sectors} sectors from {sector} are past the end of the source's, which has {total}")]
    Run { device: DeviceName, sector: u64, sectors: u64, total: u64 },
    #[error("not every record of device {0} has arrived, or not in order")]
    Incomplete(DeviceName),
    #[error("section version {version} is newer than version {newest}")]
    Version { version: i32, newest: i32 },
}

impl From<TryReserveError> for Error {
    fn from(_: TryReserveError) -> Error {
        Error::RanShort
    }
}

impl Error {
    /// The errno that C gets.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Error::Stream(errno)
            | Error::Interface { errno, .. }
            | Error::Device { errno, .. }
            | Error::Read { errno, .. }
            | Error::Length { errno, .. }
            | Error::Write { errno, .. } => *errno,
            Error::Busy | Error::StillWritten(_) => Errno::BUSY,
            Error::NoMemory(_) | Error::RanShort => Errno::NO_MEMORY,
            Error::ReadOnly(_) => Errno::READ_ONLY,
            Error::NotThere(_) => Errno::NO_DEVICE,
            Error::Panic(_) | Error::Lost(_) | Error::Unfinished(_) | Error::DirtyTracking { .. } | Error::Short(_) => {
                Errno::IO
            }
            Error::Checksum(_) | Error::RecordNumber { .. } | Error::Incomplete(_) => Errno::IO,
            _ => Errno::INVALID,
        }
    }
}
