"""Streams that are closed, full or of a poor encoding: an answer or one sentence, never a traceback."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.cli.tools import environment

FULL = "streambatch: the output cannot be written: No space left on device\n"
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
    assert (code, err) == (2, FULL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("words", ["--help", "--version", "top --help", "dead", "doctor --url embedded:"])
async def test_help_and_every_other_way_to_end_know_a_full_output(words: str) -> None:
    assert await shell(f"{words} >/dev/full") == (2, "", FULL)


@pytest.mark.parametrize("words", ["--help", "--version", "doctor --url embedded:"])
async def test_a_reader_that_is_gone_is_no_error_of_any_verb(words: str) -> None:
    """rich and typer both make exit code 1 of it, which says something else here."""
    mine, theirs = os.pipe()
    os.close(mine)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streambatch", *words.split()),
        env=environment(None), stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    _, err = await child.communicate()
    assert (child.returncode, err) == (0, b"")


async def test_what_happens_may_be_unheard_and_the_work_goes_on() -> None:
    """stderr is a pipe to a log collector that has died; what was asked for is on stdout all the same."""
    mine, theirs = os.pipe()
    os.close(mine)
    work = "from streambatch.cli._told import status; note = status(); note('one'); note('two'); print('answer')"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", work), env=environment(None), stdout=asyncio.subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    out, _ = await child.communicate()
    assert (child.returncode, out) == (0, b"answer\n")


@pytest.mark.parametrize("words", ["no-such-verb", "replay nowhere.jsonl"])
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
async def test_what_is_wrong_keeps_its_exit_code_if_nobody_hears_of_it(words: str, closed: str) -> None:
    assert await shell(f"{words} {closed}") == (2, "", "")


async def test_without_its_extra_the_command_line_says_what_to_install() -> None:
    lacks = "import sys; sys.modules['typer'] = None; from streambatch.cli import main; main()"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", lacks), env=environment(None), stderr=asyncio.subprocess.PIPE
    )
    _, err = await child.communicate()
    assert child.returncode == 2
    assert err.decode() == 'streambatch: the command line needs typer: pip install "streambatch-queue[cli]"\n'


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
async def test_closed_outputs_are_nobodys_wish(chat: str, closed: str) -> None:
    code, _, err = await shell(f"replay {chat} {closed}")
    assert (code, err) == (0, "")


async def test_a_closed_input_has_no_messages() -> None:
    code, out, err = await shell("replay - <&-")
    assert (code, out) == (2, "")
    assert err.startswith("streambatch: the standard input has no messages")
