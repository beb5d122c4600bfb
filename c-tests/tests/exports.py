#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A library exports the functions of blkmig.h and nothing else; a shared one has the soname libblkmig.so.1, and gives each
function the version BLKMIG_1.0 if it is the one that meson makes.

usage: exports.py HEADER LIBRARY
       exports.py HEADER --cargo COMMAND...   the library that `cargo build` alone leaves"""
import json
import re
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def check(library, declared):
    failures = []
    archive = library.endswith(".a")
    lines = output("nm", "-g" if archive else "-D", "--defined-only", library).splitlines()
    exported = {line.split()[-1].split("@")[0] for line in lines if len(line.split()) == 3}
    for name in sorted(exported - declared):
        failures.append(f"exports {name}, which the header does not declare")
    for name in sorted(declared - exported):
        failures.append(f"does not export {name}")
    if archive:
        return report(library, failures)
    soname = re.search(r"SONAME.*\[(.*)\]", output("readelf", "-d", library))
    if not soname or soname[1] != "libblkmig.so.1":
        failures.append(f"has soname {soname and soname[1]}")
    return report(library, failures)


def report(library, failures):
    for failure in failures:
        print(f"{library} {failure}")
    return not failures


def built_by(command):
    """Where cargo says that it has put the shared library."""
    for line in output(*command, "--message-format=json").splitlines():
        message = json.loads(line)
        for name in message.get("filenames", []):
            if name.endswith("/libblkmig.so"):
                return name
    sys.exit("cargo has built no libblkmig.so")


def main():
    header, library, *command = sys.argv[1:]
    if library == "--cargo":
        library = built_by(command)
    with open(header, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    declared = set(re.findall(r"\b(blk_mig_\w+)\s*\(", text))
    assert len(declared) > 15
    sys.exit(not check(library, declared))


if __name__ == "__main__":
    main()
