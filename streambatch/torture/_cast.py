"""The processes under torture: workers that run and deliver, and submitters. Each is told all it needs in one line.

Theory of operation. A process opens a queue over its proxy, again and again until that works, and writes everything it
sees to the history *before* it goes on. A worker's Run says in its answer who made it. Some Runs fail, some are long,
some keep a checkpoint, a few batches are dead letters; which ones, is drawn from the process' own seed. The state of
a thread counts its committed Runs, and each of them adds that number to the thread's history.

A failpoint is a place in a Run or a hand-over at which a process kills itself with SIGKILL, the n-th time it comes
there. SIGTERM is an orderly end, SIGUSR1 blocks the event loop for a while, and the end of stdin means that whoever
started it all is gone.

A submitter has some threads, each with one message under way at a time. One whose outcome is unknown is submitted again
under its id until it is stored. One that was refused is submitted again or dropped; never dropped is one of which an
earlier submit may have arrived.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from streambatch import (
    Answer,
    Answered,
    Batch,
    BatchQueue,
    DeadLetter,
    Event,
    NotAccepted,
    OutcomeUnknown,
    Receipt,
    Reply,
    Retry,
    Run,
    StoreError,
    StreambatchError,
)

from ._history import Log
from ._verdict import POISON, TURNS, poisonous


@dataclass
class Cast:
    """Who the process is and what it does."""

    name: str
    url: str
    namespace: str
    log: str
    seed: str
    lease: float
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    work: float = 0.1
    die: tuple[str, int] = ("", 0)
    threads: dict[str, tuple[int, bool]] = field(default_factory=dict[str, tuple[int, bool]])
    pace: float = 0.5
    calm: bool = False

    def line(self) -> str:
        """The process' argument."""
        return json.dumps(asdict(self))


class _Player:
    """What both kinds have: the log, the dice, and how they end."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.dice = random.Random(cast.seed)
        self.over = asyncio.Event()
        self._log = Log(cast.log)
        self._times = 0

    def note(self, what: str, **fields: Any) -> None:
        """Write to the history."""
        self._log.write({"what": what, "who": self.cast.name, **fields})

    def point(self, name: str) -> None:
        """Die here, if it is time."""
        if self.cast.die[0] == name:
            self._times += 1
            if self._times == self.cast.die[1]:
                self.note("killed", victim=self.cast.name, how=f"kill-at-{name}")
                os.kill(os.getpid(), signal.SIGKILL)

    async def open(self) -> BatchQueue:
        """A queue that is open; the server may be away for long."""
        raise NotImplementedError

    async def work(self, queue: BatchQueue) -> None:
        """What it does with it until the end."""
        raise NotImplementedError

    async def play(self) -> None:
        """Live."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.over.set)
        signal.signal(signal.SIGUSR1, self._block)
        watching = asyncio.create_task(self._watch())
        queue = await self.open()
        if not self.over.is_set():
            sys.stdout.write("READY\n")
        await self.work(queue)
        await queue.__aexit__(None, None, None)
        watching.cancel()

    def _block(self, *_: object) -> None:
        time.sleep(self.cast.lease * 1.3)

    async def opened(self, **more: Any) -> BatchQueue:
        """Try until it is open."""
        cast = self.cast
        while True:
            queue = BatchQueue(cast.url, namespace=cast.namespace, log=False, lease=cast.lease, **cast.settings, **more)
            try:
                return await queue.__aenter__()
            except StoreError:
                await asyncio.sleep(0.02)

    @staticmethod
    async def _watch() -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        os._exit(3)


