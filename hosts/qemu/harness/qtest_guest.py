# SPDX-License-Identifier: GPL-2.0-only
"""A guest's driver for its virtio disk, without a guest: it works from outside, by QEMU's qtest protocol.

It is the legacy interface of the virtio specification, "Legacy Interfaces: A Note on PCI Device Layout" and "Split
Virtqueues", with one queue and as many requests in flight as there are slots.
"""
import socket
import struct
import time

PAGE = 4096
SLOTS = 64
# Where the device's registers are put, in the address space of I/O ports.
PORTS = 0xc000
GUEST_FEATURES, QUEUE_PAGE, QUEUE_SIZE, NOTIFY, STATUS = 4, 8, 12, 16, 18
ACKNOWLEDGE, DRIVER, DRIVER_OK = 1, 2, 4
# Where things lie in the guest's memory.
RING, HEADERS, RESULTS, DATA = 0x100000, 0x200000, 0x201000, 0x300000
NEXT, DEVICE_WRITES = 1, 2
WRITE = 1


def arguments(path):
    """What a QEMU needs to be driven."""
    return ["-qtest", f"unix:{path},server=on,wait=off", "-qtest-log", "none"]


class QTestDisk:
    """The only virtio disk of a QEMU. It writes pages."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.answers = self.socket.makefile("r")
        self.submitted = self.completed = 0
        self._start()

    def _run(self, *lines):
        """Returns the value that the last of these commands answers, if it has one."""
        self.socket.sendall("".join(line + "\n" for line in lines).encode())
        for line in lines:
            answer = self.answers.readline().split()
            if not answer:
                raise ConnectionError("QEMU is gone")
            if answer[0] != "OK":
                raise ValueError(f"qtest: {line}: {' '.join(answer)}")
        return int(answer[1], 0) if len(answer) > 1 else None

    def _config(self, device, register):
        return f"outl 0xcf8 {0x80000000 | device << 11 | register:#x}"

    def _start(self):
        device = next(device for device in range(32)
                      if self._run(self._config(device, 0), "inl 0xcfc") == 0x10011af4)
        self._run(self._config(device, 0x10), f"outl 0xcfc {PORTS | 1:#x}",
                  self._config(device, 4), "outw 0xcfc 5")
        self._run(f"outb {PORTS + STATUS} {ACKNOWLEDGE | DRIVER}", f"outl {PORTS + GUEST_FEATURES} 0")
        size = self._run(f"inw {PORTS + QUEUE_SIZE}")
        self.available = RING + 16 * size
        self.used = RING + (16 * size + 6 + 2 * size + PAGE - 1) // PAGE * PAGE
        for slot in range(SLOTS):
            # Each slot has three descriptors: the header, the page and the result.
            first = 3 * slot
            self._put(RING + 16 * first, struct.pack(
                "<QIHH QIHH QIHH", HEADERS + 16 * slot, 16, NEXT, first + 1,
                DATA + PAGE * slot, PAGE, NEXT, first + 2, RESULTS + slot, 1, DEVICE_WRITES, 0))
            self._run(f"memset {DATA + PAGE * slot} {PAGE} {slot + 1}")
        # Request n takes slot n modulo SLOTS, so the ring needs to be filled but once.
        self._put(self.available + 4, b"".join(struct.pack("<H", n % SLOTS * 3) for n in range(size)))
        self._run(f"outl {PORTS + QUEUE_PAGE} {RING // PAGE}",
                  f"outb {PORTS + STATUS} {ACKNOWLEDGE | DRIVER | DRIVER_OK}")

    def _put(self, address, data):
        self._run(f"write {address} {len(data)} 0x{data.hex()}")

    def write(self, offsets):
        """Begins a write of a page to each of these places; call it with no more than free()."""
        lines = []
        for offset in offsets:
            header = struct.pack("<IIQ", WRITE, 0, offset // 512)
            lines.append(f"write {HEADERS + 16 * (self.submitted % SLOTS)} 16 0x{header.hex()}")
            self.submitted += 1
        self._run(*lines, f"writew {self.available + 2} {self.submitted & 0xffff}", f"outw {PORTS + NOTIFY} 0")

    def free(self):
        """How many writes may be begun now."""
        used = self._run(f"readw {self.used + 2}")
        self.completed += used - self.completed & 0xffff
        return SLOTS - (self.submitted - self.completed)

    def close(self):
        """Waits until all has been written; raises if something was not."""
        deadline = time.monotonic() + 30
        while self.free() < SLOTS:
            if time.monotonic() > deadline:
                raise TimeoutError("the guest's writes do not end")
            time.sleep(0.001)
        for slot in range(min(SLOTS, self.submitted)):
            if self._run(f"readb {RESULTS + slot}") != 0:
                raise ValueError("a write of the guest failed")
        self.socket.close()
