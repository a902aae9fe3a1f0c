"""The four sockets of the queue: Runner, Deliver, Codec, Listener; and Run, the effects a runner gets.
A listener may be a Tracer, too.

Protocols, no base classes: whatever has the shape fits. A listener is called with every event; one that also has an
``async def aclose(self)`` is closed when the last open queue that has it is left. One with ``alone = True`` hears one
namespace: the start of a queue of another one is a UsageError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ._events import Event
from ._messages import Answer, Batch, Message, Reply

Answered = Answer | str | None
Deliver = Callable[[Reply], Awaitable[Any]]
Listener = Callable[[Event], Any]
Carrier = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the Runs of one scope may use together, over all processes of a namespace.

    Attributes:
        scope: what is shared, for example an account and a model; 1 to 64 of ``A-Z a-z 0-9 _ . : / -``. A shipped
            runner makes one from its key, address and model if this is "".
        concurrent: Runs at once; None sets no limit.
        runs_per_minute: Runs that start in any 60 s; None sets no limit.
        tokens_per_minute: tokens, in and out, in any 60 s, as the providers' usage says; None sets no limit.

    Example:
        >>> async def answer(batch): ...
        >>> answer.limits = Limits(scope="acme/large", concurrent=8, runs_per_minute=500)
        >>> BatchQueue("memory://", runner=answer).limits.concurrent
        8
    """

    scope: str = ""
    concurrent: int | None = None
    runs_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a provider says is left, as in its ``x-ratelimit-*`` headers; None is what it did not say.

    Attributes:
        requests: requests left.
        requests_reset: seconds until they are renewed.
        tokens: tokens left.
        tokens_reset: seconds until they are renewed.
        requests_limit: requests per minute that the provider allows.
        tokens_limit: tokens per minute that the provider allows.

    Example:
        >>> async def answer(batch, run):
        ...     response = await ask_the_model(batch.text)
        ...     run.quota(Quota(requests=int(response.headers["x-ratelimit-remaining-requests"])))
        ...     return response.text
    """

    requests: int | None = None
    requests_reset: float | None = None
    tokens: int | None = None
    tokens_reset: float | None = None
    requests_limit: int | None = None
    tokens_limit: int | None = None


class Run(Protocol):
    """A runner's effects: everything it may do besides returning an Answer.

    Attributes:
        batch: the batch as it is now; ``more()`` may have grown it.
        data: what the last ``checkpoint`` of this batch held, also before a crash or a retry, or None.
        fence: a number that only grows per thread: give it to outside systems so that they can refuse an old worker.
        stop: in a runner's ``cancel``, whether what was said is to be ``"keep"`` or ``"drop"``; else "".

    Example:
        >>> async def answer(batch, run):
        ...     said = ""
        ...     async for piece in ask_the_model(batch.text, idempotency_key=batch.id):
        ...         run.emit(piece)
        ...         said += piece
        ...     return said
    """

    @property
    def batch(self) -> Batch: ...
    @property
    def data(self) -> bytes | None: ...
    @property
    def fence(self) -> int: ...
    @property
    def stop(self) -> str: ...
    async def checkpoint(self, data: bytes) -> None:
        """Store *data* (opaque bytes) for whoever replays this batch; raises LeaseLost if somebody else has it."""
        ...

    async def more(self) -> tuple[Message, ...]:
        """Messages that arrived meanwhile; taking them adds them to this batch. Raises LeaseLost."""
        ...

    def emit(self, data: object) -> None:
        """Show a preview (streamed text, or JSON data) to whoever follows; it is void if the Run is restarted.

        Call it on the event loop. Listeners of this process get it at once; ``Receipt.events()``, and the listeners of
        processes with ``hear_previews``, at most ``previews`` times a second, with text joined.
        """
        ...

    def quota(self, left: Quota) -> None:
        """Tell the scope's limits what the provider says is left."""
        ...


