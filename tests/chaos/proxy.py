"""A TCP proxy that can become a black hole: it takes every byte, answers nothing, and closes nothing.

Theory of operation. It listens on a unix socket and passes bytes on to another one. `swallow` turns every connection
into a black hole, those that are open and those that come; so a client sees what it sees behind a firewall that drops
packets: no error, no end, no answer. `heal` lets new connections pass; a swallowed one stays dead for ever, because
bytes of it are missing. `swallow(answers_only=True)` loses only the answers: the server does what it is asked.
`forget` loses single answers to scripts, and closes their connection, so that the client knows at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self


class BlackHole:
    """The proxy; used in `async with`."""

    def __init__(self, place: Path, target: Path) -> None:
        self.path = place
        self._target = target
        self._lost: tuple[bool, bool] = (False, False)
        self.forget: Callable[[], bool] = lambda: False
        self._open: set[_Pair] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._come, str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pair in list(self._open):
            pair.end()
        await asyncio.gather(*(pair.task for pair in self._open), return_exceptions=True)
        await self._server.wait_closed()

    def swallow(self, *, answers_only: bool = False) -> None:
        """From now on nothing comes through, in both directions or in that of the answers."""
        self._lost = (not answers_only, True)
        for pair in self._open:
            pair.lost = self._lost

    def heal(self) -> None:
        """New connections pass again."""
        self._lost = (False, False)

    def forgets(self, pair: _Pair, data: bytes, way: int) -> bool:
        """Whether this answer to a script is lost."""
        if way == 0:
            pair.asked = pair.asked or b"EVAL" in data
            return False
        asked, pair.asked = pair.asked, False
        return asked and self.forget()

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.close()
            return
        pair = _Pair((reader, writer), there, self._lost, self.forgets)
        self._open.add(pair)
        try:
            await pair.task
        finally:
            self._open.discard(pair)


class _Pair:
    """One connection: two directions, each of which may be lost."""

    def __init__(
        self,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        lost: tuple[bool, bool],
        forgets: Callable[[_Pair, bytes, int], bool],
    ) -> None:
        self.lost = lost
        self.asked = False
        self._forgets = forgets
        self._writers = (here[1], there[1])
        self.task = asyncio.ensure_future(
            asyncio.gather(self._pass(here[0], there[1], 0), self._pass(there[0], here[1], 1))
        )

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: int) -> None:
        try:
            while data := await source.read(65536):
                if self._forgets(self, data, way):
                    break
                if not self.lost[way]:
                    target.write(data)
                    await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    def end(self) -> None:
        """Close both sides."""
        for writer in self._writers:
            writer.close()
