"""The history as a chain of responses, of which we hold the end: ``previous_response_id`` with a head of our own.

Theory of operation
-------------------
The provider keeps every response and lets any of them have children. The thread's state names one of them, the head,
and moves with the settle: in the step that acknowledges the batch, fenced by the lease. Everything between two settles
starts from the same head, so whatever a crash leaves behind is a branch that nobody points to. The history is exactly
once without any help from the provider; a lost answer costs tokens.

That makes asking again always right. A response whose id is known is followed (`_asking`), because it is paid for; one
whose id got lost between the POST and its first event is posted again from the same head (C1).

When the provider does not know the head any more (it keeps responses for 30 days), has lost a call in it, or finds the
chain too long, a new chain is begun with what the thread's local history holds. The same is done with turns that are in
the local history only: those of a cancelled Run that were to be kept (``behind`` counts them).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streambatch._messages import Batch, Json
from streambatch.errors import Park

from . import _history as past
from ._asking import Asking
from ._completion import Completion
from ._errors import Problem
from ._hosted import Parameters, untold
from ._local import Room, Turns, shrinking
from ._memo import Memo

KIND, LOCAL = "responses-chain", "responses-local"
NO_CHAIN = "the server keeps no responses, so state='chain' cannot work; ResponsesRunner(state='local') works there"


class Chain:
    """A thread's chain.

    Args:
        batch: the batch, with the thread's state and history.
        memo: its checkpoint.
        asking: asks.
        room: what of the local history fits.
        request: the parameters of the next request of a turn; and whether it is the last.

    Attributes:
        strict: a server that keeps no responses is an error; else the thread has local history from then on.
    """

    strict = False

    def __init__(self, batch: Batch, memo: Memo, asking: Asking, room: Room, request: Parameters) -> None:
        self.kind = KIND
        self._memo, self._asking, self._room = memo, asking, room
        self._request = request
        self._turns = past.known(batch.history)
        self.kept: Turns = self._turns
        state = past.mapping(batch.state)
        head = state.get("head") if batch.kind == KIND else None
        self._head: str = head if isinstance(head, str) else ""
        self._behind = len(self._turns) if not self._head else min(int(state.get("behind") or 0), len(self._turns))

    async def ask(self, turn: past.Turn, last: bool) -> Completion:
        """Post the next response; whatever was posted before is a branch nobody points to."""
        self.kept = self._room.kept(self._turns, turn)
        request = {**self._request(turn, last), "background": True, "store": True}
        steps = self._memo.data.get("steps") or ()
        head = steps[-1].get("id") if steps else self._head
        if head and len(steps) >= self._memo.data.get("seed", 0):
            try:
                return await self._asking.post(
                    {**request, "previous_response_id": head, "input": untold(turn, self._turns, self._behind)}
                )
            except Problem as found:
                if found.name not in ("REPAIR", "CONTEXT"):
                    raise
                self._memo.data["seed"] = len(steps) + 1  # the first step that can stand on the new chain
        return await self._seeded(turn, request)

    async def arrived(self, turn: past.Turn, completion: Completion) -> None:
        """A response that is complete is in its chain."""

    async def stuck(self) -> None:
        """It is a branch nobody points to."""

    async def state(self, completion: Completion) -> Json:
        """The new head."""
        if await self._asking.kept(completion):
            return {"v": 1, "head": completion.id}
        if self.strict:
            raise Park(60.0, reason=NO_CHAIN)
        self.kind = LOCAL
        return {"v": 1}

    async def _seeded(self, turn: past.Turn, request: Mapping[str, Any]) -> Completion:
        """Begin a new chain with what is kept of the thread."""

        async def ask(turns: Turns, media: bool) -> Completion:
            return await self._asking.post({**request, "input": past.items(turns, media=media)})

        fitting = past.clipped(turn, self._room.fits)
        found, self.kept = await shrinking(self._room.kept(self._turns, fitting), fitting, ask)
        return found
