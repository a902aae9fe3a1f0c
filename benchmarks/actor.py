"""The harness's end of a measured process: send a command, wait for its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any


class ActorError(Exception):
    """A measured process ended; its own words are on standard error."""


class Actor:
    """One child process of one system."""

    def __init__(self, system: str, url: str) -> None:
        self.system = system
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", system, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    def begin(self, verb: str, **command: object) -> None:
        """Send a command and do not wait."""
        self._send(json.dumps({"do": verb, **command}))

    def stop(self) -> None:
        """Tell a worker without an end to stop."""
        self._send("")

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ActorError(f"a process of {self.system} ended with code {self._process.wait()}")
        return json.loads(line)

    def do(self, verb: str, **command: object) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.begin(verb, **command)
        return self.answer()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ActorError(f"a process of {self.system} ended with code {self._process.wait()}") from error

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
