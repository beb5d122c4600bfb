# SPDX-License-Identifier: GPL-2.0-only
"""Processes and disks that go away while a migration runs."""
import signal

from .cases_copy import finish
from .crossed import STYLES, again, asks, begin, failed, in_style, start, top_node
from .images import MIB
from .runner import case, check

SLOW, FAST = "in the bulk phase", "at full speed"
# What a guest's power-off does, with -no-reboot a reset does too, and that needs no guest.
ENDS = ["quit", "SIGTERM", "a reset with -no-reboot"]


def two_images(lab, style, size):
    """A source's image, an empty one, and how finish() wants to compare them."""
    fmt = "qcow2" if "qcow2" in style else "raw"
    one = lab.images.filled(lab.path("one"), fmt, size)
    other = lab.images.empty(lab.path("other"), fmt, size)
    return one, other, [("disk0", one, other, fmt)]


def end(vm, how):
    """Ends a QEMU as a user or a guest does; returns its exit status."""
    if how == "quit":
        return vm.quit()
    if how == "SIGTERM":
        vm.process.send_signal(signal.SIGTERM)
    else:
        vm.cmd("system_reset")
    return vm.wait_exit()


def bitmap_is_saved(lab, image):
    """The persistent bitmap 'kept' stands in the image, and not as one whose user has died."""
    bitmaps = lab.images.info(image, "qcow2")["format-specific"]["data"].get("bitmaps", [])
    check([b["name"] for b in bitmaps] == ["kept"], f"the bitmap is lost: {bitmaps}")
    check("in-use" not in bitmaps[0]["flags"], "the bitmap was not saved")


@case(ENDS, [SLOW, FAST, "in pre-switchover", "while the destination hangs"], STYLES)
def source_ends(lab, how, when, style):
    """The source ends as it should"""
    one, other, _ = two_images(lab, style, 64 * MIB)
    source, target = start(lab, in_style(style, "disk0", one) + ["-no-reboot"], in_style(style, "disk0", other))
    if "qcow2" in style:
        source.cmd("block-dirty-bitmap-add", node="disk0", name="kept", persistent=True)
    if when == "in pre-switchover":
        source.set_capabilities("pause-before-switchover")
        source.migrate(lab.uri())
        source.wait_for(lambda i: i["status"] == "pre-switchover")
    elif when == "while the destination hangs":
        target.process.send_signal(signal.SIGSTOP)
        source.migrate(lab.uri())
        source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0))
    else:
        begin(lab, source, 8 * MIB if when == SLOW else 1 << 30)
    status = end(source, how)
    check(status == 0, f"the source ended with status {status}: {source.log()}")
    if "qcow2" in style:
        bitmap_is_saved(lab, one)
        lab.images.tool("check", "-f", "qcow2", one)
    if when == "while the destination hangs":
        target.kill()
    elif when != FAST:
        status = target.wait_exit()
        check(status == 1, f"the target ended with status {status}: {target.log()}")


@case(["quit", "SIGTERM"], [SLOW, FAST], STYLES)
def destination_ends(lab, how, when, style):
    """The destination is told to end while it loads: it does, and the source goes on"""
    one, other, disks = two_images(lab, style, 128 * MIB)
    source, target = start(lab, in_style(style, "disk0", one), in_style(style, "disk0", other))
    info = begin(lab, source, 8 * MIB if when == SLOW else 1 << 30)
    check(info["status"] == "active", f"ended too early: {info}")
    status = end(target, how)
    check(status in (0, 1), f"the target ended with status {status}: {target.log()}")
    info = source.wait_migration("failed")
    check(info.get("error-desc"), "failed without a text")
    again(lab, source, in_style(style, "disk0", other), disks)


def goes(lab, target, style, how):
    """Takes the target's disk away, or tries to, and may end it at once. Returns whether an overlay is in its place."""
    if how == "drive_del":
        asks(lab, target, "human-monitor-command", command_line="drive_del disk0")
    elif how == "eject":
        asks(lab, target, "eject", id="disk0-device", force=True)
    elif how in ("unplug", "unplug and reset"):
        asks(lab, target, "device_del", id="disk0-device")
        if how == "unplug and reset":
            asks(lab, target, "system_reset")
    elif how == "another medium":
        lab.images.empty(lab.path("medium"), "raw", 128 * MIB)
        asks(lab, target, "blockdev-change-medium", id="disk0-device", filename=str(lab.path("medium")), format="raw",
             force=True)
    else:
        # Nothing refuses it.
        asks(lab, target, "blockdev-snapshot-sync", node_name=top_node(style, "disk0"),
             snapshot_file=str(lab.path("overlay")), format="qcow2", snapshot_node_name="overlay")
        return True
    return False


