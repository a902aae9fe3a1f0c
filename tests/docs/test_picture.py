"""docs/burst.svg is drawn from a real run by a script that still works."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from streambatch import BatchQueue, Started
from streambatch.testing import Bench
from tests.docs.book import ROOT

SCRIPT = ROOT / "docs" / "make_burst_picture.py"


def _script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("make_burst_picture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


async def test_the_script_records_three_messages_in_one_run_and_the_fourth_in_the_next(
    monkeypatch: pytest.MonkeyPatch, streambatch_bench: Bench
) -> None:
    """What the picture shows is what the queue does; here on a server in memory and a clock that takes no time."""
    script, clock = _script(monkeypatch), streambatch_bench.clock

    def queue(url: str, **settings: Any) -> BatchQueue:
        assert url == "embedded:"
        return BatchQueue(streambatch_bench.url, **settings)

    monkeypatch.setattr(script, "BatchQueue", queue)
    monkeypatch.setattr(script, "time", SimpleNamespace(monotonic=lambda: clock.elapsed))
    notes = await script.record()
    assert [note.event.messages for note in notes if isinstance(note.event, Started)] == [3, 1]
    assert [note.at for note in notes if isinstance(note.event, Started)] == [pytest.approx(at) for at in (3.7, 6.5)]
    assert "Run 1: 3 messages" in script.draw(notes)


def test_the_picture_is_whole_and_says_what_it_shows() -> None:
    """Well-formed, with a title for who cannot see it, and no font that a machine may lack."""
    text = Path(SCRIPT).with_name("burst.svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert root.get("font-family") == "sans-serif"
    assert "Run 1: 3 messages" in text
    assert "Run 2: 1 message" in text
