"""state="auto" against Microsoft's Responses host: it ends as a chain, and every crash leaves each user turn once.

Theory of operation. See tests/runners/test_chain.py, which plays the same cases (C…) with a fake: what is different
here is that nobody of this project decided how the server behaves. POSTs are counted on the wire, responses and user
turns by the handler that the server calls (echo_agent.py).
"""

from __future__ import annotations

import asyncio

import pytest

from streambatch import Retry
from streambatch.runners import _asking as asking
from tests.peers.peer import Peer
from tests.peers.wire import End, Wire
from tests.rig import wait_for
from tests.runners.tools import Talk


def users(peer: Peer, talk: Talk) -> list[str]:
    """The user turns in the history that the head names."""
    return peer.users(talk.state["head"])


def shown(talk: Talk) -> str:
    return "".join(map(str, talk.run.shown))


async def test_a_burst_is_one_response_and_the_next_continues_it(peer: Peer, wire: Wire, talk: Talk) -> None:
    first = await talk.say("a", "b")
    head = talk.state["head"]
    second = await talk.say("c")
    assert (first.text, second.text) == ("I got 2 messages: a | b", "I got 1 messages: c")
    assert (talk.kind, len(talk.history), wire.posts) == ("responses-chain", 2, 2)
    assert peer.responses == [head, talk.state["head"]]
    assert users(peer, talk) == ["a", "b", "c"]
    assert first.usage is not None
    assert first.usage["input_tokens"] == 2
    assert shown(talk) == second.text
    assert len(wire.asked("GET")) == 1  # once: does it keep responses at all?


async def test_c01_a_crash_between_the_post_and_its_id_posts_again_from_the_same_head(
    peer: Peer, wire: Wire, talk: Talk
) -> None:
    await talk.say("a")
    wire.cut(b"", "hang")
    await talk.crash("b", when=lambda: peer.called(2))
    answer = await talk.again()
    assert (answer.text, wire.posts, len(peer.responses)) == ("I got 1 messages: b", 3, 3)
    assert users(peer, talk) == ["a", "b"]
    await talk.say("c")
    assert users(peer, talk) == ["a", "b", "c"]


async def test_c02_a_crash_after_the_id_follows_the_same_response(peer: Peer, wire: Wire, talk: Talk) -> None:
    await talk.crash("gate g", when=lambda: talk.run.has(b'"id"'))
    peer.open("g")
    answer = await talk.again()
    assert (answer.text, wire.posts, len(peer.responses)) == ("I got 1 messages: gate g", 1, 1)
    assert talk.state["head"] == peer.responses[0]
    assert shown(talk) == answer.text
    assert users(peer, talk) == ["gate g"]


async def test_c02_what_was_shown_before_the_crash_is_shown_again_once(
    peer: Peer, wire: Wire, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SAVE_EVERY", 0.0)
    await talk.crash("gate g", when=lambda: talk.run.has(b'"said":"I got'))
    peer.open("g")
    answer = await talk.again()
    assert shown(talk) == answer.text == "I got 1 messages: gate g"
    (resumed,) = wire.asked("GET .*stream=true")
    assert "starting_after=4" in resumed
    assert wire.posts == 1


async def test_c02_a_response_that_ended_while_nobody_worked_is_taken(peer: Peer, wire: Wire, talk: Talk) -> None:
    await talk.crash("gate g", when=lambda: talk.run.has(b'"id"'))
    peer.open("g")
    await peer.completed(peer.responses[0])
    assert (await talk.again()).text == "I got 1 messages: gate g"
    assert (wire.posts, len(peer.seen)) == (1, 1)


async def test_c02_the_server_is_killed_too_and_the_same_response_is_completed_once(
    peer: Peer, wire: Wire, talk: Talk
) -> None:
    await talk.say("a")
    await talk.crash("gate g", when=lambda: talk.run.has(b'"id"'))
    await peer.kill9()
    with pytest.raises(Retry):
        await talk.again()  # nobody is there
    await peer.start()
    peer.open("g")
    answer = await talk.again()
    assert answer.text == "I got 1 messages: gate g"
    assert (wire.posts, len(peer.responses)) == (2, 2)
    assert [call.again for call in peer.seen] == [False, False, True]
    assert talk.state["head"] == peer.responses[1]
    await talk.say("b")
    assert users(peer, talk) == ["a", "gate g", "b"]


async def test_the_server_is_killed_in_the_middle_of_a_run_and_the_run_goes_on(
    peer: Peer, wire: Wire, talk: Talk
) -> None:
    await talk.say("a")
    talk.next("gate g")
    going = asyncio.ensure_future(talk.again())
    await wait_for(lambda: b'"id"' in (talk.run.data or b""), "the id saved")
    await peer.kill9()
    await peer.start()
    peer.open("g")
    assert (await going).text == "I got 1 messages: gate g"
    assert (wire.posts, len(peer.responses)) == (2, 2)
    assert users(peer, talk) == ["a", "gate g"]


async def test_c09_a_lost_answer_is_unknown_and_asked_again_from_the_same_head(
    peer: Peer, wire: Wire, talk: Talk
) -> None:
    await talk.say("a")
    wire.cut(b"", "close")
    talk.next("b")
    with pytest.raises(Retry) as caught:
        await talk.again()
    assert caught.value.count
    await talk.again()
    assert users(peer, talk) == ["a", "b"]
    assert wire.posts == 3


@pytest.mark.parametrize("how", ["close", "end", "hang"])
@pytest.mark.parametrize("where", [b"response.created", b"response.output_text.delta", b"response.output_text.done"])
async def test_c10_a_stream_that_breaks_is_followed_by_id(
    peer: Peer, wire: Wire, talk: Talk, where: bytes, how: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "IDLE", 0.5)
    wire.cut(where, how)
    answer = await talk.say("a", "b")
    assert (answer.text, wire.posts, len(peer.responses)) == ("I got 2 messages: a | b", 1, 1)
    assert shown(talk) == answer.text
    assert users(peer, talk) == ["a", "b"]


@pytest.mark.parametrize("how", ["fails", "raises"])
async def test_c10_a_response_that_failed_is_not_an_answer(peer: Peer, wire: Wire, talk: Talk, how: str) -> None:
    await talk.say("a")
    talk.next(f"{how} g")
    with pytest.raises(Retry) as caught:
        await talk.again()
    assert caught.value.count
    assert b'"id"' not in (talk.run.data or b"")
    peer.open("g")
    assert (await talk.again()).text == f"I got 1 messages: {how} g"
    assert (wire.posts, users(peer, talk)) == (3, ["a", f"{how} g"])


async def test_c10_a_response_that_somebody_else_cancelled_is_not_an_answer(peer: Peer, wire: Wire, talk: Talk) -> None:
    talk.next("gate g")
    going = asyncio.ensure_future(talk.again())
    await peer.called(1)
    await wait_for(lambda: b'"id"' in (talk.run.data or b""), "the id saved")
    await peer.cancel(peer.responses[0])
    with pytest.raises(Retry):
        await going
    peer.open("g")
    assert (await talk.again()).text == "I got 1 messages: gate g"
    assert users(peer, talk) == ["gate g"]
