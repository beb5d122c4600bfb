# SPDX-License-Identifier: GPL-2.0-only
"""Migrations that can't succeed: the source goes on, and somebody says why."""
import shutil
import signal
import time

from .cases_copy import arrive, make_disk
from .images import MIB
from .qmp import QMPError
from .runner import Failed, Skip, case, check
from .vm import disk

# The source then hears of the destination's failure even at the very end.
RETURN_PATH = ["return-path"]


def fails(lab, source, target, *causes, **options):
    """Migrates to a target that must refuse, naming these; the source goes on."""
    for vm in (source, target):
        vm.set_capabilities(*RETURN_PATH)
    source.migrate(lab.uri(), **options)
    info = source.wait_migration("failed")
    source.assert_running()
    status = target.wait_exit()
    check(status == 1, f"the target ended with status {status}: {target.log()}")
    for cause in causes:
        check(cause in target.log(), f"the target does not say '{cause}': {target.log()}")
    lab.note(f"source: {info.get('error-desc', 'no error-desc')}")
    lab.note(f"target: {' | '.join(target.log().splitlines()[-3:])}")


def succeeds_after(lab, source, disks):
    """A second migration from the same source arrives whole."""
    source.assert_running()
    target = lab.vm("ours", "second", [a for name, _, other, fmt in disks for a in disk(name, other, fmt)],
                    incoming=lab.uri("second"))
    arrive(lab, source, target, disks, uri="second")


@case(["raw", "qcow2"])
def cancel_bulk(lab, fmt):
    """Cancel in the bulk phase, then migrate"""
    disks = [make_disk(lab, "disk0", fmt, 48 * MIB, 0)]
    source, target = lab.pair(disks)
    source.migrate(lab.uri(), bandwidth=16 * MIB)
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) > 4 * MIB)
    source.cmd("migrate_cancel")
    info = source.wait_migration("cancelled")
    check("error-desc" not in info, f"a cancel is no error: {info.get('error-desc')}")
    target.kill()
    succeeds_after(lab, source, disks)


@case()
def cancel_dirty(lab):
    """Cancel in the dirty phase, then migrate"""
    disks = [make_disk(lab, "disk0", "raw", 16 * MIB, 0)]
    source, target = lab.pair(disks)
    # All is dirtied again and again, and 1 ms at this rate is less than a chunk: it can't end.
    source.migrate(lab.uri(), bandwidth=64 * MIB, downtime_ms=1)
    deadline = time.monotonic() + 30
    turn = 0
    while source.migration().get("disk", {}).get("remaining", 1 << 40) > 8 * MIB or turn < 16:
        check(time.monotonic() < deadline, "the dirty phase was not reached")
        source.io("disk0", f"write -P {turn % 255 + 1} {turn % 16 * MIB} 64k")
        turn += 1
    source.cmd("migrate_cancel")
    source.wait_migration("cancelled", "completed")
    check(source.migration()["status"] == "cancelled", "it completed before the cancel")
    target.kill()
    succeeds_after(lab, source, disks)


@case()
def cancel_hung(lab):
    """Cancel while the destination hangs, then migrate"""
    disks = [make_disk(lab, "disk0", "raw", 48 * MIB, 0)]
    source, target = lab.pair(disks)
    target.process.send_signal(signal.SIGSTOP)
    source.migrate(lab.uri())
    time.sleep(0.5)
    source.cmd("migrate_cancel")
    source.wait_migration("cancelled", timeout=10)
    target.kill()
    succeeds_after(lab, source, disks)


@case()
def blocked_meanwhile(lab):
    """What would pull the disk away is refused until it has moved"""
    disks = [make_disk(lab, "disk0", "qcow2", 32 * MIB, 0)]
    source, target = lab.pair(disks)
    source.migrate(lab.uri(), bandwidth=8 * MIB)
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) > MIB)
    try:
        source.qmp.command("block_resize", device="disk0", size=64 * MIB)
        raise Failed("the disk could be resized")
    except QMPError as error:
        check("disk0" in str(error) and "in use" in str(error), f"another reason: {error}")
    source.cmd("migrate_cancel")
    source.wait_migration("cancelled")
    source.cmd("block_resize", device="disk0", size=33 * MIB)
    target.kill()


@case()
def target_killed(lab):
    """The destination is killed, then migrate"""
    disks = [make_disk(lab, "disk0", "raw", 48 * MIB, 0)]
    source, target = lab.pair(disks)
    source.migrate(lab.uri(), bandwidth=16 * MIB)
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) > 4 * MIB)
    target.kill()
    info = source.wait_migration("failed")
    check(info.get("error-desc"), "no error-desc")
    lab.note(f"source: {info['error-desc']}")
    succeeds_after(lab, source, disks)


@case()
def source_killed(lab):
    """The source is killed"""
    disks = [make_disk(lab, "disk0", "raw", 48 * MIB, 0)]
    source, target = lab.pair(disks)
    source.migrate(lab.uri(), bandwidth=16 * MIB)
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) > 4 * MIB)
    source.kill()
    status = target.wait_exit()
    check(status == 1, f"the target ended with status {status}: {target.log()}")
    check("load of migration failed" in target.log(), f"the target does not say why: {target.log()}")


