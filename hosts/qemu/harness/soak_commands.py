# SPDX-License-Identifier: GPL-2.0-only
"""The soak's commands: how each kind of a plan becomes a line to a monitor or a signal to a process."""
import signal
import threading
import time

from . import soak_disks
from .images import ImageError
from .qmp import QMPError
from .soak_plan import BAD, BOUND, MIB, QUERIES
from .vm import VMError


class Gone(Exception):
    """The process that should answer has ended."""


class Hang(Exception):
    """A monitor that should answer does not."""


def ask(vm, execute, **arguments):
    """Runs a command. QMPError is a refusal; a process that ended is Gone, one that does not answer has hung."""
    try:
        return vm.qmp.command(execute, **arguments)
    except QMPError as error:
        text = str(error)
        if "does not answer" in text and "timed out" in text:
            raise Hang(f"{vm.name}: {execute}: {text}") from None
        if "monitor is gone" in text or "does not answer" in text:
            try:
                vm.wait_exit(BOUND)  # a core may be being written
            except VMError as still:
                raise Hang(str(still)) from None
            raise Gone(f"{vm.name}: {execute}") from None
        raise


def hmp(vm, line):
    """HMP answers with a text, which is empty when all went well."""
    answer = ask(vm, "human-monitor-command", command_line=line)
    if answer.strip():
        raise QMPError(answer.strip())


