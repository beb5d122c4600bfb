#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Which of the regression tests the original fails, as a table; ours must pass them all.

usage: report.py OURS ORIGINAL NAME...

OURS is the folder of our programs; ORIGINAL that of the same ones linked with the original: named original-NAME, and,
where that is what it takes to see the defect, sanitized-NAME (with AddressSanitizer) instead."""
import os
import pathlib
import signal
import subprocess
import sys

TIMEOUT = 15                                  # seconds: the slowest one takes 6 on a busy machine


def outcome(program):
    """Nothing if it passed, else how it failed, in a line."""
    try:
        done = subprocess.run([program], capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False,
                              env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines()]
    for line in lines:
        if "ERROR: AddressSanitizer" in line:
            return line.split("ERROR: ")[1].split(" on address")[0]
        if "Assertion" in line:
            return "aborts: " + line.split("Assertion ")[1]
    if done.returncode < 0:
        return "crashes: " + signal.strsignal(-done.returncode)
    return lines[-1].split(": ", 1)[-1] if lines else f"status {done.returncode}"


def main():
    ours, original, *names = sys.argv[1:]
    original = pathlib.Path(original)
    failed = 0
    wrong = []
    for name in names:
        if why := outcome(pathlib.Path(ours) / name):
            wrong.append(f"{name}: {why}")
        sanitized = original / f"sanitized-{name}"
        found = outcome(sanitized if sanitized.exists() else original / f"original-{name}")
        failed += found is not None
        print(f"{name:38} {'FAILS: ' + found if found else 'passes'}", flush=True)
    print(f"\nthe original fails {failed} of {len(names)}")
    for line in wrong:
        print(f"OURS FAILS {line}")
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()
