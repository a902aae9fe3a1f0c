"""The pytest plugin: its fixtures in runs of pytest of their own, and how little it costs everybody else."""

from __future__ import annotations

import ast
import asyncio
import doctest
import os
import subprocess
import sys
import tomllib
import unittest
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import streambatch
from streambatch import BatchQueue, UsageError, testing
from streambatch.testing import Bench, Clock, ScriptedDeliver, ScriptedRunner, assert_replies
from streambatch.testing._given import NO_LOOP
from tests.rig.process import ROOT

ENTRY = "streambatch.testing.plugin"

IN_PYTEST = """
import asyncio
import pytest
from streambatch.testing import ScriptedDeliver, ScriptedRunner, settled

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def life(queues, clock):
    deliver = ScriptedDeliver()
    async with queues(runner=ScriptedRunner("a"), deliver=deliver) as queue:
        await queue.submit("t", "hi")
        await clock.advance(2)
        assert deliver.texts() == ["a"]
        await settled(queue)
        assert (await queue.stats()).received == 1

@pytest.mark.anyio
async def test_with_anyio(streambatch_queue, streambatch_clock):
    await life(streambatch_queue, streambatch_clock)

def test_with_a_loop_of_its_own(streambatch_queue, streambatch_clock):
    asyncio.run(life(streambatch_queue, streambatch_clock))

def test_the_bench_has_both(streambatch_bench, streambatch_queue, streambatch_clock):
    assert streambatch_bench.clock is streambatch_clock
    assert streambatch_queue == streambatch_bench.queue
"""

STUCK = """
import asyncio
from streambatch.testing import Bench, ScriptedRunner

def test_that_forgets_to_resume():
    async def life():
        async with bench.queue(runner=ScriptedRunner()) as queue:
            await queue.pause("t")
            await (await queue.submit("t", "hi")).reply()
    with Bench(limit=60) as bench:
        asyncio.run(life())
"""


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a user's test file in a pytest of its own."""
    (folder / "test_users.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        ENTRY,
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "--timeout=30",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_fixtures_fit_anyio_and_loops_that_a_test_makes(tmp_path: Path) -> None:
    done = run(tmp_path, IN_PYTEST)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_test_that_waits_for_ever_fails_soon_and_says_why(tmp_path: Path) -> None:
    done = run(tmp_path, STUCK)
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "did not happen in 60 s of its clock" in done.stdout


class InUnittest(unittest.IsolatedAsyncioTestCase):
    """The bench needs no pytest."""

    async def test_the_bench(self) -> None:
        deliver = ScriptedDeliver()
        with Bench() as bench:
            async with bench.queue(runner=ScriptedRunner("a"), deliver=deliver) as queue:
                await queue.submit("t", "hi")
                await bench.advance(2)
        assert_replies(deliver, ["a"])


ON_TRIO = """
import pytest
from streambatch.testing import ScriptedRunner

BACKEND

@pytest.mark.anyio
async def test_with_anyio(streambatch_queue):
    raise AssertionError("it must not begin")

@pytest.mark.trio
async def test_with_pytest_trio(streambatch_clock):
    raise AssertionError("it must not begin")

def test_without_a_loop(streambatch_bench, anyio_backend):
    assert streambatch_bench.clock.elapsed == 0.0
"""
BACKENDS = ('"trio"', '("trio", {"restrict_keyboard_interrupt_to_checkpoints": True})')


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_test_for_trio_is_told_what_to_do_and_does_not_begin(tmp_path: Path, backend: str) -> None:
    """Neither plugin needs to have trio for that: the fixture looks at what the test asks for."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    trio: as pytest-trio registers it\n")
    fixture = f"@pytest.fixture\ndef anyio_backend():\n    return {backend}"
    done = run(tmp_path, ON_TRIO.replace("BACKEND", fixture))
    assert "1 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count(f"\n{NO_LOOP}\n") == 2, "one sentence each, without a traceback"


@pytest.mark.parametrize("url", ["memory://", "memory://of-the-bench"])
def test_a_queue_that_no_loop_of_asyncio_opens_says_what_to_do(url: str) -> None:
    """What trio does with a coroutine, as far as the kit sees: there is no loop of asyncio."""
    opening, advancing = BatchQueue(url, log=False).__aenter__(), Clock().advance(1)
    for coroutine in (opening, advancing):
        with pytest.raises(UsageError, match="no event loop of asyncio runs here"):
            coroutine.send(None)


def test_a_queue_that_is_opened_without_async_says_what_to_do(streambatch_queue: Any) -> None:
    with pytest.raises(UsageError, match=r"`async with`, in an async test or in what asyncio\.run"):  # noqa: SIM117
        with streambatch_queue():
            raise AssertionError("it must not be open")


def test_the_plugin_loads_nothing_of_ours_and_no_library() -> None:
    """It is imported in every run of pytest of whoever has the package installed."""
    code = f"import sys, pytest\nbefore = set(sys.modules)\nimport {ENTRY}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["streambatch", "streambatch.testing", ENTRY]


def test_the_plugin_is_registered() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {ENTRY: ENTRY}


@pytest.mark.parametrize("room", ["_assert", "_bench", "_clock", "_script"])
def test_the_examples_of_the_docstrings_are_true(room: str) -> None:
    names = {name: getattr(testing, name) for name in testing.__all__}
    module = import_module(f"streambatch.testing.{room}")
    failed, tried = doctest.testmod(
        module, extraglobs={**names, "asyncio": asyncio, "DeadLetter": streambatch.DeadLetter}
    )
    assert (failed, tried > 1) == (0, True)


def named(path: str) -> dict[str, str]:
    """The names that a lazy face promises to type checkers, with the rooms they come from."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name: node.module or "" for node in found for alias in node.names}


def test_what_the_lazy_faces_give_is_what_they_promise() -> None:
    for path, face in (("streambatch/__init__.py", streambatch), ("streambatch/testing/__init__.py", testing)):
        promised = named(path)
        assert set(promised) == set(face.__all__) - {"__version__"}
        for name, room in promised.items():
            assert getattr(face, name) is getattr(import_module(f"{face.__name__}.{room}"), name), name
    assert set(streambatch.__all__) <= set(dir(streambatch))
    assert not hasattr(streambatch, "nothing")
    assert not hasattr(testing, "nothing")
