#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""blkmig-hv as its user sees it: whole migrations between two processes, and one clear line for each error."""
import contextlib
import os
import pathlib
import pty
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from cli_case import HYPERVISOR, LIMIT, MIB, STYLES, Case


class Migrations(Case):
    def test_both_styles_while_the_guest_writes(self):
        for style in STYLES:
            for zero in (["--no-zero-blocks"], ["--zero-blocks"]):
                with self.subTest(style=style, zero=zero):
                    big, odd = self.pair(24 * MIB, "big"), self.pair(5 * MIB + 1234, "odd")
                    destination, _ = self.listen("--style", style, big[1], odd[1])
                    source = self.connect("--style", style, "--guest-writes", "20", "--bandwidth", "60M", *zero, big[0],
                                          odd[0])
                    self.assert_completed(source, destination)
                    self.assert_same("big")
                    self.assert_same("odd")

    def test_each_style_reads_the_other(self):
        for style, other in (STYLES, STYLES[::-1]):
            disk = self.pair(7 * MIB)
            destination, _ = self.listen("--style", style, disk[1])
            self.assert_completed(self.connect("--style", other, "--guest-writes", "5", disk[0]), destination)
            self.assert_same()

    def test_over_tcp(self):
        disk = self.pair(3 * MIB + 512)
        for host in ("127.0.0.1", "localhost"):
            destination, address = self.listen(disk[1], address=f"{host}:0")
            self.assertNotEqual(address.split(":")[-1], "0")
            self.assert_completed(self.connect(disk[0], address=address), destination)
            self.assert_same()

    def test_destination_that_confirms_at_once(self):
        """If nothing has to be written to a disk, the destination confirms at once."""
        if os.access("/dev/shm", os.W_OK):
            shutil.rmtree(self.folder)
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="blkmig-", dir="/dev/shm"))
            self.address = f"unix:{self.folder}/socket"
        disk = self.pair(MIB)
        for style in STYLES * 10:
            destination, _ = self.listen("--style", style, disk[1])
            self.assert_completed(self.connect("--style", style, disk[0]), destination)

    def test_disks_of_every_awkward_size(self):
        disks = [self.pair(size, f"d{size}") for size in (0, 1, 511, 512, 513, MIB - 1, MIB, MIB + 1, 2 * MIB + 4095)]
        destination, _ = self.listen(*(disk[1] for disk in disks))
        source = self.connect("--guest-writes", "5", *(disk[0] for disk in disks))
        self.assert_completed(source, destination)
        for image in self.folder.glob("source-*"):
            self.assert_same(image.name[len("source-"):])

    def test_old_data_of_the_destination_is_overwritten(self):
        for zero in (["--no-zero-blocks"], ["--zero-blocks"]):
            disk = self.pair(6 * MIB)
            with open(self.folder / "source-hd0", "r+b") as file:
                file.truncate(MIB)
                file.truncate(6 * MIB)
            self.image("destination-hd0", 6 * MIB)
            destination, _ = self.listen(disk[1])
            self.assert_completed(self.connect(*zero, disk[0]), destination)
            self.assert_same()

    def test_holes_stay_holes(self):
        disk = self.pair(64 * MIB)
        image = self.image("source-hd0", 64 * MIB, data=False)
        with open(image, "r+b") as file:
            file.seek(40 * MIB)
            file.write(random.randbytes(MIB))
        for style in STYLES:
            destination, _ = self.listen(disk[1])
            source = self.connect("--style", style, disk[0])
            self.assert_completed(source, destination)
            self.assert_same()
            self.assertLess((self.folder / "destination-hd0").stat().st_blocks * 512, 2 * MIB)
            self.assertLess(float(re.search(r"on the wire +([\d.]+) MiB", source.out)[1]), 2)

    def test_read_only_disk_is_not_migrated(self):
        disk = self.pair(2 * MIB)
        cd = self.image("cd", MIB)
        destination, _ = self.listen(disk[1])
        self.assert_completed(self.connect(f"--disk=cd={cd},readonly", disk[0]), destination)
        self.assert_same()

    def test_only_chosen_disks_are_migrated(self):
        pairs = {name: self.pair(2 * MIB, name) for name in ("hd0", "a,b", "hd2")}
        for style in STYLES:
            with self.subTest(style):
                destination, _ = self.listen("--style", style, pairs["a,b"][1], pairs["hd2"][1])
                source = self.connect("--style", style, "--devices", "hd2,a,,b", "--guest-writes", "5",
                                      *(pair[0] for pair in pairs.values()))
                self.assert_completed(source, destination)
                self.assert_same("a,b")
                self.assert_same("hd2")

    def test_raw_stream(self):
        for style in STYLES:
            disk = self.pair(5 * MIB)
            destination, _ = self.listen("--raw", "--style", style, disk[1])
            source = self.end(self.connect("--raw", "--style", style, disk[0]))
            self.assertEqual((source.returncode, source.err), (0, ""))
            self.assert_completed(destination)
            self.assert_same()

    def test_bandwidth_limit(self):
        for style in STYLES:
            disk = self.pair(12 * MIB)
            destination, _ = self.listen(disk[1])
            source = self.connect("--style", style, "--bandwidth", "6M", "--max-downtime", "0", disk[0])
            self.assert_completed(source, destination)
            seconds = float(re.search(r"time +([\d.]+) s", source.out)[1])
            self.assertGreater(seconds, 1.5)
            self.assertLess(seconds, 6)

    def test_memory_stays_within_the_buffers(self):
        if b"__asan_init" in pathlib.Path(HYPERVISOR).read_bytes():
            self.skipTest("a sanitizer has memory of its own")
        for style in STYLES:
            disk = self.pair(192 * MIB)
            destination, _ = self.listen("--max-buffers", "8", "--style", style, disk[1])
            source = self.connect("--max-buffers", "8", "--style", style, disk[0])
            self.assert_completed(source, destination)
            for process in (source, destination):
                self.assertLess(int(re.search(r"memory +(\d+) MiB", process.out)[1]), 8 + 24)

    def test_terminal_shows_a_bar(self):
        disk = self.pair(12 * MIB)
        destination, _ = self.listen(disk[1])
        master, slave = pty.openpty()
        source = subprocess.Popen([HYPERVISOR, "--connect", self.address, "--bandwidth", "12M", disk[0]], stdout=slave)
        self.running.append(source)
        os.close(slave)
        shown = b""
        while source.poll() is None or b"memory" not in shown:
            try:
                shown += os.read(master, 4096)
            except OSError:
                break
        os.close(master)
        self.assert_completed(destination)
        self.assertEqual(source.wait(LIMIT), 0)
        self.assertRegex(shown, rb"\r\x1b\[K\[#+\.+\] +\d+ %   \d+ MiB/s   \d+ s left   dirty \d+ MiB")
        self.assertIn(b"migration completed", shown)


