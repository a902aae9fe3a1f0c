"""`streambatch replay`: a recorded chat, what windows make of it, and lines that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streambatch._settings import Settings
from streambatch.cli import _replay
from tests.cli.terminal import Terminal
from tests.cli.tools import quick

SECRET = "canary-text"


def record(folder: Path, *rows: tuple[str, float] | tuple[str, float, str]) -> str:
    """A file of messages: thread, seconds, author."""
    file = folder / "chat.jsonl"
    lines = [dict(zip(("thread", "seconds", "author"), row, strict=False)) | {"text": SECRET} for row in rows]
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return str(file)


async def played(file: str, *options: str) -> list[tuple[int, float, float]]:
    """Runs, p50 and p95 of each window."""
    code, out, err = await quick("replay", file, "--json", *options)
    assert code == 0, err
    assert SECRET not in out
    return [(one["runs"], one["p50"], one["p95"]) for one in json.loads(out)["windows"]]


BURST = (("a", 0.0), ("a", 1.0), ("b", 1.5), ("a", 2.0), ("a", 20.0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--debounce", "0"), (5, 0.0, 0.0)),  # at once: a Run each
        (("--debounce", "0.5"), (5, 0.5, 0.5)),
        (("--debounce", "2"), (3, 2.0, 4.0)),  # 0, 1, 2 are one Run at 4
        (("--debounce", "2", "--max-wait", "1.5"), (4, 1.5, 1.5)),  # 0 and 1 at 1.5, then 2, 20 and b alone
        (("--debounce", "2", "--max-batch", "2"), (4, 2.0, 2.0)),  # full at 1
        (("--debounce", "30", "--max-wait", "30"), (2, 29.0, 30.0)),
        (("--debounce", "0", "--run", "1.5"), (5, 0.0, 1.0)),  # 1 waits for the Run of 0, then 2 for that of 1
        (("--debounce", "0", "--run", "3"), (4, 0.0, 2.0)),  # 1 and 2 are one Run at 3
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else "",
)  # fmt: skip
async def test_a_chat_is_played_through_the_window(tmp_path: Path, options: tuple[str, ...], expected: Any) -> None:
    more = () if "--max-wait" in options else ("--max-wait", "15")
    assert await played(record(tmp_path, *BURST), *options, *more) == [expected]


async def test_times_are_put_in_order_and_zones_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    times = ("2026-05-01T14:00:01+02:00", "2026-05-01T12:00:00Z", "2026-05-01T12:00:02")
    file.write_text("\n".join(json.dumps({"thread": 7, "at": at}) for at in times))
    assert await played(str(file), "--debounce", "1.5", "--max-wait", "15") == [(1, 2.5, 3.5)]


async def test_authors_are_kept_apart_when_asked(tmp_path: Path) -> None:
    file = record(tmp_path, ("a", 0.0, "ann"), ("a", 0.1, "ben"), ("a", 0.2, "ben"))
    assert (await played(file, "--debounce", "1", "--max-wait", "15"))[0][0] == 1
    assert (await played(file, "--debounce", "1", "--max-wait", "15", "--split-authors"))[0][0] == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "it is not JSON"),
        ("[1]", "a JSON object is needed, not a list"),
        ('{"seconds": 1}', "the field thread is missing"),
        ('{"thread": true, "seconds": 1}', "thread is a text or a whole number, not true or false"),
        ('{"thread": 1.5, "seconds": 1}', "thread is a text or a whole number, not a number"),
        ('{"thread": "a"}', "it needs seconds or at, and not both"),
        ('{"thread": "a", "seconds": 1, "at": "2026-05-01"}', "it needs seconds or at, and not both"),
        ('{"thread": "a", "seconds": "canary-text"}', "seconds is a number, not a text"),
        ('{"thread": "a", "seconds": NaN}', "seconds is a number"),
        ('{"thread": "a", "seconds": Infinity}', "seconds is too large, 1,000,000,000,000 is the most"),
        ('{"thread": "a", "seconds": -1e306}', "seconds is too large"),
        (f'{{"thread": "a", "seconds": {"7" * 400}}}', "seconds is too large"),
        ('{"thread": "a", "text": ' + "[" * 100_000, "it is nested too deeply"),
        ('{"thread": "a", "at": "canary-text"}', "at is a time in ISO 8601, as in 2026-05-01T12:00:00Z"),
        ('{"thread": "a", "at": 5}', "at is a time in ISO 8601"),
    ],
)
async def test_a_wrong_line_is_named_and_never_quoted(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(f'{{"thread": "a", "seconds": 0}}\n\n{line}\n')
    code, out, err = await quick("replay", str(file))
    assert (code, out) == (2, "")
    assert err.startswith(f"streambatch: {file}, line 3: {words}")
    assert SECRET not in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--debounce", "x"), "--debounce is a list of seconds"),
        (("--max-wait", "-1"), "--max-wait: 0 to 86,400 seconds are possible"),
        (("--debounce", ",".join(map(str, range(60)))), "windows are too many"),
    ],
)
async def test_wrong_options_are_refused(tmp_path: Path, options: tuple[str, str], words: str) -> None:
    code, out, err = await quick("replay", record(tmp_path, ("a", 0.0)), *options)
    assert (code, out) == (2, "")
    assert words in err


async def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    code, _, err = await quick("replay", str(tmp_path / "none"))
    assert (code, "cannot be read: No such file" in err) == (2, True)
    (tmp_path / "empty").touch()
    code, _, err = await quick("replay", str(tmp_path / "empty"))
    assert (code, "has no messages" in err) == (2, True)


async def test_the_table_and_the_plot(tmp_path: Path) -> None:
    terminal = await Terminal.start("replay", record(tmp_path, *BURST), size=(80, 45))
    try:
        assert await terminal.end() == 0
    finally:
        await terminal.close()
    lines = terminal.lines
    assert lines[0] == "5 messages in 2 threads; one Run each would be 5 Runs"
    (usual,) = [line for line in lines if line.endswith("the default")]
    assert usual.split() == ["k", "2", "s", "15", "s", "3", "40%", "2.0", "s", "4.0", "s", "the", "default"]
    assert any(line.startswith(" 100% │") for line in lines)
    assert "added wait, p95" in terminal.text


def test_the_plot_has_each_letter_where_its_numbers_are() -> None:
    lines = _replay.plot([(0.0, 0.0), (4.0, 1.0), (2.0, 0.5), (2.0, 0.5)])
    field = [line[7:] for line in lines[1:13]]
    assert field[11] == "a"
    assert field[0] == " " * 59 + "b"
    assert sum(line.count("c") for line in field) == 1
    assert "d" not in "".join(field)
    assert _replay.plot([(0.0, 0.0)])[12].endswith("│a")


def test_the_default_is_that_of_the_settings() -> None:
    assert (Settings().debounce, Settings().max_wait) == _replay.USUAL
    assert _replay.USUAL[0] in _replay.DEBOUNCES
    assert _replay.USUAL[1] in _replay.MAX_WAITS
