"""More failures of other queues, each as a named test: recovery, expiry, cost, what is shown (see test_peers.py)."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import TimeoutError as RedisTimeoutError

from streambatch import Batch, BatchQueue
from streambatch._events import Retrying
from streambatch._hints import Hints
from streambatch._rows import NotNow, Work
from tests.conftest import StartServer
from tests.integration.bench import Bench
from tests.integration.shop import Shop, opened
from tests.rig import Server, wait_for

DAY = 86_400_000
TESTS = Path(__file__).parents[1]


async def test_p03_a_worker_that_reconnects_works_on_and_health_says_so(
    start_server: StartServer, namespace: str
) -> None:
    """All connections are cut, again and again: each time the next message is answered, and readiness comes back."""
    server, shop = start_server(), Shop()
    async with opened(shop, server.url, namespace) as queue:
        names = [f"{n}" for n in range(4)]
        for n, name in enumerate(names):
            await queue.submit("t", name, message_id=name)
            await shop.said(*names[: n + 1])
            await wait_for(lambda: queue.health().ready, "readiness")
            server.admin().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            server.admin().execute_command("CLIENT", "KILL", "TYPE", "pubsub")


async def test_p03_a_worker_whose_polls_failed_works_on_and_health_says_so(
    start_server: StartServer, namespace: str
) -> None:
    """The server stands still until polls have failed: then readiness is gone, and comes back with the work."""
    server, shop = start_server(), Shop()
    async with opened(shop, server.url, namespace, lease=0.6) as queue:
        server.stop()
        try:
            await wait_for(lambda: (queue.health().last_poll or 0) > 2.5, "a poll that failed")
            assert not queue.health().ready
        finally:
            server.cont()
        await wait_for(lambda: queue.health().ready, "readiness")
        await queue.submit("t", "a")
        await shop.said("a")


async def test_p06_of_all_who_recover_one_does_and_nothing_has_to_be_unlocked(still: Bench) -> None:
    """Ten find a dead holder at once: one claims. It dies too, and again one claims: there is no lock that stays."""
    sides = [await still.side(lease=1.0) for _ in range(4)]
    await sides[0].submit("t", "a")
    for _ in range(3):
        found = await asyncio.gather(*(side.claim("t") for side in sides))
        assert [type(one) for one in found].count(Work) == 1
        assert {one.word for one in found if isinstance(one, NotNow)} == {"held"}
        assert (await asyncio.gather(*(side.ready() for side in sides))) == [[]] * 4
        still.tick(1_000)
    assert await sides[3].turn("t") == ("a",)


async def test_p07_a_run_that_goes_on_is_not_given_to_another(still: Bench) -> None:
    """A Run of many leases: while it is renewed, nobody else gets the batch, whenever they look."""
    holder, other = await still.side(lease=1.0), await still.side(lease=1.0)
    await holder.submit("t", "a")
    work = await holder.work("t")
    await holder.start(work)
    for tries in (False, True):  # who is refused puts the thread back to its deadline, so first they only look
        for _ in range(10):
            still.tick(900)
            assert await holder.store.renew(work.lease) != "lost"
            assert await other.ready() == []
            if tries:
                assert await other.refused("t") == "held"
    assert (await holder.settle(work, ""))[0] == "done"


@pytest.mark.parametrize("raises", [False, True])
async def test_p12_silence_longer_than_a_timeout_costs_no_connection(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch, *, raises: bool
) -> None:
    """Nothing blocks in the server. The one who listens hears nothing for long: it asks, and keeps its connection.
    Of a silence the client tells by None or by an error, by its version."""
    monkeypatch.setattr(Hints, "SILENCE", 1.0)
    if raises:
        read: Any = AbstractConnection.read_response

        async def read_or_raise(self: Any, *args: Any, **more: Any) -> Any:
            answer = await read(self, *args, **more)
            if answer is None and more.get("timeout"):
                raise RedisTimeoutError
            return answer

        monkeypatch.setattr(AbstractConnection, "read_response", read_or_raise)
    subscribed: list[int] = []
    whole: Any = Hints
    taken = whole._take

    def take(self: Hints, answer: Any) -> None:
        subscribed.extend([1] if answer[0] == b"ssubscribe" else [])
        silences.extend([1] if b"PONG" in answer or b"pong" in answer else [])
        taken(self, answer)

    silences: list[int] = []
    monkeypatch.setattr(Hints, "_take", take)
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        inside: Any = queue
        await wait_for(lambda: len(silences) >= 3, "three answers in the silence")
        assert inside._open.hints.listening.is_set()
    assert len(subscribed) == queue.settings.partitions


async def test_p14_a_deleted_consumer_takes_no_message_along(still: Bench) -> None:
    """What was pending for it is in the batch of the next holder, and nothing that came later: a batch is pinned by
    its ids."""
    dying, heir = await still.side(lease=1.0), await still.side()
    await dying.submit("t", "a", "b")
    await dying.start(await dying.work("t"))
    stream = still.key("stream", "t")
    consumers: list[Any] = await still.admin.xinfo_consumers(stream, "runs")
    assert [one["pending"] for one in consumers] == [2]
    assert await still.admin.xgroup_delconsumer(stream, "runs", consumers[0]["name"]) == 2
    await dying.submit("t", "c")
    still.tick(1_000)
    work = await heir.work("t")
    assert await heir.texts(work) == ("a", "b")
    await heir.settle(work, "")
    still.tick(1_000)
    assert await heir.turn("t") == ("c",)
    assert not await still.admin.exists(stream)


async def test_p17_what_waits_never_expires(still: Bench) -> None:
    """A message that waits for a month, paused, is run: nothing that holds it has a TTL, nor what holds its pause.
    The same of a batch that was given back."""
    side = await still.side()
    await side.submit("t", "a")
    work = await side.work("t")
    await side.desk.pause("t", on=True)
    await side.store.release(work.lease, 0, give_back=True)
    await side.submit("t", "b")
    for kind in ("stream", "window", "run", "last"):
        assert await still.admin.pttl(still.key(kind, "t")) == -1, kind
    for kind in ("parked", "paused"):
        assert await still.admin.pttl(still.key(kind)) == -1, kind
    still.tick(31 * DAY)
    assert await side.ready() == []
    await side.desk.pause("t", on=False)
    assert await side.turn("t") == ("a",)
    assert await side.turn("t") == ("b",)


@pytest.mark.real("it counts the server's commands")
async def test_p18_looking_for_work_costs_the_same_however_much_is_in_hand(still: Bench) -> None:
    """One look, with one batch in hand and with two hundred: the same number of commands in the server."""
    side = await still.side(lease=300.0)

    async def look() -> int:
        def calls() -> int:
            stats: dict[str, Any] = still.server.admin().info("commandstats")
            return sum(row["calls"] for row in stats.values())

        await side.ready()  # whatever is loaded is loaded now
        before = calls()
        assert await side.ready() == []
        return calls() - before

    still.watch = False
    works: list[Work] = []
    costs: list[int] = []
    for count in (1, 200):
        while len(works) < count:
            thread = f"t{len(works)}"
            await side.submit(thread, "a")
            works.append(await side.work(thread))
        costs.append(await look())
    assert costs[0] == costs[1]
    for work in works:
        await side.settle(work, "")


async def test_p21_a_replica_that_forgot_an_acknowledgement_runs_the_batch_again(still: Bench) -> None:
    """The state before the commit comes back, as with a stale fail-over: the same batch runs again, and ends."""
    side, heir = await still.side(lease=1.0), await still.side()
    raw: Any = still.raw()
    await side.submit("t", "a", "b")
    work = await side.work("t")
    await side.start(work)
    stale = {key: (await raw.dump(key), await raw.pttl(key)) for key in await raw.keys(f"*{still.namespace}*")}
    assert (await side.settle(work, "said"))[0] == "kept"
    for key, (value, ttl) in stale.items():
        await raw.restore(key, max(ttl, 0), value, replace=True)
    for key in await raw.keys(f"*{still.namespace}*"):
        if key not in stale:
            await raw.delete(key)
    await raw.aclose()
    await heir.submit("t", "c")
    still.tick(1_000)
    again = await heir.work("t")
    assert (again.id(heir.store.setting), await heir.texts(again)) == (work.id(side.store.setting), ("a", "b"))
    assert (await heir.settle(again, "said"))[0] == "kept"
    await heir.store.delivered(again.lease, go_on=False)
    assert await heir.turn("t") == ("c",)
    assert await heir.ready() == []


async def test_p23_nothing_is_shown_to_whoever_asks(server: Server, namespace: str) -> None:
    """No part of an open queue listens for anybody, and what operators see has no content, also of a Run's error."""
    before, shop = listening(), Shop()
    shop.gate.clear()

    def fail(batch: Batch) -> None:
        raise ValueError(f"cannot answer {batch.text}")

    shop.fail = fail
    async with opened(shop, server.url, namespace) as queue:
        await queue.submit("t", "secret words", metadata={"who": "secret person"})
        await shop.started.wait()
        assert listening() == before
        shown = (await queue.stats(), await queue.threads(), await queue.explain("t"), queue.health())
        assert "secret" not in repr(shown)
        shop.gate.set()
        await wait_for(lambda: any(isinstance(event, Retrying) for event in shop.events), "the failure")
        assert "secret" not in repr((await queue.explain("t"), shop.events))
        shop.fail = lambda batch: None
        await shop.said("secret words")


def listening() -> int:
    """How many sockets of this process wait for connections."""
    inodes: set[str] = set()
    for name in ("tcp", "tcp6", "unix"):
        for row in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]:
            cells = row.split()
            if name == "unix" and cells[3] == "00010000":  # __SO_ACCEPTCON
                inodes.add(cells[6])
            elif name != "unix" and cells[3] == "0A":
                inodes.add(cells[9])
    mine: set[str] = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            mine.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))  # noqa: PTH115 - no path
    return len(inodes & mine)


def test_each_of_p1_to_p23_has_a_test_that_names_it() -> None:
    """By its number in the name of a test (p07) or in a docstring (P7)."""
    named: set[int] = set()
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        named |= {int(found) for found in re.findall(r"def test_p(\d\d)_", text)}
        for docstring in re.findall(r'def test_\w+\([^"]*?"""(.*?)"""', text, re.DOTALL):
            named |= {int(found) for found in re.findall(r"\bP(\d+)\b", docstring)}
    assert named >= set(range(1, 24)), f"no test names {sorted(set(range(1, 24)) - named)}"
