# SPDX-License-Identifier: GPL-2.0-only
"""Block migration together with what else QEMU's migration can do, and between versions."""
from .cases_copy import arrive, finish, make_disk
from .crossed import STYLES, in_style, io_name, start
from .hosts import host
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


@case(STYLES)
def postcopy(lab, style):
    """A postcopy migration that has switched; from the new place the guest goes on to a third"""
    fmt = "qcow2" if "qcow2" in style else "raw"
    one = lab.images.filled(lab.path("one"), fmt, 24 * MIB)
    images = [lab.images.empty(lab.path(name), fmt, 24 * MIB) for name in ("other", "third")]
    # Without anything in its RAM there would be nothing to move after the switch.
    data = lab.images.filled(lab.path("ram"), "raw", 40 * MIB)
    ram = ["-device", f"loader,file={data},addr=0x200000,force-raw=on"]
    source = lab.vm("ours", "source", ram + in_style(style, "disk0", one))
    target = lab.vm("ours", "target", in_style(style, "disk0", images[0]), incoming="defer")
    try_capabilities(source, target, names=["postcopy-ram", "events"])
    target.cmd("migrate-incoming", uri=lab.uri())
    source.migrate(lab.uri(), bandwidth=16 * MIB)
    source.wait_for(lambda i: i["status"] == "active")
    source.cmd("migrate-start-postcopy")
    # Which loads that anew: it has to be sent once more, wherever it was sent before the disks.
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0))
    source.cmd("system_reset")
    source.io(io_name(style, "disk0"), f"write -P 77 {5 * MIB + 4096} 300k")
    numbers = source.wait_migration("completed")["ram"]
    check("postcopy-active" in source.statuses(), f"it was never switched: {source.statuses()}")
    check(numbers["postcopy-bytes"] > 8 * MIB, f"little RAM came after the switch: {numbers}")
    lab.note(f"{numbers['postcopy-bytes'] // MIB} MiB of RAM came after the switch")
    target.wait_arrival()
    # What its guest writes is its own.
    target.io(io_name(style, "disk0"), f"write -P 78 {9 * MIB + 4096} 300k")
    check(source.quit() == 0, source.log())
    target.wait_for(lambda i: i.get("status") in (None, "completed"))
    target.cmd("migrate-set-capabilities", capabilities=[{"capability": "postcopy-ram", "state": False}])
    third = lab.vm("ours", "third", in_style(style, "disk0", images[1]), incoming=lab.uri("third"))
    arrive(lab, target, third, [("disk0", *images, fmt)], uri="third")
    for offset, byte in ((5 * MIB + 65536, 77), (9 * MIB + 65536, 78)):
        lab.images.holds(images[1], fmt, offset, byte)


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


CPR = ("cpr-reboot", "cpr-transfer", "cpr-exec")
# What QEMU itself asks of a guest for the last two.
SHARED_RAM = ["-object", "memory-backend-memfd,id=ram0,size=64M,share=on", "-machine",
              "memory-backend=ram0,aux-ram-share=on"]


@case(["x-colo", *CPR, "savevm", "snapshot-save"])
def refused_together(lab, what):
    """What can't go together with disks is refused before the first byte, with a text; the next one arrives"""
    disks = [make_disk(lab, "disk0", "qcow2", 8 * MIB)]
    ram = SHARED_RAM if what in CPR[1:] and host("ours").version >= (10, 0) else []
    source = lab.vm("ours", "source", ram + disk("disk0", disks[0][1], "qcow2", "node-name=disk0-node"))
    stream = lab.path("stream")
    source.set_capabilities("block")
    if what == "x-colo":
        try_capabilities(source, names=["x-colo", "return-path"])
    elif what in CPR:
        try:
            source.qmp.command("migrate-set-parameters", mode=what)
            if what == "cpr-exec":
                source.cmd("migrate-set-parameters", cpr_exec_command=["/bin/false"])
        except QMPError as error:
            raise Skip(f"no such mode here: {error}") from None
    if what == "savevm":
        text = source.hmp("savevm one")
    elif what == "snapshot-save":
        text = snapshot_save(source)
    else:
        text = refusal(source, what, stream)
    check("ncompatible" in text and any(word in text for word in (what, "snapshot", "mode")), f"it says: {text}")
    lab.note(text.strip())
    check(not stream.exists() or stream.stat().st_size < MIB, "data was sent")
    source.assert_running()
    source.cmd("migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": False}])
    source.qom_set("enabled", False)
    if what in CPR:
        source.cmd("migrate-set-parameters", mode="normal")
    target = lab.vm("ours", "target", ram + disk("disk0", disks[0][2], "qcow2"), incoming=lab.uri())
    arrive(lab, source, target, disks)


def snapshot_save(source):
    """QMP's way to take a snapshot; returns the text of its failure."""
    source.cmd("snapshot-save", job_id="job0", tag="one", vmstate="disk0-node", devices=["disk0-node"])
    while True:
        job, = source.cmd("query-jobs")
        if job["status"] == "concluded":
            source.cmd("job-dismiss", id="job0")
            return job.get("error", "")


def refusal(source, what, stream):
    """Starts a migration that is refused, at once or in its setup; returns the text."""
    channels = [{"channel-type": kind, "addr": {"transport": "exec", "args": ["/bin/sh", "-c", f"cat >> {stream}"]}}
                for kind in ("main", "cpr")]
    try:
        if what == "cpr-transfer":
            source.qmp.command("migrate", channels=channels)
        else:
            source.qmp.command("migrate", uri=f"exec:cat > {stream}")
    except QMPError as error:
        return str(error)
    return source.wait_migration("failed").get("error-desc", "")


@case(["7.2", "10.0", "10.0.13"], ["to ours", "from ours"], STYLES)
def between_versions(lab, version, way, style):
    """From one version to another, both with this library"""
    lab.need_older(version)
    source_host, target_host = (version, "ours") if way == "to ours" else ("ours", version)
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
