"""A message that arrives in any gap of a finishing turn is answered: before and after every script call (P8).

Theory of operation. A turn of each kind (answered, silent, failing, dead, undeliverable, …) is played once, and every
script call that its workers send is written down: these are the gaps. Then the turn is played again for each gap, with
a second message that is submitted, by another queue, exactly there: the worker's call waits until it is stored. Both
messages must come to an end, whatever it is, and nothing may be left behind. A gap that is not met fails the test, so
the list can't rot. Half of the messages are due after the quiet window and half at once, because a message that is due
already is claimed by the very call that ends the first turn.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, DeadLetter, DeadLettered, Receipt, Reply, Retry, Run
from streambatch._scripts import Call, Wire
from tests.chaos.tools import drained
from tests.rig import wait_for

Gap = tuple[str, int, str]
#: Calls of the submitting queue and of this test; every other one is a worker's.
OURS = {"submit", "await", "stats", "attach", "probe"}
#: Turns, and calls without which the trace of one would not be what it says.
TURNS = {
    "answered": {"claim", "start", "settle", "delivered"},
    "silent": {"claim", "start", "settle"},
    "long": {"renew", "settle"},
    "retry": {"release", "settle"},
    "dead": {"bury"},
    "more": {"checkpoint", "more", "settle"},
    "late": {"undelivered", "delivered"},
    "undeliverable": {"undelivered"},
}


class Tracer:
    """Sits in front of every connection; tells of each worker's call, and does something in one gap."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Gap] = []
        self.gap: Gap | None = None
        self.act: Callable[[], Awaitable[Any]] | None = None
        self.renewed = asyncio.Event()
        self._count = Counter[str]()
        self._exchange = Wire.exchange
        tracer = self

        async def traced(self: Wire, calls: Sequence[Call], extra: float = 0.0) -> list[Any]:
            return await tracer.pass_on(self, calls, extra)

        monkeypatch.setattr(Wire, "exchange", traced)

    @property
    def level(self) -> bool:
        """Whether every call that was sent has been answered."""
        return len(self.seen) % 2 == 0

    def reset(self, gap: Gap | None = None, act: Callable[[], Awaitable[Any]] | None = None) -> None:
        """Begin another turn; *act* is done when *gap* is met."""
        self.seen, self.gap, self.act = [], gap, act
        self.renewed.clear()
        self._count.clear()

    async def pass_on(self, wire: Wire, calls: Sequence[Call], extra: float) -> list[Any]:
        """An exchange, with what happens around it."""
        names = [call.script.name for call in calls if call.script is not None and call.script.name not in OURS]
        self._count.update(names)
        gaps = [(name, self._count[name]) for name in names if name != "peek" or self._count[name] == 1]
        for name, number in gaps:
            await self._meet((name, number, "before"))
        answers = await self._exchange(wire, calls, extra)
        for name, number in gaps:
            await self._meet((name, number, "after"))
            if name == "renew":
                self.renewed.set()
        return answers

    async def _meet(self, gap: Gap) -> None:
        self.seen.append(gap)
        if gap == self.gap and self.act is not None:
            act, self.act = self.act, None
            await act()


