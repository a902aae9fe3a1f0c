"""One Run over a history of our own: its steps, and what of them is in the checkpoint.

Theory of operation
-------------------
Chat Completions and the local state of the Responses API differ in how turns are sent and answers are read, which is
the business of `Ask`. The checkpoint (`_memo`) holds what is known of the turn::

    steps   finished steps: {"t": text, "c": [[call id, name, arguments], …], "u": usage}
    calls   the marks and results of their calls, written by `_tools`
    said    the text of the step that is being streamed, for a cancellation only
    end     the whole answer of a turn with tools, and then nothing else

Ids of calls are the provider's; where one is missing or was given twice, the call gets one made of the batch and its
place, of nine characters because some providers take no other, and the same at every replay.

The whole answer is saved in one write for two reasons: the tools' effects are done and the turn must not be lost to a
crash before it is committed; and a turn that is too large to be committed shows here, while its outputs can still be
cut. `Reply.text` is what was streamed: the texts of all steps, with an empty line between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Literal

from streambatch._messages import Answer, Batch
from streambatch._ports import Run
from streambatch.errors import StoreError, StreambatchError, TooLarge

from . import _history as past
from ._client import heard
from ._completion import Completion, Piece
from ._errors import Problem, problem_of
from ._local import Counter, Room, Turns, shrinking, state_of
from ._memo import Memo
from ._steps import acted, answer_at, finish, joined, said_until_now, sum_of
from ._tools import Tool

SAVE_EVERY = 1.0  # seconds between two saves of what is being said
Stage = Literal["first", "later", "last"]
Show = Callable[[str], Awaitable[None]]
Ask = Callable[[Turns, bool, Stage, Show], Awaitable[Completion]]


class ChatRun:
    """The Run of one batch.

    Args:
        tools: what the model may call.
        max_steps: requests that may be made.
        batch: the batch.
        run: its effects.
        room: what fits.
        kind: whose checkpoint it is.
    """

    def __init__(
        self, tools: Mapping[str, Tool], max_steps: int, batch: Batch, run: Run, room: Room, kind: str = "chat"
    ) -> None:
        self._tools = tools
        self._max_steps = max_steps
        self._batch = batch
        self._run = run
        self._room = room
        self._memo = Memo(run, kind)
        self._steps: list[dict[str, Any]] = self._memo.data.setdefault("steps", [])
        self._texts: list[str] = []  # of finished steps
        self._saying: list[str] = []
        self._saved = 0.0

    async def go(self, turn: past.Turn, ask: Ask, counter: Counter) -> Answer:
        """Take all steps that are left, and return the answer.

        Args:
            turn: the new turn, without an answer.
            ask: sends turns, with or without old media, and reads the answer, telling what is said.
            counter: names the state.

        Raises:
            Problem: the provider cannot answer.
        """
        if "end" in self._memo.data:
            ended = answer_at(self._memo.data["end"])
            if ended.text:
                self._run.emit(ended.text)
            return ended
        turns = past.known(self._batch.history)
        old, done = turns, list[dict[str, Any]]()
        while True:
            for step in self._steps[len(done) :]:
                self._finished(step["t"])
                done.append(await acted(self._tools, step, self._memo, self._batch))
            if done:
                turn = {**turn, "do": done}
            last = len(done) + 1 >= self._max_steps
            completion, old, seen = await self._completed(old, turn, ask, last)
            if last or not completion.calls:
                break
            await self._note(completion)
        self._texts.append(completion.text)
        flags = completion.flags if not completion.calls else ("incomplete", "max_steps", *completion.flags)
        usage = sum_of([*(step["u"] for step in self._steps), completion.usage])
        told = completion.usage or {}
        ratio = self._room.measured(int(told.get("prompt_tokens") or told.get("input_tokens") or 0), seen)
        state, forget = state_of(counter, ratio), len(turns) - len(old)
        made = Answer(joined(self._texts), state, usage=usage, flags=flags, forget=forget)
        return await self._end(made, {**turn, "out": completion.text})

    async def _completed(self, old: Turns, turn: past.Turn, ask: Ask, last: bool) -> tuple[Completion, Turns, Turns]:
        """One step: the completion, the old turns that were told, and all turns as they were sent."""
        stage: Stage = "last" if last else "later" if turn.get("do") else "first"
        sent: list[Turns] = []

        async def attempt(turns: Turns, media: bool) -> Completion:
            sent.append(turns)
            return await self._asked(ask, turns, media, stage)

        fitting = past.clipped(turn, self._room.fits)
        try:
            found, old = await shrinking(self._room.kept(old, fitting), fitting, attempt)
        except Problem as problem:
            if problem.name != "CONTEXT" or not turn.get("do"):
                raise
            found, old = await shrinking((), past.clipped(turn, lambda _: False), attempt)
        return found, old, sent[-1]

    async def _asked(self, ask: Ask, turns: Turns, media: bool, stage: Stage) -> Completion:
        self._saying.clear()
        try:
            return await ask(turns, media, stage, self._show)
        except StreambatchError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises may quote a user; none of that goes on
            heard(self._run, error)
            raise problem_of(error) from None

    async def _show(self, text: str) -> None:
        now, begins = asyncio.get_running_loop().time(), not self._saying
        self._saying.append(text)
        self._run.emit(f"\n\n{text}" if begins and any(self._texts) else text)
        self._saved = self._saved or now
        if now - self._saved >= SAVE_EVERY:
            self._saved = now
            self._memo.data["said"] = "".join(self._saying)
            with suppress(TooLarge, StoreError):  # it is only for a cancellation
                await self._memo.save()

    def _finished(self, text: str) -> None:
        """A step's text counts; after a crash it is shown again, because the preview began anew."""
        if text and not self._saying:
            self._run.emit(f"\n\n{text}" if any(self._texts) else text)
        self._saying.clear()
        self._texts.append(text)

    async def _note(self, completion: Completion) -> None:
        """Save what the model asked for, before anything of it is done."""
        taken = {call[0] for step in self._steps for call in step["c"]}
        calls = [
            [self._id(call, place, taken), call.name, call.arguments] for place, call in enumerate(completion.calls)
        ]
        self._memo.data.pop("said", None)
        self._steps.append({"t": completion.text, "c": calls, "u": completion.usage})
        with suppress(TooLarge):  # then its calls are not started (see _tools), and the model goes on without them
            await self._memo.save()

    def _id(self, call: Piece, place: int, taken: set[str]) -> str:
        made = call.id
        if not made or made in taken:
            made = blake2b(f"{self._batch.id}\0{len(self._steps)}\0{place}".encode()).hexdigest()[:9]
        taken.add(made)
        return made

    async def _end(self, made: Answer, turn: past.Turn) -> Answer:
        """The answer, with as much of its turn as the history can have."""
        turn = past.clipped(turn, lambda one: self._room.fits(one, 0.5))
        return await finish(self._memo, made, turn) if turn.get("do") else replace(made, turns=(turn,))


def answer_of(memo: Memo, batch: Batch) -> Answer | None:
    """What had been said and done when a Run was ended; None if that is nothing."""
    if "end" in memo.data:
        return answer_at(memo.data["end"])
    found = said_until_now(memo, batch)
    if found is None:
        return None
    text, turn = found
    return Answer(text, flags=("incomplete",), turns=(turn,))
