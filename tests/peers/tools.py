"""What the tests with a real queue share: hurried settings, and a thread seen from outside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streambatch import BatchQueue, Receipt, Reply
from streambatch._keys import Keys
from tests.conftest import StartChild
from tests.peers.worker import FAST
from tests.rig import Child, Server, wait_for
from tests.rig.servers import kinds

__all__ = ["FAST", "Stage", "answered", "on"]


def on(number: int) -> Any:
    """Play a test on one kind of server, the next test on the other kind if there are two."""
    return pytest.mark.parametrize("server_kind", [list(kinds())[number % len(kinds())]], indirect=True)


@dataclass
class Stage:
    """The thread ``t`` of a namespace, the queue that submits to it, and workers in processes of their own."""

    server: Server
    namespace: str
    queue: BatchQueue
    start_child: StartChild
    compiled: Path
    runner: str
    options: dict[str, Any]

    async def worker(self) -> Child:
        """Start a worker and wait until it is up."""
        told = (self.server.url, self.namespace, self.runner, json.dumps(self.options))
        # An empty one means no: the processes of a test would compile the provider's library one after the other.
        env = {"PYTHONPYCACHEPREFIX": str(self.compiled), "PYTHONDONTWRITEBYTECODE": ""}
        child = await self.start_child("tests/peers/worker.py", *told, env=env)
        await child.expect("UP")
        return child

    async def burst(self, *texts: str) -> Receipt:
        """Submit messages that become one batch; the receipt of the last one."""
        return [await self.queue.submit("t", text) for text in texts][-1]

    def field(self, kind: str, name: str) -> Any:
        """A field of one of the thread's hashes, parsed; {} if it is not there."""
        keys = Keys(self.namespace, 1)
        [key] = keys.some(keys.partition("t"), "t", (kind,))
        admin: Any = self.server.admin()
        return json.loads(admin.hget(key, name) or "{}")

    async def saved(self, name: str) -> str:
        """Wait until the response under way has *name* in its checkpoint, "id" for example; what it is."""
        return await wait_for(lambda: self.field("run", "cp").get("step", {}).get(name), f"{name} saved", deadline=20)

    def head(self) -> str:
        """The response that the thread's committed state names."""
        return self.field("head", "state").get("head", "")

    async def drained(self) -> None:
        """Wait until nothing of the namespace waits, runs or is undelivered."""

        async def nothing_left() -> bool:
            stats = await self.queue.stats()
            return not any((stats.messages, stats.due, stats.undelivered, stats.in_hand, stats.parked))

        await wait_for(nothing_left, "the drain of the namespace", deadline=20)


async def answered(receipt: Receipt, *, timeout: float = 40) -> Reply:
    """Its reply, which must be one."""
    reply = await receipt.reply(timeout=timeout)
    assert reply is not None
    return reply
