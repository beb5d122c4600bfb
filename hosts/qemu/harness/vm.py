# SPDX-License-Identifier: GPL-2.0-only
"""One QEMU process, and how a migration between two goes."""
import pathlib
import subprocess
import time

from .hosts import CACHE, FIRMWARE as FIRMWARE_FOLDERS, host, machine
from .qmp import QMP, QMPError

BUILD = CACHE / "build-modified"
FIRMWARE = [arg for folder in FIRMWARE_FOLDERS for arg in ("-L", folder)]
MACHINE = ["-nodefaults", "-display", "none", "-cpu", "qemu64"]
ENDED = ("completed", "failed", "cancelled")
RUNNING = ("setup", "active", "pre-switchover", "device", "cancelling")
# A firmware that halts at the reset vector. The usual one resets the devices, and QEMU then waits for their requests
# with the big lock held: a case that holds requests back would hang there.
HALT = b"\xfa\xf4\xeb\xfd".rjust(65536 - 12, b"\xf4").ljust(65536, b"\xf4")
# What is a capability or a property of /blkmig, depending on the version.
SWITCHES = {"block": "enabled", "zero-blocks": "zero-blocks"}


class VMError(Exception):
    """A QEMU did not do what it should have done."""


def disk(name, path, fmt, *options, device="virtio-blk-pci"):
    """The arguments for a disk: a named drive and the device that shows it to the guest."""
    drive = f"if=none,id={name},file={path},format={fmt}"
    return ["-drive", ",".join([drive, *options]), "-device", f"{device},drive={name}"]


def node(name, path, fmt, *options, device="virtio-blk-pci"):
    """The same with -blockdev: nodes NAME and NAME-file, and a device whose id is NAME-device."""
    return ["-blockdev", f"driver=file,node-name={name}-file,filename={path}",
            "-blockdev", ",".join([f"driver={fmt},node-name={name},file={name}-file", *options]),
            "-device", f"{device},id={name}-device,drive={name}"]