class SharedBase(Case):
    SIZE = 8 * MIB

    def overlay(self, name, extents=()):
        path = self.image(name, self.SIZE, data=False)
        with open(path, "r+b") as file:
            for start, length in extents:
                file.seek(start)
                file.write(random.randbytes(length))
        return path

    def contents(self, path, base):
        """What the guest sees: the data of the overlay, and where it has none, that of the base."""
        seen = bytearray(base.read_bytes().ljust(self.SIZE, b"\0")[:self.SIZE])
        with open(path, "rb", buffering=0) as file:
            at = 0
            while at < self.SIZE:
                try:
                    start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                seen[start:at] = os.pread(file.fileno(), at - start, start)
        return bytes(seen)

    def test_only_the_overlay_is_sent(self):
        for style in STYLES:
            base = self.image("base", 6 * MIB)
            ours = self.overlay("ours", [(2 * MIB + 8192, 65536), (7 * MIB, 4096)])
            theirs = self.overlay("theirs", [(0, MIB)])      # left over from before
            destination, _ = self.listen("--style", style, f"--disk=hd0={theirs},base={base}")
            source = self.connect("--style", style, "--shared-base", f"--disk=hd0={ours},base={base}")
            self.assert_completed(source, destination)
            self.assertTrue(self.contents(ours, base) == self.contents(theirs, base))
            self.assertLess(float(re.search(r"on the wire +([\d.]+) MiB", source.out)[1]), 3)

    def test_the_guest_writes_over_the_base(self):
        for style in STYLES:
            for zero in (["--no-zero-blocks"], ["--zero-blocks"]):
                base = self.image("base", self.SIZE)
                ours, theirs = self.overlay("ours"), self.overlay("theirs")
                destination, _ = self.listen(f"--disk=hd0={theirs},base={base}")
                source = self.connect("--style", style, "--shared-base", "--guest-writes", "10", "--bandwidth", "20M",
                                      *zero, f"--disk=hd0={ours},base={base}")
                self.assert_completed(source, destination)
                self.assertTrue(self.contents(ours, base) == self.contents(theirs, base))

    def test_base_on_one_side_only(self):
        base, ours, theirs = self.image("base", self.SIZE), self.overlay("ours"), self.overlay("theirs")
        destination, _ = self.listen(f"--disk=hd0={theirs}")
        source = self.connect("--shared-base", f"--disk=hd0={ours},base={base}")
        self.assert_failed(source, "hd0", "base image only on the source", guest=True)
        self.assert_failed(destination, "hd0", "base image only on the source")


