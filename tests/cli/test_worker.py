"""`streambatch worker module:queue`: what it refuses, what it runs, and how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from streambatch import BatchQueue
from streambatch.cli import _module
from tests.cli.terminal import Terminal
from tests.cli.tools import DEADLINE, environment
from tests.rig import Server, wait_for

pytestmark = pytest.mark.timeout(120)
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


#: The same, but for ever: until it is cancelled, or until a signal that it hears itself.
STAYS = OPENS.replace("        pass", "        await asyncio.Event().wait()")
HEARS = OPENS.replace("        pass", "        await until_stopped()").replace(
    "import asyncio", "import asyncio\nfrom streambatch.integrations import until_stopped"
)
SLOW = """
import asyncio, pathlib

async def main():
    pathlib.Path("began").touch()
    await asyncio.Event().wait()

asyncio.run(main())
"""
OPTIONS = """
import argparse
options = argparse.ArgumentParser()
options.add_argument("--token", required=True)
options.parse_args([])
"""


class Worker:
    """A running worker; ``err`` and ``out`` are what it has said."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.said = {"out": "", "err": ""}
        self._readers = [asyncio.ensure_future(self._read(name)) for name in self.said if getattr(child, f"std{name}")]

    async def until(self, what: str, on: str = "err") -> None:
        """Wait until it has said this."""
        child = self.child
        await wait_for(lambda: what in self.said[on] or child.returncode is not None, what, deadline=DEADLINE)
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


