"""What is going on in a namespace, for people: counts and the most urgent threads, at a cost that a page bounds.

Theory of operation
-------------------
Two exchanges, however many threads there are. The first asks each partition for its counts and for the names at the
heads of the three indexes, and at the tail of ``due``: what is overdue stands at the head, what runs or waits for its
next try at the tail, because a lease and a back-off end later than what waits. The second looks at these threads. So
the most urgent ones are always among those that were looked at, and where a page holds all there are, the counts by
state are exact (``Board.whole``); else what runs is "at least so many", as nobody counts it in the server.

It only reads: no script of these writes, nothing is joined, and a namespace that does not exist stays so. What it shows
is a moment per thread, not one moment of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _scripts as scripts
from ._explain import Explanation, Stats, age_of, explain, lease_of
from ._rows import order
from ._scripts import Call
from ._store import Store
from .errors import Refused

INDEXES = ("due", "outbox", "parked")
PAGE, MANY = 100, 10_000
_BY_SCORE = ("BYSCORE", "LIMIT", 0, MANY, "WITHSCORES")
Range = tuple[int, str, str, str]  # partition, index, from, to
#: Who needs an eye first; in a state the most overdue one.
URGENCY = (
    "broken", "unindexed", "overdue", "undelivered", "cancelling", "retrying", "delivering", "running", "waiting",
    "parked", "idle",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Glance:
    """A thread, as it was when it was looked at.

    Attributes:
        explanation: its state and why.
        age: seconds since the oldest message came that waits or is in the batch; with a reply on its way, since the
            newest one that it answers came. None if nothing is stored.
        lease: seconds left of the lease, or None if nobody holds one.
        fields: all that the look script said, by name; no content.
    """

    explanation: Explanation
    age: float | None
    lease: float | None
    fields: Mapping[str, str]

    @classmethod
    def of(cls, thread: str, fields: Mapping[str, str]) -> Glance:
        """From the fields of the look script."""
        return cls(explain(thread, fields), age_of(fields), lease_of(fields), fields)

    @property
    def urgency(self) -> tuple[int, float]:
        """Its place in a list: smaller is more urgent."""
        return URGENCY.index("overdue" if self.late else self.explanation.state), self.explanation.wake or 0.0

    @property
    def late(self) -> bool:
        """Whether it is due for its first Run and nobody has taken it."""
        return self.explanation.state == "waiting" and (self.explanation.wake or 0.0) < 0


@dataclass(frozen=True, slots=True)
class Board:
    """A namespace at a glance.

    Attributes:
        stats: the counts.
        now: the server's time, seconds since 1970.
        threads: the most urgent ones, the most urgent first.
        states: of all threads that were looked at, how many are in which state.
        oldest: the highest age among them, or None.
        whole: all threads were looked at, so ``states`` counts all.
        shelved: of the paused threads among them, how many have a batch in hand; they are not in ``stats.due``.
    """

    stats: Stats
    now: float
    threads: tuple[Glance, ...]
    states: Mapping[str, int]
    oldest: float | None
    whole: bool
    shelved: int


@dataclass(frozen=True, slots=True)
class Motion:
    """What goes on in a namespace.

    Attributes:
        held: threads that somebody holds: Runs and deliveries under way.
        ending: threads in ``due`` that leave it by themselves in a pause, too: held, or cancelled.
        coming: threads that somebody may take any moment in a pause, too: replies that are due, what was cancelled.
        halted: partitions that are paused.
        partitions: all there are.
    """

    held: int
    ending: int
    coming: frozenset[str]
    halted: int
    partitions: int


class Survey:
    """Looks at many threads at once. ``close`` it.

    Args:
        store: the server.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wires = store.wires()

    async def board(self, count: int, page: int = PAGE) -> Board:
        """Counts, and the *count* most urgent threads of a page. Raises StoreError."""
        partitions = range(self._store.keys.partitions)
        rows = await self._ask([call for p in partitions for call in self._first(p, page)])
        total: dict[str, float] = {}
        heads: dict[str, list[tuple[float, str]]] = {name: [] for name in (*INDEXES, "tail")}
        now = 0.0
        for p in partitions:
            counts, *found = rows[p * 5 : p * 5 + 5]
            fields = {row.decode(): value.decode() for row, value in zip(counts[::2], counts[1::2], strict=True)}
            now = max(now, float(fields["now"]) / 1000)
            Stats.add(total, fields)
            for name, names in zip(heads, found, strict=True):
                heads[name] += _scored(names)
        stats = Stats.of(total)
        chosen = [thread for name in INDEXES for _, thread in sorted(heads[name])[:page]]
        chosen += [thread for _, thread in sorted(heads["tail"], reverse=True)[:page]]
        seen = await self.look(dict.fromkeys(chosen))
        return _board(stats, now, seen, count)

    async def look(self, threads: Iterable[str]) -> tuple[Glance, ...]:
        """Look at these threads, in one exchange. Raises StoreError."""
        names = list(threads)
        rows = await self._ask([self._look(name) for name in names])
        return tuple(
            Glance.of(name, {row[i].decode(): row[i + 1].decode() for i in range(0, len(row), 2)})
            for name, row in zip(names, rows, strict=True)
        )

    async def motion(self) -> Motion:
        """What is under way or about to be. Raises StoreError.

        A held thread stands at the end of its lease, so of those with a moment in the future each is looked at. What is
        about to begin in a pause, too, stands in the past: replies, and in ``due`` at 0 what was cancelled (`_take`).
        """
        partitions = range(self._store.keys.partitions)
        rows = await self._ask([next(iter(self._first(p, 1))) for p in partitions])
        counts = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
        nows = [f"{float(one[b'now']):.0f}" for one in counts]  # of each its own: they may be on several servers
        later = [(p, name, f"({nows[p]}", "+inf") for p in partitions for name in ("due", "outbox")]
        past = [(p, name, "-inf", "0" if name == "due" else nows[p]) for p, name, *_ in later]
        due = {thread: name == "due" for (_, name, *_), names in await self._within(later) for thread in names}
        soon = await self._within(past)
        cancelled = {thread for (_, name, *_), names in soon if name == "due" for thread in names}
        replies = {thread for (_, name, *_), names in soon if name == "outbox" for thread in names}
        held, runs, threads = 0, 0, list(due)
        for start in range(0, len(threads), PAGE):
            for glance in await self.look(threads[start : start + PAGE]):
                held += glance.lease is not None
                runs += glance.lease is not None and due[glance.explanation.thread]
                if glance.lease is None and "run.cancel" in glance.fields:
                    cancelled.add(glance.explanation.thread)
        halted = sum(one[b"halted"] == b"1" for one in counts)
        return Motion(held, runs + len(cancelled), frozenset(cancelled | replies), halted, len(counts))

    async def _within(self, ranges: Sequence[Range]) -> list[tuple[Range, set[str]]]:
        """All names of these ranges. Page by page of `MANY`, by score: one that moves on meanwhile is met again."""
        found = {wanted: set[str]() for wanted in ranges}
        todo = {wanted: wanted[2] for wanted in ranges}
        while todo:
            calls = [
                (p, Call(None, (), ("ZRANGE", self._store.keys.of(p, name), low, high, *_BY_SCORE)))
                for (p, name, _, high), low in todo.items()
            ]
            answers = dict(zip(todo, await self._ask(calls), strict=True))
            for wanted, names in answers.items():
                scored = _scored(names)
                found[wanted].update(thread for _, thread in scored)
                last = f"{scored[-1][0]:.0f}" if scored else ""
                if len(scored) < MANY:
                    del todo[wanted]
                else:
                    todo[wanted] = last if todo[wanted] != last else f"({last}"
        return list(found.items())

    async def close(self) -> None:
        """Close the connections."""
        await self._wires.close()

    def _first(self, partition: int, page: int) -> Iterable[tuple[int, Call]]:
        shared = self._store.keys.shared(partition)
        yield partition, Call(scripts.STATS, self._store.keys.counted(partition), [self._store.clock])
        for key in shared[1:4]:
            yield partition, Call(None, (), ("ZRANGE", key, 0, page - 1, "WITHSCORES"))
        yield partition, Call(None, (), ("ZRANGE", shared[1], 0, page - 1, "REV", "WITHSCORES"))

    def _look(self, thread: str) -> tuple[int, Call]:
        keys, p = self._store.keys, self._store.keys.partition(thread)
        return p, Call(scripts.LOOK, keys.looked(p, thread), [self._store.clock, thread])

    async def _ask(self, calls: Sequence[tuple[int, Call]]) -> list[Any]:
        answers = await self._wires.exchange(calls) if calls else []
        for answer in answers:
            if isinstance(answer, Refused):
                raise answer
        return answers


def _scored(names: Sequence[Any]) -> list[tuple[float, str]]:
    return [(float(names[i + 1]), names[i].decode()) for i in range(0, len(names), 2)]


def _board(stats: Stats, now: float, seen: Sequence[Glance], count: int) -> Board:
    states: dict[str, int] = {}
    for glance in seen:
        states[glance.explanation.state] = states.get(glance.explanation.state, 0) + 1
    urgent = sorted(seen, key=lambda glance: glance.urgency)[:count]
    ages = [glance.age for glance in seen if glance.age is not None and glance.explanation.state != "parked"]
    whole = len(seen) >= stats.due + stats.undelivered + stats.parked
    shelved = sum(glance.explanation.state == "parked" and "run.first" in glance.fields for glance in seen)
    return Board(stats, now, tuple(urgent), states, max(ages, default=None), whole, shelved)


def arrived(entry: str) -> float:
    """When a message with this entry id came, seconds since 1970 by the server's clock."""
    return order(entry)[0] / 1000