class Runner(Protocol):
    """An object that runs a batch and may keep something per thread.

    Attributes:
        kind: pinned in the thread's head at its first Run, so that other settings never silently lose a live history.

    It may also have

    - ``history = True``: it returns ``Answer.turns`` and wants ``Batch.history`` filled in;
    - ``kinds``: all kinds of threads that it can go on with (`Batch.kind`); by default only its own;
    - ``limits``: `Limits` that its Runs share with those of other processes;
    - ``async def cancel(self, batch, run) -> Answer | str | None``: called when a Run was cancelled, after its ``run``
      was ended, possibly in another process and more than once (`Run.data` is the last checkpoint): ends what the
      provider still does, and returns what had been said, which is used if whoever cancelled wants to keep it
      (`Run.stop`). An answer that says nothing may have a state; that is kept in either case;
    - ``async def aclose(self)``: awaited when the last open queue of this process that has it is left.

    Example:
        >>> class Parrot:
        ...     kind = "parrot"
        ...     async def run(self, batch, run):
        ...         return batch.text
        >>> queue = BatchQueue("memory://", runner=Parrot())
    """

    @property
    def kind(self) -> str: ...
    async def run(self, batch: Batch, run: Run) -> Answered:
        """Answer the batch. Raises Retry, DeadLetter, or anything else for a retry with back-off."""
        ...


#: What ``runner=`` takes: an object, or an async function of a batch, or of a batch and its Run.
Answering = Runner | Callable[[Batch], Awaitable[Answered]] | Callable[[Batch, Run], Awaitable[Answered]]


class Tracer(Protocol):
    """What a listener may be besides: it opens something around the work, in the task that does it.

    Each gives a context manager. It is entered before the work begins; the events of the work are emitted inside of it,
    and what the work raises passes through it (it cannot swallow it). One of the listeners of a queue may be a tracer.

    Example:
        >>> from contextlib import contextmanager, nullcontext
        >>> class Log:
        ...     def __call__(self, event): ...
        ...     @contextmanager
        ...     def running(self, run):
        ...         print("begins", run.batch.id)
        ...         yield {}
        ...         print("ends", run.batch.id)
        ...     def submitting(self, thread): return nullcontext({})
        ...     def delivering(self, reply, attempt): return nullcontext()
        >>> queue = BatchQueue("memory://", listeners=[Log()])
    """

    def submitting(self, thread: str) -> AbstractContextManager[Carrier]:
        """Around a submit. The strings that it gives, at best none or two short ones, are stored with the message:
        ``Message.extra["tc"]``.
        """
        ...

    def running(self, run: Run) -> AbstractContextManager[Carrier]:
        """Around a Run, to its commit or its end without one. What it gives is stored with the reply:
        ``Reply.extra["tc"]``. ``run.batch`` may have grown when it is left.
        """
        ...

    def delivering(self, reply: Reply, attempt: int) -> AbstractContextManager[object]:
        """Around a hand-over of a reply, for the *attempt*-th time, to the note of it."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Turns stored bytes into other bytes and back, for example encryption.

    *context* is what the bytes belong to (thread, kind, id) and must be authenticated, not stored.

    Example:
        >>> class Mirror:  # encrypt with a library instead, and authenticate the context
        ...     def encode(self, data, context): return data[::-1]
        ...     def decode(self, data, context): return data[::-1]
        >>> queue = BatchQueue("memory://", codec=Mirror())
    """

    def encode(self, data: bytes, context: bytes) -> bytes: ...
    def decode(self, data: bytes, context: bytes) -> bytes: ...


class Plain:
    """The codec that changes nothing."""

    def encode(self, data: bytes, context: bytes) -> bytes:  # noqa: ARG002 - the protocol's shape
        """Return *data*."""
        return data

    def decode(self, data: bytes, context: bytes) -> bytes:  # noqa: ARG002 - the protocol's shape
        """Return *data*."""
        return data
