"""examples/discord_bot.py as a real process: real discord.py, a fake Discord, a fake model, an embedded server.

"Exactly one" is shown by order, never by waiting: a thread's replies come in order, so after the answer to a later
message everything that could have come before it is there.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from streambatch import BatchQueue, OutcomeUnknown, ServerAway
from tests.bots.host import Host, ended_at_once, hosting
from tests.fakes.discord_api import TOKEN, DiscordApi, Hold, serving, user
from tests.fakes.responses_server import Step
from tests.rig.process import ROOT

channels = count(201)


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[DiscordApi]:
    async with serving() as fake:
        yield fake


@pytest.fixture(scope="module")
async def host(api: DiscordApi, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    env = {"DISCORD_API": api.url, "DISCORD_TOKEN": TOKEN}
    data: Path = tmp_path_factory.mktemp("discord")
    async with hosting(["tests/bots/discord_here.py", "examples/discord_bot.py"], env, data) as made:
        yield made


@pytest.fixture
async def bot(host: Host, api: DiscordApi) -> Host:
    """The bot, connected: what is said before is lost at Discord."""
    await host.up()
    await host.until(api.ready.is_set, "the bot at the gateway")
    return host


async def answers(bot: Host, api: DiscordApi, channel: int, n: int) -> list[str]:
    """Wait until the channel has n messages of the bot."""
    await bot.until(lambda: len(api.texts(channel)) >= n, f"{n} messages to channel {channel}")
    return api.texts(channel)


async def nothing_more(bot: Host, api: DiscordApi, channel: int, n: int) -> None:
    """A later message of the channel is answered, and that makes n messages of the bot."""
    await api.say(channel, "and finally")
    assert (await answers(bot, api, channel, n))[-1] == "I got 1 messages: and finally"
    assert len(api.texts(channel)) == n


async def test_a_burst_gets_one_answer_and_bots_get_none(bot: Host, api: DiscordApi) -> None:
    """I6: a message the gateway repeats is stored once; other bots, and the bot's own messages, are not answered."""
    channel = next(channels)
    await api.say(channel, "hi there")
    await api.say(channel, "beep", who="Robot", bot=True)
    await api.say(channel, "one thing", times=2)
    last = await api.say(channel, "about cats")
    assert await answers(bot, api, channel, 1) == ["I got 3 messages: hi there | one thing | about cats"]
    assert api.sent[-1].answers == last
    assert api.sent[-1].mentions["parse"] == []
    assert api.typing[channel]
    await nothing_more(bot, api, channel, 2)


async def test_each_channel_or_thread_of_a_guild_is_a_thread_and_authors_are_told_apart(
    bot: Host, api: DiscordApi
) -> None:
    """Discord gives a thread of a channel an id of its own; the model hears who said what."""
    channel, thread = next(channels), next(channels)
    await api.say(channel, "ping", who="Ann", guild=5)
    await api.say(thread, "else", who="Cid", guild=5)
    await api.say(channel, "pong", who="Bob", guild=5)
    assert await answers(bot, api, channel, 1) == ["I got 2 messages: Ann: ping | Bob: pong"]
    assert await answers(bot, api, thread, 1) == ["I got 1 messages: else"]


async def test_stop_ends_an_answer_within_a_second_and_drops_what_waits(bot: Host, api: DiscordApi) -> None:
    """Nothing of the stopped answer is delivered, and a later message is answered alone."""
    channel = next(channels)
    bot.steps["a long story"] = Step(hold=asyncio.Event())
    bot.model.cut.clear()
    await api.say(channel, "a long story")
    await bot.until(lambda: bot.asked("a long story"), "the Run")
    await api.say(channel, "no,")
    await api.say(channel, "a short one")
    async with BatchQueue(f"embedded:{bot.data}", namespace="discord", log=False) as queue:

        async def stored() -> bool:
            return len(await queue.pending(channel)) == 2

        await bot.until(stored, "the messages behind it, stored")
    assert not bot.model.cut.is_set()
    began = time.monotonic()
    await api.say(channel, "!stop")
    await bot.until(bot.model.cut.is_set, "the end of the stream")
    assert time.monotonic() - began < 1
    assert await answers(bot, api, channel, 1) == ["Stopped."]
    await nothing_more(bot, api, channel, 2)
    assert [bot.asked(word) for word in ("a long story", "a short one")] == [1, 0]


