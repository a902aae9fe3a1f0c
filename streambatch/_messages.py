"""The nouns: Message, Batch, Answer, Reply. Data only, and how they become bytes.

Theory of operation
-------------------
Everything is frozen and slotted. Bytes are JSON with a format number ``v`` (1). A reader keeps what it does not know:
unknown fields of a stored message come back in ``Message.extra`` and are written again with a dead letter, so that
releases N and N-1 can work on the same data (I15). A reply does the same (``Reply.extra``). One name among them is
taken: under `TRACE` is the context of a tracer, a few strings, if the writer had one; to others it is just unknown.
Nothing here touches a server or a clock.

A thread or message id is ``str | int`` and kept as ``str``; ids are data, never parsed, so ``{}``, NUL, newlines and
colons are fine. An id is at most 256 bytes of UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, cast

from .errors import StoreError, UsageError

FORMAT = 1
MAX_ID_BYTES = 256
Json = Any
TRACE = "tc"
_KNOWN = frozenset({"v", "c", "s", "d"})
_REPLY = frozenset({"v", "i", "b", "m", "t", "p", "d", "u", "f"})
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_TEXT = b'{"v":1,"c":"'  # most messages are this, a text, and '"}': no parser is needed for them
_quoted = json.encoder.encode_basestring
_decode = json.JSONDecoder().decode
_escaped = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a message or an answer: text, or an image or file by reference (never a blob).

    Args:
        type: ``"text"``, ``"image"`` or ``"file"``.
        text: the text of a text part.
        url: where an image or file is; http(s) only.
        file_id: the provider's id of an uploaded image or file.

    Example:
        >>> Part("image", url="https://example.org/cat.png").type
        'image'
    """

    type: Literal["text", "image", "file"]
    text: str | None = field(default=None, repr=False)  # content, as what the others lead to is
    url: str | None = field(default=None, repr=False)
    file_id: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.type not in ("text", "image", "file"):
            raise UsageError("a part's type is 'text', 'image' or 'file', as in Part('text', text=…)")
        if self.type == "text":
            if not isinstance(self.text, str) or self.url or self.file_id:
                raise UsageError("a text part has text and nothing else")
        elif self.text is not None or bool(self.url) == bool(self.file_id):
            raise UsageError(f"an {self.type} part has either url or file_id")
        elif not all(isinstance(cast("object", name), str | None) for name in (self.url, self.file_id)):
            raise UsageError(f"url and file_id of an {self.type} part are str")
        elif self.url and not self.url.startswith(("http://", "https://")):
            raise UsageError("a part's url must be http(s); blobs and data URLs are not stored in the queue")


Content = str | tuple[Part, ...]


def content_of(value: object) -> Content:
    """Check what a user gave as content; accepts text, or a list of parts (Part, mapping or str)."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return tuple([_part_of(item) for item in cast("list[object]", value)])
    raise UsageError(f"content is text or a list of parts, not {type(value).__name__}")


def _part_of(item: object) -> Part:
    if isinstance(item, Part):
        return item
    if isinstance(item, str):
        return Part("text", text=item)
    if isinstance(item, Mapping):
        try:
            return Part(**cast("Mapping[str, Any]", item))
        except TypeError:
            raise UsageError("a part has the fields type, text, url, file_id") from None
    raise UsageError(f"a part is text, a Part or a mapping, not {type(item).__name__}")


def text_of(content: Content) -> str:
    """The text in *content*; parts that are not text are left out."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if part.text)


