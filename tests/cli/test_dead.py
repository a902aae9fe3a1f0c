"""`streambatch dead`: letters are listed, shown, put back and thrown away, one by one or all that fit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.cli.stage import CANARY, Stage, staged
from tests.cli.terminal import Terminal
from tests.cli.tools import finish, quick
from tests.rig import Server, wait_for

pytestmark = [pytest.mark.timeout(120), pytest.mark.leaves_keys("dead letters stay until somebody decides")]


async def told(stage: Stage, *words: str, code: int = 0) -> Any:
    """What a verb of `dead` says to programs."""
    ended, out, err = await quick("dead", *words, "--namespace", stage.namespace, "--json", **stage.here)
    assert ended == code, out + err
    return json.loads(out)


async def letters(stage: Stage, count: int) -> None:
    """So many dead letters, of threads dead-0, dead-1 …"""
    for number in range(count):
        await stage.say(f"dead-{number}")

    async def there() -> bool:
        return (await stage.queue.stats()).dead == count

    await wait_for(there, "the dead letters")


async def test_letters_are_listed_and_shown_without_what_a_person_wrote(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        await letters(stage, 3)
        page = await told(stage, "list", "--count", "2")
        assert (page["total"], page["more"], len(page["letters"])) == (3, True, 2)
        first, second = page["letters"]
        assert CANARY not in json.dumps(page)
        rest = await told(stage, "list", "--after", second["id"])
        assert (rest["more"], len(rest["letters"])) == (False, 1)
        assert (await told(stage, "list", "--thread", "dead-1"))["letters"][0]["thread"] == "dead-1"
        assert (await told(stage, "list", "--reason", "NO IMAGE"))["letters"][2]["reason"] == "no image can be read"
        assert (await told(stage, "list", "--reason", "nothing"))["letters"] == []
        one = await told(stage, "show", first["id"])
        assert (one["kind"], one["attempts"], list(one["messages"][0])) == ("batch", 1, ["id", "entry"])
        one = await told(stage, "show", first["id"], "--show-content")
        assert (one["messages"][0]["text"], one["messages"][0]["author"]) == (f"{CANARY}-text", f"{CANARY}-author")
        code, out, err = await finish("dead", "list", "--namespace", namespace, "--count", "2", **stage.here)
        assert (code, len(out.splitlines()), "no image can be read" in out) == (0, 3, True)
        step = f"→ streambatch dead show ID --namespace {namespace}, then dead redrive ID or dead discard ID"
        assert err == f"3 dead letters; the next page: --after {second['id']}\n{step}\n"
        code, out, err = await finish("dead", "show", first["id"], "--namespace", namespace, **stage.here)
        assert f"streambatch dead redrive {first['id']}" in out
        assert CANARY not in out + err
        assert (await quick("dead", "show", "0/1-0", "--namespace", namespace, **stage.here))[0] == 1
        code, _, err = await quick("dead", "show", "x", "--namespace", namespace, **stage.here)
        assert (code, "is not the id of a dead letter" in err) == (2, True)


async def test_a_reply_that_nobody_could_take_is_shown_and_put_back(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace, max_delivery_attempts=1) as stage:
        await stage.say("undelivered")
        await wait_for(stage.queue.dead_letters, "a dead reply")
        (letter,) = (await told(stage, "list"))["letters"]
        assert (letter["kind"], "reply" in letter) == ("reply", False)
        assert (await told(stage, "show", letter["id"], "--show-content"))["reply"] == f"{CANARY}-reply"
        assert (await told(stage, "redrive", letter["id"]))["done"] == {"redriven": 1}


async def test_letters_are_put_back_and_thrown_away(server: Server, namespace: str) -> None:
    """By id or all that fit; those that die again meanwhile are not taken twice, and what was not there is said."""
    async with staged(server.url, namespace) as stage:
        await letters(stage, 4)
        ids = [letter["id"] for letter in (await told(stage, "list"))["letters"]]
        assert await told(stage, "discard", ids[0]) == {"asked": 1, "done": {"discarded": 1}, "failed": []}
        gone = {"asked": 2, "done": {"gone": 1, "discarded": 1}, "failed": [ids[0]]}
        assert await told(stage, "discard", ids[0], ids[1], code=1) == gone
        assert await told(stage, "redrive", ids[0], code=1) == {"asked": 1, "done": {"gone": 1}, "failed": [ids[0]]}
        assert (await told(stage, "redrive", "--all", "--thread", "dead-2"))["done"] == {"redriven": 1}
        await wait_for(lambda: _dead(stage, 2), "the letter that died again")
        assert (await told(stage, "redrive", "--all"))["done"] == {"redriven": 2}
        await wait_for(lambda: _dead(stage, 2), "the letters that died again")
        assert (await told(stage, "redrive", "--all", "--reason", "nothing"))["asked"] == 0
        for words in (("redrive",), ("redrive", ids[0], "--all"), ("redrive", "--reason", "x"), ("discard", "--all")):
            code, out, _ = await quick("dead", *words, "--namespace", namespace, **stage.here)
            assert (code, out) == (2, ""), words
        assert await _dead(stage, 2)
        assert (await told(stage, "discard", "--all", "--yes"))["done"] == {"discarded": 2}
        assert await _dead(stage, 0)


async def _dead(stage: Stage, count: int) -> bool:
    return (await stage.queue.stats()).dead == count


async def test_all_are_thrown_away_only_after_a_yes(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        await letters(stage, 2)
        for answer, code, left in (("no", 130, 2), ("yes", 0, 0)):
            words = ("dead", "discard", "--all", "--namespace", namespace)
            terminal = await Terminal.start(*words, STREAMBATCH_URL=stage.url)
            try:
                await terminal.until("Type yes:")
                terminal.give(f"{answer}\n")
                assert await terminal.end() == code, terminal.text
            finally:
                await terminal.close()
            assert await _dead(stage, left)


async def test_pages_and_partitions_are_all_walked(server: Server, namespace: str) -> None:
    """More letters than a page, over three partitions."""
    async with staged(server.url, namespace, partitions=3) as stage:
        await asyncio.gather(*(stage.say(f"dead-{number}") for number in range(120)))
        await wait_for(lambda: _dead(stage, 120), "the dead letters")
        page = await told(stage, "list", "--count", "1000")
        assert len({letter["thread"] for letter in page["letters"]}) == 120
        assert (await told(stage, "discard", "--all", "--yes", "--thread", "dead-7"))["done"] == {"discarded": 1}
        assert (await told(stage, "discard", "--all", "--yes"))["done"] == {"discarded": 119}
