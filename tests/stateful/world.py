"""Three processes, a few threads and the oracle: every verb is done by a real `Store`, and foretold.

Theory of operation. The processes are the `Side`s of tests/integration/bench.py, on a server of their own, under a
clock that only the machine moves; so each answer, each token, each score is known beforehand. `World.did` compares an
answer with the oracle's, `World.check` the threads with the oracle's threads after every step, and asks I5 of
everybody. What happened also goes into a `History`, of which the invariants are asked at the end of a life, without
the oracle.

A key of a foreign type is what the oracle cannot foretell in full: which verbs look at it is their affair. There a
typed refusal that changes nothing is right as well (rule 1), of this thread alone, until it is repaired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from streambatch._messages import Batch
from streambatch._rows import Claimed, Handover, NotNow, Work
from streambatch._settings import ms
from streambatch._store import Foreign
from streambatch.errors import LeaseLost, StoreError
from tests.integration import invariants
from tests.integration.bench import DAWN, Bench
from tests.rig import Server
from tests.stateful.oracle_desk import Oracle
from tests.stateful.picture import difference, entry_of, looked, painted
from tests.stateful.state import LOST, Id, Row, Thread, Who

#: Ids that break naive keys, channels, formats and patterns.
THREADS = ["{}:*", "a\r\nb\0", "é🦊 %s"]
BROKEN: Row = ("broken",)
DEADLINE = 20.0  # seconds until a step counts as one that hangs


class World:
    """The stage of many lives, one after the other."""

    def __init__(self, kind: str) -> None:
        # With everysec a write waits while an fsync is under way, up to two seconds, and dies with the process.
        self.server = Server(kind, aof="no")
        self.loop = asyncio.new_event_loop()
        self.bench = Bench(self.server, "stateful")
        self.bench.watch = False
        self.admin: Any = self.server.admin()
        # Redis 7.0 looks at the rights of `default` while it loads the AOF, see docs/runbook.md.
        self.admin.execute_command("ACL", "SETUSER", "default", "off", "allkeys", "allchannels", "+@all")
        self.admin.execute_command("ACL", "SAVE")
        self.prefix = self.bench.key("")
        self.steps, self.lives = 0, 0
        self.loop.run_until_complete(self._open())
        self.begin()

    def label(self) -> str:
        """A name that no other message has."""
        self.count += 1
        return f"m{self.count - 1}"

    async def _open(self) -> None:
        self.bench.stop_time(DAWN)
        small: dict[str, Any] = {"dead_limit": 3, "max_pending": 12, "max_message_bytes": 100}
        await self.bench.side(lease=3.0, **small)
        await self.bench.side(lease=10.0, max_batch=2, **small)
        await self.bench.side(lease=3.0, hands=False, max_batch_bytes=100, **small)

    def close(self) -> None:
        """End the processes and the server."""
        self.loop.run_until_complete(self.bench.close())
        self.loop.close()
        self.server.close()

    def begin(self) -> None:
        """A new life, on an empty server."""
        self.lives += 1
        self.admin.flushall()
        self.bench.calls.clear()
        self.bench.answers.clear()
        self.bench.faults.clear()
        self.bench.stop_time(DAWN)
        for side in self.bench.sides:
            side.events.clear()
            side.twice = False
            side.seen.clear()
            side.takes.clear()
        self.oracle = Oracle(DAWN, THREADS)
        self.oracle.delivers = True
        self.history = invariants.History()
        self.claims: list[tuple[int, Work | Handover]] = []
        self.labels: dict[str, tuple[str, ...]] = {}  # what the Run of a token has seen
        self.batches: dict[str, Batch] = {}
        self.takes: dict[str, int] = {}
        self.hurt: dict[str, set[str]] = {name: set() for name in THREADS}
        self.lost: set[str] = set()
        self.unindexed: set[str] = set()
        self.sequences: dict[str, int] = {}
        self.clean, self.failed = True, False
        self.count: int = 0
        self.back: int = 0
        self.run(self.join())

    def twice(self) -> None:
        """From now on every call is sent twice: the answers must be equal, and nothing may change (rule 2)."""
        for side in self.bench.sides:
            side.twice = True

    async def join(self) -> None:
        """All processes join."""
        for side in self.bench.sides:
            await side.store.join()

    def who(self, number: int) -> Who:
        """What of a process the oracle needs to know."""
        s = self.bench.sides[number].store.settings
        hands = self.bench.sides[number].store.hands
        return Who(
            ms(s.lease), s.max_batch, hands, ms(s.horizon), s.max_batch_bytes, s.max_pending,
            s.max_pending_bytes, s.dead_limit,
        )  # fmt: skip

    def end(self) -> None:
        """The end of a life, unless it failed."""
        if not self.failed:
            self.run(self.drain())
            self.run(self.judge())

    async def drain(self) -> None:
        """See `desk.py`."""

    async def judge(self) -> None:
        """See `desk.py`."""

    def run(self, step: Awaitable[object]) -> None:
        """Do something, which must come to an end."""
        try:
            self.loop.run_until_complete(asyncio.wait_for(step, DEADLINE))
        except BaseException:
            self.failed = True
            raise

    # ── comparing ──

    def tick(self, by: int) -> None:
        """Move the clock."""
        self.back += max(0, -by)
        self.bench.stop_time(self.bench.now + by)
        self.oracle.now = self.bench.now

    def check(self) -> None:
        """The threads are what the oracle says, and I5 holds, except for whom a vandal took out of the index."""
        failed, self.failed = self.failed, True
        self.bench.verdict()
        self._check()
        self.failed = failed

    def _check(self) -> None:
        for t, actual in zip(self.oracle.threads.values(), looked(self.admin, self.prefix, THREADS), strict=True):
            expected = painted(t, paused=t.name in self.oracle.paused)
            if self.hurt[t.name]:
                places = [(index, int(actual[index])) for index in ("due", "outbox", "parked") if actual[index]]
                assert len(places) < 2, f"I5: {t.name!r} is in {places}"
                t.index = places[0] if places else None
                expected = painted(t, paused=t.name in self.oracle.paused)
            wrong = difference(expected, actual)
            assert not wrong, f"{t.name!r}: the oracle's and the server's are {wrong}"
            if t.queue or t.reply:
                self._indexed(t)

    def _indexed(self, t: Thread) -> None:
        if t.index is None:
            assert t.name in self.unindexed, f"I5: {t.name!r} is in no index"
            return
        self.unindexed.discard(t.name)
        index, at = t.index
        bound = self.bench.bound + self.back
        assert index == "parked" or at <= self.bench.now + bound, f"I5: {t.name!r} waits too long in {index}"
        assert index != "parked" or t.name in self.oracle.paused, f"I5: {t.name!r} is parked without a reason"

    async def did(
        self, thread: str, call: Awaitable[Any], foretold: Callable[[], Row], told: Callable[[Any], Row]
    ) -> Any:
        """The answer of a verb, which must be the one that was foretold; None if it was a refusal."""
        try:
            answer = await call
            row = told(answer)
        except LeaseLost:
            answer, row = None, LOST
        except Foreign:
            answer, row = None, BROKEN
        except StoreError as error:
            if not self.hurt[thread]:
                raise AssertionError(f"{thread!r}: {type(error).__name__}: {error}") from error
            answer, row = None, BROKEN
        if self.hurt[thread] and row[0] in ("broken", "lost", "x"):
            return None
        wanted = foretold()
        assert row == wanted, f"{thread!r}: the answer is {row}, the oracle says {wanted}"
        return answer

    def claim_of(self, number: int) -> str:
        """The claim id that a process used last."""
        store: Any = self.bench.sides[number].store
        return f"{store.producer[:16]}.{store._claims:x}"

    # ── a claim is written down ──

    def row_of(self, claimed: Claimed) -> Row:
        """A claim in the oracle's words."""
        if isinstance(claimed, NotNow):
            return (claimed.word,)
        if isinstance(claimed, Handover):
            return ("reply", claimed.lease.token, claimed.attempt, claimed.sequence)
        ids = entry_of(claimed.first), entry_of(claimed.last)
        return (
            "batch", claimed.lease.token, *ids, claimed.revision, claimed.attempts, claimed.checkpoint, claimed.cancel
        )  # fmt: skip

    async def took(self, number: int, claimed: Claimed | None) -> None:
        """Somebody has a claim: the batch is read, and its content compared."""
        if not isinstance(claimed, Work | Handover):
            return
        self.claims.append((number, claimed))
        thread, token = claimed.lease.thread, claimed.lease.token
        self.history.fences[thread].append(claimed.lease.fence)
        if isinstance(claimed, Handover):
            return
        side, t = self.bench.sides[number], self.oracle.threads[thread]
        self.batches[token] = batch = await side.batch(claimed)
        notes = [t.notes[entry_of(message.entry)] for message in batch.messages]
        assert [message.text for message in batch.messages] == [note.text for note in notes], "I10: another content"
        assert [entry_of(message.entry) for message in batch.messages] == t.members()
        self.labels[token] = tuple(note.label for note in notes)
        self.history.runs[thread].append((batch.id, self.labels[token]))

    def committed(self, work: Work) -> None:
        """A batch was committed as its Run saw it."""
        self.history.commits[work.lease.thread].append(self.labels.pop(work.lease.token, ()))

    def excuse(self, thread: str, gone: Sequence[Id]) -> None:
        """A vandal took messages: they are lost, and nothing else is."""
        notes = self.oracle.threads[thread].notes
        self.lost.update(notes[entry].label for entry in gone)
