"""Child processes of a test: a script of its own, whose printed lines are the moments the test waits for.

Theory of operation. A `Child` runs a Python file with the test's interpreter, unbuffered, from the project's root, so
that it can import both the package and the rig. A reader task collects the lines of its stdout as they come; `expect`
looks through those that no earlier `expect` has consumed, and waits for more. stderr is collected apart and stands in
the failure, so that a child that died says why. The fixture `start_child` kills and reaps every child at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Child:
    """One running child process; made by `await Child.start(...)` or by the fixture `start_child`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Take over a started process and begin to read what it prints."""
        self._process = process
        self._news = asyncio.Event()
        self._next = 0
        self.lines: list[str] = []
        self.errors: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.lines)),
            asyncio.create_task(self._read(process.stderr, self.errors)),
        ]

    @classmethod
    async def start(cls, script: str | Path, *arguments: str, env: Mapping[str, str] | None = None) -> Child:
        """Start a Python file.

        Args:
            script: The file; a relative path is taken from the project's root.
            arguments: Its arguments.
            env: Variables added to the environment.
        """
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / script),
            *arguments,
            cwd=ROOT,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        return self._process.returncode

    async def expect(self, pattern: str, *, deadline: float = 20.0) -> re.Match[str]:
        """Wait for the next line in which `pattern` is found, and return the match; earlier lines are consumed.

        Args:
            pattern: A regular expression, searched anywhere in the line.
            deadline: Seconds until the wait fails with AssertionError; a child that ends fails it at once.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while True:
                    over = all(reader.done() for reader in self._readers)
                    self._news.clear()
                    while self._next < len(self.lines):
                        self._next += 1
                        if match := re.search(pattern, self.lines[self._next - 1]):
                            return match
                    if over:
                        break
                    await self._news.wait()
        raise AssertionError(f"The child never printed {pattern!r}.\nstdout: {self.lines}\nstderr: {self.errors}")

    async def send(self, line: str) -> None:
        """Write a line to the child's stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    def kill9(self) -> None:
        """Kill it (SIGKILL); a child that has ended stays ended. Await `wait` to see it reaped."""
        self._signal(signal.SIGKILL)

    def sigterm(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def sigstop(self) -> None:
        """Freeze it (SIGSTOP) until `sigcont`."""
        self._signal(signal.SIGSTOP)

    def sigcont(self) -> None:
        """Let a frozen child go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    async def wait(self, *, deadline: float = 20.0) -> int:
        """Wait for the end of the child and of its output, and return the exit status."""
        async with asyncio.timeout(deadline):
            status = await self._process.wait()
            await asyncio.gather(*self._readers)
            return status

    async def close(self) -> None:
        """Kill it if it still runs, and reap it."""
        self.kill9()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _read(self, stream: asyncio.StreamReader, into: list[str]) -> None:
        try:
            async for line in stream:
                into.append(line.decode(errors="replace").rstrip("\n"))
                self._news.set()
        finally:
            # A reader is done only after it has returned, so `expect` is told right after that.
            asyncio.get_running_loop().call_soon(self._news.set)
