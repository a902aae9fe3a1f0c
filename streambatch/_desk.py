"""The operator's verbs: look, pause, count, dead letters. Each is one bounded call; nothing walks all threads.

What they answer are the values of ``_explain.py``; content of messages only where the verb's name says so (pending,
dead letters), never in a repr.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from . import _scripts as scripts
from ._explain import DeadLetterInfo, Explanation, ScopeInfo, Stats, ThreadInfo, explain
from ._messages import Cancellation, Message, decode_reply
from ._ports import Limits
from ._rows import messages_of, order
from ._scope import scope_head, scope_name
from ._scripts import Arg, Script
from ._settings import ms
from ._store import PRODUCER_TTL, Store
from .errors import StoreError, UsageError


class Desk:
    """Operator verbs of a namespace.

    Args:
        store: the server.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._producer = f"{store.producer}-desk"
        self._number = 0
        self._lock = asyncio.Lock()

    async def look(self, thread: str) -> dict[str, str]:
        """Everything there is to say about a thread, by name."""
        store = self._store
        keys = store.keys.looked(store.keys.partition(thread), thread)
        row = await store.control(scripts.LOOK, keys, [store.clock, thread])
        return {row[i].decode(): row[i + 1].decode() for i in range(0, len(row), 2)}

    async def explain(self, thread: str) -> Explanation:
        """Why is (nothing) happening here?"""
        return explain(thread, await self.look(thread))

    async def pending(self, thread: str) -> tuple[Message, ...]:
        """The messages that wait and are in no batch, oldest first."""
        store, seen = self._store, await self.look(thread)
        start = f"({seen['run.last']}" if seen.get("run.last") else "-"
        key = store.keys.some(store.keys.partition(thread), thread, ("stream",))[0]
        rows: list[Any] = await store.control(
            None, (), ("XRANGE", key, start, "+", "COUNT", store.settings.max_pending)
        )
        return messages_of(store.setting, thread, rows)

    async def touch(self, thread: str, quiet: float) -> str:
        """Typing (*quiet* seconds) or run_now (negative)."""
        store = self._store
        p = store.keys.partition(thread)
        keys = [*store.keys.shared(p), *store.keys.some(p, thread, ("stream", "window", "run"))]
        argv = [*store.opening(), thread, -1 if quiet < 0 else ms(quiet)]
        return (await store.control(scripts.TOUCH, keys, argv)).decode()

    async def pause(self, thread: str | None, *, on: bool) -> None:
        """Pause or resume a thread, or with None the whole namespace."""
        store = self._store
        places = range(store.keys.partitions) if thread is None else (store.keys.partition(thread),)
        for p in places:
            keys = [*store.keys.shared(p), *store.keys.some(p, thread or "", ("run", "lease"))]
            await store.control(scripts.PAUSE, keys, [*store.opening(), thread or "", int(on)])

    async def scope(self, name: str) -> ScopeInfo:
        """What is used of a scope. Raises UsageError."""
        row = (await self._about(name, scripts.ADMIT, ""))[0]
        word = "" if row[0] == b"room" else row[2].decode()
        state = word if word in ("", "parked", "probing") else "full"
        seconds = int(row[1]) / 1000 if word else 0.0
        return ScopeInfo(name, state or "open", seconds, row[3].decode(), *(int(number) for number in row[4:7]))

    async def unpark(self, name: str) -> None:
        """Open a scope now. Raises UsageError."""
        await self._about(name, scripts.PARK, "", -1, "")

    async def _about(self, name: str, script: Script, *argv: Arg) -> list[Any]:
        store = self._store
        return await store.control(script, store.keys.scope(scope_name(name)), [*scope_head(store, Limits()), *argv])

    async def find(self, thread: str, message_id: str) -> str | None:
        """The entry id of a message id, within the dedup window."""
        store = self._store
        key = store.keys.seen(store.keys.partition(thread), thread, message_id)
        found = await store.control(None, (), ("GET", key))
        return None if found is None else found.decode()

    async def stats(self) -> Stats:
        """Counts over all partitions; O(partitions)."""
        total: dict[str, float] = {}
        for p in range(self._store.keys.partitions):
            row = await self._store.control(scripts.STATS, self._store.keys.counted(p), [self._store.clock])
            fields = {row[i].decode(): row[i + 1].decode() for i in range(0, len(row), 2)}
            Stats.add(total, fields)
        return Stats.of(total)

    async def threads(self, state: str, offset: int, count: int) -> tuple[ThreadInfo, ...]:
        """A page of threads of an index: due, outbox or parked, most urgent first."""
        if state not in ("due", "outbox", "parked"):
            raise UsageError(f"state={state!r} is none of 'due', 'outbox', 'parked'")
        whole = all(isinstance(cast("object", n), int) for n in (offset, count))
        if not (whole and offset >= 0 and 1 <= count <= 1_000):
            raise UsageError("offset >= 0 and 1 <= count <= 1,000")
        found: list[ThreadInfo] = []
        skip = offset if self._store.keys.partitions == 1 else 0  # else only the merged pages tell which are skipped
        for p in range(self._store.keys.partitions):
            key = self._store.keys.of(p, state)
            rows = await self._store.control(None, (), ("ZRANGE", key, skip, offset + count - 1, "WITHSCORES"))
            rows = flat(rows)
            found += [ThreadInfo(rows[i].decode(), state, float(rows[i + 1]) / 1000) for i in range(0, len(rows), 2)]
        return tuple(sorted(found, key=lambda info: info.at)[offset - skip : offset - skip + count])

    async def dead(self, count: int, after: str | None) -> tuple[DeadLetterInfo, ...]:
        """Dead letters, oldest first, after the id *after*."""
        if not 1 <= count <= 1_000:
            raise UsageError(f"count={count!r}: 1 to 1,000 are possible")
        found: list[DeadLetterInfo] = []
        place, last = (-1, "") if after is None else _split(after)
        for p in range(self._store.keys.partitions):
            # Equal ids are ordered by partition: those up to the place of *after* were seen.
            start = "-" if after is None else f"({last}" if p <= place else last
            rows = await self._store.control(
                None, (), ("XRANGE", self._store.keys.of(p, "dead"), start, "+", "COUNT", count)
            )
            found += [self._letter(p, entry.decode(), fields) for entry, fields in rows]
        found.sort(key=lambda letter: (order(_split(letter.id)[1]), _split(letter.id)[0]))
        return tuple(found[:count])

    async def letter(self, letter: str) -> DeadLetterInfo | None:
        """One dead letter, or None. Raises UsageError for an id that is none."""
        p, entry = _split(letter)
        self._in_range(p, letter)
        rows = await self._store.control(None, (), ("XRANGE", self._store.keys.of(p, "dead"), entry, entry))
        return self._letter(p, entry, rows[0][1]) if rows else None

    def _letter(self, partition: int, entry: str, fields: Sequence[bytes]) -> DeadLetterInfo:
        f: dict[str, bytes] = {}
        messages: list[tuple[bytes, list[bytes]]] = []
        for name, value in zip((raw.decode() for raw in fields[::2]), fields[1::2], strict=True):
            if name == "e":
                messages.append((value, []))
            elif name.startswith(">") and messages:
                messages[-1][1].extend((name[1:].encode(), value))
            else:
                f[name] = value
        thread = f["t"].decode()
        setting, content, reply = self._store.setting, (), None
        with suppress(StoreError):  # other bytes than ours, or another codec's: the letter is there all the same
            content = messages_of(setting, thread, messages)
            if "reply" in f:
                data = setting.decode(f["reply"], "reply", thread)
                reply = decode_reply(data, thread, int(f["seq"]), int(f["fence"]))
        return DeadLetterInfo(
            id=f"{partition}/{entry}", kind=f["k"].decode(), thread=thread, batch_id=f["b"].decode(),
            reason=f["r"].decode(), attempts=int(f["n"]), messages=content, reply=reply,
        )  # fmt: skip

    async def redrive(self, letter: str) -> str:
        """Put a dead letter back: redriven, gone, busy. Raises UsageError for an id that is none."""
        store = self._store
        p, entry = _split(letter)
        self._in_range(p, letter)
        rows = await store.control(None, (), ("XRANGE", store.keys.of(p, "dead"), entry, entry))
        if not rows:
            return "gone"
        fields = rows[0][1]
        thread = dict(zip(fields[::2], fields[1::2], strict=True))[b"t"].decode()
        async with self._lock:  # numbers must arrive in order
            return await self._redrive(p, entry, thread)

    async def _redrive(self, p: int, entry: str, thread: str) -> str:
        store = self._store
        self._number += 1
        keys = [*store.keys.shared(p), store.keys.producer(p, self._producer)]
        keys += store.keys.some(p, thread, ("stream", "window", "run", "last"))
        argv = [*store.opening(), self._number, 0, PRODUCER_TTL, entry, ms(store.settings.max_wait)]
        return (await store.control(scripts.REDRIVE, keys, argv)).decode()

    async def cancel(self, thread: str, *, run: bool, pending: bool, keep: bool) -> Cancellation:
        """End a thread's Run, drop what waits in it. Raises StoreError if a key of it is foreign."""
        store, p = self._store, self._store.keys.partition(thread)
        keys = [*store.keys.shared(p), *store.keys.thread(p, thread), store.keys.producer(p, self._producer)]
        async with self._lock:  # numbers must arrive in order
            self._number += 1
            argv = [*store.opening(), *store.turning(), self._number, 0, PRODUCER_TTL]
            argv += [thread, int(run), int(pending), "keep" if keep else "drop"]
            word, *rest = (await store.control(scripts.CANCEL, keys, argv)).decode().split(" ")
        if not rest:
            raise StoreError(f"thread {thread!r} could not be cancelled: {word}")
        return Cancellation(word == "asked", int(rest[0]))

    async def discard(self, letter: str) -> bool:
        """Delete a dead letter; False if there is none."""
        p, entry = _split(letter)
        self._in_range(p, letter)
        key = self._store.keys.of(p, "dead")
        there = await self._store.control(None, (), ("XRANGE", key, entry, entry))
        if not there:
            return False
        deleted, lost = await self._store.insist(None, (), ("XDEL", key, entry))
        return bool(deleted) or lost  # sent twice, it is the first sending that found it

    def _in_range(self, partition: int, letter: str) -> None:
        if partition >= self._store.keys.partitions:
            raise UsageError(f"{letter!r} is not the id of a dead letter")

    async def forfeit(self, opened_at: float) -> int:
        """End leases taken before *opened_at* (seconds since 1970); only for a process that knows it was alone then."""
        ended = 0
        for p in range(self._store.keys.partitions):
            for kind in ("due", "outbox"):
                start = 0
                while names := await self._store.control(
                    None, (), ("ZRANGE", self._store.keys.of(p, kind), start, start + 499)
                ):
                    threads = [name.decode() for name in names]
                    pairs = [key for t in threads for key in self._store.keys.some(p, t, ("lease", "run"))]
                    argv = [*self._store.opening(), ms(opened_at), *threads]
                    ended += await self._store.control(scripts.FORFEIT, [*self._store.keys.shared(p), *pairs], argv)
                    start += 500
        return ended


def flat(rows: list[Any]) -> list[Any]:
    """Pairs in a row: a client of the user's may speak RESP3, which nests them."""
    return [value for pair in rows for value in pair] if rows and isinstance(rows[0], list) else rows


def _split(letter: str) -> tuple[int, str]:
    partition, _, entry = letter.partition("/")
    if not re.fullmatch(r"[0-9]{1,4}/[0-9]{1,20}-[0-9]{1,20}", letter):
        raise UsageError(f"{letter!r} is not the id of a dead letter (like '0/1732371234567-0')")
    return int(partition), entry