def id_of(value: object, what: str) -> str:
    """Check a thread or message id: ``str | int``, 1 to 256 bytes; returns it as str."""
    if isinstance(value, str) and value.isascii() and 0 < len(value) <= MAX_ID_BYTES:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**40:
        return str(value)
    if not isinstance(value, str):
        raise UsageError(f"{what} is str or int (of at most 40 digits), not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not valid Unicode (it holds a lone surrogate)") from None
    if not 1 <= size <= MAX_ID_BYTES:
        raise UsageError(f"{what} has {size} bytes; 1 to {MAX_ID_BYTES} are possible")
    return value


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was submitted.

    Attributes:
        id: the message id given at submit, or the generated one.
        content: text, or a tuple of parts.
        author: who wrote it, as given, or None.
        sent_at: the platform's time (aware), as given, or None.
        metadata: opaque JSON data of the bot, as given.
        entry: the stream entry id: the order within the thread.
        extra: what else was stored with it: by a later release, or by a tracer (``"tc"``).

    Example:
        >>> Message("17", (Part("text", text="look"), Part("image", url="https://example.org/cat.png"))).text
        'look'
    """

    id: str
    content: Content
    author: str | None = None
    sent_at: datetime | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict[str, Json])
    entry: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json], repr=False)

    @property
    def text(self) -> str:
        """The text of the message; parts that are not text are left out."""
        return text_of(self.content)

    def __repr__(self) -> str:  # content never reaches a log by accident
        return f"Message(id={self.id!r}, entry={self.entry!r}, author={self.author!r})"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one Run sees: every message of the burst, in order.

    Attributes:
        thread: the conversation.
        id: stable across replays: an idempotency key, unique over threads.
        messages: in order of arrival.
        attempt: 1 for the first Run of this batch, 2 after a crash or a retry.
        state: what the runner returned as ``Answer.state`` last time for this thread, or None.
        history: the turns that earlier Runs of this thread appended (local history), oldest first.
        kind: the kind of runner that the thread's state and history belong to, or "" before its first Run.

    Example:
        >>> batch = Batch("anna", "b1", (Message("17", "hi"), Message("18", "are you open?")))  # to try a runner
        >>> [message.text for message in batch.messages], batch.attempt
        (['hi', 'are you open?'], 1)
    """

    thread: str
    id: str
    messages: tuple[Message, ...]
    attempt: int = 1
    state: Json = None
    history: tuple[Json, ...] = ()
    kind: str = ""

    @property
    def text(self) -> str:
        """The texts of all messages, one a line."""
        return "\n".join(text for text in (message.text for message in self.messages) if text)

    def __repr__(self) -> str:
        return f"Batch(thread={self.thread!r}, id={self.id!r}, messages={len(self.messages)}, attempt={self.attempt})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a runner returns.

    Args:
        text: what to say; with no text and no parts nothing is delivered.
        state: JSON data kept for this thread until the next Run (None keeps what is there).
        parts: further parts to deliver.
        usage: token counts or whatever the provider says.
        flags: for example ``("incomplete",)``.
        turns: JSON turns to append to the thread's local history, committed with the settle.
        forget: how many of the oldest turns of ``Batch.history`` to drop in the same step.
        kind: what the thread is from now on, of the runner's ``kinds``; "" means the runner's ``kind``.

    Example:
        >>> async def answer(batch):
        ...     return Answer("We open at nine.", state={"asked": batch.text}, usage={"input_tokens": 9})
    """

    text: str = ""
    state: Json = None
    parts: tuple[Part, ...] = ()
    usage: Mapping[str, Json] | None = None
    flags: tuple[str, ...] = ()
    turns: tuple[Json, ...] = ()
    forget: int = 0
    kind: str = ""

    def __repr__(self) -> str:
        return f"Answer(chars={len(self.text)}, parts={len(self.parts)}, flags={self.flags!r})"


@dataclass(frozen=True, slots=True)
class Reply:
    """What is delivered: the answer, and to what.

    Attributes:
        id: stable: two deliveries with one id are the same reply (at least once, I17).
        thread: the conversation.
        batch_id: the batch it answers.
        message_ids: the ids of the messages it answers, in order.
        text: the text.
        parts: further parts.
        metadata: of the last message of the batch.
        usage: as the runner gave it.
        flags: as the runner gave them.
        sequence: 1, 2, 3 … per thread; a smaller one arriving late is a repetition.
        fence: a number that only grows per thread.
        extra: what else was stored with it: by a later release, or by a tracer (``"tc"``).

    Example:
        >>> async def deliver(reply):
        ...     await bot.send_message(reply.metadata["chat"], reply.text)  # as it was submitted
    """

    id: str
    thread: str
    batch_id: str
    message_ids: tuple[str, ...]
    text: str
    parts: tuple[Part, ...] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict[str, Json])
    usage: Mapping[str, Json] | None = None
    flags: tuple[str, ...] = ()
    sequence: int = 0
    fence: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json], repr=False)

    def __repr__(self) -> str:
        return f"Reply(id={self.id!r}, thread={self.thread!r}, messages={len(self.message_ids)})"


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What ``cancel`` found.

    Attributes:
        run: there was a batch: its Run ends, or, if it waits for its next try, never begins again.
        dropped: messages that waited and are gone.

    Example:
        >>> found = await queue.cancel("anna")
        >>> print("stopped" if found.run or found.dropped else "there was nothing to stop")
        there was nothing to stop
    """

    run: bool
    dropped: int