@case()
def target_full(lab):
    """The destination's filesystem is full"""
    if not shutil.which("unshare"):
        raise Skip("no unshare")
    name, one, other, fmt = make_disk(lab, "disk0", "raw", 32 * MIB, 0)
    source = lab.vm("ours", "source", disk(name, one, fmt))
    small = lab.path("small")
    small.mkdir()
    # A filesystem of its own, which goes away with the process.
    script = f'mount -t tmpfs -o size=8m none {small} && truncate -s 32M {small}/disk && exec "$@"'
    try:
        target = lab.vm("ours", "target", disk(name, small / "disk", fmt), incoming=lab.uri(),
                        before=["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh"])
    except Exception as error:
        raise Skip(f"can't mount a small filesystem: {error}") from None
    fails(lab, source, target, "disk0", "No space left on device")
    succeeds_after(lab, source, [(name, one, other, fmt)])


def faulty(name, path, what):
    """A disk whose reads or writes fail, 5 MiB into it."""
    drive = (f"if=none,id={name},driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={path},"
             f"file.inject-error.0.event=none,file.inject-error.0.iotype={what},"
             "file.inject-error.0.errno=5,file.inject-error.0.sector=10240")
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


@case()
def read_error(lab):
    """A read error on the source"""
    name, one, other, fmt = make_disk(lab, "disk0", "raw", 32 * MIB, 0)
    source = lab.vm("ours", "source", faulty(name, one, "read"))
    target = lab.vm("ours", "target", disk(name, other, fmt), incoming=lab.uri())
    source.migrate(lab.uri())
    info = source.wait_migration("failed")
    why = info.get("error-desc", "no error-desc")
    check("disk0" in why and "Input/output error" in why, f"error-desc does not name device and cause: {why}")
    lab.note(f"source: {why}")
    source.assert_running()
    source.io("disk0", "write -P 1 0 64k")
    status = target.wait_exit()
    check(status == 1, f"the target ended with status {status}: {target.log()}")
    check(source.quit() == 0, source.log())


@case()
def write_error(lab):
    """A write error on the destination"""
    disks = [make_disk(lab, "disk0", "raw", 32 * MIB, 0)]
    name, one, other, fmt = disks[0]
    source = lab.vm("ours", "source", disk(name, one, fmt))
    target = lab.vm("ours", "target", faulty(name, other, "write"), incoming=lab.uri())
    fails(lab, source, target, "disk0", "Input/output error")
    succeeds_after(lab, source, disks)


@case()
def read_only_target(lab):
    """A read-only destination"""
    disks = [make_disk(lab, "disk0", "raw", 8 * MIB)]
    name, one, other, fmt = disks[0]
    source = lab.vm("ours", "source", disk(name, one, fmt))
    target = lab.vm("ours", "target", disk(name, other, fmt, "readonly=on"), incoming=lab.uri())
    fails(lab, source, target, "disk0", "read-only")
    succeeds_after(lab, source, disks)


@case()
def small_target(lab):
    """A smaller destination"""
    disks = [make_disk(lab, "disk0", "raw", 16 * MIB, 0)]
    name, one, _, fmt = disks[0]
    source = lab.vm("ours", "source", disk(name, one, fmt))
    small = lab.images.empty(lab.path("small"), fmt, 7 * MIB)
    target = lab.vm("ours", "target", disk(name, small, fmt), incoming=lab.uri())
    fails(lab, source, target, "disk0")
    succeeds_after(lab, source, disks)


@case()
def unknown_device(lab):
    """A device that the destination does not have"""
    disks = [make_disk(lab, "disk0", "raw", 8 * MIB)]
    name, one, other, fmt = disks[0]
    source = lab.vm("ours", "source", disk(name, one, fmt))
    target = lab.vm("ours", "target", disk("other0", other, fmt), incoming=lab.uri())
    fails(lab, source, target, "disk0")
    succeeds_after(lab, source, disks)


@case()
def nobody_listens(lab):
    """Nobody listens at the destination"""
    disks = [make_disk(lab, "disk0", "raw", 8 * MIB)]
    name, one, _, fmt = disks[0]
    source = lab.vm("ours", "source", disk(name, one, fmt))
    source.migrate(lab.uri("nobody"))
    info = source.wait_migration("failed")
    check(info.get("error-desc"), "no error-desc")
    succeeds_after(lab, source, disks)


def to_file(lab):
    """Migrates a paused guest to a file; returns its disks and the file."""
    disks = [make_disk(lab, "disk0", "qcow2", 16 * MIB, 0)]
    name, one, _, fmt = disks[0]
    source = lab.vm("ours", "source", disk(name, one, fmt))
    stream = lab.path("stream")
    source.migrate(f"exec:cat > {stream}")
    source.wait_migration("completed")
    source.quit()
    return disks, stream


@case()
def from_file(lab):
    """A migration to a file, then loaded"""
    disks, stream = to_file(lab)
    name, one, other, fmt = disks[0]
    target = lab.vm("ours", "target", disk(name, other, fmt), incoming=f"exec:cat {stream}")
    target.wait_arrival()
    check(target.quit() == 0, target.log())
    lab.images.same(one, fmt, other, fmt)


@case([0.3, 0.8, 0.97])
def from_cut_file(lab, share):
    """A migration to a file, cut short, then loaded"""
    disks, stream = to_file(lab)
    name, _, other, fmt = disks[0]
    with open(stream, "r+b") as file:
        file.truncate(int(stream.stat().st_size * share))
    target = lab.vm("ours", "target", disk(name, other, fmt), incoming="defer")
    target.cmd("migrate-incoming", uri=f"exec:cat {stream}")
    status = target.wait_exit()
    check(status == 1, f"the target ended with status {status}: {target.log()}")
    check("load of migration failed" in target.log(), f"the target does not say why: {target.log()}")
    lab.note(f"target: {' | '.join(target.log().splitlines()[-3:])}")
