"""The chat, as a person or a script sees it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import StartChat
from tests.fakes.proxy import recording
from tests.fakes.responses_server import Server, Step, texts

pytestmark = pytest.mark.timeout(120)  # a test starts up to four chats, each with its server


async def test_a_piped_burst_is_one_run_and_stdout_has_the_answer_only(provider: Server, start_chat: StartChat) -> None:
    words = [secrets.token_hex(4) for _ in range(3)]
    async with recording(provider.url) as proxy:
        chat = await start_chat(proxy.url)
        await chat.give("\n".join(words))
        assert await chat.end() == 0
        assert [texts(exchange.body) for exchange in proxy.exchanges] == [words]
        assert chat.out == f"{proxy.exchanges[0].text}\n"
        assert all(word in chat.out for word in words)
    assert "3 messages waiting" in chat.err
    assert "Run: 3 messages" in chat.err
    assert not any(word in chat.err for word in words)


async def test_the_conversation_goes_on_in_the_next_session(provider: Server, start_chat: StartChat) -> None:
    for text in ("first", "second"):
        chat = await start_chat(provider.url)
        await chat.give(text)
        assert await chat.end() == 0
    assert [item["role"] for item in provider.requests[1]["input"]] == ["user", "assistant", "user"]
    assert "last time" not in chat.err


async def test_the_same_input_again_is_asked_again(provider: Server, start_chat: StartChat) -> None:
    for _ in range(2):
        chat = await start_chat(provider.url)
        await chat.give("same\n")
        assert await chat.end() == 0
        assert chat.out == "I got 1 messages: same\n"
    assert len(provider.requests) == 2


@pytest.mark.parametrize("again", ["", "one\ntwo\nthree\n"], ids=["nothing piped", "the same piped again"])
async def test_after_a_kill_in_the_middle_of_an_answer_it_is_answered_once(
    provider: Server, start_chat: StartChat, again: str
) -> None:
    provider.script = [Step(hold=asyncio.Event())]
    chat = await start_chat(provider.url)
    await chat.give("one\ntwo\nthree\n")
    await provider.asked.wait()
    await chat.kill()
    assert chat.out == ""
    chat = await start_chat(provider.url)
    await chat.give(again)
    assert await chat.end() == 0
    assert chat.out == "I got 3 messages: one | two | three\n"
    assert "answering 3 messages left from last time" in chat.err
    chat = await start_chat(provider.url)
    await chat.give("")
    assert await chat.end() == 0
    assert (chat.out, len(provider.requests)) == ("", 2)


async def test_ctrl_c_finishes_the_answer_and_answers_nothing_twice(provider: Server, start_chat: StartChat) -> None:
    hold = asyncio.Event()
    provider.script = [Step(hold=hold)]
    chat = await start_chat(provider.url)
    await chat.give("one\ntwo\n")
    await provider.asked.wait()
    chat.child.send_signal(signal.SIGINT)
    await chat.until("leaving when the running answer is complete")
    hold.set()
    assert await chat.end() == 130
    assert chat.out == "I got 2 messages: one | two\n"
    chat = await start_chat(provider.url)
    await chat.give("")
    assert await chat.end() == 0
    assert (chat.out, len(provider.requests)) == ("", 1)


async def test_the_second_ctrl_c_leaves_at_once_and_nothing_is_lost(provider: Server, start_chat: StartChat) -> None:
    provider.script = [Step(hold=asyncio.Event())]
    chat = await start_chat(provider.url)
    await chat.give("one\n")
    await provider.asked.wait()
    chat.child.send_signal(signal.SIGINT)
    await chat.until("leaving")
    assert await chat.kill(signal.SIGINT) == 130
    chat = await start_chat(provider.url)
    await chat.give("")
    assert await chat.end() == 0
    assert chat.out == "I got 1 messages: one\n"
    assert "answering 1 message left from last time" in chat.err


async def test_lines_typed_during_an_answer_are_the_next_batch(provider: Server, start_chat: StartChat) -> None:
    hold = asyncio.Event()
    provider.script = [Step(hold=hold)]
    chat = await start_chat(provider.url, "--debounce", "0.1", terminal=True)
    await chat.until("type;")
    await chat.give("one\n")
    await chat.until("I ", on="out")
    await chat.give("two\n")
    await chat.until("1 message waiting\n  Run: 1 message\n  1 message waiting")
    await chat.give("three\n")
    await chat.until("2 messages waiting")
    hold.set()
    await chat.until("I got 2 messages: two | three", on="out")
    await chat.give("/quit\n")
    assert await chat.end() == 0
    assert chat.out.count("got 1 messages: one") == 1  # what was typed meanwhile stands between
    assert chat.out.count("two | three") == 1
    assert [texts(request) for request in provider.requests] == [["one"], ["two", "three"]]


async def test_ctrl_d_leaves_and_what_waits_is_answered_next_time(provider: Server, start_chat: StartChat) -> None:
    chat = await start_chat(provider.url, "--debounce", "60", terminal=True)
    await chat.until("type;")
    await chat.give("later\n")
    await chat.until("1 message waiting")
    await chat.give("\x04")
    assert await chat.end() == 0
    assert "1 message wait and will" in chat.err
    assert provider.requests == []
    chat = await start_chat(provider.url, terminal=True)
    await chat.until("I got 1 messages: later", on="out")
    await chat.until("answering 1 message left from last time")


async def test_a_terminal_is_not_commanded_by_an_answer(provider: Server, start_chat: StartChat) -> None:
    provider.script = [Step(text="\x1b[2Jred\x07 \x9b1m")]
    chat = await start_chat(provider.url, "--debounce", "0", terminal=True)
    await chat.until("type;")
    await chat.give("x\n")
    await chat.until("red", on="out")
    await chat.give("/quit\n")
    assert await chat.end() == 0
    assert not {"\x1b", "\x07", "\x9b"} & set(chat.out)


async def test_what_can_never_be_answered_is_said_and_ends_with_1(provider: Server, start_chat: StartChat) -> None:
    provider.script = [Step(status=400, body={"error": {"code": "invalid_prompt", "message": "bad: one"}})]
    chat = await start_chat(provider.url)
    await chat.give("one\n")
    assert await chat.end() == 1
    assert chat.out == ""
    assert "dead letters: the provider answered HTTP 400 invalid_prompt" in chat.err


async def test_a_refused_key_is_said_and_the_messages_stay(provider: Server, start_chat: StartChat) -> None:
    provider.script = [Step(status=401, body={"error": {"code": "invalid_api_key", "message": "no"}})]
    chat = await start_chat(provider.url)
    await chat.give("one\n")
    assert await chat.end() == 1
    assert "HTTP 401 invalid_api_key" in chat.err
    assert "gave up; the messages are kept" in chat.err
    chat = await start_chat(provider.url)
    await chat.give("")
    await chat.until("1 message left from last time: the provider answered HTTP 401 invalid_api_key (pause); tried")
    assert await chat.kill(signal.SIGINT) == 130
    assert len(provider.requests) == 1


@pytest.mark.parametrize(("refusals", "code"), [(2, 0), (3, 1)])
async def test_a_provider_that_is_busy_is_asked_three_times(
    provider: Server, start_chat: StartChat, refusals: int, code: int
) -> None:
    provider.script = [Step(status=429, headers={"retry-after": "0"}, body={}) for _ in range(refusals)]
    chat = await start_chat(provider.url)
    await chat.give("one\n")
    assert await chat.end() == code
    assert chat.out == ("" if code else "I got 1 messages: one\n")
    assert ("gave up" in chat.err) == bool(code)
    assert len(provider.requests) == 3


async def test_a_person_decides_how_long_a_refused_key_is_waited_for(provider: Server, start_chat: StartChat) -> None:
    provider.script = [Step(status=401, body={"error": {"code": "invalid_api_key", "message": "no"}})]
    chat = await start_chat(provider.url, "--debounce", "0.1", terminal=True)
    await chat.until("type; lines sent")
    await chat.give("one\n")
    await chat.until("the messages are safe")
    await chat.give("/quit\n")
    assert await chat.end() == 0
    assert "gave up" not in chat.err


async def test_two_chats_in_one_folder(provider: Server, start_chat: StartChat) -> None:
    """The same thread twice is refused; two threads share the server, and each shows its own answers only."""
    first = await start_chat(provider.url, "--debounce", "0.1", terminal=True)
    await first.until("type; lines sent")
    same = await start_chat(provider.url)
    await same.give("x\n")
    assert await same.end() == 2
    assert "another chat of thread" in same.err
    assert "--thread NAME" in same.err
    other = await start_chat(provider.url, "--thread", "other")
    await other.give("two\n")
    assert await other.end() == 0
    assert other.out == "I got 1 messages: two\n"
    await first.give("one\n")
    await first.until("I got 1 messages: one", on="out")
    assert "two" not in first.out + first.err
    await first.give("/quit\n")
    assert await first.end() == 0


async def test_a_message_that_is_too_large_is_said(provider: Server, start_chat: StartChat) -> None:
    chat = await start_chat(provider.url)
    await chat.give("x" * 70_000 + "\nsmall\n")
    assert await chat.end() == 1
    assert chat.out == "I got 1 messages: small\n"
    assert "not accepted" in chat.err


async def test_options_reach_the_provider(provider: Server, start_chat: StartChat, tmp_path: Path) -> None:
    chat = await start_chat(
        provider.url, "--model", "tiny", "--instructions", "Sing.", "--thread", "t 1", "--data", "some where"
    )
    await chat.give("x\n")
    assert await chat.end() == 0
    assert (provider.requests[0]["model"], provider.requests[0]["instructions"]) == ("tiny", "Sing.")
    assert (tmp_path / "some where" / "server").is_dir()
    assert (tmp_path / "some where").stat().st_mode & 0o077 == 0


async def test_a_server_of_ones_own(provider: Server, start_chat: StartChat, url: str, server: object) -> None:
    chat = await start_chat(provider.url, "--url", url, "--thread", secrets.token_hex(4))
    await chat.give("x\n")
    assert await chat.end() == 0, chat.err
    assert chat.out == "I got 1 messages: x\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--url", "redis://127.0.0.1:1"), "127.0.0.1:1"),
        (("--url", "nonsense://x"), "nonsense"),
        (("--data", "/proc/none"), "--data /proc/none cannot be made"),
    ],
)
async def test_what_cannot_start_says_so_in_a_line(
    provider: Server, start_chat: StartChat, options: tuple[str, ...], words: str
) -> None:
    chat = await start_chat(provider.url, *options)
    await chat.give("x\n")
    assert await chat.end() == 2
    assert words in chat.err.splitlines()[-1]
    assert "Traceback" not in chat.err


async def test_a_provider_s_model_needs_a_provider(start_chat: StartChat) -> None:
    chat = await start_chat(None, "--model", "gpt")
    await chat.give("x\n")
    assert await chat.end() == 2
    assert "OPENAI_API_KEY" in chat.err


async def test_nobody_reads_the_answer_and_it_is_kept(provider: Server, start_chat: StartChat, tmp_path: Path) -> None:
    chat = await start_chat(provider.url, "--debounce", "0")
    transport = chat.child._transport.get_pipe_transport(1)  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType]
    transport.close()  # pyright: ignore[reportUnknownMemberType]
    await chat.give("x\n")
    assert await chat.child.wait() == 1
    await chat.until("streambatch: nobody reads the answer; it is kept for the next start")
    chat = await start_chat(provider.url)
    await chat.give("")
    assert await chat.end() == 0
    assert (chat.out, len(provider.requests)) == ("I got 1 messages: x\n", 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
async def test_an_answer_that_no_disk_takes_is_kept(provider: Server, start_chat: StartChat, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        chat = await start_chat(provider.url, "--debounce", "0", stdout=full.fileno())
    await chat.give("x\n")
    assert await chat.end() == 2
    sentence = "streambatch: the output cannot be written: No space left on device; it is kept for the next start"
    assert sentence in chat.err.splitlines()
    assert "Traceback" not in chat.err
    chat = await start_chat(provider.url)
    await chat.give("")
    assert await chat.end() == 0
    assert (chat.out, len(provider.requests)) == ("I got 1 messages: x\n", 1)


async def test_the_note_about_a_burst_holds_no_text(provider: Server, start_chat: StartChat, tmp_path: Path) -> None:
    provider.script = [Step(hold=asyncio.Event())]
    chat = await start_chat(provider.url)
    await chat.give("secret words\n")
    await provider.asked.wait()
    (note,) = (tmp_path / "streambatch-chat").glob("*.json")
    assert "secret" not in note.read_text()
    assert set(json.loads(note.read_text())) == {"digest", "name"}
    os.kill(chat.child.pid, signal.SIGKILL)
    await chat.end()
