"""One numbered submit call: how messages of many threads become KEYS and ARGV, and the answer ours.

Messages are grouped by thread, in order within each, because a script call can look at a thread's window once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ._keys import Keys
from ._scripts import Arg
from ._settings import Replicas, Settings

_THREAD = ("stream", "window", "run", "last")


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as the submit script takes it; times in ms, quiet < 0 means due at once."""

    thread: str
    message_id: str
    author: str
    data: bytes
    memory: int
    wait: int
    quiet: int

    @property
    def size(self) -> int:
        """Bytes that count against the limits."""
        return len(self.data) + len(self.message_id) + len(self.author)


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a message: the script's word and the entry id."""

    word: str
    entry: str

    @property
    def refused(self) -> bool:
        """Nothing was stored."""
        return self.word in ("n", "b", "x")


@dataclass(frozen=True, slots=True)
class Replicated:
    """How many replicas confirmed the call."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """A numbered call of a producer."""

    partition: int
    producer: str
    number: int
    entries: Sequence[Entry]
    replicas: Replicas | None

    def order(self) -> list[int]:
        """Positions of the entries, grouped by thread."""
        groups: dict[str, list[int]] = {}
        for position, entry in enumerate(self.entries):
            groups.setdefault(entry.thread, []).append(position)
        return [position for group in groups.values() for position in group]

    def pack(
        self, keys: Keys, settings: Settings, opening: Sequence[Arg], ttl: int, *, resend: bool
    ) -> tuple[list[str], list[Arg]]:
        """KEYS and ARGV."""
        partition = self.partition
        found = [*keys.shared(partition), keys.producer(partition, self.producer)]
        argv: list[Arg] = [*opening, self.number, int(resend), ttl, settings.max_pending, settings.max_pending_bytes]
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(entry.thread, []).append(entry)
        for thread, group in groups.items():
            found += keys.some(partition, thread, _THREAD)
            argv += (thread, len(group))
            for e in group:
                if e.memory > 0:
                    found.append(keys.seen(partition, thread, e.message_id))
                argv += (e.message_id, e.memory, e.author, e.size, e.wait, e.quiet, e.data)
        return found, argv

    def unpack(self, answer: bytes) -> list[Stored] | None:
        """The outcome of each entry, in the order of ``entries``; None if the server cannot tell."""
        words = answer.decode().split(" ")
        if words[0] in ("unknown", "stale"):
            return None
        outcomes = [Stored(_WORDS.get(words[i], words[i]), words[i + 1]) for i in range(0, len(words), 2)]
        result: list[Stored] = [outcomes[0]] * len(outcomes)
        for position, stored in zip(self.order(), outcomes, strict=True):
            result[position] = stored
        return result


_WORDS = {"q": "queued", "d": "duplicate"}
