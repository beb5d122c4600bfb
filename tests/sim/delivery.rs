// SPDX-License-Identifier: GPL-2.0-only
//! The destination's side: sections arrive and are loaded, also from an older source or onto a shorter disk.

use std::panic::{AssertUnwindSafe, catch_unwind};

use blkmig::error::Error;

use super::run::Run;
use super::scenario::Mismatch;
use super::stream::InStream;

impl Run {
    /// Takes a section from the source and puts it on the link.
    pub(crate) fn send(&mut self, mut section: Vec<u8>) {
        if self.scenario.tail_garbage {
            for padding in self.model.paddings(&section) {
                self.garbage_sent = true;
                self.sim.cover("garbage in a tail");
                section[padding].fill(0x77);
            }
        }
        self.queue.push_back(section);
    }

    /// Gives at most this many sections to the destination.
    pub(crate) fn deliver(&mut self, most: usize) {
        for _ in 0..most {
            let Some(section) = self.queue.pop_front() else { return };
            if !self.destination_failed {
                self.load(&section, true);
            }
        }
    }

    /// Loads a section, which may be cut short.
    pub(crate) fn load(&mut self, section: &[u8], whole: bool) {
        self.sim.trace(|| format!("LOAD {} bytes", section.len()));
        let mut stream = InStream::new(&self.destination, section);
        let result = catch_unwind(AssertUnwindSafe(|| self.destination_instance.load(&mut stream, 1)));
        match result {
            Err(_) => self.violation("a panic escaped from the destination"),
            Ok(Ok(())) => {
                let end: &[u8] = if self.scenario.extended() { &[8, 16] } else { &[0, 2] };
                let header = if self.scenario.extended() { 48 } else { 8 };
                if stream.left() > 0
                    || section.len() < header
                    || !section[section.len() - header + 6..].starts_with(end)
                {
                    self.violation("a load says Ok, but has not read the whole section");
                }
                if stream.failed.is_some() && !self.sim.fault_was_injected() {
                    self.violation("a load says Ok, but the stream has failed");
                }
                if self.destination.events.must_have_failed(None) {
                    self.violation("a load succeeded although the host has told the engine of a reason to fail");
                }
            }
            Ok(Err(error)) => {
                self.sim.trace(|| format!("load failed: {error:?}"));
                self.destination_failed = true;
                self.errors[1] = error.to_string();
                if self.destination_instance.last_error() != error.to_string() {
                    self.violation("a load's error is not the last error");
                }
                if whole && !self.sim.fault_was_injected() {
                    self.check_load_error(&error);
                }
            }
        }
        self.destination_failed |= stream.failed.is_some();
        self.check_idle(&self.destination, "after a load");
        self.check_memory();
    }

    /// A load may fail only for a reason that the scenario planned, and its error names the device.
    fn check_load_error(&self, error: &Error) {
        let text = error.to_string();
        if let Error::TooShort { length, source_length, .. } = error {
            let expected = self.garbage_sent || self.scenario.mismatch == Some(Mismatch::Tail);
            let chunk = u64::from(self.scenario.chunk_sectors) * 512;
            let disks = self.destination.disks.borrow();
            let named = disks
                .iter()
                .any(|disk| disk.data.len() as u64 == *length && text.contains(&*String::from_utf8_lossy(&disk.name)));
            let sound = (length + 1..=length.next_multiple_of(chunk)).contains(source_length);
            if !expected || !named || !sound || self.scenario.options.accept_tail_garbage {
                self.violation(format!("a load failed: {text}"));
            }
            return;
        }
        let gone = self.destination.events.changed().map(|disk| self.destination.disks.borrow()[disk].name.clone());
        let names = [gone, self.mismatched.clone()];
        if !names.iter().flatten().any(|name| text.contains(&*String::from_utf8_lossy(name))) {
            self.violation(format!("a load failed, though nothing went wrong, or without the device's name: {text}"));
        }
    }
}
