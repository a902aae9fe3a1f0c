"""A bench: stores opened by hand on a real server, one step at a time, under a clock that the test moves.

Theory of operation. A `Side` is what one process would be: a `Store` with its lanes running, a producer, a desk. Every
script call of every side goes through `Side.sent`, and after each one I5 is checked by the admin. A bench has one
partition, also with `--partitions 4`: what it looks at is one call, and a call is in one slot. With a clock the
scripts get their `now` from it, so debounce, retries and the end of leases need no waiting; without one they ask the
server. TTLs of keys are real in both cases; they are a minute and more.

With `twice` each call is sent a second time right after the first, or so many times more: the answers must be equal
and nothing in the namespace may change (rule 2 of the protocol). A call may be excused by name, with the reason in
`RESENT`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from streambatch import _connect
from streambatch._desk import Desk
from streambatch._events import Event
from streambatch._keys import Keys
from streambatch._messages import Answer, Batch, Message, Reply, encode_message
from streambatch._ports import Codec, Plain
from streambatch._rows import Claimed, Handover, NotNow, Work
from streambatch._scripts import Arg, Call, Refused, Wire
from streambatch._settings import Settings
from streambatch._store import Store
from streambatch._submit import Entry, Stored, Submission
from streambatch.errors import LeaseLost
from tests.integration import invariants
from tests.rig import Server, connect_async

#: The first moment of a bench with a clock, in ms.
DAWN = 1_800_000_000_000
HOUR = 3_600_000

#: Scripts whose second answer may differ from the first, with the reason. None of them may change anything.
RESENT = {
    "repair": "answers what it deleted, and the second time there is nothing to delete",
    "forfeit": "answers how many leases it ended",
    "XDEL": "a plain command: answers how many letters it discarded",
}

#: Thread and message ids that break naive keys, channels, formats and patterns.
HOSTILE = ("{}", "}{", "a\0b", "line\nbreak", "a:b:c", "%d%s%", "'\"\\", "ünï-🦊", " ", "x" * 256, "é" * 128, "0", "-")


def entry(thread: str, text: str, name: str = "", *, quiet: float = 0, author: str = "") -> Entry:
    """A message as submit takes it; *quiet* in ms."""
    data = encode_message(text, None, {})
    return Entry(thread, name, author, len(data) + len(name), round(quiet), data)


class Timed(Submission):
    """A call of a process whose dedup_window and max_wait are other ones, in ms."""

    memory: float = HOUR
    wait: float = 15_000

    def pack(
        self, keys: Keys, settings: Settings, opening: Sequence[Arg], ttl: int, *, resend: bool
    ) -> tuple[list[str], list[Arg]]:
        """KEYS and ARGV."""
        settings = replace(settings, dedup_window=self.memory / 1000, max_wait=self.wait / 1000)
        return super().pack(keys, settings, opening, ttl, resend=resend)


class Bench:
    """Sides on one server in one namespace."""

    def __init__(self, server: Server, namespace: str) -> None:
        self.server = server
        self.url = server.direct
        self.namespace = namespace
        self.admin: Any = connect_async(server.admin_url)
        self.admin.connection_pool.connection_kwargs["driver_info"] = None  # else it reads files below our frames
        self.now = 0
        self.bound = 0.0
        self.watch = True
        self.sides: list[Side] = []
        self.calls: list[str] = []
        self.answers: list[tuple[str, Any]] = []
        self.faults: list[AssertionError] = []

    async def side(
        self, *, runs: bool = True, hands: bool = True, history: bool = False, twice: int = 0,
        codec: Codec | None = None, attach: bool = True, **settings: Any,
    ) -> Side:  # fmt: skip
        """Open a side: a process that runs and delivers, unless told otherwise."""
        settings = {"partitions": 1, **settings}
        made = Side(self, Settings(**settings), codec or Plain(), runs=runs, hands=hands, history=history, twice=twice)
        self.sides.append(made)
        self.bound = max(self.bound, made.store.settings.horizon * 1000)
        made.begin()
        if attach:
            await made.store.join()
        return made

    def stop_time(self, at: int = DAWN) -> None:
        """From now on the scripts' time is what `tick` makes it."""
        self.now = at
        for side in self.sides:
            side.store.clock = str(at)

    def tick(self, ms: float) -> None:
        """Move the clock; backwards is a server whose clock was stepped."""
        if ms < 0:
            self.bound += -ms
        self.stop_time(self.now + round(ms))

    def raw(self) -> Any:
        """A client of the admin's whose answers are bytes; close it."""
        made = connect_async(self.server.admin_url, text=False)
        made.connection_pool.connection_kwargs["driver_info"] = None
        return made

    async def check(self) -> None:
        """I5 now."""
        await invariants.i5_indexed(self.admin, self.namespace, self.now, self.bound + 1)

    async def dump(self) -> dict[str, str]:
        """Everything the namespace holds, without TTLs."""
        return await invariants.dump(self.admin, self.namespace)

    async def index(self, thread: str, partition: int = 0) -> tuple[str, int]:
        """Which index a thread is in, and its distance from now in ms; ("", 0) for none."""
        for name in ("due", "outbox", "parked"):
            at = await self.admin.zscore(f"sb1:{{{self.namespace}.{partition:02d}}}:{name}", thread)
            if at is not None:
                return name, round(at) - self.now
        return "", 0

    def key(self, kind: str, thread: str | None = None, partition: int = 0) -> str:
        """The name of a key."""
        start = f"sb1:{{{self.namespace}.{partition:02d}}}:{kind}"
        return start if thread is None else f"{start}:{thread}"

    async def close(self) -> None:
        """End all sides, and raise the first fault that was found after a call."""
        for side in self.sides:
            await side.close()
        await self.admin.aclose()
        self.verdict()

    def named(self, store: Store) -> None:
        """A store was made; a bench that compares lives gives it a name that is always the same."""

    async def over(self, calls: Sequence[Call]) -> None:
        """An exchange is over, however often it was sent."""

    def verdict(self) -> None:
        """Raise the first fault that was found after a call."""
        faults, self.faults = self.faults, []
        if faults:
            raise faults[0]


