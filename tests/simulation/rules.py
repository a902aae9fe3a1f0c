"""What the server must never answer or grant, seen from beside it: one look at each script's call and answer.

Theory of operation. `Rules` is told every call that was executed, with its answer, and the lease of every thread as it
was left. From two calls in a row it follows whether a lease was taken from a living holder (I3), whether a verb that
was sent again got the answer of the first time (rule 2 of the protocol), and whether a retry or a window was cut short
by something that may not do that (I4, the life of a thread).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis

from streambatch import _scripts

_OP = re.compile(rb"[0-9]+:[^\r]+[scdurbh]")
_ENDS = ("settle", "delivered", "undelivered", "release", "bury", "split")
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
    """

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
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

    def executed(self, command: bytes, answer: Any, now: float) -> None:
        """A script was called."""
        if b"EVAL" not in command[:24]:
            return
        words = command.split(b"\r\n")[2::2]
        self._script = self._names.get(words[1], "")
        if isinstance(answer, hiredis.ReplyError) and self._script and not str(answer).startswith(EXPECTED):
            self._fail(f"P20: {self._script} aborted: {answer}")
        if not isinstance(answer, list) or not self._script:
            return
        rows = cast("list[list[bytes]]", answer)
        if self._script in _ENDS:
            ops = [
                (thread, op)
                for thread, token, op in zip(words, words[1:], words[2:], strict=False)
                if _OP.fullmatch(op) and b":" in token and op != token and op.startswith(token)
            ]
            for (thread, op), row in zip(ops, rows, strict=False):
                self._again(thread, op, row)
        elif self._script == "claim":
            count = int(words[2])
            asked = words[3 + count + 15 :]
            for thread, claim, row in zip(asked[::2], asked[1::2], rows, strict=False):
                self._claimed(thread, claim, row, now)

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
