"""The chat as a child process, with pipes or a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from contextlib import suppress
from pathlib import Path

from typer.testing import CliRunner

from streambatch.cli._app import app

DEADLINE = 40  # seconds; waits end by events, this only makes a failure say more
ROOT = Path(__file__).parents[2]
#: What the doctor finds that says how busy this machine is, and nothing else.
BUSY = {"round-trip", "fork"}


def environment(url: str | None) -> dict[str, str]:
    """The environment of a chat with the provider at *url*, or with none."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "STREAMBATCH_"))}
    kept.pop("PYTHONUNBUFFERED", None)  # a user has it not, and it hides what stays in a buffer
    given = {} if url is None else {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
    return {**kept, **given, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "200"}


class Chat:
    """A running chat; ``err`` is what it has said on stderr so far, ``out`` on stdout."""

    def __init__(self, child: asyncio.subprocess.Process, terminal: int | None) -> None:
        self.child = child
        self.terminal = terminal
        self.out = self.err = ""
        self._news = asyncio.Condition()
        self._readers = [asyncio.ensure_future(self._read("err", child.stderr))]
        if child.stdout is not None:
            self._readers.append(asyncio.ensure_future(self._read("out", child.stdout)))
        if terminal is not None:
            asyncio.get_running_loop().add_reader(terminal, self._seen)

    @classmethod
    async def start(
        cls, folder: Path, url: str | None, *options: str,
        terminal: bool = False, stdout: int | None = None, env: dict[str, str] | None = None,
    ) -> Chat:  # fmt: skip
        """Start it in *folder*; its stdout is read here, or it is this descriptor."""
        mine, theirs = pty.openpty() if terminal else (None, asyncio.subprocess.PIPE)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streambatch", "chat", *options),
            cwd=folder,
            env=environment(url) | (env or {}),
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        if terminal:
            os.close(theirs)
        return cls(child, mine)

    async def give(self, text: str) -> None:
        """Type *text*, or send it through the pipe and close that."""
        if self.terminal is not None:
            os.write(self.terminal, text.encode())
            return
        assert self.child.stdin is not None
        self.child.stdin.write(text.encode())
        await self.child.stdin.drain()
        self.child.stdin.close()

    async def until(self, what: str, *, on: str = "err") -> None:
        """Wait until *what* was said."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE), self._news:
                await self._news.wait_for(lambda: what in vars(self)[on] or self._ended())
        assert what in vars(self)[on], f"it never said {what!r}: {self.out!r} {self.err!r}"

    async def end(self) -> int:
        """Wait until it ends by itself; returns the exit code."""
        try:
            async with asyncio.timeout(DEADLINE):
                code = await self.child.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            raise AssertionError(f"it does not end: {self.out!r} {self.err!r}") from None
        self._close()
        return code

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to this process alone, and wait for its end."""
        self.child.send_signal(number)
        return await self.end()

    def _ended(self) -> bool:
        return all(reader.done() for reader in self._readers)

    async def _read(self, name: str, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while data := await stream.read(65_536):
            await self._add(name, data)
        await self._add(name, b"")

    async def _add(self, name: str, data: bytes) -> None:
        async with self._news:
            vars(self)[name] += data.decode()
            self._news.notify_all()

    def _seen(self) -> None:
        assert self.terminal is not None
        try:
            data = os.read(self.terminal, 65_536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.terminal)
            return
        self._readers.append(asyncio.ensure_future(self._add("out", data)))

    def _close(self) -> None:
        if self.terminal is not None:
            asyncio.get_running_loop().remove_reader(self.terminal)
            os.close(self.terminal)
            self.terminal = None


async def quick(*words: str, **env: str) -> tuple[int, str, str]:
    """The same as `finish` in this process, in a thread with a loop of its own: no second of start for each call."""
    cleared = dict.fromkeys([name for name in os.environ if name.startswith("STREAMBATCH_")])
    done = await asyncio.to_thread(CliRunner().invoke, app, list(words), env={**cleared, "COLUMNS": "200", **env})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


async def finish(*words: str, **env: str) -> tuple[int, str, str]:
    """Run the command line to its end: the exit code, stdout, stderr."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streambatch", *words),
        env=environment(None) | env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(2 * DEADLINE):
        out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()
