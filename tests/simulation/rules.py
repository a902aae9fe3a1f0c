"""What the server must never answer or grant, seen from beside it: one look at each script's call and answer.

Theory of operation. `Rules` is told every call that was executed, with its answer, and the lease of every thread as it
was left. From two calls in a row it follows whether a lease was taken from a living holder (I3), whether a verb that
was sent again got the answer of the first time (rule 2 of the protocol), and whether a retry or a window was cut short
by something that may not do that (I4, the life of a thread). What a claim hands out is told to `Given`, and who has a
thread in hand to `Again`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis

from streambatch import _scripts
from tests.simulation.again import Again, Host
from tests.simulation.given import Given

_OP = re.compile(rb"[0-9]+:[^\r]+[scdurbh]")
_ENDS = ("settle", "delivered", "undelivered", "release", "bury", "split")
_SHARED = 15  # arguments before those of the threads
_OVER = {
    b"left": "over", b"done": "over", b"dead": "over", b"released": "back", b"later": "back", b"full": "refused",
    b"split": "halved",
}  # fmt: skip
EXPECTED = ("NOSCRIPT", "SBNEW")
MARGIN = 1000.0  # ms within which a lease of at least three seconds, just granted, has not ended


@dataclass(frozen=True, slots=True)
class Held:
    """A thread's lease and what it waits for, as a script left it."""

    token: bytes
    deadline: float
    ttl: float
    retry: float
    due: float

    def lives(self, now: float) -> bool:
        """Whether its holder may trust it."""
        return bool(self.token) and now < self.deadline <= now + self.ttl


