#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""blkmig-hv --dump-stream: what it prints of each kind of stream, and of streams that are not valid."""
import json
import random
import re
import resource
import socket
import struct
import subprocess
import threading
import unittest

from cli_case import HYPERVISOR, LIMIT, MIB, Case

END, PROGRESS, BLOCK, ZERO = 0x02, 0x04, 0x01, 0x09
EXTENDED = 0x10


def word(value, flags):
    return struct.pack(">Q", value << 9 | flags)


def name(text):
    return bytes([len(text)]) + text


def block(device, sector):
    return word(sector, BLOCK) + name(device) + b"\x5a" * MIB


def zero(device, sector):
    return word(sector, ZERO) + name(device)


def extended(kind, number, payload=b"", sector=0, sectors=0, device=0):
    """A record of the extended stream. Its checksum is not compared."""
    return word(kind, EXTENDED) + struct.pack(">QIIQQQ", number, device, len(payload), sector, sectors, 0xabc) + payload


def qemu_start(number, text, version):
    return b"\x01" + struct.pack(">I", number) + name(text) + struct.pack(">II", 0, version)


def footer(number):
    return b"\x7e" + struct.pack(">I", number)


TABLE = struct.pack(">IIII", 1, 1, 0, 2) + struct.pack(">QI", 5120, 512) + name(b"hd0") \
    + struct.pack(">QI", 512, 512) + name(b"b")
EXTENDED_START = extended(0, 0, TABLE) + extended(4, 1)
EXTENDED_REST = (extended(1, 2, b"\x5a" * 1024, sector=3, sectors=2) + extended(3, 3, sectors=1, device=1)
                 + extended(2, 4, b"zstd", sectors=3) + extended(4, 5, sector=50)
                 + extended(5, 6, bytes(7) + b"\2" + bytes(15) + b"\1" + bytes(8)) + extended(4, 7, sector=100))
ZERO_SECTION = zero(b"hd0", 2048) + word(7, PROGRESS) + word(0, END)
LAST_SECTION = word(100, PROGRESS) + word(0, END)
RAW = block(b"hd0", 0) + ZERO_SECTION + LAST_SECTION
GREETING = (b"BLKMIGHV" + bytes([2, 1, 2])
            + name(b"hd0") + struct.pack(">QB", 5000, 0)
            + name(b"b") + struct.pack(">QB", 512, 1))
FRAMES = GREETING + b"S" + word(0, END) + b"P" + ZERO_SECTION + b"Y" + b"L" + LAST_SECTION + b"E" + b"G"
PAGE = 1 << 16
RAM = (struct.pack(">Q", 2 * PAGE | 0x04)
       + name(b"pc.ram") + struct.pack(">Q", PAGE) + name(b"rom") + struct.pack(">Q", PAGE)
       + struct.pack(">Q", 0x02) + name(b"pc.ram") + b"\0"
       + struct.pack(">Q", PAGE | 0x02 | 0x20) + b"\0"
       + struct.pack(">Q", PAGE | 0x40 | 0x20) + b"\1\0\3abc"
       + struct.pack(">Q", 0x100) + name(b"rom") + struct.pack(">I", 5) + b"abcde"
       + struct.pack(">Q", 0x200)
       + struct.pack(">Q", 0x10))
RAM_PAGE = struct.pack(">Q", 0x08 | 0x20) + bytes(PAGE) + struct.pack(">Q", 0x10)
QEMU_HEAD = (b"QEVM" + struct.pack(">I", 3)
             + b"\x07" + struct.pack(">I", 4) + b"virt"
             + b"\x05" + name(b"configuration/target-page-bits") + struct.pack(">II", 1, 16)
             + b"\x08" + struct.pack(">HH", 1, 2) + b"xy")
QEMU_SECTIONS = (qemu_start(1, b"block", 1) + word(0, END) + footer(1)
                 + qemu_start(2, b"ram", 4) + RAM + footer(2)
                 + b"\x02" + struct.pack(">I", 1) + ZERO_SECTION + footer(1)
                 + b"\x03" + struct.pack(">I", 1) + LAST_SECTION + footer(1))
QEMU = QEMU_HEAD + QEMU_SECTIONS + b"\x04 and whatever the devices say"


class Dump(Case):
    def dump(self, stream, *options):
        """Runs it on these bytes, which come from a pipe."""
        done = subprocess.run([HYPERVISOR, "--dump-stream", "-", *options], input=stream, capture_output=True,
                              timeout=LIMIT, check=False)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return done

    def assert_golden(self, stream, text):
        done = self.dump(stream)
        self.assertEqual((done.stderr, done.returncode), (b"", 0))
        self.assertEqual(done.stdout.decode(), text)

    def assert_error(self, stream, offset, expected, found=""):
        done = self.dump(stream)
        match = re.fullmatch(r"blkmig-hv: -, offset (\d+): expected (.*), found (.*)\n", done.stderr.decode())
        self.assertTrue(match, done.stderr)
        self.assertEqual((int(match[1]), done.returncode), (offset, 1), done.stderr)
        self.assertIn(expected, match[2])
        self.assertIn(found, match[3])

    def objects(self, stream):
        return [json.loads(line) for line in self.dump(stream, "--json").stdout.decode().splitlines()]


