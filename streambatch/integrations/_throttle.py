"""throttle: a stream of pieces as the text so far, as often as a platform likes to be told.

Theory of operation
-------------------
Pieces are collected while the reader waits for the next text; while it is busy with one they wait in their source. A
text is given out when something is new and the last one was given out at least ``interval`` ago, so the first comes at
once and a fast stream becomes one text every interval. At the end of the stream what is still new comes after the rest
of its interval. The source is closed with the reader, in the midst of a piece, too.

A restart voids what was collected, and nothing is given out for it: the reader goes on showing the old text until there
is a new one, because an empty message is one that no platform accepts. A text that was given out last is not repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import Any

from streambatch._events import Event, Preview, Restarted, Streamed
from streambatch._settings import Seconds, seconds

Piece = str | Streamed | Event


def throttle(events: AsyncIterable[Piece], interval: Seconds = 1.0) -> AsyncGenerator[str]:
    """The text of a stream so far, at most every *interval* seconds: the first at once, the last always.

    Args:
        events: ``receipt.events()``; or pieces of text (str), or what a listener hears (Preview, Restarted). What is no
            text is passed over. It is read to its end, or to the event ``"end"``.
        interval: seconds (float) or timedelta between two texts.

    Returns:
        An async generator of texts, none empty, each of them all pieces since the last restart. It raises what *events*
        raises.

    Raises:
        UsageError: *interval* is negative or longer than a day.

    Example:
        >>> async def pieces():
        ...     for piece in ("Hello", ", ", "world"):
        ...         yield piece
        >>> async def main() -> None:
        ...     async for text in throttle(pieces(), 0.01):
        ...         print(text)
        >>> asyncio.run(main())
        Hello
        Hello, world
    """
    return _throttled(events, seconds("interval", interval))


async def _throttled(events: AsyncIterable[Piece], interval: float) -> AsyncGenerator[str]:
    loop = asyncio.get_running_loop()
    text, shown, earliest = "", "", loop.time()
    source = aiter(events)
    step: asyncio.Future[Piece] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(_next(source))
            await asyncio.wait([step], timeout=max(0.0, earliest - loop.time()) if text not in {"", shown} else None)
            if step.done():
                try:
                    piece = step.result()
                except StopAsyncIteration:
                    break
                finally:
                    step = None
                if isinstance(piece, Streamed) and piece.kind == "end":
                    break
                text = _grown(text, piece)
            if text not in {"", shown} and loop.time() >= earliest:
                shown, earliest = text, loop.time() + interval
                yield text
        if text not in {"", shown}:
            await asyncio.sleep(earliest - loop.time())
            yield text
    finally:
        if step is not None:
            step.cancel()
            await asyncio.wait([step])
        close: Any = getattr(source, "aclose", None)
        if close is not None:
            await close()


async def _next(source: AsyncIterator[Piece]) -> Piece:
    return await anext(source)


def _grown(text: str, piece: Piece) -> str:
    """The text after a piece."""
    match piece:
        case str():
            return text + piece
        case Streamed(kind="text", data=str(more)) | Preview(data=str(more)):
            return text + more
        case Streamed(kind="started" | "restarted") | Restarted():
            return ""
        case _:
            return text
