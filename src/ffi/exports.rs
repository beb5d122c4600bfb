// SPDX-License-Identifier: GPL-2.0-only
//! What C calls. Every function goes the same way: check the pointers, catch panics, one call into the
//! instance, map the result. Their comments are the header's text, in which Rust's heading "Safety" would
//! mean nothing.
#![allow(clippy::missing_safety_doc)]

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use libc::{c_char, c_int, c_void};

use super::checked_tables::{CStruct, Tables, invalid, null, read_struct, struct_size};
use super::host::CHost;
use super::logger;
use super::stream::{CMonitor, CStream};
use super::tables::{BlkMigHost, BlkMigOptions, BlkMigStats, Monitor, QEMUFile};
use crate::call::CallContext;
use crate::device_name::DeviceName;
use crate::error::{Errno, Error};
use crate::geometry::Geometry;
use crate::host::{self, Stream as _};
use crate::instance::{Instance, panic_text};
use crate::settings::{self, Options, Selection};
use crate::wire::SECTION_VERSION;

/// The one instance.
static INSTANCE: LazyLock<Instance<CHost>> = LazyLock::new(|| Instance::new(Geometry::QEMU));

/// Whether the section is registered with the present host.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Keeps panics from C. The module catches those of the engine itself; what comes as far as here is a bug of
/// this interface.
fn boundary<T>(otherwise: T, call: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => value,
        Err(panic) => {
            let text = panic_text(&*panic);
            let _ = catch_unwind(AssertUnwindSafe(|| INSTANCE.fail(Error::Panic(text))));
            otherwise
        }
    }
}

/// The return value of a call that gives 0 or -errno.
fn ret(result: Result<(), Error>) -> c_int {
    result.map_or_else(|error| error.errno().ret(), |()| 0)
}

/// The host's tables.
fn tables() -> Result<Arc<Tables>, Error> {
    let unset = |_| invalid("no host: blk_mig_set_host has not been called".to_owned());
    INSTANCE.host().map(|host| Arc::clone(&host.0)).map_err(unset)
}

/// Calls the module with a stream and perhaps a monitor of the host's.
///
/// The pointers are NULL or the host's: they are handed back to it and never followed.
fn with_call<T>(
    f: *mut QEMUFile,
    mon: *mut Monitor,
    function: impl FnOnce(&mut CallContext) -> Result<T, Error>,
) -> Result<T, Error> {
    let tables = tables().map_err(|error| INSTANCE.fail(error))?;
    let mut stream = CStream::new(f, &tables).map_err(|error| INSTANCE.fail(error))?;
    let monitor = CMonitor::new(mon, &tables);
    let monitor = monitor.as_ref().map(|monitor| monitor as &dyn host::Monitor);
    let called = catch_unwind(AssertUnwindSafe(|| function(&mut CallContext { stream: &mut stream, monitor })));
    called.unwrap_or_else(|panic| {
        stream.set_error(Errno::IO);
        Err(INSTANCE.fail(Error::Panic(panic_text(&*panic))))
    })
}

/// Sets the host: copies its tables, which may be freed afterwards. Call it before any other function.
///
/// Returns 0; -EINVAL if a table or a required function is missing or wrong (`blk_mig_last_error` names
/// it); -EBUSY while a migration runs. After an error, the host that was set before stays.
///
/// `host` is NULL, which is an error, or points to a `BlkMigHost`, which points to its tables. Each struct
/// must have as many bytes as its `struct_size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blk_mig_set_host(host: *const BlkMigHost) -> c_int {
    boundary(Errno::IO.ret(), || {
        // SAFETY: the caller's promise.
        let tables = match unsafe { Tables::new(host) } {
            Ok(tables) => Arc::new(tables),
            Err(error) => return INSTANCE.fail(error).errno().ret(),
        };
        let result = INSTANCE.set_host(CHost(Arc::clone(&tables)));
        if result.is_ok() {
            logger::send_to(&tables.system);
            REGISTERED.store(false, Relaxed);
        }
        ret(result)
    })
}

