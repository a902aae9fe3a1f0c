"""A Telegram bot with aiogram 3 that shows its answer while it is written: one message, edited until it is whole.

What is said in telegram_aiogram.py holds here, too: one answer to a burst, and nothing lost in a crash. The message
that an answer is written into is remembered in ./drafts: a bot that was killed in its middle goes on with the same one.

    pip install "streambatch-queue[embedded]" aiogram
    TELEGRAM_TOKEN=… OPENAI_API_KEY=… python telegram_streaming.py

Without OPENAI_API_KEY it echoes; OPENAI_BASE_URL names another provider, STREAMBATCH_URL another Redis or Valkey.
"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from aiogram import Bot, Dispatcher, F
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import TelegramBadRequest, TelegramForbiddenError, TelegramRetryAfter
from aiogram.filters import Command
from aiogram.types import Message

import streambatch as sb
from streambatch.integrations import Streaming, Typing, split_markdown, utf16_length
from streambatch.runners import ResponsesRunner

api = TelegramAPIServer.from_base(os.environ.get("TELEGRAM_API", "https://api.telegram.org"))
bot, dp = Bot(os.environ["TELEGRAM_TOKEN"], session=AiohttpSession(api=api)), Dispatcher()
drafts = Path(os.environ.get("TELEGRAM_DRAFTS", "drafts"))  # of each batch, the id of the message
drafts.mkdir(exist_ok=True)
runs: dict[str, str] = {}  # the batch of each thread that is being answered
sent: dict[str, int] = {}  # how much of a long answer is out, so that a flood wait in its middle repeats nothing


async def show_typing(thread: str) -> None:  # Telegram shows it for five seconds
    chat, _, topic = thread.partition(":")
    await bot.send_chat_action(chat, "typing", message_thread_id=int(topic) if topic else None)


async def send_message(thread: str, text: str) -> int:
    chat, _, topic = thread.partition(":")
    return (await bot.send_message(chat, text, message_thread_id=int(topic) if topic else None)).message_id


async def edited(thread: str, text: str) -> bool:  # whether this answer has a message, and it says the text now
    try:
        message = int((drafts / runs[thread]).read_text())
        await bot.edit_message_text(text, chat_id=thread.partition(":")[0], message_id=message)
    except (FileNotFoundError, ValueError):
        return False
    except TelegramBadRequest as error:
        return "not modified" in error.message  # else somebody has deleted it
    return True


async def write(thread: str, text: str) -> None:
    if not await edited(thread, text):
        (drafts / runs[thread]).write_text(str(await send_message(thread, text)))


async def show(thread: str, text: str) -> None:  # the first message only; what is longer comes with the reply
    for piece in split_markdown(text, 4096, length=utf16_length)[:1]:
        await write(thread, piece)


def follow(event: sb.Event) -> None:
    match event:
        case sb.Started(thread=thread, batch_id=batch):
            if runs.get(thread, batch) != batch:  # the one before was cancelled
                (drafts / runs[thread]).unlink(missing_ok=True)
            runs[thread] = batch
        case sb.Delivered(thread=thread) | sb.Dead(thread=thread) if thread in runs:
            (drafts / runs.pop(thread)).unlink(missing_ok=True)


async def echo(batch: sb.Batch) -> str:
    return f"You said:\n{batch.text}"


typing, streaming = Typing(show_typing, every=4.5), Streaming(show, interval=1.0)
queue = sb.BatchQueue(
    os.environ.get("STREAMBATCH_URL", "embedded:./bot-data"),
    runner=ResponsesRunner(model="gpt-5.6", instructions="Be brief.") if "OPENAI_API_KEY" in os.environ else echo,
    namespace="telegram_streaming",
    listeners=[typing, streaming, follow],
    dedup_window=86_400,  # for a day Telegram may send an update again
)


@queue.deliver
async def send(reply: sb.Reply) -> None:
    runs[reply.thread] = reply.batch_id
    await streaming.settled(reply.thread)  # from here on no preview is on its way
    pieces = split_markdown(reply.text, 4096, length=utf16_length)
    try:
        for n in range(sent.get(reply.id, 0), len(pieces)):
            await (send_message if n else write)(reply.thread, pieces[n])
            sent[reply.id] = n + 1
    except TelegramRetryAfter as flood:  # this chat waits, no other does, and no attempt is used up
        raise sb.Retry(after=flood.retry_after, count=False) from None
    except (TelegramForbiddenError, TelegramBadRequest) as error:  # they blocked the bot, or the chat is gone
        raise sb.DeadLetter(type(error).__name__) from None
    sent.pop(reply.id, None)


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
    while True:  # aiogram drops an update whose handler fails, so while the server is away it waits here
        with suppress(sb.ServerAway, sb.OutcomeUnknown):
            # The message_id makes it idempotent: an update that comes again is stored once.
            await queue.submit(thread, m.text or "", message_id=m.message_id, author=who, sent_at=m.date)
            return
        await asyncio.sleep(1)


async def main() -> None:
    async with bot, queue:
        # The next getUpdates confirms an update for good. With handle_as_tasks=True, the default, it goes out while the
        # handler still runs, and a crash then loses the message. close_bot_session=False: when polling has stopped, the
        # queue still delivers what is running; only then does `async with bot` close the session.
        await dp.start_polling(bot, handle_as_tasks=False, close_bot_session=False)


if __name__ == "__main__":
    asyncio.run(main())
