# SPDX-License-Identifier: GPL-2.0-only
"""Block migration together with what else QEMU's migration can do, and between versions."""
from .cases_copy import arrive, finish, make_disk
from .crossed import STYLES, in_style, io_name, start
from .images import MIB
from .qmp import QMPError
from .runner import Skip, case, check
from .vm import disk


def try_capabilities(*vms, names):
    """Skips the case where a capability is unknown."""
    for vm in vms:
        try:
            vm.set_capabilities(*names)
        except Exception as error:  # whatever it says, there is nothing to test then
            raise Skip(f"no {' or '.join(names)} here: {error}") from None


@case(["multifd", "postcopy-ram", "switchover-ack", "auto-converge", "x-ignore-shared"], STYLES)
def with_capability(lab, name, style):
    """Together with another capability of QEMU's migration"""
    fmt = "qcow2" if "qcow2" in style else "raw"
    disks = [("disk0", lab.images.filled(lab.path("one"), fmt, 24 * MIB),
              lab.images.empty(lab.path("other"), fmt, 24 * MIB), fmt)]
    source = lab.vm("ours", "source", in_style(style, "disk0", disks[0][1]))
    target = lab.vm("ours", "target", in_style(style, "disk0", disks[0][2]), incoming="defer")
    try_capabilities(source, target, names=["return-path", name])
    target.cmd("migrate-incoming", uri=lab.uri())
    arrive(lab, source, target, disks)


@case(["raw", "qcow2"])
def mapped_ram(lab, fmt):
    """To a file with mapped-ram, and from there"""
    disks = [make_disk(lab, "disk0", fmt, 24 * MIB)]
    source = lab.vm("ours", "source", disk("disk0", disks[0][1], fmt))
    try_capabilities(source, names=["mapped-ram"])
    source.migrate(f"file:{lab.path('stream')}")
    source.wait_migration("completed")
    check(source.quit() == 0, source.log())
    target = lab.vm("ours", "target", disk("disk0", disks[0][2], fmt), incoming="defer")
    target.set_capabilities("mapped-ram")
    target.cmd("migrate-incoming", uri=f"file:{lab.path('stream')}")
    target.wait_arrival()
    check(target.quit() == 0, target.log())
    lab.images.same(disks[0][1], fmt, disks[0][2], fmt)


@case(STYLES)
def written_before_switchover(lab, style):
    """What is written in pre-switchover arrives"""
    fmt = "qcow2" if "qcow2" in style else "raw"
    disks = [("disk0", lab.images.filled(lab.path("one"), fmt, 24 * MIB),
              lab.images.empty(lab.path("other"), fmt, 24 * MIB), fmt)]
    source, target = start(lab, in_style(style, "disk0", disks[0][1]), in_style(style, "disk0", disks[0][2]))
    source.migrate(lab.uri(), capabilities=["pause-before-switchover"])
    source.wait_for(lambda i: i["status"] == "pre-switchover")
    source.io(io_name(style, "disk0"), f"write -P 77 {5 * MIB + 4096} 300k")
    source.cmd("migrate-continue", state="pre-switchover")
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)
    lab.images.holds(disks[0][2], fmt, 5 * MIB + 65536, 77)


@case(["x-colo", "cpr-reboot", "a snapshot"])
def refused_together(lab, what):
    """What can't go together with disks is refused before the first byte, with a text; the next one arrives"""
    disks = [make_disk(lab, "disk0", "qcow2", 8 * MIB)]
    source = lab.vm("ours", "source", disk("disk0", disks[0][1], "qcow2"))
    stream = lab.path("stream")
    source.set_capabilities("block")
    if what == "x-colo":
        try_capabilities(source, names=["x-colo", "return-path"])
    elif what == "cpr-reboot":
        try:
            source.qmp.command("migrate-set-parameters", mode="cpr-reboot")
        except QMPError as error:
            raise Skip(f"no modes here: {error}") from None
    if what == "a snapshot":
        text = source.hmp("savevm one")
        check("snapshot" in text and "ncompatible" in text, f"savevm says: {text}")
    else:
        text = refusal(source, f"exec:cat > {stream}")
        check(what.split("-")[-1] in text or "mode" in text, f"the text does not say why: {text}")
    lab.note(text.strip())
    check(not stream.exists() or stream.stat().st_size < MIB, "data was sent")
    source.assert_running()
    source.cmd("migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": False}])
    source.qom_set("enabled", False)
    if what == "cpr-reboot":
        source.cmd("migrate-set-parameters", mode="normal")
    target = lab.vm("ours", "target", disk("disk0", disks[0][2], "qcow2"), incoming=lab.uri())
    arrive(lab, source, target, disks)


def refusal(source, uri):
    """Starts a migration that is refused, at once or in its setup; returns the text."""
    try:
        source.qmp.command("migrate", uri=uri)
    except QMPError as error:
        return str(error)
    return source.wait_migration("failed").get("error-desc", "")


@case(["7.2 to 10.0", "10.0 to 7.2"], STYLES)
def between_versions(lab, route, style):
    """From one QEMU to another, both with this library"""
    source_host, target_host = route.split(" to ")
    lab.need_versions(source_host, target_host)
    fmt = "qcow2" if "qcow2" in style else "raw"
    disks = [("disk0", lab.images.filled(lab.path("one"), fmt, 32 * MIB),
              lab.images.empty(lab.path("other"), fmt, 32 * MIB), fmt)]
    source = lab.vm(source_host, "source", in_style(style, "disk0", disks[0][1]), accel="tcg")
    target = lab.vm(target_host, "target", in_style(style, "disk0", disks[0][2]), incoming=lab.uri(), accel="tcg")
    source.migrate(lab.uri(), bandwidth=32 * MIB, capabilities=["zero-blocks", "pause-before-switchover"])
    turn = 0
    while source.migration()["status"] in ("setup", "active") and turn < 100:
        source.io(io_name(style, "disk0"), f"write -q -P {turn % 255 + 1} {turn * 77 % 8000 * 4096} 8k")
        turn += 1
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    source.wait_for(lambda i: i["status"] == "pre-switchover")
    source.cmd("migrate-continue", state="pre-switchover")
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)
