"""Hints from other processes: an index's head moved earlier, or an outcome somebody awaits is there.

Polling is the truth; a hint only shortens a wait. So this loop may fail in every way: while its connection is gone the
queue is at most a second late. It subscribes to one sharded channel per partition on one connection (on a Cluster on a
connection for each, because a sharded channel lives where its slot does), reads without a time limit, and asks PING
after half a minute of silence, because a half-open connection says nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import ConnectionError, RedisError  # noqa: A004
from redis.exceptions import TimeoutError as RedisTimeoutError

from ._keys import Keys
from ._retry import reconnect
from ._scripts import give_back
from ._shield import to_the_end
from ._topology import Client, at, moved, spread
from .errors import StoreError, Unreachable

Heard = Callable[[int, str, str], None]


class Hints:
    """The subscription of one process.

    Args:
        client: whose pool gives the connection.
        keys: the namespace; its hints channels.
        heard: called with partition, word (due, outbox, reply) and argument; after every (re-)subscription with the
            word ``missed``, because hints may have been.
        away: told of a lost connection (an error) and of a subscription (None): a process that does nothing else learns
            here that the server is away, and that it is back.
    """

    SILENCE = 30.0

    def __init__(
        self, client: Client, keys: Keys, heard: Heard, away: Callable[[StoreError | None, int], None]
    ) -> None:
        self._away = away
        self._channels = {keys.of(p, "hints").encode(): p for p in range(keys.partitions)}
        channels = list(self._channels)
        self._groups = [[channel] for channel in channels] if spread(client) else [channels]
        self._client = client
        self._heard = heard
        self._deaf = set(channels)
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled."""
        ears = [asyncio.ensure_future(self._keep(group)) for group in self._groups]
        try:
            await asyncio.gather(*ears)
        finally:
            for ear in ears:
                ear.cancel()
            await to_the_end(_ended(ears))

    async def _keep(self, channels: Sequence[bytes]) -> None:
        tries = 0
        while True:
            try:
                await self._listen(channels)
            except (RedisError, OSError) as error:
                if isinstance(error, ConnectionError | RedisTimeoutError | OSError):
                    said = f"the server does not answer: {type(error).__name__}"
                    self._away(Unreachable(said, sent=False), self._channels[channels[0]])
                tries = 1 if tries > 8 else tries + 1
                await asyncio.sleep(reconnect(tries + 4, random.random()))

    async def _listen(self, channels: Sequence[bytes]) -> None:
        pool: Any = at(self._client, channels[0].decode()).connection_pool
        async with asyncio.timeout(self.SILENCE):  # a server that accepts and says nothing
            connection = await pool.get_connection()
        try:
            await connection.send_command("SSUBSCRIBE", *channels)
            asked = False
            while True:
                answer = await self._read(connection)
                if answer is not None:
                    asked = False
                    self._take(answer)
                elif asked:
                    raise RedisTimeoutError("no answer to PING")
                else:
                    asked = True
                    await connection.send_command("PING", check_health=False)
        except RedisError:
            moved(pool)
            raise
        finally:
            self._deaf.update(channels)
            self.listening.clear()
            await to_the_end(give_back(pool, connection))

    async def _read(self, connection: Any) -> Any:
        """The next message, or None after SILENCE: the client returns None or raises, by its version."""
        try:
            return await connection.read_response(
                disable_decoding=True, timeout=self.SILENCE, disconnect_on_error=False, push_request=True
            )
        except RedisTimeoutError:
            return None

    def _take(self, answer: Any) -> None:
        if len(answer) != 3:
            return
        if answer[0] == b"ssubscribe":
            self._deaf.discard(answer[1])
            if not self._deaf:
                self.listening.set()
            self._away(None, self._channels[answer[1]])
            self._heard(self._channels[answer[1]], "missed", "")
        elif answer[0] == b"sunsubscribe":  # nobody asked for it: the channel's slot is on another node by now
            raise ConnectionError("the subscription ended")
        elif answer[0] == b"smessage" and answer[1] in self._channels:
            word, _, argument = answer[2].decode(errors="replace").partition(" ")
            self._heard(self._channels[answer[1]], word, argument)


async def _ended(ears: Iterable[asyncio.Future[None]]) -> None:
    await asyncio.gather(*ears, return_exceptions=True)
