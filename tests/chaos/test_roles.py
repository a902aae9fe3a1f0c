"""One process submits, one runs, one delivers, and a fourth awaits replies: each does its part and nothing else.

Theory of operation. What a queue does follows from what it is given, so the three processes are the same program with
other arguments. The fourth is this one: it never saw the submits and finds its receipts by message id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from streambatch import BatchQueue, DeadLettered, QueueClosed, Receipt, ReplyExpired, StoreError
from streambatch._store import Store
from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.ledger import Ledger
from tests.chaos.tools import drained
from tests.rig import Child, Server, wait_for


@dataclass
class Troupe:
    """The three processes, and the queue of the fourth."""

    submitter: Child
    runner: Child
    deliverer: Child
    queue: BatchQueue

    async def submit(self, thread: str, content: str) -> Receipt:
        """Submit in the process that submits; the receipt of the fourth process."""
        await self.submitter.send(f"submit {thread} {thread}-1 {content}")
        entry = (await self.submitter.expect(rf"STORED {thread}-1 (\S+) queued"))[1]
        receipt = await self.queue.receipt(thread, message_id=f"{thread}-1")
        assert (receipt.thread, receipt.id) == (thread, entry)
        return receipt


@pytest.fixture
async def troupe(url: str, act: StartActor, open_queue: OpenQueue) -> Troupe:
    """All four, ready."""
    submitter, runner, deliverer, queue = await asyncio.gather(
        act("submitter", url, run=False, deliver=False),
        act("runner", url, deliver=False, reply_retention=1.0),
        act("deliverer", url, run=False),
        open_queue(url),
    )
    return Troupe(submitter, runner, deliverer, queue)


async def test_each_process_does_its_part(troupe: Troupe, server: Server, namespace: str, ledger: Ledger) -> None:
    """Every way in which a reply can end, seen from a process that only looks; and every process ends cleanly."""
    queue = troupe.queue
    held = await troupe.submit("held", "hold")
    await troupe.runner.expect("HELD run")
    with pytest.raises(TimeoutError):
        await held.reply(timeout=0.2)

    reply = await (await troupe.submit("answered", "text")).reply(timeout=10)
    assert reply is not None
    assert (reply.thread, reply.message_ids, reply.text) == ("answered", ("answered-1",), "answer to 1")
    assert await (await troupe.submit("silent", "silent")).reply(timeout=10) is None
    with pytest.raises(DeadLettered, match="asked for"):
        await (await troupe.submit("dead", "dead")).reply(timeout=10)

    answered = await queue.receipt("answered", message_id="answered-1")
    await wait_for(lambda: not server.admin().exists(f"sb1:{{{namespace}.00}}:reply:answered"), "the retention's end")
    with pytest.raises(ReplyExpired):
        await answered.reply(timeout=10)
    with pytest.raises(ReplyExpired):
        await queue.receipt("answered", message_id="never submitted")

    waiting = [asyncio.create_task(held.reply(timeout=30)) for _ in range(3)]
    await troupe.runner.send("go")
    replies = await asyncio.gather(*waiting)
    assert {reply and reply.message_ids for reply in replies} == {("held-1",)}
    await drained(queue)

    assert {note.who for note in ledger.notes("begin")} == {"runner"}
    assert [(note.who, note.thread) for note in ledger.notes("deliver")] == [
        ("deliverer", "answered"),
        ("deliverer", "held"),
    ]
    for child in (troupe.submitter, troupe.runner, troupe.deliverer):
        await child.send("close")
        await child.expect("CLOSED")
        assert (await child.wait(), child.errors) == (0, [])


@pytest.mark.leaves_keys("its message is answered by nobody")
@pytest.mark.parametrize("waits", ["reply", "events"])
async def test_a_question_that_meets_the_close_is_no_failure_of_the_server(
    url: str, open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    """Whoever asks for the outcome just when the queue closes is told that it closed."""
    asked, closed = asyncio.Event(), asyncio.Event()

    async def outcome(*_: object) -> None:  # its connection was closed under it
        asked.set()
        await closed.wait()
        raise StoreError("the connection is gone")

    monkeypatch.setattr(Store, "outcome", outcome)
    other = await open_queue(url)

    async def ask(receipt: Receipt) -> None:
        if waits == "reply":
            await receipt.reply()
        async for _ in receipt.events():
            pytest.fail("nothing was shown")

    async with BatchQueue(url, namespace=other.namespace, log=False) as queue:
        asking = asyncio.create_task(ask(await queue.submit("t", "text")))
        await asked.wait()
    closed.set()
    with pytest.raises(QueueClosed):
        await asking


async def test_closing_ends_the_waits_for_replies(url: str, open_queue: OpenQueue) -> None:
    """Whoever awaits a reply in a queue that is closed is told so at once; the message is still there."""
    other = await open_queue(url)
    receipts: list[Receipt] = []
    opened, waiting, close = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with BatchQueue(url, namespace=other.namespace, log=False, debounce=0.02) as queue:
            receipts.append(await queue.submit("t", "text", message_id="m"))
            opened.set()
            await waiting.wait()
            await queue.stats()  # comes back when the calls before it have: now all of them are asleep
            close.set()

    life = asyncio.create_task(live())
    await opened.wait()
    replies = [asyncio.create_task(receipts[0].reply()) for _ in range(3)]
    await asyncio.sleep(0)  # each begins
    waiting.set()
    await close.wait()
    for ended in await asyncio.gather(*replies, return_exceptions=True):
        assert isinstance(ended, QueueClosed)
    await life

    async def answer(_: object) -> str:
        return "text"

    async def deliver(_: object) -> None:
        pass

    await open_queue(url, runner=answer, deliver=deliver)
    reply = await (await other.receipt("t", message_id="m")).reply(timeout=10)
    assert reply is not None
    await drained(other)
