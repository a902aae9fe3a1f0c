"""What the scripts answer, as values: the one place where their rows become ours.

Bytes of messages are decoded only when a turn asks for its batch (``Work.read``): one damaged message must fail its
own Run, and end as its own dead letter, not the claim of a hundred threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ._lane import Row
from ._lease import Lease
from ._messages import Batch, Json, Message, Reply, batch_id, decode_message, decode_reply, from_json
from ._ports import Codec, Plain
from .errors import DeadLettered, RunCancelled, StoreError


@dataclass(frozen=True, slots=True)
class Setting:
    """What decoding needs to know: the namespace (for batch ids) and the codec."""

    namespace: str
    codec: Codec

    def decode(self, data: bytes, kind: str, thread: str, name: str = "") -> bytes:
        """Stored bytes of *thread* back to ours; a failing codec is a StoreError without content."""
        if isinstance(self.codec, Plain):
            return data
        try:
            return self.codec.decode(data, context(kind, thread, name))
        except Exception as error:  # noqa: BLE001 - a user's codec may raise anything
            raise StoreError(f"the codec cannot read a {kind} of thread {thread!r}: {type(error).__name__}") from None


def context(kind: str, thread: str, name: str = "") -> bytes:
    """What bytes belong to: authenticated by an encrypting codec, so that nobody can move them elsewhere."""
    return f"{kind}\0{thread}\0{name}".encode()


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed batch, as it came from the server; ``due`` is when it should have been, on the clock of the loop."""

    lease: Lease
    attempted: float
    left: float
    first: str
    last: str
    revision: int
    attempts: int
    checkpoint: bytes | None
    kind: str
    state: bytes
    cancel: str
    turns: tuple[bytes, ...]
    due: float

    @property
    def waited(self) -> float:
        """Seconds from the arrival of its first message to the claim."""
        return max(0.0, self.lease.fence / 1_000_000 - order(self.first)[0] / 1000)

    def id(self, setting: Setting) -> str:
        """The batch id."""
        return batch_id(setting.namespace, self.lease.thread, self.first, self.revision)

    def read(self, setting: Setting, attempt: int, entries: Sequence[Entry]) -> Batch:
        """The batch from its entries; raises StoreError if something stored is damaged or missing."""
        if not entries:
            raise StoreError(f"the batch of thread {self.lease.thread!r} is gone from the stream")
        thread = self.lease.thread
        state: Json = from_json(setting.decode(self.state, "state", thread), "state") if self.state else None
        return Batch(
            thread=thread,
            id=self.id(setting),
            messages=messages_of(setting, thread, entries),
            attempt=attempt,
            state=state,
            history=tuple(from_json(setting.decode(turn, "turn", thread), "history") for turn in self.turns),
            kind=self.kind,
        )


@dataclass(frozen=True, slots=True)
class Handover:
    """A claimed reply, to be delivered."""

    lease: Lease
    attempted: float
    left: float
    attempt: int
    sequence: int
    data: bytes

    def read(self, setting: Setting) -> Reply:
        """The reply; raises StoreError if it is damaged."""
        thread = self.lease.thread
        return decode_reply(setting.decode(self.data, "reply", thread), thread, self.sequence, self.lease.fence)


@dataclass(frozen=True, slots=True)
class NotNow:
    """Why a thread was not claimed: held, later, idle, parked, halted, other, broken."""

    thread: str
    word: str
    detail: str = ""


Claimed = Work | Handover | NotNow
Entry = Sequence[Any]
PAGE = 100
_FIELDS = [b"id", b"author", b"size", b"m"]


def claimed(row: Row, lease: Lease, attempted: float, due: float | None = None) -> Claimed:
    """A row of claim, or the tail of one of settle or delivered, as a value; due when it was asked for, or at *due*."""
    word = row[0].decode()
    if word not in ("batch", "reply"):
        detail = row[1] if len(row) > 1 else ""
        return NotNow(lease.thread, word, detail.decode() if isinstance(detail, bytes) else str(detail))
    held = replace(lease, token=row[1].decode(), fence=int(row[2]))
    left = int(row[3]) / 1000
    if word == "reply":
        return Handover(held, attempted, left, int(row[4]), int(row[5]), row[7])
    return Work(
        lease=held,
        attempted=attempted,
        left=left,
        first=row[4].decode(),
        last=row[5].decode(),
        revision=int(row[6]),
        attempts=int(row[7]),
        checkpoint=row[9] if row[8] == b"1" else None,
        kind=row[10].decode(),
        state=row[11],
        cancel=row[12].decode(),
        turns=tuple(row[13:]),
        due=attempted if due is None else due,
    )


