"""A session of the Agents SDK that stores nothing: what a Run adds is one turn, committed by the queue or by nobody.

Theory of operation
-------------------
The SDK writes a user's messages into its session before it asks the model, and never takes them back: with any of its
own sessions, a Run that failed and is repeated says everything twice. Here `add_items` only collects. The runner takes
what was collected as one turn (`turns`), the queue appends it in the step that acknowledges the batch, and a Run that
did not end properly leaves no trace.

*The turn* has the form of all local histories (see `_history`): the messages as the queue stores them, the calls of
function tools and their outputs, and what was said last. What agents had besides is for the Run alone: reasoning and
ids (a provider that knows an id asks for the reasoning that belonged to it, and forgets both after a while), calls of
tools that the provider ran itself, blobs, and a call without its output, which providers refuse.

*What is shown* are the newest turns that fit into the budget, cut at turn borders. Images and files are shown in the
turn they came with and in the `MEDIA_TURNS` after it; later the model reads ``[image]``.

`pop_item` and `clear_session` change what this Run sees. If they reach into turns that are stored, the whole history is
written anew with the commit: all of it is forgotten, and what is left is appended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from . import _history as past

MEDIA_TURNS = 3
LONGEST_OUTPUT = 64 * 1024
Item = dict[str, Any]
Turns = tuple[past.Turn | None, ...]


def items_of(turns: Sequence[past.Turn | None], *, media: bool = True) -> list[list[Item]]:
    """The input items of each of *turns*, the last being the new one; names are added where there are several.

    Args:
        turns: old turns, then the new one.
        media: False shows images and files only in the new turn.
    """
    authors = {said["a"] for turn in turns if turn for said in turn["in"]}
    first = len(turns) - 1 - (MEDIA_TURNS if media else 0)
    return [
        [] if turn is None else past.render(turn, named=len(authors) > 1, media=place >= first)
        for place, turn in enumerate(turns)
    ]


class TurnSession:
    """The session of one Run.

    Args:
        session_id: the thread.
        turns: the turns of the history that are shown.
        new: the turn that begins with the batch; its messages are the Run's input.
        media: as for `items_of`.

    Attributes:
        input: the items of the new messages, the input of the Run.
    """

    session_settings: Any = None

    def __init__(self, session_id: str, turns: Turns, new: past.Turn, *, media: bool = True) -> None:
        self.session_id = session_id
        *old, fresh = items_of((*turns, new), media=media)
        self.input = fresh
        self._old = [item for turn in old for item in turn]
        self._new: list[Item] = []
        self._said = new["in"]
        self._changed = False

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """What is stored, then what this Run added; the newest *limit* of it."""
        seen = self._old + self._new
        return [dict(item) for item in (seen if limit is None else seen[max(0, len(seen) - limit) :])]

    async def add_items(self, items: Sequence[Any]) -> None:
        """Collect *items*; the commit stores them."""
        self._new += [_dict(item) for item in items]

    async def pop_item(self) -> Any:
        """Take the newest item away, for this Run and with its commit."""
        if self._new:
            return self._new.pop()
        if not self._old:
            return None
        self._changed = True
        return self._old.pop()

    async def clear_session(self) -> None:
        """Forget everything, for this Run and with its commit."""
        self._changed = self._changed or bool(self._old)
        self._old.clear()
        self._new.clear()

    def turns(self, said: str) -> tuple[tuple[Item, ...], bool]:
        """The turns to append, and whether they are all that is left of the history.

        Args:
            said: the Run's answer, for the case that the session does not hold it.
        """
        count = len(self.input)
        if self._new[:count] == self.input:
            turn = {"v": 1, "in": self._said, **_done(self._new[count:])}
        else:
            turn = {"v": 1, "in": _messages(self._new), **_done(self._new)}
        turn["out"] = turn["out"] or ("" if turn.get("do") else said)
        if not self._changed:
            return (turn,), False
        left = [{"v": 1, "in": _messages(group), **_done(group)} for group in _grouped(self._old)]
        return (*left, turn), True


def _dict(item: object) -> Item:
    if isinstance(item, Mapping):
        return dict(cast("Mapping[str, Any]", item))
    dump: Any = getattr(item, "model_dump", None)
    return dump(mode="json", exclude_unset=True, warnings=False) if dump is not None else {}


def _grouped(items: Sequence[Item]) -> list[list[Item]]:
    """Items as turns: each begins with what a person said."""
    groups: list[list[Item]] = []
    before = ""
    for item in items:
        role = item.get("role", "")
        if not groups or (role == "user" and before != "user"):
            groups.append([])
        groups[-1].append(item)
        before = role
    return groups


def _messages(items: Sequence[Item]) -> list[Item]:
    """What a person said, as a turn has it; names are part of the text by now."""
    texts = [_text(item.get("content")) for item in items if item.get("role") == "user"]
    return [{"a": None, "p": [{"type": "text", "text": text}]} for text in texts if text]


def _done(items: Sequence[Item]) -> Item:
    """What the agents did and said last, as a turn has it."""
    outputs = {i["call_id"]: _text(i.get("output")) for i in items if i.get("type") == "function_call_output"}
    steps: list[Item] = []
    said, calls = "", list[tuple[str, str, str, str]]()
    for item in [*items, {"role": "end"}]:
        if item.get("type") == "function_call" and item["call_id"] in outputs:
            calls.append((item["call_id"], item["name"], item.get("arguments") or "", outputs[item["call_id"]]))
        elif calls and (item.get("role") or item.get("type") == "function_call_output"):
            steps.append(past.step_of(said, calls))
            said, calls = "", []
        if item.get("role") == "assistant":
            said = "\n".join(text for text in (said, _text(item.get("content"))) if text)
    return {"do": steps, "out": said} if steps else {"out": said}


def _text(content: Any) -> str:
    """The text of a message or an output; images and files are named, and blobs are not kept."""
    if isinstance(content, str):
        shown = content
    else:
        parts = cast("Sequence[Mapping[str, Any]]", content or ())
        shown = "\n".join(_part(part) for part in parts)
    return shown if len(shown) <= LONGEST_OUTPUT else f"{shown[:LONGEST_OUTPUT]}\n[cut here]"


def _part(part: Mapping[str, Any]) -> str:
    for name in ("text", "refusal"):
        if isinstance(value := part.get(name), str):
            return value
    kind = str(part.get("type", "")).removeprefix("input_")
    link = part.get(f"{kind}_url")
    return f"[{kind} {link}]" if isinstance(link, str) and link.startswith("http") else f"[{kind}]"