class CommandLine(Case):
    def refuse(self, *args, words=()):
        self.assert_failed(self.start(*args), *words)

    def test_help_and_version(self):
        self.assertIn("--max-downtime", self.end(self.start("--help")).out)
        self.assertRegex(self.end(self.start("--version")).out, r"\Ablkmig-hv \d+\.\d+\.\d+\n\Z")

    def test_usage_errors(self):
        disk = self.pair(512)[0]
        to = ("--connect", self.address)
        self.refuse(words=["--listen or --connect"])
        self.refuse(*to, "--listen", self.address, disk, words=["--listen or --connect"])
        self.refuse(*to, words=["--disk"])
        self.refuse(*to, disk, "--what", words=["--what"])
        self.refuse(*to, disk, "more", words=["more"])
        self.refuse(*to, "--disk", words=["--disk"])
        self.refuse(*to, "--disk", "hd0", words=["hd0"])
        self.refuse(*to, disk, disk, words=["two disks are named hd0"])
        self.refuse(*to, f"--disk={'x' * 256}=f", words=["255"])
        self.refuse(*to, disk + ",readonly", words=["every disk is readonly"])
        for chosen, words in ("hd0,hd1", "named 'hd1'"), ("", "named ''"), ("ro", "ro is readonly"):
            self.refuse(*to, disk, "--disk=ro=f,readonly", "--devices", chosen, words=[words])
        self.refuse("--listen", self.address, disk, "--devices", "hd0", words=["for the source"])
        for bad in ("-1", "1X", "", "99999999G"):
            self.refuse(*to, disk, "--bandwidth", bad, words=["--bandwidth"])
        for option in ("--max-downtime", "--guest-writes", "--max-buffers", "--timeout", "--style"):
            self.refuse(*to, disk, option, "nonsense", words=[option])
        for field in (",readonl", ",", ",base=", ",base=a,base=b", ",format=qcow2"):
            self.refuse(*to, disk + field, words=[f"'{field.split(',')[-1]}'", "written twice"])

    def test_files_that_are_no_images(self):
        for side in ("--listen", "--connect"):
            self.refuse(side, self.address, f"--disk=hd0={self.folder}", words=[str(self.folder)])
            self.refuse(side, self.address, "--disk=hd0=/dev/null", words=["/dev/null"])
        self.refuse("--connect", self.address, f"--disk=hd0={self.folder}/none", words=["none: No such file"])

    def test_image_in_use(self):
        image = self.image("a", MIB)
        self.listen(f"--disk=hd0={image}")
        self.refuse("--connect", self.address, f"--disk=hd0={image}", words=["another process is using it"])

    def test_address_in_use(self):
        disk, other = self.pair(MIB)
        for address in ("127.0.0.1:0", self.address):
            first, taken = self.listen(disk, address=address)
            self.refuse("--listen", taken, other, words=["cannot listen on " + taken, "in use"])
            first.kill()
            first.wait()

    def test_socket_left_behind_is_replaced(self):
        disk, other = self.pair(MIB)
        first, _ = self.listen(other)
        first.kill()
        first.wait()
        destination, _ = self.listen(other)
        self.assert_completed(self.connect(disk), destination)

    def test_addresses_where_nobody_listens(self):
        disk = self.pair(MIB)[0]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for address in (self.address, f"127.0.0.1:{port}", "no-port", "127.0.0.1:", "127.0.0.1:65536",
                        "host.invalid:1"):
            self.assert_failed(self.connect(disk, address=address), address, guest=True)
        for address in ("127.0.0.1:65536", "203.0.113.1:0", "unix:/none/socket", f"unix:{self.folder}/source-hd0"):
            self.assert_failed(self.start("--listen", address, disk), address)

    def test_no_source_connects(self):
        destination, _ = self.listen("--wait", "1", self.pair(MIB)[1])
        self.assert_failed(destination, "no source connected")


