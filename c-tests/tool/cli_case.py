# SPDX-License-Identifier: GPL-2.0-only
"""Images and processes for the tests beside it, and what a success and a failure look like."""
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

HYPERVISOR = os.path.abspath(sys.argv.pop(1))
MIB = 1 << 20
LIMIT = 60                                     # seconds: nothing here may take longer
STYLES = ("threaded", "stages")

# Under nohup the signal is ignored, which children inherit.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="blkmig-"))
        self.address = f"unix:{self.folder}/socket"
        self.running = []

    def tearDown(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        shutil.rmtree(self.folder)

    # ---- Images ----

    def image(self, name, size, data=True):
        path = self.folder / name
        with open(path, "wb") as file:
            if data:
                file.write(random.randbytes(size))
            file.truncate(size)
        return path

    def pair(self, size, name="hd0"):
        """A disk option for each side."""
        ours, theirs = self.image("source-" + name, size), self.image("destination-" + name, size, data=False)
        return tuple(f"--disk={name}={str(path).replace(',', ',,')}" for path in (ours, theirs))

    def assert_same(self, name="hd0"):
        one, other = self.folder / f"source-{name}", self.folder / f"destination-{name}"
        self.assertEqual(one.stat().st_size, other.stat().st_size)
        self.assertTrue(one.read_bytes() == other.read_bytes(), f"{name} differs")

    # ---- Processes ----

    def start(self, *args, **kwargs):
        process = subprocess.Popen([HYPERVISOR, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   **kwargs)
        self.running.append(process)
        return process

    def listen(self, *args, address=None, **kwargs):
        """The destination, and the address that it listens on."""
        process = self.start("--listen", address or self.address, *args, **kwargs)
        line = process.stdout.readline()
        self.assertTrue(line.startswith("listening on "), line + process.stderr.read() if not line else line)
        return process, line.split()[-1]

    def connect(self, *args, address=None):
        return self.start("--connect", address or self.address, *args)

    def end(self, process):
        process.out, process.err = process.communicate(timeout=LIMIT)
        return process

    def assert_completed(self, *processes):
        for process in processes:
            self.end(process)
            self.assertEqual((process.returncode, process.err), (0, ""), process.out)
            self.assertIn("migration completed", process.out)

    def assert_failed(self, process, *words, status=1, guest=False):
        """One line with all the words, and no success; on a source, the guest keeps running."""
        self.end(process)
        self.assertEqual(process.returncode, status, process.out + process.err)
        self.assertRegex(process.err, r"\Ablkmig-hv: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, process.err)
        self.assertNotIn("\nmigration completed", process.out)
        self.assertEqual("the guest keeps running" in process.out, guest, process.out)
