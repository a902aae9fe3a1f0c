"""A bench that remembers what the namespace held after every exchange, and one whose connections lose answers.

Theory of operation. Two lives of the same piece can be compared only if nothing in them is left to chance: the
processes have names that are always the same, the clock is the bench's, and the ids of dead letters, which are the
server's, and the holder's name are left out. `trail` then is the same list for the same piece, however often its calls
were sent.

With a `Proxy` in front of the server every first answer to a script is lost for real: the server did what it was
asked, and the connection ends. The lanes and the control connection send again by themselves; for the calls that a
piece sends on its own wire, this bench does what the loops of the package do (`_intake`, `_scope`, `_relay`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from streambatch._scripts import SUBMIT, Call
from streambatch._store import Store
from streambatch.errors import Unreachable
from streambatch.torture._proxy import Proxy
from tests.integration import invariants
from tests.integration.bench import Bench, Side
from tests.rig import Server

Trail = list[tuple[list[str], dict[str, str]]]
_RESEND = 6  # where a numbered submit call says that it is sent again
_CHANCE = re.compile(r"\d+-\d+(?=\x01v\x011\x01k\x01)|(?<=dead\x01)\d+-\d+|(?<=owner\x01)[^\x02]*")


class Lossy(Bench):
    """A bench with a memory; *hole* loses answers."""

    def __init__(self, server: Server, namespace: str, hole: Proxy | None = None) -> None:
        super().__init__(server, namespace)
        self.trail: Trail = []
        self.hole = hole
        self.watch = hole is None
        if hole is not None:
            self.url = f"{server.url.partition('@')[0]}@{hole.path}"
        self.stop_time()

    def named(self, store: Store) -> None:
        """A name that is always the same."""
        store.producer = f"{len(self.sides):032x}"

    async def over(self, calls: Sequence[Call]) -> None:
        """Remember."""
        names = [call.script.name if call.script else str(call.argv[0]) for call in calls]
        held = await invariants.dump(self.admin, self.namespace, ttl=True)
        self.trail.append((names, {key: _CHANCE.sub("*", value) for key, value in held.items()}))

    async def side(self, **more: Any) -> Side:
        """A side whose own wire sends again until it is answered."""
        made = await super().side(**more)
        exchange = made.wire.exchange

        async def stubborn(calls: Sequence[Call], *rest: Any) -> list[Any]:
            while True:
                try:
                    return await exchange(calls, *rest)
                except Unreachable:
                    calls = [again(call) for call in calls]

        setattr(made.wire, "exchange", stubborn)  # noqa: B010 - pyright forbids assigning to a method
        return made


def again(call: Call) -> Call:
    """A call as it is when it is sent again."""
    if call.script is not SUBMIT:
        return call
    return replace(call, argv=[*call.argv[:_RESEND], 1, *call.argv[_RESEND + 1 :]])
