"""A fake platform by hand: what is typed is said to the bot, and what the bot sends is printed.

Theory of operation. `Shown` takes the place of the list in which a fake keeps what was sent, and prints each as it is
added. `typing` reads lines until the end of the input: ``text``, or ``place: text`` where the fake has such a place. A
fake is started with ``python -m tests.fakes.… [port]``; without a port it takes a free one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from inspect import isawaitable
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


async def typing(say: Callable[[str, str], object], place: Callable[[str], bool], usual: str) -> None:
    """Say each line that is typed; where no place is named, in the usual one."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        named, colon, text = line.strip().partition(": ")
        said = say(named, text) if colon and place(named) else say(usual, line.strip())
        if isawaitable(said):
            await said


def by_hand(main: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Run a fake on the port of the command line until the input ends or Ctrl-C."""
    with suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
