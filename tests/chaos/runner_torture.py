"""Many threads talk to a provider while worker after worker is killed: `python -m tests.chaos.runner_torture --help`.

Theory of operation. Four kinds of processes: this one, which submits as the users do and judges in the end; a server;
the provider (tests/fakes/provider); and workers (runner_actor.py), of which every few seconds one is killed with
SIGKILL, wherever it is, and another one started. A user sends a burst of one to three messages, waits for the reply or
loses patience, and goes on; every message has a text of its own. The provider answers with what it was told, word by
word, so a Run takes half a second to three, and the answer shows which messages it answers.

In the end everything drains, and the verdict is read from outside the queue: from the history at the provider that the
thread's committed head names (for ``local``: from the turns in the server), and from what was handed over:

* every message is in exactly one turn of its thread's history, in the order of sending;
* every turn is answered, and its answer is about its messages and no others;
* every message is in exactly one reply, in order; one that was handed over twice was so by a worker that was killed;
* no batch became a dead letter, and no more was posted than batches and what a kill can make necessary again.
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
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streambatch import BatchQueue, Receipt
from tests.chaos.ledger import Ledger, Note
from tests.chaos.nest import Nest
from tests.chaos.runner_actor import Part
from tests.chaos.tools import drained
from tests.rig import Child, Server
from tests.rig.process import ROOT
from tests.rig.servers import kinds

SETTINGS: dict[str, Any] = {"lease": 2.0, "debounce": 0.2, "backoff": 0.1, "drain_timeout": 5.0, "max_attempts": 50}
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


@dataclass
class Figures:
    """What was found.

    Attributes:
        messages: sent.
        turns: committed batches in the histories.
        posts: requests for a response.
        kills: workers killed.
        runs: Runs begun.
        restarts: of them, such that went on with a batch.
        lost: Runs whose lease ended under a living worker, because the machine was busy.
        nameless: posted responses whose id was never saved: only these may be asked for again.
        replies: handed over.
        again: handed over twice.
        impatient: users that did not wait for the reply.
        dead: dead letters.
        wrong: what must not be.
    """

    messages: int = 0
    turns: int = 0
    posts: int = 0
    kills: int = 0
    runs: int = 0
    restarts: int = 0
    lost: int = 0
    nameless: int = 0
    replies: int = 0
    again: int = 0
    impatient: int = 0
    dead: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def line(self) -> str:
        """For people."""
        return ", ".join(f"{name} {value}" for name, value in self.__dict__.items() if name != "wrong")


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
            self.figures.dead = len(await queue.dead_letters())
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
        child = await self.nest.hatch(part.line(), {"OPENAI_BASE_URL": self.provider, "OPENAI_API_KEY": "none"})
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
        figures, state = self.figures, await self._get("/_state")
        figures.messages = sum(map(len, self.sent.values()))
        figures.posts = state["posts"].get("/responses", 0)
        begun = self.ledger.read("begin")
        figures.runs, figures.restarts = len(begun), sum(note.attempt > 1 for note in begun)
        for thread, sent in self.sent.items():
            turns = await self._turns(thread)
            figures.turns += len(turns)
            self._judge_turns(thread, turns, [text for _, text in sent])
        delivered = self.ledger.read("deliver")
        for thread, sent in self.sent.items():
            notes = [note for note in delivered if note.thread == thread]
            self._judge_replies(thread, notes, [name for name, _ in sent])
        self._judge_posts(state["marks"])
        if figures.dead:
            figures.wrong.append(f"{figures.dead} dead letters")

    def _judge_posts(self, marks: list[tuple[str, str]]) -> None:
        """Asked again is a batch whose Run was ended, and if the provider keeps responses only one without an id."""
        figures = self.figures
        figures.lost = len(self.ledger.read("lost"))
        if self.options.state == "local":
            if figures.posts > figures.runs:
                figures.wrong.append(f"{figures.posts} POSTs in {figures.runs} Runs")
            return
        known = {(note.id, str(note.attempt)) for note in self.ledger.read("known")}
        posted, nameless = Counter(batch for batch, _ in marks), Counter[str]()
        for batch, attempt in marks:
            nameless[batch] += (batch, attempt) not in known
        figures.nameless = nameless.total()
        for batch, times in posted.items():
            if times > 1 + nameless[batch]:
                figures.wrong.append(f"{batch} was posted {times} times, {nameless[batch]} of them without a known id")

    def _judge_turns(self, thread: str, turns: list[tuple[list[str], str]], sent: list[str]) -> None:
        told = [text for texts, _ in turns for text in texts]
        if told != sent:
            counts = Counter(told)
            lost, doubled = [t for t in sent if t not in counts], [t for t, n in counts.items() if n > 1]
            self.figures.wrong.append(f"{thread}: lost {lost}, doubled {doubled}, or out of order: {told}")
        for texts, answer in turns:
            if answer != f"I got {len(texts)} messages: {' | '.join(texts)}":
                self.figures.wrong.append(f"{thread}: {texts} was answered with {answer!r}")

    def _judge_replies(self, thread: str, notes: list[Note], sent: list[str]) -> None:
        first: dict[str, Note] = {}
        for note in notes:
            before = first.setdefault(note.id, note)
            if before is note:
                continue
            self.figures.again += 1
            if before.who not in self.killed or note.members != before.members:
                self.figures.wrong.append(f"{thread}: {note.id} was handed over twice, first by {before.who}")
        self.figures.replies += len(first)
        told = [member for note in first.values() for member in note.members]
        if told != sent:
            self.figures.wrong.append(f"{thread}: the replies are for {told}, sent was {sent}")

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


async def torture(options: Options) -> Figures:
    """Set everything up, and play."""
    pipe = asyncio.subprocess.PIPE
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = Server(options.kind or next(iter(kinds())))
        stack.callback(server.close)
        nest = Nest()
        stack.callback(nest.close)
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
    figures = asyncio.run(torture(options))
    print(f"{options.state}, {options.threads} threads, {options.seconds:g} s: {figures.line()}")
    for wrong in figures.wrong[:20]:
        print(f"WRONG {wrong}")
    raise SystemExit(1 if figures.wrong else 0)


if __name__ == "__main__":
    main()