def batch_id(namespace: str, thread: str, entry: str, revision: int) -> str:
    """First entry id + revision, and eight hex digits of the thread: entry ids alone repeat across threads."""
    tag = blake2b(f"{namespace}\0{thread}".encode(), digest_size=4).hexdigest()
    return f"{entry}.{revision}-{tag}"


def to_json(value: Json, what: str) -> bytes:
    """JSON bytes of *value*; a lone surrogate is escaped rather than refused."""
    try:
        return _compact(value).encode()
    except UnicodeEncodeError:
        return _escaped(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not JSON data: {type(error).__name__}") from None


def from_json(data: bytes, what: str) -> Json:
    """The value of stored JSON bytes, or StoreError if they are damaged."""
    try:
        return _decode(data.decode())
    except (ValueError, RecursionError):
        raise StoreError(f"{what} in the server is damaged ({len(data)} bytes that are not our JSON)") from None


def _plain(parts: Sequence[Part]) -> list[dict[str, str]]:
    names = ("type", "text", "url", "file_id")
    return [{n: v for n in names if (v := getattr(part, n)) is not None} for part in parts]


def encode_message(
    content: Content, sent_at: datetime | None, metadata: Mapping[str, Json], extra: Mapping[str, Json] | None = None
) -> bytes:
    """The opaque ``m`` of a stream entry: {v, c: content, s: sent_at, d: metadata}."""
    if isinstance(content, str) and sent_at is None and not metadata and not extra:
        with suppress(UnicodeEncodeError):
            return f'{{"v":{FORMAT},"c":{_quoted(content)}}}'.encode()
    body: dict[str, Json] = {**extra} if extra else {}
    body["v"] = FORMAT
    body["c"] = content if isinstance(content, str) else _plain(content)
    if sent_at is not None:
        body["s"] = sent_at.timestamp()
    if metadata:
        body["d"] = dict(metadata)
    return to_json(body, "content or metadata")


def decode_message(data: bytes, entry: str, message_id: str, author: str) -> Message:
    """The reverse of encode_message; StoreError names the entry if the bytes are damaged."""
    if data[:12] == _TEXT and data[-2:] == b'"}' and b'"' not in (text := data[12:-2]) and b"\\" not in text:
        return Message(message_id, _utf8(text, entry), author or None, None, {}, entry, {})
    body = from_json(data, f"message {entry}")
    try:
        sent = body.get("s")
        raw = body["c"]
        return Message(
            id=message_id,
            content=raw if isinstance(raw, str) else tuple(Part(**part) for part in raw),
            author=author or None,
            sent_at=None if sent is None else datetime.fromtimestamp(sent, UTC),
            metadata=body.get("d", {}),
            entry=entry,
            extra={} if _KNOWN.issuperset(body) else {k: v for k, v in body.items() if k not in _KNOWN},
        )
    except (KeyError, TypeError, AttributeError, UsageError):
        raise StoreError(f"message {entry} in the server is damaged (fields are missing)") from None


def _utf8(data: bytes, entry: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise StoreError(f"message {entry} in the server is damaged (it is not UTF-8)") from None


def encode_reply(reply: Reply) -> bytes:
    """The stored form of a reply; fence and sequence are added by the settle script beside it."""
    body: dict[str, Json] = {
        **reply.extra,
        "v": FORMAT,
        "i": reply.id,
        "b": reply.batch_id,
        "m": reply.message_ids,
        "t": reply.text,
    }
    body |= {"p": _plain(reply.parts)} if reply.parts else {}
    body |= {"d": dict(reply.metadata)} if reply.metadata else {}
    body |= {"u": dict(reply.usage)} if reply.usage else {}
    body |= {"f": reply.flags} if reply.flags else {}
    return to_json(body, "the answer")


def decode_reply(data: bytes, thread: str, sequence: int, fence: int) -> Reply:
    """The reverse of encode_reply."""
    body = from_json(data, f"the reply of thread {thread!r}")
    try:
        return Reply(
            id=body["i"],
            thread=thread,
            batch_id=body["b"],
            message_ids=tuple(body["m"]),
            text=body["t"],
            parts=tuple(Part(**part) for part in body.get("p", ())),
            metadata=body.get("d", {}),
            usage=body.get("u"),
            flags=tuple(body.get("f", ())),
            sequence=sequence,
            fence=fence,
            extra={} if _REPLY.issuperset(body) else {k: v for k, v in body.items() if k not in _REPLY},
        )
    except (KeyError, TypeError, AttributeError, UsageError):
        raise StoreError(f"the reply of thread {thread!r} in the server is damaged (fields are missing)") from None
