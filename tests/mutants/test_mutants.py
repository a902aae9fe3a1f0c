"""The generator on small texts, the explanations, and a slice of the whole: `python -m tests.mutants` is all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.guards.bench import SOURCES
from tests.mutants import __main__ as runner
from tests.mutants.bench import SCENARIOS, Bench, Verdict
from tests.mutants.explained import EXPLAINED, ROWS
from tests.mutants.make import Mutant, mutants, mutants_of
from tests.rig.servers import kinds

SLICE, SEED = 40, 1


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A server of this module alone, and every scenario run once."""
    with Bench(next(iter(kinds()))) as bench:
        yield bench


def _made(line: str) -> dict[str, str]:
    """The mutants of one line, by label."""
    return {mutant.label: mutant.text for mutant in mutants_of("x", line)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("if a < b then", {"< -> <=": "if a <= b then", "< -> >=": "if a >= b then"}),
        ("x = a == b or not c", {
            "== -> ~=": "x = a ~= b or not c", "or -> and": "x = a == b and not c", "not -> nothing": "x = a == b or c",
        }),
        ("x = math.min(a, 0)", {
            "min -> max": "x = math.max(a, 0)", "0 -> 1": "x = math.min(a, 1)", "0 -> -1": "x = math.min(a, -1)",
        }),
        ("x = f(1, 7)", {
            "1 -> 0": "x = f(0, 7)", "1 -> 2": "x = f(2, 7)",
            "7 -> 0": "x = f(1, 0)", "7 -> 8": "x = f(1, 8)", "7 -> 14": "x = f(1, 14)",
        }),
        ("x = f(-1)", {"-1 -> 0": "x = f(0)", "-1 -> 1": "x = f(1)"}),
        ("read('XLEN', a) read('HLEN', b)", {
            "read('XLEN', a) -> nothing": " read('HLEN', b)", "read('HLEN', b) -> nothing": "read('XLEN', a) ",
        }),
        ("x = redis.call('GET', a)", {"redis.call('GET', a) -> nil": "x = nil"}),
        ("redis.call('X', a, '-', '+')  -- a < b", {
            "'-' -> '+'": "redis.call('X', a, '+', '+')  -- a < b",
            "'+' -> '-'": "redis.call('X', a, '-', '-')  -- a < b",
            "redis.call('X', a, '-', '+') -> nothing": "  -- a < b",
        }),
        ("local a = unpack(ARGV, 1, 2)", {
            "1 -> 0": "local a = unpack(ARGV, 0, 2)", "1 -> 2": "local a = unpack(ARGV, 2, 2)",
            "2 -> 0": "local a = unpack(ARGV, 1, 0)",
        }),
        ("redis.call('PEXPIRE', k, 1)", {"redis.call('PEXPIRE', k, 1) -> nothing": ""}),
        ("x = a + b - -c", {"+ -> -": "x = a - b - -c", "- -> +": "x = a + b + -c"}),
        ("f(a, 'at', -c)", {"'at' -> 'at_'": "f(a, 'at_', -c)"}),
        ("x = 'a == 1'", {}),
        ("-- a == 1", None),
        ("end", None),
    ],
    ids=str,
)  # fmt: skip
def test_each_rule_makes_its_mutants(line: str, expected: dict[str, str] | None) -> None:
    """What becomes of a line; beside it, every line with a statement is deleted."""
    made = _made(line)
    deleted = made.pop("deleted", None)
    if expected is None:
        assert (made, deleted) == ({}, None)
        return
    assert made == expected
    assert deleted == "" or "" in made.values()


def test_a_mutant_is_named_by_its_text() -> None:
    """What a line has twice is counted, and so are lines that are there twice; the number of a line names nothing."""
    labels = [mutant.label for mutant in mutants_of("x", "x = a == b == c")]
    assert labels == ["deleted", "== -> ~=", "== -> ~= (#2)"]
    twice = [mutant.line for mutant in mutants_of("x", "x = a\ny = b\nx = a\n")]
    assert twice == ["x = a", "y = b", "x = a [2]"]
    moved = [mutant.name for mutant in mutants_of("x", "\n\nx = a\ny = b\n  x = a\n")]
    assert moved == [mutant.name for mutant in mutants_of("x", "x = a\ny = b\nx = a\n")]