class Formats(Dump):
    def test_sections_alone(self):
        self.assert_golden(RAW, """\
             0  block     device hd0  sector 0  bytes 1048576
       1048588  zero      device hd0  sector 2048  bytes 1048576
       1048600  progress  percent 7
       1048608  end
       1048616  progress  percent 100
       1048624  end
                total     bytes 1048632  sections 2  blocks 1  zero_blocks 1  percent 100  complete yes
                device    name hd0  blocks 1  zero_blocks 1  end_sector 4096
""")

    def test_extended_sections(self):
        self.assert_golden(EXTENDED_START + EXTENDED_REST, """\
             0  start     number 0  checksum 0x0000000000000abc  version 1  required 1  optional 0  devices 2
            64  entry     device 0  name hd0  bytes 5120  unit 512
            80  entry     device 1  name b  bytes 512  unit 512
            94  end       number 1  checksum 0x0000000000000abc  percent 0
           142  data      number 2  checksum 0x0000000000000abc  device hd0  sector 3  sectors 2  bytes 1024
          1214  zeroes    number 3  checksum 0x0000000000000abc  device b  sector 0  sectors 1  bytes 0
          1262  zstd      number 4  checksum 0x0000000000000abc  device hd0  sector 0  sectors 3  bytes 4
          1314  end       number 5  checksum 0x0000000000000abc  percent 50
          1362  totals    number 6  checksum 0x0000000000000abc
          1410  records   device 0  records 2
          1426  records   device 1  records 1
          1442  end       number 7  checksum 0x0000000000000abc  percent 100
                total     bytes 1490  sections 3  blocks 2  zero_blocks 1  percent 100  complete yes
""")

    def test_stream_of_blkmig_hv(self):
        self.assert_golden(FRAMES, """\
             0  greeting  protocol 2  shared_base 1  disks 2
            11  disk      name hd0  bytes 5000  has_base 0
            24  disk      name b  bytes 512  has_base 1
            35  frame     type start
            36  end
            44  frame     type part
            45  zero      device hd0  sector 2048  bytes 1048576
            57  progress  percent 7
            65  end
            73  frame     type flush
            74  frame     type last
            75  progress  percent 100
            83  end
            91  frame     type end
            92  frame     type go
                total     bytes 93  sections 3  blocks 0  zero_blocks 1  percent 100  complete yes
                device    name hd0  blocks 0  zero_blocks 1  end_sector 4096
""")

    def test_stream_of_qemu(self):
        self.assert_golden(QEMU, """\
             0  qemu      version 3
             8  machine
            64  section   type start  id 1  name block
            83  end
            96  section   type start  id 2  name ram
           113  ram       pages 4  zero_pages 2
           229  section   type part  id 1  name block
           234  zero      device hd0  sector 2048  bytes 1048576
           246  progress  percent 7
           254  end
           267  section   type end  id 1  name block
           272  progress  percent 100
           280  end
           293  rest      is not decoded
                total     bytes 294  sections 3  blocks 0  zero_blocks 1  percent 100  complete yes
                device    name hd0  blocks 0  zero_blocks 1  end_sector 4096
""")

    def test_sections_of_qemu_without_its_header(self):
        """Someone may have cut them out. The page size is then that of most machines."""
        done = self.dump(QEMU_SECTIONS)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(b"zero_blocks 1  percent 100  complete yes", done.stdout)

    def test_whole_pages_of_the_size_that_the_stream_names(self):
        head = QEMU_HEAD + qemu_start(1, b"block", 1) + word(0, END) + qemu_start(2, b"ram", 4)
        tail = footer(2) + b"\x03" + struct.pack(">I", 1) + LAST_SECTION + b"\x00"
        self.assertEqual(self.dump(head + RAM_PAGE + tail).returncode, 0)

    def test_json_has_the_same_records(self):
        for stream in RAW, FRAMES, QEMU:
            lines = [line.split() for line in self.dump(stream).stdout.decode().splitlines()]
            objects = self.objects(stream)
            self.assertEqual([line[1] if line[0].isdigit() else line[0] for line in lines],
                             [o["event"] for o in objects])
            self.assertEqual([int(line[0]) for line in lines if line[0].isdigit()],
                             [o["offset"] for o in objects if "offset" in o])
        self.assertEqual(self.objects(RAW)[0],
                         {"event": "block", "offset": 0, "device": "hd0", "sector": 0, "bytes": MIB})
        self.assertEqual(self.objects(RAW[:-1])[-1],
                         {"event": "error", "offset": len(RAW) - 1, "expected": "a record's header",
                          "found": "the end of the stream after 7 of 8 bytes"})

    def recorded(self, *options):
        """What a source sends to a destination."""
        disk = self.pair(3 * MIB + 512)
        destination, _ = self.listen(disk[1], *options)
        address = f"{self.folder}/between-{len(self.running)}"
        recording = bytearray()

        def forward(one, other, kept):
            while data := one.recv(65536):
                kept.extend(data)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as there:
            listener.bind(address)
            listener.listen()
            source = self.connect(disk[0], *options, address=f"unix:{address}")
            here, _ = listener.accept()
            with here:
                there.connect(f"{self.folder}/socket")
                back = threading.Thread(target=forward, args=(there, here, bytearray()))
                back.start()
                forward(here, there, recording)
                back.join()
        self.assertEqual((self.end(source).returncode, self.end(destination).returncode), (0, 0))
        return bytes(recording)

    def test_what_blkmig_hv_has_sent(self):
        for options in [], ["--raw"]:
            for style in "threaded", "stages":
                recording = self.recorded("--style", style, *options)
                total = [o for o in self.objects(recording) if o["event"] == "total"][0]
                self.assertEqual((total["bytes"], total["blocks"], total["percent"], total["complete"]),
                                 (len(recording), 4, 100, "yes"))


