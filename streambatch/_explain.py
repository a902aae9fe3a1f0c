"""What operators read: counts, a page of threads, dead letters, and one sentence on why nothing is happening.

Pure: fields in, values out. The reasons are the rows of the state table of docs/life-of-a-message.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ._messages import Message, Reply

WAITING = "scope "  # how a reason begins that is about a scope's limits and not about the thread


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why is (nothing) happening in a thread.

    Attributes:
        thread: the conversation.
        state: idle, waiting, running, cancelling, retrying, delivering, undelivered, parked, unindexed or broken.
        reason: one sentence.
        waiting: messages in no batch yet.
        in_batch: messages of the pinned batch.
        attempt: started Runs of the pinned batch, or tries of the reply.
        owner: who holds the lease (a process id of ours), or "".
        wake: seconds until somebody must look at it (negative: overdue), or None.
    """

    thread: str
    state: str
    reason: str
    waiting: int
    in_batch: int
    attempt: int
    owner: str
    wake: float | None


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A thread in a page of an index: due, outbox or parked, and its moment (server time, seconds since 1970)."""

    thread: str
    state: str
    at: float


@dataclass(frozen=True, slots=True)
class ScopeInfo:
    """What is used of the limits of a scope (docs/limits.md).

    Attributes:
        scope: its name.
        state: open; full (for now no Run starts, by what the provider said); parked; or probing (one Run a second tries
            whether a park is over). The limits of a process' own `Limits` are not judged here.
        seconds: until a Run may start; 0 if it is open.
        reason: why it was parked, or "".
        running: Runs under way.
        runs: Runs that started in the last 60 s.
        tokens: what these took; an estimate for those under way and for those that failed.
    """

    scope: str
    state: str
    seconds: float
    reason: str
    running: int
    runs: int
    tokens: int


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """A batch or reply that failed for good.

    Attributes:
        id: for redrive and discard.
        kind: "batch" or "reply".
        thread: the conversation.
        batch_id: the batch.
        reason: why, in one sentence.
        attempts: how often it was tried.
        messages: of a batch; content is in them, not in their repr.
        reply: of kind "reply": what could not be delivered, or None if its bytes cannot be read.
    """

    id: str
    kind: str
    thread: str
    batch_id: str
    reason: str
    attempts: int
    messages: tuple[Message, ...]
    reply: Reply | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts kept by the scripts, over all partitions.

    Attributes:
        messages: stored and not yet acknowledged.
        due: threads that wait, run or retry.
        undelivered: threads with a reply on its way or waiting to be delivered.
        parked: paused threads with something to do.
        in_hand: threads with a pinned batch or an undelivered reply.
        dead: dead letters.
        received: messages ever stored.
        duplicates: submits ever recognised as duplicates.
        batches: batches ever committed.
        delivered: replies ever delivered.
        oldest_overdue: seconds since the most overdue thread should have been looked at; 0 if none is.
        paused: the whole namespace is paused.
        paused_threads: threads that are paused by name, with something to do (``parked``) or without.
    """

    messages: int = 0
    due: int = 0
    undelivered: int = 0
    parked: int = 0
    in_hand: int = 0
    dead: int = 0
    received: int = 0
    duplicates: int = 0
    batches: int = 0
    delivered: int = 0
    oldest_overdue: float = 0.0
    paused: bool = False
    paused_threads: int = 0

    @staticmethod
    def add(total: dict[str, float], fields: Mapping[str, str]) -> None:
        """Add a partition's fields to *total*."""
        now = float(fields["now"])
        heads = [float(fields[name]) for name in ("due_head", "outbox_head") if fields[name]]
        late = max([0.0, *(now - head for head in heads)]) / 1000
        total["late"] = max(total.get("late", 0.0), late)
        total["halted"] = max(total.get("halted", 0.0), float(fields["halted"]))
        for name, value in fields.items():
            if name not in ("now", "halted", "due_head", "outbox_head"):
                total[name] = total.get(name, 0.0) + float(value)

    @classmethod
    def of(cls, total: Mapping[str, float]) -> Stats:
        """From summed fields."""

        def whole(name: str) -> int:
            return max(0, int(total.get(name, 0)))

        return cls(
            messages=whole("messages"), due=whole("due"), undelivered=whole("outbox"), parked=whole("parked"),
            in_hand=whole("runs"), dead=whole("letters"), received=whole("received"), duplicates=whole("duplicates"),
            batches=whole("batches"), delivered=whole("delivered"), oldest_overdue=total.get("late", 0.0),
            paused=bool(total.get("halted", 0)), paused_threads=whole("paused"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Health:
    """Readiness of this process.

    Attributes:
        ready: the server answers and the polling loops are alive.
        reason: one sentence if not ready, else "".
        last_poll: seconds since the slowest loop's last successful poll; None if this process does not poll.
        running: turns in this process.
        free: free slots of ``concurrency``.
        intake: messages of this process that wait to be stored.
    """

    ready: bool
    reason: str
    last_poll: float | None
    running: int
    free: int
    intake: int


def explain(thread: str, f: Mapping[str, str]) -> Explanation:
    """The state of a thread and one sentence, from the fields of the look script."""
    now = float(f["now"])
    score = next((float(f[name]) for name in ("due", "outbox", "parked") if f[name]), None)
    if score is not None and "run.cancel" not in f and not _live(f, now):
        score = max(score, float(f.get("run.at", 0)))  # an index names a minute at most, and is looked at again then
    score = now if score == 0 else score  # there stands a cancelled batch that nobody holds (cancel.lua)
    in_batch = int(f.get("run.n", 0)) if "run.first" in f else 0
    reply = "run.tries" in f and "run.first" not in f
    state, reason = _reason(f, now, score, reply=reply)
    return Explanation(
        thread=thread, state=state, reason=reason, waiting=max(0, int(f["length"]) - in_batch), in_batch=in_batch,
        attempt=int(f.get("run.tries" if reply else "run.attempts", 0)), owner=f.get("lease.owner", "") if _live(f, now)
        else "", wake=None if score is None else (score - now) / 1000,
    )  # fmt: skip


def age_of(f: Mapping[str, str]) -> float | None:
    """Seconds since the oldest message came that a thread still has, from the fields of the look script.

    With a reply on its way: since the newest message came that it answers. None if nothing is stored.
    """
    came = [int(f["run.first"].partition("-")[0])] if "run.first" in f else []
    if "run.tries" in f and not came and "last.id" in f:
        came.append(int(f["last.id"].partition("-")[0]))
    if int(f.get("window.n", 0)) > 0 and int(f["length"]) > 0:
        came.append(int(f["window.f"]))
    return max(0.0, (float(f["now"]) - min(came)) / 1000) if came else None


def lease_of(f: Mapping[str, str]) -> float | None:
    """Seconds left of a thread's lease, from the fields of the look script; None if nobody holds one."""
    now = float(f["now"])
    return (float(f["lease.deadline"]) - now) / 1000 if _live(f, now) else None


def _live(f: Mapping[str, str], now: float) -> bool:
    deadline = float(f.get("lease.deadline", 0))
    return "lease.token" in f and now < deadline <= now + float(f.get("lease.ttl", 0))


def _reason(f: Mapping[str, str], now: float, score: float | None, *, reply: bool) -> tuple[str, str]:
    left = 0.0 if score is None else (score - now) / 1000
    if "foreign" in f:
        return (
            "broken",
            f"its {f['foreign'].rstrip('.')} key has a foreign type; the next worker that meets it repairs it",
        )
    if _live(f, now):
        owner = f.get("lease.owner", "?")
        if reply:
            return "delivering", f"process {owner} is delivering the reply; its lease ends in {left:.1f} s"
        if "run.cancel" in f:
            return "cancelling", f"process {owner} ends the Run at its provider; lease {left:.1f} s"
        return "running", f"process {owner} runs the batch (attempt {f.get('run.attempts', '0')}); lease {left:.1f} s"
    if f["parked"] and "run.cancel" not in f:
        return "parked", "the thread is paused; resume it to go on"
    if reply:
        when = f"is tried again in {left:.1f} s" if left > 0 else "waits: every worker is busy, or no process delivers"
        return (
            "undelivered",
            f"the reply was not delivered ({_count(f['run.tries'], 'try', 'tries')} so far); it {when}{_why(f)}",
        )
    if "run.first" in f:
        return _pinned(f, left)
    if int(f["length"]) == 0:
        held = f.get("paused") == "1"
        return "idle", f"no message waits{'; the thread is paused, what comes is kept until it is resumed' * held}"
    if score is None:
        return "unindexed", "messages wait but no index names the thread; any submit to it, or repair, heals this"
    if left > 0:
        return "waiting", f"the quiet window ends in {left:.1f} s"
    return "waiting", _overdue(f, "what waits", left)


def _pinned(f: Mapping[str, str], left: float) -> tuple[str, str]:
    if "run.cancel" in f:
        return "cancelling", "the Run is cancelled; the next worker that is free ends it at its provider"
    if f.get("run.why", "").startswith(WAITING):
        halted = f.get("halted") == "1"
        return "waiting", _overdue(f, "what waits", left) if halted else f"its turn came, and {f['run.why']}"
    if left > 0:
        times = _count(f.get("run.attempts", "?"), "time", "times")
        return "retrying", f"the Run failed {times}; it is tried again in {left:.1f} s{_why(f)}"
    return "retrying", _overdue(f, "the batch of a dead or failed Run", left)


def _count(number: str, one: str, many: str) -> str:
    return f"{number} {one if number == '1' else many}"


def _why(f: Mapping[str, str]) -> str:
    return f"; the last reason: {f['run.why']}" if f.get("run.why") else ""


def _overdue(f: Mapping[str, str], what: str, left: float) -> str:
    if f.get("halted") == "1":
        return "the whole namespace is paused; resume it to go on"
    why = "every worker is busy, its scope is full or parked, or no process with a runner is up"
    return f"{what} is due since {-left:.1f} s: {why}"
