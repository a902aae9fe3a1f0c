"""``streambatch replay FILE``: how many Runs would which window have saved, and what would it have cost in waiting.

Theory of operation
-------------------
A recorded chat is played through the window rule (`streambatch/_window.py`), once for each pair of debounce and
max_wait; nothing runs and no server is needed. Each thread is on its own: messages gather until the window is over, or
until the Run before is (``--run``, the seconds that a Run takes), then all of them are one Run. What it saves is
counted against one Run for each message. What it costs is how much longer a message waits until a Run with it begins
than if that had begun at once; p50 and p95 over all messages.

A line is a JSON object: ``thread``, and ``seconds`` (a number, from any beginning) or ``at`` (ISO 8601; without a zone
it is UTC), and with ``--split-authors`` ``author``. Other fields, a text among them, are not looked at, and errors
name line and field, never a value.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from streambatch._window import Window
from streambatch.cli._ends import OK
from streambatch.cli._told import as_json, some, table, tell
from streambatch.errors import UsageError

DEBOUNCES, MAX_WAITS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0), (5.0, 15.0, 30.0)
USUAL = (2.0, 15.0)  # the defaults of Settings
WIDE, HIGH = 60, 12
LABELS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_KINDS = ((bool, "true or false"), (int | float, "a number"), (str, "a text"), (list, "a list"), (dict, "an object"))
FARTHEST = 1e12  # seconds; whoever writes more means milliseconds or nothing
BYTES = 1 << 62  # sizes are not recorded, so they close no window


@dataclass(frozen=True, slots=True)
class Came:
    """A message: when, milliseconds, and of whom."""

    at: int
    author: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options."""

    debounces: Sequence[float]
    max_waits: Sequence[float]
    max_batch: int
    run: float
    split: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a window would have done: Runs, the share saved, and the added wait in seconds."""

    debounce: float
    max_wait: float
    runs: int
    saved: float
    p50: float
    p95: float


def replay(file: str, wishes: Wishes, *, json: bool) -> int:
    """Play it and show the outcomes; returns 0. Raises UsageError: an option or a line is wrong."""
    threads = _read(file, split=wishes.split)
    messages = sum(len(came) for came in threads.values())
    pairs = list(itertools.product(wishes.debounces, wishes.max_waits))
    if len(pairs) > len(LABELS):
        raise UsageError(f"{len(pairs)} windows are too many for a table; {len(LABELS)} are possible")
    outcomes = [_outcome(threads.values(), messages, *pair, wishes) for pair in pairs]
    if json:
        told = {"messages": messages, "threads": len(threads), "max_batch": wishes.max_batch, "run": wishes.run}
        as_json({**told, "windows": [asdict(outcome) for outcome in outcomes]})
    else:
        _show(outcomes, messages, len(threads))
    return OK


def numbers(text: str, option: str) -> tuple[float, ...]:
    """A list of seconds, as in ``0.5,2,5``. Raises UsageError."""
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{option} is a list of seconds, as in 0.5,2,5") from None
    if not all(0 <= number <= 86_400 for number in found):
        raise UsageError(f"{option}: 0 to 86,400 seconds are possible")
    return tuple(dict.fromkeys(found))


# ── reading ──


def _read(file: str, *, split: bool) -> dict[str, list[Came]]:
    """The messages of each thread, in order of time."""
    threads: dict[str, list[Came]] = {}
    name = "the standard input" if file == "-" else file
    with ExitStack() as opened:
        try:
            lines = sys.stdin.buffer if file == "-" else opened.enter_context(Path(file).open("rb"))
            for number, line in enumerate(lines, 1):
                if line.strip():
                    thread, came = _line(line, f"{name}, line {number}", split=split)
                    threads.setdefault(thread, []).append(came)
        except OSError as error:
            raise UsageError(f"{name} cannot be read: {error.strerror}") from None
    if not threads:
        raise UsageError(f"{name} has no messages: one JSON object a line, with thread, and seconds or at")
    for came in threads.values():
        came.sort(key=lambda one: one.at)
    return threads


def _line(line: bytes, where: str, *, split: bool) -> tuple[str, Came]:
    try:
        found: object = json.loads(line)
    except ValueError:
        raise UsageError(f"{where}: it is not JSON") from None
    except RecursionError:
        raise UsageError(f"{where}: it is nested too deeply") from None
    if not isinstance(found, dict):
        raise UsageError(f"{where}: a JSON object is needed, not {_kind(found)}")
    fields = cast("dict[str, object]", found)
    thread = _name(fields, "thread", where)
    if thread is None:
        raise UsageError(f"{where}: the field thread is missing")
    author = _name(fields, "author", where) if split else None
    return thread, Came(round(_seconds(fields, where) * 1000), author or "")


def _name(fields: Mapping[str, object], name: str, where: str) -> str | None:
    value = fields.get(name)
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return None if value is None else str(value)
    raise UsageError(f"{where}: {name} is a text or a whole number, not {_kind(value)}")


def _seconds(fields: Mapping[str, object], where: str) -> float:
    if ("seconds" in fields) == ("at" in fields):
        raise UsageError(f"{where}: it needs seconds or at, and not both")
    value = fields.get("seconds", fields.get("at"))
    if "seconds" in fields:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise UsageError(f"{where}: seconds is a number, not {_kind(value)}")
        if abs(value) > FARTHEST:
            raise UsageError(f"{where}: seconds is too large, {FARTHEST:,.0f} is the most")
        return float(value)
    try:
        at = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise UsageError(f"{where}: at is a time in ISO 8601, as in 2026-05-01T12:00:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _kind(value: object) -> str:
    for kind, name in _KINDS:
        if isinstance(value, kind):
            return name
    return "null"


# ── playing ──


def _outcome(
    threads: Iterable[Sequence[Came]], messages: int, debounce: float, max_wait: float, wishes: Wishes
) -> Outcome:
    waits: list[int] = []
    runs = sum(1 for came in threads for _ in _runs(came, debounce, max_wait, wishes, waits))
    waits.sort()
    return Outcome(debounce, max_wait, runs, 1 - runs / messages, _part(waits, 0.5), _part(waits, 0.95))


def _part(waits: Sequence[int], part: float) -> float:
    return waits[min(len(waits) - 1, math.ceil(len(waits) * part) - 1)] / 1000


def _runs(came: Sequence[Came], debounce: float, max_wait: float, wishes: Wishes, waits: list[int]) -> Iterator[int]:
    """The Runs of a thread, each as how many messages it had; *waits* gets what each message waited."""
    quiet, wait, takes = round(debounce * 1000), round(max_wait * 1000), round(wishes.run * 1000)
    window, waiting, free, due = Window(), deque[Came](), -sys.maxsize, 0
    for one in itertools.chain(came, (None,)):
        while waiting and (one is None or max(due, free) <= one.at):
            began = max(due, free)
            size = _cut(waiting, wishes)
            waits.extend(began - waiting.popleft().at for _ in range(size))
            yield size
            free = began + takes
            window.n = len(waiting)
            if waiting:
                window.f = min(free, waiting[0].at)
                due = window.due(free, wishes.max_batch, BYTES)
        if one is not None:
            waiting.append(one)
            window.add(one.at, quiet, wait)
            due = window.due(one.at, wishes.max_batch, BYTES)


def _cut(waiting: deque[Came], wishes: Wishes) -> int:
    """How many of the oldest are one batch, as ``lua/_pin.lua`` cuts."""
    most = itertools.islice(waiting, wishes.max_batch)
    if wishes.split:
        most = itertools.takewhile(lambda one: one.author == waiting[0].author, most)
    return sum(1 for _ in most)


# ── showing ──


def _show(outcomes: Sequence[Outcome], messages: int, threads: int) -> None:
    print(f"{some(messages, 'message')} in {some(threads, 'thread')}; one Run each would be {messages:,} Runs\n")
    columns = ("", "DEBOUNCE", "MAX_WAIT", "RUNS", "SAVED", "WAIT P50", "WAIT P95", "")
    made = table(*columns, right=columns[1:-1])
    for label, one in zip(LABELS, outcomes, strict=False):
        made.add_row(
            label, f"{one.debounce:g} s", f"{one.max_wait:g} s", f"{one.runs:,}", f"{one.saved:.0%}",
            f"{one.p50:.1f} s", f"{one.p95:.1f} s", "the default" if (one.debounce, one.max_wait) == USUAL else "",
        )  # fmt: skip
    tell(made)
    print()
    print("\n".join(plot([(one.p95, one.saved) for one in outcomes])))


def plot(points: Sequence[tuple[float, float]]) -> list[str]:
    """Letters on a plane: to the right the wait, upwards what is saved. Where two meet, the first one is shown."""
    most = max(x for x, _ in points) or 1.0
    field = [[" "] * WIDE for _ in range(HIGH)]
    for label, (x, y) in reversed(list(zip(LABELS, points, strict=False))):
        field[round((1 - y) * (HIGH - 1))][round(x / most * (WIDE - 1))] = label
    lines = ["Runs saved"]
    for number, cells in enumerate(field):
        mark = "100%" if number == 0 else "0%" if number == HIGH - 1 else ""
        lines.append(f"{mark:>5} │{''.join(cells)}".rstrip())
    lines.append(f"{'':>5} └{'─' * WIDE}")
    end = f"{most:.1f} s"
    lines.append(f"{'':>7}0 s{'added wait, p95':^{WIDE - 3 - len(end)}}{end}")
    return lines
