"""The server that the torture runs on: how to reach it through a proxy, how to look at single keys, what may be harmed.

Theory of operation. A user's server is never harmed: what is sent to it is what any queue sends, and in the end PEXPIRE
and DEL of keys that the torture itself has used, each by its name. That needs no right that a queue does not need.
``PEXPIRE … NX`` answers 1 for a key that is there and has no TTL, so it tells what would have stayed for good.

A server of our own may also be killed and frozen: then `Ground` has the means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from streambatch._connect import client_of, masked
from streambatch._scripts import Call, Wire
from streambatch._settings import Settings
from streambatch.errors import Refused, UsageError

from ._proxy import Ends

ONE = ("redis", "rediss", "valkey", "valkeys", "unix")  # schemes of one server
#: Kinds of keys that stay for as long as their namespace, or until somebody looks at them.
KEPT = ("meta", "tally", "epoch", "dead")
_DAY = 86_400_000
_PAGE = 500


@dataclass(frozen=True)
class Means:
    """What may be done to a server that is ours.

    Attributes:
        kill: ends it with SIGKILL and returns when another process serves the same data.
        freeze: stops it for so many seconds.
    """

    kill: Callable[[], Awaitable[None]]
    freeze: Callable[[float], Awaitable[None]]


class Ground:
    """One server.

    Args:
        url: of the server; ``sentinel://`` and ``cluster://`` are several, and a proxy stands in front of one.
        means: of harming it; None for a server of somebody else.

    Raises:
        UsageError: the URL is none, or leads to several servers.
    """

    def __init__(self, url: str, means: Means | None = None) -> None:
        scheme = url.partition(":")[0]
        if scheme in ("sentinel", "cluster"):
            raise UsageError(f"torture stands between the workers and one server; give a redis:// URL, not {scheme}://")
        if scheme not in ONE and scheme != "memory":  # that one is refused below, with its reason
            raise UsageError(f"{masked(url)!r}: a URL for torture begins with {'://, '.join(ONE)}:// or embedded:")
        self.means = means
        self._client: Any = client_of(url, Settings(), 4)[0]
        pool = self._client.connection_pool
        self._told: dict[str, Any] = pool.connection_kwargs
        self._made: Any = pool.connection_class(**self._told)

    async def connect(self) -> Ends:
        """A connection for a proxy, encrypted if the URL says so."""
        if hasattr(self._made, "path"):
            return await asyncio.open_unix_connection(self._made.path)
        return await asyncio.open_connection(**self._made._connection_arguments())

    def url_at(self, port: int) -> str:
        """The URL of the same user and database behind a proxy."""
        user, password = self._told.get("username") or "", self._told.get("password") or ""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        return f"redis://{who}127.0.0.1:{port}/{self._told.get('db') or 0}"

    async def about(self) -> dict[str, str]:
        """What the server says about itself."""
        wire = Wire(self._client, 5.0)
        try:
            text: bytes = await wire.call(None, (), ("INFO",))
        finally:
            await wire.close()
        lines = text.decode(errors="replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    async def lasting(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that are there, have no TTL, and are of a kind that should have one."""
        asked = sorted(key for key in keys if key.split(":")[2] not in KEPT)
        answers = await self._all([("PEXPIRE", key, _DAY, "NX") for key in asked])
        return [key for key, answer in zip(asked, answers, strict=True) if answer == 1]

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete these keys."""
        await self._all([("DEL", key) for key in sorted(keys)])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _all(self, commands: list[tuple[str | int, ...]]) -> list[Any]:
        wire, found = Wire(self._client, 10.0), list[Any]()
        try:
            for start in range(0, len(commands), _PAGE):
                found += await wire.exchange([Call(None, (), each) for each in commands[start : start + _PAGE]])
        finally:
            await wire.close()
        for answer in found:
            if isinstance(answer, Refused):
                raise answer
        return found
