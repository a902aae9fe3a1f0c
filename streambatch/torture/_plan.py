"""What is asked for, and what came of it: the options of a torture, and its report."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from streambatch.errors import UsageError

from ._faults import ALL
from ._verdict import Wrong, percentile


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The options.

    Attributes:
        seconds: how long faults go on; the drain comes after it.
        seed: of all that is drawn: who is killed when, which fault hits whom, what is said.
        workers: processes that run and deliver.
        submitters: processes that submit.
        threads: conversations.
        lease: of the queue, seconds.
        pace: seconds between the bursts of a thread, on average.
        kill_every: seconds between two kills of a worker, on average.
        harm_every: between two faults of connections.
        disturb_every: between two of freeze, block, restart and kill-submitter.
        server_every: between two kills of the server, where it may be killed.
        hasty: the faults end as soon as a promise is broken.
        calm: nothing but kills, each when the one before is recovered from: to measure that.
    """

    seconds: float
    seed: int = 0
    workers: int = 4
    submitters: int = 2
    threads: int = 30
    lease: float = 2.0
    pace: float = 0.5
    kill_every: float = 0.5
    harm_every: float = 0.15
    disturb_every: float = 1.5
    server_every: float = 2.0
    hasty: bool = False
    calm: bool = False

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.workers >= 1 and self.submitters >= 1 and self.threads >= self.submitters):
            raise UsageError("torture needs some time, a worker, a submitter, and a thread for each submitter")

    @property
    def settings(self) -> dict[str, Any]:
        """Of the queue: short times, and no limit that a long row of kills would reach."""
        return {
            "debounce": 0.05, "max_wait": 0.5, "backoff": 0.05, "backoff_max": 0.5, "drain_timeout": 2.0,
            "max_attempts": 1_000, "max_delivery_attempts": 100_000, "dead_limit": 1_000_000, "state_ttl": 3_600.0,
        }  # fmt: skip


@dataclass
class Report:
    """What came of it.

    Attributes:
        plan: the options.
        server: what it said it is.
        namespace: the one that was used.
        faults: how often each kind was done.
        kills: of workers and submitters, by whatever kind.
        server_kills: of the server.
        messages: stored.
        runs: begun.
        batches: committed.
        delivered: hand-overs, repeated ones included.
        recoveries: seconds from a kill in a Run to the next Run of the thread.
        drain: seconds from the end of the faults until nothing was left to do.
        promises: the verdict, one by one.
        wrong: what was broken.
        histories: of threads in which something was broken, the notes of each.
    """

    plan: Plan
    server: str = ""
    namespace: str = ""
    faults: Counter[str] = field(default_factory=Counter[str])
    kills: int = 0
    server_kills: int = 0
    messages: int = 0
    runs: int = 0
    batches: int = 0
    delivered: int = 0
    recoveries: list[float] = field(default_factory=list[float])
    drain: float = 0.0
    promises: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    wrong: list[Wrong] = field(default_factory=list[Wrong])
    histories: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not any(one["broken"] for one in self.promises)

    @property
    def recovery(self) -> dict[str, float | int | None]:
        """How long it took, in figures."""
        found = self.recoveries
        return {
            "times": len(found),
            "p50": percentile(found, 0.5),
            "p99": percentile(found, 0.99),
            "max": max(found, default=None),
        }

    def json(self) -> dict[str, Any]:
        """For a file."""
        whole = asdict(self)
        del whole["recoveries"]
        faults = {kind: self.faults[kind] for kind in ALL if self.faults[kind]}
        return {"ok": self.ok, **whole, "faults": faults, "kinds": len(faults), "recovery": self.recovery}
