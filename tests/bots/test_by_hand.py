"""docs/bots.md, slack.md and fastapi.md: their commands, as they stand there, do what the pages say."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession

from tests.bots.by_hand import (
    ALONE,
    CURL,
    DISCORD,
    DISCORD_FAKE,
    LINES,
    PHOTOS,
    PROVIDER,
    ROOT,
    SLACK,
    SLACK_ALONE,
    SLACK_FAKE,
    TELEGRAM,
    TELEGRAM_FAKE,
    WEB,
    WEB_ALONE,
    install_of,
    installs,
    page_of,
    split,
)
from tests.bots.host import PATIENCE
from tests.rig.moments import wait_for
from tests.rig.process import Child

Start = Callable[..., Awaitable[Child]]


def copied(file: str, folder: Path, origin: str = "examples") -> str:
    """A file of ours in the reader's folder."""
    return str(shutil.copy(ROOT / origin / file, folder))


async def again(fake: Child, line: str, start_child: Start, address: str) -> Child:
    """Ctrl-C ends a fake, at once and silently; the one that is started again is where the bot looks for it."""
    os.kill(fake.pid, signal.SIGINT)
    assert await fake.wait() == 0
    assert fake.errors == []
    port = re.findall(r":(\d+)", address)[0]
    return await start_child(split(line)[1], port)


def test_the_lines_that_are_run_here_are_those_of_the_pages() -> None:
    """And a line that installs something else than the tests have is no line of a page."""
    pages = "\n".join({page_of(example) for example in ALONE})
    assert [line for line in LINES if f"\n{line}\n" not in pages] == []
    assert installs('python3 -m venv .venv && .venv/bin/pip install -q "streambatch-queue[embedded]" aiohttp')
    assert installs('python3 -m venv .venv && .venv/bin/pip install -q "streambatch-queue[embedded]" "aiohttp>=3"')
    assert not installs('python3 -m venv .venv && .venv/bin/pip install -q "streambatch[embedded]" aiohttp')
    assert not installs('python3 -m venv .venv && .venv/bin/pip install -q "streambatch-queue[embedded]" flask')


def test_every_example_has_its_lines_and_installs_what_its_file_says() -> None:
    """From an empty folder and from a checkout; the docstring names the same libraries as the page."""
    examples = {path.stem: path for path in (ROOT / "examples").glob("*.py")}
    assert set(ALONE) == set(examples)
    alone = {split(line)[1] for line in (*TELEGRAM, PHOTOS, SLACK, WEB_ALONE)} | {split(DISCORD)[2][0]}
    assert alone == {f"{name}.py" for name in examples}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for text in (page_of("fastapi_sse"), examples["fastapi_sse"].read_text(encoding="utf-8").replace("\n", " ")):
        assert f"fastapi>={re.findall(r'FastAPI ([0-9.]+) or newer', text)[0]}" in project
    for name, path in examples.items():
        said = re.findall(r"^    (?:[A-Z_]+=\S+ )*(pip install .*|python \S+)$", path.read_text("utf-8"), re.MULTILINE)
        assert said == [
            install_of(name).partition(".venv/bin/")[2].replace(" -q ", " "),
            re.sub(r"^(?:[A-Z_]+=\S+ )*\.venv/bin/", "", ALONE[name]),
        ]


