"""A provider on loopback, and chats that talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.tools import Chat
from tests.fakes.responses_server import Server, serving

StartChat = Callable[..., Awaitable[Chat]]


@pytest.fixture
async def provider() -> AsyncIterator[Server]:
    async with serving() as fake:
        yield fake


@pytest.fixture
async def start_chat(tmp_path: Path) -> AsyncIterator[StartChat]:
    """Start chats in one folder; what still runs at the end of the test is killed."""
    started: list[Chat] = []

    async def start(
        url: str | None, *options: str, terminal: bool = False, stdout: int | None = None, **env: str
    ) -> Chat:
        started.append(await Chat.start(tmp_path, url, *options, terminal=terminal, stdout=stdout, env=env))
        return started[-1]

    yield start
    for chat in started:
        if chat.child.returncode is None:
            with suppress(ProcessLookupError):
                chat.child.kill()
            await asyncio.wait_for(chat.end(), 10)


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark for the case that the project's list does not have it yet."""
    config.addinivalue_line("markers", "model: needs the local model (see streambatch/cli/_model.py); slow")
