# SPDX-License-Identifier: GPL-2.0-only
"""The QEMUs that take part, by name. All that is true of one version alone is here."""
import dataclasses
import os
import pathlib

CACHE = pathlib.Path(os.environ.get("BLKMIG_CACHE") or pathlib.Path.home() / ".cache/blkmig")
PROGRAM = "qemu-system-x86_64"


@dataclasses.dataclass(frozen=True)
class Host:
    """A QEMU."""
    folder: pathlib.Path
    # What hosts/qemu/build makes it of.
    build: str = ""
    data: tuple = ()
    # Arguments that it always gets.
    args: tuple = ()
    # Disks are switched on at /blkmig: it has neither the capability nor the arguments of QMP's migrate.
    by_object: bool = False
    # What it does wrong with no migration at all, so that a case can't be run.
    faults: tuple = ()
    # qtest's guest stands still, which saves the emulation. Debian's QEMUs have no qtest.
    accel: str = "qtest"

    @property
    def binary(self):
        return self.folder / PROGRAM


FIRMWARE = (CACHE / "debian/usr/share/seabios", CACHE / "debian/usr/share/qemu")
HOSTS = {
    "unmodified": Host(CACHE / "build-unmodified", "unmodified"),
    "debian": Host(CACHE / "debian/usr/bin", accel="tcg"),
    "7.2": Host(CACHE / "build-modified", "modified"),
    "10.0": Host(CACHE / "debian-10.0/usr/bin", "10.0", data=(CACHE / "debian-10.0/usr/share/qemu",),
                 args=("-plugin", CACHE / "build-10.0/blkmig.so"), by_object=True, accel="tcg",
                 faults=("it aborts when a device in an iothread gets another node",
                         "a write hangs after blockdev-reopen made a scsi disk writable")),
}
VERSIONS = ("7.2", "10.0")
chosen = VERSIONS[0]


def choose(version):
    """Which of them the cases mean by "ours"."""
    global chosen  # pylint: disable=global-statement
    chosen = version


def host(which):
    return HOSTS[chosen if which == "ours" else which]
