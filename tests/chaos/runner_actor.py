"""A worker process with a ResponsesRunner: real SDK, real HTTP, real death.

Theory of operation. It is hatched from a nest (nest.py) or started as a script. Its one argument is the JSON of a
`Part`. It prints one line for every moment a test may wait for and obeys lines of stdin: ``submit <thread> <message id>
<content>``, ``cancel <thread> drop|keep``, ``go`` (ends holds on the event loop), ``close``. Most steps of a Run need
no failpoint: the provider knows when a POST is there and what was sent of its answer, and the checkpoint in the server
tells what is saved. The words of `Part.hold` are for the rest:

============ ==================================================================================
tool         in a tool of the name ``slow``, after its effect; renewals go on
returned     the runner has returned and nothing is settled; the whole process stands
freeze       there too, but it stops itself with SIGSTOP and goes on at SIGCONT
wait         there too, on the event loop: renewals go on until ``go``
handed       at the end of the deliver callback: handed over, the queue does not know it yet
============ ==================================================================================

``constants`` sets what has no setting, because nobody but a test wants it short: {"_conversation.PATIENCE": 1.0}.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from openai import AsyncOpenAI

from streambatch import Answer, Batch, BatchQueue, Event, Reply, Run
from streambatch.runners import ResponsesRunner, ToolCall, tool
from tests.chaos.ledger import Ledger, Note

TOLD = ("Lost", "Retrying", "Dead", "Repaired", "Cancelled", "Parked", "Unparked", "Warned")


@dataclass
class Part:
    """Who the process is and what it does."""

    name: str
    url: str
    namespace: str
    ledger: str
    state: str = "chain"
    run: bool = True
    hold: str = ""
    tools: bool = False
    runner: dict[str, Any] = field(default_factory=dict[str, Any])
    constants: dict[str, Any] = field(default_factory=dict[str, Any])
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def line(self) -> str:
        """The process' argument."""
        return json.dumps(self.__dict__)


class Watched:
    """A Run whose saves of a response's id are told."""

    def __init__(self, run: Run, note: Callable[..., None]) -> None:
        self._run = run
        self._note = note
        self._known = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    async def checkpoint(self, data: bytes) -> None:
        """Save, and then tell."""
        await self._run.checkpoint(data)
        known = json.loads(data).get("step", {}).get("id")
        if known and known != self._known:
            self._known = known
            self._note("known", self._run.batch.thread, self._run.batch.id, (known,), self._run.batch.attempt)


class Held:
    """A ResponsesRunner that may stand still between its return and the settle."""

    history = True
    kinds = ResponsesRunner.kinds

    def __init__(
        self, inner: ResponsesRunner, hold: str, note: Callable[..., None], go: asyncio.Event
    ) -> None:  # fmt: skip
        self._inner = inner
        self._go = go
        self._note = note
        self._hold = hold
        self.kind = inner.kind
        self.limits = inner.limits

    async def run(self, batch: Batch, run: Run) -> Answer | None:
        """Run it, and stand still if told so."""
        answer = await self._inner.run(batch, cast("Run", Watched(run, self._note)))
        if self._hold in ("returned", "freeze"):
            print(f"HELD {self._hold}")
            signal.pause() if self._hold == "returned" else os.kill(os.getpid(), signal.SIGSTOP)
        elif self._hold == "wait":
            print("HELD wait")
            await self._go.wait()
        return answer

    async def cancel(self, batch: Batch, run: Run) -> Answer | None:
        """End it."""
        return await self._inner.cancel(batch, run)

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()


