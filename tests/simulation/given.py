"""What a Run is given when it begins: leave to begin, a checkpoint, a history. In the order of the server's scripts.

Theory of operation. A grant is the row with which a script hands a batch to a process: of a claim, or of a verb that
goes on with the thread's next batch. What the grant must hold follows from the scripts before it, and from nothing that
a client was told: no batch of a paused thread, unless it is to be ended; the last checkpoint that was saved for this
very batch, and of no other one; the turns and the state of every commit, once and in order. So a Run that was claimed
before a pause was executed is right, however late it begins.

A Run, in turn, must be told what its grant held. A checkpoint is saved only for who holds the thread at that moment
(I3), and a commit holds what its Run returned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from streambatch import Answer, Batch

_DONE = (b"kept", b"left", b"done")  # what a settle that committed is answered
_SETTLE = 13  # arguments of one thread in a settle, before its turns


@dataclass
class Past:
    """What the scripts so far have left; set back by a stale replica.

    Attributes:
        paused: threads.
        halted: whether the namespace is paused.
        saved: of a thread, the first entry of the batch and its last checkpoint.
        turns: of a thread, as they are stored.
        states: the same of the state.
        settled: the last operation that committed.
    """

    paused: set[str] = field(default_factory=set[str])
    halted: bool = False
    saved: dict[str, tuple[bytes, bytes]] = field(default_factory=dict[str, tuple[bytes, bytes]])
    turns: dict[str, tuple[bytes, ...]] = field(default_factory=dict[str, tuple[bytes, ...]])
    states: dict[str, bytes] = field(default_factory=dict[str, bytes])
    settled: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def copy(self) -> Past:
        """As it is now."""
        return Past(
            set(self.paused), self.halted, dict(self.saved), dict(self.turns), dict(self.states), dict(self.settled)
        )


@dataclass(frozen=True, slots=True)
class _Grant:
    first: bytes
    fence: int
    checkpoint: bytes | None
    state: bytes
    turns: tuple[bytes, ...]


class Given:
    """The judge of grants.

    Args:
        fail: told what is wrong.
    """

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
        self.past = Past()
        self._grants: dict[bytes, _Grant] = {}
        self._of: dict[tuple[str, int], list[_Grant]] = {}
        self._said: dict[tuple[str, int], Answer] = {}

    # ── the server ──

    def paused(self, thread: str, *, on: bool) -> None:
        """A pause, or the end of one, was executed; thread "" is the namespace."""
        if not thread:
            self.past.halted = on
        elif on:
            self.past.paused.add(thread)
        else:
            self.past.paused.discard(thread)

    def granted(self, thread: str, row: Sequence[bytes]) -> None:
        """A batch was handed out: its row, as `_grant.lua` makes it."""
        token, fence, first, ends, past = row[1], int(float(row[2])), row[4], row[12], self.past
        if token in self._grants and self._grants[token].fence == fence:
            return  # sent again; with another fence it is granted again, by a master that forgot the first time
        grant = _Grant(first, fence, row[9] if row[8] == b"1" else None, row[11], tuple(row[13:]))
        self._grants[token] = grant
        self._of.setdefault((thread, fence), []).append(grant)
        if (past.halted or thread in past.paused) and not ends:
            self._fail(f"pause: a batch of {thread} was handed out while {'all' if past.halted else 'it'} was paused")
        batch, checkpoint = past.saved.get(thread, (b"", None))
        checkpoint = checkpoint if batch == first else None
        if grant.checkpoint != checkpoint:
            self._fail(f"I4: the batch {first!r} of {thread} has the checkpoint {grant.checkpoint}, not {checkpoint}")
        if grant.turns != past.turns.get(thread, ()):
            self._fail(f"history: {thread} has {grant.turns}, and {past.turns.get(thread)} were committed")
        if grant.state != past.states.get(thread, b""):
            self._fail(f"history: {thread} has the state {grant.state}, and {past.states.get(thread)} was committed")

    def checkpoint(self, thread: str, token: bytes, data: bytes, holder: bytes) -> None:
        """A checkpoint was saved, while *holder* was the thread's token."""
        if token != holder:
            self._fail(f"I3: a checkpoint of {token!r} was saved for {thread}, which {holder!r} holds")
        elif token in self._grants:
            self.past.saved[thread] = self._grants[token].first, data

    def settled(self, argv: Sequence[bytes], rows: Sequence[Sequence[bytes]]) -> None:
        """A settle was executed: what stands behind the shared arguments, and the answer."""
        at = 0
        for row in rows:
            name, token, op, _, kind, _, _, _, stateful, state, forget, _, many = argv[at : at + _SETTLE]
            turns = tuple(argv[at + _SETTLE : at + _SETTLE + int(many)])
            at += _SETTLE + int(many)
            thread, past = name.decode(), self.past
            if row[0] not in _DONE or past.settled.get(thread) == op:
                continue
            past.settled[thread] = op
            past.turns[thread] = past.turns.get(thread, ())[int(forget) :] + turns
            if stateful == b"1":
                past.states[thread] = state
            if kind != b"cancelled" and token in self._grants:
                self._whole(thread, self._grants[token].fence, turns, state, int(forget))

    def _whole(self, thread: str, fence: int, turns: tuple[bytes, ...], state: bytes, forget: int) -> None:
        said = self._said.get((thread, fence))
        if said is None:
            return  # that is judged by the outcome
        found = tuple(json.loads(turn) for turn in turns), json.loads(state or b"null"), forget
        if found != (said.turns, said.state, said.forget):
            self._fail(f"history: the Run {fence} of {thread} committed {found}, and returned {said.turns}")

    # ── the processes ──

    def began(self, batch: Batch, run: Any) -> None:
        """A Run begins."""
        told = run.data, batch.history, batch.state
        held = [
            (one.checkpoint, tuple(json.loads(turn) for turn in one.turns), json.loads(one.state or b"null"))
            for one in self._of.get((batch.thread, run.fence), ())
        ]
        if told not in held:
            self._fail(f"history: the Run {run.fence} of {batch.thread} is told {told}, its grant held {held}")

    def said(self, run: Any, answer: Answer) -> None:
        """A Run is about to return."""
        self._said[run.batch.thread, run.fence] = answer
