# SPDX-License-Identifier: GPL-2.0-only
"""The soak's disks: their arguments, the storage under them, and which image the guest has at the moment."""
import pathlib
import signal
import subprocess
import threading
import time

from .hosts import host
from .images import ImageError
from .soak_plan import BOUND, FLOPPY


class Storage:
    """A disk's file, served by a qemu-nbd, which can stall or die."""

    def __init__(self, image, socket):
        self.image, self.socket = image, socket
        self.process = None
        self.lock = threading.Lock()
        self.start()

    def start(self):
        """Unless it runs: it may have been killed twice."""
        with self.lock:
            if not self.process or self.process.poll() is not None:
                self._start()

    def _start(self):
        pathlib.Path(self.socket).unlink(missing_ok=True)
        server = host("ours").folder / "qemu-nbd"
        self.process = subprocess.Popen([server, "-t", "-e", "8", "-f", "raw", "-k", self.socket, self.image],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + BOUND
        while not pathlib.Path(self.socket).exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise ImageError(f"no qemu-nbd for {self.image}")
            time.sleep(0.01)

    def signal(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def end(self):
        self.signal(signal.SIGKILL)
        self.process.wait(BOUND)


def arguments(disks, floppy):
    """disks: pairs of a plan's disk and a dict of image, name (node or drive), nbd socket or None."""
    args = ["-object", "iothread,id=io0", "-object", "iothread,id=io1"]
    for iothread in (False, True):
        bus = "scsi1" if iothread else "scsi0"
        device = f"virtio-scsi-pci,id={bus},addr={0x11 if iothread else 0x10}"
        args += ["-device", device + (",iothread=io0" if iothread else "")]
    for d, is_now in disks:
        n, image = d["number"], is_now["image"]
        file = (f"driver=nbd,server.type=unix,server.path={is_now['nbd']},reconnect-delay={BOUND}" if is_now["nbd"]
                else f"driver=file,filename={image}")
        if d["style"] == "drive":
            inner = ",".join("file." + part for part in file.split(","))
            args += ["-drive", f"if=none,id={is_now['name']},node-name=n{n},format={is_now['format']},{inner}"]
        else:
            args += ["-blockdev", f"{file},node-name=f{n}"]
            backing = ""
            if is_now.get("base"):
                # By its own name, which a commit leaves the disk with: what QEMU calls it can't be asked for again.
                args += ["-blockdev", f"driver=file,filename={is_now['base']},node-name=g{n}",
                         "-blockdev", f"driver=qcow2,node-name=base{n},file=g{n}"]
                backing = f",backing=base{n}"
            args += ["-blockdev", f"driver={is_now['format']},node-name={is_now['name']},file=f{n}{backing}"]
        if d["bus"] == "virtio":
            device = f"virtio-blk-pci,id={d['id']},addr={5 + n},drive={is_now['name']}"
            args += ["-device", device + (",iothread=io0" if d["iothread"] else "")]
        else:
            bus = f"scsi{int(d['iothread'])}.0"
            args += ["-device", f"scsi-hd,id={d['id']},bus={bus},scsi-id={n},drive={is_now['name']}"]
    if floppy is not None:
        args += ["-drive", "if=none,id=fd0" + (f",file={floppy},format=raw" if floppy else ""),
                 "-device", "floppy,id=fdev,unit=0,drive=fd0,drive-type=144"]
    return args


def qdev(disk):
    """The device that has the drive: with virtio it is a part of the one that was asked for."""
    return disk["id"] if disk["bus"] == "scsi" else f"/machine/peripheral/{disk['id']}/virtio-backend"


def seen(blocks):
    """From query-block's answer: device id to (format, image file, node name, bytes)."""
    found = {}
    for entry in blocks:
        qdev, inserted = entry.get("qdev", ""), entry.get("inserted")
        if inserted and qdev:
            key = qdev.removeprefix("/machine/peripheral/").split("/")[0]
            image = inserted["image"]
            # Under a job's filter it is what the filter is on that a tool opens.
            while image["format"] not in ("raw", "qcow2") and "backing-image" in image:
                image = image["backing-image"]
            found[key] = {"format": image["format"], "image": image["filename"], "name": inserted.get("node-name"),
                          "size": inserted["image"]["virtual-size"]}
    return found


def make_images(images, plan, folder):
    for d in plan["disks"]:
        path = folder / f"source-{d['name']}"
        if d["backing"]:
            base = d["base"] = images.filled(folder / f"base-{d['name']}", "qcow2", d["size"], d["zeroes"])
            images.tool("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
        else:
            images.filled(path, d["format"], d["size"], d["zeroes"])
        d["image"] = path
    with open(folder / "medium", "wb") as file:
        file.write(b"m" * FLOPPY)


def check_clean(images, path, leaks_allowed):
    done = subprocess.run([images.qemu_img, "check", "-q", "-f", "qcow2", str(path)], capture_output=True, text=True,
                          timeout=120, check=False)
    if done.returncode not in ((0, 3) if leaks_allowed else (0,)):
        said = (done.stdout + done.stderr).strip()[-400:]
        raise ImageError(f"qemu-img check {path}: status {done.returncode}: {said}")
