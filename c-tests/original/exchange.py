#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Each of the two modules reads the other's stream, and its own. The extended stream is refused by the original with
its own message.

usage: exchange.py stream OURS ORIGINAL       through a file, between hypervisors in memory
       exchange.py hypervisor OURS ORIGINAL   through a socket, between reference hypervisors with images on disk"""
import hashlib
import os
import pathlib
import random
import subprocess
import sys
import tempfile

TIMEOUT = 60
DISKS = {"hd0": 5 * 2**20 + 3 * 512, "hd1": 700 * 512}


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False, **more)


def by_file(source, destination, folder):
    """Nothing, or what went wrong."""
    for program, verb in (source, "save"), (destination, "load"):
        done = run(program, verb, folder / "stream")
        if done.returncode:
            return f"{verb}: status {done.returncode}: {done.stderr.strip()}"
    return None


def extended(ours, original):
    """Nothing, or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        for program, verb in (ours, "save-extended"), (ours, "load"), (original, "refuse"):
            done = run(program, verb, f"{folder}/stream")
            if done.returncode:
                return f"{verb}: status {done.returncode}: {done.stderr.strip()}"
        return None if "Unknown flags" in done.stderr else f"refuse: it says {done.stderr!r}"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def images(folder, side, content):
    """The options for a side's disks; makes their images."""
    options = []
    for name, size in DISKS.items():
        path = folder / f"{side}-{name}"
        path.write_bytes(random.Random(name).randbytes(size) if content else bytes(size))
        options.append(f"--disk={name}={path}")
    return options


def by_socket(source, destination, folder):
    """Nothing, or what went wrong. At 10 MB/s no more than a chunk is on its way, which is as much as the original
    can take."""
    address = f"unix:{folder}/socket"
    common = ["--style", "stages", "--no-zero-blocks"]
    listener = subprocess.Popen([destination, "--listen", address, "--accept-tail-garbage", *common,
                                 *images(folder, "to", False)],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert listener.stdout.readline().startswith("listening")
        sent = run(source, "--connect", address, *common, "--bandwidth", "10M", *images(folder, "from", True))
        said = listener.communicate(timeout=TIMEOUT)[0]
    finally:
        listener.kill()
    if sent.returncode or listener.returncode:
        return f"source {sent.returncode}: {sent.stderr.strip()}; destination {listener.returncode}: {said.strip()}"
    different = [name for name in DISKS if digest(folder / f"from-{name}") != digest(folder / f"to-{name}")]
    return f"{', '.join(different)} differ" if different else None


def main():
    how, ours, original = sys.argv[1:]
    exchange = {"stream": by_file, "hypervisor": by_socket}[how]
    names = {"ours": ours, "original": original}
    failures = 0
    for source in names:
        for destination in names:
            with tempfile.TemporaryDirectory() as folder:
                wrong = exchange(names[source], names[destination], pathlib.Path(folder))
            print(f"{source} -> {destination}: {wrong or 'the same'}")
            failures += wrong is not None
    if how == "stream":
        wrong = extended(ours, original)
        print(f"extended -> original: {wrong or 'refused'}")
        failures += wrong is not None
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
