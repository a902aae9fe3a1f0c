"""The operator's verbs on a namespace with threads in every state: for people, for programs, and what they never do."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from streambatch import BatchQueue
from tests.cli.stage import CANARY, EVIL, Stage, staged
from tests.cli.terminal import Terminal
from tests.cli.tools import environment, finish, quick
from tests.conftest import StartServer
from tests.rig import Server, wait_for

pytestmark = [pytest.mark.timeout(120), pytest.mark.leaves_keys("a namespace with something in every state is left")]


async def told(stage: Stage, *words: str, code: int = 0) -> Any:
    """What a verb says to programs; no escape of a terminal, nothing that a person wrote."""
    ended, out, err = await quick(*words, "--namespace", stage.namespace, "--json", **stage.here)
    assert ended == code, out + err
    assert "\x1b" not in out
    assert CANARY not in out + err or "--show-content" in words
    return json.loads(out)


async def shown(stage: Stage, *words: str, code: int = 0) -> str:
    """What a verb shows to people, on a terminal of 160 columns."""
    terminal = await Terminal.start(*words, "--namespace", stage.namespace, size=(160, 40), **stage.here)
    try:
        assert await terminal.end() == code, terminal.text
        assert b"\x1b[2J" not in terminal.raw
        return terminal.text
    finally:
        await terminal.close()


async def test_threads_are_listed_page_by_page(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        await stage.fill()
        page = await told(stage, "threads", "--count", "2")
        assert (page["total"], [row["thread"] for row in page["threads"]]) == (4, ["slow", "busy"])
        page = await told(stage, "threads", "--count", "2", "--offset", "2")
        assert {row["thread"] for row in page["threads"]} == {"quiet", EVIL}
        assert [row["thread"] for row in (await told(stage, "threads", "--state", "outbox"))["threads"]] == [
            "undelivered"
        ]
        screen = await shown(stage, "threads", "--state", "parked")
        assert "held " in screen
        assert "1 thread in parked" in screen
        screen = await shown(stage, "threads", "--count", "3")
        assert "evil\\x1b[2J\\n\\u202e" in screen or "quiet" in screen
        assert "4 threads in due; the next page: --offset 3" in screen
        code, out, err = await finish("threads", "--state", "x", "--namespace", namespace, **stage.here)
        assert (code, out) == (2, "")
        assert err == "streambatch: state='x' is none of 'due', 'outbox', 'parked'\n"


async def test_inspect_says_why_and_what_to_do(server: Server, namespace: str) -> None:
    """Its sentence is that of `explain`; content is shown when it is asked for, and then harmless."""
    wanted = {
        "slow": ("running", "nothing, unless its lease only falls"),
        "busy": ("retrying", "streambatch cancel busy"),
        "undelivered": ("undelivered", "mend the reason"),
        "held": ("parked", "streambatch resume held"),
        "quiet": ("waiting", "its quiet window ends by itself"),
    }
    async with staged(server.url, namespace) as stage:
        await stage.fill()
        for thread, (state, do) in wanted.items():
            found = await told(stage, "inspect", thread)
            assert found["state"] == state
            assert do in found["do"]
            assert found["reason"].split(";")[0][:20] == (await stage.queue.explain(thread)).reason[:20]
        slow = await told(stage, "inspect", "slow")
        assert (slow["owner"] != "", slow["in_batch"], slow["batch"]["attempts"]) == (True, 1, "1")
        assert [(one["in_batch"], one["bytes"] > 0) for one in slow["messages"]] == [(True, True)]
        assert set(slow["messages"][0]) == {"id", "entry", "bytes", "in_batch"}
        reply = (await told(stage, "inspect", "undelivered"))["reply"]
        assert (reply["tries"], reply["bytes"] > 0) == (1, True)
        assert (await told(stage, "inspect", "undelivered", "--show-content"))["reply"]["text"] == f"{CANARY}-reply"
        (one,) = (await told(stage, "inspect", EVIL, "--show-content"))["messages"]
        assert (one["text"], one["author"], one["in_batch"]) == (f"{CANARY}-text", "", False)
        screen = await shown(stage, "inspect", "held")
        assert screen.splitlines()[0] == "held: parked"
        assert "→ streambatch resume held" in screen
        assert "paused    this thread" in screen
        assert CANARY not in screen
        assert f"{CANARY}-author  {CANARY}-text" in await shown(stage, "inspect", "held", "--show-content")
        nobody = await told(stage, "inspect", "nobody", code=1)
        assert (nobody["known"], nobody["state"], nobody["messages"]) == (False, "idle", [])
        await stage.queue.pause()
        await stage.say("late")
        assert (await told(stage, "inspect", "late"))["do"] == f"streambatch resume --namespace {namespace}"


async def test_a_cancelled_run_is_due_now_and_not_since_1970(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        await stage.say("busy-1")
        await wait_for(lambda: _state(stage, "busy-1", "retrying"), "the failure")
    code, out, err = await quick("cancel", "busy-1", "--namespace", namespace, **stage.here)
    assert (code, out) == (0, "busy-1: its Run ends, 0 waiting messages dropped\n"), err
    found = await told(stage, "inspect", "busy-1")
    assert (found["state"], found["wake"]) == ("cancelling", 0)
    (row,) = (await told(stage, "threads"))["threads"]
    assert (row["state"], row["wake"]) == ("cancelling", 0)


async def test_inspect_names_the_latest_dead_letter_as_long_as_it_is_there(server: Server, namespace: str) -> None:
    """Also of a thread that is idle or goes on, and nothing of one that was redriven or discarded."""
    async with staged(server.url, namespace) as stage:
        await stage.say("dead-1")
        (first,) = await wait_for(stage.queue.dead_letters, "the letter")
        at = f" --namespace {namespace}"
        found = await told(stage, "inspect", "dead-1")
        assert (found["state"], found["dead"]["id"], found["dead"]["kind"]) == ("idle", first.id, "batch")
        assert (found["dead"]["reason"], found["dead"]["messages"]) == ("no image can be read", 1)
        do = f"mend the reason, then: streambatch dead redrive {first.id}{at}"
        do += f" (more: streambatch dead show {first.id}{at})"
        assert found["do"] == do
        screen = await shown(stage, "inspect", "dead-1")
        assert f"→ {do}" in " ".join(screen.split())
        assert re.search(rf"  dead +{first.id}, a batch, since \d+-.* UTC\n +no image can be read\n", screen)
        await stage.queue.submit("dead-1", f"{CANARY}-text", debounce=60)
        found = await told(stage, "inspect", "dead-1")
        assert (found["state"], found["dead"]["id"], "redrive" in found["do"]) == ("waiting", first.id, False)
        await stage.queue.run_now("dead-1")
        letters = await wait_for(lambda: _letters(stage, 2), "the second letter")
        assert (await told(stage, "inspect", "dead-1"))["dead"]["id"] == letters[1].id
        await told(stage, "dead", "discard", letters[1].id)
        found = await told(stage, "inspect", "dead-1")
        assert (found["dead"], "dead list --thread dead-1" in found["do"]) == (None, True)
        assert (await told(stage, "inspect", "nobody", code=1))["dead"] is None


async def _letters(stage: Stage, count: int) -> Any:
    letters = await stage.queue.dead_letters()
    return len(letters) == count and letters


async def test_inspect_names_the_dead_letter_of_a_reply(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace, max_delivery_attempts=1) as stage:
        await stage.say("undelivered")
        (letter,) = await wait_for(stage.queue.dead_letters, "the letter")
        found = await told(stage, "inspect", "undelivered")
        assert (found["state"], found["dead"]["id"], found["dead"]["kind"]) == ("idle", letter.id, "reply")


async def test_what_a_codec_wrote_is_said_to_be_unreadable(server: Server, namespace: str) -> None:
    class Reversed:
        def encode(self, data: bytes, context: bytes) -> bytes:
            return data[::-1]

        def decode(self, data: bytes, context: bytes) -> bytes:
            return data[::-1]

    async with BatchQueue(server.url, namespace=namespace, codec=Reversed(), log=False, debounce=60) as queue:
        await queue.submit("anna", f"{CANARY}-text")
        stage: Any = type("Here", (), {"namespace": namespace, "here": {"STREAMBATCH_URL": server.url}})
        (one,) = (await told(stage, "inspect", "anna", "--show-content"))["messages"]
    assert one["text"] == "(cannot be read here: the bot has a codec, or it is damaged)"


async def test_pause_resume_and_cancel(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        await stage.say("slow")
        await stage.runner.running.wait()
        await stage.queue.submit("slow", "more", debounce=60)
        assert await told(stage, "cancel", "slow") == {"thread": "slow", "run": True, "dropped": 1}
        await wait_for(lambda: _state(stage, "slow", "idle"), "the end of the Run")
        assert await told(stage, "cancel", "slow", code=1) == {"thread": "slow", "run": False, "dropped": 0}
        assert await shown(stage, "cancel", "x", code=1) != ""
        assert "namespace" in (await shown(stage, "pause"))
        assert (await stage.queue.stats()).paused
        paused = await told(stage, "pause", "anna")
        assert paused == {
            "namespace": namespace,
            "thread": "anna",
            "paused": True,
            "namespace_paused": True,
            "parked": 0,
            "paused_threads": 1,
        }
        await stage.say("anna")
        assert not (await told(stage, "resume"))["namespace_paused"]
        assert await _state(stage, "anna", "parked")
        assert "1 thread still paused by name, 1 with something to do" in await shown(stage, "resume")
        await told(stage, "resume", "anna")
        await wait_for(lambda: _state(stage, "anna", "idle"), "the answer")
        code, _, err = await finish("cancel", "a", "--no-run", "--no-pending", "--namespace", namespace, **stage.here)
        assert (code, err) == (2, "streambatch: --no-run and --no-pending together leave nothing to cancel\n")


async def test_a_thread_that_is_paused_and_has_nothing_to_do_is_seen(server: Server, namespace: str) -> None:
    """Nobody has written since somebody took over: `inspect` says how it ends, the others that there is one."""
    async with staged(server.url, namespace) as stage:
        assert (await told(stage, "top", "--once"))["paused_threads"] == 0
        await told(stage, "pause", "77")
        screen = (await shown(stage, "inspect", "77")).splitlines()
        assert screen[0] == "77: idle, paused"
        assert screen[1] == "  no message waits; the thread is paused, what comes is kept until it is resumed"
        assert screen[2] == f"  → streambatch resume 77 --namespace {namespace}"
        found = await told(stage, "inspect", "77")
        assert (found["known"], found["paused"], found["waiting"]) == (True, True, 0)
        assert "parked 0  paused no, 1 by name  dead 0" in await shown(stage, "top", "--once")
        assert "0 threads in parked, 1 paused by name" in await shown(stage, "threads", "--state", "parked")
        assert (await told(stage, "threads"))["paused_threads"] == 1
        _, out, _ = await quick("doctor", "--namespace", namespace, **stage.here)
        assert "note     paused-threads: 1 by name, 0 with something to do" in out.splitlines()
        assert "1 thread still paused by name, 0 with something to do" in await shown(stage, "resume")
        await told(stage, "resume", "77")
        assert not (await told(stage, "inspect", "77", code=1))["known"]
        assert (await stage.queue.stats()).paused_threads == 0


async def _state(stage: Stage, thread: str, state: str) -> bool:
    return (await stage.queue.explain(thread)).state == state


#: Words of each verb that only looks, and of those that command.
LOOKS = [
    ("top",),
    ("threads",),
    ("inspect", "a"),
    ("dead", "list"),
    ("dead", "show", "0/1-0"),
    ("drain", "--timeout", "0"),
]
COMMANDS = [("pause",), ("resume", "a"), ("cancel", "a"), ("dead", "redrive", "--all"), ("dead", "discard", "0/1-0")]


async def test_no_verb_makes_a_namespace_or_joins_one(server: Server, namespace: str) -> None:
    """A wrong name is said and nothing is made; on a right one those that look leave every key as it is."""
    here = {"STREAMBATCH_URL": server.url}
    for words in (*LOOKS, *COMMANDS):
        code, out, err = await quick(*words, "--namespace", namespace, **here)
        assert (code, out) == (2, "")
        wanted = f"streambatch: nothing is stored under namespace '{namespace}' there; compare --url and --namespace"
        assert err.startswith(wanted), words
        assert len(err.splitlines()) == 1
    assert server.admin().keys(f"*{namespace}*") == []
    async with BatchQueue(server.url, namespace=namespace, log=False, partitions=3):
        pass
    keys = sorted(server.admin().keys(f"*{namespace}*"))
    for words in LOOKS:
        code, _, err = await quick(*words, "--namespace", namespace, **here)
        assert code in (0, 1), err
    assert sorted(server.admin().keys(f"*{namespace}*")) == keys
    code, _, err = await quick("top", "--namespace", namespace, "--partitions", "2", **here)
    assert (code, err) == (2, "streambatch: this namespace has partitions=3, not 2; leave --partitions out\n")
    server.admin().hset(f"sb1:{{{namespace}.00}}:meta", "layout", "9")
    code, _, err = await quick("pause", "--namespace", namespace, **here)
    assert (code, "use a newer streambatch" in err) == (2, True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "which server? Give --url redis://host:6379, or better set STREAMBATCH_URL"),
        ("http://bot:secret@host", "'http://***@host': a URL begins with redis://"),
        ("secret@host:6379", "'***@host:6379': a URL begins with redis://"),
        ("redis://bot:secret@host:99999", "the port is no number"),
        ("redis:/bot:secret@127.0.0.1:1", "'redis://***@127.0.0.1:1': a URL is redis://host:port/number"),
        ("rediss://bot:secret@127.0.0.1:1/chats", "/chats': a URL is rediss://host:port/number"),
        ("valkey://bot:secret@127.0.0.1:1/0/1", "/0/1': a URL is valkey://host:port/number"),
        ("redis://bot:secret@127.0.0.1:1#2", "#2': a URL is redis://host:port/number"),
        ("redis://bot:secret@127.0.0.1:1/3", "redis://***@127.0.0.1:1/3: the server does not answer: "),
        ("redis://bot:secret@127.0.0.1:1", "redis://***@127.0.0.1:1: the server does not answer: "),
        ("embedded:", "embedded: without a folder is a new, empty server"),
        ("embedded:./nowhere", "there is no such folder here"),
    ],
    ids=[
        "none",
        "scheme",
        "no scheme",
        "port",
        "slash",
        "name",
        "two",
        "fragment",
        "number",
        "nobody",
        "no folder",
        "missing folder",
    ],
)
async def test_a_server_that_cannot_be_is_one_sentence_and_exit_code_2(
    url: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = await finish("threads", *(("--url", url) if url else ()))
    assert (code, out) == (2, "")
    assert words in err
    assert "secret" not in err
    assert len(err.splitlines()) == 1
    assert ".;" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.standalone("its URL is taken apart")
async def test_wrong_and_missing_passwords_are_said_as_what_they_are(server: Server) -> None:
    plain = server.tcp_url.replace("bot:bot-secret@", "")
    for url, words in (
        (plain, "the server wants a password"),
        (server.tcp_url.replace("-secret", "-x"), "does not know"),
    ):
        code, out, err = await finish("top", STREAMBATCH_URL=url)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert words in err


async def test_an_embedded_server_is_looked_at_beside_its_bot_and_after_it(tmp_path: Path) -> None:
    url = f"embedded:{tmp_path}/data"
    async with BatchQueue(url, log=False, debounce=60) as queue:
        await queue.submit("anna", "hi")
        code, out, err = await finish("threads", "--url", url)
        assert (code, "anna " in out) == (0, True), err
    code, out, err = await finish("inspect", "anna", "--url", url)
    assert (code, "anna: waiting" in out) == (0, True), err


async def test_into_a_pipe_nothing_is_cut(server: Server, namespace: str) -> None:
    """Whatever COLUMNS says: a name that is cut is of no use to the next command."""
    name, text = f"dead-{'n' * 200}", f"{CANARY} {'text ' * 800}end"
    async with staged(server.url, namespace) as stage:
        await stage.queue.submit(name, text, author="a" * 200)
        (letter,) = await wait_for(stage.queue.dead_letters, "the letter")
        await stage.queue.submit(f"quiet-{'n' * 200}", text, debounce=60)
        here = {**stage.here, "COLUMNS": "40"}
        for words, wanted in (
            (("dead", "list"), name),
            (("dead", "show", letter.id), name),
            (("dead", "show", letter.id, "--show-content"), text),
            (("inspect", f"quiet-{'n' * 200}", "--show-content"), text),
            (("threads",), f"quiet-{'n' * 200}"),
            (("top", "--once"), f"quiet-{'n' * 200}"),
            (("drain", "--timeout", "0"), f"quiet-{'n' * 200}"),
        ):
            _, out, _ = await quick(*words, "--namespace", namespace, **here)
            assert any(wanted in line for line in out.splitlines()), (words, out)
            assert all(line == line.rstrip() for line in out.splitlines())
        _, out, _ = await quick("threads", "--namespace", namespace, **here)
        head, row = out.splitlines()
        assert head.index("STATE") == row.index("waiting")
        assert head.index("AGE") + len("AGE") == row.index(" s") + len(" s")


async def test_no_message_is_listed_if_none_is_wanted(server: Server, namespace: str) -> None:
    """`--messages 0`: XRANGE with COUNT 0 would give all."""
    async with staged(server.url, namespace) as stage:
        for _ in range(3):
            await stage.queue.submit("quiet", f"{CANARY}-text", debounce=60)
        found = await told(stage, "inspect", "quiet", "--messages", "0", "--show-content")
        assert (found["messages"], found["waiting"]) == ([], 3)
        assert "MESSAGE" not in await shown(stage, "inspect", "quiet", "--messages", "0")
        assert "and 2 messages more: --messages 3" in await shown(stage, "inspect", "quiet", "--messages", "1")


async def test_a_reader_that_has_seen_enough_is_no_error(start_server: StartServer, namespace: str) -> None:
    """As in `streambatch threads | head -1`."""
    server = start_server()
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=60) as queue:
        await asyncio.gather(*(queue.submit(f"thread {number}", "hi") for number in range(1_000)))
        told = f"{sys.executable} -m streambatch threads --count 1000 --namespace {namespace}"
        env, pipe = environment(None) | {"STREAMBATCH_URL": server.url}, asyncio.subprocess.PIPE
        script = f"{told} | head -1; echo ${{PIPESTATUS[0]}}"
        shell = await asyncio.create_subprocess_exec("bash", "-c", script, env=env, stdout=pipe, stderr=pipe)
        out, err = await shell.communicate()
    assert out.decode().splitlines()[-1] == "0"
    assert b"Traceback" not in err
