"""A Slack bot with Bolt in Socket Mode: a burst of messages gets one answer, and a crash at any moment loses nothing.

    pip install "streambatch-queue[embedded]" slack-bolt aiohttp
    SLACK_TOKEN=xoxb-… SLACK_APP_TOKEN=xapp-… OPENAI_API_KEY=… python slack_bot.py

docs/slack.md says where the tokens come from. It answers direct messages and mentions; "stop" stops an answer. Without
OPENAI_API_KEY it echoes; OPENAI_BASE_URL names another provider, STREAMBATCH_URL another Redis or Valkey.
"""

import asyncio
import html
import os
import re

from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

import streambatch as sb
from streambatch.integrations import Typing, in_pieces, split_markdown, until_stopped, until_stored
from streambatch.runners import ResponsesRunner

if missing := [name for name in ("SLACK_TOKEN", "SLACK_APP_TOKEN") if not os.environ.get(name)]:
    raise SystemExit(f"{' and '.join(missing)} not set: see where a Slack app's tokens come from in docs/slack.md.")
CALL = re.compile(r"<!(?=channel|here|everyone|subteam)")  # rings everybody's bell, whatever made the model write it
slack, me = AsyncWebClient(os.environ["SLACK_TOKEN"], os.environ.get("SLACK_API", "https://slack.com/api/")), {}


async def authorize(**_: object) -> AuthorizeResult:  # left alone, Bolt asks at the first event, and may lose it
    return me[0]


# Without process_before_response Bolt acknowledges before the handler runs, and a crash then loses the message.
app = AsyncApp(client=AsyncWebClient(base_url=slack.base_url), authorize=authorize, process_before_response=True)


async def show_status(thread: str, status: str = "is thinking…") -> None:
    channel, _, ts = thread.partition(":")
    if ts:  # outside threads Slack shows none
        await slack.assistant_threads_setStatus(channel_id=channel, thread_ts=ts, status=status)


async def echo(batch: sb.Batch) -> str:
    return f"You said:\n{batch.text}"


def cut(text: str) -> list[str]:
    return split_markdown(CALL.sub("&lt;!", text), 12_000)


queue = sb.BatchQueue(
    os.environ.get("STREAMBATCH_URL", "embedded:./bot-data"),
    runner=ResponsesRunner(model="gpt-5.6", instructions="Be brief.") if "OPENAI_API_KEY" in os.environ else echo,
    namespace="slack",
    listeners=[typing := Typing(show_status, every=60)],  # Slack forgets it after two minutes
)


@queue.deliver
@in_pieces(cut)
async def send(reply: sb.Reply, piece: str, _: int) -> None:
    try:
        await slack.chat_postMessage(markdown_text=piece, **reply.metadata)
    except SlackApiError as error:
        if error.response.status_code == 429:  # this channel waits, no other does, and no attempt is used up
            raise sb.Retry(after=int(error.response.headers["Retry-After"]), count=False) from None
        if error.response["error"] in ("channel_not_found", "not_in_channel", "is_archived"):  # nobody can read it
            raise sb.DeadLetter(error.response["error"]) from None
        raise


@app.event("app_mention")
@app.event("message")
async def on_message(event: dict[str, str]) -> None:
    channel, direct, who = event["channel"], event.get("channel_type") == "im", event.get("user")
    text = html.unescape((event.get("text") or "").replace(f"<@{me[0].bot_user_id}>", "")).strip()
    if text and (direct or event["type"] == "app_mention"):  # edits and deletions are messages without a text
        ts = event.get("thread_ts") or (None if direct else event["ts"])
        thread, to = f"{channel}:{ts}" if ts else channel, {"channel": channel, "thread_ts": ts}
        if text.lower() in ("stop", "/stop"):  # ends the Run, and drops what waits behind it
            await queue.cancel(thread)
            typing.stop(thread)  # a backlog that is dropped before its Run has no event
            await show_status(thread, "")
        else:  # the message's ts makes it idempotent: an event that comes again is stored once
            # Slack sends an event again that was not acknowledged, three times at most, and then never. So while the
            # server is away, is full or lets nobody in, it waits here, with its copies.
            await until_stored(queue.submit, thread, text, message_id=event["ts"], author=who, metadata=to)


async def main() -> None:
    me[0] = AuthorizeResult.from_auth_test_response(bot_token=slack.token, auth_test_response=await slack.auth_test())
    async with queue:
        socket = AsyncSocketModeHandler(app, os.environ["SLACK_APP_TOKEN"])
        await socket.connect_async()
        print(f"@{me[0].user} hears Slack, and keeps it in {queue}; Ctrl-C ends it.", flush=True)
        await until_stopped()
        await socket.close_async()  # no further events; then the queue finishes what is running, and still delivers it


if __name__ == "__main__":
    asyncio.run(main())
