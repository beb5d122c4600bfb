# SPDX-License-Identifier: GPL-2.0-only
"""Disk images: making, copying and comparing them."""
import json
import os
import pathlib
import subprocess
import threading

MIB = 1 << 20


class ImageError(Exception):
    """An image tool failed, or two images differ."""


class Images:
    """Makes images in a folder with the qemu-img of a build, for any thread. Equal ones are made once and copied."""

    def __init__(self, folder, qemu_img):
        self.folder = pathlib.Path(folder)
        self.qemu_img = str(qemu_img)
        self.made = {}
        self.lock = threading.Lock()

    def tool(self, *arguments):
        """Runs qemu-img; returns its output."""
        done = subprocess.run([self.qemu_img, *map(str, arguments)], capture_output=True,
                              text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise ImageError(f"qemu-img {arguments[0]}: {(done.stdout + done.stderr).strip()}")
        return done.stdout

    def empty(self, path, fmt, size, *options):
        self.tool("create", "-q", "-f", fmt, *options, path, size)
        return path

    def filled(self, path, fmt, size, zeroes=0.0):
        """An image of random data; this share of its MiBs, evenly spread, are holes."""
        key = (fmt, size, zeroes)
        with self.lock:
            if key not in self.made:
                self.made[key] = self._make(*key)
        return self.copy(self.made[key], path)

    def _make(self, fmt, size, zeroes):
        raw = self.folder / f"master-{size}-{zeroes}.raw"
        if not raw.exists():
            with open(raw, "wb") as file:
                file.truncate(size)
                debt = 0.0
                for offset in range(0, size, MIB):
                    debt += zeroes
                    if debt >= 1:
                        debt -= 1
                    else:
                        file.seek(offset)
                        file.write(os.urandom(min(MIB, size - offset)))
        if fmt == "raw":
            return raw
        master = raw.with_suffix("." + fmt)
        self.tool("convert", "-f", "raw", "-O", fmt, raw, master)
        return master

    @staticmethod
    def copy(source, path):
        subprocess.run(["cp", "--sparse=always", source, path], check=True, timeout=300)
        return path

    def same(self, one, one_format, other, other_format):
        """Raises unless both images hold the same bytes and are of one size."""
        sizes = [self.info(path, fmt)["virtual-size"] for path, fmt in ((one, one_format), (other, other_format))]
        if sizes[0] != sizes[1]:
            raise ImageError(f"{one.name} is {sizes[0]} bytes, {other.name} {sizes[1]}")
        self.tool("compare", "-f", one_format, "-F", other_format, one, other)

    def info(self, path, fmt):
        return json.loads(self.tool("info", "--output=json", "-f", fmt, path))

    def holds(self, path, fmt, offset, byte):
        """Raises unless 64 KiB from an offset on are this byte."""
        piece = path.with_suffix(".piece")
        self.tool("dd", "-f", fmt, "-O", "raw", "bs=65536", f"skip={offset // 65536}", f"count={offset // 65536 + 1}",
                  f"if={path}", f"of={piece}")
        if piece.read_bytes() != bytes([byte]) * 65536:
            raise ImageError(f"{path.name} does not hold {byte} at {offset}")

    def differing_mib(self, one, other):
        """How many MiBs of two raw images differ."""
        count = 0
        with open(one, "rb") as a, open(other, "rb") as b:
            while piece := a.read(MIB):
                count += piece != b.read(MIB)
        return count
