"""Each example says in one line that it is up and where its data are, or, without its token, what is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.bots.by_hand import page_of
from tests.fakes import bot_api, discord_api, slack_api
from tests.rig.process import ROOT, Child

Start = Callable[..., Awaitable[Child]]
TELEGRAM = ["telegram_aiogram", "telegram_streaming", "telegram_ptb"]
WHERE = {
    **dict.fromkeys(TELEGRAM, ("TELEGRAM_TOKEN", "@BotFather")),
    "discord_bot": ("DISCORD_TOKEN", "discord.com/developers"),
    "slack_bot": ("SLACK_TOKEN and SLACK_APP_TOKEN", "docs/slack.md"),
}


@pytest.mark.parametrize("given", [None, ""])
@pytest.mark.parametrize("example", WHERE)
def test_without_its_token_it_ends_with_one_sentence(example: str, given: str | None, tmp_path: Path) -> None:
    """Which names the variable and where the token comes from; nothing was opened."""
    names, place = WHERE[example]
    env = {name: value for name, value in os.environ.items() if not name.endswith("_TOKEN")}
    env |= {} if given is None else dict.fromkeys(names.split(" and "), given)
    ended = subprocess.run(
        [sys.executable, str(ROOT / f"examples/{example}.py")],
        env=env | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(names)
    assert place in line
    assert list(tmp_path.iterdir()) == []


async def up(start: Start, example: str, env: dict[str, str], data: Path) -> str:
    """The line that it says when it is up; it is the only one, and its page has it."""
    env = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": "http://127.0.0.1:1", **env}
    file = f"examples/{example}.py" if example != "discord_bot" else "tests/bots/discord_here.py"
    more = [f"examples/{example}.py"] if example == "discord_bot" else []
    child = await start(
        file, *more, env=env | {"STREAMBATCH_URL": f"embedded:{data}", "TELEGRAM_DRAFTS": f"{data}-drafts"}
    )
    line = (await child.expect("BatchQueue", deadline=40)).string
    assert [said for said in child.lines if "warning" not in said] == [line]
    shown = line.replace(str(data), "./bot-data")
    assert re.sub("namespace='[a-z_]+'", "namespace='…'", shown) in page_of(example).replace("\n", " ")
    return shown


@pytest.mark.parametrize("example", TELEGRAM)
async def test_a_telegram_bot_says_that_it_is_up(example: str, start_child: Start, tmp_path: Path) -> None:
    """By the name that the platform gave it, so the token is right; a restart says it again."""
    namespace = {"telegram_aiogram": "telegram"}.get(example, example)
    async with bot_api.serving() as api:
        env = {"TELEGRAM_API": api.url, "TELEGRAM_TOKEN": bot_api.TOKEN}
        assert await up(start_child, example, env, tmp_path / "data") == (
            f"@loop_bot hears Telegram, and keeps it in BatchQueue('embedded:./bot-data', namespace='{namespace}');"
            " Ctrl-C ends it."
        )


async def test_the_discord_bot_says_that_it_is_up(start_child: Start, tmp_path: Path) -> None:
    async with discord_api.serving() as api:
        env = {"DISCORD_API": api.url, "DISCORD_TOKEN": discord_api.TOKEN}
        said = await up(start_child, "discord_bot", env, tmp_path / "data")
        assert said.startswith("loop hears Discord, and keeps it in BatchQueue(")


async def test_the_slack_bot_says_that_it_is_up(start_child: Start, tmp_path: Path) -> None:
    async with slack_api.serving() as api:
        env = {
            "SLACK_API": f"{api.url}/api/",
            "SLACK_TOKEN": slack_api.BOT_TOKEN,
            "SLACK_APP_TOKEN": slack_api.APP_TOKEN,
        }
        said = await up(start_child, "slack_bot", env, tmp_path / "data")
        assert said.startswith("@loop hears Slack, and keeps it in BatchQueue(")


async def test_the_web_chat_says_where_its_data_are(start_child: Start, tmp_path: Path) -> None:
    """The address, and that Ctrl-C ends it, uvicorn says."""
    said = await up(start_child, "fastapi_sse", {"PORT": "0"}, tmp_path / "data")
    assert said == "The chat is kept in BatchQueue('embedded:./bot-data', namespace='web')."
