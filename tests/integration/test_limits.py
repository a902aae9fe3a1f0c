"""Limits that Runs share over processes: how many at once, how many and how many tokens in any minute."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, Dead, DeliveryFailed, Limits, Quota, Reply, Retry, UsageError, _scope
from streambatch import _scripts as scripts
from streambatch._scripts import Call, Wire
from tests.conftest import StartChild, StartServer
from tests.integration.bench import DAWN
from tests.integration.fleet import SCOPE, Fleet, Provider, Sent, burst
from tests.rig import Server, key_of, wait_for

SCRIPTS = {"admit", "ended", "keep", "park"}
LONG = 3_600.0  # seconds: a lease that does not end when a test moves the clock by a minute


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shut gate looks again soon, because these tests move the server's clock and not ours."""
    monkeypatch.setattr(_scope, "LONGEST", 0.02)


async def test_three_at_once_over_two_processes(server: Server, namespace: str) -> None:
    """concurrent=3 holds over processes; whoever waits uses no attempt, and everybody is answered."""
    provider = Provider(concurrent=3)
    provider.gate.clear()
    async with Fleet(server.url, namespace) as fleet:
        one, _ = await fleet.add(provider), await fleet.add(provider)
        await burst(one, 40)
        await wait_for(lambda: provider.now >= 3, "three at once")
        provider.gate.set()
        await fleet.answered(40)
        assert provider.most == 3
        assert provider.attempts == {1}
        assert fleet.of(Dead) == []


async def test_who_waits_keeps_its_place(server: Server, namespace: str) -> None:
    """I12: with one place the threads run in the order in which their messages came, however often they waited."""
    provider = Provider(concurrent=1)
    provider.gate.clear()
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider, lease=60, partitions=1)  # each partition has a line of its own
        for number in range(15):
            fleet.clock(DAWN + number)
            await queue.submit(f"t{number}", "hi", now=True)
        provider.gate.set()
        await fleet.answered(15, deadline=8)  # a free place is taken at once, and not at the next poll
        assert [thread for _, thread in provider.asked] == [f"t{number}" for number in range(15)]


@pytest.mark.usefixtures("_impatient")
async def test_a_refused_batch_is_where_it_was(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """I12: claimed and refused, because another process was quicker, a thread is due since its message came."""
    sent, provider = Sent(monkeypatch), Provider(concurrent=1)
    due = key_of(namespace, "due", "a", shared=True)
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)
        fleet.clock(DAWN)
        await wait_for(lambda: sent.count("admit"), "the first question")
        opened: Any = queue
        store = opened._open.store
        head = [*_scope.scope_head(store, provider.limits or Limits())]
        await store.control(scripts.ADMIT, store.keys.scope(SCOPE), [*head, "other"])
        fleet.clock(DAWN + 5)
        await queue.submit("a", "hi", now=True)
        fleet.clock(DAWN + 500)
        await wait_for(lambda: sent.count("release"), "the refusal")
        assert server.admin().zscore(due, "a") == DAWN + 5
        assert (await queue.explain("a")).attempt == 0
        fleet.clock(DAWN + 5_000)
        await fleet.answered(1)


async def answer(batch: Batch) -> str:
    """A runner of other processes, without limits."""
    return "from elsewhere"


