"""What is made ready while a call is under way counts as not sent: it can expire, be cancelled, closed, or be known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streambatch import BatchQueue, OutcomeUnknown, QueueClosed, ServerAway
from streambatch._intake import SMALL
from tests.rig import Server, wait_for

MANY = 2 * SMALL


class Stage:
    """A queue whose call under way waits until `answers` is set, and what was submitted behind it."""

    def __init__(self, queue: BatchQueue, server: Server, namespace: str) -> None:
        whole: Any = queue
        self.queue = queue
        self.gate: Any = whole._open.intake.gates[0]
        self.answers = asyncio.Event()
        self._stored = f"sb1:{{{namespace}.00}}:stream:t"
        self._admin = server.admin()
        self._submit = self.gate._store.submit
        self.gate._store.submit = self._held

    async def _held(self, wire: Any, call: Any, *, resend: bool) -> Any:
        sent = await self._submit(wire, call, resend=resend)
        self.gate._sent = True  # the server has it, and its answer does not come
        await self.answers.wait()
        return sent

    async def fill(self) -> tuple[asyncio.Task[Any], list[asyncio.Task[Any]]]:
        """One message under way, and many that are ready behind it."""
        first = asyncio.create_task(self.queue.submit("t", "first"))
        await wait_for(lambda: self.count() == 1, "the first to be stored")
        rest = [asyncio.create_task(self.queue.submit("t", str(n))) for n in range(SMALL)]
        await asyncio.sleep(0)
        self.gate._look_ahead()
        assert len(self.gate._ready[0]) == SMALL
        assert self.gate.size() == SMALL + 1  # what intake_limit bounds
        return first, rest

    def count(self) -> int:
        """How many messages the server has."""
        return int(self._admin.xlen(self._stored))

    def texts(self) -> list[str]:
        """What the server has, in its order."""
        entries: Any = self._admin.xrange(self._stored)
        bodies = [fields[b"m" if b"m" in fields else "m"] for _, fields in entries]
        return [json.loads(body)["c"] for body in bodies]


@asynccontextmanager
async def stage(server: Server, namespace: str, submit_timeout: float = 10) -> AsyncGenerator[Stage]:
    """A queue that only submits, and an empty thread afterwards."""
    async with BatchQueue(server.url, namespace=namespace, log=False, submit_timeout=submit_timeout) as queue:
        yield Stage(queue, server, namespace)


@pytest.mark.leaves_keys("the messages are counted, not run")
async def test_what_is_ready_is_sent_next_and_in_order(server: Server, namespace: str) -> None:
    """I2: the order of submitting is the order of the stream, with what came after it was made ready behind it."""
    async with stage(server, namespace) as s:
        first, rest = await s.fill()
        last = asyncio.create_task(s.queue.submit("t", "last"))
        s.answers.set()
        await asyncio.gather(first, *rest, last)
        assert s.texts() == ["first", *map(str, range(SMALL)), "last"]


@pytest.mark.leaves_keys("the messages are counted, not run")
@pytest.mark.real("there the answer is at hand at once, so nothing is made ready meanwhile")
async def test_many_submitters_use_what_was_made_ready(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look ahead happens by itself under load, and every message is stored once."""
    ready: list[int] = []
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        whole: Any = queue
        gate: Any = whole._open.intake.gates[0]
        look = gate._look_ahead

        def spy() -> None:
            look()
            ready.append(gate._ready is not None)

        monkeypatch.setattr(gate, "_look_ahead", spy)

        async def one(name: int) -> None:
            for n in range(10):
                await queue.submit("t", f"{name} {n}", message_id=f"{name} {n}")

        await asyncio.gather(*(one(name) for name in range(MANY)))
        assert any(ready)
        assert (await queue.stats()).messages == 10 * MANY


