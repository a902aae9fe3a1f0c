"""What is done twice needs a cause: a Run of the same batch, a hand-over of the same reply.

Theory of operation. A thread is in one pair of hands at a time: a process has been granted a batch or a reply. The next
grant of the same one is right if the first was given back by who had it, or if its lease ran out although its holder
renews it; and both need a reason. That its own code failed is one. The other is that something went wrong with that
process, its way to the server, or the server, since the grant or shortly before: `trouble` says until when. Nothing may
be granted again after it was settled or delivered.

Each grant begins once: the callbacks are counted against the grants, so that a process that repeats by itself, with no
script between, is seen as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

AFTERMATH = 6.0  # seconds for which an exchange that something happened to may keep a process from renewing
Subject = tuple[str, bytes]  # ("batch", its first entry) or ("reply", its number)


class Host(Protocol):
    """A process, seen from here: until when something is wrong with it, in seconds of the world."""

    trouble: float


@dataclass(slots=True)
class _Hands:
    subject: Subject
    token: bytes
    fence: int
    host: Host
    at: float
    over: str = ""


class Again:
    """The judge of repetitions.

    Args:
        fail: told what is wrong.
        trouble: until when something is wrong with all processes.
    """

    def __init__(self, fail: Callable[[str], None], trouble: Callable[[], float]) -> None:
        self._fail = fail
        self._trouble = trouble
        self._hands: dict[str, _Hands] = {}
        self._tokens: dict[bytes, tuple[int, Host]] = {}
        self._kept: set[tuple[bytes, int]] = set()
        self._raised: set[tuple[str, int]] = set()
        self._grants: Counter[tuple[str, str, int]] = Counter()
        self._begun: Counter[tuple[str, str, int]] = Counter()
        self.repeated = 0

    def forget(self) -> None:
        """A stale replica has another past."""
        self._hands.clear()

    # ── the server ──

    def granted(self, thread: str, subject: Subject, token: bytes, fence: int, host: Host, now: float) -> None:
        """A batch or a reply came into a process' hands; also by a verb that was sent again."""
        if (
            self._tokens.get(token, (0, None))[0] != fence
        ):  # a master that forgot a claim grants it under the same token
            self._tokens[token] = fence, host
            self._grants[thread, subject[0], fence] += 1
        before = self._hands.get(thread)
        if before is not None and before.token == token and before.subject == subject:
            return
        self._hands[thread] = _Hands(subject, token, fence, host, now)
        if before is None or before.subject != subject:
            return
        self.repeated += 1
        if before.over == "over":
            self._fail(f"again: {subject} of {thread} was handed out after it was done")
        elif not before.over and not self._explained(before):
            self._fail(f"again: {subject} of {thread}, granted at {before.at:.3f} s, was taken away without a cause")

    def kept(self, thread: str, token: bytes, number: bytes, now: float) -> None:
        """Who had a batch committed it, and has its reply in hand now."""
        if token not in self._tokens:
            return
        fence, host = self._tokens[token]
        self._grants[thread, "reply", fence] += (token, fence) not in self._kept
        self._kept.add((token, fence))
        hands = self._hands.get(thread)
        if hands is None or (hands.token == token and hands.subject[0] == "batch" and not hands.over):
            self._hands[thread] = _Hands(("reply", number), token, fence, host, now)

    def ended(self, thread: str, token: bytes, word: str) -> None:
        """Who had it gave it back (``back``), or it is done (``over``)."""
        hands = self._hands.get(thread)
        if hands is None or hands.token != token or hands.over:
            return
        hands.over = word
        if word == "back" and (thread, hands.fence) not in self._raised and not self._explained(hands):
            self._fail(
                f"again: {hands.subject} of {thread}, granted at {hands.at:.3f} s, was given back without a cause"
            )

    def _explained(self, hands: _Hands) -> bool:
        return max(hands.host.trouble, self._trouble()) + AFTERMATH >= hands.at

    # ── the processes ──

    def began(self, thread: str, what: str, fence: int) -> None:
        """A runner (``batch``) or a deliver callback (``reply``) was called, for a grant of this fence."""
        self._begun[thread, what, fence] += 1
        if self._begun[thread, what, fence] > self._grants[thread, what, fence]:
            self._fail(f"again: the {what} {fence} of {thread} began more often than it was granted")

    def raised(self, thread: str, fence: int) -> None:
        """A callback is about to fail."""
        self._raised.add((thread, fence))