class Errors(Dump):
    def assert_each_cut(self, stream, whole):
        """Each truncation is an error at its end, except those to `whole` bytes."""
        for size in range(1, len(stream)):
            with self.subTest(size=size):
                if size in whole:
                    self.assertEqual(self.dump(stream[:size]).returncode, 0)
                else:
                    self.assert_error(stream[:size], size, "", "the end of the stream")

    def test_truncations(self):
        self.assert_each_cut(ZERO_SECTION + LAST_SECTION, {len(ZERO_SECTION)})
        self.assert_each_cut(FRAMES, {})
        self.assert_each_cut(QEMU_HEAD + QEMU_SECTIONS, {})
        for size in 9, 11, 12, 13, 12 + MIB - 1:
            self.assert_error(RAW[:size], size, "", "the end of the stream")
        self.assert_error(b"", 0, "a stream", "nothing")

    def test_flags(self):
        for flags in range(512):
            if flags not in (END, PROGRESS, BLOCK, ZERO, EXTENDED):
                self.assert_error(ZERO_SECTION + word(0, flags), len(ZERO_SECTION), "a record's header",
                                  f"flags 0x{flags:03x} in 0x{flags:016x}")

    def test_extended_records(self):
        at = len(EXTENDED_START)
        wrong = [(extended(6, 2), "kind 0 to 5", "kind 6"), (extended(3, 3, sectors=1), "the next number", "record 3"),
                 (extended(3, 2, b"x", sectors=1), "not so long", "1 bytes"),
                 (extended(4, 2, sector=101), "100", "101"),
                 (extended(1, 2, bytes(MIB + 1)), "not so long", "1048577"),
                 (extended(1, 2, device=2, sectors=1), "a device of the table", "device 2")]
        for record, expected, found in wrong:
            self.assert_error(EXTENDED_START + record, at, expected, found)
        self.assert_error(EXTENDED_START[:-48] + word(0, END), at - 48, "of the extended stream", "0x0000000000000002")
        self.assert_error(extended(3, 1, sectors=1), 0, "the next number")
        for end in range(1, 200):
            done = self.dump((EXTENDED_START + EXTENDED_REST)[:end])
            self.assertEqual(done.returncode, int(end != len(EXTENDED_START)), end)

    def test_values(self):
        self.assert_error(word(1, END), 0, "0x002 alone")
        self.assert_error(word(101, PROGRESS), 0, "100 % at most", "101 %")
        self.assert_error(word((1 << 55) - 1, PROGRESS), 0, "100 % at most", "36028797018963967 %")

    def test_frames(self):
        self.assert_error(b"BLKMIGHV" + bytes([3]), 8, "version 1 or 2", "version 3")
        self.assert_error(GREETING + b"X", len(GREETING), "a frame", "0x58")
        self.assert_error(GREETING + b"G", len(GREETING), "a frame", "0x47")
        start = GREETING + b"S" + word(0, END)
        self.assert_error(start + b"E", len(start), "a frame", "0x45")
        self.assert_error(start + b"L" + word(0, END) + b"P", len(start) + 9, '"end"', "0x50")
        self.assert_error(start + b"L" + word(0, END) + b"EE", len(start) + 10, '"go"', "0x45")
        self.assert_error(FRAMES + b"G", len(FRAMES), "the end of the stream", "more")

    def test_sections_of_qemu(self):
        size = len(QEMU_HEAD)
        self.assert_error(b"QEVM" + struct.pack(">I", 2), 0, "version 3", "version 2")
        self.assert_error(QEMU_HEAD + b"\x55", size, "a section of QEMU", "0x55")
        self.assert_error(QEMU_HEAD + qemu_start(1, b"block", 2), size, "version 1", '"block" of version 2')
        self.assert_error(QEMU_HEAD + qemu_start(1, b"h\x1btab", 1), size, "a section", r'"h\x1btab"')
        self.assert_error(QEMU_HEAD + b"\x02" + struct.pack(">I", 9), size, "started before", "number 9")
        self.assert_error(QEMU_HEAD + footer(9), size, "started before", "number 9")
        self.assert_error(QEMU_HEAD + b"\x05" + name(b"x") + bytes(4), size, "target-page-bits", '"x"')
        start = QEMU_HEAD + qemu_start(1, b"block", 1) + word(0, END)
        self.assert_error(start + b"\x04", len(start), 'the last section "block"', "the state of a device")
        ram = QEMU_HEAD + qemu_start(2, b"ram", 4)
        self.assert_error(ram + struct.pack(">Q", 0x80), len(ram), 'the section "ram"', "0x080")
        self.assert_error(ram + struct.pack(">Q", 4096 | 4) + name(b"x") + struct.pack(">Q", 8192), len(ram) + 8,
                          "within the size of the memory", "8192")
        many = QEMU_HEAD + b"".join(qemu_start(i, b"block", 1) + word(0, END) for i in range(17))
        self.assert_error(many, len(many) - 27, "16 live sections")

    def test_files(self):
        for path, words in (self.folder / "none", "No such file"), (self.folder, "Is a directory"):
            for options in [], ["--json"]:
                process = self.end(self.start("--dump-stream", str(path), *options))
                self.assertEqual(process.returncode, 1)
                self.assertRegex(process.err, rf"\Ablkmig-hv: [^\n]*{words}[^\n]*\n\Z")
        with open("/dev/full", "wb") as full:
            done = subprocess.run([HYPERVISOR, "-D", "-"], input=RAW, stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"cannot write", done.stderr)

    def test_beside_a_migration(self):
        self.assert_failed(self.start("--dump-stream", "x", "--listen", self.address, "--disk", "a=b"), "--dump-stream")


