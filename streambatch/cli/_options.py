"""Options that verbs share, and how each of them ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

Url = Annotated[
    str | None,
    typer.Option(
        envvar="STREAMBATCH_URL", show_envvar=True, show_default=False,
        help="The server, e.g. redis://localhost:6379; with a password better by the variable.",
    ),
]  # fmt: skip
Namespace = Annotated[
    str, typer.Option(envvar="STREAMBATCH_NAMESPACE", show_envvar=True, help="The queue's namespace.")
]
Partitions = Annotated[
    int | None, typer.Option(min=1, max=1_024, help="Refuse a namespace with another number.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def ended(act: Callable[[], int]) -> NoReturn:
    """Do it and end with its exit code; an error of ours is one sentence on stderr and exit code 2."""
    from streambatch.cli._ends import code_of

    raise typer.Exit(code_of(act))
