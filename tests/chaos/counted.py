"""A coroutine that is cancelled at its n-th suspension, exactly as a timeout or a closing framework would do it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class Counted(Awaitable[T]):
    """A coroutine whose suspensions are counted; at the one numbered `at` its task is cancelled."""

    def __init__(self, call: Coroutine[Any, Any, T], at: int = 0) -> None:
        self._call = call
        self._at = at
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._call.__await__()
        error: BaseException | None = None
        while True:
            try:
                future = inner.send(None) if error is None else inner.throw(error)
            except StopIteration as done:
                return done.value
            self.steps += 1
            task = asyncio.current_task()
            if self.steps == self._at and task is not None:
                task.cancel()
            try:
                yield future
                error = None
            except BaseException as raised:  # noqa: BLE001 - whatever comes is handed on
                error = raised


async def play(call: Coroutine[Any, Any, Any], at: int) -> tuple[int, bool]:
    """Run a story in a task of its own, cancelled at a step: how many steps it took, and if it was cancelled."""
    counted = Counted(call, at)

    async def run() -> None:
        await counted

    task = asyncio.create_task(run())
    async with asyncio.timeout(40):
        _, late = await asyncio.wait([task], timeout=30)
    if late:
        pytest.fail(f"cancelled at step {at}, it never ended")
    if not task.cancelled():
        task.result()
    return counted.steps, task.cancelled()
