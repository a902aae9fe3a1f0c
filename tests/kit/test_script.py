"""The scripted runner and deliver callback by themselves: what they do, and what they remember."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Answer, Batch, BatchQueue, DeadLetter, Preview, Retry, UsageError
from streambatch.testing import (
    Bench,
    Held,
    Lasts,
    Says,
    ScriptedDeliver,
    ScriptedRunner,
    assert_batches,
    assert_dead_letters,
    assert_replies,
    echo,
    settled,
)


async def spoken(queue: BatchQueue, *texts: str) -> None:
    for text in texts:
        await queue.submit("t", text)
        await settled(queue)


async def test_each_run_takes_the_next_step_and_further_ones_the_last(streambatch_bench: Bench) -> None:
    async def own(batch: Any, run: Any) -> str:
        return f"{len(batch.messages)} message, fence {run.fence > 0}"

    runner = ScriptedRunner("a", Answer("b", usage={"in": 1}), None, own, then=Lasts(1, echo))
    deliver = ScriptedDeliver()
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as queue:
        await spoken(queue, "1", "2", "3", "4", "5", "6")
    assert_replies(deliver, ["a", "b", "1 message, fence True", "5", "6"])
    assert deliver.replies[1].usage == {"in": 1}
    assert_batches(runner, [[f"{n}"] for n in range(1, 7)])


async def test_what_a_queue_takes_as_a_runner_is_a_step_too(streambatch_bench: Bench) -> None:
    """To fail once and then be the bot's own runner is the first test that anyone writes."""

    async def answer(batch: Batch) -> str:
        return batch.text.upper()

    runner, deliver = ScriptedRunner(OSError, answer, then=Says("and ", then=answer)), ScriptedDeliver()
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as queue:
        await spoken(queue, "a", "b")
    assert_replies(deliver, ["A", "B"])


def test_what_is_looked_at_too_early_is_told_so() -> None:
    for act in (lambda: assert_replies(ScriptedDeliver(), ["a"]), lambda: assert_batches(ScriptedRunner(), [["a"]])):
        with pytest.raises(AssertionError, match=r"there were \[\]; .*none \(too early\? await settled\(queue\)"):
            act()


async def test_errors_are_raised_as_instances_or_classes(streambatch_bench: Bench) -> None:
    runner = ScriptedRunner(KeyError, Retry(after=100), DeadLetter("no"))
    async with streambatch_bench.queue(runner=runner, deliver=ScriptedDeliver()) as queue:
        await spoken(queue, "1")
        await assert_dead_letters(queue, "no")
        assert len(runner.batches) == 3
        assert streambatch_bench.clock.elapsed > 100


async def test_a_held_run_may_be_released_with_another_step(streambatch_bench: Bench) -> None:
    held, deliver = Held("a"), ScriptedDeliver()
    runner = ScriptedRunner(held)
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as queue:
        await queue.submit("t", "hi")
        await held.entered()
        assert runner.running == 1
        await queue.submit("t", "more")
        await streambatch_bench.advance(60)
        assert runner.running == 1  # one Run of a thread at a time
        held.release(Says("b", "c"))
        await settled(queue)
        assert runner.running == 0
        assert_replies(deliver, ["bc", "more"])


async def test_a_stream_that_breaks_off_is_shown_and_begins_again(streambatch_bench: Bench) -> None:
    runner, deliver = ScriptedRunner(Says("a", "b", then=ConnectionError("cut")), Says("c")), ScriptedDeliver()
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as queue:
        await spoken(queue, "hi")
        shown = [event.data for event in streambatch_bench.events if isinstance(event, Preview)]
        assert shown == ["a", "b", "c"]
        assert_replies(deliver, ["c"])


async def test_a_batch_that_grew_is_remembered_as_it_was_left(streambatch_bench: Bench) -> None:
    async def greedy(_: Any, run: Any) -> str:
        await asyncio.sleep(5)
        await run.more()
        return run.batch.text

    runner = ScriptedRunner(greedy)
    async with streambatch_bench.queue(runner=runner, deliver=ScriptedDeliver()) as queue:
        await queue.submit("t", "1")
        await runner.began()
        await queue.submit("t", "2")
        await settled(queue)
        assert_batches(runner, [["1", "2"]])


async def test_namespaces_are_told_apart(streambatch_bench: Bench) -> None:
    """A thread and a moment may be the same in two of them, and so may a runner; a Run that is repeated counts once."""
    runner = ScriptedRunner(OSError("x"), OSError("x"))
    async with (
        streambatch_bench.queue(runner=runner, namespace="a") as first,
        streambatch_bench.queue(runner=runner, namespace="b") as second,
    ):
        await first.submit("t", "of a")
        await second.submit("t", "of b")
        await settled(first)
        await settled(second)
    assert len(runner.batches) == 4
    assert sorted(runner.texts()) == [["of a"], ["of b"]]


async def test_threads_are_told_apart(streambatch_bench: Bench) -> None:
    runner, deliver = ScriptedRunner(), ScriptedDeliver()
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as queue:
        for thread in (1, "2"):
            await queue.submit(thread, f"of {thread}")
        await settled(queue)
    assert sorted(runner.texts()) == [["of 1"], ["of 2"]]
    assert_batches(runner, [["of 1"]], thread=1)
    assert_replies(deliver, ["of 2"], thread=2)
    assert sorted(deliver.texts()) == ["of 1", "of 2"]


async def test_whoever_waits_for_a_run_gets_its_batch(streambatch_bench: Bench) -> None:
    runner, deliver = ScriptedRunner(), ScriptedDeliver()
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as queue:
        second, reply = asyncio.create_task(runner.began(2)), asyncio.create_task(deliver.began(2))
        await spoken(queue, "1", "2")
        assert (await second).text == "2"
        assert (await reply).text == "2"
        assert (await runner.began(1)).text == "1"


def sync(batch: object) -> str:
    return "a"


NO_STEPS: list[Any] = [1, sync, object(), int]


@pytest.mark.parametrize("bad", NO_STEPS)
def test_what_is_no_step_is_refused_at_once(bad: Any) -> None:
    with pytest.raises(UsageError, match="a step is"):
        ScriptedRunner("a", bad)
    with pytest.raises(UsageError, match="a step is"):
        ScriptedDeliver(then=bad)
