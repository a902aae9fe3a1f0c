"""docs/testing.md can be followed alone: its files, copied as it says, are tests that pass somewhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.book import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
ANYIO = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_the_files_can_be_copied(tmp_path: Path) -> None:
    """The two that it names, and each test that it shows besides; with anyio's plugin, alone in a folder."""
    assert "\n`from tests.kit.bot import …`" in PAGE, "the page says what is to be changed"
    wanted = re.findall(r"`(from bot import [\w, ]+)`", PAGE)
    assert len(wanted) == 1
    (tmp_path / "bot.py").write_text((ROOT / "tests/kit/bot.py").read_text(encoding="utf-8"), encoding="utf-8")
    source, changed = re.subn(
        r"^from tests\.kit\.bot import .*$",
        wanted[0],
        (ROOT / "tests/kit/test_bot.py").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert changed == 1
    (tmp_path / "test_bot.py").write_text(source, encoding="utf-8")
    tests = [
        block
        for block in re.findall(r"^\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        if re.search(r"^async def test_", block, re.MULTILINE)
    ]
    assert tests, "a test of the page that stands in no file of ours, and so in one of its own"
    for place, block in enumerate(tests):
        (tmp_path / f"test_{place}.py").write_text(block, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(ANYIO, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nanyio_mode = "auto"\n', encoding="utf-8")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:valkey", "-p", "no:randomly"]
    # The package is found as an installed one is; its folder is no place where `tests` may be found by accident.
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "streambatch").symlink_to(ROOT / "streambatch")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    number = len(re.findall(r"^async def test_", "\n".join([source, *tests]), re.MULTILINE))
    assert f"{number} passed" in done.stdout


def test_the_page_names_what_a_test_needs() -> None:
    """The fixtures, all of them, and the line without which pytest-asyncio runs no async test."""
    plugin = (ROOT / "streambatch/testing/plugin.py").read_text(encoding="utf-8")
    fixtures = re.findall(r"^@pytest\.fixture\ndef (\w+)", plugin, re.MULTILINE)
    assert fixtures
    assert [name for name in fixtures if f"\n| `{name}` | " not in PAGE] == []
    assert '`asyncio_mode = "auto"`' in PAGE
