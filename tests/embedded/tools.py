"""What the tests of the embedded server share."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from streambatch.embedded import EmbeddedServer
from tests.rig.moments import wait_for

APP = "tests/embedded/app.py"
SERVERS = ("valkey-server", "redis-server")


@asynccontextmanager
async def using(url: str, *, run: bool = False) -> AsyncGenerator[EmbeddedServer]:
    """An open server, with its `run` in a task if wanted."""
    server = await EmbeddedServer.open(url)
    task = asyncio.create_task(server.run()) if run else None
    try:
        yield server
    finally:
        if task:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task
        await server.aclose()


async def ask(server: EmbeddedServer | str, *command: str) -> object:
    """The answer to one command on a connection of its own."""
    path = server if isinstance(server, str) else server.socket
    async with Redis(unix_socket_path=path, decode_responses=True) as redis:
        return await redis.execute_command(*command)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


async def setting(server: EmbeddedServer, name: str) -> str:
    """The value a server's setting has now."""
    async with Redis(unix_socket_path=server.socket, decode_responses=True) as redis:
        return str((await redis.config_get(name))[name])  # pyright: ignore[reportUnknownMemberType]


async def pid_of(server: EmbeddedServer | str) -> int:
    path = server if isinstance(server, str) else server.socket
    async with Redis(unix_socket_path=path) as redis:
        return int((await redis.info("server"))["process_id"])  # pyright: ignore[reportUnknownMemberType]


async def back(server: EmbeddedServer | str, *, instead_of: int) -> int:
    """Wait until another server than the one before answers on the socket, and return its process id."""

    async def other() -> int:
        with contextlib.suppress(OSError, ConnectionError, Exception):
            pid = await pid_of(server)
            return 0 if pid == instead_of else pid
        return 0

    return await wait_for(other, "a new server on the old socket", deadline=20)


def alive(pid: int) -> bool:
    """Whether a process lives; one that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def gone(pid: int) -> None:
    await wait_for(lambda: not alive(pid), f"the end of process {pid}", deadline=20)


def open_files(pid: str | int) -> list[str]:
    """Where the descriptors of a process lead; of one that has ended, nowhere."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(link))  # noqa: PTH115 - it may lead to no path
    return found


def users_of(place: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, list[str]]:
    """The processes that have files below a directory open, by process id and name."""
    users: dict[str, list[str]] = {}
    for pid in filter(str.isdigit, (path.name for path in Path("/proc").iterdir())):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            files = [file for file in open_files(pid) if file.startswith(f"{place}/")] if wanted(name) else []
            if files:
                users[f"{pid} {name}"] = files
    return users


def servers_on(directory: Path) -> list[int]:
    """The servers that have the AOF of a directory open."""
    users = users_of(directory / "appendonlydir", lambda name: name.startswith(SERVERS))
    return [int(user.split()[0]) for user in users]
