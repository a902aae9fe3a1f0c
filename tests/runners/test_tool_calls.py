"""What a call of a tool leaves behind, and what a replay makes of it (C20)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from streambatch import Batch, DeadLetter, LeaseLost, Park, Retry, StoreError, TooLarge
from streambatch.runners import ToolCall, ToolError, tool
from streambatch.runners._memo import Memo
from streambatch.runners._tools import LONGEST_RESULT, Asked, answered, tools_of
from tests.runners.tools import FakeRun, batch

Given = Sequence[Callable[..., Any]]


class Bed:
    """One batch over several replays, and a log of its checkpoints."""

    def __init__(self, *given: Callable[..., Any], most: int = 2**20) -> None:
        self.tools = tools_of(given)
        self.batch = batch("x")
        self.saved: list[dict[str, Any]] = []
        self.data: bytes | None = None
        self.most = most
        self.fail: Exception | None = None

    async def checkpoint(self, data: bytes) -> None:
        if self.fail is not None:
            raise self.fail
        if len(data) > self.most:
            raise TooLarge
        self.data = data
        self.saved.append(json.loads(data).get("calls", {}))

    async def go(self, *asked: Asked) -> dict[str, str]:
        """A Run, or the replay of it, that comes to these calls."""
        run = FakeRun(self.batch, self.data)
        run.checkpoint = self.checkpoint
        return await answered(self.tools, asked, Memo(run, "test"), self.batch)

    @property
    def marks(self) -> dict[str, Any]:
        return self.saved[-1] if self.saved else {}


def call(call_id: str, name: str, **arguments: Any) -> Asked:
    return Asked(call_id, name, json.dumps(arguments))


async def test_a_call_is_marked_before_it_starts_and_with_its_result() -> None:
    seen: list[Any] = []

    async def weather(city: str, about: ToolCall) -> str:
        seen.append((dict(bed.marks), about))
        return f"sunny in {city}"

    bed = Bed(weather)
    assert await bed.go(call("c1", "weather", city="Rome")) == {"c1": "sunny in Rome"}
    assert seen == [({"c1": {"s": 1}}, ToolCall("c1", "weather", "t", bed.batch.id))]
    assert bed.saved == [{"c1": {"s": 1}}, {"c1": {"r": "sunny in Rome"}}]
    assert await bed.go(call("c1", "weather", city="Rome")) == {"c1": "sunny in Rome"}
    assert len(seen) == 1  # the replay took the saved result


async def test_parallel_calls_run_at_the_same_time_and_c20_a_replay_runs_only_what_has_no_result() -> None:
    started: list[str] = []
    both, never = asyncio.Barrier(2), asyncio.Event()

    async def quick(n: int) -> int:
        started.append("quick")
        await both.wait()
        return n

    async def slow() -> str:
        started.append("slow")
        await both.wait()
        await never.wait()
        return "at last"

    bed = Bed(quick, tool(policy="rerun")(slow))
    asked = (call("c1", "quick", n=1), call("c2", "slow"))
    run = asyncio.create_task(bed.go(*asked))
    while bed.marks != {"c1": {"r": "1"}, "c2": {"s": 1}}:  # noqa: ASYNC110 - each round is one step of the tools
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert bed.marks == {"c1": {"r": "1"}, "c2": {"s": 1}}
    never.set()
    both = asyncio.Barrier(1)
    assert await bed.go(*asked) == {"c1": "1", "c2": "at last"}
    assert started == ["quick", "slow", "slow"]


@pytest.mark.parametrize(
    ("policy", "told", "runs"),
    [("rerun", ["done"], 2), ("fail_output", ["interrupted", "unknown"], 1), ("ask", ["unknown", "Ask the person"], 1)],
)
async def test_c20_what_was_started_and_has_no_result_follows_the_policy(
    policy: Any, told: list[str], runs: int
) -> None:
    started: list[str] = []
    gate = asyncio.Event()

    @tool(policy=policy)
    async def pay(about: ToolCall) -> str:
        started.append(about.id)
        await gate.wait()
        return "done"

    bed = Bed(pay)
    run = asyncio.create_task(bed.go(call("c1", "pay")))
    while not started:  # noqa: ASYNC110 - each round is one step of the tool
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    gate.set()
    text = (await bed.go(call("c1", "pay")))["c1"]
    assert [part for part in told if part in text] == told
    assert started == ["c1"] * runs  # and under the same id
    assert bed.marks == {"c1": {"r": text}}
    assert await bed.go(call("c1", "pay")) == {"c1": text}


@dataclass
class Found:
    name: str
    at: datetime


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is\n", "as it is\n"),
        ("half \ud83d", "half ?"),
        (None, "null"),
        (3, "3"),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        (Found("x", datetime(2026, 1, 2, tzinfo=UTC)), '{"name":"x","at":"2026-01-02T00:00:00Z"}'),
        (float("nan"), "null"),
        (Given, "Error: it is done, but its result is no JSON"),
        (b"\xff", "Error: it is done, but its result is no JSON: bytes"),
    ],
)
async def test_a_result_is_text_or_becomes_json(result: Any, text: str) -> None:
    async def get() -> Any:
        return result

    assert (await Bed(get).go(call("c", "get")))["c"].startswith(text)


async def test_a_large_result_is_cut_with_a_note_and_stays_valid() -> None:
    async def get() -> str:
        return "é" * LONGEST_RESULT

    text = (await Bed(get).go(call("c", "get")))["c"]
    assert text.endswith(f"é\n[cut here: the first {LONGEST_RESULT} of {2 * LONGEST_RESULT} bytes]")
    assert len(text.encode()) < LONGEST_RESULT + 100


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Asked("c", "nothing", "{}"), "no tool of this name. The tools are: rate, other."),
        (Asked("c", "rate", "{"), "do not fit: the arguments: Invalid JSON"),
        (Asked("c", "rate", '{"stars":"secret"}'), "do not fit: stars: Input should be a valid integer"),
    ],
    ids=str,
)
async def test_a_call_that_cannot_be_is_told_to_the_model(asked: Asked, told: str) -> None:
    async def rate(stars: int) -> None: ...
    async def other() -> None: ...

    text = (await Bed(rate, other).go(asked))["c"]
    assert text.startswith("Error: ")
    assert told in text
    assert "secret" not in text


async def test_what_a_tool_raises_is_told_by_its_type_and_its_author_by_a_log_without_the_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> None:
        raise KeyError("secret")

    async def cancelled() -> None:
        raise asyncio.CancelledError("secret")

    async def polite() -> None:
        raise ToolError("The shop is closed.")

    bed = Bed(broken, cancelled, polite)
    with caplog.at_level(logging.WARNING, "streambatch"):
        told = await bed.go(call("1", "broken"), call("2", "cancelled"), call("3", "polite"))
    assert told == {"1": "Error: KeyError", "2": "Error: CancelledError", "3": "Error: The shop is closed."}
    assert "tool broken of thread 't' failed with KeyError at test_tool_calls.py" in caplog.text
    assert "secret" not in caplog.text
    assert bed.marks["1"] == {"r": "Error: KeyError"}


async def test_a_tool_that_takes_too_long_is_ended_and_its_own_timeouts_are_its_own() -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    async def raises() -> None:
        raise TimeoutError

    bed = Bed(tool(timeout=0.01)(waits), tool(timeout=60)(raises))
    told = await bed.go(call("1", "waits"), call("2", "raises"))
    assert told["1"] == "Error: no result within 0.01 s; it is unknown whether it had an effect."
    assert told["2"] == "Error: TimeoutError"


@pytest.mark.parametrize("signal", [Retry(3), Park(4), DeadLetter("no")], ids=lambda signal: type(signal).__name__)
async def test_a_signal_goes_to_the_queue_after_the_others_are_done_and_a_replay_runs_that_call_again(
    signal: Exception,
) -> None:
    raised = asyncio.Event()
    runs: list[str] = []
    now: Exception | None = signal

    async def refuses() -> str:
        runs.append("refuses")
        if now is not None:
            raised.set()
            raise now
        return "well"

    async def works() -> str:
        runs.append("works")
        await raised.wait()
        await asyncio.sleep(0)
        return "done"

    bed = Bed(refuses, works)
    asked = (call("1", "refuses"), call("2", "works"))
    with pytest.raises(type(signal)) as caught:
        await bed.go(*asked)
    assert caught.value is signal
    assert bed.marks == {"2": {"r": "done"}}
    now = None
    assert await bed.go(*asked) == {"1": "well", "2": "done"}
    assert runs == ["refuses", "works", "refuses"]


async def test_a_lost_lease_ends_all_calls_at_once() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def loses() -> None:
        await begun.wait()
        raise LeaseLost

    async def waits() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    with pytest.raises(LeaseLost):
        await Bed(loses, waits).go(call("1", "loses"), call("2", "waits"))
    assert ended == ["waits"]


@pytest.mark.parametrize("error", [LeaseLost(), StoreError()], ids=lambda error: type(error).__name__)
async def test_no_tool_starts_that_cannot_be_marked(error: Exception) -> None:
    runs: list[str] = []

    async def pay() -> None:
        runs.append("pay")

    bed = Bed(pay)
    bed.fail = error
    with pytest.raises(type(error)) as caught:
        await bed.go(call("1", "pay"))
    assert caught.value is error
    assert runs == []


async def test_results_that_together_do_not_fit_the_checkpoint_are_replaced_by_a_note_and_no_run_dies() -> None:
    async def get(n: int) -> str:
        return str(n) * 400

    bed = Bed(get, most=1_100)
    asked = [call(str(n), "get", n=n) for n in range(4)]
    told = await bed.go(*asked)
    assert sorted(len(text) for text in told.values())[2:] == [400, 400]
    assert sum("too large to be kept" in text for text in told.values()) == 2
    assert await bed.go(*asked) == told


async def test_a_result_for_which_not_even_a_note_fits_stays_a_call_that_was_started() -> None:
    async def get() -> str:
        return "x" * 400

    bed = Bed(get, most=60)
    assert "too large to be kept" in (await bed.go(call("c", "get")))["c"]
    assert bed.marks == {"c": {"s": 1}}


async def test_a_call_is_not_started_if_not_even_its_mark_fits() -> None:
    runs: list[str] = []

    async def pay() -> None:
        runs.append("pay")

    bed = Bed(pay, most=45)
    assert "not started" in (await bed.go(call("a" * 50, "pay")))["a" * 50]
    assert runs == []
    assert bed.saved == []


async def test_a_checkpoint_of_another_form_is_no_result() -> None:
    async def get() -> str:
        return "new"

    bed = Bed(get)
    bed.data = json.dumps({"v": 1, "kind": "test", "calls": {"c": {"r": 3}}}).encode()
    assert "interrupted" in (await bed.go(call("c", "get")))["c"]
    assert isinstance(bed.batch, Batch)