async def test_replies_take_no_place(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process only delivers is not counted by its limits, and holds up no Run."""
    sent, provider, tries = Sent(monkeypatch), Provider(concurrent=1), Counter[str]()

    async def deliver(reply: Reply) -> None:
        tries[reply.thread] += 1
        if tries[reply.thread] == 1 or not sent.count("admit"):
            raise Retry(after=0.1, count=False)

    async with Fleet(server.url, namespace) as fleet:
        async with Fleet(server.url, namespace) as before:
            await before.add(None)  # so that replies are kept for a process that delivers
            queue = await before.add(answer, deliver=None)
            before.refuse = True
            await burst(queue, 3)
            await wait_for(lambda: len(before.of(DeliveryFailed)) >= 3, "three answers")
        queue = await fleet.add(provider, deliver=deliver)
        await wait_for(lambda: len(tries) == 3 and min(tries.values()) > 1, "the deliveries")
        await queue.submit("more", "hi", now=True)
        await wait_for(lambda: tries["more"] > 1, "the last delivery")
        assert [thread for _, thread in provider.asked] == ["more"]


async def test_a_full_scope_stops_no_delivery(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the one place is taken by a long Run, its process delivers what others have answered."""
    sent, provider = Sent(monkeypatch), Provider(concurrent=1)
    provider.gate.clear()
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)
        await wait_for(lambda: sent.count("admit"), "the first question")
        await queue.submit("long", "hi", now=True)
        await wait_for(lambda: provider.now, "the Run")
        other = await fleet.add(answer, deliver=None)
        await other.submit("other", "hi", now=True)
        await fleet.answered(1)
        assert fleet.replies[0].thread == "other"
        provider.gate.set()
        await fleet.answered(2)


