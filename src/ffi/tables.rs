// SPDX-License-Identifier: GPL-2.0-only
//! The C structs and callback types of the contract. Layout and names are frozen: new fields go to the end of
//! a struct.
//!
//! cbindgen makes `include/blkmig.h` of this file, so the comments here are the header's.

use libc::{c_char, c_int, c_void};

/// A block device of the host. The module never looks inside.
#[repr(C)]
pub struct BlockDriverState {
    _opaque: [u8; 0],
}

/// A byte stream of the host: one direction.
#[repr(C)]
pub struct QEMUFile {
    _opaque: [u8; 0],
}

/// Where the host's user reads; may be NULL.
#[repr(C)]
pub struct Monitor {
    _opaque: [u8; 0],
}

/// `BlkMigCompletion *`: called with 0 or -errno when a request has ended.
pub type BlkMigCompletionPtr = Option<unsafe extern "C" fn(opaque: *mut c_void, ret: c_int)>;
/// `BlkMigDeviceVisitor *`: called with each device.
pub type BlkMigDeviceVisitorPtr = Option<unsafe extern "C" fn(opaque: *mut c_void, bs: *mut BlockDriverState)>;
/// `BlkMigRelease *`: called when the host has done with a buffer.
pub type BlkMigReleasePtr = Option<unsafe extern "C" fn(opaque: *mut c_void)>;
/// `BlkMigSetParams *`: see `blk_mig_set_params`.
pub type BlkMigSetParamsPtr = Option<unsafe extern "C" fn(blk_enable: c_int, shared_base: c_int, opaque: *mut c_void)>;
/// `BlkMigSaveLive *`: see `blk_mig_save_live`.
pub type BlkMigSaveLivePtr =
    Option<unsafe extern "C" fn(mon: *mut Monitor, f: *mut QEMUFile, stage: c_int, opaque: *mut c_void) -> c_int>;
/// `BlkMigLoad *`: see `blk_mig_load`.
pub type BlkMigLoadPtr =
    Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void, version_id: c_int) -> c_int>;