class Mismatches(Case):
    def refuse(self, ours, theirs, *words):
        destination, _ = self.listen(*theirs)
        source = self.connect(*ours)
        self.assert_failed(source, *words, guest=True)
        self.assert_failed(destination, *words)

    def test_other_size(self):
        disk = self.pair(2 * MIB)
        os.truncate(self.folder / "destination-hd0", 2 * MIB - 1)
        self.refuse(disk[:1], disk[1:], "disk hd0", "2097152", "2097151")

    def test_disk_on_one_side_only(self):
        one, two = self.pair(MIB, "one"), self.pair(MIB, "two")
        self.refuse([one[0], two[0]], [one[1]], "disk two is not on the destination")
        self.refuse([one[0]], [one[1], two[1]], "disk two does not come from the source")

    def test_read_only_there(self):
        one, two = self.pair(MIB, "one"), self.pair(MIB, "two")
        self.refuse([one[0], two[0]], [one[1], two[1] + ",readonly"], "disk two is read-only on the destination")
        self.refuse([one[0], two[0] + ",readonly"], [one[1], two[1]], "disk two does not come from the source")

    def test_refused_migration_changes_nothing(self):
        one, two = self.pair(MIB, "one"), self.pair(MIB, "two")
        before = self.image("destination-one", MIB).read_bytes()
        self.refuse([one[0], two[0]], [one[1]], "two")
        self.assertEqual((self.folder / "destination-one").read_bytes(), before)


