"""The session that stores nothing: what it shows, what it collects, and the turn that comes out of it."""

from __future__ import annotations

from typing import Any

from streambatch.runners import _history as past
from streambatch.runners._session import LONGEST_OUTPUT, TurnSession
from tests.runners.tools import batch


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": text, "logprobs": []}]}


def used(call_id: str, output: Any = "o") -> list[dict[str, Any]]:
    asked = {"type": "function_call", "id": "fc", "call_id": call_id, "name": "f", "arguments": "{}"}
    return [asked, {"type": "function_call_output", "call_id": call_id, "output": output}]


OLD: dict[str, Any] = {"v": 1, "in": [{"a": None, "p": [{"type": "text", "text": "q"}]}], "out": "a"}


def session(*old: Any, said: str = "new") -> TurnSession:
    return TurnSession("t", old, past.turn_of(batch(said)))


async def test_it_shows_what_is_stored_and_what_was_added() -> None:
    one = session(OLD)
    await one.add_items(one.input)
    seen = await one.get_items()
    assert [item["role"] for item in seen] == ["user", "assistant", "user"]
    assert await one.get_items(2) == seen[1:]
    assert await one.get_items(0) == []
    seen[0]["role"] = "changed by the caller"
    assert (await one.get_items())[0]["role"] == "user"


async def test_a_turn_of_calls_and_words() -> None:
    one = session()
    await one.add_items(one.input)
    await one.add_items([assistant("let me see"), {"type": "reasoning", "id": "rs_1"}, *used("c1"), *used("c2")])
    await one.add_items([{"type": "web_search_call", "id": "ws_1"}, assistant("done")])
    (turn,), anew = one.turns("never")
    assert not anew
    assert turn["in"] == [{"a": None, "p": [{"type": "text", "text": "new"}]}]
    assert [(step["t"], [c["id"] for c in step["c"]]) for step in turn["do"]] == [("let me see", ["c1"]), ("", ["c2"])]
    assert turn["out"] == "done"
    assert past.known([turn])[0] is not None


async def test_parallel_calls_are_one_step_and_a_call_without_output_is_none() -> None:
    one = session()
    (first, out1), (second, out2) = used("c1"), used("c2")
    await one.add_items([*one.input, first, second, out1, out2, used("c3")[0], assistant("x")])
    (turn,), _ = one.turns("")
    assert [[c["id"] for c in step["c"]] for step in turn["do"]] == [["c1", "c2"]]


async def test_blobs_and_very_long_outputs_are_not_kept() -> None:
    one = session()
    parts = [
        {"type": "input_text", "text": "a cat"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
        {"type": "input_image", "image_url": "https://example.org/cat.png"},
        {"type": "input_file", "file_data": "AAAA"},
    ]
    await one.add_items([*one.input, *used("c1", parts), *used("c2", "x" * 100_000), assistant("x")])
    (turn,), _ = one.turns("")
    first, second = (step["c"][0]["o"] for step in turn["do"])
    assert first == "a cat\n[image]\n[image https://example.org/cat.png]\n[file]"
    assert len(second) < LONGEST_OUTPUT + 20


async def test_an_answer_that_the_session_does_not_hold_is_kept_all_the_same() -> None:
    one = session()
    await one.add_items(one.input)
    assert one.turns("I would rather not.")[0][0]["out"] == "I would rather not."


async def test_taking_back_what_was_added_touches_no_history() -> None:
    one = session(OLD)
    await one.add_items([*one.input, assistant("oops")])
    assert (await one.pop_item())["content"][0]["text"] == "oops"
    (turn,), anew = one.turns("")
    assert (turn["out"], anew) == ("", False)


async def test_taking_back_more_than_was_added_writes_the_history_anew() -> None:
    one = session(OLD, {**OLD, "out": "second"})
    assert (await one.pop_item())["content"][0]["text"] == "second"
    await one.add_items([*one.input, assistant("x")])
    turns, anew = one.turns("")
    assert anew
    assert [turn["out"] for turn in turns] == ["a", "", "x"]
    assert all(turn is not None for turn in past.known(turns))


async def test_clearing_forgets_everything() -> None:
    one = session(OLD)
    await one.clear_session()
    assert await one.pop_item() is None
    await one.add_items([user("other"), assistant("x")])
    turns, anew = one.turns("")
    assert anew
    assert [(turn["in"][0]["p"][0]["text"], turn["out"]) for turn in turns] == [("other", "x")]