/// The host's block layer.
///
/// Sectors are 512 bytes. Every function is called on the thread that called into the module, and none while
/// the module holds a lock. A device that the module has got from `iterate` or `find` is used until the end of
/// the migration (of the load call for `find`), between `ref` and `unref` where the host has them.
///
/// # Devices that change
///
/// Between `ref` and `unref` the pointer must stay valid. What is behind it may go away all the same
/// (unplugged, ejected): from then on the functions return -ENODEV or -ENOMEDIUM, and the migration or the load
/// ends with an error that names the device. Without `ref`, a host must not let a device go while it is used.
///
/// On the source the module looks at the length of each device in every step. A length that was ever seen to
/// differ from that at setup ends the migration, also if it changes back. In the last stage, at its start and
/// at its end, the module visits all devices again with `iterate`. A device that could be migrated then and was
/// not there at setup (a drive that got a medium, a length or write access), one that is not visited any more,
/// and another pointer under the name of a device end the migration: their data would be lost. So a host must
/// give the same pointer as long as writes to the device are tracked, and another one once they are not, as
/// when the guest was moved to another image. Changes that it can foresee it should refuse.
#[repr(C)]
pub struct BlkMigBdrvOps {
    /// `sizeof(BlkMigBdrvOps)`, as the host was compiled. A field past it counts as NULL.
    pub struct_size: usize,
    /// Visits every device once, in the host's order: calls `it(opaque, bs)` before it returns.
    pub iterate: Option<unsafe extern "C" fn(it: BlkMigDeviceVisitorPtr, opaque: *mut c_void)>,
    /// The device of that name, or NULL if there is no such device.
    pub find: Option<unsafe extern "C" fn(device_name: *const c_char) -> *mut BlockDriverState>,
    /// The device's name, 1 to 255 bytes; must stay valid until the next call into the host.
    pub get_device_name: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> *const c_char>,
    /// The length in bytes, a multiple of 512, or -errno. 0, -ENOMEDIUM, -ENODEV, -ENXIO and -ENOENT mean an
    /// empty device, which a source skips at setup. Called for each device in every step of a migration, so it
    /// should be quick.
    pub getlength: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> i64>,
    /// Nonzero if the device can't be written to. A source skips such a device, a destination refuses it.
    pub is_read_only: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
    /// Whether the sectors at the start of the range are in the top image (nonzero) or in its backing file
    /// (0), and in `*pnum` for how many of the `nb_sectors` that holds. An error or no progress counts as
    /// allocated.
    pub is_allocated: Option<
        unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, nb_sectors: c_int, pnum: *mut c_int) -> c_int,
    >,
    /// Reads synchronously; 0 or -errno. Part of the table for hosts' sake: this version reads with
    /// `aio_read` alone.
    pub read:
        Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, buf: *mut u8, nb_sectors: c_int) -> c_int>,
    /// Writes synchronously; 0 or -errno.
    pub write: Option<
        unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, buf: *const u8, nb_sectors: c_int) -> c_int,
    >,
    /// Starts a read. Returns NULL if it could not start, and then never calls `cb`. Otherwise calls `cb`
    /// exactly once: before it returns, or later, on any thread. `buf` stays valid until then and is aligned
    /// to 4096 bytes.
    pub aio_read: Option<
        unsafe extern "C" fn(
            bs: *mut BlockDriverState,
            sector: i64,
            buf: *mut u8,
            nb_sectors: c_int,
            cb: BlkMigCompletionPtr,
            opaque: *mut c_void,
        ) -> *mut c_void,
    >,
    /// Returns when no request of this module is in flight: all their completions have been called.
    ///
    /// In `blk_mig_save_cleanup`, and when a stage below 0 cancels, a host whose storage hangs may return
    /// early, so that its user need not wait. The module then ends the migration at once: it ends tracking and
    /// calls `unref` with requests in flight, and the host keeps what these need until they complete. Their
    /// memory stays valid until then.
    pub aio_flush: Option<unsafe extern "C" fn()>,
    /// Optional, with `unref`: the device stays until `unref`. 0 or -errno; -ENOMEDIUM, -ENODEV, -ENXIO and
    /// -ENOENT mean that there is nothing behind the device, which a source then skips.
    pub r#ref: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
    /// Optional, with `ref`: gives a reference back.
    pub unref: Option<unsafe extern "C" fn(bs: *mut BlockDriverState)>,
    /// Optional: starts a write, by the rules of `aio_read`. `buf` is aligned to 512 bytes.
    pub aio_write: Option<
        unsafe extern "C" fn(
            bs: *mut BlockDriverState,
            sector: i64,
            buf: *const u8,
            nb_sectors: c_int,
            cb: BlkMigCompletionPtr,
            opaque: *mut c_void,
        ) -> *mut c_void,
    >,
    /// Optional: runs completions until at least one has been called. Called only with a request in flight.
    pub aio_wait: Option<unsafe extern "C" fn()>,
    /// Optional: makes the sectors read as zeroes; may unmap. 0 or -errno; after -ENOTSUP the module writes
    /// zeroes itself.
    pub write_zeroes: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, nb_sectors: c_int) -> c_int>,
    /// Optional: 1 if the sectors at the start of the range are known to read as zeroes without reading them,
    /// and in `*pnum` for how many of the `nb_sectors` the answer holds.
    pub is_zero: Option<
        unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, nb_sectors: c_int, pnum: *mut c_int) -> c_int,
    >,
    /// Optional: bytes, or <= 0 if there is none. Zeroes that cover whole clusters are written with
    /// `write_zeroes`.
    pub cluster_size: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
    /// Optional, destination: called before the first write of a section to the device; 0 or -errno.
    pub activate: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
    /// Optional, destination, since 1.1: returns when all that was written to the device is on stable storage,
    /// as far as the host can see to that; 0 or -errno, which fails the load. Called for every device that was
    /// written to, before `blk_mig_load` returns from the last section, when the guest stands still; so that
    /// little is left then, also at the end of the bulk phase and after every 256 MiB of data.
    pub flush: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
}

/// The host's dirty tracking, in chunks of 2048 sectors (1 MiB).
///
/// A write of the guest that ends after `set_tracking(bs, 1)` or after `reset` of its sector must set the
/// chunk's bit again when it ends or later, also if it began before. A bit that is set when a write begins is
/// not enough: the module clears it, reads the old data, and never hears of the new. A host that sets bits only
/// for writes that it saw begin has to wait in `set_tracking` for those in flight.
#[repr(C)]
pub struct BlkMigDirtyOps {
    /// `sizeof(BlkMigDirtyOps)`, as the host was compiled.
    pub struct_size: usize,
    /// Starts (1) with nothing dirty, or ends (0) tracking of the guest's writes; 0 or -errno.
    pub set_tracking: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, enable: c_int) -> c_int>,
    /// Nonzero if the chunk that holds `sector` is dirty.
    pub get: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64) -> c_int>,
    /// Makes the chunks that hold these sectors clean.
    pub reset: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, nb_sectors: c_int)>,
    /// How many chunks are dirty, or -errno.
    pub get_count: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> i64>,
    /// Optional: the first dirty sector at or after `sector`, or -1. Any sector of the dirty chunk will do.
    pub next: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64) -> i64>,
}

