"""A worker of its own with agents at a fake provider, which kills itself at a chosen step.

Its arguments: the queue's URL, the namespace, the provider's URL, the file that counts the tool's effects, and where to
die: ``in_tool`` (after the effect, before its result is saved), ``after_tool`` (the result is saved, the next model
call is not made), ``after_answer`` (everything is said, nothing is committed), or ``never``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from agents import Agent, OpenAIProvider, RunConfig, RunHooks, function_tool
from openai import AsyncOpenAI

from streambatch import BatchQueue
from streambatch.runners import AgentsRunner

URL, NAMESPACE, PROVIDER, EFFECTS, DIE = sys.argv[1:]


def die(where: str) -> None:
    """Be killed here, if this is the place."""
    if where == DIE:
        os.kill(os.getpid(), signal.SIGKILL)


@function_tool
async def charge(amount: int) -> str:
    """Charge somebody."""
    with Path(EFFECTS).open("a") as file:
        file.write(f"{amount}\n")
    die("in_tool")
    return f"charged {amount}"


class Hooks(RunHooks[Any]):
    """The steps."""

    async def on_llm_start(self, context: Any, agent: Any, system_prompt: Any, input_items: Any) -> None:
        if input_items[-1].get("type") == "function_call_output":
            die("after_tool")

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        die("after_answer")


async def main() -> None:
    """Work until killed."""
    async with AsyncOpenAI(base_url=PROVIDER, api_key="none") as client:
        config = RunConfig(model_provider=OpenAIProvider(openai_client=client), tracing_disabled=True)
        agent = Agent(name="till", instructions="Charge.", model="m", tools=[charge])
        runner = AgentsRunner(agent, run_config=config, hooks=Hooks())
        settings: dict[str, Any] = {"lease": 1.0, "debounce": 0.02, "backoff": 0.05, "log": False}
        async with BatchQueue(URL, runner=runner, namespace=NAMESPACE, **settings):
            print("READY")
            await asyncio.Event().wait()


asyncio.run(main())
