"""Group commit of submits: user tasks never touch a socket.

Theory of operation
-------------------
``put`` appends a message to the buffer of its partition and returns a future. One task per partition takes what
gathered, capped by count and bytes, and sends it in one numbered script call; at most one call is under way, so
messages are stored in the order in which they were submitted. An idle queue flushes at once; nobody waits for a timer.
While the server works on a call, the callers of the one before wake up, and what they submit is made the next call
(``_ready``), so that neither side waits for the other. Nothing of it counts as sent: until it is, it can be undone.

The server applies a numbered call once. When the outcome of a call is unknown the same call is sent again until there
is an answer, even after its callers have been told OutcomeUnknown: only then may the next call go out. So a caller who
submits again with the id on the error stands behind the answer, and ``_settled`` knows what became of the message.

How a message can end: stored (queued, duplicate), NotAccepted (nothing was sent, or the server answered that it did
nothing), OutcomeUnknown (it was sent, the answer did not come within submit_timeout), DurabilityUnknown (stored, but
the asked replicas were not heard). A caller that is cancelled changes nothing here.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Sequence

from ._retry import reconnect
from ._scripts import Withdrawn
from ._settings import Replicas
from ._store import Store
from ._submit import REFUSED, Entry, Replicated, Stored, Submission
from .errors import (
    DurabilityUnknown,
    NotAccepted,
    OutcomeUnknown,
    QueueClosed,
    QueueFull,
    Refused,
    ServerAway,
    StoreError,
    StreambatchError,
    Unreachable,
    UsageError,
)

MOST_BYTES = 1024 * 1024
MOST = 1_000
KNOWN = 10_000
SMALL = 48


class Waiting:
    """A message on its way, and who waits for it. No dataclass: there is one for every message."""

    __slots__ = ("done", "entry", "known", "number", "producer", "replicas", "until")

    def __init__(
        self, entry: Entry, producer: str, number: int, until: float, replicas: Replicas | None,
        done: asyncio.Future[Stored],
    ) -> None:  # fmt: skip
        self.entry, self.producer, self.number = entry, producer, number
        self.until, self.replicas, self.done = until, replicas, done
        self.known: Stored | None = None

    @property
    def name(self) -> str:
        """The message id given, or one made up, to be shown on errors, so that a retry is safe."""
        return self.entry.message_id or f"~{self.producer[:12]}.{self.number:x}"

    def fail(self, error: StreambatchError) -> None:
        """Tell the caller, if it is still there."""
        if not self.done.done():
            self.done.set_exception(error)


class Intake:
    """The buffers of all partitions of this process.

    Args:
        store: where messages go.
        limit: messages that may wait; then QueueFull.
    """

    def __init__(self, store: Store, limit: int) -> None:
        self._limit = limit
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._made = 0
        self.gates = [Gate(store, partition) for partition in range(store.keys.partitions)]

    def put(self, entry: Entry, until: float, replicas: Replicas | None) -> asyncio.Future[Stored]:
        """Queue a message for storing, until *until* (loop time) at most. Raises QueueFull, QueueClosed."""
        waiting = 0
        for gate in self.gates:
            waiting += gate.size()
        if waiting >= self._limit:
            raise QueueFull(f"{self._limit} messages of this process wait to be stored (intake_limit)", passing=True)
        self._made += 1
        done: asyncio.Future[Stored] = self._loop.create_future()
        gate = self.gates[self._store.keys.partition(entry.thread)]
        gate.put(Waiting(entry, self._store.producer, self._made, until, replicas, done))
        return done

    async def drained(self) -> None:
        """Return when nothing waits any more."""
        for gate in self.gates:
            await gate.idle.wait()


class Gate:
    """The buffer and the flusher of one partition."""

    def __init__(self, store: Store, partition: int) -> None:
        self._store = store
        self._partition = partition
        self._wire = store.wire(partition, self._may_go)
        self._buffer: deque[Waiting] = deque()
        self._flight: list[Waiting] = []
        self._ready: tuple[list[Waiting], Submission] | None = None
        self._sent = False
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()
        self._closed = False
        self._refusal: StoreError | None = None
        self._settled: OrderedDict[tuple[str, str], Stored] = OrderedDict()
        self.idle = asyncio.Event()
        self.idle.set()

    def size(self) -> int:
        """Messages that wait here."""
        return len(self._buffer) + len(self._flight) + (len(self._ready[0]) if self._ready else 0)

    def put(self, waiting: Waiting) -> None:
        """Append; the timer that ends the oldest's wait is armed once."""
        if self._closed:
            raise QueueClosed
        self._buffer.append(waiting)
        self._arrived.set()
        self.idle.clear()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(waiting.until, self._expire)

    async def run(self) -> None:
        """Flush until cancelled."""
        try:
            while True:
                if not self._buffer and self._ready is None:
                    self.idle.set()
                    self._arrived.clear()
                    await self._arrived.wait()
                self._flight, call = self._take()
                if self._flight:
                    await self._flush(call)
                self._flight = []
        except asyncio.CancelledError:
            self._end()
            raise
        finally:
            for waiting in self._flight:  # a bug of ours ended the loop in the middle of a call
                waiting.fail(self._unknown(waiting))
            await self._wire.close()

    def _may_be_there(self) -> bool:
        """Whether the call under way may have reached the server: an earlier sending, or the present one."""
        return self._sent or self._wire.sent

    def _end(self) -> None:
        self._closed = True
        self._undo()
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._flight:
            waiting.fail(self._unknown(waiting) if self._may_be_there() else QueueClosed())
        for waiting in self._buffer:
            waiting.fail(QueueClosed())
        self._buffer.clear()
        self._flight = []
        self.idle.set()

    def _next(self) -> list[Waiting]:
        taken: list[Waiting] = []
        size, most = 0, min(MOST, max(SMALL, len(self._buffer) // 2))
        while self._buffer and len(taken) < most and size < MOST_BYTES:
            waiting = self._buffer.popleft()
            if waiting.done.done():
                continue
            if self._settled:
                waiting.known = self._settled.get((waiting.entry.thread, waiting.entry.message_id))
            if waiting.known is not None and waiting.replicas is None:
                waiting.done.set_result(waiting.known)
                continue
            taken.append(waiting)
            size += waiting.entry.size
        return taken

    def _make(self) -> tuple[list[Waiting], Submission]:
        flight = self._next()
        self._number += 1
        return flight, self._call(flight, self._number)

    def _call(self, flight: Sequence[Waiting], number: int) -> Submission:
        entries = [waiting.entry for waiting in flight if waiting.known is None]
        call = Submission(self._partition, self._store.producer, number, entries, self._replicas(flight))
        self._store.pack(call)
        return call

    def _look_ahead(self) -> None:
        if self._ready is None and self._flight and len(self._buffer) >= SMALL:
            self._ready = self._make()

    def _take(self) -> tuple[list[Waiting], Submission]:
        if self._ready is not None and any(waiting.done.done() for waiting in self._ready[0]):
            self._undo()
        ready, self._ready = self._ready, None
        return ready or self._make()

    def _undo(self) -> None:
        """What was made ready waits as before: its time is over, or more is known about it by now."""
        if self._ready is not None:
            self._buffer.extendleft(reversed(self._ready[0]))
            self._ready = None

    async def _flush(self, call: Submission) -> None:
        self._sent = False
        tries = 0
        while self._sent or not all(waiting.done.done() for waiting in self._flight):
            try:
                if not self._sent and self._left():
                    self._flight = [waiting for waiting in self._flight if not waiting.done.done()]
                    call = self._call(self._flight, call.number)
                answer, heard = await self._store.submit(self._wire, call, resend=self._sent)
            except Withdrawn:
                continue
            except StreambatchError as error:
                self._store.heard(error if isinstance(error, Unreachable) else None, self._partition)
                if self._failed(error) or not await self._joined(error):
                    return
                tries += 1
                await asyncio.sleep(reconnect(tries, random.random()))
            else:
                self._store.heard(None, self._partition)
                self._refusal = None
                self._answer(answer, heard)
                await self._repair(call.entries, answer)
                return

    def _left(self) -> bool:
        """Whether somebody's wait for the call under way is over."""
        return any(waiting.done.done() for waiting in self._flight)

    def _may_go(self) -> bool:
        """Whether the call may be sent: never with a message of somebody who was told that nothing is stored (I16)."""
        return self._sent or not self._left()

    async def _joined(self, error: StreambatchError) -> bool:
        """After FLUSHALL the namespace is joined again; False if it is another's now, and the call is over."""
        if isinstance(error, Refused) and error.code == "SBNEW":
            try:
                await self._store.join()
            except UsageError as refusal:
                for waiting in self._flight:
                    waiting.fail(self._unknown(waiting) if self._sent else refusal)
                return False
            except StoreError:
                return True
        return True

    def _failed(self, error: StreambatchError) -> bool:
        """What a failed exchange means; True if the call is over."""
        if isinstance(error, Unreachable):
            self._sent = self._sent or error.sent
            self._refusal = None
            return False
        if isinstance(error, Refused) and error.passing and (error.code != "OOM" or self._sent):
            self._refusal = error
            return False
        if isinstance(error, Refused) and error.code == "OOM":
            error = QueueFull("the server is at its maxmemory; nothing was stored", passing=True)
        for waiting in self._flight:
            waiting.fail(self._unknown(waiting) if self._sent else error)
        return True

    def _answer(self, answer: list[Stored] | None, heard: Replicated) -> None:
        if answer is None:  # the server lost the producer's number: it cannot tell any more
            for waiting in self._flight:
                waiting.fail(self._unknown(waiting))
            return
        following = iter(answer)
        told: list[tuple[asyncio.Future[Stored], Stored]] = []
        for waiting in self._flight:
            stored = waiting.known or next(following)
            if waiting.done.done():
                self._remember(waiting, stored)
            elif stored.word in REFUSED:
                waiting.fail(_refusal(stored.word, waiting.entry.thread))
            elif waiting.replicas is not None and heard.count < waiting.replicas.count:
                self._remember(waiting, stored)
                waiting.fail(
                    DurabilityUnknown(
                        f"stored, but {heard.count} of {waiting.replicas.count} replicas confirmed it in time",
                        message_id=waiting.name,
                    )
                )
            else:
                told.append((waiting.done, stored))
        if self._buffer or self._ready:  # the next call is sent first: the server works while the callers wake up
            loop = asyncio.get_running_loop()
            loop.call_soon(_tell, told)
            loop.call_soon(loop.call_soon, self._look_ahead)  # when they have submitted again
        else:
            _tell(told)

    async def _repair(self, entries: Sequence[Entry], answer: list[Stored] | None) -> None:
        for entry, stored in zip(entries, answer or (), strict=False):
            if stored.word == "x":
                try:
                    await self._store.repair(entry.thread)
                except StreambatchError:
                    return  # the next submit of this thread meets it again

    def _remember(self, waiting: Waiting, stored: Stored) -> None:
        """For a caller who comes again with a made-up name; a name that was given is the server's to remember."""
        if waiting.entry.message_id or stored.word in REFUSED:
            return
        self._undo()
        self._settled[waiting.entry.thread, waiting.name] = Stored("duplicate", stored.entry)
        while len(self._settled) > KNOWN:
            self._settled.popitem(last=False)

    def _expire(self) -> None:
        """End the waits that are over; nothing that is under way is touched."""
        now = asyncio.get_running_loop().time()
        self._undo()
        while self._buffer and self._buffer[0].until <= now:
            self._buffer.popleft().fail(self._away())
        for waiting in self._flight:
            if waiting.until <= now:
                waiting.fail(self._unknown(waiting) if self._may_be_there() else self._away())
        rest = [w.until for w in self._flight if not w.done.done()] + [w.until for w in list(self._buffer)[:1]]
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(min(rest), self._expire) if rest else None

    def _away(self) -> NotAccepted:
        if self._refusal is not None:
            return ServerAway(f"{self._refusal}; nothing was stored")
        return ServerAway()

    @staticmethod
    def _unknown(waiting: Waiting) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"the message {waiting.name!r} was sent but the server's answer never came; it may be stored",
            message_id=waiting.name,
        )

    @staticmethod
    def _replicas(flight: Sequence[Waiting]) -> Replicas | None:
        asked = [waiting.replicas for waiting in flight if waiting.replicas is not None]
        return max(asked, key=lambda r: (r.count, r.timeout)) if asked else None


def _tell(told: list[tuple[asyncio.Future[Stored], Stored]]) -> None:
    for done, stored in told:
        if not done.done():
            done.set_result(stored)


def _refusal(word: str, thread: str) -> NotAccepted:
    if word == "n":
        return QueueFull(f"thread {thread!r} has max_pending messages waiting; nothing was stored")
    if word == "b":
        return QueueFull(f"thread {thread!r} has max_pending_bytes waiting; nothing was stored")
    repaired = f"thread {thread!r} had a key of a foreign type; it is being repaired, nothing was stored"
    return NotAccepted(repaired, passing=True)