class Side:
    """One process on the bench."""

    def __init__(
        self, bench: Bench, settings: Settings, codec: Codec, *, runs: bool, hands: bool, history: bool, twice: int
    ) -> None:
        self.bench = bench
        self.twice = twice
        self.events: list[Event] = []
        self.client: Any = cast("Any", _connect).client_of(bench.url, settings, 8 + 4 * settings.partitions)[0]
        self.store = Store(
            self.client, Keys(bench.namespace, settings.partitions), settings, codec, self.events.append,
            runs=runs, hands=hands, history=history,
        )  # fmt: skip
        bench.named(self.store)
        self.store.clock = str(bench.now) if bench.now else ""
        self.producer = self.store.producer
        self.number = 0
        self.seen: dict[str, Batch] = {}
        self.takes: dict[str, int] = {}
        self.desk = Desk(self.store)
        self.wire = self._watched(self.store.wire(0))
        inside: Any = self.store
        self._watched(inside._control(0))
        for lane in inside.lanes:
            self._watched(lane._wire)
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Start the lanes."""
        self._tasks = [asyncio.create_task(lane.run()) for lane in self.store.lanes]

    async def close(self) -> None:
        """End the lanes and the connections."""
        left = set(self._tasks)
        while left:  # again: the client that watches from inside a lane may lose a cancellation on Python 3.11
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)
        await self.wire.close()
        await self.store.aclose()
        await _connect.attempt_closed(self.client)  # with Sentinel the client holds others

    def _watched(self, wire: Wire) -> Wire:
        exchange: Callable[..., Awaitable[list[Any]]] = wire.exchange

        async def watched(calls: Sequence[Call], *rest: Any) -> list[Any]:
            answers = await exchange(calls, *rest)
            try:
                await self.sent(calls, answers)
                before = await self.bench.dump() if self.twice else {}
                for again in [await exchange(calls, *rest) for _ in range(self.twice)]:
                    await self.same(calls, answers, again, before)
                await self.bench.over(calls)
            except AssertionError as fault:  # a lane must not see it; the bench raises it at its end
                self.bench.faults.append(fault)
            return answers

        setattr(wire, "exchange", watched)  # noqa: B010 - pyright forbids assigning to a method
        return wire

    async def sent(self, calls: Sequence[Call], answers: Sequence[Any]) -> None:
        """Calls were answered: remember them, and ask I5."""
        for call, answer in zip(calls, answers, strict=True):
            name = call.script.name if call.script else str(call.argv[0])
            self.bench.calls.append(name)
            self.bench.answers.append((name, answer))
        if self.bench.watch:
            await self.bench.check()

    async def same(self, calls: Sequence[Call], first: Sequence[Any], again: Sequence[Any], before: Any) -> None:
        """The second sending changed nothing and was answered like the first."""
        after = await self.bench.dump()
        names = [call.script.name if call.script else str(call.argv[0]) for call in calls]
        keys = sorted(before.keys() | after.keys())
        changed = {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}
        assert not changed, f"sending {names} again changed {changed}"
        for name, one, two in zip(names, first, again, strict=True):
            if name not in RESENT and not isinstance(one, Refused):
                assert told(one) == told(two), f"{name} answered {one}, and when it was sent again {two}"

    # ── what a process does ──

    def call(
        self, thread: str, *texts: str, ids: Sequence[str] = (), quiet: float = 0, wait: float = 15_000,
        memory: int = HOUR, author: str = "",
    ) -> Submission:  # fmt: skip
        """A numbered submit call of a thread's messages; times in ms."""
        self.number += 1
        names = [*ids, *[""] * (len(texts) - len(ids))]
        entries = [
            entry(thread, text, name, quiet=quiet, author=author) for text, name in zip(texts, names, strict=True)
        ]
        call = Timed(self.store.keys.partition(thread), self.producer, self.number, entries, None)
        call.memory, call.wait = memory, wait
        return call

    async def send(self, call: Submission, *, resend: bool = False) -> list[Stored] | None:
        """Send a numbered call."""
        return (await self.store.submit(self.wire, call, resend=resend))[0]

    async def submit(self, thread: str, *texts: str, **more: Any) -> list[Stored]:
        """Store messages of a thread."""
        stored = await self.send(self.call(thread, *texts, **more))
        assert stored is not None
        return stored

    async def ready(self, limit: int = 100) -> list[str]:
        """The threads that peek names."""
        return list((await self.store.peek(self.wire, 0, limit)).ready)

    async def claim(self, thread: str) -> Claimed:
        """Claim whatever there is."""
        return await self.store.claim(self.store.keys.partition(thread), thread)

    async def work(self, thread: str) -> Work:
        """Claim a batch."""
        found = await self.claim(thread)
        assert isinstance(found, Work), found
        return found

    async def reply(self, thread: str) -> Handover:
        """Claim a reply."""
        found = await self.claim(thread)
        assert isinstance(found, Handover), found
        return found

    async def refused(self, thread: str) -> str:
        """Claim in vain; says why."""
        found = await self.claim(thread)
        assert isinstance(found, NotNow), found
        return found.word

    async def start(self, work: Work) -> int:
        """Begin a Run; the number of the attempt."""
        return (await self.store.start(work))[0]

    async def batch(self, work: Work, attempt: int = 1) -> Batch:
        """What a Run of this claim would see now."""
        entries = await self.store.control(None, (), ("XRANGE", work.lease.keys[0], work.first, work.last))
        self.seen[work.lease.token] = work.read(self.store.setting, attempt, entries)
        return self.seen[work.lease.token]

    async def texts(self, work: Work) -> tuple[str, ...]:
        """The texts of a batch."""
        return tuple(message.text for message in (await self.batch(work)).messages)

    async def more(self, work: Work, *, heard: bool = True) -> tuple[int, tuple[Message, ...]]:
        """What arrived meanwhile joins the batch. Unheard, the answer was lost: the next call asks for the same."""
        token = work.lease.token
        known, number = self.seen.get(token) or await self.batch(work), self.takes.get(token, 0) + 1
        revision, found = await self.store.more(work.lease, number)
        if heard:
            self.takes[token], self.seen[token] = number, replace(known, messages=known.messages + found)
        return revision, found

    async def settle(
        self, work: Work, text: str = "answer", *, go_on: bool = False, **answer: Any
    ) -> tuple[str, Reply, Claimed | None]:
        """Commit a Run."""
        known = self.seen.get(work.lease.token) or await self.batch(work, work.attempts + 1)
        return await self.store.settle(work.lease, known, Answer(text, **answer), "", go_on=go_on)

    async def turn(self, thread: str) -> tuple[str, ...]:
        """A whole turn: claim, start, settle, deliver; the texts of the batch."""
        work = await self.work(thread)
        await self.start(work)
        seen = await self.texts(work)
        word, _, _ = await self.settle(work)
        if word == "kept":
            await self.store.delivered(work.lease, go_on=False)
        return seen

    async def sweep(self) -> list[str]:
        """Take whatever is due to its end, without answers; what it was: the texts, and "reply" for a reply."""
        seen: list[str] = []
        for thread in await self.ready():
            claim = await self.claim(thread)
            if isinstance(claim, Work):
                seen += await self.texts(claim)
                batch, cancelled = self.seen[claim.lease.token], bool(claim.cancel)
                await self.store.settle(claim.lease, batch, Answer(), "", go_on=False, cancelled=cancelled)
            elif isinstance(claim, Handover):
                seen.append("reply")
                await self.store.delivered(claim.lease, go_on=False)
        return seen


