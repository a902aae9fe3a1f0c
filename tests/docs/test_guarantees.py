"""The table of promises names tests that exist, and every invariant and durability class."""

from __future__ import annotations

import re

import pytest

from streambatch import BatchQueue, UsageError
from streambatch._keys import SCOPE, SHARED, THREAD
from tests.docs.book import ROOT

PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
STORY = (ROOT / "docs" / "life-of-a-message.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists() -> None:
    """A promise whose test was renamed or removed is noticed here."""
    named = set(re.findall(r"tests/[\w/]+(?:\.py|/)", PAGE))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_invariant_has_a_row_and_each_row_a_test() -> None:
    """I1 to I17, each once, in order; the last column names a file."""
    rows = re.findall(r"^\| I(\d+) \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 18))
    assert [number for number, tests in rows if "tests/" not in tests] == []


def test_every_failure_of_others_has_a_row_and_its_tests_name_it() -> None:
    """P1 to P23, each once, in order; every file of a row says the number."""
    rows = re.findall(r"^\| P(\d+) \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 24))
    silent = [
        (number, name)
        for number, tests in rows
        for name in tests.split(", ")
        if not re.search(rf"\bP{number}\b|test_p{int(number):02d}_", (ROOT / name).read_text(encoding="utf-8"))
    ]
    assert silent == []


def test_both_tables_have_the_four_durability_classes() -> None:
    """D0 to D3, in the README and on the page."""
    for text in (README, PAGE):
        assert re.findall(r"^\| D(\d)", text, re.MULTILINE) == ["0", "1", "2", "3"]


def test_the_page_of_keys_has_every_kind() -> None:
    """A key that is added is explained."""
    table = STORY.partition("## The keys")[2]
    assert [
        kind for kind in (*SHARED, *THREAD, *SCOPE, "seen", "producer") if not re.search(rf"`{kind}[:`]", table)
    ] == []


@pytest.mark.parametrize("verb", ["edit", "retract"])
async def test_what_is_not_there_yet_is_refused(verb: str) -> None:
    """The README's "not yet" list is true: these verbs say so."""
    queue = BatchQueue("embedded:")
    arguments = {"edit": ("t", "m", "x"), "retract": ("t", "m")}[verb]
    with pytest.raises(UsageError, match="not available in this version"):
        await getattr(queue, verb)(*arguments)
    assert f"`{verb}`" in README.partition("Not yet")[2]


@pytest.mark.parametrize("overlap", ["interrupt", "rollback", "steer", "reject", "drop"])
def test_the_other_strategies_are_refused(overlap: str) -> None:
    """So is every overlap but "collect"."""
    with pytest.raises(UsageError, match="not available in this version"):
        BatchQueue("embedded:", overlap=overlap)
