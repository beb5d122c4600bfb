#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Migrates two disks between two processes while the guest writes to them, and compares the result byte by byte."""
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
BIG = 1024 * MIB                      # half of it random data in pieces, the other half never written
EXTENT = 16 * MIB
ODD = 37 * MIB + 12345                # ends within a sector
GUEST_MB = 20
TIMEOUT = 120


def make_images(folder):
    with open(folder / "source-big.img", "wb") as big:
        big.truncate(BIG)
        for start in range(0, BIG, 2 * EXTENT):
            big.seek(start)
            big.write(os.urandom(EXTENT))
    with open(folder / "source-odd.img", "wb") as odd:
        odd.write(os.urandom(ODD))


def disks(folder, side):
    return [f"--disk={name}={folder}/{side}-{name}.img" for name in ("big", "odd")]


def start_destination(hypervisor, folder, address):
    """Prints what it says, marked; returns the process once it listens."""
    process = subprocess.Popen([hypervisor, "--listen", address, *disks(folder, "destination")],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    process.reader = threading.Thread(target=read, daemon=True)
    process.reader.start()
    first = lines.get(timeout=10)
    if first is None or not first.startswith("listening"):
        sys.exit(f"the destination did not start: {first}")
    process.lines = lines
    return process


def migrate(hypervisor, folder):
    address = f"unix:{folder}/socket"
    destination = start_destination(hypervisor, folder, address)
    try:
        source = subprocess.run([hypervisor, "--connect", address, "--guest-writes", str(GUEST_MB),
                                 *disks(folder, "source")], timeout=TIMEOUT)
        status = destination.wait(timeout=TIMEOUT)
    finally:
        if destination.poll() is None:
            destination.kill()
    destination.reader.join()
    for line in iter(destination.lines.get, None):
        if not line.startswith("received"):
            print(f"    destination: {line}", end="")
    if source.returncode or status:
        sys.exit(f"the migration failed: source {source.returncode}, destination {status}")


def same(one, other):
    with open(one, "rb") as a, open(other, "rb") as b:
        while True:
            x, y = a.read(4 * MIB), b.read(4 * MIB)
            if x != y:
                return False
            if not x:
                return True


def allocated_mib(path):
    return path.stat().st_blocks * 512 / MIB


def main():
    started = time.monotonic()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="demo-", dir=os.getcwd()))
    try:
        print(f"Two images: {BIG // MIB} MiB, half full of random data, and {ODD} bytes ...", flush=True)
        make_images(folder)
        print(f"Migrating them to another process while the guest writes {GUEST_MB} MB/s ...", flush=True)
        migrate(sys.argv[1], folder)
        print("Comparing what the guest left on the source with what arrived ...", flush=True)
        for name in ("big", "odd"):
            source, destination = folder / f"source-{name}.img", folder / f"destination-{name}.img"
            if not same(source, destination):
                sys.exit(f"NOT the same: {name}.img differs")
            print(f"    {name}.img is the same, byte for byte ({allocated_mib(source):.0f} MiB on disk at the source, "
                  f"{allocated_mib(destination):.0f} MiB at the destination)")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"Done in {time.monotonic() - started:.0f} s. The images have been removed.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
