"""Plain redis-py clients for checks.

They are typed as Any on purpose: redis-py leaves the keyword arguments of nearly every method without a type, and
strict pyright would report each call of each test.
"""

from __future__ import annotations

from typing import Any, cast

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

_SYNC = cast("Any", redis.Redis)
_ASYNC = cast("Any", redis.asyncio.Redis)


def connect(url: str) -> Any:
    """Return a synchronous client whose answers are str, for a `with`; it connects again after a restart."""
    if url.startswith("memory:"):
        from tests.rig import memory

        return memory.connect(url)
    return _SYNC.from_url(url, decode_responses=True, socket_timeout=10, retry=Retry(NoBackoff(), 2))


def connect_async(url: str, *, text: bool = True) -> Any:
    """Return an asynchronous client whose answers are str, or bytes; use it in `async with`."""
    if url.startswith("memory:"):
        from tests.rig import memory

        return memory.connect_async(url, text=text)
    return _ASYNC.from_url(url, decode_responses=text, socket_timeout=10)