async def test_waiting_is_not_work(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred threads that wait for three places are not claimed and given back again and again."""
    sent, provider = Sent(monkeypatch), Provider(concurrent=3)
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)
        await wait_for(lambda: sent.count("admit"), "the first question")
        await burst(queue, 100)
        await fleet.answered(100)
    assert sent.count("release") <= 50  # how many depends on the machine; again and again would be thousands
    assert sent.count("claim") <= 170
    assert sent.count("keep") <= 50


async def test_a_hot_thread_asks_for_each_batch(server: Server, namespace: str) -> None:
    """What a settle or a delivery hands on at once needs a place like any other."""
    provider = Provider(concurrent=1)
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider, max_batch=1)
        for thread in ("a", "b"):
            for text in "1234":
                await queue.submit(thread, text, now=True)
        await wait_for(lambda: len(fleet.replies) == 8, "all replies")
        assert provider.most == 1
        for thread in ("a", "b"):
            assert [reply.text for reply in fleet.replies if reply.thread == thread] == list("1234")


@pytest.mark.usefixtures("_impatient")
async def test_five_runs_a_minute(server: Server, namespace: str) -> None:
    """runs_per_minute=5 over two processes: five in the first minute, five in the next, no attempt used."""
    provider = Provider(runs_per_minute=5)
    async with Fleet(server.url, namespace) as fleet:
        one, two = await fleet.add(provider, lease=LONG), await fleet.add(provider, lease=LONG)
        fleet.clock(DAWN)
        await burst(one, 12)
        for minute in range(3):
            fleet.clock(DAWN + minute * 60_000)
            await fleet.answered(min(12, 5 * (minute + 1)))
            seen = await two.scope(SCOPE)
            assert seen.runs == len(provider.asked) - 5 * minute == min(5, 12 - 5 * minute)
            fleet.clock(DAWN + minute * 60_000 + 59_999)
            assert (await two.scope(SCOPE)).runs == seen.runs
        assert provider.attempts == {1}


@pytest.mark.usefixtures("_impatient")
async def test_tokens_of_a_minute(server: Server, namespace: str) -> None:
    """tokens_per_minute holds by what the provider says was used, whatever its names for that are."""
    provider = Provider(tokens_per_minute=2_000)
    provider.usage = {"input_tokens": 300, "output_tokens": 100}
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider, lease=LONG)
        fleet.clock(DAWN)
        await burst(queue, 12)
        await wait_for(lambda: len(fleet.replies) >= 3, "the first minute")
        for minute in range(1, 6):
            used = await queue.scope(SCOPE)
            assert used.tokens <= 2_000
            fleet.clock(DAWN + minute * 60_000)
            await wait_for(lambda n=minute: len(fleet.replies) >= min(12, 3 + 2 * n), "the next minute")
        await fleet.answered(12)


async def test_tokens_are_counted_as_soon_as_a_run_has_ended(server: Server, namespace: str) -> None:
    """Nothing has to be refused for that: `scope` shows what every answer says was used."""
    provider = Provider(tokens_per_minute=100_000)
    provider.usage = {"input_tokens": 300, "output_tokens": 100}
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)

        async def counted() -> bool:
            used = await queue.scope(SCOPE)
            return (used.running, used.tokens) == (0, 1_200)

        await burst(queue, 3)
        await fleet.answered(3)
        await wait_for(counted, "the tokens of three answers")


@pytest.mark.leaves_keys("two threads wait for the next minute")
async def test_what_the_provider_allows_holds_too(server: Server, namespace: str) -> None:
    """Run.quota: a limit that is lower than ours is kept, and what is used up is waited for, also by others."""
    provider = Provider(runs_per_minute=100)
    provider.left = Quota(requests_limit=3, tokens=0, tokens_reset=2.0)
    async with Fleet(server.url, namespace) as fleet:
        one, two = await fleet.add(provider), await fleet.add(provider)
        await one.submit("a", "hi", now=True)
        await fleet.answered(1)
        await wait_for(lambda: _state(two), "the quota to be known")
        assert (await two.scope(SCOPE)).state == "full"
        await burst(two, 4)
        await fleet.answered(3)
        assert provider.asked[1][0] - provider.asked[0][0] >= 1.99
        await wait_for(lambda: _waits(two), "the explanation", deadline=5)
        assert len(provider.asked) == 3


async def _state(queue: BatchQueue) -> bool:
    return (await queue.scope(SCOPE)).state != "open"


async def _waits(queue: BatchQueue) -> bool:
    found = [await queue.explain(f"t{number:03d}") for number in range(4)]
    return sum(1 for one in found if one.state == "waiting") == 2


async def test_a_killed_process_frees_its_places(server: Server, namespace: str, start_child: StartChild) -> None:
    """kill -9 in two Runs: their places are free after a lease, and their batches run elsewhere."""
    child = await start_child("tests/integration/limited.py", server.url, namespace, SCOPE)
    provider = Provider(concurrent=2)
    async with Fleet(server.url, namespace) as fleet:
        looking = await fleet.add(None, deliver=None)
        await child.expect("OPEN")
        await burst(looking, 5)
        await child.expect("RUN")
        await child.expect("RUN")
        await fleet.add(provider)
        assert (await looking.scope(SCOPE)).running == 2
        child.kill9()
        await child.wait()
        await fleet.answered(5)
        assert provider.most <= 2


async def test_a_closed_process_frees_its_places_at_once(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I14: leaving the block with Runs under way gives their places back, also when the server is slow."""
    plain = Wire.exchange

    async def slow(wire: Wire, calls: Sequence[Call], extra: float = 0.0) -> list[Any]:
        if scripts.ENDED in [call.script for call in calls]:
            await asyncio.sleep(0.2)
        return await plain(wire, calls, extra)

    monkeypatch.setattr(Wire, "exchange", slow)
    provider = Provider(concurrent=2)
    provider.gate.clear()
    async with Fleet(server.url, namespace) as looking:
        queue = await looking.add(None, deliver=None)
        async with Fleet(server.url, namespace) as fleet:
            await fleet.add(provider, drain_timeout=0, lease=60)
            await burst(queue, 2)
            await wait_for(lambda: provider.now == 2, "the Runs")
        assert (await queue.scope(SCOPE)).running == 0
        provider.gate.set()
        await looking.add(provider)
        await looking.answered(2)


async def test_a_long_run_keeps_its_place(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is renewed with the lease of its Run."""
    sent, provider = Sent(monkeypatch), Provider(concurrent=1)
    provider.gate.clear()
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider, lease=2)
        await queue.submit("a", "hi", now=True)
        await wait_for(lambda: sent.count("keep") >= 4, "renewals for longer than a lease", deadline=20)
        assert (await queue.scope(SCOPE)).running == 1
        provider.gate.set()
        await fleet.answered(1)


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_the_server_restarts_under_runs_with_limits(start_server: StartServer, namespace: str) -> None:
    """A crash of the server loses no Run of a scope, and nobody waits for a place that nobody has."""
    server, provider = start_server(aof="always"), Provider(concurrent=2)
    server.admin().execute_command("ACL", "SETUSER", "default", "off", "allkeys", "allchannels", "+@all")
    server.admin().execute_command("ACL", "SAVE")  # else Redis 7.0.15 comes up empty, see docs/runbook.md
    provider.gate.clear()
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)
        await burst(queue, 6)
        await wait_for(lambda: provider.now == 2, "the Runs")
        server.kill9()
        provider.gate.set()
        server.restart()
        await fleet.answered(6)
        assert provider.most == 2


async def test_without_limits_nothing_is_sent(server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner without limits costs exactly what it did: no script of a scope, no key, no connection."""
    sent, provider = Sent(monkeypatch), Provider()
    provider.limits = None
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)
        await burst(queue, 20)
        await fleet.answered(20)
    assert {name for name, _ in sent.rows} & SCRIPTS == set()
    assert sent.count("claim") >= 20
    names: list[str] = server.admin().keys(f"sb1:{{{namespace}.*")
    assert [name for name in names if SCOPE in name] == []


async def test_an_idle_process_with_limits_asks_once(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle: one question at start, then nothing until there is something to run."""
    sent, provider = Sent(monkeypatch), Provider(concurrent=3)
    async with Fleet(server.url, namespace) as fleet:
        await fleet.add(provider)
        await wait_for(lambda: sent.count("peek") >= 3, "two seconds of polling")
        assert [name for name, _ in sent.rows if name in SCRIPTS] == ["admit"]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(), Limits(scope="a b"), Limits(scope="x" * 65), Limits(scope="a\n"), Limits(scope="a", concurrent=0),
        Limits(scope="a", runs_per_minute=-1), Limits(scope="a", tokens_per_minute=0),
        Limits(scope="a", concurrent=True), Limits(scope="a", concurrent=1.5),  # pyright: ignore[reportArgumentType]
        {"scope": "a"}, "a",
    ],
    ids=repr,
)  # fmt: skip
def test_wrong_limits_are_refused_when_the_queue_is_made(limits: Any) -> None:
    """A wrong configuration is refused at start, not at the first Run."""
    provider = Provider()
    provider.limits = limits
    with pytest.raises(UsageError):
        BatchQueue("redis://localhost", runner=provider)


def test_a_function_may_have_limits_too() -> None:
    """A plain function is a runner; what is wrong with its limits is found as well."""

    async def answer(batch: Batch) -> str:
        return batch.text

    limited: Any = answer
    limited.limits = Limits(scope="a", concurrent=1)
    BatchQueue("redis://localhost", runner=answer)
    limited.limits = Limits(scope="a", concurrent=0)
    with pytest.raises(UsageError, match="concurrent=0"):
        BatchQueue("redis://localhost", runner=answer)


def test_tokens_are_known_by_all_their_names() -> None:
    """total, else in and out by either pair of names; what is no number is none."""
    assert _scope.tokens_of({"total_tokens": 7, "input_tokens": 1}) == 7
    assert _scope.tokens_of({"input_tokens": 3, "output_tokens": 4}) == 7
    assert _scope.tokens_of({"prompt_tokens": 3, "completion_tokens": 4.0}) == 7
    strange: Any = {"total_tokens": "7", "input_tokens": float("nan"), "output_tokens": -1, "prompt_tokens": None}
    assert _scope.tokens_of(strange) == 0
    assert _scope.tokens_of({"total_tokens": float("inf")}) == 0
    assert _scope.tokens_of(None) == 0


async def test_a_strange_quota_fails_no_run(server: Server, namespace: str) -> None:
    """Whatever a runner passes to Run.quota, the Run counts and the scope goes on."""
    provider = Provider()
    strange: Any = Quota(requests=0, requests_reset=float("nan"), tokens="x", tokens_limit=-1.5, requests_limit="many")  # pyright: ignore[reportArgumentType]
    provider.left = strange
    async with Fleet(server.url, namespace) as fleet:
        queue = await fleet.add(provider)
        await burst(queue, 3)
        await fleet.answered(3)
        assert (await asyncio.wait_for(queue.scope(SCOPE), 5)).state == "open"
