"""examples/slack_bot.py as a real process: real Slack Bolt, a fake Slack, a fake model, an embedded server.

"Exactly one" is shown by order, never by waiting: a thread's replies come in order, so after the answer to a later
message everything that could have come before it is there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from streambatch import BatchQueue
from tests.bots.held import holding
from tests.bots.host import Host, ended_at_once, hosting
from tests.embedded.tools import using
from tests.fakes.responses_server import Step
from tests.fakes.slack_api import APP_TOKEN, BOT, BOT_TOKEN, TRIES, Hold, SlackApi, serving

numbers = count(301)


def direct() -> str:
    """A direct message channel that no other test has."""
    return f"D{next(numbers)}"


def channel() -> str:
    """A channel that no other test has."""
    return f"C{next(numbers)}"


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[SlackApi]:
    async with serving(patience=1) as fake:
        yield fake


@pytest.fixture(scope="module")
async def host(api: SlackApi, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    env = {"SLACK_API": f"{api.url}/api/", "SLACK_APP_TOKEN": APP_TOKEN, "SLACK_TOKEN": BOT_TOKEN}
    data: Path = tmp_path_factory.mktemp("slack")
    async with hosting(["examples/slack_bot.py"], env, data) as made:
        yield made


@pytest.fixture
async def bot(host: Host, api: SlackApi) -> Host:
    """The bot, connected."""
    await host.up()
    await host.until(api.connected.is_set, "the bot at the WebSocket")
    return host


async def answers(bot: Host, api: SlackApi, place: str, n: int, thread_ts: str | None = None) -> list[str]:
    """Wait until the channel, or its thread, has n messages of the bot."""
    await bot.until(lambda: len(api.texts(place, thread_ts)) >= n, f"{n} messages to {place}")
    return api.texts(place, thread_ts)


async def nothing_more(bot: Host, api: SlackApi, place: str, n: int) -> None:
    """A later direct message is answered, and that makes n messages of the bot."""
    api.say(place, "and finally")
    assert (await answers(bot, api, place, n))[-1] == "I got 1 messages: and finally"
    assert len(api.texts(place)) == n


async def test_a_burst_of_three_with_one_event_sent_five_times_more_gets_one_answer(bot: Host, api: SlackApi) -> None:
    """I6: what Slack sends again is stored once, within the burst and after its answer; each copy is acknowledged.

    Of an event that a busy machine acknowledges late Slack sends a copy more, here and in the tests below.
    """
    place = direct()
    events = [api.say(place, text) for text in ("hi there", "one <thing> & more", "about cats")]
    for _ in range(5):
        api.repeat(events[1])
    assert await answers(bot, api, place, 1) == ["I got 3 messages: hi there | one <thing> & more | about cats"]
    for _ in range(5):
        api.repeat(events[2])
    await nothing_more(bot, api, place, 2)
    least = (1, 6, 6)
    await bot.until(lambda: all(e.acked >= n for e, n in zip(events, least, strict=True)), "all acknowledgements")


async def test_a_mention_opens_a_thread_and_threads_are_apart(bot: Host, api: SlackApi) -> None:
    """The thread is channel:thread_ts: an answer goes there, with a status meanwhile; who said what is told apart."""
    place = channel()
    first = api.say(place, "ping", who="U0ANN")
    other = api.say(place, "else")
    api.say(place, "pong", who="U0BOB", thread_ts=first.ts)
    assert await answers(bot, api, place, 1, first.ts) == ["I got 2 messages: U0ANN: ping | U0BOB: pong"]
    assert await answers(bot, api, place, 1, other.ts) == ["I got 1 messages: else"]
    assert api.status[place, first.ts] == ["is thinking…", ""]


async def test_edits_deletions_and_talk_that_is_not_for_the_bot_are_acknowledged_and_not_answered(
    bot: Host, api: SlackApi
) -> None:
    """A message event without a text of its own, one of a channel, and the bot's own message back to it."""
    place = direct()
    edit = {"type": "message", "subtype": "message_changed", "channel": place, "channel_type": "im", "ts": "1.1"}
    shown = {"type": "message", "user": "U0ANN", "text": "edited", "ts": "1.0"}
    ignored = [api.happen(edit | {"message": shown, "previous_message": shown})]
    ignored.append(api.say(place, "not for you", channel_type="channel"))
    ignored.append(api.say(place, "mine", who=BOT, bot_id="B0BOT"))
    await nothing_more(bot, api, place, 1)
    await bot.until(lambda: all(event.acked for event in ignored), "the acknowledgements")


async def test_a_rate_limit_delays_only_its_channel(bot: Host, api: SlackApi) -> None:
    """429: the other channel is answered meanwhile, the limit is kept to, and then the whole answer comes, once."""
    slow, quick = direct(), direct()
    api.limits[slow] = 1
    bot.steps["novel"] = Step(text="a" * 11_000 + "\n\n" + "b" * 11_000)
    api.say(slow, "a novel please")
    await bot.until(lambda: len(refused(api, slow)) >= 1, "a refused message")
    api.say(quick, "only a word")
    assert await answers(bot, api, quick, 1) == ["I got 1 messages: only a word"]
    assert api.texts(slow) == []
    failed = await (await bot.up()).expect(rf"deliveryfailed.*thread={slow}\b")
    assert "attempt=0" in failed.string
    del api.limits[slow]
    assert await answers(bot, api, slow, 2) == ["a" * 11_000, "b" * 11_000]
    at = [*refused(api, slow), next(call.at for call in api.sent if call.channel == slow)]
    assert all(later - earlier >= 1 for earlier, later in pairwise(at))
    await nothing_more(bot, api, slow, 3)


