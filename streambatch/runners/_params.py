"""Parameters that several runners take: checked when the runner is made, so that a mistake is told at start."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from streambatch._messages import Answer, Batch
from streambatch.errors import UsageError

from ._client import SETTINGS

Instructions = str | Callable[[Batch], str | Awaitable[str | None] | None]


async def instructed(given: Instructions | None, batch: Batch) -> str:
    """The instructions of one Run.

    Raises:
        UsageError: the function returned something else.
    """
    made: Any = given(batch) if callable(given) else given
    made = await made if inspect.isawaitable(made) else made
    if made is not None and not isinstance(made, str):
        raise UsageError(f"instructions returned {type(made).__name__}, not a str")
    return made or ""


def fixed_of(instructions: object) -> str:
    """What of the instructions is known before a Run."""
    return instructions if isinstance(instructions, str) else ""


def steps_of(given: object) -> int:
    """A checked ``max_steps``."""
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UsageError("max_steps is the number of requests that one Run may make, at least 1")
    return given


def check(name: str, model: object, instructions: object, request: Mapping[str, Any], ours: Sequence[str]) -> None:
    """Check what every runner takes.

    Args:
        name: of the runner.
        model: must be a name.
        instructions: must be a str, a function, or None.
        request: further parameters of each request.
        ours: parameters that the runner sets itself.
    """
    own = ("model", "instructions", "state", "tools", "client", "context_tokens", "count", "limits", "deadline")
    if not isinstance(model, str) or not model:
        raise UsageError("model is the name of a model at the provider, a str that is not empty")
    if instructions is not None and not isinstance(instructions, str) and not callable(instructions):
        raise UsageError(f"instructions is a str or a function of the batch, not {type(instructions).__name__}")
    for given in request:
        if given not in own and (close := get_close_matches(given, own, 1, 0.8)):
            raise UsageError(f"{name} has no argument {given}=; did you mean {close[0]}=?")
        if given in ours:
            raise UsageError(f"{given}= is set by {name} itself")
        if given in SETTINGS:
            raise UsageError(f"{given}= belongs to the client: give client=AsyncOpenAI({given}=...)")


def flagged(answer: Answer, most: int) -> Answer:
    """*answer*, with the flag that a server forgot: llama.cpp calls a response complete that was cut at the limit."""
    said = (answer.usage or {}).get("output_tokens")
    one_step = not any(turn.get("do") for turn in answer.turns)
    if most and one_step and "incomplete" not in answer.flags and isinstance(said, int) and said >= most:
        return replace(answer, flags=("incomplete", "max_output_tokens", *answer.flags))
    return answer
