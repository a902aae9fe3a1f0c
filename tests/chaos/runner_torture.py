"""Many threads talk to a provider while worker after worker is killed: `python -m tests.chaos.runner_torture --help`.

Theory of operation. Four kinds of processes: this one, which submits as the users do and judges in the end; a server;
the provider (tests/fakes/provider); and workers (runner_actor.py), of which every few seconds one is killed with
SIGKILL, wherever it is, and another one started. A user sends a burst of one to three messages, waits for the reply or
loses patience, and goes on; every message has a text of its own. The provider answers with what it was told, word by
word, so a Run takes half a second to three, and the answer shows which messages it answers.

In the end everything drains, and the verdict (verdict.py) is read from outside the queue: from the history at the
provider that the thread's committed head names (for ``local``: from the turns in the server), from what arrived at the
provider, and from what was handed over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import sys
import tempfile
import time
import urllib.request
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streambatch import BatchQueue, Receipt
from tests.chaos.ledger import Ledger
from tests.chaos.nest import Nest
from tests.chaos.runner_actor import Part
from tests.chaos.tools import drained
from tests.chaos.verdict import Figures
from tests.rig import Child, Server
from tests.rig.process import ROOT
from tests.rig.servers import kinds

SETTINGS: dict[str, Any] = {"lease": 4.0, "debounce": 0.2, "backoff": 0.1, "drain_timeout": 5.0, "max_attempts": 50}
RUNNER: dict[str, Any] = {"context_tokens": 1_000_000}  # all turns stay, so that all can be counted
DELAY = 0.15


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked for; the command's options."""

    seconds: float
    threads: int = 100
    kill_every: float = 2.0
    workers: int = 3
    state: str = "chain"
    kind: str = ""
    seed: int = 0


class Torture:
    """One run of it."""

    def __init__(self, options: Options, server: Server, nest: Nest, ledger: Ledger, provider: str) -> None:
        self.options, self.server, self.nest, self.ledger, self.provider = options, server, nest, ledger, provider
        self.namespace = f"t{secrets.token_hex(6)}"
        self.sent: dict[str, list[tuple[str, str]]] = {f"user-{n}": [] for n in range(options.threads)}
        self.workers: dict[str, Child] = {}
        self._children: list[Child] = []
        self.killed: set[str] = set()
        self.figures = Figures()
        self._random = random.Random(options.seed)
        self._born = 0

    async def go(self) -> Figures:
        """Talk, kill, drain, judge."""
        queue = BatchQueue(self.server.url, namespace=self.namespace, log=False, **SETTINGS)
        async with queue:
            for _ in range(self.options.workers):
                await self._hire()
            until = time.monotonic() + self.options.seconds
            async with asyncio.TaskGroup() as group:
                for thread in self.sent:
                    group.create_task(self._talk(queue, thread, until))
                group.create_task(self._kill(until))
            await drained(queue, deadline=180)
            self.figures.judge_dead(len(await queue.dead_letters()))
        await self._judge()
        return self.figures

    async def aclose(self) -> None:
        """End all workers."""
        for child in self._children:
            await child.close()

    async def _hire(self) -> None:
        self._born += 1
        name = f"worker-{self._born}"
        part = Part(
            name, self.server.url, self.namespace, str(self.ledger.path), self.options.state, runner=RUNNER,
            settings=SETTINGS,
        )  # fmt: skip
        child = await self.nest.start(part.line(), {"OPENAI_BASE_URL": self.provider, "OPENAI_API_KEY": "none"})
        self._children.append(child)
        await child.expect("READY", deadline=60)
        self.workers[name] = child

    async def _kill(self, until: float) -> None:
        hiring: list[asyncio.Task[None]] = []
        while (at := time.monotonic() + self.options.kill_every) < until:
            await asyncio.sleep(at - time.monotonic())
            if len(self.workers) < 2:  # the machine is too busy to start them that fast
                continue
            name = self._random.choice(sorted(self.workers))
            self.killed.add(name)
            await self.workers.pop(name).close()
            self.figures.kills += 1
            hiring.append(asyncio.create_task(self._hire()))
        await asyncio.gather(*hiring)

    async def _talk(self, queue: BatchQueue, thread: str, until: float) -> None:
        dice = random.Random(f"{self.options.seed} {thread}")
        await asyncio.sleep(dice.random() * 2)
        while time.monotonic() < until:
            receipt: Receipt | None = None
            for _ in range(dice.randint(1, 3)):
                number = len(self.sent[thread])
                text = " ".join(
                    [f"{thread}:{number}", *dice.choices(("well", "so", "and", "yes"), k=dice.randint(0, 3))]
                )
                self.sent[thread].append((f"{thread}:{number}", text))
                receipt = await queue.submit(thread, text, message_id=f"{thread}:{number}")
            assert receipt is not None
            try:
                await receipt.reply(timeout=dice.uniform(2, 15))
            except TimeoutError:
                self.figures.impatient += 1
            await asyncio.sleep(dice.random() * 2)

    # ── the verdict ──

    async def _judge(self) -> None:
        figures, state, notes = self.figures, await self._get("/_state"), self.ledger.notes()
        figures.posts = state["posts"].get("/responses", 0)
        figures.count(notes)
        if self.options.state != "local":
            figures.judge_posts(notes)
        for thread, sent in self.sent.items():
            figures.judge_turns(thread, await self._turns(thread), [text for _, text in sent])
            delivered = [note for note in notes if (note.what, note.thread) == ("deliver", thread)]
            figures.judge_replies(thread, delivered, [name for name, _ in sent], self.killed)

    async def _turns(self, thread: str) -> list[tuple[list[str], str]]:
        """The user texts and the answer of each turn of a thread's committed history."""
        admin, prefix = self.server.admin(), f"sb1:{{{self.namespace}.00}}:"
        if self.options.state == "local":
            logged: list[dict[str, Any]] = [json.loads(raw) for raw in admin.lrange(f"{prefix}log:{thread}", 0, -1)]
            return [([part["text"] for said in turn["in"] for part in said["p"]], turn["out"]) for turn in logged]
        raw = admin.hget(f"{prefix}head:{thread}", "state")
        if raw is None:
            return []
        state = json.loads(raw)
        turns: list[tuple[list[str], str]] = []
        texts: list[str] = []
        for kind, text in await self._get(f"/_history/{state.get('head') or state['conversation']}"):
            if kind == "user":
                texts.append(text)
            else:
                turns.append((texts, text))
                texts = []
        return [*turns, (texts, "")] if texts else turns

    async def _get(self, path: str) -> Any:
        def ask() -> Any:
            with urllib.request.urlopen(self.provider.removesuffix("/v1") + path, timeout=60) as answer:
                return json.load(answer)

        return await asyncio.to_thread(ask)


