"""A thread, its workers in other processes, and the provider they talk to, all seen by the test.

Theory of operation. The provider runs in the test's process, so the test knows what has arrived there and decides what
goes back; the workers are processes (runner_actor.py), which can be killed at that moment. What a Run had saved is read
from the server, as an operator would with redis-cli: ``cp`` of ``run:<thread>`` is the runner's checkpoint.

What counts after a crash are figures that nobody can talk away: POSTs that arrived, responses that exist, the user
turns in the history that the thread's committed head names, replies that were handed over, effects of tools.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streambatch import BatchQueue, Receipt
from tests.chaos.ledger import Ledger
from tests.chaos.runner_actor import Part
from tests.chaos.tools import drained
from tests.fakes.provider import Provider
from tests.rig import Child, Server, wait_for
from tests.rig.servers import kinds

Hatch = Callable[[str, Mapping[str, str]], Awaitable[Child]]
LONG = 40.0  # seconds: a busy machine takes ten to start a process
QUICK: dict[str, Any] = {"lease": 1.0, "debounce": 0.02, "backoff": 0.05, "drain_timeout": 2.0}
#: Each place of the history once, on another kind of server if there are two.
BOTH = [(state, list(kinds())[number % len(kinds())]) for number, state in enumerate(("chain", "conversation"))]


@dataclass
class Stage:
    """The thread ``t`` of a namespace, and everything around it."""

    state: str
    server: Server
    namespace: str
    ledger: Ledger
    fake: Provider
    queue: BatchQueue
    hatch: Hatch
    constants: dict[str, Any] = field(default_factory=dict[str, Any])
    receipts: list[Receipt] = field(default_factory=list[Receipt])

    # ── who acts ──

    async def worker(
        self, name: str, *, run: bool = True, hold: str = "", tools: bool = False, lease: float | None = None,
        **more: Any,
    ) -> Child:  # fmt: skip
        """Start a worker process and wait until it is ready; *more* goes to its ResponsesRunner."""
        settings = QUICK if lease is None else {**QUICK, "lease": lease}
        part = Part(
            name, self.server.url, self.namespace, str(self.ledger.path), self.state, run, hold, tools, more,
            self.constants, settings,
        )  # fmt: skip
        env = {"OPENAI_BASE_URL": self.fake.url, "OPENAI_API_KEY": "none"}
        child = await self.hatch(part.line(), env)
        await child.expect("READY", deadline=LONG)
        return child

    async def say(self, text: str) -> Receipt:
        """Submit a message of the thread, with its text as its id."""
        self.receipts.append(await self.queue.submit("t", text, message_id=text))
        return self.receipts[-1]

    async def told(self, receipt: Receipt) -> str:
        """The text of its reply, when everything is drained."""
        reply = await receipt.reply(timeout=LONG)
        await drained(self.queue, deadline=LONG)
        assert reply is not None
        return reply.text

    async def kill(self, child: Child) -> None:
        """SIGKILL, and no trace of it is left."""
        child.kill9()
        assert await child.wait() == -9

    # ── what is seen ──

    def field(self, kind: str, name: str) -> Any:
        """A field of one of the thread's hashes, parsed."""
        raw = self.server.admin().hget(f"sb1:{{{self.namespace}.00}}:{kind}:t", name)
        return None if raw is None else json.loads(raw)

    async def saved(self, name: str) -> None:
        """Wait until the response under way has *name* in the checkpoint: "sent", "id"."""
        await wait_for(lambda: self._memo().get("step", {}).get(name), f"{name} saved", deadline=LONG)

    async def said(self, text: str) -> None:
        """Wait until this much of the answer is in the checkpoint."""
        await wait_for(lambda: self._memo().get("said") == text, "what was said", deadline=LONG)

    def _memo(self) -> dict[str, Any]:
        return self.field("run", "cp") or {}

    async def renewed(self) -> None:
        """Wait until the worker has asked after its lease once more."""
        before = self.field("lease", "deadline")
        await wait_for(lambda: self.field("lease", "deadline") != before, "a renewal", deadline=LONG)

    def posts(self) -> int:
        """How many POSTs asked for a response."""
        return len(self.fake.posts("/responses"))

    async def posted(self, number: int) -> None:
        """Wait until so many POSTs have arrived."""
        await self.until(lambda: self.posts() == number)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to happen at the provider."""
        await self.fake.until(condition, within=LONG)

    def history(self) -> list[tuple[str, str]]:
        """What the thread's committed head, or its conversation, holds at the provider."""
        state = self.field("head", "state")
        return [(kind, text) for kind, text in self.fake.history(state.get("head") or state["conversation"])]

    def users(self) -> list[str]:
        """The user turns of `history`."""
        return [text for kind, text in self.history() if kind == "user"]

    def statuses(self) -> list[str]:
        """What became of each response, oldest first."""
        return [one["status"] for one in self.fake.responses.values()]

    def cancels(self) -> int:
        """How many requests asked for the end of a response."""
        return len(self.fake.posts("/responses/*/cancel"))

    def check(self, *, posts: int, responses: int, said: list[str]) -> None:
        """The figures of a thread in which every message of *said* is answered by itself."""
        assert (self.posts(), len(self.fake.responses), self.users()) == (posts, responses, said)
        delivered = self.ledger.notes("deliver")
        assert [note.members for note in delivered] == [(text,) for text in said]
        assert len({note.id for note in delivered}) == len(said)
