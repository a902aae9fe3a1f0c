"""`streambatch top` on a real terminal: the screen that a person sees, the keys, and how it leaves."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from streambatch._connect import masked
from tests.cli.stage import CANARY, staged
from tests.cli.terminal import ALTERNATE, LEFT, SHOWN, Terminal
from tests.cli.tools import finish, quick
from tests.conftest import StartServer
from tests.rig import Server, wait_for

pytestmark = pytest.mark.timeout(120)
Open = Callable[..., Awaitable[Terminal]]
LEAVES = "a namespace with something in every state is left as it is"


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Open terminals, which end with the test."""
    started: list[Terminal] = []

    async def start(*words: str, **options: Any) -> Terminal:
        started.append(await Terminal.start(*words, **options))
        return started[-1]

    yield start
    for terminal in started:
        await terminal.close()


@pytest.mark.leaves_keys(LEAVES)
async def test_the_screen_shows_counts_and_the_most_urgent_first_and_q_leaves_it(
    server: Server, namespace: str, opened: Open
) -> None:
    async with staged(server.url, namespace) as stage:
        await stage.fill()
        screen = await opened("top", "--namespace", namespace, "--every", "0.2", size=(140, 20), **stage.here)
        await screen.until("THREAD", "parked 1", "Runs/min 0", "held")
        lines = screen.lines
        shown = masked(server.url)[:60]
        assert re.match(rf"streambatch top  \d\d:\d\d:\d\d UTC  namespace {namespace}, {re.escape(shown)}", lines[0])
        counts = "waiting 2  running 1  retrying 1  undelivered 1  parked 1  paused no, 1 by name  dead 2"
        counts += f"  → streambatch dead list --namespace {namespace}"
        assert lines[1] == counts
        assert re.fullmatch(r"messages 5  oldest waiting \d.*  overdue 0.0 s  Runs/min 0", lines[2])
        rows = [line.split() for line in lines[4:]]
        assert rows[0] == ["THREAD", "STATE", "AGE", "MSGS", "TRY", "NEXT", "OWNER", "REASON"]
        order = [row[1] for row in rows[1:] if row]
        assert order == ["undelivered", "retrying", "running", "waiting", "waiting", "parked"]
        assert "HTTP 429 from the chat" in lines[5]
        assert "HTTP 503 from the provider" in lines[6]
        assert re.search(r"slow +running +\d.* +1 +1 +\d+ s +\S+:\d+$", lines[7])
        assert "evil\\x1b[2J\\n\\u202e" in screen.text
        assert CANARY not in screen.text
        screen.resize(100, 20)  # the command goes below, and is not cut in two
        await screen.until(f"dead 2\n→ streambatch dead list --namespace {namespace}\nmessages 5")
        assert ALTERNATE in screen.raw
        assert screen.modes != screen.before
        screen.give("q")
        assert await screen.end() == 0
    assert screen.modes == screen.before
    assert screen.raw.rindex(LEFT) > screen.raw.rindex(ALTERNATE)
    assert SHOWN in screen.raw[screen.raw.rindex(ALTERNATE) :]
    assert b"bot-secret" not in screen.raw


@pytest.mark.leaves_keys(LEAVES)
@pytest.mark.parametrize("way", ["keys", "signal"])
async def test_ctrl_c_and_sigterm_leave_the_terminal_as_it_was(
    server: Server, namespace: str, opened: Open, way: str
) -> None:
    async with staged(server.url, namespace) as stage:
        screen = await opened("top", "--namespace", namespace, "--every", "3600", **stage.here)
        await screen.until("nothing waits, nothing runs")
        screen.resize(40, 10)  # drawn anew at once, not at the next look
        await screen.until("retrying 0\nundelivered 0")
        if way == "keys":
            screen.give("\x03")
        else:
            screen.child.send_signal(signal.SIGTERM)
        assert await screen.end() == 0
    assert screen.modes == screen.before
    assert screen.raw.endswith((SHOWN, LEFT)) or LEFT in screen.raw[-40:]


@pytest.mark.leaves_keys(LEAVES)
async def test_it_follows_what_happens_and_the_size_of_the_terminal(
    server: Server, namespace: str, opened: Open
) -> None:
    """Runs a minute come from the counter, a narrow screen drops the owner, a pause is said."""
    async with staged(server.url, namespace) as stage:
        screen = await opened("top", "--namespace", namespace, "--every", "0.1", size=(110, 20), **stage.here)
        await screen.until("Runs/min 0")
        await stage.say("slow")
        await screen.until("running 1", "OWNER")
        screen.resize(76, 12)
        await screen.until("running 1", "THREAD", "REASON", "slow")
        assert "OWNER" not in screen.text
        await stage.queue.pause()
        await screen.until("PAUSED: no Run of this namespace starts", "paused yes")
        await stage.queue.resume()
        stage.runner.let_go.set()
        await screen.until("Runs/min", "running 0", "nothing runs")
        found = re.search(r"Runs/min (\d+)", screen.text)
        assert found is not None
        assert int(found[1]) > 0
        screen.give("q")
        assert await screen.end() == 0