async def torture(options: Options, nest: Nest) -> Figures:
    """Set everything up, and play."""
    pipe = asyncio.subprocess.PIPE
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = Server(options.kind or next(iter(kinds())))
        stack.callback(server.close)
        ledger = Ledger(Path(folder) / "ledger")
        stack.callback(ledger.close)
        provider = Child(
            await asyncio.create_subprocess_exec(
                sys.executable, "-um", "tests.fakes.provider", "--delay", str(DELAY), cwd=ROOT, stdin=pipe, stdout=pipe,
                stderr=pipe,
            )
        )  # fmt: skip
        stack.push_async_callback(provider.close)
        url = (await provider.expect(r"http://\S+", deadline=60))[0]
        play = Torture(options, server, nest, ledger, url)
        stack.push_async_callback(play.aclose)
        return await play.go()


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.runner_torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=100)
    parser.add_argument("--kill-every", type=float, default=2.0, help="seconds between two kills (2)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--state", choices=("chain", "conversation", "local"), default="chain")
    parser.add_argument("--kind", choices=tuple(kinds()), default="", help="of server")
    parser.add_argument("--seed", type=int, default=0, help="of what is said and who is killed")
    told = vars(parser.parse_args())
    return Options(seconds=told.pop("minutes") * 60, **told)


def main() -> None:
    """The command."""
    options = _options()
    nest = Nest()
    try:
        figures = asyncio.run(torture(options, nest))
    finally:
        nest.close()
    if options.state != "local":
        figures.judge_bound()
    print(f"{options.state}, {options.threads} threads, {options.seconds:g} s: {figures.line()}")
    for wrong in figures.wrong[:20]:
        print(f"WRONG {wrong}")
    raise SystemExit(1 if figures.wrong else 0)


if __name__ == "__main__":
    main()
