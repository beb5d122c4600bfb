// SPDX-License-Identifier: GPL-2.0-only
//! The stream's records: encode and decode. Pure: no host, no I/O.
//!
//! The format has not changed since 2009. A section is a run of records; each starts with a big-endian 64-bit word that
//! holds a sector number (or a percentage) above nine bits of flags.
#![forbid(unsafe_code)]

use crate::error::Error;
use crate::geometry::{SECTOR_BITS, Sector};

const DEVICE_BLOCK: u64 = 0x01;
const END: u64 = 0x02;
const PROGRESS: u64 = 0x04;
const ZERO_BLOCK: u64 = 0x08 | DEVICE_BLOCK;

const FLAGS: u64 = (1 << SECTOR_BITS) - 1;

/// The longest name that a record can carry, in bytes.
pub const MAX_NAME: usize = u8::MAX as usize;

/// Bytes of the word that starts a record.
pub const HEADER_BYTES: usize = 8;

/// What the word at the start of a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A device's name and a chunk's data follow.
    Block(Sector),
    /// A device's name follows; the chunk is all zeroes.
    ZeroBlock(Sector),
    /// So many percent of the bulk phase are done.
    Progress(u8),
    /// The section ends.
    End,
}

impl Header {
    /// The word's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let word = match self {
            Header::Block(sector) => sector.0 << SECTOR_BITS | DEVICE_BLOCK,
            Header::ZeroBlock(sector) => sector.0 << SECTOR_BITS | ZERO_BLOCK,
            Header::Progress(percent) => u64::from(percent) << SECTOR_BITS | PROGRESS,
            Header::End => END,
        };
        word.to_be_bytes()
    }

    /// Reads the word's bytes.
    ///
    /// # Errors
    /// [`Error::Flags`] for flags that are unknown, missing or mixed, [`Error::Progress`] for more than 100 %.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Header, Error> {
        let header = u64::from_be_bytes(bytes);
        let value = header >> SECTOR_BITS;
        match header & FLAGS {
            DEVICE_BLOCK => Ok(Header::Block(Sector(value))),
            ZERO_BLOCK => Ok(Header::ZeroBlock(Sector(value))),
            PROGRESS => match u8::try_from(value) {
                Ok(percent) if percent <= 100 => Ok(Header::Progress(percent)),
                _ => Err(Error::Progress(value)),
            },
            END if value == 0 => Ok(Header::End),
            flags => Err(Error::Flags { flags, header }),
        }
    }
}

/// What stands before a block's payload: the word, the name's length, the name.
///
/// # Panics
/// If the name is longer than [`MAX_NAME`], which setup has ruled out.
#[must_use]
pub fn block_prefix(header: Header, name: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("setup has checked the name");
    [&header.encode()[..], &[length], name].concat()
}