class RunnerActor:
    """The process."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.ledger = Ledger(part.ledger)
        self.go = asyncio.Event()
        self.over = asyncio.Event()
        for name, value in part.constants.items():
            module, _, constant = name.rpartition(".")
            room = importlib.import_module(f"streambatch.runners.{module}")
            assert hasattr(room, constant), name
            setattr(room, constant, value)

    def note(self, what: str, thread: str, name: str, members: tuple[str, ...] = (), attempt: int = 0) -> None:
        """Write to the ledger, and print it."""
        self.ledger.note(Note(what, self.part.name, thread, name, members, attempt))
        print(f"{what.upper()} {thread} {name} {attempt}")

    async def _act(self, call: ToolCall) -> str:
        """What every tool does: have its effect, and stand still if this is the one to be caught."""
        self.note("effect", call.thread, call.id, (call.name, call.batch_id))
        if self.part.hold == "tool" and call.name != "quick":
            print(f"HELD tool {call.id}")
            await self.go.wait()
        return f"{call.name} is done"

    def tools(self) -> list[Any]:
        """Four tools that do the same, one for each policy."""
        if not self.part.tools:
            return []

        async def quick(call: ToolCall) -> str:
            """Do something that takes no time."""
            return await self._act(call)

        async def slow(call: ToolCall) -> str:
            """Do something that takes time."""
            return await self._act(call)

        return [
            quick,
            tool(name="slow_rerun", policy="rerun")(slow),
            tool(name="slow_fail", policy="fail_output")(slow),
            tool(name="slow_ask", policy="ask")(slow),
        ]

    async def deliver(self, reply: Reply) -> None:
        """The deliver callback."""
        self.note("deliver", reply.thread, reply.id, reply.message_ids)
        if self.part.hold == "handed":
            print("HELD handed")
            signal.pause()

    def listen(self, event: Event) -> None:
        """The listener."""
        kind, told = type(event).__name__, cast("Any", event)
        if kind == "Started":
            self.note("begin", told.thread, told.batch_id, attempt=told.attempt)
        elif kind == "Answered":
            self.note("end", told.thread, told.batch_id, attempt=told.attempt)
        elif kind in TOLD:
            self.note(kind.lower(), getattr(told, "thread", ""), getattr(told, "batch_id", ""))
            said = getattr(told, "error", "") or getattr(told, "reason", "") or getattr(told, "message", "")
            print(f"EVENT {kind} {getattr(told, 'thread', '')} {time.monotonic():.6f} {said}")

    async def obey(self, queue: BatchQueue, commands: asyncio.StreamReader) -> None:
        """Do what stdin says until it says close."""
        while line := (await commands.readline()).decode().strip():
            verb, *rest = line.split(" ", 3)
            if verb == "go":
                self.go.set()
            elif verb == "submit":
                receipt = await queue.submit(rest[0], rest[2], message_id=rest[1])
                print(f"STORED {rest[1]} {receipt.id}")
            elif verb == "cancel":
                before = time.monotonic()
                ended = await queue.cancel(rest[0], keep=rest[1] == "keep")
                print(f"ENDED {ended.run} {ended.dropped} {before:.6f}")
            elif verb == "close":
                self.over.set()
        self.over.set()  # whoever told it what to do is gone

    async def main(self) -> None:
        """Live."""
        part, loop = self.part, asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        loop.add_signal_handler(signal.SIGTERM, self.over.set)
        runner = None
        if part.run:
            client = AsyncOpenAI()
            assert client.responses  # loaded now: a test's clock does not run while the SDK loads its parts
            assert client.conversations
            told: dict[str, Any] = {
                "model": "m",
                "state": part.state,
                "tools": self.tools(),
                "client": client,
                **part.runner,
            }
            runner = Held(ResponsesRunner(**told), part.hold, self.note, self.go)
        queue = BatchQueue(
            part.url,
            runner=runner,
            deliver=self.deliver if part.run else None,
            namespace=part.namespace,
            listeners=(self.listen,),
            log=False,
            **part.settings,
        )
        async with queue:
            print("READY")
            obeying = asyncio.create_task(self.obey(queue, commands))
            await self.over.wait()
            print("CLOSING")
        obeying.cancel()
        print("CLOSED")


def play(argument: str) -> None:
    """Be the process whose argument this is."""
    asyncio.run(RunnerActor(Part(**json.loads(argument))).main())


if __name__ == "__main__":
    play(sys.argv[1])
