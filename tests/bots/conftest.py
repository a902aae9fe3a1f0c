"""The order of the tests of bots: those that end a bot come last, because a start costs seconds (importing aiogram)."""

from __future__ import annotations

import pytest

ENDING = {"kill": 1, "sigterm": 2, "ctrl": 2}


@pytest.hookimpl(trylast=True)  # after the shuffling, whose order is kept for all others
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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