class VM:
    """A QEMU process. It is running when the constructor returns; end it with quit() or kill()."""

    def __init__(self, which, folder, name, args, incoming=None, accel="qtest", memory=64, before=(),
                 settings=""):
        """which: one of hosts.HOSTS, or "ours". before: a command to run QEMU under, such as unshare. settings: for the
        loadable object, as in "enabled=on,max-reads=2"."""
        self.name = name
        self.host = host(which)
        self.folder = pathlib.Path(folder)
        self.monitor = self.folder / f"{name}.qmp"
        self.output = self.folder / f"{name}.log"
        self.killed = False
        data = [arg for folder in self.host.data for arg in ("-L", folder)]
        accel = self.host.accel if accel == "qtest" else accel
        plugin = ["-plugin", f"{self.host.plugin}{settings and ','}{settings}"] if self.host.plugin else []
        halt = self.folder / "halt.bin"
        if not halt.exists():
            halt.write_bytes(HALT)
        command = [*before, self.host.binary, *plugin, *data, *FIRMWARE, *MACHINE,
                   "-machine", f"{machine()},accel={accel}",
                   *([] if "-kernel" in args else ["-bios", halt]),
                   "-m", str(memory), "-qmp", f"unix:{self.monitor},server=on,wait=off",
                   *(["-incoming", incoming] if incoming else []), *args]
        with open(self.output, "wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=subprocess.STDOUT)
        try:
            self.qmp = QMP(str(self.monitor), self.alive)
        except QMPError as error:
            self.kill()
            raise VMError(f"{name} did not start: {error}: {self.log()}") from None

    def alive(self):
        return self.process.poll() is None

    def log(self):
        return self.output.read_text(errors="replace").strip()

    def cmd(self, execute, **arguments):
        try:
            return self.qmp.command(execute, **arguments)
        except QMPError as error:
            try:
                status = f"ended with status {self.process.wait(0.5)}"
            except subprocess.TimeoutExpired:
                status = "still runs"
            raise VMError(f"{self.name}: {error}; it {status}: {self.log()}") from None

    def hmp(self, line):
        return self.cmd("human-monitor-command", command_line=line)

    def io(self, device, command):
        """Reads or writes as the guest's device would: dirty tracking sees it."""
        before = len(self.log())
        answer = self.hmp(f'qemu-io {device} "{command}"') + self.log()[before:]
        if "failed" in answer or "Error" in answer:
            raise VMError(f"{self.name}: qemu-io {device} {command}: {answer.strip()}")

    def status(self):
        return self.cmd("query-status")["status"]

    def rss_kib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise VMError(f"{self.name} is gone")

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    # The end of the process

    def wait_exit(self, timeout=30):
        """The exit status; below 0 for a signal."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise VMError(f"{self.name} still runs: {self.log()}") from None

    def quit(self):
        if self.alive():
            try:
                self.qmp.command("quit")
            except QMPError:
                pass  # the answer and the end of the process race
        status = self.wait_exit()
        self.qmp.close()
        return status

    def kill(self):
        self.killed = True
        if self.alive():
            self.process.kill()
        self.process.wait(60)

    # Migration

    def migrate(self, uri, bandwidth=1 << 30, downtime_ms=300, incremental=False, capabilities=()):
        """Starts a block migration."""
        self.cmd("migrate-set-parameters", max_bandwidth=bandwidth, downtime_limit=downtime_ms)
        self.set_capabilities(*capabilities)
        if self.host.by_arguments:
            self.cmd("migrate", uri=uri, blk=not incremental, inc=incremental)
        else:
            self.set_capabilities("block")
            self.qom_set("shared-base", incremental)
            self.cmd("migrate", uri=uri)

    def qom_set(self, name, value):
        """Sets a property of /blkmig."""
        self.cmd("qom-set", path="/blkmig", property=name, value=value)

    def qom_get(self, name):
        return self.cmd("qom-get", path="/blkmig", property=name)

    def set_capabilities(self, *names):
        if self.host.by_object:
            for name in set(names) & set(SWITCHES):
                self.qom_set(SWITCHES[name], True)
            names = [name for name in names if name not in SWITCHES]
        self.cmd("migrate-set-capabilities",
                 capabilities=[{"capability": name, "state": True} for name in names])

    def migration(self):
        """query-migrate's answer. With the loadable object it says nothing of the disks, which /blkmig does."""
        info = self.cmd("query-migrate")
        if self.host.by_object and info.get("status") in RUNNING and self.qom_get("enabled"):
            stats = self.qom_get("stats")
            if stats["bytes-total"]:
                info["disk"] = {name: stats[f"bytes-{name}"] for name in ("transferred", "remaining", "total")}
        return info

    def statuses(self):
        """What the migrations have been through, with the capability events."""
        return [event["data"]["status"] for event in self.qmp.events if event["event"] == "MIGRATION"]

    def wait_migration(self, *wanted, timeout=60):
        """Waits for the end of an outgoing migration, which must be one of these; returns query-migrate's answer."""
        info = self.wait_for(lambda i: i.get("status") in ENDED, timeout)
        if info["status"] not in wanted:
            raise VMError(f"{self.name}: migration {info['status']}, not {' or '.join(wanted)}: "
                          f"{info.get('error-desc', 'no error-desc')}; {self.log()}")
        return info

    def wait_for(self, reached, timeout=60):
        """Polls query-migrate until reached(answer)."""
        deadline = time.monotonic() + timeout
        while True:
            info = self.migration()
            if reached(info):
                return info
            if time.monotonic() > deadline:
                raise VMError(f"{self.name}: migration stays {info}")
            time.sleep(0.01)

    def wait_arrival(self, timeout=30):
        """Waits until an incoming guest has arrived."""
        deadline = time.monotonic() + timeout
        while self.status() == "inmigrate":
            if time.monotonic() > deadline:
                raise VMError(f"{self.name}: the guest does not arrive: {self.log()}")
            time.sleep(0.01)

    def assert_running(self):
        """The guest still runs, and its disks still answer."""
        if not self.alive() or self.status() != "running":
            state = self.status() if self.alive() else f"exited with {self.process.returncode}"
            raise VMError(f"{self.name} should run its guest, but is {state}: {self.log()}")
