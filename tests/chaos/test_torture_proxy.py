"""The proxy of the torture: each of its faults has its effect, on the client and on the server.

Theory of operation. A plain client sends ``INCR`` as a script call through the proxy, so the counter in the server says
whether a call was executed, and what the client reads says what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streambatch.torture import _resp
from streambatch.torture._faults import ERRORS, FULL, LASTING, ONCE
from streambatch.torture._proxy import Proxy
from tests.rig import Server, wait_for
from tests.rig.servers import BOT_PASSWORD, kinds

SCRIPT = "return redis.call('INCR', KEYS[1])"


def packed(*words: str) -> bytes:
    """A command in RESP."""
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


@dataclass
class Client:
    """A connection through the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *commands: bytes) -> None:
        self.writer.write(b"".join(commands))
        await self.writer.drain()

    async def hear(self) -> bytes:
        """What comes next; empty at the end, also if that is a reset."""
        try:
            async with asyncio.timeout(5):
                return await self.reader.read(65_536)
        except ConnectionResetError:
            return b""


@dataclass
class Bench:
    """A proxy, the server behind it, and a counter in that."""

    server: Server
    proxy: Proxy
    key: str
    counted: list[str]
    clients: list[Client] = field(default_factory=list[Client])

    @property
    def call(self) -> bytes:
        """A script call that counts."""
        return packed("EVAL", SCRIPT, "1", self.key)

    def executed(self) -> int:
        """How often it was executed."""
        return int(self.server.admin().get(self.key) or 0)

    async def client(self, *, login: bool = True) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.proxy.port)))
        if login:
            await self.clients[-1].say(packed("AUTH", "bot", BOT_PASSWORD))
            assert await self.clients[-1].hear() == b"+OK\r\n"
        return self.clients[-1]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    server, counted = Server(next(iter(kinds()))), list[str]()

    async def target() -> Any:
        return await asyncio.open_connection("127.0.0.1", server.port)

    async with Proxy(target, count=counted.append, seed=1) as proxy:
        made = Bench(server, proxy, "sb1:{t.00}:tally", counted)
        yield made
        for client in made.clients:
            client.writer.close()
    server.close()


async def silent(bench: Bench, client: Client) -> bool:
    """Whether the client hears nothing of a call for which there is time: another one is answered meanwhile."""
    hearing = asyncio.ensure_future(client.hear())
    before = bench.executed()
    other = await bench.client()
    await other.say(bench.call)
    assert await other.hear() == b":%d\r\n" % (before + 1)
    quiet = not hearing.done()
    hearing.cancel()
    return quiet


async def test_without_a_fault_everything_passes(bench: Bench) -> None:
    client = await bench.client()
    await client.say(bench.call, packed("PING"), bench.call)
    heard = b""
    while heard.count(b"\r\n") < 3:
        heard += await client.hear()
    assert heard == b":1\r\n+PONG\r\n:2\r\n"
    assert bench.proxy.keys == {bench.key}


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_error_is_answered_in_the_server_s_place_and_in_order(bench: Bench, kind: str) -> None:
    client = await bench.client()
    call = packed("EVALSHA", "0" * 40, "1", bench.key) if kind == "answer-NOSCRIPT" else bench.call
    bench.proxy.arm(kind)
    await client.say(packed("PING"), call, bench.call)
    heard = b""
    while heard.count(b"\r\n") < 3:
        heard += await client.hear()
    assert heard == b"+PONG\r\n" + ERRORS[kind] + b":1\r\n"
    assert bench.counted == [kind]


@pytest.mark.parametrize(
    ("kind", "executed", "ends"),
    [
        ("reset", 0, True), ("lost-request", 0, False), ("lost-reply", 1, False), ("cut-request", 0, True),
        ("cut-reply", 1, True),
    ],
)  # fmt: skip
async def test_what_is_lost(bench: Bench, kind: str, executed: int, ends: bool) -> None:
    """Whether the call was executed, and whether its sender is told that something happened."""
    client = await bench.client()
    bench.proxy.arm(kind)
    await client.say(bench.call)
    if ends:
        heard = b""
        while piece := await client.hear():
            heard += piece
        assert heard in (b"", b":", b":1", b":1\r")
        await wait_for(lambda: bench.executed() == executed, "the call")
    else:
        await wait_for(lambda: bench.counted == [kind], "the fault")
        await wait_for(lambda: bench.executed() == executed, "the call")
        await client.say(bench.call)  # what follows on a dead connection is lost as well
        await wait_for(lambda: bench.executed() == 2 * executed, "the next call")
        assert await silent(bench, client)
        assert bench.executed() == 2 * executed + 1
    assert bench.counted == [kind]


