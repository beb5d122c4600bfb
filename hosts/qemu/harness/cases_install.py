# SPDX-License-Identifier: GPL-2.0-only
"""What install does to a source tree: that of the version that is tested."""
import pathlib
import re
import shutil
import subprocess
import sys

from . import hosts
from .hosts import CACHE, host
from .runner import Skip, case, check

INSTALL = pathlib.Path(__file__).resolve().parent.parent / "install"
PROJECT = INSTALL.parents[2]
FILES = ["VERSION", "migration/meson.build", "migration/block.c", "migration/migration.c", "migration/qemu-file.c",
         "migration/migration-hmp-cmds.c", "include/migration/register.h", "qapi/migration.json"]
MESON, QAPI = "migration/meson.build", "qapi/migration.json"


def source():
    """QEMU's source as it was, of the version that is tested."""
    if hosts.chosen not in hosts.VERSIONS:
        raise Skip("there is no source of it without the library")
    if hosts.chosen == "7.2":
        return CACHE / "source"
    said = subprocess.run([host("ours").binary, "--version"], capture_output=True, text=True, check=True).stdout
    return CACHE / f"source-{re.search(r'version ([0-9.]+)', said)[1]}"


def tree(lab):
    """As much of it as install looks at."""
    root = lab.path("qemu")
    (root / "subprojects").mkdir(parents=True)
    for name in FILES:
        if (source() / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source() / name, root / name)
    return root


def has_block_c(root):
    return (root / "migration/block.c").exists()


def install(*arguments):
    return subprocess.run([INSTALL, *arguments], capture_output=True, text=True, timeout=30, check=False)


def content(root):
    return {path.relative_to(root): path.read_bytes() if path.is_file() else None
            for path in root.rglob("*") if not path.is_symlink()}


def change(path, old, new):
    text = path.read_text()
    check(old in text, f"{path} has no {old}")
    path.write_text(text.replace(old, new))


def twice_and_back(root):
    """Installs twice and takes it back twice; returns what the tree was in between."""
    before = content(root)
    results = []
    for _ in range(2):
        done = install(root)
        check(done.returncode == 0, done.stdout + done.stderr)
        results.append(content(root))
    check(results[0] == results[1], "the second run changed something")
    check((root / "subprojects/blkmig/meson.build").exists(), "no subproject")
    for _ in range(2):
        done = install("--undo", root)
        check(done.returncode == 0, done.stdout + done.stderr)
        check(content(root) == before, "--undo left something")
    return results[0]


@case()
def install_twice_and_undo(lab):
    """install twice is as once, and --undo takes it back"""
    root = tree(lab)
    installed = twice_and_back(root)
    build = installed[pathlib.Path(MESON)].decode()
    check("'block-migration-host.c'" in build, build)
    check(has_block_c(root) == ("'block-migration-query.c'" not in build), "not the files of this version")
    check("files('block.c')" not in build, "block.c is still built")


@case()
def install_with_changes(lab):
    """install leaves a vendor's own changes alone"""
    root = tree(lab)
    with open(root / MESON, "a", encoding="utf-8") as file:
        file.write("system_ss.add(files('vendor.c'))\n")
    change(root / MESON, "  'socket.c',\n", "  'vendor.c',\n  'socket.c',\n")
    change(root / "migration/migration.c", '#include "migration.h"\n', '#include "migration.h"\n#include "vendor.h"\n')
    change(root / QAPI, "'release-ram',", "'release-ram', 'x-vendor',")
    installed = twice_and_back(root)
    for name, text in ((MESON, b"  'vendor.c',\n"), (QAPI, b"'release-ram', 'x-vendor',")):
        check(text in installed[pathlib.Path(name)], f"{name} has lost a change")


@case()
def install_by_hand(lab):
    """install says what to put where by hand if its place is gone, and does the rest after that"""
    root = tree(lab)
    if has_block_c(root):
        name, old, new = MESON, "files('block.c')", "files('block.c', 'vendor.c')"
    else:
        name, old, new = QAPI, "# @return-path: If enabled", "# @return-path: When enabled"
    change(root / name, old, new)
    before = content(root)
    done = install(root)
    check(done.returncode == 1 and content(root) == before, "the tree was changed")
    check(not (root / "subprojects/blkmig").is_symlink(), "there is a link now")
    said = re.search(rf"^{name}, (before|instead of) the line .*:\n((.+\n)+)", done.stderr, re.M)
    check(said, f"it does not say what to do: {done.stderr}")
    line, = [line for line in (root / name).read_text().splitlines(True) if new in line]
    change(root / name, line, said[2] + (line if said[1] == "before" else ""))
    done = install(root)
    check(done.returncode == 0, done.stderr)
    check((root / name).read_text().count(said[2]) == 1, "it is there twice, or not at all")