@pytest.mark.leaves_keys("the message is counted, not run")
async def test_what_is_ready_expires_unsent(server: Server, namespace: str) -> None:
    """I16: after submit_timeout it is ServerAway, and nothing of it is sent later; what was sent is unknown."""
    async with stage(server, namespace, submit_timeout=1.5) as s:
        first, rest = await s.fill()
        ends = await asyncio.gather(first, *rest, return_exceptions=True)
        assert isinstance(ends[0], OutcomeUnknown)
        assert {type(end) for end in ends[1:]} == {ServerAway}
        s.answers.set()
        await s.queue.submit("t", "later")
        assert s.count() == 2


@pytest.mark.leaves_keys("the messages are counted, not run")
@pytest.mark.parametrize("late", ["the connection", "the server"])
async def test_what_was_taken_for_a_call_expires_unsent(server: Server, namespace: str, late: str) -> None:
    """I16: a call that could not be sent yet goes out without those who were told that nothing of theirs is stored."""
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        whole: Any = queue
        gate, loop = whole._open.intake.gates[0], asyncio.get_running_loop()
        there, asked, connect = asyncio.Event(), asyncio.Event(), gate._wire._pool.get_connection

        async def slowly() -> Any:
            asked.set()
            if late == "the server" and not there.is_set():
                raise ConnectionError("not yet")
            await there.wait()
            return await connect()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gate._wire._pool, "get_connection", slowly)
            await gate._wire.close()
            ends = [
                whole._open.intake.put(
                    whole._checks.entry("t", text, None, None, None, None, None, now=False), loop.time() + wait, None
                )
                for text, wait in (("gone", 0.1), ("here", 60.0))
            ]
            await asked.wait()
            with pytest.raises(ServerAway):
                await ends[0]
            there.set()
            assert (await ends[1]).word == "queued"
        assert [message.text for message in await queue.pending("t")] == ["here"]


@pytest.mark.leaves_keys("the messages are counted, not run")
async def test_a_caller_who_leaves_takes_its_message_along(server: Server, namespace: str) -> None:
    """I11, I2: a message whose caller was cancelled before it was sent is not sent; the others are, in order."""
    async with stage(server, namespace) as s:
        first, rest = await s.fill()
        rest[7].cancel()
        await asyncio.wait([rest[7]])
        s.answers.set()
        await asyncio.gather(first, *rest[:7], *rest[8:])
        assert s.texts() == ["first", *(str(n) for n in range(SMALL) if n != 7)]


@pytest.mark.leaves_keys("the message is counted, not run")
async def test_what_is_ready_when_the_queue_closes_is_refused(server: Server, namespace: str) -> None:
    """I16: QueueClosed says that nothing was stored, and that is so."""
    async with stage(server, namespace) as s:
        first, rest = await s.fill()
        whole: Any = s.queue
        async with asyncio.timeout(10):
            await whole._open.stop(0)
        ends = await asyncio.gather(first, *rest, return_exceptions=True)
        assert isinstance(ends[0], OutcomeUnknown)
        assert {type(end) for end in ends[1:]} == {QueueClosed}
        assert s.count() == 1


@pytest.mark.leaves_keys("the messages are counted, not run")
async def test_who_comes_again_under_the_name_on_the_error_is_known(server: Server, namespace: str) -> None:
    """I6: made ready before the answer came, it is undone when the answer tells that the message is stored."""
    async with stage(server, namespace, submit_timeout=1.5) as s:
        first = asyncio.create_task(s.queue.submit("t", "first"))
        with pytest.raises(OutcomeUnknown) as unknown:
            await first
        again = asyncio.create_task(s.queue.submit("t", "first", message_id=unknown.value.message_id))
        rest = [asyncio.create_task(s.queue.submit("t", str(n))) for n in range(SMALL)]
        await asyncio.sleep(0)
        s.gate._look_ahead()
        assert s.gate._ready is not None
        s.answers.set()
        assert (await again).outcome == "duplicate"
        await asyncio.gather(*rest)
        assert s.count() == SMALL + 1
