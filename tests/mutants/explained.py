"""Mutants that no scenario can or need notice, each with the reason.

A row holds for the exact text of its line: when the line changes, or the mutant is noticed after all, the row is stale,
and the run says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Why:
    """An explanation.

    Attributes:
        script: the file in streambatch/lua/, without its suffix.
        line: the text of the line, as a `Mutant` has it.
        labels: the mutants of that line, each by its label.
        reason: why they change nothing that matters.
    """

    script: str
    line: str
    labels: tuple[str, ...]
    reason: str


ROWS: tuple[Why, ...] = ()

#: (script, line, label): the reason.
EXPLAINED: dict[tuple[str, str, str], str] = {
    (row.script, row.line, label): row.reason for row in ROWS for label in row.labels
}
