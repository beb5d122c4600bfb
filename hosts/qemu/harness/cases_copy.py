# SPDX-License-Identifier: GPL-2.0-only
"""Migrations that must arrive whole."""
import itertools
import statistics
import time

from .images import MIB
from .runner import case, check
from .vm import disk

ROUTES = {"ours to ours": ("ours", "ours"), "ours to Debian's": ("ours", "debian"),
          "Debian's to ours": ("debian", "ours")}


def arrive(lab, source, target, disks, uri="migrate", **options):
    """Migrates, ends both processes and compares the disks.

    disks: as for Lab.pair, perhaps with a fifth item, the target's format.
    """
    source.migrate(lab.uri(uri), **options)
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)


def finish(lab, source, target, disks, storage=None):
    """Ends both processes, and that of the storage if there is one, and compares the disks."""
    for vm in (source, target):
        status = vm.quit()
        check(status == 0, f"{vm.name} ended with status {status}: {vm.log()}")
    if storage:
        storage.end()
    for _, one, other, fmt, *other_format in disks:
        lab.images.same(one, fmt, other, other_format[0] if other_format else fmt)


def make_disk(lab, name, fmt, size, zeroes=0.4):
    """A source image and an empty one of its size, as Lab.pair wants them."""
    one = lab.images.filled(lab.path(f"{name}-one"), fmt, size, zeroes)
    return name, one, lab.images.empty(lab.path(f"{name}-other"), fmt, size), fmt


def accept_tail_garbage(target):
    """Unmodified sources send whatever was in their buffer past the end of an odd size."""
    target.qom_set("accept-tail-garbage", True)


@case(ROUTES, ["raw", "qcow2"], ["zero-blocks off", "zero-blocks on"])
def matrix(lab, route, fmt, zero_blocks):
    """Disk arrives whole"""
    disks = [make_disk(lab, "disk0", fmt, 64 * MIB)]
    source, target = lab.pair(disks, *ROUTES[route])
    # Downtime limit 1 ms: Debian's source loses data at the default one.
    capabilities = ["zero-blocks"] if zero_blocks == "zero-blocks on" else []
    arrive(lab, source, target, disks, capabilities=capabilities, downtime_ms=1)


@case(["ours to ours", "Debian's to ours"], ["raw", "qcow2"])
def odd_size(lab, route, fmt):
    """A size that is no multiple of 1 MiB nor of a cluster"""
    disks = [make_disk(lab, "disk0", fmt, 9 * MIB + 77 * 512)]
    source, target = lab.pair(disks, *ROUTES[route])
    if route == "Debian's to ours":
        accept_tail_garbage(target)
    arrive(lab, source, target, disks, downtime_ms=1)


@case()
def empty_first(lab):
    """An empty drive and a disk of no size come first"""
    disks = [make_disk(lab, "disk0", "raw", 12 * MIB)]
    for path in ("nothing-one", "nothing-other"):
        lab.path(path).touch()
    cdrom = ["-drive", "if=none,id=cd0", "-device", "ide-cd,drive=cd0"]
    source = lab.vm("ours", "source", cdrom + disk("nothing", lab.path("nothing-one"), "raw")
                    + disk(disks[0][0], disks[0][1], "raw"))
    target = lab.vm("ours", "target", cdrom + disk("nothing", lab.path("nothing-other"), "raw")
                    + disk(disks[0][0], disks[0][2], "raw"), incoming=lab.uri())
    arrive(lab, source, target, disks)


@case()
def two_disks(lab):
    """Two disks of different formats, each into the other's format"""
    disks = [make_disk(lab, "disk0", "raw", 20 * MIB), make_disk(lab, "disk1", "qcow2", 33 * MIB)]
    targets = [lab.images.empty(lab.path("a"), "qcow2", 20 * MIB), lab.images.empty(lab.path("b"), "raw", 33 * MIB)]
    disks = [(name, one, other, fmt, other_format) for (name, one, _, fmt), other, other_format
             in zip(disks, targets, ["qcow2", "raw"])]
    source = lab.vm("ours", "source", [a for name, one, _, fmt, _ in disks for a in disk(name, one, fmt)])
    target = lab.vm("ours", "target", [a for name, _, other, _, fmt in disks for a in disk(name, other, fmt)],
                    incoming=lab.uri())
    arrive(lab, source, target, disks)


def overlays(lab):
    """A base image and two overlays on it, the first with some data of its own."""
    base = lab.images.filled(lab.path("base"), "raw", 32 * MIB)
    one, other = (lab.images.empty(lab.path(name), "qcow2", 32 * MIB, "-b", base, "-F", "raw")
                  for name in ("one", "other"))
    return "disk0", one, other, "qcow2"