def fails_by_name(lab, source, target, other, target_args, disks):
    """The target names the disk that it has lost and ends; from the source, all goes to a new one in its place."""
    failed(lab, source, target)
    check("disk0" in target.log(), f"the target does not name its disk: {target.log()}")
    lab.images.empty(other, disks[0][3], 128 * MIB)
    again(lab, source, target_args, disks)


@case(["drive_del", "eject", "unplug", "unplug and reset", "another medium", "external snapshot"], [SLOW, FAST], STYLES)
def disk_goes_away(lab, how, when, style):
    """The destination's disk goes away while it loads"""
    one, other, disks = two_images(lab, style, 128 * MIB)
    # What can be unplugged and emptied without its guest's help is a scsi disk.
    on_virtio = how in ("drive_del", "unplug and reset", "external snapshot")
    device = "virtio-blk-pci" if on_virtio else "scsi-hd,removable=on"
    source, target = start(lab, in_style(style, "disk0", one, device=device),
                           in_style(style, "disk0", other, device=device))
    info = begin(lab, source, 8 * MIB if when == SLOW else 1 << 30)
    check(info["status"] == "active", f"ended too early: {info}")
    snapshot = goes(lab, target, style, how)
    if snapshot:
        disks = [("disk0", one, lab.path("overlay"), disks[0][3], "qcow2")]
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    info = source.wait_migration("completed", "failed")
    if info["status"] == "failed":
        # A drive keeps its name; of two nodes, only one has the name that the stream knows.
        check(not snapshot or style.startswith("-blockdev"), "a snapshot is no reason to fail")
        fails_by_name(lab, source, target, other, in_style(style, "disk0", other, device=device), disks)
    else:
        target.wait_arrival()
        finish(lab, source, target, disks)


@case(STYLES)
def throttled_disk_is_unplugged(lab, style):
    """The destination's disk is unplugged while a limit of its own holds its writes up"""
    one, other, disks = two_images(lab, style, 128 * MIB)
    # Under -accel qtest the limit would wait for a clock that nobody moves.
    source, target = start(lab, in_style(style, "disk0", one, device="scsi-hd"),
                           in_style(style, "disk0", other, device="scsi-hd"), accel="tcg")
    limit = f"block_set_io_throttle disk0-device 0 0 {8 * MIB} 0 0 0"
    check(not target.cmd("human-monitor-command", command_line=limit), "it has no limit")
    begin(lab, source, 1 << 30)
    # It may have ended before it answers.
    asks(lab, target, "device_del", id="disk0-device")
    source.wait_migration("failed")
    fails_by_name(lab, source, target, other, in_style(style, "disk0", other, device="scsi-hd"), disks)


@case(STYLES)
def durable(lab, style):
    """What has arrived survives a destination that is killed"""
    one, other, disks = two_images(lab, style, 32 * MIB)
    source, target = start(lab, in_style(style, "disk0", one), in_style(style, "disk0", other))
    source.migrate(lab.uri())
    source.wait_migration("completed")
    target.wait_arrival()
    target.kill()
    check(source.quit() == 0, source.log())
    lab.images.same(one, disks[0][3], other, disks[0][3])


@case(["raw", "qcow2"])
def flush_fails(lab, fmt):
    """The destination's disk can't be flushed: the migration fails"""
    one, other, disks = two_images(lab, fmt, 32 * MIB)
    bad = ["-drive", f"if=none,id=disk0,driver={fmt},file.driver=blkdebug,file.image.driver=file,"
                     f"file.image.filename={other},file.inject-error.0.event=none,file.inject-error.0.iotype=flush,"
                     "file.inject-error.0.errno=5", "-device", "virtio-blk-pci,drive=disk0"]
    source, target = start(lab, in_style(fmt, "disk0", one), bad)
    source.migrate(lab.uri())
    source.wait_migration("failed")
    failed(lab, source, target)
    for word in ("disk0", "Input/output error"):
        check(word in target.log(), f"the target does not say '{word}': {target.log()}")
    again(lab, source, in_style(fmt, "disk0", other), disks)
