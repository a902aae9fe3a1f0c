"""state="conversation" in its corners: what is adopted, what the lock is asked for, and how much is added at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Retry
from streambatch.runners import _conversation as conversation
from tests.fakes.provider import Fault, Plan, Provider
from tests.runners.tools import Talk


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test can wait for."""
    monkeypatch.setattr(conversation, "COMMIT", 0.2)
    monkeypatch.setattr(conversation, "WAITS", (0.01,))


def users(fake: Provider) -> list[str]:
    """What users said in the only conversation."""
    (held,) = fake.conversations
    return [text for kind, text in fake.history(held) if kind == "user"]


def posts(fake: Provider) -> int:
    return len(fake.posts("/responses"))


async def unsure(fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch died after its POST, so long ago that the POST has arrived if it ever does."""
    await talk.crash("a", when=lambda: fake.until(lambda: posts(fake) == 1))
    monkeypatch.setattr(conversation, "PATIENCE", 0.0)


async def test_an_answer_to_others_is_not_ours(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    said: list[tuple[str, str, dict[str, Any]]] = [
        ("msg_x", "user", {"type": "input_text", "text": "from the web"}),
        ("msg_y", "assistant", {"type": "output_text", "text": "told the web", "annotations": []}),
    ]
    fake.conversations[talk.state["conversation"]].items += [
        {"type": "message", "id": name, "role": role, "content": [content]} for name, role, content in said
    ]
    assert (await talk.say("b")).text == "I got 1 messages: b"
    assert users(fake) == ["a", "from the web", "b"]


async def test_c01_it_is_asked_who_holds_the_lock_at_every_attempt(
    fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is unsure stays so over attempts, and posts nothing while the lock is held: not even to be refused."""
    hold = asyncio.Event()
    fake.script = [Plan(start=hold, never_answers=True)]
    await unsure(fake, talk, monkeypatch)
    for _ in range(2):
        with pytest.raises(Retry, match="busy") as caught:
            await talk.again()
        assert not caught.value.count
    assert posts(fake) == 1
    hold.set()
    await fake.until(lambda: users(fake) == ["a"])
    assert (await talk.again()).text == "I got 1 messages: a"
    assert posts(fake) == 1


@pytest.mark.parametrize(("status", "count"), [(500, True), (429, False)])
async def test_c01_nothing_is_posted_while_nobody_knows_who_holds_the_lock(
    fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch, status: int, count: bool
) -> None:
    fake.faults.append(Fault("/responses", "POST", times=1, cut="hang"))
    await unsure(fake, talk, monkeypatch)
    fake.faults.append(Fault("/conversations/*/items/*", "DELETE", times=1, status=status, body={"error": {}}))
    with pytest.raises(Retry) as caught:
        await talk.again()
    assert (caught.value.count, posts(fake)) == (count, 1)
    assert (await talk.again()).text == "I got 1 messages: a"
    assert (posts(fake), users(fake)) == (2, ["a"])


async def test_c01_what_completes_before_the_lock_is_asked_for_is_adopted(
    fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there at the first look, and the lock was free: so there has to be a second look."""
    hold, gate = asyncio.Event(), asyncio.Event()
    fake.script = [Plan(start=hold, never_answers=True)]
    await unsure(fake, talk, monkeypatch)
    monkeypatch.setattr(conversation, "COMMIT", 0.0)
    fake.faults.append(Fault("/conversations/*/items/*", "DELETE", times=1, latency=gate))
    attempt = asyncio.ensure_future(talk.again())
    await fake.until(lambda: any(request.method == "DELETE" for request in fake.requests))
    hold.set()
    await fake.until(lambda: users(fake) == ["a"])
    gate.set()
    assert (await attempt).text == "I got 1 messages: a"
    assert (posts(fake), users(fake)) == (1, ["a"])


async def test_c12_what_comes_late_is_not_added_as_well(
    fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "COMMIT", 60.0)
    late = asyncio.Event()
    fake.switches.items_late = late
    talk.next("a")
    attempt = asyncio.ensure_future(talk.again())

    def looks() -> int:
        return sum(request.method == "GET" and request.path.endswith("/items") for request in fake.requests)

    await fake.until(lambda: [r["status"] for r in fake.responses.values()] == ["completed"])
    until = looks() + 3
    await fake.until(lambda: looks() >= until or fake.posts("/conversations/*/items"))
    late.set()
    await attempt
    assert (users(fake), fake.posts("/conversations/*/items")) == (["a"], [])


async def test_c19_what_is_added_later_is_added_in_steps(fake: Provider, talk: Talk) -> None:
    """The items of a response that never come, after more messages than one call can add."""
    fake.switches.items_late = asyncio.Event()
    many = [f"m{n}" for n in range(45)]
    await talk.say(*many)
    assert users(fake) == many
    assert [len(request.body["items"]) for request in fake.posts("/conversations/*/items")] == [20, 20, 6]
