// SPDX-License-Identifier: GPL-2.0-only
//! What must be so after each call.

use blkmig::error::Error;

use super::config::migrates;
use super::peer::Peer;
use super::{Source, State};
use crate::host::{NEVER, SECTOR};

const END: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 2];

/// What there was before a call.
pub(super) struct Before {
    bytes: usize,
    stream_failed: bool,
    faults: u64,
}

/// A call's result; the error is not known where it comes through the stream.
type Outcome = Result<(), Option<Error>>;

impl Source {
    /// Notes what is before a call, which may start a migration.
    pub(super) fn before(&mut self, stream: usize, starts: bool) -> Before {
        if starts {
            self.faults_before = self.world.faults.get();
            self.disguises_before = self.world.disguises.get();
            self.changed = false;
            let differs = |length: i64, is: usize| length > 0 && length != is as i64;
            // One that can't start, but for a fault, is no migration that the destination is made for.
            self.lied = !self.can_start();
            self.lied |=
                self.world.disks.borrow().iter().any(|disk| {
                    disk.says.is_some_and(|says| says.is_ok_and(|length| differs(length, disk.data.len())))
                });
            self.peer = Peer::new(&self.world, self.peer_features, self.params.is_some_and(|(_, shared)| shared));
            self.world.hid_dirty.set(false);
            self.world.max_requests.set(self.options.max_reads as usize);
        }
        let stream = &self.streams[stream];
        Before { bytes: stream.bytes.len(), stream_failed: stream.failed.is_some(), faults: self.world.faults.get() }
    }

    /// How many faults this migration has met.
    fn faults(&self) -> u64 {
        self.world.faults.get() - self.faults_before
    }

    /// Whether the source knows its disks: what it was told wrong at setup is noticed later, unless another lie or a
    /// change makes it true.
    fn is_reliable(&self) -> bool {
        !self.lied && self.world.disguises.get() - self.disguises_before + u64::from(self.changed) < 2
    }

    /// Whether a step has nothing to fail over.
    fn is_undisturbed(&self, before: &Before) -> bool {
        self.faults() == 0 && !self.changed && !self.lied && !before.stream_failed
    }

    pub(super) fn check_empty_section(&self, stream: usize, before: &Before, well: bool) {
        let stream = &self.streams[stream];
        let failed = before.stream_failed || self.world.faults.get() > before.faults;
        assert!(well || failed, "an empty section was not written");
        assert!(!well || stream.bytes[before.bytes..] == END, "a section without disks is not empty");
    }

    pub(super) fn after_setup(&mut self, stream: usize, before: &Before, outcome: Outcome) {
        let good = self.can_start();
        assert!(outcome.is_err() || good || self.faults() > 0, "a migration was set up that can't be");
        assert!(outcome.is_ok() || !good || !self.is_undisturbed(before), "setup failed: {outcome:?}");
        self.state = State::Running(stream);
        self.end_step(stream, before, outcome);
    }

    /// Whether setup can take all disks in, or leave them out, as they are now.
    fn can_start(&self) -> bool {
        let disks = self.world.disks.borrow();
        let taken: Vec<_> = disks.iter().filter(|disk| migrates(disk) != Ok(false)).collect();
        let good = taken.iter().all(|disk| migrates(disk).is_ok());
        good && (1..taken.len()).all(|index| taken[..index].iter().all(|other| other.name != taken[index].name))
    }

    pub(super) fn after_step(&mut self, stream: usize, before: &Before, outcome: Outcome) {
        let known = self.is_undisturbed(before) || outcome.is_err();
        assert!(outcome.is_ok() || !self.is_undisturbed(before), "a step failed: {outcome:?}");
        self.end_step(stream, before, outcome);
        if known && self.state == State::Running(stream) {
            let active = self.world.disks.borrow().iter().any(|disk| disk.tracking);
            let status = self.instance.status();
            assert_eq!(status.is_active(), active);
        }
    }

    pub(super) fn after_complete(&mut self, stream: usize, before: &Before, outcome: Outcome) {
        assert!(outcome.is_ok() || !self.is_undisturbed(before), "the last stage failed: {outcome:?}");
        let well = outcome.is_ok();
        self.end_step(stream, before, outcome);
        if well {
            self.state = State::Idle;
            self.check_given_back();
            self.check_completed();
        }
    }

    /// A call that worked on the migration has ended: its section goes to the destination, or the migration is over.
    fn end_step(&mut self, stream: usize, before: &Before, outcome: Outcome) {
        if let Err(error) = outcome {
            assert!(self.streams[stream].failed.is_some(), "the stream was not told");
            let text = self.instance.last_error();
            assert!(!text.is_empty() && error.as_ref().is_none_or(|error| error.to_string() == text));
            self.state = State::Failed(error);
            self.check_given_back();
            return;
        }
        let out = &self.streams[stream];
        assert!(out.failed.is_none(), "a step is well on a stream that has failed");
        assert_eq!(self.instance.last_error(), "");
        let loaded = self.peer.load(&out.bytes[before.bytes..]);
        // The table of the extended stream says what the source was told at setup, before it is noticed.
        let mistold = self.is_extended() && self.world.disguises.get() > self.disguises_before;
        assert!(loaded.is_ok() || mistold || !self.is_reliable(), "the destination can't read it: {loaded:?}");
    }