/// Registers the section "block" (instance 0, version 1) with the host's `register_savevm_live`.
///
/// If no host has been set, it registers nothing and leaves an error for `blk_mig_last_error`. Calling it
/// twice is harmless.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_init() {
    boundary((), || {
        let tables = match tables() {
            Ok(tables) => tables,
            Err(error) => {
                INSTANCE.fail(error);
                return;
            }
        };
        if REGISTERED.swap(true, Relaxed) {
            INSTANCE.clear_error();
            return;
        }
        let Some(register) = tables.system.register_savevm_live else { return };
        let opaque = (&raw const REGISTERED).cast_mut().cast::<c_void>();
        // SAFETY: the host has given a function of this type; the name is a static string, the callbacks are
        // functions, and nobody follows the opaque pointer, which is static too.
        let registered = unsafe {
            register(
                ptr::null_mut(),
                c"block".as_ptr(),
                0,
                SECTION_VERSION,
                Some(blk_mig_set_params),
                Some(blk_mig_save_live),
                ptr::null_mut(),
                Some(blk_mig_load),
                opaque,
            )
        };
        match Errno::from_ret(registered.into()) {
            Some(errno) => {
                REGISTERED.store(false, Relaxed);
                INSTANCE.fail(Error::Interface { text: format!("register_savevm_live failed: {errno}"), errno });
            }
            None => INSTANCE.clear_error(),
        }
    });
}

/// Returns 1 while this side sends devices, else 0. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_active() -> c_int {
    boundary(0, || INSTANCE.status().is_active().into())
}

/// Returns 1 while the bulk phase runs, else 0. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_bulk_active() -> c_int {
    boundary(0, || INSTANCE.status().is_bulk_active().into())
}

/// Total and transferred bytes, 0 when nothing is active, as it was in the original.
fn active_bytes() -> (u64, u64) {
    boundary((0, 0), || {
        let status = INSTANCE.status();
        if status.is_active() { status.bytes() } else { (0, 0) }
    })
}

/// Returns the number of bytes that have been sent once or need not be sent; 0 when no migration is active.
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_bytes_transferred() -> u64 {
    active_bytes().1
}

/// Returns the number of bytes that have not been sent even once; 0 when no migration is active. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_bytes_remaining() -> u64 {
    let (total, transferred) = active_bytes();
    total - transferred
}

/// Returns the number of bytes of all devices that are migrated; 0 when no migration is active. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_bytes_total() -> u64 {
    active_bytes().0
}

/// Says whether the next migration includes disks (`blk_enable`: 0 or 1), and whether the destination
/// already has their backing files (`shared_base`: 0 or 1; 1 also includes disks). It takes effect at the
/// next setup. `opaque` is not used.
///
/// Until the first call, `blk_mig_save_live` migrates no disks, as in the original, while
/// `blk_mig_save_setup` does. A migration that has failed stays failed until cleanup or the next setup,
/// whatever is set.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_set_params(blk_enable: c_int, shared_base: c_int, opaque: *mut c_void) {
    let _ = opaque;
    boundary((), || INSTANCE.set_params(blk_enable != 0, shared_base != 0));
}

/// The original's callback: a migration in stages, each of which writes one section.
///
/// Stage 1 sets the migration up. Stage 2 sends what the rate limit allows, and is repeated until it returns 1.
/// Stage 3 sends all the rest, with the guest stopped, and ends the migration. A stage below 0 cancels; it is
/// harmless when nothing runs. Stage 1 first cleans up what an earlier migration has left: hosts of the
/// original's time prevent a second migration themselves, and not all of them cancel one whose stream has
/// failed. `mon` may be NULL. `opaque` is not used.
///
/// Returns 1 if the stage is done. For stage 2 this means that the rest can be sent within the host's
/// downtime limit, and that it takes no more than about 10 ms or has stopped shrinking. If no disks are
/// migrated, each of the stages 1 to 3 writes an empty section and returns 1. In all other cases it returns
/// 0, also after an error, which it sets on the stream with `BlkMigFileOps.set_error`: hosts of that time
/// would take any other value for success. An unknown stage, and stage 2 or 3 without stage 1 before it, is
/// such an error, -EINVAL. It returns -EINVAL itself only if `f` is NULL or no host has been set, since no
/// stream can take the error then.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_save_live(mon: *mut Monitor, f: *mut QEMUFile, stage: c_int, opaque: *mut c_void) -> c_int {
    let _ = opaque;
    boundary(0, || {
        if stage < 0 {
            let monitor = tables().ok().and_then(|tables| CMonitor::new(mon, &tables));
            INSTANCE.cleanup(monitor.as_ref().map(|monitor| monitor as &dyn host::Monitor));
            return 0;
        }
        let result = with_call(f, mon, |call| Ok(INSTANCE.save_live(call, stage)));
        result.unwrap_or_else(|error| if matches!(error, Error::Panic(_)) { 0 } else { error.errno().ret() })
    })
}