#: As the script that is installed, which has not the working directory on its path.
SCRIPT = """
import os, pathlib, time, streambatch.cli
from streambatch.cli import _module

_module.LONG = float(os.environ.get("LONG", 10))
if "LONG_FROM" in os.environ:  # an import that takes long does so from the moment at which this file is there
    look = _module.Watch.look

    def from_then(self):
        while not pathlib.Path(os.environ["LONG_FROM"]).exists():
            time.sleep(0.01)
        look(self)

    _module.Watch.look = from_then
streambatch.cli.main()
"""
Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start workers in a folder that has bot.py; they end with the test."""
    (tmp_path / "bot.py").write_text(BOT)
    (tmp_path / "broken.py").write_text("import bot_that_is_not_there")
    (tmp_path / "failing.py").write_text("raise RuntimeError('no token')")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('no token is set')")
    (tmp_path / "shop").mkdir()
    for name, text in (("opens", OPENS), ("stays", STAYS), ("hears", HEARS), ("slow", SLOW), ("options", OPTIONS)):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "the shop").mkdir()
    for file in ("shop/bot.py", "shop/my-bot.py", "the shop/bot.py"):
        (tmp_path / file).touch()
    started: list[Worker] = []

    async def begin(
        target: str, url: str = "redis://h", namespace: str = "n", stderr: int = asyncio.subprocess.PIPE, **env: str
    ) -> Worker:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", SCRIPT, "worker", target), cwd=tmp_path,
            env=environment(None) | {"BOT_URL": url, "BOT_SPACE": namespace} | env,
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
        ("bot:nothing", "/bot.py) has no nothing; there is queue, silent"),
        ("json:queue", f"module json ({json.__file__}) has no queue, and no other BatchQueue on its top level"),
        ("queue:queue", f"module queue ({queue.__file__}) has no queue, and no other BatchQueue on its top level. "),
        ("queue:queue", "/queue.py was not looked at, because another module of that name was there first: rename it"),
        ("queue:Queue", f"queue:Queue is no BatchQueue but of type type, in module queue ({queue.__file__}). "),
        ("shop", "/shop) has no queue, and no other BatchQueue on its top level"),
        ("sys", "module sys (a part of Python) has no queue"),
        ("bot:answer", "bot:answer is no BatchQueue but of type function"),
        ("bot:silent", "bot:silent has neither a runner nor a deliver callback, so it would only submit"),
        ("bot.py", "bot.py is a file: name the module, streambatch worker bot:queue"),
        ("./shop/bot.py:app", "shop/bot.py is a file: name the module, streambatch worker shop.bot:app"),
        (
            "./shop/my-bot.py",
            "my-bot.py is a file: no module can have that name, so rename it, for example to my_bot.py",
        ),
        ("shop/my-bot:queue", "shop/my-bot.py is a file: no module can have that name, so rename it"),
        ("the shop/bot.py:app", "/the shop', then streambatch worker bot:app"),
        ("bto.py", "there is no module 'bto', neither in "),
        ("bot:", "redis://h: the server does not answer"),
        ("a b", "name a module and the queue in it, as in bot:queue"),
        ("broken:queue", "importing broken failed, see above"),
        ("failing", "importing failing failed, see above"),
        ("opens", "importing opens already opened its queue: put asyncio.run(main()) under if __name__ == '__main__'"),
        ("stays", "importing stays already opened its queue: put asyncio.run(main()) under if __name__ == '__main__'"),
        ("hears", "importing hears already opened its queue: put asyncio.run(main()) under if __name__ == '__main__'"),
        ("leaves", "importing leaves ended the program at "),
        ("leaves", "/leaves.py:2 (SystemExit); what starts the bot, and reads its options, belongs under if __name__"),
        (
            "options",
            "/options.py:5 (SystemExit); what starts the bot, and reads its options, belongs under if __",
        ),
    ],
)
async def test_what_cannot_start_is_said_in_a_sentence(start: Start, target: str, words: str, tmp_path: Path) -> None:
    if target.startswith("queue:"):
        (tmp_path / "queue.py").touch()
    worker = await start(target)
    assert await worker.end() == 2
    last = worker.said["err"].splitlines()[-1]
    assert words in last
    assert last.startswith("streambatch: ")
    assert ("Traceback" in worker.said["err"]) == ("see above" in words)
    assert worker.said["out"] == ""


async def test_what_a_module_says_when_it_ends_the_program_is_shown(start: Start) -> None:
    worker = await start("leaves")
    assert await worker.end() == 2
    assert worker.said["err"].splitlines()[0] == "no token is set"


async def test_an_import_that_takes_long_is_said_to_stand_somewhere(start: Start, tmp_path: Path) -> None:
    """It may be a model that loads, so it goes on; Ctrl-C ends it."""
    worker = await start("slow", LONG="0.1", LONG_FROM="began")
    await worker.until("importing slow takes long, it is at ")
    await worker.until("/slow.py:8; what runs the bot belongs under if __name__ == '__main__'\n")
    assert (tmp_path / "began").exists()
    worker.child.send_signal(signal.SIGINT)
    assert await worker.end() == 130
    assert "Traceback" not in worker.said["err"]


def test_that_an_import_takes_long_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Over(threading.Event):
        looks = 0

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == _module.EVERY
            self.looks += 1
            return self.looks > 2 * _module.LONG / _module.EVERY

    watch = _module.Watch("bot", "queue")
    watch.over = Over()
    watch.look()
    assert capsys.readouterr().err.count("importing bot takes long, it is at ") == 1
    assert not watch.told


async def test_a_url_that_a_worker_does_not_read_is_told(start: Start) -> None:
    """Whoever has it in the environment believes it to be used; if the module says the same, nothing is said."""
    here = "redis://bot:secret@127.0.0.1:1"
    for said, told in ((None, 0), (here, 0), ("redis://bot:secret@127.0.0.1:2", 1)):
        worker = await start("bot", here, **({} if said is None else {"STREAMBATCH_URL": said}))
        assert await worker.end() == 2
        lines = worker.said["err"].splitlines()
        assert "redis://***@127.0.0.1:1: the server does not answer" in lines[-1]
        assert len(lines) == 1 + told
        assert (
            "STREAMBATCH_URL is for the other verbs, a worker has the URL of its module: bot is" in lines[0]
        ) == told
        assert "secret" not in worker.said["err"]


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
        reply = await receipt.reply(20)
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
