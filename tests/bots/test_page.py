"""docs/bots.md shows the examples as they are, and its commands work."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.rig.process import ROOT, Child

PAGE = (ROOT / "docs/bots.md").read_text(encoding="utf-8")
#: Lines of code that make an example: neither empty nor a comment nor its docstring.
LINES = 60
#: What these show besides: photos for the model; threads, a status and a stop word; a web API with a stream.
MORE = {"telegram_ptb": 81, "slack_bot": 68, "fastapi_sse": 68}


def test_every_block_of_the_page_stands_in_its_file() -> None:
    """Each block of Python names the example it is from, and is in it."""
    shown = re.findall(r"<!-- from (\S+) -->\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(shown) == PAGE.count("```python")
    for file, block in shown:
        assert block in (ROOT / file).read_text(encoding="utf-8")


def test_every_link_of_the_page_leads_somewhere() -> None:
    """A relative link names a file."""
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", PAGE) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_stays_short_enough_to_read(example: Path) -> None:
    """What would make it longer becomes a feature of the queue."""
    code = re.sub(r'\A""".*?"""\n', "", example.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]) <= MORE.get(
        example.stem, LINES
    )


async def test_the_discord_bot_echoes_without_a_key_as_the_page_says(
    start_child: Callable[..., Awaitable[Child]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's commands, on a free port: the fake by hand, and the bot as it is without any account."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fake, bot = re.findall(
        r"^(?:DISCORD_\S+ )*python -m (tests\.(?:fakes\.discord_api|bots\.discord_here)) ", PAGE, re.MULTILINE
    )
    discord = await start_child(f"{fake.replace('.', '/')}.py")
    address, token = (await discord.expect(r"DISCORD_API=(\S+) DISCORD_TOKEN=(\S+)")).groups()
    assert f"DISCORD_TOKEN={token} " in PAGE
    env = {"DISCORD_API": address, "DISCORD_TOKEN": token, "STREAMBATCH_URL": f"embedded:{tmp_path}"}
    await start_child(f"{bot.replace('.', '/')}.py", "examples/discord_bot.py", env=env)
    await discord.expect("The bot is here")
    await discord.send("anybody there?")
    await discord.send("hello?")
    await discord.expect("1< You said:")
    await discord.expect("^anybody there")
    await discord.expect("^hello")