/// Reads one section and writes what it holds to the devices. When it returns, all writes are done, and
/// they are flushed if the section says 100 %, as the last one does. `opaque` is not used.
///
/// Returns 0 or -errno: -EINVAL for a section that breaks the format, names an unknown device or a sector
/// past the end of one, or holds data past the end of a device (see `accept_tail_garbage`); -EIO or the
/// stream's own error if the section ends too soon; -EROFS for a read-only device; or the block layer's
/// error. Nothing of a record that is wrong is written.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_load(f: *mut QEMUFile, opaque: *mut c_void, version_id: c_int) -> c_int {
    let _ = opaque;
    boundary(Errno::IO.ret(), || ret(with_call(f, ptr::null_mut(), |call| INSTANCE.load(call.stream, version_id))))
}

/// Sets a migration up: takes references to the devices, starts dirty tracking and writes the first
/// section. `opaque` is not used.
///
/// Returns 0 or -errno: -EBUSY if a migration runs, which is not disturbed; -EINVAL or the host's error,
/// with the device's name in `blk_mig_last_error`, and then everything is undone.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_save_setup(f: *mut QEMUFile, opaque: *mut c_void) -> c_int {
    let _ = opaque;
    boundary(Errno::IO.ret(), || ret(with_call(f, ptr::null_mut(), |call| INSTANCE.setup(call))))
}

/// One step: writes a section with what the rate limit allows, at most `max_buffers` chunks, and starts
/// reads for the next step. On a threaded host it waits at most 100 ms while all reads are in flight.
/// `opaque` is not used.
///
/// Returns a value above 0 if a chunk was sent, 0 if there was nothing to send now, or -errno. After an
/// error the migration is over: everything has been given back to the host, and the error is set on the
/// stream, too.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_save_iterate(f: *mut QEMUFile, opaque: *mut c_void) -> c_int {
    let _ = opaque;
    boundary(Errno::IO.ret(), || {
        let step = with_call(f, ptr::null_mut(), |call| INSTANCE.iterate(call));
        step.map_or_else(|error| error.errno().ret(), |step| step.sent.into())
    })
}

/// The last stage, with the guest stopped: sends everything that the destination still lacks, whatever the
/// rate limit, and ends the last section. Afterwards the migration is over, and everything has been given
/// back to the host. `opaque` is not used.
///
/// Returns 0 only if the destination lacks nothing. Otherwise it returns -errno as `blk_mig_save_iterate`
/// does; -EBUSY if the guest still writes; -EINVAL if the stream is not the one of setup, and then the
/// migration goes on.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_save_complete(f: *mut QEMUFile, opaque: *mut c_void) -> c_int {
    let _ = opaque;
    boundary(Errno::IO.ret(), || ret(with_call(f, ptr::null_mut(), |call| INSTANCE.complete(call))))
}

/// Returns the number of bytes that the destination still lacks: not read yet, in flight, waiting to be
/// sent, or dirty. Returns 0 when no migration runs, and the length of all devices when it is called from
/// within another call. It asks the host's dirty tracking, so it belongs to the migration's thread.
/// `opaque` is not used.
///
/// A host that stops the guest as soon as this number fits its downtime limit stops it earlier than
/// necessary, for data that could still be sent while the guest runs: see
/// `blk_mig_save_pending_switchover`.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_save_pending(opaque: *mut c_void) -> u64 {
    let _ = opaque;
    boundary(0, || INSTANCE.pending())
}

