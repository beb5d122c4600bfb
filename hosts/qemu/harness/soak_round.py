# SPDX-License-Identifier: GPL-2.0-only
"""One round of the soak: a migration with things going on, and what has to be true afterwards."""
import pathlib
import random
import shutil
import signal
import subprocess
import time

from . import soak_disks
from .hosts import host
from .images import ImageError, Images
from .qmp import QMPError
from .soak_commands import Commands, Gone, Hang, ask, end_jobs
from .soak_plan import BOUND, describe, make_plan
from .vm import ENDED, VM, VMError

SLOW = 16 << 10  # bytes a second: RAM alone takes much longer than any round writes


class Wrong(Exception):
    """A round saw what must not be."""


class Stuck(Exception):
    """QEMU 7.2's own hang."""


# Their names up to 8.2, and later.
MIGRATION_THREADS = {"live_migration", "return path", "mig/src/main", "mig/src/return"}


# What query-migrate says of a destination that nobody has called: nothing in 7.2.
UNCALLED = (None, "setup")


class Round:
    def __init__(self, seed, number, folder, binary="ours"):
        self.plan = make_plan(seed, number)
        self.folder, self.binary = folder, binary
        self.images = Images(folder, host(binary).folder / "qemu-img")
        self.lines = []             # the round's log
        self.results = []           # (side, kind, result)
        self.storages = {}
        self.vms = []
        self.start_time = time.monotonic()

    def log(self, text):
        self.lines.append(f"{time.monotonic() - self.start_time:7.3f} {text}")

    def vm(self, name, args, incoming=None):
        vm = VM(self.binary, self.folder, name, ["-name", "debug-threads=on", *args], incoming=incoming,
                accel=self.plan["accel"])
        vm.qmp.socket.settimeout(BOUND)
        vm.asked = False
        self.vms.append(vm)
        return vm

    def run(self):
        """Returns how the round ended; raises Wrong and its like."""
        try:
            return self._run()
        except Stuck:
            return "cancelled, stuck"
        except Hang:
            self.backtraces()
            raise
        except Gone as error:
            ended = [(v.name, v.process.poll(), v.log()[-600:]) for v in self.vms]
            raise Wrong(f"{error}: it has ended: {ended}") from None
        finally:
            try:
                if hasattr(self, "commands"):
                    self.commands.settle()
                for vm in self.vms:
                    if "Assertion `" in vm.log()[-600:]:
                        vm.wait_exit(BOUND)  # a core may be being written
            finally:
                dead = self.end()
            if dead:
                raise Wrong("; ".join(f"{vm.name} died of signal {-vm.process.returncode}: {vm.log()[-600:]}"
                                      for vm in dead))

    def end(self):
        """Ends all processes; returns those that had died of a signal that was not ours."""
        for vm in self.vms:
            vm.kill()
        for storage in self.storages.values():
            storage.end()
        return [vm for vm in self.vms if vm.process.returncode < 0
                and not (vm.killed and vm.process.returncode == -signal.SIGKILL)]

    def backtraces(self):
        """Who hangs may not do so in a replay: what can be known of it is kept, if there is a gdb."""
        for vm in self.vms:
            if vm.alive() and shutil.which("gdb"):
                with open(self.folder / f"{vm.name}.backtrace", "wb") as file:
                    subprocess.run(["gdb", "-q", "-batch", "-ex", "thread apply all bt", "-p", str(vm.process.pid)],
                                   stdin=subprocess.DEVNULL,
                                   stdout=file, stderr=subprocess.STDOUT, timeout=BOUND, check=False)

    def _run(self):
        plan, folder = self.plan, self.folder
        soak_disks.make_images(self.images, plan, folder)
        floppy = {"none": None, "empty": "", "medium": folder / "medium"}[plan["floppy"]]
        now = [(d, {"image": d["image"], "name": d["name"], "format": d["format"],
                    "nbd": self.serve("source", d, d["image"]),
                    "base": d.get("base")}) for d in plan["disks"]]
        self.source = self.vm("source", soak_disks.arguments(now, floppy))
        blocks = ask(self.source, "query-block")
        target = self.target("target", soak_disks.seen(blocks))
        self.commands = Commands({"source": self.source, "target": target}, plan, folder, self.storages)
        self.pending = list(plan["actions"])
        while self.pending and self.pending[0]["at"] < 0:
            self.act(self.pending.pop(0))
        end = self.migrate(target)
        self.commands.settle()
        self.log(f"end: {end}")
        if end == "completed":
            arrived = self.arrived(target)
            if arrived:
                self.compare(target, plan["kill_source"], plan["kill_target"])
            return "completed" if arrived else "completed, destination ended"
        # One that was asked to end tells of a cancelled migration before it does.
        if not self.source.alive() or self.source.asked or end == "source ended":
            self.source_ended(target)
            return "source ended"
        self.ends(target)
        self.again()
        return end

    def serve(self, name, disk, image):
        """Starts the disk's storage, if it has one; returns its socket."""
        if not disk["nbd"].get(name):
            return None
        socket = self.folder / f"{name}-{disk['name']}.nbd"
        self.storages[name, disk["name"]] = soak_disks.Storage(image, socket)
        return socket

    def target(self, name, found):
        """A destination with what the source has at the moment."""
        disks = []
        for d in self.plan["disks"]:
            there = found.get(d["id"], {"format": d["format"], "size": d["size"], "name": d["name"]})
            # The format of the plan: a raw disk that became a qcow2 may well be moved to a raw one.
            image = self.images.empty(self.folder / f"{name}-{d['name']}", d["format"], there["size"])
            node = d["name"] if d["style"] == "drive" else there["name"]
            disks.append((d, {"image": image, "name": node, "format": d["format"], "nbd": self.serve(name, d, image)}))
        floppy = None
        if self.plan["floppy"] != "none":
            floppy = ""
            if "fdev" in found:
                floppy = self.folder / f"{name}-floppy"
                self.images.empty(floppy, "raw", found["fdev"]["size"])
        return self.vm(name, soak_disks.arguments(disks, floppy), incoming=f"unix:{self.folder / name}.sock")

    def act(self, action):
        # A command after the block layer was taken down crashes any QEMU 7.2, which still serves its monitor then.
        asked = self.commands.vms[action["side"]].asked
        result, why = ("gone", "it was asked to end") if asked else self.commands.send(action)
        self.results.append((action["side"], action["kind"], result))
        self.log(f"{describe(action)}: {result} {why}")

    def capabilities(self, vm, asks):
        names = {"return-path": self.plan["return_path"], "pause-before-switchover": asks}
        settings = self.plan["settings"]
        if vm.host.by_object:
            settings = settings | {"enabled": True, "zero-blocks": self.plan["zero_blocks"]}
        else:
            names["zero-blocks"] = self.plan["zero_blocks"]
            if not vm.host.by_arguments:
                names["block"] = True
        for name, value in settings.items():
            ask(vm, "qom-set", path="/blkmig", property=name, value=value)
        ask(vm, "migrate-set-capabilities", capabilities=[{"capability": n, "state": s} for n, s in names.items()])

    def threads(self):
        """The names of the source's threads."""
        names = set()
        for file in pathlib.Path(f"/proc/{self.source.process.pid}/task").glob("*/comm"):
            try:
                names.add(file.read_text().strip())
            except OSError:
                pass  # it has ended
        return names

    def wait_cleanup(self):
        """A migration is reported as ended too early: QEMU 7.2 would mix it up with the next."""
        deadline = time.monotonic() + BOUND
        while (ask(self.source, "query-migrate").get("status") not in (None, *ENDED)
               or self.threads() & MIGRATION_THREADS):
            if time.monotonic() > deadline:
                raise Hang("a migration that has ended leaves its threads")
            time.sleep(0.01)
        ask(self.source, "query-status")  # behind the last step, which runs where the monitor does

    def start(self, target, asks, bandwidth):
        self.wait_cleanup()
        self.capabilities(self.source, asks)
        if self.plan["return_path"] and target.alive():
            ask(target, "migrate-set-capabilities", capabilities=[{"capability": "return-path", "state": True}])
        ask(self.source, "migrate-set-parameters", max_bandwidth=bandwidth, downtime_limit=self.plan["downtime"])
        switch = {"blk": True} if self.source.host.by_arguments else {}
        ask(self.source, "migrate", uri=f"unix:{self.folder / target.name}.sock", **switch)

    def migrate(self, target):
        """Runs the commands until the migration has ended; returns how."""
        plan = self.plan
        if not self.source.alive() or self.source.asked:
            return "source ended"
        # A write after the disks were given up is no guest's: QEMU aborts on it. A source that asks
        # before it switches is safe; another one does not get that far while it is slow.
        slow = plan["writes"] and not plan["asks"]
        try:
            self.start(target, plan["asks"], SLOW if slow else plan["bandwidth"])
        except QMPError as error:
            self.log(f"migrate refused: {error}")
            return "refused"
        except Gone:
            if self.source.asked or self.source.killed:
                return "source ended"
            if target.asked or target.killed:
                return "failed"
            raise
        begin = time.monotonic()
        writer = self.writer()
        continue_at = paused_since = None
        try:
            while True:
                passed = time.monotonic() - begin
                if self.source.asked and self.source.host.version >= (9, 1):
                    # QEMU 10.0's own: query-migrate aborts it while it takes its monitor down.
                    return "source ended"
                info = ask(self.source, "query-migrate")
                status = info.get("status")
                if status in ENDED:
                    self.log(f"migration: {status} {info.get('error-desc', '')}")
                    return status
                canceling = plan["asks"] and status == "cancelling" and continue_at != "sent"
                if canceling and self.status(self.source) == "finish-migrate":
                    # Any QEMU 7.2 that is canceled at the moment when it pauses before the switchover stays there.
                    paused_since = paused_since or passed
                    if passed > paused_since + 10:
                        raise Stuck
                if passed > BOUND + 10:
                    raise Hang(f"the migration does not end: {info}")
                if self.pending and self.pending[0]["at"] <= passed and continue_at != "sent":
                    self.act(self.pending.pop(0))
                    continue
                if status == "pre-switchover" and continue_at != "sent":
                    if continue_at is None:
                        continue_at = time.monotonic() + plan["pause"]
                    if time.monotonic() >= continue_at:
                        try:
                            ask(self.source, "migrate-continue", state="pre-switchover")
                        except QMPError as error:
                            self.log(f"migrate-continue: {error}")
                        continue_at = "sent"
                if slow and passed >= plan["write_for"]:
                    ask(self.source, "migrate-set-parameters", max_bandwidth=plan["bandwidth"])
                    slow = False
                if plan["writes"] and passed < plan["write_for"] and status == "active" and not self.source.asked:
                    writer()
                    time.sleep(plan["write_pause"])
                else:
                    time.sleep(0.01)
        except Gone:
            if self.source.asked or self.source.killed:
                return "source ended"
            raise

    def writer(self):
        """A function that writes as the guest would, to a place that only the seed decides."""
        rng = random.Random(self.plan["write_seed"])

        def write():
            d = rng.choice(self.plan["disks"])
            length = rng.choice([512, 4096, 65536, 65536, 300 * 512])
            offset = rng.randrange(0, d["size"] - length) // 512 * 512
            # With -z, HMP's qemu-io polls the disk's context itself, and aborts if that belongs to an iothread.
            threads = any(disk["iothread"] for disk in self.plan["disks"])
            zeroes = rng.random() < 0.1 and not threads
            self.write(d, f"write {'-z' if zeroes else f'-P {rng.randrange(1, 256)}'} {offset} {length}")
        return write

    def write(self, d, command):
        """Returns whether the disk took it."""
        device = d["name"] if d["style"] == "drive" else f"-d {soak_disks.qdev(d)}"
        before = len(self.source.log())
        answer = ask(self.source, "human-monitor-command", command_line=f'qemu-io {device} "{command}"')
        answer += self.source.log()[before:]
        return "failed" not in answer and "Error" not in answer and "not found" not in answer

    def status(self, vm):
        return ask(vm, "query-status")["status"]

    def exit_of(self, vm, *allowed):
        try:
            status = vm.wait_exit(BOUND)
        except VMError as error:
            raise Hang(str(error)) from None
        if not vm.killed and status not in allowed:
            raise Wrong(f"{vm.name} ended with status {status}: {vm.log()[-1500:]}")

    def arrived(self, target):
        """Whether the guest is there; if not, somebody must have ended it."""
        deadline = time.monotonic() + BOUND
        try:
            while self.status(target) == "inmigrate":
                if time.monotonic() > deadline:
                    raise Hang("the guest does not arrive")
                time.sleep(0.01)
            if not (target.asked or target.killed):
                return True
        except Gone:
            pass
        self.exit_of(target, 0, 1)
        # Without the return path the source can't know of the last bytes' fate.
        told = {kind for side, kind in self.commands.accepted if side == "target"} - {
            "query", "bad", "stop", "cont", "stall", "throttle", "parameters", "migrate_cancel", "storage_stall"}
        if not told:
            raise Wrong(f"completed, but nobody arrived: {target.log()[-1500:]}")
        return False

    def compare(self, target, kill_source, kill_target):
        source = self.source
        one = soak_disks.seen(ask(source, "query-block")) if source.alive() else {}
        other = soak_disks.seen(ask(target, "query-block"))
        # The order matters: what is not yet on the destination's disk must be lost with the process.
        for vm, kill in ((target, kill_target), (source, kill_source)):
            if kill:
                vm.kill()
            else:
                try:
                    ask(vm, "quit")
                except Gone:
                    pass
                self.exit_of(vm, 0)
        accepted = {kind for side, kind in self.commands.accepted if side == "target"}
        gone = accepted & {"eject", "insert", "drive_del", "device_del", "reset"}
        for device, found in one.items():
            if device not in other:
                if not gone and target.name == "target":
                    raise Wrong(f"{device} is missing at the destination")
                continue
            a, b = found["image"], other[device]["image"]
            if device == "fdev" and gone:
                continue
            self.images.tool("compare", "-f", found["format"], "-F", other[device]["format"], a, b)
            for path, entry, killed in ((a, found, kill_source), (b, other[device], kill_target)):
                if entry["format"] == "qcow2":
                    soak_disks.check_clean(self.images, path, killed)
        self.log(f"equal: {', '.join(one)}")

    def source_ended(self, target):
        killed = self.source.killed
        self.exit_of(self.source, 0)
        try:
            deadline = time.monotonic() + BOUND
            while target.alive() and self.status(target) == "inmigrate" and time.monotonic() < deadline:
                if ask(target, "query-migrate").get("status") in UNCALLED:
                    break  # nobody ever called
                time.sleep(0.02)
            if target.alive() and self.status(target) == "inmigrate" and time.monotonic() >= deadline:
                raise Hang("the destination waits for a source that is gone")
        except Gone:
            self.exit_of(target, 0, 1)
        for storage in self.storages.values():
            storage.end()
        for d in self.plan["disks"]:
            if d["format"] == "qcow2":
                soak_disks.check_clean(self.images, d["image"], killed)

    def ends(self, target):
        """A destination whose source gave up ends by itself, if anybody ever called it."""
        try:
            deadline = time.monotonic() + BOUND
            while target.alive():
                if self.status(target) != "inmigrate" or ask(target, "query-migrate").get("status") in UNCALLED:
                    break
                if time.monotonic() > deadline:
                    raise Hang("the destination waits for a source that gave up")
                time.sleep(0.02)
        except Gone:
            pass
        if target.alive() and not target.asked:
            target.kill()
        self.exit_of(target, 0, 1)

    def wait_gone(self, device):
        """QEMU keeps a drive until nothing can be looking at its device any more."""
        deadline = time.monotonic() + BOUND
        while device in soak_disks.seen(ask(self.source, "query-block")):
            if time.monotonic() > deadline:
                raise Hang(f"{device} does not go away")
            time.sleep(0.01)

    def again(self):
        """The source runs on, and its next migration, with nothing else going on, works."""
        source = self.source
        self.wait_cleanup()
        end_jobs(source)
        self.commands.unthrottle(source)
        status = self.status(source)
        # QEMU's own: a guest that was stopped is called "postmigrate" if its migration fails late (7.2), and
        # "prelaunch" once it was reset.
        expected = {"running", "paused", "postmigrate"}
        if ("source", "reset") in self.commands.accepted:
            expected.add("prelaunch")
        if status not in expected:
            raise Wrong(f"the source is {status} after a failed migration")
        if status != "running":
            if ("source", "stop") not in self.commands.accepted:
                raise Wrong("the source stands still after a failed migration")
            ask(source, "cont")
        for device in self.commands.added["source"]:
            ask(source, "device_del", id=device)
            self.wait_gone(device)
        for drive in self.commands.drives["source"]:
            ask(source, "human-monitor-command", command_line=f"drive_del {drive}")
        found = soak_disks.seen(ask(source, "query-block"))
        # What a reopen has made read-only is not moved; a resize may have left a raw disk with an odd end.
        skipped = {("source", "reopen")} & self.commands.accepted
        for d in self.plan["disks"]:
            if d["id"] in found and not skipped and not self.write(d, "write -P 77 0 64k"):
                if ("source", "device_del") not in self.commands.accepted:
                    raise Wrong(f"{d['name']} does not take a write after a failed migration: {source.log()[-800:]}")
                self.wait_gone(d["id"])
                del found[d["id"]]
        if skipped:
            return
        target = self.target("second", found)
        try:
            self.start(target, False, 1 << 30)
        except QMPError as error:
            raise Wrong(f"the next migration is refused: {error}") from None
        deadline = time.monotonic() + BOUND
        while (info := ask(source, "query-migrate")).get("status") not in ENDED:
            if time.monotonic() > deadline:
                raise Hang(f"the next migration does not end: {info}")
            time.sleep(0.01)
        if info["status"] != "completed":
            raise Wrong(f"the next migration {info['status']}: {info.get('error-desc', 'no error-desc')}; "
                        f"source: {source.log()[-600:]}; second: {target.log()[-600:]}")
        self.arrived(target)
        self.compare(target, self.plan["kill_source"], self.plan["kill_target"])


def run_round(seed, number, top):
    """Returns (end, why it failed or None, the round). A failed one's folder stays."""
    folder = top / f"round-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    this = Round(seed, number, folder)
    try:
        end = this.run()
    except (Wrong, Hang, VMError, QMPError, ImageError) as error:
        return "wrong", f"{type(error).__name__}: {error}", this
    shutil.rmtree(folder)
    return end, None, this
