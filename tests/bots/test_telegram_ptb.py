"""examples/telegram_ptb.py as a process: real python-telegram-bot, a fake Bot API, a fake model, an embedded server.

How "exactly one" is shown stands in telegram.py.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

from streambatch import BatchQueue, Part
from tests.bots.held import holding
from tests.bots.host import PATIENCE, Host, ended_at_once, hosting
from tests.bots.telegram import answers, chats, nothing_more, refused, stopped
from tests.fakes.bot_api import TOKEN, BotApi, Flood, Hold, Refusal, serving
from tests.fakes.responses_server import Step
from tests.rig.process import ROOT

EXAMPLE = "examples/telegram_ptb.py"


async def test_a_burst_and_an_update_that_comes_five_times_get_one_answer(bot: Host, api: BotApi) -> None:
    """I6: within the burst and after its answer, which goes to the last message; typing shows from the start."""
    await bot.up()
    chat = next(chats)
    updates = [api.say(chat, text) for text in ("hi there", "one thing", "about cats")]
    api.repeat(updates[1])
    api.repeat(updates[1])
    assert await answers(bot, api, chat, 1) == ["I got 3 messages: hi there | one thing | about cats"]
    assert api.sent[-1].answers == api.message_of(updates[-1])
    assert api.actions[chat, None]
    for times in (4, 5):
        api.repeat(updates[1])
        await bot.until(lambda times=times: api.times[updates[1]] >= times, "the update once more")
    await nothing_more(bot, api, chat, 2)


async def test_a_topic_of_a_group_is_a_thread(bot: Host, api: BotApi) -> None:
    await bot.up()
    group = -1000 - next(chats)
    api.say(group, "ping", topic=7, who="Ann")
    api.say(group, "pong", topic=7, who="Bob")
    api.say(group, "else", topic=8)
    await answers(bot, api, group, 2)
    said = {call.topic: call.text for call in api.sent if call.chat == group}
    assert said == {7: "I got 2 messages: Ann: ping | Bob: pong", 8: "I got 1 messages: else"}
    assert api.actions[group, 7]


async def test_ten_photos_of_an_album_are_one_run_and_the_model_gets_them(bot: Host, api: BotApi) -> None:
    """Each photo is a message with a part by Telegram's file id and its album in metadata; the Run uploads them.

    The provider fails at the first try, and the Run that is repeated uploads nothing again.
    """
    await bot.up()
    chat = next(chats)
    bot.steps["my holidays"] = Step(status=500)
    names = [f"photo{n}" for n in range(10)]
    async with BatchQueue(f"embedded:{bot.data}", namespace="telegram_ptb", log=False) as queue:
        await queue.pause(chat)
        api.album(chat, "album-1", names, "my holidays")

        async def stored() -> bool:
            return len(await queue.pending(chat)) == 10

        await bot.until(stored, "ten photos in the queue")
        waiting = await queue.pending(chat)
        await queue.resume(chat)
    parts = [part for message in waiting for part in message.content if isinstance(part, Part) and part.type == "image"]
    assert [part.file_id for part in parts] == [f"{name}-large" for name in names]
    assert {message.metadata["media_group_id"] for message in waiting} == {"album-1"}
    images = " | ".join(["input_image"] * 10)
    assert await answers(bot, api, chat, 1) == [f"I got 11 messages: my holidays | {images}"]  # 11 parts of 10 messages
    assert bot.asked("my holidays") == 2
    given = [part for item in bot.model.requests[-1]["input"] for part in item["content"]]
    assert {part["file_id"][:5] for part in given if part["type"] == "input_image"} == {"file-"}  # the provider's
    assert [name for name in names if not any(f"{name}-large".encode() in sent for sent in bot.model.files)] == []
    assert len(bot.model.files) == 10


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
    assert all(later - earlier >= 1 for earlier, later in pairwise([*refused(api, slow), at[1]]))


async def test_who_blocked_the_bot_becomes_a_dead_letter(bot: Host, api: BotApi) -> None:
    await bot.up()
    chat = next(chats)
    api.blocked.add(chat)
    api.say(chat, "go away")
    await bot.until(lambda: refused(api, chat), "a refused sendMessage")
    api.blocked.remove(chat)
    api.say(chat, "come back")
    assert await answers(bot, api, chat, 1) == ["I got 1 messages: come back"]
    dead = [(letter.kind, letter.reason) for letter in await bot.dead() if letter.thread == str(chat)]
    assert dead == [("reply", "Forbidden")]


async def test_stop_ends_an_answer_within_a_second_and_drops_what_waits(bot: Host, api: BotApi) -> None:
    await bot.up()
    chat = next(chats)
    await stopped(bot, api, chat, Step(hold=asyncio.Event()))
    assert await answers(bot, api, chat, 2) == ["Stopped.", "I got 1 messages: and after that"]
    api.say(chat, "/stop")
    assert (await answers(bot, api, chat, 3))[-1] == "There is nothing to stop."


async def test_an_update_is_confirmed_only_when_its_message_is_stored(bot: Host, api: BotApi) -> None:
    """The handler of /stop cannot end while Telegram holds back its answer: no getUpdates goes out until it has."""
    await bot.up()
    chat = next(chats)
    api.say(chat, "make it known")
    await answers(bot, api, chat, 1)
    held = api.holds[chat] = Hold(stored=False)
    update = api.say(chat, "/stop")
    await bot.until(held.reached.is_set, "the answer of the handler")
    later = api.say(chat, "and finally")
    assert api.confirmed <= update
    assert not api.polling
    assert not api.handed(later)
    held.open.set()
    assert (await answers(bot, api, chat, 3))[1:] == ["There is nothing to stop.", "I got 1 messages: and finally"]
    assert api.confirmed > update


async def test_kill_9_in_a_run_and_before_a_send_ends_in_one_answer(bot: Host, api: BotApi) -> None:
    """I1, I4, I17: a cut Run and an unsent reply, each answered once after the restart."""
    await bot.up()
    running, unsent = next(chats), next(chats)
    never = asyncio.Event()
    bot.steps["running"] = Step(hold=never)
    before = api.holds[unsent] = Hold(stored=False)
    for chat, text in ((running, "running"), (unsent, "unsent")):
        api.say(chat, f"{text} 1")
        api.say(chat, f"{text} 2")
    await bot.until(lambda: bot.asked("running") == 1, "the Run")
    await bot.until(before.reached.is_set, "the reply on its way")
    await bot.kill()
    never.set()
    assert [api.texts(chat) for chat in (running, unsent)] == [[], []]
    for chat in (running, unsent):
        api.say(chat, "and finally")
    await bot.up()
    assert (await answers(bot, api, running, 2))[0] == "I got 2 messages: running 1 | running 2"
    assert (await answers(bot, api, unsent, 2))[0] == "I got 2 messages: unsent 1 | unsent 2"
    assert [len(api.texts(chat)) for chat in (running, unsent)] == [2, 2]
    assert [bot.asked(word) for word in ("running", "unsent")] == [2, 1]


async def test_sigterm_ends_a_bot_whose_handler_waits_for_a_silent_server(tmp_path: Path) -> None:
    """After drain_timeout, whatever the server does; the update was not confirmed, and comes to the next process."""
    source = (ROOT / EXAMPLE).read_text(encoding="utf-8")
    assert source.count("    dedup_window=86_400,") == 1
    hasty = tmp_path / "telegram_ptb.py"
    hasty.write_text(source.replace("    dedup_window=86_400,", "    drain_timeout=1, dedup_window=86_400,"))
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(serving())
        env = {"TELEGRAM_API": api.url, "TELEGRAM_TOKEN": TOKEN}
        bot = await stack.enter_async_context(hosting([str(hasty)], env, tmp_path / "d"))
        await (await bot.up()).expect("hears Telegram", deadline=PATIENCE)
        text = ("is anybody there " * 200).strip()
        async with holding(bot.data) as held:
            update = api.say(7, text)
            await held.stuck(len(text))
            status, said = await bot.stop()
        assert (status, api.confirmed <= update) == (0, True)
        assert "is anybody" not in said
        await bot.up()
        assert await answers(bot, api, 7, 1) == [f"I got 1 messages: {text}"]


async def test_a_bot_that_cannot_begin_to_poll_says_why_and_ends(tmp_path: Path) -> None:
    """The queue is closed again, and the bot with it: nothing hangs, and PTB's error is what one reads."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(serving())
        env = {"TELEGRAM_API": api.url, "TELEGRAM_TOKEN": TOKEN}
        bot = await stack.enter_async_context(hosting([EXAMPLE], env, tmp_path / "d"))
        api.broken["deletewebhook"] = Refusal(500, "Internal Server Error")
        child = await bot.up()
        assert await child.wait(deadline=PATIENCE) == 1
        assert child.errors[-1].startswith("telegram.error.NetworkError: Internal Server Error")
        assert not re.search("broken|Unclosed|never awaited|hears Telegram", "\n".join([*child.lines, *child.errors]))
        await bot.kill()
        del api.broken["deletewebhook"]
        await bot.up()
        api.say(7, "are you there")
        assert await answers(bot, api, 7, 1) == ["I got 1 messages: are you there"]


async def test_sigterm_delivers_what_is_running(bot: Host, api: BotApi) -> None:
    """Polling ends first, then the queue drains and still sends, then the bot closes: exit status 0, no warning."""
    await bot.up()
    chat = next(chats)
    bot.steps["last words"] = Step(hold=(hold := asyncio.Event()))
    api.say(chat, "last words")
    await bot.until(lambda: bot.asked("last words"), "the Run")
    stopping = asyncio.create_task(bot.stop())
    await bot.until(lambda: not api.polling, "the end of polling")
    hold.set()
    assert await answers(bot, api, chat, 1) == ["I got 1 messages: last words"]
    status, said = await stopping
    assert status == 0
    assert not re.search("deliveryfailed|Unclosed|Traceback|Deprecat|last words", said)


async def test_ctrl_c_twice_ends_it_at_once(bot: Host, api: BotApi) -> None:
    await bot.up()
    chat = next(chats)
    await ended_at_once(bot, lambda text: api.say(chat, text))
