// SPDX-License-Identifier: GPL-2.0-only
//! What a host's call brings with it.
#![forbid(unsafe_code)]

use crate::error::Error;
use crate::host::{Monitor, Stream};

/// The stream of a call, and the monitor if there is one.
pub struct CallContext<'a> {
    /// The stream.
    pub stream: &'a mut dyn Stream,
    /// Where the host's user reads.
    pub monitor: Option<&'a dyn Monitor>,
}

impl CallContext<'_> {
    /// Prints on the monitor.
    pub(crate) fn print(&self, text: &str) {
        if let Some(monitor) = self.monitor {
            monitor.print(text);
        }
    }

    /// Fails if the stream has failed.
    pub(crate) fn check_stream(&mut self) -> Result<(), Error> {
        self.stream.error().map_or(Ok(()), |errno| Err(Error::Stream(errno)))
    }
}