class _Worker(_Player):
    """Runs and delivers."""

    history = True

    async def open(self) -> BatchQueue:
        return await self.opened(runner=self, deliver=self.deliver, listeners=(self.listen,))

    async def work(self, queue: BatchQueue) -> None:  # noqa: ARG002 - a worker is called by it
        await self.over.wait()

    async def run(self, batch: Batch, run: Run) -> Answer:
        """The runner."""
        ids, fence = [message.id for message in batch.messages], run.fence
        odd = [f"holds {m.id} with another message's text" for m in batch.messages if m.text != f"text of {m.id}"]
        if run.data is not None and run.data != batch.id.encode():
            odd.append("has the checkpoint of another batch")
        entries = [message.entry for message in batch.messages]
        count = batch.state if isinstance(batch.state, int) else 0
        self.note(
            "begin", thread=batch.thread, batch=batch.id, fence=fence, ids=ids, entries=entries, odd=odd, state=count,
            turns=list(batch.history),
        )  # fmt: skip
        self.point("begin")
        try:
            await self._work(batch, run)
        except BaseException:
            self.note("failed", thread=batch.thread, batch=batch.id, fence=fence)
            raise
        self.note("end", thread=batch.thread, batch=batch.id, fence=fence)
        self.point("end")
        text = json.dumps({"who": self.cast.name, "fence": fence, "ids": ids})
        return Answer(text, state=count + 1, turns=(count,), forget=max(0, len(batch.history) + 1 - TURNS))

    async def _work(self, batch: Batch, run: Run) -> None:
        """What a provider takes, and how it fails."""
        chance = self.dice.random()
        if any(poisonous(message.id) for message in batch.messages):
            raise DeadLetter(POISON)
        if self.cast.calm:
            await asyncio.sleep(self.cast.work)
            return
        if chance < 0.1:
            await run.checkpoint(batch.id.encode())
        await asyncio.sleep(self.cast.lease * 1.2 if chance > 0.995 else self.cast.work * 2 * self.dice.random())
        if 0.1 < chance < 0.12:
            raise Retry(after=0.05, count=False)
        if 0.12 < chance < 0.14:
            raise RuntimeError("some bug of a user's")

    async def deliver(self, reply: Reply) -> None:
        """The deliver callback."""
        self.point("deliver")
        if not self.cast.calm and self.dice.random() < 0.02:
            raise Retry(after=0.05, count=False)
        self.note(
            "deliver", thread=reply.thread, batch=reply.batch_id, reply=reply.id, ids=list(reply.message_ids),
            sequence=reply.sequence, text=reply.text,
        )  # fmt: skip
        self.point("handed")

    def listen(self, event: Event) -> None:
        """The listener."""
        if isinstance(event, Answered):
            self.note("answered", thread=event.thread, batch=event.batch_id)
            self.point("answered")


class _Submitter(_Player):
    """Submits."""

    async def open(self) -> BatchQueue:
        return await self.opened(submit_timeout=self.cast.lease)

    async def work(self, queue: BatchQueue) -> None:
        async with asyncio.TaskGroup() as group:
            for thread, (first, fresh) in self.cast.threads.items():
                group.create_task(self._talk(queue, thread, first, fresh))

    async def _talk(self, queue: BatchQueue, thread: str, first: int, fresh: bool) -> None:
        dice = random.Random(f"{self.cast.seed} {thread}")
        count = first
        if not fresh:
            await self._store(queue, thread, count, may_drop=False)
            count += 1
        while not self.over.is_set():
            receipt: Receipt | None = None
            for _ in range(dice.choice((1, 1, 2, 3, 5))):
                receipt = await self._store(queue, thread, count, may_drop=dice.random() < 0.5) or receipt
                count += 1
            if receipt is not None and dice.random() < 0.3:
                await self._await(receipt)
            await self._pause(dice.random() * 2 * self.cast.pace)

    async def _store(self, queue: BatchQueue, thread: str, count: int, *, may_drop: bool) -> Receipt | None:
        """Submit until it is stored; None if it was dropped."""
        name = f"{thread}.{count}"
        about = {"thread": thread, "id": name}
        while True:
            self.note("call", **about)
            try:
                receipt = await queue.submit(thread, f"text of {name}", message_id=name)
            except OutcomeUnknown as error:
                may_drop = False
                self.note("unknown", **about, error=type(error).__name__)
            except (NotAccepted, StoreError) as error:
                self.note("refused", **about, error=str(error)[:200])
                if may_drop:
                    self.note("dropped", **about)
                    return None
                await asyncio.sleep(0.05)
            else:
                self.note("stored", **about, entry=receipt.id, word=receipt.outcome)
                return receipt

    async def _await(self, receipt: Receipt) -> None:
        try:
            reply = await receipt.reply(timeout=self.cast.lease * 2)
        except (StreambatchError, TimeoutError):
            return  # it is still coming, is a dead letter, or the server is away
        if reply is not None:
            about = {"thread": receipt.thread, "id": receipt.message_id}
            self.note("told", **about, reply=reply.batch_id, text=reply.text)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.over.wait()
        except TimeoutError:
            return


def play(argument: str) -> None:
    """Be the process whose argument this is."""
    cast = Cast(**json.loads(argument))
    kind = _Submitter if cast.threads else _Worker

    async def live() -> None:
        await kind(cast).play()

    asyncio.run(live())
