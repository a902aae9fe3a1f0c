"""P20: a key of the namespace that all threads share is replaced by one of a foreign type.

Theory of operation. Each piece of a thread's life (pieces.py) is played again, and before each of its calls one shared
key is put away and a foreign one put in its place. Then the call is sent. If it is refused, nothing in the namespace
may have changed; the key comes back, the call is sent again, and all goes on as in a life without the foreign key: what
the namespace holds after every call is the same. What only counts or tells (`tally`, `epoch`, `awaited`, `followed`)
must stop nobody: no call is refused, and what is foreign is gone as soon as something is written there. A foreign
`dead` is no room for a letter: what would be one is kept, like where the dead letters are full.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from streambatch._scripts import Call, Wire
from streambatch.errors import Refused, StoreError
from tests.guards.bench import SOURCES
from tests.integration import invariants
from tests.integration.bench import Side
from tests.integration.lossy import Lossy, Trail
from tests.integration.pieces import PIECES, Piece
from tests.integration.shop import Shop, opened
from tests.rig import Server, leaks

INDEXES = ("meta", "due", "outbox", "parked", "paused", "dead")
ADVISORY = ("tally", "epoch", "awaited", "followed")
AWAY = "put-away"
#: Scripts and commands that only read: an error of theirs harms nobody, whatever the key is.
READS = {"stats", "look", "peek", "ZRANGE", "XRANGE"}
#: What would write a letter, and answers `full` where it cannot.
LETTERS = {"bury", "undelivered"}
#: The scripts that may write an index.
OPENING = {name for name, text in SOURCES.items() if re.search("^-- uses: _open", text, re.MULTILINE)} | {"renew"}


class Spoilt(Lossy):
    """A bench on which a shared key is foreign whenever a call is sent for the first time; none with kind ""."""

    def __init__(self, server: Server, namespace: str, kind: str) -> None:
        super().__init__(server, namespace)
        self.watch = False
        self.kind = kind
        self.spoiling = False
        self.refused: set[str] = set()
        self.answered: set[str] = set()

    async def over(self, calls: Sequence[Call]) -> None:
        """Remember, but not while the foreign key is there."""
        if not self.spoiling:
            await super().over(calls)

    async def side(self, **more: Any) -> Side:
        """A side whose calls meet the foreign key."""
        made = await super().side(**more)
        inside: Any = made.store
        for wire in (made.wire, inside._control(0), *(lane._wire for lane in inside.lanes)) if self.kind else ():
            self._meets(wire)
        return made

    def _meets(self, wire: Wire) -> None:
        exchange = wire.exchange

        async def met(calls: Sequence[Call], *rest: Any) -> list[Any]:
            names = {call.script.name if call.script else str(call.argv[0]) for call in calls}
            if self.kind == "dead" and names & LETTERS:
                return await exchange(calls, *rest)
            self.spoiling = True
            try:
                answers = await self._spoilt(lambda: exchange(calls, *rest), names)
            except AssertionError as fault:  # a lane must not see it; the bench raises it at its end
                self.faults.append(fault)
                answers = None
            self.spoiling = False
            if answers is None:
                return await exchange(calls, *rest)
            await self.over(calls)
            return answers

        setattr(wire, "exchange", met)  # noqa: B010 - pyright forbids assigning to a method

    async def _spoilt(self, send: Callable[[], Awaitable[list[Any]]], names: set[str]) -> list[Any] | None:
        """Send with a foreign key there; the answers, or None if they were refused and the calls must come again."""
        key, away = self.key(self.kind), self.key(AWAY)
        ours = bool(await self.admin.exists(key))
        if ours:
            await self.admin.rename(key, away)
        await self.admin.set(key, "foreign")
        before = await self.held()
        answers = await send()
        refused = any(isinstance(answer, Refused) for answer in answers)
        (self.refused if refused else self.answered).update(names)
        if refused:
            assert await self.held() == before, f"{names} was refused because of a foreign {self.kind}, and wrote"
        if self.kind == "tally" and await self.admin.type(key) == "hash":
            for field, count in (await self.admin.hgetall(key)).items():
                await self.admin.hincrby(away, field, count)
            ours = True
        if ours:
            await self.admin.rename(away, key)
        elif await self.admin.get(key) == "foreign" if await self.admin.type(key) == "string" else False:
            await self.admin.delete(key)
        return None if refused else answers

    async def held(self) -> dict[str, str]:
        """What the namespace holds."""
        return await invariants.dump(self.admin, self.namespace, ttl=True)


async def played(server: Server, namespace: str, piece: Piece, kind: str) -> Spoilt:
    """Play a piece from the beginning."""
    leaks.sweep(server.admin(), namespace)
    bench = Spoilt(server, namespace, kind)
    try:
        await piece(await bench.side())
    finally:
        await bench.close()
    return bench


def without(trail: Trail, kind: str) -> Trail:
    """What was held, but for one kind of key."""
    return [(names, {key: value for key, value in held.items() if not key.endswith(kind)}) for names, held in trail]


@pytest.mark.parametrize("kind", [*INDEXES, *ADVISORY])
async def test_p20_a_foreign_shared_key_is_met_by_every_script(server: Server, namespace: str, kind: str) -> None:
    """Nothing is half done: a call is refused and writes nothing, or goes on as if the key were ours."""
    refused, answered = set[str](), set[str]()
    for piece in PIECES:
        whole, spoilt = await played(server, namespace, piece, ""), await played(server, namespace, piece, kind)
        if kind != "epoch":  # its numbers are in the tokens
            assert without(spoilt.trail, f":{kind}") == without(whole.trail, f":{kind}"), piece.__name__
        refused, answered = refused | spoilt.refused, answered | spoilt.answered
    if kind in ("due", "outbox"):
        assert refused >= OPENING
        assert not answered & OPENING
    elif kind in INDEXES:
        assert refused
    else:
        assert refused <= READS


@pytest.mark.parametrize("kind", ["due", "outbox", "parked", "paused"])
async def test_p20_a_queue_names_the_key_and_goes_on_without_it(server: Server, namespace: str, kind: str) -> None:
    """Whoever submits is told which key it is, and nothing was stored; when it is deleted all goes on by itself."""
    shop, key = Shop(), f"sb1:{{{namespace}.00}}:{kind}"
    async with opened(shop, server.url, namespace) as queue:
        server.admin().set(key, "foreign")
        with pytest.raises(StoreError, match=re.escape(key)):
            await queue.submit("t", "one", message_id=1)
        server.admin().delete(key)
        await queue.submit("t", "two", message_id=1)
        await shop.said("two")
