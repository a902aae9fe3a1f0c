"""The command line put together: its verbs and their options; what a verb does is in its own module.

Those of operators are in `_operate.py`. Nothing of the queue is imported before a verb needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streambatch.cli._operate import operate
from streambatch.cli._options import LOOK, RUN, AsJson, Namespace, OfModule, Verbs, ended

app = typer.Typer(
    name="streambatch",
    cls=Verbs,
    rich_markup_mode="markdown",  # the lines of a docstring are joined, whatever the terminal's width
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        import streambatch

        print(f"streambatch {streambatch.__version__}")
        raise typer.Exit


@app.callback()
def streambatch(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which one.")
    ] = False,
) -> None:
    """Durable per-thread batching for LLM bots: a burst of messages becomes one Run.

    --url and --namespace of a verb may also stand before it; a worker has those of its module. Exit codes: 0 done;
    1 not as wished; 2 not possible.
    """


@app.command(rich_help_panel=RUN)
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
    """Talk to a model in the terminal.

    Lines typed quickly become one Run, and no line is lost. Without an account: a small local model and an embedded
    server. With OPENAI_API_KEY (and OPENAI_BASE_URL, --model) the provider's. Piped input is one burst: its answer goes
    to stdout. /quit or Ctrl-D leaves.

    Exit code 0; 1: a line has no answer, or nobody reads it; 2: it could not start, or not write; 130: Ctrl-C.
    """
    from streambatch.cli import _chat

    wishes = _chat.Wishes(url, data, thread, model, instructions, debounce)
    ended(lambda: _chat.chat(wishes))


@app.command(rich_help_panel=LOOK)
def doctor(
    *,
    url: Annotated[
        str,
        typer.Option(
            envvar="STREAMBATCH_URL",
            help="The server, e.g. redis://localhost:6379; with a password better by the variable.",
        ),
    ],
    namespace: Namespace = "default",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at a server and a namespace: what is dangerous, why, and what to do.

    Nothing is changed, and neither content nor a password is shown. Exit code 0: at most notes; 1: warnings; 2: errors,
    no answer, or a URL that is none.
    """
    from streambatch.cli.doctor import doctor

    ended(lambda: doctor(url, namespace, as_json=as_json))


@app.command(rich_help_panel=RUN)
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
    """Kill, freeze and cut off real workers on your server, and say which promises were kept.

    It uses a namespace of its own and removes all its keys; your server is not configured, flushed or stopped. Only an
    embedded: one, which is started for this, is killed too. Exit code 0: all kept; 1: one broken; 2: it could not run.
    """
    from streambatch.cli import _torture

    wishes = _torture.Wishes(url, minutes * 60, seed, workers, threads, lease, report, json)
    ended(lambda: _torture.torture(wishes))


@app.command(cls=OfModule, rich_help_panel=RUN)
def worker(
    target: Annotated[str, typer.Argument(metavar="MODULE:QUEUE", help="Where the BatchQueue is, e.g. bot:queue.")],
) -> None:
    """Run the queue of a module until a signal.

    The first SIGTERM or Ctrl-C drains, the second releases what runs, the third leaves. The module makes a BatchQueue
    with a runner or a deliver callback and does not open it; URL and namespace are those of this queue, and
    STREAMBATCH_URL is not read. Exit code 0: stopped by a signal; 1: the queue ended by itself; 2: it could not start;
    130: the third signal.
    """
    from streambatch.cli import _worker

    ended(lambda: _worker.worker(target))


@app.command(rich_help_panel=RUN)
def replay(
    file: Annotated[str, typer.Argument(help="JSON lines with thread, and seconds or at; - is the standard input.")],
    *,
    debounce: Annotated[str, typer.Option(help="Seconds, a list.")] = "0,0.5,1,2,3,5",
    max_wait: Annotated[str, typer.Option(help="Seconds, a list.")] = "5,15,30",
    max_batch: Annotated[int, typer.Option(min=1, max=400, help="The most messages in one Run.")] = 50,
    run: Annotated[float, typer.Option(min=0, max=86_400, help="Seconds that a Run takes.")] = 0.0,
    split_authors: Annotated[bool, typer.Option("--split-authors", help="No two authors in one Run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play a recorded chat: how many Runs would which window save, and what does it cost in waiting.

    No server is needed. Exit code 0; 2: the file or an option is wrong.
    """

    def play() -> int:
        from streambatch.cli import _replay

        lists = (_replay.numbers(debounce, "--debounce"), _replay.numbers(max_wait, "--max-wait"))
        return _replay.replay(file, _replay.Wishes(*lists, max_batch, run, split_authors), json=as_json)

    ended(play)


app.add_typer(operate)