class Commands:
    """Sends a round's commands, and remembers what was done to the two processes on purpose."""

    def __init__(self, vms, plan, folder, storages):
        self.vms, self.plan, self.folder, self.storages = vms, plan, folder, storages
        self.timers = []
        self.storage_error = None
        self.accepted = set()       # (side, kind)
        self.nodes = {"source": [], "target": []}
        self.added = {"source": [], "target": []}
        self.drives = {"source": [], "target": []}

    def later(self, seconds, function, *arguments):
        timer = threading.Timer(seconds, function, arguments)
        timer.start()
        self.timers.append(timer)

    def settle(self):
        """Waits until what stalls goes on."""
        for timer in self.timers:
            timer.join()
        self.timers.clear()
        if self.storage_error:
            raise self.storage_error

    def send(self, action):
        """Returns accepted, refused, or gone, and why."""
        try:
            getattr(self, action["kind"])(self.vms[action["side"]], action)
        except QMPError as error:
            return "refused", str(error)
        except Gone as error:
            return "gone", str(error)
        self.accepted.add((action["side"], action["kind"]))
        return "accepted", ""

    def disk(self, action):
        return self.plan["disks"][action["disk"]]

    def node(self, action):
        d = self.disk(action)
        return d["name"] if d["style"] == "blockdev" else f"n{d['number']}"

    def name(self, action):
        """By the device's name or its node's, which is the same for a -blockdev."""
        return self.disk(action)["name"] if action["how"] < 0.5 else self.node(action)

    def file(self, action, what):
        return str(self.folder / f"{what}-{action['side']}-{action['number']}")

    def speed(self, action):
        return {} if action["pick"] % 3 == 0 else {"speed": (1 << 20) * (1 + action["pick"] % 32)}

    # The processes

    def quit(self, vm, _):
        vm.asked = True
        try:
            ask(vm, "quit")
        except Gone:
            pass  # the answer and the end of the process race

    def sigterm(self, vm, _):
        vm.asked = True
        vm.process.send_signal(signal.SIGTERM)

    def kill(self, vm, _):
        vm.kill()

    def stall(self, vm, action):
        vm.process.send_signal(signal.SIGSTOP)
        self.later(action["seconds"], vm.process.send_signal, signal.SIGCONT)

    def storage_stall(self, _, action):
        storage = self.served(action)
        storage.signal(signal.SIGSTOP)
        self.later(action["seconds"], storage.signal, signal.SIGCONT)

    def storage_kill(self, _, action):
        storage = self.served(action)
        storage.end()
        self.later(action["seconds"], self.storage_back, storage)

    def storage_back(self, storage):
        try:
            storage.start()
        except ImageError as error:
            self.storage_error = error

    def served(self, action):
        storage = self.storages.get((action["side"], self.disk(action)["name"]))
        if not storage:
            raise QMPError("not behind a qemu-nbd")
        return storage

    def stop(self, vm, _):
        ask(vm, "stop")

    def cont(self, vm, _):
        ask(vm, "cont")

    def reset(self, vm, _):
        ask(vm, "system_reset")

    # The migration

    def migrate_cancel(self, vm, _):
        ask(vm, "migrate_cancel")

    def parameters(self, vm, action):
        # One that must not end yet (Round.slow) stays as slow as it is.
        may_be_fast = self.plan["asks"] or not self.plan["writes"]
        speed = {"max_bandwidth": MIB * (8 + action["pick"] % 64)} if may_be_fast else {}
        ask(vm, "migrate-set-parameters", downtime_limit=[1, 30, 200][action["pick"] % 3], **speed)

    def bad(self, vm, action):
        execute, arguments = BAD[action["pick"] % len(BAD)]
        if execute == "migrate" and action["at"] >= 0 and not self.plan["asks"]:
            raise QMPError("it would hide that the migration has completed")
        ask(vm, execute, **arguments)

    def query(self, vm, action):
        ask(vm, QUERIES[action["pick"] % len(QUERIES)])

    # Jobs

    def backup(self, vm, action):
        ask(vm, "drive-backup", device=self.name(action), job_id=f"job{action['number']}",
            target=self.file(action, "backup"), format="qcow2",
            sync="full", **self.speed(action))

    def mirror(self, vm, action):
        # A -blockdev keeps its name only if the target's node gets one of its own.
        ask(vm, "drive-mirror", device=self.name(action), job_id=f"job{action['number']}",
            target=self.file(action, "mirror"), format="qcow2",
            sync="full", node_name=f"mirror{action['number']}", **self.speed(action))

    def stream(self, vm, action):
        ask(vm, "block-stream", device=self.name(action), job_id=f"job{action['number']}", **self.speed(action))

    def commit(self, vm, action):
        ask(vm, "block-commit", device=self.name(action), job_id=f"job{action['number']}", **self.speed(action))

    def some_job(self, vm, action):
        jobs = ask(vm, "query-block-jobs")
        return jobs[action["pick"] % len(jobs)]["device"] if jobs else "nobody"

    def job_complete(self, vm, action):
        ask(vm, "block-job-complete", device=self.some_job(vm, action))

    def job_cancel(self, vm, action):
        ask(vm, "block-job-cancel", device=self.some_job(vm, action), force=action["how"] < 0.5)

    # Disks

    def snapshot(self, vm, action):
        ask(vm, "blockdev-snapshot-sync", node_name=self.node(action), snapshot_file=self.file(action, "snapshot"),
            format="qcow2",
            snapshot_node_name=f"snapshot{action['number']}")

    def resize(self, vm, action):
        more = [512, MIB, 3 * MIB][action["pick"] % 3]
        ask(vm, "block_resize", node_name=self.node(action), size=self.disk(action)["size"] // 512 * 512 + more)

    def reopen(self, vm, action):
        d = self.disk(action)
        if d["style"] != "blockdev":
            raise QMPError("no -blockdev")
        options = {"driver": d["format"], "node-name": d["name"], "file": f"f{d['number']}"}
        if d["backing"] and action["side"] == "source":
            options["backing"] = f"base{d['number']}"
        # What arrives while the target's file is copied would be missing in the copy.
        if action["how"] < 0.6 and action["side"] == "source":
            other = self.file(action, "other")
            with open(d["image"], "rb") as one, open(other, "wb") as two:
                two.write(one.read())
            ask(vm, "blockdev-add", driver="file", node_name=f"other{action['number']}", filename=other)
            options["file"] = f"other{action['number']}"
        elif action["pick"] % 2:
            options["discard"] = "unmap"
        else:
            options["read-only"] = True
        ask(vm, "blockdev-reopen", options=[options])

    def eject(self, vm, action):
        if action["how"] < 0.6:
            ask(vm, "eject", id="fdev", force=True)
        else:
            ask(vm, "eject", id=self.disk(action)["id"], force=True)

    def insert(self, vm, action):
        medium = self.folder / f"medium-{action['side']}-{action['number']}"
        medium.write_bytes(b"i" * (1440 * 1024))
        ask(vm, "blockdev-change-medium", id="fdev", filename=str(medium), format="raw")

    def device_add(self, vm, action):
        ask(vm, "blockdev-add", driver="null-co", node_name=f"hot{action['number']}", size=MIB, read_zeroes=True)
        bus = f"scsi{action['pick'] % 2}.0"
        ask(vm, "device_add", driver="scsi-hd", id=f"hotdev{action['number']}", bus=bus, scsi_id=6,
            drive=f"hot{action['number']}")
        self.added[action["side"]].append(f"hotdev{action['number']}")

    def device_del(self, vm, action):
        ask(vm, "device_del", id=self.disk(action)["id"])

    def blockdev_add(self, vm, action):
        ask(vm, "blockdev-add", driver="null-co", node_name=f"node{action['number']}", size=MIB, read_zeroes=True)
        self.nodes[action["side"]].append(f"node{action['number']}")

    def blockdev_del(self, vm, action):
        """One that is nobody's, or a disk's."""
        nodes = self.nodes[action["side"]]
        if action["how"] < 0.5:
            self.blockdev_add(vm, action)
        ask(vm, "blockdev-del", node_name=nodes.pop() if nodes else self.node(action))

    def drive_add(self, vm, action):
        drive = f"if=none,id=extra{action['number']},driver=null-co,read-zeroes=on,size=1M"
        answer = ask(vm, "human-monitor-command", command_line=f"drive_add 0 {drive}")
        if answer.strip() != "OK":
            raise QMPError(answer.strip())
        self.drives[action["side"]].append(f"extra{action['number']}")

    def drive_del(self, vm, action):
        hmp(vm, f"drive_del {self.disk(action)['name']}")

    def set_iothread(self, vm, action):
        ask(vm, "x-blockdev-set-iothread", node_name=self.node(action),
            iothread=["io0", "io1", None][action["pick"] % 3], force=action["how"] < 0.7)

    def throttle(self, vm, action):
        limit = MIB * (2 + action["pick"] % 32)
        hmp(vm, f"block_set_io_throttle {soak_disks.qdev(self.disk(action))} {limit} 0 0 0 0 0")

    def bitmap(self, vm, action):
        # Where the node is under a snapshot, no QEMU 7.2 could give up the disk: it can't store the bitmap.
        persistent = action["how"] < 0.5 and (action["side"], "snapshot") not in self.accepted
        ask(vm, "block-dirty-bitmap-add", node=self.node(action), name=f"bitmap{action['number']}",
            persistent=persistent)

    def unthrottle(self, vm):
        for d in self.plan["disks"]:
            try:
                hmp(vm, f"block_set_io_throttle {soak_disks.qdev(d)} 0 0 0 0 0 0")
            except QMPError:
                pass  # it has no medium, or is gone


def end_jobs(vm):
    """Cancels all jobs and waits for their ends."""
    deadline = time.monotonic() + BOUND
    while jobs := ask(vm, "query-block-jobs"):
        if time.monotonic() > deadline:
            raise Hang(f"{vm.name}: a job does not end: {jobs}")
        for job in jobs:
            try:
                ask(vm, "block-job-cancel", device=job["device"], force=True)
            except QMPError:
                pass  # it ends already
        time.sleep(0.02)
