"""A 429 parks its scope once for all processes: nobody is dead, nobody's attempt is used, one probe a second."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from math import inf
from typing import Any

import pytest

from streambatch import Batch, Dead, DeadLetter, Limits, Park, Parked, Quota, Retrying, RunCancelled, Unparked, _scope
from tests.integration.bench import Bench
from tests.integration.fleet import SCOPE, Fleet, Provider, Sent, burst
from tests.rig import Server, wait_for


class Closed:
    """A provider that refuses everybody until it is opened; `chance` refuses at random besides."""

    def __init__(self, provider: Provider, after: float = 0.3) -> None:
        self.provider = provider
        self.after = after
        self.closed = True
        self.chance = 0.0
        self.random = random.Random(5)
        self.refused: list[float] = []
        provider.refuse = self.refuse

    def refuse(self, batch: Batch) -> None:
        """Raise what a shipped runner raises at a 429."""
        if self.closed or self.random.random() < self.chance:
            self.refused.append(asyncio.get_running_loop().time())
            raise Park(self.after, reason="HTTP 429")


def probes(sent: Sent) -> list[list[tuple[float, float]]]:
    """The Runs that were let in to probe, for each park: when the server was asked, and when it had answered."""
    found: list[list[tuple[float, float]]] = []
    for (name, row), times in zip(sent.rows, sent.times, strict=True):
        if name == "park" and row[0] == b"parked":
            found.append([])
        elif name == "admit" and row[0] == b"yes" and row[1]:
            found[-1].append(times)
    return found


def gaps(times: list[tuple[float, float]]) -> list[float]:
    """From each probe to the next one, not less than it was for the server, however late this process is."""
    return [later[1] - earlier[0] for earlier, later in pairwise(times)]


def slipped(sent: Sent) -> list[float]:
    """When Runs were let in that were no probes, although the scope was parked before they asked and after it."""
    parked, found, inside = inf, list[float](), list[float]()
    for (name, row), (asked, told) in zip(sent.rows, sent.times, strict=True):
        if name == "park" and row[0] == b"parked":
            parked = told
        elif name == "ended" and row[0] == b"back":
            found += [at for at in inside if at < asked]
            parked, inside = inf, []
        elif name == "admit" and row[0] == b"yes" and not row[1] and asked > parked:
            inside.append(asked)
    return found + inside


async def test_a_storm_of_refusals_costs_no_attempt(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 threads, 429 at random and once to everybody: nobody dead, no attempt used, all answered, few probes."""
    sent, provider = Sent(monkeypatch), Provider()
    storm = Closed(provider, after=2.0)
    async with Fleet(server.url, namespace) as fleet:
        one, _ = await fleet.add(provider, concurrency=20), await fleet.add(provider, concurrency=20)
        await burst(one, 200)
        await wait_for(lambda: fleet.of(Parked), "the park")
        storm.closed, storm.after, storm.chance = False, 0.2, 0.02
        await fleet.answered(200)
        assert fleet.of(Dead) == []
        assert provider.attempts == {1}
        parks, ends = fleet.of(Parked), fleet.of(Unparked)
        assert len(ends) <= len(parks) <= len(ends) + 1
        assert len(parks) < len(storm.refused)
        assert {event.scope for event in parks} == {SCOPE}
        assert [gap for times in probes(sent) for gap in gaps(times) if gap < 0.9] == []
        assert slipped(sent) == []


