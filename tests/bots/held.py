"""A server that holds back every write: how a test looks at the moment before a message is stored."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.embedded.tools import using
from tests.rig.moments import wait_for


class Held:
    """A server that answers reads only, until `release`."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def stuck(self, size: int) -> None:
        """Wait until a call of more than *size* bytes is stuck in the server.

        A bot that confirms too early does so before the call reaches the server, or in the same turns of its event
        loop; the server answers fifty times meanwhile, which is many more turns.
        """

        async def blocked() -> bool:
            clients = str(await self._redis.execute_command("CLIENT", "LIST"))
            return any(int(memory) > size for memory in re.findall(r" flags=\w*b.* argv-mem=(\d+)", clients))

        await wait_for(blocked, "a submit that waits in the server", deadline=40)
        for _ in range(50):
            await self._redis.ping()

    async def release(self) -> None:
        """Writes go on."""
        await self._redis.execute_command("CLIENT", "UNPAUSE")


@asynccontextmanager
async def holding(data: Path) -> AsyncGenerator[Held]:
    """The embedded server in *data*, holding back writes for a minute, or until ``release``."""
    async with using(f"embedded:{data}") as server:
        socket = server.socket
    async with Redis(unix_socket_path=socket, decode_responses=True) as client:
        redis: Any = client
        await redis.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
        yield Held(redis)
