"""The scenarios as plain tests, and the runner itself: each scenario holds, and the runner notices what it should.

`python -m tests.guards` is the whole of it: there each scenario must also fail when the guard it is about is broken.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.guards import __main__ as runner
from tests.guards import scenarios_open
from tests.guards.bench import SOURCES, World
from tests.guards.rows import Row, conditions, uncovered
from tests.guards.table import EXCEPTIONS, ROWS
from tests.rig.servers import kinds

SCENARIOS = sorted({row.scenario.__name__: row.scenario for row in ROWS}.items())
GOOD = Row(
    "_open", "m[1] ~= '1' or ", "", scenarios_open.another_layout_is_refused, "I15: a newer layout stays unharmed."
)


@pytest.fixture(scope="module", params=list(kinds()))
def bench(request: pytest.FixtureRequest) -> Iterator[runner.Bench]:
    """A server of this module alone: some scenarios fill it, some make users."""
    with runner.Bench(str(request.param)) as bench:
        yield bench


@pytest.mark.parametrize("name", [name for name, _ in SCENARIOS])
def test_the_scripts_keep_their_promises(bench: runner.Bench, name: str) -> None:
    """Each scenario of the table of mutants passes with the scripts as they are."""
    if (error := bench.run(dict(SCENARIOS)[name])) is not None:
        raise error


def test_every_condition_has_a_mutant() -> None:
    """No guard of a script, and no condition in one, is without a row that breaks it."""
    assert [f"{row}: {row.fault()}" for row in ROWS if row.fault()] == []
    assert uncovered(ROWS, EXCEPTIONS) == []


def test_every_scenario_is_needed() -> None:
    """Each scenario is in the table: one that no mutant can break proves nothing."""
    modules = {row.scenario.__module__ for row in ROWS}
    there = {
        name
        for module in modules
        for name, item in inspect.getmembers(sys.modules[module], inspect.isfunction)
        if item.__module__ == module and not name.startswith("_")
    }
    assert there - {name for name, _ in SCENARIOS} == set()


def test_a_killed_mutant_is_called_killed(bench: runner.Bench) -> None:
    """The runner's verdict on a good row."""
    assert bench.judge(GOOD) == "killed"


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (replace(GOOD, broken="not (m[1] == '1') or "), "SURVIVED"),
        (replace(GOOD, broken="m[1] ~= ( or "), "NOT KILLED: ResponseError"),
        (replace(GOOD, broken="undefined.field or "), "NOT KILLED: ResponseError"),
        (replace(GOOD, guard="is not there"), "ERROR: the guard occurs 0 times"),
        (replace(GOOD, guard="thread", broken=""), "ERROR: the guard occurs"),
        (replace(GOOD, why="nobody knows"), "ERROR: it breaks nothing, or names no invariant"),
    ],
    ids=["survives", "does not compile", "crashes", "absent", "ambiguous", "no reason"],
)
def test_a_mutant_that_proves_nothing_is_not_killed(bench: runner.Bench, row: Row, verdict: str) -> None:
    """A mutant that survives, does not compile, aborts a script, or is not there, is none that was killed."""

    def scenario(w: World) -> None:
        w.submit("a", "m1")
        scenarios_open.another_layout_is_refused(w)

    kind = replace(row, scenario=scenario) if "undefined" in row.broken else row
    assert bench.judge(kind).startswith(verdict)


def test_a_missing_row_is_a_gap() -> None:
    """Without the rows of a script each of its conditions is a gap, and so is an exception that is not needed."""
    faults = uncovered([row for row in ROWS if row.script != "_window"], {("_open", "no such line"): "none"})
    assert len([fault for fault in faults if fault.startswith("_window.lua:")]) == len(
        list(conditions(SOURCES["_window"]))
    )
    assert "_window.lua has no row at all" in faults
    assert "_open.lua: a stale exception: no such line" in faults


def test_the_exit_status_tells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The runner's exit status is 0 if every mutant was killed, and 1 if one was not; a row is a line."""
    kind = next(iter(kinds()))

    def none(*_: object) -> list[str]:
        return []

    monkeypatch.setattr(runner, "uncovered", none)
    monkeypatch.setattr(runner, "ROWS", [GOOD])
    assert runner.main(["--server", kind]) == 0
    monkeypatch.setattr(runner, "ROWS", [GOOD, replace(GOOD, broken="not (m[1] == '1') or ")])
    assert runner.main(["--server", kind]) == 1
    assert "2 mutants, 1 killed" in capsys.readouterr().out
