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
/// `BlkMigPrintf *`: prints to a monitor. A type of its own, as the next, so that C compilers can check its arguments.
pub type BlkMigPrintfPtr = Option<unsafe extern "C" fn(mon: *mut Monitor, fmt: *const c_char, ...)>;
/// `BlkMigErrorReport *`: shows an error.
pub type BlkMigErrorReportPtr = Option<unsafe extern "C" fn(fmt: *const c_char, ...)>;

/// The host's block layer.
///
/// Sectors are 512 bytes. Every function is called on the thread that called into the module, and never
/// while the module holds a lock. The module uses a device that it got from `iterate` until the migration
/// ends, and one that it got from `find` until the load call returns; where the host has `ref` and `unref`,
/// it calls them first and last.
///
/// The pointer to a device must stay valid between `ref` and `unref`. What is behind it may go away
/// nevertheless (unplugged, ejected): from then on the functions return -ENODEV or -ENOMEDIUM, and the
/// migration or the load ends with an error that names the device. A host without `ref` must keep each
/// device as long as the module uses it.
///
/// The source compares the length of each device in every step with its length at setup. If they ever
/// differ, the migration ends with an error, even if the length changes back later. At the start and at the
/// end of the last stage the source visits all devices again with `iterate`. The migration fails if a
/// device could be migrated now that could not at setup (a drive that got a medium, a length or write
/// access), if a device is missing, or if there is another pointer for the name of a device: their data
/// would be lost. So a host must give the same pointer as long as it tracks the writes to the device for
/// the module, and another one when it no longer does, for example when the guest was moved to another
/// image. A host should refuse such changes during a migration where it can.
#[repr(C)]
pub struct BlkMigBdrvOps {
    /// `sizeof(BlkMigBdrvOps)` as the host was compiled. A field past it counts as NULL.
    pub struct_size: usize,
    /// Visits every device once, in the host's order: calls `it(opaque, bs)` for each before it returns.
    pub iterate: Option<unsafe extern "C" fn(it: BlkMigDeviceVisitorPtr, opaque: *mut c_void)>,
    /// Returns the device of that name, or NULL if there is none.
    pub find: Option<unsafe extern "C" fn(device_name: *const c_char) -> *mut BlockDriverState>,
    /// Returns the device's name, 1 to 255 bytes. It must stay valid until the next call into the host.
    pub get_device_name: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> *const c_char>,
    /// Returns the length in bytes, a multiple of 512, or -errno. 0, -ENOMEDIUM, -ENODEV, -ENXIO and
    /// -ENOENT mean an empty device, which a source skips at setup. It is called for each device in every
    /// step of a migration, so it should be quick.
    pub getlength: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> i64>,
    /// Returns nonzero if the device can't be written to. A source skips such a device, and a destination
    /// refuses it.
    pub is_read_only: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
    /// Returns nonzero if the sectors at the start of the range are in the top image, 0 if they are in its
    /// backing file, and sets `*pnum` to the number of sectors, of the `nb_sectors`, for which that is
    /// true. An error, or a `*pnum` of 0 or less, counts as allocated.
    pub is_allocated: Option<
        unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, nb_sectors: c_int, pnum: *mut c_int) -> c_int,
    >,
    /// Reads and returns 0 or -errno when that is done. Required, although this version reads with
    /// `aio_read` alone.
    pub read:
        Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, buf: *mut u8, nb_sectors: c_int) -> c_int>,
    /// Writes and returns 0 or -errno when that is done.
    pub write: Option<
        unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, buf: *const u8, nb_sectors: c_int) -> c_int,
    >,
    /// Starts a read. Returns NULL if it could not be started, and must never call `cb` then. Otherwise
    /// calls `cb` exactly once: before it returns or later, on any thread. `buf` stays valid until then and
    /// is aligned to 4096 bytes.
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
    /// Returns when no request of this module is in flight: the completions of all of them have been
    /// called.
    ///
    /// During `blk_mig_save_cleanup`, and when a stage below 0 cancels, a host whose storage hangs may
    /// return early, so that its user need not wait. The module then ends the migration at once: it ends
    /// tracking and calls `unref` with requests in flight, and the host keeps what they need until they
    /// complete. Their memory stays valid until then.
    pub aio_flush: Option<unsafe extern "C" fn()>,
    /// Optional, with `unref`: keeps the device until `unref`. Returns 0 or -errno; -ENOMEDIUM, -ENODEV,
    /// -ENXIO and -ENOENT mean that there is nothing behind the device, which a source then skips.
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
    /// Optional: returns when at least one completion has been called. It is called only with a request in
    /// flight.
    pub aio_wait: Option<unsafe extern "C" fn()>,
    /// Optional: makes the sectors read as zeroes; may unmap them. Returns 0 or -errno; after -ENOTSUP the
    /// module writes zeroes itself.
    pub write_zeroes: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, nb_sectors: c_int) -> c_int>,
    /// Optional: returns 1 if it is known, without reading, that the sectors at the start of the range read
    /// as zeroes, and sets `*pnum` to the number of sectors, of the `nb_sectors`, for which the answer is
    /// true.
    pub is_zero: Option<
        unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, nb_sectors: c_int, pnum: *mut c_int) -> c_int,
    >,
    /// Optional: returns the cluster size of the image in bytes, or 0 or less if it has none. Zeroes that
    /// cover whole clusters are written with `write_zeroes`.
    pub cluster_size: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
    /// Optional, destination: called before the first write of a section to the device. Returns 0 or
    /// -errno.
    pub activate: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
    /// Optional, destination, since 1.1: returns when everything that was written to the device is on
    /// stable storage, as far as the host can ensure that. Returns 0 or -errno, which fails the load. It is
    /// called for every device that was written to before `blk_mig_load` returns from the last section,
    /// while the guest stands still. So that little is left then, it is also called at the end of the bulk
    /// phase and after every 256 MiB of data.
    pub flush: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> c_int>,
}

