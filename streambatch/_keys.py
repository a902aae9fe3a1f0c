"""Every key, hash tag and channel of the data layout; nothing else spells one.

``sb1:{<namespace>.<pp>}:<kind>[:<thread>]``: ``sb1`` is the layout, the hash tag comes first and holds the partition,
never the thread id: ids with ``}`` or empty ones would break the slot. Everything a script touches is in one slot.
One index more than the obvious: ``outbox`` is to deliverers what ``due`` is to runners. With one index for both, a
process that only delivers would meet a page full of threads it may not take, and would never see its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from zlib import crc32

from .errors import UsageError

LAYOUT = "1"
ALL = f"sb{LAYOUT}:*"  # what a user of the server may touch, as an ACL names it
METAS = f"sb{LAYOUT}:{{*.00}}:meta"  # of every namespace one key, as SCAN matches it
SHARED = ("meta", "due", "outbox", "parked", "paused", "tally", "epoch", "awaited", "hints", "dead")
THREAD = ("stream", "window", "lease", "run", "last", "head", "log", "reply")
SCOPE = ("scope", "held", "spent", "used")
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class Keys:
    """The keys of one namespace.

    Args:
        namespace: 1 to 64 of ``A-Z a-z 0-9 _ -``.
        partitions: how many hash slots it is spread over.
    """

    def __init__(self, namespace: str, partitions: int) -> None:
        if not _NAMESPACE.match(namespace):
            raise UsageError(f"namespace={namespace!r} must be 1 to 64 letters, digits, '_' or '-'")
        self.namespace = namespace
        self.partitions = partitions
        self._prefix = [f"sb1:{{{namespace}.{number:02d}}}:" for number in range(partitions)]
        self._shared = [tuple(prefix + kind for kind in SHARED) for prefix in self._prefix]

    @staticmethod
    def namespaces(metas: Iterable[str]) -> list[str]:
        """Whose the keys are that match METAS, in the order of the alphabet; without those that none of ours wrote."""
        head, tail = METAS.split("*")
        names = {key.removeprefix(head).removesuffix(tail) for key in metas}
        return sorted(name for name in names if _NAMESPACE.match(name))

    def partition(self, thread: str) -> int:
        """Which partition a thread lives in."""
        return crc32(thread.encode()) % self.partitions if self.partitions > 1 else 0

    def place(self, key: str) -> int:
        """Which partition a key of this namespace is in."""
        return int(key[key.index("}") - 2 : key.index("}")])

    def shared(self, partition: int) -> tuple[str, ...]:
        """The keys of a partition, in the order of SHARED."""
        return self._shared[partition]

    def of(self, partition: int, kind: str) -> str:
        """One key of a partition."""
        return self._prefix[partition] + kind

    def thread(self, partition: int, thread: str) -> tuple[str, ...]:
        """The keys of a thread, in the order of THREAD."""
        prefix = self._prefix[partition]
        return tuple([f"{prefix}{kind}:{thread}" for kind in THREAD])

    def some(self, partition: int, thread: str, kinds: tuple[str, ...]) -> list[str]:
        """Some keys of a thread."""
        prefix = self._prefix[partition]
        return [f"{prefix}{kind}:{thread}" for kind in kinds]

    def seen(self, partition: int, thread: str, message_id: str) -> str:
        """Where a message id is remembered; length-prefixed: ("a:b", "c") is not ("a", "b:c")."""
        return f"{self._prefix[partition]}seen:{len(thread)}:{thread}:{message_id}"

    def scope(self, name: str) -> list[str]:
        """The keys of a scope's shared limits, in the order of SCOPE; all scopes live in partition 0."""
        return [f"{self._prefix[0]}{kind}:{name}" for kind in SCOPE]

    def producer(self, partition: int, uuid: str) -> str:
        """Where a process' last applied call is remembered."""
        return f"{self._prefix[partition]}producer:{uuid}"

    def looked(self, partition: int, thread: str) -> list[str]:
        """What the look script reads, in its order."""
        kinds = ("stream", "window", "lease", "run", "last", "head")
        return [*self.shared(partition)[:5], *self.some(partition, thread, kinds)]

    def counted(self, partition: int) -> list[str]:
        """What the stats script reads, in its order."""
        shared = self.shared(partition)
        return [*shared[:6], shared[9]]
