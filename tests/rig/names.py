"""Where the keys of a thread are, with as many partitions as the tests run with (`--partitions`)."""

from __future__ import annotations

from itertools import chain, count

from streambatch._keys import Keys
from streambatch._settings import Settings


def key_of(namespace: str, kind: str, thread: str = "t", *, shared: bool = False) -> str:
    """A key of a thread; or with *shared* the one of this kind that all threads of its partition share."""
    keys = Keys(namespace, Settings().partitions)
    place = keys.partition(thread)
    return keys.of(place, kind) if shared else keys.some(place, thread, (kind,))[0]


def neighbour(name: str, of: str = "t") -> str:
    """A thread of this name in the partition of another one: the name itself, or with a number behind it."""
    keys = Keys("n", Settings().partitions)
    names = chain((name,), (f"{name}{number}" for number in count()))
    return next(thread for thread in names if keys.partition(thread) == keys.partition(of))
