#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""blkmig-hv --stream extended: the disks arrive, wrong levels and other disks are refused, and a guest that writes in
small pieces all over ends on a link where the classic stream has no chance."""
import json
import os
import unittest

from cli_case import MIB, STYLES, Case


class Extended(Case):
    def completed(self, source, destination):
        """What a source with --json says at the end."""
        self.assertEqual((self.end(source).returncode, source.err), (0, ""), source.out)
        self.assert_completed(destination)
        self.assert_same()
        return json.loads(source.out.splitlines()[-1])

    def migrate(self, *options):
        ours, theirs = self.pair(24 * MIB + 5)
        with open(self.folder / "source-hd0", "r+b") as file:
            file.write(b"much of the same " * (4 * MIB // 17))
        destination, _ = self.listen(theirs)
        return self.completed(self.connect("--json", "--stream", "extended", *options, ours), destination)

    def test_disks_arrive_while_the_guest_writes(self):
        for style in STYLES:
            for level in "0", "1", "-7":
                said = self.migrate("--style", style, "--guest-writes", "3", "--bandwidth", "40M", "--compress", level)
                self.assertGreater(said["checksummed_bytes"], 16 * MIB)
                self.assertLessEqual(said["checksummed_bytes"], said["wire_bytes"])
                if level == "0":
                    self.assertEqual(said["payload_bytes"], said["data_bytes"])
                else:
                    self.assertLess(said["payload_bytes"], said["data_bytes"])
                    self.assertGreater(said["compression_ratio"], 1)

    def test_small_writes_all_over_end_on_a_slow_link(self):
        """Each write of 64 KiB makes a chunk of 1 MiB dirty: the classic stream would need many times the link."""
        slow = ("--bandwidth", "8M", "--guest-writes", "4")
        said = self.migrate(*slow)
        self.assertEqual(said["event"], "completed")
        self.assertLess(said["wire_bytes"], 24 * MIB + 3 * said["guest_bytes"])
        self.tearDown()
        self.setUp()
        ours, theirs = self.pair(24 * MIB + 5)
        self.listen(theirs)
        source = self.connect("--json", *slow, ours)
        sent = 0
        while sent < said["wire_bytes"] + 24 * MIB:
            event = json.loads(source.stdout.readline())
            self.assertEqual(event["event"], "progress", event)
            sent = event["wire_bytes"]

    def test_shorter_destination(self):
        """With --raw nothing is compared before the first section, which has both lengths."""
        ours, theirs = self.pair(2 * MIB)
        os.truncate(self.folder / "destination-hd0", MIB)
        before = (self.folder / "destination-hd0").read_bytes()
        destination, _ = self.listen("--raw", theirs)
        source = self.connect("--raw", "--stream", "extended", "--bandwidth", "1M", ours)
        self.assert_failed(destination, "hd0", "1048576", "2097152")
        self.assert_failed(source, guest=True)
        self.assertEqual((self.folder / "destination-hd0").read_bytes(), before)

    def test_usage_errors(self):
        disk, to = self.pair(512)[0], ("--connect", self.address)
        for bad in "", "new", "2", "Extended":
            self.assert_failed(self.start(*to, disk, "--stream", bad), f"--stream is classic or extended, not '{bad}'")
        for bad in "", "x", "1x", "20", "-8", "99999999999999999999":
            self.assert_failed(self.start(*to, disk, "--stream", "extended", "--compress", bad), "-7 to 19", f"'{bad}'")
        self.assert_failed(self.start(*to, disk, "--compress", "1"), "the classic stream can't be compressed")
        for option, value in ("--stream", "extended"), ("--compress", "1"):
            self.assert_failed(self.start("--listen", self.address, disk, option, value), option, "for the source")


if __name__ == "__main__":
    unittest.main()
