"""memory:// URLs: who sees what, what they say of themselves, and what they refuse."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from streambatch import BatchQueue, DurabilityUnknown, Replicas, UsageError, Warned
from streambatch._scripts import SUBMIT
from streambatch.testing import ScriptedDeliver, ScriptedRunner, _memory
from tests.rig import process


@pytest.fixture
def url() -> Iterator[str]:
    name = uuid4().hex
    yield f"memory://{name}"
    _memory.forget(name)


def opened(url: str, **more: Any) -> BatchQueue:
    return BatchQueue(url, log=False, debounce=0, **more)


async def test_queues_of_one_name_see_the_same(url: str) -> None:
    runner, deliver = ScriptedRunner("Hello!"), ScriptedDeliver()
    async with opened(url) as bot, opened(url, runner=runner), opened(url, deliver=deliver):
        receipt = await bot.submit("t", "hi")
        reply = await receipt.reply(timeout=10)
        assert reply is not None
        assert reply.text == "Hello!"
        await deliver.began()
    async with opened(url) as later:
        assert (await later.stats()).received == 1


async def test_without_a_name_a_queue_is_alone() -> None:
    async with opened("memory://") as one, opened("memory://") as other:
        await one.submit("t", "hi")
        assert (await one.stats()).received == 1
        assert (await other.stats()).received == 0


async def test_what_was_forgotten_is_gone(url: str) -> None:
    async with opened(url) as queue:
        await queue.submit("t", "hi")
    _memory.forget(url.removeprefix("memory://"))
    async with opened(url) as queue:
        assert (await queue.stats()).received == 0


def test_a_name_outlives_the_loop_of_a_queue(url: str) -> None:
    async def submit() -> None:
        async with opened(url) as queue:
            await queue.submit("t", "hi")

    async def received() -> int:
        async with opened(url) as queue:
            return (await queue.stats()).received

    asyncio.run(submit())
    assert asyncio.run(received()) == 1


async def test_it_says_once_that_it_is_not_durable(url: str) -> None:
    events: list[object] = []
    async with opened(url, listeners=[events.append]):
        pass
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert warned.code == "memory"
    assert "for tests" in warned.message


async def test_durability_is_not_pretended(url: str) -> None:
    with pytest.raises(UsageError, match="appendonly"):
        await opened(url, durability="disk").__aenter__()
    async with opened(url) as queue:
        with pytest.raises(DurabilityUnknown):
            await queue.submit("t", "hi", durability=Replicas(1, timeout=0.1))


async def test_a_server_that_forgets_its_scripts_gets_them_again(url: str) -> None:
    async with opened(url) as queue:
        await queue.submit("t", "hi")
        cache = _memory.Place(url).server.script_cache
        assert SUBMIT.sha.encode() in cache
        cache.clear()
        await queue.submit("t", "hi")
        assert (await queue.stats()).received == 2


async def test_a_burst_of_callers_is_one_call(url: str) -> None:
    """Group commit works as on any server: the answers lie ready, and yet what gathered goes together."""
    async with opened(url) as queue:
        receipts = await asyncio.gather(*(queue.submit("t", f"{i}") for i in range(100)))
        assert len({receipt.id for receipt in receipts}) == 100
        assert [message.text for message in await queue.pending("t")] == [f"{i}" for i in range(100)]


@pytest.mark.parametrize("bad", ["memory:x", "memory://a/b", "memory://me@a", "memory://a?b=c"])
def test_a_url_that_says_more_than_a_name_is_refused(bad: str) -> None:
    with pytest.raises(UsageError, match="at most a name"):
        BatchQueue(bad)


@pytest.mark.parametrize("verb", ["doctor", "torture"])
def test_tools_that_look_from_outside_say_that_they_cannot(verb: str) -> None:
    command = [sys.executable, "-m", "streambatch", verb, "--url", "memory://bot"]
    done = subprocess.run(command, cwd=process.ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "nobody else can look at it" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("missing", "use"),
    [
        ("fakeredis", "from streambatch import BatchQueue; BatchQueue('memory://')"),
        ("fakeredis", "from streambatch.testing import Bench"),
        ("fakeredis", "from streambatch.testing import plugin; next(plugin.streambatch_bench.__wrapped__(None))"),
        ("time_machine", "from streambatch.testing import Clock; Clock().__enter__()"),
    ],
)
def test_without_the_extra_it_says_which_one(missing: str, use: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from streambatch import UsageError\n"
        f"try: {use}\n"
        "except (UsageError, ImportError) as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=process.ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert f'needs {missing}: pip install "streambatch-queue[testing]"' in done.stdout


@pytest.mark.timeout(150)
def test_the_scripts_keep_their_contract_there() -> None:
    """A slice of the integration tests; ``nox -s topologies`` runs them all."""
    slices = [f"tests/integration/test_{name}.py" for name in ("invariants_messages", "split", "cancel_state")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--topology", "memory", *slices]
    done = subprocess.run(command, cwd=process.ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
