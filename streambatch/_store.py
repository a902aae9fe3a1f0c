"""The domain verbs over the scripts: nothing above this file sees bytes of the wire or an error of the client.

Theory of operation
-------------------
Two kinds of verbs. Those of a turn (claim, start, settle, …) go through the lane of their partition and are sent
again until they are answered or late: they are idempotent. The others are one call on the control connection and are
sent again for a few seconds only.

Operation ids come from the claim id: a claim has at most one settle, one delivered and so on, so ``<claim>s`` names the
operation and a re-send is recognised even after the lease went to somebody else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import getpid
from socket import gethostname
from typing import Any
from uuid import uuid4

from . import _scripts as scripts
from ._events import Emit, StoreAway, StoreBack, Warned
from ._keys import Keys
from ._lane import Lane, Request, Row
from ._lease import Lease
from ._messages import TRACE, Answer, Batch, Message, Reply, encode_reply, to_json
from ._ports import Carrier, Codec
from ._retry import reconnect
from ._rows import PAGE, Claimed, Handover, NotNow, Outcome, Peek, Setting, Work, claimed, context, messages_of
from ._scripts import Arg, Call, Script, Wire, Wires
from ._settings import Settings, ms
from ._submit import Replicated, Stored, Submission
from ._topology import Client, at, spread
from .errors import LeaseLost, Refused, StoreError, TooLarge, Unreachable

PRODUCER_TTL = 86_400_000
TRIES = 5
AWAITED = (
    "processes of this namespace have delivered before: replies of this worker wait for a process with a deliver"
    " callback, and their threads with them (docs/runbook.md)"
)
_NAMES = ("claim", "settle", "delivered", "undelivered", "release", "bury", "split", "more")


class Foreign(StoreError):
    """A key of a thread has a type that is not ours."""


class Store:
    """A namespace in the server.

    Args:
        client: an open client of redis-py.
        keys: the namespace's keys.
        settings: as given to the queue.
        codec: for every stored byte of content.
        emit: where StoreAway and StoreBack go.
        runs: this process has a runner.
        hands: this process delivers.
        history: the runner keeps its history here, so a claim brings it along.

    Attributes:
        shut: for now this process claims no batches but cancelled ones, because its runner's scope has no room
            (`_scope`). Its role stays.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        settings: Settings,
        codec: Codec,
        emit: Emit,
        *,
        runs: bool = False,
        hands: bool = False,
        history: bool = False,
    ) -> None:
        self.keys = keys
        self.settings = settings
        self.setting = Setting(keys.namespace, codec)
        self.runs, self.hands, self.history = runs, hands, history
        self.shut = False
        self.producer = uuid4().hex
        self.owner = f"{gethostname()[:40]}:{getpid()}:{self.producer[:8]}"
        self.clock = ""
        self._client = client
        self._emit = emit
        self._claims = 0
        self._gone: set[int] = set()  # servers that do not answer, by a partition that is there
        self._since = 0.0
        self._controls: dict[int, Wire] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._closed = False
        self.lanes = [
            Lane(self.wire(p), self._head_of(p), lambda error, p=p: self.heard(error, p), self.join)
            for p in range(keys.partitions)
        ]

    def wire(self, partition: int, may: Callable[[], bool] = lambda: True) -> Wire:
        """A connection of its own for a loop of a partition; it closes it. Before it sends it asks if it *may*."""
        return Wire(at(self._client, self.keys.of(partition, "meta")), self.settings.patience, may)

    def wires(self) -> Wires:
        """For a loop that speaks to all partitions; it closes them."""
        return Wires([self.wire(p) for p in range(self.keys.partitions if spread(self._client) else 1)])

    @property
    def claims(self) -> bool:
        """Whether this process claims batches now."""
        return self.runs and not self.shut

    @property
    def _starts(self) -> int:
        """To the scripts: 1 if this process runs batches, 2 if for now it only ends cancelled ones, 0 if neither."""
        return 2 if self.shut else int(self.runs)

    @property
    def away(self) -> bool:
        """Whether the last that was heard of the server is that it does not answer."""
        return bool(self._gone)

    def heard(self, error: StoreError | None, partition: int = 0) -> None:
        """The server of a partition was (not) heard: StoreAway at the first that is not, StoreBack when all are."""
        place = partition if spread(self._client) else 0
        if error is not None:
            if not self._gone:
                self._since = asyncio.get_running_loop().time()
                self._emit(StoreAway(str(error)))
            self._gone.add(place)
        elif place in self._gone:
            self._gone.remove(place)
            if not self._gone:
                self._emit(StoreBack(asyncio.get_running_loop().time() - self._since))

    def opening(self) -> list[Arg]:
        """The arguments every state-changing script opens with."""
        s = self.settings
        return [self.clock, self.keys.partitions, ms(s.horizon), s.max_batch, s.max_batch_bytes]

    def turning(self) -> list[Arg]:
        """The further arguments of the scripts that claim a thread or end a turn."""
        s = self.settings
        keep = ms(max(s.dedup_window, s.reply_retention, 60))
        return [
            self.owner, ms(s.lease), int(self.runs), int(self.hands), int(s.split_authors), int(self.history), keep,
            ms(s.reply_retention), ms(s.state_ttl), s.dead_limit,
        ]  # fmt: skip

    def _head_of(self, partition: int) -> Any:
        shared, turn = self.keys.shared(partition), self.turning()

        def head(script: Script) -> tuple[Sequence[str], Sequence[Arg]]:
            if script.name in _NAMES:
                turn[2] = self._starts
                return shared, [*self.opening(), *turn]
            return (shared[1:4], [self.clock]) if script is scripts.RENEW else ((), ())

        return head

    # ── verbs of a turn ──

    def next_claim(self) -> str:
        """A fresh claim id; also the nonce of its token."""
        self._claims += 1
        return f"{self.producer[:16]}.{self._claims:x}"

    async def _ask(self, script: Script, partition: int, keys: Sequence[str], *argv: Arg, wait: float) -> Row:
        until = asyncio.get_running_loop().time() + wait
        size = sum([len(value) for value in argv if isinstance(value, bytes)])
        return await self.lanes[partition].put(Request(script, keys, argv, until, size))

    async def _held(self, script: Script, lease: Lease, *argv: Arg, keys: Sequence[str] | None = None) -> Row:
        row = await self._ask(script, lease.partition, keys or lease.keys, *argv, wait=2 * lease.ttl)
        if row[0] == b"lost":
            raise LeaseLost(f"the lease of thread {lease.thread!r} ended; another process may have it")
        if row[0] == b"broken":
            raise Foreign(f"thread {lease.thread!r} has a key of a foreign type: {row[1].decode()}")
        return row

    async def claim(self, partition: int, thread: str, due: float | None = None) -> Claimed:
        """Take a thread that is due, since *due* (loop time) if that is known; NotNow says why not."""
        now = asyncio.get_running_loop().time()
        claim = self.next_claim()
        lease = Lease(thread, partition, "", 0, self.settings.lease, self.keys.thread(partition, thread))
        row = await self._ask(scripts.CLAIM, partition, lease.keys, thread, claim, wait=self.settings.lease)
        return claimed(row, lease, now, due)

    async def start(self, work: Work) -> tuple[int, Row]:
        """Count a started attempt and read the batch, in one exchange: its number, its entries. Raises LeaseLost."""
        lease, until = work.lease, asyncio.get_running_loop().time() + 2 * work.lease.ttl
        read = Request(None, (), ("XRANGE", lease.keys[0], work.first, work.last), until)
        entries = self.lanes[lease.partition].put(read)
        entries.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at even if start fails
        row = await self._held(scripts.START, lease, lease.token, keys=lease.keys[2:4])
        return int(row[1]), await entries

    async def checkpoint(self, lease: Lease, data: bytes) -> None:
        """Keep a runner's bytes. Raises LeaseLost."""
        data = self._encoded(data, "checkpoint", lease, "a checkpoint")
        await self._held(scripts.CHECKPOINT, lease, lease.token, data, keys=lease.keys[2:4])

    async def more(self, lease: Lease, number: int) -> tuple[int, tuple[Message, ...]]:
        """What arrived meanwhile joins the batch: its new revision and the new messages. Raises LeaseLost."""
        row = await self._held(scripts.MORE, lease, lease.thread, lease.token, f"{lease.token}m{number}")
        return int(row[1]), messages_of(self.setting, lease.thread, row[2:])

    async def settle(
        self, lease: Lease, batch: Batch, answer: Answer, kind: str, *, go_on: bool, cancelled: bool = False,
        carrier: Carrier | None = None,
    ) -> tuple[str, Reply, Claimed | None]:  # fmt: skip
        """Commit a Run: kept (deliver now), left (others will) or done; the reply; the next claim. Raises LeaseLost.

        Or nothing is written and the word is ``keep`` or ``drop``: the Run was cancelled and must be settled as that.
        """
        last = batch.messages[-1]
        reply = Reply(
            id=batch.id, thread=batch.thread, batch_id=batch.id, message_ids=tuple(m.id for m in batch.messages),
            text=answer.text, parts=answer.parts, metadata=last.metadata, usage=answer.usage, flags=answer.flags,
            fence=lease.fence, extra={TRACE: carrier} if carrier else {},
        )  # fmt: skip
        said = bool(answer.text or answer.parts)
        word = "cancelled" if cancelled else "answered" if said else "none"
        now, claim = asyncio.get_running_loop().time(), self.next_claim() if go_on else ""
        data = self._encoded(encode_reply(reply), "reply", lease, "the answer") if said else b""
        stateful = answer.state is not None
        state = to_json(answer.state, "Answer.state") if stateful else b""
        state = self._encoded(state, "state", lease, "Answer.state") if stateful else b""
        turns = [self._encoded(to_json(t, "Answer.turns"), "turn", lease, "a turn") for t in answer.turns]
        row = await self._held(
            scripts.SETTLE, lease, lease.thread, lease.token, f"{lease.token}{'c' if cancelled else 's'}", last.entry,
            word, data, batch.id, kind, int(stateful), state, answer.forget, claim, len(turns), *turns,
        )  # fmt: skip
        word = row[0].decode()
        if word == "cancelling":
            return row[1].decode(), reply, None
        if word == "kept":
            return word, replace(reply, sequence=int(row[1])), None
        return word, reply, self._next(row, lease, now)

    async def delivered(self, lease: Lease, *, go_on: bool) -> Claimed | None:
        """A reply was handed over; the thread's next batch, if it is due. Raises LeaseLost."""
        now, claim = asyncio.get_running_loop().time(), self.next_claim() if go_on else ""
        row = await self._held(scripts.DELIVERED, lease, lease.thread, lease.token, f"{lease.token}d", claim)
        return self._next(row, lease, now)

    async def undelivered(
        self, lease: Lease, delay: float, reason: str, *, counted: bool, final: bool
    ) -> tuple[str, int]:
        """A reply could not be handed over: later, dead or full, and the tries so far. Raises LeaseLost."""
        limit = 0 if final else self.settings.max_delivery_attempts
        row = await self._held(
            scripts.UNDELIVERED, lease, lease.thread, lease.token, f"{lease.token}u", ms(delay), int(counted), limit,
            reason,
        )  # fmt: skip
        return row[0].decode(), int(row[1])

    async def release(self, lease: Lease, delay: float | None, *, give_back: bool, why: str = "") -> None:
        """Give a batch or reply back; None puts a batch at its old place. *why* is for explain. Raises LeaseLost."""
        wait = -1 if delay is None else ms(delay)
        await self._held(
            scripts.RELEASE, lease, lease.thread, lease.token, f"{lease.token}r", wait, int(give_back), why
        )

    async def bury(self, lease: Lease, batch: str, reason: str, tries: int = 1) -> bool:
        """A batch failed for good; False if the dead letters are full. Raises LeaseLost."""
        row = await self._held(scripts.BURY, lease, lease.thread, lease.token, f"{lease.token}b", batch, reason, tries)
        return row[0] == b"dead"

    async def split(self, lease: Lease) -> bool:
        """Give a batch back, halved unless it was cancelled; False if it is one message. Raises LeaseLost."""
        row = await self._held(scripts.SPLIT, lease, lease.thread, lease.token, f"{lease.token}h")
        return row[0] != b"single"

    async def renew(self, lease: Lease) -> str:
        """Extend a lease: renewed, keep or drop (renewed, and its Run shall end), or lost."""
        row = await self._ask(
            scripts.RENEW, lease.partition, lease.keys[2:3], lease.thread, lease.token, ms(lease.ttl), wait=lease.ttl
        )
        return row[0].decode()

    def _encoded(self, data: bytes, kind: str, lease: Lease, what: str) -> bytes:
        data = self.setting.codec.encode(data, context(kind, lease.thread))
        if len(data) > self.settings.max_answer_bytes:
            raise TooLarge(f"{what} has {len(data)} bytes; max_answer_bytes is {self.settings.max_answer_bytes}")
        return data

    def _next(self, row: Row, lease: Lease, now: float) -> Claimed | None:
        found = claimed(row[1:], lease, now) if len(row) > 1 else None
        return None if isinstance(found, NotNow) else found

    # ── one call on the control connection ──

    async def control(self, script: Script | None, keys: Sequence[str], argv: Sequence[Arg], extra: float = 0.0) -> Any:
        """One call, sent again a few times, with *extra* seconds each; only for what is harmless twice."""
        return (await self.insist(script, keys, argv, extra))[0]

    async def insist(
        self, script: Script | None, keys: Sequence[str], argv: Sequence[Arg], extra: float = 0.0
    ) -> tuple[Any, bool]:
        """As ``control``, and whether an earlier sending, whose answer was lost, may have done it already."""
        lost = False
        count, place = 0, self.keys.place(keys[0] if keys else str(argv[1])) if spread(self._client) else 0
        while True:
            try:
                async with self._locks.setdefault(place, asyncio.Lock()):
                    answer = await self._control(place).call(script, keys, argv, extra)
                    self.heard(None, place)
                    return answer, lost
            except (Unreachable, Refused) as error:
                count += 1
                lost = lost or (isinstance(error, Unreachable) and error.sent)
                self.heard(error if isinstance(error, Unreachable) else None, place)
                if count == TRIES or (isinstance(error, Refused) and not error.passing):
                    raise
                if isinstance(error, Refused) and error.code == "SBNEW":
                    await self.join()
                else:
                    await asyncio.sleep(reconnect(count, random.random()))

    def _control(self, place: int) -> Wire:
        if self._closed:
            raise StoreError("the queue was closed")
        if place not in self._controls:
            self._controls[place] = self.wire(place)
        return self._controls[place]

    async def peek(self, wire: Wire, partition: int, limit: int) -> Peek:
        """Who is due."""
        s = self.settings
        argv = [self.clock, self.keys.partitions, ms(s.horizon), self._starts, int(self.hands), limit]
        return Peek.of(await wire.call(scripts.PEEK, self.keys.shared(partition)[:3], argv))

    def pack(self, call: Submission, *, resend: bool = False) -> tuple[list[str], list[Arg]]:
        """KEYS and ARGV of a numbered submit call."""
        return call.pack(self.keys, self.settings, self.opening(), PRODUCER_TTL, resend=resend)

    async def submit(self, wire: Wire, call: Submission, *, resend: bool) -> tuple[list[Stored] | None, Replicated]:
        """One exchange of a numbered submit call; with replicas, WAIT on the same connection."""
        keys, argv = self.pack(call, resend=resend)
        calls = [Call(scripts.SUBMIT, keys, argv)]
        if call.replicas is not None:
            calls.append(Call(None, (), ("WAIT", call.replicas.count, ms(call.replicas.timeout))))
        answers = await wire.exchange(calls, call.replicas.timeout if call.replicas is not None else 0.0)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return call.unpack(answers[0]), Replicated(answers[1] if call.replicas is not None else 0)

    async def join(self, extra: float = 0.0) -> None:
        """Join all partitions, 0 first: layout and number checked, the role remembered. Raises UsageError."""
        for partition in range(self.keys.partitions):
            keys = [self.keys.of(partition, "meta"), self.keys.producer(partition, self.producer)]
            argv = [self.keys.partitions, int(self.hands), PRODUCER_TTL]
            awaited = await self.control(scripts.ATTACH, keys, argv, extra)
            if awaited == b"awaited" and partition == 0 and self.runs and not self.hands:
                self._emit(Warned("deliverer", AWAITED))

    async def outcome(self, thread: str, entry: str, interest: float, after: str = "") -> Outcome:
        """What became of a message, and with *after* what was shown since; for *interest* seconds hints follow."""
        p, kinds = self.keys.partition(thread), ("reply", "stream", "events", "run", "last")
        keys = [self.keys.of(p, "awaited"), self.keys.of(p, "followed"), *self.keys.some(p, thread, kinds)]
        row = await self.control(scripts.AWAIT, keys, [self.clock, thread, entry, ms(interest), after, PAGE])
        return Outcome.of(row, thread, entry, self.setting)

    async def repair(self, thread: str) -> str:
        """Put a thread's keys in order; the kinds of keys that were foreign."""
        partition = self.keys.partition(thread)
        keys = [*self.keys.shared(partition), *self.keys.thread(partition, thread)]
        found = await self.control(scripts.REPAIR, keys, [*self.opening(), thread])
        return " ".join(kind.decode() for kind in found)

    async def aclose(self) -> None:
        """Close the control connections; lanes close their own."""
        self._closed = True
        for wire in self._controls.values():
            await wire.aclose()


__all__ = ["PRODUCER_TTL", "Handover", "NotNow", "Store", "Work"]