class Play:
    """The bot: what it does with the first message of a thread is in the thread's name."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.tried = set[str]()
        self.delivered: list[str] = []

    def first(self, thread: str) -> str:
        """The kind of turn to play, the first time a thread is seen; after that "answered"."""
        kind = "answered" if thread in self.tried else thread.split(" ", maxsplit=1)[0]
        self.tried.add(thread)
        return kind

    async def answer(self, batch: Batch, run: Run) -> str | None:
        """The runner."""
        if batch.thread.startswith(("late", "undeliverable")):
            return "text"
        kind = self.first(batch.thread)
        if kind == "silent":
            return None
        if kind == "retry":
            raise Retry(after=0.01)
        if kind == "dead":
            raise DeadLetter("asked for")
        if kind == "more":
            await run.checkpoint(b"data")
            await run.more()
        if kind == "long":
            await self.tracer.renewed.wait()
        return "text"

    async def deliver(self, reply: Reply) -> None:
        """The deliver callback."""
        kind = self.first(reply.thread) if reply.thread.startswith(("late", "undeliverable")) else ""
        if kind == "late":
            raise Retry(after=0.01)
        if kind == "undeliverable":
            raise DeadLetter("asked for")
        self.delivered += reply.message_ids


async def ended(receipt: Receipt) -> str:
    """How a message ended."""
    try:
        reply = await receipt.reply(timeout=10)
    except DeadLettered:
        return "dead"
    return "silent" if reply is None else "answered"


@asynccontextmanager
async def stage(url: str, namespace: str, play: Play, *, apart: bool) -> AsyncGenerator[BatchQueue]:
    """A submitting queue, and a working one; or one that runs and one that delivers."""
    more: dict[str, Any] = {
        "namespace": namespace, "log": False, "debounce": 0.02, "lease": 2.0, "max_delivery_attempts": 3
    }  # fmt: skip
    if apart:
        async with (
            BatchQueue(url, runner=play.answer, **more),
            BatchQueue(url, deliver=play.deliver, **more),
            BatchQueue(url, **more) as queue,
        ):
            yield queue
    else:
        async with (
            BatchQueue(url, runner=play.answer, deliver=play.deliver, **more),
            BatchQueue(url, **more) as queue,
        ):
            yield queue


async def trace(queue: BatchQueue, tracer: Tracer, turn: str) -> list[Gap]:
    """The gaps of a turn."""
    tracer.reset()
    await ended(await queue.submit(turn, "first", message_id=f"{turn} first"))
    await drained(queue)
    await wait_for(lambda: tracer.level, "the answers to all calls of the turn")
    seen = list(dict.fromkeys(tracer.seen))
    missing = TURNS[turn] - {name for name, _, _ in seen}
    assert not missing, f"the turn {turn!r} did not call {missing}"
    return seen


async def fill(queue: BatchQueue, tracer: Tracer, turn: str, gap: Gap, *, now: bool) -> None:
    """Play a turn with a second message in one gap; both must end."""
    thread = f"{turn} {gap} {now}"
    second = asyncio.get_running_loop().create_future()

    async def submit() -> None:
        second.set_result(await queue.submit(thread, "second", message_id=f"{thread} second", now=now))

    tracer.reset(gap, submit)
    first = await queue.submit(thread, "first", message_id=f"{thread} first")
    outcome = await ended(first)
    try:
        async with asyncio.timeout(5):
            receipt = await second
    except TimeoutError:
        pytest.fail(f"{thread}: the gap was never met")
    assert await ended(receipt) in {outcome, "answered"}, thread
    await drained(queue)


@pytest.mark.parametrize(
    ("turn", "apart"),
    [(turn, False) for turn in TURNS] + [(turn, True) for turn in ("answered", "late", "undeliverable")],
)
async def test_no_gap_strands_a_message(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, turn: str, *, apart: bool
) -> None:
    """Submitted before or after any script call of a turn, a message is answered, and the thread drains (I1, I5)."""
    tracer = Tracer(monkeypatch)
    play = Play(tracer)
    async with stage(url, namespace, play, apart=apart) as queue:
        gaps = await trace(queue, tracer, turn)
        if turn == "long":  # what comes before its renewal is as in the others, and each play of it takes a while
            gaps = [gap for gap in gaps if gap[0] in {"settle", "delivered"} or gap[:2] == ("renew", 1)]
        else:  # a renewal in another turn, as a second one in that, is a busy machine's, and would not come again
            gaps = [gap for gap in gaps if gap[0] != "renew"]
        for number, gap in enumerate(gaps):
            await fill(queue, tracer, turn, gap, now=number % 2 == apart)
        for letter in await queue.dead_letters():
            assert letter.reason == "asked for"
            await queue.discard(letter.id)
    print(f"{turn}: {len(gaps)} gaps: {' '.join(f'{name}#{number} {side}' for name, number, side in gaps)}")
