"""Each page of the documentation is run, from its first block to its last; see book.py."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer.main

from streambatch import BatchQueue
from streambatch.cli._app import app
from tests.bots.by_hand import LINES, installs
from tests.docs.book import PAGES, ROOT, Book
from tests.docs.facts import acl_lines, check_configuration, check_user

NOX = "python3 -m venv .venv && .venv/bin/pip install -q nox && .venv/bin/nox -s "


def commands(block: str) -> None:
    """Every line for a shell is one that a test knows to be right, because no test can run it here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sessions = re.findall(r"@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(encoding="utf-8"))
    known = [f'pip install "{project["name"]}[{extra}]"' for extra in project["optional-dependencies"]]
    known += [f'pip install "{project["name"]}[otel]" opentelemetry-sdk']  # which the tests have, and no extra
    known += [f'pip install "{project["name"]}[testing]" pytest']
    known += [NOX + session for session in sessions] + LINES  # which tests/bots/test_by_hand.py runs
    for line in block.splitlines():
        if line.startswith("streambatch "):  # a verb, with options that it has
            command: Any = typer.main.get_command(app)
            verb, *options = shlex.split(line)[1:]
            command.commands[verb].make_context(verb, options)
        else:
            assert line in known or installs(line), line


def acl(block: str) -> None:
    """The user of the runbook may do what the user of all tests may, no more and no less."""
    words = block.split()
    assert words[:2] == ["user", "bot"]
    assert sorted(word for word in words if word.startswith("+")) == sorted(acl_lines())
    assert [word for word in words if word[0] in "~&-" or word.startswith("reset")] == [
        "resetkeys", "~sb1:*", "resetchannels", "&sb1:*", "-@all",
    ]  # fmt: skip
    check_user(block)


@pytest.mark.timeout(240)  # a page starts up to twenty programs
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_is_true(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page shows is what happens: programs print it, sessions answer it, servers hold it.

    In a folder with a short path, as a reader's is: the embedded server's socket moves elsewhere from a long one, and
    pytest's own folder may lie deep inside a checkout.
    """
    with TemporaryDirectory(dir="/tmp", prefix="sb-") as folder:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("METRICS_PORT", "0")  # any that is free
        checks = {"sh": commands, "acl": acl, "conf": check_configuration}
        Book(Path(folder), checks).run(page)
        monkeypatch.undo()


def prose(page: Path) -> str:
    """A page without its blocks of code, in which ``#`` begins a comment and brackets are no links."""
    return re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings: no marks but - and _, lower case, a hyphen for each space; 1 and so on
    behind one that is there already."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        said = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)
        found.append(re.sub(r"[^\w -]", "", said).strip().lower().replace(" ", "-"))
    return {f"{name}-{found[:n].count(name)}" if name in found[:n] else name for n, name in enumerate(found)}


LINKED = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link names a file of the repository, and what is behind its # a heading of that page."""
    lost: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", prose(page))):
        file, _, anchor = target.partition("#")
        where = page.parent / file if file else page
        if "://" not in target and (not where.exists() or (anchor and anchor not in anchors(where))):
            lost.append(target)
    assert lost == []


def test_an_anchor_is_what_github_makes_of_a_heading(tmp_path: Path) -> None:
    """Marks go, underscores stay, two alike are told apart; a comment in a block of code is no heading."""
    (page := tmp_path / "page.md").write_text(
        "# The server's ACL: `+cluster|slots`\n## until_stored and Paced\n```sh\n# none\n```\n## A/B (c) & d\n"
        "### [A](b.md), c\n## A/B (c) & d\n",
        encoding="utf-8",
    )
    assert anchors(page) == {
        "the-servers-acl-clusterslots", "until_stored-and-paced", "ab-c--d", "ab-c--d-1", "a-c",
    }  # fmt: skip


def test_the_readme_begins_with_the_two_commands() -> None:
    """After the paragraph come the one command that shows it and the one that tests it, and nothing before them.

    Each in a block of its own: pasted together, the chat would read the second.
    """
    first = re.findall(r"^```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert first[:2] == [f"{NOX}chat\n", f"{NOX}tests\n"]


def test_nobody_is_told_to_install_the_wrong_package() -> None:
    """The name `streambatch` on the package index belongs to somebody else."""
    for page in PAGES:
        assert not re.search(r"pip install\s+[\"']?streambatch(?!-queue)", page.read_text(encoding="utf-8")), page.name


def test_the_first_program_can_be_given_to_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`streambatch worker bot:queue` imports it: that runs nothing, and there is a queue of that name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (source,) = [
        block
        for block in re.findall(r"^```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)
        if "asyncio.run(" in block
    ]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "bot"}
    exec(source, names)
    assert isinstance(names["queue"], BatchQueue)
    assert not list(tmp_path.iterdir())
