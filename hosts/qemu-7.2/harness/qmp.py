# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's monitor protocol: one JSON object a line over a unix socket."""
import json
import socket
import time


class QMPError(Exception):
    """QEMU answered with an error, or not at all."""


class QMP:
    """A connection to one QEMU. Every call is bounded in time."""

    def __init__(self, path, alive, timeout=30):
        """Connects; alive() tells whether there is still somebody to wait for."""
        deadline = time.monotonic() + timeout
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except OSError as error:
                self.socket.close()
                if not alive() or time.monotonic() > deadline:
                    raise QMPError(f"no monitor: {error}") from None
                time.sleep(0.02)
        self.socket.settimeout(timeout)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self._receive()
        self.command("qmp_capabilities")

    def _receive(self):
        try:
            line = self.lines.readline()
        except OSError as error:
            raise QMPError(f"the monitor does not answer: {error}") from None
        if not line:
            raise QMPError("the monitor is gone")
        return json.loads(line)

    def command(self, execute, **arguments):
        """Runs a command; returns what it gives. Events are dropped."""
        request = {"execute": execute}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        try:
            self.socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QMPError(f"the monitor is gone: {error}") from None
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QMPError(f"{execute}: {answer['error']['desc']}")

    def close(self):
        self.lines.close()
        self.socket.close()