@case()
def install_for_qapi(lab):
    """QEMU's generator takes what install makes of the QMP schema"""
    root = tree(lab)
    if has_block_c(root):
        raise Skip("it is left alone")
    shutil.copytree(source() / "qapi", root / "qapi", dirs_exist_ok=True)
    check(install(root).returncode == 0, "install failed")
    done = subprocess.run([sys.executable, "-B", source() / "scripts/qapi-gen.py", "-b", "-o", lab.path("made"),
                           root / "qapi/qapi-schema.json"], capture_output=True, text=True, timeout=60, check=False)
    check(done.returncode == 0, done.stderr)
    header = lab.path("made/qapi-types-migration.h").read_text()
    check("MIGRATION_CAPABILITY_BLOCK," in header and "MigrationStats *disk;" in header, "not what was wanted")


@case()
def install_over_older(lab):
    """install takes the place of what an older version of it has installed"""
    root = tree(lab)
    before = content(root)
    install(root)
    installed = content(root)
    for path in (root / "migration").glob("block-migration-*"):
        path.unlink()
    (root / "migration/block-migration-host.c").write_text("/* Block migration by the blkmig library: its tables */\n")
    (root / "migration/block-migration-old.c").write_text("/* Block migration by the blkmig library: gone */\n")
    (root / "migration/block-migration-theirs.c").write_text("/* a vendor's own */\n")
    build = root / MESON
    build.write_text("".join("  softmmu_ss.add(files('block-migration-host.c'), blkmig.get_variable('blkmig_dep'))\n"
                             if "block-migration-" in line else line for line in build.read_text().splitlines(True)))
    theirs = {pathlib.Path("migration/block-migration-theirs.c"): b"/* a vendor's own */\n"}
    check(install(root).returncode == 0 and content(root) == installed | theirs, "not as if installed anew")
    check(install("--undo", root).returncode == 0 and content(root) == before | theirs, "--undo left something")


@case(["a copy of ours", "their own copy", "the project within the tree"])
def install_in_tree(lab, how):
    """install takes a project that lies in the tree"""
    root = tree(lab)
    inside = root / "subprojects/blkmig"
    script, arguments = INSTALL, []
    if how == "a copy of ours":
        arguments = ["--copy"]
    elif how == "their own copy":
        shutil.copytree(PROJECT / "src", inside / "src")
        (inside / "theirs").touch()
    else:
        for part in ("src", "hosts/qemu"):
            shutil.copytree(PROJECT / part, root / "vendor/blkmig" / part, ignore=shutil.ignore_patterns("__pycache__"))
        script = root / "vendor/blkmig/hosts/qemu/install"
    for _ in range(2):
        done = subprocess.run([script, *arguments, root], capture_output=True, text=True, timeout=60, check=False)
        check(done.returncode == 0, done.stdout + done.stderr)
    check((inside / "src/ffi").is_dir(), "no project")
    check(inside.is_symlink() == (how == "the project within the tree"), "it is a link")
    check(how != "a copy of ours" or (inside / "hosts/qemu/build").exists() and not (inside / "target").exists(),
          "not the right copy")
    check(how != "their own copy" or (inside / "theirs").exists(), "it is not their own any more")
    if inside.is_symlink():
        check(str(inside.readlink()) == "../vendor/blkmig", f"a link to {inside.readlink()}")
    check(install("--undo", root).returncode == 0, "--undo failed")
    check(inside.is_symlink() or inside.exists() == (how != "the project within the tree"),
          "--undo removed what was theirs")


@case(["too old", "too new", "of a version to come", "with another block.c", "with other handlers", "without a stream",
       "with something else at subprojects/blkmig"])
def install_refuses(lab, what):
    """install refuses a tree that it does not know"""
    root = tree(lab)
    versions = {"too old": "5.2.0", "too new": "11.0.0", "of a version to come": "9.0.50"}
    if what in versions:
        (root / "VERSION").write_text(f"{versions[what]}\n")
    elif what == "with another block.c":
        if not has_block_c(root):
            raise Skip("it has no block.c")
        (root / "migration/block.c").write_text("/* empty */\n")
    elif what == "with other handlers":
        (root / "include/migration/register.h").write_text("/* empty */\n")
    elif what == "with something else at subprojects/blkmig":
        (root / "subprojects/blkmig").mkdir()
    else:
        (root / "migration/qemu-file.c").unlink()
    before = content(root)
    done = install(root)
    check(done.returncode == 1, f"status {done.returncode}")
    check(done.stderr.startswith("install: "), done.stderr)
    check(content(root) == before and not (root / "subprojects/blkmig").is_symlink(), "the tree was changed")
