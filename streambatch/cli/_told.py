"""How the verbs speak on stdout: plain text for people, JSON for programs. Errors and exit codes are in `_ends.py`.

Theory of operation
-------------------
Names of threads, authors and reasons come from elsewhere: what would command a terminal (control characters, escapes,
marks that turn the direction of writing) is shown escaped, see `plain`. A pipe gets no escapes and no wrapped lines.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from streambatch.cli._ends import unheard

_DANGEROUS = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def plain(text: str, most: int = 0) -> str:
    """Text of somebody else's, harmless on a terminal and on one line; at most so many characters, if given."""
    safe = "".join(_escaped(c) if unicodedata.category(c) in _DANGEROUS else c for c in text)
    return f"{safe[: most - 1]}…" if 0 < most < len(safe) else safe


def _escaped(character: str) -> str:
    return repr(character)[1:-1] if not character.isprintable() else f"\\u{ord(character):04x}"


def span(seconds: float | None) -> str:
    """Seconds as people read them: 0.4 s, 12 s, 3 m 20 s, 2 h 05 m, 3 d 4 h; "" for None, a minus if it is over."""
    if seconds is None:
        return ""
    sign, left = ("-" if seconds < 0 else ""), abs(seconds)
    if left < 9.95:
        return f"{sign}{left:.1f} s"
    whole = round(left)
    if whole < _MINUTE:
        return f"{sign}{whole} s"
    if whole < _HOUR:
        return f"{sign}{whole // _MINUTE} m {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{sign}{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} m"
    return f"{sign}{whole // _DAY} d {whole % _DAY // _HOUR} h"


def moment(at: float) -> str:
    """A moment in UTC, by the server's clock."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def some(count: int, what: str) -> str:
    """``1 thread``, ``3 threads``, ``2 batches``, ``2 tries``."""
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}es" if what.endswith("ch") else f"{what}s"
    return f"{count:,} {what if count == 1 else many}"


def here(namespace: str, url: str | None) -> str:
    """What a command that is advised needs, to be copied: the same server and namespace.

    The namespace also if a variable said it, which the next shell may not have. The URL is left out if the variable has
    it, and if there is a password in it, which would be printed.
    """
    from streambatch._connect import masked

    said = os.environ.get("STREAMBATCH_NAMESPACE", "default")
    name = "" if namespace == "default" == said else f" --namespace {namespace}"
    if url is None or url == os.environ.get("STREAMBATCH_URL") or masked(url) != url:
        return name
    return f" --url {plain(shlex.quote(url))}{name}"


class Pen(Console):
    """A console that says nothing about a reader that is gone, which is for `_ends.py` to judge."""

    def on_broken_pipe(self) -> None:
        """Rich would end the program with exit code 1, and close stdout even if it was stderr that nobody reads."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console(*, stderr: bool = False, wraps: bool = True) -> Console:
    """For a terminal; *wraps* if what is too long for a line goes on in the next one."""
    return Pen(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=not wraps)


def status() -> Callable[[str], None]:
    """Says on stderr what happens meanwhile, a line each; if nobody listens any more, the work still goes on."""
    pen = console(stderr=True, wraps=False)

    def note(text: str) -> None:
        try:
            pen.print(text, style="dim")
        except OSError:
            unheard(sys.stderr)

    return note


def columns() -> int:
    """How wide stdout is; 0 for a pipe, where lines are as long as they are and nothing is cut."""
    return console().width if sys.stdout.isatty() else 0


def tell(what: RenderableType) -> None:
    """Show it on stdout; lines of a pipe end where their text ends."""
    if sys.stdout.isatty():
        console().print(what)
    else:
        print("\n".join(line.rstrip() for line in _lines(what)))


def _lines(what: RenderableType) -> Iterator[str]:
    """What a pipe gets, which is no terminal of any width: Text, Padding, Group and the tables of `table`."""
    if isinstance(what, Group):
        for part in what.renderables:
            yield from _lines(part)
    elif isinstance(what, Padding):
        yield from (" " * what.left + line for line in _lines(what.renderable))
    elif isinstance(what, Table):
        yield from _rows(what)
    else:
        yield from str(what).split("\n")


def _rows(made: Table) -> Iterator[str]:
    cells = [[str(cell) for cell in (*([column.header] if made.show_header else []), *column.cells)]
             for column in made.columns]  # fmt: skip
    wide = [max(map(cell_len, column)) for column in cells[:-1]]
    for row in zip(*cells, strict=True):
        line = ""
        for cell, room, column in zip(row[:-1], wide, made.columns, strict=False):
            blank = " " * (room - cell_len(cell))
            line += (blank + cell if column.justify == "right" else cell + blank) + "  "
        yield line + row[-1]


def table(*columns: str, right: tuple[str, ...] = (), last: str = "", wide: int = 0) -> Table:
    """A table without lines; columns named in *right* stand to the right.

    On a terminal (*wide* columns), where so many columns of text may not fit, the column named *last* gives way, and no
    other. With 0 none does.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=bool(last) and wide > 0)
    for name in columns:
        made.add_column(
            name, justify="right" if name in right else "left", no_wrap=True, overflow="ellipsis",
            ratio=1 if name == last and wide else None,
        )  # fmt: skip
    return made


def as_json(value: Any) -> None:
    """For programs, on stdout; never with escapes of a terminal."""
    print(json.dumps(value, indent=2, ensure_ascii=True))
