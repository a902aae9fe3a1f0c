"""Several processes on one directory, killed in every way: who takes over, what is kept, and who is alone."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
from pathlib import Path
from typing import Self

import pytest

from streambatch import embedded
from tests.conftest import StartChild
from tests.embedded.test_open import LONG
from tests.embedded.tools import APP, alive, ask, back, gone, parent_of, pid_of, servers_on, using
from tests.rig.moments import wait_for
from tests.rig.process import Child

OPEN = r"open (True|False) (\d+) (.+)"


async def opened(child: Child) -> tuple[bool, int, str]:
    """Whether the app found itself alone, its server's process id and socket."""
    match = await child.expect(OPEN)
    return match[1] == "True", int(match[2]), match[3]


async def acked(child: Child) -> int:
    """Let the app count by one, and return the value the server acknowledged."""
    await child.send("incr")
    return int((await child.expect(r"acked (\d+)"))[1])


def last_ack(child: Child) -> int:
    """The last value it wrote down; the kill may have cut it short."""
    return int(next(line for line in reversed(child.lines) if re.fullmatch(r"acked \d+", line)).split()[1])


@pytest.mark.parametrize("name", ["data", "a 'b' ü", LONG], ids=["plain", "odd", "long"])
async def test_when_the_holder_is_killed_the_other_brings_the_server_back_on_the_same_socket(
    home: Path, start_child: StartChild, name: str
) -> None:
    holder = await start_child(APP, f"embedded:{home}/{name}")
    alone, server, socket = await opened(holder)
    assert alone
    other = await start_child(APP, f"embedded:{home}/{name}")
    assert await opened(other) == (False, server, socket)
    assert [await acked(holder), await acked(other), await acked(holder)] == [1, 2, 3]
    holder.kill9()
    assert await acked(other) == 4
    assert await back(socket, instead_of=server) in servers_on(home / name)
    third = await start_child(APP, f"embedded:{home}/{name}")
    assert (await opened(third))[0] is False
    assert await acked(third) == 5
    for child in (third, other):
        await child.send("close")
        await child.expect("closed")


async def test_when_the_holder_leaves_in_peace_the_other_goes_on(home: Path, start_child: StartChild) -> None:
    holder = await start_child(APP, f"embedded:{home}/data")
    await opened(holder)
    other = await start_child(APP, f"embedded:{home}/data")
    await opened(other)
    assert await acked(holder) == 1
    await holder.send("close")
    await holder.expect("closed")
    assert await acked(other) == 2


async def test_the_server_goes_with_the_only_process_even_by_kill_9(home: Path, start_child: StartChild) -> None:
    app = await start_child(APP, f"embedded:{home}/data")
    _, server, _ = await opened(app)
    assert alive(server)
    app.kill9()
    await gone(server)


async def test_a_restart_right_after_kill_9_is_alone_and_has_all_data(home: Path, start_child: StartChild) -> None:
    for expected in (1, 3, 5):
        app = await start_child(APP, f"embedded:{home}/data")
        assert (await opened(app))[0] is True
        assert await acked(app) == expected
        assert await acked(app) == expected + 1
        app.kill9()


async def test_who_opens_beside_a_living_process_is_not_alone_though_the_holder_was_killed(
    home: Path, start_child: StartChild
) -> None:
    holder = await start_child(APP, f"embedded:{home}/data")
    await opened(holder)
    bystander = await start_child(APP, f"embedded:{home}/data", "stay")
    await opened(bystander)
    holder.kill9()
    await holder.wait()
    async with using(f"embedded:{home}/data") as server:
        assert not server.alone
        assert await ask(server, "INCR", "n") == 1
    bystander.kill9()
    await bystander.wait()
    async with using(f"embedded:{home}/data") as server:
        assert server.alone


class Watch:
    """Looks without pause how many servers have the AOF of a directory open."""

    def __init__(self, directory: Path) -> None:
        self.most, self.looks = 0, 0
        self._directory, self._over = directory, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.001):
            self.most, self.looks = max(self.most, len(servers_on(self._directory))), self.looks + 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


