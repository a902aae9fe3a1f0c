"""Steps of an operator, of time, and the end of a life."""

from __future__ import annotations

from streambatch._rows import Handover, Work
from tests.integration import invariants
from tests.stateful.picture import entry_of
from tests.stateful.state import Id, Row
from tests.stateful.steps import Steps
from tests.stateful.world import THREADS


class Operated(Steps):
    """A world with an operator."""

    async def cancel(self, number: int, thread: str, run: bool, pending: bool, keep: bool) -> None:
        """End what a thread does."""
        t, who = self.oracle.threads[thread], self.who(number)
        before = list(t.queue)
        await self.did(
            thread, self.bench.sides[number].desk.cancel(thread, run=run, pending=pending, keep=keep),
            lambda: self.oracle.cancel(t, who, run, pending, "keep" if keep else "drop"),
            lambda found: (found.run, found.dropped),
        )  # fmt: skip
        self.excuse(thread, [entry for entry in before if entry not in t.queue])

    async def touch(self, number: int, thread: str, quiet: float) -> None:
        """Typing, or run_now."""
        t, who = self.oracle.threads[thread], self.who(number)
        wait = -1 if quiet < 0 else round(1_000 * quiet)

        def foretold() -> Row:
            row = self.oracle.touch(t, who, wait)
            return ("busy",) if "run" in self.hurt[thread] and row == ("moved",) else row  # something is there

        await self.did(thread, self.bench.sides[number].desk.touch(thread, quiet), foretold, lambda word: (word,))

    async def pause(self, number: int, thread: str, on: bool) -> None:
        """A human takes over, or is done."""
        await self.bench.sides[number].desk.pause(thread, on=on)
        self.oracle.pause(self.oracle.threads[thread], self.who(number), on)

    async def halt(self, number: int, on: bool) -> None:
        """All stand still, or go on."""
        await self.bench.sides[number].desk.pause(None, on=on)
        self.oracle.halted = on

    async def redrive(self, number: int, chosen: int) -> None:
        """A dead letter goes back: its messages come anew, behind all others."""
        letters = await self.bench.sides[number].desk.dead(10, None)
        assert [(one.kind, one.thread) for one in letters] == [(one.kind, one.thread) for one in self.oracle.letters]
        if not letters:
            return
        place = chosen % len(letters)
        letter = self.oracle.letters[place]
        t = self.oracle.threads[letter.thread]
        word = await self.bench.sides[number].desk.redrive(letters[place].id)
        if self.hurt[t.name] and word == "broken":
            return
        assert self.oracle.redrive(place, self.who(number), 15_000, await self.behind(t.name)) == (word,)
        if word == "redriven" and letter.kind == "reply":
            self.history.redriven.add((t.name, letter.seq))
        elif word == "redriven":
            labels = tuple(note.label for note in letter.notes)
            self.history.dead[t.name].remove(labels)
            kept = [label for label in self.history.submitted[t.name] if label not in labels]
            self.history.submitted[t.name] = [*kept, *labels]

    async def behind(self, thread: str) -> list[Id]:
        """The messages of a thread that the oracle does not know yet."""
        rows = await self.bench.admin.xrange(self.bench.key("stream", thread))
        return [entry_of(entry) for entry, _ in rows][len(self.oracle.threads[thread].queue) :]

    async def repair(self, number: int, thread: str) -> None:
        """Put a thread in order; who is healthy is only looked at again."""
        deleted = set((await self.bench.sides[number].store.repair(thread)).split())
        assert deleted == self.hurt[thread], f"{thread!r}: repair deleted {deleted}"
        self.hurt[thread] = set()
        self.oracle.repair(self.oracle.threads[thread], self.who(number))

    async def forfeit(self, number: int, before: int) -> None:
        """A process that was alone ends the leases of the dead."""
        opened = self.bench.now - before
        ended = await self.bench.sides[number].desk.forfeit(opened / 1_000)
        assert (ended,) == self.oracle.forfeit(self.who(number), opened)

    async def explain(self, number: int, thread: str) -> None:
        """What people are told."""
        t, side = self.oracle.threads[thread], self.bench.sides[number]
        found = await side.desk.explain(thread)
        assert not self.clean or t.queue or t.run or t.reply or found.state in ("idle", "parked"), found
        assert found.state != "idle" or (not t.queue and not t.reply), found
        stats = await side.desk.stats()
        places = [t.index[0] for t in self.oracle.threads.values() if t.index]
        row: Row = (stats.due, stats.undelivered, stats.parked, stats.dead)
        assert row == (*(places.count(index) for index in ("due", "outbox", "parked")), len(self.oracle.letters))
        if self.clean:
            assert stats.messages == sum(len(t.queue) for t in self.oracle.threads.values())

    async def pass_time(self, by: int) -> None:
        """Time passes, or the server's clock is stepped."""
        self.tick(by)

    # ── the end ──

    async def drain(self) -> None:
        """I9: everybody lives again and behaves: all threads come to their end."""
        for thread in THREADS:
            await self.repair(0, thread)
            await self.pause(0, thread, on=False)
        await self.halt(0, on=False)
        self.check()
        for _ in range(20):
            self.tick(20_000)
            for thread in sorted(self.oracle.ready(self.who(0))):
                found = await self.claim(0, thread)
                if isinstance(found, Work):
                    await self.settle(0, found, "cancelled" if found.cancel else "none", go_on=False)
                if isinstance(found, Work | Handover) and self.oracle.threads[thread].reply:
                    await self.delivered(0, found, go_on=False)
            self.check()
            if not any(t.queue or t.run or t.reply for t in self.oracle.threads.values()):
                return
        left = {t.name: t for t in self.oracle.threads.values() if t.queue or t.run or t.reply}
        raise AssertionError(f"I9: not drained: {left}")

    async def judge(self) -> None:
        """The invariants over the whole life, without the oracle: what a vandal or a cancel took is excused."""
        for thread, labels in self.history.submitted.items():
            self.history.unknown.update((thread, label) for label in labels if label in self.lost)
        invariants.all_of(self.history)
        await self.explain(0, THREADS[0])
        for letter in await self.bench.sides[0].desk.dead(100, None):
            await self.bench.sides[0].desk.discard(letter.id)
        invariants.i7_only_expiring(self.admin, self.bench.namespace)
