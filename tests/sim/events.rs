// SPDX-License-Identifier: GPL-2.0-only
//! Devices that go away, change, appear or are replaced while a migration runs, between two calls of the host's or in the
//! middle of one; and whether the engine must have noticed.

use std::cell::Cell;

use blkmig::error::Errno;

use super::machine::Machine;

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It goes away.
    Gone,
    /// It has another length, by so many sectors: for good, or for so many calls of the engine.
    Resized(i64, Option<u64>),
    /// One that was left out could be migrated now.
    Appears,
    /// Another one under its name takes its place.
    Replaced,
    /// The host does not list it any more.
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

    /// Whether its length tells of it: the engine looks at that in every step, and at the list in the last one alone.
    fn shows_in_length(self) -> bool {
        matches!(self, Event::Gone | Event::Resized(..))
    }

    fn lasts(self) -> bool {
        !matches!(self, Event::Resized(_, Some(_)))
    }
}

/// When and where it happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happening {
    pub(crate) event: Event,
    /// To a disk of the destination, and not to one of the source.
    pub(crate) at_destination: bool,
    /// Before this step, or before the last stage.
    pub(crate) step: Option<u64>,
    /// Or in the middle of what follows, at that call of the engine.
    pub(crate) call: u64,
    /// To which of the disks that it can happen to.
    pub(crate) which: u64,
}

#[derive(Clone, Copy)]
enum Due {
    Begins(Event, u64),
    /// The old length is back.
    Ends,
}

/// What goes on around a machine's migration.
#[derive(Default)]
pub(crate) struct Around {
    due: Cell<Option<(u64, Due)>>,
    /// The disk to which something has happened.
    changed: Cell<Option<usize>>,
    /// What holds still.
    present: Cell<Option<Event>>,
    /// The engine was told of something for which it must fail, or has had every reason to ask.
    told: Cell<bool>,
    in_last_stage: Cell<bool>,
}

impl Around {
    /// The disk to which something has happened in this migration.
    pub(crate) fn changed(&self) -> Option<usize> {
        self.changed.get()
    }

    pub(crate) fn present(&self) -> Option<Event> {
        self.present.get()
    }

    /// The engine is told of something for which it must fail.
    pub(crate) fn tell(&self) {
        self.told.set(true);
    }

    pub(crate) fn begin_last_stage(&self) {
        self.in_last_stage.set(true);
    }

    /// Whether a stage that has ended well should have failed; `before` is what there was when it began.
    pub(crate) fn must_have_failed(&self, before: Option<Event>) -> bool {
        let looked = |event: Event| self.in_last_stage.get() || event.shows_in_length();
        self.told.get() || before.is_some_and(|event| self.present.get() == before && looked(event))
    }
}

impl Machine {
    /// Another migration begins: nothing has happened.
    pub(crate) fn forget_events(&self) {
        for cell in [&self.around.told, &self.around.in_last_stage] {
            cell.set(false);
        }
        self.around.due.set(None);
        self.around.changed.set(None);
        self.around.present.set(None);
    }

    /// It will happen, or happens now.
    pub(crate) fn plan(&self, happening: Happening) {
        self.around.due.set(Some((happening.call, Due::Begins(happening.event, happening.which))));
        if happening.call == 0 {
            self.happen(false);
        }
    }

    /// Counts down to what is due, and lets it happen.
    pub(crate) fn happen(&self, in_call: bool) {
        match self.around.due.take() {
            Some((0, Due::Begins(event, which))) => self.begin(event, which, in_call),
            Some((0, Due::Ends)) => {
                let disk = self.around.changed.get().expect("something began");
                self.sim.trace(|| format!("  {}: disk {disk} has its length back", self.label));
                self.disks.borrow_mut()[disk].says = None;
                self.around.present.set(None);
            }
            Some((calls, due)) => self.around.due.set(Some((calls - 1, due))),
            None => {}
        }
    }

    fn begin(&self, event: Event, which: u64, in_call: bool) {
        let mut disks = self.disks.borrow_mut();
        let candidates: Vec<_> =
            (0..disks.len()).filter(|&index| disks[index].migrates() != (event == Event::Appears)).collect();
        if candidates.is_empty() {
            return;
        }
        let index = candidates[which as usize % candidates.len()];
        let disk = &mut disks[index];
        self.sim.trace(|| format!("  {}: {event:?}, disk {index}", self.label));
        match event {
            Event::Gone => disk.says = Some(Err(Errno::NO_MEDIUM)),
            Event::Resized(by, calls) => {
                disk.says = Some(Ok(disk.data.len() as i64 + by * 512));
                self.around.due.set(calls.map(|calls| (calls, Due::Ends)));
            }
            Event::Appears => disk.insert(),
            Event::Replaced => disk.replaced = true,
            Event::Unlisted => disk.unlisted = true,
        }
        self.around.changed.set(Some(index));
        self.around.present.set(Some(event));
        if in_call {
            self.sim.saw("in the middle of a call");
        }
        self.sim.saw(if self.is_source() { event.name() } else { "gone at the destination" });
    }

    /// The engine hears a device's length.
    pub(crate) fn notice_length(&self, disk: usize, length: Result<i64, Errno>) {
        if self.around.changed.get() != Some(disk) {
            return;
        }
        let told = match self.around.present.get() {
            Some(Event::Appears) => length.is_ok(),
            Some(event) => event.shows_in_length(),
            None => false,
        };
        if told {
            self.around.tell();
        }
    }

    /// The engine reads. It must look at all devices again after the last read of all, so what lasts it can't miss.
    pub(crate) fn notice_read(&self) {
        let around = &self.around;
        if around.in_last_stage.get() && around.present.get().is_some_and(Event::lasts) {
            around.tell();
        }
    }
}
