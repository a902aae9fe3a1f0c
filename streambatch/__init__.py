"""streambatch: a burst of messages becomes one Run, durably, one Run per thread at a time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        Released,
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
    "Released",
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


#: Where the public names live, the cheap rooms first: `import streambatch` alone loads none of them.
_ROOMS = ("errors", "_messages", "_settings", "_events", "_ports", "queue")


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("streambatch-queue")
    if name in __all__:
        for room in _ROOMS:
            found = getattr(import_module(f"{__name__}.{room}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *globals()]
