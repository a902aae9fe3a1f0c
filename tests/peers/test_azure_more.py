"""The cases of tests/runners/test_chain.py that are no crashes, against Microsoft's Responses host; and its lock.

Theory of operation. See test_azure_chain.py. What this server has not, and so cannot be played: limits and keys
(C14, C15), a look at a head whose calls nobody answered (C5), a longest chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import openai
import pytest

from streambatch import Park, Retry
from streambatch.runners import ResponsesRunner
from streambatch.runners import _asking as asking
from streambatch.runners._errors import problem_of
from tests.peers.peer import Peer
from tests.peers.wire import Wire
from tests.rig import wait_for
from tests.runners.tools import Talk

Begin = Callable[..., Talk]


@pytest.fixture
async def begin(wire: Wire) -> AsyncIterator[Begin]:
    """Threads, each with a runner of its own: `begin(state="chain")`."""
    async with AsyncExitStack() as stack:

        def made(**options: object) -> Talk:
            runner = ResponsesRunner(model="m", **options)  # type: ignore[arg-type] # what a test gives it is checked there
            stack.push_async_callback(runner.aclose)
            return Talk(runner)

        yield made


def users(peer: Peer, talk: Talk) -> list[str]:
    """The user turns in the history that the head names."""
    return peer.users(talk.state["head"])


@pytest.mark.parametrize("how", ["stuck", "deaf", "frozen"])
async def test_c11_a_stuck_response_is_cancelled_at_its_deadline(
    peer: Peer, wire: Wire, begin: Begin, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LEAST", 2.0)
    talk = begin(deadline=2)
    await talk.say("a")
    before = len(wire.asked("POST .*/cancel"))  # a busy machine may need the deadline for the first one too
    talk.next("gate g" if how == "frozen" else how)
    going = asyncio.ensure_future(talk.again())
    await wait_for(lambda: b'"id"' in (talk.run.data or b""), "the id saved")
    if how == "frozen":
        peer.freeze()
    with pytest.raises(Retry, match="nothing within 2 s") as caught:
        await going
    peer.thaw()
    assert caught.value.count
    assert len(wire.asked("POST .*/cancel")) == before + 1
    assert b'"id"' not in (talk.run.data or b"")
    if how != "frozen":
        assert await peer.status(peer.responses[1]) == "cancelled"
    await talk.say("b")
    assert users(peer, talk) == ["a", "b"]


async def test_c11_an_answer_at_the_last_moment_is_taken(
    peer: Peer, wire: Wire, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LEAST", 2.0)
    wire.cut(b"response.created", "hang")
    assert (await begin(deadline=2).say("a")).text == "I got 1 messages: a"
    assert (wire.posts, len(wire.asked("POST .*/cancel"))) == (1, 1)


async def test_c13_a_response_that_was_deleted_is_asked_for_again(peer: Peer, wire: Wire, talk: Talk) -> None:
    await talk.say("a")
    await talk.crash("gate g", when=lambda: talk.run.has(b'"id"'))
    peer.open("g")
    lost = peer.responses[1]
    await peer.completed(lost)
    await peer.delete(lost)
    assert await peer.status(lost) == "gone"
    assert (await talk.again()).text == "I got 1 messages: gate g"
    assert (wire.posts, users(peer, talk)) == (3, ["a", "gate g"])


async def test_c05_c06_c20_tools_run_once_and_their_calls_are_answered_together(
    peer: Peer, wire: Wire, begin: Begin
) -> None:
    ran: list[str] = []
    gate, begun = asyncio.Event(), asyncio.Event()

    async def look(what: str) -> str:
        """Look something up."""
        ran.append(what)
        if what == "slow":
            begun.set()
            await gate.wait()
        return f"saw {what}"

    talk = begin(tools=[look])

    async def half() -> None:
        await begun.wait()
        await talk.run.has(b"saw quick")

    await talk.crash("call quick slow", when=half)
    gate.set()
    answer = await talk.again()
    assert ran == ["quick", "slow"]  # the one with a result is not run again, the other one is told as interrupted
    assert (answer.text, wire.posts) == ("done", 2)
    assert users(peer, talk) == ["call quick slow"]
    outputs = await peer.items(peer.responses[1], "function_call_output")
    assert [item["call_id"] for item in outputs] == ["call_quick", "call_slow"]
    assert "saw quick" in outputs[0]["output"]
    assert "interrupted" in outputs[1]["output"]
    await talk.say("b")
    assert users(peer, talk) == ["call quick slow", "b"]


async def test_c02_a_step_after_tools_is_followed_when_the_server_is_killed(
    peer: Peer, wire: Wire, begin: Begin
) -> None:
    async def look(what: str) -> str:
        """Look something up."""
        return f"saw {what}"

    talk = begin(tools=[look])
    peer.open("slow-steps")
    talk.next("call x y")
    going = asyncio.ensure_future(talk.again())
    await peer.called(2)
    await wait_for(lambda: peer.responses[1].encode() in (talk.run.data or b""), "the second id saved")
    await peer.kill9()
    peer.close("slow-steps")
    await peer.start()
    assert (await going).text == "done"
    assert (wire.posts, len(peer.responses)) == (2, 2)
    assert talk.state["head"] == peer.responses[1]


async def test_c21_a_head_that_was_deleted_begins_a_new_chain_with_the_local_turns(
    peer: Peer, wire: Wire, talk: Talk
) -> None:
    await talk.say("a", "b")
    await peer.delete(talk.state["head"])
    assert (await talk.say("c")).text == "I got 3 messages: a | b | c"
    assert users(peer, talk) == ["a", "b", "c"]
    await talk.say("d")
    assert users(peer, talk) == ["a", "b", "c", "d"]
    assert wire.posts == 4


async def test_c21_a_head_of_another_server_begins_a_new_chain_with_the_local_turns(
    peer: Peer, wire: Wire, talk: Talk
) -> None:
    await talk.say("a", "b")
    talk.state = {**talk.state, "head": "resp_0123456789abcdef"}  # as if the base URL had been changed
    assert (await talk.say("c")).text == "I got 3 messages: a | b | c"
    assert users(peer, talk) == ["a", "b", "c"]
    await talk.say("d")
    assert users(peer, talk) == ["a", "b", "c", "d"]


async def test_c13_a_response_of_another_server_is_asked_for_again(peer: Peer, wire: Wire, talk: Talk) -> None:
    await talk.crash("gate g", when=lambda: talk.run.has(b'"id"'))
    assert talk.run.data is not None
    talk.run.data = talk.run.data.replace(peer.responses[0].encode(), b"resp_0123456789abcdef")
    peer.open("g")
    assert (await talk.again()).text == "I got 1 messages: gate g"
    assert wire.posts == 2


async def test_c24_a_cancelled_run_is_ended_at_the_provider_and_a_finished_one_is_as_good(
    peer: Peer, wire: Wire, talk: Talk
) -> None:
    await talk.say("a")
    await talk.crash("gate g", when=lambda: talk.run.has(b'"id"'))
    await talk.cancel(keep=False)
    assert await peer.status(peer.responses[1]) == "cancelled"
    await talk.cancel(keep=False)  # by the next claimer, for example
    await talk.crash("gate h", when=lambda: talk.run.has(b'"id"'))
    peer.open("h")
    await peer.completed(peer.responses[2])
    await talk.cancel(keep=False)  # the server refuses with 400: it is completed
    assert len(wire.asked("POST .*/cancel")) == 3
    await talk.say("c")
    assert users(peer, talk) == ["a", "c"]


async def test_what_a_cancelled_run_had_said_is_in_the_history_if_it_is_kept(
    peer: Peer, wire: Wire, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SAVE_EVERY", 0.0)
    await talk.say("a")
    await talk.crash("gate g", when=lambda: talk.run.has(b'"said":"I got'))
    kept = await talk.cancel(keep=True)
    assert (kept.text, kept.kind) == ("I got 1 mess", "responses-chain")
    await talk.say("c")
    assert users(peer, talk) == ["a", "gate g", "c"]
    told = [item["content"][0]["text"] for item in await peer.items(talk.state["head"], "message")]
    assert told == ["a", "I got 1 messages: a", "gate g", "I got 1 mess", "c"]


async def test_c28_a_commit_that_redis_lost_is_made_again_without_a_second_copy(
    peer: Peer, wire: Wire, talk: Talk
) -> None:
    await talk.say("a")
    before = (talk.history, talk.state, talk.kind)
    await talk.say("b")
    talk.history, talk.state, talk.kind = before  # the last second is gone, the checkpoint too
    await talk.say("b")
    assert users(peer, talk) == ["a", "b"]


async def test_incomplete_is_an_answer_with_a_flag(peer: Peer, wire: Wire, talk: Talk) -> None:
    answer = await talk.say("cut")
    assert (answer.text, answer.flags) == ("I got 1 messages: cut", ("incomplete", "max_output_tokens"))
    await talk.say("b")
    assert users(peer, talk) == ["cut", "b"]


async def test_c15_an_option_that_the_server_refuses_is_named_and_kills_no_message(wire: Wire, begin: Begin) -> None:
    talk = begin(metadata={f"key{n}": "x" for n in range(14)})  # with ours it is one more than it takes
    with pytest.raises(Park, match="invalid_request, parameter metadata"):
        await talk.say("a", "b")
    assert b"sent" not in (talk.run.data or b"")


async def test_c03_the_lock_of_a_conversation_is_busy_and_uses_no_attempt(peer: Peer, wire: Wire, begin: Begin) -> None:
    """The parameter is given past the runner: two threads share a conversation, which a lock of the server guards."""
    one, other = (begin(extra_body={"conversation": {"id": "c"}}) for _ in range(2))
    one.next("gate g")
    going = asyncio.ensure_future(one.again())
    await peer.called(1)
    other.next("b")
    with pytest.raises(Retry):  # a stream is refused in silence: nobody knows
        await other.again()
    for _ in range(8):  # longer than any limit of attempts
        with pytest.raises(Retry, match="conversation_locked") as caught:
            await other.again()
        assert not caught.value.count
        assert caught.value.after is not None
    assert len(peer.seen) == 1
    peer.open("g")
    await going
    assert (await other.again()).text == "I got 1 messages: b"
    assert peer.users(other.state["head"]) == ["gate g", "b"]


async def test_c03_the_lock_as_the_table_reads_it(peer: Peer) -> None:
    async with openai.AsyncOpenAI(base_url=peer.url, api_key="none", max_retries=0) as api:
        await api.responses.create(model="m", input="stuck", background=True, conversation="c")
        with pytest.raises(openai.ConflictError) as caught:
            await api.responses.create(model="m", input="b", background=True, conversation="c")
    assert problem_of(caught.value).name == "BUSY"


async def test_c22_a_conversation_of_our_own_is_not_to_be_had_and_the_error_says_what_works(
    wire: Wire, begin: Begin
) -> None:
    with pytest.raises(Park, match=r"no /conversations; .*state='chain'"):
        await begin(state="conversation").say("a")
    assert wire.requests == ["POST /conversations"]
