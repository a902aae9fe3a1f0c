"""docs/command-line.md names every verb and every option, and the exit codes are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer.main

from streambatch.cli import _ends
from streambatch.cli._app import app
from tests.docs.book import ROOT

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
APART = {"doctor", "torture", "chat"}  # they have pages of their own


def options(command: Any) -> Iterator[str]:
    """All options of a verb, its own verbs' included."""
    for inner in getattr(command, "commands", {}).values():
        yield from options(inner)
    for parameter in command.params:
        yield from (name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--"))


def test_every_verb_and_option_stands_in_the_page() -> None:
    command: Any = typer.main.get_command(app)
    verbs: dict[str, Any] = command.commands
    named = PAGE.partition("## What they have in common")[0]
    assert [verb for verb in verbs if not re.search(rf"[`, ]{verb}[`,]", named)] == []
    told = {option for verb, found in verbs.items() if verb not in APART for option in options(found)}
    usual = {"--help", "--run", "--pending"}  # the two are what cancel does, unless it is told --no-…
    assert sorted(option for option in told - usual if option not in PAGE) == []


def test_the_exit_codes_are_those_of_the_code() -> None:
    for code in (_ends.OK, _ends.NOT_SO, _ends.COULD_NOT, _ends.INTERRUPTED):
        assert f"\n| `{code}` | " in PAGE


def test_the_namespaces_of_the_examples_are_those_that_the_page_of_bots_names() -> None:
    """A verb with another namespace finds nothing, so whoever copies a line must know which."""
    page = (ROOT / "docs" / "bots.md").read_text(encoding="utf-8").partition("## Look into it")[2].partition("\n## ")[0]
    used = {re.findall(r'namespace="(\w+)"', path.read_text("utf-8"))[0] for path in (ROOT / "examples").glob("*.py")}
    assert set(re.findall(r"`(\w+)`", page.partition("The namespace is")[2])) - {"BatchQueue"} == used
