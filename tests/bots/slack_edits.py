"""What docs/slack.md adds to examples/slack_bot.py for an answer that is seen while it is written.

The names before the block are the example's; test_slack_edits.py puts the block into it and runs it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from streambatch.integrations import Drafts, split_markdown

slack: Any = AsyncWebClient()
cut = partial(split_markdown, limit=12_000)


async def post(thread: str, text: str) -> str:
    channel, _, ts = thread.partition(":")
    return (await slack.chat_postMessage(channel=channel, thread_ts=ts or None, markdown_text=text))["ts"]


async def update(thread: str, message: str, text: str) -> None:
    await slack.chat_update(channel=thread.partition(":")[0], ts=message, markdown_text=text)


drafts = Drafts(post, update, cut, interval=2)  # Slack allows some 50 edits a minute
