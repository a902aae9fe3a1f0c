"""Following a Run from another process: what it shows, in which pieces, and how a follower goes on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streambatch import (
    Batch,
    BatchQueue,
    DeadLetter,
    DeadLettered,
    Preview,
    QueueClosed,
    Queued,
    ReplyExpired,
    Retry,
    RunCancelled,
    Streamed,
    UsageError,
)
from streambatch import _echo as echoes
from tests.integration.stage import FAST, Stage, all_of, kinds, text
from tests.rig import wait_for

# ── what a follower sees ──


async def test_text_is_seen_while_its_run_is_under_way(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process sees what was emitted before the Run ends, then the rest, then the end; the reply is there.

    It is told: it does not find out by looking again and again.
    """
    monkeypatch.setattr(echoes, "SHORT", 60.0)
    monkeypatch.setattr(echoes, "INTEREST", 180.0)
    await stage.worker()
    receipt = await (await stage.web()).submit("t", "hi")
    seen: list[Streamed] = []
    async with asyncio.timeout(10):
        async for event in receipt.events():
            seen.append(event)
            if event.kind == "text" and not stage.gate.is_set():
                assert text(seen) == "Hel"
                stage.gate.set()
    assert kinds(seen) == ["started", "text", "text", "end"]
    assert text(seen) == "Hello"
    reply = await receipt.reply(10)
    assert reply is not None
    assert [(event.batch_id, event.attempt) for event in seen] == [(reply.batch_id, number) for number in (1, 1, 1, 0)]


async def test_the_end_of_a_run_waits_for_no_turn(stage: Stage) -> None:
    """What is left at the end is sent at once, however seldom a Run may show something."""
    await stage.worker(previews=0.01)
    following = (await (await stage.web()).submit("t", "hi")).events()
    assert [(await anext(following)).data for _ in range(2)] == [None, "Hel"]
    stage.gate.set()
    assert text(await all_of(following)) == "lo"


async def test_a_burst_is_joined_to_a_few_events(stage: Stage) -> None:
    """2,000 pieces in a burst become at most `previews` events a second, and no character is lost."""
    words = [f"{number} " for number in range(2_000)]

    async def burst(_: Batch, run: Any) -> str:
        began = asyncio.get_running_loop().time()
        for number, word in enumerate(words):
            run.emit(word)
            if number % 50 == 0:
                await asyncio.sleep(0.005)
        stage.seconds = asyncio.get_running_loop().time() - began  # pyright: ignore[reportAttributeAccessIssue]
        return "done"

    stage.play = burst
    await stage.worker()
    seen = await all_of((await (await stage.web()).submit("t", "hi")).events())
    seconds: Any = getattr(stage, "seconds")  # noqa: B009
    assert text(seen) == "".join(words)
    assert len(seen) <= 20 * seconds + 2 + 2  # and the beginning, and the end


class Spiteful:
    """What a runner should not emit, and may."""

    def __eq__(self, other: object) -> bool:
        raise ValueError

    __hash__ = None  # pyright: ignore[reportAssignmentType]


async def test_data_is_an_event_of_its_own_and_keeps_its_place(stage: Stage) -> None:
    """JSON data divides the text around it; what is not JSON is shown here only, and said once."""

    async def mixed(_: Batch, run: Any) -> str:
        for piece in ("a", "b", {"tool": ["x", 1]}, "c", Spiteful(), "", "d", Spiteful(), None, "e"):
            run.emit(piece)
        return "done"

    stage.play = mixed
    await stage.worker()
    seen = await all_of((await (await stage.web()).submit("t", "hi")).events())
    joined: list[Any] = []
    for event in seen[1:-1]:
        if event.kind == "text" and joined and isinstance(joined[-1], str):
            joined[-1] += event.data
        else:
            joined.append(event.data)
    assert joined == ["ab", {"tool": ["x", 1]}, "cd", None, "e"]
    assert len(stage.warned()) == 1
    assert len([event for event in stage.events if isinstance(event, Preview)]) == 10


async def test_both_receipts_of_a_batch_and_a_duplicate_see_it(stage: Stage) -> None:
    """Every message of the batch leads to its previews, and no message of another batch does."""
    stage.gate.set()
    await stage.worker()
    web = await stage.web()
    one, two = await web.submit("t", "a", message_id=1, debounce=0.3), await web.submit("t", "b", debounce=0.3)
    again = await web.submit("t", "a", message_id=1)
    assert again.outcome == "duplicate"
    first = await asyncio.gather(*(all_of(receipt.events()) for receipt in (one, two, again)))
    assert [text(seen) for seen in first] == ["Hello"] * 3
    third = await all_of((await web.submit("t", "c")).events())
    assert text(third) == "Hello"
    assert {event.batch_id for event in third} & {event.batch_id for seen in first for event in seen} == set()
    assert await all_of(one.events()) == first[0]
    assert len(stage.runs) == 2


