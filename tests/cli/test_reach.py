"""How a verb reaches a namespace: it makes and joins none, shortens no life, and tells the truth if re-sent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from streambatch import BatchQueue, RunCancelled, Settings, UsageError
from streambatch._keys import Keys
from streambatch._scripts import Wire
from streambatch.cli import _reach
from streambatch.errors import Unreachable
from tests.cli.stage import staged
from tests.cli.terminal import Terminal
from tests.cli.tools import finish, quick
from tests.embedded.tools import using
from tests.rig import Server, wait_for
from tests.rig.clients import connect_async

pytestmark = [pytest.mark.timeout(120), pytest.mark.leaves_keys("what a cancel leaves of a thread lives for a month")]


async def test_a_cancel_shortens_nothing_that_the_bot_lets_live(server: Server, namespace: str) -> None:
    """The bot keeps replies for two hours and ids for a day, which are not the defaults that the command line has."""

    keys = Keys(namespace, Settings().partitions)
    reply, last = keys.some(keys.partition("anna"), "anna", ("reply", "last"))
    lives = server.admin().pttl

    async with staged(server.url, namespace, reply_retention=7_200.0, dedup_window=86_400.0) as stage:
        receipt = await stage.queue.submit("anna", "hi")
        assert await receipt.reply() is not None
        await wait_for(lambda: _drained(stage.queue), "the delivery")
        await stage.queue.submit("anna", "no", debounce=60)
        code, out, err = await quick("cancel", "anna", "--namespace", namespace, **stage.here)
        assert (code, "1 waiting message dropped" in out) == (0, True), err
        assert 7_000_000 < lives(reply) <= 7_200_000
        assert lives(last) > 86_000_000
        server.admin().delete(reply)  # its time ended
        third = await stage.queue.submit("anna", "no", debounce=60)
        assert (await quick("cancel", "anna", "--namespace", namespace, **stage.here))[0] == 0
        assert lives(reply) > 86_000_000
        with pytest.raises(RunCancelled):
            await third.reply()
        assert await (await stage.queue.submit("anna", "yes")).reply() is not None
        await wait_for(lambda: _drained(stage.queue), "the delivery")
        assert lives(last) <= 86_400_000
        assert lives(reply) <= 7_200_000


async def _drained(queue: BatchQueue) -> bool:
    found = await queue.stats()
    return not (found.due or found.undelivered)


def test_what_a_cancel_leaves_lives_as_long_as_any_settings_can_say() -> None:
    Settings(dedup_window=_reach.LONGEST, reply_retention=_reach.LONGEST)
    with pytest.raises(UsageError):
        Settings(dedup_window=_reach.LONGEST + 1)
    with pytest.raises(UsageError):
        Settings(reply_retention=_reach.LONGEST + 1)


@pytest.mark.parametrize("words", [("pause",), ("resume", "a"), ("cancel", "a")], ids=lambda words: words[0])
async def test_a_namespace_that_is_gone_between_look_and_command_is_not_made(
    server: Server, namespace: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a FLUSHALL at the worst moment: only a process of the bot makes a namespace."""
    async with BatchQueue(server.url, namespace=namespace, log=False):
        pass
    looked: Any = _reach._layout  # pyright: ignore[reportPrivateUsage]

    async def gone(client: Any, keys: Any) -> Any:
        row = await looked(client, keys)
        for partition in range(Settings().partitions):
            meta = Keys(namespace, partition + 1).of(partition, "meta")
            await asyncio.to_thread(server.admin().delete, meta)
        return row

    monkeypatch.setattr(_reach, "_layout", gone)
    code, out, err = await quick(*words, "--namespace", namespace, STREAMBATCH_URL=server.url)
    assert (code, out) == (2, "")
    assert f"namespace '{namespace}', or a part of it, was there and is not any more" in err
    assert len(err.splitlines()) == 1
    assert not server.admin().exists(f"sb1:{{{namespace}.00}}:meta")


