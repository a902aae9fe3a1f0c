"""Group commit for a worker's verbs: one exchange in flight, everything that gathered meanwhile in the next.

Theory of operation
-------------------
A turn asks for ``start``, ``settle``, ``delivered`` … of one thread and awaits the answer. It never touches a socket:
the request is put into the lane of its partition, and the lane's one task sends all that is there, grouped by verb,
one script call a verb, all in one exchange. An idle lane sends at once; a busy one batches by itself, nobody waits for
a timer.

Requests are idempotent (operation ids, tokens), so when the server does not answer the lane sends the same requests
again, until each one's own deadline; then its caller gets the StoreError. A cancelled caller changes nothing: what was
sent was sent, and the fence decides what it means. One refused call (an ACL, a damaged key) is sent again request by
request, so that only the bad one fails; so is an exchange that failed twice on its way, and a request that then fails
alone goes behind all others, because the server may never take it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._retry import reconnect
from ._scripts import Arg, Call, Script, Wire
from .errors import Refused, StoreError, StreambatchError, Unreachable, UsageError

Row = list[Any]
SMALL = 64


@dataclass(slots=True, eq=False)
class Request:
    """One thread's share of a script call, or with script None a plain command; and who waits for its row."""

    script: Script | None
    keys: Sequence[str]
    argv: Sequence[Arg]
    until: float
    size: int = 0
    alone: bool = False
    answer: asyncio.Future[Row] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Lane:
    """The worker verbs of one partition.

    Args:
        wire: its connection.
        head: gives the keys and arguments that stand before the threads' in a call of a script.
        away: told of every failed exchange (an error) and of the first good one after it (None).
        join: joins the namespace again when its meta is gone (FLUSHALL).
    """

    MOST = 512
    MOST_BYTES = 4 * 1024 * 1024

    def __init__(
        self,
        wire: Wire,
        head: Callable[[Script], tuple[Sequence[str], Sequence[Arg]]],
        away: Callable[[StoreError | None], None],
        join: Callable[[], Awaitable[None]],
    ) -> None:
        self._wire = wire
        self._head = head
        self._away = away
        self._join = join
        self._waiting: deque[Request] = deque()
        self._arrived = asyncio.Event()
        self._tries = 0
        self._over = False

    def put(self, request: Request) -> asyncio.Future[Row]:
        """Send *request* with the next exchange; after the end of the lane it is answered with a StoreError."""
        if self._over:
            request.answer.set_exception(StoreError("the queue is closed"))
        else:
            self._waiting.append(request)
            self._arrived.set()
        return request.answer

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                if not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
                batch = self._next()
                if batch:
                    await self._flush(batch)
        except asyncio.CancelledError:
            self._over = True
            _fail(self._waiting, StoreError("the queue is closed"))
            raise
        finally:
            await self._wire.close()

    def _next(self) -> list[Request]:
        batch: list[Request] = []
        size = 0
        most = min(self.MOST, max(SMALL, len(self._waiting) // 2))
        while self._waiting and len(batch) < most and size < self.MOST_BYTES:
            if self._waiting[0].alone and batch:
                break
            request = self._waiting.popleft()
            if not request.answer.done():
                batch.append(request)
                size += request.size
            if request.alone and batch:
                break
        return batch

    async def _flush(self, batch: list[Request]) -> None:
        groups: dict[object, list[Request]] = {}
        for request in batch:
            groups.setdefault(request.script.name if request.script else request, []).append(request)
        order = list(groups.values())
        try:
            answers = await self._wire.exchange([self._call(group) for group in order])
        except StoreError as error:
            await self._again(batch, error)
            return
        except asyncio.CancelledError:
            _fail(batch, StoreError("the queue is closed"))
            raise
        except Exception as error:  # noqa: BLE001 - an argument that cannot be packed must fail alone
            self._apart(batch, error)
            return
        passing: list[Request] = []
        reason = StoreError()
        refused: list[tuple[list[Request], Exception]] = []
        for group, answer in zip(order, answers, strict=True):
            if isinstance(answer, Refused) and answer.passing:
                passing += group
                reason = answer
            elif isinstance(answer, Exception):
                refused.append((group, answer))
            else:
                _tell(group, answer if group[0].script else [answer])
        for group, answer in refused:
            self._apart(group, answer)
        if passing:
            await self._again(passing, reason)
        else:
            self._tries = 0
            self._away(None)

    def _apart(self, batch: list[Request], error: Exception) -> None:
        """What was refused or cannot be sent goes again one by one: one bad thread must not stop others (rule 1)."""
        if len(batch) == 1:
            known = isinstance(error, StreambatchError)
            _fail(batch, error if known else UsageError(f"an argument cannot be sent: {type(error).__name__}"))
            return
        self._first(batch, alone=True)

    def _first(self, batch: list[Request], *, alone: bool) -> None:
        for request in reversed(batch):
            request.alone = request.alone or alone
            self._waiting.appendleft(request)

    async def _again(self, batch: list[Request], error: StoreError) -> None:
        if isinstance(error, Refused) and not error.passing:
            _fail(batch, error)
            return
        if isinstance(error, Refused) and error.code == "SBNEW":
            try:
                await self._join()
            except StreambatchError as refusal:
                _fail(batch, refusal)
                return
        else:
            self._away(error)
        now = asyncio.get_running_loop().time()
        late = [request for request in batch if request.until <= now]
        _fail(late, error)
        rest = [request for request in batch if request.until > now]
        lost = isinstance(error, Unreachable) and error.sent
        self._tries += 1
        if lost and len(batch) == 1 and self._waiting:
            self._waiting.extend(rest)
            self._tries = 1  # the others must not wait for longer and longer because of it
        else:
            self._first(rest, alone=lost and self._tries > 1)
        await asyncio.sleep(reconnect(self._tries, random.random()))

    def _call(self, group: list[Request]) -> Call:
        script = group[0].script
        if script is None:
            return Call(None, (), group[0].argv)
        keys, argv = self._head(script)
        all_keys, all_argv = list(keys), list(argv)
        for request in group:
            all_keys += request.keys
            all_argv += request.argv
        return Call(script, all_keys, all_argv)


def _fail(group: Iterable[Request], error: Exception) -> None:
    for request in group:
        if not request.answer.done():
            request.answer.set_exception(error)


def _tell(group: list[Request], rows: list[Any]) -> None:
    for request, row in zip(group, rows, strict=True):
        if not request.answer.done():
            request.answer.set_result([row] if isinstance(row, bytes) else row)