async def test_a_message_that_more_took_sees_what_is_said_from_then_on(stage: Stage) -> None:
    """The batch grows under the Run: its previews then belong to the new message, too."""

    async def taking(_: Batch, run: Any) -> str:
        run.emit("one ")
        await stage.gate.wait()
        assert len(await run.more()) == 1
        run.emit("two")
        return "done"

    stage.play = taking
    await stage.worker()
    web = await stage.web()
    first = await web.submit("t", "a")
    await wait_for(lambda: stage.runs, "the Run")
    second = await web.submit("t", "b", debounce=60)
    stage.gate.set()
    assert text(await all_of(first.events())) == "one two"
    seen = await all_of(second.events())
    assert (kinds(seen), text(seen)) == (["text", "end"], "two")


# ── restarts ──


async def test_a_retry_voids_what_was_shown(stage: Stage) -> None:
    """A second Run begins with `restarted`; what came before belongs to another attempt."""

    async def twice(batch: Batch, run: Any) -> str:
        run.emit(f"attempt {batch.attempt}")
        if batch.attempt == 1:
            raise Retry(after=0)
        return "done"

    stage.play = twice
    await stage.worker()
    seen = await all_of((await (await stage.web()).submit("t", "hi")).events())
    assert [(event.kind, event.attempt, event.data) for event in seen] == [
        ("started", 1, None),
        ("text", 1, "attempt 1"),
        ("restarted", 2, None),
        ("text", 2, "attempt 2"),
        ("end", 0, None),
    ]


async def test_a_second_run_is_a_restart_also_if_the_first_said_nothing(stage: Stage) -> None:
    """The event says what the Run is, whatever is kept of the one before."""

    async def late(batch: Batch, run: Any) -> str:
        if batch.attempt == 1:
            raise Retry(after=0)
        run.emit("at last")
        return "done"

    stage.play = late
    await stage.worker()
    seen = await all_of((await (await stage.web()).submit("t", "hi")).events())
    assert kinds(seen) == ["restarted", "text", "end"]


async def test_a_run_that_was_given_back_restarts_too(stage: Stage) -> None:
    """A drain uses up no attempt, and yet the text of the Run that it ended is void."""
    first = BatchQueue(stage.server.url, namespace=stage.namespace, runner=stage.answer, drain_timeout=0, **FAST)
    async with first:
        receipt = await (await stage.web()).submit("t", "hi")
        following = receipt.events()
        assert [(await anext(following)).kind for _ in range(2)] == ["started", "text"]
    stage.gate.set()
    await stage.worker()
    rest = await all_of(following)
    assert [(event.kind, event.attempt) for event in rest] == [
        ("restarted", 1), *[("text", 1)] * (len(rest) - 2), ("end", 0),
    ]  # fmt: skip
    assert text(rest) == "Hello"


async def test_a_batch_that_fails_for_good_ends_too(stage: Stage) -> None:
    """The last event is the end, and the receipt raises what happened."""

    async def failing(_: Batch, run: Any) -> str:
        run.emit("so far")
        raise DeadLetter("it cannot be")

    stage.play = failing
    await stage.worker()
    receipt = await (await stage.web()).submit("t", "hi")
    seen = await all_of(receipt.events())
    assert kinds(seen) == ["started", "text", "end"]
    with pytest.raises(DeadLettered):
        await receipt.reply(10)


async def test_a_run_that_is_cancelled_shows_what_it_said_and_ends(stage: Stage) -> None:
    """What was emitted up to the cancellation is seen, then the end; nothing is shown afterwards."""
    runs: list[Any] = []

    async def slow(_: Batch, run: Any) -> str:
        runs.append(run)
        run.emit("one ")
        await stage.gate.wait()
        run.emit("two")
        await asyncio.Event().wait()
        return "never"

    stage.play = slow
    await stage.worker(previews=0.01)
    web = await stage.web()
    receipt = await web.submit("t", "hi")
    following = receipt.events()
    assert [(await anext(following)).data for _ in range(2)] == [None, "one "]
    stage.gate.set()
    await wait_for(lambda: runs[0].outlet.pieces, "the second piece")
    assert (await web.cancel("t")).run
    assert text(await all_of(following)) == "two"
    with pytest.raises(RunCancelled):
        await receipt.reply(10)
    runs[0].emit("late")
    assert text(await all_of(receipt.events())) == "one two"


async def test_both_halves_of_a_split_batch_restart(stage: Stage) -> None:
    """What the whole batch was told is void for each half."""

    async def poisoned(batch: Batch, run: Any) -> str:
        run.emit(batch.text)
        if batch.text != "good":
            raise DeadLetter("poison", split=True)
        return "done"

    stage.play = poisoned
    await stage.worker()
    web = await stage.web()
    bad, good = await web.submit("t", "bad", debounce=0.2), await web.submit("t", "good", debounce=0.2)
    for receipt, said in ((bad, "bad"), (good, "good")):
        seen = await all_of(receipt.events())
        assert kinds(seen) == ["started", "text", "restarted", "text", "end"]
        assert [event.data for event in seen if event.kind == "text"] == ["bad\ngood", said]