@pytest.mark.parametrize("line", TELEGRAM, ids=lambda line: split(line)[1])
async def test_a_telegram_bot_echoes_without_an_account_as_the_page_says(
    line: str, start_child: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's two commands, on a free port: three lines in the first terminal, one answer."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _, fake, _ = split(TELEGRAM_FAKE)
    telegram = await start_child(fake)
    address, token = (await telegram.expect(r"TELEGRAM_API=(\S+) TELEGRAM_TOKEN=(\S+)", deadline=PATIENCE)).groups()
    env, bot, _ = split(line)
    assert {"TELEGRAM_API": re.sub(r":\d+$", ":8081", address), "TELEGRAM_TOKEN": token} == env
    env |= {"TELEGRAM_API": address, "STREAMBATCH_URL": f"embedded:{tmp_path / 'd'}"}
    await start_child(copied(bot, tmp_path), env=env | {"TELEGRAM_DRAFTS": str(tmp_path / "drafts")})
    for text in ("anybody there?", "hello?", "7: and here?", "are you open?"):
        await telegram.send(text)
    await telegram.expect("< You said:", deadline=PATIENCE)
    await telegram.expect("are you open|and here", deadline=PATIENCE)
    await telegram.expect("are you open|and here", deadline=PATIENCE)
    said = "\n".join(telegram.lines)
    assert "1< You said:\nanybody there?\nhello?\nare you open?" in said
    assert "7< You said:\nand here?" in said
    assert len(re.findall("< You said", said)) == 2
    if bot.endswith("ptb.py"):
        await telegram.send("/photo 3")
        await telegram.expect("1< You said:", deadline=PATIENCE)
        await telegram.expect("^An album of 3.$", deadline=PATIENCE)
        assert len(re.findall("< You said", "\n".join(telegram.lines))) == 3
    telegram = await again(telegram, TELEGRAM_FAKE, start_child, address)
    await telegram.send("and after that?")
    await telegram.expect("1< You said:", deadline=PATIENCE)
    await telegram.expect("^and after that", deadline=PATIENCE)


async def test_a_model_gets_the_photos_of_an_album_as_the_page_says(start_child: Start, tmp_path: Path) -> None:
    """The page's three commands, on free ports: what the bot uploads is in what the model is asked."""
    telegram = await start_child(split(TELEGRAM_FAKE)[1])
    address = (await telegram.expect(r"TELEGRAM_API=(\S+)", deadline=PATIENCE))[1]
    _, provider, (option, _) = split(PROVIDER)
    model = await start_child(f"{provider.removesuffix('.py')}/__main__.py", option, "0")
    env, bot, _ = split(PHOTOS)
    url = (await model.expect("http://.*"))[0]
    assert env["OPENAI_BASE_URL"] == re.sub(r":\d+/", ":8084/", url)
    env |= {"OPENAI_BASE_URL": url, "TELEGRAM_API": address, "STREAMBATCH_URL": f"embedded:{tmp_path / 'd'}"}
    await start_child(copied(bot, tmp_path), env=env)
    await telegram.send("/photo 3")
    said = (await telegram.expect("^1< (.*)", deadline=PATIENCE))[1]
    assert f"`{said}`" in page_of("telegram_ptb")
    assert "3 messages" in said


async def test_the_discord_bot_echoes_without_an_account_as_the_page_says(
    start_child: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's two commands, on a free port; what is typed before the bot is there nobody hears."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _, fake, _ = split(DISCORD_FAKE)
    discord = await start_child(fake)
    address, token = (await discord.expect(r"DISCORD_API=(\S+) DISCORD_TOKEN=(\S+)", deadline=PATIENCE)).groups()
    env, here, arguments = split(DISCORD)
    assert {"DISCORD_API": re.sub(r":\d+$", ":8082", address), "DISCORD_TOKEN": token} == env
    env |= {"DISCORD_API": address, "STREAMBATCH_URL": f"embedded:{tmp_path}"}
    bot = copied(arguments[0], tmp_path)
    await start_child(copied(here, tmp_path, "tests/bots"), bot, env=env)
    await discord.expect("The bot is here", deadline=PATIENCE)
    await discord.send("anybody there?")
    await discord.send("hello?")
    await discord.expect("1< You said:", deadline=PATIENCE)
    await discord.expect("^anybody there", deadline=PATIENCE)
    await discord.expect("^hello", deadline=PATIENCE)
    discord = await again(discord, DISCORD_FAKE, start_child, address)
    await discord.send("and after that?")
    await discord.expect("1< You said:", deadline=PATIENCE)
    await discord.expect("^and after that", deadline=PATIENCE)


async def test_the_slack_bot_echoes_without_an_account_as_its_page_says(
    start_child: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's two commands, on a free port: three lines in the first terminal, one answer, and one for a mention."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _, fake, _ = split(SLACK_FAKE)
    slack = await start_child(fake)
    address = (
        await slack.expect(
            r"SLACK_API=(\S+) SLACK_APP_TOKEN=xapp-loopback SLACK_TOKEN=xoxb-loopback", deadline=PATIENCE
        )
    )[1]
    env, bot, _ = split(SLACK)
    assert re.sub(r":\d+/", ":8083/", address) == env["SLACK_API"]
    env |= {"SLACK_API": address, "STREAMBATCH_URL": f"embedded:{tmp_path}"}
    await start_child(copied(bot, tmp_path), env=env)
    await slack.expect("The bot is here", deadline=PATIENCE)
    for line in ("anybody there?", "hello?", "C1: and in a channel?", "are you open?"):
        await slack.send(line)
    await slack.expect("< You said:", deadline=PATIENCE)
    await slack.expect("are you open", deadline=PATIENCE)
    said = "\n".join(slack.lines)
    assert "D1< You said:\nanybody there?\nhello?\nare you open?" in said
    if "C1<" not in said:
        await slack.expect("C1< You said:", deadline=PATIENCE)
    assert len(re.findall("D1<", "\n".join(slack.lines))) == 1
    slack = await again(slack, SLACK_FAKE, start_child, address)
    await slack.send("and after that?")
    await slack.expect("D1< You said:", deadline=PATIENCE)
    await slack.expect("^and after that", deadline=PATIENCE)


def test_the_manifest_of_the_slack_app_has_what_the_bot_uses_and_no_more() -> None:
    """Its events are those that the bot listens to, and its scopes are those of these events and of its methods."""
    manifest = json.loads((ROOT / "examples/slack_manifest.json").read_text(encoding="utf-8"))
    source = (ROOT / "examples/slack_bot.py").read_text(encoding="utf-8")
    heard = set(re.findall(r'@app\.event\("(\w+)"\)', source))
    assert {event.removesuffix(".im") for event in manifest["settings"]["event_subscriptions"]["bot_events"]} == heard
    scopes = {"app_mention": "app_mentions:read", "message": "im:history"}
    methods = {"auth_test": None, "chat_postMessage": "chat:write", "assistant_threads_setStatus": "chat:write"}
    used = {methods[name] for name in re.findall(r"slack\.(\w+)\(", source)} - {None}
    assert set(manifest["oauth_config"]["scopes"]["bot"]) == {scopes[event] for event in heard} | used
    assert manifest["settings"]["socket_mode_enabled"]
    wanted = set(split(SLACK_ALONE)[0])
    assert set(re.findall(r'os\.environ\["(\w+)"\]', source)) == wanted


@pytest.mark.parametrize("line", [WEB, WEB_ALONE])
async def test_the_web_chat_echoes_without_an_account_as_its_page_says(
    line: str, start_child: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the checkout, and from a folder with the two files: the page, and three lines that get one answer."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _, file, _ = split(line)
    if "/" not in file:
        for name in (file, "fastapi_sse.html"):
            shutil.copy(ROOT / "examples" / name, tmp_path)
        file = str(tmp_path / file)
    assert "http://127.0.0.1:8000" in (ROOT / "docs/fastapi.md").read_text(encoding="utf-8")
    await start_child(file, env={"PORT": str(port), "STREAMBATCH_URL": f"embedded:{tmp_path / 'data'}"})
    async with ClientSession(f"http://127.0.0.1:{port}") as session:

        async def there() -> bool:
            try:
                async with session.get("/") as page:
                    return "three quick lines" in await page.text()
            except ClientError:
                await asyncio.sleep(0.1)
                return False

        await wait_for(there, "the page", deadline=PATIENCE)
        for n, text in enumerate(("anybody there?", "hello?", "are you open?")):
            async with session.post("/messages", json={"thread": "p", "message": f"m{n}", "text": text}) as stored:
                assert stored.status == 202
        async with session.get("/events/p?message=m0") as stream:
            said = await stream.text()
    end = json.loads(re.findall(r"event: end\ndata: (.*)", said)[0])
    assert end["text"] == "You said: anybody there? hello? are you open? "
    assert said.count("event: text") > 3
    stored, followed, stopped = [await curl(asked.replace(":8000", f":{port}")) for asked in CURL]
    assert stored.startswith("202 ")
    assert '"outcome":"queued"' in stored
    assert '"text": "You said: hi "' in followed
    assert json.loads(stopped.partition(" ")[2]) == {"run": 0, "dropped": 0}


async def curl(line: str) -> str:
    """The status and the body that a line of the page gets; read as curl reads it, which is not everywhere."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", dest="header", action="append", default=[])
    parser.add_argument("-d", dest="data")
    for flag in ("-i", "-N"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("url")
    program, *words = shlex.split(line)
    assert program == "curl"
    told = parser.parse_args(words)
    headers = dict(header.split(": ", 1) for header in told.header)
    headers = {"content-type": "application/x-www-form-urlencoded", **headers} if told.data else headers
    verb = "GET" if told.data is None else "POST"
    async with ClientSession() as session, session.request(verb, told.url, data=told.data, headers=headers) as answer:
        return f"{answer.status} {await answer.text()}"