/// The host's dirty tracking, in chunks of 2048 sectors (1 MiB), or in the smaller units that `granularity` says.
///
/// When a write of the guest ends after `set_tracking(bs, 1)`, or after `reset` of its sector, the chunk's
/// bit must be set at that time or later, even if the write began earlier. It is not enough to set the bit
/// when a write begins: the module would clear it, read the old data, and never learn of the new. A host
/// that sets bits only for writes that it saw begin must wait in `set_tracking` for the writes that are in
/// flight.
#[repr(C)]
pub struct BlkMigDirtyOps {
    /// `sizeof(BlkMigDirtyOps)` as the host was compiled.
    pub struct_size: usize,
    /// Starts (1), with nothing dirty, or ends (0) the tracking of the guest's writes. Returns 0 or -errno.
    pub set_tracking: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, enable: c_int) -> c_int>,
    /// Returns nonzero if the chunk, or unit, that holds `sector` is dirty.
    pub get: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64) -> c_int>,
    /// Makes the chunks, or units, that hold these sectors clean.
    pub reset: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64, nb_sectors: c_int)>,
    /// Returns the number of dirty chunks, or units, or -errno.
    pub get_count: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> i64>,
    /// Optional: returns the first dirty sector at or after `sector`, or -1. Any sector of the dirty chunk
    /// will do.
    pub next: Option<unsafe extern "C" fn(bs: *mut BlockDriverState, sector: i64) -> i64>,
    /// Optional, since 1.1: returns how many bytes one dirty bit stands for: a power of two, 512 to 1 MiB. NULL
    /// means 1 MiB. It is called once `set_tracking(bs, 1)` has returned. With the extended stream, what is
    /// dirty is sent in these units: 16 KiB is a good choice, and `next` should be there. The classic stream
    /// sends whole chunks and gains nothing by smaller units. Any other value makes the setup fail.
    pub granularity: Option<unsafe extern "C" fn(bs: *mut BlockDriverState) -> i64>,
}

