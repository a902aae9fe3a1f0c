"""One numbered submit call: how messages of many threads become KEYS and ARGV, and the answer ours.

Messages are grouped by thread, in order within each, because a script call can look at a thread's window once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ._keys import Keys
from ._scripts import Arg
from ._settings import Replicas, Settings, ms

_THREAD = ("stream", "window", "run", "last")


class Entry(NamedTuple):
    """A message as the submit script takes it; quiet in ms, < 0 means due at once.

    A tuple, like ``Stored``: there is one for every message, and a frozen dataclass costs a microsecond more.
    """

    thread: str
    message_id: str
    author: str
    size: int
    quiet: int
    data: bytes


class Stored(NamedTuple):
    """What became of a message: queued, duplicate or a refusal (n, b, x), and the entry id."""

    word: str
    entry: str


@dataclass(frozen=True, slots=True)
class Replicated:
    """How many replicas confirmed the call."""

    count: int = 0


class Submission:
    """A numbered call of a producer: *entries* in the order of submitting."""

    def __init__(
        self, partition: int, producer: str, number: int, entries: Sequence[Entry], replicas: Replicas | None
    ) -> None:
        self.partition, self.producer, self.number = partition, producer, number
        self.entries, self.replicas = entries, replicas
        self._packed: tuple[list[str], list[Arg]] | None = None
        self._groups: dict[str, list[int]] = {}
        for position, entry in enumerate(entries):
            self._groups.setdefault(entry.thread, []).append(position)

    def pack(
        self, keys: Keys, settings: Settings, opening: Sequence[Arg], ttl: int, *, resend: bool
    ) -> tuple[list[str], list[Arg]]:
        """KEYS and ARGV; made once, but for what may differ when it is sent again."""
        if self._packed is None:
            self._packed = self._pack(keys, settings, ttl)
        found, argv = self._packed
        return found, [*opening, self.number, int(resend), *argv]

    def _pack(self, keys: Keys, settings: Settings, ttl: int) -> tuple[list[str], list[Arg]]:
        partition, entries = self.partition, self.entries
        found = [*keys.shared(partition), keys.producer(partition, self.producer)]
        memory = ms(settings.dedup_window)
        argv: list[Arg] = [ttl, settings.max_pending, settings.max_pending_bytes, memory, ms(settings.max_wait)]
        for thread, positions in self._groups.items():
            found += keys.some(partition, thread, _THREAD)
            argv += (thread, len(positions))
            for position in positions:
                entry = entries[position]
                argv += entry[1:]
                if memory and entry.message_id:
                    found.append(keys.seen(partition, thread, entry.message_id))
        return found, argv

    def unpack(self, answer: bytes) -> list[Stored] | None:
        """The outcome of each entry, in the order of ``entries``; None if the server cannot tell."""
        words = answer.decode().split(" ")
        if words[0] in ("unknown", "stale"):
            return None
        result = [_NOTHING] * len(self.entries)
        word = iter(words)
        for positions in self._groups.values():
            for position in positions:
                kind = next(word)
                result[position] = Stored(_WORDS.get(kind, kind), next(word))
        return result


_NOTHING = Stored("x", "-")
_WORDS = {"q": "queued", "d": "duplicate"}
REFUSED = frozenset("nbx")