def messages_of(setting: Setting, thread: str, entries: Sequence[Entry]) -> tuple[Message, ...]:
    """Entries of a stream as messages; fields of a later release are passed over.

    Under this layout the first five fields keep their places (v, id, author, size, m): the scripts read author and size
    by position. Here their order does not matter.
    """
    found: list[Message] = []
    for raw, fields in entries:
        if fields[2::2] == _FIELDS:
            name, author, data = fields[3].decode(), fields[5].decode(), fields[9]
        else:
            named = dict(zip(fields[::2], fields[1::2], strict=False))
            name, author, data = (
                named.get(b"id", b"").decode(),
                named.get(b"author", b"").decode(),
                named.get(b"m", b""),
            )
        entry = raw.decode()
        found.append(decode_message(setting.decode(data, "message", thread, name), entry, name or entry, author))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Peek:
    """Server time (ms), ok | halted | new, the threads that are due, and the next ones, each with its moment (ms).

    A moment of 0 is none: a cancelled batch, or what a clock that was stepped back has left.
    """

    now: int
    state: str
    ready: dict[str, float]
    soon: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, row: Row) -> Peek:
        """From the answer of peek; a thread that is due and odd at once is named once."""
        triples = [(row[i], row[i + 1].decode(), float(row[i + 2])) for i in range(2, len(row), 3)]
        ready: dict[str, float] = {}
        for word, thread, at in triples:
            if word != b"soon":
                ready.setdefault(thread, at)
        soon = tuple((thread, at) for word, thread, at in triples if word == b"soon")
        return cls(int(row[0]), row[1].decode(), ready, soon)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message: waiting, gone, answered, none, dead or cancelled; and what was shown, if asked."""

    kind: str
    reply: Reply | None = None
    reason: str = ""
    shown: Sequence[Entry] = ()

    @classmethod
    def of(cls, row: Row, thread: str, entry: str, setting: Setting) -> Outcome:
        """From the answer of await."""
        kind = row[0].decode()
        shown = cast("Sequence[Entry]", row[-1] if isinstance(row[-1], list) else ())
        if kind in ("waiting", "gone"):
            return cls(kind, shown=shown)
        if order(row[1].decode()) > order(entry):
            return cls("gone", shown=shown)
        if kind == "answered" or (kind == "cancelled" and row[4]):
            data = setting.decode(row[4], "reply", thread)
            return cls(kind, decode_reply(data, thread, int(row[2]), int(row[3])), "", shown)
        return cls(kind, None, row[4].decode() if kind == "dead" else "", shown)

    def value(self) -> Reply | None:
        """The reply, None if the runner answered nothing. Raises DeadLettered, RunCancelled."""
        if self.kind == "cancelled":
            raise RunCancelled(reply=self.reply)
        if self.kind == "dead":
            raise DeadLettered(reason=self.reason)
        return self.reply


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry of the stream of previews, its content still as it is stored.

    Attributes:
        id: the Run's fence and the number of the event in the Run.
        kind: started, restarted, text, data; a later release may have others.
        batch_id: of the batch as it was then.
        first: its first entry, to be compared.
        last: its last entry, as it was then.
        messages: how many it had.
        attempt: of the Run.
        owner: the process that runs.
        data: the content.
    """

    id: str
    kind: str
    batch_id: str
    first: tuple[int, int]
    last: tuple[int, int]
    messages: int
    attempt: int
    owner: str
    data: bytes

    @classmethod
    def of(cls, raw: Entry) -> Shown | None:
        """From an entry, or None if it is not ours; fields of a later release are passed over."""
        name, fields = raw
        f: dict[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=False))
        try:
            return cls(
                name.decode(), f[b"k"].decode(), f[b"b"].decode(), order(f[b"f"].decode()), order(f[b"l"].decode()),
                int(f[b"n"]), int(f[b"a"]), f[b"o"].decode(), f[b"m"],
            )  # fmt: skip
        except (KeyError, ValueError):
            return None

    def holds(self, entry: str) -> bool:
        """Whether the batch held a message, as it was then."""
        return self.first <= order(entry) <= self.last

    def read(self, setting: Setting, thread: str) -> Json:
        """The content; raises StoreError if it is damaged."""
        if self.kind not in ("text", "data"):
            return None
        return from_json(setting.decode(self.data, "preview", thread), f"a preview of thread {thread!r}")


def order(entry: str) -> tuple[int, int]:
    """Entry ids compare by number, not by text."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq or 0)
