# SPDX-License-Identifier: GPL-2.0-only
"""QEMUs of Debian's archive, newer ones than this machine's own lists may have: their source and their binaries.

All lies in the cache folder, apt's lists included; the machine's own are left alone.
"""
import pathlib
import re
import shutil
import subprocess

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LISTS = [("deb", "debian", "bookworm"), ("deb", "debian", "bookworm-backports"),
         ("deb-src", "debian", "bookworm-backports"), ("deb-src", "debian", "trixie"), ("deb-src", "debian", "sid")]


class DebianError(Exception):
    """Something went wrong on the way."""


class Missing(DebianError):
    """Debian's archive has not got what is asked for."""


def run(*command, **options):
    """Returns what it printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise DebianError(f"{' '.join(map(str, command))}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def options(cache):
    """apt's, for lists of our own, which are brought up to date at most once for each cache folder."""
    own = pathlib.Path(cache) / "apt-lists"
    made = ["-o", f"Dir::Etc::sourcelist={own}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null",
            "-o", "Dir::Etc::preferencesparts=/dev/null", "-o", f"Dir::State::Lists={own}/lists",
            "-o", f"Dir::Cache={own}/cache", "-o", f"Dir::State::status={own}/status", "-o", "APT::Sandbox::User=root"]
    if not (own / "ready").exists():
        for folder in ("lists/partial", "cache/archives/partial"):
            (own / folder).mkdir(parents=True, exist_ok=True)
        (own / "status").touch()
        (own / "sources.list").write_text("".join(
            f"{kind} [signed-by={KEYRING}] http://deb.debian.org/{archive} {suite} main\n"
            for kind, archive, suite in LISTS))
        run("apt-get", *made, "-q", "update")
        (own / "ready").touch()
    return made


def fetch(cache, wanted, folder):
    """Downloads these files of a source package, lines of --print-uris, and checks them against apt's signed lists."""
    for line in wanted:
        url, name, _, checksum = line.split()
        run("/usr/lib/apt/apt-helper", *options(cache), "download-file", url.strip("'"), folder / name, checksum)


def binary(cache, version):
    """The program of Debian's newest QEMU of this version, such as 10.0, in a folder of its own.

    Nothing is installed but the libraries that it needs.
    """
    folder = pathlib.Path(cache) / f"debian-{version}"
    if not folder.exists():
        made = options(cache)
        listed = run("apt-cache", *made, "madison", "qemu-system-x86").splitlines()
        offered = [line.split("|")[1].strip() for line in listed]
        fitting = [v for v in offered if f":{version}." in v]
        if not fitting:
            raise Missing(f"no QEMU {version}: Debian's archive has {', '.join(offered)}")
        getting = folder.with_suffix(".getting")
        shutil.rmtree(getting, ignore_errors=True)
        getting.mkdir(parents=True)
        packages = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils")
        run("apt-get", *made, "-q", "download", *(f"{name}={fitting[0]}" for name in packages), cwd=getting)
        depends = []
        for deb in getting.glob("*.deb"):
            run("dpkg-deb", "-x", deb, getting / "new")
            depends += re.findall(r"\blib[\w.+-]+", run("dpkg-deb", "-f", deb, "Depends"))
        install_missing(depends)
        (getting / "new").rename(folder)
        shutil.rmtree(getting)
    return folder / "usr/bin/qemu-system-x86_64"


def install_missing(packages):
    """From the machine's own lists: these libraries are as old as its distribution."""
    known = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Status}\n", *packages],
                           capture_output=True, text=True, check=False).stdout.splitlines()
    there = {line.split()[0] for line in known if line.endswith(" installed")}
    missing = sorted(set(packages) - there)
    if missing:
        run("apt-get", "-q", "-y", "--no-install-recommends", "--no-remove", "install", *missing)


def source(cache, version, package):
    """The folder with the source that a binary of this version was made from.

    Debian's patches are applied if its archive still has them. It throws them away earlier than the original source.
    """
    folder = pathlib.Path(cache) / f"source-{version}"
    return folder if folder.exists() else get_source(cache, version, package, folder)


def get_source(cache, version, package, folder):
    offered = [line.split("|")[1].strip() for line in run("apt-cache", *options(cache), "madison", "qemu").splitlines()
               if "Sources" in line]
    exact = re.search(r"\S*" + re.escape(version) + r"\S*", package)
    fitting = [v for v in offered if exact and v == exact[0]] + [v for v in offered if f":{version}+" in v]
    if not fitting:
        raise Missing(f"no source of QEMU {version}: Debian's archive has {', '.join(sorted(set(offered)))}")
    getting = folder.with_suffix(".getting")
    shutil.rmtree(getting, ignore_errors=True)
    getting.mkdir(parents=True)
    listed = run("apt-get", *options(cache), "source", "--print-uris", f"qemu={fitting[0]}").splitlines()
    lines = [line for line in listed if line.startswith("'")]
    try:
        fetch(cache, lines, getting)
        run("dpkg-source", "--no-check", "-x", *getting.glob("*.dsc"), getting / "new")
    except DebianError:
        original = [line for line in lines if ".orig.tar" in line]
        fetch(cache, original, getting)
        (getting / "new").mkdir(exist_ok=True)
        run("tar", "-xf", *getting.glob("*.orig.tar.*"), "-C", getting / "new", "--strip-components=1")
    (getting / "new").rename(folder)
    shutil.rmtree(getting)
    return folder
