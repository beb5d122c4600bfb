# SPDX-License-Identifier: GPL-2.0-only
"""What can be set at /blkmig."""
from .cases_copy import arrive, finish, make_disk
from .hosts import host
from .images import MIB
from .qmp import QMPError
from .runner import Failed, Skip, case, check
from .vm import VMError, disk

DEFAULTS = {"enabled": False, "shared-base": False, "zero-blocks": False, "accept-tail-garbage": False, "devices": "",
            "stream": "classic", "compression": 0, "max-buffers": 0, "max-reads": 0, "max-writes": 0}


def refused(vm, name, value, *words):
    """The property can't be set to this, and the text says why; its value stays."""
    before = vm.qom_get(name)
    try:
        vm.qmp.command("qom-set", path="/blkmig", property=name, value=value)
    except QMPError as error:
        for word in words:
            check(word in str(error), f"{name} = {value}: the text does not say '{word}': {error}")
    else:
        raise Failed(f"{name} could be set to {value}")
    check(vm.qom_get(name) == before, f"{name} has another value after it was refused")


@case()
def what_there_is(lab):
    """/blkmig has every setting with its default, and takes others"""
    name, one, _, fmt = make_disk(lab, "disk0", "raw", 4 * MIB)
    vm = lab.vm("ours", "source", disk(name, one, fmt))
    listed = {item["name"] for item in vm.cmd("qom-list", path="/blkmig")}
    check(listed == set(DEFAULTS) | {"type", "stats", "last-error"}, f"qom-list: {sorted(listed)}")
    for name, value in DEFAULTS.items():
        check(vm.qom_get(name) == value, f"{name} is {vm.qom_get(name)} at first")
        other = "extended" if name == "stream" else {bool: True, str: "disk0,disk1", int: 7}[type(value)]
        if name == "compression":
            vm.qom_set("stream", "extended")
        vm.qom_set(name, other)
        check(vm.qom_get(name) == other, f"{name} is {vm.qom_get(name)}, not {other}")
        vm.qom_set(name, value)
    # HMP has no types of its own.
    check(not vm.hmp("qom-set /blkmig max-reads 9").strip(), "HMP can't set it")
    check(vm.hmp("qom-get /blkmig max-reads").strip() == "9", "HMP can't get it")
    check(vm.qom_get("last-error") == "", vm.qom_get("last-error"))


@case()
def bad_values(lab):
    """/blkmig refuses what makes no sense and says why"""
    name, one, _, fmt = make_disk(lab, "disk0", "raw", 4 * MIB)
    vm = lab.vm("ours", "source", disk(name, one, fmt))
    for number in ("max-buffers", "max-reads", "max-writes"):
        refused(vm, number, (1 << 20) + 1, number.replace("-", "_"), "1048577", "1048576")
        refused(vm, number, -1)
        refused(vm, number, "many")
    refused(vm, "enabled", "perhaps")
    refused(vm, "stream", "newest", "newest")
    refused(vm, "compression", 3, "classic")
    vm.qom_set("stream", "extended")
    refused(vm, "compression", 99, "99", "19")
    vm.qom_set("compression", 3)
    refused(vm, "stream", "classic", "compression")
    refused(vm, "devices", "disk0,,disk1", "empty name")
    refused(vm, "last-error", "none")
    refused(vm, "stats", {})


@case()
def not_meanwhile(lab):
    """/blkmig refuses changes while a migration runs, on both sides"""
    disks = [make_disk(lab, "disk0", "raw", 32 * MIB, 0)]
    source, target = lab.pair(disks)
    source.migrate(lab.uri(), bandwidth=8 * MIB)
    source.wait_for(lambda i: i.get("disk", {}).get("transferred", 0) >= 2 * MIB)
    for vm in (source, target):
        for name, value in DEFAULTS.items():
            refused(vm, name, value, "in progress")
    stats = source.qom_get("stats")
    check(stats["bytes-total"] == 32 * MIB and stats["bytes-transferred"] > 0, f"no numbers: {stats}")
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    source.wait_migration("completed")
    target.wait_arrival()
    for vm in (source, target):
        vm.qom_set("max-reads", 3)
    finish(lab, source, target, disks)


