"""The runbook's tables: what the library says at 3 a.m. is what the page lists, word for word."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from streambatch import (
    Batch,
    BatchQueue,
    DeadLetter,
    Event,
    NotAccepted,
    QueueFull,
    Reply,
    Retry,
    ServerAway,
    StoreAway,
    StoreBack,
    StoreError,
    UsageError,
    Warned,
)
from streambatch._explain import explain
from streambatch._settings import Durability
from streambatch.instrumentation import _structlog
from tests.cli.tools import quick
from tests.conftest import StartServer
from tests.docs.book import ROOT
from tests.rig.moments import wait_for
from tests.rig.servers import Server

PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
STORY = (ROOT / "docs" / "life-of-a-message.md").read_text(encoding="utf-8")


def listed(said: str, page: str = PAGE) -> bool:
    """Whether *page* has a sentence in backticks or quotation marks that *said* is, with ``…`` for what differs."""
    written = [*re.findall(r"`([^`\n]+)`", page), *re.findall(r'"([^"\n]+)"', page.replace("\n", " "))]
    return any(re.fullmatch(".*".join(map(re.escape, text.split("…"))), said) for text in written if " " in text)


HELD = {"lease.token": "1:x", "lease.owner": "host:1:x", "lease.deadline": "1030000", "lease.ttl": "30000"}
BATCH = {"run.first": "1-0", "run.n": "2", "run.attempts": "1", "run.why": "ValueError at bot.py:7"}
REPLY = {"run.tries": "1", "run.why": "ValueError at bot.py:7"}
THREADS: list[dict[str, str]] = [
    {"length": "0"},
    {"length": "0", "paused": "1"},
    {"length": "2", "due": "1002000"},
    {"length": "2", "due": "998000"},
    {"length": "2", "due": "998000", "halted": "1"},
    {"length": "2", "due": "1030000", **HELD, **BATCH},
    {"length": "2", "due": "1030000", **BATCH},
    {"length": "2", "due": "998000", **BATCH},
    {"length": "2", "due": "1030000", **HELD, **BATCH, "run.cancel": "drop"},
    {"length": "2", "due": "998000", **BATCH, "run.cancel": "drop"},
    {"length": "2", "due": "998000", **BATCH, "run.why": "scope acme/large is parked: HTTP 429"},
    {"length": "2", "due": "998000", **BATCH, "run.why": "scope a waits for its share: as many Runs as concurrent=3 …"},
    {"length": "2", "due": "998000", **BATCH, "run.why": "scope a is parked: HTTP 429", "halted": "1"},
    {"outbox": "1030000", **HELD, **REPLY},
    {"outbox": "1002000", **REPLY},
    {"outbox": "998000", **REPLY},
    {"length": "2", "parked": "998000"},
    {"length": "2"},
    {"length": "2", "foreign": "window."},
]


@pytest.mark.parametrize("fields", THREADS, ids=lambda fields: explain("t", _look(fields)).reason[:40])
def test_each_reason_of_explain_stands_in_the_runbook(fields: dict[str, str]) -> None:
    """State and sentence are a row of "One chat is stuck", and the state is one of the table of states."""
    found = explain("anna", _look(fields))
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{found.state}` |")]
    assert any(listed(found.reason, row) for row in rows), found.reason
    assert f"\n| `{found.state}` |" in STORY


def test_one_failure_is_told_in_the_singular() -> None:
    """And several in the plural."""
    for tries, times, so_far in (("1", "1 time;", "(1 try so far)"), ("4", "4 times;", "(4 tries so far)")):
        assert times in explain("t", _look({"length": "2", "due": "1030000", **BATCH, "run.attempts": tries})).reason
        assert so_far in explain("t", _look({"outbox": "1002000", **REPLY, "run.tries": tries})).reason


def _look(fields: dict[str, str]) -> dict[str, str]:
    return {"now": "1000000", "length": "0", "due": "", "outbox": "", "parked": "", "halted": "0", **fields}


def test_each_state_of_the_pages_is_one_that_explain_can_say() -> None:
    """No state is described that never comes."""
    known = {explain("t", _look(fields)).state for fields in THREADS}
    section = PAGE.partition("## One chat is stuck")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == known
    section = STORY.partition("## The states")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == known


def test_each_line_that_an_operator_may_see_stands_in_the_runbook() -> None:
    """Names and levels of the log are those of the listener; debug lines are not for operators."""
    rows = dict(re.findall(r"^\| `streambatch\.(\w+)` \| (\w+) \|", PAGE, re.MULTILINE))
    levels: dict[type[Event], str] = vars(_structlog)["_LEVELS"]
    assert rows == {event.__name__.lower(): level for event, level in levels.items() if level != "debug"}


Prepare = Callable[[Server, str], None]


def _newer(server: Server, namespace: str) -> None:
    server.admin().hset(f"sb1:{{{namespace}.00}}:meta", mapping={"layout": "2", "partitions": "1"})


def _spread(server: Server, namespace: str) -> None:
    server.admin().hset(f"sb1:{{{namespace}.00}}:meta", mapping={"layout": "1", "partitions": "4"})


def _narrow(server: Server, namespace: str) -> None:
    server.admin().execute_command("ACL", "SETUSER", "bot", "-xadd")


def _follow(server: Server, namespace: str) -> None:
    server.admin().execute_command("REPLICAOF", "127.0.0.1", "1")


def _evict(server: Server, namespace: str) -> None:
    server.admin().config_set("maxmemory-policy", "allkeys-lru")


def _unknown(server: Server, namespace: str) -> None:
    server.admin().execute_command("ACL", "SETUSER", "bot", "resetpass", ">another")


def _nothing(server: Server, namespace: str) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "durability"),
    [(_newer, "server"), (_spread, "server"), (_narrow, "server"), (_follow, "server"), (_evict, "server"),
     (_unknown, "server"), (_nothing, "disk")],
)  # fmt: skip
async def test_what_is_refused_at_start_is_said_in_a_sentence_of_the_runbook(
    start_server: StartServer, namespace: str, prepare: Prepare, durability: Durability
) -> None:
    """I13: an unsafe or foreign server is refused before the first message, and the page knows the words."""
    server = start_server()
    prepare(server, namespace)
    with pytest.raises(UsageError) as refused:
        async with BatchQueue(server.url, namespace=namespace, durability=durability):
            pass
    assert listed(str(refused.value)), str(refused.value)


async def test_no_password_or_a_wrong_port_is_said_in_a_sentence_of_the_runbook(
    server: Server,
) -> None:
    open_to_nobody = (f"unix://{server.dir}/server.sock", server.tcp_url.replace("bot:bot-secret@", ""))
    for url in open_to_nobody:
        with pytest.raises(UsageError, match="wants a password, and the URL has none") as refused:
            async with BatchQueue(url, log=False):
                pass
        assert listed(str(refused.value)), str(refused.value)
    for url in ("redis://bot:secret@localhost:99999", "redis://bot:se/cret@host", "redis:/bot:secret@host"):
        with pytest.raises(UsageError) as refused:
            async with BatchQueue(url, log=False):
                pass
        assert listed(str(refused.value)), str(refused.value)
        assert "cret" not in str(refused.value)


async def test_a_server_that_is_not_there_is_said_with_its_url_and_without_its_password(server: Server) -> None:
    """The first mistake of all has a sentence, and what it names is safe to log."""
    with pytest.raises(StoreError) as away:
        async with BatchQueue(f"unix://bot:secret@{server.dir}/nobody.sock"):
            pass
    assert listed(str(away.value)), str(away.value)
    assert str(away.value).endswith("; is it up, and is the URL right?")
    assert "secret" not in str(away.value)


async def test_a_server_without_an_aof_is_a_warning(start_server: StartServer, namespace: str) -> None:
    """I13, D0: it works, and the log says what it costs."""
    heard: list[Event] = []
    async with BatchQueue(start_server().url, namespace=namespace, listeners=[heard.append], log=False):
        pass
    warned = [event for event in heard if isinstance(event, Warned)]
    assert [event.code for event in warned] == ["no-aof"]
    assert listed(warned[0].message)


async def test_a_full_server_refuses_submits_and_drains(start_server: StartServer, namespace: str) -> None:
    """At maxmemory nothing new is stored; what is stored runs, is delivered, and frees its memory."""
    server, delivered = start_server(), list[str]()

    async def answer(batch: object) -> str:
        return "yes"

    async def send(reply: object) -> None:
        delivered.append("yes")

    async with BatchQueue(server.url, namespace=namespace, debounce=0, log=False) as queue:
        receipt = await queue.submit("anna", "stored before")
        server.admin().set("ballast", "x" * 20_000_000)
        server.admin().config_set("maxmemory", "10mb")
        with pytest.raises(QueueFull) as full:
            await queue.submit("anna", "one more")
        assert listed(str(full.value)), str(full.value)
        async with BatchQueue(server.url, namespace=namespace, runner=answer, deliver=send, log=False):
            assert await receipt.reply(10) is not None
            await wait_for(lambda: delivered, "the delivery")
        server.admin().config_set("maxmemory", "0")
        assert (await queue.submit("anna", "one more")).outcome == "queued"


async def test_a_server_that_is_away_is_logged_once_and_comes_back(start_server: StartServer, namespace: str) -> None:
    """StoreAway once, ServerAway for a submit of which nothing was sent, StoreBack once; it goes on by itself."""
    server, heard = start_server(aof="everysec"), list[Event]()
    # Seconds that a busy machine does not need for a submit: another silence would be another outage.
    queue = BatchQueue(server.url, namespace=namespace, listeners=[heard.append], log=False, submit_timeout=3)
    async with queue:
        server.kill9()
        with pytest.raises(ServerAway) as away:
            await queue.submit("anna", "hello?")
        assert isinstance(away.value, NotAccepted)
        assert queue.health().reason == "the server does not answer"
        assert listed(queue.health().reason)
        server.restart()

        async def stored() -> bool:
            with suppress(ServerAway):
                return (await queue.submit("anna", "hello?")).outcome == "queued"
            return False

        assert await wait_for(stored, "a submit that is accepted again")
    told = [event for event in heard if isinstance(event, StoreAway | StoreBack)]
    assert [type(event) for event in told] == [StoreAway, StoreBack]


async def test_replies_that_nobody_delivers_are_seen_in_the_counts(server: Server, namespace: str) -> None:
    """The row of "Nothing is answered" for a namespace in which no process ever had a deliver callback."""
    got = list[str]()

    async def answer(batch: Batch) -> str:
        return f"yes: {batch.text}"

    async def send(reply: Reply) -> None:
        got.append(reply.text)

    async with BatchQueue(server.url, namespace=namespace, runner=answer, debounce=0, log=False) as queue:
        receipt = await queue.submit("anna", "one", message_id="m1")
        assert await receipt.reply(10) is not None
        stats = await queue.stats()
        assert (stats.batches, stats.delivered, stats.undelivered) == (1, 0, 0)
        row = next(line for line in PAGE.splitlines() if line.startswith("| | `batches` grows"))
        assert "`delivered` and `undelivered` stay 0" in row
    async with BatchQueue(server.url, namespace=namespace, runner=answer, deliver=send, debounce=0, log=False) as queue:
        await queue.submit("anna", "two")
        await wait_for(lambda: got, "the first reply that is delivered")
        assert got == ["yes: two"]  # and not the one before
        receipt = await queue.receipt("anna", message_id="m1")
        assert (reply := await receipt.reply(10)) is not None
        assert reply.text == "yes: one"


async def test_ids_that_repeat_are_seen_in_the_counts_of_the_command_of_the_page(
    server: Server, namespace: str
) -> None:
    """The row of "Nothing is answered" for a platform whose ids began anew: its command is run as the row has it."""
    (row,) = [line for line in PAGE.splitlines() if "and `duplicates` does" in line]
    (command,) = re.findall(r"`(streambatch [^`]+)`", row)

    async def counts() -> tuple[int, int]:
        here = {"STREAMBATCH_URL": server.url, "STREAMBATCH_NAMESPACE": namespace}
        code, out, err = await quick(*command.split()[1:], **here)
        assert code == 0, err
        return json.loads(out)["received"], json.loads(out)["duplicates"]

    async def answer(batch: Batch) -> str:
        return "yes"

    async with BatchQueue(server.url, namespace=namespace, runner=answer, debounce=0, log=False) as queue:
        receipt = await queue.submit("anna", "before", message_id="1")
        assert await receipt.reply(10) is not None
        assert await counts() == (1, 0)
        assert (await queue.submit("anna", "after the restart", message_id="1")).outcome == "duplicate"
        assert await counts() == (1, 1)
        assert (await queue.submit("anna", "after the restart", message_id="s2-1")).outcome == "queued"
        assert await counts() == (2, 1)


INDEXES = {"due": "zset", "outbox": "zset", "parked": "zset", "meta": "hash", "tally": "hash", "dead": "stream"}


@pytest.mark.leaves_keys("a dead letter and a paused thread, on purpose")
async def test_the_types_of_the_keys_that_all_threads_share_are_those_of_the_page(
    server: Server, namespace: str
) -> None:
    """By them one finds the key that somebody has overwritten, where the error does not name it."""
    row = next(line for line in PAGE.splitlines() if "WRONGTYPE" in line)
    assert "`TYPE` says `zset` of `due`, `outbox` and `parked`, `hash` of `meta` and `tally`, `stream` of `dead`" in row

    async def answer(batch: Batch) -> str:
        if batch.thread == "dead":
            raise DeadLetter("refused")
        return "yes"

    async def send(reply: Reply) -> None:
        raise Retry(after=60)

    admin, found = server.admin(), dict[str, str]()

    async def there() -> bool:
        found.update({name: admin.type(f"sb1:{{{namespace}.00}}:{name}") for name in INDEXES})
        return "none" not in found.values()

    settings: dict[str, Any] = {"namespace": namespace, "debounce": 0, "log": False}
    async with BatchQueue(server.url, runner=answer, deliver=send, **settings) as queue:
        await queue.pause("parked")
        for thread in ("dead", "answered", "parked"):
            await queue.submit(thread, "hi")
        await queue.submit("waits", "hi", debounce=60)
        await wait_for(there, "all of the keys")
        assert found == INDEXES
        admin.delete(key := f"sb1:{{{namespace}.00}}:outbox")
        admin.set(key, "foreign")
        with pytest.raises(StoreError) as refused:
            await queue.stats()
        assert listed(f"{str(refused.value).split(' WRONGTYPE')[0]} WRONGTYPE of", row)
        admin.delete(key)