def refused(api: SlackApi, place: str) -> list[float]:
    """When messages to the channel were refused."""
    return [call.at for call, _ in api.refused if call.channel == place]


async def test_a_channel_that_is_gone_becomes_a_dead_letter_and_blocks_nothing(bot: Host, api: SlackApi) -> None:
    """One try, one dead letter, and the thread goes on."""
    place = direct()
    api.gone.add(place)
    api.say(place, "anybody?")
    await bot.until(lambda: refused(api, place), "a refused message")
    api.gone.remove(place)
    await nothing_more(bot, api, place, 1)
    async with BatchQueue(f"embedded:{bot.data}", namespace="slack", log=False) as queue:
        dead = [letter for letter in await queue.dead_letters() if letter.thread == place]
    assert [(letter.kind, letter.reason) for letter in dead] == [("reply", "channel_not_found")]
    assert len(refused(api, place)) == 1


async def test_an_answer_rings_nobodys_bell(bot: Host, api: SlackApi) -> None:
    """What calls a whole channel is made harmless; other markup stays."""
    place = direct()
    bot.steps["wake up"] = Step(text="<!channel> <!here|x> <!DOCTYPE html>")
    api.say(place, "wake up everybody")
    assert await answers(bot, api, place, 1) == ["&lt;!channel> &lt;!here|x> <!DOCTYPE html>"]


async def test_stop_during_a_streamed_answer_ends_it_within_a_second_and_drops_the_backlog(
    bot: Host, api: SlackApi
) -> None:
    """The model's stream is cut, what waits is never asked, the status ends, and the thread goes on."""
    place = channel()
    first = api.say(place, "tell me everything")
    bot.steps["everything"] = Step(hold=asyncio.Event())
    await bot.until(lambda: bot.asked("everything"), "the streamed answer")
    backlog = [api.say(place, f"behind it {n}", thread_ts=first.ts) for n in range(3)]
    await bot.until(lambda: all(event.acked for event in backlog), "the backlog")
    bot.model.cut.clear()
    began = time.monotonic()
    api.say(place, "stop", thread_ts=first.ts)
    await bot.until(bot.model.cut.is_set, "the end of the model's stream")
    took = time.monotonic() - began
    assert took < 1, f"{took:.2f} s"
    api.say(place, "and finally", thread_ts=first.ts)
    assert await answers(bot, api, place, 1) == ["I got 1 messages: and finally"]
    assert api.status[place, first.ts][:2] == ["is thinking…", ""]
    assert bot.asked("behind it") == 0


async def test_stop_before_a_run_exists_drops_the_burst_and_ends_the_status(bot: Host, api: SlackApi) -> None:
    """Before a Run no Run ends, so no event ends the status: the bot does, at the platform too.

    The pause is a quiet window that lasts until the test is through with it.
    """
    place = channel()
    async with BatchQueue(f"embedded:{bot.data}", namespace="slack", log=False) as queue:
        await queue.pause()
        try:
            first = api.say(place, "never mind")
            await bot.until(lambda: api.status.get((place, first.ts)) == ["is thinking…"], "the status")
            api.say(place, "/stop", thread_ts=first.ts)
            await bot.until(lambda: api.status[place, first.ts] == ["is thinking…", ""], "the end of the status")
        finally:
            await queue.resume()
    api.say(place, "and finally", thread_ts=first.ts)
    assert await answers(bot, api, place, 1, first.ts) == ["I got 1 messages: and finally"]
    assert bot.asked("never mind") == 0


async def test_a_direct_message_that_names_no_user_is_answered(bot: Host, api: SlackApi) -> None:
    """As those of workflows and integrations are."""
    place = direct()
    event = {"type": "message", "channel": place, "channel_type": "im", "text": "from a workflow", "ts": "7.7"}
    happened = api.happen(event | {"subtype": "bot_message", "bot_id": "B0FLOW"})
    assert await answers(bot, api, place, 1) == ["I got 1 messages: from a workflow"]
    await bot.until(lambda: happened.acked, "the acknowledgement")


async def test_the_first_event_survives_a_slack_that_cannot_say_who_the_bot_is(bot: Host, api: SlackApi) -> None:
    """Bolt's own way to authorize asks at the first event, and acknowledges what it drops when that fails."""
    await bot.kill()
    await bot.until(lambda: not api.connected.is_set(), "the end of the WebSocket")
    await bot.up()
    await bot.until(api.connected.is_set, "the bot at the WebSocket")
    api.down.add("auth.test")
    await nothing_more(bot, api, direct(), 1)
    api.down.clear()


