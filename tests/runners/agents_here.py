"""Agents with a scripted model, agents that talk to a provider on loopback, and threads that commit like the queue."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, OpenAIProvider, RunConfig, set_tracing_disabled
from agents.testing import ScriptedModel, assistant_message, function_call
from openai import AsyncOpenAI

from streambatch import Answer, Batch, Message
from streambatch._messages import to_json
from streambatch.runners import AgentsRunner
from tests.fakes.provider import Provider
from tests.runners.tools import FakeRun, batch

set_tracing_disabled(True)  # the SDK would send what is said to its maker

__all__ = ["Talker", "answer", "call", "guide", "says", "seen", "talking_to", "texts"]


def says(text: str) -> list[Any]:
    """A response with a text."""
    return [assistant_message(text)]


def call(tool: str, call_id: str, /, **arguments: Any) -> list[Any]:
    """A response with one call."""
    return [function_call(tool, arguments, call_id=call_id)]


def guide(*steps: Any, name: str = "guide", **more: Any) -> Agent[Any]:
    """An agent whose model answers with these steps."""
    return Agent(name=name, instructions=f"You are {name}.", model=ScriptedModel(steps), **more)


def seen(agent: Agent[Any], number: int = -1) -> list[Any]:
    """The input of one call of the agent's model."""
    assert isinstance(agent.model, ScriptedModel)
    return list(agent.model.calls[number].input)


def texts(items: list[Any], role: str = "user") -> list[str]:
    """The texts of a role, in order."""
    return [part["text"] for item in items if item.get("role") == role for part in item["content"] if "text" in part]


async def answer(runner: AgentsRunner, one: Batch, data: bytes | None = None) -> tuple[Answer, FakeRun]:
    """Run one batch that must be answered."""
    run = FakeRun(one, data=data)
    made = await runner.run(one, run)
    assert made is not None
    return made, run


class Talker:
    """A thread that commits as the queue does, and keeps the checkpoint of a batch until then."""

    def __init__(self, runner: AgentsRunner) -> None:
        self.runner = runner
        self.history: tuple[Any, ...] = ()
        self.state: Any = None
        self.data: bytes | None = None
        self.last: bytes | None = None
        self.shown: list[object] = []

    async def say(self, *said: str | Message) -> Answer:
        """Run a batch, or run it again if it failed the last time."""
        one = batch(*said, history=self.history, state=self.state)
        run = FakeRun(one, data=self.data)
        try:
            made = await self.runner.run(one, run)
        finally:
            self.data = run.data
            self.shown = run.shown
        assert made is not None
        self.last, self.data = self.data, None
        self.history = (*self.history[made.forget :], *json.loads(to_json(made.turns, "turns")))
        self.state = self.state if made.state is None else json.loads(to_json(made.state, "state"))
        return made


@asynccontextmanager
async def talking_to(fake: Provider, **client: Any) -> AsyncGenerator[RunConfig]:
    """A run config whose models are the real ones, at the fake."""
    async with AsyncOpenAI(base_url=fake.url, api_key="none", **client) as made:
        yield RunConfig(model_provider=OpenAIProvider(openai_client=made))