class Rules:
    """The rules of the protocol that one script after another shows.

    Args:
        fail: told what is wrong.
        given: told what is handed out, and what follows from it.
        again: told whose hands a thread is in.
    """

    def __init__(self, fail: Callable[[str], None], given: Given, again: Again) -> None:
        self._fail = fail
        self._given = given
        self._again_ = again
        self._names = {
            name.encode(): script.name
            for script in vars(_scripts).values() if isinstance(script, _scripts.Script)
            for name in (script.sha, script.text)
        }  # fmt: skip
        self._held: dict[str, Held] = {}
        self._last: dict[bytes, tuple[bytes, bytes]] = {}
        self._claims: dict[bytes, float] = {}
        self._tokens: dict[bytes, bytes] = {}
        self._script = ""

    def forget(self) -> None:
        """A stale replica has another past."""
        self._held.clear()
        self._last.clear()
        self._claims.clear()
        self._again_.forget()

    def executed(self, command: bytes, answer: Any, now: float, host: Host | None, at: float) -> None:
        """A script was called: when by the server's clock, by whom, and when by the world's."""
        if b"EVAL" not in command[:24]:
            return
        words = command.split(b"\r\n")[2::2]
        self._script = self._names.get(words[1], "")
        if isinstance(answer, hiredis.ReplyError) and self._script and not str(answer).startswith(EXPECTED):
            self._fail(f"P20: {self._script} aborted: {answer}")
        if self._script == "pause" and isinstance(answer, bytes):
            thread, on = words[3 + int(words[2]) + 5 :][:2]
            self._given.paused(thread.decode(), on=on == b"1")
        if not isinstance(answer, list) or not self._script or host is None:
            return
        self._answered(words, cast("list[list[bytes]]", answer), now, host, at)

    def _answered(self, words: Sequence[bytes], rows: list[list[bytes]], now: float, host: Host, at: float) -> None:
        """What a script says of each thread."""
        if self._script in _ENDS:
            ops = [
                (thread, op)
                for thread, token, op in zip(words, words[1:], words[2:], strict=False)
                if _OP.fullmatch(op) and b":" in token and op != token and op.startswith(token)
            ]
            for (thread, op), row in zip(ops, rows, strict=False):
                self._again(thread, op, row)
            if self._script == "settle":
                self._given.settled(_asked(words), rows)
            for (thread, op), row in zip(ops, rows, strict=False):
                self._ended(thread.decode(), op[:-1], row, host, at)
        elif self._script == "claim":
            asked = _asked(words)
            for thread, claim, row in zip(asked[::2], asked[1::2], rows, strict=False):
                self._claimed(thread, claim, row, now)
                self._granted(thread.decode(), row, host, at)
        elif self._script == "checkpoint":
            self._saved(words, rows)

    def _saved(self, words: Sequence[bytes], rows: Sequence[Sequence[bytes]]) -> None:
        """Checkpoints were saved, or not."""
        count = int(words[2])
        keys, argv = words[3 : 3 + count : 2], words[3 + count :]
        for lease, token, data, row in zip(keys, argv[::2], argv[1::2], rows, strict=False):
            thread = lease.rpartition(b":")[2].decode()
            if row[0] == b"saved":
                holder = self._held[thread].token if thread in self._held else token
                self._given.checkpoint(thread, token, data, holder)

    def _ended(self, thread: str, token: bytes, row: Sequence[bytes], host: Host, at: float) -> None:
        """A verb that ends a turn was answered; with it the next batch may come."""
        if row[0] == b"kept":
            self._again_.kept(thread, token, row[1], at)
        elif row[0] in _OVER:
            self._again_.ended(thread, token, _OVER[row[0]])
        self._granted(thread, row[1:], host, at)

    def _granted(self, thread: str, row: Sequence[bytes], host: Host, at: float) -> None:
        """What a claim, or the end of a turn, hands out, if anything."""
        if len(row) < 8 or row[0] not in (b"batch", b"reply"):
            return
        if row[0] == b"batch":
            self._given.granted(thread, row)
        subject = ("batch", row[4]) if row[0] == b"batch" else ("reply", row[5])
        self._again_.granted(thread, subject, row[1], int(float(row[2])), host, at)

    def _again(self, thread: bytes, op: bytes, row: Sequence[bytes]) -> None:
        """The last operation on a thread is remembered with its lease; an older one's sender is told it is late."""
        if row[0] in (b"broken", b"cancelling", b"lost") and self._last.get(thread) != (op, row[0]):
            if row[0] == b"lost" and thread in self._last and self._last[thread][0] == op:
                self._fail(
                    f"rule 2: {self._script} {op!r} was answered {self._last[thread][1]!r}, and sent again 'lost'"
                )
            return
        before, self._last[thread] = self._last.get(thread), (op, row[0])
        if before and before[0] == op and row[0] != before[1] and {row[0], before[1]} != {b"done", b"batch"}:
            self._fail(f"rule 2: {self._script} {op!r} was answered {before[1]!r}, and sent again {row[0]!r}")

    def _claimed(self, thread: bytes, claim: bytes, row: Sequence[Any], now: float) -> None:
        if row[0] in (b"batch", b"reply"):
            self._claims.setdefault(claim, now)
            if self._tokens.setdefault(row[1], claim) != claim:  # also after a stale replica forgot the first
                self._fail(f"I3: the token {row[1]!r} was given out twice")
        elif (
            row[0] == b"held" and 0 <= now - self._claims.get(claim, float("inf")) < MARGIN
            and self._held[thread.decode()].token.endswith(b":" + claim)
        ):  # fmt: skip
            self._fail(f"rule 2: the claim {claim!r} was granted, and sent again it is told 'held'")

    def left(self, thread: str, found: Held, now: float) -> None:
        """A thread as the script left it."""
        before = self._held.get(thread)
        self._held[thread] = found
        if before is None:
            return
        if self._script == "claim" and before.lives(now) and found.token and found.token != before.token:
            self._fail(
                f"I3: {thread} was claimed while the lease of {before.token!r} had {before.deadline - now:.0f} ms"
            )
        if self._script == "renew" and not before.token and found.token:
            self._fail(f"I3: a renewal gave a lease that had ended back to {found.token!r}")
        if self._script == "renew" and found.deadline > before.deadline and found.token != before.token:
            self._fail(f"I3: a renewal took {thread} from {before.token!r}")
        if self._script == "submit" and before.retry and not found.token and found.due < min(before.due, before.retry):
            self._fail(f"I4: a submit moved the retry of {thread} from {before.due:.0f} to {found.due:.0f}")


def _asked(words: Sequence[bytes]) -> Sequence[bytes]:
    """The arguments of the threads, behind the keys and the shared ones."""
    return words[3 + int(words[2]) + _SHARED :]