@case(["migrate inc", "migrate -i", "block-incremental"])
def incremental(lab, how):
    """Only what is in the overlay moves"""
    if how != "migrate inc":
        lab.need_arguments(how)
    disks = [overlays(lab)]
    source, target = lab.pair(disks)
    for offset in (0, 5 * MIB + 4096, 31 * MIB):
        source.io("disk0", f"write -P 0x5a {offset} 300k")
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    if how == "migrate inc":
        source.migrate(lab.uri(), incremental=True)
    elif how == "migrate -i":
        source.hmp(f"migrate -d -i {lab.uri()}")
    else:
        source.cmd("migrate-set-parameters", block_incremental=True)
        source.set_capabilities("block")
        source.cmd("migrate", uri=lab.uri())
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)
    size = disks[0][2].stat().st_size
    check(size < 8 * MIB, f"the target's overlay has {size} bytes: the base was copied too")


@case(["migrate -b", "block capability"])
def ways_to_ask(lab, how):
    """Asked for in another way"""
    lab.need_capability(how)
    if how == "migrate -b":
        lab.need_arguments(how)
    disks = [make_disk(lab, "disk0", "qcow2", 16 * MIB)]
    source, target = lab.pair(disks)
    if how == "migrate -b":
        answer = source.hmp(f"migrate -d -b {lab.uri()}")
        check(not answer.strip(), answer)
    else:
        source.set_capabilities("block")
        source.cmd("migrate", uri=lab.uri())
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)


@case()
def without_disks(lab):
    """Without -b the disks stay where they are"""
    disks = [make_disk(lab, "disk0", "raw", 8 * MIB)]
    source, target = lab.pair(disks)
    source.cmd("migrate", uri=lab.uri())
    info = source.wait_migration("completed")
    check("disk" not in info, "query-migrate speaks of disks")
    target.wait_arrival()
    source.quit()
    target.quit()
    check(lab.images.differing_mib(disks[0][1], disks[0][2]) > 0, "the disk was copied")


@case()
def node_names(lab):
    """Devices made by -blockdev go by their node name"""
    name, one, other, fmt = make_disk(lab, "node0", "qcow2", 16 * MIB)

    def args(image):
        return ["-blockdev", f"driver=file,node-name=file0,filename={image}",
                "-blockdev", f"driver={fmt},node-name={name},file=file0",
                "-device", f"virtio-blk-pci,drive={name}"]
    source = lab.vm("ours", "source", args(one))
    target = lab.vm("ours", "target", args(other), incoming=lab.uri())
    arrive(lab, source, target, [(name, one, other, fmt)])


@case()
def numbers(lab):
    """query-migrate's disk numbers add up and grow"""
    disks = [make_disk(lab, "disk0", "raw", 24 * MIB, 0), make_disk(lab, "disk1", "raw", 8 * MIB, 0)]
    source, target = lab.pair(disks)
    source.migrate(lab.uri(), bandwidth=32 * MIB)
    seen = []
    while (info := source.migration())["status"] not in ("completed", "failed"):
        if "disk" in info:
            seen.append(info["disk"])
        time.sleep(0.02)
    check(len(seen) > 5, f"only {len(seen)} answers with disk numbers")
    for before, now in zip(seen, seen[1:]):
        check(now["transferred"] >= before["transferred"], f"transferred fell: {before} then {now}")
    for now in seen:
        check(now["total"] == 32 * MIB, f"total is {now['total']}")
        check(now["transferred"] + now["remaining"] == now["total"], f"no sum: {now}")
    check(any(0 < now["transferred"] < now["total"] for now in seen), "no answer between nothing and all")
    target.wait_arrival()
    finish(lab, source, target, disks)


@case()
def shown(lab):
    """info migrate shows the disk numbers"""
    lab.need_capability("these in its answers")
    source, target = lab.pair([make_disk(lab, "disk0", "raw", 8 * MIB, 0)])
    source.migrate(lab.uri(), bandwidth=4 * MIB)
    source.wait_for(lambda i: "disk" in i)
    text = source.hmp("info migrate")
    for words in ("transferred disk: ", "remaining disk: ", "total disk: 8192 kbytes"):
        check(words in text, f"'{words}' is not there: {text}")
    source.cmd("migrate_cancel")
    source.wait_migration("cancelled")
    check("disk" not in source.hmp("info migrate"), "the numbers stay")
    target.wait_exit()


