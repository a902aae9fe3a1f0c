"""Mutants that no scenario can or need notice, each with the reason.

A row holds for the exact text of its line: when the line changes, or the mutant is noticed after all, the row is stale,
and the run says so.
"""

from __future__ import annotations

from tests.mutants import explained_parts, explained_verbs
from tests.mutants.why import Why

ROWS: tuple[Why, ...] = (*explained_parts.ROWS, *explained_verbs.ROWS)

#: (script, line, label): the reason.
EXPLAINED: dict[tuple[str, str, str], str] = {
    (row.script, row.line, label): row.reason for row in ROWS for label in row.labels
}
