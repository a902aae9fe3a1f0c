"""An event loop in which no time passes while something happens, and none is lost while nothing does.

Theory of operation. `leaping` runs a coroutine on a real loop whose clock stands still while there is something to do.
When every task waits for a moment, the clock leaps there. So a test of seconds takes none, and says exactly when what
happened. For code without sockets and threads: what arrives from outside would come at a time that nobody can tell.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Leaping(asyncio.SelectorEventLoop):
    """The loop; `now` is its time, from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    """Instead of waiting it moves the clock."""

    def __init__(self, loop: Leaping) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("nothing will ever happen: every task waits for another one")
        self._loop.now += max(0.0, timeout)
        return super().select(0)


def leaping(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, in no time."""
    with asyncio.Runner(loop_factory=Leaping) as runner:
        return runner.run(work)
