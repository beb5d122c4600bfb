// SPDX-License-Identifier: GPL-2.0-only
//! The extended stream's records: their bytes, which are those of `docs/protocol.md`, and what is refused. The bytes
//! come from another implementation of the checksum: Python's `xxhash` (and its `zstandard` for the frame).

use blkmig::device_name::DeviceName;
use blkmig::error::{Errno, Error};
use blkmig::extended::{Entry, HEADER_BYTES, Header, Kind, MAX_TABLE, Start, Total, begins_record, check};
use proptest::prelude::*;

/// One device, as in the example of `docs/protocol.md`.
const TABLE: &[u8] = b"\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\x00\x20\x06\x00\x00\x10\0\0\x03vda";

/// Two devices, both kinds of features, and other units.
const TABLE_OF_TWO: &[u8] = b"\0\0\0\x01\0\0\0\x01\0\0\x80\0\0\0\0\x02\
    \0\0\0\0\0\0\x02\0\0\0\x02\0\x01a\0\0\x04\0\0\0\0\0\0\x01\0\0\x08ide0-hd1";

/// 512 times the letter "a".
const FRAME: [u8; 19] =
    [0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x01, 0x4d, 0x00, 0x00, 0x10, 0x61, 0x61, 0x01, 0x00, 0xfb, 0x2a, 0xc0, 0x02];

/// Three records, and the digest of their checksums.
const TOTALS: &[u8] = b"\0\0\0\0\0\0\0\x03\xfc\xce\xca\x41\xcc\x58\x8f\x7a";

/// The checksums of the data, zstd and zero records below, and what the digest is after each.
const DIGESTS: [(u64, u64); 3] = [
    (0x267e_3bd9_67b4_f31d, 0xf884_3d6b_f2e9_0fdd),
    (0x9118_bd78_063a_4cfc, 0x6001_7608_c2a3_902f),
    (0x92a6_e0cc_7a95_dd58, 0xfcce_ca41_cc58_8f7a),
];

fn table() -> Start {
    Start { required: 0, optional: 0, devices: vec![entry("vda", 2_098_688, 1 << 20)] }
}

fn table_of_two() -> Start {
    Start { required: 1, optional: 0x8000, devices: vec![entry("a", 512, 512), entry("ide0-hd1", 1 << 42, 1 << 16)] }
}

fn entry(name: &str, bytes: u64, unit: u32) -> Entry {
    Entry { name: name.into(), bytes, unit }
}

fn header(kind: Kind, number: u64, device: u32, (sector, sectors): (u64, u64), payload: &[u8]) -> Header {
    Header { kind, number, device, length: payload.len().try_into().unwrap(), sector, sectors }
}

/// The words of a header, the device and the length in one, and last the checksum.
type Words = [u64; 6];

#[test]
fn each_extended_record_has_its_golden_bytes() {
    let last_places = (0x0102_0304_0506_0708, 3);
    let golden: [(Header, &[u8], Words); 9] = [
        (header(Kind::Start, 0, 0, (0, 0), TABLE), TABLE, [0x010, 0, 0x20, 0, 0, 0x82d5_f268_490d_6d33]),
        (header(Kind::Start, 0, 0, (0, 0), TABLE_OF_TWO), TABLE_OF_TWO, [0x010, 0, 0x33, 0, 0, 0x850f_d21d_19ed_16a3]),
        (header(Kind::End, 1, 0, (0, 0), b""), b"", [0x810, 1, 0, 0, 0, 0x2518_22b9_fb7f_b1df]),
        (header(Kind::Data, 2, 0, (0, 1), &[b'd'; 512]), &[b'd'; 512], [0x210, 2, 0x200, 0, 1, DIGESTS[0].0]),
        (
            header(Kind::Data, 3, 1, last_places, &[1; 1536]),
            &[1; 1536],
            [0x210, 3, 0x1_0000_0600, 0x0102_0304_0506_0708, 3, 0xaf09_cb88_5f47_314b],
        ),
        (header(Kind::Zstd, 4, 0, (2048, 1), &FRAME), &FRAME, [0x410, 4, 0x13, 2048, 1, DIGESTS[1].0]),
        (header(Kind::Zeroes, 5, 0, (2048, 1 << 31), b""), b"", [0x610, 5, 0, 2048, 1 << 31, DIGESTS[2].0]),
        (header(Kind::Totals, 6, 0, (0, 0), TOTALS), TOTALS, [0xa10, 6, 0x10, 0, 0, 0x2a1c_54c3_5267_5c4f]),
        (header(Kind::End, 7, 0, (100, 0), b""), b"", [0x810, 7, 0, 100, 0, 0x78a6_e16f_3a1d_31bf]),
    ];
    for (header, payload, words) in golden {
        let expected: Vec<u8> = words.into_iter().flat_map(u64::to_be_bytes).collect();
        let (bytes, sum) = header.encode(payload);
        assert_eq!(bytes[..], expected, "{header:?}");
        assert_eq!(sum, words[5]);
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!(check(&bytes, payload), Ok(words[5]));
        assert!(begins_record(bytes[..8].try_into().unwrap()));
    }
}

