"""examples/telegram_streaming.py as a real process: real aiogram, a fake Bot API, a fake model, an embedded server.

What it shares with telegram_aiogram.py is tested there. How "exactly one" is shown stands in telegram.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.bots.host import Host, ended_at_once
from tests.bots.telegram import answers, chats, nothing_more, refused, stopped
from tests.fakes.bot_api import BotApi, Flood
from tests.fakes.responses_server import Step

EXAMPLE = "examples/telegram_streaming.py"


async def test_an_answer_is_one_message_that_is_edited_until_it_is_whole(bot: Host, api: BotApi) -> None:
    """The next answer has a message of its own."""
    await bot.up()
    chat = next(chats)
    bot.steps["tell me"] = Step(text="once upon a time", hold=(hold := asyncio.Event()))
    api.say(chat, "tell me")
    assert await answers(bot, api, chat, 1) == ["once"]
    hold.set()
    await bot.until(lambda: api.texts(chat) == ["once upon a time"], "the whole text")
    assert [edit.text for edit in api.edits if edit.chat == chat][-1] == "once upon a time"
    await nothing_more(bot, api, chat, 2)
    assert api.texts(chat)[0] == "once upon a time"


async def test_a_long_answer_goes_on_in_further_messages(bot: Host, api: BotApi) -> None:
    await bot.up()
    chat = next(chats)
    paragraphs = ["a" * 4000, "b" * 4000, "```py\n" + "c = 1\n" * 20 + "```"]
    bot.steps["novel"] = Step(text="\n\n".join(paragraphs))
    api.say(chat, "a novel please")
    await bot.until(lambda: api.texts(chat) == paragraphs, "three messages")
    await nothing_more(bot, api, chat, 4)


async def test_flood_control_delays_only_its_chat(bot: Host, api: BotApi) -> None:
    """An edit that is refused is one preview less; the reply waits as long as it must."""
    await bot.up()
    slow, quick = next(chats), next(chats)
    bot.steps["slowly"] = Step(text="one two three", hold=(hold := asyncio.Event()))
    api.floods[slow] = Flood(retry_after=1, free=1)
    api.say(slow, "slowly")
    await answers(bot, api, slow, 1)
    hold.set()
    await bot.until(lambda: refused(api, slow), "a refused edit")
    api.say(quick, "only a word")
    await bot.until(lambda: api.texts(quick) == ["I got 1 messages: only a word"], "the other chat's answer")
    assert api.texts(slow) == ["one"]
    del api.floods[slow]
    await bot.until(lambda: api.texts(slow) == ["one two three"], "the whole text")


async def test_stop_ends_an_answer_within_a_second_and_what_was_written_stays(bot: Host, api: BotApi) -> None:
    """The next answer has a message of its own, so the stopped one's has ended as a reply ends."""
    await bot.up()
    chat = next(chats)
    await stopped(bot, api, chat, Step(text="there was a king", hold=asyncio.Event()), seen="there")
    whole = ["there", "Stopped.", "I got 1 messages: and after that"]
    await bot.until(lambda: api.texts(chat) == whole, "what was written, and two answers")


async def test_kill_9_while_an_answer_is_written_leaves_one_message_that_is_whole(bot: Host, api: BotApi) -> None:
    """The bot that comes after it edits the message that was begun; the Run is repeated, and nothing is left over.

    A message that is out and not noted yet is the one moment that may send it twice; so the kill waits for the note.
    """

    def notes() -> set[Path]:
        return {note for note in (bot.data / "drafts").glob("*") if not note.name.endswith("~")}

    await bot.up()
    chat, before = next(chats), notes()
    bot.steps["tell me"] = Step(text="half of it", hold=(never := asyncio.Event()))
    api.say(chat, "tell me")
    assert await answers(bot, api, chat, 1) == ["half"]
    await bot.until(lambda: notes() - before, "the note of the message")
    await bot.kill()
    never.set()
    assert api.texts(chat) == ["half"]
    bot.steps["tell me"] = Step(text="the whole of it")
    await bot.up()
    await bot.until(lambda: api.texts(chat) == ["the whole of it"], "the answer in the same message")
    await nothing_more(bot, api, chat, 2)
    assert bot.asked("tell me") >= 2


async def test_ctrl_c_twice_ends_it_at_once(bot: Host, api: BotApi) -> None:
    await bot.up()
    chat = next(chats)
    await ended_at_once(bot, lambda text: api.say(chat, text))
