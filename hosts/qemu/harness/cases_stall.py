# SPDX-License-Identifier: GPL-2.0-only
"""Storage that stalls or dies while a migration runs, and writes that take long."""
import os
import signal
import subprocess
import threading
import time

from .cases_copy import finish
from .crossed import STYLES, THREAD, again, failed, hold_io, in_style, io_name, start
from .hosts import host
from .images import MIB
from .runner import case, check
from .vm import disk

SIZE = 48 * MIB


class NBD:
    """A server for an image, in a process of its own."""

    def __init__(self, lab, image, fmt):
        # What a server gives can't grow, as a qcow2 would.
        if fmt == "qcow2":
            os.truncate(image, 2 * SIZE)
        self.socket = lab.path("nbd.sock")
        server = host("ours").folder / "qemu-nbd"
        self.process = subprocess.Popen([server, "-t", "-e", "4", "-f", "raw", "-k", self.socket, image],
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            check(self.process.poll() is None and time.monotonic() < deadline, "qemu-nbd does not start")
            time.sleep(0.01)

    def args(self, style):
        """A disk0 whose storage it is."""
        fmt = "qcow2" if "qcow2" in style else "raw"
        storage = f"file.driver=nbd,file.server.type=unix,file.server.path={self.socket}"
        thread = ",iothread=thread0" if "iothread" in style else ""
        before = THREAD if thread else []
        if style.startswith("-blockdev"):
            return [*before, "-blockdev", f"driver={fmt},node-name=disk0,{storage}",
                    "-device", f"virtio-blk-pci{thread},id=disk0-device,drive=disk0"]
        return [*before, "-drive", f"if=none,id=disk0,driver={fmt},{storage}",
                "-device", f"virtio-blk-pci{thread},drive=disk0"]

    def end(self):
        self.process.kill()
        self.process.wait(10)


def two_images(lab, style):
    fmt = "qcow2" if "qcow2" in style else "raw"
    # Zeroes here and there: where the next begin is asked again and again.
    one = lab.images.filled(lab.path("one"), fmt, SIZE, 0.5)
    other = lab.images.empty(lab.path("other"), fmt, SIZE)
    return one, other, [("disk0", one, other, fmt)]


def answers(vm):
    """The monitor answers, again and again, while the storage can't."""
    vm.qmp.socket.settimeout(5)
    for _ in range(10):
        vm.cmd("query-status")
        time.sleep(0.05)
    vm.qmp.socket.settimeout(30)


def cancel_while(lab, source, target, resume):
    """Cancels now that the storage stalls; the monitor goes on, and once resumed the migration has ended."""
    source.cmd("migrate_cancel")
    answers(source)
    status = source.migration()["status"]
    check(status in ("cancelling", "cancelled"),
          f"it is {status} after the cancel: {source.migration()}, {target.log()}")
    lab.note(f"{status} while the storage stalls")
    resume()
    source.wait_migration("cancelled")
    target.kill()


@case(["the source's", "the destination's"], STYLES)
def nbd_stalls(lab, whose, style):
    """An NBD server stalls, cancel: the monitor answers, and the next migration arrives"""
    one, other, disks = two_images(lab, style)
    nbd = NBD(lab, one if whose == "the source's" else other, disks[0][3])
    try:
        plain = in_style(style, "disk0", other if whose == "the source's" else one)
        ends = (nbd.args(style), plain) if whose == "the source's" else (plain, nbd.args(style))
        source, target = start(lab, *ends)
        source.migrate(lab.uri(), bandwidth=16 * MIB, capabilities=["zero-blocks"])
        source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= 2 * MIB)
        nbd.process.send_signal(signal.SIGSTOP)
        source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
        time.sleep(0.3)
        cancel_while(lab, source, target, lambda: nbd.process.send_signal(signal.SIGCONT))
        if whose == "the destination's":
            nbd.end()
        again(lab, source, in_style(style, "disk0", other), disks, storage=nbd)
    finally:
        nbd.end()


@case(STYLES)
def nbd_dies(lab, style):
    """The source's NBD server is killed: an error that names the disk"""
    one, other, disks = two_images(lab, style)
    nbd = NBD(lab, one, disks[0][3])
    try:
        source, target = start(lab, nbd.args(style), in_style(style, "disk0", other))
        source.migrate(lab.uri(), bandwidth=16 * MIB)
        source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= 2 * MIB)
        nbd.end()
        source.wait_migration("failed")
        failed(lab, source, target, "disk0")
    finally:
        nbd.end()


