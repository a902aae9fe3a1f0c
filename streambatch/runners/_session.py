"""A session of the Agents SDK that stores nothing: what a Run adds is one turn, committed by the queue or by nobody.

Theory of operation
-------------------
The SDK writes a user's messages into its session before it asks the model, and never takes them back: with any of its
own sessions, a Run that failed and is repeated says everything twice. Here `add_items` only collects. The runner takes
what was collected as one turn (`turns`), the queue appends it in the step that acknowledges the batch, and a Run that
did not end properly leaves no trace.

*A turn* is a turn of `_history` with one more field: ``{"v": 1, "in": [message, …], "out": "", "items": [item, …]}``.
``in`` are the person's messages as the queue stores them, so that names and old pictures can be decided about when
they are shown again; ``items`` is what the agents did, in the form of the Responses API, made fit to be kept: no ids
and no reasoning (a provider that knows an id asks for the reasoning that belonged to it, and forgets both after a
while), no calls of tools that the provider ran itself, no blobs, and no call without its output or the reverse, which
providers refuse.

*What is shown* are the newest turns that fit into the budget, cut at turn borders (see `_history.kept`). Images and
files are shown in the turn they came with and in the `MEDIA_TURNS` after it; later the model reads ``[image]``.

`pop_item` and `clear_session` change what this Run sees. If they reach into turns that are stored, the whole history is
written anew with the commit: all of it is forgotten, and what is left is appended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from . import _history as past

MEDIA_TURNS = 3
LONGEST_OUTPUT = 64 * 1024
_CALLS = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
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
    found: list[list[Item]] = []
    for place, turn in enumerate(turns):
        shown = [] if turn is None else past.render(turn, named=len(authors) > 1, media=place >= first)
        found.append([*shown, *(_items(turn) if turn else ())])
    return found


def kept(turns: Turns, room: float) -> int:
    """How many of the newest *turns* fit into *room* tokens; if not all do, a third of it is freed at once."""
    fit = _fitting(turns, room)
    return fit if fit == len(turns) else _fitting(turns, room * 2 / 3)


def _fitting(turns: Turns, room: float) -> int:
    count = 0
    for turn in reversed(turns):
        room -= size(turn)
        if room < 0:
            break
        count += 1
    return count


def size(turn: past.Turn | None) -> float:
    """An upper bound, in practice, of the tokens of a turn."""
    if turn is None:
        return 0.0
    return past.estimate(turn) + sum(past.tokens(json.dumps(item, ensure_ascii=False)) for item in _items(turn))


def _items(turn: past.Turn) -> list[Item]:
    items = cast("Sequence[object]", turn.get("items") or ())
    return [dict(cast("Mapping[str, Any]", item)) for item in items if isinstance(item, Mapping)]


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
        self._old = old
        self._new: list[Item] = []
        self._turn = new
        self._changed = False

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """What is stored, then what this Run added; the newest *limit* of it."""
        seen = [item for turn in self._old for item in turn] + self._new
        if limit is not None:
            seen = seen[max(0, len(seen) - limit) :]
        return [dict(item) for item in seen]

    async def add_items(self, items: Sequence[Any]) -> None:
        """Collect *items*; the commit stores them."""
        self._new += [_dict(item) for item in items]

    async def pop_item(self) -> Any:
        """Take the newest item away, for this Run and with its commit."""
        if self._new:
            return self._new.pop()
        while self._old and not self._old[-1]:
            self._old.pop()
        if not self._old:
            return None
        self._changed = True
        return self._old[-1].pop()

    async def clear_session(self) -> None:
        """Forget everything, for this Run and with its commit."""
        self._changed = self._changed or bool(self._old)
        self._old.clear()
        self._new.clear()

    def turns(self, out: str = "") -> tuple[tuple[Item, ...], bool]:
        """The turns to append, and whether the whole history is replaced by them.

        Args:
            out: what to keep as the answer if it is not among the items.
        """
        count = len(self.input)
        begins = self._new[:count] == self.input
        turn: Item = {"v": 1, "in": self._turn["in"] if begins else [], "out": out}
        turn["items"] = lasting(self._new[count if begins else 0 :])
        if not self._changed:
            return (turn,), False
        left = tuple({"v": 1, "in": [], "out": "", "items": lasting(items)} for items in self._old if items)
        return (*left, turn), True


def _dict(item: object) -> Item:
    if isinstance(item, Mapping):
        return dict(cast("Mapping[str, Any]", item))
    dump: Any = getattr(item, "model_dump", None)
    return dump(mode="json", exclude_unset=True, warnings=False) if dump is not None else {}


def lasting(items: Sequence[Item]) -> list[Item]:
    """What of *items* is kept in the history; see the head of this file."""
    outputs = {(i.get("type"), i.get("call_id")) for i in items}
    found: list[Item] = []
    called: set[tuple[str, object]] = set()
    for item in items:
        kind, call = item.get("type") or ("message" if "role" in item else ""), item.get("call_id")
        if kind == "message":
            found.append(_plain({**item, "type": "message"}))
        elif kind in _CALLS and (_CALLS[kind], call) in outputs:
            called.add((_CALLS[kind], call))
            found.append(_plain(item))
        elif (kind, call) in called:
            found.append({**_plain(item), "output": _output(item.get("output"))})
    return found


def _plain(item: Item) -> Item:
    made = {name: value for name, value in item.items() if name not in ("id", "status") and value is not None}
    if made.get("role") == "assistant":
        made["status"] = "completed"
        if isinstance(content := made.get("content"), list):
            made["content"] = [_part(part) for part in cast("list[Any]", content)]
    return made


def _part(part: Any) -> Any:
    fields = cast("Mapping[str, Any]", part) if isinstance(part, Mapping) else {}
    if fields.get("type") == "output_text":
        return {"type": "output_text", "text": fields.get("text", ""), "annotations": []}
    return part


def _output(value: Any) -> Any:
    """A tool's output without blobs and of bounded length."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_OUTPUT else f"{value[:LONGEST_OUTPUT]} [cut here]"
    if isinstance(value, list):
        return [_without_blob(part) for part in cast("list[Any]", value)]
    return value


def _without_blob(part: Any) -> Any:
    fields = cast("Mapping[str, Any]", part) if isinstance(part, Mapping) else {}
    link = fields.get("image_url")
    if "file_data" in fields or (isinstance(link, str) and link.startswith("data:")):
        return {"type": "input_text", "text": "[image]" if link else "[file]"}
    return part
