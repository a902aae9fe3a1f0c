"""What a thread is, in the oracle's words: plain values, and no server.

Times are ms, ids are pairs of numbers. A field is empty where the server has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Id = tuple[int, int]
Row = tuple[object, ...]

LOST: Row = ("lost",)


@dataclass(frozen=True)
class Note:
    """What was submitted: its label (no two are the same), its size in bytes, its text."""

    label: str
    size: int
    text: str


@dataclass(frozen=True)
class Who:
    """A process: what of its settings the rules depend on."""

    ttl: int
    most: int
    hands: bool
    horizon: int
    most_bytes: int
    max_pending: int
    max_bytes: int
    dead_limit: int


@dataclass
class Window:
    """The debounce timer: how many wait, their bytes, the first arrival, the quiet moment, the longest wait."""

    n: int
    b: int
    f: int
    q: int
    w: int


@dataclass
class Run:
    """A pinned batch."""

    first: Id
    last: Id
    n: int
    rev: int = 0
    attempts: int = 0
    ends: int = 0
    claims: int = 0
    at: int = 0
    delay: int = 0
    started: str = ""
    nth: int = 0
    checkpoint: bytes | None = None
    cancel: str = ""
    more: tuple[str, Id, int] | None = None
    dropped: tuple[Id, Id] | None = None


@dataclass
class Reply:
    """A reply that was not delivered yet."""

    seq: int
    claims: int
    tries: int = 0
    at: int = 0
    delay: int = 0


@dataclass
class Lease:
    """Who holds the thread; and what the last operation was answered."""

    token: str = ""
    claim: str = ""
    deadline: int = 0
    ttl: int = 0
    phase: str = ""
    op: str = ""
    answer: str = ""
    cancel: str = ""


@dataclass
class Thread:
    """A conversation."""

    name: str
    queue: list[Id] = field(default_factory=list[Id])
    window: Window | None = None
    run: Run | None = None
    reply: Reply | None = None
    lease: Lease = field(default_factory=Lease)
    last: Id | None = None
    seq: int = 0
    dropped: tuple[Id, Id] | None = None
    full: bool = False  # a vandal used up the ids of the stream
    anew: bool = False  # a vandal deleted the stream, and nothing remembers its last id
    index: tuple[str, int] | None = None
    outcomes: list[tuple[Id, str, Id]] = field(default_factory=list[tuple[Id, str, Id]])
    notes: dict[Id, Note] = field(default_factory=dict[Id, Note])

    def between(self, first: Id, last: Id) -> list[Id]:
        """The messages of a range."""
        return [entry for entry in self.queue if first <= entry <= last]

    def members(self) -> list[Id]:
        """The messages of the batch."""
        return self.between(self.run.first, self.run.last) if self.run else []

    def bytes(self, entries: Sequence[Id]) -> int:
        """The size of messages."""
        return sum(self.notes[entry].size for entry in entries)

    def after(self, last: Id) -> list[Id]:
        """The messages behind an id."""
        return [entry for entry in self.queue if entry > last]


@dataclass
class Letter:
    """A dead letter: the messages of a batch, or the sequence of a reply."""

    kind: str
    thread: str
    notes: list[Note]
    seq: int = 0


def words(answer: str) -> Row:
    """A stored answer: its word, and the number in it."""
    word, _, number = answer.partition(" ")
    return (word, int(number)) if number else (word,)
