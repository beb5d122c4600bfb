// SPDX-License-Identifier: GPL-2.0-only
//! The link between the machines, and the source's monitor.

use std::cell::RefCell;
use std::rc::Rc;

use blkmig::buffers::Buffer;
use blkmig::error::Errno;
use blkmig::host::{Monitor, Stream};

use super::machine::Machine;
use super::{Call, HostDefect};

/// The source's end. It keeps what is put until the scenario delivers it.
pub(crate) struct OutStream {
    machine: Rc<Machine>,
    /// Distinguishes it from other streams.
    pub(crate) identity: usize,
    /// What was put since the section began.
    pub(crate) section: Vec<u8>,
    pub(crate) wire_bytes: u64,
    pub(crate) failed: Option<Errno>,
    /// The rate limit, in bytes for each step.
    pub(crate) limit: Option<u64>,
    /// The link accepts nothing at the moment.
    pub(crate) frozen: bool,
    step_bytes: u64,
    /// Lent buffers that are not released yet, and their content when they were lent.
    lent: Vec<(Buffer, Vec<u8>)>,
}

impl OutStream {
    pub(crate) fn new(machine: &Rc<Machine>, limit: Option<u64>) -> OutStream {
        OutStream {
            machine: Rc::clone(machine),
            identity: 0,
            section: Vec::new(),
            wire_bytes: 0,
            failed: None,
            limit,
            frozen: false,
            step_bytes: 0,
            lent: Vec::new(),
        }
    }

    /// The host's next step: the rate limit starts again, and some lent buffers have been sent.
    pub(crate) fn next_step(&mut self) {
        self.step_bytes = 0;
        self.release_some(500);
    }

    fn release_some(&mut self, per_mille: u64) {
        let machine = Rc::clone(&self.machine);
        self.lent.retain(|(buffer, content)| {
            let keep = !machine.sim.rng.chance(per_mille);
            if !keep && buffer[..content.len()] != content[..] {
                machine.violation("a buffer has changed while the stream had it");
            }
            keep
        });
    }

    /// The host closes the stream, which releases all buffers.
    pub(crate) fn close(&mut self) {
        self.release_some(1000);
    }

    fn append(&mut self, bytes: &[u8]) {
        let from = self.section.len();
        self.section.extend_from_slice(bytes);
        self.step_bytes += bytes.len() as u64;
        self.wire_bytes += bytes.len() as u64;
        if bytes.len() >= 512 && self.machine.sim.shows_defect(HostDefect::CorruptsStream) {
            self.section[from..].fill(0);
        }
    }
}

impl Stream for OutStream {
    fn identity(&self) -> usize {
        self.identity
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.machine.enter(Call::Put) {
            self.failed.get_or_insert(Errno::from_ret(-32).expect("EPIPE"));
        }
        if self.failed.is_none() {
            self.append(bytes);
        }
        self.machine.sim.leave(Call::Put);
    }

    fn put_owned(&mut self, buffer: Buffer, bytes: usize) -> Result<(), Buffer> {
        if self.machine.enter(Call::PutOwned) || !self.machine.features.owned_buffers {
            return Err(buffer);
        }
        if self.failed.is_none() {
            let content = buffer[..bytes].to_vec();
            self.append(&content);
            if self.machine.sim.shows_defect(HostDefect::KeepsBuffer) {
                std::mem::forget(buffer);
            } else {
                self.lent.push((buffer, content));
                self.release_some(200);
            }
        }
        Ok(())
    }

    fn get(&mut self, _into: &mut [u8]) -> usize {
        self.machine.violation("the source reads its stream");
        0
    }

    fn is_rate_limited(&mut self) -> bool {
        let fails = self.machine.enter(Call::IsRateLimited);
        fails || self.frozen || self.limit.is_some_and(|limit| self.step_bytes >= limit)
    }

    fn rate_limit(&mut self) -> Option<u64> {
        if self.machine.enter(Call::RateLimit) { Some(0) } else { self.limit }
    }

    fn error(&mut self) -> Option<Errno> {
        if self.machine.enter(Call::Error) {
            self.failed.get_or_insert(Errno::IO);
        }
        self.failed
    }

    fn set_error(&mut self, errno: Errno) {
        self.machine.enter(Call::SetError);
        self.failed.get_or_insert(errno);
    }

    fn flush(&mut self) {
        // The engine is about to block, so on a threaded host another thread runs now.
        if self.machine.features.threaded {
            self.machine.complete_some(1 + self.machine.sim.rng.index(4));
        }
        if self.machine.enter(Call::StreamFlush) {
            self.failed.get_or_insert(Errno::IO);
        }
    }
}

/// The destination's end: one section, which may be cut short.
pub(crate) struct InStream<'a> {
    machine: Rc<Machine>,
    bytes: &'a [u8],
    pub(crate) failed: Option<Errno>,
}

impl<'a> InStream<'a> {
    pub(crate) fn new(machine: &Rc<Machine>, bytes: &'a [u8]) -> InStream<'a> {
        InStream { machine: Rc::clone(machine), bytes, failed: None }
    }

    /// What was not read.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }
}

impl Stream for InStream<'_> {
    fn put(&mut self, _bytes: &[u8]) {
        self.machine.violation("the destination writes to its stream");
    }

    fn put_owned(&mut self, _buffer: Buffer, _bytes: usize) -> Result<(), Buffer> {
        self.machine.violation("the destination writes to its stream");
        Ok(())
    }

    fn get(&mut self, into: &mut [u8]) -> usize {
        if self.machine.enter(Call::Get) {
            // The peer is gone. Nothing more arrives, with or without an error.
            self.bytes = &self.bytes[..self.bytes.len().min(self.machine.sim.rng.index(into.len()))];
            if self.machine.sim.rng.chance(500) {
                self.failed = Some(Errno::IO);
            }
        }
        let got = into.len().min(self.bytes.len());
        into[..got].copy_from_slice(&self.bytes[..got]);
        into[got..].fill(0xdd);
        self.bytes = &self.bytes[got..];
        got
    }

    fn is_rate_limited(&mut self) -> bool {
        false
    }

    fn rate_limit(&mut self) -> Option<u64> {
        None
    }

    fn error(&mut self) -> Option<Errno> {
        if self.machine.enter(Call::Error) {
            self.failed.get_or_insert(Errno::IO);
        }
        self.failed
    }

    fn set_error(&mut self, errno: Errno) {
        self.machine.enter(Call::SetError);
        self.failed.get_or_insert(errno);
    }
}

/// A monitor that keeps what is printed.
pub(crate) struct SimMonitor {
    machine: Rc<Machine>,
    pub(crate) text: RefCell<String>,
}

impl SimMonitor {
    pub(crate) fn new(machine: &Rc<Machine>) -> SimMonitor {
        SimMonitor { machine: Rc::clone(machine), text: RefCell::default() }
    }
}

impl Monitor for SimMonitor {
    fn print(&self, text: &str) {
        self.machine.enter(Call::Print);
        self.text.borrow_mut().push_str(text);
    }

    fn flush(&self) {
        self.machine.enter(Call::MonitorFlush);
    }
}
