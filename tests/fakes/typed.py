"""A fake platform by hand: what is typed is said to the bot, and what the bot sends is printed.

Theory of operation
-------------------
`Shown` takes the place of the list in which a fake keeps what was sent, and prints each as it is added. `typing` reads
lines until the end of the input: ``text``, or ``place: text`` where the fake has such a place. A fake is started with
``python -m tests.fakes.… [port]``; without a port it takes a free one.

The input is read by a daemon thread with `os.read`. A thread of the loop's executor would be waited for at the end, so
that Ctrl-C ended nothing until a line was typed; and one that sits in `sys.stdin` holds its lock, without which the
interpreter does not end. asyncio's own pipes cannot read a file.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from inspect import isawaitable
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Shown(list[T]):
    """A list that prints what is added to it."""

    def __init__(self, line: Callable[[T], str]) -> None:
        super().__init__()
        self._line = line

    def append(self, call: T) -> None:
        """Add it, and print it."""
        super().append(call)
        print(self._line(call), flush=True)


async def typing(
    say: Callable[[str, str], object], place: Callable[[str], bool], usual: str, here: asyncio.Event | None = None
) -> None:
    """Say each line that is typed, when the bot is *here*; where no place is named, in the *usual* one."""
    lines, there = _lines(), asyncio.create_task(_greet(here))
    while (line := await lines.get()) is not None:
        await there
        named, colon, text = line.strip().partition(": ")
        said = say(named, text) if colon and place(named) else say(usual, line.strip())
        if isawaitable(said):
            await said
    there.cancel()


async def _greet(here: asyncio.Event | None) -> None:
    if here is not None:
        await here.wait()
        print("The bot is here.", flush=True)


def _lines() -> asyncio.Queue[str | None]:
    """The lines of the input as they come, and None when it ends."""
    lines, loop = asyncio.Queue[str | None](), asyncio.get_running_loop()

    def read() -> None:
        rest = b""
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            while data := os.read(0, 65_536):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    loop.call_soon_threadsafe(lines.put_nowait, line.decode(errors="replace"))
            if rest:
                loop.call_soon_threadsafe(lines.put_nowait, rest.decode(errors="replace"))
            loop.call_soon_threadsafe(lines.put_nowait, None)

    Thread(target=read, daemon=True).start()
    return lines


def by_hand(main: Callable[[int], Coroutine[Any, Any, None]], name: str, lines: str) -> None:
    """Run the fake of the platform *name* on the port of the command line, until the input ends or Ctrl-C.

    Args:
        main: what runs it, on a port (0 takes a free one).
        name: of the platform.
        lines: what may be typed.
    """
    print(f"{name} on this machine. Type {lines}; Ctrl-D or Ctrl-C ends it.", flush=True)
    with suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
