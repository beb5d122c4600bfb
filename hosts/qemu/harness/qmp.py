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
        self.events = []
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
        """Runs a command; returns what it gives. Events that come meanwhile are kept in events."""
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
            if "event" in answer:
                self.events.append(answer)
            if "error" in answer:
                raise QMPError(f"{execute}: {answer['error']['desc']}")

    def wait_event(self, *names, timeout=30):
        """Waits for one of these events, which may have come already, and takes it out."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self.events:
                if event["event"] in names:
                    self.events.remove(event)
                    return event
            if time.monotonic() > deadline:
                raise QMPError(f"no event {' or '.join(names)}")
            time.sleep(0.01)
            self.command("query-status")

    def close(self):
        self.lines.close()
        self.socket.close()
