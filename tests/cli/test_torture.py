"""`streambatch torture` as a person or a script sees it: the verdict, the exit code, and what is left in the server."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from streambatch import UsageError
from streambatch.cli import _torture
from streambatch.torture import Plan, Report
from streambatch.torture._faults import ALL
from streambatch.torture._verdict import PROMISES, Checker, Wrong, table
from tests.cli.tools import environment
from tests.rig import Server, wait_for
from tests.rig.servers import kinds

pytestmark = pytest.mark.timeout(120)


async def start(folder: Path, *options: str) -> asyncio.subprocess.Process:
    """Start it in a folder."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "streambatch", "torture", *options)
    return await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment(None), stdout=pipe, stderr=pipe, start_new_session=True
    )


async def ended(child: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = await child.communicate()
    return child.returncode or 0, out.decode(), err.decode()


async def test_a_server_of_ones_own_is_not_harmed_and_keeps_its_keys(tmp_path: Path) -> None:
    """As the restricted user, over TCP: the table, the report, exit code 0; other keys stay, all of its own are gone.

    Ctrl-C ends the time early; everything after it comes as always.
    """
    server = Server(list(kinds())[-1])
    admin = server.admin()
    admin.set("sb1:{default.00}:stream:mine", "kept")
    pid, before = server.pid, admin.config_get("*")
    try:
        options = ("--url", server.tcp_url, "--minutes", "5", "--seed", "4", "--lease", "1", "--report", "r.json")
        child = await start(tmp_path, *options)
        assert child.stderr is not None
        said = await child.stderr.readline()
        assert b"seed 4, namespace torture-" in said
        namespace = said.decode().partition("namespace ")[2].partition(",")[0]
        await wait_for(lambda: admin.hget(f"sb1:{{{namespace}.00}}:tally", "delivered"), "a reply", deadline=40)
        child.send_signal(signal.SIGINT)
        code, out, err = await ended(child)
        assert (code, err.count("draining")) == (0, 1), out + err
        assert admin.keys("*") == ["sb1:{default.00}:stream:mine"]
        assert (server.pid, admin.config_get("*")) == (pid, before)
        users = {line["user"] for line in admin.client_list()}
        assert users <= {"admin"}  # nobody is left behind
    finally:
        server.close()
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["ok"]
    assert report["server_kills"] == 0
    assert [one["promise"] for one in report["promises"]] == list(PROMISES)
    for promise, says in PROMISES.items():
        assert f"{promise:<5}{says}" in out
    assert "BROKEN" not in out


async def test_a_server_that_is_away_is_said_in_a_line(tmp_path: Path) -> None:
    code, out, err = await ended(await start(tmp_path, "--url", "redis://127.0.0.1:1"))
    assert (code, out) == (2, "")
    assert "streambatch: the server does not answer" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("url", "report", "words"),
    [
        ("cluster://a,b", None, "give a redis:// URL"),
        ("nonsense://x:secret@y", None, r"^'nonsense://\*\*\*@y': a URL for torture begins with redis://(?!.*cluster)"),
        ("redis://h:99999", None, "the port is no number"),
        ("redis://h", Path("no/where.json"), "there is no such folder"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_started(url: str, report: Path | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _torture.torture(_torture.Wishes(url, 30, 7, 4, 30, 2, report, False))


def test_the_faults_stand_in_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    report = Report(Plan(seconds=30, seed=7), promises=table(Checker()))
    report.faults.update(dict.fromkeys(ALL, 12))
    _torture.show(report, _torture.Wishes("redis://h", 30, 7, 4, 30, 2, None, False))
    out = capsys.readouterr().out
    told = out.partition("kinds\n")[2].partition("recovery")[0].splitlines()
    assert len(told) > 3
    assert max(len(line) for line in told) <= 80
    assert {line[:10] for line in told} == {" " * 10}
    assert all(f"{kind} 12" in "".join(told) for kind in ALL)


@pytest.mark.parametrize("url", ["redis://bot:secret@host", "redis://host?username=bot&password=secret"])
def test_a_broken_promise_is_shown_with_its_history_and_the_command(
    capsys: pytest.CaptureFixture[str], url: str
) -> None:
    checker = Checker()
    checker.blame("I1", "t3", "t3.7 was stored as 1-0 and never answered")
    report = Report(Plan(seconds=30, seed=7), promises=table(checker), wrong=[*checker.wrong])
    report.histories = {"t3": [{"what": "stored", "id": "t3.7", "at": 1.5}]}
    wishes = _torture.Wishes(url, 30, 7, 4, 30, 2, None, False)
    _torture.show(report, wishes)
    out = capsys.readouterr().out
    assert report.wrong == [Wrong("I1", "t3", "t3.7 was stored as 1-0 and never answered")]
    assert not report.ok
    assert "BROKEN" in out
    assert '    {"what": "stored", "id": "t3.7", "at": 1.5}' in out
    assert "once more: streambatch torture --url URL --minutes 0.5 --seed 7 --workers 4 --threads 30 --lease 2" in out
    assert "secret" not in out