async def test_an_event_that_comes_while_slack_renews_the_connection_is_answered(bot: Host, api: SlackApi) -> None:
    """The old WebSocket gets no acknowledgement for it any more, or the new one gets the event."""
    place = direct()
    opened = api.calls["apps.connections.open"]
    await api.disconnect()
    api.say(place, "in between")
    await bot.until(lambda: api.calls["apps.connections.open"] > opened, "a new connection")
    assert await answers(bot, api, place, 1) == ["I got 1 messages: in between"]
    await nothing_more(bot, api, place, 2)


async def test_an_event_waits_while_the_server_is_full_though_slack_sends_no_more_copies(
    bot: Host, api: SlackApi
) -> None:
    """At maxmemory every copy is refused at once, and after the last one Slack never sends it again."""
    place, child = direct(), await bot.up()
    async with using(f"embedded:{bot.data}") as server, Redis(unix_socket_path=server.socket) as client:
        redis: Any = client
        await redis.config_set("maxmemory", "1")
        event = api.say(place, "is anybody there")
        waits = "a message waits until it can be stored: the server is at its maxmemory"
        await bot.until(lambda: sum(waits in line for line in child.errors) == TRIES, "the wait of each copy")
        assert (event.tries, event.acked) == (TRIES, 0)
        await redis.config_set("maxmemory", "0")
    assert await answers(bot, api, place, 1) == ["I got 1 messages: is anybody there"]
    await bot.until(lambda: event.acked == TRIES, "their acknowledgements")
    await nothing_more(bot, api, place, 2)


async def test_kill_9_in_a_run_before_a_send_in_a_send_and_before_a_message_is_stored(bot: Host, api: SlackApi) -> None:
    """One kill, four chats: a cut Run, an unsent reply and an unstored message each end in one answer (I1, I4, I17).

    A message that Slack has, but whose confirmation the bot never saw, comes twice: nobody can know better. What was
    not stored was not acknowledged, though Slack sent it again; so it comes once more.
    """
    running, unsent, unconfirmed, unstored = (direct() for _ in range(4))
    never = asyncio.Event()
    bot.steps["running"] = Step(hold=never)
    before, within = api.holds[unsent], api.holds[unconfirmed] = Hold(stored=False), Hold(stored=True)
    for place, text in ((running, "running"), (unsent, "unsent"), (unconfirmed, "unconfirmed")):
        api.say(place, f"{text} 1")
        api.say(place, f"{text} 2")
    for moment in (lambda: bot.asked("running") == 1, before.reached.is_set, within.reached.is_set):
        await bot.until(moment, "the moment to kill")
    early = ("too early " * 300).strip()
    async with holding(bot.data) as held:
        event = api.say(unstored, early)
        await held.stuck(len(early))
        await bot.until(lambda: event.tries >= 2, "the event that comes again")
    await bot.kill()
    never.set()
    assert event.acked == 0
    assert [len(api.texts(place)) for place in (running, unsent, unconfirmed, unstored)] == [0, 0, 1, 0]

    for place in (running, unsent, unconfirmed, unstored):
        api.say(place, "and finally")
    await bot.up()
    assert (await answers(bot, api, running, 2))[0] == "I got 2 messages: running 1 | running 2"
    assert (await answers(bot, api, unsent, 2))[0] == "I got 2 messages: unsent 1 | unsent 2"
    assert (await answers(bot, api, unconfirmed, 3))[:2] == ["I got 2 messages: unconfirmed 1 | unconfirmed 2"] * 2
    assert (await answers(bot, api, unstored, 1))[0] == f"I got 2 messages: {early} | and finally"
    assert [len(api.texts(place)) for place in (running, unsent, unconfirmed, unstored)] == [2, 2, 3, 1]
    assert [bot.asked(word) for word in ("running", "unsent", "unconfirmed", "too early")] == [2, 1, 1, 1]


async def test_sigterm_delivers_what_is_running_and_disturbs_no_send(bot: Host, api: SlackApi) -> None:
    """The WebSocket closes first, then the queue finishes what is running and still sends it: exit status 0."""
    running, sending = direct(), direct()
    bot.steps["last words"] = Step(hold=(hold := asyncio.Event()))
    within = api.holds[sending] = Hold(stored=True)
    api.say(running, "last words")
    api.say(sending, "almost there")
    await bot.until(lambda: bot.asked("last words"), "the Run")
    await bot.until(within.reached.is_set, "a message that is stored")
    stopping = asyncio.create_task(bot.stop())
    await bot.until(lambda: not api.connected.is_set(), "the end of the WebSocket")
    hold.set()
    assert await answers(bot, api, running, 1) == ["I got 1 messages: last words"]
    within.open.set()
    status, said = await stopping
    assert api.texts(sending) == ["I got 1 messages: almost there"]
    assert status == 0
    assert not re.search("deliveryfailed|Unclosed|Traceback|last words|almost", said)


async def test_ctrl_c_twice_ends_it_at_once(bot: Host, api: SlackApi) -> None:
    place = direct()
    await ended_at_once(bot, lambda text: api.say(place, text))