/// The same for a host that stops the guest as soon as the pending bytes are no more than a `threshold` of
/// its own, which is the number of bytes that fit its downtime limit. `opaque` is not used. Since 1.1.
///
/// Returns more than `threshold` (which must be below `UINT64_MAX`) as long as the guest should run on:
/// until every chunk has been sent once, then until the rest takes no more than about 10 ms or has stopped
/// shrinking, and while no read in flight has completed for 100 ms. After that it returns what
/// `blk_mig_save_pending` returns, so the host still keeps its limit. Returns 0 when no migration runs.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_save_pending_switchover(opaque: *mut c_void, threshold: u64) -> u64 {
    let _ = opaque;
    boundary(0, || INSTANCE.pending_switchover(threshold))
}

/// Ends the migration that runs, if there is one: waits for what is in flight (`aio_flush`, which may
/// return early here), then gives everything back to the host. It may be called in any state, also after a
/// setup that failed, and more than once. `opaque` is not used.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_save_cleanup(opaque: *mut c_void) {
    let _ = opaque;
    boundary((), || INSTANCE.cleanup(None));
}

// SAFETY: repr(C), a size_t first, then 32-bit numbers.
unsafe impl CStruct for BlkMigOptions {
    const STEP: usize = size_of::<u32>();
    const NAME: &'static str = "BlkMigOptions";
}

fn read_options(options: &BlkMigOptions) -> Result<Options, Error> {
    Ok(Options {
        max_buffers: options.max_buffers,
        max_reads: options.max_reads,
        max_writes: options.max_writes,
        zero_blocks: settings::ZERO_BLOCKS.is_on(options.zero_blocks)?,
        accept_tail_garbage: settings::ACCEPT_TAIL_GARBAGE.is_on(options.accept_tail_garbage)?,
        stream: options.stream,
        compression: options.compression,
    })
}

/// Sets the options of the migrations that follow, outgoing and incoming.
///
/// Returns 0; -EINVAL if `options` is NULL, if its `struct_size` is less than the size of a `size_t`, or if
/// a field is larger than it may be (`blk_mig_last_error` names the field, its value and its bound); -EBUSY
/// while a migration runs. After an error nothing has changed.
///
/// `options` must have as many bytes as its `struct_size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blk_mig_set_options(options: *const BlkMigOptions) -> c_int {
    boundary(Errno::IO.ret(), || {
        // SAFETY: the caller's promise.
        let options = unsafe { read_struct(options, "BlkMigOptions") };
        match options.and_then(|options| read_options(&options)) {
            Ok(options) => ret(INSTANCE.set_options(options)),
            Err(error) => INSTANCE.fail(error).errno().ret(),
        }
    })
}

/// Chooses the devices that the migrations to come include, by name: only these, if they can be migrated. The
/// names are copied. If `names` is NULL or `count` is 0, every device is included again. Since 1.1.
///
/// Returns 0; -EINVAL if one of the names is NULL; -EBUSY while a migration runs. After an error nothing has
/// changed. A name that no device has is found out by the next setup, which fails with -ENODEV and the name
/// in `blk_mig_last_error`. Why a device is not migrated is told to `BlkMigSystemOps.log`.
///
/// `names` must have `count` pointers, and each that is not NULL must point to a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blk_mig_set_devices(names: *const *const c_char, count: usize) -> c_int {
    boundary(Errno::IO.ret(), || {
        // SAFETY: the caller's promise.
        match unsafe { read_selection(names, count) } {
            Ok(selection) => ret(INSTANCE.set_devices(selection)),
            Err(error) => INSTANCE.fail(error).errno().ret(),
        }
    })
}

/// Copies a list of names.
///
/// # Safety
/// `names` is NULL or points to `count` pointers, each of which is NULL or points to a string.
unsafe fn read_selection(names: *const *const c_char, count: usize) -> Result<Selection, Error> {
    if names.is_null() || count == 0 {
        return Ok(Selection::All);
    }
    let mut selection = Vec::new();
    for index in 0..count {
        // SAFETY: the caller's promise.
        let name = unsafe { names.add(index).read() };
        if name.is_null() {
            return Err(null(&format!("name {index} of {count}")));
        }
        selection.try_reserve(1)?;
        // SAFETY: the caller's promise.
        selection.push(DeviceName::from(unsafe { CStr::from_ptr(name) }.to_bytes()));
    }
    Ok(Selection::Named(selection.into()))
}

