"""Streams that are closed, full or of a poor encoding: an answer or one sentence, never a traceback."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.cli.tools import environment

LINE = '{"thread": "a", "seconds": 0}\n'


async def shell(words: str, **env: str) -> tuple[int | None, str, str]:
    """Run the command line as a shell does, with its redirections: the exit code, stdout, stderr."""
    child = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$0" -m streambatch {words}', sys.executable),
        env=environment(None) | env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    return child.returncode, out.decode("latin-1"), err.decode()


@pytest.fixture
def chat(tmp_path: Path) -> str:
    file = tmp_path / "chat.jsonl"
    file.write_text(LINE)
    return str(file)


async def test_a_poor_encoding_shows_escapes(chat: str) -> None:
    code, out, err = await shell(f"replay {chat}", PYTHONIOENCODING="latin-1")
    assert (code, err) == (0, "")
    assert "\\u2502" in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("option", ["", "--json"])
async def test_an_output_that_is_full_is_a_sentence(chat: str, option: str) -> None:
    code, _, err = await shell(f"replay {chat} {option} >/dev/full")
    assert (code, err) == (2, "streambatch: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
async def test_closed_outputs_are_nobodys_wish(chat: str, closed: str) -> None:
    code, _, err = await shell(f"replay {chat} {closed}")
    assert (code, err) == (0, "")


async def test_a_closed_input_has_no_messages() -> None:
    code, out, err = await shell("replay - <&-")
    assert (code, out) == (2, "")
    assert err.startswith("streambatch: the standard input has no messages")
