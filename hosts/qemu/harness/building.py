# SPDX-License-Identifier: GPL-2.0-only
"""Builds QEMUs in the cache folder, with this library and without. What is up to date is not built again."""
import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys

from . import debian
from .hosts import CACHE, PROGRAM

HERE = pathlib.Path(__file__).resolve().parent.parent
# Debian's, whatever else is in PATH: another ninja would forget all that was built.
NINJA = "/usr/bin/ninja"
# For 8.1 and later, which take no other than that of a Python's packages; it suits all of them.
MESON = ("meson==1.5.2", "distlib", "pycotap")
OPTIONS = ["--without-default-features", "--disable-debug-info", "--enable-system", "--enable-kvm", "--enable-tcg",
           "--enable-tools", "--enable-linux-aio", "--target-list=x86_64-softmmu", f"--ninja={NINJA}"]
TARGETS = [PROGRAM, "qemu-img", "qemu-io", "qemu-nbd", "storage-daemon/qemu-storage-daemon"]


class BuildError(Exception):
    """Something can't be built; the text says why."""


def run(log, *command, **options):
    """Quiet unless it fails; what it says is in the log."""
    with open(log, "wb") as file:
        done = subprocess.run(["nice", *map(str, command)], stdout=file, stderr=subprocess.STDOUT, check=False,
                              env=os.environ | {"NINJA": NINJA}, **options)
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise BuildError(f"{last}\nfailed: {' '.join(map(str, command))}; see {log}")


@contextlib.contextmanager
def alone():
    """One build in the cache at a time: the next waits."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def version_of(source):
    """(10, 0, 13), say."""
    try:
        text = (source / "VERSION").read_text().strip()
    except OSError as error:
        raise BuildError(f"{error}; is {source} the source of QEMU?") from None
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise BuildError(f"{source} is QEMU {text}")
    return tuple(map(int, found.groups()))


def python_with_meson():
    folder = CACHE / "venv"
    python = folder / "bin/python3"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            debian.run("/usr/bin/python3", "-m", "venv", folder)
        except debian.DebianError:
            debian.install_missing(["python3-venv"])
            debian.run("/usr/bin/python3", "-m", "venv", "--clear", folder)
        debian.run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *MESON)
        (folder / "ready").touch()
    return python


def options_for(version):
    options = list(OPTIONS)
    if version < (9, 1):
        options.append("--enable-live-block-migration")
    if version < (8, 1):
        options.append("--meson=/usr/bin/meson")
    else:
        # x-colo is a part of the last. Debian's sources come without firmware; the tests use that of its binaries.
        options += [f"--python={python_with_meson()}", "--disable-install-blobs", "--enable-replication"]
    return options


def compile_tree(source, build):
    """Configures the source, if that was not done, and builds what the tests need."""
    build.mkdir(parents=True, exist_ok=True)
    if not (build / "build.ninja").exists():
        run(build / "configure.log", source / "configure", *options_for(version_of(source)), cwd=build)
    run(build / "build.log", NINJA, "-j", os.environ.get("JOBS", "2"), *TARGETS, cwd=build)
    print(f"build: {build / PROGRAM}", flush=True)


def install(source):
    done = subprocess.run([HERE / "install", source], capture_output=True, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        raise BuildError(done.stderr.strip())


def copy_tree(source, copy):
    """All or nothing, and without its history, which may be large."""
    new = copy.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, new, symlinks=True, ignore=lambda folder, _: [".git"] if folder == str(source) else [])
    new.rename(copy)


def default_folder(source):
    return CACHE / f"qemu-{'.'.join(map(str, version_of(source)))}"


def build_tree(source, folder):
    """Builds a copy of somebody's tree with this library in it: in folder/source and folder/build."""
    source, folder = pathlib.Path(source).resolve(), pathlib.Path(folder)
    made_of = folder / "made-of"
    if not (folder / "source").exists():
        print(f"build: copying {source} to {folder / 'source'}", flush=True)
        copy_tree(source, folder / "source")
        made_of.write_text(f"{source}\n")
    elif made_of.read_text().strip() != str(source):
        raise BuildError(f"{folder} was made of {made_of.read_text().strip()}; name another with --output")
    install(folder / "source")
    compile_tree(folder / "source", folder / "build")


def build_7_2(library):
    """7.2 as Debian has it, without and with this library."""
    if not library:
        compile_tree(CACHE / "source", CACHE / "build-unmodified")
        return
    if not (CACHE / "source-modified").exists():
        copy_tree(CACHE / "source", CACHE / "source-modified")
    install(CACHE / "source-modified")
    compile_tree(CACHE / "source-modified", CACHE / "build-modified")


def build_object(version):
    """The loadable object for the QEMU that Debian has built."""
    done = subprocess.run([HERE / "module", "--output", CACHE / f"build-{version}", debian.binary(CACHE, version)],
                          check=False)
    if done.returncode != 0:
        raise BuildError(f"no object for Debian's {version}")


def build(name):
    """What hosts/qemu/build makes by this name."""
    try:
        subprocess.run([HERE / "fetch"], check=True)
        if name in ("unmodified", "modified"):
            build_7_2(name == "modified")
        elif re.fullmatch(r"\d+\.\d+", name):
            build_object(name)
        else:
            build_tree(debian.source(CACHE, name, ""), CACHE / f"qemu-{name}")
    except debian.Missing:
        raise
    except (debian.DebianError, subprocess.CalledProcessError) as error:
        raise BuildError(str(error)) from None


def main(action):
    """Runs it with the cache for itself; ends the program with a text if it fails."""
    try:
        with alone():
            action()
    except (BuildError, debian.Missing) as error:
        sys.exit(f"build: {error}")
