"""throttle: the first at once, the last always, never sooner than the interval; a restart voids what came before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambatch import Preview, Restarted, Started, Streamed, UsageError
from streambatch.integrations import throttle
from tests.rig.leap import leaping


def streamed(kind: Any, data: Any = None) -> Streamed:
    return Streamed("1-0", kind, "b", 1, data)


async def source(steps: Sequence[tuple[float, Any]]) -> AsyncGenerator[Any]:
    """Each piece after its pause."""
    for pause, piece in steps:
        await asyncio.sleep(pause)
        yield piece


def shown(steps: Sequence[tuple[float, Any]], interval: float, busy: float = 0.0) -> list[tuple[float, str]]:
    """What comes out and when, in seconds since the beginning; the reader is busy for so long with each."""

    async def main() -> list[tuple[float, str]]:
        loop, found = asyncio.get_running_loop(), list[tuple[float, str]]()
        async for text in throttle(source(steps), interval):
            found.append((round(loop.time(), 6), text))
            await asyncio.sleep(busy)
        return found

    return leaping(main())


def test_the_first_comes_at_once_then_one_an_interval_and_the_last_after_the_rest_of_its_interval() -> None:
    steps = [(0.1, "a"), (0.1, "b"), (0.1, "c"), (1.0, "d"), (0.1, "e")]
    assert shown(steps, 1.0) == [(0.1, "a"), (1.1, "abc"), (2.1, "abcde")]


def test_a_slow_stream_is_not_slowed_down() -> None:
    assert shown([(2, "a"), (2, "b"), (2, "c")], 1.0) == [(2, "a"), (4, "ab"), (6, "abc")]


def test_a_restart_voids_the_text_and_nothing_empty_is_given_out() -> None:
    """What was shown last is not shown again, either."""
    steps = [
        (0, streamed("started")),
        (0, streamed("text", "old")),
        (2, streamed("restarted")),
        (3, streamed("text", "")),
    ]
    steps += [(0, streamed("data", {"x": 1})), (0, streamed("text", "new")), (0, streamed("end")), (0, "never read")]
    assert shown(steps, 1.0) == [(0, "old"), (5, "new")]
    again = [(0, "same"), (2, Restarted("t", "b", 1, 2)), (2, "same")]
    assert shown(again, 1.0) == [(0, "same")]


def test_a_listeners_events_are_a_stream_too() -> None:
    events = [Started("t", "b", 1, 1, 0.1), Preview("t", "b", "a"), Preview("t", "b", {"a": 1}), Preview("t", "b", "b")]
    assert shown([(0, event) for event in events], 1.0) == [(0, "a"), (1, "ab")]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["a", "", "bc", streamed("restarted")])), max_size=20),
    st.integers(0, 7),
    st.integers(0, 9),
)
def test_never_sooner_than_the_interval_and_always_to_the_end(steps: list[Any], interval: int, busy: int) -> None:
    found = shown([(pause / 10, piece) for pause, piece in steps], interval / 10, busy / 10)
    times, texts = [at for at, _ in found], [text for _, text in found]
    assert all(late - early >= interval / 10 - 1e-6 for early, late in pairwise(times))
    whole = ""
    for _, piece in steps:
        whole = whole + piece if isinstance(piece, str) else ""
    assert all(texts)
    assert not whole or texts[-1] == whole


def test_the_source_is_closed_with_the_reader_and_its_error_goes_through() -> None:
    closed: list[str] = []

    async def pieces(fails: bool) -> AsyncGenerator[str]:
        try:
            yield "a"
            if fails:
                raise KeyError
            await asyncio.sleep(3600)
        finally:
            closed.append("closed")

    async def main(fails: bool) -> None:
        reader = throttle(pieces(fails), 1.0)
        assert await anext(reader) == "a"
        if fails:
            with pytest.raises(KeyError):
                await anext(reader)
        else:
            await reader.aclose()
            assert closed == ["closed"]
            waiting = throttle(pieces(fails), 1.0)
            await anext(waiting)
            task = asyncio.ensure_future(anext(waiting))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    leaping(main(False))
    leaping(main(True))
    assert closed == ["closed"] * 3


def test_a_wrong_interval_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="interval"):
        throttle(source([]), -1)
