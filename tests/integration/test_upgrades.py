"""I15 and the layout: releases N and N+1 on the same data, and processes whose configuration must not meet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from streambatch import Answer, Batch, BatchQueue, Event, Retrying, Settings
from streambatch._rows import Handover
from streambatch.errors import UsageError
from tests.conftest import StartServer
from tests.integration.bench import Bench
from tests.rig import Server, connect, wait_for
from tests.rig.leaks import keys_of


def threads_of(partition: int, partitions: int, count: int = 1) -> list[str]:
    """Threads that live in a partition."""
    from streambatch._keys import Keys

    keys = Keys("n", partitions)
    return [f"{n}" for n in range(1000) if keys.partition(f"{n}") == partition][:count]


async def test_everything_stored_carries_its_format(still: Bench) -> None:
    """v in entries, message bytes, replies and dead letters; the layout in meta."""
    side = await still.side()
    await side.submit("t", "a", "b")
    entry = (await still.admin.xrange(still.key("stream", "t")))[0][1]
    assert (entry["v"], json.loads(entry["m"])["v"]) == ("1", 1)
    assert await still.admin.hgetall(still.key("meta")) == {"layout": "1", "partitions": "1", "delivers": "1"}
    work = await side.work("t")
    await side.settle(work)
    assert json.loads(await still.admin.hget(still.key("run", "t"), "reply"))["v"] == 1
    await side.store.undelivered(work.lease, 0, "why", counted=True, final=True)
    letter = (await still.admin.xrange(still.key("dead")))[0][1]
    assert letter["v"] == "1"
    assert await side.desk.discard((await side.desk.dead(1, None))[0].id)


@pytest.mark.parametrize("runner", [None, "runs"])
async def test_a_newer_layout_is_refused_and_nothing_is_written(server: Server, namespace: str, runner: object) -> None:
    """A process of this release says what to do, and leaves the data of the newer one alone."""

    async def answer(batch: object) -> None: ...

    admin = server.admin()
    meta = f"sb1:{{{namespace}.00}}:meta"
    admin.hset(meta, mapping={"layout": "2", "partitions": "1", "something": "new"})
    before = {key: admin.dump(key) for key in keys_of(admin, namespace)}
    with pytest.raises(UsageError, match="layout 2"):
        async with BatchQueue(server.url, namespace=namespace, runner=answer if runner else None, log=False):
            pass
    after = {key: admin.dump(key) for key in keys_of(admin, namespace) if ":probe" not in key}
    assert after == before


VERBS: dict[str, Callable[[Any, Any], Any]] = {
    "submit": lambda side, work: side.submit("t", "x"),
    "claim": lambda side, work: side.claim("t"),
    "settle": lambda side, work: side.settle(work),
    "release": lambda side, work: side.store.release(work.lease, 0, give_back=True),
    "bury": lambda side, work: side.store.bury(work.lease, "", "why"),
    "touch": lambda side, work: side.desk.touch("t", 1),
    "pause": lambda side, work: side.desk.pause("t", on=True),
    "repair": lambda side, work: side.store.repair("t"),
    "peek": lambda side, work: side.ready(),
    "join": lambda side, work: side.store.join(),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("field", ["layout", "partitions"])
@pytest.mark.leaves_keys("the data of another configuration is left as it was")
async def test_a_process_that_is_overtaken_by_another_configuration_writes_nothing(
    still: Bench, verb: str, field: str
) -> None:
    """The check is in every script, not only at start: after a reconnect the data may be somebody else's."""
    side = await still.side()
    await side.submit("t", "a")
    work = await side.work("t")
    await side.batch(work)
    await still.admin.hset(still.key("meta"), field, "7")
    before = await still.dump()
    with pytest.raises(UsageError):
        await VERBS[verb](side, work)
    assert await still.dump() == before


@pytest.mark.leaves_keys("a newer release's fields are looked at")
async def test_unknown_fields_survive_dead_lettering_and_redrive(still: Bench) -> None:
    """A message of a newer release: its JSON fields, its stream fields and their order come back unchanged."""
    side = await still.side()
    body = json.dumps({"v": 1, "c": "hello", "z": {"deep": [1]}, "mood": "new"})
    await side.submit("t", "first")
    fields = {"v": "1", "id": "m1", "author": "me", "size": "44", "m": body, "reply_to": "x", ">": "odd", "e": "e"}
    await still.admin.xadd(still.key("stream", "t"), fields)
    await still.admin.hset(still.key("window", "t"), "n", 2)
    work = await side.work("t")
    batch = await side.batch(work)
    assert dict(batch.messages[1].extra) == {"z": {"deep": [1]}, "mood": "new"}
    assert await side.store.bury(work.lease, "", "why")
    letter = (await side.desk.dead(1, None))[0]
    assert [m.text for m in letter.messages] == ["first", "hello"]
    assert await side.desk.redrive(letter.id) == "redriven"
    entries = await still.admin.xrange(still.key("stream", "t"))
    assert list(entries[1][1].items()) == list(fields.items())
    work = await side.work("t")
    assert dict((await side.batch(work)).messages[1].extra) == {"z": {"deep": [1]}, "mood": "new"}
    await side.settle(work, "")


