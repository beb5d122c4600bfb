# SPDX-License-Identifier: GPL-2.0-only
"""Block jobs and snapshots beside a migration, on the source."""
from .crossed import STYLES, again, asks, begin, failed, in_style, io_name, outcome, start, top_node
from .images import MIB
from .runner import case

SIZE = 32 * MIB
NAMES = ["backup ends", "backup is cancelled", "mirror pivots", "mirror is cancelled", "stream ends",
         "stream is cancelled", "commit pivots", "commit is cancelled", "commit of a lower layer ends"]
ENDED = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")


class Disk:
    """A source's disk0 in a style, with all that a block job on it may need."""

    def __init__(self, lab, style, job="none", fmt=None):
        self.lab = lab
        self.style = style
        self.job = job.split()[0]
        self.layers = self.job in ("stream", "commit")
        fmt = fmt or ("qcow2" if "qcow2" in style else "raw")
        self.fmt = "qcow2" if self.layers else fmt
        self.base = (lab.images.filled(lab.path("base"), fmt, SIZE, 0.3), fmt)
        self.image = self.base[0]
        if self.layers:
            # The middle has data of its own, so that a job on it takes as long as it is told to.
            middle = lab.images.filled(lab.path("middle"), "qcow2", SIZE, 0.6)
            lab.images.tool("rebase", "-u", "-b", self.base[0], "-F", fmt, middle)
            self.image = lab.images.empty(lab.path("top"), "qcow2", SIZE, "-b", middle, "-F", "qcow2")
        self.other = lab.images.empty(lab.path("other"), self.fmt, SIZE)
        self.target = lab.images.empty(lab.path("target-image"), self.fmt, SIZE)
        self.sees = (self.image, self.fmt)
        self.name = "disk0"

    def args(self, image):
        return in_style(self.style, self.name, image, fmt=self.fmt)

    def disks(self):
        """As finish() wants them: what the guest sees against what the target got."""
        return [(self.name, self.sees[0], self.target, self.sees[1], self.fmt)]

    def io(self, source, command):
        source.io(io_name(self.style, "disk0"), command)

    def arguments(self, slow):
        """The command that starts the job and what it takes."""
        common = {"job_id": "job0", "device": "disk0", **({"speed": MIB} if slow else {})}
        if self.job in ("backup", "mirror"):
            if self.style.startswith("-blockdev"):
                return f"blockdev-{self.job}", {**common, "target": "other", "sync": "full"}
            return f"drive-{self.job}", {**common, "target": str(self.other), "format": self.fmt,
                                         "sync": "full", "mode": "existing"}
        if self.job == "stream":
            return "block-stream", common
        return "block-commit", common

    def prepare(self, source):
        """Before any job: a node to copy to, and something in the upper layers."""
        if self.style.startswith("-blockdev"):
            source.cmd("blockdev-add", driver=self.fmt, node_name="other",
                       file={"driver": "file", "filename": str(self.other)})
        if self.layers:
            self.io(source, "write -P 0x11 3M 5M")

    def start(self, source, lower=False):
        """Starts the job; it goes on until it is told otherwise."""
        execute, arguments = self.arguments(slow=self.job in ("backup", "stream") or lower)
        if lower:
            arguments["top"] = str(self.lab.path("middle"))
        source.cmd(execute, **arguments)
        if self.job in ("mirror", "commit") and not lower:
            source.qmp.wait_event("BLOCK_JOB_READY")

    def end(self, source, how):
        if how == "cancelled":
            source.cmd("block-job-cancel", device="job0")
        elif how == "pivots":
            source.cmd("block-job-complete", device="job0")
            self.sees = (self.other, self.fmt) if self.job == "mirror" else self.base
            if self.style.startswith("-blockdev"):
                # The guest's node is another one, and goes by its own name; that of a base is QEMU's choice.
                self.name = "other" if self.job == "mirror" else None
        else:
            source.cmd("block-job-set-speed", device="job0", speed=0)
        source.qmp.wait_event(*ENDED)


@case(NAMES, STYLES)
def job_ends_meanwhile(lab, job, style):
    """A block job holds the disk and ends: the migration is refused, fails, or arrives whole; the next one arrives"""
    disk0 = Disk(lab, style, job)
    source, target = start(lab, disk0.args(disk0.image), disk0.args(disk0.target))
    disk0.prepare(source)
    disk0.start(source, lower="lower" in job)
    info = begin(lab, source)
    disk0.end(source, job.split()[-1])
    # Whoever goes on all the same must notice what the guest writes from now on.
    disk0.io(source, "write -P 0x77 0 1M")
    disk0.io(source, "write -P 0x78 20M 1M")
    if info["status"] == "failed":
        failed(lab, source, target, "disk0")
    elif outcome(lab, source, target, disk0.disks(), "disk0") == "completed":
        return
    if disk0.name:
        again(lab, source, disk0.args(disk0.target), disk0.disks())