@case()
def nbd_stalls_a_job(lab):
    """A mirror pivots when its stalled NBD server goes on, while zeroes are looked for: the monitor answers, it ends"""
    one, other, _ = two_images(lab, "raw")
    nbd = NBD(lab, one, "raw")
    scsi = [*THREAD, "-device", "virtio-scsi-pci,id=scsi0,iothread=thread0"]
    device = ["-device", "scsi-hd,bus=scsi0.0,id=disk0-device,drive=disk0"]
    storage = f"driver=nbd,server.type=unix,server.path={nbd.socket},node-name=disk0"
    try:
        source, target = start(lab, [*scsi, "-blockdev", storage, *device],
                               [*scsi, *disk("disk0", other, "raw")[:2], *device])
        source.cmd("drive-mirror", job_id="job0", device="disk0", target=str(lab.path("copy")), format="qcow2",
                   sync="full",                    node_name="copy")
        source.qmp.wait_event("BLOCK_JOB_READY")
        source.migrate(lab.uri(), bandwidth=16 * MIB, capabilities=["zero-blocks"])
        source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= 2 * MIB)
        nbd.process.send_signal(signal.SIGSTOP)
        source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
        # The job waits for the storage, and any monitor for the job.
        threading.Timer(0.5, nbd.process.send_signal, [signal.SIGCONT]).start()
        time.sleep(0.2)
        source.cmd("block-job-complete", device="job0")
        source.wait_migration("failed")
        failed(lab, source, target, "disk0")
    finally:
        nbd.end()


@case(["reads", "writes"], STYLES)
def file_stalls(lab, what, style):
    """A file's reads at the source or writes at the destination stall, cancel: the monitor answers, the next arrives"""
    one, other, disks = two_images(lab, style)
    hold = lab.path(f"hold-{what}")
    vms = []
    for name, image in (("source", one), ("target", other)):
        held = name == ("source" if what == "reads" else "target")
        vms.append(lab.vm("ours", name, in_style(style, "disk0", image), incoming=lab.uri() if vms else None,
                          before=hold_io(lab) if held else ()))
    source, target = vms
    source.migrate(lab.uri(), bandwidth=16 * MIB)
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= 2 * MIB)
    hold.touch()
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    time.sleep(0.3)
    cancel_while(lab, source, target, hold.unlink)
    again(lab, source, in_style(style, "disk0", other), disks)


@case(STYLES)
def last_reads_stall(lab, style):
    """The last reads stall: the guest is not stopped for them, and the monitor answers"""
    one, other, disks = two_images(lab, style)
    hold = lab.path("hold-reads")
    source = lab.vm("ours", "source", in_style(style, "disk0", one), before=hold_io(lab))
    target = lab.vm("ours", "target", in_style(style, "disk0", other), incoming=lab.uri())
    source.migrate(lab.uri(), bandwidth=48 * MIB, downtime_ms=5000)
    # Four are being read ahead, and four at most are left then.
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= SIZE - 8 * MIB)
    hold.touch()
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    time.sleep(1)
    answers(source)
    check(source.migration()["status"] == "active", f"the migration is {source.migration()}")
    source.assert_running()
    hold.unlink()
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)


@case(STYLES)
def writes_in_flight(lab, style):
    """Writes that are in flight when tracking starts arrive"""
    one, other, disks = two_images(lab, style)
    source = lab.vm("ours", "source", in_style(style, "disk0", one), before=hold_io(lab))
    target = lab.vm("ours", "target", in_style(style, "disk0", other), incoming=lab.uri())
    # What a qcow2 has to know of its clusters is known before.
    for number in range(8):
        source.io(io_name(style, "disk0"), f"write -q -P 9 {number * 4 * MIB} 64k")
    hold = lab.path("hold-writes")
    hold.touch()
    for number in range(8):
        source.io(io_name(style, "disk0"), f"aio_write -q -P {number + 11} {number * 4 * MIB} 64k")
    # Whoever waits for them before the tracking starts keeps the monitor waiting, too.
    release = threading.Timer(0.5, hold.unlink)
    release.start()
    source.migrate(lab.uri())
    release.join()
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)
    for number in range(8):
        lab.images.holds(other, disks[0][3], number * 4 * MIB, number + 11)
