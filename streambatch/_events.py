"""What can happen to a message, a batch, a reply or the connection, as data; and emit().

Events are the contract between the queue and whoever observes it: logs, metrics and traces are listeners. They carry
ids, counts and times, never content. A listener is called on the event loop and must not block; what it raises is
swallowed after one note on the ``streambatch`` logger of the standard library, because observing must never change
what is observed.

=============== ==============================================================================================
event           when
=============== ==============================================================================================
Queued          a message was stored (once per submit; ``outcome`` says if it was a duplicate)
Started         a Run begins; ``waited`` is seconds from the oldest message's arrival
Restarted       a Run begins again after a crash or a retry (``attempt`` > 1): previews seen before are void
Preview         a runner emitted something (streamed text); it comes before the commit and may be repeated
Retrying        a Run failed and will be tried again in ``delay`` seconds
Answered        a Run was committed: acknowledged, state and reply stored, in one step
Delivered       the deliver callback returned
Cancelled       a Run was cancelled (``kept``: what it had said is delivered); its batch is gone
DeliveryFailed  the deliver callback failed and will be called again in ``delay`` seconds
Dead            a batch or a reply failed for good and is among the dead letters
Lost            a lease ended under a running worker; another process has the thread
Repaired        a thread's keys disagreed (deleted or foreign data) and were put in order
StoreAway       the server does not answer; everything waits
StoreBack       it answers again, after ``seconds``
Warned          something deserves an operator's attention: the server's set-up at start, or a bug of ours
=============== ==============================================================================================
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Queued(Event):
    """A message was stored, or found to be stored already."""

    thread: str
    message_id: str
    entry: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A Run begins."""

    thread: str
    batch_id: str
    messages: int
    attempt: int
    waited: float


@dataclass(frozen=True, slots=True)
class Restarted(Event):
    """A Run of the same batch begins again; what was previewed is void."""

    thread: str
    batch_id: str
    messages: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Preview(Event):
    """Something a runner emitted before its Run was committed; ``data`` is content, listeners must not log it."""

    thread: str
    batch_id: str
    data: Any

    def __repr__(self) -> str:
        return f"Preview(thread={self.thread!r}, batch_id={self.batch_id!r})"


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """A Run failed and will be tried again."""

    thread: str
    batch_id: str
    attempt: int
    delay: float
    error: str


@dataclass(frozen=True, slots=True)
class Answered(Event):
    """A Run was committed."""

    thread: str
    batch_id: str
    messages: int
    attempt: int
    seconds: float
    silent: bool


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """A Run was cancelled, at the provider too, and its batch is gone."""

    thread: str
    batch_id: str
    messages: int
    kept: bool


@dataclass(frozen=True, slots=True)
class Delivered(Event):
    """A reply was handed over."""

    thread: str
    reply_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class DeliveryFailed(Event):
    """A reply could not be handed over and will be tried again."""

    thread: str
    reply_id: str
    attempt: int
    delay: float
    error: str


@dataclass(frozen=True, slots=True)
class Dead(Event):
    """A batch or a reply failed for good; ``stored`` is False if the dead letters are full (it keeps retrying)."""

    thread: str
    batch_id: str
    kind: str
    reason: str
    stored: bool = True


@dataclass(frozen=True, slots=True)
class Lost(Event):
    """A lease ended under a running worker."""

    thread: str
    batch_id: str


@dataclass(frozen=True, slots=True)
class Repaired(Event):
    """A thread's keys disagreed and were put in order; ``what`` names the kinds of keys."""

    thread: str
    what: str


@dataclass(frozen=True, slots=True)
class StoreAway(Event):
    """The server does not answer."""

    error: str


@dataclass(frozen=True, slots=True)
class StoreBack(Event):
    """The server answers again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something deserves an operator's attention."""

    code: str
    message: str


Emit = Callable[[Event], None]


def emitter(listeners: Iterable[Callable[[Event], object]]) -> Emit:
    """One function that calls every listener and survives each of them."""
    targets = tuple(listeners)

    def emit(event: Event) -> None:
        for target in targets:
            try:
                target(event)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - observing must not change what is observed
                logging.getLogger("streambatch").warning(
                    "listener %r failed on %s: %s", target, type(event).__name__, type(error).__name__
                )

    return emit


def place_of(error: BaseException) -> str:
    """An error by type and place, for events and logs; its text may hold content and stays out.

    The place is where it was raised and, if that is in a library, the last line of other code on the way there.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    own = [frame for frame in frames if not any(part in frame.filename for part in _LIBRARIES)]
    places = [frames[-1], *(own[-1:] if own and own[-1] is not frames[-1] else ())]
    return f"{type(error).__name__} at " + ", from ".join(f"{Path(f.filename).name}:{f.lineno}" for f in places)


_LIBRARIES = ("site-packages", str(Path(logging.__file__).parents[1]), str(Path(__file__).parent), "<frozen")