@case()
def enabled_by_object(lab):
    """Disks are switched on at /blkmig, and stay on"""
    disks = [make_disk(lab, "disk0", "qcow2", 16 * MIB)]
    source, target = lab.pair(disks)
    source.cmd("migrate-set-parameters", max_bandwidth=1 << 30)
    source.qom_set("enabled", True)
    source.qom_set("max-buffers", 8)
    source.cmd("migrate", uri=lab.uri())
    source.wait_migration("completed")
    target.wait_arrival()
    check(source.qom_get("enabled"), "it is off now")
    stats = source.qom_get("stats")
    check(stats["bytes-transferred"] == 16 * MIB and stats["last-error"] == 0, f"wrong numbers: {stats}")
    check(0 < stats["buffers-peak"] <= 8, f"{stats['buffers-peak']} buffers where 8 were allowed")
    finish(lab, source, target, disks)


@case()
def enabled_is_the_capability(lab):
    """enabled and zero-blocks are the capabilities by another name"""
    lab.need_capability("a capability for disks")
    name, one, _, fmt = make_disk(lab, "disk0", "raw", 4 * MIB)
    vm = lab.vm("ours", "source", disk(name, one, fmt))
    for setting, capability in (("enabled", "block"), ("zero-blocks", "zero-blocks")):
        vm.set_capabilities(capability)
        check(vm.qom_get(setting), f"{setting} stays off")
        vm.qom_set(setting, False)
        states = {item["capability"]: item["state"] for item in vm.cmd("query-migrate-capabilities")}
        check(not states[capability], f"the capability {capability} stays on")
        vm.qom_set(setting, True)
        states = {item["capability"]: item["state"] for item in vm.cmd("query-migrate-capabilities")}
        check(states[capability], f"the capability {capability} stays off")


@case()
def enabled_from_the_start(lab):
    """The arguments of -plugin set what /blkmig has; a bad one ends QEMU with a text"""
    if not host("ours").by_object:
        raise Skip("it is not loaded with -plugin")
    name, one, other, fmt = make_disk(lab, "disk0", "raw", 8 * MIB)
    source = lab.vm("ours", "source", disk(name, one, fmt), settings="enabled=on,max-reads=2,devices=disk0")
    for name, value in {"enabled": True, "max-reads": 2, "devices": "disk0"}.items():
        check(source.qom_get(name) == value, f"{name} is {source.qom_get(name)}")
    target = lab.vm("ours", "target", disk("disk0", other, fmt), incoming=lab.uri())
    source.cmd("migrate", uri=lab.uri())
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, [("disk0", one, other, fmt)])
    bad = {"nonsense=1": "nonsense", "max-reads=9999999": "9999999", "enabled=perhaps": "enabled"}
    for settings, word in bad.items():
        try:
            lab.vm("ours", "bad", [], settings=settings)
        except VMError as error:
            check(word in str(error), f"{settings}: the text does not say '{word}': {error}")
        else:
            raise Failed(f"it started with {settings}")


@case()
def chosen_devices(lab):
    """Only the chosen devices move; the others are told of"""
    disks = [make_disk(lab, f"disk{number}", "raw", 8 * MIB, 0) for number in range(3)]
    source, target = lab.pair(disks)
    source.qom_set("devices", "disk2,disk0")
    source.migrate(lab.uri())
    source.wait_migration("completed")
    target.wait_arrival()
    check(source.quit() == 0 and target.quit() == 0, source.log() + target.log())
    differing = [lab.images.differing_mib(one, other) for _, one, other, _ in disks]
    check(differing == [0, 8, 0], f"MiBs that differ: {differing}")
    lines = [line for line in source.log().splitlines() if "disk1" in line]
    check(len(lines) == 1, f"{len(lines)} lines for disk1: {source.log()}")
    lab.note(lines[0])


@case()
def unknown_device(lab):
    """A chosen device that is not there: the migration fails and names it; the next one arrives"""
    disks = [make_disk(lab, "disk0", "raw", 8 * MIB)]
    source, target = lab.pair(disks)
    source.qom_set("devices", "disk0,nobody")
    source.migrate(lab.uri())
    text = source.wait_migration("failed").get("error-desc", "")
    check("nobody" in text, f"the text does not name it: {text}")
    check("nobody" in source.qom_get("last-error"), f"last-error: {source.qom_get('last-error')}")
    lab.note(text)
    source.assert_running()
    target.wait_exit()
    source.qom_set("devices", "")
    again = lab.vm("ours", "again", disk(disks[0][0], disks[0][2], "raw"), incoming=lab.uri("again"))
    arrive(lab, source, again, disks, uri="again")
