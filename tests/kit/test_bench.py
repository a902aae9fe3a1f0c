"""The bench: settled, crash, and what makes a test repeat itself."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from streambatch import Answered, Batch, BatchQueue, Lost, QueueClosed, Retrying, Run, UsageError, Warned
from streambatch.testing import (
    Bench,
    Clock,
    Held,
    Lasts,
    ScriptedDeliver,
    ScriptedRunner,
    assert_batches,
    assert_dead_letters,
    assert_nothing_pending,
    assert_replies,
    crash,
    settled,
)
from streambatch.testing._memory import Place
from tests.rig import Server


async def test_settled_returns_at_the_moment_of_the_last_thing(streambatch_bench: Bench) -> None:
    runner, deliver = ScriptedRunner(Lasts(3.5, "a")), ScriptedDeliver(Lasts(0.25, None))
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as queue:
        await queue.submit("t", "hi")
        stats = await settled(queue)
        assert (stats.received, stats.delivered, stats.due) == (1, 1, 0)
        assert streambatch_bench.clock.elapsed == 2 + 3.5 + 0.25
        assert_replies(deliver, ["a"])


async def test_settled_says_what_does_not_end(streambatch_bench: Bench) -> None:
    async with streambatch_bench.queue() as queue:  # there is no runner
        await queue.submit("t", "hi")
        with pytest.raises(AssertionError, match=r"messages=1.*thread 't' is waiting"):
            await settled(queue, within=10)
        assert 10 <= streambatch_bench.clock.elapsed <= 11


async def test_settled_waits_for_what_another_queue_does(streambatch_bench: Bench) -> None:
    async with (
        streambatch_bench.queue() as bot,
        streambatch_bench.queue(runner=ScriptedRunner("a")),
        streambatch_bench.queue(deliver=(deliver := ScriptedDeliver())),
    ):
        await bot.submit("t", "hi")
        await settled(bot)
        assert_replies(deliver, ["a"])


async def test_what_is_paused_is_not_waited_for_and_yet_pending(streambatch_bench: Bench) -> None:
    async with streambatch_bench.queue(runner=ScriptedRunner()) as queue:
        await queue.pause("t")
        await queue.submit("t", "hi")
        await settled(queue)
        with pytest.raises(AssertionError, match=r"parked=1.*is parked"):
            await assert_nothing_pending(queue)
        await queue.resume("t")
        await settled(queue)
        await assert_nothing_pending(queue)


async def test_what_runs_in_a_paused_namespace_is_waited_for(streambatch_bench: Bench) -> None:
    """A pause ends no Run that is under way."""
    async with streambatch_bench.queue(runner=ScriptedRunner(Lasts(30, "a"))) as queue:
        await queue.submit("t", "hi", now=True)
        await streambatch_bench.advance(1)
        await queue.pause()
        stats = await settled(queue)
        assert (stats.paused, stats.due, streambatch_bench.clock.elapsed) == (True, 0, 30)


async def test_what_a_paused_namespace_keeps_is_not_waited_for(streambatch_bench: Bench) -> None:
    async with streambatch_bench.queue(runner=(runner := ScriptedRunner("a", "b"))) as queue:
        await queue.submit("s", "hi", now=True)
        await settled(queue)
        await queue.pause()
        await queue.submit("t", "hi")
        assert (await settled(queue)).paused
        assert len(runner.batches) == 1
        await queue.resume()
        await settled(queue)
        await assert_nothing_pending(queue)


async def test_settled_works_on_a_real_server(server: Server, namespace: str) -> None:
    runner, deliver = ScriptedRunner(Lasts(0.05, "a")), ScriptedDeliver()
    fast: dict[str, Any] = {"debounce": 0.01, "log": False, "namespace": namespace}
    async with BatchQueue(server.url, runner=runner, deliver=deliver, **fast) as queue:
        await queue.submit("t", "hi")
        await settled(queue, within=20)
        await assert_nothing_pending(queue)
        assert_replies(deliver, ["a"])
        with pytest.raises(UsageError, match="only a queue on memory://"):
            await crash(queue)


async def test_the_dead_have_no_effect_and_say_nothing(streambatch_bench: Bench) -> None:
    held, late = Held("too late"), ScriptedDeliver()

    async def last_words(batch: Batch, run: Run) -> Any:
        try:
            return await held()
        finally:
            run.emit("alas")

    runner = ScriptedRunner(last_words)
    async with streambatch_bench.queue() as witness:
        await streambatch_bench.clock.idle()  # it has opened what it needs
        connections = len(Place(streambatch_bench.url).server.sockets)
        async with streambatch_bench.queue(runner=runner, deliver=late) as first:
            await first.submit("t", "hi")
            await held.entered()
            said = list(streambatch_bench.events)
            await crash(first)
            assert (runner.running, runner.cancelled) == (0, 1)
            assert len(Place(streambatch_bench.url).server.sockets) == connections
            held.release()
            with pytest.raises(QueueClosed):
                await first.submit("t", "more")
        await streambatch_bench.clock.idle()
        assert streambatch_bench.events == said
        assert (await witness.explain("t")).state == "running"  # nobody gave the batch back: its lease must end
        await streambatch_bench.advance(29)
        assert (await witness.stats()).messages == 1
        assert not late.tries


async def test_what_a_queue_says_while_it_opens_and_closes_is_heard(streambatch_bench: Bench) -> None:
    runner = ScriptedRunner(Lasts(5, "a"))
    async with streambatch_bench.queue(runner=runner) as queue:
        await queue.submit("t", "hi")
        await runner.began()
    assert [event.code for event in streambatch_bench.events if isinstance(event, Warned)] == ["memory"]
    assert streambatch_bench.seen(Answered)


async def test_a_crash_is_survived_within_the_lease_plus_a_second(streambatch_bench: Bench) -> None:
    held = Held()
    async with streambatch_bench.queue(runner=ScriptedRunner(held), deliver=ScriptedDeliver()) as first:
        await first.submit("t", "hi")
        await held.entered()
        await crash(first)
        died = streambatch_bench.clock.elapsed
    runner, deliver = ScriptedRunner("a"), ScriptedDeliver()
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as second:
        batch = await runner.began()
        assert 30 <= streambatch_bench.clock.elapsed - died <= 31
        assert batch.attempt == 2
        await settled(second)
        assert_batches(runner, [["hi"]])
        await assert_dead_letters(second)


async def test_a_reply_that_a_dead_process_was_sending_is_sent_again(streambatch_bench: Bench) -> None:
    held = Held()
    async with streambatch_bench.queue(runner=ScriptedRunner("a"), deliver=ScriptedDeliver(held)) as first:
        await first.submit("t", "hi")
        await held.entered()
        await crash(first)
    runner, deliver = ScriptedRunner(), ScriptedDeliver()
    async with streambatch_bench.queue(runner=runner, deliver=deliver) as second:
        await settled(second)
        assert_replies(deliver, ["a"])
        assert_batches(runner, [])  # no second Run for it


async def test_whoever_waits_on_the_dead_is_told(streambatch_bench: Bench) -> None:
    async with streambatch_bench.queue(runner=ScriptedRunner(Held())) as queue:
        receipt = await queue.submit("t", "hi")
        waiting = asyncio.create_task(receipt.reply())
        await streambatch_bench.advance(3)
        await crash(queue)
        with pytest.raises(QueueClosed):
            await waiting
        with pytest.raises(UsageError, match="only an open queue"):
            await crash(queue)


async def test_a_run_that_swallows_its_cancellation_dies_as_well(streambatch_bench: Bench) -> None:
    async def deaf(*_: object) -> str:
        while True:
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                continue
            else:
                return "too late"

    deliver = ScriptedDeliver()
    async with streambatch_bench.queue(runner=ScriptedRunner(deaf), deliver=deliver) as queue:
        await queue.submit("t", "hi")
        await streambatch_bench.advance(3)
        await crash(queue)
    await streambatch_bench.advance(60)
    assert not deliver.tries


async def test_a_renewed_lease_outlives_a_long_run(streambatch_bench: Bench) -> None:
    runner = ScriptedRunner(Lasts(500, "a"))
    async with streambatch_bench.queue(runner=runner) as queue, streambatch_bench.queue(runner=runner):
        await queue.submit("t", "hi")
        await settled(queue)
        assert len(runner.batches) == 1
        assert not streambatch_bench.seen(Lost)
        assert len(streambatch_bench.seen(Answered)) == 1


async def test_a_run_that_takes_too_long_is_tried_again(streambatch_bench: Bench) -> None:
    runner = ScriptedRunner(Lasts(1000), "a")
    async with streambatch_bench.queue(runner=runner, deliver=ScriptedDeliver(), run_timeout=600) as queue:
        await queue.submit("t", "hi")
        await settled(queue)
        assert (len(runner.batches), runner.cancelled) == (2, 1)


def test_two_runs_of_a_test_are_the_same() -> None:
    async def life(bench: Bench) -> list[str]:
        runner = ScriptedRunner(OSError("x"), OSError("x"), "a")
        async with bench.queue(runner=runner, deliver=ScriptedDeliver()) as queue:
            await queue.submit("t", "hi")
            await settled(queue)
        return [repr(event) for event in bench.events]

    def played() -> list[str]:
        with Bench() as bench:
            return asyncio.run(life(bench))

    first = played()
    random.random()  # somebody else throws the dice meanwhile
    second = played()
    assert first == second
    assert sum("Retrying" in event for event in first) == 2


def test_whoever_seeds_before_a_test_begins_does_not_change_it() -> None:
    """As pytest-randomly does, with another number in every run, between the fixtures of a test and the test."""

    async def life(bench: Bench) -> float:
        async with bench.queue(runner=ScriptedRunner(OSError("x"), OSError("x"), "a")) as queue:
            await queue.submit("t", "hi")
            await settled(queue)
        return bench.clock.elapsed

    def played(seed: int) -> float:
        with Bench() as bench:
            random.seed(seed)
            return asyncio.run(life(bench))

    before = random.getstate()
    assert len({played(seed) for seed in range(5)}) == 1
    assert random.getstate() == before


def test_opening_a_queue_in_a_loop_is_enough_for_the_clock() -> None:
    async def life() -> float:
        async with BatchQueue(bench.url, runner=ScriptedRunner("a"), debounce=50, max_wait=50, log=False) as queue:
            await (await queue.submit("t", "hi")).reply()
        return bench.clock.elapsed

    with Bench() as bench:
        assert asyncio.run(life()) == 50


async def test_max_wait_ends_a_window_that_is_kept_open(streambatch_bench: Bench) -> None:
    runner = ScriptedRunner()
    async with streambatch_bench.queue(runner=runner) as queue:
        for second in range(20):
            await queue.submit("t", f"{second}")
            await streambatch_bench.advance(1)
        assert len(runner.batches[0].messages) == 15
        assert streambatch_bench.events


async def test_the_bench_leaves_nothing_behind() -> None:
    with Bench() as bench:
        async with bench.queue() as queue:
            await queue.submit("t", "hi")
        url = bench.url
    assert Clock.current() is None
    async with BatchQueue(url, log=False) as queue:
        assert (await queue.stats()).received == 0


async def test_an_assertion_that_fails_says_what_there_was(streambatch_bench: Bench) -> None:
    runner, deliver = ScriptedRunner(OSError("x"), "a"), ScriptedDeliver()
    async with streambatch_bench.queue(runner=runner, deliver=deliver, max_attempts=2) as queue:
        await queue.submit("t", "hi")
        await queue.submit("u", "ho")
        await settled(queue)
        assert streambatch_bench.seen(Retrying)
        with pytest.raises(AssertionError, match=r"(?s)\['hi'\].*'ho'.*attempt=2"):
            assert_batches(runner, [["hi"]])
        assert_batches(runner, [["hi"]], thread="t")
        with pytest.raises(AssertionError, match="expected replies"):
            assert_replies(deliver, ["b"])
        with pytest.raises(AssertionError, match="there are 0"):
            await assert_dead_letters(queue, "anything")
        lists: Any = [["a"]]
        with pytest.raises(UsageError, match="a str each, not list"):
            await assert_dead_letters(queue, lists)


@pytest.mark.parametrize(
    ("attempts", "reason"), [(1, "1 attempt failed, with OSError"), (2, "2 attempts failed, the last")]
)
async def test_the_reason_of_a_dead_letter_counts_as_people_do(
    streambatch_bench: Bench, attempts: int, reason: str
) -> None:
    runner = ScriptedRunner(then=OSError)
    async with streambatch_bench.queue(runner=runner, max_attempts=attempts) as queue:
        await queue.submit("t", "hi")
        await settled(queue)
        await assert_dead_letters(queue, reason)


async def test_a_crashed_queue_has_no_runner_any_more(streambatch_bench: Bench) -> None:
    """A runner that it shared is closed by the queue that is left after it, and not by the one that died."""
    closed = list[str]()

    class Closing(ScriptedRunner):
        async def aclose(self) -> None:
            closed.append("closed")

    runner = Closing("a")
    async with streambatch_bench.queue(runner=runner):
        async with streambatch_bench.queue(runner=runner) as dies:
            opened: Any = dies
            held = opened._open  # what has died may be in memory for a while
            await crash(dies)
        assert closed == []
    assert (closed, held.client is None) == (["closed"], False)