    /// "Completed" was said: every byte is there.
    fn check_completed(&self) {
        if self.world.hid_dirty.get() || !self.is_reliable() {
            return;
        }
        for (index, disk) in self.world.disks.borrow().iter().enumerate() {
            if migrates(disk) != Ok(true) {
                continue;
            }
            let missing = (0..disk.sectors()).find(|&sector| !self.peer.has(index, disk, sector));
            assert_eq!(missing, None, "completed, but disk {index} lacks this sector");
        }
    }

    /// Nothing of the host's is kept when nothing runs.
    pub(super) fn check_given_back(&self) {
        for disk in self.world.disks.borrow().iter() {
            assert!(!disk.tracking, "writes are still tracked");
            assert_eq!(disk.held, 0, "a reference was not given back");
        }
        assert!(self.world.requests() == 0 || self.world.lost_requests.get(), "reads are in flight");
        assert!(!self.instance.status().is_active());
    }

    pub(super) fn check_always(&self) {
        let (total, transferred) = self.instance.status().bytes();
        assert!(transferred <= total);
        if !self.is_running() {
            self.check_given_back();
        }
    }

    pub(super) fn ask_pending(&mut self, threshold: u64) {
        let outer = Self::in_use_if(self.is_running());
        let (writes, late) = (self.world.writes.get(), self.world.late_bits.borrow().to_vec());
        let pending = self.call(outer, 0, |instance, _| instance.pending());
        let switchover = self.call(outer, 0, |instance, _| instance.pending_switchover(threshold));
        if !self.is_running() {
            assert_eq!((pending, switchover), (0, 0));
        } else if self.faults() == 0 && !self.lied {
            assert!(pending <= self.instance.status().bytes().0, "more remains than there is");
            let guest_wrote = self.world.writes.get() > writes;
            assert!(guest_wrote || pending >= self.lacking(&late), "less remains than the destination lacks");
        }
    }

    fn is_extended(&self) -> bool {
        self.options.stream == 2
    }

    /// The bytes that the destination lacks, but for those that the guest makes dirty later: in units of dirty tracking
    /// if the stream can carry them, else in chunks.
    fn lacking(&self, late: &[(u64, usize, u64)]) -> u64 {
        let unit = self.world.features.unit();
        let piece = if self.is_extended() { unit } else { self.world.features.chunk };
        let mut bytes = 0;
        for (index, disk) in self.world.disks.borrow().iter().enumerate().filter(|(_, disk)| disk.tracking) {
            for start in (0..disk.sectors()).step_by(piece as usize) {
                let end = (start + piece).min(disk.sectors());
                let known = !late.iter().any(|(_, at, late)| *at == index && (start..end).contains(&(late * unit)));
                if known && (start..end).any(|sector| !self.peer.has(index, disk, sector)) {
                    bytes += (end - start) * SECTOR as u64;
                }
            }
        }
        bytes
    }

    /// The host is well from now on: what runs ends, and so does another migration.
    pub(super) fn end_well(&mut self) {
        self.world.events.borrow_mut().clear();
        for disk in self.world.disks.borrow_mut().iter_mut() {
            self.changed |= disk.says.is_some() || disk.gone || disk.unlisted;
            (disk.says, disk.gone, disk.unlisted) = (None, false, false);
        }
        if let State::Running(stream) = self.state {
            self.converge(stream);
            self.complete(stream);
        }
        self.cleanup();
        self.world.complete(usize::MAX);
        self.world.lost_requests.set(false);
        self.set_params(true, self.params.is_some_and(|(_, shared)| shared));
        self.set_up_instance(0);
        self.open(0);
        self.setup(0);
        if self.state == State::Running(0) {
            self.guest_writes_over_all();
            self.converge(0);
            self.complete(0);
        }
        assert!(!self.can_start() || self.state == State::Idle, "the last migration has failed");
    }

    /// A write to each disk that is sent already, or not yet.
    fn guest_writes_over_all(&self) {
        let disks = self.world.disks.borrow().len();
        for disk in 0..disks {
            self.world.guest_writes(disk, 0, 1, 0);
        }
    }

    /// Steps until nothing remains, which must come if nothing disturbs them.
    fn converge(&mut self, stream: usize) {
        self.world.set_late_bits(NEVER - 1);
        self.streams[stream].limit = None;
        let all: u64 = self.world.disks.borrow().iter().map(crate::host::Disk::sectors).sum();
        for _ in 0..4 * all + 10 {
            self.world.complete(usize::MAX);
            self.streams[stream].next_step(usize::MAX);
            self.iterate(stream);
            if !self.is_running() || self.instance.pending() == 0 {
                return;
            }
        }
        panic!("steps without end: {} bytes remain", self.instance.pending());
    }

    pub(super) fn end(mut self) {
        self.cleanup();
        self.streams.iter_mut().for_each(|stream| stream.next_step(usize::MAX));
        self.world.complete(usize::MAX);
        let status = self.instance.status();
        assert_eq!((status.buffers().0, status.reads_in_flight()), (0, 0), "buffers were not given back");
    }
}
