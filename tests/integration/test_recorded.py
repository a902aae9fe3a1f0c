"""I15: what each release left in Redis is worked off by the package of today, on every kind of server, to the end.

Theory of operation. A set (tests/recorded) is put into a fresh server, with another bot in front of it than the one
that made it, as if it were a minute old, or a day; or as if the clock had been put back by a day since. Each thread
must come to the end that its state promises: messages that were given a Run are given the same one again, what was
committed is only delivered, what was cancelled stays cancelled. Then nothing is left but what expires.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from streambatch import Answer, Batch, BatchQueue, Reply, Run, RunCancelled
from tests.conftest import StartServer
from tests.recorded.__main__ import DATA, main, path_of, recorded, this_version
from tests.recorded.keys import moved, put, shape
from tests.recorded.scene import STATES
from tests.rig import wait_for
from tests.rig.leaks import leaked

SETS = sorted(DATA.glob("namespace-*.json"))


class Heir:
    """The bot that finds the namespace."""

    kind = "recorded"
    history = True

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[Batch, bytes | None]]] = {}
        self.cancelled: list[tuple[str, bytes | None]] = []
        self.said: dict[str, list[Reply]] = {}

    async def run(self, batch: Batch, run: Run) -> Answer:
        """Answer, and remember what was given."""
        self.runs.setdefault(batch.thread, []).append((batch, run.data))
        return Answer(f"heir to {batch.text}")

    async def cancel(self, batch: Batch, run: Run) -> None:
        """End a Run that was cancelled before."""
        self.cancelled.append((batch.thread, run.data))

    async def deliver(self, reply: Reply) -> None:
        """Hand over."""
        self.said.setdefault(reply.thread, []).append(reply)

    def texts(self, thread: str) -> list[str]:
        """What was handed over to a thread."""
        return [reply.text for reply in self.said.get(thread, [])]


#: Thread: what is delivered of it when everything is worked off, but for the paused one and the dead letters.
SAID = {
    "queued": ["heir to one\ntwo"],
    "history": ["heir to two"],
    "active": ["heir to one"],
    "behind": ["heir to one", "heir to two"],
    "split": ["heir to one\ntwo", "heir to three\nfour"],
    "retrying": ["heir to one"],
    "failed": ["heir to one"],
    "undelivered": ["answer to one"],
    "delivering": ["answer to one"],
}


@pytest.mark.parametrize("age", [61, 86_400, -86_400], ids=["a minute old", "a day old", "clock put back by a day"])
@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
async def test_what_a_release_left_behind_is_worked_off(start_server: StartServer, path: Path, age: int) -> None:
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    server, heir = start_server(), Heir()
    keys = moved(told["keys"], round((time.time() - age) * 1000) - told["at"])
    put(server.admin(), keys)
    given: dict[str, Any] = {"namespace": told["namespace"], "partitions": 1, "debounce": 0.05, "log": False}
    async with BatchQueue(server.url, runner=heir, deliver=heir.deliver, **given) as queue:
        await wait_for(lambda: {t: heir.texts(t) for t in SAID} == SAID and heir.cancelled, "all that waited")
        _runs(heir, keys, told["namespace"])
        await _outcomes(queue, heir)
        await queue.resume("paused")
        await queue.run_now("paused")  # after a clock was put back a window may last a minute
        letters = {letter.thread: letter for letter in await queue.dead_letters()}
        assert {(one.thread, one.kind) for one in letters.values()} == {("dead", "batch"), ("unsaid", "reply")}
        assert [await queue.redrive(letter.id) for letter in letters.values()] == ["redriven"] * 2
        more = {"paused": ["heir to one"], "dead": ["heir to one"], "unsaid": ["answer to one"]}
        await wait_for(lambda: {t: heir.texts(t) for t in more} == more, "what was paused or dead")
        await wait_for(lambda: _idle(queue), "the drain")
        assert set(heir.said) == {*SAID, *more}
    assert leaked(server.admin(), told["namespace"]) == []


def _runs(heir: Heir, keys: dict[str, Any], namespace: str) -> None:
    """The same batches as before, with what their Runs had kept; attempts are counted on; history is there."""
    (active, data), *_ = heir.runs["active"]
    assert (data, active.attempt) == (b"half way", 2)
    first = keys[f"sb1:{{{namespace}.00}}:run:active"]["value"]["first"]
    assert active.id.startswith(first)
    assert [message.entry for message in active.messages] == [first]
    message = active.messages[0]
    assert (message.id, message.author, message.metadata) == ("active-one", "ann", {"chat": "active"})
    assert [batch.attempt for batch, _ in heir.runs["failed"]] == [2]
    later, _ = heir.runs["history"][0]
    assert (later.history, later.state) == (({"said": "one"},), {"runs": 1})
    assert heir.cancelled == [("cancelling", b"half way")]
    assert [heir.said[thread][0].sequence for thread in ("undelivered", "delivering")] == [1, 1]
    assert not {"undelivered", "delivering", "done", "cancelled", "cancelling", "unsaid"} & set(heir.runs)


async def _outcomes(queue: BatchQueue, heir: Heir) -> None:
    """Who asks late is told: an answer, a cancellation; a message that is sent again is known."""
    done = await queue.receipt("done", message_id="done-one")
    reply = await done.reply(20)
    assert reply is not None
    assert reply.text == "answer to one"
    for thread in ("cancelled", "cancelling"):
        with pytest.raises(RunCancelled):
            await (await queue.receipt(thread, message_id=f"{thread}-one")).reply(20)
    again = await queue.submit("done", "one", message_id="done-one")
    assert again == done
    assert "done" not in heir.said


async def _idle(queue: BatchQueue) -> bool:
    stats = await queue.stats()
    return not any((stats.messages, stats.due, stats.undelivered, stats.in_hand, stats.parked, stats.dead))


def test_there_is_a_set_of_this_version_and_every_set_has_every_state() -> None:
    assert path_of(this_version()) in SETS
    assert set(SAID) < set(STATES)


async def test_the_set_of_this_version_is_what_this_version_writes(start_server: StartServer) -> None:
    """The keys, their types, their fields, and which of them expire; if not, the file's docstring says what to do."""
    told: dict[str, Any] = json.loads(path_of(this_version()).read_text(encoding="utf-8"))
    assert shape(await recorded(start_server())) == shape(told["keys"])


def test_a_set_is_never_written_again(tmp_path: Path) -> None:
    path = tmp_path / "namespace-1.0.json"
    path.write_text("what a release left behind")
    with pytest.raises(SystemExit, match="never written again"):
        main(path)
    assert path.read_text() == "what a release left behind"
