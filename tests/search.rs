// SPDX-License-Identifier: GPL-2.0-only
//! The walk of the bulk phase and the search for dirty chunks, without a device: what holds whatever is dirty
//! or allocated.

use std::cell::Cell;
use std::collections::BTreeSet;

use blkmig::error::{Errno, Error};
use blkmig::geometry::{Chunk, Geometry, Sector, Sectors};
use blkmig::host::Extent;
use blkmig::source::bulk::{BulkWalk, Walked};
use blkmig::source::search::{DirtyMap, DirtySearch, NextDirty};
use proptest::prelude::*;

/// Dirty tracking of a device of `chunks` chunks.
#[derive(Clone, Debug)]
struct Map {
    chunks: u64,
    dirty: BTreeSet<u64>,
    on_their_way: BTreeSet<u64>,
    /// Whether the host can search.
    searches: bool,
    questions: Cell<u64>,
}

impl DirtyMap for Map {
    fn next_dirty(&self, from: Chunk) -> Result<NextDirty, Error> {
        self.questions.set(self.questions.get() + 1);
        if !self.searches {
            return Ok(NextDirty::Unsupported);
        }
        Ok(self.dirty.range(from.0..).next().map_or(NextDirty::End, |&chunk| NextDirty::Chunk(Chunk(chunk))))
    }

    fn is_dirty(&self, chunk: Chunk) -> bool {
        assert!(chunk.0 < self.chunks, "{chunk:?} is past the end");
        self.dirty.contains(&chunk.0)
    }

    fn is_on_its_way(&self, chunk: Chunk) -> bool {
        self.on_their_way.contains(&chunk.0)
    }
}

fn map() -> impl Strategy<Value = Map> {
    (1..200_u64).prop_flat_map(|chunks| {
        let some = || prop::collection::btree_set(0..chunks, 0..=usize::try_from(chunks).unwrap());
        (some(), some(), any::<bool>()).prop_map(move |(dirty, on_their_way, searches)| Map {
            chunks,
            dirty,
            on_their_way,
            searches,
            questions: Cell::new(0),
        })
    })
}

