# SPDX-License-Identifier: GPL-2.0-only
"""The extended stream."""
from .cases_copy import arrive, finish, make_disk
from .crossed import STYLES, in_style, io_name
from .images import MIB
from .runner import case, check
from .vm import disk

WAYS = {"plain": 0, "compressed": 1}


def extend(vm, compression=0):
    """Asks for the extended stream."""
    vm.qom_set("stream", "extended")
    vm.qom_set("compression", compression)


@case(WAYS, STYLES, ["a whole number of chunks", "an odd size"])
def extended(lab, way, style, size):
    """The extended stream: the disk arrives whole, with what is written meanwhile"""
    fmt = "qcow2" if "qcow2" in style else "raw"
    name, one, other, _ = make_disk(lab, "disk0", fmt, 48 * MIB + (77 * 512 if size == "an odd size" else 0))
    source = lab.vm("ours", "source", in_style(style, name, one))
    target = lab.vm("ours", "target", in_style(style, name, other), incoming=lab.uri())
    extend(source, WAYS[way])
    source.migrate(lab.uri(), bandwidth=24 * MIB)
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= 16 * MIB)
    for number in range(24):
        source.io(io_name(style, name), f"write -q -P {number + 1} {number * 2 * MIB + 77 * 4096} 4k")
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    source.wait_migration("completed")
    target.wait_arrival()
    stats = source.qom_get("stats")
    check(stats["checksummed-bytes"] == stats["wire-bytes"] > 0, f"not everything has a checksum: {stats}")
    finish(lab, source, target, [(name, one, other, fmt)])


@case(STYLES)
def small_writes(lab, style):
    """The extended stream: of what the guest writes in small pieces no more is sent than it needs"""
    fmt = "qcow2" if "qcow2" in style else "raw"
    name, one, other, _ = make_disk(lab, "disk0", fmt, 32 * MIB, zeroes=0)
    source = lab.vm("ours", "source", in_style(style, name, one))
    target = lab.vm("ours", "target", in_style(style, name, other), incoming=lab.uri())
    extend(source)
    source.migrate(lab.uri(), capabilities=["pause-before-switchover"])
    source.wait_for(lambda i: i["status"] == "pre-switchover")
    before = source.qom_get("stats")["wire-bytes"]
    for number in range(32):
        source.io(io_name(style, name), f"write -q -P {number + 1} {number * MIB + 8192} 4k")
    source.cmd("migrate-continue", state="pre-switchover")
    source.wait_migration("completed")
    target.wait_arrival()
    sent = source.qom_get("stats")["wire-bytes"] - before
    lab.note(f"{sent // 1024} KiB for 32 writes of 4 KiB")
    check(sent < 32 * (16384 + 1024), f"{sent} bytes were sent for 32 writes of 4 KiB")
    finish(lab, source, target, [(name, one, other, fmt)])


@case(["debian"])
def extended_is_refused(lab, which):
    """A destination that does not know the extended stream refuses it at once; the source runs on, the next arrives"""
    disks = [make_disk(lab, "disk0", "raw", 16 * MIB)]
    source, target = lab.pair(disks, "ours", which)
    extend(source, 1)
    empty = disks[0][2].read_bytes()
    source.migrate(lab.uri(), bandwidth=MIB)
    check(target.wait_exit() == 1, f"the target ended with {target.process.returncode}")
    lab.note(target.log().splitlines()[-1])
    check("unknown" in target.log().lower(), f"it says: {target.log()}")
    check(disks[0][2].read_bytes() == empty, "something was written")
    source.wait_migration("failed")
    source.qom_set("compression", 0)
    source.qom_set("stream", "classic")
    again = lab.vm("ours", "again", [*disk("disk0", disks[0][2], "raw"), "-S"], incoming=lab.uri("again"), accel="tcg")
    arrive(lab, source, again, disks, uri="again")
    check(source.alive() is False, "the source still runs")


@case()
def shorter_at_once(lab):
    """The extended stream: a destination that is shorter is refused in the first second, with both lengths"""
    name, one, other, _ = make_disk(lab, "disk0", "raw", 64 * MIB)
    shorter = lab.images.empty(lab.path("shorter"), "raw", 63 * MIB)
    source = lab.vm("ours", "source", disk(name, one, "raw"))
    target = lab.vm("ours", "target", disk(name, shorter, "raw"), incoming=lab.uri())
    extend(source)
    source.migrate(lab.uri(), bandwidth=MIB)
    check(target.wait_exit() == 1, f"the target ended with {target.process.returncode}")
    for length in (63 * MIB, 64 * MIB):
        check(str(length) in target.log(), f"it does not say {length}: {target.log()}")
    source.wait_migration("failed")
    source.assert_running()
    check(other.exists(), "no image")