def test_all_scripts_have_mutants_of_all_kinds() -> None:
    """Always the same ones, each with a name and a text of its own, and none that changes nothing."""
    made = mutants()
    assert made == mutants()
    assert {mutant.script for mutant in made} == set(SOURCES)
    rules = "comparison logic not deletion number string bound call arithmetic field"
    assert {mutant.kind for mutant in made} == set(rules.split())
    assert max(Counter(mutant.name for mutant in made).values()) == 1
    assert max(Counter((mutant.script, mutant.text) for mutant in made).values()) == 1
    assert all(mutant.text != SOURCES[mutant.script] for mutant in made)


def test_no_explanation_is_stale() -> None:
    """Each is for mutants that are there, once, with a reason; when its line changes, it is stale."""
    assert runner.stale(()) == []
    assert len(EXPLAINED) == sum(len(row.labels) for row in ROWS)
    assert all(row.reason.endswith(".") for row in ROWS)


def test_what_is_stale_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explanation whose line has changed, and one of a mutant that is noticed after all."""
    mutant = mutants(["claim"])[0]
    monkeypatch.setattr(runner, "EXPLAINED", {("claim", "no such line", "deleted"): "a", mutant.name: "b"})
    assert runner.stale(["submit"]) == []
    killed = Verdict(mutant, "killed", "one_holder", "assert")
    told = runner.faults([killed], ["claim"])
    assert told == [
        f"is explained, but killed by one_holder: {mutant}",
        "a stale explanation: claim.lua: deleted: no such line",
    ]
    assert runner.faults([Verdict(mutant, "survived")], ["submit"]) == []
    other = mutants(["claim"])[1]
    assert runner.faults([Verdict(other, "survived")], ["submit"]) == [f"survives: {other}"]


def test_a_slice_of_them_is_noticed(bench: Bench) -> None:
    """Of some mutants each is noticed, or does not compile, or is explained."""
    verdicts = [bench.judge(mutant) for mutant in runner.chosen(sample=SLICE, seed=SEED)]
    assert len(verdicts) == SLICE
    assert runner.faults(verdicts, ()) == []
    told = runner.report(verdicts, 1.0)
    assert told["all"]["mutants"] == SLICE
    assert sum(part["mutants"] for part in told["scripts"].values()) == SLICE
    assert len(told["survivors"]) == told["all"].get("explained", 0)


def _changed(script: str, old: str, new: str) -> Mutant:
    text = SOURCES[script]
    assert text.count(old) == 1
    return Mutant(script, 1, "line", "kind", "label", text.replace(old, new))


def test_each_word_has_its_meaning(bench: Bench) -> None:
    """A mutant is noticed by an assertion, an abort, or a script that never ends; or survives, or does not compile."""
    loop = "  i, a, bad = i + 1, a + 13 + turns, nil\n"
    found = {
        (verdict.word, verdict.how)
        for verdict in map(
            bench.judge,
            (
                _changed("claim", "close()\n", ""),
                _changed("claim", "close()\n", "nothing()\n"),
                _changed("claim", "close()\n", "while true do end\n"),
                _changed("claim", "close()\n", "close()  -- the end\n"),
                _changed("settle", loop, "  i, a = ("),
            ),
        )
    }
    assert found == {("killed", "assert"), ("killed", "abort"), ("killed", "hang"), ("survived", ""), ("invalid", "")}


def test_a_script_is_shown_to_those_who_run_it(bench: Bench) -> None:
    """First to the scenarios of its own rows, never to one that does not send it."""
    mutant = next(mutant for mutant in mutants(["park"]) if "close()" in mutant.line)
    order = bench.order(mutant)
    assert len(order) == len(set(order)) < len(SCENARIOS) // 4
    assert order[0] == "a_scope_lasts_as_long_as_it_must"
    assert all("park" in bench.sends[name] for name in order)
