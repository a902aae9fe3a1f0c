"""`streambatch worker module:queue`: what it refuses, what it runs, and how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from streambatch import BatchQueue
from tests.cli.terminal import Terminal
from tests.cli.tools import DEADLINE, environment
from tests.rig import Server, wait_for

pytestmark = pytest.mark.timeout(60)
BOT = '''
"""A bot whose Run says that it runs, and waits for a file."""
import asyncio, os, pathlib
from streambatch import BatchQueue

async def answer(batch):
    print(f"Run {batch.attempt} of {batch.thread}", flush=True)
    while batch.thread == "slow" and not pathlib.Path("go").exists():
        await asyncio.sleep(0.01)
    return "yes"

queue = BatchQueue(os.environ["BOT_URL"], namespace=os.environ["BOT_SPACE"], runner=answer, debounce=0, log=False)
silent = BatchQueue(os.environ["BOT_URL"], namespace=os.environ["BOT_SPACE"])
class Shop:
    bot = queue
'''

OPENS = '''
"""A bot that runs when it is imported."""
import asyncio
from streambatch import BatchQueue

async def answer(batch):
    return "yes"

queue = BatchQueue("memory://", runner=answer, log=False)

async def main():
    async with queue:
        pass

asyncio.run(main())
'''


class Worker:
    """A running worker; ``err`` and ``out`` are what it has said."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.said = {"out": "", "err": ""}
        self._readers = [asyncio.ensure_future(self._read(name)) for name in self.said if getattr(child, f"std{name}")]

    async def until(self, what: str, on: str = "err") -> None:
        """Wait until it has said this."""
        await wait_for(lambda: what in self.said[on] or self.child.returncode is not None, what)
        assert what in self.said[on], self.said

    async def end(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*self._readers)
            return await self.child.wait()

    async def _read(self, name: str) -> None:
        stream = self.child.stdout if name == "out" else self.child.stderr
        assert stream is not None
        while data := await stream.read(65_536):
            self.said[name] += data.decode()


Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start workers in a folder that has bot.py; they end with the test."""
    (tmp_path / "bot.py").write_text(BOT)
    (tmp_path / "broken.py").write_text("import bot_that_is_not_there")
    (tmp_path / "failing.py").write_text("raise RuntimeError('no token')")
    (tmp_path / "opens.py").write_text(OPENS)
    started: list[Worker] = []

    async def begin(
        target: str, url: str = "redis://h", namespace: str = "n", stderr: int = asyncio.subprocess.PIPE
    ) -> Worker:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streambatch", "worker", target), cwd=tmp_path,
            env=environment(None) | {"BOT_URL": url, "BOT_SPACE": namespace},
            stdout=asyncio.subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
        started.append(Worker(child))
        return started[-1]

    yield begin
    for worker in started:
        if worker.child.returncode is None:
            worker.child.kill()
        await worker.end()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothing:queue", "there is no module 'nothing', neither in "),
        ("bot:nothing", "module bot has no nothing; there is queue, silent"),
        ("json:queue", "module json has no queue, and no other BatchQueue on its top level"),
        ("bot:answer", "bot:answer is no BatchQueue but of type function"),
        ("bot:silent", "bot:silent has neither a runner nor a deliver callback, so it would only submit"),
        ("bot.py", "there is no module 'bot.py'"),
        ("bot:", "redis://h: the server does not answer"),
        ("a b", "name a module and the queue in it, as in bot:queue"),
        ("broken:queue", "importing broken failed, see above"),
        ("failing", "importing failing failed, see above"),
        ("opens", "importing opens already opened its queue: put asyncio.run(main()) under if __name__ == '__main__'"),
    ],
)
async def test_what_cannot_start_is_said_in_a_sentence(start: Start, target: str, words: str) -> None:
    worker = await start(target)
    assert await worker.end() == 2
    last = worker.said["err"].splitlines()[-1]
    assert words in last
    assert last.startswith("streambatch: ")
    assert ("Traceback" in worker.said["err"]) == ("see above" in words)
    assert worker.said["out"] == ""


@pytest.mark.leaves_keys("a worker leaves its namespace")
async def test_the_first_signal_drains(server: Server, namespace: str, start: Start, tmp_path: Path) -> None:
    """The Run that is under way ends, its reply is there, no other one begins; exit code 0."""
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=0) as queue:
        worker = await start("bot:Shop.bot", server.url, namespace)
        await worker.until(f"bot:Shop.bot, namespace {namespace}: runs; process {worker.child.pid}, Ctrl-C drains")
        receipt = await queue.submit("slow", "hi")
        await worker.until("Run 1 of slow", "out")
        worker.child.send_signal(signal.SIGTERM)
        await worker.until("draining: 1 Run and deliveries under way get 30 s; the next signal releases them")
        await queue.submit("late", "hi")
        (tmp_path / "go").touch()
        assert await worker.end() == 0
        assert worker.said["err"].splitlines()[-1] == "stopped"
        assert "late" not in worker.said["out"]
        reply = await receipt.reply(1)
        assert reply is not None
        assert (await queue.explain("late")).state == "waiting"


@pytest.mark.leaves_keys("a worker leaves its namespace")
async def test_the_second_signal_releases_what_runs(server: Server, namespace: str, start: Start) -> None:
    """At once, without using up an attempt: the next worker begins it anew as the first Run."""
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=0) as queue:
        worker = await start("bot", server.url, namespace)
        await worker.until("Ctrl-C drains")
        await queue.submit("slow", "hi")
        await worker.until("Run 1 of slow", "out")
        worker.child.send_signal(signal.SIGTERM)
        await worker.until("draining")
        worker.child.send_signal(signal.SIGINT)
        await worker.until("releasing what still runs")
        assert await worker.end() == 0
        found = await queue.explain("slow")
        assert (found.owner, found.in_batch, found.attempt) == ("", 1, 0)
        other = await start("bot", server.url, namespace)
        await other.until("Run 1 of slow", "out")
        for _ in range(2):
            other.child.send_signal(signal.SIGINT)


@pytest.mark.leaves_keys("a worker leaves its namespace")
async def test_two_signals_at_once_release_what_runs(server: Server, namespace: str, start: Start) -> None:
    """Both are there before its loop has a turn, as when a supervisor is impatient with a frozen process."""
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=0) as queue:
        worker = await start("bot", server.url, namespace)
        await worker.until("Ctrl-C drains")
        await queue.submit("slow", "hi")
        await worker.until("Run 1 of slow", "out")
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            worker.child.send_signal(number)
        assert await worker.end() == 0
        assert "releasing what still runs" in worker.said["err"]
        found = await queue.explain("slow")
        assert (found.owner, found.in_batch, found.attempt) == ("", 1, 0)


@pytest.mark.leaves_keys("a worker leaves its namespace")
async def test_signals_drain_also_if_nobody_reads_what_it_says(
    server: Server, namespace: str, start: Start, tmp_path: Path
) -> None:
    """Its stderr is a pipe to a log collector that has died."""
    mine, theirs = os.pipe()
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=0) as queue:
        worker = await start("bot", server.url, namespace, stderr=theirs)
        os.close(theirs)
        os.close(mine)
        receipt = await queue.submit("slow", "hi")
        await worker.until("Run 1 of slow", "out")
        worker.child.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        assert await receipt.reply() is not None
        assert await worker.end() == 0
        (tmp_path / "go").unlink()
        await queue.submit("late", "hi")
        assert (await queue.explain("late")).state == "waiting"


@pytest.mark.leaves_keys("a worker leaves its namespace")
async def test_ctrl_c_on_a_terminal_drains_and_the_third_one_leaves(
    server: Server, namespace: str, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Run that does not let go does not keep the process: exit code 130."""
    monkeypatch.chdir(tmp_path)
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=0) as queue:
        worker = await Terminal.start("worker", "bot:queue", BOT_URL=server.url, BOT_SPACE=namespace)
        try:
            await worker.until("Ctrl-C drains")
            await queue.submit("slow", "hi")
            await worker.until("Run 1 of slow")
            worker.give("\x03")
            await worker.until("draining: 1 Run")
            (tmp_path / "go").touch()
            assert await worker.end() == 0
        finally:
            await worker.close()
        (tmp_path / "go").unlink()
        (tmp_path / "swallow.py").write_text(SWALLOWS)
        other = await start("swallow", server.url, namespace)
        await other.until("Ctrl-C drains")
        await queue.submit("other", "hi")
        await other.until("Run", "out")
        for said in ("draining", "releasing"):
            other.child.send_signal(signal.SIGINT)
            await other.until(said)
        other.child.send_signal(signal.SIGINT)
        assert await other.end() == 130


SWALLOWS = '''
"""A bot whose Run swallows every cancellation."""
import asyncio, os
from streambatch import BatchQueue

async def answer(batch):
    print("Run", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass

queue = BatchQueue(os.environ["BOT_URL"], namespace=os.environ["BOT_SPACE"], runner=answer, debounce=0, log=False)
'''


async def test_a_signal_while_it_opens_ends_it(start: Start, tmp_path: Path) -> None:
    """A server that accepts and says nothing is waited for, but not after a signal."""
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        writer.close()

    quiet = await asyncio.start_unix_server(silent, tmp_path / "s.sock")
    async with quiet:
        worker = await start("bot", f"unix://{tmp_path / 's.sock'}")
        await asyncio.wait_for(asked.wait(), DEADLINE)
        worker.child.send_signal(signal.SIGTERM)
        assert await worker.end() == 0
        assert worker.said["err"].splitlines()[-1] == "stopped before it was open"
