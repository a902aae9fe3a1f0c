"""A server that nobody here wrote, as a process of its own: started, found healthy, killed, started again on its state.

Theory of operation. The peer has many dependencies, among them newer and older versions of what the project uses, so it
lives in an environment of its own, whose Python STREAMBATCH_PEER_PYTHON names; the session `runners` makes one from
requirements.txt. A `Peer` keeps its port and its folder over restarts. The process reads from a pipe that only the
test's process holds, and ends with it, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rig import wait_for

AGENT = Path(__file__).with_name("echo_agent.py")


@dataclass(frozen=True, slots=True)
class Seen:
    """One call of the handler: the response's id, whether it was called again after a crash, the user turns it saw."""

    id: str
    again: bool
    users: list[str]


class Peer:
    """The server.

    Args:
        python: the Python in whose environment the server is installed.
        folder: an empty directory of its own.
        compiled: a directory for compiled code, which several may share: the server is large.
    """

    def __init__(self, python: Path, folder: Path, compiled: Path) -> None:
        self._python, self._folder, self._compiled = python, folder, compiled
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, or start it again, and wait until it is healthy."""
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder),
            "AGENTSERVER_STATE_ROOT": str(self._folder / "state"),
            "PYTHONPYCACHEPREFIX": str(self._compiled),
        }
        output = os.open(self._folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *(str(self._python), str(AGENT), str(self.port), str(self._folder)),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
            )
        finally:
            os.close(output)
        self._process = process
        await wait_for(self._healthy, "the peer to be healthy", deadline=30, every=0.02)

    async def _healthy(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, (self._folder / "output").read_text(errors="replace")[-2000:]
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(b"GET /readiness HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
        return False

    async def kill9(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP): it takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    # ── what the handler sees and waits for ──

    def open(self, gate: str) -> None:
        """Open a gate, for good."""
        (self._folder / gate).touch()

    def close(self, gate: str) -> None:
        """Close it."""
        (self._folder / gate).unlink()

    @property
    def seen(self) -> list[Seen]:
        """All calls of the handler, oldest first."""
        log = self._folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [Seen(**json.loads(line)) for line in lines]

    @property
    def responses(self) -> list[str]:
        """The ids of all responses that were ever begun, each once."""
        return list(dict.fromkeys(call.id for call in self.seen))

    async def called(self, times: int) -> None:
        """Wait until the handler has been called so often."""
        await wait_for(lambda: len(self.seen) >= times, f"{times} calls of the handler", deadline=20)

    # ── what anybody may ask the server ──

    async def status(self, response: str) -> str:
        """What the server says has become of *response*; "gone" if it does not know it."""
        return (await self._ask("GET", f"/responses/{response}")).get("status", "gone")

    async def completed(self, response: str) -> None:
        """Wait until *response* is completed."""
        await wait_for(lambda: self._is(response, "completed"), "the response to be completed", every=0.02)

    async def _is(self, response: str, status: str) -> bool:
        return await self.status(response) == status

    async def cancel(self, response: str) -> None:
        """Cancel it, as some other client would."""
        await self._ask("POST", f"/responses/{response}/cancel")

    async def delete(self, response: str) -> None:
        """Let the server forget it."""
        await self._ask("DELETE", f"/responses/{response}")

    async def items(self, response: str, kind: str) -> list[dict[str, Any]]:
        """What *response* was told, its history included: the items of one type, in order."""
        page = await self._ask("GET", f"/responses/{response}/input_items?order=asc&limit=100")
        return [item for item in page["data"] if item["type"] == kind]

    async def _ask(self, method: str, path: str) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = f"{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.read()
        finally:
            writer.close()
        body = answer.partition(b"\r\n\r\n")[2]
        return json.loads(body) if body.startswith(b"{") else {}

    def users(self, response: str) -> list[str]:
        """The user turns in the history that ends with *response*, as the server told them to the handler."""
        return [call for call in self.seen if call.id == response][-1].users
