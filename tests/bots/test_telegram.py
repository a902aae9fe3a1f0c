"""examples/telegram_aiogram.py as a real process: real aiogram, a fake Bot API, a fake model, an embedded server.

How "exactly one" is shown stands in telegram.py.
"""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

from tests.bots.held import holding
from tests.bots.host import Host, ended_at_once
from tests.bots.telegram import answers, chats, nothing_more, refused, stopped
from tests.fakes.bot_api import BotApi, Flood, Hold
from tests.fakes.responses_server import Step

EXAMPLE = "examples/telegram_aiogram.py"


async def test_a_burst_of_three_and_one_sent_twice_get_one_answer_with_all_three(bot: Host, api: BotApi) -> None:
    """I6: redelivered updates are stored once, inside the burst and after its answer; typing shows from the start."""
    await bot.up()
    chat = next(chats)
    updates = [api.say(chat, text) for text in ("hi there", "one thing", "about cats")]
    api.repeat(updates[1])
    assert await answers(bot, api, chat, 1) == ["I got 3 messages: hi there | one thing | about cats"]
    assert api.sent[-1].answers == api.message_of(updates[-1])
    assert api.actions[chat, None]
    api.repeat(updates[2])
    await nothing_more(bot, api, chat, 2)


async def test_an_update_that_comes_five_times_gets_one_answer(bot: Host, api: BotApi) -> None:
    """I6: within the burst, while the Run is under way, and after its answer."""
    await bot.up()
    chat = next(chats)
    hold = asyncio.Event()
    bot.steps["say it once"] = Step(hold=hold)
    update = api.say(chat, "say it once")
    api.repeat(update)
    api.repeat(update)
    await bot.until(lambda: bot.asked("say it once"), "the Run")
    api.repeat(update)
    await bot.until(lambda: api.times[update] >= 4, "the update for the fourth time")
    hold.set()
    assert await answers(bot, api, chat, 1) == ["I got 1 messages: say it once"]
    api.repeat(update)
    await bot.until(lambda: api.times[update] >= 5, "the update for the fifth time")
    await nothing_more(bot, api, chat, 2)
    assert bot.asked("say it once") == 1


async def test_stop_ends_an_answer_within_a_second_and_drops_what_waits(bot: Host, api: BotApi) -> None:
    """Nothing of the stopped answer is delivered; /stop alone says that there is nothing."""
    await bot.up()
    chat = next(chats)
    await stopped(bot, api, chat, Step(hold=asyncio.Event()))
    assert await answers(bot, api, chat, 2) == ["Stopped.", "I got 1 messages: and after that"]
    api.say(chat, "/stop")
    assert (await answers(bot, api, chat, 3))[-1] == "There is nothing to stop."


async def test_new_forgets_the_conversation(bot: Host, api: BotApi) -> None:
    """It is answered at once, in its place; the model hears nothing of what came before it."""
    await bot.up()
    chat = next(chats)
    api.say(chat, "my name is Ann")
    await answers(bot, api, chat, 1)
    api.say(chat, "do you remember")
    await answers(bot, api, chat, 2)
    assert "my name is Ann" in str(bot.model.requests[-1])
    api.say(chat, "/new@loop_bot")
    assert (await answers(bot, api, chat, 3))[-1] == "A new conversation."
    api.say(chat, "who am I")
    assert (await answers(bot, api, chat, 4))[-1] == "I got 1 messages: who am I"
    assert "Ann" not in str(bot.model.requests[-1])
    assert "remember" not in str(bot.model.requests[-1])


async def test_a_topic_of_a_group_is_a_thread_and_authors_are_told_apart(bot: Host, api: BotApi) -> None:
    """Two topics of one group get answers of their own, in their topic, with the names of those who spoke."""
    await bot.up()
    group = -1000 - next(chats)
    first = api.say(group, "ping", topic=7, who="Ann")
    api.say(group, "pong", topic=7, who="Bob")
    api.say(group, "else", topic=8)
    await answers(bot, api, group, 2)
    calls = {call.topic: call for call in api.sent if call.chat == group}
    assert calls[7].text == "I got 2 messages: Ann: ping | Bob: pong"
    assert calls[7].answers != api.message_of(first)
    assert calls[8].text == "I got 1 messages: else"
    assert api.actions[group, 7]


async def test_flood_control_delays_only_its_chat_and_repeats_no_piece(bot: Host, api: BotApi) -> None:
    """429 in the middle of a long answer: the other chat is answered meanwhile, then the rest comes, once."""
    await bot.up()
    slow, quick = next(chats), next(chats)
    bot.steps["novel"] = Step(text="a" * 4096 + "b" * 4096 + "end")
    api.floods[slow] = Flood(retry_after=1, free=1)
    api.say(slow, "a novel please")
    await bot.until(lambda: len(refused(api, slow)) >= 1, "a refused sendMessage")
    api.say(quick, "only a word")
    await answers(bot, api, quick, 1)
    assert api.texts(slow) == ["a" * 4096]
    del api.floods[slow]
    assert await answers(bot, api, slow, 3) == ["a" * 4096, "b" * 4096, "end"]
    at = [call.at for call in api.sent if call.chat == slow]
    tries = [*refused(api, slow), at[1]]
    assert all(later - earlier >= 1 for earlier, later in pairwise(tries))