#[test]
fn the_table_of_devices_has_its_golden_bytes() {
    for (start, bytes) in [(table(), TABLE), (table_of_two(), TABLE_OF_TWO)] {
        assert_eq!(start.encode().as_deref(), Ok(bytes));
        assert_eq!(Start::decode(bytes), Ok(start));
    }
}

#[test]
fn the_totals_have_their_golden_bytes() {
    let mut total = Total::default();
    assert_eq!(total.encode(), [0; Total::BYTES]);
    for (count, (sum, digest)) in DIGESTS.into_iter().enumerate() {
        total.note(sum);
        assert_eq!(total, Total { records: count as u64 + 1, digest });
    }
    assert_eq!(total.encode(), TOTALS);
    // The order counts.
    let mut swapped = Total::default();
    for index in [1, 0, 2_usize] {
        swapped.note(DIGESTS[index].0);
    }
    assert_ne!(swapped, total);
}

#[test]
fn the_frame_of_another_zstd_is_read() {
    let mut data = [0; 512];
    assert_eq!(zstd_safe::decompress(&mut data[..], &FRAME), Ok(512));
    assert_eq!(data, [b'a'; 512]);
}

/// A table whose bytes from `at` on are these.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut table = TABLE_OF_TWO.to_vec();
    table[at..at + bytes.len()].copy_from_slice(bytes);
    table
}

#[test]
fn a_table_that_makes_no_sense_is_refused() {
    let table = |what| Error::Table(what);
    let length = || table("has a device whose length is no multiple of 512");
    let refused = [
        (changed(3, &[0]), Error::ExtendedVersion { version: 0, known: 1 }),
        (changed(3, &[2]), Error::ExtendedVersion { version: 2, known: 1 }),
        (changed(0, &[0xff; 4]), Error::ExtendedVersion { version: u32::MAX, known: 1 }),
        (changed(7, &[2]), Error::Features(2)),
        (changed(4, &[0x80, 0, 0, 1]), Error::Features(1 << 31)),
        (changed(15, &[1]), table("is too long")),
        (changed(15, &[3]), table("is cut")),
        (changed(12, &[0xff; 4]), table("is cut")),
        (changed(22, &[0, 0]), length()),
        (changed(23, &[1]), length()),
        (changed(16, &[0xff; 8]), length()),
        (changed(29, b"\0"), Error::Name("\0".into())),
        (changed(50, b"\0"), Error::Name("ide0-hd\0".into())),
        (changed(42, &[0xff]), table("is cut")),
        ([TABLE_OF_TWO, b"\0"].concat(), table("is too long")),
    ];
    for (bytes, error) in refused {
        assert_eq!(Start::decode(&bytes), Err(error), "{bytes:x?}");
    }
    let nameless = [&TABLE[..28], &[0]].concat();
    assert_eq!(Start::decode(&nameless), Err(Error::Name("".into())));
    let twice = [&TABLE[..15], &[2], &TABLE[16..], &TABLE[16..]].concat();
    assert_eq!(Start::decode(&twice), Err(Error::DuplicateName("vda".into())));
    for cut in 0..TABLE_OF_TWO.len() {
        assert_eq!(Start::decode(&TABLE_OF_TWO[..cut]), Err(table("is cut")), "cut at {cut}");
    }
}

#[test]
fn what_is_refused_says_why_and_gives_the_errno_of_the_contract() {
    let texts = [
        (Start::decode(&changed(3, &[9])).unwrap_err(), "the extended stream has version 9; only 1 is known"),
        (Start::decode(&changed(5, &[5])).unwrap_err(), "the extended stream needs features that are unknown: 0x50000"),
        (Start::decode(b"").unwrap_err(), "the extended stream's table of devices is cut"),
    ];
    for (error, text) in texts {
        assert_eq!((error.to_string().as_str(), error.errno()), (text, Errno::INVALID));
    }
    let (mut bytes, _) = header(Kind::Zeroes, 77, 0, (0, 1), b"").encode(b"");
    bytes[47] ^= 1;
    let error = check(&bytes, b"").unwrap_err();
    assert_eq!(error.to_string(), "the checksum of record 77 of the extended stream is wrong");
    assert_eq!(error.errno(), Errno::IO);
}

/// Features that may be ignored are, as are units that nobody checks.
#[test]
fn what_a_destination_may_ignore_is_accepted() {
    let any = Start { optional: u32::MAX, ..table() };
    assert_eq!(Start::decode(&any.encode().unwrap()), Ok(any));
    for unit in [0, 1, 777, u32::MAX] {
        let odd = Start { devices: vec![entry("vda", 512, unit)], ..table() };
        assert_eq!(Start::decode(&odd.encode().unwrap()), Ok(odd));
    }
    let none = Start { devices: Vec::new(), ..table() };
    assert_eq!(Start::decode(&none.encode().unwrap()), Ok(none));
}

