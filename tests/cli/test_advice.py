"""What the verbs advise: commands with all that is needed to reach the same server and namespace, to be copied."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.stage import staged
from tests.cli.terminal import Terminal
from tests.cli.tools import finish, quick
from tests.rig import Server, wait_for

pytestmark = [pytest.mark.timeout(120), pytest.mark.leaves_keys("a namespace with something in every state is left")]


async def test_what_is_advised_can_be_copied_as_it_stands(server: Server, namespace: str) -> None:
    """With the namespace, which a variable may say, too, and with quotes around a name that needs them."""
    async with staged(server.url, namespace) as stage:
        await stage.queue.pause("a b")
        await stage.say("a b")
        code, out, err = await quick("inspect", "a b", STREAMBATCH_NAMESPACE=namespace, **stage.here)
        assert (code, f"  → streambatch resume 'a b' --namespace {namespace}" in out.splitlines()) == (0, True), err
        assert "  next      -" in out.splitlines()
        code, out, _ = await quick("doctor", "--namespace", namespace, "--json", **stage.here)
        do = {finding["code"]: finding["do"] for finding in json.loads(out)["findings"]}
        there = f"--namespace {namespace}"
        assert do["paused"] == f"streambatch resume {there}"
        assert (
            do["paused-threads"].partition(";")[0]
            == f"streambatch threads --state parked {there}, and streambatch resume THREAD {there}"
        )
        assert do["dead-letters"].startswith(f"streambatch dead list {there}, then dead redrive ID")
        _, out, _ = await quick("drain", "--namespace", namespace, **stage.here)
        assert f"streambatch resume THREAD {there}, or cancel THREAD" in out
        await stage.queue.pause()
        _, out, _ = await quick("pause", "anna", "--namespace", namespace, **stage.here)
        assert f"(the namespace is still paused: streambatch resume {there})" in out
        _, out, _ = await quick("top", "--once", "--namespace", namespace, **stage.here)
        assert f"`streambatch resume {there}` ends it" in out
        _, out, _ = await quick("resume", "--namespace", namespace, **stage.here)
        assert out.endswith(f"paused by name, 1 with something to do: streambatch threads --state parked {there}\n")
        _, _, err = await quick("drain", "--runs", "--namespace", namespace, **stage.here)
        assert f"streambatch pause {there}, then drain --runs" in err
        await stage.say("dead-1")
        (letter,) = await wait_for(stage.queue.dead_letters, "the letter")
        _, out, _ = await quick("dead", "show", letter.id, "--namespace", namespace, **stage.here)
        assert f"streambatch dead redrive {letter.id} --namespace {namespace}" in out
        found = await quick("dead", "list", "--thread", "nobody", "--namespace", namespace, **stage.here)
        assert found == (0, "", "0 letters of 1 shown\n")


@pytest.mark.parametrize("folder", ["data", "da ta"])
async def test_what_is_advised_names_the_server_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """So that it can be pasted: the command that `inspect` advises on a terminal is run as it stands there."""
    monkeypatch.chdir(tmp_path)
    url = f"embedded:{folder}"
    async with staged(url, "default") as stage:
        await stage.queue.pause("a b")
        await stage.say("a b")
        given = ("--url", url)
        screen = await Terminal.start("inspect", "a b", *given, size=(160, 40))
        try:
            assert await screen.end() == 0, screen.text
        finally:
            await screen.close()
        (command,) = [line.partition("→ ")[2] for line in screen.lines if "→ " in line]
        assert command == f"streambatch resume 'a b' --url {shlex.quote(url)}"
        assert (await finish(*shlex.split(command)[1:]))[:2] == (0, "a b: resumed\n")
        await stage.say("dead-1")
        await wait_for(stage.queue.dead_letters, "the letter")
        there = f"--url {shlex.quote(url)}"
        _, out, _ = await quick("top", "--once", *given)
        assert f"streambatch dead list {there}\n" in out
        _, _, err = await quick("dead", "list", *given)
        assert f"→ streambatch dead show ID {there}, then" in err
        _, out, _ = await quick("doctor", *given)
        assert f"→ streambatch dead list {there}, then" in out
        await stage.queue.pause()
        _, out, _ = await quick("pause", "anna", *given)
        assert f"streambatch resume {there})" in out
        _, out, _ = await quick("top", "--once", STREAMBATCH_URL=url)  # which the next command has, too
        assert "streambatch dead list\n" in out
