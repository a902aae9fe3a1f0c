"""A Telegram bot with python-telegram-bot 22: a burst of messages, or an album of photos, gets one answer.

    pip install "streambatch-queue[embedded]" "python-telegram-bot>=22"
    TELEGRAM_TOKEN=… OPENAI_API_KEY=… python telegram_ptb.py

Without OPENAI_API_KEY it echoes; OPENAI_BASE_URL names another provider, STREAMBATCH_URL another Redis or Valkey.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from openai import AsyncOpenAI
from telegram import Message, ReplyParameters
from telegram.error import BadRequest, Forbidden, RetryAfter
from telegram.ext import Application, CommandHandler, MessageHandler, filters

import streambatch as sb
from streambatch.integrations import Paced, Typing, in_pieces, split_markdown, until_stopped, until_stored, utf16_length
from streambatch.runners import Resolved, ResponsesRunner

if not os.environ.get("TELEGRAM_TOKEN"):
    raise SystemExit("TELEGRAM_TOKEN is not set: @BotFather on Telegram gives a bot its token, after /newbot.")
os.environ.setdefault("PTB_TIMEDELTA", "true")  # times as timedelta, which will be the only way
api = os.environ.get("TELEGRAM_API", "https://api.telegram.org")
# Paced: the next getUpdates, which confirms an update for good, waits for its handler. With PTB's own queue it goes out
# while the handler still waits, and a crash then loses the message.
builder = Application.builder().token(os.environ["TELEGRAM_TOKEN"]).update_queue(Paced())
app: Any = builder.base_url(f"{api}/bot").base_file_url(f"{api}/file/bot").build()
cut = partial(split_markdown, limit=4096, length=utf16_length)


async def upload(part: Any) -> sb.Part:  # a model's provider knows nothing of Telegram's file ids
    data = await (await app.bot.get_file(part.file_id)).download_as_bytearray()
    file = await openai.files.create(file=("photo.jpg", bytes(data)), purpose="vision")
    return sb.Part("image", file_id=file.id)


async def echo(batch: sb.Batch) -> str:
    return f"You said:\n{batch.text}"


async def show_typing(thread: str) -> None:  # Telegram shows it for five seconds
    chat, _, topic = thread.partition(":")
    await app.bot.send_chat_action(chat, "typing", message_thread_id=int(topic) if topic else None)


openai: Any = AsyncOpenAI() if "OPENAI_API_KEY" in os.environ else None
typing = Typing(show_typing, every=4.5)
queue = sb.BatchQueue(
    os.environ.get("STREAMBATCH_URL", "embedded:./bot-data"),
    runner=Resolved(ResponsesRunner(model="gpt-5.6", instructions="Be brief."), upload) if openai else echo,
    namespace="telegram_ptb",
    listeners=[typing],
    dedup_window=86_400,  # for a day Telegram may send an update again
)


@queue.deliver
@in_pieces(cut, flood=RetryAfter, refused=(Forbidden, BadRequest))  # they blocked the bot, or the chat is gone
async def send(reply: sb.Reply, piece: str, number: int) -> None:
    to = reply.metadata
    answered = None if number else ReplyParameters(to["message"], allow_sending_without_reply=True)
    await app.bot.send_message(to["chat"], piece, message_thread_id=to["topic"], reply_parameters=answered)


def thread_of(m: Message) -> str:
    return f"{m.chat.id}:{m.message_thread_id}" if m.is_topic_message else str(m.chat.id)


async def on_stop(update: Any, _: object) -> None:
    found = await queue.cancel(thread_of(update.message))  # ends the Run at its provider, too, and drops what waits
    typing.stop(thread_of(update.message))
    await update.message.reply_text("Stopped." if found.run or found.dropped else "There is nothing to stop.")


async def on_message(update: Any, _: object) -> None:
    m, topic = update.message, update.message.message_thread_id if update.message.is_topic_message else None
    to = {"chat": m.chat.id, "topic": topic, "message": m.message_id, "media_group_id": m.media_group_id}
    parts = [sb.Part("text", text=text) for text in (m.text, m.caption) if text]
    parts += [sb.Part("image", file_id=size.file_id) for size in m.photo[-1:]]  # of each photo its largest size
    info: Any = {"author": m.from_user and m.from_user.first_name, "sent_at": m.date, "metadata": to}
    # The message_id makes it idempotent: an update that comes again is stored once. And PTB drops an update whose
    # handler fails, so while the server is away it waits here.
    await until_stored(queue.submit, thread_of(m), parts, message_id=m.message_id, **info)


async def main() -> None:
    app.add_handler(CommandHandler("stop", on_stop))
    app.add_handler(MessageHandler((filters.TEXT | filters.PHOTO) & filters.UpdateType.MESSAGE, on_message))
    async with app, AsyncExitStack() as end:  # what is put there is undone from its end, however it ends
        await app.start()
        end.push_async_callback(app.stop)  # waits for handlers; one may wait for the server until the queue is closed
        await end.enter_async_context(queue)  # is closed before the bot, so that running answers are still delivered
        await app.updater.start_polling()
        end.push_async_callback(app.updater.stop)
        print(f"@{app.bot.username} hears Telegram, and keeps it in {queue}; Ctrl-C ends it.", flush=True)
        await until_stopped()


if __name__ == "__main__":
    asyncio.run(main())
