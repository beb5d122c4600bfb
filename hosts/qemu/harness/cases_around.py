# SPDX-License-Identifier: GPL-2.0-only
"""Disks that change, appear, may not be written to, or have unusual places and names."""
from .cases_copy import accept_tail_garbage, arrive, finish
from .crossed import STYLES, again, asks, begin, failed, in_style, io_name, outcome, start
from .images import MIB
from .qmp import QMPError
from .runner import Skip, case, check
from .vm import disk, node

SIZE = 32 * MIB


def format_of(style):
    return "qcow2" if "qcow2" in style else "raw"


def spare(name, path):
    """A drive that no device uses."""
    return ["-drive", f"if=none,id={name},file={path},format=raw"]


# What is under the disk, or the disk itself, changes on the source.

def reopened(style, **changes):
    """Arguments for blockdev-reopen of in_style's disk0."""
    name = "disk0" if style.startswith("-blockdev") else "disk0-node"
    return {"driver": format_of(style), "node-name": name, **changes}


@case(STYLES)
def reopened_with_another_file(lab, style):
    """blockdev-reopen puts another file under the disk: never completed with a mix of both"""
    fmt = format_of(style)
    one = lab.images.filled(lab.path("one"), fmt, SIZE)
    other = lab.images.empty(lab.path("other"), fmt, SIZE)
    replacement = lab.images.empty(lab.path("replacement"), fmt, SIZE)
    source, target = start(lab, in_style(style, "disk0", one), in_style(style, "disk0", other))
    source.cmd("blockdev-add", driver="file", node_name="replacement", filename=str(replacement))
    begin(lab, source)
    done = asks(lab, source, "blockdev-reopen", options=[reopened(style, file="replacement")])
    sees = replacement if done else one
    disks = [("disk0", sees, other, fmt)]
    if outcome(lab, source, target, disks, "disk0") == "failed":
        again(lab, source, in_style(style, "disk0", lab.images.empty(other, fmt, SIZE)), disks)


