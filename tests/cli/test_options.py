"""Where options may stand, and what `--help` says."""

from __future__ import annotations

import pytest

from streambatch import BatchQueue
from tests.cli.terminal import Terminal
from tests.cli.tools import quick
from tests.rig import Server

pytestmark = pytest.mark.timeout(120)
NOBODY, OTHER = "redis://127.0.0.1:1", "redis://127.0.0.1:2"


@pytest.mark.leaves_keys("a namespace that is looked at")
async def test_where_may_be_said_before_the_verb(server: Server, namespace: str) -> None:
    """On a terminal, as somebody who knows kubectl types it."""
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=60) as queue:
        await queue.submit("anna", "hi")
        screen = await Terminal.start("--url", server.url, f"--namespace={namespace}", "threads", size=(160, 20))
        try:
            assert await screen.end() == 0, screen.text
        finally:
            await screen.close()
    assert "anna " in screen.text
    assert "1 thread in due" in screen.text


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("--url", NOBODY, "threads"), NOBODY),
        (("--url", OTHER, "dead", "list", "--url", NOBODY), NOBODY),
        ((f"--url={OTHER}", "dead", "--url", NOBODY, "list"), NOBODY),
        (("--url", OTHER, "--url", NOBODY, "--partitions", "3", "inspect", "--", "-1"), NOBODY),
    ],
)
async def test_it_means_the_same_and_what_stands_last_wins(words: tuple[str, ...], asked: str) -> None:
    code, out, err = await quick(*words, STREAMBATCH_URL="redis://127.0.0.1:3")
    assert (code, out) == (2, "")
    assert err.startswith(f"streambatch: {asked}: the server does not answer"), err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--url", NOBODY, "worker", "bot"), "--url is not for a worker: it has the url of its module's BatchQueue(…)"),
        (("worker", "bot", "--namespace=n"), "--namespace is not for a worker: it has the namespace of its module's"),
        (("--namespace", "n", "replay", "x"), "No such option: --namespace"),
        (("--every", "1", "top"), "No such option: --every"),
        (("--url",), "Option '--url' requires an argument."),
        (("dead", "--namespace"), "Option '--namespace' requires an argument."),
        (("--url", NOBODY, "tpo"), "No such command 'tpo'"),
        (("dead", "--url", NOBODY), "which of list, show, redrive, discard?"),
        (("--url", NOBODY), "which of doctor, top, threads, inspect, drain, "),
    ],
)
async def test_what_cannot_be_is_wrong_there_too(words: tuple[str, ...], wanted: str) -> None:
    code, out, err = await quick(*words)
    assert (code, out) == (2, "")
    assert wanted in err


@pytest.mark.parametrize("words", [("--url", NOBODY, "--help"), ("--version", "--url", NOBODY)])
async def test_it_hides_neither_help_nor_version(words: tuple[str, ...]) -> None:
    code, out, _ = await quick(*words)
    assert code == 0
    assert ("--url and --namespace" in out) == ("--help" in words)


async def test_the_verb_that_is_missing_behind_dead_is_asked_for_on_a_terminal() -> None:
    """In one line, not by the whole help."""
    screen = await Terminal.start("dead", "--url", NOBODY, size=(100, 20))
    try:
        assert await screen.end() == 2
    finally:
        await screen.close()
    assert "which of list, show, redrive, discard?" in screen.text
    assert "--help" not in screen.text.replace("dead --help", "")


VERBS = (
    "top", "threads", "inspect", "doctor", "drain", "cancel", "pause", "resume", "dead", "chat", "torture", "worker",
    "replay", "dead list", "dead show", "dead redrive", "dead discard",
)  # fmt: skip


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "dead"])
async def test_the_help_of_each_verb_says_its_exit_codes_and_its_first_line_does_not(verb: str) -> None:
    """The first line is all that the list of verbs has room for."""
    code, out, _ = await quick(*verb.split(), "--help", COLUMNS="80")
    text = [line.strip() for line in out.split("╭")[0].splitlines()]
    first, _, more = "\n".join(text).strip().partition("\n\n")[2].partition("\n\n")
    assert (code, "Exit code" in first, "Exit code 0" in " ".join(more.split())) == (0, False, True), out


async def test_the_list_of_verbs_has_those_first_that_one_looks_with() -> None:
    code, out, _ = await quick("--help")
    places = [out.index(f"│ {verb} ") for verb in VERBS if " " not in verb]
    assert (code, len(places)) == (0, 13)
    parts = [out.index(f" {part} ─") for part in ("Look at a namespace", "Command a namespace", "Run and try")]
    assert parts == sorted(parts)
    assert all(parts[0] < place < parts[1] for place in places[:5])
    assert all(parts[1] < place < parts[2] for place in places[5:9])
    assert all(parts[2] < place for place in places[9:])
