"""The examples stay short enough to read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.rig.process import ROOT

#: Lines of code that make an example: neither empty nor a comment nor its docstring.
LINES = 60
#: What these show besides: a word that begins anew; photos for the model; edits; threads, a status and a stop word; a
#: web API with a stream. And those of Telegram that a second Ctrl-C ends at once, which their frameworks do not hear.
MORE = {"telegram_aiogram": 62, "telegram_ptb": 69, "telegram_streaming": 61, "slack_bot": 68, "fastapi_sse": 68}


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_stays_short_enough_to_read(example: Path) -> None:
    """What would make it longer becomes a feature of the queue."""
    code = re.sub(r'\A""".*?"""\n', "", example.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]) <= MORE.get(
        example.stem, LINES
    )
