#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Lets meson ask cargo: `library` builds the static library, `native-libs` prints what it must be linked with.

meson cannot know what the library depends on, so it asks cargo in every build. The result is copied only where it
differs: nothing that depends on it is made again otherwise.
"""
import argparse
import filecmp
import json
import os
import pathlib
import re
import shlex
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
    if args.profile == "release":
        remap(args, command)
    # cargo looks for its configuration, which may say where vendored crates are, from the folder that it runs in.
    cargo = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=pathlib.Path(args.manifest).parent)
    if cargo.returncode:
        return cargo.returncode
    messages = [json.loads(line) for line in cargo.stdout.splitlines() if line.startswith("{")]
    artifacts = [message for message in messages if message["reason"] == "compiler-artifact"
                 and "staticlib" in message["target"]["crate_types"]]
    built = next(name for name in artifacts[-1]["filenames"] if name.endswith(".a"))
    output = pathlib.Path(args.output)
    with tempfile.TemporaryDirectory() as folder:
        alone = hide(args, built, folder)
        if not output.exists() or not filecmp.cmp(alone, output, shallow=False):
            shutil.copyfile(alone, output)
    return 0


def remap(args, command):
    """Keeps the names of this computer's folders out of what is built. Panics and debuggers do not need them."""
    home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    folders = {pathlib.Path(args.manifest).parent: "blkmig", home / "registry" / "src": "registry",
               pathlib.Path(args.target_dir): "target"}
    flags = [f"--remap-path-prefix={folder}={name}" for folder, name in folders.items()]
    if "CARGO_ENCODED_RUSTFLAGS" in os.environ:
        os.environ["CARGO_ENCODED_RUSTFLAGS"] += "\x1f" + "\x1f".join(flags)
    elif "RUSTFLAGS" in os.environ:
        # Of the two variables the one in which a folder may have a space; cargo prefers it.
        os.environ["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(os.environ["RUSTFLAGS"].split() + flags)
    elif any(" " in flag for flag in flags):
        command += ["--config", f"build.rustflags={json.dumps(flags)}"]
    else:
        # Unlike the others this adds to what the user's configuration says, be that a string or a list.
        os.environ["CARGO_BUILD_RUSTFLAGS"] = " ".join([os.environ.get("CARGO_BUILD_RUSTFLAGS", ""), *flags]).strip()


def hide(args, archive, folder):
    """Makes an archive that defines the functions of blkmig.h and nothing else of it.

    Each static library that rustc makes contains all of Rust's standard library, so a program could not link two of
    them. What the functions need goes into one object file here, and all names but theirs become local to it.
    """
    def tool(name, *arguments):
        command = shlex.split(args.cc) + ["-print-prog-name=" + name]
        program = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        subprocess.run([program, *arguments], check=True)

    header = pathlib.Path(args.manifest).parent / "include" / "blkmig.h"
    text = re.sub(r"/\*.*?\*/", "", header.read_text(encoding="utf-8"), flags=re.S)
    names = sorted(set(re.findall(r"\b(blk_mig_\w+)\s*\(", text)))
    linked, alone, output = (str(pathlib.Path(folder, name)) for name in ("linked.o", "blkmig.o", "libblkmig.a"))
    # With its groups left in, a section that both libraries have would be dropped here for the other one's.
    tool("ld", "-r", "--force-group-allocation", *(f"--undefined={name}" for name in names), "-o", linked, archive)
    # LLVM's own sections make other tools take the file for one of LLVM's.
    tool("objcopy", *(f"--keep-global-symbol={name}" for name in names), "--remove-section=.llvmbc",
         "--remove-section=.llvmcmd", linked, alone)
    tool("ar", "rcsD", output, alone)
    return output


def native_libs(args):
    with tempfile.TemporaryDirectory() as folder:
        empty = pathlib.Path(folder, "empty.rs")
        empty.write_text("")
        command = [args.rustc, "--crate-type", "staticlib", "--print", "native-static-libs", "--out-dir", folder,
                   str(empty)]
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
    sys.stderr.write(f"{args.rustc} can't build a library {what}(is Rust's standard library for it there?): "
                     f"{rustc.stderr}")
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("library")
    for name in ("--cargo", "--profile", "--manifest", "--target-dir", "--cc", "--output"):
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
