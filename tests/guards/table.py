"""All rows, and the conditions that have none, each with its reason."""

from __future__ import annotations

from tests.guards import (
    table_cancel,
    table_claim,
    table_desk,
    table_end,
    table_events,
    table_exact,
    table_intake,
    table_look,
    table_more,
    table_open,
    table_scope,
    table_shared,
    table_turn,
)
from tests.guards.rows import Row

TABLES = (
    table_open,
    table_intake,
    table_claim,
    table_turn,
    table_more,
    table_end,
    table_desk,
    table_look,
    table_cancel,
    table_scope,
    table_events,
    table_exact,
    table_shared,
)
ROWS: tuple[Row, ...] = tuple(row for table in TABLES for row in table.ROWS)

#: (script, the line): why no mutant of it can or need be noticed.
EXCEPTIONS: dict[tuple[str, str], str] = {}
