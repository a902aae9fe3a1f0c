"""A small slice of the model check, and the reading of what TLC prints; `python -m tests.model` is the whole of it."""

from __future__ import annotations

import re

import pytest

from tests.model.__main__ import judge
from tests.model.plans import MODEL, MUTANTS
from tests.model.tlc import MODEL as TEXT
from tests.model.tlc import SAFETY, Plan, Verdict, check, missing

needs_tlc = pytest.mark.skipif(bool(missing()), reason=missing() or "TLC is here")


@needs_tlc
def test_a_small_world_keeps_every_invariant() -> None:
    plan = Plan("a small world", ("plain", "cancel"), calls=2, claims=2, budget=1)
    verdict = check(plan)
    assert judge(plan, verdict) == (f"{len(SAFETY)} invariants hold", True), verdict
    assert verdict.states > 1000


@needs_tlc
def test_a_mutant_is_caught() -> None:
    plan = next(plan for plan in MUTANTS if plan.off == "nonce")
    says, good = judge(plan, check(plan))
    assert good, says


def test_each_defence_of_the_model_has_a_mutant() -> None:
    text = TEXT.read_text(encoding="utf-8")
    named = set(re.findall(r'On\("([\w ]+)"\)', text)) | set(re.findall(r'Fenced\(d, q, "([\w ]+)"\)', text))
    assert named == {plan.off for plan in MUTANTS}


def test_each_invariant_can_fall() -> None:
    fall = {check for plan in MUTANTS for check in plan.checks if not plan.drains}
    # A thread has room for one undelivered reply, so no single defence keeps the order of replies.
    assert set(SAFETY) - fall == {"I17_order"}
    assert all(set(plan.checks) == set(SAFETY) for plan in MODEL)


def test_what_tlc_prints_is_read() -> None:
    told = "Error: Invariant I5 is violated.\nState 2: <Call line 1>\n9 states generated, 8 distinct states found, 3"
    fallen = Verdict.of(told, 1)
    assert (fallen.broken, fallen.states, fallen.trace, fallen.error) == ("I5", 8, ("Call",), "")
    assert Verdict.of("Model checking completed. No error has been found.\n", 1).error == ""
    assert "Parse Error" in Verdict.of("Parse Error", 1).error


def test_a_mutant_that_lives_is_bad_news() -> None:
    alive = Verdict(10, 1.0, "", (), "")
    assert judge(MUTANTS[0], alive) == ("NOT CAUGHT by I3_zombie", False)
    assert judge(MODEL[0], Verdict(10, 1.0, "I1", ("Call",), "")) == ("I1 FALLS: Call", False)
    assert not judge(MODEL[0], Verdict(0, 1.0, "", (), "Parse Error"))[1]
