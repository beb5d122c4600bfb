// SPDX-License-Identifier: GPL-2.0-only
//! The `log` crate's records, sent to the host.

use std::ffi::CString;

use libc::{c_char, c_int};
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

use super::tables::BlkMigSystemOps;

type LogFn = unsafe extern "C" fn(level: c_int, message: *const c_char);
type ReportFn = unsafe extern "C" fn(fmt: *const c_char, ...);

/// The host's callbacks, each of which may be missing.
static CALLBACKS: Mutex<(Option<LogFn>, Option<ReportFn>)> = Mutex::new((None, None));

/// Sends what the module has to say to this host from now on.
pub(super) fn send_to(system: &BlkMigSystemOps) {
    *CALLBACKS.lock() = (system.log, system.error_report);
    // In a Rust program that has a logger of its own, that one gets the records.
    if log::set_logger(&HostLog).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

/// Text for C; a NUL in it would end it early.
pub(super) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

struct HostLog;

impl Log for HostLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.target().starts_with(env!("CARGO_PKG_NAME"))
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (log, report) = *CALLBACKS.lock();
        let level = record.level();
        let text = c_text(&record.args().to_string());
        if let Some(log) = log {
            // SAFETY: the host has given a function of this type; the text ends with a NUL and outlives the call.
            unsafe { log(level as c_int, text.as_ptr()) };
        }
        // Errors are the user's business in any case, other news only where there is no log for them.
        let report = report.filter(|_| level == Level::Error || (log.is_none() && level <= Level::Info));
        if let Some(report) = report {
            // SAFETY: as above; the format takes just this one string.
            unsafe { report(c"%s".as_ptr(), text.as_ptr()) };
        }
    }

    fn flush(&self) {}
}
