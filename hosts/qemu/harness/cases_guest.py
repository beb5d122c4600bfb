# SPDX-License-Identifier: GPL-2.0-only
"""A real guest that writes all the time, and QEMU's own test."""
import os
import subprocess
import time

from . import guest, hosts
from .hosts import host
from .images import MIB
from .runner import Skip, case, check
from .vm import BUILD, CACHE, FIRMWARE, disk

GUEST_WORDS = ("READY", "VERIFY", "GUEST BAD")


@case(["ours to ours, raw", "ours to ours, qcow2, iothread, zero-blocks", "ours to ours, raw, postcopy",
       "ours to Debian's, raw", "7.2 to ours, qcow2, iothread"])
def real_guest(lab, how):
    """A guest that writes records all over its disk finds them all on the other side"""
    sides = [{"Debian's": "debian"}.get(side, side) for side in how.split(",")[0].split(" to ")]
    if "7.2" in sides:
        lab.need_older("7.2")
    fmt = "qcow2" if "qcow2" in how else "raw"
    # Debian's destination can't take a size that is no multiple of 1 MiB: it writes past the end.
    size = 128 * MIB + (0 if "Debian's" in how else 4096 * 3)
    options = ["discard=unmap"] if fmt == "qcow2" else []
    vms = []
    for name, which in zip(("source", "target"), sides):
        image = lab.images.empty(lab.path(name), fmt, size)
        # Postcopy waits for the disks, but is for a guest that writes to its RAM all the time.
        pause = 100000 if "postcopy" in how else 8000
        args = guest.arguments(lab.folder, name, pause_us=pause) + disk("disk0", image, fmt, *options)
        if "iothread" in how:
            args[-1] += ",iothread=thread0"
            args = ["-object", "iothread,id=thread0", *args]
        vms.append(lab.vm(which, name, args, accel="tcg", memory=guest.MEMORY, incoming=lab.uri() if vms else None))
    source, target = vms

    serial = guest.Serial(source)
    line = serial.expect(*GUEST_WORDS, timeout=90)
    check(line.startswith("READY"), line)
    if "postcopy" in how:
        for vm in vms:
            vm.set_capabilities("postcopy-ram", "events")
    source.migrate(lab.uri(), bandwidth=256 * MIB, downtime_ms=1 if "postcopy" in how else 500,
                   capabilities=["zero-blocks"] if "zero-blocks" in how else [])
    if "postcopy" in how:
        source.wait_for(lambda i: i["status"] == "active")
        source.cmd("migrate-start-postcopy")
    info = source.wait_migration("completed", timeout=120)
    check("postcopy" not in how or "postcopy-active" in source.statuses(), "it was never switched")
    target.wait_arrival()
    time.sleep(1)  # the guest writes on, on the other side

    serial = guest.Serial(target)
    serial.send("v")
    line = serial.expect(*GUEST_WORDS, timeout=90)
    check(line.startswith("VERIFY OK"), line)
    lab.note(f"{line}; {info['total-time']} ms, downtime {info['downtime']} ms")
    check(source.quit() == 0 and target.quit() == 0, source.log() + target.log())


@case()
def power_off(lab):
    """A guest that powers itself off while it moves: its QEMU ends as it should"""
    vms = []
    for name in ("source", "target"):
        image = lab.images.empty(lab.path(name), "qcow2", 64 * MIB)
        arguments = guest.arguments(lab.folder, name, pause_us=8000) + disk("disk0", image, "qcow2")
        vms.append(lab.vm("ours", name, arguments,
                          accel="tcg", memory=guest.MEMORY, incoming=lab.uri() if vms else None))
    source, target = vms
    serial = guest.Serial(source)
    line = serial.expect(*GUEST_WORDS, timeout=90)
    check(line.startswith("READY"), line)
    source.migrate(lab.uri(), bandwidth=4 * MIB)
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= 2 * MIB)
    serial.send("p")
    status = source.wait_exit()
    check(status == 0, f"the source ended with status {status}: {source.log()}")
    status = target.wait_exit()
    check(status == 1, f"the target ended with status {status}: {target.log()}")
    lab.images.tool("check", "-f", "qcow2", lab.path("source"))


@case(["raw", "qcow2"])
def iotest_183(lab, fmt):
    """QEMU's own iotest 183"""
    if hosts.chosen != "7.2":
        raise Skip("this is tried with --qemu 7.2")
    wrapper = lab.path("qemu")
    firmware = " ".join(map(str, FIRMWARE))
    wrapper.write_text(f'#!/bin/sh\nexec {host("7.2").binary} {firmware} "$@"\n')
    wrapper.chmod(0o755)
    source = CACHE / "source-modified/tests/qemu-iotests"
    environment = dict(os.environ, QEMU_PROG=str(wrapper), TEST_DIR=str(lab.path("scratch")),
                       SOCK_DIR=str(lab.path("sock")))
    for name in ("scratch", "sock"):
        lab.path(name).mkdir()
    check(source.is_dir(), f"no {source}")
    done = subprocess.run(["./check", f"-{fmt}", "183"], cwd=BUILD / "tests/qemu-iotests", env=environment,
                          capture_output=True, text=True, timeout=120, check=False)
    check(done.returncode == 0 and "Passed all 1 iotests" in done.stdout, done.stdout + done.stderr)
