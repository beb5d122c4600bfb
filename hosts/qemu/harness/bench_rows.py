# SPDX-License-Identifier: GPL-2.0-only
"""The rows of the table: which disks are moved, by whom, and how often."""
import os
import pathlib

from .bench_contestants import MIB, Reserve, block_migration, drive_mirror, socket_copy

OURS = "blkmig"
UNMODIFIED = "migrate -b of 7.2"
ZERO_BLOCKS = "migrate -b of 7.2, zero-blocks"
MIRROR = "drive-mirror over NBD"
COPY = "socket copy"
# What a run may need beside the space for the disk: the buffers of the largest contestant, and more.
RESERVE = 1 << 30


class Row:
    """One kind of disk. Its contestants take turns, so that a busy machine is busy for all of them."""

    def __init__(self, title, zeroes, fmt):
        self.title = title
        self.zeroes = zeroes
        self.format = fmt
        self.contestants = {
            OURS: block_migration("ours", 300, zero_blocks=zeroes > 0),
            # With more downtime it would stop early, and lose data.
            UNMODIFIED: block_migration("unmodified", 1, zero_blocks=False),
        }
        if zeroes:
            self.contestants[ZERO_BLOCKS] = block_migration("unmodified", 1, zero_blocks=True)
        self.contestants[MIRROR] = drive_mirror
        if not zeroes and fmt == "raw":
            self.contestants[COPY] = socket_copy


ROWS = [
    Row("random, raw to raw", 0.0, "raw"),
    Row("random, raw to qcow2", 0.0, "qcow2"),
    Row("half zeroes, raw to raw", 0.5, "raw"),
    Row("half zeroes, raw to qcow2", 0.5, "qcow2"),
]


def run_row(row, only, rounds, size, images, folder):
    """Yields (contestant, run) for each run of the row; the first of each contestant is checked byte for byte."""
    source = images.filled(folder / "source.raw", "raw", size, row.zeroes)
    target = folder / f"target.{row.format}"
    contestants = {name: run for name, run in row.contestants.items() if not only or name in only}
    for number in range(rounds):
        for name, run in contestants.items():
            images.empty(target, row.format, size)
            Reserve(folder).hold(size + RESERVE)
            result = run(folder, (source, "raw"), (target, row.format))
            if number == 0:
                images.same(source, "raw", target, row.format)
            target.unlink()
            yield name, result
    source.unlink()


def run_thin(rounds, images, folder, size=20 << 30, data=200 * MIB):
    """A large image with little in it, and one with just that: yields what each round took and left."""
    thin, full, target = (folder / name for name in ("thin.raw", "full.raw", "target.raw"))
    images.filled(full, "raw", data)
    spread(full, thin, size)
    run = block_migration("ours", 300, zero_blocks=True)
    for _ in range(rounds):
        result = {}
        for name, source, length in (("thin", thin, size), ("full", full, data)):
            images.empty(target, "raw", length)
            Reserve(folder).hold(data + RESERVE)
            took = run(folder, (source, "raw"), (target, "raw"))
            result[name] = {"seconds": took.seconds, "read_bytes": took.read_bytes,
                            "source_bytes": allocated(source), "target_bytes": allocated(target)}
            target.unlink()
        yield result
    for path in (thin, full):
        path.unlink()


def spread(full, thin, size):
    """Puts the data of one image into another, evenly spread by the MiB."""
    data = pathlib.Path(full).read_bytes()
    pieces = len(data) // MIB
    with open(thin, "wb") as file:
        file.truncate(size)
        for piece in range(pieces):
            file.seek(piece * (size // pieces) // MIB * MIB)
            file.write(data[piece * MIB:(piece + 1) * MIB])


def allocated(path):
    return os.stat(path).st_blocks * 512
