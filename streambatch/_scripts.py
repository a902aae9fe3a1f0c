"""Typed stubs of lua/<verb>.lua, and the connection that carries their calls.

Theory of operation
-------------------
A script is a file. Lines ``-- uses: _open _window`` name the shared parts that are put before its body; its shebang
line stays first. Each stub states the names behind KEYS and ARGV; at import they are compared with the
``local … = unpack(KEYS|ARGV, …)`` lines of the file, so a swapped argument fails before anything runs.

``Wire`` holds one connection of the client's pool and does one exchange at a time: all commands out, all replies in.
That is what group commit needs, and it tells the two failures apart that a command call of the client mixes up:
nothing was sent (``Unreachable.sent`` False), or the outcome is unknown (True). It never re-sends by itself: the
client's own default re-sends a command up to 11 times, and whether that is harmless is the caller's knowledge.
A cancelled or failed exchange closes the connection, because an answer may still be under way on it.

============ ====================================================================================== ==========
script       what one call does (KEYS, ARGV, answers and what a re-send gets: the head of each file) complexity
============ ====================================================================================== ==========
submit       store messages of many threads                                                         messages
peek         who is due, when is the next                                                           log N + page
claim        take due threads and pin their batches                                                 messages
renew        extend leases                                                                          threads
start        count started attempts                                                                 threads
checkpoint   keep a runner's bytes                                                                  1
more         let what arrived meanwhile join the batch                                              messages
settle       acknowledge, commit state, history, outcome and reply                                  batch
delivered    a reply was handed over; what is next                                                  1
undelivered  it was not; later or dead                                                              1
release      give a batch or reply back                                                             1
bury         a batch becomes a dead letter                                                          batch
split        half of a batch becomes the batch, the rest waits again                                batch
cancel       end a thread's Run, drop what waits                                                    messages
touch        typing, run_now                                                                        log N
pause        park and unpark                                                                        log N
redrive      a dead letter goes back                                                                messages
repair       put a thread's keys in order                                                           log N
await        the outcome of a message, and what was shown meanwhile                                 log N + page
show         previews of Runs, for whoever follows them                                             events
hear         a process wants to be told of all previews                                             log N
look, stats  read for people                                                                        1
attach       a process joins                                                                        1
forfeit      end dead leases when alone                                                             threads
admit, ended a Run of a scope with limits begins, is over                                           log N
keep         such Runs are alive                                                                    Runs
park         for now no Run of a scope starts                                                       1
============ ====================================================================================== ==========
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from ._keys import SCOPE, SHARED, THREAD
from ._shield import to_the_end
from ._topology import moved
from .errors import Refused, StoreError, Unreachable, UsageError

Arg = str | bytes | int | float
NO_LOGIN = "the server wants a password, and the URL has none: redis://user:password@host"
WRONG_LOGIN = "the server does not know this user name and password"
FOREIGN = 'somebody wrote a key of another type over one of ours (docs/runbook.md, "errors of submit", how to find it)'
_UNPACK = re.compile(r"^ *local ([\w, ]+) = unpack\((KEYS|ARGV), ", re.MULTILINE)
_OPEN = ("now", "partitions", "horizon", "most", "most_bytes")
_TURN = ("owner", "ttl", "runs", "hands", "split", "history", "keep", "retention", "state_ttl", "dead_limit")
_SCOPE = ("now", "ttl", "concurrent", "per_minute", "tokens")


@dataclass(frozen=True, slots=True)
class Script:
    """One verb: its text, its hash, and the names of its parameters in order of appearance."""

    name: str
    text: str
    sha: str

    @classmethod
    def load(cls, name: str, *parameters: str) -> Script:
        """Read lua/<name>.lua with the parts it uses, and check its parameters against the stub."""
        folder = files(__package__ or "streambatch") / "lua"
        source = (folder / f"{name}.lua").read_text(encoding="utf-8")
        shebang, body = source.split("\n", 1)
        uses = re.search(r"^-- uses: (.+)$", body, re.MULTILINE)
        parts = [
            (folder / f"{part}.lua").read_text(encoding="utf-8") for part in (uses.group(1).split() if uses else ())
        ]
        stub = [tuple(line.split()) for line in parameters]
        found = [tuple(match.group(1).split(", ")) for match in _UNPACK.finditer(body)]
        if found != stub:
            raise ImportError(f"lua/{name}.lua unpacks {found}, its stub says {stub}")
        if uses:
            opened = [tuple(m.group(1).split(", ")) for part in parts for m in _UNPACK.finditer(part)]
            wanted = [SHARED, _OPEN] + ([_TURN, THREAD] if "_turn" in uses.group(1) else [])
            wanted = [SCOPE, _SCOPE] if uses.group(1) == "_scope" else wanted
            if opened != wanted:
                raise ImportError(f"the parts of lua/{name}.lua unpack {opened}, the stubs say {wanted}")
        text = "\n".join((shebang, *parts, body))
        return cls(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


SUBMIT = Script.load(
    "submit",
    "producer",
    "number resend producer_ttl max_pending max_bytes memory wait",
    "stream window run last",
    "mid author size quiet m",
)
PEEK = Script.load("peek", "meta due outbox", "now partitions horizon runs hands limit")
CLAIM = Script.load("claim", "thread claim")
RENEW = Script.load("renew", "due outbox parked", "now", "thread token ttl")
START = Script.load("start", "lease run", "token")
CHECKPOINT = Script.load("checkpoint", "lease run", "token data")
MORE = Script.load("more", "thread token op")
SETTLE = Script.load("settle", "thread token op upto kind reply batch hkind stateful state forget claim turns")
DELIVERED = Script.load("delivered", "thread token op claim")
UNDELIVERED = Script.load("undelivered", "thread token op delay counted limit reason")
RELEASE = Script.load("release", "thread token op delay give why")
BURY = Script.load("bury", "thread token op batch reason tries")
SPLIT = Script.load("split", "thread token op")
CANCEL = Script.load("cancel", "producer", "number resend producer_ttl thread run pending how")
TOUCH = Script.load("touch", "stream window run", "thread quiet")
PAUSE = Script.load("pause", "run lease", "thread on")
REDRIVE = Script.load("redrive", "producer stream window run last", "number resend producer_ttl id wait")
REPAIR = Script.load("repair", "stream window lease run last", "thread")
AWAIT = Script.load("await", "awaited followed reply stream events run last", "now thread entry interest after page")
SHOW = Script.load(
    "show",
    "followed hints",
    "keep length",
    "thread token fence owner first attempt number n",
    "lease events",
    "kind batch last size m",
)
HEAR = Script.load("hear", "followed", "now interest")
LOOK = Script.load("look", "meta due outbox parked paused stream window lease run last head", "now thread")
STATS = Script.load("stats", "meta due outbox parked paused tally dead", "now")
ATTACH = Script.load("attach", "meta producer", "partitions hands producer_ttl")
PROBE = Script.load("probe", "stream hash zset set list string hints")
FORFEIT = Script.load("forfeit", "opened", "lease run", "thread")
ADMIT = Script.load("admit", "token")
ENDED = Script.load("ended", "token ok size nth rest most_runs most_tokens")
KEEP = Script.load("keep", "token")
PARK = Script.load("park", "token after why")

Command = tuple[Arg, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One script call, or with script None a plain command in *argv*."""

    script: Script | None
    keys: Sequence[str]
    argv: Sequence[Arg]

    def command(self, *, text: bool = False) -> Command:
        """What goes over the wire; with *text* the whole script, for a server that does not know it yet."""
        if self.script is None:
            return tuple(self.argv)
        how = ("EVAL", self.script.text) if text else ("EVALSHA", self.script.sha)
        return (*how, len(self.keys), *self.keys, *self.argv)


