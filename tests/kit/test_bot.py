"""The tests of the example bot, as its author would write them; docs/testing.md shows them from here."""

from __future__ import annotations

from itertools import count

from streambatch import BatchQueue, DeadLetter, Retry
from streambatch.testing import (
    Bench,
    Held,
    Lasts,
    Says,
    ScriptedDeliver,
    ScriptedRunner,
    assert_batches,
    assert_dead_letters,
    assert_nothing_pending,
    assert_replies,
    crash,
    settled,
)
from tests.kit.bot import make_queue, on_message

numbers = count(1)


async def says(queue: BatchQueue, *texts: str, chat: int = 7) -> None:
    """Somebody types these lines."""
    for text in texts:
        await on_message(queue, {"chat": chat, "text": text, "id": next(numbers)})


async def test_a_burst_is_one_run(streambatch_bench: Bench) -> None:
    model, chat = ScriptedRunner("We open at nine."), ScriptedDeliver()
    async with make_queue(streambatch_bench.url, model, chat) as queue:
        await says(queue, "hi", "are you open today?")
        await streambatch_bench.advance(1.9)
        assert_batches(model, [])  # somebody may still be typing
        await streambatch_bench.advance(0.1)
        assert_batches(model, [["hi", "are you open today?"]])
        assert_replies(chat, ["We open at nine."])
        await assert_nothing_pending(queue)


async def test_a_failing_model_is_asked_again(streambatch_bench: Bench) -> None:
    model, chat = ScriptedRunner(OSError("no route"), OSError("no route"), "Hello!"), ScriptedDeliver()
    async with make_queue(streambatch_bench.url, model, chat) as queue:
        await says(queue, "hi")
        await settled(queue)
        assert [batch.attempt for batch in model.batches] == [1, 2, 3]
        assert_replies(chat, ["Hello!"])
        assert 2 + 1 / 2 + 2 / 2 <= streambatch_bench.clock.elapsed <= 2 + 1 + 2  # back-off has jitter


async def test_a_model_that_never_answers_leaves_a_dead_letter(streambatch_bench: Bench) -> None:
    model, chat = ScriptedRunner(then=TimeoutError("silence")), ScriptedDeliver()
    async with make_queue(streambatch_bench.url, model, chat) as queue:
        await says(queue, "hi")
        await settled(queue)
        (letter,) = await assert_dead_letters(queue, "5 attempts failed")
        assert [message.text for message in letter.messages] == ["hi"]


async def test_flood_control_delays_the_reply_and_asks_no_model_again(streambatch_bench: Bench) -> None:
    model, chat = ScriptedRunner("Hello!"), ScriptedDeliver(Retry(after=40))
    async with make_queue(streambatch_bench.url, model, chat) as queue:
        await says(queue, "hi")
        await settled(queue)
        assert_replies(chat, ["Hello!"])
        assert (len(model.batches), len(chat.tries)) == (1, 2)
        assert streambatch_bench.clock.elapsed == 2 + 40


async def test_a_process_that_dies_in_a_run_loses_nothing(streambatch_bench: Bench) -> None:
    held, chat = Held(), ScriptedDeliver()
    async with make_queue(streambatch_bench.url, ScriptedRunner(held), chat) as first:
        await says(first, "hi")
        await held.entered()
        await crash(first)
    model = ScriptedRunner("Hello!")
    async with make_queue(streambatch_bench.url, model, chat) as second:
        await settled(second)
        assert [batch.attempt for batch in model.batches] == [2]  # the same batch, once its lease of 30 s is over
        assert_replies(chat, ["Hello!"])


async def test_stop_ends_the_answer(streambatch_bench: Bench) -> None:
    model, chat = ScriptedRunner(Lasts(60, "much too late")), ScriptedDeliver()
    async with make_queue(streambatch_bench.url, model, chat) as queue:
        await says(queue, "tell me everything")
        await model.began()
        await says(queue, "/stop")
        await settled(queue)
        assert model.cancelled == 1
        assert_replies(chat, [])


async def test_the_answer_is_shown_as_it_grows(streambatch_bench: Bench) -> None:
    model, chat = ScriptedRunner(Says("We ", "open ", "at nine.", every=0.5)), ScriptedDeliver()
    async with make_queue(streambatch_bench.url, model, chat) as queue:
        receipt = await queue.submit(7, "when?")
        shown = [event.data async for event in receipt.events() if event.kind == "text"]
        assert shown == ["We ", "open ", "at nine."]


async def test_a_question_that_cannot_be_answered_is_not_asked_twice(streambatch_bench: Bench) -> None:
    model, chat = ScriptedRunner(DeadLetter("content policy")), ScriptedDeliver()
    async with make_queue(streambatch_bench.url, model, chat) as queue:
        await says(queue, "…")
        await settled(queue)
        await assert_dead_letters(queue, "content policy")
        assert len(model.batches) == 1
