"""What can happen to a message, a batch, a reply or the connection, as data; and emit().

Events are the contract between the queue and whoever observes it: logs, metrics and traces are listeners. They carry
ids, counts and times, never content. A listener is called on the event loop and must not block; what it raises is
swallowed after one note on the ``streambatch`` logger of the standard library, because observing must never change
what is observed.

=============== ==============================================================================================
event           when
=============== ==============================================================================================
Queued          a message was stored (once per submit; ``outcome`` says if it was a duplicate, or older than
                ``max_age`` and dropped)
Started         a Run begins; ``waited`` is seconds from the oldest message's arrival, ``late`` from when it was due
Restarted       a Run begins again after a crash or a retry (``attempt`` > 1): previews seen before are void
Preview         a runner emitted something (streamed text); it comes before the commit and may be repeated.
                With ``hear_previews`` also of Runs in other processes, joined; so are their Restarted
Retrying        a Run failed and will be tried again in ``delay`` seconds; ``cause`` is the class of what it raised
Answered        a Run was committed: acknowledged, state and reply stored, in one step; tokens as the usage says
Delivered       the deliver callback returned
Cancelled       a Run was cancelled (``kept``: what it had said is delivered); its batch is gone
DeliveryFailed  the deliver callback failed and will be called again in ``delay`` seconds
Dead            a batch or a reply failed for good and is among the dead letters
Released        a Run or a delivery that had begun ended here without an outcome: the process closes, or the server
                failed (``cause``). It is tried again, if it was not done already
Parked          no Run of a scope starts for ``seconds``: raised once, by the process that met the 429 (docs/limits.md)
Unparked        a Run of that scope was answered; they all go on, after ``seconds``
Lost            a lease ended under a running worker; another process has the thread
Repaired        a thread's keys disagreed (deleted or foreign data) and were put in order
StoreAway       the server does not answer; everything waits
StoreBack       it answers again, after ``seconds``
Warned          something deserves an operator's attention: the server's set-up at start, or a bug of ours
=============== ==============================================================================================

Every Started is followed by exactly one end of that Run: Answered, Cancelled, Retrying, Dead, Lost or Released; unless
its process is killed, or its code swallows its cancellation and never returns. An end without a Started is that of a
batch whose Run did not begin here: too many were begun and none ended, it cannot be read, or it was cancelled before.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import UsageError


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events.

    Example:
        >>> def listener(event):
        ...     match event:
        ...         case Dead(reason=reason):
        ...             print("no answer, and no further try:", reason)
        ...         case Started(late=late) if late > 5:
        ...             print("one worker more would help")
        >>> queue = BatchQueue("memory://", listeners=[listener])
    """


