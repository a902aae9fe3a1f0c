"""The example as a process, and the model it talks to; shared by the tests of all platforms.

Theory of operation. Importing a bot framework costs seconds, so the tests of a module share one bot: each has chats of
its own and asks for `up()`, which starts a process only if there is none (an earlier test may have killed it). The
fakes live in the test process, so what the bot did is known there at once, and the queue's data are in a directory that
outlives the bot. The model answers ``I got N messages: …`` unless a test has a step for a word of the request.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from streambatch import BatchQueue
from streambatch._explain import DeadLetterInfo
from tests.fakes.responses_server import Server, Step, serving, texts
from tests.rig.moments import wait_for
from tests.rig.process import Child

PATIENCE = 40.0  # seconds; a start takes five, more on a busy machine


class Host:
    """One bot: `up` starts it, `kill` is kill -9, `stop` is SIGTERM."""

    def __init__(self, model: Server, command: list[str], env: dict[str, str], data: Path) -> None:
        self.model = model
        self.data = data
        self.steps: dict[str, Step] = {}
        model.rule = self._rule
        self._command = command
        self._env = env | {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": model.url}
        self._env["STREAMBATCH_URL"] = f"embedded:{data}"
        self._child: Child | None = None

    def _rule(self, request: Any) -> Step | None:
        said = " ".join(texts(request))
        word = next((word for word in self.steps if word in said), None)
        return self.steps.pop(word) if word is not None else None

    def asked(self, word: str) -> int:
        """How many Runs had the word in their batch."""
        return sum(word in " ".join(texts(request)) for request in self.model.requests)

    async def up(self) -> Child:
        """The running bot, started if there is none."""
        if self._child is None:
            self._child = await Child.start(*self._command, env=self._env)
        return self._child

    async def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        child, self._child = self._child, None
        if child is not None:
            child.kill9()
            await child.close()

    async def stop(self, how: signal.Signals = signal.SIGTERM, every: float = 0.0) -> tuple[int, str]:
        """Ask it to end; returns the status and what the bot said since. With *every*, ask again every so many seconds.

        A bot that only its drain_timeout of 30 s ends does not listen to who asks again: it is asked for 20 s.
        """
        child, self._child = self._child, None
        assert child is not None
        lines, errors = len(child.lines), len(child.errors)
        os.kill(child.pid, how)
        asking = asyncio.create_task(_again(child, how, every))
        try:
            await child.wait(deadline=PATIENCE)
            assert not every or not asking.done(), "it ends when it wants to"
        except TimeoutError:
            said = "\n".join([*child.lines, *child.errors][-30:])
            raise AssertionError(f"the bot does not end; it said\n{said}") from None
        finally:
            asking.cancel()
            await child.close()
        return child.returncode or 0, "\n".join([*child.lines[lines:], *child.errors[errors:]])

    async def until(self, done: Any, what: str) -> None:
        """Wait for a moment; if it does not come, say what the bot said."""
        try:
            await wait_for(done, what, deadline=PATIENCE)
        except AssertionError as error:
            child = self._child
            said = "\n".join([*child.lines, *child.errors][-30:]) if child else "no bot"
            raise AssertionError(f"{error}\n{said}") from None

    async def dead(self) -> tuple[DeadLetterInfo, ...]:
        """The dead letters, read from beside the bot, in the namespaces of the examples."""
        found: list[DeadLetterInfo] = []
        for namespace in ("telegram", "telegram_ptb", "telegram_streaming", "discord"):
            async with BatchQueue(f"embedded:{self.data}", namespace=namespace, log=False) as queue:
                found += await queue.dead_letters()
        return tuple(found)


async def ended_at_once(bot: Host, say: Callable[[str], Any]) -> None:
    """Ctrl-C again and again: the Run under way is not waited for, nothing sounds like a fault, the next one answers.

    The text is this story's alone: a bot of a module counts all that it was asked.

    Args:
        bot: it runs.
        say: sends a text to a chat of its own; it may be a coroutine function.
    """
    bot.steps["a story without end"] = Step(hold=(hold := asyncio.Event()))
    made = say("a story without end")
    if inspect.isawaitable(made):
        await made
    await bot.until(lambda: bot.asked("a story without end"), "the Run")
    _, said = await bot.stop(signal.SIGINT, every=0.5)
    hold.set()
    assert not re.search("still running|a story without end|code=(bug|broken)", said)
    await bot.up()
    await bot.until(lambda: bot.asked("a story without end") == 2, "the Run once more")


async def _again(child: Child, how: signal.Signals, every: float) -> None:
    for _ in range(int(20 / every) if every else 0):
        await asyncio.sleep(every)
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(child.pid, how)


@asynccontextmanager
async def hosting(command: list[str], env: dict[str, str], data: Path) -> AsyncGenerator[Host]:
    """A Host with a model of its own; the bot is killed at the end."""
    async with serving() as model:
        host = Host(model, command, env, data)
        try:
            yield host
        finally:
            await host.kill()