# ── going on ──


async def test_every_id_resumes_with_exactly_the_rest(stage: Stage) -> None:
    """After any event, in any process: what came after it, no more and no less; ids only grow, over Runs too."""

    async def three(batch: Batch, run: Any) -> str:
        for number in range(3):
            run.emit({"number": number})
            run.emit("x")
        if batch.attempt < 3:
            raise Retry(after=0)
        return "done"

    stage.play = three
    await stage.worker()
    web = await stage.web()
    receipt = await web.submit("t", "hi", message_id="m")
    whole = await all_of(receipt.events())
    assert len(whole) == 3 * 7 + 1
    numbers = [tuple(int(part) for part in event.id.split("-")) for event in whole[:-1]]
    assert numbers == sorted(set(numbers))
    found = await (await stage.web()).receipt("t", message_id="m")
    for place, event in enumerate(whole):
        rest = await all_of(found.events(event.id))
        assert rest == (whole[place + 1 :] or whole[-1:])


async def test_long_answers_come_page_by_page(stage: Stage) -> None:
    """More events than one look brings arrive all the same, before the end."""

    async def many(_: Batch, run: Any) -> str:
        for number in range(250):
            run.emit({"number": number} if number % 5 == 0 else f"{number} ")
            if number % 50 == 0:
                await asyncio.sleep(0.05)
        return "done"

    stage.play = many
    await stage.worker(previews=100)
    web = await stage.web()
    receipts = [await web.submit("t", "hi")]
    await receipts[0].reply(10)
    for _ in range(2):
        receipts.append(await web.submit("t", "hi"))
        await receipts[-1].reply(10)
    for receipt in receipts:
        seen = await all_of(receipt.events())
        said = [event.data["number"] for event in seen if event.kind == "data"]
        assert said == list(range(0, 250, 5))


async def test_what_is_kept_expires(stage: Stage) -> None:
    """I7: events have a TTL of ten minutes at most; afterwards only the end is left; later events have later ids."""
    stage.gate.set()
    await stage.worker()
    web = await stage.web()
    receipt = await web.submit("t", "hi")
    seen = await all_of(receipt.events())
    admin = stage.server.admin()
    key = f"sb1:{{{stage.namespace}.00}}:events:t"
    assert 0 < admin.pttl(key) <= 600_000
    admin.delete(key)
    assert kinds(await all_of(receipt.events())) == ["end"]
    assert kinds(await all_of(receipt.events(seen[0].id))) == ["end"]
    later = await web.submit("t", "again")
    assert text(await all_of(later.events(seen[-1].id))) == "Hello"


async def test_a_message_that_was_dropped_or_forgotten_has_only_an_end(stage: Stage) -> None:
    """Nothing will be shown of it, and reply() says why."""
    stage.gate.set()
    worker = await stage.worker(max_age=60)
    stale = await worker.submit("t", "old", sent_at=datetime.now(UTC) - timedelta(hours=1), message_id="m")
    assert Queued("t", "m", "0-0", "dropped") in stage.events
    fine = await worker.submit("t", "hi")
    await fine.reply(10)
    stage.server.admin().delete(f"sb1:{{{stage.namespace}.00}}:reply:t")
    for receipt, shown in ((stale, []), (fine, ["started"])):
        assert [kind for kind in kinds(await all_of(receipt.events())) if kind != "text"] == [*shown, "end"]
        with pytest.raises(ReplyExpired):
            await receipt.reply(10)


@pytest.mark.parametrize("after", ["", "1", "x-1", "1-1 ", "9" * 20 + "-1", 5, "1-1\n"])
async def test_an_id_that_is_none_is_refused(stage: Stage, after: Any) -> None:
    """A Last-Event-ID is whatever a client sends."""
    web = await stage.web()
    receipt = await web.submit("t", "hi")
    with pytest.raises(UsageError, match="events"):
        receipt.events(after)
    stage.gate.set()
    await stage.worker()
    await receipt.reply(10)


async def test_closing_the_queue_ends_a_follower(stage: Stage) -> None:
    """As with reply(): the follower is told, the Run goes on."""
    await stage.worker()
    web = BatchQueue(stage.server.url, namespace=stage.namespace, **FAST)
    async with web:
        receipt = await web.submit("t", "hi")
        following = receipt.events()
        assert (await anext(following)).kind == "started"
        assert (await anext(following)).kind == "text"
    with pytest.raises(QueueClosed):
        await anext(following)
    stage.gate.set()
    await wait_for(lambda: stage.server.admin().exists(f"sb1:{{{stage.namespace}.00}}:reply:t"), "the reply")
