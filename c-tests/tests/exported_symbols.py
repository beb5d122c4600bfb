#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A library exports the functions of blkmig.h and nothing else. A shared one has the soname libblkmig.so.1. If it was
made by meson, each function has the version from which on, by its comment, it exists.

usage: exported_symbols.py HEADER LIBRARY
       exported_symbols.py HEADER --cargo COMMAND...   checks the library that this cargo command builds"""
import json
import re
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def exports(library):
    """Each name with its version, or ""."""
    if library.endswith(".a"):
        lines = [line.split() for line in output("nm", "-g", "--defined-only", library).splitlines()]
        return {line[2]: "" for line in lines if len(line) == 3}
    symbols = [line.split() for line in output("readelf", "--wide", "--dyn-syms", library).splitlines()]
    names = [line[7] for line in symbols if len(line) == 8 and line[4] in ("GLOBAL", "WEAK")
             and line[6] not in ("UND", "ABS")]
    return dict(name.split("@@") if "@@" in name else (name, "") for name in names)


def check(library, declared, versioned):
    failures = []
    exported = exports(library)
    for name in sorted(exported.keys() - declared.keys()):
        failures.append(f"exports {name}, which the header does not declare")
    for name, version in sorted(declared.items()):
        if name not in exported:
            failures.append(f"does not export {name}")
        elif exported[name] != (version if versioned else ""):
            failures.append(f"exports {name} with version {exported[name] or 'none'}, should be {version}")
    if not library.endswith(".a"):
        soname = re.search(r"SONAME.*\[(.*)\]", output("readelf", "-d", library))
        if not soname or soname[1] != "libblkmig.so.1":
            failures.append(f"has soname {soname and soname[1]}")
    for failure in failures:
        print(f"{library} {failure}")
    return not failures


def built_by(command):
    """The path of the shared library, as cargo prints it."""
    for line in output(*command, "--message-format=json").splitlines():
        message = json.loads(line)
        for name in message.get("filenames", []):
            if name.endswith("/libblkmig.so"):
                return name
    sys.exit("cargo has built no libblkmig.so")


def main():
    header, library, *command = sys.argv[1:]
    by_cargo = library == "--cargo"
    if by_cargo:
        library = built_by(command)
    with open(header, encoding="utf-8") as f:
        functions = re.findall(r"/\*\*((?:(?!\*/).)*)\*/\s*[\w ]+\b(blk_mig_\w+)\(", f.read(), flags=re.S)
    declared = {}
    for comment, name in functions:
        since = re.search(r"\bSince (\d+\.\d+)", comment)
        declared[name] = "BLKMIG_" + (since[1] if since else "1.0")
    assert len(declared) > 15
    sys.exit(not check(library, declared, versioned=not by_cargo and not library.endswith(".a")))


if __name__ == "__main__":
    main()
