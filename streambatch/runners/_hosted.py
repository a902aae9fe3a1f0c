"""One Run whose history the provider keeps: its steps, and what of them is in the checkpoint.

Theory of operation
-------------------
A Run is one response, or with tools several, each of which answers the calls of the one before. It has succeeded when a
response is complete that asks for no call. Where the history is (a chain of responses, a conversation) is the business
of a `Place`; that a response is posted once and found again is that of `_asking`; here is the order of steps. The
checkpoint holds::

    steps   finished steps: {"t": text, "c": [[call id, name, arguments], …], "u": usage, "id": response}
    calls   the marks and results of their calls, written by `_tools`
    step    the response under way, and `said`, its text until now, written by `_asking`
    end     the whole answer: the provider has it in its history, so the turn must not be lost to a crash here

A replay takes what is there and goes on: it follows the response under way, runs the calls without a result, posts what
was not posted. The turn is also kept in the thread's local history, as far as it fits: when the provider has lost its
history (after 30 days, or by a mistake), a new one is begun with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from streambatch._messages import Answer, Batch, Json
from streambatch.errors import TooLarge

from . import _history as past
from ._asking import Asking, Gone, Overdue
from ._completion import Completion
from ._errors import Problem
from ._local import Turns
from ._memo import Memo
from ._steps import acted, answer_at, finish, joined, sum_of
from ._tools import Tool

Parameters = Callable[[past.Turn, bool], dict[str, Any]]


class Place(Protocol):
    """Where a thread's history is kept.

    Attributes:
        kind: what is pinned in the thread.
        kept: the turns of the local history that are worth keeping.
    """

    @property
    def kind(self) -> str: ...
    @property
    def kept(self) -> Turns: ...
    async def ask(self, turn: past.Turn, last: bool) -> Completion:
        """Post the next response for *turn*, or find the one that was posted; *last*: without tools."""
        ...

    async def arrived(self, turn: past.Turn, completion: Completion) -> None:
        """Return when the provider's history has *completion*, wherever it came from."""
        ...

    async def stuck(self) -> None:
        """A response could not be ended in time; it may go on."""
        ...

    async def state(self, completion: Completion) -> Json:
        """What the thread keeps after a Run that ended with *completion*."""
        ...


class HostedRun:
    """The Run of one batch.

    Args:
        tools: what the model may call.
        max_steps: responses that may be asked for.
        batch: the batch.
        memo: its checkpoint.
        asking: asks.
        place: where the history is.
    """

    def __init__(
        self, tools: Mapping[str, Tool], max_steps: int, batch: Batch, memo: Memo, asking: Asking, place: Place
    ) -> None:
        self._tools = tools
        self._max_steps = max_steps
        self._batch = batch
        self._memo = memo
        self._asking = asking
        self._place = place
        self._steps: list[dict[str, Any]] = memo.data.setdefault("steps", [])

    async def go(self, turn: past.Turn) -> Answer:
        """Take all steps that are left, and return the answer.

        Args:
            turn: the new turn, without an answer.

        Raises:
            Problem: the provider cannot answer.
        """
        if "end" in self._memo.data:
            return answer_at(self._memo.data["end"])
        done: list[dict[str, Any]] = []
        while True:
            done += [await acted(self._tools, step, self._memo, self._batch) for step in self._steps[len(done) :]]
            if done:
                turn = {**turn, "do": done}
                self._asking.lead("\n\n" if any(step["t"] for step in done) else "")
            last = len(done) + 1 >= self._max_steps
            completion = await self._response(turn, last)
            if last or not completion.calls:
                return await self._end(completion, turn)
            calls = [[call.id, call.name, call.arguments] for call in completion.calls]
            self._asking.done()
            self._steps.append({"t": completion.text, "c": calls, "u": completion.usage, "id": completion.id})
            with suppress(TooLarge):  # then its calls are not started (see _tools), and the model goes on without them
                await self._memo.save()

    async def _response(self, turn: past.Turn, last: bool) -> Completion:
        found: Completion | None = None
        try:
            if self._asking.step.get("id"):
                with suppress(Gone):  # C13: kept for ten minutes only, or deleted
                    found = await self._asking.resume()
            if found is None:
                found = await self._place.ask(turn, last)
        except Gone:
            raise Problem("AMBIGUOUS", "the response is not known any more") from None
        except Overdue:
            await self._place.stuck()
            raise
        await self._place.arrived(turn, found)
        return found

    async def _end(self, completion: Completion, turn: past.Turn) -> Answer:
        state = await self._place.state(completion)
        usage = sum_of([*(step["u"] for step in self._steps), completion.usage])
        flags = completion.flags if not completion.calls else ("incomplete", "max_steps", *completion.flags)
        text = joined([*(step["t"] for step in self._steps), completion.text])
        forget = len(self._batch.history) - len(self._place.kept)
        made = Answer(text, state, usage=usage, flags=flags, forget=forget, kind=self._place.kind)
        return await finish(self._memo, made, {**turn, "out": completion.text})


def untold(turn: past.Turn, turns: Turns, behind: int) -> list[past.Item]:
    """What the provider's history does not have: outputs of calls, or *turn* after the last *behind* of *turns*."""
    if steps := turn.get("do"):
        return [{"type": "function_call_output", "call_id": c["id"], "output": c["o"]} for c in steps[-1]["c"]]
    told = len(turns) - behind
    return past.items((*turns[told:], turn), before=turns[:told])
