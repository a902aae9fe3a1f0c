"""The rig is what all other tests stand on, so it is tested like the package."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blockbuster import BlockingError
from redis.exceptions import AuthenticationError, NoPermissionError

from tests.conftest import StartChild, StartServer
from tests.rig import Server, connect, connect_async, wait_for
from tests.rig.leaks import keys_of, leaked, sweep
from tests.rig.process import ROOT
from tests.rig.servers import kinds

PROGRAM = 'import sys\nprint("ready", sys.argv[1])\nfor line in sys.stdin: print("heard", line.strip())\n'


def inner_run(file: Path, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a test file of its own under this rig."""
    file.write_text(text, encoding="utf-8")
    options = [
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(ROOT),
    ]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_the_kinds_are_different_programs() -> None:
    assert len(set(kinds().values())) == len(kinds())
    assert len({kind.split("-")[0] for kind in kinds()}) == len(kinds())


def test_a_server_is_the_kind_it_says(server: Server, server_kind: str) -> None:
    info = server.admin().info("server")
    name = "valkey" if "valkey_version" in info else "redis"
    assert server_kind.startswith(f"{name}-{info.get(f'{name}_version', '')[:3]}")


def test_both_addresses_lead_to_one_server(server: Server, namespace: str) -> None:
    key = f"sb1:{{{namespace}.0}}:last:a"
    with connect(server.url) as by_socket, connect(server.tcp_url) as by_port:
        by_socket.set(key, "1", px=60_000)
        assert by_port.get(key) == "1"


def test_the_bot_may_only_do_what_the_list_says(server: Server) -> None:
    with connect(server.url) as bot:
        assert bot.ping()
        for forbidden in ("FLUSHALL", "KEYS *", "CONFIG SET maxmemory 1", "ACL WHOAMI"):
            with pytest.raises(NoPermissionError):
                bot.execute_command(*forbidden.split())
        with pytest.raises(NoPermissionError):
            bot.set("somebody-else", "1")
        with pytest.raises(NoPermissionError):
            bot.publish("somebody-else", "1")


def test_unknown_rules_are_only_those_a_server_lacks(server: Server) -> None:
    # Nothing newer than Redis 7.0 is used, so every command of the list exists everywhere, or its rule is misspelt.
    assert not server.unknown_rules


def test_nobody_gets_in_without_a_password(server: Server) -> None:
    with (
        connect(f"unix://{server.socket}") as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.ping()


def test_data_and_users_survive_kill9_with_an_aof(start_server: StartServer) -> None:
    server = start_server(aof="always")
    with connect(server.url) as bot:
        bot.set("sb1:{x.0}:last:a", "1")
    before = server.pid
    server.kill9()
    server.restart()
    assert server.pid != before
    with connect(server.tcp_url) as bot:
        assert bot.get("sb1:{x.0}:last:a") == "1"


def test_options_reach_the_server(start_server: StartServer) -> None:
    server = start_server(maxmemory="50mb", options=("--maxclients", "77"))
    config = server.admin().config_get("max*")
    assert (config["maxmemory"], config["maxclients"]) == (str(50 * 1024 * 1024), "77")
    assert server.admin().config_get("stream-node-max-bytes") == {"stream-node-max-bytes": "1024"}


async def test_a_stopped_server_answers_after_cont(start_server: StartServer) -> None:
    server = start_server()
    async with connect_async(server.url) as bot:
        await bot.ping()
        server.stop()
        asked = asyncio.ensure_future(bot.ping())
        await wait_for(lambda: state_of(server.pid) == "T", "the server's process to be stopped")
        assert not asked.done()
        server.cont()
        assert await asked


def state_of(pid: int) -> str:
    """Return the state letter of a process, "" if there is none."""
    if Path("/proc/self/stat").exists():  # a slim container has no ps
        try:
            return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""
    said = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return said.stdout.strip()


def test_a_server_ends_with_its_directory(server_kind: str) -> None:
    server = Server(server_kind)
    pid = server.pid
    server.stop()
    server.close()
    server.close()
    assert state_of(pid) == ""
    assert not server.dir.exists()


async def test_a_killed_test_process_leaves_no_server(
    server_kind: str, start_child: StartChild, tmp_path: Path
) -> None:
    script = tmp_path / "leave.py"
    script.write_text(
        "import sys\nfrom tests.rig.servers import Server\n"
        "server = Server(sys.argv[1])\nprint('pid', server.pid, server.dir)\nsys.stdin.read()\n"
    )
    child = await start_child(script, server_kind)
    _, pid, folder = (await child.expect(r"pid \d+ .+"))[0].split(" ", 2)
    child.kill9()
    await wait_for(lambda: state_of(int(pid)) in ("", "Z"), "the watchdog to end the server")
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("key", "leaks"),
    [
        ("sb1:{%s.0}:stream:a", True),
        ("sb1:{%s.0}:deadline:a", True),
        ("sb1:{%s}:odd", True),
        ("sb1:{%s.0}:dead", False),
        ("sb1:{%s.3}:tally", False),
        ("sb1:{%s}:meta", False),
    ],
)
@pytest.mark.leaves_keys("the leak check itself is tested here")
def test_a_key_without_ttl_is_a_leak(server: Server, namespace: str, key: str, leaks: bool) -> None:
    admin, name = server.admin(), key % namespace
    admin.set(name, "1")
    assert leaked(admin, namespace) == ([name] if leaks else [])
    admin.pexpire(name, 60_000)
    assert leaked(admin, namespace) == []
    assert leaked(admin, namespace[:-1]) == []
    sweep(admin, namespace)
    assert keys_of(admin, namespace) == []


