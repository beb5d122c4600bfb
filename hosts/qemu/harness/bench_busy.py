# SPDX-License-Identifier: GPL-2.0-only
"""A guest that writes 4 KiB at random places while its disk moves over a limited link."""
import dataclasses
import pathlib
import random
import threading
import time

from . import qtest_guest
from .bench_contestants import BANDWIDTH, DISK, MIB, Pair, Reserve, jobs, wait
from .qtest_guest import QTestDisk
from .vm import VMError

PIECE = 4096
# What takes longer counts as never ending.
PATIENCE = 60


@dataclasses.dataclass
class BusyRun:
    """What one run took; without seconds if it did not end. Bytes that crossed the link, and writes that were made."""
    seconds: float | None
    bytes: int
    writes: int


class Writer:
    """A guest's driver that writes so many times a second, until it is stopped."""

    def __init__(self, pair, size, rate):
        self.disk = QTestDisk(qtest_path(pair.folder))
        self.places, self.rate = size // PIECE, rate
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        places = random.Random(1)
        start = time.monotonic()
        while not self.ends.is_set():
            due = int((time.monotonic() - start) * self.rate) - self.disk.submitted
            count = min(due, self.disk.free())
            if count > 0:
                self.disk.write([places.randrange(self.places) * PIECE for _ in range(count)])
            self.ends.wait(0.001 if due > 0 else 0.5 / self.rate)

    def stop(self):
        self.ends.set()
        self.thread.join(30)
        self.disk.close()

    @property
    def count(self):
        """How many writes there were."""
        return self.disk.submitted


def qtest_path(folder):
    return pathlib.Path(folder) / "source.qtest"


def stream(name, compression=0):
    """`migrate -b` with this library: classic or extended."""
    def run(folder, source, target, size, link, rate):
        with Pair("ours", folder, source, target, source_args=qtest_guest.arguments(qtest_path(folder))) as pair:
            Reserve(folder).release()
            pair.source.qom_set("stream", name)
            pair.source.qom_set("compression", compression)
            writer = Writer(pair, size, rate)
            start = time.monotonic()
            pair.source.migrate(pair.uri, link, capabilities=["pause-before-switchover"])
            ended = end(pair.source, writer)
            seconds = time.monotonic() - start
            return BusyRun(seconds if ended else None, pair.source.qom_get("stats")["wire-bytes"], writer.count)
    return run


def end(source, writer):
    """Whether the migration ends in time. When its guest has been stopped, it may write no more."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if source.migration()["status"] == "pre-switchover":
            writer.stop()
            source.cmd("migrate-continue", state="pre-switchover")
            source.wait_migration("completed")
            return True
        time.sleep(0.01)
    writer.stop()
    source.cmd("migrate_cancel")
    source.wait_migration("cancelled")
    return False


def mirror(folder, source, target, size, link, rate):
    """drive-mirror over NBD, then the rest."""
    with Pair("unmodified", folder, source, target, source_args=qtest_guest.arguments(qtest_path(folder))) as pair:
        Reserve(folder).release()
        one, two = pair.source, pair.target
        nbd = f"{folder}/nbd.sock"
        two.cmd("nbd-server-start", addr={"type": "unix", "data": {"path": nbd}})
        two.cmd("nbd-server-add", device=DISK, writable=True)
        writer = Writer(pair, size, rate)
        start = time.monotonic()
        one.cmd("drive-mirror", device=DISK, target=f"nbd+unix:///{DISK}?socket={nbd}", mode="existing",
                format="raw", sync="full", speed=link)
        try:
            wait(one, "the mirror's readiness", lambda: jobs(one)[0]["ready"], timeout=PATIENCE)
        except VMError:
            writer.stop()
            return BusyRun(None, jobs(one)[0]["offset"], writer.count)
        one.cmd("migrate-set-parameters", max_bandwidth=BANDWIDTH)
        one.set_capabilities("pause-before-switchover")
        one.cmd("migrate", uri=pair.uri)
        one.wait_for(lambda info: info["status"] == "pre-switchover")
        writer.stop()
        sent = jobs(one)[0]["offset"]
        one.cmd("block-job-cancel", device=DISK)
        wait(one, "the mirror's end", lambda: not jobs(one))
        two.cmd("nbd-server-stop")
        one.cmd("migrate-continue", state="pre-switchover")
        one.wait_migration("completed")
        seconds = time.monotonic() - start
        return BusyRun(seconds, sent, writer.count)


CONTESTANTS = {"classic": stream("classic"), "extended": stream("extended"), "drive-mirror": mirror}


def run_busy(rates, rounds, images, folder, only=(), size=1024 * MIB, link=125_000_000):
    """Yields (rate, contestant, run). What has arrived is checked byte for byte."""
    source = images.filled(folder / "source.raw", "raw", size)
    for rate in rates:
        for _ in range(rounds):
            for name, run in CONTESTANTS.items():
                if only and name not in only:
                    continue
                target = images.empty(folder / "target.raw", "raw", size)
                Reserve(folder).hold(size + (1 << 30))
                result = run(folder, (source, "raw"), (target, "raw"), size, link, rate)
                if result.seconds is not None:
                    images.same(source, "raw", target, "raw")
                yield rate, name, result
                target.unlink()
    source.unlink()
