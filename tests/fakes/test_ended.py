"""The fakes as programs: their first line says how they end, and so they end, before a bot has come too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.bots.by_hand import FOR_FAKES
from tests.rig.process import ROOT

PLATFORMS = ["bot_api", "discord_api", "slack_api"]


def run(fake: str) -> subprocess.Popen[str]:
    """The program, started as the pages say."""
    pipe, line = subprocess.PIPE, [sys.executable, "-m", f"tests.fakes.{fake}"]
    return subprocess.Popen(line, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def ends_silently(program: subprocess.Popen[str]) -> None:
    """It ends by itself, and complains of nothing."""
    try:
        assert program.wait(10) == 0
        assert program.stderr is not None
        assert program.stderr.read() == ""
    finally:
        program.kill()


@pytest.mark.parametrize("how", ["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("fake", PLATFORMS)
def test_a_platform_ends_at_once_and_silently(fake: str, how: str) -> None:
    """While a thread reads the input, which nobody types."""
    with run(fake) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline().endswith("; Ctrl-D or Ctrl-C ends it.\n")
        assert "_API=http://127.0.0.1:" in program.stdout.readline()
        if how == "Ctrl-C":
            os.kill(program.pid, signal.SIGINT)
        else:
            program.stdin.close()
            program.stdin = None
        ends_silently(program)


def test_ctrl_c_ends_the_provider() -> None:
    """It reads no input."""
    with run("provider") as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith("http://127.0.0.1:")
        os.kill(program.pid, signal.SIGINT)
        ends_silently(program)


def test_the_fakes_of_platforms_need_nothing_but_aiohttp() -> None:
    """As the pages say: who tries a bot installs no more than that beside it."""
    line = "import sys; top = lambda: {name.partition('.')[0] for name in sys.modules}; import aiohttp; had = top()\n"
    line += "".join(f"import tests.fakes.{fake}\n" for fake in (*PLATFORMS, "provider"))
    line += "print(sorted(top() - had - sys.stdlib_module_names))"
    done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['tests']\n"
    assert FOR_FAKES.endswith(" install -q aiohttp")
