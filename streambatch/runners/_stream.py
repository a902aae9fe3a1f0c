"""Reading a response of the Responses API, as a stream or as a whole: only a terminal state is believed.

Theory of operation
-------------------
The SDK raises nothing for a stream that just stops, for a flat ``error`` event or for ``response.failed``; a loop that
forgets this takes half an answer for a whole one. Here a response has succeeded only when it is ``completed`` or
``incomplete``. There are two ways not to succeed. `Ended`: the response itself is over (failed, cancelled), whoever
asks again. Any other Problem, the silent end of a stream included, says something about the stream; the response may go
on, and who knows its id can ask.

Deltas are a preview. The text and the calls are taken from the terminal event; from servers that leave its ``output``
empty they are the sum of what was streamed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, cast

from ._completion import Completion, Piece
from ._errors import Problem, problem

_SHOWN = ("response.output_text.delta", "response.refusal.delta")
_OVER = ("completed", "incomplete", "failed", "cancelled")
Response = Mapping[str, Any]


class Ended(Problem):
    """The response is over and has not succeeded."""


class Watch(Protocol):
    """Who is told while a stream is read."""

    async def begun(self, response: Response) -> None:
        """The first event that holds the response: now its id is known."""
        ...

    async def shown(self, text: str) -> None:
        """A piece of text arrived."""
        ...

    def at(self, sequence: int) -> None:
        """The number of the last event that was read."""
        ...


async def completion_of(events: AsyncIterator[Any], watch: Watch, said: str = "") -> Completion:
    """Read *events* to the end and return what came out of it.

    Args:
        events: the SDK's stream of one response.
        watch: told of what is read.
        said: the text before the first of *events*, if they begin in the middle.

    Raises:
        Ended: the response failed or was cancelled.
        Problem: the stream ended without saying how.
    """
    shown, calls, known = list[str](), list[Response](), False
    async for event in events:
        kind = getattr(event, "type", "") or ""
        if isinstance(number := getattr(event, "sequence_number", None), int):
            watch.at(number)  # first: what is saved of this event is saved with its number
        response = plain(getattr(event, "response", None))
        if response and not known:
            known = True
            await watch.begun(response)
        if kind in _SHOWN:
            delta = getattr(event, "delta", None)
            if isinstance(delta, str) and delta:
                shown.append(delta)
                await watch.shown(delta)
        elif kind == "response.output_item.done":
            calls.append(plain(getattr(event, "item", None)))
        elif kind == "error":
            raise problem(getattr(event, "code", ""), getattr(event, "error_type", ""), getattr(event, "message", ""))
        elif response and kind.removeprefix("response.") in _OVER:
            over = {**response, "status": kind.removeprefix("response.")}
            return cast("Completion", completion_in(over, said + "".join(shown), calls))
    raise problem("no_end")


def completion_in(response: Response, shown: str = "", items: Sequence[Response] = ()) -> Completion | None:
    """What came out of a response as it is kept; None if it is not over yet.

    Args:
        response: the response object.
        shown: what was streamed of it, if its output is empty.
        items: the items that were streamed of it, likewise.

    Raises:
        Ended: it failed or was cancelled.
    """
    status = response.get("status")
    if status == "failed":
        error = _map(response.get("error"))
        found = problem(error.get("code") or "server_error", error.get("type"), error.get("message"))
        raise Ended(found.name, found.why)
    if status == "cancelled":
        raise Ended("AMBIGUOUS", "cancelled")
    if status not in ("completed", "incomplete"):
        return None
    return _ended(response, shown, items)


def plain(value: object) -> Response:
    """An object of the SDK as a mapping; empty for whatever is none."""
    if isinstance(value, Mapping):
        return cast("Response", value)
    made: Any = value
    return _map(made.to_dict(mode="json", warnings=False)) if hasattr(value, "to_dict") else {}


def _map(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def _ended(response: Response, shown: str, items: Sequence[Response]) -> Completion:
    output = [_map(item) for item in _list(response.get("output"))] or list(items)
    text, refused, calls = said_in(output)
    reason = _map(response.get("incomplete_details")).get("reason")
    flags = ("incomplete",) if response.get("status") == "incomplete" else ()
    flags += (reason,) if flags and isinstance(reason, str) else ()
    usage = _map(response.get("usage"))
    return Completion(
        text or shown,
        () if flags else calls,
        flags + (("refusal",) if refused else ()),
        dict(usage) or None,
        str(response.get("id") or ""),
    )


def said_in(output: Sequence[Response]) -> tuple[str, bool, tuple[Piece, ...]]:
    """The text of output items, whether it is a refusal, and the functions that the model wants to be called."""
    said, refused, calls = list[str](), False, list[Piece]()
    for item in output:
        kind = item.get("type")
        if kind == "function_call" and item.get("name"):
            calls.append(Piece(str(item.get("call_id") or ""), str(item["name"]), str(item.get("arguments") or "{}")))
        if kind != "message" or item.get("role", "assistant") != "assistant":
            continue
        for part in map(_map, _list(item.get("content"))):
            refused = refused or part.get("type") == "refusal"
            piece = part.get("text") or part.get("refusal")
            if isinstance(piece, str):
                said.append(piece)
    return "".join(said), refused, tuple(calls)
