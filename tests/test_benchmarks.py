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


@pytest.mark.timeout(180)
def test_the_verbs_are_measured_and_none_walks_the_threads() -> None:
    """Of a few threads, once: the times are not judged here, that every verb was run and its commands counted is."""
    command = [sys.executable, "-m", "benchmarks.verbs", "--threads", "400", "--repetitions", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    rows = {line[:26].strip(): line[49:].split() for line in done.stdout.splitlines()[2:-1]}
    assert len(rows) == 9, done.stdout + done.stderr
    assert all(int(cells[0].replace(",", "")) > 10 for cells in rows.values() if len(cells) == 3), done.stdout


@pytest.mark.timeout(180)
def test_what_listeners_cost_is_told_for_each_of_them() -> None:
    """Every message is submitted, run and delivered under each cast; the figures are no matter."""
    command = [sys.executable, "-m", "benchmarks.listeners", "--rounds", "2", "--messages", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    rows = [line.split(" | ")[0] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["| listeners", "| Prometheus", "| OpenTelemetry", "| both"]
