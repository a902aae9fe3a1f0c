"""How long it takes from an empty folder to the first answer, for every example: `python -m tests.bots.first_minutes`.

Theory of operation. For each example a new folder with the example's file in it, a new HOME and so nothing in pip's
cache. The line of its page that makes the environment is run by a shell as it stands there; only the package comes from
this checkout instead of the index. Then the fake platform is started, the bot by its page's other line with the fake's
address, something is typed, and the clock stops when the answer is there (two of these seconds are the quiet window).

With names of examples only those are tried. It prints the seconds of each, and exits with 1 if one took more than two
minutes or gave no answer. It downloads what the page installs, so no test runs it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from aiohttp import ClientError, ClientSession

from tests.bots.by_hand import ALONE, DISCORD_FAKE, ROOT, SLACK_FAKE, TELEGRAM_FAKE, install_of, split
from tests.rig.process import Child

LONGEST = 120.0
PATIENCE = 60.0
FAKES = {"telegram": TELEGRAM_FAKE, "discord": DISCORD_FAKE, "slack": SLACK_FAKE}


def install(example: str, folder: Path, env: dict[str, str]) -> None:
    """Run the page's line in the folder."""
    line = install_of(example).replace("streambatch-queue[", f"{ROOT}[")
    subprocess.run(["bash", "-c", line], cwd=folder, env=env, check=True)


@asynccontextmanager
async def running(example: str, folder: Path, env: dict[str, str]) -> AsyncGenerator[asyncio.subprocess.Process]:
    """The bot, as its page starts it; killed at the end. What it says is in bot.log in the folder."""
    _, file, _ = split(ALONE[example])
    program = [str(folder / ".venv/bin/python"), file]
    if example == "discord_bot":  # whose library has no setting for another address
        program.insert(1, str(ROOT / "tests/bots/discord_here.py"))
    with (folder / "bot.log").open("wb") as log:
        bot = await asyncio.create_subprocess_exec(*program, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            yield bot
        finally:
            if bot.returncode is None:
                bot.kill()
            await bot.wait()


async def talk(example: str, folder: Path, env: dict[str, str]) -> None:
    """Start the fake platform and the bot, type a line, and wait for the answer."""
    platform = example.partition("_")[0]
    fake = await Child.start(split(FAKES[platform])[1])
    try:
        told = (await fake.expect(f"{platform.upper()}_API=", deadline=PATIENCE)).string
        variables = dict(word.split("=", 1) for word in told.split())
        async with running(example, folder, env | variables):
            if platform != "telegram":
                await fake.expect("The bot is here", deadline=PATIENCE)
            await fake.send("are you there?")
            await fake.expect("< You said:", deadline=PATIENCE)
    finally:
        fake.kill9()
        await fake.close()


async def browse(example: str, folder: Path, env: dict[str, str]) -> None:
    """Start the web chat, open its page, send a message and read the stream to the answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with (
        running(example, folder, env | {"PORT": str(port)}),
        asyncio.timeout(PATIENCE),
        ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        while True:
            try:
                async with session.get("/") as page:
                    assert "three quick lines" in await page.text()
                break
            except ClientError:
                await asyncio.sleep(0.05)
        async with session.post("/messages", json={"thread": "t", "message": "m", "text": "are you there?"}):
            pass
        async with session.get("/events/t?message=m") as stream:
            assert "event: end" in await stream.text()


def measure(example: str) -> tuple[float, float]:
    """Seconds until everything is installed, and until the answer is there."""
    with TemporaryDirectory(dir="/tmp", prefix="empty-") as folder:
        place = Path(folder) / example
        place.mkdir()
        for file in (ROOT / "examples").glob(f"{example}.*"):
            shutil.copy(file, place)
        env = {name: value for name, value in os.environ.items() if name not in ("OPENAI_API_KEY", "PYTHONPATH")}
        env |= {"HOME": folder, "XDG_CACHE_HOME": f"{folder}/cache", "PIP_CACHE_DIR": f"{folder}/cache/pip"}
        began = time.monotonic()
        install(example, place, env)
        installed = time.monotonic() - began
        try:
            asyncio.run((browse if example == "fastapi_sse" else talk)(example, place, env))
        except (AssertionError, TimeoutError):
            print((place / "bot.log").read_text(errors="replace"), file=sys.stderr)
            raise
        return installed, time.monotonic() - began


def main() -> int:
    """Measure what the command line names, or all."""
    slow = 0
    for example in sys.argv[1:] or ALONE:
        installed, answered = measure(example)
        print(f"{example:<20} {installed:5.0f} s installed, {answered:5.0f} s answered", flush=True)
        slow += answered > LONGEST
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
