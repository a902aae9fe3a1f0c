"""A Telegram bot with aiogram 3 that shows its answer while it is written: one message, edited until it is whole.

What is said in telegram_aiogram.py holds here, too: one answer to a burst, and nothing lost in a crash. The messages
that an answer is written into are noted in ./drafts: a bot that was killed in its middle goes on with the same ones.

    pip install "streambatch-queue[embedded]" aiogram
    TELEGRAM_TOKEN=… OPENAI_API_KEY=… python telegram_streaming.py

Without OPENAI_API_KEY it echoes; OPENAI_BASE_URL names another provider, STREAMBATCH_URL another Redis or Valkey.
"""

import asyncio
import os
from functools import partial

from aiogram import Bot, Dispatcher, F
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import TelegramBadRequest, TelegramForbiddenError, TelegramRetryAfter
from aiogram.filters import Command
from aiogram.types import Message

import streambatch as sb
from streambatch.integrations import Drafts, Typing, split_markdown, until_stored, utf16_length
from streambatch.runners import ResponsesRunner

if not os.environ.get("TELEGRAM_TOKEN"):
    raise SystemExit("TELEGRAM_TOKEN is not set: @BotFather on Telegram gives a bot its token, after /newbot.")
api = TelegramAPIServer.from_base(os.environ.get("TELEGRAM_API", "https://api.telegram.org"))
bot, dp = Bot(os.environ["TELEGRAM_TOKEN"], session=AiohttpSession(api=api)), Dispatcher()
cut = partial(split_markdown, limit=4096, length=utf16_length)
gone = (TelegramForbiddenError, TelegramBadRequest)  # they blocked the bot, or the chat is not there any more


async def show_typing(thread: str) -> None:  # Telegram shows it for five seconds
    chat, _, topic = thread.partition(":")
    await bot.send_chat_action(chat, "typing", message_thread_id=int(topic) if topic else None)


async def send(thread: str, text: str) -> int:
    chat, _, topic = thread.partition(":")
    return (await bot.send_message(chat, text, message_thread_id=int(topic) if topic else None)).message_id


async def edit(thread: str, message: int, text: str) -> bool:
    try:
        await bot.edit_message_text(text, chat_id=thread.partition(":")[0], message_id=message)
    except TelegramBadRequest as error:
        return "not modified" in error.message  # else somebody has deleted it, and the text is a new message
    return True


async def echo(batch: sb.Batch) -> str:
    return f"You said:\n{batch.text}"


typing, place = Typing(show_typing, every=4.5), os.environ.get("TELEGRAM_DRAFTS", "drafts")
drafts = Drafts(send, edit, cut, flood=TelegramRetryAfter, refused=gone, folder=place, interval=1.0)
queue = sb.BatchQueue(
    os.environ.get("STREAMBATCH_URL", "embedded:./bot-data"),
    runner=ResponsesRunner(model="gpt-5.6", instructions="Be brief.") if "OPENAI_API_KEY" in os.environ else echo,
    deliver=drafts.deliver,
    namespace="telegram_streaming",
    listeners=[typing, drafts],
    dedup_window=86_400,  # for a day Telegram may send an update again
)


def thread_of(m: Message) -> str:
    return f"{m.chat.id}:{m.message_thread_id}" if m.is_topic_message else str(m.chat.id)


@dp.message(Command("stop"))
async def on_stop(m: Message) -> None:
    found = await queue.cancel(thread_of(m), keep=True)  # what has been written stays, and is the reply
    typing.stop(thread_of(m))
    await m.reply("Stopped." if found.run or found.dropped else "There is nothing to stop.")


@dp.message(F.text)
async def on_message(m: Message) -> None:
    thread, who = thread_of(m), m.from_user and m.from_user.first_name
    # The message_id makes it idempotent: an update that comes again is stored once. And aiogram drops an update whose
    # handler fails, so while the server is away it waits here.
    await until_stored(queue.submit, thread, m.text or "", message_id=m.message_id, author=who, sent_at=m.date)


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
