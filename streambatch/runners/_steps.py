"""Steps of a Run with tools, as the checkpoints of all runners hold them.

A step is a finished request of the model: ``{"t": text, "c": [[call id, name, arguments], …], "u": usage}``. Its calls
have their marks and results in ``calls`` (see `_tools`); ``said`` is the text of the step that is being streamed;
``end`` is the whole answer, and then there is nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from streambatch._messages import Answer, Batch
from streambatch.errors import TooLarge

from . import _history as past
from ._memo import Memo
from ._tools import Asked, Tool, answered

INTERRUPTED = "This call was interrupted; it is unknown whether it had an effect."


async def acted(tools: Mapping[str, Tool], step: Mapping[str, Any], memo: Memo, batch: Batch) -> dict[str, Any]:
    """Run the calls of a step that have no result yet; the step as a turn keeps it."""
    asked = [Asked(*call) for call in step["c"]]
    outputs = await answered(tools, asked, memo, batch)
    return past.step_of(step["t"], [(c.call_id, c.name, c.arguments, outputs[c.call_id]) for c in asked])


def said_until_now(memo: Memo, batch: Batch) -> tuple[str, past.Turn] | None:
    """What had been said and done when a Run was ended, and the turn of it; None if that is nothing."""
    said, calls = memo.data.get("said", ""), memo.data.get("calls", {})
    steps = [
        past.step_of(step["t"], [(*call, calls.get(call[0], {}).get("r", INTERRUPTED)) for call in step["c"]])
        for step in memo.data.get("steps", ())
    ]
    turn = past.turn_of(batch)
    if not turn["in"] or not (said or steps):
        return None
    turn |= {"out": said} | ({"do": steps} if steps else {})
    return joined([*(step["t"] for step in steps), said]), turn


async def finish(memo: Memo, made: Answer, turn: past.Turn) -> Answer:
    """Keep the whole answer, with as much of *turn* as one write can hold; *made* with that turn."""
    bare: past.Turn = {**turn, "do": []}
    for shorter in (turn, past.clipped(turn, lambda _: False), bare):
        turn = shorter
        memo.data.clear()
        memo.data["end"] = {
            "text": made.text,
            "state": made.state,
            "usage": made.usage,
            "flags": made.flags,
            "turn": turn,
            "forget": made.forget,
            "kind": made.kind,
        }
        with suppress(TooLarge):  # its size is that of the tools' outputs
            await memo.save()
            break
    return replace(made, turns=(turn,))


def answer_at(end: Mapping[str, Any]) -> Answer:
    """The answer that is in a checkpoint."""
    return Answer(
        end["text"],
        end["state"],
        usage=end["usage"],
        flags=tuple(end["flags"]),
        turns=(end["turn"],),
        forget=end["forget"],
        kind=end.get("kind", ""),
    )


def joined(texts: list[str]) -> str:
    """The texts of steps, with an empty line between them."""
    return "\n\n".join(text for text in texts if text)


def sum_of(usages: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The usages of all steps together, number by number."""
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in (usage or {}).items():
            if isinstance(value, Mapping):
                total[name] = sum_of([total.get(name), cast("Mapping[str, Any]", value)])
            elif isinstance(value, int | float) and not isinstance(value, bool):
                total[name] = (total.get(name) or 0) + value
    return total or None