@pytest.mark.standalone("it is killed and frozen")
@pytest.mark.leaves_keys(LEAVES)
async def test_while_the_server_is_away_the_screen_says_so_and_it_comes_back(
    start_server: StartServer, namespace: str, opened: Open
) -> None:
    server = start_server(aof="everysec")
    async with staged(server.url, namespace) as stage:
        screen = await opened("top", "--namespace", namespace, "--every", "0.1", **stage.here)
        await screen.until("waiting 0")
        server.kill9()
        await screen.silent(0, "trying again: ")
        assert "waiting 0" in screen.text
        assert not re.search(rb"no answer (for|since) 0\.", screen.raw)
        server.restart()
        await stage.queue.stats()
        await stage.say("slow")
        await screen.until("running 1")
        assert "no answer" not in screen.text
        server.stop()  # frozen: it says nothing at all, which is counted, and q leaves at once
        await screen.silent(await screen.silent(0, "still waiting"), "still waiting")
        assert "running 1" in screen.text
        screen.give("q")
        assert await screen.end() == 0
        server.cont()
    assert screen.modes == screen.before


async def test_a_silent_server_is_said_to_be_silent_at_the_start(tmp_path: Path, opened: Open) -> None:
    """It accepts, and says nothing; for five seconds nothing else would be on the screen."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(silent, tmp_path / "s.sock"):
        screen = await opened("top", "--url", f"unix://{tmp_path / 's.sock'}", size=(160, 10))
        await screen.until("s.sock has not answered yet")
        screen.give("\x03")
        assert await screen.end() == 130


@pytest.mark.leaves_keys(LEAVES)
async def test_without_a_terminal_it_looks_once(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        await stage.fill()
        code, out, err = await finish("top", "--namespace", namespace, **stage.here)
        assert (code, err) == (0, "")
        assert "\x1b" not in out
        assert "running 1" in out
        assert "slow " in out
        assert CANARY not in out
        code, out, err = await finish("top", "--namespace", namespace, "--json", "--count", "3", **stage.here)
    told = json.loads(out)
    counts = {
        "waiting": 2,
        "running": 1,
        "retrying": 1,
        "cancelling": 0,
        "undelivered": 1,
        "parked": 1,
        "paused_threads": 1,
        "dead": 2,
    }
    assert {name: told[name] for name in counts} == counts
    assert (told["paused"], told["whole"], told["messages"], told["batches"]) == (False, True, 5, 1)
    assert (told["received"], told["duplicates"]) == (8, 0)
    assert [row["thread"] for row in told["threads"]] == ["undelivered", "busy", "slow"]
    slow = told["threads"][2]
    assert slow["owner"]
    assert 0 < slow["lease"] <= 30
    assert (slow["state"], slow["in_batch"], slow["attempt"]) == ("running", 1, 1)
    assert told["oldest"] >= slow["age"] > 0


@pytest.mark.leaves_keys(LEAVES)
@pytest.mark.parametrize(("paused", "waiting"), [(60, "230"), (130, "≥ 200")])
async def test_batches_of_paused_threads_are_not_taken_for_others(
    server: Server, namespace: str, paused: int, waiting: str
) -> None:
    """What waits is what is due less the batches, but not less those of paused threads, of which many are not seen."""
    async with staged(server.url, namespace) as stage:
        names = [f"busy-{number}" for number in range(paused)]
        await asyncio.gather(*(stage.say(name) for name in names))

        async def there() -> bool:
            return {(await stage.queue.explain(name)).state for name in names} == {"retrying"}

        await wait_for(there, "the failures", deadline=30)
        for name in names:
            await stage.queue.pause(name)
        quiet = (stage.queue.submit(f"quiet-{number}", "hi", debounce=3_000) for number in range(230))
        await asyncio.gather(*quiet)
        code, out, err = await quick("top", "--once", "--namespace", namespace, **stage.here)
    assert (code, err) == (0, "")
    assert f"\nwaiting {waiting}  running ≥ 0  retrying ≥ 0  undelivered 0  parked {paused}  " in out