async def test_a_late_request_is_executed_when_its_sender_is_gone(bench: Bench) -> None:
    bench.proxy.late = 0.05
    client = await bench.client()
    bench.proxy.arm("late-request")
    await client.say(bench.call)
    await wait_for(lambda: bench.counted == ["late-request"], "the fault")
    assert bench.executed() == 0
    client.writer.close()
    await wait_for(lambda: bench.executed() == 1, "the late call")


async def test_merged_answers_come_in_one_piece(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.arm("merged")
    await client.say(bench.call)
    await wait_for(lambda: bench.executed() == 1, "the call")
    await client.say(bench.call)
    assert bench.counted == []
    assert await client.hear() == b":1\r\n:2\r\n"
    assert bench.counted == ["merged"]


async def test_a_fault_that_meets_nothing_is_not_counted(bench: Bench) -> None:
    """One answer is late but not merged; nothing came to be split or to be late."""
    client = await bench.client()
    bench.proxy.arm("merged")
    await client.say(bench.call)
    assert await client.hear() == b":1\r\n"
    bench.proxy.begin("split")
    bench.proxy.begin("latency")
    await bench.proxy.heal()
    await client.say(bench.call)
    await client.hear()
    assert bench.counted == []


async def test_a_full_server_greets_with_an_error(bench: Bench) -> None:
    bench.proxy.arm("max-clients")
    client = await bench.client(login=False)
    assert await client.hear() == FULL
    assert await client.hear() == b""
    await bench.client()


async def test_a_black_hole_takes_all_and_closes_nothing(bench: Bench) -> None:
    old = await bench.client()
    bench.proxy.begin("black-hole")
    new = await bench.client(login=False)
    for client in (old, new):
        await client.say(bench.call)
    await bench.proxy.heal()
    await old.say(bench.call)
    assert await silent(bench, old)
    assert await silent(bench, new)
    assert bench.executed() == 2  # of the two that looked


async def test_refused_connections_end_and_come_back(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.begin("refused")
    assert await client.hear() == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", bench.proxy.port)
    await bench.proxy.heal()
    await bench.client()


async def test_split_answers_come_piece_by_piece(bench: Bench) -> None:
    client = await bench.client()
    bench.proxy.begin("split")
    assert bench.counted == []
    await client.say(bench.call)
    assert await client.hear() in (b":", b":1", b":1\r")
    assert bench.counted == ["split"]
    await bench.proxy.heal()


async def test_latency_holds_an_answer_back(bench: Bench) -> None:
    """The call is executed, and its answer is not there yet; without the fault it would be."""
    client = await bench.client()
    bench.proxy.begin("latency")
    bench.proxy.slow = 0.6
    await client.say(bench.call)
    hearing = asyncio.ensure_future(client.hear())
    await wait_for(lambda: bench.executed() == 1, "the call")
    direct = await asyncio.open_connection("127.0.0.1", bench.server.port)
    direct[1].write(packed("PING"))
    assert (await direct[0].readline()).startswith(b"-NOAUTH")
    assert not hearing.done()
    assert await hearing == b":1\r\n"
    direct[1].close()


async def test_subscribers_hear_what_is_published(bench: Bench) -> None:
    """After SSUBSCRIBE the proxy has no order to keep, and passes what comes."""
    client = await bench.client()
    await client.say(packed("SSUBSCRIBE", "sb1:{t.00}:hints"))
    assert b"ssubscribe" in await client.hear()
    bench.server.admin().execute_command("SPUBLISH", "sb1:{t.00}:hints", "hello")
    assert b"hello" in await client.hear()


def test_there_are_enough_kinds_and_each_was_tried_here() -> None:
    tried = {
        *ERRORS, *LASTING, "reset", "lost-request", "lost-reply", "cut-request", "cut-reply", "late-request", "merged",
        "max-clients",
    }  # fmt: skip
    assert tried == {*ONCE, *LASTING}
    assert len(tried) >= 14


@pytest.mark.parametrize(
    "frame",
    [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"$4\r\na\r\nb\r\n", b"*-1\r\n", b"*0\r\n",
     b"*2\r\n$1\r\na\r\n*1\r\n:3\r\n"],
)  # fmt: skip
def test_where_a_frame_ends(frame: bytes) -> None:
    """Cut anywhere it is not complete; with more behind it, it ends where it ends."""
    assert [_resp.end(frame[:length]) for length in range(len(frame))] == [-1] * len(frame)
    assert _resp.end(frame + b"+more\r\n") == len(frame)
    assert _resp.end(b"xx" + frame, 2) == len(frame) + 2


def test_the_keys_of_a_call() -> None:
    assert _resp.keys(packed("EVALSHA", "f" * 40, "2", "a", "b", "c")) == ["a", "b"]
    assert _resp.keys(packed("GET", "a", "b")) == []
