"""All invariants on random lives: two or three processes, hostile ids, a clock that steps, zombies that write late.

Theory of operation. A walk is a seeded sequence of steps; each step is one thing that one process does, also things
that only a confused one would do: it holds on to claims that it lost and uses them again. What is submitted, claimed,
committed and delivered goes into a `History`. I5 is checked after every script, and with even seeds each script is sent
twice. At the end all claims are forgotten, the threads are drained, and the history is judged. A failing seed replays
the same walk: `pytest tests/integration/test_invariants_walk.py -k 17`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from streambatch._rows import Claimed, Handover, Work
from streambatch.errors import LeaseLost
from tests.integration.bench import HOSTILE, HOUR, Bench, Side
from tests.integration.invariants import History, all_of, i7_only_expiring

SEEDS = range(12)
STEPS = 120


class Walk:
    """One walk over a bench."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.chance = random.Random(seed)
        self.history = History()
        self.threads = self.chance.sample(HOSTILE, 3)
        self.claims: list[tuple[Side, Work | Handover]] = []
        self.batches: dict[str, tuple[str, ...]] = {}  # what the Run of a token has seen
        self.taken: dict[str, tuple[str, ...]] = {}  # and what is in its batch
        self.count = 0
        self.steps: list[Callable[[Side, str], Awaitable[None]]] = [
            *[self.submit] * 4, *[self.take] * 4, *[self.settle] * 3, *[self.delivered] * 3, self.undelivered,
            self.release, self.bury, self.start, *[self.more] * 3, self.checkpoint, self.renew, self.touch, self.pause,
            self.resume, self.redrive, self.repair, self.time,
        ]  # fmt: skip

    async def step(self) -> None:
        """One step of a random process."""
        side = self.chance.choice(self.bench.sides)
        await self.chance.choice(self.steps)(side, self.chance.choice(self.threads))

    # ── steps ──

    async def submit(self, side: Side, thread: str) -> None:
        """One to three messages, sometimes an id that was used before."""
        names = [f"m{self.count + n}" for n in range(self.chance.randint(1, 3))]
        self.count += len(names)
        old = self.history.submitted[thread][:]
        given = [*names, *self.chance.sample(old, min(len(old), self.chance.randint(0, 1)))]
        quiet = self.chance.choice((0, 0, 500, 5_000, -1))
        stored = await side.submit(thread, *given, ids=given, quiet=quiet, wait=10_000)
        for name, outcome in zip(given, stored, strict=True):
            assert outcome.word == ("duplicate" if name in old else "queued")
            if outcome.word == "queued":
                self.history.submitted[thread].append(name)

    async def take(self, side: Side, thread: str) -> None:
        """Claim whatever peek names, or any thread."""
        ready = await side.ready()
        await self.took(side, await side.claim(self.chance.choice(ready) if ready else thread))

    async def took(self, side: Side, claim: Claimed | None) -> None:
        """Write down a claim."""
        if isinstance(claim, Work | Handover):
            self.claims.append((side, claim))
            fences = self.history.fences[claim.lease.thread]
            assert claim.lease.fence not in fences, "I3: a fence was issued twice"
            fences.append(claim.lease.fence)
        if isinstance(claim, Work):
            batch = await side.batch(claim)
            names = tuple(message.id for message in batch.messages)
            self.history.runs[batch.thread].append((batch.id, names))
            self.batches[claim.lease.token] = names

    def held(self, kind: type[Work | Handover] | None = None) -> tuple[Side, Work | Handover] | None:
        """A claim that somebody holds or once held."""
        found = [pair for pair in self.claims if kind is None or isinstance(pair[1], kind)]
        return self.chance.choice(found[-6:]) if found else None

    async def settle(self, side: Side, thread: str) -> None:
        """Commit a Run."""
        if (pair := self.held(Work)) and isinstance(work := pair[1], Work):
            go_on = self.chance.random() < 0.5
            try:
                word, _, following = await pair[0].settle(work, self.chance.choice(("", "yes")), go_on=go_on)
            except LeaseLost:
                return
            if word in ("kept", "left", "done") and work.lease.token in self.batches:
                self.history.commits[work.lease.thread].append(self.batches.pop(work.lease.token))
            await self.took(pair[0], following)

    async def delivered(self, side: Side, thread: str) -> None:
        """Hand a reply over."""
        if pair := self.held():
            owner, claim = pair
            try:
                following = await owner.store.delivered(claim.lease, go_on=self.chance.random() < 0.5)
            except LeaseLost:
                return
            if isinstance(claim, Handover):
                self.history.delivered[claim.lease.thread].append((claim.sequence, claim.lease.token))
            await self.took(owner, following)

    async def undelivered(self, side: Side, thread: str) -> None:
        """A hand-over fails, sometimes for good."""
        if pair := self.held():
            delay, final = self.chance.choice((0, 2, 100)), self.chance.random() < 0.3
            await self.quietly(pair[0].store.undelivered(pair[1].lease, delay, "why", counted=True, final=final))

    async def release(self, side: Side, thread: str) -> None:
        """Give a claim back."""
        if pair := self.held():
            delay = self.chance.choice((0, 0, 2, 100))
            give_back = self.chance.random() < 0.5
            await self.quietly(pair[0].store.release(pair[1].lease, delay, give_back=give_back))

    async def bury(self, side: Side, thread: str) -> None:
        """A batch fails for good."""
        if (pair := self.held(Work)) and await self.quietly(pair[0].store.bury(pair[1].lease, "", "why")):
            token = pair[1].lease.token
            names = self.batches.pop(token, ())
            self.history.dead[pair[1].lease.thread].append(self.taken.pop(token, names))

    async def start(self, side: Side, thread: str) -> None:
        """A Run begins."""
        if (pair := self.held(Work)) and isinstance(pair[1], Work):
            await self.quietly(pair[0].store.start(pair[1]))

    async def more(self, side: Side, thread: str) -> None:
        """The runner takes what arrived meanwhile; sometimes it never hears of it."""
        if (pair := self.held(Work)) and isinstance(work := pair[1], Work):
            token, heard = work.lease.token, self.chance.random() < 0.5
            try:
                _, found = await pair[0].more(work, heard=heard)
            except LeaseLost:
                return
            if token in self.batches:
                self.taken[token] = self.batches[token] + tuple(message.id for message in found)
                if heard:
                    self.batches[token] = self.taken[token]

    async def checkpoint(self, side: Side, thread: str) -> None:
        """The runner keeps something."""
        if pair := self.held(Work):
            await self.quietly(pair[0].store.checkpoint(pair[1].lease, b"x"))

    async def renew(self, side: Side, thread: str) -> None:
        """The keeper renews."""
        if pair := self.held():
            await pair[0].store.renew(pair[1].lease)

    async def touch(self, side: Side, thread: str) -> None:
        """Typing, or run_now."""
        await side.desk.touch(thread, self.chance.choice((-1, 1, 30)))

    async def pause(self, side: Side, thread: str) -> None:
        """A human takes over."""
        await side.desk.pause(thread, on=True)

    async def resume(self, side: Side, thread: str) -> None:
        """The human is done."""
        await side.desk.pause(thread, on=False)

    async def redrive(self, side: Side, thread: str) -> None:
        """A dead reply goes back; a dead batch stays, because it would come out in another order."""
        for letter in await side.desk.dead(10, None):
            if letter.kind == "reply":
                entry = letter.id.split("/")[1]
                fields = (await self.bench.admin.xrange(self.bench.key("dead"), entry, entry))[0][1]
                if await side.desk.redrive(letter.id) == "redriven":
                    self.history.redriven.add((letter.thread, int(fields["seq"])))

    async def repair(self, side: Side, thread: str) -> None:
        """Repair of a healthy thread changes nothing that matters."""
        await side.store.repair(thread)

    async def time(self, side: Side, thread: str) -> None:
        """Time passes, or the server's clock is stepped."""
        self.bench.tick(self.chance.choice((1, 100, 1_000, 5_000, 5_000, 40_000, -1_000, -HOUR, HOUR)))

    @staticmethod
    async def quietly(call: Awaitable[object]) -> object:
        """A call by somebody who may have lost its lease."""
        try:
            return await call
        except LeaseLost:
            return None

    # ── the end ──

    async def drain(self) -> None:
        """Everybody lives again and behaves: all threads come to their end."""
        side = self.bench.sides[0]
        for thread in self.threads:
            await side.desk.pause(thread, on=False)
        for _ in range(200):
            self.bench.tick(5_000)
            for thread in await side.ready():
                claim = await side.claim(thread)
                await self.took(side, claim)
                if isinstance(claim, Work):
                    await side.settle(claim, "")
                    self.history.commits[thread].append(self.batches[claim.lease.token])
                elif isinstance(claim, Handover):
                    await side.store.delivered(claim.lease, go_on=False)
        for letter in await side.desk.dead(1_000, None):
            await side.desk.discard(letter.id)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_random_walk_breaks_no_invariant(still: Bench, seed: int) -> None:
    """I1 to I7 and I17 over a seeded life with zombies, stepped clocks and every script sent twice."""
    twice = seed % 2 == 0
    await still.side(lease=3.0, twice=twice)
    await still.side(lease=10.0, max_batch=2, twice=twice)
    if seed % 3 == 0:
        await still.side(lease=3.0, hands=False, twice=twice)
    walk = Walk(still, seed)
    for _ in range(STEPS):
        await walk.step()
        still.verdict()
    await walk.drain()
    still.verdict()
    all_of(walk.history)
    i7_only_expiring(still.server.admin(), still.namespace)
    stats = await still.sides[0].desk.stats()
    assert (stats.messages, stats.in_hand, stats.due, stats.undelivered, stats.parked) == (0, 0, 0, 0, 0)
