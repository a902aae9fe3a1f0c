"""in_pieces: each piece once, whatever the platform refuses in between, and what its refusals mean."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streambatch import DeadLetter, Reply, Retry
from streambatch.integrations import in_pieces


class Flood(Exception):
    """As the libraries of platforms have it."""

    def __init__(self, after: float | timedelta) -> None:
        super().__init__("slowly")
        self.retry_after = after


class Gone(Exception):
    """The chat is not there."""


def reply(name: str = "r", text: str = "a b c") -> Reply:
    return Reply(name, "t", "b", ("m",), text)


def chat(troubles: list[Exception | None]) -> tuple[Any, list[tuple[str, str, int]]]:
    """A deliver callback whose n-th call of the platform meets the n-th trouble; and what was sent."""
    sent: list[tuple[str, str, int]] = []

    @in_pieces(str.split, flood=Flood, refused=(Gone, KeyError))
    async def send(reply: Reply, piece: str, number: int) -> None:
        if troubles and (trouble := troubles.pop(0)) is not None:
            raise trouble
        sent.append((reply.id, piece, number))

    return send, sent


async def test_pieces_go_out_in_order_and_a_reply_without_text_has_none() -> None:
    deliver, sent = chat([])
    await deliver(reply())
    await deliver(reply("empty", ""))
    assert sent == [("r", "a", 0), ("r", "b", 1), ("r", "c", 2)]


@pytest.mark.parametrize("after", [2, 2.0, timedelta(seconds=2)])
async def test_a_flood_waits_as_long_as_it_says_uses_up_no_attempt_and_repeats_no_piece(
    after: float | timedelta,
) -> None:
    """Another reply goes out meanwhile, and the one that waits begins where it was."""
    deliver, sent = chat([None, Flood(after), None, None, None, Flood(after)])
    with pytest.raises(Retry) as told:
        await deliver(reply())
    assert (told.value.after, told.value.count) == (2.0, False)
    await deliver(reply("other", "x y z"))
    with pytest.raises(Retry):
        await deliver(reply())
    await deliver(reply())
    assert [piece for name, piece, _ in sent if name == "r"] == ["a", "b", "c"]
    assert [number for name, _, number in sent if name == "r"] == [0, 1, 2]


async def test_a_refusal_is_a_dead_letter_named_by_its_class_and_a_redriven_reply_goes_on_behind_what_is_out() -> None:
    """While the dead letters are full it comes again without anybody's asking, once a minute."""
    for trouble in (Gone("secret"), KeyError("secret"), DeadLetter("its own reason")):
        deliver, sent = chat([None, trouble])
        with pytest.raises(DeadLetter) as told:
            await deliver(reply())
        own = isinstance(trouble, DeadLetter)
        assert told.value.reason == ("its own reason" if own else type(trouble).__name__)
        await deliver(reply())
        assert [piece for _, piece, _ in sent] == ["a", "b", "c"]
        await deliver(reply())  # it was delivered, so this is another time
        assert [piece for _, piece, _ in sent] == ["a", "b", "c"] * 2


async def test_what_nobody_named_is_raised_as_it_is_and_the_next_try_goes_on() -> None:
    deliver, sent = chat([None, ValueError("x"), Retry(5)])
    with pytest.raises(ValueError, match="x"):
        await deliver(reply())
    with pytest.raises(Retry) as told:
        await deliver(reply())
    assert (told.value.after, told.value.count) == (5.0, True)
    await deliver(reply())
    assert [piece for _, piece, _ in sent] == ["a", "b", "c"]


async def test_a_delivered_reply_is_forgotten_and_there_is_a_bound_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three replies that stand still only the last two are remembered."""
    monkeypatch.setattr("streambatch.integrations._pieces.KEPT", 2)
    deliver, sent = chat([None, ValueError("x")] * 3)
    for name in ("1", "2", "3"):
        with pytest.raises(ValueError, match="x"):
            await deliver(reply(name))
    for name in ("2", "3", "1"):
        await deliver(reply(name))
    assert [[piece for who, piece, _ in sent if who == name] for name in ("1", "2", "3")] == [
        ["a", "a", "b", "c"],
        ["a", "b", "c"],
        ["a", "b", "c"],
    ]
    await deliver(reply("2"))  # it was delivered: an operator sends it again, and it is whole
    assert [piece for who, piece, _ in sent if who == "2"] == ["a", "b", "c"] * 2
