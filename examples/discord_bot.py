"""A Discord bot with discord.py 2: a burst of messages gets one answer, and a crash loses none that it has seen.

    pip install "streambatch-queue[embedded]" discord.py
    DISCORD_TOKEN=… OPENAI_API_KEY=… python discord_bot.py

Switch on "Message Content Intent" in Discord's developer portal. Without OPENAI_API_KEY it echoes; OPENAI_BASE_URL
names another provider, STREAMBATCH_URL another Redis or Valkey.
"""

import asyncio
import os
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import Any

import discord

import streambatch as sb
from streambatch.integrations import Typing, in_pieces, split_markdown, until_stored
from streambatch.runners import ResponsesRunner

if not os.environ.get("DISCORD_TOKEN"):
    raise SystemExit("DISCORD_TOKEN is not set: discord.com/developers, New Application, Bot, Reset Token.")
intents = discord.Intents(guilds=True, messages=True, message_content=True)
nobody = discord.AllowedMentions.none()  # is called, whatever the model writes
# A rate limit of up to 30 seconds is waited for by discord.py itself, a longer one becomes RateLimited.
client = discord.Client(intents=intents, allowed_mentions=nobody, max_ratelimit_timeout=30)
gone = (discord.Forbidden, discord.NotFound)  # the bot may not write there, or the channel is not there any more


async def show_typing(thread: str) -> None:  # Discord shows it for ten seconds
    await client.get_partial_messageable(int(thread)).typing()


async def echo(batch: sb.Batch) -> str:
    return f"You said:\n{batch.text}"


typing = Typing(show_typing, every=8)
queue = sb.BatchQueue(
    os.environ.get("STREAMBATCH_URL", "embedded:./bot-data"),
    runner=ResponsesRunner(model="gpt-5.6", instructions="Be brief.") if "OPENAI_API_KEY" in os.environ else echo,
    namespace="discord",
    listeners=[typing],
)


@queue.deliver
@in_pieces(partial(split_markdown, limit=2000), flood=discord.RateLimited, refused=gone)
async def send(reply: sb.Reply, piece: str, number: int) -> None:
    channel = client.get_partial_messageable(int(reply.thread))
    asked = channel.get_partial_message(reply.metadata["message"]).to_reference(fail_if_not_exists=False)
    # Discord answers a nonce it has seen in the last minutes with the message it has: what is sent again after a crash,
    # which may have come after Discord had it, is not seen twice.
    nonce = blake2b(f"{reply.id} {number}".encode(), digest_size=12).hexdigest()
    await channel.send(piece, nonce=nonce, reference=asked)


@client.event
async def on_ready() -> None:
    print(f"{client.user} hears Discord, and keeps it in {queue}; Ctrl-C ends it.", flush=True)


@client.event
async def on_message(m: discord.Message) -> None:
    if m.author.bot or m.is_system() or not m.content:  # its own messages come back to it, too
        return
    if m.content == "!stop":
        found = await queue.cancel(m.channel.id)  # the Run ends, at its provider too, and what waits behind is dropped
        typing.stop(m.channel.id)
        await m.reply("Stopped." if found.run or found.dropped else "There is nothing to stop.")
        return
    about: Any = {"message_id": m.id, "author": m.author.display_name, "sent_at": m.created_at}
    # The thread is the channel or, in a thread of Discord's, that thread: both are m.channel. And discord.py drops a
    # message whose handler fails, so while the server is away it waits here.
    await until_stored(queue.submit, m.channel.id, m.content, metadata={"message": m.id}, **about)


async def main() -> None:
    async with client:
        await client.login(os.environ["DISCORD_TOKEN"])  # before the queue: it may have a reply to deliver at once
        async with queue:  # and it is closed before the client, so that running answers are still delivered
            await client.connect()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
