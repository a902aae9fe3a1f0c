"""The table of docs/bots.md names every field of what a bot has to do with, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

import streambatch
from tests.docs.book import ROOT

PAGE = (ROOT / "docs/bots.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([A-Z]\w+)`, .*? \| (.*) \|$", PAGE, re.MULTILINE)


def test_the_table_has_what_a_bot_has_to_do_with() -> None:
    """From a submit to the delivery."""
    assert [name for name, _ in ROWS] == ["Batch", "Message", "Part", "Answer", "Reply", "Receipt"]


@pytest.mark.parametrize(("name", "told"), ROWS, ids=[name for name, _ in ROWS])
def test_a_row_names_each_field(name: str, told: str) -> None:
    """In the order of the class: its fields, then what is made of them."""
    what: Any = getattr(streambatch, name)
    made = [name for name in dir(what) if isinstance(getattr(what, name), property)]
    public = [field.name for field in fields(what) if not field.name.startswith("_")]
    said = re.findall(r"`(\w+)`", told)
    assert [word for word in said if word != "submit"] == public + made
