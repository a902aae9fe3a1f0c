"""Turns: what a thread's local history holds, what of it fits the model, and how it is shown to the model.

Theory of operation
-------------------
A turn is one batch and its answer, as JSON: ``{"v": 1, "in": [message, …], "out": "…"}``, a message being ``{"a":
author, "p": [part, …]}`` with the parts as the queue stores them. It is kept as it was said, not as one provider wants
to read it; `items` makes the input of the Responses API from it. A turn of an unknown form is left out, never an error.

*Names.* The API has no place for an author, so when the turns that are sent hold two or more authors, each message
begins with ``name: ``; with one author nothing is added.

*Size.* Nobody can count a stranger's tokens, so `estimate` is an upper bound in practice, for byte-level tokenizers:
0.6 for a lower-case letter or blank, 1 for any other byte of UTF-8. Measured with SmolLM2, tokens per byte: English
0.24, random letters 0.56, digits 1.0, Russian 0.37, Chinese 0.64, Korean 0.91, rare characters 1.0. It is corrected
by what servers report: ``ratio`` is the measured share of the estimate in the last Run of the thread (with a tenth
added), and applies to what was measured, the instructions and the history; new messages are always estimated in full.

*Trimming* is at turn borders, oldest first: `kept` returns how many of the newest turns stay. What does not fit is
forgotten for good, and then a third of the room is freed at once: until it is full again the input begins as it did the
last time, and a provider's prompt cache knows it (a small model on a processor needs seconds to read 2,000 tokens). The
new messages themselves are never cut: a cut message is a different message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, cast

from streambatch._messages import Batch, Json, Message

ITEM_TOKENS = 12  # the frame a chat template puts around one message
IMAGE_TOKENS = 1_500
FILE_TOKENS = 3_000
LEAST = 0.15  # the smallest ratio that is believed
_LIGHT = b" abcdefghijklmnopqrstuvwxyz"
Item = dict[str, Any]
Turn = Mapping[str, Any]


def turn_of(batch: Batch) -> dict[str, Any]:
    """The turn that begins with *batch*; its ``"out"`` is still empty. Messages without any content are left out."""
    said = [{"a": message.author, "p": parts} for message in batch.messages if (parts := _parts(message))]
    return {"v": 1, "in": said, "out": ""}


def _parts(message: Message) -> list[dict[str, str]]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": _valid(message.content)}] if message.content.strip() else []
    names = ("type", "text", "url", "file_id")
    found = [{n: _valid(v) for n in names if (v := getattr(part, n)) is not None} for part in message.content]
    return [part for part in found if part["type"] != "text" or part["text"].strip()]


def _valid(text: str) -> str:
    """*text* without lone surrogates, which no provider can be sent."""
    return text.encode(errors="replace").decode()


def known(history: Sequence[Json]) -> tuple[Turn | None, ...]:
    """The turns of *history*, with None in the place of what is no turn of ours."""
    return tuple(_known(value) for value in history)


def _known(value: Json) -> Turn | None:
    if not isinstance(value, Mapping):
        return None
    turn = cast("Turn", value)
    try:
        render(turn, named=True, media=True)
        estimate(turn)
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    return turn


def items(turns: Iterable[Turn | None], *, media: bool = True) -> list[Item]:
    """The input items of the Responses API for *turns*, in order.

    Args:
        turns: old turns, then the new one, whose answer is still empty.
        media: False writes ``[image]`` or ``[file]`` in the place of images and files of all turns but the last.
    """
    told = [turn for turn in turns if turn is not None]
    authors = {said["a"] for turn in told for said in turn["in"]}
    last = len(told) - 1
    shown = [render(turn, named=len(authors) > 1, media=media or i == last) for i, turn in enumerate(told)]
    return [item for part in shown for item in part]


def has_media(turns: Iterable[Turn | None]) -> bool:
    """Whether an image or a file is among *turns*."""
    return any(p["type"] != "text" for turn in turns if turn for said in turn["in"] for p in said["p"])


def render(turn: Turn, *, named: bool, media: bool) -> list[Item]:
    """The input items of one turn, with or without authors' names, images and files."""
    found: list[Item] = []
    for said in turn["in"]:
        content = [_input(part, media) for part in said["p"]]
        if named and said["a"]:
            name = " ".join(said["a"].split())[:64]
            if content[0]["type"] == "input_text":
                content[0]["text"] = f"{name}: {content[0]['text']}"
            else:
                content.insert(0, {"type": "input_text", "text": f"{name}:"})
        found.append({"type": "message", "role": "user", "content": content})
    if turn["out"]:
        # No id: a provider that knows it would ask for the reasoning items that belonged to it.
        text: Item = {"type": "output_text", "text": turn["out"], "annotations": []}
        found.append({"type": "message", "role": "assistant", "status": "completed", "content": [text]})
    return found


def _input(part: Mapping[str, str], media: bool) -> Item:
    kind = part["type"]
    if kind == "text":
        return {"type": "input_text", "text": part["text"]}
    if not media:
        return {"type": "input_text", "text": f"[{kind}]"}
    if "file_id" in part:
        return {"type": f"input_{kind}", "file_id": part["file_id"]}
    return {"type": f"input_{kind}", f"{kind}_url": part["url"]}


def tokens(text: str) -> float:
    """An upper bound, in practice, of the tokens of *text*."""
    data = text.encode(errors="replace")
    heavy = len(data.translate(None, _LIGHT))
    return heavy + 0.6 * (len(data) - heavy)


def estimate(turn: Turn) -> float:
    """An upper bound, in practice, of the tokens of one turn."""
    size = ITEM_TOKENS + tokens(turn["out"])
    for said in turn["in"]:
        size += ITEM_TOKENS + tokens(said["a"] or "")
        for part in said["p"]:
            other = IMAGE_TOKENS if part["type"] == "image" else FILE_TOKENS
            size += tokens(part["text"]) if part["type"] == "text" else other
    return size


def fitting(turns: Sequence[Turn | None], room: float, ratio: float) -> int:
    """How many of the newest *turns* fit into *room* tokens, given the measured *ratio* of the estimates."""
    count = 0
    for turn in reversed(turns):
        room -= estimate(turn) * ratio if turn is not None else 0.0
        if room < 0:
            break
        count += 1
    return count


def kept(turns: Sequence[Turn | None], room: float, ratio: float) -> int:
    """How many of the newest *turns* stay: all if they fit into *room*, else those that fit into two thirds of it."""
    fit = fitting(turns, room, ratio)
    return fit if fit == len(turns) else fitting(turns, room * 2 / 3, ratio)


def ratio_of(state: Json) -> float:
    """The ratio kept in a thread's state; 1 if there is none."""
    value = cast("Mapping[str, Any]", state).get("ratio") if isinstance(state, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 1.0
    return _bounded(float(value))


def measured(reported: int, size: float, ratio: float) -> float:
    """The ratio after a Run: *reported* input tokens for an estimate of *size*, and a tenth; *ratio* if none came."""
    return round(_bounded(1.1 * reported / size), 3) if reported > 0 and size > 0 else ratio


def _bounded(ratio: float) -> float:
    return min(max(ratio, LEAST), 1.5) if isfinite(ratio) else 1.0