@case(["backup", "mirror", "stream", "commit"], STYLES)
def job_asked_for_meanwhile(lab, job, style):
    """A block job that is asked for meanwhile is refused, or harms nothing"""
    disk0 = Disk(lab, style, job)
    source, target = start(lab, disk0.args(disk0.image), disk0.args(disk0.target))
    disk0.prepare(source)
    begin(lab, source)
    execute, arguments = disk0.arguments(slow=False)
    if asks(lab, source, execute, **arguments):
        if job in ("mirror", "commit"):
            source.qmp.wait_event("BLOCK_JOB_READY")
            disk0.end(source, "pivots")
        else:
            source.qmp.wait_event(*ENDED)
    disk0.io(source, "write -P 0x77 0 1M")
    disk0.io(source, "write -P 0x78 20M 1M")
    if outcome(lab, source, target, disk0.disks(), "disk0") == "failed" and disk0.name:
        again(lab, source, disk0.args(disk0.target), disk0.disks())


@case(STYLES)
def job_at_the_end(lab, style):
    """A block job that still runs when all has been sent: the failure names it"""
    disk0 = Disk(lab, style, "backup")
    source, target = start(lab, disk0.args(disk0.image), disk0.args(disk0.target))
    disk0.prepare(source)
    disk0.start(source)
    source.migrate(lab.uri())
    source.wait_migration("failed")
    failed(lab, source, target, "job0")
    disk0.end(source, "cancelled")
    again(lab, source, disk0.args(disk0.target), disk0.disks())


@case(["the disk", "its file"], ["external", "internal", "mirror"], STYLES)
def layer_asked_for_meanwhile(lab, what, how, style):
    """A snapshot or a copy that is asked for meanwhile is refused, or harms nothing"""
    # Raw on its file, a snapshot of the file holds what the disk does.
    disk0 = Disk(lab, style, fmt="raw" if what == "its file" else None)
    source, target = start(lab, disk0.args(disk0.image), disk0.args(disk0.target))
    begin(lab, source)
    node = top_node(style, "disk0") if what == "the disk" else "disk0-file"
    overlay = lab.path("overlay")
    if how == "external":
        done = asks(lab, source, "blockdev-snapshot-sync", node_name=node, snapshot_file=str(overlay), format="qcow2",
                    snapshot_node_name="overlay")
        if done:
            disk0.sees = (overlay, "qcow2")
    elif how == "internal":
        asks(lab, source, "blockdev-snapshot-internal-sync", device=node, name="inner")
    else:
        lab.images.empty(overlay, "raw", SIZE)
        if asks(lab, source, "drive-mirror", job_id="job0", device=node, target=str(overlay), format="raw",
                sync="full"):
            source.qmp.wait_event("BLOCK_JOB_READY", *ENDED)
            if asks(lab, source, "block-job-complete", device="job0"):
                source.qmp.wait_event(*ENDED)
                disk0.sees = (overlay, "raw")
    disk0.io(source, "write -P 0x77 0 1M")
    disk0.io(source, "write -P 0x78 20M 1M")
    if outcome(lab, source, target, disk0.disks(), "disk0") == "failed":
        again(lab, source, disk0.args(disk0.target), disk0.disks())


@case(STYLES)
def export_at_the_end(lab, style):
    """A node that is written to from outside can't be handed over: the failure has a text"""
    disk0 = Disk(lab, style)
    source, target = start(lab, disk0.args(disk0.image), disk0.args(disk0.target))
    # No guest's, so it stays here, and QEMU finds out when all has been sent.
    image = lab.images.filled(lab.path("exported"), "raw", SIZE)
    source.cmd("blockdev-add", driver="raw", node_name="exported", file={"driver": "file", "filename": str(image)})
    source.cmd("nbd-server-start", addr={"type": "unix", "data": {"path": str(lab.path("nbd.sock"))}})
    source.cmd("block-export-add", type="nbd", id="export0", node_name="exported", writable=True)
    source.migrate(lab.uri())
    source.wait_migration("failed")
    failed(lab, source, target)
    source.cmd("nbd-server-stop")
    again(lab, source, disk0.args(disk0.target), disk0.disks())
