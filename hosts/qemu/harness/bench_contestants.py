# SPDX-License-Identifier: GPL-2.0-only
"""What is compared: ways to move a disk from one process to another, and what each of them costs."""
import dataclasses
import os
import pathlib
import socket
import time

from . import hosts
from .vm import VM, VMError, disk

MIB = 1 << 20
DISK = "disk0"
# Far more than the machine can do.
BANDWIDTH = 10 << 30


@dataclasses.dataclass
class Run:
    """What one run took: both processes together, but for the memory, which is the larger growth of the two."""
    seconds: float
    cpu_seconds: float
    rss_kib: int
    read_bytes: int


class Reserve:
    """Memory that a run will need, held until the run starts.

    A virtual machine may give free memory back to its host, from which each page then costs several times as much as
    one that was freed a moment ago: it is luck who pays. Here everyone starts with the same.
    """

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "reserve"

    def hold(self, size):
        piece = bytes(MIB)
        with open(self.path, "wb") as file:
            for _ in range(size // MIB):
                file.write(piece)

    def release(self):
        self.path.unlink()


class Meter:
    """Measures the processes of a pair from its making to stop()."""

    def __init__(self, pair):
        self.vms = vms = (pair.source, pair.target)
        Reserve(pair.folder).release()
        for vm in vms:
            # The highest resident size counts from here.
            pathlib.Path(f"/proc/{vm.process.pid}/clear_refs").write_text("5")
        self.before = [self._read(vm) for vm in vms]
        self.start = time.monotonic()

    @staticmethod
    def _read(vm):
        proc = pathlib.Path(f"/proc/{vm.process.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        io = dict(line.split(":", 1) for line in (proc / "io").read_text().splitlines())
        return {"cpu": vm.cpu_seconds(), "read": int(io["rchar"]),
                "now": int(status["VmRSS"].split()[0]), "peak": int(status["VmHWM"].split()[0])}

    def stop(self):
        seconds = time.monotonic() - self.start
        after = [self._read(vm) for vm in self.vms]
        pairs = list(zip(self.before, after))
        return Run(seconds, sum(a["cpu"] - b["cpu"] for b, a in pairs),
                   max(a["peak"] - b["now"] for b, a in pairs), pairs[0][1]["read"] - pairs[0][0]["read"])


class Pair:
    """A source and a destination QEMU with one disk each, for one run."""

    def __init__(self, which, folder, source, target, target_options=(), source_args=()):
        self.folder = pathlib.Path(folder)
        self.uri = f"unix:{self.folder}/migrate.sock"
        self.source = VM(which, folder, "source", [*disk(DISK, *source), *source_args])
        try:
            self.target = VM(which, folder, "target", disk(DISK, *target, *target_options), incoming=self.uri)
        except VMError:
            self.source.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for vm in (self.source, self.target):
            vm.quit()


def block_migration(which, downtime_ms, zero_blocks):
    """`migrate -b` of one of the builds."""
    def run(folder, source, target):
        with Pair(which, folder, source, target) as pair:
            meter = Meter(pair)
            pair.source.migrate(pair.uri, BANDWIDTH, downtime_ms, capabilities=["zero-blocks"] if zero_blocks else [])
            return finish(pair, meter)
    return run


def drive_mirror(folder, source, target):
    """The way of the management layers: mirror to an NBD export, then migrate, and end the mirror at the switchover."""
    which = "unmodified" if hosts.chosen == "7.2" else "ours"
    with Pair(which, folder, source, target, ["detect-zeroes=unmap", "discard=unmap"]) as pair:
        one, two = pair.source, pair.target
        nbd = f"{folder}/nbd.sock"
        meter = Meter(pair)
        two.cmd("nbd-server-start", addr={"type": "unix", "data": {"path": nbd}})
        two.cmd("nbd-server-add", device=DISK, writable=True)
        one.cmd("drive-mirror", device=DISK, target=f"nbd+unix:///{DISK}?socket={nbd}", mode="existing",
                format="raw", sync="full", unmap=True)
        wait(one, "the mirror's readiness", lambda: jobs(one)[0]["ready"])
        one.cmd("migrate-set-parameters", max_bandwidth=BANDWIDTH)
        one.set_capabilities("pause-before-switchover")
        one.cmd("migrate", uri=pair.uri)
        one.wait_for(lambda info: info["status"] == "pre-switchover")
        one.cmd("block-job-cancel", device=DISK)
        wait(one, "the mirror's end", lambda: not jobs(one))
        two.cmd("nbd-server-stop")
        one.cmd("migrate-continue", state="pre-switchover")
        return finish(pair, meter)


def finish(pair, meter):
    """Both sides: when the source says "completed", the destination may still have something to take in."""
    pair.source.wait_migration("completed", timeout=600)
    pair.target.wait_arrival()
    return meter.stop()


def jobs(vm):
    return vm.cmd("query-block-jobs")


def wait(vm, what, reached, timeout=600):
    deadline = time.monotonic() + timeout
    while not reached():
        if time.monotonic() > deadline:
            raise VMError(f"{vm.name}: {what} does not come: {vm.log()}")
        time.sleep(0.01)


def socket_copy(folder, source, target):
    """Two processes, one buffer of 1 MiB each: read and send, receive and write. Nothing less can move a disk so."""
    ours, theirs = socket.socketpair()
    Reserve(folder).release()
    start = time.monotonic()
    sender = child(send, ours, source[0], close=theirs)
    receiver = child(receive, theirs, target[0], close=ours)
    ours.close()
    theirs.close()
    usage = [os.wait4(pid, 0) for pid in (sender, receiver)]
    seconds = time.monotonic() - start
    if any(status for _, status, _ in usage):
        raise VMError("the socket copy failed")
    return Run(seconds, sum(u.ru_utime + u.ru_stime for _, _, u in usage), MIB >> 10, os.path.getsize(source[0]))


def child(work, sock, path, close):
    pid = os.fork()
    if pid:
        return pid
    try:
        close.close()
        work(sock, path)
        os._exit(0)
    finally:
        os._exit(1)


def send(sock, path):
    buffer = memoryview(bytearray(MIB))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            sock.sendall(buffer[:size])


def receive(sock, path):
    buffer = memoryview(bytearray(MIB))
    with open(path, "r+b", buffering=0) as file:
        while size := sock.recv_into(buffer, MIB, socket.MSG_WAITALL):
            file.write(buffer[:size])