#[test]
fn a_table_has_as_much_as_one_mebibyte() {
    let named = |number: usize| entry(&format!("{number:0>243}"), 512, 512);
    // A device takes 256 bytes, and the start of the table 16.
    let most = MAX_TABLE / 256 - 1;
    let fits = Start { devices: (0..most).map(named).collect(), ..table() };
    assert!(fits.encode().unwrap().len() <= MAX_TABLE);
    let more = Start { devices: (0..=most).map(named).collect(), ..table() };
    assert_eq!(more.encode(), Err(Error::TooManyDevices(most + 1)));
}

/// Six kinds, and one flag alone.
fn is_allowed(word: u64) -> bool {
    word & 0x1ff == 0x10 && word >> 9 < 6
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Start, Kind::Data, Kind::Zstd, Kind::Zeroes, Kind::End, Kind::Totals])
}

/// A record of any kind, with any payload.
fn record() -> impl Strategy<Value = (Header, Vec<u8>)> {
    let payload = prop::collection::vec(any::<u8>(), 0..1100);
    (kind(), any::<u64>(), any::<u32>(), any::<(u64, u64)>(), payload)
        .prop_map(|(kind, number, device, run, payload)| (header(kind, number, device, run, &payload), payload))
}

fn device() -> impl Strategy<Value = Entry> {
    let name = prop::collection::vec(1..=u8::MAX, 1..=255).prop_map(|bytes| DeviceName::from(&bytes[..]));
    (name, 1..=u64::MAX / 512, any::<u32>()).prop_map(|(name, sectors, unit)| Entry {
        name,
        bytes: sectors * 512,
        unit,
    })
}

/// A table whose names differ.
fn start() -> impl Strategy<Value = Start> {
    (0..2_u32, any::<u32>(), prop::collection::vec(device(), 0..5)).prop_map(|(required, optional, mut devices)| {
        devices.sort_by(|one, other| one.name.as_bytes().cmp(other.name.as_bytes()));
        devices.dedup_by(|one, other| one.name == other.name);
        Start { required, optional, devices }
    })
}

/// Words near those of the table as well as any.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), (0..9_u64, 0..512_u64).prop_map(|(kind, flags)| kind << 9 | flags), 0..9_000_u64]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_extended_record_comes_back_as_it_was((header, payload) in record()) {
        let (bytes, sum) = header.encode(&payload);
        prop_assert_eq!(Header::decode(&bytes), Ok(header));
        prop_assert_eq!(check(&bytes, &payload), Ok(sum));
    }

    #[test]
    fn a_record_with_a_flipped_bit_is_refused((header, payload) in record(), at in any::<prop::sample::Index>()) {
        let (bytes, _) = header.encode(&payload);
        let mut record = [&bytes[..], &payload].concat();
        let bit = at.index(record.len() * 8);
        record[bit / 8] ^= 1 << (bit % 8);
        let (header, payload) = record.split_at(HEADER_BYTES);
        prop_assert!(matches!(check(header.try_into().unwrap(), payload), Err(Error::Checksum(_))));
    }

    #[test]
    fn a_table_comes_back_as_it_was(start in start()) {
        prop_assert_eq!(Start::decode(&start.encode().unwrap()), Ok(start));
    }

    #[test]
    fn a_table_that_is_cut_or_goes_on_is_refused(start in start(), at in any::<usize>(), more in 1..9_usize) {
        let bytes = start.encode().unwrap();
        prop_assert_eq!(Start::decode(&bytes[..at % bytes.len()]), Err(Error::Table("is cut")));
        prop_assert_eq!(Start::decode(&[&bytes[..], &vec![0; more]].concat()), Err(Error::Table("is too long")));
    }

    #[test]
    fn any_bytes_are_a_table_that_comes_back_or_refused(bytes in prop::collection::vec(0..3_u8, 0..60)) {
        let bytes = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &bytes[..]].concat();
        if let Ok(start) = Start::decode(&bytes) {
            prop_assert_eq!(start.encode(), Ok(bytes));
        }
    }

    #[test]
    fn any_word_begins_an_extended_record_or_is_refused(word in word()) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&word.to_be_bytes());
        prop_assert_eq!(begins_record(word.to_be_bytes()), word & 0x1ff == 0x10);
        let decoded = Header::decode(&bytes);
        if is_allowed(word) {
            prop_assert_eq!(decoded.map(|header| header.kind as u64), Ok(word >> 9));
        } else {
            prop_assert_eq!(decoded, Err(Error::Flags { flags: word & 0x1ff, header: word }));
        }
    }

    /// Any version before this stream's first refuses every word that it begins a record with.
    #[test]
    fn no_extended_record_is_one_of_the_classic_stream((header, payload) in record()) {
        let (bytes, _) = header.encode(&payload);
        let word = bytes[..8].try_into().unwrap();
        let refused = blkmig::wire::Record::decode(word, |_, _| unreachable!("nothing more is read"));
        let is_flags = matches!(refused, Err(Error::Flags { flags: 0x10, .. }));
        prop_assert!(is_flags, "{:?}", refused);
    }
}