/// The host's migration stream.
#[repr(C)]
pub struct BlkMigFileOps {
    /// `sizeof(BlkMigFileOps)` as the host was compiled.
    pub struct_size: usize,
    /// Appends `size` bytes to the stream; `buf` may be reused at once.
    pub put_buffer: Option<unsafe extern "C" fn(f: *mut QEMUFile, buf: *const u8, size: c_int)>,
    /// Appends the low byte of `v`.
    pub put_byte: Option<unsafe extern "C" fn(f: *mut QEMUFile, v: c_int)>,
    /// Appends `v`, most significant byte first.
    pub put_be64: Option<unsafe extern "C" fn(f: *mut QEMUFile, v: u64)>,
    /// Takes `size` bytes from the stream. Returns the number of bytes taken: fewer than `size` only at the
    /// end of the stream.
    pub get_buffer: Option<unsafe extern "C" fn(f: *mut QEMUFile, buf: *mut u8, size: c_int) -> c_int>,
    /// Takes a byte; 0 at the end of the stream.
    pub get_byte: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> c_int>,
    /// Takes 8 bytes, most significant first.
    pub get_be64: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> u64>,
    /// Returns nonzero if no more should be sent in this step.
    pub rate_limit: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> c_int>,
    /// Returns the number of bytes that a step may send; 0 or less means no limit.
    pub get_rate_limit: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> i64>,
    /// Returns 0, or nonzero if the stream has failed: -errno where the host knows it.
    pub has_error: Option<unsafe extern "C" fn(f: *mut QEMUFile) -> c_int>,
    /// Marks the stream as failed; `ret` is a -errno.
    pub set_error: Option<unsafe extern "C" fn(f: *mut QEMUFile, ret: c_int)>,
    /// Optional: sends what is buffered.
    pub flush: Option<unsafe extern "C" fn(f: *mut QEMUFile)>,
    /// Optional: like `put_buffer`, but keeps `buf` until it calls `release(opaque)`, exactly once, from
    /// any thread.
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

/// Where the host's user reads messages. The whole table is optional.
#[repr(C)]
pub struct BlkMigMonitorOps {
    /// `sizeof(BlkMigMonitorOps)` as the host was compiled.
    pub struct_size: usize,
    /// Prints, with the arguments of printf.
    pub printf: BlkMigPrintfPtr,
    /// Shows what was printed.
    pub flush: Option<unsafe extern "C" fn(mon: *mut Monitor)>,
}

/// What else the module needs of the host.
#[repr(C)]
pub struct BlkMigSystemOps {
    /// `sizeof(BlkMigSystemOps)` as the host was compiled.
    pub struct_size: usize,
    /// Registers a savevm section. Returns a value below 0 if that failed. `save_state` is NULL.
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
    /// Returns the time of a monotonic clock in nanoseconds. It is also called wherever a read completes:
    /// on any thread.
    pub clock_ns: Option<unsafe extern "C" fn() -> i64>,
    /// Returns how long the guest may stand still at the end, in nanoseconds.
    pub max_downtime_ns: Option<unsafe extern "C" fn() -> u64>,
    /// Optional: shows an error to the host's user, with the arguments of printf. The text has no newline
    /// at its end.
    pub error_report: BlkMigErrorReportPtr,
    /// Optional: takes a message of the module. `level` is 1 for errors, 2 warnings, 3 information, 4
    /// debugging, 5 tracing.
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
    /// `sizeof(BlkMigHost)` as the host was compiled.
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
    /// Everything else.
    pub system: *const BlkMigSystemOps,
}

/// Options of the module. 0 in a field means its default. A number is at most 1048576 (1 TiB of buffers,
/// and reads or writes that each have one): a larger one can only be a mistake, such as -1, and is refused.
#[repr(C)]
pub struct BlkMigOptions {
    /// `sizeof(BlkMigOptions)` as the host was compiled. A field past it counts as 0.
    pub struct_size: usize,
    /// Chunks (of 1 MiB) held in memory at most, on either side; default 64, at most 1048576. When a
    /// migration is canceled while storage hangs, the buffers of its reads are not counted and stay until
    /// these complete.
    pub max_buffers: u32,
    /// Reads in flight at most; default 16, at most 1048576. Each has a buffer, so `max_buffers` is a
    /// bound, too.
    pub max_reads: u32,
    /// Destination writes in flight at most; default 16, at most 1048576.
    pub max_writes: u32,
    /// 0 or 1. With 1, a chunk that is all zeroes is sent as a zero record (flag 0x08). Off by default,
    /// since a destination of 2011 can't read those.
    pub zero_blocks: u32,
    /// 0 or 1. Destination only, since 1.1. What to do with data that is not zero past the end of a device,
    /// in its last chunk: with 0 it is an error, since the source's device is longer; with 1 it is dropped
    /// with a warning, as sources from 2011 to QEMU 9.0 leave garbage there.
    pub accept_tail_garbage: u32,
    /// 0, 1 or 2; default 1, at most 2. Source only, since 1.1. 1 is the classic stream, which every peer since
    /// 2011 reads. 2 is the extended stream: with checksums, with less than a chunk where less is dirty, and
    /// with runs of zeroes in one record. Only a destination with this library, 1.1 or later, reads it; it
    /// needs no option for that. All others refuse it before anything is written.
    pub stream: u32,
    /// -7 to 19; 0 is none. Source only, since 1.1. The level at which the extended stream's data is compressed
    /// by zstd, where that makes it faster: 1 is a good choice. An error with the classic stream.
    pub compression: i32,
}

/// What `blk_mig_get_stats` fills in: the numbers of the migration that runs, or else of the last one.
#[repr(C)]
pub struct BlkMigStats {
    /// Set by the caller to `sizeof(BlkMigStats)`; the module fills no more than this.
    pub struct_size: usize,
    /// Bytes of all the devices that are migrated.
    pub bytes_total: u64,
    /// Bytes that have been sent once or need not be sent. It never falls.
    /// `bytes_transferred + bytes_remaining == bytes_total`.
    pub bytes_transferred: u64,
    /// Bytes that have not been sent even once.
    pub bytes_remaining: u64,
    /// Chunks put into the stream, zero records included. With the extended stream, a run of less than a chunk
    /// counts as one.
    pub chunks_sent: u64,
    /// Of these, chunks that were sent again, since the guest had written to them.
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
    /// The largest number that was in use at once.
    pub buffers_peak: u32,
    /// -errno of the last failure, 0 after a success.
    pub last_error: i32,
    /// Bytes a second that reach the stream; 0 until known.
    pub bandwidth: u64,
    /// How long sending the rest would take at that bandwidth, in nanoseconds; 0 until it is known.
    pub expected_downtime_ns: u64,
    /// Since setup, in nanoseconds; stands still after the end.
    pub elapsed_ns: u64,
    /// Since 1.1: bytes a second that the guest makes dirty, as tracked: what is written again while it is dirty
    /// does not count. 0 until known. If it stays above `bandwidth`, the migration will not end by itself.
    pub dirty_rate: u64,
    /// Since 1.1: bytes of the devices in data records, zero records not included.
    pub data_bytes: u64,
    /// Since 1.1: bytes that these took in the stream: as many unless they are compressed.
    pub payload_bytes: u64,
    /// Since 1.1: bytes of the stream that a checksum covers; 0 with the classic stream.
    pub checksummed_bytes: u64,
}
