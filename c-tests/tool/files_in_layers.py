#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""No two files of a static library call each other, neither directly nor through others.

usage: files_in_layers.py LIBRARY"""
import collections
import subprocess
import sys


def symbols(library):
    """Two dictionaries: the file that defines a symbol, and the symbols that a file takes from others."""
    defined, wanted = {}, collections.defaultdict(set)
    file = None
    for line in subprocess.check_output(["nm", library], text=True).splitlines():
        words = line.split()
        if line.endswith(":"):
            file = line[:-1]
        elif words and words[-2] == "U":
            wanted[file].add(words[-1])
        elif words and words[-2] in "BCDRTV":
            defined[words[-1]] = file
    return defined, wanted


def calls(defined, wanted):
    return {file: {defined[name] for name in names if name in defined and defined[name] != file}
            for file, names in wanted.items()}


def circle(graph):
    """The files of a circle, or nothing."""
    done = set()

    def walk(file, path):
        if file in path:
            return [*path[path.index(file):], file]
        if file not in done:
            for other in sorted(graph.get(file, ())):
                if found := walk(other, [*path, file]):
                    return found
            done.add(file)
        return None

    return next((found for file in sorted(graph) if (found := walk(file, []))), None)


def main():
    defined, wanted = symbols(sys.argv[1])
    graph = calls(defined, wanted)
    if sum(map(len, graph.values())) < 10:
        sys.exit(f"no calls between files were found in {sys.argv[1]}")
    if found := circle(graph):
        sys.exit("these files call each other in a circle: " + " -> ".join(found))


main()
