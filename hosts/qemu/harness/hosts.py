# SPDX-License-Identifier: GPL-2.0-only
"""The QEMUs that take part, by name. All that is true of some versions alone is here."""
import dataclasses
import os
import pathlib
import re
import subprocess

CACHE = pathlib.Path(os.environ.get("BLKMIG_CACHE") or pathlib.Path.home() / ".cache/blkmig")
PROGRAM = "qemu-system-x86_64"
# What a QEMU does wrong with no migration at all, and from which version on.
FAULTS = {"it aborts when a device in an iothread gets another node": (10, 0),
          "a write hangs after blockdev-reopen made a scsi disk writable": (10, 0)}


@dataclasses.dataclass(frozen=True)
class Host:
    """A QEMU."""
    folder: pathlib.Path
    # What hosts/qemu/build makes it of; nothing if somebody else has made it.
    build: str = ""
    version: tuple = (7, 2)
    data: tuple = ()
    # The loadable object. Disks are switched on at /blkmig then: there is no capability for it.
    plugin: pathlib.Path | None = None
    # qtest's guest stands still, which saves the emulation. Debian's QEMUs have no qtest.
    accel: str = "qtest"

    @property
    def binary(self):
        return self.folder / PROGRAM

    @property
    def by_object(self):
        return self.plugin is not None

    @property
    def by_arguments(self):
        """QMP's migrate has the arguments blk and inc, HMP's -b and -i."""
        return not self.plugin and self.version < (9, 1)

    def has_fault(self, fault):
        return self.version >= FAULTS[fault]


FIRMWARE = (CACHE / "debian/usr/share/seabios", CACHE / "debian/usr/share/qemu")
HOSTS = {
    "unmodified": Host(CACHE / "build-unmodified", "unmodified"),
    "debian": Host(CACHE / "debian/usr/bin", accel="tcg"),
    "7.2": Host(CACHE / "build-modified", "modified"),
    "10.0": Host(CACHE / "debian-10.0/usr/bin", "10.0", (10, 0), data=(CACHE / "debian-10.0/usr/share/qemu",),
                 plugin=CACHE / "build-10.0/blkmig.so", accel="tcg"),
    "10.0.13": Host(CACHE / "qemu-10.0.13/build", "10.0.13", (10, 0)),
    "10.2.2": Host(CACHE / "qemu-10.2.2/build", "10.2.2", (10, 2)),
}
VERSIONS = ("7.2", "10.0", "10.0.13", "10.2.2")
chosen = VERSIONS[0]


def choose(version):
    """Which of them the cases mean by "ours"."""
    global chosen  # pylint: disable=global-statement
    chosen = version


def add(folder, plugin):
    """Takes a QEMU that somebody has built with this library, or one that can load the object; returns its name."""
    said = subprocess.run([folder / PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor, micro = map(int, re.search(r"version (\d+)\.(\d+)\.(\d+)", said).groups())
    listed = subprocess.run([folder / PROGRAM, "-accel", "help"], capture_output=True, text=True, check=False).stdout
    name = f"{major}.{minor}.{micro} of {folder}"
    HOSTS[name] = Host(folder, version=(major, minor), plugin=plugin, accel="qtest" if "qtest" in listed else "tcg")
    return name


def is_older(version, than):
    """Whether one of HOSTS is of an older version than another."""
    def key(name):
        return HOSTS[name].version, name
    return key(version) < key(than)


def host(which):
    return HOSTS[chosen if which == "ours" else which]


def machine():
    """One that all of them know."""
    return "pc-i440fx-" + ".".join(map(str, min((7, 2), host("ours").version)))
