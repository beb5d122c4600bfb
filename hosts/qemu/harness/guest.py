# SPDX-License-Identifier: GPL-2.0-only
"""A real guest: Debian's kernel with guest/init.c as its only program."""
import pathlib
import socket
import subprocess
import time

from .vm import CACHE, VMError

# TCG before QEMU 9.0 forgets stores to RAM during a migration, and then the guest's kernel dies, whoever moves its
# disks. It does not where the size of the RAM is no multiple of 256 KiB: dirty pages are then collected one by one.
MEMORY = "131080k"
SOURCE = pathlib.Path(__file__).resolve().parent.parent / "guest/init.c"
FOLDER = CACHE / "guest"
MODULES = ["drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
           "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk"]


def cpio(entries):
    """An archive of the kind that the kernel unpacks: (name, mode, content)."""
    archive = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4)
        archive += content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def build():
    """Makes the initramfs when init.c is newer; returns its path and the kernel's."""
    initramfs = FOLDER / "initramfs"
    kernel, = (CACHE / "kernel/boot").glob("vmlinuz-*")
    if not initramfs.exists() or initramfs.stat().st_mtime < SOURCE.stat().st_mtime:
        FOLDER.mkdir(exist_ok=True)
        init = FOLDER / "init"
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", init, SOURCE], check=True)
        modules, = (CACHE / "kernel/lib/modules").iterdir()
        entries = [(name, 0o40755, b"") for name in ("dev", "proc", "modules")]
        entries.append(("init", 0o100755, init.read_bytes()))
        for module in MODULES:
            path = modules / "kernel" / f"{module}.ko"
            entries.append((f"modules/{path.name}", 0o100644, path.read_bytes()))
        initramfs.write_bytes(cpio(entries))
    return initramfs, kernel


def arguments(folder, name, pause_us):
    """What a QEMU needs to run the guest, or to receive it; its serial line is a socket in the folder."""
    initramfs, kernel = build()
    return ["-kernel", kernel, "-initrd", initramfs,
            "-append", f"console=ttyS0 loglevel=4 panic=-1 nokaslr pause={pause_us}", "-no-reboot",
            "-chardev", f"socket,id=serial0,path={folder}/{name}.serial,server=on,wait=off,"
                        f"logfile={folder}/{name}.serial.log",
            "-serial", "chardev:serial0"]


class Serial:
    """The guest's serial line, as one QEMU shows it."""

    def __init__(self, vm):
        self.vm = vm
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(f"{vm.folder}/{vm.name}.serial")
        except OSError as error:
            raise self._gone(f"no serial line: {error}") from None
        self.socket.settimeout(1)
        self.text = ""

    def send(self, command):
        self.socket.sendall(command.encode())

    def _gone(self, why):
        said = (self.vm.folder / f"{self.vm.name}.serial.log").read_text(errors="replace")
        return VMError(f"{self.vm.name}: {why}: {said[-500:]} {self.vm.log()}")

    def expect(self, *words, timeout):
        """Waits for a line that starts with one of these words, and returns it."""
        deadline = time.monotonic() + timeout
        while True:
            while "\n" in self.text:
                line, self.text = self.text.split("\n", 1)
                if line.startswith(words):
                    return line.strip()
            if time.monotonic() > deadline or not self.vm.alive():
                raise self._gone(f"the guest does not say {' or '.join(words)}")
            try:
                self.text += self.socket.recv(4096).decode(errors="replace")
            except TimeoutError:
                pass
