#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The shared libraries export the functions of blkmig.h and nothing else, under the soname libblkmig.so.1.

usage: exports.py HEADER LIBRARY..."""
import re
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def check(library, declared):
    failures = []
    exported = {line.split()[-1].split("@")[0] for line in output("nm", "-D", "--defined-only", library).splitlines()}
    exported.discard("")
    for name in sorted(exported - declared):
        failures.append(f"exports {name}, which the header does not declare")
    for name in sorted(declared - exported):
        failures.append(f"does not export {name}")
    soname = re.search(r"SONAME.*\[(.*)\]", output("readelf", "-d", library))
    if not soname or soname[1] != "libblkmig.so.1":
        failures.append(f"has soname {soname and soname[1]}")
    for failure in failures:
        print(f"{library} {failure}")
    return not failures


def main():
    header, *libraries = sys.argv[1:]
    with open(header, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    declared = set(re.findall(r"\b(blk_mig_\w+)\s*\(", text))
    assert len(declared) > 15 and libraries
    sys.exit(not all([check(library, declared) for library in libraries]))


if __name__ == "__main__":
    main()
