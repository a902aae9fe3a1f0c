"""docs/doctor.md lists every check with the words of the code; what the tables must be is printed when they differ."""

from __future__ import annotations

from collections.abc import Iterable

from streambatch.cli.doctor import CHECKS, EXIT, _around, _namespace, _server
from streambatch.cli.doctor._finding import Check
from tests.docs.book import ROOT

PAGE = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")


def table(rows: Iterable[Check]) -> str:
    """The rows of a part, as the page has them."""
    head = "| check | levels | why it is dangerous | do |\n|---|---|---|---|\n"
    return head + "".join(f"| `{row.code}` | {', '.join(row.levels)} | {row.why} | {row.do} |\n" for row in rows)


def test_the_page_lists_every_check() -> None:
    wanted = [table(part.CHECKS) for part in (_around, _server, _namespace)]
    missing = [rows for rows in wanted if rows not in PAGE]
    assert not missing, "docs/doctor.md must have:\n\n" + "\n".join(missing)
    assert PAGE.count("\n| `") == len(CHECKS) + len(set(EXIT.values()))


def test_the_exit_codes_are_those_of_the_code() -> None:
    rows = [f"| `{code}` | " for code in sorted(set(EXIT.values()))]
    assert [row for row in rows if row not in PAGE] == []
