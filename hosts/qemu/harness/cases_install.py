# SPDX-License-Identifier: GPL-2.0-only
"""What install does to a source tree."""
import pathlib
import shutil
import subprocess

from .runner import case, check
from .vm import CACHE

INSTALL = pathlib.Path(__file__).resolve().parent.parent / "install"
PROJECT = INSTALL.parents[2]
FILES = ["VERSION", "migration/meson.build", "migration/block.c", "migration/migration.c", "migration/qemu-file.c",
         "include/migration/register.h"]


def tree(lab):
    """As much of QEMU's tree as install looks at."""
    lab.need_qemus_own("a block.c that could be replaced")
    root = lab.path("qemu")
    (root / "subprojects").mkdir(parents=True)
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CACHE / "source" / name, root / name)
    return root


def install(*arguments):
    return subprocess.run([INSTALL, *arguments], capture_output=True, text=True, timeout=30, check=False)


def content(root):
    return {path.relative_to(root): path.read_bytes() if path.is_file() else None
            for path in root.rglob("*") if not path.is_symlink()}


@case()
def install_twice_and_undo(lab):
    """install twice is as once, and --undo takes it back"""
    root = tree(lab)
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
    build = root / "migration/meson.build"
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


@case(["of another version", "with another block.c", "with another migration/meson.build", "without a stream",
       "with something else at subprojects/blkmig"])
def install_refuses(lab, what):
    """install refuses a tree that it does not know"""
    root = tree(lab)
    if what == "of another version":
        (root / "VERSION").write_text("8.2.0\n")
    elif what == "with another block.c":
        (root / "migration/block.c").write_text("/* empty */\n")
    elif what == "with another migration/meson.build":
        (root / "migration/meson.build").write_text("# empty\n")
    elif what == "with something else at subprojects/blkmig":
        (root / "subprojects/blkmig").mkdir()
    else:
        (root / "migration/qemu-file.c").unlink()
    before = content(root)
    done = install(root)
    check(done.returncode == 1, f"status {done.returncode}")
    check(done.stderr.startswith("install: "), done.stderr)
    check(what != "with another migration/meson.build" or "'block-migration-host.c'" in done.stderr,
          "it does not say what to do")
    check(content(root) == before and not (root / "subprojects/blkmig").is_symlink(), "the tree was changed")
