// SPDX-License-Identifier: GPL-2.0-only
//! Calls of the host's that are out of place: they are refused as the header says, and change nothing.

use std::rc::Rc;

use blkmig::buffers::Buffer;
use blkmig::call::CallContext;
use blkmig::error::{Errno, Error};
use blkmig::host::Stream;

use super::Sabotage;
use super::host::SimHost;
use super::run::Run;
use super::stream::OutStream;

/// A stream of which nothing is to be used but its error.
#[derive(Default)]
pub(crate) struct StrayStream {
    pub(crate) identity: usize,
    /// Bytes that were put all the same.
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

    fn put_owned(&mut self, buffer: Buffer) -> Result<(), Buffer> {
        self.put += buffer.len();
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
    /// The host calls a stage that is out of turn, or on another stream: it must be refused. Returns the error, if the host is
    /// of the style that gets one.
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
            self.wrong(format!(
                "stage {stage} was out of turn or on another stream, but: {taken}, {put} bytes, {failed:?}"
            ));
        }
        if instance.last_error().is_empty() {
            self.wrong("refused without a word");
        }
        error
    }

    /// A stage 2 or 3.
    fn late_stage(&self) -> i32 {
        self.sim.rng.pick(&[2, 3])
    }

    /// No migration runs, but one may have failed, or have been left alone.
    pub(crate) fn disturb_before(&self) {
        if self.sim.rng.chance(100) {
            self.refused(self.late_stage(), usize::MAX);
        }
    }

    /// Calls that are out of place while a migration runs: they are refused, and it goes on.
    pub(crate) fn disturb(&self, stream: &OutStream) {
        let (rng, instance) = (&self.sim.rng, &self.source_instance);
        let identity = if self.sim.sabotage == Some(Sabotage::OneIdentity) { stream.identity } else { usize::MAX };
        match rng.below(5) {
            0 => {
                let mut stray = StrayStream::default();
                let busy = instance.setup(&mut CallContext { stream: &mut stray, monitor: None });
                if busy != Err(Error::Busy) || stray.put > 0 {
                    self.wrong(format!("a second setup gave {busy:?}"));
                }
            }
            1 => {
                let options = instance.set_options(self.scenario.options);
                let host = instance.set_host(SimHost(Rc::clone(&self.source)));
                if !matches!((options, host), (Err(Error::Busy), Err(Error::Busy))) {
                    self.wrong("other options or another host in the middle of a migration");
                }
            }
            // For the next one.
            2 => instance.set_params(rng.chance(500), rng.chance(500)),
            3 if self.scenario.stages => drop(self.refused(rng.pick(&[0, 4, i32::MAX]), usize::MAX)),
            _ => {
                let error = self.refused(self.late_stage(), identity);
                if !self.scenario.stages && error != Some(Error::OtherStream) {
                    self.wrong(format!("another stream gave {error:?}"));
                }
            }
        }
    }

    /// The migration has failed, and stays so whatever the host does, until it cleans up or sets up anew.
    pub(crate) fn disturb_failed(&self, stream: &OutStream) {
        if self.sim.rng.chance(300) {
            self.source_instance.set_params(false, false);
            let error = self.refused(self.late_stage(), stream.identity);
            if error.is_some_and(|error| error.to_string() != self.errors[0]) {
                self.wrong("it has failed, and now for another reason");
            }
        }
    }

    /// The migration is over, and nothing is left of it.
    pub(crate) fn disturb_after(&self, stream: &OutStream) {
        if self.sim.rng.chance(300) {
            self.source_instance.set_params(true, false);
            let error = self.refused(self.late_stage(), stream.identity);
            if !self.scenario.stages && error != Some(Error::NotRunning) {
                self.wrong(format!("it is over, but a stage gave {error:?}"));
            }
            self.source_instance.cleanup(None);
        }
    }
}
