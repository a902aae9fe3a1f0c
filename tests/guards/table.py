"""All rows, and the conditions that have none, each with its reason."""

from __future__ import annotations

from tests.guards.rows import Row
from tests.guards.table_open import ROWS as OPEN

ROWS: tuple[Row, ...] = (*OPEN,)

EXCEPTIONS: dict[tuple[str, str], str] = {}
