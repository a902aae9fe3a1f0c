"""The key-leak check: a test that is over leaves only keys that expire (I7).

Every key begins with `sb1:{<namespace>.<partition>}:<kind>`, or `sb1:{<namespace>}:<kind>` for what belongs to no
partition, and each test has a namespace of its own; so what a test left can be found by its name. A key of a kind in
`KEPT` may stay for ever by design; any other must have a TTL. A test that leaves messages behind on purpose says so
with `@pytest.mark.leaves_keys("reason")`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

#: The kinds that live without a TTL, each with the reason.
KEPT = {
    "meta": "the layout and the number of partitions, for as long as the namespace exists",
    "tally": "counts, one hash per partition",
    "epoch": "the fence counter, one per partition, which may never go back",
    "dead": "dead letters, until somebody redrives or discards them",
}

_KIND = re.compile(r"sb1:\{[^}]*\}:([^:]*)")


def keys_of(admin: Any, namespace: str) -> list[str]:
    """Return all keys of a namespace, sorted."""

    def matching(pattern: str) -> Iterator[str]:
        return admin.scan_iter(match=pattern, count=1000)

    return sorted(set(itertools.chain(matching(f"sb1:{{{namespace}.*"), matching(f"sb1:{{{namespace}}}*"))))


def leaked(admin: Any, namespace: str) -> list[str]:
    """Return the keys of a namespace that would stay for ever although their kind is not one of `KEPT`."""

    def stays(key: str) -> bool:
        kind = _KIND.match(key)
        return (kind is None or kind[1] not in KEPT) and bool(admin.pttl(key) == -1)

    return [key for key in keys_of(admin, namespace) if stays(key)]


def sweep(admin: Any, namespace: str) -> None:
    """Delete all keys of a namespace."""
    keys = keys_of(admin, namespace)
    if keys:
        admin.unlink(*keys)
