"""The words of a run: the table, the file, and the checks that decide the exit code.

Checks compare figures of one run only: ratios to the floor of the same minutes, and two absolute promises, lateness
and idle commands, that do not depend on the speed of a machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Book
from benchmarks.scenes import OURS

FLOOR = "floor-proto"

LEAST_SUBMIT = 0.4
LEAST_DRAIN = 0.25
MOST_LATE_MS = 5.0
MOST_IDLE = 1.5

ROWS: Sequence[tuple[str, str, str, int]] = (
    ("submit, 1 submitter", "p50, us", "submit_1_p50_us", 0),
    ("", "p99, us", "submit_1_p99_us", 0),
    ("", "msgs/s", "submit_1_per_s", 0),
    ("", "client CPU us/msg", "submit_1_client_us", 1),
    ("", "server CPU us/msg", "submit_1_server_us", 1),
    ("submit, 100 submitters", "p50, us", "submit_100_p50_us", 0),
    ("", "p99, us", "submit_100_p99_us", 0),
    ("", "msgs/s", "submit_100_per_s", 0),
    ("", "client CPU us/msg", "submit_100_client_us", 1),
    ("", "server CPU us/msg", "submit_100_server_us", 1),
    ("", "commands/msg on the wire", "submit_100_wire", 3),
    ("", "commands/msg in Lua", "submit_100_lua", 2),
    ("  with message_id", "msgs/s", "submit_100_id_per_s", 0),
    ("drain, batched", "msgs/s", "drain_per_s", 0),
    ("", "client CPU us/msg", "drain_client_us", 1),
    ("", "server CPU us/msg", "drain_server_us", 1),
    ("", "commands/msg on the wire", "drain_wire", 3),
    ("", "commands/msg in Lua", "drain_lua", 2),
    ("drain, 1 message per thread", "turns/s", "turn_per_s", 0),
    ("", "client CPU us/turn", "turn_client_us", 1),
    ("", "server CPU us/turn", "turn_server_us", 1),
    ("", "commands/turn on the wire", "turn_wire", 3),
    ("", "commands/turn in Lua", "turn_lua", 2),
    ("lateness, debounce 1 s", "p50, ms", "late_1s_p50_ms", 2),
    ("", "p99, ms", "late_1s_p99_ms", 2),
    ("", "earliest, ms", "late_1s_min_ms", 2),
    ("lateness, no debounce", "p50, ms", "late_0s_p50_ms", 2),
    ("", "p99, ms", "late_0s_p99_ms", 2),
    ("idle, nothing waits", "commands/s on the wire", "idle_wire_per_s", 2),
    ("", "commands/s in Lua", "idle_lua_per_s", 2),
    ("", "client CPU %", "idle_client_percent", 2),
    ("idle, threads wait", "commands/s on the wire", "asleep_wire_per_s", 2),
    ("", "commands/s in Lua", "asleep_lua_per_s", 2),
    ("", "client CPU %", "asleep_client_percent", 2),
    ("memory", "bytes/msg, 50 per thread", "bytes_50", 0),
    ("", "bytes/msg, 1 per thread", "bytes_1", 0),
    ("  with message_id", "bytes/msg, 50 per thread", "bytes_50_id", 0),
    ("", "bytes/msg, 1 per thread", "bytes_1_id", 0),
    ("left after the drain", "keys without TTL", "left_forever", 0),
    ("", "keys per thread", "left_keys_per_thread", 2),
    ("", "bytes per thread", "left_bytes_per_thread", 0),
)


def table(book: Book) -> str:
    """Return the figures as text: median (min-max), and ours as a fraction of the floor."""
    systems = book.systems()
    ratio = OURS in systems and FLOOR in systems
    lines = [["", "", *systems, *([f"x {FLOOR}"] if ratio else [])]]
    for what, unit, name, digits in ROWS:
        row = [what, unit, *(_cell(book, system, name, digits) for system in systems)]
        lines.append([*row, _times(book, name)] if ratio else row)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: list[str], widths: list[int]) -> str:
    words = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
    numbers = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
    return "  ".join(words + numbers)


def _cell(book: Book, system: str, name: str, digits: int) -> str:
    spread = book.spread(system, name)
    if spread is None:
        return "-"
    middle, low, high = (f"{value:,.{digits}f}" for value in spread)
    return middle if low == high else f"{middle} ({low}-{high})"


def _times(book: Book, name: str) -> str:
    ratio = _ratio(book, name)
    return "" if ratio is None else f"{ratio:.2f}"


def _ratio(book: Book, name: str) -> float | None:
    ours, floor = book.median(OURS, name), book.median(FLOOR, name)
    return ours / floor if ours is not None and floor else None


def checks(book: Book) -> list[tuple[bool, str]]:
    """Return every check: whether it holds, and what it says. A figure that is missing does not hold."""
    least = (("submit_100_per_s", "100 submitters", LEAST_SUBMIT), ("drain_per_s", "batched drain", LEAST_DRAIN))
    most = (
        ("late_1s_p99_ms", "lateness p99, ms", MOST_LATE_MS),
        ("idle_wire_per_s", "idle commands/s", MOST_IDLE),
        ("asleep_wire_per_s", "idle commands/s while threads wait", MOST_IDLE),
    )
    told = [(_ratio(book, name), f"{what} >= {bound:g} x {FLOOR}", bound, True) for name, what, bound in least]
    told += [(book.median(OURS, name), f"{what} <= {bound:g}", bound, False) for name, what, bound in most]
    return [
        (
            value is not None and (value >= bound if at_least else value <= bound),
            f"{words}: " + ("no figure" if value is None else f"{value:.2f}"),
        )
        for value, words, bound, at_least in told
    ]


def save(path: Path, facts: dict[str, object], book: Book) -> None:
    """Write everything that was measured, with the command that measured it."""
    path.write_text(json.dumps({**facts, "figures": book.data()}, indent=1) + "\n")
