"""The benchmarks stay runnable, their verification stays on: a small slice, judged by correctness, never by speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(180)
def test_the_quick_slice_verifies_every_message(tmp_path: Path) -> None:
    """Every message once, in order per thread, never two Runs of a thread at once, and nothing left behind."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--systems", "streambatch", "--json", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    assert json.loads(figures.read_text(encoding="utf-8"))
