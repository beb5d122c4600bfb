// SPDX-License-Identifier: GPL-2.0-only
//! The extended stream's records: encode, decode and check. Pure: no host, no I/O. `docs/protocol.md` is the
//! format's specification.
//!
//! Every record has a header of 48 bytes and a payload, which may be empty. The header starts with a word as the
//! classic stream's records do, with a flag that no version before knew, so that those refuse the first record.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use twox_hash::XxHash3_64;

use crate::device_name::DeviceName;
use crate::error::Error;
use crate::geometry::{SECTOR_BITS, SECTOR_BYTES};

/// The version in the first record.
pub const VERSION: u32 = 1;

/// The flag of every extended record's first word.
pub const FLAG: u64 = 0x010;

const FLAGS: u64 = (1 << SECTOR_BITS) - 1;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 48;

/// The longest payload of a record that is not data: the table of devices.
pub const MAX_TABLE: usize = 1 << 20;

/// Required feature: payloads may be compressed by zstd.
pub const FEATURE_ZSTD: u32 = 1;

/// Whether an extended record begins with this word.
#[must_use]
pub fn begins_record(word: [u8; 8]) -> bool {
    u64::from_be_bytes(word) & FLAGS == FLAG
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The migration starts; the payload is a [`Start`].
    Start,
    /// Data of a run of sectors, as it is.
    Data,
    /// The same as one zstd frame.
    Zstd,
    /// A run of sectors is zero.
    Zeroes,
    /// The section ends; `sector` is the percentage of the bulk phase that is done.
    End,
    /// Everything has been sent; the payload has a [`Total`] for each device.
    Totals,
}

impl Kind {
    const ALL: [Kind; 6] = [Kind::Start, Kind::Data, Kind::Zstd, Kind::Zeroes, Kind::End, Kind::Totals];
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record says.
    pub kind: Kind,
    /// The record's number in the migration, from 0.
    pub number: u64,
    /// The device's number in the table of the first record.
    pub device: u32,
    /// Bytes of payload.
    pub length: u32,
    /// The first sector, or the percentage of an end record.
    pub sector: u64,
    /// How many sectors.
    pub sectors: u64,
}

impl Header {
    /// The header's bytes, and the checksum at their end.
    #[must_use]
    pub fn encode(&self, payload: &[u8]) -> ([u8; HEADER_BYTES], u64) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&((self.kind as u64) << SECTOR_BITS | FLAG).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.device.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.length.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.sector.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.sectors.to_be_bytes());
        let sum = checksum(&bytes, payload);
        bytes[40..].copy_from_slice(&sum.to_be_bytes());
        (bytes, sum)
    }

    /// Reads a header; its checksum can't be checked before the payload is there.
    ///
    /// # Errors
    /// [`Error::Flags`] for a word that no extended record begins with.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Error> {
        let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let half = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let first = word(0);
        let kind = usize::try_from(first >> SECTOR_BITS).ok().and_then(|kind| Kind::ALL.get(kind));
        match kind {
            Some(&kind) if first & FLAGS == FLAG => Ok(Header {
                kind,
                number: word(8),
                device: half(16),
                length: half(20),
                sector: word(24),
                sectors: word(32),
            }),
            _ => Err(Error::Flags { flags: first & FLAGS, header: first }),
        }
    }
}

/// The checksum of a record: of the first 40 bytes of its header, and of its payload as it is in the stream.
fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&header[..HEADER_BYTES - 8]), payload)
}

/// Checks a record against the checksum in its header, and returns that.
///
/// # Errors
/// [`Error::Checksum`].
pub fn check(header: &[u8; HEADER_BYTES], payload: &[u8]) -> Result<u64, Error> {
    let sum = u64::from_be_bytes(header[HEADER_BYTES - 8..].try_into().expect("8 bytes"));
    let number = u64::from_be_bytes(header[8..16].try_into().expect("8 bytes"));
    if checksum(header, payload) == sum { Ok(sum) } else { Err(Error::Checksum(number)) }
}

/// A device in the first record's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: DeviceName,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes that one bit of its dirty tracking stands for.
    pub unit: u32,
}

/// What the first record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Features without which the stream can't be read.
    pub required: u32,
    /// Features that a destination may ignore.
    pub optional: u32,
    /// The devices, in the order of their numbers.
    pub devices: Vec<Entry>,
}

impl Start {
    /// The payload.
    ///
    /// # Errors
    /// [`Error::TooManyDevices`] if it would be longer than [`MAX_TABLE`].
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let count = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        for number in [VERSION, self.required, self.optional, count] {
            bytes.extend(number.to_be_bytes());
        }
        for Entry { name, bytes: length, unit } in &self.devices {
            let name = name.as_bytes();
            bytes.extend(length.to_be_bytes());
            bytes.extend(unit.to_be_bytes());
            bytes.push(u8::try_from(name.len()).expect("setup has checked the name"));
            bytes.extend(name);
        }
        if bytes.len() > MAX_TABLE { Err(Error::TooManyDevices(self.devices.len())) } else { Ok(bytes) }
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`Error::ExtendedVersion`], [`Error::Features`], [`Error::Name`], or [`Error::Table`] for what can't be a table
    /// of devices.
    pub fn decode(mut bytes: &[u8]) -> Result<Start, Error> {
        let mut number = || take(&mut bytes).map(u32::from_be_bytes);
        let version = number()?;
        if version != VERSION {
            return Err(Error::ExtendedVersion { version, known: VERSION });
        }
        let (required, optional, count) = (number()?, number()?, number()?);
        if required & !FEATURE_ZSTD != 0 {
            return Err(Error::Features(required & !FEATURE_ZSTD));
        }
        let mut devices: Vec<Entry> = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..count {
            let length = u64::from_be_bytes(take(&mut bytes)?);
            let unit = u32::from_be_bytes(take(&mut bytes)?);
            let [name_length] = take(&mut bytes)?;
            let (name, rest) = bytes.split_at_checked(name_length.into()).ok_or(Error::Table("is cut"))?;
            bytes = rest;
            let name = DeviceName::from(name);
            if name.as_bytes().is_empty() || name.as_bytes().contains(&0) {
                return Err(Error::Name(name));
            }
            names.try_reserve(1)?;
            if !names.insert(name.clone()) {
                return Err(Error::DuplicateName(name));
            }
            if length == 0 || length % SECTOR_BYTES != 0 {
                return Err(Error::Table("has a device whose length is no multiple of 512"));
            }
            devices.try_reserve(1)?;
            devices.push(Entry { name, bytes: length, unit });
        }
        if bytes.is_empty() { Ok(Start { required, optional, devices }) } else { Err(Error::Table("is too long")) }
    }
}

/// Takes bytes from the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Error> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(Error::Table("is cut"))?;
    *bytes = rest;
    Ok(*taken)
}

/// What both ends count of a device's data and zero records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How many there were.
    pub records: u64,
    /// A checksum over their checksums, in order.
    pub digest: u64,
}

impl Total {
    /// Bytes of a total in the payload.
    pub const BYTES: usize = 16;

    /// Counts a record with this checksum.
    pub fn note(&mut self, checksum: u64) {
        self.records += 1;
        self.digest = XxHash3_64::oneshot_with_seed(self.digest, &checksum.to_be_bytes());
    }

    /// Its bytes in the payload of a totals record.
    #[must_use]
    pub fn encode(&self) -> [u8; Total::BYTES] {
        let mut bytes = [0; Total::BYTES];
        bytes[..8].copy_from_slice(&self.records.to_be_bytes());
        bytes[8..].copy_from_slice(&self.digest.to_be_bytes());
        bytes
    }
}
