#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Lets meson ask cargo: `library` builds the static library, `native-libs` prints what it must be linked with.

meson cannot know what the library depends on, so it asks cargo in every build. The result is copied only where it
differs: nothing that depends on it is made again otherwise.
"""
import argparse
import filecmp
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile


def library(args):
    command = [args.cargo, "rustc", "--lib", "--crate-type", "staticlib", "--locked", "--profile", args.profile,
               "--manifest-path", args.manifest, "--target-dir", args.target_dir,
               "--message-format", "json-render-diagnostics"]
    if args.target:
        command += ["--target", args.target]
    # cargo looks for its configuration, which may say where vendored crates are, from the folder that it runs in.
    cargo = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=pathlib.Path(args.manifest).parent)
    if cargo.returncode:
        return cargo.returncode
    messages = [json.loads(line) for line in cargo.stdout.splitlines() if line.startswith("{")]
    artifacts = [message for message in messages if message["reason"] == "compiler-artifact"
                 and "staticlib" in message["target"]["crate_types"]]
    built = next(name for name in artifacts[-1]["filenames"] if name.endswith(".a"))
    output = pathlib.Path(args.output)
    if not output.exists() or not filecmp.cmp(built, output, shallow=False):
        shutil.copyfile(built, output)
    return 0


def native_libs(args):
    with tempfile.TemporaryDirectory() as folder:
        empty = pathlib.Path(folder, "empty.rs")
        empty.write_text("")
        command = [args.rustc, "--crate-type", "staticlib", "--print", "native-static-libs", "--out-dir", folder, str(empty)]
        if args.target:
            command += ["--target", args.target]
        rustc = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    for line in rustc.stderr.splitlines():
        _, found, libraries = line.partition("native-static-libs: ")
        if found:
            # Every C compiler adds it, or in a static program its twin, by itself.
            print(" ".join(name for name in libraries.split() if name != "-lgcc_s"))
            return 0
    what = f"for {args.target} " if args.target else ""
    sys.stderr.write(f"{args.rustc} can't build a library {what}(is Rust's standard library for it there?): {rustc.stderr}")
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("library")
    for name in ("--cargo", "--profile", "--manifest", "--target-dir", "--output"):
        build.add_argument(name, required=True)
    build.add_argument("--target", default="", help="cargo's name of the machine; empty for this one")
    build.set_defaults(run=library)
    libs = commands.add_parser("native-libs")
    libs.add_argument("--rustc", required=True)
    libs.add_argument("--target", default="")
    libs.set_defaults(run=native_libs)
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
