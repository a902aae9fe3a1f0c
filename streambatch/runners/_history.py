"""Turns: what a thread's local history holds, what of it fits the model, and how it is shown to the model.

Theory of operation
-------------------
A turn is one batch and its answer, as JSON, kept as it was said and not as one provider wants to read it::

    {"v": 1, "in": [{"a": author, "p": [part, …]}, …], "do": [step, …], "out": "…"}
    step: {"t": "what was said with the calls", "c": [{"n": name, "a": arguments, "o": output, "id": call id}, …]}

The parts are as the queue stores them. ``do`` is there only if tools were called. `items` makes the input of the
Responses API from turns and `messages` that of Chat Completions, so a thread may go from one to the other and loses
nothing. A turn of an unknown form is left out, never an error.

*Names.* The APIs have no place for an author, so when the turns that are sent hold two or more authors, each message
begins with ``name: ``; with one author nothing is added.

*Media.* Chat Completions has no place for a file by URL nor for an image by a provider's id; the first is written as
``[file URL]``, the second as ``[image]``.

*Size.* Nobody can count a stranger's tokens, so `estimate` is an upper bound in practice, for byte-level tokenizers:
0.6 for a lower-case letter or blank, 1 for any other byte of UTF-8. Measured with SmolLM2, tokens per byte: English
0.24, random letters 0.56, digits 1.0, Russian 0.37, Chinese 0.64, Korean 0.91, rare characters 1.0. It is corrected
by what servers report: ``ratio`` is the measured share of the estimate in the last Run of the thread (with a tenth
added), and applies to what was measured, the instructions and the history; new messages are always estimated in full.

*Trimming* is at turn borders, oldest first: `kept` returns how many of the newest turns stay. What does not fit is
forgotten for good, and then a third of the room is freed at once: until it is full again the input begins as it did the
last time, and a provider's prompt cache knows it (a small model on a processor needs seconds to read 2,000 tokens). The
new messages themselves are never cut: a cut message is a different message. Outputs of tools are (`clipped`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, cast

from streambatch._messages import Batch, Json, Message

ITEM_TOKENS = 12  # the frame a chat template puts around one message
IMAGE_TOKENS = 1_500
FILE_TOKENS = 3_000
LEAST = 0.15  # the smallest ratio that is believed
_LIGHT = b" abcdefghijklmnopqrstuvwxyz"
_CLIPS = (65_536, 16_384, 4_096, 1_024, 256)
Item = dict[str, Any]
Turn = Mapping[str, Any]
Count = Callable[[str], float]


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


def mapping(value: object) -> Mapping[str, Any]:
    """*value* if it is a mapping, else an empty one: what is stored may be of another kind or release."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def known(history: Sequence[Json]) -> tuple[Turn | None, ...]:
    """The turns of *history*, with None in the place of what is no turn of ours."""
    return tuple(_known(value) for value in history)


def _known(value: Json) -> Turn | None:
    if not isinstance(value, Mapping):
        return None
    turn = cast("Turn", value)
    try:
        render(turn, named=True, media=True)
        _chat(turn, named=True, media=True)
        estimate(turn)
    except (LookupError, TypeError, AttributeError, ValueError):
        return None
    return turn


def step_of(text: str, calls: Iterable[tuple[str, str, str, str]]) -> dict[str, Any]:
    """A step of a turn: what was said, and the calls as (id, name, arguments, output), as every provider takes them."""
    made = [
        {"n": re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "_", "a": _object(given), "o": output, "id": call_id}
        for call_id, name, given, output in calls
    ]
    return {"t": text, "c": made}


def _object(arguments: str) -> str:
    """The arguments if they are a JSON object; else an empty one: some servers parse them, and fail at all others."""
    try:
        return arguments if isinstance(json.loads(arguments), dict) else "{}"
    except ValueError:
        return "{}"


def items(turns: Iterable[Turn | None], *, media: bool = True, before: Iterable[Turn | None] = ()) -> list[Item]:
    """The input items of the Responses API for *turns*, in order.

    Args:
        turns: old turns, then the new one, whose answer is still empty.
        before: turns that the provider keeps: they are not sent, and their authors count.
        media: False writes ``[image]`` or ``[file]`` in the place of images and files of all turns but the last.
    """
    return _rendered(turns, media, render, before)


def messages(turns: Iterable[Turn | None], *, media: bool = True) -> list[Item]:
    """The messages of Chat Completions for *turns*, in order; the arguments are those of `items`."""
    return _rendered(turns, media, _chat)


def _rendered(
    turns: Iterable[Turn | None],
    media: bool,
    one: Callable[..., list[Item]],
    before: Iterable[Turn | None] = (),
) -> list[Item]:
    told = [turn for turn in turns if turn is not None]
    authors = {said["a"] for turn in (*before, *told) if turn is not None for said in turn["in"]}
    last = len(told) - 1
    shown = [one(turn, named=len(authors) > 1, media=media or i == last) for i, turn in enumerate(told)]
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
            name = author_name(said["a"])
            if content[0]["type"] == "input_text":
                content[0]["text"] = f"{name}: {content[0]['text']}"
            else:
                content.insert(0, {"type": "input_text", "text": f"{name}:"})
        found.append({"type": "message", "role": "user", "content": content})
    for step in turn.get("do", ()):
        found += spoken(step["t"])
        calls = step["c"]
        found += [
            {"type": "function_call", "call_id": c["id"], "name": c["n"], "arguments": c["a"], "status": "completed"}
            for c in calls
        ]
        found += [{"type": "function_call_output", "call_id": c["id"], "output": c["o"]} for c in calls]
    return found + spoken(turn["out"])


