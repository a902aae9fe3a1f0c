"""docs/slack.md: the example with what the page adds edits its answer while it is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.bots.host import hosting
from tests.fakes.responses_server import Step
from tests.fakes.slack_api import APP_TOKEN, BOT_TOKEN, serving
from tests.rig.process import ROOT


def changed(block: str) -> str:
    """The example after what the page says; each of the places is there once."""
    text = (ROOT / "examples/slack_bot.py").read_text(encoding="utf-8")
    for old, new in (
        ("queue = sb.BatchQueue(", f"{block}\n\nqueue = sb.BatchQueue("),
        ("import Typing,", "import Drafts, Typing,"),
        ("listeners=[", "listeners=[drafts, "),
        ("@in_pieces(cut)\n", ""),
        ("reply: sb.Reply, piece: str, _: int", "reply: sb.Reply"),
        ("slack.chat_postMessage(markdown_text=piece, **reply.metadata)", "drafts.deliver(reply)"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


async def test_an_answer_is_one_message_that_is_edited_until_it_is_whole(tmp_path: Path) -> None:
    source = (ROOT / "tests/bots/slack_edits.py").read_text(encoding="utf-8")
    here = f"interval=0.1, folder={str(tmp_path / 'drafts')!r}"
    block = source[source.index("async def post(") :].replace("interval=2", here)
    (tmp_path / "slack_bot.py").write_text(changed(block), encoding="utf-8")
    async with serving() as api:
        env = {"SLACK_API": f"{api.url}/api/", "SLACK_APP_TOKEN": APP_TOKEN, "SLACK_TOKEN": BOT_TOKEN}
        async with hosting([str(tmp_path / "slack_bot.py")], env, tmp_path / "data") as bot:
            bot.steps["tell me"] = Step(text="once upon a time", hold=(hold := asyncio.Event()))
            await bot.up()
            await bot.until(api.connected.is_set, "the bot at the WebSocket")
            asked = api.say("C1", "tell me")
            await bot.until(lambda: api.texts("C1", asked.ts) == ["once"], "the beginning")
            hold.set()
            await bot.until(lambda: api.texts("C1", asked.ts) == ["once upon a time"], "the whole answer")
            api.say("C1", "and finally", thread_ts=asked.ts)
            whole = ["once upon a time", "I got 1 messages: and finally"]
            await bot.until(lambda: api.texts("C1", asked.ts) == whole, "the next answer")
            assert api.edits
