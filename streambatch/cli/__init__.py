"""The command line: ``streambatch …`` and ``python -m streambatch …``. Each verb is a module that `main` assembles.

What the verbs have in common is here: how an error ends the program (one sentence on stderr, exit code 1) and that the
extra ``cli`` is missing. Nothing heavy is imported before a verb needs it.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; never returns."""
    try:
        from streambatch.cli._app import app
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich"):
            raise
        sys.exit(f"streambatch: the command line needs {missing.name}: pip install 'streambatch-queue[cli]'")
    app()
