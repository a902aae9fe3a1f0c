"""Runners and deliver callbacks that do the worst there is, next to healthy ones.

Theory of operation. One queue has three kinds of threads. The *slow* ones run for longer than a lease, so they end well
only while the keeper renews. The *bad* ones each do one evil thing, and must end as a dead letter with its reason. The
*fine* ones are submitted between the bad ones and must be answered. Afterwards every loop must be alive: leases are
renewed, a new thread is polled, run and delivered, and nothing but the bad ones' failures was reported.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import pytest

from streambatch import (
    Answer,
    Batch,
    BatchQueue,
    Dead,
    DeadLetter,
    DeliveryFailed,
    Lost,
    Reply,
    Retry,
    Retrying,
    StoreAway,
    UsageError,
    Warned,
)
from tests.integration.shop import Shop, opened
from tests.rig import Server, key_of, wait_for

SLOW = 30
_ANY = cast("Any", None)


class OddError(BaseException):
    """What a framework may raise that is no Exception."""


async def stranger() -> None:
    """Await a task that somebody else cancelled: the CancelledError is not meant for this task."""
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


def raising(error: BaseException) -> Callable[[Any], Awaitable[object]]:
    """A runner that raises."""

    async def run(_: Any) -> object:
        raise error

    return run


def returning(make: Callable[[], object]) -> Callable[[Any], Awaitable[object]]:
    """A runner that returns something odd."""

    async def run(_: Any) -> object:
        return make()

    return run


async def checkpointing(run: Any, data: object) -> object:
    """A runner that keeps something odd."""
    await run.checkpoint(data)
    return "never"


async def cancelled(_: Any) -> object:
    """A runner that awaits what somebody else cancelled."""
    await stranger()
    return "never"


LARGE = "x" * 2_000_000

#: What bad runners do, and a word that the reason of the dead letter must hold.
EVIL: dict[str, dict[str, tuple[Callable[[Any], Awaitable[object]], str]]] = {
    "signals": {
        "DeadLetter(an error)": (raising(DeadLetter(cast("Any", ValueError("why")))), "why"),
        "DeadLetter(a lone surrogate)": (raising(DeadLetter("bad \ud83d")), "bad"),
        "Retry(reason=an error)": (raising(Retry(after=0, reason=cast("Any", ValueError("why")))), "why"),
        "Retry(reason=a lone surrogate)": (raising(Retry(after=0, reason="bad \ud83d")), "bad"),
        "Retry(after=inf)": (raising(Retry(after=float("inf"))), "2 attempts"),
        "Retry(after=nan)": (raising(Retry(after=float("nan"))), "2 attempts"),
    },
    "checkpoints": {
        "a dict": (lambda run: checkpointing(run, {"id": 1}), "dict"),
        "a str": (lambda run: checkpointing(run, "id"), "str"),
        "a large one": (lambda run: checkpointing(run, LARGE.encode()), "max_answer_bytes"),
    },
    "answers": {
        "forget=None": (returning(lambda: Answer("x", forget=_ANY)), "forget"),
        "forget=2.5": (returning(lambda: Answer("x", turns=("a",), forget=cast("Any", 2.5))), "forget"),
        "forget=-1": (returning(lambda: Answer("x", forget=-1)), "forget"),
        "bytes": (returning(lambda: b"x"), "bytes"),
        "a large text": (returning(lambda: LARGE), "max_answer_bytes"),
        "a large state": (returning(lambda: Answer("x", state=LARGE)), "max_answer_bytes"),
        "a large turn": (returning(lambda: Answer("x", turns=(LARGE,))), "max_answer_bytes"),
        "an object as state": (returning(lambda: Answer("x", state=object())), "2 attempts"),
        "an object as turn": (returning(lambda: Answer("x", turns=cast("Any", (object(),)))), "2 attempts"),
        "an object as usage": (returning(lambda: Answer("x", usage=cast("Any", object()))), "2 attempts"),
        "parts of dicts": (returning(lambda: Answer("x", parts=cast("Any", ({"type": "text"},)))), "2 attempts"),
    },
    "errors that are no Exception": {
        "a stranger's CancelledError": (cancelled, "CancelledError"),
        "GeneratorExit": (raising(GeneratorExit()), "GeneratorExit"),
        "one of a framework": (raising(OddError()), "OddError"),
        "a BaseExceptionGroup": (raising(BaseExceptionGroup("x", [OddError()])), "BaseExceptionGroup"),
    },
}


class Ward(Shop):
    """A shop whose bad threads run an evil thing each, and whose slow threads wait for the gate."""

    def __init__(self, evil: dict[str, tuple[Callable[[Any], Awaitable[object]], str]]) -> None:
        super().__init__()
        self.evil = evil
        self.count: Counter[str] = Counter()

    async def answer(self, batch: Batch, run: Any) -> str:
        """The runner."""
        self.count[batch.thread] += 1
        if batch.text in self.evil:
            return cast("str", await self.evil[batch.text][0](run))
        if batch.text == "slow":
            await self.gate.wait()
        return batch.text

    async def met(self, queue: BatchQueue) -> None:
        """Submit the slow, then the bad and the fine ones, and wait for the dead letters."""
        await asyncio.gather(*(queue.submit(f"slow{n}", "slow") for n in range(SLOW)))
        await wait_for(lambda: len(self.count) == SLOW, "the slow Runs")
        for name in self.evil:
            await asyncio.gather(queue.submit(name, name), queue.submit(f"fine {name}", "fine"))
        await wait_for(lambda: sum(isinstance(event, Dead) for event in self.events) == len(self.evil), "dead letters")


async def renewals(server: Server, namespace: str, thread: str, times: int) -> None:
    """Wait until the lease of a thread was renewed so often from now on."""
    seen: set[str] = set()

    def enough() -> bool:
        seen.add(server.admin().hget(key_of(namespace, "lease", thread), "deadline"))
        return len(seen) > times

    await wait_for(enough, f"{times} renewals of {thread}")


@pytest.mark.parametrize("group", EVIL)
async def test_evil_runs_end_as_dead_letters_and_hurt_nobody(server: Server, namespace: str, group: str) -> None:
    """P3: whatever a Run does, its attempts are counted, its batch is buried, and all the others go on."""
    evil = EVIL[group]
    ward = Ward(evil)
    ward.gate.clear()
    async with opened(ward, server.url, namespace, max_attempts=2, lease=3) as queue:
        await ward.met(queue)
        await renewals(server, namespace, "slow0", 2)
        ward.gate.set()
        await queue.submit("late", "late")
        await wait_for(lambda: len(ward.replies) >= SLOW + len(evil) + 1, "all the replies")
        assert Counter(reply.text for reply in ward.replies) == {"slow": SLOW, "fine": len(evil), "late": 1}
        reasons = {letter.thread: letter.reason for letter in await queue.dead_letters()}
        assert reasons.keys() == evil.keys()
        assert {name: reason for name, reason in reasons.items() if evil[name][1] not in reason} == {}
        assert queue.health().ready
    odd = [event for event in ward.events if isinstance(event, Lost | StoreAway)]
    odd += [event for event in ward.events if isinstance(event, Warned) and event.code in ("bug", "broken")]
    assert odd == []
    tries = {name: 1 if name.startswith("DeadLetter") else 2 for name in evil}
    assert ward.count == dict.fromkeys(ward.count, 1) | tries


async def test_a_strangers_cancelled_error_in_a_runner_is_counted_and_backed_off(
    server: Server, namespace: str
) -> None:
    """I8: a CancelledError that nobody asked this Run for is a failed attempt: counted, delayed, buried."""
    attempts: list[int] = []
    events: list[object] = []

    async def answer(batch: Batch) -> str:
        attempts.append(batch.attempt)
        await stranger()
        return "never"

    async with BatchQueue(
        server.url, runner=answer, namespace=namespace, debounce=0.01, backoff=0.02, max_attempts=3, log=False,
        listeners=(events.append,),
    ) as queue:  # fmt: skip
        await queue.submit("t", "a")
        await wait_for(lambda: any(isinstance(event, Dead) for event in events), "the dead letter")
        assert attempts == [1, 2, 3]
        retries = [event for event in events if isinstance(event, Retrying)]
        assert [event.attempt for event in retries] == [1, 2]
        assert all(event.delay > 0 for event in retries)
        assert "CancelledError" in (await queue.dead_letters())[0].reason


@pytest.mark.parametrize("error", [None, GeneratorExit(), OddError(), BaseExceptionGroup("x", [OddError()])], ids=repr)
async def test_an_evil_deliver_callback_is_counted_and_ends_as_a_dead_letter(
    server: Server, namespace: str, error: BaseException | None
) -> None:
    """I8, I17: the same for a delivery: no second Run, tries counted and backed off, and the thread goes on."""
    shop, handed = Shop(), Counter[str]()

    async def deliver(reply: Reply) -> None:
        handed[reply.text] += 1
        if reply.text == "bad":
            if error is not None:
                raise error
            await stranger()
        shop.replies.append(reply)

    async with opened(shop, server.url, namespace, deliver=deliver, max_delivery_attempts=3) as queue:
        await queue.submit("t", "bad")
        await wait_for(lambda: any(isinstance(event, Dead) for event in shop.events), "the dead letter")
        await queue.submit("t", "good")
        await shop.said("good")
        letter = (await queue.dead_letters())[0]
        assert (letter.kind, letter.attempts) == ("reply", 3)
    assert handed == {"bad": 3, "good": 1}
    assert [batch.text for batch in shop.runs] == ["bad", "good"]
    failures = [event for event in shop.events if isinstance(event, DeliveryFailed)]
    assert len(failures) == 2
    assert all(event.delay > 0 for event in failures)
    assert not any(isinstance(event, Warned) and event.code in ("bug", "broken") for event in shop.events)


async def test_an_evil_listener_changes_nothing(server: Server, namespace: str) -> None:
    """P3: a listener may raise what it likes: the queue goes on as if nobody listened."""
    shop = Shop()

    def listener(event: object) -> None:
        raise OddError

    async with opened(shop, server.url, namespace, listeners=(listener, shop.events.append)) as queue:
        await queue.submit("t", "a")
        await shop.said("a")
        assert queue.health().ready


async def test_what_a_listener_holds_is_not_in_the_log(
    server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A partial shows its arguments in its repr, and one of them may be a token."""

    def push(token: str, event: object) -> None:
        raise OddError

    shop = Shop()
    async with opened(shop, server.url, namespace, listeners=(partial(push, "xoxb-secret"),)) as queue:
        await queue.submit("t", "a")
        await shop.said("a")
    assert "listener partial failed on Queued: OddError" in caplog.text
    assert "secret" not in caplog.text


class _AsyncCall:
    async def __call__(self, event: object) -> None: ...


async def _async_listener(event: object) -> None: ...


@pytest.mark.parametrize("listener", [_async_listener, _AsyncCall(), 7], ids=["async", "async call", "no function"])
def test_a_listener_that_would_never_run_is_refused_where_the_queue_is_made(listener: Any) -> None:
    with pytest.raises(UsageError, match="plain function"):
        BatchQueue("redis://localhost", listeners=[listener])


@pytest.mark.parametrize("kind", [7, None, b"local", ["a"]], ids=repr)
def test_a_kind_that_is_no_text_is_refused_where_the_queue_is_made(kind: object) -> None:
    """A runner's kind goes into the thread's head: a wrong one is told at once, not by a queue that breaks."""

    class Runner:
        def __init__(self) -> None:
            self.kind = kind

        async def run(self, batch: Batch, run: object) -> str:
            return "never"

    with pytest.raises(UsageError, match="kind"):
        BatchQueue("redis://localhost", runner=cast("Any", Runner()))