async def test_a_discard_whose_answer_was_lost_says_what_it_did(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent again and finds nothing, because the first sending deleted it. One that never was is not there."""
    async with staged(server.url, namespace) as stage:
        await stage.say("dead-1")
        (letter,) = await wait_for(stage.queue.dead_letters, "the letter")
        call, lost = Wire.call, list[str]()

        async def loses(self: Wire, script: Any, keys: Any, argv: Any, *extra: Any) -> Any:
            answer = await call(self, script, keys, argv, *extra)
            if script is None and argv[0] == "XDEL" and len(lost) % 2 == 0:
                lost.append(argv[2])
                raise Unreachable("the server does not answer", sent=True)
            if script is None and argv[0] == "XDEL":
                lost.append(argv[2])
            return answer

        monkeypatch.setattr(Wire, "call", loses)
        words = ("dead", "discard", letter.id, "--json", "--namespace", namespace)
        code, out, err = await quick(*words, **stage.here)
        assert (code, json.loads(out)["done"]) == (0, {"discarded": 1}), err
        assert len(lost) == 2
        code, out, err = await quick(*words, **stage.here)
        assert (code, json.loads(out)["done"]) == (1, {"gone": 1}), err


async def test_an_embedded_folder_is_one_that_a_server_was_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the home, as for the bot; in any other folder that is there nothing is started and nothing made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with BatchQueue("embedded:~/data", log=False, debounce=60) as queue:
        await queue.submit("anna", "hi")
        code, out, err = await finish("threads", "--url", "embedded:~/data")
        assert (code, "anna " in out) == (0, True), err
    (tmp_path / "pictures").mkdir()
    for url in (f"embedded:{tmp_path}/pictures", f"embedded:{tmp_path}", "embedded:~/pictures"):
        code, out, err = await finish("threads", "--url", url)
        assert (code, out) == (2, "")
        assert err == f"streambatch: {url}: no embedded server was ever in this folder; name the one the bot has\n"
    assert list((tmp_path / "pictures").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"data", "pictures"}


async def test_on_an_embedded_server_the_namespaces_that_are_there_are_named(tmp_path: Path) -> None:
    """A few of them, of the alphabet's first, and no key that none of ours wrote."""
    url = f"embedded:{tmp_path}/data"
    async with BatchQueue(url, namespace="telegram", log=False):
        screen = await Terminal.start("threads", "--url", url, size=(160, 20))
        try:
            assert await screen.end() == 2
        finally:
            await screen.close()
        there = "nothing is stored under namespace 'default' there, but under "
        assert f"streambatch: {there}telegram: --namespace" in screen.text
        others = [f"bot{number}" for number in range(5)]
        for name in others:
            async with BatchQueue(url, namespace=name, log=False):
                pass
        async with using(url) as place, connect_async(f"unix://{place.socket}") as client:
            await client.set("sb1:{a b.00}:meta", "foreign")
        code, out, err = await finish("inspect", "anna", "--url", url)
    assert (code, out) == (2, "")
    assert err == f"streambatch: {there}{', '.join(others)} and others: --namespace\n"


async def test_the_search_for_namespaces_ends_however_many_keys_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()

    async def call(self: Wire, script: Any, keys: Any, argv: Any, *extra: Any) -> Any:
        asked.append(argv)
        assert len(asked) <= 100, "it never ends"
        return b"7", [b"sb1:{n.00}:meta"]

    monkeypatch.setattr(Wire, "call", call)
    others: Any = _reach._others  # pyright: ignore[reportPrivateUsage]
    async with connect_async("redis://127.0.0.1:1") as client:
        assert await others(client, Keys("x", 1)) == ["n"]
    assert len(asked) == _reach.ROUNDS
    assert {row[0] for row in asked} == {"SCAN"}
    assert {row[-1] for row in asked} == {1_000}
