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

import pytest

import streambatch
from streambatch import testing
from streambatch.testing import Bench, ScriptedDeliver, ScriptedRunner, assert_replies
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
