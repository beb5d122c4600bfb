// SPDX-License-Identifier: GPL-2.0-only
//! Devices that disappear, change, appear or are replaced while a migration runs, between two calls to the engine or in
//! the middle of one; and whether the engine must have noticed.

use std::cell::Cell;

use blkmig::error::Errno;

use super::disk::Kind;
use super::machine::Machine;

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It disappears.
    Gone,
    /// Its length changes by this many sectors: for good, or for this many calls of the engine.
    Resized(i64, Option<u64>),
    /// A device that was skipped could be migrated now.
    Appears,
    /// Another device with its name takes its place.
    Replaced,
    /// The host no longer lists it.
    Unlisted,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Event::Gone => "gone",
            Event::Resized(_, None) => "resized",
            Event::Resized(..) => "resized and back",
            Event::Appears => "appears",
            Event::Replaced => "replaced",
            Event::Unlisted => "unlisted",
        }
    }

    /// Whether the event shows in the length, which the engine checks in every step. The list of devices is
    /// checked only in the last stage.
    fn shows_in_length(self) -> bool {
        matches!(self, Event::Gone | Event::Resized(..))
    }

    fn lasts(self) -> bool {
        !matches!(self, Event::Resized(_, Some(_)))
    }
}

/// When and where an event happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedEvent {
    pub(crate) event: Event,
    /// At the destination, not at the source.
    pub(crate) at_destination: bool,
    /// Before this step, or before the last stage if it is `None`.
    pub(crate) step: Option<u64>,
    /// If not 0: not before the step but during it, at this call of the engine.
    pub(crate) call: u64,
    /// Selects one of the disks to which the event can happen.
    pub(crate) which: u64,
}

#[derive(Clone, Copy)]
enum Due {
    Begins(Event, u64),
    /// The old length is back.
    Ends,
}

/// What happens to a machine's devices during a migration.
#[derive(Default)]
pub(crate) struct DeviceEvents {
    due: Cell<Option<(u64, Due)>>,
    /// The disk to which something has happened.
    changed: Cell<Option<usize>>,
    /// The event whose effect has not ended.
    present: Cell<Option<Event>>,
    /// The host has told the engine something for which it must fail, or the engine had to ask.
    told: Cell<bool>,
    in_last_stage: Cell<bool>,
}

impl DeviceEvents {
    /// The disk to which something has happened in this migration.
    pub(crate) fn changed(&self) -> Option<usize> {
        self.changed.get()
    }

    pub(crate) fn present(&self) -> Option<Event> {
        self.present.get()
    }

    /// The host tells the engine something for which it must fail.
    pub(crate) fn tell(&self) {
        self.told.set(true);
    }

    pub(crate) fn begin_last_stage(&self) {
        self.in_last_stage.set(true);
    }

    /// Whether a stage that succeeded should have failed; `before` is the event that was in effect when it began.
    pub(crate) fn must_have_failed(&self, before: Option<Event>) -> bool {
        let looked = |event: Event| self.in_last_stage.get() || event.shows_in_length();
        self.told.get() || before.is_some_and(|event| self.present.get() == before && looked(event))
    }
}

impl Machine {
    /// Another migration begins, and nothing has happened yet.
    pub(crate) fn forget_events(&self) {
        for cell in [&self.events.told, &self.events.in_last_stage] {
            cell.set(false);
        }
        self.events.due.set(None);
        self.events.changed.set(None);
        self.events.present.set(None);
    }

    /// Plans an event, or runs it at once.
    pub(crate) fn plan(&self, planned: PlannedEvent) {
        self.events.due.set(Some((planned.call, Due::Begins(planned.event, planned.which))));
        if planned.call == 0 {
            self.run_events(false);
        }
    }

    /// Counts down to the planned event and runs it when it is due.
    pub(crate) fn run_events(&self, in_call: bool) {
        match self.events.due.take() {
            Some((0, Due::Begins(event, which))) => self.begin(event, which, in_call),
            Some((0, Due::Ends)) => {
                let disk = self.events.changed.get().expect("something began");
                self.sim.trace(|| format!("  {}: disk {disk} has its length back", self.label));
                self.disks.borrow_mut()[disk].reported_length = None;
                self.events.present.set(None);
            }
            Some((calls, due)) => self.events.due.set(Some((calls - 1, due))),
            None => {}
        }
    }

    fn begin(&self, event: Event, which: u64, in_call: bool) {
        let mut disks = self.disks.borrow_mut();
        let candidates: Vec<_> = (0..disks.len())
            .filter(|&index| match event {
                Event::Appears => !disks[index].migrates() && disks[index].kind != Kind::NotChosen,
                _ => disks[index].migrates(),
            })
            .collect();
        if candidates.is_empty() {
            return;
        }
        let index = candidates[which as usize % candidates.len()];
        let disk = &mut disks[index];
        self.sim.trace(|| format!("  {}: {event:?}, disk {index}", self.label));
        match event {
            Event::Gone => disk.reported_length = Some(Err(Errno::NO_MEDIUM)),
            Event::Resized(by, calls) => {
                disk.reported_length = Some(Ok(disk.data.len() as i64 + by * 512));
                self.events.due.set(calls.map(|calls| (calls, Due::Ends)));
            }
            Event::Appears => disk.insert(),
            Event::Replaced => disk.replaced = true,
            Event::Unlisted => disk.unlisted = true,
        }
        self.events.changed.set(Some(index));
        self.events.present.set(Some(event));
        if in_call {
            self.sim.cover("in the middle of a call");
        }
        self.sim.cover(if self.is_source() { event.name() } else { "gone at the destination" });
    }

    /// The engine gets a device's length.
    pub(crate) fn notice_length(&self, disk: usize, length: Result<i64, Errno>) {
        if self.events.changed.get() != Some(disk) {
            return;
        }
        let told = match self.events.present.get() {
            Some(Event::Appears) => length.is_ok(),
            Some(event) => event.shows_in_length(),
            None => false,
        };
        if told {
            self.events.tell();
        }
    }

    /// The engine reads. It must check all devices again after the very last read, so it cannot miss a lasting event.
    pub(crate) fn notice_read(&self) {
        let around = &self.events;
        if around.in_last_stage.get() && around.present.get().is_some_and(Event::lasts) {
            around.tell();
        }
    }
}
