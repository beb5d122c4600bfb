#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A host of libblkmig in Python, with cffi: source and destination in one process, with a bytearray as the stream.

usage: host.py [blkmig.h [libblkmig.so]]"""
import ctypes.util
import re
import sys
import time

try:
    from cffi import FFI
except ImportError:
    print("skipped: cffi is missing (pip install cffi, or the package python3-cffi)")
    sys.exit(77)

ffi = FFI()
with open(sys.argv[1] if len(sys.argv) > 1 else "/usr/include/blkmig.h", encoding="utf-8") as header:
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", header.read(), flags=re.S)
# cffi knows neither the preprocessor nor attributes.
ffi.cdef(re.sub(r"^#(?!define \w+ \d).*| BLK_MIG_FORMAT\(.*?\)", "", text, flags=re.M))
lib = ffi.dlopen(sys.argv[2] if len(sys.argv) > 2 else ctypes.util.find_library("blkmig"))

CHUNK_SECTORS, SECTOR = 2048, 512
from_disk = bytearray(b"\xd5" * (5 << 20) + bytes(3 * SECTOR))   # the last chunk may be shorter than the others
to_disk = bytearray(len(from_disk))
# For the library, a device is a pointer that it hands back: iterate visits the source's, find gives the destination's.
FROM, TO, NAME = ffi.cast("BlockDriverState *", 1), ffi.cast("BlockDriverState *", 2), ffi.new("char[]", b"system")
dirty, stream, errors, kept = set(), bytearray(), [], []


def chunks(sector, count):
    return range(sector // CHUNK_SECTORS, (sector + count - 1) // CHUNK_SECTORS + 1)


def guest_write(sector, data):
    from_disk[sector * SECTOR:sector * SECTOR + len(data)] = data
    dirty.update(chunks(sector, len(data) // SECTOR))   # once the data is there, not before


def aio_read(bs, sector, buf, count, cb, opaque):
    ffi.memmove(buf, from_disk[sector * SECTOR:(sector + count) * SECTOR], count * SECTOR)
    cb(opaque, 0)   # exactly once; may be called later, too, from any thread
    return bs       # other than NULL: it was started


def write(bs, sector, buf, count):
    to_disk[sector * SECTOR:(sector + count) * SECTOR] = ffi.buffer(buf, count * SECTOR)
    return 0


def get(size):
    data = bytes(stream[:size])
    del stream[:size]
    return data


def get_buffer(f, buf, size):
    data = get(size)
    ffi.memmove(buf, data, len(data))
    return len(data)


def is_allocated(bs, sector, count, pnum):
    pnum[0] = count
    return 1


def table(kind, **functions):
    """A table of callbacks. What is not named is NULL: the header says which may be."""
    made = ffi.new(kind + " *", {"struct_size": ffi.sizeof(kind)})
    for field, function in functions.items():
        pointer = dict(ffi.typeof(kind).fields)[field].type
        # One that raises gives -EIO where that can be: cffi's 0 would be a success.
        error = ffi.NULL if pointer.result.kind == "pointer" else None
        if pointer.result.cname in ("int", "int64_t"):
            error = -5
        callback = ffi.callback(pointer, function, error)
        setattr(made, field, callback)
        kept.append(callback)   # or Python frees it while the library may still call it
    return made


host_tables = [
    table("BlkMigBdrvOps", iterate=lambda visit, opaque: visit(opaque, FROM), find=lambda wanted: TO,
          get_device_name=lambda bs: NAME, getlength=lambda bs: len(from_disk), is_read_only=lambda bs: 0,
          is_allocated=is_allocated, read=lambda bs, sector, buf, count: -5, write=write, aio_read=aio_read,
          aio_flush=lambda: None),
    table("BlkMigDirtyOps", set_tracking=lambda bs, enable: dirty.clear() or 0,
          get=lambda bs, sector: sector // CHUNK_SECTORS in dirty, get_count=lambda bs: len(dirty),
          reset=lambda bs, sector, count: dirty.difference_update(chunks(sector, count))),
    table("BlkMigFileOps", put_buffer=lambda f, buf, size: stream.extend(ffi.buffer(buf, size)),
          put_byte=lambda f, v: stream.append(v & 255), put_be64=lambda f, v: stream.extend(v.to_bytes(8, "big")),
          get_buffer=get_buffer, get_byte=lambda f: int.from_bytes(get(1), "big"),
          get_be64=lambda f: int.from_bytes(get(8), "big"), rate_limit=lambda f: 0, get_rate_limit=lambda f: 0,
          has_error=lambda f: errors[0] if errors else 0, set_error=lambda f, ret: errors.append(ret)),
    ffi.NULL,   # no monitor
    table("BlkMigSystemOps", register_savevm_live=lambda *args: 0, clock_ns=time.monotonic_ns,
          max_downtime_ns=lambda: 300_000_000),
]
f = ffi.cast("QEMUFile *", 1)


def check(ret):
    """Raises what the library says of a failure; else loads the sections that it has written."""
    while ret >= 0 and stream:
        ret = lib.blk_mig_load(f, ffi.NULL, 1)
    if ret < 0:
        text = ffi.new("char[256]")
        lib.blk_mig_last_error(text, len(text))
        sys.exit(f"error {-ret}: {ffi.string(text).decode()}")


host = ffi.new("BlkMigHost *", [ffi.sizeof("BlkMigHost"), lib.BLK_MIG_ABI_VERSION, 0] + host_tables)
check(lib.blk_mig_set_host(host))
options = ffi.new("BlkMigOptions *", {"struct_size": ffi.sizeof("BlkMigOptions"), "max_buffers": 2})
check(lib.blk_mig_set_options(options))
check(lib.blk_mig_save_setup(f, ffi.NULL))
steps, limit = 0, 1 << 20   # the bytes that may be left when the guest is stopped
while lib.blk_mig_save_pending_switchover(ffi.NULL, limit) > limit:
    check(lib.blk_mig_save_iterate(f, ffi.NULL))
    guest_write(steps % 8, bytes([steps % 256]) * SECTOR)
    steps += 1
check(lib.blk_mig_save_complete(f, ffi.NULL))   # the guest writes no more
lib.blk_mig_save_cleanup(ffi.NULL)
print(f"migrated {len(from_disk)} bytes in {steps} steps while the guest wrote")
print("the disks are", "the same" if from_disk == to_disk else "DIFFERENT")
sys.exit(from_disk != to_disk)
