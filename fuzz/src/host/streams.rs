// SPDX-License-Identifier: GPL-2.0-only
//! Both ends of a stream, and the source's monitor.

use std::ops::Range;
use std::rc::Rc;

use blkmig::buffers::Buffer;
use blkmig::error::Errno;
use blkmig::host::{Monitor, Stream};

use super::World;

/// The source's end of a stream: keeps all that is put into it.
pub(crate) struct OutStream {
    world: Rc<World>,
    pub(crate) identity: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) failed: Option<Errno>,
    /// Bytes a step, and those of this step.
    pub(crate) limit: Option<u64>,
    step_bytes: u64,
    /// Buffers that it has not given back, and where in the stream their content is.
    lent: Vec<(Buffer, Range<usize>)>,
}

impl OutStream {
    pub(crate) fn new(world: &Rc<World>, identity: usize, limit: Option<u64>) -> OutStream {
        let world = Rc::clone(world);
        OutStream { world, identity, bytes: Vec::new(), failed: None, limit, step_bytes: 0, lent: Vec::new() }
    }

    /// A step of the host's begins: the stream has sent some of what it was lent, and takes more.
    pub(crate) fn next_step(&mut self, give_back: usize) {
        self.step_bytes = 0;
        for (buffer, sent) in self.lent.drain(..give_back.min(self.lent.len())) {
            assert!(buffer[..sent.len()] == self.bytes[sent], "a buffer has changed while the stream had it");
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.step_bytes += bytes.len() as u64;
        if self.failed.is_none() {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

impl Stream for OutStream {
    fn identity(&self) -> usize {
        self.identity
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.world.enter("put").is_some() {
            self.failed.get_or_insert(self.world.fatal(Errno::IO));
        }
        self.append(bytes);
    }

    fn put_owned(&mut self, buffer: Buffer, bytes: usize) -> Result<(), Buffer> {
        if self.world.enter("put_owned").is_some() || !self.world.features.owned {
            return Err(buffer);
        }
        if self.failed.is_none() {
            self.append(&buffer[..bytes]);
            let at = self.bytes.len() - bytes;
            self.lent.push((buffer, at..at + bytes));
        }
        Ok(())
    }

    fn get(&mut self, _: &mut [u8]) -> usize {
        panic!("the source reads its stream");
    }

    fn is_rate_limited(&mut self) -> bool {
        let fault = self.world.enter("is_rate_limited").is_some();
        fault || self.limit.is_some_and(|limit| self.step_bytes >= limit)
    }

    fn rate_limit(&mut self) -> Option<u64> {
        if self.world.enter("rate_limit").is_some() { Some(0) } else { self.limit }
    }

    fn error(&mut self) -> Option<Errno> {
        if self.world.enter("error").is_some() {
            self.failed.get_or_insert(self.world.fatal(Errno::IO));
        }
        self.failed
    }

    fn set_error(&mut self, errno: Errno) {
        self.world.enter("set_error");
        self.failed.get_or_insert(errno);
    }

    fn flush(&mut self) {
        self.world.enter("stream_flush");
        // The engine is about to block: another thread gets its turn.
        self.world.complete(1);
    }
}

/// The destination's end: bytes that may be cut at some point, with an error or without.
pub(crate) struct InStream<'a> {
    world: Rc<World>,
    pub(crate) identity: usize,
    left: &'a [u8],
    fails_at_end: bool,
    pub(crate) failed: Option<Errno>,
}

impl<'a> InStream<'a> {
    pub(crate) fn new(world: &Rc<World>, identity: usize, bytes: &'a [u8], fails_at_end: bool) -> InStream<'a> {
        InStream { world: Rc::clone(world), identity, left: bytes, fails_at_end, failed: None }
    }

    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }
}

impl Stream for InStream<'_> {
    fn identity(&self) -> usize {
        self.identity
    }

    fn put(&mut self, _: &[u8]) {
        panic!("the destination writes to its stream");
    }

    fn get(&mut self, into: &mut [u8]) -> usize {
        self.world.enter("get");
        let (now, later) = self.left.split_at(into.len().min(self.left.len()));
        self.left = later;
        into.fill(0xdd);
        into[..now.len()].copy_from_slice(now);
        if self.fails_at_end && now.len() < into.len() {
            self.failed = Some(Errno::IO);
        }
        now.len()
    }

    fn is_rate_limited(&mut self) -> bool {
        false
    }

    fn rate_limit(&mut self) -> Option<u64> {
        None
    }

    fn error(&mut self) -> Option<Errno> {
        self.failed
    }

    fn set_error(&mut self, errno: Errno) {
        self.failed.get_or_insert(errno);
    }
}

pub(crate) struct SmallMonitor(pub(crate) Rc<World>);

impl Monitor for SmallMonitor {
    fn print(&self, _: &str) {
        self.0.enter("print");
    }

    fn flush(&self) {
        self.0.enter("monitor_flush");
    }
}
