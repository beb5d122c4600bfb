// SPDX-License-Identifier: GPL-2.0-only
//! The host's stream and monitor, as the engine's [`Stream`] and [`Monitor`](host::Monitor).

use std::ptr::NonNull;
use std::sync::Arc;

use libc::c_int;

use super::callbacks::released;
use super::checked_tables::{Tables, call, null};
use super::logger::c_text;
use super::pointer::Pointer;
use super::tables::{Monitor, QEMUFile};
use super::tickets::{Parked, park};
use crate::buffers::Buffer;
use crate::error::{Errno, Error};
use crate::host::{self, Stream};

/// The stream of one call.
pub(super) struct CStream {
    file: Pointer<QEMUFile>,
    tables: Arc<Tables>,
}

impl CStream {
    pub(super) fn new(file: *mut QEMUFile, tables: &Arc<Tables>) -> Result<CStream, Error> {
        let file = NonNull::new(file).ok_or_else(|| null("QEMUFile"))?;
        Ok(CStream { file: Pointer(file), tables: Arc::clone(tables) })
    }

    fn f(&self) -> *mut QEMUFile {
        self.file.0.as_ptr()
    }
}

/// A length as C has it. The engine puts and gets a chunk at most, which fits.
fn c_size(bytes: usize) -> c_int {
    c_int::try_from(bytes).expect("a chunk at most")
}

impl Stream for CStream {
    fn identity(&self) -> usize {
        self.f() as usize
    }

    fn put(&mut self, bytes: &[u8]) {
        call!(self.tables.file.put_buffer, self.f(), bytes.as_ptr(), c_size(bytes.len()));
    }

    fn put_owned(&mut self, buffer: Buffer, bytes: usize) -> Result<(), Buffer> {
        if self.tables.file.put_buffer_nocopy.is_none() {
            return Err(buffer);
        }
        let (start, size) = (buffer.as_ptr(), c_size(bytes.min(buffer.len())));
        let ticket = park(Parked::Lent(buffer));
        call!(self.tables.file.put_buffer_nocopy, self.f(), start, size, Some(released), ticket);
        Ok(())
    }

    fn get(&mut self, into: &mut [u8]) -> usize {
        if into.is_empty() {
            return 0;
        }
        let got = call!(self.tables.file.get_buffer, self.f(), into.as_mut_ptr(), c_size(into.len()));
        usize::try_from(got).map_or(0, |got| got.min(into.len()))
    }

    fn is_rate_limited(&mut self) -> bool {
        call!(self.tables.file.rate_limit, self.f()) != 0
    }

    fn rate_limit(&mut self) -> Option<u64> {
        u64::try_from(call!(self.tables.file.get_rate_limit, self.f())).ok().filter(|&limit| limit > 0)
    }

    fn error(&mut self) -> Option<Errno> {
        let error = call!(self.tables.file.has_error, self.f());
        // Some hosts only know that there is one.
        (error != 0).then(|| Errno::from_ret(error.into()).unwrap_or(Errno::IO))
    }

    fn set_error(&mut self, errno: Errno) {
        call!(self.tables.file.set_error, self.f(), errno.ret());
    }

    fn flush(&mut self) {
        if self.tables.file.flush.is_some() {
            call!(self.tables.file.flush, self.f());
        }
    }
}

/// The monitor of one call.
pub(super) struct CMonitor {
    monitor: Pointer<Monitor>,
    tables: Arc<Tables>,
}

impl CMonitor {
    /// `None` where there is nobody to read.
    pub(super) fn new(monitor: *mut Monitor, tables: &Arc<Tables>) -> Option<CMonitor> {
        let monitor = NonNull::new(monitor).filter(|_| tables.monitor.is_some())?;
        Some(CMonitor { monitor: Pointer(monitor), tables: Arc::clone(tables) })
    }
}

impl host::Monitor for CMonitor {
    fn print(&self, text: &str) {
        if let Some(table) = &self.tables.monitor {
            let text = c_text(text);
            call!(table.printf, self.monitor.0.as_ptr(), c"%s".as_ptr(), text.as_ptr());
        }
    }

    fn flush(&self) {
        if let Some(table) = &self.tables.monitor {
            call!(table.flush, self.monitor.0.as_ptr());
        }
    }
}
