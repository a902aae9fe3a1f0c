"""Settings: every number of the queue, with its default, validated once.

This table is the one place of defaults. A Settings object is frozen: what was checked at start stays true. Times are
seconds (float) or timedelta and are kept as float seconds; sizes are bytes. It never reads the environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from .errors import UsageError

Seconds = float | timedelta


@dataclass(frozen=True, slots=True)
class Replicas:
    """Durability class D3: *count* replicas have confirmed the write (WAIT).

    Args:
        count: how many replicas, at least 1.
        timeout: seconds to wait for them; then DurabilityUnknown. Defaults to 1 s.

    Example:
        >>> queue = BatchQueue("redis://localhost", durability=Replicas(1, timeout=0.5))  # or in one `submit`
    """

    count: int
    timeout: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.timeout < 60:
            raise UsageError("Replicas(count, timeout): count >= 1 and 0 < timeout < 60 seconds")


Durability = Literal["server", "disk"] | Replicas


class Options(TypedDict, total=False):
    """What may be given for each field of `Settings`, by name; what is kept is always float seconds.

    An editor completes from it, also in ``BatchQueue(…)``. A test compares it with the fields.
    """

    debounce: Seconds | Callable[[str], float]
    max_wait: Seconds
    max_batch: int
    max_batch_bytes: int
    max_message_bytes: int
    max_answer_bytes: int
    max_pending: int
    max_pending_bytes: int
    lease: Seconds
    concurrency: int
    run_timeout: Seconds
    deliver_timeout: Seconds
    overlap: str
    max_attempts: int
    max_delivery_attempts: int
    backoff: Seconds
    backoff_max: Seconds
    dedup_window: Seconds
    reply_retention: Seconds
    state_ttl: Seconds
    durability: Durability
    submit_timeout: Seconds
    intake_limit: int
    partitions: int
    drain_timeout: Seconds
    split_authors: bool
    max_age: Seconds | None
    dead_limit: int
    previews: float
    hear_previews: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a queue behaves; every process of a namespace should use the same.

    Attributes:
        debounce: quiet seconds after the last message before the batch is due; a function of the thread id gives
            threads their own. Defaults to 2 s.
        max_wait: seconds after the first message at which the batch is due whatever arrives. Defaults to 15 s.
        max_batch: messages at which a batch is due at once, and the most in one Run. Defaults to 50, at most 400.
        max_batch_bytes: the same in bytes of stored messages. Defaults to 256 KiB.
        max_message_bytes: larger messages are refused (TooLarge). Defaults to 64 KiB.
        max_answer_bytes: the same for what a runner makes: an answer, its state, a turn, a checkpoint. Defaults to
            1 MiB.
        max_pending: messages of one thread that may wait; then QueueFull. Defaults to 1,000.
        max_pending_bytes: the same in bytes. Defaults to 4 MiB.
        lease: seconds a worker holds a thread without renewing; renewed every third. Defaults to 30 s.
        concurrency: Runs at once in this process. Defaults to 100.
        run_timeout: seconds after which a Run is cancelled and retried. Defaults to 10 min.
        deliver_timeout: seconds after which a deliver call is cancelled and retried. Defaults to 60 s.
        overlap: what a message does that arrives during a Run. Defaults to "collect": it waits for the next batch.
        max_attempts: started Runs of one batch before it becomes a dead letter. Defaults to 5.
        max_delivery_attempts: tries of one reply before it becomes a dead letter. Defaults to 10.
        backoff: seconds before the second attempt, doubled for each further one, with jitter. Defaults to 1 s.
        backoff_max: the longest back-off. Defaults to 60 s.
        dedup_window: seconds during which the same message_id is stored once. Defaults to 1 h.
        reply_retention: seconds a reply can be awaited after it was made. Defaults to 1 h.
        state_ttl: seconds after its last Run at which a thread's state and history are forgotten. Defaults to 90 days.
        durability: "server", "disk" or Replicas(n). Defaults to "server".
        submit_timeout: seconds a submit waits for the server. Defaults to 10 s.
        intake_limit: messages of this process that may wait to be stored; then QueueFull. Defaults to 10,000.
        partitions: hash slots a namespace is spread over; the same in every process. Defaults to 1.
        drain_timeout: seconds running Runs get to finish when the queue closes. Defaults to 30 s.
        split_authors: never put messages of two authors into one batch. Defaults to False.
        max_age: messages whose sent_at is older (seconds) are dropped at submit; None keeps all. Defaults to None.
        dead_limit: dead letters per partition; when reached nothing is buried and nothing dropped: failing threads
            keep retrying. Defaults to 10,000.
        previews: events a second, at most, by which a Run shows what it emits to other processes (``Receipt.events()``
            and ``hear_previews``); text is joined. With 0 it stays in the process. Defaults to 20.
        hear_previews: the listeners of this process get the Preview and Restarted events of Runs in other processes,
            too. Defaults to False.

    Example:
        >>> shared = Settings(debounce=3, run_timeout=timedelta(minutes=2))
        >>> BatchQueue("redis://localhost", settings=shared, concurrency=20).settings.run_timeout
        120.0
    """

    debounce: float | Callable[[str], float] = 2.0
    max_wait: float = 15.0
    max_batch: int = 50
    max_batch_bytes: int = 256 * 1024
    max_message_bytes: int = 64 * 1024
    max_answer_bytes: int = 1024 * 1024
    max_pending: int = 1_000
    max_pending_bytes: int = 4 * 1024 * 1024
    lease: float = 30.0
    concurrency: int = 100
    run_timeout: float = 600.0
    deliver_timeout: float = 60.0
    overlap: str = "collect"
    max_attempts: int = 5
    max_delivery_attempts: int = 10
    backoff: float = 1.0
    backoff_max: float = 60.0
    dedup_window: float = 3_600.0
    reply_retention: float = 3_600.0
    state_ttl: float = 90 * 86_400.0
    durability: Durability = "server"
    submit_timeout: float = 10.0
    intake_limit: int = 10_000
    partitions: int = 1
    drain_timeout: float = 30.0
    split_authors: bool = False
    max_age: float | None = None
    dead_limit: int = 10_000
    previews: float = 20.0
    hear_previews: bool = False

    if TYPE_CHECKING:

        def __init__(self, **given: Unpack[Options]) -> None: ...

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, timedelta):
                object.__setattr__(self, item.name, value.total_seconds())
        for name, (low, high) in _RANGES.items():
            _in_range(name, getattr(self, name), low, high)
        if not callable(self.debounce):
            _in_range("debounce", self.debounce, 0, 86_400)
        if self.max_age is not None:
            _in_range("max_age", self.max_age, 0, math.inf)
        if not isinstance(self.hear_previews, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"hear_previews is True or False, not {type(self.hear_previews).__name__}")
        if self.overlap not in _OVERLAPS:
            raise UsageError(f"overlap={self.overlap!r} is none of {', '.join(_OVERLAPS)}")
        if self.overlap != "collect":
            raise UsageError(f"overlap={self.overlap!r} is not available in this version; only 'collect' is")
        if self.durability not in ("server", "disk") and not isinstance(self.durability, Replicas):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"durability={self.durability!r} is not 'server', 'disk' or Replicas(n)")
        if self.max_message_bytes > min(self.max_batch_bytes, self.max_pending_bytes):
            raise UsageError("max_message_bytes must not exceed max_batch_bytes or max_pending_bytes")

    def debounce_of(self, thread: str) -> float:
        """The quiet window of *thread*, seconds."""
        return seconds("debounce", self.debounce(thread)) if callable(self.debounce) else self.debounce

    @property
    def patience(self) -> float:
        """How long one exchange with the server may take before it counts as away."""
        return max(0.5, min(5.0, self.lease / 2, self.submit_timeout))

    @property
    def horizon(self) -> float:
        """The longest honest distance, in seconds, of a moment in the due index from now (I5)."""
        return max(self.max_wait, self.lease, 60.0)


