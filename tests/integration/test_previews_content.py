"""What becomes of the content of previews, and the listeners that hear those of other processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from streambatch import Batch, Preview, Restarted, Retry
from streambatch import _relay as relays
from streambatch._events import Event
from streambatch._scripts import Wires
from tests.integration.stage import Stage, all_of, listening, text, texts
from tests.rig import wait_for

# ── content ──


async def test_any_text_arrives_as_it_was(stage: Stage) -> None:
    """Unicode, control characters, and lone surrogates, which UTF-8 has no bytes for."""
    said = "ünï \U0001f98a \0 \x7f \u2028 \ud83d end \udc00"

    async def odd(_: Batch, run: Any) -> str:
        run.emit(said)
        run.emit({said: [said]})
        return "done"

    stage.play = odd
    await stage.worker()
    thread = "ünï {} \n 🦊"
    seen = await all_of((await (await stage.web()).submit(thread, "hi")).events())
    assert [event.data for event in seen[1:-1]] == [said, {said: [said]}]


class Reversed:
    """A codec that is easily recognised."""

    def __init__(self) -> None:
        self.contexts: list[bytes] = []

    def encode(self, data: bytes, context: bytes) -> bytes:
        """Reverse."""
        self.contexts.append(context)
        return b"<" + data[::-1]

    def decode(self, data: bytes, context: bytes) -> bytes:
        """Reverse."""
        assert context in self.contexts
        assert data[:1] == b"<"
        return data[:0:-1]


async def test_the_codec_covers_previews_and_no_repr_shows_them(stage: Stage) -> None:
    """The server holds what the codec made of the content; a log that prints an event prints none."""
    codec = Reversed()
    stage.gate.set()
    await stage.worker(codec=codec)
    seen = await all_of((await (await stage.web(codec=codec)).submit("t", "hi")).events())
    assert text(seen) == "Hello"
    stored = stage.server.admin().xrange(f"sb1:{{{stage.namespace}.00}}:events:t")
    texts = [fields["m"] for _, fields in stored if fields["k"] == "text"]
    assert [json.loads(stored[1:][::-1]) for stored in texts] == [event.data for event in seen if event.kind == "text"]
    assert b"preview\0t\0" in codec.contexts
    assert "Hel" not in repr(seen)
    assert "Hel" not in repr([event for event in stage.events if isinstance(event, Preview)])


async def test_what_is_emitted_between_two_calls_is_joined(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many events a Run may send, the calls of a process are TICK apart; the end of a Run waits for none."""
    monkeypatch.setattr(relays, "TICK", 3_600.0)
    said = [f"{number} " for number in range(100)]

    async def much(_: Batch, run: Any) -> str:
        run.emit("first ")
        await stage.gate.wait()
        for word in said:
            run.emit(word)
            await run.checkpoint(word.encode())  # a way to the server and back
        return "done"

    stage.play = much
    worker: Any = await stage.worker()
    worker._open.relay.rate = 1e6
    following = (await (await stage.web()).submit("t", "hi")).events()
    assert [(await anext(following)).kind for _ in range(2)] == ["started", "text"]
    stage.gate.set()
    assert [event.data for event in await all_of(following) if event.kind == "text"] == ["".join(said)]


# ── the listeners of other processes ──


async def test_a_process_that_hears_previews_gets_them_as_events(stage: Stage) -> None:
    """A bot process edits a message while another one streams: the same events, in order, and its own only once."""

    async def twice(batch: Batch, run: Any) -> str:
        run.emit(f"{batch.attempt}a ")
        await asyncio.sleep(0)
        run.emit({"n": batch.attempt})
        run.emit(f"{batch.attempt}b ")
        if batch.attempt == 1:
            raise Retry(after=0)
        return "done"

    stage.play = twice
    worker = await stage.worker(hear_previews=True)
    web = await stage.web(hear_previews=True)
    await listening(web, stage.server)
    await worker.submit("t", "hi")

    def heard() -> list[Any]:
        return [event for event in stage.heard if isinstance(event, Preview | Restarted)]

    await wait_for(lambda: "".join(e.data for e in texts(heard())).endswith("2b "), "the whole text")
    events = heard()
    marks = ["|" if isinstance(event, Restarted) else event.data for event in events]
    assert [mark for mark in marks if not isinstance(mark, str)] == [{"n": 1}, {"n": 2}]
    assert "".join(mark for mark in marks if isinstance(mark, str)) == "1a 1b |2a 2b "
    again = next(event for event in events if isinstance(event, Restarted))
    assert (again.thread, again.messages, again.attempt, again.batch_id) == ("t", 1, 2, events[0].batch_id)
    own = [event for event in stage.events if isinstance(event, Preview | Restarted)]
    assert len(own) == 7


