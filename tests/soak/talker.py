"""A process that submits without pause, as the users of a bot do, and writes down what it asked and what it was told.

Theory of operation. Its one argument is the JSON of a `Part`. Each thread sends bursts; the next message goes out when
the one before was acknowledged, and one of unknown outcome, or refused because nobody was there, goes out again with
the same id. So the order of a thread's messages is known, whatever happens. Before a message is first sent the ledger
gets an ``ask``, after the acknowledgement an ``ack``, for every other end of a try an ``unknown`` or a ``refused``; for
the last message of each burst a ``reply``, or a ``silence`` if none came. Half of the threads wait for the reply before
they go on. A line ``stop`` on stdin ends the talk: no new bursts, and everything that was begun is waited for.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import dataclass, field
from typing import Any

from streambatch import BatchQueue, NotAccepted, OutcomeUnknown, Receipt, Replicas, StoreError, StreambatchError
from tests.chaos.ledger import Ledger, Note

PATIENCE = 60.0


@dataclass
class Part:
    """Who the process is and what it does."""

    name: str
    url: str
    namespace: str
    ledger: str
    threads: list[str]
    seed: int
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def line(self) -> str:
        """The process' argument."""
        return json.dumps(self.__dict__)


class Talker:
    """The process."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.ledger = Ledger(part.ledger)
        self.stop = asyncio.Event()
        self.queue = BatchQueue(
            part.url, namespace=part.namespace, log=False, durability=Replicas(1, timeout=0.5), **part.settings
        )

    def note(self, what: str, thread: str, message: str, said: str = "") -> None:
        """Write to the ledger."""
        self.ledger.write(Note(what, self.part.name, thread, said, (message,)))

    async def store(self, thread: str, message: str) -> Receipt:
        """Submit until it is acknowledged."""
        self.note("ask", thread, message)
        while True:
            try:
                receipt = await self.queue.submit(thread, "text", message_id=message)
            except OutcomeUnknown as error:
                self.note("unknown", thread, message, type(error).__name__)
            except NotAccepted as error:
                self.note("refused", thread, message, type(error).__name__)
                await asyncio.sleep(0.05)
            else:
                self.note("ack", thread, message, receipt.id)
                return receipt

    async def hear(self, receipt: Receipt, message: str) -> None:
        """Wait for the reply."""
        until = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                await receipt.reply(timeout=max(0.0, until - asyncio.get_running_loop().time()))
            except StoreError:
                continue  # ten seconds without the server: whoever still wants the reply asks again
            except (TimeoutError, StreambatchError) as error:
                self.note("silence", receipt.thread, message, type(error).__name__)
            else:
                self.note("reply", receipt.thread, message)
            return

    async def talk(self, thread: str, *, waits: bool) -> None:
        """Send bursts until told to stop."""
        dice, count = random.Random(f"{self.part.seed} {thread}"), 0
        async with asyncio.TaskGroup() as hearing:
            while not self.stop.is_set():
                receipt, message = None, ""
                for _ in range(dice.randint(1, 3)):
                    message = f"{thread}.{count}"
                    receipt, count = await self.store(thread, message), count + 1
                assert receipt is not None
                heard = hearing.create_task(self.hear(receipt, message))
                if waits:
                    await heard
                await asyncio.sleep(dice.random())

    async def main(self) -> None:
        """Live."""
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        async with self.queue, asyncio.TaskGroup() as talks:
            print("READY")
            for number, thread in enumerate(self.part.threads):
                talks.create_task(self.talk(thread, waits=number % 2 == 0))
            await commands.readline()
            self.stop.set()
        print("DONE")


if __name__ == "__main__":
    asyncio.run(Talker(Part(**json.loads(sys.argv[1]))).main())