_OVERLAPS = ("collect", "interrupt", "rollback", "steer", "reject", "drop")
_RANGES: dict[str, tuple[float, float]] = {
    "max_wait": (0, 86_400),
    "max_batch": (1, 400),  # a batch must fit into one dead letter, and Lua unpacks 8,000 values at most
    "max_batch_bytes": (1, 16 * 1024 * 1024),
    "max_message_bytes": (1, 16 * 1024 * 1024),
    "max_answer_bytes": (1, 64 * 1024 * 1024),
    "max_pending": (1, 1_000_000),
    "max_pending_bytes": (1, 1024**3),
    "lease": (0.3, 3_600),
    "concurrency": (1, 100_000),
    "run_timeout": (0.001, 7 * 86_400),
    "deliver_timeout": (0.001, 86_400),
    "max_attempts": (1, 1_000),
    "max_delivery_attempts": (1, 100_000),
    "backoff": (0, 3_600),
    "backoff_max": (0, 86_400),
    "dedup_window": (0, 30 * 86_400),
    "reply_retention": (1, 30 * 86_400),
    "state_ttl": (60, 3_650 * 86_400),
    "submit_timeout": (0.01, 3_600),
    "intake_limit": (1, 10_000_000),
    "partitions": (1, 1_024),
    "drain_timeout": (0, 86_400),
    "dead_limit": (1, 1_000_000),
    "previews": (0, 100),
}
_WHOLE = frozenset(
    [
        "max_batch",
        "max_batch_bytes",
        "max_message_bytes",
        "max_answer_bytes",
        "max_pending",
        "max_pending_bytes",
        "concurrency",
        "max_attempts",
        "max_delivery_attempts",
        "intake_limit",
        "partitions",
        "dead_limit",
    ]
)


def _in_range(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is a number, not {type(value).__name__}")
    if name in _WHOLE and not isinstance(value, int):
        raise UsageError(f"{name}={value!r} must be a whole number")
    if not low <= value <= high:
        raise UsageError(f"{name}={value!r} is out of range: {low:g} to {high:g} are possible")
    return value


def seconds(name: str, value: object, low: float = 0, high: float = 86_400) -> float:
    """Seconds of a per-call time given as float or timedelta, checked."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return float(_in_range(name, value, low, high))


def ms(value: float) -> int:
    """Seconds as whole milliseconds, the unit of the scripts."""
    return round(value * 1000)
