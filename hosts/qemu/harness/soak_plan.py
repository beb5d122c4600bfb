# SPDX-License-Identifier: GPL-2.0-only
"""What a round of the soak does. It comes from the seed and the round's number alone, never from what happens."""
import random

MIB = 1 << 20
FLOPPY = 1440 * 1024
BOUND = 120  # seconds until something counts as hung, which must hold on a busy machine too

# Kind of command, weight. Those of "calm" can be sent at any moment; the others would reach
# into disks that are the destination's already, so they need a source that stops and asks before it switches.
CALM = {"migrate_cancel": 3, "quit": 2, "sigterm": 2, "kill": 1, "stall": 1, "stop": 2, "cont": 2, "throttle": 2,
        "parameters": 3, "bad": 3, "query": 3}
SOURCE = CALM | {"backup": 3, "mirror": 4, "stream": 2, "commit": 2, "job_complete": 6, "job_cancel": 4, "snapshot": 3,
                 "resize": 3, "reopen": 3, "eject": 3, "insert": 3, "device_add": 1, "device_del": 2, "blockdev_add": 2,
                 "blockdev_del": 1, "drive_add": 1, "drive_del": 2, "set_iothread": 2, "bitmap": 1,
                 "reset": 1, "storage_stall": 3, "storage_kill": 1}
# No resize: any QEMU 7.2 aborts if a disk of a destination is resized that is not active yet,
# "bdrv_co_write_req_prepare: Assertion `!(bs->open_flags & BDRV_O_INACTIVE)'".
TARGET = {"quit": 1, "sigterm": 1, "kill": 2, "stall": 4, "stop": 1, "cont": 1, "throttle": 1, "parameters": 1,
          "migrate_cancel": 1, "bad": 2, "query": 2, "backup": 1, "mirror": 2, "stream": 1, "commit": 1,
          "job_complete": 2, "job_cancel": 1, "snapshot": 2, "reopen": 2, "eject": 2, "insert": 1, "device_add": 1,
          "device_del": 2, "blockdev_add": 1, "blockdev_del": 1, "drive_add": 1, "drive_del": 2, "set_iothread": 2,
          "bitmap": 1, "reset": 2, "storage_stall": 3, "storage_kill": 1}
JOBS = ("backup", "mirror", "stream", "commit")

BAD = [("block_resize", {"device": "nobody", "size": MIB}), ("block_resize", {"device": "disk0", "size": -1}),
       ("migrate", {"uri": "tcp:127.0.0.1:1", "blk": True}), ("migrate", {"uri": "unix:/nowhere/x", "blk": True}),
       # Without disks: QEMU 7.2 would refuse any later migration with disks.
       ("migrate", {"uri": "exec:false", "blk": True}), ("migrate", {"uri": "fd:nobody"}),
       ("migrate-incoming", {"uri": "unix:/nowhere/x"}),
       ("migrate-set-parameters", {"downtime_limit": 1 << 40}), ("migrate-start-postcopy", {}),
       ("block-job-cancel", {"device": "nobody"}), ("eject", {"device": "nobody"}),
       ("blockdev-del", {"node_name": "disk0"}),
       ("block-stream", {"device": "disk0", "base": "/nowhere"}), ("device_del", {"id": "nobody"}),
       ("migrate-recover", {"uri": "unix:/nowhere/x"}),
       ("blockdev-snapshot-sync", {"device": "disk0", "snapshot_file": "/nowhere/x", "format": "qcow2"})]
QUERIES = ["query-block", "query-blockstats", "query-named-block-nodes", "query-block-jobs", "query-migrate",
           "query-status", "query-jobs"]


def weighted(rng, table):
    return rng.choices(list(table), list(table.values()))[0]


def make_disk(rng, number):
    # A virtio disk moves to its iothread when the guest's driver starts it, which is no more than the BIOS under tcg.
    size = rng.randrange(4, 25) * MIB + (rng.choice([512, 65536, 700 * 512]) if rng.random() < 0.3 else 0)
    disk = {"name": f"disk{number}", "id": f"dev{number}", "number": number, "size": size,
            "format": rng.choice(["raw", "qcow2"]),
            "style": rng.choice(["drive", "blockdev"]), "bus": rng.choice(["virtio", "scsi", "scsi"]),
            "iothread": rng.random() < 0.4, "nbd": {side: rng.random() < 0.25 for side in ("source", "target")},
            "backing": False,
            "zeroes": rng.choice([0.0, 0.3, 0.7])}
    if any(disk["nbd"].values()):
        disk["format"] = "raw"  # a qcow2 would have to grow its file
    elif disk["format"] == "qcow2":
        disk["backing"] = rng.random() < 0.4
    return disk


