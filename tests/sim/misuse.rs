// SPDX-License-Identifier: GPL-2.0-only
//! Calls of the host that are out of turn: the engine must refuse them as the header says, and they change nothing.

use std::rc::Rc;

use blkmig::buffers::Buffer;
use blkmig::call::CallContext;
use blkmig::error::{Errno, Error};
use blkmig::host::Stream;

use super::HostDefect;
use super::host::SimHost;
use super::run::Run;
use super::stream::OutStream;

/// A stream that the engine must not use, except to set its error.
#[derive(Default)]
pub(crate) struct StrayStream {
    pub(crate) identity: usize,
    /// Bytes that were put in spite of that.
    pub(crate) put: usize,
    pub(crate) failed: Option<Errno>,
}

impl Stream for StrayStream {
    fn identity(&self) -> usize {
        self.identity
    }

    fn put(&mut self, bytes: &[u8]) {
        self.put += bytes.len();
    }

    fn put_owned(&mut self, _buffer: Buffer, bytes: usize) -> Result<(), Buffer> {
        self.put += bytes;
        Ok(())
    }

    fn get(&mut self, _into: &mut [u8]) -> usize {
        0
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
        self.failed = Some(errno);
    }
}

impl Run {
    /// Calls a stage out of turn or on another stream, which must be refused. Returns the error if this host uses the
    /// phase functions, which return one.
    fn refused(&self, stage: i32, identity: usize) -> Option<Error> {
        let mut stray = StrayStream { identity, ..StrayStream::default() };
        let context = &mut CallContext { stream: &mut stray, monitor: None };
        let instance = &self.source_instance;
        let (taken, error) = if self.scenario.stages {
            (instance.save_live(context, stage) != 0, None)
        } else {
            let result = if stage == 2 { instance.iterate(context).map(drop) } else { instance.complete(context) };
            (result.is_ok(), result.err())
        };
        if taken || stray.put > 0 || (self.scenario.stages && stray.failed.is_none()) {
            let (put, failed) = (stray.put, stray.failed);
            self.violation(format!(
                "stage {stage} was out of turn or on another stream, but: {taken}, {put} bytes, {failed:?}"
            ));
        }
        if instance.last_error().is_empty() {
            self.violation("a call was refused without an error text");
        }
        error
    }

    /// Stage 2 or 3.
    fn late_stage(&self) -> i32 {
        self.sim.rng.pick(&[2, 3])
    }

    /// Before setup: no migration runs, but an earlier one may have failed or been abandoned.
    pub(crate) fn misuse_before(&self) {
        if self.sim.rng.chance(100) {
            self.refused(self.late_stage(), usize::MAX);
        }
    }

    /// While a migration runs: calls out of turn are refused, and the migration continues.
    pub(crate) fn misuse(&self, stream: &OutStream) {
        let (rng, instance) = (&self.sim.rng, &self.source_instance);
        let identity = if self.sim.defect == Some(HostDefect::OneIdentity) { stream.identity } else { usize::MAX };
        match rng.below(5) {
            0 => {
                let mut stray = StrayStream::default();
                let busy = instance.setup(&mut CallContext { stream: &mut stray, monitor: None });
                if busy != Err(Error::Busy) || stray.put > 0 {
                    self.violation(format!("a second setup gave {busy:?}"));
                }
            }
            1 => {
                let options = instance.set_options(self.scenario.options);
                let host = instance.set_host(SimHost(Rc::clone(&self.source)));
                if !matches!((options, host), (Err(Error::Busy), Err(Error::Busy))) {
                    self.violation("other options or another host in the middle of a migration");
                }
            }
            // This applies to the next migration only.
            2 => instance.set_params(rng.chance(500), rng.chance(500)),
            3 if self.scenario.stages => drop(self.refused(rng.pick(&[0, 4, i32::MAX]), usize::MAX)),
            _ => {
                let error = self.refused(self.late_stage(), identity);
                if !self.scenario.stages && error != Some(Error::OtherStream) {
                    self.violation(format!("another stream gave {error:?}"));
                }
            }
        }
    }

    /// A failed migration stays failed, whatever the host calls, until cleanup or setup.
    pub(crate) fn misuse_after_failure(&self, stream: &OutStream) {
        if self.sim.rng.chance(300) {
            self.source_instance.set_params(false, false);
            let error = self.refused(self.late_stage(), stream.identity);
            if error.is_some_and(|error| error.to_string() != self.errors[0]) {
                self.violation("a failed migration now gives another error");
            }
        }
    }

    /// After the end: stages are refused.
    pub(crate) fn misuse_after_end(&self, stream: &OutStream) {
        if self.sim.rng.chance(300) {
            self.source_instance.set_params(true, false);
            let error = self.refused(self.late_stage(), stream.identity);
            if !self.scenario.stages && error != Some(Error::NotRunning) {
                self.violation(format!("the migration is over, but a stage gave {error:?}"));
            }
            self.source_instance.cleanup(None);
        }
    }
}
