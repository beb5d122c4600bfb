// SPDX-License-Identifier: GPL-2.0-only
//! The parts of a scenario. All of them follow from its number.

use blkmig::settings::Options;

use super::Rng;
use super::disk::{Disk, Kind};
use super::events::{Event, PlannedEvent};
use super::guest::GuestMode;
use super::machine::Features;

/// When sections reach the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    AtOnce,
    /// A few at a time.
    Buffered,
    AtTheEnd,
}

/// What is wrong with the destination's first disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Missing,
    ReadOnly,
    /// Smaller by at least a chunk.
    Smaller,
    /// Smaller by less than a chunk, if it is long enough.
    Tail,
    Gone,
}

const MISMATCHES: [Mismatch; 7] = [
    Mismatch::Missing,
    Mismatch::ReadOnly,
    Mismatch::Smaller,
    Mismatch::Tail,
    Mismatch::Tail,
    Mismatch::Tail,
    Mismatch::Gone,
];

/// How the source's host decides that it is time for the last stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The engine's own estimate.
    Estimate,
    /// At most this many bytes are pending.
    Pending(u64),
    /// The same by `pending_switchover`, for hosts that stop the guest by their own threshold.
    Switchover(u64),
    /// After this many steps, whatever is left.
    Steps(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) number: u64,
    pub(crate) chunk_sectors: u32,
    pub(crate) disks: Vec<(Vec<u8>, Kind, u64)>,
    /// In sectors.
    pub(crate) cluster: u64,
    pub(crate) shared_base: bool,
    pub(crate) options: Options,
    /// The host uses `save_live`, not the phase functions.
    pub(crate) stages: bool,
    pub(crate) monitor: bool,
    pub(crate) source: Features,
    pub(crate) destination: Features,
    pub(crate) guest: (GuestMode, u64),
    /// The most guest writes between two steps.
    pub(crate) guest_burst: u64,
    pub(crate) late_writes: u64,
    /// From this step on the guest is quiet and the link is not frozen, so the migration must end.
    pub(crate) quiet_at: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) freeze: u64,
    pub(crate) decision: Decision,
    /// Of ten thousand calls, this many fail.
    pub(crate) error_rate: u64,
    pub(crate) cancel_at: Option<u64>,
    /// At `cancel_at`, the host does not cancel but starts a new migration.
    pub(crate) abandons: bool,
    /// From this step on the source's storage hangs, until the migration is canceled or the engine drains.
    pub(crate) hangs_at: Option<u64>,
    pub(crate) link_fails_at: Option<u64>,
    pub(crate) delivery: Delivery,
    pub(crate) mismatch: Option<Mismatch>,
    /// The source is an old one that sends garbage past the end of a device.
    pub(crate) tail_garbage: bool,
    pub(crate) event: Option<PlannedEvent>,
    /// Sectors in a unit of the source's dirty tracking.
    pub(crate) unit: u64,
}