class Failures(Case):
    def slow_migration(self, style, *args):
        """Both processes during a migration that would take long."""
        disk = self.pair(32 * MIB)
        destination, _ = self.listen("--style", style, *args, disk[1])
        source = self.connect("--style", style, "--bandwidth", "8M", "--max-downtime", "0",
                              "--guest-writes", "5", *args, disk[0])
        time.sleep(0.7)
        self.assertIsNone(source.poll())
        self.assertIsNone(destination.poll())
        return source, destination

    def test_destination_killed(self):
        for style in STYLES:
            source, destination = self.slow_migration(style)
            destination.kill()
            self.assert_failed(source, "destination closed the connection", guest=True)
            self.assertNotIn("wrote 0.0 MiB", source.out)

    def test_source_killed(self):
        for style in STYLES:
            source, destination = self.slow_migration(style)
            source.kill()
            self.assert_failed(destination, "source closed the connection")

    def test_guest_of_an_interrupted_source_keeps_running(self):
        for style in STYLES:
            for number in (signal.SIGINT, signal.SIGTERM):
                source, destination = self.slow_migration(style)
                source.send_signal(number)
                self.assert_failed(source, "canceled", status=128 + number, guest=True)
                self.assertNotIn("wrote 0.0 MiB", source.out)
                self.assert_failed(destination, "source closed the connection")

    def test_interrupted_destination(self):
        for style in STYLES:
            source, destination = self.slow_migration(style)
            destination.send_signal(signal.SIGINT)
            self.assert_failed(destination, "canceled", status=130)
            self.assert_failed(source, "destination failed: canceled", guest=True)

    def test_interrupted_while_waiting(self):
        destination, _ = self.listen(self.pair(MIB)[1])
        destination.send_signal(signal.SIGINT)
        self.assert_failed(destination, "canceled", status=130)

    def test_peer_that_stops(self):
        for style in STYLES:
            source, destination = self.slow_migration(style, "--timeout", "1")
            destination.send_signal(signal.SIGSTOP)
            self.assert_failed(source, "destination does not answer", guest=True)
            destination.kill()
            source, destination = self.slow_migration(style, "--timeout", "1")
            source.send_signal(signal.SIGSTOP)
            self.assert_failed(destination, "source stopped sending")
            source.kill()

    def test_source_after_a_failure_can_migrate_again(self):
        source, destination = self.slow_migration("threaded")
        destination.kill()
        self.assert_failed(source, "destination closed the connection", guest=True)
        disks = [f"--disk=hd0={self.folder}/{side}-hd0" for side in ("source", "destination")]
        destination, _ = self.listen(disks[1])
        self.assert_completed(self.connect(disks[0]), destination)
        self.assert_same()

    def full(self, source_disk, destination_disk, style, **kwargs):
        destination, _ = self.listen("--style", style, destination_disk, **kwargs)
        source = self.connect("--style", style, "--guest-writes", "5", source_disk)
        return source, destination

    def test_destination_may_not_write_that_far(self):
        for style in STYLES:
            disk = self.pair(24 * MIB)
            bound = (10 * MIB, 10 * MIB)
            source, destination = self.full(*disk, style, preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_FSIZE, bound))
            self.assert_failed(destination, "hd0", "File too large")
            self.assert_failed(source, "destination failed", "hd0", "File too large", guest=True)

    def test_destination_file_system_full(self):
        small = self.folder / "small"
        small.mkdir()
        mount = shutil.which("mount")
        if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=8M", "tmpfs", small],
                                       capture_output=True).returncode:
            self.skipTest("may not mount a small file system")
        try:
            for style in STYLES:
                ours = self.image("ours", 24 * MIB)
                theirs = self.image("small/theirs", 24 * MIB, data=False)
                source, destination = self.full(f"--disk=hd0={ours}", f"--disk=hd0={theirs}", style)
                self.assert_failed(destination, "hd0", "No space left")
                self.assert_failed(source, "destination failed", "hd0", "No space left", guest=True)
        finally:
            subprocess.run(["umount", small], check=True)


class OtherPrograms(Case):
    def client(self, address):
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(address[len("unix:"):])
        return stranger

    @staticmethod
    def send_noise(stranger):
        """More than the other side reads: it may close the connection before the end."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stranger.sendall(random.randbytes(65536))

    def test_random_bytes_for_a_greeting(self):
        for _ in range(3):
            destination, address = self.listen(self.pair(MIB)[1])
            with self.client(address) as stranger:
                self.send_noise(stranger)
                self.assert_failed(destination, "not a blkmig-hv")

    def test_random_bytes_for_a_section(self):
        for style in STYLES:
            for _ in range(10):
                disk = self.pair(MIB)[1]
                before = (self.folder / "destination-hd0").read_bytes()
                destination, address = self.listen("--raw", "--style", style, disk)
                with self.client(address) as stranger:
                    self.send_noise(stranger)
                self.assert_failed(destination)
                self.assertEqual((self.folder / "destination-hd0").read_bytes(), before)

    def test_peer_that_sends_nothing(self):
        destination, address = self.listen("--timeout", "1", self.pair(MIB)[1])
        with self.client(address):
            self.assert_failed(destination, "stopped sending")

    def test_connection_closed_at_once(self):
        destination, address = self.listen(self.pair(MIB)[1])
        self.client(address).close()
        self.assert_failed(destination, "source closed the connection")

    def server(self, answer):
        """A listener that sends this answer to a source, and the source."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address[len("unix:"):])
            listener.listen()
            source = self.connect("--timeout", "1", self.pair(MIB)[0])
            stranger, _ = listener.accept()
            with stranger:
                stranger.sendall(answer)
                self.end(source)
        os.unlink(self.address[len("unix:"):])
        return source

    def test_source_meets_another_program(self):
        for answer, words in ((b"SSH-2.0-OpenSSH_9.2p1\r\n", "not a blkmig-hv"), (b"", "does not answer")):
            self.assert_failed(self.server(answer), words, guest=True)


if __name__ == "__main__":
    unittest.main()