class Hostile(Dump):
    def test_names(self):
        names = [bytes(range(256))[i:i + 8] for i in range(0, 256, 8)]
        names += [b"", b"\0", b"a\0b", b"\x1b[2J", b"\xc2\x85", b"\xc3\xa4", b"\xff" * 255, b"\xed\xa0\x80", b"x\xc3"]
        stream = b"".join(zero(device, 0) for device in names) + word(0, END)
        for options in [], ["--json"]:
            text = self.dump(stream, *options).stdout.decode()
            self.assertTrue(all(line.isprintable() for line in text.split("\n")), text)
        shown = [o["device"] for o in self.objects(stream) if o["event"] == "zero"]
        bytes_again = [re.sub(rb"\\x(..)", lambda m: bytes.fromhex(m[1].decode()), text.encode()) for text in shown]
        self.assertEqual(bytes_again, names)

    def test_memory(self):
        """More of everything than would fit into the memory that the process may use."""
        devices = 100000
        stream = b"".join(zero(b"%0255d" % i, 0) for i in range(devices)) + block(b"x", 0) * 20 + word(0, END)
        limit = 32 * MIB
        done = subprocess.run([HYPERVISOR, "--json", "-D", "-"], input=stream, capture_output=True, check=False,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        total = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b'{"event":"total"')][0]
        self.assertGreater(total["bytes"], limit)
        self.assertEqual(total["blocks_of_other_devices"], devices - 256 + 20)

    def test_random_bytes(self):
        chance = random.Random(1)
        for start in b"", RAW[:12], ZERO_SECTION, GREETING, FRAMES[:45], QEMU_HEAD, QEMU_HEAD + QEMU_SECTIONS[:80]:
            for _ in range(40):
                self.dump(start + chance.randbytes(chance.randrange(400)))

    def test_changed_bytes(self):
        for stream in ZERO_SECTION + LAST_SECTION, FRAMES, QEMU:
            for at in range(len(stream)):
                self.dump(stream[:at] + bytes([stream[at] ^ 0x81]) + stream[at + 1:])

    def test_a_pipe_that_brings_a_byte_at_a_time(self):
        process = subprocess.Popen([HYPERVISOR, "-D", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for byte in QEMU:
            process.stdin.write(bytes([byte]))
            process.stdin.flush()
        said = process.communicate(timeout=LIMIT)[0]
        self.assertEqual((process.returncode, said), (0, self.dump(QEMU).stdout))


if __name__ == "__main__":
    unittest.main()