@case(["another file", "another length"])
def changes_and_changes_back(lab, what):
    """What is under the disk changes and changes back: never completed, unless it was refused"""
    one = lab.images.filled(lab.path("one"), "raw", SIZE)
    other = lab.images.empty(lab.path("other"), "raw", SIZE)
    replacement = lab.images.filled(lab.path("replacement"), "raw", SIZE, 0.5)
    args = ["-blockdev", f"driver=file,node-name=file1,filename={replacement}"]

    def raw_disk(image):
        return ["-blockdev", f"driver=file,node-name=file0,filename={image}",
                "-blockdev", "driver=raw,node-name=disk0,file=file0", "-device", "virtio-blk-pci,drive=disk0"]
    source, target = start(lab, args + raw_disk(one), raw_disk(other))
    begin(lab, source)
    done = False
    for there in (True, False):
        if what == "another file":
            node = "file1" if there else "file0"
            done |= asks(lab, source, "blockdev-reopen",
                         options=[{"driver": "raw", "node-name": "disk0", "file": node}])
        else:
            done |= asks(lab, source, "block_resize", node_name="file0", size=SIZE // 2 if there else SIZE)
    how = outcome(lab, source, target, [("disk0", one, other, "raw")], "disk0")
    check(not (done and how == "completed"), "completed, though it was another disk for a time")


@case(["another", "no"], ["", ", iothread"])
def reopened_with_another_backing(lab, which, thread):
    """blockdev-reopen changes the disk's backing file: never completed with a mix of both"""
    style = f"-blockdev, qcow2{thread}"
    bases = [lab.images.filled(lab.path("base0"), "raw", SIZE), lab.images.empty(lab.path("base1"), "raw", SIZE)]
    one = lab.images.empty(lab.path("one"), "qcow2", SIZE, "-b", bases[0], "-F", "raw")
    other = lab.images.empty(lab.path("other"), "qcow2", SIZE)
    bases_args = []
    for number, image in enumerate(bases):
        bases_args += ["-blockdev", f"driver=raw,node-name=base{number},file.driver=file,file.filename={image}"]
    source, target = start(lab, bases_args + in_style(style, "disk0", one, "backing=base0"),
                           in_style(style, "disk0", other))
    begin(lab, source)
    done = asks(lab, source, "blockdev-reopen", options=[
        reopened(style, file="disk0-file", backing="base1" if which == "another" else None)])
    # Without its backing file, or with an empty one, the guest sees zeroes.
    disks = [("disk0", bases[1] if done else bases[0], other, "raw", "qcow2")]
    if outcome(lab, source, target, disks, "disk0") == "failed":
        again(lab, source, in_style(style, "disk0", other), disks)


@case(["", ", iothread"])
def quorum_changes(lab, thread):
    """x-blockdev-change takes the first child from under the disk: never completed with a mix of both"""
    images = [lab.images.filled(lab.path("first"), "raw", SIZE), lab.images.empty(lab.path("second"), "raw", SIZE)]
    other = lab.images.empty(lab.path("other"), "raw", SIZE)
    args = ["-object", "iothread,id=thread0"]
    for number, image in enumerate(images):
        args += ["-blockdev", f"driver=raw,node-name=child{number},file.driver=file,file.filename={image}"]
    args += ["-blockdev", "driver=quorum,node-name=disk0,children.0=child0,children.1=child1,vote-threshold=1,"
                          "read-pattern=fifo",
             "-device", "virtio-blk-pci,drive=disk0" + thread.replace("iothread", "iothread=thread0").replace(" ", "")]
    source, target = start(lab, args, in_style("-blockdev, raw", "disk0", other))
    begin(lab, source)
    done = asks(lab, source, "x-blockdev-change", parent="disk0", child="children.0")
    outcome(lab, source, target, [("disk0", images[1] if done else images[0], other, "raw")], "disk0")


@case(STYLES)
def another_node(lab, style):
    """The device is given another node: never completed with a mix of both"""
    if "iothread" in style:
        lab.need_none_of("it aborts when a device in an iothread gets another node")
    fmt = format_of(style)
    one = lab.images.filled(lab.path("one"), fmt, SIZE)
    other = lab.images.empty(lab.path("other"), fmt, SIZE)
    replacement = lab.images.empty(lab.path("replacement"), fmt, SIZE)
    source, target = start(lab, in_style(style, "disk0", one), in_style(style, "disk0", other))
    source.cmd("blockdev-add", driver=fmt, node_name="replacement",
               file={"driver": "file", "filename": str(replacement)})
    begin(lab, source)
    done = asks(lab, source, "qom-set", path="/machine/peripheral/disk0-device/virtio-backend", property="drive",
                value="replacement")
    outcome(lab, source, target, [("disk0", replacement if done else one, other, fmt)])


# What was no disk at setup becomes one.

@case(STYLES)
def grows_from_nothing(lab, style):
    """A disk of no size is resized and written to meanwhile: refused, or the migration fails"""
    fmt = format_of(style)
    one = lab.images.filled(lab.path("one"), "raw", SIZE)
    other = lab.images.empty(lab.path("other"), "raw", SIZE)
    nothing = [lab.images.empty(lab.path(name), fmt, 0) for name in ("nothing-one", "nothing-other")]
    source, target = start(lab, in_style(style, "grown", nothing[0]) + disk("disk0", one, "raw"),
                           in_style(style, "grown", nothing[1]) + disk("disk0", other, "raw"))
    begin(lab, source)
    arguments = {"node_name": "grown"} if style.startswith("-blockdev") else {"device": "grown"}
    grown = asks(lab, source, "block_resize", size=4 * MIB, **arguments)
    if grown:
        source.io(io_name(style, "grown"), "write -P 7 0 1M")
    how = outcome(lab, source, target, [("disk0", one, other, "raw")], *(["grown"] if grown else []))
    check(not (grown and how == "completed"), "completed without what was written to the disk that has grown")


@case(["floppy", "scsi-hd, -drive", "scsi-hd, -blockdev"])
def gets_a_medium(lab, which):
    """An empty drive gets a medium and is written to meanwhile: refused, or the migration fails"""
    size = 1440 * 1024
    one = lab.images.filled(lab.path("one"), "raw", SIZE)
    other = lab.images.empty(lab.path("other"), "raw", SIZE)
    media = [lab.images.empty(lab.path(name), "raw", size) for name in ("medium-one", "medium-other")]
    args = []
    for image in media:
        if which == "floppy":
            args.append(["-drive", f"if=floppy,id=drive1,file={image},format=raw"])
        else:
            args.append(in_style(which.split()[1] + ", raw", "drive1", image, device="scsi-hd,removable=on"))
    source, target = start(lab, args[0] + disk("disk0", one, "raw"), args[1] + disk("disk0", other, "raw"))
    drive = {"device": "drive1"} if which == "floppy" else {"id": "drive1-device"}
    source.cmd("eject", force=True, **drive)
    begin(lab, source)
    inserted = asks(lab, source, "blockdev-change-medium", filename=str(media[0]), format="raw",
                    read_only_mode="read-write", **drive)
    if inserted:
        source.io("drive1" if "blockdev" not in which else "-d drive1-device", "write -P 7 0 64k")
    how = outcome(lab, source, target, [("disk0", one, other, "raw")])
    check(not (inserted and how == "completed"), "completed without what was written to the new medium")


@case(STYLES)
def becomes_writable(lab, style):
    """A read-only disk becomes writable and is written to meanwhile: refused, or the migration fails"""
    if style.startswith("-drive"):
        lab.need_none_of("a write hangs after blockdev-reopen made a scsi disk writable")
    fmt = format_of(style)
    one = lab.images.filled(lab.path("one"), "raw", SIZE)
    other = lab.images.empty(lab.path("other"), "raw", SIZE)
    images = [lab.images.empty(lab.path(name), fmt, MIB) for name in ("sealed-one", "sealed-other")]
    # A scsi-hd takes what it is given; a virtio-blk asks for a writable one once.
    option = "read-only=on" if style.startswith("-blockdev") else "readonly=on"
    source, target = start(
        lab, in_style(style, "sealed", images[0], option, device="scsi-hd") + disk("disk0", one, "raw"),
        in_style(style, "sealed", images[1], device="scsi-hd") + disk("disk0", other, "raw"))
    begin(lab, source)
    name = "sealed" if style.startswith("-blockdev") else "sealed-node"
    opened = asks(lab, source, "blockdev-reopen", options=[
        {"driver": "file", "node-name": "sealed-file", "filename": str(images[0]), "read-only": False},
        {"driver": fmt, "node-name": name, "file": "sealed-file", "read-only": False}])
    if opened:
        source.io(io_name(style, "sealed", "scsi-hd"), "write -P 7 0 64k")
    how = outcome(lab, source, target, [("disk0", one, other, "raw")])
    check(not (opened and how == "completed"), "completed without what was written to the disk that was read-only")


# Who may not write.

READ_ONLY_DEVICES = {"ide-cd": [], "scsi-cd": ["-device", "virtio-scsi-pci"]}


def second_drive(name, image, kind):
    """A writable drive that only such a device uses."""
    return READ_ONLY_DEVICES[kind] + disk(name, image, "raw", device=kind)


@case(READ_ONLY_DEVICES)
def nobody_writes(lab, kind):
    """A drive that no guest can write to is left out, and the log says so"""
    disks = [("disk0", lab.images.filled(lab.path("one"), "raw", 8 * MIB),
              lab.images.empty(lab.path("other"), "raw", 8 * MIB), "raw")]
    more = [second_drive("drive1", lab.images.filled(lab.path(name), "raw", 4 * MIB), kind) for name in ("a", "b")]
    source, target = start(lab, more[0] + disk("disk0", disks[0][1], "raw"),
                           more[1] + disk("disk0", disks[0][2], "raw"))
    arrive(lab, source, target, disks)
    lines = [line for line in source.log().splitlines() if "drive1" in line]
    check(len(lines) == 1, f"drive1 is not left out with one line: {source.log()}")
    lab.note(lines[0])


@case(["ours", "debian"])
def no_device(lab, which):
    """A drive that no device uses moves like any other"""
    disks = [(name, lab.images.filled(lab.path(f"{name}-one"), "raw", 8 * MIB),
              lab.images.empty(lab.path(f"{name}-other"), "raw", 8 * MIB), "raw") for name in ("disk0", "drive1")]
    source, target = (lab.vm(who, name, disk("disk0", disks[0][side], "raw") + spare("drive1", disks[1][side]) + ["-S"],
                             incoming=lab.uri() if side == 2 else None, accel="tcg")
                      for who, name, side in ((which, "source", 1), ("ours", "target", 2)))
    arrive(lab, source, target, disks, downtime_ms=1)


@case(READ_ONLY_DEVICES, ["ours", "debian"])
def target_may_not_write(lab, kind, which):
    """Only the destination's device can't write: an error that names the drive"""
    disks = [("drive1", lab.images.filled(lab.path("one"), "raw", 8 * MIB),
              lab.images.empty(lab.path("other"), "raw", 8 * MIB), "raw")]
    source = lab.vm(which, "source", disk("drive1", disks[0][1], "raw"), accel="tcg")
    target = lab.vm("ours", "target", second_drive("drive1", disks[0][2], kind), incoming=lab.uri(), accel="tcg")
    for vm in (source, target):
        vm.set_capabilities("return-path")
    source.migrate(lab.uri(), downtime_ms=1)
    info = source.wait_migration("completed", "failed")
    check(info["status"] == "failed", "the migration completed")
    source.assert_running()
    status = target.wait_exit()
    check(status == 1 and "drive1" in target.log(), f"the target ended with status {status}: {target.log()}")


@case()
def left_out(lab):
    """The log has a line for each device that is left out, with the reason"""
    one = lab.images.filled(lab.path("one"), "raw", 8 * MIB)
    other = lab.images.empty(lab.path("other"), "raw", 8 * MIB)
    sealed = lab.images.filled(lab.path("sealed"), "raw", MIB)
    lab.path("nothing").touch()
    # Both sides have them open.
    more = (disk("sealed0", sealed, "raw", "readonly=on")
            + disk("nothing0", lab.path("nothing"), "raw", "file.locking=off")
            + ["-drive", "if=none,id=empty0", "-device", "ide-cd,drive=empty0"])
    source, target = start(lab, more + disk("disk0", one, "raw"), more + disk("disk0", other, "raw"))
    source.migrate(lab.uri())
    source.wait_migration("completed")
    target.wait_arrival()
    for name in ("sealed0", "nothing0", "empty0"):
        lines = [line for line in source.log().splitlines() if name in line]
        check(len(lines) == 1, f"{len(lines)} lines for {name}: {source.log()}")
        lab.note(lines[0])
    finish(lab, source, target, [("disk0", one, other, "raw")])


# Unusual places and names.

@case(["scsi-hd", "virtio-blk-pci"], STYLES)
def target_in_iothread(lab, device, style):
    """The destination's disk lives in an iothread when the stream arrives, the source's does not"""
    fmt = format_of(style)
    target_style = style if "iothread" in style else style + ", iothread"
    for turn in range(2):
        one = lab.images.filled(lab.path("one"), fmt, 64 * MIB, 0.5)
        other = lab.images.empty(lab.path("other"), fmt, 64 * MIB)
        source = lab.vm("ours", f"source{turn}",
                        in_style(style.replace(", iothread", ""), "disk0", one, device=device))
        target = lab.vm("ours", f"target{turn}", in_style(target_style, "disk0", other, device=device),
                        incoming=lab.uri(str(turn)))
        source.migrate(lab.uri(str(turn)), capabilities=["zero-blocks"])
        source.wait_migration("completed", timeout=15)
        target.wait_arrival()
        finish(lab, source, target, [("disk0", one, other, fmt)])


@case(["throttle", "copy-on-read"], ["raw", "qcow2"])
def under_a_filter(lab, driver, fmt):
    """A device on a filter goes by the name that the user gave"""
    disks = [("top0", lab.images.filled(lab.path("one"), fmt, 16 * MIB, 0.4),
              lab.images.empty(lab.path("other"), fmt, 16 * MIB), fmt)]
    args = []
    for image in disks[0][1:3]:
        args.append(["-object", "throttle-group,id=group0", *node("disk0", image, fmt)[:-2], "-blockdev",
                     f"driver={driver},node-name=top0,file=disk0"
                     + (",throttle-group=group0" if driver == "throttle" else ""),
                     "-device", "virtio-blk-pci,drive=top0"])
    source, target = start(lab, *args)
    arrive(lab, source, target, disks)


@case(STYLES)
def thin(lab, style):
    """An empty qcow2 of 300 GiB stays thin"""
    one, other = (lab.images.empty(lab.path(name), "qcow2", 300 << 30) for name in ("one", "other"))
    option = "discard=unmap"
    source, target = start(lab, in_style(style, "disk0", one, option, fmt="qcow2"),
                           in_style(style, "disk0", other, option, fmt="qcow2"))
    source.migrate(lab.uri(), bandwidth=10 << 30, capabilities=["zero-blocks"])
    source.wait_migration("completed", timeout=90)
    target.wait_arrival()
    finish(lab, source, target, [("disk0", one, other, "qcow2")])
    sizes = [image.stat().st_blocks * 512 for image in (one, other)]
    check(sizes[1] <= sizes[0] + MIB, f"the source's file has {sizes[0]} bytes, the target's {sizes[1]}")


@case(["raw", "qcow2"], ["refused", "accepted", "zeroes only"])
def shorter_target(lab, fmt, how):
    """The destination is shorter by less than a chunk"""
    size = 9 * MIB
    one = lab.images.filled(lab.path("one"), fmt, size, 0)
    shorter = lab.images.empty(lab.path("shorter"), fmt, size - 512 * 7)
    source, target = start(lab, disk("disk0", one, fmt), disk("disk0", shorter, fmt))
    if how == "zeroes only":
        source.io("disk0", f"write -z {size - 4096} 4k")
    elif how == "accepted":
        accept_tail_garbage(target)
    source.migrate(lab.uri())
    if how == "refused":
        source.wait_migration("failed")
        failed(lab, source, target)
        for word in ("disk0", str(size - 512 * 7)):
            check(word in target.log(), f"the target does not say '{word}': {target.log()}")
        whole = lab.images.empty(lab.path("whole"), fmt, size)
        again(lab, source, disk("disk0", whole, fmt), [("disk0", one, whole, fmt)])
        return
    source.wait_migration("completed")
    target.wait_arrival()
    check(source.quit() == 0 and target.quit() == 0, source.log() + target.log())
    lab.images.tool("resize", "-q", "--shrink", "-f", fmt, one, size - 512 * 7)
    lab.images.same(one, fmt, shorter, fmt)


# Other capabilities, and when the guest stops.

@case(["blk", "block capability"])
def background_snapshot(lab, how):
    """Together with background-snapshot: refused before the disk's first byte"""
    one = lab.images.filled(lab.path("one"), "raw", 8 * MIB)
    source = lab.vm("ours", "source", disk("disk0", one, "raw"))
    try:
        source.set_capabilities("background-snapshot")
    except Exception as error:
        raise Skip(f"no background-snapshot here: {error}") from None
    stream = lab.path("stream")
    try:
        if how == "blk":
            lab.need_arguments("the argument blk")
            source.qmp.command("migrate", uri=f"exec:cat > {stream}", blk=True)
        else:
            source.set_capabilities("block")
            source.qmp.command("migrate", uri=f"exec:cat > {stream}")
    except QMPError as error:
        lab.note(str(error))
    else:
        source.wait_migration("failed")
        text = source.migration().get("error-desc", "")
        check("background-snapshot" in text, f"the text does not say why: {text}")
        check(not stream.exists() or stream.stat().st_size < MIB, "data was sent")
    source.assert_running()


@case(STYLES)
def no_bulk_while_stopped(lab, style):
    """Nothing of an idle disk is left to be sent when the guest stops"""
    fmt = format_of(style)
    disks = [("disk0", lab.images.filled(lab.path("one"), fmt, 192 * MIB),
              lab.images.empty(lab.path("other"), fmt, 192 * MIB), fmt)]
    source, target = start(lab, in_style(style, "disk0", disks[0][1]), in_style(style, "disk0", disks[0][2]))
    source.migrate(lab.uri(), bandwidth=4 << 30, capabilities=["pause-before-switchover"])
    info = source.wait_for(lambda i: i["status"] == "pre-switchover")
    check(info["disk"]["remaining"] == 0, f"the guest stands still with this to send: {info['disk']}")
    source.cmd("migrate-continue", state="pre-switchover")
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)


@case(STYLES)
def busy_guest_stops(lab, style):
    """A guest that always dirties more than goes in 10 ms still arrives within the downtime limit"""
    fmt = format_of(style)
    disks = [("disk0", lab.images.filled(lab.path("one"), fmt, SIZE),
              lab.images.empty(lab.path("other"), fmt, SIZE), fmt)]
    source, target = start(lab, in_style(style, "disk0", disks[0][1]), in_style(style, "disk0", disks[0][2]))
    source.migrate(lab.uri(), bandwidth=64 * MIB, downtime_ms=2000, capabilities=["pause-before-switchover"])
    turn = 0
    while source.migration()["status"] in ("setup", "active"):
        check(turn < 20000, f"the guest never stops: {source.migration()}")
        source.io(io_name(style, "disk0"), f"write -q -P {turn % 255 + 1} {turn % 16 * MIB} 4k")
        turn += 1
    source.cmd("migrate-continue", state="pre-switchover")
    source.wait_migration("completed")
    target.wait_arrival()
    finish(lab, source, target, disks)
