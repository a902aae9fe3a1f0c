"""docs/slack.md and docs/fastapi.md: their commands, as they stand there, do what the pages say."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession

from tests.bots.by_hand import LINES, ROOT, SLACK, SLACK_ALONE, SLACK_FAKE, WEB, WEB_ALONE, installs, split
from tests.rig.moments import wait_for
from tests.rig.process import Child

Start = Callable[..., Awaitable[Child]]


def test_the_lines_that_are_run_here_are_those_of_the_pages() -> None:
    """And a line that installs something else than the tests have is no line of a page."""
    pages = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("slack.md", "fastapi.md"))
    assert [line for line in LINES if f"\n{line}\n" not in pages] == []
    assert installs('python3 -m venv .venv && .venv/bin/pip install -q "streambatch-queue[embedded]" aiohttp')
    assert not installs('python3 -m venv .venv && .venv/bin/pip install -q "streambatch[embedded]" aiohttp')
    assert not installs('python3 -m venv .venv && .venv/bin/pip install -q "streambatch-queue[embedded]" flask')


async def test_the_slack_bot_echoes_without_an_account_as_its_page_says(
    start_child: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's two commands, on a free port: three lines in the first terminal, one answer, and one for a mention."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _, fake, _ = split(SLACK_FAKE)
    slack = await start_child(fake)
    address = (await slack.expect(r"SLACK_API=(\S+) SLACK_APP_TOKEN=xapp-loopback SLACK_TOKEN=xoxb-loopback"))[1]
    env, bot, _ = split(SLACK)
    assert re.sub(r":\d+/", ":8083/", address) == env["SLACK_API"]
    await start_child(bot, env=env | {"SLACK_API": address, "STREAMBATCH_URL": f"embedded:{tmp_path}"})
    await slack.expect("The bot is here")
    for line in ("anybody there?", "hello?", "C1: and in a channel?", "are you open?"):
        await slack.send(line)
    await slack.expect("< You said:")
    await slack.expect("are you open")
    said = "\n".join(slack.lines)
    assert "D1< You said:\nanybody there?\nhello?\nare you open?" in said
    if "C1<" not in said:
        await slack.expect("C1< You said:")
    assert len(re.findall("D1<", "\n".join(slack.lines))) == 1


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

        await wait_for(there, "the page", deadline=40)
        for n, text in enumerate(("anybody there?", "hello?", "are you open?")):
            async with session.post("/messages", json={"thread": "t", "message": f"m{n}", "text": text}) as stored:
                assert stored.status == 202
        async with session.get("/events/t?message=m0") as stream:
            said = await stream.text()
    end = json.loads(re.findall(r"event: end\ndata: (.*)", said)[0])
    assert end["text"] == "You said: anybody there? hello? are you open? "
    assert said.count("event: text") > 3
