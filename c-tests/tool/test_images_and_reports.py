#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""blkmig-hv as a tool for images: the files that it creates and refuses, what it reports, and its manual page."""
import fcntl
import itertools
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
import unittest

from cli_case import HYPERVISOR, LIMIT, MIB, STYLES, Case

MANUAL = pathlib.Path(__file__).resolve().parents[2] / "hosts/reference/blkmig-hv.1"
PART = ".blkmig-part"


class CreatedFiles(Case):
    """Files that the destination creates."""

    def setUp(self):
        super().setUp()
        self.made = self.folder / "destination-hd0"

    def disk(self, size):
        return f"--disk=hd0={self.image('source-hd0', size)}", f"--disk=hd0={self.made}"

    def assert_nothing_left(self):
        self.assertEqual(list(self.folder.glob("destination*")), [])

    def test_same_content_as_the_source(self):
        for style, size in itertools.product(STYLES, (0, 1, MIB, 5 * MIB + 1234)):
            ours, theirs = self.disk(size)
            destination, _ = self.listen("--style", style, theirs)
            self.assert_completed(self.connect("--style", style, "--guest-writes", "5", ours), destination)
            self.assert_same()
            self.assertFalse(self.made.with_name(self.made.name + PART).exists())
            self.made.unlink()

    def test_as_sparse_as_the_source(self):
        ours, theirs = self.disk(0)
        os.truncate(self.folder / "source-hd0", 1 << 40)
        destination, _ = self.listen(theirs)
        self.assert_completed(self.connect(ours), destination)
        self.assertEqual((self.made.stat().st_size, self.made.stat().st_blocks), (1 << 40, 0))

    def test_on_top_of_a_base(self):
        base = self.image("base", 3 * MIB)
        ours = self.image("source-hd0", 3 * MIB, data=False)
        destination, _ = self.listen(f"--disk=hd0={self.made},base={base}")
        self.assert_completed(self.connect("--shared-base", f"--disk=hd0={ours},base={base}"), destination)
        self.assertEqual((self.made.stat().st_size, self.made.stat().st_blocks), (3 * MIB, 0))

    def test_one_file_exists_already(self):
        there = self.pair(MIB, "there")
        ours, theirs = self.disk(2 * MIB)
        destination, _ = self.listen(there[1], theirs)
        self.assert_completed(self.connect(there[0], ours), destination)
        self.assert_same("there")
        self.assert_same()

    def slow(self, style):
        """Both processes during a migration."""
        # Eight seconds: a busy machine may take some of them to come back to this test.
        ours, theirs = self.disk(64 * MIB)
        destination, _ = self.listen("--style", style, theirs)
        source = self.connect("--style", style, "--bandwidth", "8M", "--max-downtime", "0", ours)
        part = self.made.with_name(self.made.name + PART)
        while part.stat().st_blocks == 0:
            time.sleep(0.05)
        self.assertFalse(self.made.exists())
        return source, destination, part

    def test_removed_after_a_failure(self):
        for style, number in itertools.product(STYLES, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
            source, destination, _ = self.slow(style)
            destination.send_signal(number)
            self.assert_failed(destination, "canceled", status=128 + number)
            self.assert_failed(source, "destination failed: canceled", guest=True)
            self.assert_nothing_left()
        for number in signal.SIGKILL, signal.SIGINT, signal.SIGHUP:
            source, destination, _ = self.slow(style)
            source.send_signal(number)
            self.assert_failed(destination, "source closed the connection")
            self.assert_nothing_left()

    def test_removed_when_no_source_connected(self):
        destination, _ = self.listen("--wait", "0", self.disk(MIB)[1])
        self.assert_failed(destination, "no source connected")
        self.assert_nothing_left()

    def test_a_killed_destination_leaves_what_looks_unfinished(self):
        source, destination, part = self.slow("threaded")
        destination.kill()
        self.assert_failed(source, "destination closed the connection", guest=True)
        self.assertTrue(part.exists())
        self.assertFalse(self.made.exists())
        ours, theirs = self.disk(5 * MIB)                    # shorter than what was left
        destination, _ = self.listen(theirs)
        self.assert_completed(self.connect(ours), destination)
        self.assert_same()
        self.assertFalse(part.exists())

    def test_removed_when_the_source_does_not_confirm(self):
        """Until the source has confirmed, the disk belongs to the source, even if the copy is complete."""
        hello = struct.pack(">QBBBB", 0x424c4b4d49474856, 1, 0, 1, 3) + b"hd0" + struct.pack(">QB", 0, 0)
        last = b"L" + struct.pack(">QQ", 100 << 9 | 4, 2) + b"E"
        for word in b"", b"G":
            destination, address = self.listen(f"--disk=hd0={self.made}")
            with socket.socket(socket.AF_UNIX) as source:
                source.connect(address[len("unix:"):])
                source.sendall(hello + last)
                self.assertEqual(source.makefile("rb").read(10), struct.pack(">Q", 0x424c4b4d49474856) + b"RR")
                self.assertTrue(self.made.exists())
                source.sendall(word)
            self.end(destination)
            self.assertEqual(destination.returncode, 0 if word else 1, destination.err)
            self.assertEqual(self.made.exists(), bool(word))

    def test_a_file_of_the_same_name_is_not_overwritten(self):
        source, destination, _ = self.slow("threaded")
        self.made.write_bytes(b"somebody else's")
        self.assert_failed(destination, "destination-hd0", "File exists")
        self.assert_failed(source, "destination failed", "File exists", guest=True)
        self.assertEqual(self.made.read_bytes(), b"somebody else's")
        self.assertEqual(list(self.folder.glob("destination*")), [self.made])

    def test_places_where_no_file_can_be_created(self):
        theirs = self.disk(MIB)[1]
        self.assert_failed(self.start("--listen", self.address, f"--disk=hd0={self.folder}/none/file"),
                           "cannot create", "No such file")
        self.assert_failed(self.start("--listen", self.address, "--raw", theirs), "--raw", "does not exist")
        self.assert_failed(self.start("--listen", self.address, theirs + ",readonly", f"--disk=other={self.made}2"),
                           "destination-hd0: No such file")
        self.made.symlink_to("nowhere")
        self.assert_failed(self.start("--listen", self.address, theirs), "symbolic link")
        self.made.unlink()
        self.listen(theirs)
        self.assert_failed(self.start("--listen", self.address + "2", theirs), "another process is using it")
        self.assertTrue(self.made.with_name(self.made.name + PART).exists())

    def test_the_sources_other_disks_do_not_fit(self):
        ours, theirs = self.disk(MIB)
        other = self.pair(MIB, "other")
        destination, _ = self.listen(theirs)
        source = self.connect(ours, other[0])
        self.assert_failed(destination, "disk other is not on the destination")
        self.assert_failed(source, "disk other is not on the destination", guest=True)
        self.assertFalse(self.made.exists())


class Images(Case):
    FORMATS = {"qcow2": b"QFI\xfb\0\0\0\3", "QED": b"QED\0", "VMDK": b"KDMV\1", "VHDX": b"vhdxfile", "VHD": b"conectix",
               "VDI": b"<<< disk image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe", "Parallels": b"WithoutFreeSpace"}

    def looks_like(self, path, start):
        with open(path, "r+b") as file:
            file.write(start)

    def test_other_formats_are_refused_and_copied_on_request(self):
        for name, start in self.FORMATS.items():
            ours, theirs = self.pair(MIB)
            self.looks_like(self.folder / "source-hd0", start)
            self.assert_failed(self.connect(ours), f"looks like a {name} image", "format=raw")
            destination, _ = self.listen(theirs)
            self.assert_completed(self.connect(ours + ",format=raw"), destination)
            self.assert_same()
            self.assert_failed(self.start("--listen", self.address, theirs), f"looks like a {name} image")

    def test_a_base_of_another_format(self):
        ours, base = self.image("ours", MIB), self.image("base", MIB)
        self.looks_like(base, b"QFI\xfb")
        self.assert_failed(self.connect(f"--disk=hd0={ours},base={base}"), "base: it looks like a qcow2 image")

    def test_the_same_file_twice(self):
        image, base = self.image("image", MIB), self.image("base", MIB)
        (self.folder / "link").symlink_to(image)
        for other in (f"--disk=b={image}", f"--disk=b={self.folder}/link", f"--disk=b={base},base={image}",
                      f"--disk=b={image},readonly"):
            self.assert_failed(self.connect(f"--disk=a={image}", other), "names it twice")
        ours = [f"--disk={name}={self.image(name, MIB, data=False)},base={base}" for name in "ab"]
        theirs = [f"--disk={name}={self.image('their-' + name, MIB, data=False)}" for name in "ab"]
        destination, _ = self.listen(*theirs)                # a base is only read, by as many as want to
        self.assert_completed(self.connect(*ours), destination)

    def test_commas_in_names(self):
        ours, theirs = self.image("a,readonly", MIB), self.image("b,,c,", MIB, data=False)
        base = self.image("base,readonly", MIB)
        disks = [f"--disk=hd0={str(path).replace(',', ',,')},base={str(base).replace(',', ',,')}"
                 for path in (ours, theirs)]
        destination, _ = self.listen(disks[1])
        self.assert_completed(self.connect(disks[0]), destination)
        self.assertEqual(ours.read_bytes(), theirs.read_bytes())

    def test_zero_blocks_are_the_default_but_not_of_raw(self):
        for option, few in (([], True), (["--no-zero-blocks"], False), (["--raw"], False),
                            (["--raw", "--zero-blocks"], True)):
            image = self.image("source", 4 * MIB, data=False)
            raw = [word for word in option if word == "--raw"]
            destination, _ = self.listen("--disk=hd0=" + str(self.image("destination", 4 * MIB)), *raw)
            source = self.end(self.connect(f"--disk=hd0={image}", *option))
            self.assert_completed(destination)
            wire = float(re.search(r"on the wire +([\d.]+) MiB", source.out)[1])
            self.assertEqual(wire < 1, few, source.out)


class Reports(Case):
    def objects(self, process):
        self.end(process)
        return [json.loads(line) for line in process.out.splitlines()]

    def test_json_of_a_success(self):
        for style in STYLES:
            ours, theirs = self.pair(12 * MIB)
            destination = self.start("--listen", self.address, "--json", "--style", style, theirs)
            self.assertEqual(json.loads(destination.stdout.readline()),
                             {"event": "listening", "side": "destination", "address": self.address})
            source = self.connect("--json", "--style", style, "--bandwidth", "4M", "--max-downtime", "0", ours)
            sent, got = self.objects(source), self.objects(destination)
            self.assertEqual((source.returncode, destination.returncode, source.err + destination.err), (0, 0, ""))
            for side, events in ("source", sent), ("destination", got):
                self.assertEqual({event["side"] for event in events}, {side})
                self.assertEqual([event["event"] for event in events[-2:]], ["progress", "completed"])
                self.assertEqual({event["event"] for event in events[:-1]}, {"progress"})
            for event in sent[:-1]:
                self.assertEqual(event["bytes_transferred"] + event["bytes_remaining"], 12 * MIB)
                self.assertEqual((event["bytes_total"], event["dirty_bytes"]), (12 * MIB, 0))
                self.assertEqual(event["state"], "running")
            self.assertGreater(sent[-1]["wire_bytes"], 12 * MIB)
            self.assertEqual(sent[-1]["wire_bytes"], got[-1]["wire_bytes"])
            self.assertGreater(sent[-1]["flushes"], 0)       # while the guest ran
            self.assertEqual(sent[-1]["flushes"], got[-1]["flushes"])
            self.assertEqual((sent[-1]["max_downtime_ms"], sent[-1]["guest_bytes"]), (0, 0))

    def test_json_of_a_failure(self):
        source = self.connect("--json", self.pair(MIB)[0])
        event, = self.objects(source)
        self.assertEqual((event["event"], event["side"], event["status"], source.returncode),
                         ("failed", "source", 1, 1))
        self.assertEqual(source.err, f"blkmig-hv: {event['error']}\n")

    def test_json_of_odd_names(self):
        """File names are bytes, JSON is UTF-8."""
        path = os.fsencode(self.folder) + b'/"\\\x01\x7f\xc3\xa9\xf0\x9f\x92\xbe|\xff|\xed\xa0\x80|\xc0\xaf|\xe2\x82'
        done = subprocess.run([HYPERVISOR, "--json", "--connect", self.address, b"--disk=a=" + path],
                              capture_output=True, check=False)
        odd = '"\\\x01\x7f\u00e9\U0001f4be|\ufffd|\ufffd\ufffd\ufffd|\ufffd\ufffd|\ufffd\ufffd'
        self.assertEqual(json.loads(done.stdout)["error"],
                         f"cannot open {self.folder}/{odd}: No such file or directory")

    def listens(self):
        """The file of the socket is there a moment before one can connect to it."""
        accepts, path = "00010000", self.address[len("unix:"):]
        sockets = [line.split() for line in pathlib.Path("/proc/net/unix").read_text().splitlines()]
        return any(fields[3] == accepts and fields[-1] == path for fields in sockets)

    def test_quiet(self):
        for style in STYLES:
            ours, theirs = self.pair(8 * MIB)
            processes = [self.start("--quiet", "--style", style, "--listen", self.address, theirs)]
            while not self.listens():
                time.sleep(0.05)
            processes.append(self.connect("--quiet", "--style", style, "--bandwidth", "4M", "--max-downtime", "0",
                                          ours))
            for process in processes:
                self.end(process)
                self.assertEqual((process.returncode, process.out, process.err), (0, "", ""))
            self.assert_same()
        failed = self.end(self.connect("--quiet", ours))
        self.assertEqual((failed.returncode, failed.out), (1, ""))
        self.assertRegex(failed.err, r"\Ablkmig-hv: cannot connect [^\n]+\n\Z")

    def screen(self, *args, columns=0, env=None):
        """The whole output to a terminal of that width."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen([HYPERVISOR, *args], stdout=slave, env={**os.environ, **(env or {})})
        self.running.append(process)
        os.close(slave)
        shown = b""
        with open(master, "rb", buffering=0) as terminal:
            try:
                while data := terminal.read(4096):
                    shown += data
            except OSError:                                  # the other end is closed
                pass
        self.assertEqual(process.wait(LIMIT), 0)
        return shown.decode()

    def test_the_line_fits_the_terminal(self):
        for columns, env, width in ((20, None, 20), (40, None, 40), (60, None, 60), (0, {"COLUMNS": "45"}, 45),
                                    (200, None, 80)):
            ours, theirs = self.pair(8 * MIB)
            destination, _ = self.listen(theirs)
            shown = self.screen("--connect", self.address, "--bandwidth", "6M", "--max-downtime", "0", ours,
                                columns=columns, env=env)
            self.assert_completed(destination)
            lines = re.findall(r"\r\x1b\[K([^\r\n]*\d+ %[^\r\n]*)", shown)
            self.assertGreater(len(lines), 2)
            for line in lines:
                self.assertLess(len(line), width, line)
                self.assertEqual("[" in line, width >= 60, line)
            self.assertNotIn("%\n", shown)

    def test_lines_where_there_is_no_terminal(self):
        ours, theirs = self.pair(8 * MIB)
        destination, _ = self.listen(theirs)
        source = self.connect("--bandwidth", "2M", "--max-downtime", "0", ours)
        self.assert_completed(source, destination)
        self.assertRegex(source.out, r"(?m)^\[#+\.+\] +\d+ %   \d+ MiB/s   \d+ s left   dirty 0 MiB$")
        self.assertRegex(destination.out, r"(?m)^received \d+ MiB   \d+ MiB/s")
        self.assertNotIn("\r", source.out + destination.out)

    def progress(self, stream, state, *args):
        """Reads progress until it is in this state; None if it never is."""
        for line in itertools.islice(stream, 60):
            event = json.loads(line)
            if event["event"] == "progress" and event["state"] == state:
                return event
        return None

    def test_a_guest_that_writes_faster_than_the_link(self):
        for style in STYLES:
            ours, theirs = self.pair(24 * MIB)
            destination, _ = self.listen(theirs)
            source = self.connect("--json", "--style", style, "--bandwidth", "8M", "--max-downtime", "1",
                                  "--guest-writes", "50",
                                  ours)
            event = self.progress(source.stdout, "not converging")
            self.assertIsNotNone(event)
            self.assertIsNone(event["seconds_left"])
            source.send_signal(signal.SIGINT)
            self.end(source)
            # Its file is the next one's.
            destination.wait(30)
        destination, _ = self.listen(theirs)
        source = self.connect("--bandwidth", "8M", "--max-downtime", "1", "--guest-writes", "50", ours)
        said = []
        while not said or (len(said) < 60 and "not converging   dirty" not in said[-1]):
            said.append(source.stdout.readline())
        self.assertIn("MiB/s   not converging   dirty", said[-1])
        self.assertEqual(sum(line.startswith("not converging: the guest writes as fast") for line in said), 1, said)
        source.kill()

    def test_a_link_that_breaks_before_the_confirmation(self):
        """The source says that it is complete, but that is lost on the way: nothing may be deleted."""
        path, made = self.image("source-hd0", 2 * MIB), self.folder / "destination-hd0"
        destination, _ = self.listen(f"--disk=hd0={made}")
        front = f"{self.folder}/front"
        server = socket.socket(socket.AF_UNIX)
        server.bind(front)
        server.listen(1)
        source = self.start("--connect", f"unix:{front}", f"--disk=hd0={path}")
        near = server.accept()[0]
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{self.folder}/socket")
        back = threading.Thread(target=self.forward, args=(far, near))
        back.start()
        # The file gets its name when everything has come; what the source sends after that is its last word.
        while (data := near.recv(1 << 16)) and not made.exists():
            far.sendall(data)
        for end in (near, far):
            end.shutdown(socket.SHUT_RDWR)
        back.join(LIMIT)
        self.end(source)
        self.end(destination)
        self.assertEqual((source.returncode, destination.returncode), (0, 1), (source.err, destination.err))
        part = pathlib.Path(f"{made}.blkmig-part")
        self.assertIn(f"all data is in {part}", destination.err)
        self.assertFalse(made.exists())
        self.assertTrue(part.read_bytes() == path.read_bytes())

    @staticmethod
    def forward(one, other):
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
        except OSError:
            pass

    def test_a_link_that_stops(self):
        ours, theirs = self.pair(24 * MIB)
        destination, _ = self.listen(theirs)
        source = self.connect("--json", "--bandwidth", "4M", "--max-downtime", "0", ours)
        self.assertIsNotNone(self.progress(source.stdout, "running"))
        destination.send_signal(signal.SIGSTOP)
        event = self.progress(source.stdout, "stalled")
        self.assertIsNotNone(event)
        self.assertIsNone(event["seconds_left"])
        destination.kill()


class Manual(Case):
    def test_manual_has_the_options_of_help(self):
        said = self.end(self.start("--help")).out
        helped = re.findall(r"^  (-\w), (--[\w-]+)( [A-Z]\S*)?", said, re.MULTILINE)
        described = re.findall(r"^\.It Fl (\w) ?, Fl -([\w-]+)( Ar \S+)?", MANUAL.read_text(), re.MULTILINE)
        self.assertEqual([(short, long, bool(value)) for short, long, value in helped],
                         [("-" + short, "--" + long, bool(value)) for short, long, value in described])
        self.assertGreater(len(helped), 15)

    def test_every_option_of_help_is_accepted(self):
        said = self.end(self.start("--help")).out
        for short, long, value in re.findall(r"^  (-\w), (--[\w-]+)( [A-Z]\S*)?", said, re.MULTILINE):
            for option in short, long:
                process = self.end(self.start(option, *(["1"] if value else [])))
                self.assertNotIn("unknown option", process.err)

    def test_manual_is_well_formed(self):
        checks = (["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-mdoc", "-ww", "-z"])
        present = [check for check in checks if shutil.which(check[0])]
        if not present:
            self.skipTest("neither mandoc nor groff is installed")
        for check in present:
            done = subprocess.run([*check, MANUAL], capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
