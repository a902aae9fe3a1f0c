"""A place for the directories of a test, and the proof that nothing is left in it or running on it.

`home` is a short directory (so that the sockets fit) that is also the system's temporary directory for the test. After
the test no process has a file in it open, this process included, and its ``tmp`` is empty. Event loops must not block.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from tests.embedded.tools import users_of


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = Path(os.path.realpath(tempfile.mkdtemp(prefix="sb-")))
    (place / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place / "tmp"))
    monkeypatch.setenv("TMPDIR", str(place / "tmp"))
    monkeypatch.delenv("STREAMBATCH_SERVER", raising=False)
    yield place
    ends = time.monotonic() + 10
    while (left := users_of(place)) and time.monotonic() < ends:
        time.sleep(0.01)  # children of the test were killed a moment ago; their servers notice now
    leaked = [path.name for path in (place / "tmp").iterdir()]
    shutil.rmtree(place)
    assert not left, f"processes with open files: {left}"
    assert not leaked, f"left in the temporary directory: {leaked}"


@pytest.fixture(autouse=True)
def _never_blocking() -> Iterator[None]:
    blockbuster = BlockBuster(scanned_modules=["streambatch.embedded"])
    blockbuster.activate()
    yield
    blockbuster.deactivate()