async def test_everybody_waits_and_one_probes(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a provider stays closed: one event, one request a second at most, from four processes."""
    sent, provider = Sent(monkeypatch), Provider()
    storm = Closed(provider, after=0.1)
    async with Fleet(server.url, namespace) as fleet:
        for _ in range(4):
            await fleet.add(provider)
        await burst(fleet.queues[0], 50)
        await wait_for(lambda: fleet.of(Parked), "the park")
        await wait_for(lambda: [times for times in probes(sent) if len(times) >= 4], "four probes", deadline=20)
        (times,) = probes(sent)
        assert min(gaps(times)) > 0.9
        assert slipped(sent) == []
        assert len(provider.asked) <= sum(name == "admit" and row[0] == b"yes" for name, row in sent.rows)
        assert (len(fleet.of(Parked)), fleet.of(Unparked)) == (1, [])
        storm.closed = False
        await fleet.answered(50)
        (end,) = fleet.of(Unparked)
        assert end.seconds > 3
        assert provider.attempts == {1}


async def test_an_operator_sees_it_and_ends_it(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A park of a day: explain and scope say so, in any process; unpark ends it for all, within seconds."""
    monkeypatch.setattr(_scope, "LONGEST", 0.1)
    provider = Provider()
    storm = Closed(provider, after=86_400)
    async with Fleet(server.url, namespace) as fleet:
        await fleet.add(provider)
        looking = await fleet.add(None, deliver=None)
        await burst(looking, 3)
        await wait_for(lambda: fleet.of(Retrying), "the refusal")

        async def said() -> bool:
            found = [await looking.explain(f"t{number:03d}") for number in range(3)]
            return any(f"its turn came, and scope {SCOPE} is parked: HTTP 429" == one.reason for one in found)

        async def over() -> bool:
            return (await looking.scope(SCOPE)).running == 0

        await wait_for(said, "the explanation")
        await wait_for(over, "the ends of the refused Runs, which nobody waits for")
        seen = await looking.scope(SCOPE)
        assert (seen.state, seen.reason) == ("parked", "HTTP 429")
        assert 86_000 < seen.seconds <= 86_400
        storm.closed = False
        await looking.unpark(SCOPE)
        await fleet.answered(3)
        assert (await looking.scope(SCOPE)).state == "open"
        assert fleet.of(Unparked) == []


async def test_another_key_goes_on(server: Server, namespace: str) -> None:
    """Who has another scope runs what was refused, meanwhile."""
    refused, other = Provider(), Provider()
    Closed(refused, after=60)
    async with Fleet(server.url, namespace) as fleet:
        first = await fleet.add(refused)
        await burst(first, 5)
        await wait_for(lambda: fleet.of(Parked), "the park")
        other.limits = Limits(scope="another")
        await fleet.add(other)
        await fleet.answered(5)
        assert len(other.asked) == 5
        assert other.attempts == {1}


def nothing(*_: object) -> None:
    """Hears nothing."""


@pytest.mark.parametrize("deaf", [False, True])
async def test_who_waits_can_be_cancelled(server: Server, namespace: str, deaf: bool) -> None:
    """To end a Run is not to start one: a batch that waits for a parked scope is cancelled at once, by any process."""
    refused = Provider()
    Closed(refused, after=60)
    async with Fleet(server.url, namespace) as fleet:
        queue, other = await fleet.add(refused), await fleet.add(None, deliver=None)
        receipt = await other.submit("a", "hi", now=True)
        await wait_for(lambda: fleet.of(Retrying), "the refusal")
        opened: Any = queue
        await wait_for(opened._open.hints.listening.is_set, "the hints")
        if deaf:  # then polling finds it
            opened._open.hints._heard = nothing
        await other.cancel("a")
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=20)
        assert len(refused.asked) == 1
        assert (await queue.scope(SCOPE)).state == "parked"


async def test_replies_are_delivered_while_nobody_runs(server: Server, namespace: str) -> None:
    """A shut gate stops Runs and nothing else: this process hands over what others have answered."""
    refused = Provider()
    Closed(refused, after=60)

    async def answer(batch: Batch) -> str:
        return "from elsewhere"

    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(refused)
        await queue.submit("a", "hi", now=True)
        await wait_for(lambda: fleet.of(Parked), "the park")
        await fleet.add(answer, deliver=None)
        await fleet.answered(1)
        assert fleet.replies[0].text == "from elsewhere"


async def test_without_limits_a_park_is_a_retry(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is shared, so nothing is parked: only this batch waits, and its attempt does not count."""
    sent, provider = Sent(monkeypatch), Provider()
    provider.limits = None
    storm = Closed(provider, after=0.05)
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider, max_attempts=2)
        await burst(queue, 2)
        await wait_for(lambda: len(storm.refused) >= 8, "refusals")
        storm.closed = False
        await fleet.answered(2)
        assert provider.attempts == {1}
        assert fleet.of(Parked) == fleet.of(Dead) == []
    assert sent.count("park") == 0


async def test_a_failure_parks_nobody(server: Server, namespace: str) -> None:
    """Other errors count as ever, and their Runs' places are free again."""
    provider = Provider(concurrent=1)

    def fail(batch: Batch) -> None:
        if batch.thread == "t000":
            raise DeadLetter("no")
        if batch.attempt < 3:
            raise ValueError

    provider.refuse = fail
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)
        await burst(queue, 4)
        await fleet.answered(3)
        assert provider.attempts == {1, 2, 3}
        assert [event.thread for event in fleet.of(Dead)] == ["t000"]
        assert fleet.of(Parked) == []
        await wait_for(lambda: _idle(queue), "the last place")


async def _idle(queue: Any) -> bool:
    return (await queue.scope(SCOPE)).running == 0


async def test_a_long_reset_is_said(server: Server, namespace: str) -> None:
    """A provider that has nothing left for hours parks the scope, so that somebody hears of it."""
    provider = Provider()
    provider.left = Quota(requests=0, requests_reset=7_200)
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)
        await queue.submit("a", "hi", now=True)
        await fleet.answered(1)
        (event,) = await wait_for(lambda: fleet.of(Parked), "the park")
        assert (event.seconds, event.reason) == (7_200, "the provider says that nothing is left for 7200 s")
        await queue.unpark(SCOPE)


async def test_the_gate_moves_no_index(still: Bench) -> None:
    """A process whose gate is shut is one that runs nothing: peek names no batch, a claim leaves it; its role stays."""
    side = await still.side()
    await side.submit("t", "hi")
    side.store.shut = True
    assert await side.ready() == []
    assert await side.refused("t") == "other"
    assert side.store.runs
    await side.store.join()
    side.store.shut = False
    assert await side.ready() == ["t"]
    assert await side.turn("t") == ("hi",)
