"""Local history: what every runner does that sends a thread's turns itself.

Theory of operation
-------------------
The provider keeps nothing; the queue does. A Run gets the thread's turns, sends those that fit, and returns the new one
in ``Answer.turns``, which is appended in the step that acknowledges the batch. What has to be decided is how much of
the past fits. `Room` does it before sending, by counting; `shrinking` does it again if the server finds it too long all
the same: half of the turns are forgotten and then all of them. A picture or file of an old turn that the server cannot
get any more must not end a conversation, so before giving up the old ones are left out.

*Counting.* By default with the estimate of `_history`. ``count="tiktoken"`` counts with the encoding of OpenAI's
models; any function from text to a number will do. All of them are corrected by what the server reports, and the
correction is kept per way to count, so that changing it begins anew.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from streambatch._messages import Json
from streambatch.errors import UsageError

from . import _history as past
from ._errors import Problem

T = TypeVar("T")
Turns = tuple[past.Turn | None, ...]
KINDS = ("responses-local", "chat")  # threads that hold turns of `_history`; each of these runners goes on with all
_log = logging.getLogger("streambatch")


class Counter:
    """How tokens are counted.

    Args:
        count: None (the estimate), ``"tiktoken"``, or a function from text to a number.
        model: whose encoding tiktoken is asked for.

    Attributes:
        name: under which the correction is kept in a thread's state.

    Raises:
        UsageError: *count* is none of these, or tiktoken is not installed.
    """

    def __init__(self, count: object, model: str) -> None:
        if isinstance(count, str) and count != "tiktoken":
            raise UsageError(f"count={count!r} is neither 'tiktoken' nor a function from text to a number of tokens")
        if count is not None and not callable(count) and count != "tiktoken":
            raise UsageError(f"count is 'tiktoken' or a function, not {type(count).__name__}")
        if count == "tiktoken" and importlib.util.find_spec("tiktoken") is None:
            raise UsageError('count="tiktoken" needs the package: pip install "streambatch-queue[tiktoken]"')
        self.name = "ratio" if count is None else "ratio_tiktoken" if count == "tiktoken" else "ratio_own"
        self._model = model
        self._count = cast("past.Count", count) if callable(count) else past.tokens if count is None else None
        self._loading = asyncio.Lock()

    async def get(self) -> past.Count:
        """The function; tiktoken is loaded at the first call, in a thread, because it may download the encoding."""
        async with self._loading:
            if self._count is None:
                try:
                    self._count = await asyncio.to_thread(_tiktoken, self._model)
                except Exception as error:  # noqa: BLE001 - no network, no disk: nothing that should stop a bot
                    _log.warning("streambatch: tiktoken cannot load its encoding: %s", type(error).__name__)
                    self._count, self.name = past.tokens, "ratio"
        return self._count


def _tiktoken(model: str) -> past.Count:
    tiktoken: Any = importlib.import_module("tiktoken")
    try:
        encoding = tiktoken.encoding_for_model(model)
    except KeyError:
        encoding = tiktoken.get_encoding("o200k_base")

    def count(text: str) -> float:
        return len(encoding.encode_ordinary(text))  # a person may write what looks like a special token

    return count


class Room:
    """What of a thread fits beside what has to be sent.

    Args:
        tokens: of the model's context, without those kept free for the answer.
        fixed: what is sent every time: instructions and tools.
        count: counts tokens.
        ratio: the correction of the last Run.
    """

    def __init__(self, tokens: int, fixed: str, count: past.Count, ratio: float) -> None:
        self._count = count
        self._fixed = count(fixed) + past.ITEM_TOKENS
        self._ratio = ratio
        self._left = tokens - self._fixed * ratio

    @property
    def left(self) -> float:
        """Tokens that are left for turns."""
        return self._left

    def fits(self, turn: past.Turn, share: float = 1.0) -> bool:
        """Whether *turn* alone fits into that *share* of the room; what is new is not corrected."""
        return past.estimate(turn, self._count) <= self._left * share

    def kept(self, turns: Turns, turn: past.Turn) -> Turns:
        """The newest of *turns* that fit beside *turn*."""
        fit = past.kept(turns, self._left - past.estimate(turn, self._count), self._ratio, self._count)
        return turns[len(turns) - fit :]

    def measured(self, reported: int, turns: Turns) -> float:
        """The correction after the server reported so many tokens of input for *turns*."""
        size = sum(past.estimate(turn, self._count) for turn in turns if turn is not None)
        return past.measured(reported, self._fixed + size, self._ratio)


async def shrinking(old: Turns, turn: past.Turn, ask: Callable[[Turns, bool], Awaitable[T]]) -> tuple[T, Turns]:
    """Ask, forgetting more while the server says it is too long; returns the answer and the turns it was told.

    Args:
        old: the turns that fit.
        turn: the new one.
        ask: sends turns; False leaves out the media of all but the last.

    Raises:
        Problem: it cannot be asked.
    """
    shrunk, media = False, True
    while True:
        try:
            return await ask((*old, turn), media), old
        except Problem as found:
            if found.name == "CONTEXT" and old:
                old = () if shrunk else old[len(old) - len(old) // 2 :]
                shrunk = True
            elif found.name == "PERMANENT" and media and past.has_media(old):
                media = False
            else:
                raise


def state_of(counter: Counter, ratio: float) -> Json:
    """What a thread keeps besides its turns."""
    return {"v": 1, counter.name: ratio}


def check_tokens(context_tokens: object, max_output_tokens: object) -> int:
    """The tokens that are left for the input.

    Raises:
        UsageError: one of them is no number of tokens, or nothing is left.
    """
    for name, value in (("context_tokens", context_tokens), ("max_output_tokens", max_output_tokens)):
        if value is None and name == "max_output_tokens":
            return cast("int", context_tokens) - cast("int", context_tokens) // 4
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} is a whole number of tokens, at least 1")
    left = cast("int", context_tokens) - cast("int", max_output_tokens)
    if left <= 0:
        raise UsageError("max_output_tokens must be less than context_tokens, or no room is left for the messages")
    return left