class Withdrawn(StoreError):
    """A call was taken back before anything of it was sent."""


class Wire:
    """One connection of *client*, one exchange at a time of at most *limit* seconds; see the theory of operation.

    *may* is asked at the last moment, when there is a connection: if it says no, nothing is sent.

    Attributes:
        sent: something of the present exchange may have reached the server, and not all answers are in.
    """

    def __init__(self, client: Redis, limit: float, may: Callable[[], bool] = lambda: True) -> None:
        self._pool: Any = client.connection_pool
        self._may = may
        self._limit = limit
        self._held: Any = None
        self._over = False
        self.sent = False

    async def exchange(self, calls: Sequence[Call], extra: float = 0.0) -> list[Any]:
        """Send all calls, return all answers in order; an answer may be a Refused. Raises Unreachable, Withdrawn.

        *extra* seconds are added to the time limit, for a command that waits by itself.
        """
        answers = await self._exchange([call.command() for call in calls], extra)
        missing = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missing:  # all from there on again, in order: a WAIT must come after the write it waits for
            first = missing[0]
            rest = [call.command(text=i in missing) for i, call in enumerate(calls[first:], first)]
            answers[first:] = await self._exchange(rest, extra)
        if any(isinstance(answer, _ELSEWHERE) for answer in answers):
            await self.close()  # P16: behind the same address there may be another master by now
            moved(self._pool)
        return [_ours(answer) if isinstance(answer, Exception) else answer for answer in answers]

    async def call(self, script: Script | None, keys: Sequence[str], argv: Sequence[Arg], extra: float = 0.0) -> Any:
        """One call; raises Refused instead of returning it."""
        answer = (await self.exchange([Call(script, keys, argv)], extra))[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _exchange(self, commands: Sequence[Command], extra: float) -> list[Any]:
        if self._over:
            raise StoreError("the queue was closed")
        packed = [_pack(command) for command in commands]
        asked = _cancels()
        done = self.sent = False
        try:
            async with asyncio.timeout(self._limit + extra):
                if self._held is not None and _ended(self._held):
                    await self.close()
                if self._held is None:
                    self._held = await self._pool.get_connection()
                if not self._may():
                    raise Withdrawn
                self.sent = True
                await self._held.send_packed_command(packed, check_health=False)
                answers = [] if _cancels() > asked else [await self._answer() for _ in commands]
                done = len(answers) == len(commands)
                self.sent = not done
        except (AuthenticationError, NoPermissionError) as error:
            raise _ours(error) from None
        except (ConnectionError, TimeoutError, OSError) as error:
            if denied := _denied(error):
                raise denied from None
            moved(self._pool)  # a node that went silent may have been replaced
            raise Unreachable(f"the server does not answer: {_plain(error)}", sent=self.sent) from None
        except RedisError as error:  # a greeting refused while connecting: LOADING, MISCONF, too many clients
            raise _ours(error) from None
        finally:
            if not done:
                await self.close()
            # Swallowed by the client, see _cancels; one that is under way goes on as it is, because anyio reads it.
            if _cancels() > asked and not isinstance(sys.exception(), asyncio.CancelledError):
                raise asyncio.CancelledError
        return answers

    async def _answer(self) -> Any:
        try:
            return await self._held.read_response(disable_decoding=True)
        except (ResponseError, BusyLoadingError) as error:
            return error

    async def aclose(self) -> None:
        """Close for good: an exchange after this is refused, so that nobody opens a connection that nobody closes."""
        self._over = True
        await self.close()

    async def close(self) -> None:
        """Close the connection and give its place in the pool back; the next exchange opens another."""
        held, self._held = self._held, None
        if held is not None:
            await to_the_end(give_back(self._pool, held))


class Wires:
    """For whoever speaks to all partitions: one wire for all, or on a Cluster one for each."""

    def __init__(self, wires: Sequence[Wire]) -> None:
        self._wires = wires

    async def exchange(self, calls: Sequence[tuple[int, Call]]) -> list[Any]:
        """Send the calls, each to its partition, return all answers in order. Raises Unreachable."""
        if len(self._wires) == 1:
            return await self._wires[0].exchange([call for _, call in calls])
        groups: dict[int, list[int]] = {}
        for number, (partition, _) in enumerate(calls):
            groups.setdefault(partition, []).append(number)
        found = await asyncio.gather(
            *(self._wires[place].exchange([calls[number][1] for number in group]) for place, group in groups.items()),
            return_exceptions=True,
        )
        answers: list[Any] = [None] * len(calls)
        for group, part in zip(groups.values(), found, strict=True):
            if isinstance(part, BaseException):
                raise part
            for number, answer in zip(group, part, strict=True):
                answers[number] = answer
        return answers

    async def close(self) -> None:
        """Close the connections; the next exchange opens others."""
        for wire in self._wires:
            await wire.close()


async def give_back(pool: Any, connection: Any) -> None:
    """Close a connection of *pool*, of which an answer may still be under way, and free its place."""
    with suppress(Exception):
        try:
            await connection.disconnect(nowait=True)
        finally:
            await pool.release(connection)


_ELSEWHERE = (ReadOnlyError, AskError, ClusterDownError)  # a MovedError is an AskError
_pack: Callable[[Command], bytes] = cast("Any", hiredis).pack_command


def _cancels() -> int:
    """How often the present task was asked to end.

    On Python 3.11 the client of a user who set a socket_timeout loses cancellations: it sends under asyncio.wait_for,
    which there returns normally if it was done at that moment (fixed in 3.12). The task would never end (I11).
    """
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _ended(connection: Any) -> bool:
    """Whether the server has closed this idle connection: then nothing must be sent on it (it would be "unknown")."""
    reader = getattr(connection, "_reader", None)
    return reader is None or reader.at_eof()


def _denied(error: BaseException | None) -> Refused | None:
    """Why the server did not let us in, if it did not; the client may wrap that into a ConnectionError."""
    while error is not None:
        text = str(error)
        if "NOAUTH" in text or "Authentication required" in text:
            return Refused(NO_LOGIN, "NOAUTH")
        if isinstance(error, AuthenticationError) or "WRONGPASS" in text or "username-password" in text:
            return Refused(WRONG_LOGIN, "WRONGPASS")
        error = error.__cause__ or error.__context__
    return None


def _plain(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:200]


def _ours(error: Exception) -> StoreError | UsageError:
    if isinstance(error, StoreError | UsageError):
        return error
    text = str(error)
    code = text.split(" ", 1)[0]
    if denied := _denied(error):
        return denied
    if code == "SBREFUSED":
        _, layout, partitions = text.split(" ", 2)
        if layout != "1":
            return UsageError(f"the data has layout {layout}, this version reads layout 1: use a newer streambatch")
        return UsageError(f"this namespace has partitions={partitions}; every process must use that number")
    if code == "SBFOREIGN":
        key = text.split(" ", 1)[1]
        return Refused(f"the key {key} is not of our type; delete it (docs/runbook.md)", code)
    if isinstance(error, NoPermissionError) or code == "NOPERM":
        return Refused(f"the server's ACL refuses a command: {text[:200]}", "NOPERM")
    names = {
        "ReadOnlyError": "READONLY",
        "NoScriptError": "NOSCRIPT",
        "OutOfMemoryError": "OOM",
        "BusyLoadingError": "LOADING",
        "MasterDownError": "MASTERDOWN",
        "TryAgainError": "TRYAGAIN",
        "MovedError": "MOVED",
        "AskError": "ASK",
        "ClusterDownError": "CLUSTERDOWN",
    }
    code = names.get(type(error).__name__, code)
    said = f"the server refused: {code} {text[:200]}" if code not in text else f"the server refused: {text[:200]}"
    return Refused(f"{said.rstrip('.')}; {FOREIGN}" if code == "WRONGTYPE" else said, code)
