// SPDX-License-Identifier: GPL-2.0-only
//! Properties of the stream's records and of the geometry that hold for all numbers.

use blkmig::error::{Errno, Error};
use blkmig::geometry::{Chunk, Geometry, SECTOR_BYTES, Sector, Sectors};
use blkmig::wire::{Header, MAX_NAME, block_prefix};
use proptest::prelude::*;

/// The largest sector whose number leaves room for the flags.
const LAST_SECTOR: u64 = u64::MAX >> 9;

fn header() -> impl Strategy<Value = Header> {
    prop_oneof![
        (0..=LAST_SECTOR).prop_map(|sector| Header::Block(Sector(sector))),
        (0..=LAST_SECTOR).prop_map(|sector| Header::ZeroBlock(Sector(sector))),
        (0..=100_u8).prop_map(Header::Progress),
        Just(Header::End),
    ]
}

/// Whether a word is a valid record header, written independently of the engine.
fn is_record(word: u64) -> bool {
    match word & 0x1ff {
        0x01 | 0x09 => true,
        0x02 => word >> 9 == 0,
        0x04 => word >> 9 <= 100,
        _ => false,
    }
}

/// Arbitrary words, and many that are almost valid headers.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), (0..=LAST_SECTOR, 0..16_u64).prop_map(|(value, flags)| value << 9 | flags), 0..60_000_u64]
}

fn geometry() -> impl Strategy<Value = Geometry> {
    prop_oneof![
        Just(Geometry::QEMU),
        (1..=5000_u32).prop_map(|sectors| Geometry::new(sectors).expect("it is in range"))
    ]
}

/// The sectors of a device, up to the largest whose length in bytes is an `i64`.
fn total() -> impl Strategy<Value = u64> {
    prop_oneof![1..10_000_u64, 1..=i64::MAX as u64 / SECTOR_BYTES]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_encoded_header_decodes_to_itself(header in header()) {
        prop_assert_eq!(Header::decode(header.encode()), Ok(header));
    }

    #[test]
    fn any_word_is_a_valid_header_or_refused(word in word()) {
        match Header::decode(word.to_be_bytes()) {
            Ok(header) => {
                prop_assert!(is_record(word), "{:#x} was decoded as {:?}", word, header);
                prop_assert_eq!(header.encode(), word.to_be_bytes());
            }
            Err(error) => {
                prop_assert!(!is_record(word), "{:#x} was refused: {}", word, error);
                prop_assert_eq!(error.errno(), Errno::INVALID);
                // The text contains the value.
                let is_progress = matches!(error, Error::Progress(_));
                let value = if is_progress { format!("{}", word >> 9) } else { format!("{word:016x}") };
                prop_assert!(error.to_string().contains(&value), "{} does not contain {}", error, value);
            }
        }
    }

    #[test]
    fn a_block_prefix_is_the_header_the_length_and_the_name(
        header in header(),
        name in prop::collection::vec(any::<u8>(), 0..=MAX_NAME),
    ) {
        let prefix = block_prefix(header, &name);
        prop_assert_eq!(&prefix[..8], &header.encode()[..]);
        prop_assert_eq!(usize::from(prefix[8]), name.len());
        prop_assert_eq!(&prefix[9..], &name[..]);
    }

    #[test]
    fn chunks_cover_the_device_exactly_once(geometry in geometry(), total in 1..20_000_u64) {
        let mut next = 0;
        for chunk in 0..geometry.chunks(total) {
            let sectors = geometry.sectors(Chunk(chunk), total);
            prop_assert_eq!(sectors.start, Sector(next));
            prop_assert!(sectors.count > 0 && sectors.count <= geometry.sectors_per_chunk());
            prop_assert_eq!(sectors.start, geometry.start(Chunk(chunk)));
            prop_assert_eq!(geometry.chunk_of(sectors.start), Chunk(chunk));
            prop_assert_eq!(geometry.chunk_of(Sector(sectors.end().0 - 1)), Chunk(chunk));
            next = sectors.end().0;
        }
        prop_assert_eq!(next, total);
    }

    #[test]
    fn only_the_last_chunk_may_be_short(geometry in geometry(), total in total()) {
        let last = geometry.chunks(total) - 1;
        let tail = geometry.sectors(Chunk(last), total);
        prop_assert_eq!(tail.end(), Sector(total));
        if last > 0 {
            prop_assert_eq!(geometry.sectors(Chunk(last - 1), total).count, geometry.sectors_per_chunk());
        }
        prop_assert_eq!(geometry.sectors(Chunk(last + 1), total).count, 0);
    }

    #[test]
    fn a_clipped_range_stays_on_the_device(geometry in geometry(), total in total(), start in any::<u64>()) {
        let clip = geometry.clip(Sector(start), total);
        prop_assert_eq!(clip.start, Sector(start));
        prop_assert!(clip.count <= geometry.sectors_per_chunk());
        if start >= total {
            prop_assert_eq!(clip.count, 0);
        } else {
            prop_assert!(clip.end().0 <= total);
            prop_assert!(clip.end().0 == total || clip.count == geometry.sectors_per_chunk());
        }
        prop_assert_eq!(clip.bytes() as u64, u64::from(clip.count) * SECTOR_BYTES);
    }

    #[test]
    fn bytes_of_ranges_of_chunks_add_up(
        geometry in geometry(),
        total in total(),
        cuts in [any::<u64>(), any::<u64>()],
    ) {
        let chunks = geometry.chunks(total);
        let mut cuts = cuts.map(|cut| cut % (chunks + 1));
        cuts.sort_unstable();
        let [one, other] = cuts;
        let ranges = [0..one, one..other, other..chunks];
        let sum: u64 = ranges.into_iter().map(|range| geometry.bytes(range, total)).sum();
        prop_assert_eq!(sum, total * SECTOR_BYTES);
        prop_assert_eq!(geometry.bytes(0..chunks, total), total * SECTOR_BYTES);
        prop_assert_eq!(geometry.bytes(0..u64::MAX, total), total * SECTOR_BYTES);
        prop_assert_eq!(geometry.bytes(one..one, total), 0);
        if one < chunks {
            prop_assert_eq!(geometry.bytes(one..one + 1, total), geometry.sectors(Chunk(one), total).bytes() as u64);
        }
    }

    #[test]
    fn ranges_overlap_if_they_share_a_sector(a in 0..50_u64, m in 1..20_u32, b in 0..50_u64, n in 1..20_u32) {
        let (one, other) = (Sectors { start: Sector(a), count: m }, Sectors { start: Sector(b), count: n });
        let shared = (one.start.0..one.end().0).any(|sector| (other.start.0..other.end().0).contains(&sector));
        prop_assert_eq!(one.overlaps(other), shared);
        prop_assert_eq!(other.overlaps(one), shared);
    }
}

#[test]
fn a_geometry_has_chunks_of_one_sector_to_one_gibibyte() {
    assert_eq!(Geometry::new(0), None);
    assert_eq!(Geometry::new((1 << 21) + 1), None);
    assert_eq!(Geometry::new(1 << 21).map(Geometry::chunk_bytes), Some(1 << 30));
    assert_eq!(Geometry::new(2048), Some(Geometry::QEMU));
    assert_eq!(Geometry::QEMU.chunk_bytes(), 1 << 20);
}
