"""The operator's verbs and their options: look at a namespace, or command it. What a verb does is in its own module."""

from __future__ import annotations

from typing import Annotated

import typer

from streambatch.cli._options import COMMAND, LOOK, AsJson, Namespace, Partitions, Url, Verbs, ended

operate = typer.Typer()
dead = typer.Typer(
    cls=Verbs, no_args_is_help=True, help="What failed for good: list, show, redrive or discard dead letters."
)
operate.add_typer(dead, name="dead", rich_help_panel=COMMAND)

Content = Annotated[bool, typer.Option("--show-content", help="Show texts and authors, too.")]
Threads = Annotated[str | None, typer.Option("--thread", help="Only letters of this thread.")]
Reason = Annotated[str | None, typer.Option(help="Only letters whose reason has these words.")]
Letters = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="As `dead list` shows them.", show_default=False)
]


@operate.command(rich_help_panel=LOOK)
def top(
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    every: Annotated[float, typer.Option(min=0.1, max=3_600, help="Seconds between two looks.")] = 2.0,
    count: Annotated[int | None, typer.Option(min=1, max=1_000, help="Threads; else as many as fit.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One table, as without a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a namespace: counts, and the most urgent threads. q or Ctrl-C leaves.

    Without a terminal, with --once or --json it looks once. Exit code 0; 2: no server, no such namespace.
    """
    from streambatch.cli import _top
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _top.top(where, every, count, once=once, json=as_json))


@operate.command(rich_help_panel=LOOK)
def threads(
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    state: Annotated[
        str, typer.Option(help="due (wait, run or retry), outbox (a reply is on its way) or parked.")
    ] = "due",
    offset: Annotated[int, typer.Option(min=0, help="Skip so many.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=1_000, help="So many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List a page of threads, those first that somebody must look at first.

    Exit code 0, also if there is none; 2: no server, no such namespace.
    """
    from streambatch.cli import _threads
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _threads.threads(where, state, offset, count, json=as_json))


@operate.command(rich_help_panel=LOOK)
def inspect(
    thread: Annotated[str, typer.Argument(help="The first argument of the bot's submit.")],
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    messages: Annotated[int, typer.Option(min=0, max=1_000, help="List so many messages.")] = 20,
    content: Content = False,
    as_json: AsJson = False,
) -> None:
    """Say what a thread is doing, why, and what to do about it.

    Exit code 0; 1: nothing is known of it; 2: no server, no such namespace.
    """
    from streambatch.cli import _inspect
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _inspect.inspect(where, thread, messages, show=content, json=as_json))


@operate.command(rich_help_panel=COMMAND)
def cancel(
    thread: Annotated[str, typer.Argument(help="The conversation.")],
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    run: Annotated[bool, typer.Option(help="End its Run: that batch is never answered.")] = True,
    pending: Annotated[bool, typer.Option(help="Drop what waits behind it.")] = True,
    keep: Annotated[bool, typer.Option("--keep", help="Deliver what the Run has said so far.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a thread's Run, wherever it is, and drop what waits.

    Exit code 0; 1: there was nothing to cancel; 2: no server, no such namespace.
    """
    from streambatch.cli import _cancel
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _cancel.cancel(where, thread, run=run, pending=pending, keep=keep, json=as_json))


@operate.command(rich_help_panel=COMMAND)
def pause(
    thread: Annotated[str | None, typer.Argument(help="Without one: the whole namespace.")] = None,
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """Start no Run of a thread, or of the namespace, until resume.

    What runs ends, replies go on, messages are kept. Exit code 0; 2: no server, no such namespace.
    """
    from streambatch.cli import _pause
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _pause.pause(where, thread, on=True, json=as_json))


@operate.command(rich_help_panel=COMMAND)
def resume(
    thread: Annotated[str | None, typer.Argument(help="Without one: the whole namespace.")] = None,
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    as_json: AsJson = False,
) -> None:
    """End a pause, of a thread or of the namespace.

    That of the namespace and those of threads are ended one by one. Exit code 0; 2: no server, no such namespace.
    """
    from streambatch.cli import _pause
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _pause.pause(where, thread, on=False, json=as_json))


@operate.command(rich_help_panel=LOOK)
def drain(
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    timeout: Annotated[float, typer.Option(min=0, max=86_400, help="Seconds.")] = 300.0,
    runs: Annotated[bool, typer.Option("--runs", help="Wait for Runs and deliveries only; pause before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Wait until nothing waits, runs or is being delivered.

    It only watches, the workers must stay up. Exit code 0: empty; 1: not, and what is left is shown (at the timeout, or
    at once if it is paused); 2: no server.
    """
    from streambatch.cli import _drain
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _drain.drain(where, timeout, runs=runs, json=as_json))


@dead.command("list")
def dead_list(
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    thread: Threads = None,
    reason: Reason = None,
    count: Annotated[int, typer.Option(min=1, max=1_000, help="So many.")] = 50,
    after: Annotated[str | None, typer.Option(help="The id that the page before ended with.")] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the oldest first.

    Exit code 0, also if there is none; 2: no server, no such namespace.
    """
    from streambatch.cli import _dead
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _dead.list_dead(where, _dead.Wanted(thread, reason), count, after, json=as_json))


@dead.command("show")
def dead_show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="As `dead list` shows it.")],
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    content: Content = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter.

    Exit code 0; 1: there is none with this id; 2: no server, no such namespace.
    """
    from streambatch.cli import _dead
    from streambatch.cli._reach import Where

    where = Where(url, namespace, partitions)
    ended(lambda: _dead.show(where, letter, content=content, json=as_json))


@dead.command("redrive")
def dead_redrive(
    letters: Letters = None,
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    every: Annotated[
        bool, typer.Option("--all", help="All there are now, or those that --thread and --reason choose.")
    ] = False,
    thread: Threads = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back: a batch at the end of its thread, a reply to be delivered.

    Exit code 0; 1: one was not; 2: no server, no such namespace.
    """
    from streambatch.cli import _dead
    from streambatch.cli._reach import Where

    where, wanted = Where(url, namespace, partitions), _dead.Wanted(thread, reason)
    ended(lambda: _dead.redrive(where, letters or (), wanted, every=every, json=as_json))


@dead.command("discard")
def dead_discard(
    letters: Letters = None,
    *,
    url: Url = None,
    namespace: Namespace = "default",
    partitions: Partitions = None,
    every: Annotated[
        bool, typer.Option("--all", help="All there are now, or those that --thread and --reason choose.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    thread: Threads = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters; their messages are lost for good.

    Exit code 0; 1: one was not there; 2: no server, no such namespace; 130: a "no" to its question.
    """
    from streambatch.cli import _dead
    from streambatch.cli._reach import Where

    where, wanted = Where(url, namespace, partitions), _dead.Wanted(thread, reason)
    ended(lambda: _dead.discard(where, letters or (), wanted, every=every, yes=yes, json=as_json))
