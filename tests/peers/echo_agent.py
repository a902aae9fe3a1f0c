# pyright: basic, reportMissingImports=false
"""An agent on Microsoft's Responses host, run by the peer's own Python: what it says follows from what it is told.

Theory of operation. The host (`azure-ai-agentserver-responses`) is the server under whose rules the runners must live:
it stores responses, streams, cancels, locks conversations, and after kill -9 begins every unfinished response again
under its old id. The handler below is all that is ours. It is started with a port and a folder, and it writes one line
of JSON into ``folder/log`` each time it is called: the response's id, whether the host calls it again after a crash,
and the user turns it was shown, the history's first. ``folder`` also holds the gates: a file that appears.

The words of the last message say what happens; everything else is echoed ("I got 2 messages: a | b"):

===================  ============================================================================================
``gate NAME``        half of the answer is said, the other half when the gate is open
``stuck``            half of the answer is said, and nothing more until it is cancelled
``deaf``             the same, and it does not listen to being cancelled
``fails NAME``       the response fails, unless the gate is open
``raises NAME``      the handler raises, likewise
``cut``              the response is incomplete
``call A B``         the function ``look`` is called twice, with A and with B; with their outputs it says "done", and
                     before that it waits for as long as the gate ``slow-steps`` is there
===================  ============================================================================================
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

from azure.ai.agentserver.responses import (
    FileResponseStore,
    FoundryResourceNotFoundError,
    ResponseEventStream,
    ResponsesAgentServerHost,
    ResponsesServerOptions,
)

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])


class Store(FileResponseStore):
    """Responses in files, as the package has it, but a head that is not there is told, as where it is hosted."""

    async def get_history_item_ids(
        self, previous_response_id: str | None, conversation_id: str | None, limit: int, *, context: Any = None
    ) -> list[str]:
        """The items of a history."""
        if previous_response_id is not None:
            try:
                await self.get_response(previous_response_id, context=context)
            except KeyError:
                raise FoundryResourceNotFoundError("not there") from None
        return await super().get_history_item_ids(previous_response_id, conversation_id, limit, context=context)


app = ResponsesAgentServerHost(
    options=ResponsesServerOptions(resilient_background=True),
    store=Store(),
    configure_observability=None,
    access_log=None,
)


def said(items: Any, role: str = "user") -> list[str]:
    """The texts of the messages with this role."""
    found = [item for item in items if item.get("type") == "message" and item.get("role") == role]
    return ["".join(part.get("text", "") for part in item["content"]) for item in found]


def note(context: Any, users: list[str]) -> None:
    """One line of the log, written at once: the next moment may be the last one."""
    line = json.dumps({"id": context.response_id, "again": context.is_recovery, "users": users})
    with (FOLDER / "log").open("a") as log:
        log.write(f"{line}\n")
        log.flush()
        os.fsync(log.fileno())


async def opened(name: str, cancelled: asyncio.Event, *, wanted: bool = True) -> None:
    """Wait until the gate is open (not *wanted*: closed), or the response is cancelled."""
    while (FOLDER / name).exists() != wanted and not cancelled.is_set():  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.01)


@app.response_handler
async def answer(request: Any, context: Any, cancelled: asyncio.Event):
    """Answer as the last message says."""
    history, given = await context.get_history(), await context.get_input_items()
    note(context, [*said(history), *said(given)])
    asked = said(given)
    verb, *names = (asked or [""])[-1].split() or [""]
    if names and (FOLDER / names[-1]).exists() and verb != "call":
        verb = ""
    stream = ResponseEventStream(response_id=context.response_id, request=request)
    yield stream.emit_created()
    yield stream.emit_in_progress()
    if verb == "raises":
        raise RuntimeError("as told")
    if verb == "fails":
        yield stream.emit_failed(code="server_error", message="as told")
    elif verb == "call":
        for name in names:
            for event in stream.output_item_function_call("look", f"call_{name}", json.dumps({"what": name})):
                yield event
        yield stream.emit_completed()
    else:
        whole = f"I got {len(asked)} messages: {' | '.join(asked)}" if asked else "done"
        async for event in told(stream, whole, waiting(verb, names, asked, cancelled)):
            yield event
        if cancelled.is_set():
            return
        usage = {"input_tokens": len(asked), "output_tokens": 1, "total_tokens": len(asked) + 1}
        if verb == "cut":
            yield stream.emit_incomplete(reason="max_output_tokens", usage=usage)
        else:
            yield stream.emit_completed(usage=usage)


async def waiting(verb: str, names: list[str], asked: list[str], cancelled: asyncio.Event) -> bool:
    """What happens in the middle of an answer; whether it goes on."""
    if verb == "gate":
        await opened(names[0], cancelled)
    elif not asked:
        await opened("slow-steps", cancelled, wanted=False)
    elif verb == "stuck":
        await cancelled.wait()
    elif verb == "deaf":
        await asyncio.Event().wait()
    return not cancelled.is_set()


async def told(stream: Any, whole: str, goes_on: Awaitable[bool]) -> AsyncIterator[Any]:
    """A message in two halves, with something between them."""
    message = stream.add_output_item_message()
    yield message.emit_added()
    text = message.add_text_content()
    yield text.emit_added()
    half = len(whole) // 2
    yield text.emit_delta(whole[:half])
    if await goes_on:
        yield text.emit_delta(whole[half:])
        yield text.emit_text_done(whole)
        yield text.emit_done()
        yield message.emit_done()


def end_with_the_test() -> None:
    """Wait for the end of a pipe that only the test's process holds."""
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_the_test, daemon=True).start()
app.run(host="127.0.0.1", port=PORT)
