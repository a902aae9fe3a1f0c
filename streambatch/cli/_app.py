"""The verbs of the command line and their options; what a verb does is in its own module."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from streambatch.errors import StreambatchError

app = typer.Typer(
    name="streambatch",
    help="Durable per-thread batching for LLM bots: a burst of messages becomes one Run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def streambatch() -> None:
    """Keep verbs as verbs."""


@app.command()
def chat(
    *,
    url: Annotated[
        str | None, typer.Option(help="The queue's server, e.g. redis://localhost:6379; without it an embedded one.")
    ] = None,
    data: Annotated[
        Path, typer.Option(help="The folder of the embedded server; the conversation goes on from there.")
    ] = Path("streambatch-chat"),
    thread: Annotated[str, typer.Option(help="The name of the conversation.")] = "chat",
    model: Annotated[
        str | None, typer.Option(help="The provider's model (with OPENAI_API_KEY or OPENAI_BASE_URL).")
    ] = None,
    instructions: Annotated[str, typer.Option(help="What the model is told before everything else.")] = (
        "You are a helpful assistant. Answer in one or two short sentences."
    ),
    debounce: Annotated[float, typer.Option(min=0, max=60, help="Quiet seconds that end a burst.")] = 2.0,
) -> None:
    """Talk to a model in the terminal: lines typed quickly become one Run, and no line is lost.

    Without an account: a small local model and an embedded server. With OPENAI_API_KEY (and OPENAI_BASE_URL, --model)
    the provider's. Piped input is one burst: its answer goes to stdout. /quit or Ctrl-D leaves.
    """
    from streambatch.cli import _chat

    wishes = _chat.Wishes(url, data, thread, model, instructions, debounce)
    try:
        code = _chat.chat(wishes)
    except StreambatchError as error:
        sys.exit(f"streambatch: {error}")
    raise typer.Exit(code)


@app.command()
def doctor(
    *,
    url: Annotated[
        str,
        typer.Option(
            envvar="STREAMBATCH_URL",
            help="The server, e.g. redis://localhost:6379; with a password better by the variable.",
        ),
    ],
    namespace: Annotated[str, typer.Option(help="The queue's namespace.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at a server and a namespace: what is dangerous, why, and what to do.

    Nothing is changed, and neither content nor a password is shown. Exit code 0: at most notes; 1: warnings; 2: errors,
    no answer, or a URL that is none.
    """
    from streambatch.cli.doctor import doctor

    try:
        code = doctor(url, namespace, as_json=as_json)
    except StreambatchError as error:
        print(f"streambatch: {error}", file=sys.stderr)
        code = 2
    raise typer.Exit(code)


@app.command()
def torture(
    *,
    url: Annotated[
        str, typer.Option(envvar="STREAMBATCH_URL", help="The server, e.g. redis://localhost:6379 or embedded:")
    ] = "embedded:",
    minutes: Annotated[float, typer.Option(min=0.01, help="How long faults go on; the drain comes after it.")] = 5.0,
    seed: Annotated[int | None, typer.Option(help="Decides who is harmed when; without it a new one.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that run and deliver.")] = 4,
    threads: Annotated[int, typer.Option(min=2, max=10_000, help="Conversations.")] = 30,
    lease: Annotated[float, typer.Option(min=0.5, max=60, help="The queue's lease, seconds.")] = 2.0,
    report: Annotated[Path | None, typer.Option(help="A file for the whole report, JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")] = False,
) -> None:
    """Kill, freeze and cut off real workers on your own server, and say which promises were kept.

    It uses a namespace of its own and removes all its keys; your server is not configured, flushed or stopped. Only an
    embedded: one, which is started for this, is killed too. Exit code: 0 all kept, 1 one broken, 2 it could not run.
    """
    from streambatch.cli import _torture

    wishes = _torture.Wishes(url, minutes * 60, seed, workers, threads, lease, report, json)
    try:
        code = _torture.torture(wishes)
    except StreambatchError as error:
        print(f"streambatch: {error}", file=sys.stderr)
        code = 2
    raise typer.Exit(code)