def told(answer: Any) -> Any:
    """What an answer means: that the next batch of a thread is not to be had is left out by the store."""
    rows = cast("list[Any]", answer) if isinstance(answer, list) else []
    if not any(isinstance(row, list) for row in rows):
        return cast("object", answer)
    return [row[:1] if row[:1] == [b"done"] and row[1:2] not in ([b"batch"], [b"reply"]) else row for row in rows]


async def renewed(side: Side, work: Work) -> object:
    """Renewal says False where the others raise."""
    if await side.store.renew(work.lease) == "lost":
        raise LeaseLost
    return None


Verb = Callable[[Side, Work], Awaitable[object]]

#: Everything that the holder of a lease may do with it.
VERBS: dict[str, Verb] = {
    "start": lambda side, work: side.start(work),
    "checkpoint": lambda side, work: side.store.checkpoint(work.lease, b"late"),
    "more": lambda side, work: side.store.more(work.lease, 1),
    "settle": lambda side, work: side.settle(work, "late", go_on=True),
    "delivered": lambda side, work: side.store.delivered(work.lease, go_on=True),
    "undelivered": lambda side, work: side.store.undelivered(work.lease, 0, "late", counted=True, final=True),
    "release": lambda side, work: side.store.release(work.lease, 0, give_back=True),
    "bury": lambda side, work: side.store.bury(work.lease, "late", "late"),
    "renew": renewed,
}
