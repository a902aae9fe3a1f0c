"""One process of the soak: a worker, or the people who write to it.

Theory of operation. Its one argument is the JSON of a `Part`. It obeys lines of stdin: ``sample`` prints what the
process holds (descriptors, tasks, threads, resident memory), ``load`` and ``quiet`` begin and end the writing, ``warm``
uses everything once, ``close`` ends it as SIGTERM does. What a message's text says is what happens to it: its Run fails
once, is put off, hangs until its time is over, is a dead letter, takes what arrived meanwhile, shows a preview, or is
cancelled by its author.

``plants`` are leaks on purpose, so that the judge can be tested: with each Run a task, a descriptor or a key stays.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streambatch import Batch, BatchQueue, DeadLetter, Reply, Retry, Run
from streambatch.errors import StreambatchError

WORDS = ("ok",) * 8 + ("fail", "later", "hang", "dead", "more", "show", "cancel")
THREADS, WRITERS, PAUSE = 100, 12, 0.2
KEPT: list[Any] = []


@dataclass(frozen=True)
class Part:
    """Who the process is."""

    url: str
    namespace: str
    role: str  # "works" or "writes"
    seed: int
    plants: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def line(self) -> str:
        """The process' argument."""
        return json.dumps(self.__dict__)


def sample() -> dict[str, int]:
    """What this process holds, when nothing that is over waits for the garbage collector."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "fds": len(os.listdir("/proc/self/fd")) - 1,  # without the one that reads the directory
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
    }


class Actor:
    """The process."""

    kind = ""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.dice = random.Random(part.seed)
        self.over = asyncio.Event()
        self.writers: list[asyncio.Task[None]] = []
        self.counts = {"runs": 0, "delivered": 0, "submitted": 0, "refused": 0, "answered": 0, "ended": 0}

    async def run(self, batch: Batch, run: Run) -> str:
        """The runner: what the first message says."""
        self.counts["runs"] += 1
        self._plant()
        word, first = batch.text.split(" ", 1)[0], run.data is None
        if first:
            await run.checkpoint(b"once")
        if word == "fail" and first:
            raise ValueError("asked for")
        if word == "later" and first:
            raise Retry(after=0.05, count=False, reason="asked for")
        if word == "dead":
            raise DeadLetter("asked for")
        if word in ("hang", "cancel") and first:
            await asyncio.Event().wait()
        if word == "more":
            await run.more()
        if word == "show":
            run.emit("a preview")
        return "answered"

    async def deliver(self, reply: Reply) -> None:
        """The deliver callback; one in ten hand-overs fails."""
        if self.dice.random() < 0.1:
            raise Retry(after=0.05, count=False, reason="flood control")
        self.counts["delivered"] += 1

    def _plant(self) -> None:
        for plant in self.part.plants:
            if plant == "task":
                KEPT.append(asyncio.ensure_future(asyncio.Event().wait()))
            elif plant == "fd":
                KEPT.append(os.open(os.devnull, os.O_RDONLY))
            elif plant == "memory":
                KEPT.append(bytearray(os.urandom(1024)) * 256)

    async def write(self, queue: BatchQueue) -> None:
        """One person: writes, and sometimes waits for the answer, changes their mind, or looks on."""
        while True:
            thread, word = f"t{self.dice.randrange(THREADS)}", self.dice.choice(WORDS)
            try:
                receipt = await queue.submit(thread, f"{word} and so on")
                self.counts["submitted"] += 1
                if word == "cancel":
                    await queue.cancel(thread)
                elif self.dice.random() < 0.3:
                    async with asyncio.timeout(3):
                        await receipt.reply()
                        self.counts["answered"] += 1
            except (StreambatchError, TimeoutError) as error:
                self.counts["ended" if isinstance(error, TimeoutError) else "refused"] += 1
            await asyncio.sleep(PAUSE * self.dice.random())

    async def obey(self, queue: BatchQueue, commands: asyncio.StreamReader) -> None:
        """Do what stdin says until it says close."""
        while line := (await commands.readline()).decode().strip():
            if line == "sample":
                print("SAMPLE", json.dumps({**sample(), "counts": self.counts}))
            elif line == "load":
                self.writers = [asyncio.create_task(self.write(queue)) for _ in range(WRITERS)]
            elif line == "quiet":
                await self._quiet()
                print("QUIET")
            elif line == "warm":
                await self.warm(queue)
                print("WARM")
            elif line == "close":
                break
        self.over.set()

    async def warm(self, queue: BatchQueue) -> None:
        """Use everything once, in turn, so that every connection that is opened at its first use is open."""
        for word in ("ok", "show", "more"):
            await (await queue.submit("warm", word, now=True)).reply(30)
        await queue.submit("warm", "cancel", now=True)
        await queue.cancel("warm")
        await queue.stats()

    async def _quiet(self) -> None:
        for writer in self.writers:
            writer.cancel()
        for writer in self.writers:
            with suppress(asyncio.CancelledError):
                await writer
        self.writers = []

    async def live(self) -> None:
        """Open the queue, do as told, close it."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.over.set)
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        works = self.part.role == "works"
        queue = BatchQueue(
            self.part.url, namespace=self.part.namespace, runner=self if works else None,
            deliver=self.deliver if works else None, log=False, **self.part.settings,
        )  # fmt: skip
        async with queue:
            print("READY")
            obeying = asyncio.create_task(self.obey(queue, commands))
            await self.over.wait()
            obeying.cancel()
            await self._quiet()
        print("CLOSED")


if __name__ == "__main__":
    asyncio.run(Actor(Part(**json.loads(sys.argv[1]))).live())
