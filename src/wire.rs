// SPDX-License-Identifier: GPL-2.0-only
//! The stream's records: encode and decode. Pure: no host, no I/O. `docs/protocol.md` is the format's specification.
//!
//! The format has not changed since 2009. A section is a run of records; each starts with a big-endian 64-bit word that
//! holds a sector number (or a percentage) above nine bits of flags.
#![forbid(unsafe_code)]

use crate::device_name::DeviceName;
use crate::error::Error;
use crate::geometry::{SECTOR_BITS, Sector};

/// The version of the savevm section, the highest that is read.
pub const SECTION_VERSION: i32 = 1;

/// The longest device name that a record can carry, in bytes.
pub const MAX_NAME: usize = u8::MAX as usize;

const DEVICE_BLOCK: u64 = 0x01;
const END: u64 = 0x02;
const PROGRESS: u64 = 0x04;
const ZERO_BLOCK: u64 = 0x08 | DEVICE_BLOCK;

const FLAGS: u64 = (1 << SECTOR_BITS) - 1;

/// A record. The data of a block comes after it in the stream: as many bytes as a chunk has, padded with zeroes
/// at the end of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A chunk of a device; its data follows.
    Block(DeviceName, Sector),
    /// A chunk that is all zeroes; nothing follows.
    ZeroBlock(DeviceName, Sector),
    /// The percentage of the bulk phase that is done.
    Progress(u8),
    /// The section ends.
    End,
}

impl Record {
    /// The record's bytes, without a block's data.
    ///
    /// # Panics
    /// If a name is longer than [`MAX_NAME`], which setup refuses.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (value, flags, name) = match self {
            Record::Block(name, sector) => (sector.0, DEVICE_BLOCK, Some(name)),
            Record::ZeroBlock(name, sector) => (sector.0, ZERO_BLOCK, Some(name)),
            Record::Progress(percent) => (u64::from(*percent), PROGRESS, None),
            Record::End => (0, END, None),
        };
        let word = (value << SECTOR_BITS | flags).to_be_bytes();
        let Some(name) = name.map(DeviceName::as_bytes) else { return word.to_vec() };
        let length = u8::try_from(name.len()).expect("setup has checked the name");
        [&word[..], &[length], name].concat()
    }

    /// Reads the record that begins with this word. `get` fills its buffer from the stream or fails; the text says
    /// what for.
    ///
    /// # Errors
    /// [`Error::Flags`] for flags that are unknown, missing or mixed, [`Error::Progress`] for more than 100 %,
    /// [`Error::Name`] for a name that is empty or holds a NUL, and what `get` gives.
    pub fn decode(
        word: [u8; 8],
        get: impl FnMut(&mut [u8], &'static str) -> Result<(), Error>,
    ) -> Result<Record, Error> {
        let header = u64::from_be_bytes(word);
        let value = header >> SECTOR_BITS;
        match header & FLAGS {
            DEVICE_BLOCK => Ok(Record::Block(decode_name(get)?, Sector(value))),
            ZERO_BLOCK => Ok(Record::ZeroBlock(decode_name(get)?, Sector(value))),
            PROGRESS => match u8::try_from(value) {
                Ok(percent) if percent <= 100 => Ok(Record::Progress(percent)),
                _ => Err(Error::Progress(value)),
            },
            END if value == 0 => Ok(Record::End),
            flags => Err(Error::Flags { flags, header }),
        }
    }
}

/// A byte with the length, and the name.
fn decode_name(mut get: impl FnMut(&mut [u8], &'static str) -> Result<(), Error>) -> Result<DeviceName, Error> {
    let mut length = [0];
    get(&mut length, "a device name")?;
    let mut bytes = [0; MAX_NAME];
    let bytes = &mut bytes[..usize::from(length[0])];
    get(bytes, "a device name")?;
    let name = DeviceName::from(&*bytes);
    if bytes.is_empty() || bytes.contains(&0) { Err(Error::Name(name)) } else { Ok(name) }
}