def spoken(text: str) -> list[Item]:
    """What the assistant said, as input items; none if it said nothing."""
    if not text:
        return []
    # No id: a provider that knows it would ask for the reasoning items that belonged to it.
    part: Item = {"type": "output_text", "text": text, "annotations": []}
    return [{"type": "message", "role": "assistant", "status": "completed", "content": [part]}]


def _chat(turn: Turn, *, named: bool, media: bool) -> list[Item]:
    found: list[Item] = []
    for said in turn["in"]:
        content = [_content(part, media) for part in said["p"]]
        if named and said["a"]:
            name = author_name(said["a"])
            if content[0]["type"] == "text":
                content[0]["text"] = f"{name}: {content[0]['text']}"
            else:
                content.insert(0, {"type": "text", "text": f"{name}:"})
        # Text alone is sent as text: many servers and chat templates know nothing else.
        plain = all(part["type"] == "text" for part in content)
        found.append({"role": "user", "content": "\n".join(p["text"] for p in content) if plain else content})
    for step in turn.get("do", ()):
        calls = step["c"]
        asked = [{"id": c["id"], "type": "function", "function": {"name": c["n"], "arguments": c["a"]}} for c in calls]
        found.append({"role": "assistant", "content": step["t"], "tool_calls": asked})
        found += [{"role": "tool", "tool_call_id": c["id"], "content": c["o"]} for c in calls]
    if turn["out"]:
        found.append({"role": "assistant", "content": turn["out"]})
    return found


def author_name(author: str) -> str:
    """The name of an author as a model is told it: one line, not too long."""
    return " ".join(author.split())[:64]


def _input(part: Mapping[str, str], media: bool) -> Item:
    kind = part["type"]
    if kind == "text":
        return {"type": "input_text", "text": part["text"]}
    if not media:
        return {"type": "input_text", "text": f"[{kind}]"}
    if "file_id" in part:
        return {"type": f"input_{kind}", "file_id": part["file_id"]}
    return {"type": f"input_{kind}", f"{kind}_url": part["url"]}


def _content(part: Mapping[str, str], media: bool) -> Item:
    kind = part["type"]
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if media and kind == "image" and "url" in part:
        return {"type": "image_url", "image_url": {"url": part["url"]}}
    if media and kind == "file" and "file_id" in part:
        return {"type": "file", "file": {"file_id": part["file_id"]}}
    return {"type": "text", "text": f"[{kind} {part['url']}]" if media and "url" in part else f"[{kind}]"}


def tokens(text: str) -> float:
    """An upper bound, in practice, of the tokens of *text*."""
    data = text.encode(errors="replace")
    heavy = len(data.translate(None, _LIGHT))
    return heavy + 0.6 * (len(data) - heavy)


def estimate(turn: Turn, count: Count = tokens) -> float:
    """The tokens of one turn as *count* has them: by default an upper bound, in practice."""
    size = ITEM_TOKENS + count(turn["out"])
    for said in turn["in"]:
        size += ITEM_TOKENS + count(said["a"] or "")
        for part in said["p"]:
            other = IMAGE_TOKENS if part["type"] == "image" else FILE_TOKENS
            size += count(part["text"]) if part["type"] == "text" else other
    for step in turn.get("do", ()):
        size += ITEM_TOKENS + count(step["t"])
        size += sum(2 * ITEM_TOKENS + sum(count(call[field]) for field in ("n", "a", "o")) for call in step["c"])
    return size


def clipped(turn: Turn, fits: Callable[[Turn], bool]) -> Turn:
    """*turn* with the outputs of its tools cut, all to one length, so that it *fits*; or as short as they get."""
    shorter = turn
    for most in _CLIPS:
        if not turn.get("do") or fits(shorter):
            break
        steps = [{**s, "c": [{**c, "o": _clip(c["o"], most)} for c in s["c"]]} for s in turn["do"]]
        shorter = {**turn, "do": steps}
    return shorter


def _clip(output: str, most: int) -> str:
    return output if len(output) <= most else f"{output[:most]}\n[cut here: the first {most} of {len(output)}]"


def fitting(turns: Sequence[Turn | None], room: float, ratio: float, count: Count = tokens) -> int:
    """How many of the newest *turns* fit into *room* tokens, given the measured *ratio* of the estimates."""
    fit = 0
    for turn in reversed(turns):
        room -= estimate(turn, count) * ratio if turn is not None else 0.0
        if room < 0:
            break
        fit += 1
    return fit


def kept(turns: Sequence[Turn | None], room: float, ratio: float, count: Count = tokens) -> int:
    """How many of the newest *turns* stay: all if they fit into *room*, else those that fit into two thirds of it."""
    fit = fitting(turns, room, ratio, count)
    return fit if fit == len(turns) else fitting(turns, room * 2 / 3, ratio, count)


def ratio_of(state: Json, name: str = "ratio") -> float:
    """The ratio kept in a thread's state under *name* (one for each way to count); 1 if there is none."""
    value = cast("Mapping[str, Any]", state).get(name) if isinstance(state, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 1.0
    return _bounded(float(value))


def measured(reported: int, size: float, ratio: float) -> float:
    """The ratio after a Run: *reported* input tokens for an estimate of *size*, and a tenth; *ratio* if none came."""
    return round(_bounded(1.1 * reported / size), 3) if reported > 0 and size > 0 else ratio


def _bounded(ratio: float) -> float:
    return min(max(ratio, LEAST), 1.5) if isfinite(ratio) else 1.0
