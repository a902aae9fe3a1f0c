"""The provider on loopback, and the real SDK that talks to it without retries of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from tests.fakes.provider import Provider, serving


@pytest.fixture
async def fake() -> AsyncIterator[Provider]:
    async with serving() as provider:
        yield provider


@pytest.fixture
async def client(fake: Provider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=fake.url, api_key="none", max_retries=0) as made:
        yield made