impl Scenario {
    pub(crate) fn new(number: u64) -> Scenario {
        let rng = Rng::new(number);
        let chunk_sectors = rng.pick(&[1, 1, 1, 1, 4, 8]);
        let shared_base = rng.chance(300);
        let mut disks = disks(&rng, u64::from(chunk_sectors), shared_base);
        let chunk_bytes = u64::from(chunk_sectors) * 512;
        let large = disks[0].2 > 1000;
        let total: u64 = disks.iter().map(|(_, _, sectors)| sectors * 512).sum();
        let threaded = rng.chance(300);
        let steps = 1 + rng.below(40);
        let stages = rng.chance(500);
        let event = rng.chance(150).then(|| random_event(&rng, steps));
        if event.is_some_and(|planned| planned.event == Event::Appears) {
            let kind = rng.pick(&[Kind::ReadOnly, Kind::Empty, Kind::NoMedium, Kind::Gone]);
            let sectors = if matches!(kind, Kind::ReadOnly | Kind::Gone) { 1 + rng.below(9) } else { 0 };
            disks.push((b"late".to_vec(), kind, sectors));
        }
        let cancel_at = rng.chance(100).then(|| rng.below(steps));
        // On a threaded host the engine would wait in real time, and a million scenarios would take too long.
        let extended = rng.chance(500);
        let unit =
            if rng.chance(600) { rng.pick(&[1, 2, 4]).min(u64::from(chunk_sectors)) } else { chunk_sectors.into() };
        let hangs_at = cancel_at.filter(|_| !threaded && rng.chance(400)).map(|at| at - rng.below(at.min(3) + 1));
        Scenario {
            number,
            chunk_sectors,
            disks,
            cluster: rng.pick(&[1, 1, 2, 3, 16]),
            shared_base,
            options: options(&rng, extended),
            stages,
            monitor: rng.chance(500),
            source: features(&rng, threaded, chunk_bytes),
            destination: features(&rng, threaded, chunk_bytes),
            guest: (
                rng.pick(&[GuestMode::Atomic, GuestMode::After, GuestMode::Twice, GuestMode::Seen]),
                rng.pick(&[0, 5, 30, 100, 300]),
            ),
            guest_burst: rng.pick(&[0, 1, 3, 10]),
            late_writes: if rng.chance(50) { 1 + rng.below(80) } else { 0 },
            quiet_at: steps,
            limit: rate_limit(&rng, chunk_bytes),
            freeze: rng.pick(&[0, 0, 0, 200, 600]),
            // Large devices are interesting only while they are searched.
            decision: match rng.below(5) {
                _ if large => Decision::Steps(rng.below(3)),
                4 => Decision::Switchover(rng.pick(&[0, chunk_bytes, total / 2, total])),
                0 => Decision::Estimate,
                1 => Decision::Pending(rng.pick(&[0, chunk_bytes, total / 8, total / 2])),
                2 => Decision::Pending(0),
                _ => Decision::Steps(rng.below(30)),
            },
            error_rate: if rng.chance(350) { rng.pick(&[1, 5, 20, 100]) } else { 0 },
            cancel_at,
            abandons: stages && hangs_at.is_none() && rng.chance(200),
            hangs_at,
            link_fails_at: rng.chance(60).then(|| rng.below(steps)),
            delivery: rng.pick(&[Delivery::AtOnce, Delivery::Buffered, Delivery::AtTheEnd]),
            mismatch: (rng.chance(60) && !shared_base).then(|| rng.pick(&MISMATCHES)),
            tail_garbage: rng.chance(20) && !extended,
            event,
            unit,
        }
    }

    /// The same scenario, without anything that goes wrong.
    pub(crate) fn without_errors(self) -> Scenario {
        Scenario {
            error_rate: 0,
            cancel_at: None,
            link_fails_at: None,
            abandons: false,
            hangs_at: None,
            mismatch: None,
            tail_garbage: false,
            late_writes: 0,
            event: None,
            ..self
        }
    }

    /// The disks of both machines, and the name of the one that does not match at the destination. With a shared base,
    /// the destination starts with the content of the backing files, otherwise with arbitrary data.
    pub(crate) fn make_disks(&self, rng: &Rng) -> (Vec<Disk>, Vec<Disk>, Option<Vec<u8>>) {
        let chunk = u64::from(self.chunk_sectors);
        let (mut sources, mut destinations) = (Vec::new(), Vec::new());
        let full = rng.pick(&[0, 300, 600, 1000]);
        for (index, (name, kind, sectors)) in self.disks.iter().enumerate() {
            let full = if *sectors > 1000 { full / 300 } else { full };
            let mut source = Disk::new(name, *kind, *sectors, chunk, self.cluster);
            let mut destination = Disk::new(name, *kind, *sectors, chunk, self.cluster);
            source.set_unit(self.unit.min(chunk));
            for sector in 0..*sectors {
                let content = if rng.chance(full) { 1 << 30 | sector << 8 | index as u64 } else { 0 };
                source.stamp(sector..sector + 1, content);
                let there = if self.shared_base || rng.chance(500) { content } else { 1 << 31 };
                destination.stamp(sector..sector + 1, there);
            }
            if self.shared_base {
                source.allocated.fill(false);
                for sector in 0..*sectors {
                    if rng.chance(full / 2) {
                        source.stamp(sector..sector + 1, 1 << 29 | sector);
                    }
                }
            }
            sources.push(source);
            destinations.push(destination);
        }
        if rng.chance(300) {
            destinations.reverse();
        }
        let mut mismatched = None;
        if let (Some(mismatch), Some(first)) = (self.mismatch, destinations.iter().position(Disk::migrates)) {
            mismatched = Some(destinations[first].name.clone());
            match mismatch {
                Mismatch::Missing => drop(destinations.remove(first)),
                Mismatch::ReadOnly => destinations[first].kind = Kind::ReadOnly,
                Mismatch::Gone => destinations[first].kind = Kind::Gone,
                Mismatch::Tail => {
                    let sectors = destinations[first].sectors();
                    let cut = rng.below((sectors - 1) % chunk + 1);
                    destinations[first].data.truncate((sectors - cut) as usize * 512);
                }
                Mismatch::Smaller => {
                    let left = destinations[first].sectors().saturating_sub(chunk) / chunk * chunk;
                    destinations[first].data.truncate(left as usize * 512);
                }
            }
        }
        (sources, destinations, mismatched)
    }

