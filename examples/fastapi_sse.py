"""A chat in the browser with FastAPI: a burst of messages gets one answer, which is seen while it is written.

    pip install "streambatch-queue[embedded]" fastapi uvicorn
    OPENAI_API_KEY=… python fastapi_sse.py

Then open http://127.0.0.1:8000, the page in fastapi_sse.html beside this file, and type three quick lines. Without
OPENAI_API_KEY it echoes; OPENAI_BASE_URL names another provider, STREAMBATCH_URL another Redis or Valkey. FastAPI 0.135
or newer. Who may read and write which thread is for you to check: here whoever knows its name.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, Depends, FastAPI, Header, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

import streambatch as sb
from streambatch.runners import ResponsesRunner

STATUS = {sb.UsageError: 400, sb.ReplyExpired: 404, sb.ThreadBusy: 409, sb.TooLarge: 413, sb.QueueFull: 429}
Followed = tuple[sb.Receipt, AsyncIterator[sb.Streamed]]
Given = Annotated[str, Body(embed=True)]


async def echo(batch: sb.Batch, run: sb.Run) -> str:
    said = [f"{word} " for word in f"You said: {batch.text}".split()]
    for piece in said:
        run.emit(piece)
        await asyncio.sleep(0.15)  # as if a model wrote it
    return "".join(said)


queue = sb.BatchQueue(
    os.environ.get("STREAMBATCH_URL", "embedded:./bot-data"),
    runner=ResponsesRunner(model="gpt-5.6", instructions="Be brief.") if "OPENAI_API_KEY" in os.environ else echo,
    namespace="web",
    submit_timeout=5,
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with queue:
        print(f"The chat is kept in {queue}.", flush=True)
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(sb.StreambatchError)
async def refused(_: Request, error: sb.StreambatchError) -> JSONResponse:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503)
    told = {"error": type(error).__name__, "detail": str(error)}
    # Nothing was stored, or nobody knows: the same request with the same id is safe.
    return JSONResponse(told, status, {"Retry-After": "1"} if status in (429, 503) else None)


@app.post("/messages", status_code=202)
async def post(thread: Given, message: Given, text: Given) -> dict[str, str]:
    # The client made the message's id, and sends the request again when in doubt: it is stored once.
    receipt = await queue.submit(thread, text, message_id=message)
    return {"id": receipt.id, "outcome": receipt.outcome}


@app.post("/stop")
async def stop(thread: Given) -> sb.Cancellation:
    return await queue.cancel(thread)  # ends the Run, and drops what waits behind it


async def follow(thread: str, message: str, last_event_id: Annotated[str | None, Header()] = None) -> Followed:
    receipt = await queue.receipt(thread, message_id=message)
    return receipt, receipt.events(after=last_event_id)  # a browser that lost its connection sends the last id it saw


@app.get("/events/{thread}", response_class=EventSourceResponse)
async def events(followed: Annotated[Followed, Depends(follow)]) -> AsyncIterator[ServerSentEvent]:
    receipt, seen = followed
    with suppress(sb.StoreError, sb.QueueClosed):  # the stream ends early, and the browser comes back
        async for event in seen:
            data = await outcome(receipt) if event.kind == "end" else event.data
            yield ServerSentEvent(event=event.kind, id=event.id, raw_data=json.dumps(data))


async def outcome(receipt: sb.Receipt) -> dict[str, Any]:
    about: dict[str, Any] = {"messages": [receipt.message_id]}
    try:
        reply = await receipt.reply()
    except (sb.DeadLettered, sb.RunCancelled, sb.ReplyExpired) as error:
        return about | {"error": type(error).__name__}
    return {"messages": reply.message_ids, "reply": reply.id, "text": reply.text} if reply else about | {"text": ""}


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_suffix(".html"))


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), timeout_graceful_shutdown=5)
