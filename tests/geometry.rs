// SPDX-License-Identifier: GPL-2.0-only
//! What holds for sectors and chunks, whatever the numbers are.

use blkmig::geometry::{Chunk, Geometry, SECTOR_BYTES, Sector, Sectors};
use proptest::prelude::*;

fn geometry() -> impl Strategy<Value = Geometry> {
    prop_oneof![
        Just(Geometry::QEMU),
        (1..=5000_u32).prop_map(|sectors| Geometry::new(sectors).expect("it is in range"))
    ]
}

/// Sectors of a device, from tiny to the largest that has a length in bytes.
fn total() -> impl Strategy<Value = u64> {
    prop_oneof![1..10_000_u64, 1..=i64::MAX as u64 / SECTOR_BYTES]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

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
    fn only_the_last_chunk_may_be_a_tail(geometry in geometry(), total in total()) {
        let last = geometry.chunks(total) - 1;
        let tail = geometry.sectors(Chunk(last), total);
        prop_assert_eq!(tail.end(), Sector(total));
        if last > 0 {
            prop_assert_eq!(geometry.sectors(Chunk(last - 1), total).count, geometry.sectors_per_chunk());
        }
        prop_assert_eq!(geometry.sectors(Chunk(last + 1), total).count, 0);
    }

    #[test]
    fn a_clip_stays_on_the_device(geometry in geometry(), total in total(), start in any::<u64>()) {
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
    fn bytes_of_runs_of_chunks_add_up(geometry in geometry(), total in total(), cuts in [any::<u64>(), any::<u64>()]) {
        let chunks = geometry.chunks(total);
        let mut cuts = cuts.map(|cut| cut % (chunks + 1));
        cuts.sort_unstable();
        let [one, other] = cuts;
        let bytes = |chunks| geometry.bytes(chunks, total);
        let sum = bytes(0..one) + bytes(one..other) + bytes(other..chunks);
        prop_assert_eq!(sum, total * SECTOR_BYTES);
        prop_assert_eq!(geometry.bytes(0..chunks, total), total * SECTOR_BYTES);
        prop_assert_eq!(geometry.bytes(0..u64::MAX, total), total * SECTOR_BYTES);
        prop_assert_eq!(geometry.bytes(one..one, total), 0);
        if one < chunks {
            prop_assert_eq!(geometry.bytes(one..one + 1, total), geometry.sectors(Chunk(one), total).bytes() as u64);
        }
    }

    #[test]
    fn runs_overlap_if_they_share_a_sector(a in 0..50_u64, m in 1..20_u32, b in 0..50_u64, n in 1..20_u32) {
        let (one, other) = (Sectors { start: Sector(a), count: m }, Sectors { start: Sector(b), count: n });
        let shared = (one.start.0..one.end().0).any(|sector| (other.start.0..other.end().0).contains(&sector));
        prop_assert_eq!(one.overlaps(other), shared);
        prop_assert_eq!(other.overlaps(one), shared);
    }
}

#[test]
fn a_geometry_has_chunks_of_a_sector_to_a_gigabyte() {
    assert_eq!(Geometry::new(0), None);
    assert_eq!(Geometry::new((1 << 21) + 1), None);
    assert_eq!(Geometry::new(1 << 21).map(Geometry::chunk_bytes), Some(1 << 30));
    assert_eq!(Geometry::new(2048), Some(Geometry::QEMU));
    assert_eq!(Geometry::QEMU.chunk_bytes(), 1 << 20);
}
