# SPDX-License-Identifier: GPL-2.0-only
"""A migration that something comes across: what it is made of, and what may come of it.

It may be refused, it may fail, it may go on. It may not take a process down, and
"completed" means that the target holds what the guest saw last.
"""
import subprocess

from .cases_copy import finish
from .qmp import QMPError
from .runner import check
from .vm import disk, node

# How a disk is made and where its requests are served: two that have as little as possible in common.
STYLES = ["-drive, raw", "-blockdev, qcow2, iothread"]
THREAD = ["-object", "iothread,id=thread0"]


def in_style(style, name, image, *options, device="virtio-blk-pci", fmt=None):
    """The arguments for a disk in one of STYLES; a scsi device gets a controller of its own."""
    fmt = fmt or ("qcow2" if "qcow2" in style else "raw")
    served = ",iothread=thread0" if "iothread" in style else ""
    before = list(THREAD) if served else []
    if device.startswith("scsi"):
        before += ["-device", f"virtio-scsi-pci,id=scsi0{served}"]
    else:
        device += served
    if style.startswith("-blockdev"):
        return before + node(name, image, fmt, *options, device=device)
    return before + disk(name, image, fmt, f"node-name={name}-node", f"file.node-name={name}-file", *options,
                         device=f"{device},id={name}-device")


def top_node(style, name):
    """The node that the disk's device uses."""
    return name if style.startswith("-blockdev") else f"{name}-node"


def io_name(style, name, device="virtio-blk-pci"):
    """How VM.io calls the device."""
    if not style.startswith("-blockdev"):
        return name
    return f"-d {name}-device" if device.startswith("scsi") else f"-d /machine/peripheral/{name}-device/virtio-backend"


def start(lab, source_args, target_args, accel="qtest"):
    """A source and its target. Over the return path the target tells of its failures up to the very end."""
    source = lab.vm("ours", "source", source_args, accel=accel)
    target = lab.vm("ours", "target", target_args, incoming=lab.uri(), accel=accel)
    for vm in (source, target):
        vm.set_capabilities("return-path")
    return source, target


def begin(lab, source, bandwidth=8 << 20, capabilities=()):
    """Starts a migration that is slow enough for something to cross it. Returns when data is on its way."""
    source.migrate(lab.uri(), bandwidth=bandwidth, capabilities=capabilities)
    return source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= 2 << 20
                           or i["status"] in ("completed", "failed", "cancelled"))


def asks(lab, vm, execute, **arguments):
    """Runs a command that may be refused; returns whether it was done, and notes why not."""
    try:
        vm.qmp.command(execute, **arguments)
    except QMPError as error:
        # A monitor that is gone fails the case: the next command to it does.
        lab.note(str(error))
        return False
    return True


def outcome(lab, source, target, disks, *names):
    """Lets the migration end. It arrives whole, or it fails with a text that has these names and the source runs on.

    disks are what each side's guest sees now. Returns "completed" or "failed".
    """
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    info = source.wait_migration("completed", "failed")
    if info["status"] == "completed":
        target.wait_arrival()
        finish(lab, source, target, disks)
        lab.note("completed, the same")
        return "completed"
    failed(lab, source, target, *names)
    return "failed"


def failed(lab, source, target, *names):
    """The migration has failed with a text that has these names; the source runs on, the target has ended."""
    text = source.migration().get("error-desc", "")
    check(text, "failed without a text")
    for name in names:
        check(name in text, f"the text does not say '{name}': {text}")
    source.assert_running()
    status = target.wait_exit()
    check(status == 1, f"the target ended with status {status}: {target.log()}")
    lab.note(f"source: {text}")
    if target.log():
        lab.note(f"target: {target.log().splitlines()[-1]}")


def again(lab, source, target_args, disks, storage=None):
    """The next migration from the same source arrives whole."""
    source.assert_running()
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    target = lab.vm("ours", "again", target_args, incoming=lab.uri("again"))
    source.set_capabilities()
    source.migrate(lab.uri("again"))
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks, storage)


def hold_io(lab):
    """What to run a QEMU under so that its reads or writes wait while "hold-reads" or "hold-writes" exists."""
    source = __file__.rsplit("/", 1)[0] + "/hold_io.c"
    shim = lab.path("hold_io.so")
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", shim, source], check=True)
    return ["env", f"LD_PRELOAD={shim}", f"HOLD_READS={lab.path('hold-reads')}",
            f"HOLD_WRITES={lab.path('hold-writes')}"]
