"""Items: what a request's input becomes in the store, and what a list of items says about tools, turns and length.

An item of the store always has an id, a type and a status, as the API returns it; a request may leave most of it out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

from . import errors
from .plan import Json

#: One entry of a history: "user", "assistant", "function_call", "function_call_output" or another role, and its text.
Entry = tuple[str, str]
_PREFIX = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def items_of(given: Json) -> list[Json]:
    """The items of an ``input`` (a text or a list), complete and with ids."""
    if given is None:
        return []
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise errors.wrong_type("input", "one of an array of objects or string")
    found = [_item(item, f"input[{number}]") for number, item in enumerate(given)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    seen: set[str] = set()
    for item in found:
        if item["id"] in seen:
            raise errors.duplicate(item["id"])
        seen.add(item["id"])
    return found


def _item(item: Json, where: str) -> Json:
    if not isinstance(item, dict):
        raise errors.wrong_type(where, "an object")
    made: dict[str, Json] = dict(item)  # pyright: ignore[reportUnknownArgumentType]
    kind = made.setdefault("type", "message" if "role" in made else None)
    if kind is None:
        raise errors.missing(f"{where}.type")
    if kind == "item_reference":
        raise errors.refuse(f"Item with id '{made.get('id')}' not found.", "input")
    for name in {"message": ("role", "content"), "function_call_output": ("call_id", "output")}.get(kind, ()):
        if name not in made:
            raise errors.missing(f"{where}.{name}")
    prefix = _PREFIX.get(kind, "item")
    made["id"] = made.get("id") or new_id(prefix)
    if kind in _PREFIX and not str(made["id"]).startswith(prefix[:2] if kind == "function_call_output" else prefix):
        said = f"Invalid '{where}.id': '{made['id']}'. Expected an ID that begins with '{prefix}'."
        raise errors.refuse(said, f"{where}.id", "invalid_value")
    if kind == "message":
        made["content"] = _content(made["role"], made["content"])
    made["status"] = made.get("status") or "completed"
    return made


def _content(role: str, content: Json) -> list[Json]:
    if not isinstance(content, str):
        return [{"annotations": [], **part} if part.get("type") == "output_text" else part for part in content]
    return [output_text(content) if role == "assistant" else {"type": "input_text", "text": content}]


def output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def text_of(item: Json) -> str:
    """The text of an item; of a call, its name and arguments."""
    if item["type"] == "message":
        return "".join(part.get("text") or part.get("refusal") or f"[{part['type']}]" for part in item["content"])
    if item["type"] == "function_call":
        return f"{item['name']}({item['arguments']})"
    if item["type"] == "function_call_output":
        output = item["output"]
        return output if isinstance(output, str) else "".join(part.get("text", "") for part in output)
    return ""


def entries(items: Iterable[Json]) -> list[Entry]:
    """The history that items are."""
    return [(item["role"] if item["type"] == "message" else item["type"], text_of(item)) for item in items]


def check_tools(known: Sequence[Json], new: Sequence[Json]) -> None:
    """Every call, known or new, needs its output, and every new output its call."""
    calls: dict[str, bool] = {}
    for item in known:
        if item["type"] == "function_call":
            calls[item["call_id"]] = False
        elif item["type"] == "function_call_output":
            calls[item["call_id"]] = True
    for item in new:
        if item["type"] == "function_call":
            calls[item["call_id"]] = False
        elif item["type"] == "function_call_output":
            if item["call_id"] not in calls:
                raise errors.no_tool_call(item["call_id"])
            calls[item["call_id"]] = True
    for call_id, answered in calls.items():
        if not answered:
            raise errors.no_tool_output(call_id)


def default_text(history: Iterable[Entry]) -> str:
    """What the model says if the plan does not: the user messages after the last answer, and what the tools said."""
    said: list[str] = []
    tools: list[str] = []
    for kind, text in history:
        if kind == "assistant":
            said.clear()
            tools.clear()
        elif kind == "user":
            said.append(text)
        elif kind in ("function_call_output", "tool"):
            tools.append(text)
    if tools and not said:
        return f"The tools said: {' | '.join(tools)}"
    spoken = f"I got {len(said)} messages: {' | '.join(said)}"
    return f"{spoken}; the tools said: {' | '.join(tools)}" if tools else spoken


def tokens(history: Iterable[Entry]) -> int:
    """A rough count, never 0."""
    return sum(4 + len(text) // 4 for _, text in history) or 1


def page(objects: Sequence[Json], query: dict[str, str], *, limit: int = 20) -> Json:
    """One page of a list, as every list of the API is cut: order (newest first unless told), after, before, limit."""
    most = int(query.get("limit", limit))
    if not 1 <= most <= 100:
        raise errors.refuse("Invalid 'limit': expected a value between 1 and 100.", "limit", "invalid_value")
    ordered = list(objects) if query.get("order", "desc") == "asc" else list(reversed(objects))
    where = {one["id"]: number for number, one in enumerate(ordered)}
    for name in ("after", "before"):
        if name in query and query[name] not in where:
            raise errors.refuse(f"No item with id '{query[name]}' found.", name, status=404)
    start = where[query["after"]] + 1 if "after" in query else 0
    end = where[query["before"]] if "before" in query else len(ordered)
    found = ordered[start : min(end, start + most)]
    first, last = (found[0]["id"], found[-1]["id"]) if found else (None, None)
    return {"object": "list", "data": found, "first_id": first, "last_id": last, "has_more": start + len(found) < end}
