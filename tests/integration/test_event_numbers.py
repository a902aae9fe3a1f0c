"""The numbers that events carry for metrics: how late a Run began, its tokens, and the class of what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from streambatch import Answer, Answered, Batch, Dead, DeadLetter, DeliveryFailed, Reply, Retry, Retrying, Started
from streambatch._scope import in_and_out
from tests.integration.bench import DAWN, Bench
from tests.integration.stage import Stage
from tests.rig import wait_for

SKEW = 0.3  # seconds; by half of what a look at the server took, its clock and the loop's are known too badly


def of(stage: Stage, kind: type[Any]) -> list[Any]:
    """The events of a kind, in order."""
    return [event for event in stage.events if isinstance(event, kind)]


def begins(stage: Stage) -> list[float]:
    """When each Run begins, on the clock of the loop: no event of a Run is later than that."""
    play, found = stage.play, list[float]()

    async def noting(batch: Batch, run: Any) -> Any:
        found.append(asyncio.get_running_loop().time())
        return await play(batch, run)

    stage.play = noting
    return found


async def test_a_run_that_waited_for_a_worker_says_how_late_it_is(stage: Stage) -> None:
    """Due since a known moment, and nobody was there: `late` counts from that moment, `waited` from the message."""
    web, loop, begun = await stage.web(), asyncio.get_running_loop(), begins(stage)
    await stage.worker(concurrency=1)
    asked = [loop.time()]
    await web.submit("a", "hi", now=True)
    await wait_for(lambda: stage.runs, "the Run that takes the only place")
    asked.append(loop.time())
    await web.submit("b", "hi", debounce=0.6)
    await asyncio.sleep(1.2)  # the time itself is what is measured here
    stage.gate.set()
    await wait_for(lambda: len(begun) == 2, "the second Run")
    first, second = of(stage, Started)
    assert 0 <= first.late <= begun[0] - asked[0] + SKEW
    assert 0.6 - SKEW <= second.late <= begun[1] - asked[1] - 0.6 + SKEW  # 0.6 s of its wait were the quiet window
    assert second.waited >= 1.19


async def test_a_run_is_late_from_the_time_of_its_retry(stage: Stage) -> None:
    """The wait between two attempts is no lateness, though `waited` grows; and what failed is named by its class."""

    async def play(batch: Batch, run: Any) -> str:
        if batch.attempt == 1:
            raise ValueError("content")
        return ""

    stage.play = play
    begun = begins(stage)
    await stage.worker(backoff=1.2, backoff_max=1.2)
    await (await stage.web()).submit("t", "hi", now=True)
    await wait_for(lambda: len(begun) == 2, "the second attempt")
    again, (failed,) = of(stage, Started)[1], of(stage, Retrying)
    assert failed.cause == "ValueError"
    assert 0 < failed.delay <= again.waited
    assert again.late <= begun[1] - begun[0] - failed.delay + SKEW


async def test_the_next_batch_of_a_hot_thread_is_not_late(stage: Stage) -> None:
    """What came during a Run and follows it without a pause was due when that ended, not when its window was over."""
    stage.gate.clear()
    web, begun = await stage.web(), begins(stage)
    await stage.worker()
    await web.submit("t", "one", now=True)
    await wait_for(lambda: stage.runs, "the Run")
    await web.submit("t", "two", now=True)
    await asyncio.sleep(0.4)  # the time itself is what is measured here
    ended = asyncio.get_running_loop().time()
    stage.gate.set()
    await wait_for(lambda: len(begun) == 2, "the second Run")
    assert of(stage, Started)[1].waited > 0.4
    assert of(stage, Started)[1].late <= begun[1] - ended


async def test_peek_says_since_when_a_thread_is_due(still: Bench) -> None:
    """The moments of those that are due; a cancelled batch, which is due at once, has none."""
    side = await still.side()
    await side.submit("c", "hi")
    await side.submit("a", "hi", quiet=100)
    await side.submit("b", "hi", quiet=200)
    still.tick(1_000)
    assert (await side.store.peek(side.wire, 0, 10)).ready == {"c": DAWN, "a": DAWN + 100, "b": DAWN + 200}
    work = await side.work("a")
    await side.store.release(work.lease, 5, give_back=False)
    await side.desk.cancel("a", run=True, pending=False, keep=False)
    assert (await side.store.peek(side.wire, 0, 10)).ready["a"] == 0
    await side.sweep()


async def test_answered_has_the_tokens_of_the_usage(stage: Stage) -> None:
    """In and out, as the runner reported them."""

    async def play(batch: Batch, run: Any) -> Answer:
        return Answer("hi", usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})

    stage.play = play
    await stage.worker()
    await (await stage.web()).submit("t", "hi", now=True)
    await wait_for(lambda: of(stage, Answered), "the answer")
    assert [(event.input_tokens, event.output_tokens) for event in of(stage, Answered)] == [(7, 5)]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (0, 0)),
        ({}, (0, 0)),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"input_tokens": 0, "output_tokens": 0, "prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"input_tokens": "many", "output_tokens": -1}, (0, 0)),
        ({"input_tokens": 3}, (3, 0)),
    ],
    ids=str,
)
def test_tokens_by_either_pair_of_names(usage: Mapping[str, object] | None, tokens: tuple[int, int]) -> None:
    """What is no number counts as nothing."""
    assert in_and_out(usage) == tokens


@pytest.mark.leaves_keys("dead letters, on purpose")
async def test_a_dead_letter_and_a_failed_delivery_name_the_class(stage: Stage) -> None:
    """Of the error that was the last one; its text may hold content and is in no event."""

    async def play(batch: Batch, run: Any) -> str:
        if batch.thread == "dead":
            raise DeadLetter("refused")
        return "hello"

    async def deliver(reply: Reply) -> None:
        raise KeyError("secret") if len(of(stage, DeliveryFailed)) == 0 else Retry(after=0.01)

    stage.play = play
    await stage.worker(deliver=deliver, max_delivery_attempts=2)
    web = await stage.web()
    await web.submit("dead", "hi", now=True)
    await web.submit("t", "hi", now=True)
    await wait_for(lambda: len(of(stage, Dead)) == 2, "both dead letters")
    assert {(event.kind, event.cause) for event in of(stage, Dead)} == {("batch", "DeadLetter"), ("reply", "Retry")}
    assert [event.cause for event in of(stage, DeliveryFailed)] == ["KeyError"]
    assert "secret" not in repr(stage.events)