fn search(map: &Map) -> DirtySearch {
    let bits = usize::try_from(map.chunks).unwrap();
    DirtySearch::new(map.chunks, bitvec::vec::BitVec::repeat(false, bits))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_step_finds_every_dirty_chunk_once_but_for_those_on_their_way(map in map(), steps in 1..4_usize) {
        let mut map = map;
        let mut search = search(&map);
        let all = map.dirty.clone();
        // In later steps all of them have been found before.
        for _ in 0..steps {
            map.dirty.clone_from(&all);
            search.begin(map.dirty.len() as u64, false);
            let mut found = BTreeSet::new();
            while let Some(chunk) = search.next(&map).unwrap() {
                prop_assert!(found.insert(chunk.0), "{:?} was found twice", chunk);
                map.dirty.remove(&chunk.0);
            }
            let expected: BTreeSet<u64> = all.difference(&map.on_their_way).copied().collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_step_ends_though_the_guest_writes_to_all_that_is_found_at_once(map in map(), steps in 1..4_usize) {
        let mut search = search(&map);
        for _ in 0..steps {
            map.questions.set(0);
            search.begin(map.dirty.len() as u64, false);
            let mut found = 0;
            while let Some(chunk) = search.next(&map).unwrap() {
                prop_assert!(map.dirty.contains(&chunk.0) && !map.on_their_way.contains(&chunk.0));
                found += 1;
            }
            // Two passes, each of which meets each dirty chunk once.
            prop_assert!(found <= 2 * map.dirty.len(), "{} of {}", found, map.dirty.len());
            prop_assert!(map.questions.get() <= 2 * map.chunks + 4, "{} questions", map.questions.get());
        }
    }

    #[test]
    fn every_chunk_has_its_turn_though_the_guest_writes_to_all_the_time(map in map(), reads in 1..5_usize) {
        let mut map = map;
        map.on_their_way.clear();
        let mut search = search(&map);
        let mut never_found = map.dirty.clone();
        // In each order as many reads as two passes make, for each of the two orders, and the pass in which
        // they change.
        let steps = (6 * map.dirty.len() + 2) / reads + 2;
        for _ in 0..steps {
            search.begin(map.dirty.len() as u64, false);
            for _ in 0..reads {
                if let Some(chunk) = search.next(&map).unwrap() {
                    never_found.remove(&chunk.0);
                }
            }
        }
        prop_assert!(never_found.is_empty(), "never found: {:?}", never_found);
    }

    #[test]
    fn new_dirty_chunks_come_before_those_found_before(map in map(), more in 0..200_u64) {
        let mut map = map;
        map.on_their_way.clear();
        map.dirty.remove(&(more % map.chunks));
        let mut search = search(&map);
        search.begin(map.dirty.len() as u64, false);
        while search.next(&map).unwrap().is_some() {}
        map.dirty.insert(more % map.chunks);
        search.begin(map.dirty.len() as u64, false);
        prop_assert_eq!(search.next(&map).unwrap(), Some(Chunk(more % map.chunks)));
    }

    #[test]
    fn the_bulk_walk_comes_to_each_chunk_once_and_skips_only_what_is_unallocated(
        sectors_per_chunk in 1..9_u32,
        allocated in prop::collection::vec(any::<bool>(), 1..300),
        lengths in prop::collection::vec(-1..40_i64, 1..20),
        shared_base in any::<bool>(),
    ) {
        let geometry = Geometry::new(sectors_per_chunk).unwrap();
        let total = allocated.len() as u64;
        let mut walk = BulkWalk::new(geometry, total, shared_base);
        let mut answers = lengths.iter().cycle();
        let answers = Cell::new(Some(&mut answers));
        // As long as the run is, or shorter, or without progress, or an error.
        let allocation = |range: Sectors| -> Result<Extent, Errno> {
            let answers_left = answers.take().unwrap();
            let length = *answers_left.next().unwrap();
            answers.set(Some(answers_left));
            if length < 0 {
                return Err(Errno::IO);
            }
            let at = usize::try_from(range.start.0).unwrap();
            let run = allocated[at..].iter().take_while(|sector| **sector == allocated[at]).count();
            let longest = i64::try_from(run.min(range.count as usize)).unwrap();
            Ok(Extent { holds: allocated[at], sectors: longest.min(length) })
        };
        let mut next = 0;
        while !walk.is_done() {
            prop_assert_eq!(walk.remaining_bytes(), geometry.bytes(next..u64::MAX, total));
            let Walked { skipped, chunk } = walk.step(allocation);
            prop_assert_eq!(skipped.start, next);
            next = skipped.end;
            prop_assert!(shared_base || skipped.is_empty());
            for chunk in skipped {
                let sectors = geometry.sectors(Chunk(chunk), total);
                let mut sectors = sectors.start.0..sectors.end().0;
                prop_assert!(sectors.all(|sector| !allocated[usize::try_from(sector).unwrap()]));
            }
            if let Some(chunk) = chunk {
                prop_assert_eq!(chunk, Chunk(next));
                next += 1;
            }
        }
        prop_assert_eq!(next, geometry.chunks(total));
        prop_assert_eq!(walk.step(allocation), Walked { skipped: next..next, chunk: None });
        prop_assert_eq!(walk.remaining_bytes(), 0);
    }

    #[test]
    fn only_whole_chunks_up_to_where_the_host_was_heard_are_known_zeroes(
        sectors_per_chunk in 1..9_u32, total in 1..300_u64, end in 0..300_u64,
    ) {
        let geometry = Geometry::new(sectors_per_chunk).unwrap();
        let mut walk = BulkWalk::new(geometry, total, false);
        let end = end.min(total);
        // Before the walk has come to it, nothing is heard.
        walk.note_zeroes(Chunk(0), Sector(end));
        prop_assert!(!walk.is_known_zero(Chunk(0)));
        let first = walk.step(|_| Err(Errno::IO)).chunk;
        prop_assert_eq!(first, Some(Chunk(0)));
        walk.note_zeroes(Chunk(0), Sector(end));
        for chunk in 0..geometry.chunks(total) {
            let whole = geometry.sectors(Chunk(chunk), total).end().0 <= end;
            prop_assert_eq!(walk.is_known_zero(Chunk(chunk)), whole);
        }
    }
}
