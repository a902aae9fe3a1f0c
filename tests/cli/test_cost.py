"""What looking costs: a page, however many threads there are, and nothing that a verb does not need is imported.

Theory of operation. Commands are counted, because time is not: those of a namespace with a page of threads and of one
with 10,000. The commands inside of scripts are counted by the server as well.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from streambatch import BatchQueue
from streambatch._survey import PAGE, Survey
from tests.cli.tools import ROOT, environment, finish, quick
from tests.conftest import StartServer
from tests.rig import Server

CROWD = 10_000
LOOKS = (
    ("top", "--once", "--json"), ("threads", "--json"), ("threads", "--offset", "5000", "--json"),
    ("inspect", "thread 7", "--json"), ("doctor", "--json"), ("drain", "--timeout", "0", "--json"),
    ("dead", "list", "--json"),
)  # fmt: skip
OF_A_LOOK = 14  # commands of one look, its own included


async def crowd(server: Server, namespace: str, count: int) -> None:
    """So many threads with a message."""
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=3_000, max_wait=3_000) as queue:
        await asyncio.gather(*(queue.submit(f"thread {number}", "hello") for number in range(count)))


async def cost(server: Server, words: tuple[str, ...], namespace: str) -> dict[str, int]:
    """The commands that the server saw, by name."""
    server.admin().config_resetstat()
    code, out, err = await quick(*words, "--namespace", namespace, STREAMBATCH_URL=server.url)
    assert code in (0, 1), out + err
    json.loads(out)
    # Names cost no commands, so what was sent is bounded, too: pages, and of `--offset` the page alone.
    assert server.admin().info("stats")["total_net_output_bytes"] < 400_000, words
    stats: dict[str, Any] = server.admin().info("commandstats")
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}


@pytest.mark.timeout(120)
async def test_each_verb_that_looks_costs_a_page(start_server: StartServer) -> None:
    """Ten thousand threads cost no more commands than two pages of them, and there is no KEYS and no SCAN."""
    server = start_server(aof="everysec")
    await crowd(server, "few", 2 * PAGE)
    await crowd(server, "many", CROWD)
    for words in LOOKS:
        few, many = await cost(server, words, "few"), await cost(server, words, "many")
        walks = {name for name in many if name.split("|")[0] in ("keys", "scan", "sscan", "hscan", "zscan", "hgetall")}
        assert walks <= {"hgetall"}, words
        assert many.get("hgetall", 0) == few.get("hgetall", 0), words
        # Of the doctor the number of PINGs is what fits into its time.
        spent = {name: calls for name, calls in many.items() if name != "ping"}
        assert sum(spent.values()) <= 40 + (4 * PAGE + 2) * OF_A_LOOK, (words, spent)
        more = sum(spent.values()) - sum(calls for name, calls in few.items() if name != "ping")
        assert more <= 50 * OF_A_LOOK, (words, more)


async def test_a_board_is_two_exchanges(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server, sent = start_server(), list[int]()
    await crowd(server, "many", 1_000)
    ask: Any = Survey._ask  # pyright: ignore[reportPrivateUsage]

    async def counted(self: Survey, calls: list[Any]) -> Any:
        sent.append(len(calls))
        return await ask(self, calls)

    monkeypatch.setattr(Survey, "_ask", counted)
    code, out, _ = await quick("top", "--json", "--namespace", "many", STREAMBATCH_URL=server.url)
    assert (code, sent) == (0, [5, 2 * PAGE])
    told = json.loads(out)
    assert (told["waiting"], told["whole"], len(told["threads"])) == (1_000, False, 20)


async def loaded(*words: str) -> set[str]:
    """Which of the heavy packages a command line has imported at its end."""
    script = (
        "import sys\nfrom streambatch.cli import main\nsys.argv[0] = 'streambatch'\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = 'redis hiredis openai httpx anyio structlog rich typer agents'.split()\n"
        "print('loaded', *(name for name in heavy if name in sys.modules), file=sys.stderr)\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *words, env=environment(None), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await child.communicate()
    return set(err.decode().splitlines()[-1].split()[1:])


async def test_nothing_heavy_is_imported_before_a_verb_needs_it(tmp_path: Any) -> None:
    chat = tmp_path / "chat.jsonl"
    chat.write_text('{"thread": 1, "seconds": 1}\n')
    light = {"rich", "typer"}
    for words in (("--help",), ("--version",), ("top", "--help"), ("dead", "--help"), ("replay", str(chat))):
        assert await loaded(*words) <= light, words
    assert not await loaded("top", "--url", "redis://127.0.0.1:1") & {"openai", "httpx"}


async def test_the_version_is_that_of_the_package() -> None:
    import streambatch

    assert await finish("--version") == (0, f"streambatch {streambatch.__version__}\n", "")
