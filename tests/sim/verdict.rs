// SPDX-License-Identifier: GPL-2.0-only
//! Checks the promise at the end of a migration: when the source says "completed", every byte of every migrated device
//! is on the destination as the guest last wrote it; in every other case an error is reported on the side that saw it,
//! and the source keeps running.

/// One device at the end of a migration.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) source: Vec<u8>,
    pub(crate) destination: Vec<u8>,
    /// Whether it migrates. If not, its data must not have changed.
    pub(crate) migrates: bool,
    pub(crate) destination_before: Vec<u8>,
    pub(crate) references: u32,
    pub(crate) tracking: bool,
}

/// The state at the end of a migration.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The source says "completed", and the stream had no error until it was closed.
    pub(crate) completed: bool,
    /// Whether an error was reported: by a call, by the stream, or because the host itself ended the migration.
    pub(crate) source_reported: bool,
    pub(crate) destination_reported: bool,
    pub(crate) pairs: Vec<Pair>,
    /// Of the source and the destination.
    pub(crate) buffers_in_use: [u32; 2],
    pub(crate) active: bool,
}

/// What is wrong with an outcome.
pub(crate) fn judge(outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    let arrived = outcome.completed && !outcome.destination_reported;
    if !outcome.completed && !outcome.source_reported && !outcome.destination_reported {
        wrong.push("not completed, and no error was reported".to_owned());
    }
    for pair in &outcome.pairs {
        let name = &pair.name;
        if arrived && pair.migrates {
            if let Some(at) = first_difference(&pair.source, &pair.destination) {
                wrong.push(format!("completed, but {name} differs at sector {}", at / 512));
            }
        }
        if !pair.migrates && pair.destination != pair.destination_before {
            wrong.push(format!("{name} does not migrate, but has changed"));
        }
        if pair.references != 0 {
            wrong.push(format!("{} references to {name} are left", pair.references));
        }
        if pair.tracking {
            wrong.push(format!("{name} is still tracked"));
        }
    }
    if outcome.buffers_in_use != [0, 0] {
        wrong.push(format!("buffers are left: {:?}", outcome.buffers_in_use));
    }
    if outcome.active {
        wrong.push("the migration is over, but still active".to_owned());
    }
    wrong
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let differs = one.iter().zip(other).position(|(a, b)| a != b);
    differs.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))
}
