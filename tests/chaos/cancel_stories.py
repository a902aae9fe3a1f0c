"""Every public coroutine as a story that can be cancelled anywhere, and what must be true afterwards.

Theory of operation. `CALLS` is the table; `public()` is what introspection finds, and a test compares the two, so a new
coroutine cannot be forgotten. A `Story` has a call, what is prepared for it, and a check that it did what it does or
nothing: a submit is sent again and is stored and run once, a dead letter is there or back in its thread, a Run that was
cancelled ends or is answered. A `Scene` is the servers and the bot that all stories play in.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streambatch import Batch, BatchQueue, DeadLetter, Receipt, Reply, RunCancelled, UsageError
from tests.rig import Server, wait_for
from tests.rig.several import Nodes, Sentinels
from tests.rig.topologies import Behind

PARTITIONS = 2  # of which thread "t" is in the first, and "b" in the second
QUICK: dict[str, Any] = {
    "log": False, "debounce": 0.0, "lease": 10.0, "backoff": 0.01, "drain_timeout": 2.0, "partitions": PARTITIONS
}  # fmt: skip

Call = Callable[["Scene", BatchQueue], Coroutine[Any, Any, Any]]


def public() -> set[str]:
    """The names of all public coroutines."""
    return {
        f"{kind.__name__}.{name}"
        for kind in (BatchQueue, Receipt)
        for name, member in inspect.getmembers(kind)
        if (not name.startswith("_") or name in ("__aenter__", "__aexit__")) and _waits(member)
    }


def _waits(member: object) -> bool:
    said = str(getattr(member, "__annotations__", {}).get("return", ""))
    return inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member) or said.startswith("AsyncI")


class Scene:
    """Servers, a worker on them, and what it saw."""

    def __init__(self, behind: Server | Behind) -> None:
        self.behind = behind
        self.namespace = f"s{secrets.token_hex(4)}"
        self.runs: dict[str, list[str]] = {}
        self.gate = asyncio.Event()
        self.number = 0
        self.receipt: Any = None
        self.letter = ""

    def queue(self, *, works: bool = False) -> BatchQueue:
        """A queue that only submits, or works too."""
        given: dict[str, Any] = {"runner": self.answer, "deliver": self.deliver} if works else {}
        return BatchQueue(self.behind.url, namespace=self.namespace, **QUICK, **given)

    async def answer(self, batch: Batch, run: Any) -> str:
        """The runner."""
        for message in batch.messages:
            self.runs.setdefault(message.text, []).append(batch.id)
        run.emit("so ")
        if batch.thread == "held":
            await self.gate.wait()
        if "dead" in batch.text and batch.attempt == 1 and self.letter == "":
            raise DeadLetter("asked for")
        return batch.text

    async def deliver(self, reply: Reply) -> None:
        """The deliver callback."""

    def name(self) -> str:
        """A text and message id that no other has."""
        self.number += 1
        return f"m{self.number}"

    async def ask(self, queue: BatchQueue) -> None:
        """Both partitions answer, and with the right words."""
        names = [self.name(), self.name()]
        receipts = [await queue.submit(thread, name) for thread, name in zip("tb", names, strict=True)]
        for receipt, name in zip(receipts, names, strict=True):
            reply = await receipt.reply(timeout=20)
            assert reply is not None
            assert name in reply.text.split("\n"), f"{name!r} was answered with {reply.text!r}"

    def connections(self) -> tuple[int, int]:
        """Of this process to anybody, and of ours to the servers."""
        behind = self.behind
        servers: list[Any] = behind.servers if isinstance(behind, Sentinels | Nodes) else [behind]
        theirs = sum(row["user"] != "admin" for server in servers for row in server.admin().client_list())
        return _sockets(), theirs


def _sockets() -> int:
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += os.readlink(link).startswith("socket:")  # noqa: PTH115 - it leads to no path
    return count


# ── the stories: what is prepared, the call, and what must be true afterwards ──


@dataclass(frozen=True)
class Story:
    """A call; `before` and `after` are not cancelled. A call that `ends` its queue gets a new one that works."""

    call: Call
    before: Call | None = None
    after: Call | None = None
    ends: bool = False


async def _stored(scene: Scene, queue: BatchQueue) -> None:
    """A message to look for."""
    scene.receipt = await queue.submit("t", scene.name(), message_id=f"m{scene.number}", now=True)


async def _answered(scene: Scene, queue: BatchQueue) -> None:
    """Its own answer is there, whoever asks."""
    reply = await scene.receipt.reply(timeout=20)
    assert reply is not None
    assert f"m{scene.number}" in reply.text.split("\n")


async def _submit(scene: Scene, queue: BatchQueue) -> None:
    await queue.submit("t", f"m{scene.number}", message_id=f"m{scene.number}")


async def _next(scene: Scene, queue: BatchQueue) -> None:
    scene.name()


async def _once(scene: Scene, queue: BatchQueue) -> None:
    """Sent again, it is stored once, and run once."""
    name = f"m{scene.number}"
    receipt = await queue.submit("t", name, message_id=name)
    reply = await receipt.reply(timeout=20)
    assert reply is not None
    assert len(scene.runs[name]) == 1, f"{name} was run {len(scene.runs[name])} times"


async def _events(scene: Scene, queue: BatchQueue) -> None:
    async for _ in scene.receipt.events():
        pass


async def _held(scene: Scene, queue: BatchQueue) -> None:
    """A Run under way, and a message behind it."""
    scene.gate.clear()
    first, name = scene.name(), ""
    scene.receipt = await queue.submit("held", first)
    await wait_for(lambda: first in scene.runs, "the Run")
    name = scene.name()
    await queue.submit("held", name)


async def _cancelled(scene: Scene, queue: BatchQueue) -> None:
    """The Run was cancelled, or ends with its answer; the thread goes on."""
    scene.gate.set()
    with suppress(RunCancelled):
        reply = await scene.receipt.reply(timeout=20)
        assert reply is not None
    again = await (await queue.submit("held", "again")).reply(timeout=20)
    assert again is not None


async def _paused(scene: Scene, queue: BatchQueue) -> None:
    await queue.pause("t")


async def _resumed(scene: Scene, queue: BatchQueue) -> None:
    """Paused or not, nothing else; and a resume ends it."""
    assert (await queue.explain("t")).state in ("idle", "paused", "delivering", "running", "due", "waiting")
    await queue.resume("t")


async def _buried(scene: Scene, queue: BatchQueue) -> None:
    """A dead letter."""
    scene.letter = ""
    await queue.submit("b", f"dead {scene.name()}")

    async def there() -> Any:
        return await queue.dead_letters()

    found = await wait_for(there, "the dead letter")
    scene.letter = found[0].id


async def _letter_kept(scene: Scene, queue: BatchQueue) -> None:
    """It is a letter still, or its message is back and answered; discarding what is left succeeds."""
    left = await queue.dead_letters()
    assert len(left) <= 1
    if left:
        assert len(scene.runs[f"dead m{scene.number}"]) == 1
        assert await queue.discard(left[0].id)
    else:
        await wait_for(lambda: len(scene.runs[f"dead m{scene.number}"]) == 2, "the Run of the redriven batch")


async def _letter_gone(scene: Scene, queue: BatchQueue) -> None:
    """It is there or it is gone, and was not run again."""
    for letter in await queue.dead_letters():
        assert await queue.discard(letter.id)
    assert len(scene.runs[f"dead m{scene.number}"]) == 1


async def _unavailable(call: Coroutine[Any, Any, None]) -> None:
    with suppress(UsageError):
        await call


async def _close(scene: Scene, queue: BatchQueue) -> None:
    await queue.__aexit__(None, None, None)


CALLS: dict[str, Story] = {
    "BatchQueue.__aenter__": Story(lambda scene, queue: queue.__aenter__(), ends=True),
    "BatchQueue.__aexit__": Story(_close, ends=True),
    "BatchQueue.drain": Story(lambda scene, queue: queue.drain(1.0), ends=True),
    "BatchQueue.submit": Story(_submit, _next, _once),
    "BatchQueue.receipt": Story(
        lambda scene, queue: queue.receipt("t", message_id=f"m{scene.number}"), _stored, _answered
    ),
    "BatchQueue.typing": Story(lambda scene, queue: queue.typing("t")),
    "BatchQueue.run_now": Story(lambda scene, queue: queue.run_now("t"), _stored, _answered),
    "BatchQueue.pending": Story(lambda scene, queue: queue.pending("t")),
    "BatchQueue.edit": Story(lambda scene, queue: _unavailable(queue.edit("t", "m", "text"))),
    "BatchQueue.retract": Story(lambda scene, queue: _unavailable(queue.retract("t", "m"))),
    "BatchQueue.cancel": Story(lambda scene, queue: queue.cancel("held"), _held, _cancelled),
    "BatchQueue.pause": Story(lambda scene, queue: queue.pause("t"), None, _resumed),
    "BatchQueue.resume": Story(lambda scene, queue: queue.resume("t"), _paused, _resumed),
    "BatchQueue.dead_letters": Story(lambda scene, queue: queue.dead_letters()),
    "BatchQueue.redrive": Story(lambda scene, queue: queue.redrive(scene.letter), _buried, _letter_kept),
    "BatchQueue.discard": Story(lambda scene, queue: queue.discard(scene.letter), _buried, _letter_gone),
    "BatchQueue.stats": Story(lambda scene, queue: queue.stats()),
    "BatchQueue.threads": Story(lambda scene, queue: queue.threads()),
    "BatchQueue.explain": Story(lambda scene, queue: queue.explain("t")),
    "BatchQueue.scope": Story(lambda scene, queue: queue.scope("model")),
    "BatchQueue.unpark": Story(lambda scene, queue: queue.unpark("model")),
    "Receipt.reply": Story(lambda scene, queue: scene.receipt.reply(timeout=20), _stored, _answered),
    "Receipt.events": Story(_events, _stored, _answered),
}
