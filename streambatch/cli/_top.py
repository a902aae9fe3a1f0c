"""``streambatch top``: the namespace at a glance, again and again.

Theory of operation
-------------------
Each refresh is one `Survey.board`: two exchanges, however many threads there are. On a terminal the table is drawn on
the alternate screen, as full-screen programs do, so that leaving brings back what was there; keys are read one by one
without echo. Whatever ends it, ``q``, Ctrl-C, SIGTERM or an error, the terminal is put back before anything is said.
Elsewhere it prints one table and ends.

While the server is away the last table stays, with a line that says for how long. It is asked again at every refresh,
and the line counts on while a call is under way: a frozen server lets each of them wait for seconds.
What runs is counted by looking, so in a crowd it is "at least": see `_survey`. Runs a minute come from the counter of
committed batches, of which two readings are needed: one table alone shows none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from streambatch._survey import Board
from streambatch.cli._glance import row, rows
from streambatch.cli._reach import Reach, Where, reached
from streambatch.cli._told import as_json, columns, console, plain, span, tell
from streambatch.errors import StoreError

MINUTE = 60.0
SILENT = 1.0  # seconds without an answer that are worth a line
HEAD = 6  # lines above the rows, with one that is told now and then
ROWS = 20  # where there is no terminal


def top(where: Where, every: float, count: int | None, *, once: bool, json: bool) -> int:
    """Show it; returns the exit code. Raises StreambatchError."""
    watch = not once and not json and sys.stdout.isatty()
    return asyncio.run(_watch(where, every, count) if watch else _once(where, count or ROWS, json=json))


async def _once(where: Where, count: int, *, json: bool) -> int:
    async with reached(where) as reach:
        board = await reach.survey.board(count)
    if json:
        told = {"namespace": where.namespace, "now": board.now, **totals(board)}
        as_json({**told, "threads": [row(glance) for glance in board.threads]})
    else:
        tell(screen(board, reach, columns(), None))
    return 0


def totals(board: Board) -> dict[str, Any]:
    """The counts. Where not all threads were looked at (``whole``), what runs or retries is "at least"."""
    stats, states = board.stats, board.states
    waiting = states.get("waiting", 0)
    if not board.whole:  # all but those with a batch in hand, of which some are paused, and not in `due`
        waiting = max(waiting, stats.due - max(0, stats.in_hand - stats.undelivered - board.shelved))
    return {
        "waiting": waiting, "running": states.get("running", 0), "retrying": states.get("retrying", 0),
        "cancelling": states.get("cancelling", 0), "undelivered": stats.undelivered, "parked": stats.parked,
        "paused": stats.paused, "paused_threads": stats.paused_threads, "dead": stats.dead,
        "messages": stats.messages, "oldest": board.oldest,
        "overdue": stats.oldest_overdue, "received": stats.received, "duplicates": stats.duplicates,
        "batches": stats.batches, "delivered": stats.delivered, "whole": board.whole,
    }  # fmt: skip


def screen(board: Board, reach: Reach, wide: int, rate: float | None, note: str = "") -> RenderableType:
    """Title, counts, and the most urgent threads."""
    t, least = totals(board), "" if board.whole else "≥ "
    head = Text("streambatch top", "bold", no_wrap=True, overflow="ellipsis")
    head.append(time.strftime("  %H:%M:%S UTC", time.gmtime(board.now)), "not bold dim").append(
        f"  {plain(reach.name)}", "not bold"
    )
    unseen = "" if board.whole or t["parked"] <= board.states.get("parked", 0) else "≥ "
    counts = [("waiting", f"{unseen}{t['waiting']:,}"), ("running", f"{least}{t['running']:,}")]
    counts += [("retrying", f"{least}{t['retrying']:,}"), ("undelivered", f"{t['undelivered']:,}")]
    named = f", {t['paused_threads']:,} by name" if t["paused_threads"] else ""
    counts += [("parked", f"{t['parked']:,}"), ("paused", f"{'yes' if t['paused'] else 'no'}{named}")]
    counts += [("dead", f"{t['dead']:,}")]
    more = [("messages", f"{t['messages']:,}"), ("oldest waiting", span(board.oldest) or "-")]
    more += [("overdue", span(t["overdue"]))]
    more += [("Runs so far", f"{t['batches']:,}") if rate is None else ("Runs/min", f"{rate:,.0f}")]
    lines = [head, _pairs(counts), _pairs(more)]
    if t["dead"]:
        _beside(lines, 1, Text(f"→ streambatch dead list{reach.again}", "dim"), wide)
    if t["paused"]:
        end = f"`streambatch resume{reach.again}` ends it"
        lines.append(Text(f"PAUSED: no Run of this namespace starts; {end}", "bold yellow"))
    if note:
        lines.append(Text(note, "bold red"))
    body = (
        rows(board.threads, wide, paused=t["paused"]) if board.threads else Text("nothing waits, nothing runs", "dim")
    )
    return Group(*lines, Text(""), body)


def _beside(lines: list[Text], place: int, text: Text, wide: int) -> None:
    """Put *text* at the end of a line, or below it: a command that is cut in two is no command."""
    if wide and lines[place].cell_len + text.cell_len > wide:
        lines.insert(place + 1, text)
    else:
        lines[place].append_text(text)


def _pairs(pairs: list[tuple[str, str]]) -> Text:
    line = Text()
    for name, value in pairs:
        alarming = name in ("dead", "paused", "retrying") and value.partition(",")[0].strip("≥ ") not in ("0", "no")
        line.append(f"{name} ", "dim").append(value, "bold yellow" if alarming else "bold").append("  ")
    return line


# ── again and again ──


async def _watch(where: Where, every: float, count: int | None) -> int:
    loop, stop, wake = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def leave() -> None:
        stop.set()
        wake.set()

    async with reached(where) as reach:
        picture = _Picture(reach, console(), count)
        await picture.look()  # an error now is an error of the verb, said on an ordinary screen
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, leave)
        loop.add_signal_handler(signal.SIGWINCH, wake.set)
        with _keys(leave), Live(console=picture.console, screen=True, auto_refresh=False) as live:
            while not stop.is_set():
                live.update(picture.draw(), refresh=True)
                wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await wake.wait()
                if not stop.is_set():
                    await _unless(stop, picture, lambda: live.update(picture.draw(), refresh=True))
    return 0


async def _unless(stop: asyncio.Event, picture: _Picture, draw: Callable[[], None]) -> None:
    """Look again, but leave at once if somebody wants that while the server is silent, which is drawn meanwhile."""
    looking, leaving = asyncio.ensure_future(picture.again()), asyncio.ensure_future(stop.wait())
    wait = asyncio.wait
    while not (await wait((looking, leaving), timeout=SILENT, return_when=asyncio.FIRST_COMPLETED))[0]:
        draw()
    for task in (looking, leaving):
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    if looking.done() and not looking.cancelled():
        looking.result()


class _Picture:
    """What is on the screen, and what it was made from."""

    def __init__(self, reach: Reach, console: Console, count: int | None) -> None:
        self.console = console
        self._reach = reach
        self._count = count
        self._board: Board | None = None
        self._asked: float | None = None  # when what has had no answer since was asked for the first time
        self._error = ""
        self._read: deque[tuple[float, int]] = deque()

    async def look(self) -> None:
        """A fresh board. Raises StoreError."""
        self._board = board = await self._reach.survey.board(self._count or max(1, self.console.height - HEAD))
        self._asked, self._error = None, ""
        while self._read and board.now - self._read[0][0] > MINUTE:
            self._read.popleft()
        self._read.append((board.now, board.stats.batches))

    async def again(self) -> None:
        """The same, while the server may be away."""
        self._asked = self._asked or time.monotonic()
        try:
            await self.look()
        except StoreError as error:
            self._error = str(error)

    def draw(self) -> RenderableType:
        """What is known."""
        assert self._board is not None
        return screen(self._board, self._reach, self.console.width, self._rate(), self._silence())

    def _silence(self) -> str:
        """That the server does not answer, and for how long."""
        silent = 0.0 if self._asked is None else time.monotonic() - self._asked
        if silent < SILENT and not self._error:
            return ""
        long = f" for {span(silent)}" if silent >= SILENT else ""
        return f"no answer{long}, {f'trying again: {plain(self._error)}' if self._error else 'still waiting'}"

    def _rate(self) -> float | None:
        if len(self._read) < 2:
            return None
        (began, before), (ended, after) = self._read[0], self._read[-1]
        return None if ended <= began else max(0, after - before) / (ended - began) * MINUTE


@contextmanager
def _keys(leave: Any) -> Generator[None]:
    """Keys one by one, not shown; ``q`` leaves. Nothing where stdin is no terminal."""
    place = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1
    if place < 0:
        yield
        return
    loop, before = asyncio.get_running_loop(), termios.tcgetattr(place)

    def pressed() -> None:
        with suppress(OSError):
            data = os.read(place, 64)
            if not data or set(data) & set(b"qQ\x04"):
                leave()

    mode = termios.tcgetattr(place)
    mode[3] &= ~(termios.ICANON | termios.ECHO)
    mode[6][termios.VSUSP] = b"\0"  # stopped by Ctrl-Z it would leave the shell on the alternate screen
    try:
        termios.tcsetattr(place, termios.TCSADRAIN, mode)
        loop.add_reader(place, pressed)
        yield
    finally:
        loop.remove_reader(place)
        termios.tcsetattr(place, termios.TCSADRAIN, before)
