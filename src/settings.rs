// SPDX-License-Identifier: GPL-2.0-only
//! What a user can set: each option once, with its default and its bound.
//!
//! The header's comments and the tables of the documentation repeat these numbers; `tests/options.rs` compares them.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::device_name::DeviceName;
use crate::error::Error;
use crate::geometry::Geometry;

/// The most that a number in [`Options`] may be: a TiB of buffers, which is also as many reads or writes as can
/// have one. No host wants more, so a larger number is a mistake, such as a -1.
pub const MAX_NUMBER: u32 = 1 << 20;

/// What there is to know about one option.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// The field's name in `BlkMigOptions`.
    pub name: &'static str,
    /// What a value of 0 stands for.
    pub default: u32,
    /// The largest value.
    pub most: u32,
}

/// Chunks held in memory.
pub const MAX_BUFFERS: OptionInfo = OptionInfo { name: "max_buffers", default: 64, most: MAX_NUMBER };
/// Reads in flight.
pub const MAX_READS: OptionInfo = OptionInfo { name: "max_reads", default: 16, most: MAX_NUMBER };
/// Writes in flight.
pub const MAX_WRITES: OptionInfo = OptionInfo { name: "max_writes", default: 16, most: MAX_NUMBER };
/// Zero records.
pub const ZERO_BLOCKS: OptionInfo = OptionInfo { name: "zero_blocks", default: 0, most: 1 };
/// Data past the end of a device.
pub const ACCEPT_TAIL_GARBAGE: OptionInfo = OptionInfo { name: "accept_tail_garbage", default: 0, most: 1 };

/// The stream: 1 is the classic one, 2 the extended one.
pub const STREAM: OptionInfo = OptionInfo { name: "stream", default: 1, most: 2 };

/// The options that are unsigned numbers, in the order of the C struct. After them comes `compression`.
pub const OPTIONS: [OptionInfo; 6] = [MAX_BUFFERS, MAX_READS, MAX_WRITES, ZERO_BLOCKS, ACCEPT_TAIL_GARBAGE, STREAM];

/// The levels of compression, as zstd has them; 0 is none. Above 19, zstd wants memory by the hundred MiB.
pub const COMPRESSION_LEVELS: RangeInclusive<i32> = -7..=19;

impl OptionInfo {
    /// The value in force where a user has given this one.
    ///
    /// # Errors
    /// [`Error::Option`] for a value that is more than the option may be.
    pub fn value(&self, given: u32) -> Result<u32, Error> {
        match given {
            0 => Ok(self.default),
            given if given > self.most => Err(Error::Option { field: self.name, value: given, most: self.most }),
            given => Ok(given),
        }
    }

    /// The same for an option that is on or off.
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn is_on(&self, given: u32) -> Result<bool, Error> {
        self.value(given).map(|value| value == 1)
    }
}

/// The options as a user gives them; 0 means the default, [`OPTIONS`] has the bounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Chunks held in memory at most, on either side.
    pub max_buffers: u32,
    /// Reads in flight at most.
    pub max_reads: u32,
    /// Destination writes in flight at most.
    pub max_writes: u32,
    /// Whether chunks of zeroes are sent as zero records.
    pub zero_blocks: bool,
    /// Whether data past the end of an incoming device is dropped instead of being an error.
    pub accept_tail_garbage: bool,
    /// The stream that a source writes: 0 and 1 are the classic one, 2 the extended one.
    pub stream: u32,
    /// The level at which a source compresses the extended stream; 0: not at all.
    pub compression: i32,
}

/// The options in force: checked, defaults filled in.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // as many as there are to set
pub struct Settings {
    /// How devices are cut into chunks.
    pub geometry: Geometry,
    /// Chunks held in memory at most; at least 1.
    pub max_buffers: u32,
    /// Reads in flight at most; at least 1.
    pub max_reads: u32,
    /// Writes in flight at most, incoming; at least 1.
    pub max_writes: u32,
    /// Whether a chunk of zeroes is sent as a zero record.
    pub zero_blocks: bool,
    /// Whether data past the end of an incoming device is dropped.
    pub accept_tail_garbage: bool,
    /// Whether a source writes the extended stream.
    pub extended: bool,
    /// The level at which it compresses that; 0: not at all.
    pub compression: i32,
    /// Whether the bulk phase passes over what is not in a device's own image, since the destination has the
    /// backing file.
    pub shared_base: bool,
}

impl Settings {
    /// Settings without a shared base.
    ///
    /// # Errors
    /// [`Error::Option`] for a number that is more than it may be, and the like for the level of compression.
    pub fn new(geometry: Geometry, options: Options) -> Result<Settings, Error> {
        let extended = STREAM.value(options.stream)? == 2;
        let compression = options.compression;
        let (least, most) = COMPRESSION_LEVELS.into_inner();
        if !(least..=most).contains(&compression) {
            return Err(Error::Level { field: "compression", value: compression, least, most });
        }
        if compression != 0 && !extended {
            return Err(Error::ClassicCompression(compression));
        }
        Ok(Settings {
            geometry,
            max_buffers: MAX_BUFFERS.value(options.max_buffers)?,
            max_reads: MAX_READS.value(options.max_reads)?,
            max_writes: MAX_WRITES.value(options.max_writes)?,
            zero_blocks: options.zero_blocks,
            accept_tail_garbage: options.accept_tail_garbage,
            extended,
            compression,
            shared_base: false,
        })
    }

    /// Whether a source says of zeroes that they are zero, and does not send them.
    #[must_use]
    pub fn sends_zeroes(&self) -> bool {
        self.zero_blocks || self.extended
    }

    /// The settings of an instance that was given no options.
    #[must_use]
    pub fn default_for(geometry: Geometry) -> Settings {
        Settings::new(geometry, Options::default()).expect("defaults are within their bounds")
    }
}

/// Which devices a migration includes.
#[derive(Clone, Debug, Default)]
pub enum Selection {
    /// Every device that can be migrated.
    #[default]
    All,
    /// Those with these names.
    Named(Arc<[DeviceName]>),
}

impl Selection {
    /// Whether the device of this name is included.
    #[must_use]
    pub fn includes(&self, name: &DeviceName) -> bool {
        match self {
            Selection::All => true,
            Selection::Named(names) => names.contains(name),
        }
    }

    /// Fails if a name of the selection is not among these.
    ///
    /// # Errors
    /// [`Error::NotThere`] with the name.
    pub fn check_all_there(&self, there: &[DeviceName]) -> Result<(), Error> {
        let Selection::Named(names) = self else { return Ok(()) };
        let missing = names.iter().find(|name| !there.contains(name));
        missing.map_or(Ok(()), |name| Err(Error::NotThere(name.clone())))
    }
}
