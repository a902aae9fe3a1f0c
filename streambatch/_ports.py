"""The four sockets of the queue: Runner, Deliver, Codec, Listener; and Run, the effects a runner gets.

Protocols, no base classes: whatever has the shape fits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

from ._events import Event
from ._messages import Answer, Batch, Message, Reply

Answered = Answer | str | None
Deliver = Callable[[Reply], Awaitable[Any]]
Listener = Callable[[Event], Any]


class Run(Protocol):
    """A runner's effects: everything it may do besides returning an Answer.

    Attributes:
        batch: the batch as it is now; ``more()`` may have grown it.
        data: what the last ``checkpoint`` of this batch held when its Run crashed, or None.
        fence: a number that only grows per thread: give it to outside systems so that they can refuse an old worker.
    """

    @property
    def batch(self) -> Batch: ...
    @property
    def data(self) -> bytes | None: ...
    @property
    def fence(self) -> int: ...
    async def checkpoint(self, data: bytes) -> None:
        """Store *data* (opaque bytes) for whoever replays this batch; raises LeaseLost if somebody else has it."""
        ...

    async def more(self) -> tuple[Message, ...]:
        """Messages that arrived meanwhile; taking them adds them to this batch. Raises LeaseLost."""
        ...

    def emit(self, data: object) -> None:
        """Show a preview (streamed text) to the listeners; it is void if the Run is restarted."""
        ...


class Runner(Protocol):
    """An object that runs a batch and may keep something per thread.

    Attributes:
        kind: pinned in the thread's head at its first Run, so that other settings never silently lose a live history.

    It may also have ``history = True`` (it returns ``Answer.turns`` and wants ``Batch.history`` filled in) and an
    ``async def aclose(self)``, which is awaited when the queue is left.
    """

    @property
    def kind(self) -> str: ...
    async def run(self, batch: Batch, run: Run) -> Answered:
        """Answer the batch. Raises Retry, DeadLetter, or anything else for a retry with back-off."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Turns stored bytes into other bytes and back, for example encryption.

    *context* is what the bytes belong to (thread, kind, id) and must be authenticated, not stored.
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
