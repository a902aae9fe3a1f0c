"""streambatch: a burst of messages becomes one Run, durably, one Run per thread at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._events import (
    Answered,
    Cancelled,
    Dead,
    Delivered,
    DeliveryFailed,
    Event,
    Lost,
    Parked,
    Preview,
    Queued,
    Repaired,
    Restarted,
    Retrying,
    Started,
    StoreAway,
    StoreBack,
    Streamed,
    Unparked,
    Warned,
)
from ._messages import Answer, Batch, Cancellation, Message, Part, Reply
from ._ports import Codec, Limits, Listener, Quota, Run, Runner, Tracer
from ._settings import Replicas, Settings
from .errors import (
    DeadLetter,
    DeadLettered,
    DurabilityUnknown,
    LeaseLost,
    NotAccepted,
    OutcomeUnknown,
    Park,
    QueueClosed,
    QueueFull,
    ReplyExpired,
    Retracted,
    Retry,
    RunCancelled,
    ServerAway,
    StoreError,
    StreambatchError,
    ThreadBusy,
    TooLarge,
    UsageError,
)

if TYPE_CHECKING:
    from .queue import BatchQueue, Receipt

    __version__: str

__all__ = [
    "Answer",
    "Answered",
    "Batch",
    "BatchQueue",
    "Cancellation",
    "Cancelled",
    "Codec",
    "Dead",
    "DeadLetter",
    "DeadLettered",
    "Delivered",
    "DeliveryFailed",
    "DurabilityUnknown",
    "Event",
    "LeaseLost",
    "Limits",
    "Listener",
    "Lost",
    "Message",
    "NotAccepted",
    "OutcomeUnknown",
    "Park",
    "Parked",
    "Part",
    "Preview",
    "QueueClosed",
    "QueueFull",
    "Queued",
    "Quota",
    "Receipt",
    "Repaired",
    "Replicas",
    "Reply",
    "ReplyExpired",
    "Restarted",
    "Retracted",
    "Retry",
    "Retrying",
    "Run",
    "RunCancelled",
    "Runner",
    "ServerAway",
    "Settings",
    "Started",
    "StoreAway",
    "StoreBack",
    "StoreError",
    "StreambatchError",
    "Streamed",
    "ThreadBusy",
    "TooLarge",
    "Tracer",
    "Unparked",
    "UsageError",
    "Warned",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("streambatch-queue")
    if name in ("BatchQueue", "Receipt"):
        from . import queue

        return getattr(queue, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