@case()
def writes_meanwhile(lab):
    """What is written while it runs arrives too"""
    disks = [make_disk(lab, "disk0", "raw", 48 * MIB, 0), make_disk(lab, "disk1", "qcow2", 16 * MIB)]
    source, target = lab.pair(disks)
    # Without the pause a write could come when the disks are the target's already, and QEMU aborts.
    source.migrate(lab.uri(), bandwidth=64 * MIB, downtime_ms=1, capabilities=["pause-before-switchover"])
    count = 0
    while source.migration()["status"] in ("setup", "active") and count < 400:
        source.io(f"disk{count % 2}", f"write -P {count % 255 + 1} {count * 7919 % 4000 * 4096} 8k")
        count += 1
        time.sleep(0.002)
    source.wait_for(lambda i: i["status"] == "pre-switchover")
    source.cmd("migrate-continue", state="pre-switchover")
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)


def fast_link(lab, which):
    """Migrates 512 MiB at 10 GiB/s with the default downtime limit; returns how many MiBs arrived wrong."""
    name, one, other, fmt = make_disk(lab, "disk0", "raw", 512 * MIB, 0)
    source, target = lab.pair([(name, one, other, fmt)], which, which)
    source.migrate(lab.uri(), bandwidth=10 << 30)
    source.wait_migration("completed")
    target.wait_arrival()
    source.quit()
    target.quit()
    return lab.images.differing_mib(one, other)


@case()
def fast_link_ours(lab):
    """A fast link and the default downtime limit: nothing is lost"""
    wrong = fast_link(lab, "ours")
    check(wrong == 0, f"{wrong} MiB of 512 are wrong")


@case()
def fast_link_debian(lab):
    """The same with Debian's own, to see what it loses"""
    wrong = fast_link(lab, "debian")
    lab.note(f"Debian's QEMU said completed with {wrong} MiB of 512 wrong")


@case()
def back_and_forth(lab):
    """Ten migrations back and forth in a row"""
    one = lab.images.filled(lab.path("a.qcow2"), "qcow2", 32 * MIB, 0.4)
    lab.images.copy(one, lab.path("first"))
    here = lab.vm("ours", "hop0", disk("disk0", one, "qcow2"))
    sizes = []
    for hop in range(1, 11):
        image = lab.images.empty(lab.path("ab"[hop % 2] + ".qcow2"), "qcow2", 32 * MIB)
        there = lab.vm("ours", f"hop{hop}", disk("disk0", image, "qcow2"), incoming=lab.uri(f"hop{hop}"))
        here.migrate(lab.uri(f"hop{hop}"))
        here.wait_migration("completed")
        there.wait_arrival()
        check(here.quit() == 0, here.log())
        there.assert_running()
        sizes.append(there.rss_kib())
        here = there
    check(here.quit() == 0, here.log())
    lab.images.same(lab.path("first"), "qcow2", lab.path("a.qcow2"), "qcow2")
    check(sizes[-1] < sizes[0] * 1.2, f"each process is larger than the one before: {sizes} KiB")


def slope(values):
    """Theil and Sen's: the median of the slopes between any two. A few jumps do not move it as they would the mean."""
    return statistics.median((b - a) / (j - i) for (i, a), (j, b) in itertools.combinations(enumerate(values), 2))


@case()
def no_growth(lab):
    """Sixty migrations from one process: its memory does not grow"""
    name, one, _, fmt = make_disk(lab, "disk0", "raw", 8 * MIB, 0)
    # glibc keeps what was freed in arenas, one for each thread, and raises the size from which on it does so. Like this
    # it gives large blocks back at once: what stays is in use.
    source = lab.vm("ours", "source", disk(name, one, fmt),
                    before=["env", "MALLOC_ARENA_MAX=1", "MALLOC_MMAP_THRESHOLD_=65536",
                            "MALLOC_TRIM_THRESHOLD_=65536"])
    sizes = []
    for turn in range(70):
        source.migrate("exec:cat > /dev/null")
        source.wait_migration("completed")
        source.cmd("cont")
        if turn >= 10:
            sizes.append(source.rss_kib())
    # One buffer of 1 MiB lost in ten migrations makes 98 KiB for each, one jump of 6 MiB at the worst moment 52.
    growth = slope(sizes)
    lab.note(f"{growth:.1f} KiB a migration; from {sizes[0]} to {sizes[-1]} KiB")
    check(growth < 70, f"{growth:.1f} KiB a migration: {sizes}")
