"""The command line: ``streambatch …`` and ``python -m streambatch …``. Each verb is a module that `main` assembles.

What is here holds for all of them: streams that a verb can rely on, the end of the program by `_ends.py`, and that the
extra ``cli`` is missing. Nothing heavy is imported before a verb needs it.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast


def main() -> None:
    """Run the command line; never returns."""
    _streams()
    from streambatch.cli._ends import code_of

    sys.exit(code_of(_whole))


def _whole() -> int:
    from streambatch.cli._ends import COULD_NOT, exited, say

    try:
        from streambatch.cli._app import app
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich"):
            raise
        say(f'streambatch: the command line needs {missing.name}: pip install "streambatch-queue[cli]"')
        return COULD_NOT
    return exited(app)


def _streams() -> None:
    """Give the streams that were closed (``>&-``) a place, and let no poor encoding refuse a character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # else what is opened next, a socket, would have the number 0, 1 or 2
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in cast("list[Any]", [sys.stdout, sys.stderr]):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