async def test_listeners_hear_of_a_run_that_begins_again_and_counts_no_attempt(stage: Stage) -> None:
    """It is the first attempt once more; what was shown before is not part of its text all the same."""

    async def twice(_: Batch, run: Any) -> str:
        run.emit(f"{len(stage.runs)} ")
        if len(stage.runs) == 1:
            raise Retry(after=0, count=False)
        return "done"

    stage.play = twice
    await stage.worker()
    web = await stage.web(hear_previews=True)
    await listening(web, stage.server)
    await web.submit("t", "hi")
    await wait_for(lambda: [event.data for event in texts(stage.heard)][-1:] == ["2 "], "the second text")
    heard = [event for event in stage.heard if isinstance(event, Preview | Restarted)]
    assert ["|" if isinstance(event, Restarted) else event.data for event in heard] == ["1 ", "|", "2 "]


@pytest.mark.parametrize("late", [0.0, 0.02])
async def test_listeners_hear_more_than_a_page(stage: Stage, monkeypatch: pytest.MonkeyPatch, late: float) -> None:
    """What comes at once and is more than one look brings is heard all the same, also what comes during a look."""
    exchange = Wires.exchange

    async def slow(wires: Wires, calls: Sequence[Any]) -> list[Any]:
        found = await exchange(wires, calls)
        await asyncio.sleep(late)
        return found

    monkeypatch.setattr(Wires, "exchange", slow)

    async def much(_: Batch, run: Any) -> str:
        for number in range(64):
            run.emit({"n": number})
            run.emit("x")
        return "done"

    stage.play = much
    await stage.worker()
    web = await stage.web(hear_previews=True)
    await listening(web, stage.server)
    await web.submit("t", "hi")
    await wait_for(lambda: len(texts(stage.heard)) == 64, "all of it")
    heard = [event.data for event in stage.heard if isinstance(event, Preview)]
    assert [data for data in heard if data != "x"] == [{"n": number} for number in range(64)]


async def test_who_starts_late_begins_at_now(stage: Stage) -> None:
    """What was shown before a process began to listen is not told to its listeners."""
    await stage.worker()
    web = await stage.web()
    receipt = await web.submit("t", "hi")
    following = receipt.events()
    assert (await anext(following)).kind == "started"
    assert (await anext(following)).data == "Hel"
    late: list[Event] = []
    queue = await stage.opened(listeners=[late.append], hear_previews=True)
    await listening(queue, stage.server)
    stage.gate.set()
    await wait_for(lambda: texts(late), "a preview")
    await receipt.reply(10)
    assert [event.data for event in texts(late)] == ["lo"]


async def test_hints_that_were_missed_are_made_up_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new subscription makes the process look at the threads it knows; a follower looks again by itself."""
    await stage.worker()
    web = await stage.web(hear_previews=True)
    await listening(web, stage.server)
    receipt = await web.submit("t", "hi")
    following = receipt.events()
    assert [(await anext(following)).kind for _ in range(2)] == ["started", "text"]
    await wait_for(lambda: texts(stage.heard), "the first preview")
    inside: Any = web
    life = inside._open
    monkeypatch.setattr(life.hints, "_heard", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    stage.gate.set()
    assert text(await all_of(following, 4)) == "lo"  # after a second, where others wait for five
    assert [event.data for event in texts(stage.heard)] == ["Hel"]
    life._heard(0, "missed", "")
    await wait_for(lambda: len(texts(stage.heard)) == 2, "the rest")
    assert [event.data for event in texts(stage.heard)] == ["Hel", "lo"]


async def test_without_being_asked_nothing_is_heard(stage: Stage) -> None:
    """The default: listeners hear of the Runs of their own process."""
    stage.gate.set()
    await stage.worker()
    receipt = await (await stage.web()).submit("t", "hi")
    assert text(await all_of(receipt.events())) == "Hello"
    assert texts(stage.heard) == []