fn stats(struct_size: usize) -> BlkMigStats {
    let status = INSTANCE.status();
    let (bytes_total, bytes_transferred) = status.bytes();
    let (buffers_in_use, buffers_peak) = status.buffers();
    BlkMigStats {
        struct_size,
        bytes_total,
        bytes_transferred,
        bytes_remaining: bytes_total - bytes_transferred,
        chunks_sent: status.chunks_sent.load(Relaxed),
        chunks_resent: status.chunks_resent.load(Relaxed),
        chunks_zero: status.chunks_zero.load(Relaxed),
        wire_bytes: status.wire_bytes.load(Relaxed),
        dirty_bytes: status.dirty_bytes.load(Relaxed),
        reads_in_flight: status.reads_in_flight(),
        buffers_in_use,
        buffers_peak,
        last_error: status.last_error.load(Relaxed),
        bandwidth: status.bandwidth.load(Relaxed),
        expected_downtime_ns: status.expected_downtime_ns.load(Relaxed),
        elapsed_ns: status.elapsed_ns.load(Relaxed),
        dirty_rate: status.dirty_rate.load(Relaxed),
        data_bytes: status.data_bytes.load(Relaxed),
        payload_bytes: status.payload_bytes.load(Relaxed),
        checksummed_bytes: status.checksummed_bytes.load(Relaxed),
    }
}

/// Fills in the numbers of the migration that runs, or else of the last one. Any thread.
///
/// Returns 0, or -EINVAL if `stats` is NULL or its `struct_size` is less than the size of a `size_t`. It
/// fills at most `struct_size` bytes, and `stats` must have that many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blk_mig_get_stats(stats: *mut BlkMigStats) -> c_int {
    boundary(Errno::IO.ret(), || {
        // SAFETY: the caller's promise.
        let struct_size = match unsafe { struct_size(stats, "BlkMigStats", "BlkMigStats") } {
            Ok(size) => size,
            Err(error) => return INSTANCE.fail(error).errno().ret(),
        };
        let filled = self::stats(struct_size);
        let bytes = struct_size.min(size_of::<BlkMigStats>());
        // SAFETY: both have that many bytes, and one of them is a local variable.
        unsafe { ptr::copy_nonoverlapping((&raw const filled).cast::<u8>(), stats.cast::<u8>(), bytes) };
        0
    })
}

/// Copies the text of the last failure to `buf`, cut to `size` bytes with the NUL at its end. The text is
/// empty after a success. Any thread.
///
/// Each call that can fail sets the text, or empties it by its success. Queries that succeed leave it as it
/// is, and so do `blk_mig_save_cleanup`, a stage below 0 and `blk_mig_set_params`: a host may clean up
/// first and ask afterwards.
///
/// Returns the full length in bytes without the NUL. `buf` may be NULL if `size` is 0, and otherwise has
/// room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blk_mig_last_error(buf: *mut c_char, size: usize) -> usize {
    boundary(0, || {
        let text = INSTANCE.last_error();
        if !buf.is_null() && size > 0 {
            let bytes = text.len().min(size - 1);
            // SAFETY: the caller's promise: there is room for these bytes and the NUL.
            unsafe {
                ptr::copy_nonoverlapping(text.as_ptr(), buf.cast::<u8>(), bytes);
                buf.add(bytes).write(0);
            }
        }
        text.len()
    })
}

const fn number(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo gives numbers"),
    }
}

/// Returns the version of the library as 0x00MMmmpp: major, minor, patch. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn blk_mig_version() -> u32 {
    const VERSION: u32 = (number(env!("CARGO_PKG_VERSION_MAJOR")) << 16)
        | (number(env!("CARGO_PKG_VERSION_MINOR")) << 8)
        | number(env!("CARGO_PKG_VERSION_PATCH"));
    VERSION
}
