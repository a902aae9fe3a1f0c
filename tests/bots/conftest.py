"""The order of the tests of bots, and the bot that the tests of a Telegram example share.

Those tests that end a bot come last, because a start costs seconds (importing aiogram).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.bots.host import Host, hosting
from tests.fakes.bot_api import TOKEN, BotApi, serving

#: Seconds; a test may start a bot three times, and each wait of its own ends earlier (host.PATIENCE).
LONGEST = 180
ENDING = {"kill": 1, "sigterm": 2, "ctrl": 2}


@pytest.hookimpl(trylast=True)  # after the shuffling, whose order is kept for all others
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "bots":
            item.add_marker(pytest.mark.timeout(LONGEST))
    for name in (
        "test_telegram",
        "test_telegram_ptb",
        "test_telegram_streaming",
        "test_discord",
        "test_slack",
        "test_fastapi",
    ):
        places = [i for i, item in enumerate(items) if item.path.parent.name == "bots" and item.path.stem == name]
        ordered = sorted((items[i] for i in places), key=lambda item: ENDING.get(item.name.split("_")[1], 0))
        for i, item in zip(places, ordered, strict=True):
            items[i] = item


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[BotApi]:
    """Telegram; a module about another platform has a fixture of its own."""
    async with serving() as fake:
        yield fake


@pytest.fixture(scope="module")
async def bot(
    api: BotApi, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Host]:
    """The bot in the file that the module names as its EXAMPLE."""
    data: Path = tmp_path_factory.mktemp("telegram")
    env = {"TELEGRAM_API": api.url, "TELEGRAM_TOKEN": TOKEN, "TELEGRAM_DRAFTS": str(data / "drafts")}
    module = cast("Any", request.module)  # pyright: ignore[reportUnknownMemberType]
    async with hosting([module.EXAMPLE], env, data) as host:
        yield host