@dataclass(frozen=True, slots=True)
class Queued(Event):
    """A message was stored, found to be stored already, or dropped: ``outcome`` as of a `Receipt`.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Queued) and event.outcome == "duplicate":
        ...         print("the platform sent it again:", event.message_id)
    """

    thread: str
    message_id: str
    entry: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A Run begins.

    ``late`` is how many seconds after its moment: the end of the quiet window, the time of a retry, the end of a dead
    worker's lease. A batch that follows the thread's last one without a pause was due when that ended; one whose scope
    had no room (docs/limits.md), when its first message came.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Started) and event.late > 5:
        ...         print(f"{event.thread} waited {event.late:.0f} s too long")
    """

    thread: str
    batch_id: str
    messages: int
    attempt: int
    waited: float
    late: float = 0.0


@dataclass(frozen=True, slots=True)
class Restarted(Event):
    """A Run of the same batch begins again; what was previewed is void."""

    thread: str
    batch_id: str
    messages: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Preview(Event):
    """Something a runner emitted before its Run was committed; ``data`` is content, listeners must not log it.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Preview | Restarted):  # the other voids what was shown
        ...         print(event.data if isinstance(event, Preview) else "Once more: ", end="")
    """

    thread: str
    batch_id: str
    data: Any

    def __repr__(self) -> str:
        return f"Preview(thread={self.thread!r}, batch_id={self.batch_id!r})"


@dataclass(frozen=True, slots=True)
class Streamed:
    """What ``Receipt.events()`` yields; no event for listeners.

    Attributes:
        id: opaque; give it to ``events(after=...)`` to get what came after it, in any process.
        kind: ``"started"``: a Run began; ``"restarted"``: it began again, and everything before is void; ``"text"``: a
            piece of the answer; ``"data"``: other data that the runner emitted; ``"end"``: ``reply()`` answers at once.
        batch_id: the batch, as it was then; at the end that of the reply, or "".
        attempt: of the Run, from 1; 0 at the end.
        data: a str for ``"text"``, JSON data for ``"data"``, else None. It is content; don't log it.

    Example:
        >>> receipt = await queue.submit("anna", "hi")
        >>> [event.kind async for event in receipt.events()]
        ['started', 'text', 'end']
    """

    id: str
    kind: Literal["started", "restarted", "text", "data", "end"]
    batch_id: str
    attempt: int
    data: Any = None

    def __repr__(self) -> str:
        return f"Streamed(kind={self.kind!r}, batch_id={self.batch_id!r}, attempt={self.attempt})"


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """A Run failed and will be tried again; ``cause`` is the class of the error, by name.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Retrying | DeliveryFailed):
        ...         print(f"{event.cause} at attempt {event.attempt}, the next one in {event.delay:.0f} s")
    """

    thread: str
    batch_id: str
    attempt: int
    delay: float
    error: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Answered(Event):
    """A Run was committed; tokens are 0 if its usage names none.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Answered | Cancelled):
        ...         print(event.thread, "has its answer" if isinstance(event, Answered) else "was stopped")
    """

    thread: str
    batch_id: str
    messages: int
    attempt: int
    seconds: float
    silent: bool
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """A Run was cancelled, at the provider too, and its batch is gone."""

    thread: str
    batch_id: str
    messages: int
    kept: bool


@dataclass(frozen=True, slots=True)
class Delivered(Event):
    """A reply was handed over.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Delivered) and event.attempt > 1:
        ...         print("the chat takes messages again:", event.thread)
    """

    thread: str
    reply_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class DeliveryFailed(Event):
    """A reply could not be handed over and will be tried again; ``cause`` is the class of the error, by name."""

    thread: str
    reply_id: str
    attempt: int
    delay: float
    error: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Dead(Event):
    """A batch or a reply failed for good; ``stored`` is False if the dead letters are full (it keeps retrying).

    ``cause`` is the class of the last error, by name; "" if there was none: nobody saw the end of the last attempt.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Dead):  # `queue.dead_letters` has it, `queue.redrive` puts it back
        ...         print(f"no answer for {event.thread}: {event.reason}")
    """

    thread: str
    batch_id: str
    kind: str
    reason: str
    stored: bool = True
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Released(Event):
    """A Run (``kind`` ``"batch"``) or a delivery (``"reply"``) ended in this process, and how is not known here.

    ``cause`` is the class of what ended it, by name: mostly an error of the server, whose answer to the commit may be
    all that was lost; "" if this process was closed. Whoever takes the thread next, here or elsewhere, goes on.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Released | Lost):
        ...         print("this process has let go of", event.thread)
    """

    thread: str
    batch_id: str
    kind: str
    attempt: int
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Parked(Event):
    """No Run of a scope starts for ``seconds``, in any process; then one a second, until one is answered.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Parked | Unparked):
        ...         print(event.scope, "waits" if isinstance(event, Parked) else "goes on")
    """

    scope: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Unparked(Event):
    """A Run of a parked scope was answered, ``seconds`` after it was parked."""

    scope: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Lost(Event):
    """A lease ended under a running worker; ``batch_id`` is that of the Run under way, "" if none was."""

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
    """The server answers again.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, StoreAway | StoreBack):
        ...         print("the server is", "back" if isinstance(event, StoreBack) else "away")
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something deserves an operator's attention.

    Example:
        >>> def listener(event):
        ...     if isinstance(event, Warned | Repaired):
        ...         print("look at", event.message if isinstance(event, Warned) else event.thread)
    """

    code: str
    message: str


Emit = Callable[[Event], None]


def emitter(listeners: Iterable[Callable[[Event], object]]) -> Emit:
    """One function that calls every listener and survives each of them. Raises UsageError."""
    targets = tuple(listeners)
    for target in targets:
        call = getattr(target, "__call__", None)  # noqa: B004 - an object may have an async one
        if call is None or inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(call):
            raise UsageError(
                "a listener is a plain function (event) that returns at once; an async one would never run:"
                " let it start a task"
            )

    def emit(event: Event) -> None:
        for target in targets:
            try:
                target(event)
            except BaseException as error:  # noqa: BLE001 - observing must not change what is observed
                failed(target, type(event).__name__, error)

    return emit


def failed(listener: object, where: str, error: BaseException) -> None:
    """Note that a listener failed, by its name (a repr may show what it holds); raises only what ends the program."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        raise error
    name = getattr(listener, "__qualname__", type(listener).__qualname__)
    logging.getLogger("streambatch").warning("listener %s failed on %s: %s", name, where, type(error).__name__)


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