async def test_refusals_hold_up_only_their_channel(bot: Host, api: DiscordApi) -> None:
    """A short rate limit is waited for by discord.py; a long one parks its channel and uses up no attempt.

    Forbidden is final: one try, one dead letter, and the thread goes on.
    """
    short, long, closed = (next(channels) for _ in range(3))
    api.limits = {short: [0.1], long: [3600.0]}
    api.forbidden.add(closed)
    for channel in (long, closed, short):
        await api.say(channel, "hello")
    assert await answers(bot, api, short, 1) == ["I got 1 messages: hello"]
    failed = await (await bot.up()).expect(rf"deliveryfailed.*thread={long}\b")
    assert "attempt=0 " in failed.string
    assert "delay=3600.0" in failed.string
    await bot.until(lambda: any(call.channel == closed for call, _ in api.refused), "a refused message")
    api.forbidden.remove(closed)
    await nothing_more(bot, api, closed, 1)
    dead = [(letter.kind, letter.reason) for letter in await bot.dead() if letter.thread == str(closed)]
    assert dead == [("reply", "Forbidden")]
    assert api.texts(long) == []


async def test_kill_9_in_a_run_and_in_a_send(bot: Host, api: DiscordApi) -> None:
    """A Run that was cut is answered once, and so is a reply that Discord had but had not confirmed: the nonce."""
    running, unconfirmed = next(channels), next(channels)
    never = asyncio.Event()
    bot.steps |= {"running": Step(hold=never), "unconfirmed": Step(text="a" * 2000 + "b" * 500)}
    within = api.holds[unconfirmed] = Hold(stored=True)
    await api.say(running, "running 1")
    await api.say(running, "running 2")
    await api.say(unconfirmed, "unconfirmed")
    await bot.until(within.reached.is_set, "a message that is stored")
    await bot.until(lambda: bot.asked("running") == 1, "a Run")
    await bot.kill()
    never.set()
    assert (api.texts(running), api.texts(unconfirmed)) == ([], ["a" * 2000])

    await bot.up()
    assert await answers(bot, api, running, 1) == ["I got 2 messages: running 1 | running 2"]
    assert await answers(bot, api, unconfirmed, 2) == ["a" * 2000, "b" * 500]
    await bot.until(api.ready.is_set, "the bot at the gateway")
    await asyncio.gather(nothing_more(bot, api, unconfirmed, 3), nothing_more(bot, api, running, 2))
    assert (bot.asked("running"), bot.asked("unconfirmed")) == (2, 1)


async def test_ctrl_c_delivers_what_is_running(bot: Host, api: DiscordApi) -> None:
    """The queue is closed before the client, so an answer under way still reaches its channel."""
    await bot.kill()  # what earlier tests left to do, such as a send that waits for its limit, is another test's
    api.ready.clear()
    await bot.up()
    await bot.until(api.ready.is_set, "the bot at the gateway")
    channel = next(channels)
    hold = asyncio.Event()
    bot.steps["last words"] = Step(hold=hold)
    await api.say(channel, "last words")
    await bot.until(lambda: bot.asked("last words"), "the Run")
    stopping = asyncio.create_task(bot.stop(signal.SIGINT))
    hold.set()
    status, said = await stopping
    assert api.texts(channel) == ["I got 1 messages: last words"]
    assert status == 0
    assert not re.search("deliveryfailed|Unclosed|Traceback|last words", said)


async def test_ctrl_c_twice_ends_it_at_once(bot: Host, api: DiscordApi) -> None:
    channel = next(channels)
    await ended_at_once(bot, lambda text: api.say(channel, text))


@pytest.mark.filterwarnings("ignore:'audioop' is deprecated:DeprecationWarning")  # discord.py's voice support
async def test_a_message_is_not_given_up_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler submits again, with the same message id, until it is stored or refused for good."""
    import discord

    monkeypatch.setenv("DISCORD_TOKEN", "-")
    spec = spec_from_file_location("discord_bot", ROOT / "examples/discord_bot.py")
    assert spec is not None
    assert spec.loader is not None
    example: Any = module_from_spec(spec)
    spec.loader.exec_module(example)
    outcomes: list[Exception | None] = [ServerAway(), OutcomeUnknown(message_id="1"), None]
    given: list[tuple[object, object]] = []

    async def submit(thread: int, text: str, *, message_id: int, **_: object) -> None:
        given.append((thread, message_id))
        if (error := outcomes.pop(0)) is not None:
            raise error

    monkeypatch.setattr(example.queue, "submit", submit)
    monkeypatch.setattr("streambatch.integrations._patience.PAUSE", 0)
    state = example.client._connection
    payload: Any = DiscordApi().payload(7, "hi", user("Ann"))
    await example.on_message(
        discord.Message(state=state, channel=example.client.get_partial_messageable(7), data=payload)
    )
    assert given == [(7, int(payload["id"]))] * 3