async def test_never_two_servers_on_one_aof_and_nothing_acknowledged_is_lost_in_20_kills(
    home: Path, start_child: StartChild
) -> None:
    url, known = f"embedded:{home}/data", 0
    with Watch(home / "data") as watch:
        for round_ in range(20):
            app = await start_child(APP, url)
            assert (await opened(app))[0] is True
            await app.send("count")
            first = int((await app.expect(r"acked (\d+)"))[1])
            assert first > known, "an acknowledged write was lost"
            await wait_for(lambda app=app, start=first: last_ack(app) >= start + 50, "50 acknowledged writes")
            if round_ % 3 == 2:  # two killings at once: the server must not survive its watchdog's attention either
                with contextlib.suppress(ProcessLookupError):
                    os.kill(servers_on(home / "data")[0], signal.SIGKILL)
            app.kill9()
            known = first + 50
            if round_ % 2:
                await app.wait()
                async with using(url) as server:  # at once: the old server needs 100 ms for its end
                    # An app killed while it restarts a server leaves a fork that holds its locks until it execs.
                    assert server.alone or round_ % 3 == 2
                    assert int(str(await ask(server, "INCR", "n"))) > last_ack(app)
                known = last_ack(app) + 1
    assert watch.most == 1
    assert watch.looks > 20


async def test_never_two_servers_when_those_who_share_it_are_killed_in_turn(
    home: Path, start_child: StartChild
) -> None:
    url = f"embedded:{home}/data"
    apps = [await start_child(APP, url) for _ in range(2)]
    for app in apps:
        await opened(app)
    with Watch(home / "data") as watch:
        for turn in range(6):
            await apps[-1].send("count")
            await apps[-1].expect("acked")
            apps.pop(0).kill9()
            before = last_ack(apps[0])
            await wait_for(
                lambda apps=apps, before=before: last_ack(apps[0]) >= before + 10, f"the others going on, turn {turn}"
            )
            apps.append(await start_child(APP, url))
            assert (await opened(apps[-1]))[0] is False
    assert watch.most == 1


async def test_ctrl_c_reaches_the_app_only_so_it_drains_with_its_server_alive(
    home: Path, start_child: StartChild
) -> None:
    app = await start_child("tests/embedded/group.py", f"embedded:{home}/data")
    _, server, _ = await opened(app)
    assert os.getpgid(app.pid) == app.pid != os.getpgid(server)
    assert os.getsid(server) != os.getsid(app.pid)
    os.killpg(app.pid, signal.SIGINT)
    await app.expect("draining True")
    await app.expect("closed")
    assert await app.wait() == 0
    assert not alive(server)


async def test_a_server_that_was_killed_is_restarted_with_its_data(home: Path) -> None:
    async with using(f"embedded:{home}/data", run=True) as server:
        for expected in range(1, 5):
            assert await ask(server, "INCR", "n") == expected
            pid = await pid_of(server)
            os.kill(pid, signal.SIGKILL)
            assert await back(server, instead_of=pid) in servers_on(home / "data")
            await gone(pid)
        assert server.trouble is None


async def test_a_lost_connection_is_not_a_lost_server(home: Path) -> None:
    async with using(f"embedded:{home}/data", run=True) as server:
        pid = await pid_of(server)
        killed = await ask(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert killed == 1
        await wait_for(lambda: server._stream is not None and connections(server), "its new connection")
        assert await pid_of(server) == pid
        assert servers_on(home / "data") == [pid]


async def connections(server: embedded.EmbeddedServer) -> bool:
    return len(str(await ask(server, "CLIENT", "LIST")).split("id=")) - 1 >= 2


async def test_a_forked_child_keeps_neither_the_server_nor_the_locks(home: Path, start_child: StartChild) -> None:
    app = await start_child(APP, f"embedded:{home}/data")
    _, server, _ = await opened(app)
    await app.send("fork")
    child = int((await app.expect(r"forked (\d+)"))[1])
    try:
        app.kill9()
        await gone(server)
        async with using(f"embedded:{home}/data") as again:
            assert again.alone
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_server_whose_watchdog_was_killed_is_ended_by_the_next_holder(
    home: Path, start_child: StartChild
) -> None:
    app = await start_child(APP, f"embedded:{home}/data")
    _, orphan, _ = await opened(app)
    assert await acked(app) == 1
    shell = parent_of(orphan)
    os.kill(shell, signal.SIGKILL)
    await gone(shell)
    app.kill9()
    await app.wait()
    assert alive(orphan)
    async with using(f"embedded:{home}/data") as server:
        assert server.alone
        assert not alive(orphan)
        assert await ask(server, "INCR", "n") == 2


async def test_a_server_that_hangs_is_killed_at_the_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await embedded.EmbeddedServer.open(f"embedded:{home}/data")
    pid = await pid_of(server)
    monkeypatch.setattr(embedded, "_PATIENCE", 0.2)
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(10):
        await server.aclose()
    await gone(pid)
