// SPDX-License-Identifier: GPL-2.0-only
//! The stream's records: their bytes, which are those of `docs/protocol.md`, and what is refused.

use blkmig::device_name::DeviceName;
use blkmig::error::{Errno, Error};
use blkmig::geometry::Sector;
use blkmig::wire::{MAX_NAME, Record};
use proptest::prelude::*;

/// The largest sector whose number leaves room for the flags.
const LAST_SECTOR: u64 = u64::MAX >> 9;

/// Decodes the record at the start of these bytes; returns it with the bytes after it.
fn decode(mut bytes: &[u8]) -> (Result<Record, Error>, &[u8]) {
    let mut get = |into: &mut [u8], what| {
        let (taken, rest) = bytes.split_at_checked(into.len()).ok_or(Error::Short(what))?;
        into.copy_from_slice(taken);
        bytes = rest;
        Ok(())
    };
    let mut word = [0; 8];
    let record = get(&mut word, "a record's header").and_then(|()| Record::decode(word, get));
    (record, bytes)
}

#[test]
fn each_record_has_its_golden_bytes() {
    let block = |sector| Record::Block("virtio0".into(), Sector(sector));
    let zero_block = |sector| Record::ZeroBlock("ide0-hd0".into(), Sector(sector));
    let golden: [(Record, &[u8]); 6] = [
        (block(0), b"\x00\x00\x00\x00\x00\x00\x00\x01\x07virtio0"),
        (block(2048), b"\x00\x00\x00\x00\x00\x10\x00\x01\x07virtio0"),
        (zero_block(4096), b"\x00\x00\x00\x00\x00\x20\x00\x09\x08ide0-hd0"),
        (Record::Progress(42), b"\x00\x00\x00\x00\x00\x00\x54\x04"),
        (Record::Progress(100), b"\x00\x00\x00\x00\x00\x00\xc8\x04"),
        (Record::End, b"\x00\x00\x00\x00\x00\x00\x00\x02"),
    ];
    for (record, bytes) in golden {
        assert_eq!(record.encode(), bytes, "{record:?}");
        assert_eq!(decode(bytes), (Ok(record), &b""[..]));
    }
}

#[test]
fn a_name_that_is_empty_or_holds_a_nul_is_refused() {
    for name in [&b""[..], b"\0", b"hd\0", b"\0hd"] {
        let bytes = [&[0, 0, 0, 0, 0, 0, 0, 1, u8::try_from(name.len()).unwrap()], name].concat();
        assert_eq!(decode(&bytes).0, Err(Error::Name(name.into())));
    }
}

#[test]
fn the_text_of_a_name_can_neither_forge_a_line_nor_hold_escape_codes() {
    let text = |bytes: &[u8]| DeviceName::from(bytes).to_string();
    assert_eq!(text(b"virtio0"), "virtio0");
    assert_eq!(text("naïve 'quoted\" \\".as_bytes()), "naïve 'quoted\" \\");
    assert_eq!(text(b"hd\n[error] forged\r\t\0"), "hd\\n[error] forged\\r\\t\\0");
    assert_eq!(text(b"\x1b[2J\x7f"), "\\u{1b}[2J\\u{7f}");
    assert_eq!(text(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    // Right-to-left overrides and the like do not print either.
    assert_eq!(text("a\u{202e}b".as_bytes()), "a\\u{202e}b");
}

/// What the contract's table says of the word at the start of a record, written down once more.
fn is_allowed(word: u64) -> bool {
    match word & 0x1ff {
        0x01 | 0x09 => true,
        0x02 => word >> 9 == 0,
        0x04 => word >> 9 <= 100,
        _ => false,
    }
}

fn name() -> impl Strategy<Value = DeviceName> {
    prop::collection::vec(1..=u8::MAX, 1..=MAX_NAME).prop_map(|bytes| DeviceName::from(&bytes[..]))
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (name(), 0..=LAST_SECTOR).prop_map(|(name, sector)| Record::Block(name, Sector(sector))),
        (name(), 0..=LAST_SECTOR).prop_map(|(name, sector)| Record::ZeroBlock(name, Sector(sector))),
        (0..=100_u8).prop_map(Record::Progress),
        Just(Record::End),
    ]
}

/// Words near the table as well as any.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), (0..=LAST_SECTOR, 0..16_u64).prop_map(|(value, flags)| value << 9 | flags), 0..60_000_u64]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_record_comes_back_as_it_was(record in record(), after in prop::collection::vec(any::<u8>(), 0..20)) {
        let bytes = [record.encode(), after.clone()].concat();
        prop_assert_eq!(decode(&bytes), (Ok(record), &after[..]));
    }

    #[test]
    fn a_record_that_is_cut_anywhere_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.encode();
        let kept = cut.index(bytes.len());
        let refused = decode(&bytes[..kept]).0;
        prop_assert!(matches!(refused, Err(Error::Short(_))), "{:?}", refused);
    }

    #[test]
    fn any_word_begins_a_record_of_the_table_or_is_refused(word in word()) {
        let bytes = [&word.to_be_bytes()[..], b"\x03hd0"].concat();
        match decode(&bytes).0 {
            Ok(record) => {
                prop_assert!(is_allowed(word), "{:#x} was taken for {:?}", word, record);
                prop_assert!(bytes.starts_with(&record.encode()));
            }
            Err(error) => {
                prop_assert!(!is_allowed(word), "{:#x} was refused: {}", word, error);
                prop_assert_eq!(error.errno(), Errno::INVALID);
                // The text says what was there.
                let is_progress = matches!(error, Error::Progress(_));
                let value = if is_progress { format!("{}", word >> 9) } else { format!("{word:016x}") };
                prop_assert!(error.to_string().contains(&value), "{} does not say {}", error, value);
            }
        }
    }
}
