# SPDX-License-Identifier: GPL-2.0-only
"""The classic and the extended stream of this library beside each other."""
import contextlib
import multiprocessing
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from .bench_contestants import BANDWIDTH, MIB, Meter, Pair, Reserve, finish
from .bench_rows import RESERVE, spread
from .hosts import CACHE
from .vm import VMError


class Row:
    """Runs that take turns: the others are compared with the first. Each is a name, an image and a way to move it."""

    def __init__(self, title, runs, repeat=1):
        self.title = title
        self.runs = runs
        # Runs that take but a tenth of a second have to be made more often to tell.
        self.repeat = repeat


def rows(size):
    """What is measured."""
    full, half, little = random(size), random(size, zeroes=0.5), random(100 * MIB)
    links = [Row(f"root file system, {mb} MB/s", [
        ("classic", root_file_system, migration("classic", link=mb * 1e6)),
        ("extended, level 1", root_file_system, migration("extended", 1, link=mb * 1e6)),
        ("extended, level 3", root_file_system, migration("extended", 3, link=mb * 1e6)),
    ]) for mb in (125, 12.5)]
    return [
        Row("random", [
            ("classic", full, migration("classic")),
            ("extended", full, migration("extended")),
            ("extended, level 1", full, migration("extended", 1)),
        ]),
        Row("half zeroes", [
            ("classic", half, migration("classic")),
            ("extended", half, migration("extended")),
        ]),
        Row("100 MiB of data", [
            ("disk of 100 MiB", little, migration("extended")),
            ("disk of 1 TiB", thin, migration("extended")),
        ], repeat=5),
        *links,
    ]


def migration(stream, level=0, link=None):
    """`migrate -b` with this library; the link lets so many bytes a second pass."""
    def run(folder, source, target):
        with Pair("ours", folder, (source, "raw"), (target, "raw")) as pair, contextlib.ExitStack() as links:
            pair.source.qom_set("stream", stream)
            pair.source.qom_set("compression", level)
            uri = links.enter_context(slow_link(folder, pair.uri, link)) if link else pair.uri
            meter = Meter(pair)
            pair.source.migrate(uri, BANDWIDTH, capabilities=["zero-blocks"])
            return finish(pair, meter), pair.source.qom_get("stats")["wire-bytes"]
    return run


@contextlib.contextmanager
def slow_link(folder, uri, rate):
    """A link to the destination through which so many bytes a second pass, as its URI."""
    path = f"{folder}/link.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as out:
        listener.bind(path)
        listener.listen(1)
        out.connect(uri.removeprefix("unix:"))
        process = multiprocessing.get_context("fork").Process(target=forward, args=(listener, out, rate))
        process.start()
    try:
        yield f"unix:{path}"
        process.join(60)
        if process.exitcode != 0:
            raise VMError("the slow link failed")
    finally:
        process.kill()
        os.unlink(path)


def forward(listener, out, rate):
    """Takes one connection and passes on what comes, not faster than the rate, and with little in its buffers."""
    listener.settimeout(60)
    connection, _ = listener.accept()
    piece = memoryview(bytearray(64 * 1024))
    due = time.monotonic()
    while size := connection.recv_into(piece):
        # What the source has not sent in time is no credit for later.
        due = max(due, time.monotonic() - 0.005) + size / rate
        time.sleep(max(0, due - time.monotonic()))
        out.sendall(piece[:size])


def random(size, zeroes=0.0):
    """An image of random data; this share of it are holes."""
    return lambda images, path: images.filled(path, "raw", size, zeroes)


def thin(images, path):
    """1 TiB with 100 MiB of random data, evenly spread."""
    full = images.filled(path.with_suffix(".full"), "raw", 100 * MIB)
    spread(full, path, 1 << 40)
    full.unlink()


def root_file_system(images, path):
    """Debian's smallest, on ext4, without the packages that it was made of; made once, by debootstrap."""
    kept = CACHE / "root-file-system.raw"
    if not kept.exists():
        tree = pathlib.Path(tempfile.mkdtemp(prefix="root-", dir=CACHE))
        try:
            subprocess.run(["debootstrap", "--variant=minbase", "bookworm", tree], check=True,
                           stdout=subprocess.DEVNULL)
            for package in tree.glob("var/cache/apt/archives/*.deb"):
                package.unlink()
            part = kept.with_suffix(".part")
            part.unlink(missing_ok=True)
            subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", tree, part, "512M"], check=True)
            part.rename(kept)
        finally:
            shutil.rmtree(tree)
    images.copy(kept, path)


def run_streams(chosen, rounds, images, folder, size):
    """Yields a table for each row; the first run of each contestant is checked byte for byte."""
    target = folder / "target.raw"
    for row in rows(size):
        if chosen not in row.title:
            continue
        sources = {}
        for number, image in enumerate({image for _, image, _ in row.runs}):
            sources[image] = folder / f"source{number}.raw"
            image(images, sources[image])
        results = {name: [] for name, _, _ in row.runs}
        for number in range(rounds * row.repeat):
            # Backwards every other time: whoever is first may have it easier.
            for name, image, run in row.runs[::-1 if number % 2 else 1]:
                source = sources[image]
                images.empty(target, "raw", source.stat().st_size)
                Reserve(folder).hold(source.stat().st_blocks * 512 + RESERVE)
                results[name].append(run(folder, source, target))
                if number == 0:
                    images.same(source, "raw", target, "raw")
                target.unlink()
        for source in sources.values():
            source.unlink()
        yield table(row, results)


HEAD = ("| disk | by | s | CPU s | MB on the wire | time | CPU | bytes |\n"
        "|---|---|--:|--:|--:|--:|--:|--:|")


def table(row, results):
    """Lines in Markdown: medians, and those of the ratios to the first contestant, round by round."""
    lines, first = [], next(iter(results))
    for name, runs in results.items():
        figures = [[(run.seconds, run.cpu_seconds, wire) for run, wire in some] for some in (runs, results[first])]
        seconds, cpu, wire = (statistics.median(column) for column in zip(*figures[0]))
        line = f"| {row.title} | {name} | {seconds:.2f} | {cpu:.2f} | {wire / 1e6:.2f} |"
        for ours, theirs in zip(zip(*figures[0]), zip(*figures[1])):
            ratios = [our / max(their, 0.01) for our, their in zip(ours, theirs)]
            line += " |" if name == first else (
                f" {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")
        lines.append(line)
    return "\n".join(lines)
