"""What is given to ``submit``, checked and encoded before anything is contacted or stored.

A mistake of the caller's is found here, in the caller's own call: the intake mixes the messages of many callers in one
script, where it would be somebody else's, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from time import time

from ._messages import TRACE, Json, content_of, encode_message, id_of
from ._ports import Carrier, Codec, Plain
from ._rows import context
from ._settings import Durability, Replicas, Seconds, Settings, ms, seconds
from ._submit import Entry
from .errors import TooLarge, UsageError


class Checks:
    """The checks of one queue.

    Args:
        settings: the queue's.
        codec: the queue's.
    """

    def __init__(self, settings: Settings, codec: Codec) -> None:
        self._settings, self._codec = settings, codec

    def entry(
        self, thread: str, content: object, message_id: str | int | None, author: str | int | None,
        sent_at: datetime | None, metadata: Mapping[str, Json] | None, debounce: Seconds | None,
        carrier: Carrier | None = None, *, now: bool,
    ) -> Entry:  # fmt: skip
        """The message as the submit script takes it. Raises UsageError and TooLarge."""
        s = self._settings
        given = "" if message_id is None else id_of(message_id, "message_id")
        who = "" if author is None else id_of(author, "author")
        if sent_at is not None or metadata is not None:
            _checked(sent_at, metadata)
        quiet = s.debounce_of(thread) if debounce is None else seconds("debounce", debounce)
        data = encode_message(content_of(content), sent_at, metadata or {}, {TRACE: carrier} if carrier else None)
        if len(data) > s.max_message_bytes:
            raise TooLarge(f"the message has {len(data)} bytes; max_message_bytes is {s.max_message_bytes}")
        if not isinstance(self._codec, Plain):
            data = self._codec.encode(data, context("message", thread, given))
        return Entry(thread, given, who, len(data) + len(given) + len(who), -1 if now else ms(quiet), data)

    def stale(self, sent_at: datetime | None) -> bool:
        """Whether a message is older than ``max_age``."""
        longest = self._settings.max_age
        return sent_at is not None and longest is not None and time() - sent_at.timestamp() > longest

    def replicas(self, durability: Durability | None) -> Replicas | None:
        """Which replicas must have it before ``submit`` returns. Raises UsageError."""
        asked = self._settings.durability if durability is None else durability
        if asked not in ("server", "disk") and not isinstance(asked, Replicas):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"durability={asked!r} is not 'server', 'disk' or Replicas(n)")
        if asked == "disk" and self._settings.durability != "disk":
            raise UsageError(
                'durability="disk" for one message needs a queue with durability="disk" (checked at start)'
            )
        return asked if isinstance(asked, Replicas) else None


def _checked(sent_at: object, metadata: object) -> None:
    if sent_at is not None and (not isinstance(sent_at, datetime) or sent_at.tzinfo is None):
        raise UsageError("sent_at is an aware datetime (with a time zone)")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise UsageError(f"metadata is a mapping of JSON data, not {type(metadata).__name__}")