    pub(crate) fn extended(&self) -> bool {
        self.options.stream == 2
    }

    /// The most records that it takes to send everything once.
    pub(crate) fn units(&self) -> u64 {
        let chunk = self.chunk_sectors.into();
        let unit = if self.extended() { self.unit.min(chunk) } else { chunk };
        self.disks.iter().map(|(_, _, sectors)| sectors.div_ceil(unit)).sum()
    }
}

fn options(rng: &Rng, extended: bool) -> Options {
    Options {
        max_buffers: rng.pick(&[0, 1, 2, 3, 5, 16]),
        max_reads: rng.pick(&[0, 1, 2, 4, 40]),
        max_writes: rng.pick(&[0, 1, 2, 4]),
        zero_blocks: rng.chance(400),
        accept_tail_garbage: rng.chance(500),
        stream: if extended { 2 } else { rng.pick(&[0, 1]) },
        compression: if extended { rng.pick(&[0, 0, 1, 3, -1]) } else { 0 },
    }
}

fn random_event(rng: &Rng, steps: u64) -> PlannedEvent {
    let by = rng.pick(&[-1, 1]);
    let events = [
        Event::Gone,
        Event::Resized(by, None),
        Event::Resized(by, Some(rng.below(60))),
        Event::Appears,
        Event::Replaced,
        Event::Unlisted,
    ];
    let at_destination = rng.chance(150);
    PlannedEvent {
        event: if at_destination { Event::Gone } else { rng.pick(&events) },
        at_destination,
        step: rng.chance(500).then(|| rng.below(steps)),
        call: if rng.chance(300) { 0 } else { rng.below(120) },
        which: rng.next(),
    }
}

fn disks(rng: &Rng, chunk: u64, shared_base: bool) -> Vec<(Vec<u8>, Kind, u64)> {
    // Sometimes a device that is larger than one search for allocated sectors.
    if shared_base && rng.chance(15) {
        return vec![(b"large".to_vec(), Kind::Normal, 1030 + rng.below(1500))];
    }
    let count = rng.pick(&[1, 1, 1, 2, 2, 3, 4]);
    (0..count)
        .map(|index| {
            let kind = match rng.below(20) {
                0 => Kind::ReadOnly,
                1 => Kind::Empty,
                2 => Kind::NoMedium,
                3 => Kind::Gone,
                4 => Kind::NotChosen,
                _ => Kind::Normal,
            };
            let sectors = if kind == Kind::Empty || kind == Kind::NoMedium {
                0
            } else if rng.chance(100) {
                1 + rng.below(2 * chunk)
            } else {
                1 + rng.below(40 * chunk.min(3))
            };
            let name = match rng.below(20) {
                0 => vec![b'n'; 255 - index],
                1 => vec![0xff, b'a' + index as u8],
                _ => format!("ide0-hd{index}").into_bytes(),
            };
            (name, kind, sectors)
        })
        .collect()
}

fn rate_limit(rng: &Rng, chunk_bytes: u64) -> Option<u64> {
    rng.pick(&[
        None,
        None,
        Some(1),
        Some(chunk_bytes),
        Some(3 * chunk_bytes),
        Some(10 * chunk_bytes + 7),
        Some(10 << 30),
        Some(u64::MAX),
    ])
}

fn features(rng: &Rng, threaded: bool, chunk_bytes: u64) -> Features {
    Features {
        async_writes: rng.chance(600),
        wait: rng.chance(500),
        next_dirty: rng.chance(500),
        write_zeroes: rng.chance(500),
        zeroes_unsupported: rng.chance(200),
        known_zero: rng.chance(400),
        tiny_extents: rng.chance(300),
        cluster: rng.pick(&[None, None, Some(512), Some(1024), Some(chunk_bytes), Some(1), Some(1 << 40)]),
        owned_buffers: rng.chance(500),
        threaded,
        sudden: threaded || rng.chance(500),
        immediate: rng.pick(&[0, 0, 100, 500, 1000]),
        calls_back: rng.chance(200),
        tick_ns: rng.pick(&[0, 10, 1000, 100_000, 10_000_000]),
        max_downtime_ns: rng.pick(&[0, 1_000, 1_000_000, 30_000_000, u64::MAX]),
    }
}
