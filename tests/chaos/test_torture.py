"""A short slice of the torture, as `python -m tests.chaos` plays it for minutes; and what its planted bugs rest on."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from streambatch import UsageError
from streambatch.torture import PROGRAM, Ground, Nest, Plan
from streambatch.torture._history import Log, Tail
from tests.chaos.__main__ import own_server, play
from tests.chaos.planted import BUGS
from tests.rig.process import ROOT
from tests.rig.servers import kinds


async def test_a_slice_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """Some seconds of everything: workers, submitters and the server die, and every promise is kept."""
    server, nest = own_server(next(iter(kinds())), "always"), Nest(PROGRAM)
    plan = Plan(seconds=3.0, seed=20, lease=1.0, kill_every=0.25, server_every=0.7, harm_every=0.05, disturb_every=0.5)
    try:
        report = await play(plan, server, nest, tmp_path)
        assert report.wrong == []
        assert report.ok
        assert server.admin().dbsize() == 0
    finally:
        nest.close()
        server.close()
    assert report.kills >= 3
    assert report.server_kills >= 1
    assert report.messages > report.batches > 0
    assert sum(report.faults.values()) > 20
    assert report.json()["kinds"] >= 8
    print(f"{report.faults}")


def test_every_planted_bug_has_its_place() -> None:
    """The places that `--bugs` changes are in the package, each once; a change of it changes planted.py as well."""
    for bug in BUGS:
        assert (ROOT / "streambatch" / bug.file).read_text(encoding="utf-8").count(bug.old) == 1, bug.name


@pytest.mark.parametrize("url", ["sentinel://a,b/chats", "cluster://a,b"])
def test_several_servers_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="one server"):
        Ground(url)


@pytest.mark.parametrize("more", [{"seconds": 0}, {"workers": 0}, {"submitters": 3, "threads": 2}])
def test_a_plan_that_is_none_is_refused(more: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Plan(**{"seconds": 1, **more})  # pyright: ignore[reportArgumentType]


def test_a_torn_line_is_passed_over_and_spoils_no_other(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    tail = Tail(log.path)
    log.write({"what": "a"})
    assert [note["what"] for note in tail.read()] == ["a"]
    with log.path.open("ab") as file:
        file.write(b'\n{"what": "to')
    log.write({"what": "b"})
    assert [note["what"] for note in tail.read()] == ["b"]
    assert list(tail.read()) == []
    log.close()
    tail.close()


async def test_a_nest_takes_its_workers_with_it_also_frozen_ones() -> None:
    """Whoever started it is gone: nobody is left behind (here the workers wait for a line that never comes)."""
    nest = Nest("tests.chaos.test_torture:sleep", ROOT)
    workers = [await nest.hatch(str(number)) for number in range(2)]
    for worker in workers:
        assert await worker.stdout.readline() == b"there\n"
    workers[0].send_signal(19)
    nest.close()
    async with asyncio.timeout(10):
        assert list(itertools.chain(*[[await worker.stdout.read()] for worker in workers])) == [b"", b""]
    for worker in workers:
        worker.stdin.close()


def sleep(_: str) -> None:
    """A worker that does nothing."""
    print("there", flush=True)
    input()
