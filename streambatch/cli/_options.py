"""Options that verbs share, where they may stand, and how each verb ends.

``--url``, ``--namespace`` and ``--partitions`` say where, so many write them before the verb, as for kubectl. `Verbs`
puts them behind it before anything is parsed: they mean the same by construction, what stands after the verb wins,
because the last one does, and a verb without such an option refuses it by its own name; a worker, for which others
know them, says where it has them from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

PARTS = LOOK, COMMAND, RUN = "Look at a namespace", "Command a namespace", "Run and try"  # of --help
WHERE = ("--url", "--namespace", "--partitions")
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


class Verbs(TyperGroup):
    """A group of verbs that hands `WHERE` on to the one that was chosen."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the parts of ``--help``."""

        def place(name: str) -> int:
            part = getattr(self.commands[name], "rich_help_panel", None)
            return PARTS.index(part) if part in PARTS else 0

        return sorted(super().list_commands(ctx), key=place)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What typer does, with the arguments as they are meant."""
        own, where, rest = list[str](), list[str](), list(args)
        while rest and rest[0].startswith("-"):
            word = rest.pop(0)
            if word.partition("=")[0] not in WHERE:
                own.append(word)
            elif "=" in word:
                where.append(word)
            elif rest:
                where += [word, rest.pop(0)]
            else:
                ctx.fail(f"Option '{word}' requires an argument.")
        if where and not own and not rest:  # typer would show the help and not say what is missing
            ctx.fail(f"which of {', '.join(self.list_commands(ctx))}?")
        return super().parse_args(ctx, [*own, *rest[:1], *where, *rest[1:]] if rest else own)


class OfModule(TyperCommand):
    """A verb whose server and namespace are those of a module's queue, and which says so to who names others."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What typer does, unless `WHERE` is there."""
        for word in args[: args.index("--")] if "--" in args else args:
            name = word.partition("=")[0]
            if name in WHERE:
                ctx.fail(f"{name} is not for a {ctx.info_name}: it has the {name[2:]} of its module's BatchQueue(…)")
        return super().parse_args(ctx, args)


def ended(act: Callable[[], int]) -> NoReturn:
    """Do it and end with its exit code; an error of ours is one sentence on stderr and exit code 2."""
    from streambatch.cli._ends import code_of

    raise typer.Exit(code_of(act))
