"""Previews when something is wrong: they may be lost, late or few, but no Run and no memory depends on them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, Preview, UsageError
from streambatch import _relay as relays
from streambatch._relay import Outlet, Relay
from tests.conftest import StartChild, StartServer
from tests.integration.bench import Bench
from tests.integration.stage import Stage, all_of, kinds, text
from tests.rig import Server, wait_for

# ── processes ──


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_another_process_goes_on_and_the_old_one_shows_nothing(
    stage: Stage, start_child: StartChild, fault: str
) -> None:
    """After a crash the batch restarts elsewhere and its followers are told; a zombie that wakes is not heard (I3)."""
    child = await start_child("tests/integration/streamer.py", stage.server.url, stage.namespace, "3")
    await child.expect("open")
    receipt = await (await stage.web()).submit("t", "hi")
    following = receipt.events()
    assert [(await anext(following)).kind for _ in range(2)] == ["started", "text"]
    child.kill9() if fault == "killed" else child.sigstop()
    await stage.worker(lease=10)
    before = await anext(following)
    while before.kind == "text":
        before = await anext(following)
    assert (before.kind, before.attempt) == ("restarted", 2)
    fences = {row[0].split("-")[0] for row in shown(stage)}
    if fault == "frozen":
        child.sigcont()
        await child.expect("lost")
    stage.gate.set()
    assert text(await all_of(following)) == "Hello"
    assert {row[0].split("-")[0] for row in shown(stage)} == fences
    assert len(fences) == 2


def shown(stage: Stage, thread: str = "t") -> list[Any]:
    """What the server holds of a thread's previews."""
    return stage.server.admin().xrange(f"sb1:{{{stage.namespace}.00}}:events:{thread}")


async def test_a_zombies_outlet_is_closed(still: Bench) -> None:
    """I3: told that the lease is lost, a Run's outlet sends nothing more, and its end waits for nothing."""
    side, events = await still.side(), list[Any]()
    await side.submit("t", "a")
    work = await side.work("t")
    batch = await side.batch(work)
    relay = Relay(side.store, events.append)
    outlet = Outlet(relay, work)
    running = asyncio.create_task(relay.run())
    outlet.put(batch, "mine")
    key = still.key("events", "t")
    await wait_for(lambda: still.admin.xlen(key), "the first event")
    still.tick(30_000)
    again = await side.work("t")
    outlet.put(batch, "late")
    await wait_for(lambda: outlet.closed, "the outlet to be closed")
    outlet.put(batch, "later")
    await outlet.end()
    assert [fields.get("m") for _, fields in await still.admin.xrange(key)] == ["", '"mine"']
    assert relay.held == 0
    running.cancel()
    await asyncio.wait([running])
    await side.settle(again, "")


