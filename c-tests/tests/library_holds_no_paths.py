#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""No library holds the path of a folder of the machine that it was built on: these, the home, and cargo's.

usage: library_holds_no_paths.py LIBRARY... -- FOLDER..."""
import os
import pathlib
import sys


def main():
    split = sys.argv.index("--")
    libraries, folders = sys.argv[1:split], sys.argv[split + 1:]
    home = str(pathlib.Path.home()).rstrip("/")
    folders += [home, os.environ.get("CARGO_HOME") or home + "/.cargo"]
    failures = 0
    for library in libraries:
        content = pathlib.Path(library).read_bytes()
        for folder in sorted(set(filter(None, folders))):
            at = content.find(folder.encode() + b"/")
            if at >= 0:
                print(f"{library} holds {content[at:at + 100].split(bytes(1))[0].decode(errors='replace')}")
                failures += 1
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
