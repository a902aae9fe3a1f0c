"""in_pieces: a long reply as several messages, each sent once, and what a platform's refusals mean for the reply.

Theory of operation
-------------------
The queue calls a deliver callback with the same reply until it returns. Where a platform refuses in the middle of a
long one, what is out is out, so how many of its pieces are is kept by ``reply.id``, until the reply is delivered. A
`DeadLetter` ends nothing here: it may be redriven, and while the dead letters are full it is no dead letter yet, and
comes again once a minute. It is kept in this process: a crash between two pieces repeats those before it. At most
`KEPT` replies are remembered, the last ones; that is met only by dead letters, and by those that another process took.

A flood's error becomes a `Retry` that uses up no attempt, a refusal a `DeadLetter`; anything else is raised as it is,
which is a try that failed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from streambatch._messages import Reply
from streambatch.errors import DeadLetter, Retry

KEPT = 10_000
P = TypeVar("P")
Errors = type[Exception] | tuple[type[Exception], ...]


@contextmanager
def refusals(flood: Errors, refused: Errors) -> Generator[None]:
    """What a platform's library raises in the block, as what the queue understands."""
    try:
        yield
    except flood as error:
        after: Any = getattr(error, "retry_after", None)
        raise Retry(after, count=False) from None
    except refused as error:
        raise DeadLetter(type(error).__name__) from None


def in_pieces(
    cut: Callable[[str], Sequence[P]], *, flood: Errors = (), refused: Errors = ()
) -> Callable[[Callable[[Reply, P, int], Awaitable[object]]], Callable[[Reply], Awaitable[None]]]:
    """Decorator: from a function that sends one piece, a deliver callback that sends a reply piece by piece.

    A reply that is delivered again, be it a dead letter that somebody redrives, goes on with the piece that failed, as
    long as the process lives. A reply of which *cut* makes no piece, as of an empty one, sends nothing.

    Args:
        cut: what makes pieces of a text, for example ``partial(split_markdown, limit=2000)``; the same text always
            gives the same pieces.
        flood: the error, or a tuple of them, by which the platform's library says that a chat has to wait. Its
            attribute ``retry_after`` (seconds or a timedelta) is how long; no attempt is used up (`Retry`).
        refused: those after which it is of no use to try again: the reply becomes a dead letter, whose reason is the
            name of the class (`DeadLetter`).

    Returns:
        A decorator for ``async def send(reply, piece, number)``, where *number* counts from 0. What it raises itself,
        `Retry` and `DeadLetter` too, reaches the queue.

    Example:
        >>> import asyncio
        >>> from functools import partial
        >>> from streambatch import BatchQueue, Reply
        >>> from streambatch.integrations import split_markdown
        >>> @in_pieces(partial(split_markdown, limit=16), flood=TimeoutError)
        ... async def send(reply: Reply, piece: str, number: int) -> None:
        ...     print(number, piece)
        >>> async def answer(batch): return "one two three four"
        >>> queue = BatchQueue("embedded:", runner=answer, deliver=send)
        >>> asyncio.run(send(Reply("r1", "anna", "b1", ("m1",), "one two three four")))
        0 one two three
        1 four
    """
    out: OrderedDict[str, int] = OrderedDict()

    def decorator(send: Callable[[Reply, P, int], Awaitable[object]]) -> Callable[[Reply], Awaitable[None]]:
        async def deliver(reply: Reply) -> None:
            with refusals(flood, refused):
                for number, piece in list(enumerate(cut(reply.text)))[out.get(reply.id, 0) :]:
                    await send(reply, piece, number)
                    out[reply.id] = number + 1
                    out.move_to_end(reply.id)
                    if len(out) > KEPT:
                        out.popitem(last=False)
            out.pop(reply.id, None)

        return deliver

    return decorator