# ── the server ──


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_server_that_goes_away_costs_previews_and_no_run(
    start_server: StartServer, namespace: str, fault: str
) -> None:
    """A Run whose server is away while it emits is committed when the server is back, by the same attempt."""
    server = start_server(aof="always")
    # Redis 7.0 loads its AOF as the default user, see docs/runbook.md.
    server.admin().execute_command("ACL", "SETUSER", "default", "off", "allkeys", "allchannels", "+@all")
    server.admin().execute_command("ACL", "SAVE")
    stage = Stage(server, namespace)
    away, back = asyncio.Event(), asyncio.Event()

    async def streams(_: Batch, run: Any) -> str:
        run.emit("before ")
        await away.wait()
        for _word in range(1_000):
            run.emit("while ")
        await back.wait()
        run.emit("after")
        return "done"

    stage.play = streams
    async with stage.stack:
        await stage.worker(lease=10)
        receipt = await (await stage.web()).submit("t", "hi")
        following = receipt.events()
        assert [(await anext(following)).kind for _ in range(2)] == ["started", "text"]
        server.kill9() if fault == "killed" else server.stop()
        away.set()
        await asyncio.sleep(0)
        server.restart() if fault == "killed" else server.cont()
        back.set()
        reply = await receipt.reply(20)
        assert reply is not None
        assert (reply.text, len(stage.runs)) == ("done", 1)
        rest = await all_of(receipt.events(), 20)
        assert kinds(rest)[-1] == "end"
        assert "before " in text(rest)


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_a_server_that_stays_away_delays_the_end_of_a_run_by_a_moment(
    start_server: StartServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be shown is given up: the end of the Run does not wait for it longer than FLUSH."""
    monkeypatch.setattr(relays, "FLUSH", 0.05)
    bench = Bench(start_server(), namespace)
    side, events = await bench.side(), list[Any]()
    await side.submit("t", "a")
    work = await side.work("t")
    batch = await side.batch(work)
    relay = Relay(side.store, events.append)
    running = asyncio.create_task(relay.run())
    outlet = Outlet(relay, work)
    bench.server.stop()
    outlet.put(batch, "text")
    async with asyncio.timeout(2):
        await outlet.end()
    assert relay.held == 0
    bench.server.cont()
    running.cancel()
    await asyncio.wait([running])
    await side.settle(work, "")
    await bench.close()


@pytest.mark.standalone("a server with its own options or rights")
async def test_a_full_server_shows_nothing_and_runs_end(
    start_server: StartServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 5: at its maxmemory a server takes no previews; what waits is answered all the same, and at once."""
    monkeypatch.setattr(relays, "FLUSH", 60.0)
    server = start_server()
    stage = Stage(server, namespace)
    stage.gate.set()
    async with stage.stack:
        web = await stage.web()
        receipt = await web.submit("t", "hi", debounce=0.2)
        server.admin().config_set("maxmemory", "1")
        await stage.worker()
        assert kinds(await all_of(receipt.events())) == ["end"]
        reply = await receipt.reply(1)
        assert reply is not None
        assert reply.text == "Hello"
        assert shown(stage) == []
        server.admin().config_set("maxmemory", "0")


# ── what a Run may show ──


async def test_with_previews_0_nothing_leaves_the_process(stage: Stage) -> None:
    """The listeners of the process see the text as ever, and nobody else does."""
    stage.gate.set()
    await stage.worker(previews=0)
    receipt = await (await stage.web()).submit("t", "hi")
    assert kinds(await all_of(receipt.events())) == ["end"]
    assert shown(stage) == []
    assert [event.data for event in stage.events if isinstance(event, Preview)] == ["Hel", "lo"]


async def test_a_run_that_emits_nothing_costs_nothing(stage: Stage) -> None:
    """No key, no call, no connection: as if there were no previews."""

    async def quiet(_: Batch, run: Any) -> str:
        return "done"

    stage.play = quiet
    worker: Any = await stage.worker()
    receipt = await (await stage.web()).submit("t", "hi")
    assert await receipt.reply(10) is not None
    assert worker._open.relay._wires._wires[0]._held is None
    assert not stage.server.admin().exists(f"sb1:{{{stage.namespace}.00}}:events:t")


async def test_a_run_shows_a_bounded_part_from_the_beginning(stage: Stage) -> None:
    """Beyond max_answer_bytes nothing of a Run is kept: the text is a prefix without a hole, and the Run ends well."""

    async def endless(_: Batch, run: Any) -> str:
        for number in range(3_000):
            run.emit(f"{number:03} ")
        return "done"

    stage.play = endless
    worker: Any = await stage.worker(max_answer_bytes=4_096)
    seen = await all_of((await (await stage.web()).submit("t", "hi")).events())
    whole = "".join(f"{number:03} " for number in range(3_000))
    assert 3_000 < len(text(seen)) <= 4_096
    assert whole.startswith(text(seen))
    assert worker._open.relay.held == 0
    assert len(stage.warned()) == 1


async def test_all_runs_together_keep_a_bounded_amount(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process holds no more than TOTAL of what it could not send yet."""
    monkeypatch.setattr(relays, "TOTAL", 1_000)
    most = 0

    async def much(_: Batch, run: Any) -> str:
        nonlocal most
        for _word in range(50):
            run.emit("x" * 40)
            most = max(most, worker._open.relay.held)
        return "done"

    stage.play = much
    worker: Any = await stage.worker()
    web = await stage.web()
    receipts = [await web.submit(f"t{number}", "hi", now=True) for number in range(5)]
    for receipt in receipts:
        assert await receipt.reply(10) is not None
    assert 500 < most <= 1_000
    assert worker._open.relay.held == 0


async def test_of_data_in_a_hurry_the_newest_is_kept(stage: Stage) -> None:
    """A progress bar that moves a thousand times ends where it ended; the text around it is whole."""

    async def progress(_: Batch, run: Any) -> str:
        for number in range(1_000):
            run.emit({"done": number})
            run.emit(f"{number} ")
        return "done"

    stage.play = progress
    await stage.worker()
    seen = await all_of((await (await stage.web()).submit("t", "hi")).events())
    data = [event.data["done"] for event in seen if event.kind == "data"]
    assert data[-1] == 999
    assert data == sorted(data)
    assert len(data) <= relays.MOST_DATA + 2
    assert text(seen) == "".join(f"{number} " for number in range(1_000))
    assert len(stage.warned()) == 1


class Broken:
    """A codec that cannot encode some previews."""

    def encode(self, data: bytes, context: bytes) -> bytes:
        """Fail."""
        if context.startswith(b"preview") and b"Hel" in data:
            raise ValueError("no key")
        return data

    def decode(self, data: bytes, context: bytes) -> bytes:
        """Nothing."""
        return data


async def test_a_codec_that_fails_costs_an_event(stage: Stage) -> None:
    """What cannot be encoded is left out, said once and without content, and the Run ends well."""
    await stage.worker(codec=Broken())
    receipt = await (await stage.web()).submit("t", "hi")
    following = receipt.events()
    assert (await anext(following)).kind == "started"
    stage.gate.set()
    assert text(await all_of(following)) == "lo"
    assert stage.warned() == ["the codec cannot encode a preview: ValueError"]


@pytest.mark.parametrize("wrong", [-1, 101, "20", True, None])
def test_previews_is_checked(wrong: Any) -> None:
    """A number from 0 to 100."""
    with pytest.raises(UsageError, match="previews"):
        BatchQueue("redis://localhost", previews=wrong)


def test_hear_previews_is_checked() -> None:
    """True or False."""
    with pytest.raises(UsageError, match="hear_previews"):
        BatchQueue("redis://localhost", hear_previews="yes")  # pyright: ignore[reportArgumentType]


async def test_foreign_entries_among_previews_are_passed_over(stage: Stage, server: Server) -> None:
    """A kind of a later release, and what is not ours, disturbs no follower."""
    await stage.worker()
    receipt = await (await stage.web(hear_previews=True)).submit("t", "hi")
    following = receipt.events()
    started = await anext(following)
    fence = started.id.split("-")[0]
    row = shown(stage)[0][1]
    key = f"sb1:{{{stage.namespace}.00}}:events:t"
    await anext(following)
    server.admin().xadd(key, {**row, "k": "later"}, id=f"{fence}-100")
    server.admin().xadd(key, {"x": "y"}, id=f"{fence}-101")
    server.admin().xadd(key, {**row, "k": "text", "f": "odd"}, id=f"{fence}-102")
    stage.gate.set()
    rest = await all_of(following)
    assert kinds(rest) == ["end"]  # the Run's own later events have lower ids than these
