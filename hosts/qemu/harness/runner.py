# SPDX-License-Identifier: GPL-2.0-only
"""Runs cases, some at the same time, each in a folder of its own with QEMUs of its own."""
import concurrent.futures
import itertools
import pathlib
import shutil
import tempfile
import time
import traceback

from . import hosts
from .hosts import host
from .images import ImageError, Images
from .qmp import QMPError
from .vm import VM, VMError, disk

CASES = []


class Skip(Exception):
    """A case can't run here; the text says why."""


class Failed(Exception):
    """A case saw something wrong; the text says what."""


def case(*names):
    """Marks a function as a case; its parameters, if any, come from the product of the named lists."""
    def add(function):
        for values in itertools.product(*names):
            CASES.append((function, values))
        return function
    return add


def check(condition, text):
    if not condition:
        raise Failed(text)


class Lab:
    """What a case works with: a folder, images, and QEMUs that end with it."""

    def __init__(self, folder, images):
        self.folder = pathlib.Path(folder)
        self.images = images
        self.vms = []
        self.notes = []

    def note(self, text):
        """Something to tell beside the result."""
        self.notes.append(text)

    @staticmethod
    def need_arguments(what):
        """Skips the case where migrate has no arguments for disks: upstream removed them in 9.1."""
        if not host("ours").by_arguments:
            raise Skip(f"this QEMU has not got {what}")

    @staticmethod
    def need_capability(what):
        """Skips the case with the loadable object, where disks are no capability of QEMU's."""
        if host("ours").by_object:
            raise Skip(f"this QEMU has not got {what}")

    @staticmethod
    def need_older(version):
        """Skips a case between two versions if the other one is missing, or not older: two are tried together once."""
        if not hosts.is_older(version, hosts.chosen):
            raise Skip(f"{version} is no older version")
        if not host(version).binary.exists():
            raise Skip(f"there is no {host(version).binary}")

    @staticmethod
    def need_none_of(fault):
        """Skips the case where QEMU has this fault of its own (hosts.FAULTS)."""
        if host("ours").has_fault(fault):
            raise Skip(f"with no migration at all {fault}")

    def path(self, name):
        return self.folder / name

    def uri(self, name="migrate"):
        return f"unix:{self.folder / name}.sock"

    def vm(self, which, name, args, **options):
        """Starts a QEMU: "ours" or another of hosts.HOSTS."""
        vm = VM(which, self.folder, name, args, **options)
        self.vms.append(vm)
        return vm

    def pair(self, disks, source="ours", target="ours", **options):
        """Two QEMUs with the same disks, the second waits for the first. disks: (name, source, target, format)."""
        one = [arg for name, image, _, fmt in disks for arg in disk(name, image, fmt)]
        two = [arg for name, _, image, fmt in disks for arg in disk(name, image, fmt)]
        if "debian" in (source, target):
            # Debian's knows no qtest; a guest that stands still saves the emulation.
            options["accel"] = "tcg"
            one.append("-S")
            two.append("-S")
        return (self.vm(source, "source", one, **options),
                self.vm(target, "target", two, incoming=self.uri(), **options))

    def finish(self):
        """Ends what still runs; no QEMU may have died of a signal that it did not get from us."""
        dead = [vm for vm in self.vms if not vm.killed and (vm.process.poll() or 0) < 0]
        for vm in self.vms:
            vm.kill()
        for vm in dead:
            raise Failed(f"{vm.name} died of signal {-vm.process.returncode}: {vm.log()}")


def run_case(function, values, folder, images):
    """Returns the result (passed, failed, skipped), why, and the notes."""
    lab = Lab(folder, images)
    try:
        try:
            function(lab, *values)
        finally:
            lab.finish()
    except Skip as reason:
        return "skipped", str(reason), lab.notes
    except (Failed, VMError, QMPError, ImageError) as reason:
        return "failed", str(reason), lab.notes
    except Exception:  # a broken case must not end the run
        return "failed", traceback.format_exc(), lab.notes
    return "passed", "", lab.notes


def title(function, values):
    return ": ".join(filter(None, [function.__doc__.splitlines()[0].rstrip("."), ", ".join(map(str, values))]))


def run(pattern="", keep=False, jobs=1):
    """Runs the cases whose title holds the pattern, so many at the same time; returns whether none failed."""
    count = {"passed": 0, "failed": 0, "skipped": 0}
    failures = []
    parent = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 4 << 30 else None
    top = pathlib.Path(tempfile.mkdtemp(prefix="blkmig-", dir=parent))
    images = Images(top, host("ours").folder / "qemu-img")

    def run_in_folder(number, function, values):
        folder = top / str(number)
        folder.mkdir()
        start = time.monotonic()
        result, why, notes = run_case(function, values, folder, images)
        line = f"{result:8}{time.monotonic() - start:6.1f} s  {title(function, values)}{why and f' -- {why}'}"
        if not keep:
            shutil.rmtree(folder)
        return result, line, notes

    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        chosen = [(number, *entry) for number, entry in enumerate(CASES) if pattern in title(*entry)]
        for done in concurrent.futures.as_completed([pool.submit(run_in_folder, *entry) for entry in chosen]):
            result, line, notes = done.result()
            count[result] += 1
            print(line, flush=True)
            if result == "failed":
                failures.append(line)
            for text in notes:
                print(f"{'':16}  note: {text}", flush=True)
    finally:
        # Who interrupts it waits for no more than the cases that run.
        pool.shutdown(cancel_futures=True)
        if not keep:
            shutil.rmtree(top)
    # Once more where a reader of a long log looks first.
    for line in failures:
        print(line)
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return count["failed"] == 0