/// The host's migration stream.
#[repr(C)]
pub struct BlkMigFileOps {
    /// `sizeof(BlkMigFileOps)`, as the host was compiled.
    pub struct_size: usize,
    /// Appends `size` bytes to the stream; `buf` may be reused at once.
    pub put_buffer: Option<unsafe extern "C" fn(f: *mut QEMUFile, buf: *const u8, size: c_int)>,
    /// Appends the low byte of `v`.
    pub put_byte: Option<unsafe extern "C" fn(f: *mut QEMUFile, v: c_int)>,
    /// Appends `v`, most significant byte first.
    pub put_be64: Option<unsafe extern "C" fn(f: *mut QEMUFile, v: u64)>,
    /// Takes `size` bytes from the stream; returns the bytes got: fewer than `size` at the end of the stream.
    pub get_buffer: Option<unsafe extern "C" fn(f: *mut QEMUFile, buf: *mut u8, size: c_int) -> c_int>,
    /// Takes a byte; 0 at the end of the stream.
    pub get_byte: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> c_int>,
    /// Takes 8 bytes, most significant first.
    pub get_be64: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> u64>,
    /// Nonzero: send no more in this step.
    pub rate_limit: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> c_int>,
    /// Bytes a step; <= 0: none.
    pub get_rate_limit: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> i64>,
    /// 0, or nonzero if the stream has failed (a -errno where the host has one).
    pub has_error: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> c_int>,
    /// Marks the stream as failed; `ret` is a -errno.
    pub set_error: Option<unsafe extern "C" fn(f: *mut QEMUFile, ret: c_int)>,
    /// Optional: sends what is buffered.
    pub flush: Option<unsafe extern "C" fn(f: *mut QEMUFile)>,
    /// Optional: like `put_buffer`, but keeps `buf` until it calls `release(opaque)`, from any thread,
    /// exactly once.
    pub put_buffer_nocopy: Option<
        unsafe extern "C" fn(
            f: *mut QEMUFile,
            buf: *const u8,
            size: c_int,
            release: BlkMigReleasePtr,
            opaque: *mut c_void,
        ),
    >,
}

/// Where the host's user reads. The whole table is optional.
#[repr(C)]
pub struct BlkMigMonitorOps {
    /// `sizeof(BlkMigMonitorOps)`, as the host was compiled.
    pub struct_size: usize,
    /// Prints as printf does.
    pub printf: Option<unsafe extern "C" fn(mon: *mut Monitor, fmt: *const c_char, ...)>,
    /// Shows what was printed.
    pub flush: Option<unsafe extern "C" fn(mon: *mut Monitor)>,
}

/// What else the module needs of the host.
#[repr(C)]
pub struct BlkMigSystemOps {
    /// `sizeof(BlkMigSystemOps)`, as the host was compiled.
    pub struct_size: usize,
    /// Registers a savevm section; < 0 if that failed. `save_state` is NULL.
    pub register_savevm_live: Option<
        unsafe extern "C" fn(
            dev: *mut c_void,
            idstr: *const c_char,
            instance_id: c_int,
            version_id: c_int,
            set_params: BlkMigSetParamsPtr,
            save_live: BlkMigSaveLivePtr,
            save_state: *mut c_void,
            load: BlkMigLoadPtr,
            opaque: *mut c_void,
        ) -> c_int,
    >,
    /// Nanoseconds of a monotonic clock. Called from wherever a read completes, too: any thread.
    pub clock_ns: Option<unsafe extern "C" fn() -> i64>,
    /// How long the guest may stand still at the end, in nanoseconds.
    pub max_downtime_ns: Option<unsafe extern "C" fn() -> u64>,
    /// Optional: shows an error to the host's user, as printf does; the text has no newline at its end.
    pub error_report: Option<unsafe extern "C" fn(fmt: *const c_char, ...)>,
    /// Optional: takes a message of the module; level 1 error, 2 warning, 3 info, 4 debug, 5 trace.
    pub log: Option<unsafe extern "C" fn(level: c_int, message: *const c_char)>,
}

