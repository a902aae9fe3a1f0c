"""A bot process of its own: submits, runs or delivers as it is told, and can be caught at a chosen step.

Theory of operation. Its one argument is the JSON of a `Cast`. It prints one line for every moment a test may wait for,
and obeys lines of stdin: ``submit <thread> <message id> <content>``, ``go`` (ends every hold in a Run), ``close``.
SIGTERM closes as well; the library installs no handlers, this app does.

A failpoint is one of the words of `Cast.hold`: when the process comes there it prints ``HELD <word>`` and stays exactly
there, so whoever reads the line knows at which step the process is killed. Most of them block the whole process
(``signal.pause``), because then nothing else of it, a renewal for example, can happen either:

============ ==================================================================================
run          in the runner, on the event loop: renewals go on until the process is killed
freeze       in the runner: the process stops itself with SIGSTOP and goes on at SIGCONT
asleep       in the runner: blocking code, so the event loop stands still for two leases and a half
answered     in the listener, at the Answered event: committed, not yet handed over
deliver      at the start of the deliver callback
delivering   there too, but on the event loop
handed       at the end of the deliver callback: handed over, the queue does not know it yet
============ ==================================================================================

What a message's content means to the runner: ``silent`` answers nothing, ``dead`` is a dead letter, ``hold`` holds
that one Run, anything else is answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from streambatch import Batch, BatchQueue, DeadLetter, Event, Reply
from streambatch._scripts import Wire
from tests.chaos.ledger import Ledger, Note

TOLD = ("Lost", "Restarted", "Retrying", "Dead", "StoreAway", "StoreBack", "Repaired")


@dataclass
class Cast:
    """Who the process is and what it does; `work` is how many seconds each of its Runs takes."""

    name: str
    url: str
    namespace: str
    ledger: str
    run: bool = True
    deliver: bool = True
    hold: str = ""
    trace: bool = False
    work: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def line(self) -> str:
        """The process' argument."""
        return json.dumps(self.__dict__)


class Actor:
    """The process."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.ledger = Ledger(cast.ledger)
        self.go = asyncio.Event()
        self.over = asyncio.Event()

    def note(self, what: str, thread: str, name: str, members: tuple[str, ...], attempt: int = 0) -> None:
        """Write to the ledger, and print it."""
        self.ledger.note(Note(what, self.cast.name, thread, name, members, attempt))
        print(f"{what.upper()} {thread} {name} {attempt}")

    def block(self, word: str) -> None:
        """Stay here for good, the whole process, if this is the failpoint."""
        if self.cast.hold == word:
            print(f"HELD {word}")
            signal.pause()

    async def answer(self, batch: Batch) -> str | None:
        """The runner."""
        members = tuple(message.id for message in batch.messages)
        self.note("begin", batch.thread, batch.id, members, batch.attempt)
        texts = batch.text.split("\n")
        if self.cast.hold == "run" or "hold" in texts:
            print("HELD run")
            await self.go.wait()
        elif self.cast.hold == "freeze":
            print("HELD freeze")
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.cast.hold == "asleep":
            print("HELD asleep")
            time.sleep(2.5 * self.cast.settings["lease"])  # what a user's runner should not do
        await asyncio.sleep(self.cast.work)  # what a provider takes
        self.note("end", batch.thread, batch.id, members, batch.attempt)
        if "dead" in texts:
            raise DeadLetter("asked for")
        return None if "silent" in texts else f"answer to {len(members)}"

    async def deliver(self, reply: Reply) -> None:
        """The deliver callback."""
        self.block("deliver")
        if self.cast.hold == "delivering":
            print("HELD delivering")
            await self.go.wait()
        self.note("deliver", reply.thread, reply.id, reply.message_ids)
        self.block("handed")

    def listen(self, event: Event) -> None:
        """The listener."""
        kind = type(event).__name__
        if kind == "Answered":
            self.block("answered")
        elif kind in TOLD:
            print(f"EVENT {kind} {getattr(event, 'thread', '')}")

    async def obey(self, queue: BatchQueue, commands: asyncio.StreamReader) -> None:
        """Do what stdin says until it says close."""
        while line := (await commands.readline()).decode().strip():
            verb, *rest = line.split(" ", 3)
            if verb == "go":
                self.go.set()
            elif verb == "submit":
                receipt = await queue.submit(rest[0], rest[2], message_id=rest[1])
                print(f"STORED {rest[1]} {receipt.id} {receipt.outcome}")
            elif verb == "close":
                self.over.set()

    async def main(self) -> None:
        """Live."""
        cast, loop = self.cast, asyncio.get_running_loop()
        if cast.trace:
            trace()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        loop.add_signal_handler(signal.SIGTERM, self.over.set)
        queue = BatchQueue(
            cast.url,
            runner=self.answer if cast.run else None,
            deliver=self.deliver if cast.deliver else None,
            namespace=cast.namespace,
            listeners=(self.listen,),
            log=False,
            **cast.settings,
        )
        async with queue:
            print("READY")
            obeying = asyncio.create_task(self.obey(queue, commands))
            await self.over.wait()
            print("CLOSING")
        obeying.cancel()
        print("CLOSED")


def trace() -> None:
    """Print the name of every script call that is sent."""
    exchange = Wire.exchange

    async def traced(self: Wire, calls: Any, extra: float = 0.0) -> list[Any]:
        for call in calls:
            print(f"SENT {call.script.name if call.script else call.argv[0]}")
        return await exchange(self, calls, extra)

    Wire.exchange = traced


if __name__ == "__main__":
    asyncio.run(Actor(Cast(**json.loads(sys.argv[1]))).main())
