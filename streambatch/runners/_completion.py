"""Reading a streamed chat completion: deltas are shown, and only a finish_reason is believed.

Theory of operation
-------------------
The stream is chunks with a choice or none. Text comes in pieces, calls in pieces of their own: the first names the
call, the others add to its arguments; which call is meant says ``index``, and servers that number all of them 0 give a
new id instead. The SDK raises for an error object in a chunk and for a cut connection; a stream that just ends raises
nothing, so a completion has succeeded only if its finish_reason came (C10), and then it has even if the connection was
lost before the usage. A finish_reason that says the server gave up is none.

A call that was cut off by a limit or a filter is not a call: nobody knows what its arguments would have been.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from streambatch.errors import StreambatchError

from ._errors import problem

_GAVE_UP = frozenset({"error", "abort", "aborted", "cancelled", "canceled"})
_CUT = {"length": "max_output_tokens", "max_tokens": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(slots=True)
class Piece:
    """A call as far as it has come."""

    id: str
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion that ended well.

    Attributes:
        text: everything the model said.
        calls: the tools it wants to be called, in order; the ids are the provider's and may be empty or equal.
        flags: ``"incomplete"`` and why, ``"refusal"``.
        usage: as the server reported it, or None.
        id: of the response, where the provider keeps it.
    """

    text: str
    calls: tuple[Piece, ...] = ()
    flags: tuple[str, ...] = ()
    usage: Mapping[str, Any] | None = None
    id: str = ""


@dataclass(slots=True)
class _Reading:
    said: list[str] = field(default_factory=list[str])
    calls: list[Piece] = field(default_factory=list[Piece])
    places: dict[object, Piece] = field(default_factory=dict[object, Piece])
    refused: bool = False
    finish: str = ""
    usage: Mapping[str, Any] | None = None

    def take(self, chunk: Any) -> str:
        """Take one chunk in; returns the text in it."""
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self.usage = _plain(usage) or self.usage
        text = ""
        for choice in getattr(chunk, "choices", None) or ():
            delta = getattr(choice, "delta", None)
            for name in ("content", "refusal"):
                piece = getattr(delta, name, None)
                if isinstance(piece, str) and piece:
                    text += piece
                    self.refused = self.refused or name == "refusal"
            for call in getattr(delta, "tool_calls", None) or ():
                self._call(call)
            self.finish = getattr(choice, "finish_reason", None) or self.finish
        if text:
            self.said.append(text)
        return text

    def _call(self, delta: Any) -> None:
        index, call_id = getattr(delta, "index", None), getattr(delta, "id", None) or ""
        function = getattr(delta, "function", None)
        name = getattr(function, "name", None) or ""
        piece = self.places.get(index)
        if index is None and not (call_id or name) and self.calls:
            piece = self.calls[-1]
        if piece is None or (call_id and piece.id and call_id != piece.id):
            piece = self.places[index] = Piece(call_id)
            self.calls.append(piece)
        piece.id = piece.id or call_id
        piece.name = piece.name or name
        arguments = getattr(function, "arguments", None)
        if arguments:
            piece.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def done(self) -> Completion:
        if not self.finish or self.finish in _GAVE_UP:
            raise problem("no_end", words=self.finish)
        why = _CUT.get(self.finish)
        flags = ("incomplete", why) if why else ()
        flags += ("refusal",) if self.refused else ()
        # A pair of surrogates that came in two pieces is one character.
        text = "".join(self.said).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        calls = () if why else tuple(call for call in self.calls if call.name)
        return Completion(text, calls, flags, self.usage)


async def completion_of(chunks: AsyncIterator[Any], show: Callable[[str], Awaitable[None]]) -> Completion:
    """Read *chunks* to the end and return what came out of it.

    Args:
        chunks: the SDK's stream of one completion.
        show: awaited with each piece of text as it arrives.

    Raises:
        Problem: the stream ended without saying how.
    """
    reading = _Reading()
    try:
        async for chunk in chunks:
            if text := reading.take(chunk):
                await show(text)
    except StreambatchError:
        raise
    except Exception as error:
        if not reading.finish or getattr(error, "body", None) is not None:
            raise
    return reading.done()


def _plain(usage: Any) -> Mapping[str, Any] | None:
    if isinstance(usage, Mapping):
        return dict(cast("Mapping[str, Any]", usage))
    return usage.to_dict(mode="json", warnings=False) if hasattr(usage, "to_dict") else None