/// The version of this contract, for `BlkMigHost.abi_version`.
pub const BLK_MIG_ABI_VERSION: u32 = 1;

/// For `BlkMigHost.flags`: completions arrive on another thread than save/load, so the module may block for
/// one.
pub const BLK_MIG_HOST_THREADED: u32 = 1;

/// A host: the tables, for `blk_mig_set_host`.
#[repr(C)]
pub struct BlkMigHost {
    /// `sizeof(BlkMigHost)`, as the host was compiled.
    pub struct_size: usize,
    /// `BLK_MIG_ABI_VERSION`.
    pub abi_version: u32,
    /// 0 or `BLK_MIG_HOST_THREADED`.
    pub flags: u32,
    /// The block layer.
    pub bdrv: *const BlkMigBdrvOps,
    /// Dirty tracking.
    pub dirty: *const BlkMigDirtyOps,
    /// The stream.
    pub file: *const BlkMigFileOps,
    /// Optional: the monitor.
    pub monitor: *const BlkMigMonitorOps,
    /// The rest.
    pub system: *const BlkMigSystemOps,
}

/// Settings of the module; 0 in a field means its default. The numbers may be as large as 1048576 (1 TiB of
/// buffers, and no more reads or writes than those): what is larger can only be a mistake, such as a -1, and is
/// refused.
#[repr(C)]
pub struct BlkMigOptions {
    /// `sizeof(BlkMigOptions)`, as the host was compiled. A field past it counts as 0.
    pub struct_size: usize,
    /// Chunks (of 1 MiB) held in memory at most, on either side; default 64, at most 1048576. Those of reads
    /// that a cancelled migration did not wait for, as storage hung, come on top until the reads complete.
    pub max_buffers: u32,
    /// Reads in flight at most; default 16, at most 1048576. Each has a buffer, so `max_buffers` bounds them,
    /// too.
    pub max_reads: u32,
    /// Destination writes in flight at most; default 16, at most 1048576.
    pub max_writes: u32,
    /// 0 or 1. 1: send an all-zero chunk as a zero record (flag 0x08). Off by default: a 2011 destination can't
    /// read it.
    pub zero_blocks: u32,
    /// 0 or 1. Destination, since 1.1. Data past the end of a device, in its last chunk, which is not zero: 0:
    /// an error, since the source's device is longer; 1: dropped with a warning, as sources from 2011 to QEMU
    /// 9.0 leave garbage there.
    pub accept_tail_garbage: u32,
}

/// What `blk_mig_get_stats` fills: the migration that runs, or else the last one.
#[repr(C)]
pub struct BlkMigStats {
    /// Set by the caller to `sizeof(BlkMigStats)`; the module fills no more than this.
    pub struct_size: usize,
    /// Bytes of all the devices that are migrated.
    pub bytes_total: u64,
    /// Bytes that have been sent once, or need not be; never falls.
    /// `bytes_transferred + bytes_remaining == bytes_total`.
    pub bytes_transferred: u64,
    /// Bytes that have not been sent even once.
    pub bytes_remaining: u64,
    /// Chunks put into the stream, zero records included.
    pub chunks_sent: u64,
    /// Of these, chunks that the bulk phase had done with already: the guest wrote to them again.
    pub chunks_resent: u64,
    /// Of these, chunks sent as zero records.
    pub chunks_zero: u64,
    /// Bytes put into the stream.
    pub wire_bytes: u64,
    /// Bytes in dirty chunks when the module last looked.
    pub dirty_bytes: u64,
    /// Reads in flight.
    pub reads_in_flight: u32,
    /// Chunk buffers in use, on either side.
    pub buffers_in_use: u32,
    /// The most that were in use at once.
    pub buffers_peak: u32,
    /// -errno of the last failure, 0 after a success.
    pub last_error: i32,
    /// Bytes a second that reach the stream; 0 until known.
    pub bandwidth: u64,
    /// How long sending the rest would take at that bandwidth, in nanoseconds; 0 until it is known.
    pub expected_downtime_ns: u64,
    /// Since setup, in nanoseconds; stands still after the end.
    pub elapsed_ns: u64,
}