async def test_who_blocked_the_bot_becomes_a_dead_letter_and_blocks_nothing(bot: Host, api: BotApi) -> None:
    """Forbidden is final: one try, one dead letter, and the thread goes on."""
    await bot.up()
    chat = next(chats)
    api.blocked.add(chat)
    api.say(chat, "go away")
    await bot.until(lambda: refused(api, chat), "a refused sendMessage")
    api.blocked.remove(chat)
    api.say(chat, "come back")
    assert await answers(bot, api, chat, 1) == ["I got 1 messages: come back"]
    dead = [(letter.kind, letter.reason) for letter in await bot.dead() if letter.thread == str(chat)]
    assert dead == [("reply", "TelegramForbiddenError")]
    assert len(refused(api, chat)) == 1


async def test_kill_9_in_a_run_before_a_send_in_a_send_and_before_a_message_is_stored(bot: Host, api: BotApi) -> None:
    """One kill, four chats: a cut Run, an unsent reply and an unstored message each end in one answer (I1, I4, I17).

    A message that Telegram has, but whose confirmation the bot never saw, comes twice: nobody can know better.
    """
    await bot.up()
    running, unsent, unconfirmed, unstored = (next(chats) for _ in range(4))
    never = asyncio.Event()
    bot.steps["running"] = Step(hold=never)
    before, within = api.holds[unsent], api.holds[unconfirmed] = Hold(stored=False), Hold(stored=True)
    for chat, text in ((running, "running"), (unsent, "unsent"), (unconfirmed, "unconfirmed")):
        api.say(chat, f"{text} 1")
        api.say(chat, f"{text} 2")
    for moment in (lambda: bot.asked("running") == 1, before.reached.is_set, within.reached.is_set):
        await bot.until(moment, "the moment to kill")
    early = "too early " * 300
    async with holding(bot.data) as held:
        update = api.say(unstored, early)
        await held.stuck(len(early))
    assert api.handed(update)
    await bot.kill()
    never.set()
    assert api.confirmed <= update
    assert [len(api.texts(chat)) for chat in (running, unsent, unconfirmed, unstored)] == [0, 0, 1, 0]

    for chat in (running, unsent, unconfirmed, unstored):
        api.say(chat, "and finally")
    await bot.up()
    assert (await answers(bot, api, running, 2))[0] == "I got 2 messages: running 1 | running 2"
    assert (await answers(bot, api, unsent, 2))[0] == "I got 2 messages: unsent 1 | unsent 2"
    assert (await answers(bot, api, unconfirmed, 3))[:2] == ["I got 2 messages: unconfirmed 1 | unconfirmed 2"] * 2
    assert (await answers(bot, api, unstored, 1))[0] == f"I got 2 messages: {early} | and finally"
    assert [len(api.texts(chat)) for chat in (running, unsent, unconfirmed, unstored)] == [2, 2, 3, 1]
    assert [bot.asked(word) for word in ("running", "unsent", "unconfirmed", "too early")] == [2, 1, 1, 1]


async def test_sigterm_delivers_what_is_running_and_disturbs_no_send(bot: Host, api: BotApi) -> None:
    """Polling ends first, then the queue drains and still sends, then the session closes: exit status 0, no warning.

    A session that is closed under a send makes it fail after Telegram has the message: it would come twice.
    """
    await bot.up()
    running, sending = next(chats), next(chats)
    bot.steps["last words"] = Step(hold=(hold := asyncio.Event()))
    within = api.holds[sending] = Hold(stored=True)
    api.say(running, "last words")
    api.say(sending, "almost there")
    await bot.until(lambda: bot.asked("last words"), "the Run")
    await bot.until(within.reached.is_set, "a message that is stored")
    stopping = asyncio.create_task(bot.stop())
    await bot.until(lambda: not api.polling, "the end of polling")
    hold.set()
    assert await answers(bot, api, running, 1) == ["I got 1 messages: last words"]
    within.open.set()
    status, said = await stopping
    assert api.texts(sending) == ["I got 1 messages: almost there"]
    assert status == 0
    assert not re.search("deliveryfailed|Unclosed|Traceback|last words|almost", said)


async def test_ctrl_c_twice_ends_it_at_once(bot: Host, api: BotApi) -> None:
    await bot.up()
    chat = next(chats)
    await ended_at_once(bot, lambda text: api.say(chat, text))