def fit(disk, side, kind):
    """Makes the disk one that the command is for."""
    if kind.startswith("storage_"):
        disk["nbd"][side] = True
        disk.update(format="raw", backing=False)
    elif kind == "reopen":
        disk["style"] = "blockdev"
    elif kind in ("commit", "stream") and not any(disk["nbd"].values()):
        disk.update(format="qcow2", backing=True)


def make_action(rng, side, kind, disks, number):
    """One command; what it does not need stays unused, so that every kind draws the same numbers."""
    early = 0.8 if kind in JOBS else 0.4  # a source that migrates starts no job
    return {"at": rng.uniform(-0.4, 0.4) if rng.random() < early else rng.uniform(0, 1.5),
            "side": side, "kind": kind, "number": number, "disk": rng.randrange(len(disks)), "how": rng.random(),
            "seconds": rng.uniform(0.05, 1.2), "pick": rng.randrange(1 << 20)}


def without_qemus_own(actions, disks):
    """Leaves out what makes the unmodified QEMU 7.2 abort, with no migration at all."""
    kept, backups = [], set()
    jobs = {(a["side"], a["kind"]) for a in actions if a["kind"] in JOBS}
    for action in actions:
        # A backup that ends while the guest is stopped, or after its drive has gone with its device:
        # "bdrv_close: Assertion `QLIST_EMPTY(&bs->dirty_bitmaps)'", or
        # "qemu_mutex_unlock_impl: Operation not permitted".
        ends = action["kind"] in ("stop", "quit", "sigterm", "device_del", "drive_del")
        if ends and (action["side"], "backup") in jobs:
            continue
        disk = disks[action["disk"]]
        if action["kind"] == "backup" and disk["iothread"]:
            # A second drive-backup of a disk in an iothread:
            # "bdrv_do_drained_end: Assertion `bs->quiesce_counter > 0'".
            if (action["side"], disk["name"]) in backups:
                continue
            backups.add((action["side"], disk["name"]))
        kept.append(action)
    return kept


def make_plan(seed, number):
    rng = random.Random(f"{seed}/{number}")
    disks = [make_disk(rng, i) for i in range(rng.choice([1, 1, 2, 3]))]
    asks = rng.random() < 0.8
    actions = []
    for i in range(rng.randrange(0, 9)):
        side = "source" if rng.random() < 0.65 else "target"
        table = TARGET if side == "target" else SOURCE if asks else CALM
        actions.append(make_action(rng, side, weighted(rng, table), disks, i))
        fit(disks[actions[-1]["disk"]], side, actions[-1]["kind"])
        if actions[-1]["kind"] in JOBS and rng.random() < 0.7:
            # A job that nobody completes does not pivot.
            follow = make_action(rng, side, "job_complete" if rng.random() < 0.7 else "job_cancel", disks, i + 50)
            follow["at"] = max(follow["at"], actions[-1]["at"] + 0.1)
            actions.append(follow)
    actions.sort(key=lambda a: a["at"])
    actions = without_qemus_own(actions, disks)
    total = sum(d["size"] for d in disks)
    return {"seed": seed, "round": number, "disks": disks, "asks": asks, "actions": actions,
            "floppy": rng.choice(["none", "none", "empty", "medium"]
                                 if not {"eject", "insert"} & {a["kind"] for a in actions}
                                 else ["empty", "medium"]), "zero_blocks": rng.random() < 0.4,
            "return_path": rng.random() < 0.5, "bandwidth": int(total / rng.uniform(0.2, 1.5)),
            "downtime": rng.choice([1, 10, 100, 300]),
            # Under -accel qtest QEMU's throttling waits for a clock that nobody moves.
            "accel": "tcg" if any(a["kind"] == "throttle" for a in actions) else "qtest",
            "writes": rng.random() < 0.8, "write_for": rng.uniform(0.1, 1.2), "write_seed": rng.randrange(1 << 30),
            "write_pause": rng.choice([0.002, 0.01, 0.03]), "kill_target": rng.random() < 0.5,
            "kill_source": rng.random() < 0.5,
            "pause": rng.choice([0, 0, 0.1, 0.4]),
            # Of the source's /blkmig, in an order in which it takes them.
            "settings": rng.choice([{"stream": "classic"}, {"stream": "extended"},
                                    {"stream": "extended", "compression": 1}])}


def describe(action):
    details = f"disk {action['disk']}, how {action['how']:.2f}, pick {action['pick']}"
    return f"{action['at']:+.3f} s {action['side']}: {action['kind']} {{{details}}}"
