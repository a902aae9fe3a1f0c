"""Reading a streamed response: deltas are shown, and only a terminal event is believed.

Theory of operation
-------------------
The SDK raises nothing for a stream that just stops, for a flat ``error`` event or for ``response.failed``; a loop that
forgets this takes half an answer for a whole one. Here a Run has succeeded only when ``response.completed`` or
``response.incomplete`` was read; everything else is a Problem, the silent end of a stream included. Deltas are a
preview. The text is taken from the terminal event; servers that leave its ``output`` empty get the sum of the deltas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ._errors import problem

_SHOWN = ("response.output_text.delta", "response.refusal.delta")
_ENDS = ("response.completed", "response.incomplete")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A response that ended well.

    Attributes:
        text: everything the model said.
        flags: ``"incomplete"`` and why, ``"refusal"``.
        usage: as the server reported it, or None.
    """

    text: str
    flags: tuple[str, ...] = ()
    usage: Mapping[str, Any] | None = field(default=None)

    def count(self, name: str) -> int:
        """A number of the usage, 0 if it is not there."""
        value = (self.usage or {}).get(name)
        return value if isinstance(value, int) else 0


async def outcome_of(events: AsyncIterator[Any], emit: Callable[[object], None]) -> Outcome:
    """Read *events* to the end and return what came out of it.

    Args:
        events: the SDK's stream of one response.
        emit: called with each piece of text (str) as it arrives.

    Raises:
        Problem: the response failed, or the stream ended without saying how.
    """
    shown: list[str] = []
    async for event in events:
        kind = getattr(event, "type", None)
        if kind in _SHOWN:
            delta = getattr(event, "delta", None)
            if isinstance(delta, str) and delta:
                shown.append(delta)
                emit(delta)
        elif kind in _ENDS:
            return _ended(_plain(event.response), kind == "response.incomplete", "".join(shown))
        elif kind == "response.failed":
            error = _map(_plain(event.response).get("error"))
            raise problem(error.get("code") or "server_error", error.get("type"), error.get("message"))
        elif kind == "response.cancelled":
            raise problem("no_end", words="cancelled")
        elif kind == "error":
            raise problem(getattr(event, "code", ""), getattr(event, "error_type", ""), getattr(event, "message", ""))
    raise problem("no_end")


def _plain(response: Any) -> Mapping[str, Any]:
    if isinstance(response, Mapping):
        return cast("Mapping[str, Any]", response)
    return _map(response.to_dict(mode="json", warnings=False))


def _map(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def _ended(response: Mapping[str, Any], incomplete: bool, shown: str) -> Outcome:
    said: list[str] = []
    refused = False
    for item in _list(response.get("output")):
        if _map(item).get("type") != "message":
            continue
        for part in map(_map, _list(_map(item).get("content"))):
            refused = refused or part.get("type") == "refusal"
            text = part.get("text") or part.get("refusal")
            if isinstance(text, str):
                said.append(text)
    reason = _map(response.get("incomplete_details")).get("reason")
    flags = ("incomplete",) if incomplete or response.get("status") == "incomplete" else ()
    flags += (reason,) if flags and isinstance(reason, str) else ()
    flags += ("refusal",) if refused else ()
    usage = _map(response.get("usage"))
    return Outcome("".join(said) or shown, flags, dict(usage) or None)
