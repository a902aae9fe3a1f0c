"""A provider on loopback, and a runner that talks to it with the real SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from streambatch.runners import ResponsesRunner
from tests.fakes import provider as fakes
from tests.fakes.responses_server import Server, serving
from tests.runners.assistants_here import Desk, Sit, hire
from tests.runners.tools import Talk


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with serving() as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield fake


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[fakes.Provider]:
    async with fakes.serving() as made:
        monkeypatch.setenv("OPENAI_BASE_URL", made.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield made


@pytest.fixture
async def runner(provider: Server) -> AsyncIterator[ResponsesRunner]:
    made = ResponsesRunner(model="m", instructions="Be kind.", state="local")
    yield made
    await made.aclose()


@pytest.fixture
async def talk(fake: fakes.Provider) -> AsyncIterator[Talk]:
    """A thread whose history is a Conversation at the provider."""
    runner = ResponsesRunner(model="m", state="conversation")
    yield Talk(runner)
    await runner.aclose()


@pytest.fixture
async def sit(fake: fakes.Provider) -> AsyncIterator[Sit]:
    """Make conversations with an assistant: `sit(deadline=1)`."""
    hire(fake)
    made: list[Desk] = []

    def start(**more: Any) -> Desk:
        made.append(Desk(fake, **more))
        return made[-1]

    yield start
    for desk in made:
        await desk.runner.aclose()


@pytest.fixture
def desk(sit: Sit) -> Desk:
    """A conversation with an assistant."""
    return sit()


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark for the case that the project's list does not have it yet."""
    config.addinivalue_line("markers", "model: needs the local model (see streambatch/cli/_model.py); slow")