def test_a_leak_fails_the_test_and_a_mark_excuses_it(tmp_path: Path) -> None:
    text = (
        "import pytest\n"
        "def test_leaves(server, namespace): server.admin().set('sb1:{%s.0}:stream:a' % namespace, '1')\n"
        "@pytest.mark.leaves_keys('why')\n"
        "def test_excused(server, namespace): server.admin().set('sb1:{%s.0}:stream:a' % namespace, '1')\n"
        "def test_fails(server, namespace):\n"
        "    server.admin().set('sb1:{%s.0}:stream:a' % namespace, '1')\n"
        "    assert False\n"
    )
    run = inner_run(tmp_path / "test_leak.py", text)
    several = len(kinds())
    assert f"{several} failed, {several * 2} passed, {several} errors" in run.stdout
    assert "Keys without a TTL were left behind: sb1:{" in run.stdout


def test_too_few_servers_fail_the_session(tmp_path: Path) -> None:
    run = inner_run(tmp_path / "test_none.py", "def test_nothing(): pass\n", STREAMBATCH_REQUIRE_SERVERS="9")
    assert run.returncode == 3
    assert "9 kinds of server are required" in run.stdout + run.stderr


async def test_blocking_below_a_frame_of_the_package_fails(server: Server) -> None:
    package = compile("import time\ndef nap(): time.sleep(0)\n", str(ROOT / "streambatch" / "_nap.py"), "exec")
    names: dict[str, object] = {}
    exec(package, names)
    nap = names["nap"]
    assert callable(nap)
    with pytest.raises(BlockingError):
        nap()
    time.sleep(0)  # and elsewhere it is nobody's business


async def test_wait_for_takes_plain_and_async_predicates_and_names_what_is_missing() -> None:
    looks = 0

    def third_time() -> int:
        nonlocal looks
        looks += 1
        return looks if looks == 3 else 0

    async def yes() -> bool:
        return True

    async def never() -> None:
        await asyncio.Event().wait()

    assert await wait_for(third_time, "the third look") == 3
    assert await wait_for(yes, "nothing") is True
    with pytest.raises(AssertionError, match=r"in vain for: the moon. Last seen: 0"):
        await wait_for(lambda: 0, "the moon", deadline=0.01)
    with pytest.raises(AssertionError, match="the stars"):
        await wait_for(never, "the stars", deadline=0.01)


async def test_a_child_speaks_listens_and_is_reaped(start_child: StartChild, tmp_path: Path) -> None:
    script = tmp_path / "talk.py"
    script.write_text(PROGRAM)
    child = await start_child(script, "now")
    assert (await child.expect(r"^ready (\w+)$"))[1] == "now"
    child.sigstop()
    await wait_for(lambda: state_of(child.pid) == "T", "the child to be stopped")
    await child.send("one")
    child.sigcont()
    await child.expect("heard one")
    child.kill9()
    assert await child.wait() == -9
    with pytest.raises(AssertionError, match="never printed 'heard two'"):
        await child.expect("heard two")


async def test_a_child_that_dies_says_why(start_child: StartChild, tmp_path: Path) -> None:
    script = tmp_path / "die.py"
    script.write_text("raise SystemExit('no reason at all')\n")
    child = await start_child(script)
    with pytest.raises(AssertionError, match="no reason at all"):
        await child.expect("ready")
    assert await child.wait() == 1


def test_what_is_about_one_standalone_server_is_a_short_list() -> None:
    """Each has a reason, and a new one is thought about twice: the number here has to be raised."""
    marks = [
        reason
        for path in (ROOT / "tests").rglob("test_*.py")
        for reason in re.findall(r'^\S.*mark\.standalone\("(.*)"\)', path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert all(len(reason) > 20 for reason in marks)
    assert 0 < len(marks) <= 35
