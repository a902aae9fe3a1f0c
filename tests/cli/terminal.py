"""A verb on a real pseudo-terminal, and what a person would see there: the bytes go through a terminal emulator.

Theory of operation. The child has the terminal as stdin, stdout and stderr and as its controlling one, so keys, Ctrl-C
and changes of the size reach it as they reach any program. `pyte` draws what comes. It knows no alternate screen, so
whether that was left is read from the bytes, and the modes of the terminal are read before and after.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from contextlib import suppress
from typing import Any

import pyte

from tests.cli.tools import DEADLINE, environment

ALTERNATE, LEFT, SHOWN = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """A running verb; ``lines`` is what is on the screen."""

    def __init__(self, child: asyncio.subprocess.Process, place: int, size: tuple[int, int], before: list[Any]) -> None:
        self.child = child
        self.raw = b""
        self.before = before
        self._place = place
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self._news = asyncio.Event()
        self._ended = False
        asyncio.get_running_loop().add_reader(place, self._seen)

    @classmethod
    async def start(cls, *words: str, size: tuple[int, int] = (100, 24), **env: str) -> Terminal:
        """Start ``streambatch <words>`` on a terminal of *size* columns and lines."""
        mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        told = {name: value for name, value in environment(None).items() if name not in ("COLUMNS", "LINES")}
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LEADER, *words), env={**told, "TERM": "xterm-256color", **env},
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        before = termios.tcgetattr(theirs)
        os.close(theirs)
        return cls(child, mine, size, before)

    @property
    def lines(self) -> list[str]:
        """The screen, without the blanks at the end of its lines."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines)

    @property
    def modes(self) -> list[Any]:
        """How the terminal is set now."""
        return termios.tcgetattr(self._place)

    def give(self, keys: str) -> None:
        """Press keys."""
        os.write(self._place, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Another size; the program is told by SIGWINCH."""
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._place, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def until(self, *wanted: str) -> None:
        """Wait until all of these stand on the screen."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                while not all(one in self.text for one in wanted) and not self._ended:
                    self._news.clear()
                    await self._news.wait()
        missing = [one for one in wanted if one not in self.text]
        assert not missing, f"{missing} never stood on the screen:\n{self.text}"

    async def silent(self, beyond: int, way: str) -> int:
        """Wait until it is said that the server has been silent for more than so many seconds; returns for how many.

        Args:
            beyond: whole seconds.
            way: what it does meanwhile: "trying again" or "still waiting".
        """

        def said() -> int:
            found = re.search(rf"no answer for (\d+)\.\d s, {way}", self.text)
            return int(found[1]) if found else 0

        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                while said() <= beyond and not self._ended:
                    self._news.clear()
                    await self._news.wait()
        assert said() > beyond, f"it never counted the silence beyond {beyond} s:\n{self.text}"
        return said()

    async def end(self) -> int:
        """Wait until it has ended and all that it wrote is drawn; returns the exit code."""
        async with asyncio.timeout(DEADLINE):
            code = await self.child.wait()
            while not self._ended:
                self._news.clear()
                await self._news.wait()
        return code

    async def close(self) -> None:
        """Kill what still runs."""
        if self.child.returncode is None:
            with suppress(ProcessLookupError):
                self.child.kill()
            await self.child.wait()
        asyncio.get_running_loop().remove_reader(self._place)
        os.close(self._place)

    def _seen(self) -> None:
        try:
            data = os.read(self._place, 65_536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._place)
            self._ended = True
        self.raw += data
        self._stream.feed(data)
        self._news.set()


#: The session's leader takes the terminal for its own, so that ^C is a signal.
LEADER = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv = ["streambatch", *sys.argv[1:]]
from streambatch.cli import main
main()
"""
