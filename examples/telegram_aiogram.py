"""A Telegram bot with aiogram 3: a burst of messages gets one answer, and a crash at any moment loses nothing.

    pip install "streambatch-queue[embedded]" aiogram
    TELEGRAM_TOKEN=… OPENAI_API_KEY=… python telegram_aiogram.py

Without OPENAI_API_KEY it echoes; OPENAI_BASE_URL names another provider, STREAMBATCH_URL another Redis or Valkey.
"""

import asyncio
import os
from functools import partial
from typing import Any

from aiogram import Bot, Dispatcher, F
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import TelegramBadRequest, TelegramForbiddenError, TelegramRetryAfter
from aiogram.filters import Command
from aiogram.types import Message, ReplyParameters

import streambatch as sb
from streambatch.integrations import Typing, in_pieces, split_markdown, until_stored, utf16_length
from streambatch.runners import Renewable, ResponsesRunner

if not os.environ.get("TELEGRAM_TOKEN"):
    raise SystemExit("TELEGRAM_TOKEN is not set: @BotFather on Telegram gives a bot its token, after /newbot.")
api = TelegramAPIServer.from_base(os.environ.get("TELEGRAM_API", "https://api.telegram.org"))
bot, dp = Bot(os.environ["TELEGRAM_TOKEN"], session=AiohttpSession(api=api)), Dispatcher()
cut = partial(split_markdown, limit=4096, length=utf16_length)
gone = (TelegramForbiddenError, TelegramBadRequest)  # they blocked the bot, or the chat is not there any more


async def show_typing(thread: str) -> None:  # Telegram shows it for five seconds
    chat, _, topic = thread.partition(":")
    await bot.send_chat_action(chat, "typing", message_thread_id=int(topic) if topic else None)


async def echo(batch: sb.Batch) -> str:
    return f"You said:\n{batch.text}"


runner = Renewable(ResponsesRunner(model="gpt-5.6", instructions="Be brief."), words=["/new"])
typing = Typing(show_typing, every=4.5)
queue = sb.BatchQueue(
    os.environ.get("STREAMBATCH_URL", "embedded:./bot-data"),
    runner=runner if "OPENAI_API_KEY" in os.environ else echo,
    namespace="telegram",
    listeners=[typing],
    dedup_window=86_400,  # for a day Telegram may send an update again
)


@queue.deliver
@in_pieces(cut, flood=TelegramRetryAfter, refused=gone)
async def send(reply: sb.Reply, piece: str, number: int) -> None:
    to = reply.metadata
    answered = ReplyParameters(message_id=to["message"], allow_sending_without_reply=True)
    place = {"message_thread_id": to["topic"], "reply_parameters": None if number else answered}
    await bot.send_message(to["chat"], piece, **place)


def thread_of(m: Message) -> str:
    return f"{m.chat.id}:{m.message_thread_id}" if m.is_topic_message else str(m.chat.id)


@dp.message(Command("stop"))
async def on_stop(m: Message) -> None:
    found = await queue.cancel(thread_of(m))  # the Run ends, at its provider too, and what waits behind it is dropped
    typing.stop(thread_of(m))
    await m.reply("Stopped." if found.run or found.dropped else "There is nothing to stop.")


@dp.message(F.text)
async def on_message(m: Message) -> None:
    thread, topic = thread_of(m), m.message_thread_id if m.is_topic_message else None
    to = {"chat": m.chat.id, "topic": topic, "message": m.message_id}
    who, text = m.from_user and m.from_user.first_name, m.text or ""
    text = text.partition("@")[0] if text.startswith("/") else text  # "/new@the_bot", as groups have it
    about: Any = {"author": who, "sent_at": m.date, "metadata": to, "now": text == "/new"}
    # The message_id makes it idempotent: an update that comes again is stored once. And aiogram drops an update whose
    # handler fails, so while the server is away it waits here.
    await until_stored(queue.submit, thread, text, message_id=m.message_id, **about)


async def main() -> None:
    async with bot, queue:
        print(f"@{(await bot.me()).username} hears Telegram, and keeps it in {queue}; Ctrl-C ends it.", flush=True)
        # The next getUpdates confirms an update for good. With handle_as_tasks=True, the default, it goes out while the
        # handler still runs, and a crash then loses the message. close_bot_session=False: when polling has stopped, the
        # queue still delivers what is running; only then does `async with bot` close the session.
        await dp.start_polling(bot, handle_as_tasks=False, close_bot_session=False)
        # aiogram keeps Ctrl-C to itself: given back, a second one does not wait for what the queue still finishes.
        asyncio.get_running_loop().remove_signal_handler(2)


if __name__ == "__main__":
    asyncio.run(main())