async def test_a_newer_releases_reply_and_hash_fields_are_passed_by(still: Bench) -> None:
    """Unknown fields in run, window, lease and in a reply's JSON disturb nobody."""
    side = await still.side()
    await side.submit("t", "a")
    for kind in ("window", "run", "lease", "last"):
        await still.admin.hset(still.key(kind, "t"), "new", "field")
    await still.admin.delete(still.key("run", "t"))
    work = await side.work("t")
    await still.admin.hset(still.key("run", "t"), "new", "field")
    await side.settle(work)
    raw = json.loads(await still.admin.hget(still.key("run", "t"), "reply"))
    await still.admin.hset(still.key("run", "t"), "reply", json.dumps({**raw, "new": [1]}))
    await side.store.release(work.lease, 0, give_back=True)
    claim = await side.claim("t")
    assert isinstance(claim, Handover)
    assert claim.read(side.store.setting).text == "answer"
    await side.store.delivered(claim.lease, go_on=False)


@pytest.mark.parametrize(("first", "second"), [(1, 4), (4, 1), (4, 2), (2, 4)])
async def test_another_number_of_partitions_is_refused(server: Server, namespace: str, first: int, second: int) -> None:
    """One thread must not live in two partitions."""
    async with BatchQueue(server.url, namespace=namespace, partitions=first, log=False):
        with pytest.raises(UsageError, match=f"partitions={first}"):
            async with BatchQueue(server.url, namespace=namespace, partitions=second, log=False):
                pass


async def test_another_number_of_partitions_is_refused_after_flushall(
    start_server: StartServer, namespace: str
) -> None:
    """FLUSHALL, then a process with another number comes first: the older process is refused in every partition."""
    server = start_server()
    async with BatchQueue(server.url, namespace=namespace, partitions=4, log=False) as four:
        server.admin().flushall()
        async with BatchQueue(server.url, namespace=namespace, partitions=2, log=False) as two:
            for partition in range(4):
                with pytest.raises(UsageError, match="partitions=2"):
                    await four.submit(threads_of(partition, 4)[0], "refused")
            await two.submit("t", "stored")
    with connect(server.admin_url) as admin:
        streams = [key for key in keys_of(admin, namespace) if ":stream:" in key]
    assert [key.endswith(":stream:t") for key in streams] == [True]


async def test_after_flushall_a_worker_keeps_its_namespace(start_server: StartServer, namespace: str) -> None:
    """A worker joins again by itself within a poll, and then the process with another number is the one refused."""

    async def answer(batch: object) -> None: ...

    server = start_server()
    async with BatchQueue(server.url, namespace=namespace, partitions=4, runner=answer, log=False):
        server.admin().flushall()
        meta = f"sb1:{{{namespace}.03}}:meta"
        await wait_for(lambda: server.admin().exists(meta), "the worker to join again")
        with pytest.raises(UsageError, match="partitions=4"):
            async with BatchQueue(server.url, namespace=namespace, partitions=2, log=False):
                pass


async def test_settings_of_one_namespace_may_differ_otherwise(server: Server, namespace: str) -> None:
    """Rolling a new configuration out: debounce, lease and limits may differ while both run."""
    old = Settings(lease=5, debounce=0.02)
    new = Settings(lease=1, debounce=0.01, max_batch=2)

    async def answer(batch: Any) -> str:
        return batch.text

    async with (
        BatchQueue(server.url, namespace=namespace, settings=old, runner=answer, log=False) as one,
        BatchQueue(server.url, namespace=namespace, settings=new, runner=answer, log=False) as two,
    ):
        receipts = [await queue.submit(f"t{n}", f"{n}") for n in range(6) for queue in (one, two)]
        assert all([await receipt.reply(timeout=10) for receipt in receipts])


class Teller:
    """A runner of a kind, which tells how many turns it was shown."""

    history = True

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.runs = 0

    async def run(self, batch: Batch, run: object) -> Answer:
        self.runs += 1
        return Answer(f"{self.kind} {len(batch.history)}", state={"by": self.kind}, turns=(batch.text,))


@pytest.mark.parametrize("way_out", ["the runner of before", "a new history"])
async def test_a_thread_that_another_kind_of_runner_made_waits(server: Server, namespace: str, way_out: str) -> None:
    """Nothing is run, lost or counted, `explain` says why, and both ways out that the runbook names go on."""
    opening: dict[str, Any] = {"namespace": namespace, "log": False, "debounce": 0, "max_attempts": 1}
    async with BatchQueue(server.url, runner=Teller("old"), **opening) as queue:
        assert await (await queue.submit("t", "one")).reply(20)
    events: list[Event] = []
    stranger = Teller("new")
    admin, prefix = server.admin(), f"sb1:{{{namespace}.00}}:"

    def refused() -> list[Retrying]:
        return [event for event in events if isinstance(event, Retrying)]

    def at_once() -> None:  # in place of its 30 s
        admin.hset(f"{prefix}run:t", "at", 0)
        admin.zadd(f"{prefix}due", {"t": 1})

    async with BatchQueue(server.url, runner=stranger, listeners=(events.append,), **opening) as queue:
        waits = await queue.submit("t", "two")
        for times in (1, 2, 3):  # more often than max_attempts
            await wait_for(lambda times=times: len(refused()) == times, "the refusal")
            at_once()
        await wait_for(lambda: len(refused()) == 4, "the last refusal")
        assert {(event.attempt, event.delay) for event in refused()} == {(1, 30.0)}
        reason = (await queue.explain("t")).reason
        assert "this thread's history was made by the runner kind old; this process has another kind" in reason
        assert (stranger.runs, await queue.dead_letters()) == (0, ())
        if way_out == "a new history":
            admin.delete(f"{prefix}head:t", f"{prefix}log:t")
            at_once()
            found = await waits.reply(20)
            assert found is not None
            assert found.text == "new 0"
            return
    at_once()
    async with BatchQueue(server.url, runner=Teller("old"), **opening) as queue:
        found = await (await queue.submit("t", "three")).reply(20)
        assert found is not None
        assert found.text == "old 2"
