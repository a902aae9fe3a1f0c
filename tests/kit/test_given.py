"""What a test gives to the kit: a time or a count that is none is refused where it stands, with what to do."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from streambatch import UsageError
from streambatch.testing import Bench, Clock, Lasts, Says, ScriptedDeliver, ScriptedRunner, settled

NO_TIME: list[tuple[Any, str]] = [
    (math.nan, r"is nan: give 0 to 315,360,000 seconds"),
    (math.inf, r"is inf: give 0 to"),
    (-1, r"is -1: give 0 to"),
    (timedelta(seconds=-1), r"is -1\.0: give 0 to"),
    (10**30, r"is 10+: give 0 to"),
    ("2", r"is '2' \(str\): give seconds, a number, or a timedelta"),
    (True, r"is True: give seconds"),
    (None, r"is None \(NoneType\): give seconds"),
]
TAKEN: dict[str, Callable[[Bench, Any], Awaitable[object]]] = {
    "advance(seconds)": lambda bench, value: bench.clock.advance(value),
    "advance(seconds) ": lambda bench, value: bench.advance(value),
    "settled(within=…)": lambda bench, value: settled(bench.queue(), within=value),
}
MADE: dict[str, Callable[[Any], object]] = {
    "Lasts(seconds)": Lasts,
    "Says(every=…)": lambda value: Says("a", every=value),
}


@pytest.mark.parametrize(("value", "said"), NO_TIME)
@pytest.mark.parametrize("where", TAKEN)
async def test_what_is_no_time_does_not_move_the_clock(
    streambatch_bench: Bench, where: str, value: Any, said: str
) -> None:
    """With nan or inf the test would else stand still until it is killed, or end with an error of arithmetic."""
    with pytest.raises(UsageError, match=said) as caught:
        await TAKEN[where](streambatch_bench, value)
    assert str(caught.value).startswith(where.strip())
    assert streambatch_bench.clock.elapsed == 0.0


@pytest.mark.parametrize(("value", "said"), NO_TIME)
@pytest.mark.parametrize("where", MADE)
def test_what_is_no_time_makes_no_step(where: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        MADE[where](value)
    assert str(caught.value).startswith(where)


def test_time_that_ends_and_a_run_without_an_end_are_named() -> None:
    with pytest.raises(UsageError, match=r"; Held\(\) stands still until the test lets it go"):
        Lasts(math.inf)


async def test_every_time_may_be_a_timedelta(streambatch_bench: Bench) -> None:
    runner = ScriptedRunner(Lasts(timedelta(seconds=3), Says("a", "b", every=timedelta(seconds=0.5))))
    async with streambatch_bench.queue(runner=runner, deliver=ScriptedDeliver()) as queue:
        await streambatch_bench.advance(timedelta(minutes=1))
        await queue.submit("t", "hi", now=True)
        await settled(queue, within=timedelta(minutes=1))
        assert streambatch_bench.clock.elapsed == 60 + 3 + 1


NO_LIMIT: list[tuple[dict[str, Any], str]] = [
    ({"limit": 0}, r"limit is 0: give 0\.001 to inf seconds"),
    ({"limit": math.nan}, "limit is nan"),
    ({"limit": "1"}, r"limit is '1' \(str\)"),
    ({"patience": -0.1}, r"patience is -0\.1: give 0 to 3,600 seconds"),
    ({"patience": math.inf}, "patience is inf"),
    ({"patience": True}, "patience is True"),
    ({"start": "2030-01-01"}, r"start is '2030-01-01' \(str\): give an aware datetime"),
    ({"start": datetime(2030, 1, 1)}, r"start is 2030-01-01 00:00:00: give an aware datetime"),  # noqa: DTZ001
    ({"start": datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))}, r"the years 1970 to 8999"),
    ({"start": datetime.max.replace(tzinfo=UTC)}, r"start is 9999-12-31 .*: give a moment of the years 1970 to 8999"),
]


@pytest.mark.parametrize(("given", "said"), NO_LIMIT)
def test_what_a_clock_is_made_of_is_looked_at_before_it_is_on(given: dict[str, Any], said: str) -> None:
    for kind in (Bench, Clock):
        with pytest.raises(UsageError, match=said):
            kind(**given)


async def test_a_limit_may_be_a_timedelta_or_none_at_all() -> None:
    with Clock(limit=timedelta(seconds=60), patience=timedelta(milliseconds=1)) as clock:
        assert (clock.limit, clock.patience) == (60.0, 0.001)
    with Clock(limit=math.inf) as clock:
        await clock.advance(7_200)
        assert clock.elapsed == 7_200


NO_COUNT: list[tuple[Any, str]] = [
    (0, "is 0: give a whole number, from 1"),
    (-1, "is -1: give"),
    (True, "is True: give"),
    (1.5, r"is 1\.5: give"),
    ("2", r"is '2' \(str\): give"),
]


@pytest.mark.parametrize(("value", "said"), NO_COUNT)
async def test_what_is_no_number_of_a_run_is_refused(value: Any, said: str) -> None:
    for script in (ScriptedRunner(), ScriptedDeliver()):
        with pytest.raises(UsageError, match=f"^began\\(count\\) {said}"):
            await script.began(value)


def test_a_piece_that_is_the_time_between_is_refused() -> None:
    pieces: Any = ("We ", 0.5)
    with pytest.raises(UsageError, match="a piece is a str, not float"):
        Says(*pieces)
