"""What the tests of all Telegram examples do: wait for answers, and see that no more come.

"Exactly one" is shown by order, never by waiting: a thread's replies come in order, so after the answer to a later
message everything that could have come before it is there.
"""

from __future__ import annotations

import time
from itertools import count

from tests.bots.host import Host
from tests.fakes.bot_api import BotApi
from tests.fakes.responses_server import Step

chats = count(101)


async def answers(bot: Host, api: BotApi, chat: int, n: int) -> list[str]:
    """Wait until the chat has n messages of the bot."""
    await bot.until(lambda: len(api.texts(chat)) >= n, f"{n} messages to chat {chat}")
    return api.texts(chat)


async def nothing_more(bot: Host, api: BotApi, chat: int, n: int) -> None:
    """A later message of the chat is answered, and that makes n messages of the bot; its text may grow before it is."""
    api.say(chat, "and finally")
    whole = ["I got 1 messages: and finally"]
    await bot.until(lambda: api.texts(chat)[n - 1 :] == whole, f"{n} messages to chat {chat}, and its answer the last")


def refused(api: BotApi, chat: int) -> list[float]:
    """When messages to the chat were refused."""
    return [call.at for call, _ in api.refused if call.chat == chat]


async def stopped(bot: Host, api: BotApi, chat: int, step: Step, *, seen: str = "") -> None:
    """A /stop while an answer is written and two messages wait: the provider's stream is cut within a second.

    A later message is answered alone, so what waited is gone. Where an answer is shown while it is written, *seen* is
    what was before the /stop.
    """
    bot.steps["a long story"] = step
    bot.model.cut.clear()
    api.say(chat, "a long story")
    await bot.until(lambda: bot.asked("a long story"), "the Run")
    waiting = [api.say(chat, text) for text in ("no,", "a short one")]
    await bot.until(lambda: api.confirmed > waiting[-1], "the messages behind it, stored")
    await bot.until(lambda: not seen or seen in api.texts(chat), "what is written so far")
    assert not bot.model.cut.is_set()
    began = time.monotonic()
    api.say(chat, "/stop")
    await bot.until(bot.model.cut.is_set, "the end of the stream")
    assert time.monotonic() - began < 1
    await bot.until(lambda: "Stopped." in api.texts(chat), "the answer to /stop")
    api.say(chat, "and after that")
    await bot.until(lambda: bot.asked("and after that"), "the next Run")
    assert [bot.asked(word) for word in ("a long story", "a short one")] == [1, 0]
