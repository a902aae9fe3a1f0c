"""examples/fastapi_sse.py as a real process: real FastAPI under uvicorn over HTTP, a fake model, an embedded server.

"Exactly one" is shown by the reply's id: all messages of a burst end with the same one, and the next message with
another. What the page itself does is in test_fastapi_page.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession

from streambatch import errors
from tests.bots.held import holding
from tests.bots.host import Host, ended_at_once, hosting
from tests.fakes.responses_server import Step
from tests.rig.process import ROOT

numbers = count(1)


@dataclass
class Seen:
    """One Server-Sent Event."""

    id: str
    kind: str
    data: Any


class Web:
    """The application as a browser sees it."""

    def __init__(self, session: ClientSession, host: Host) -> None:
        self._session = session
        self.host = host

    async def answers(self) -> bool:
        """Whether the application is there."""
        try:
            async with self._session.get("/") as answer:
                return answer.status == 200
        except ClientError:
            return False

    async def call(self, path: str, **body: object) -> tuple[int, Any]:
        """A POST; returns the status and what it says."""
        async with self._session.post(path, json=body) as answer:
            return answer.status, await answer.json()

    async def say(self, thread: str, text: str, message: str | None = None) -> str:
        """Send a message; returns the id that the client made for it."""
        message = message or f"m{next(numbers)}"
        status, _ = await self.call("/messages", thread=thread, message=message, text=text)
        assert status == 202
        return message

    async def events(self, thread: str, message: str, after: str | None = None) -> AsyncIterator[Seen]:
        """The events of a message; whoever stops in the middle closes the connection."""
        headers = {} if after is None else {"Last-Event-ID": after}
        fields: dict[str, str] = {}
        async with self._session.get(f"/events/{thread}", params={"message": message}, headers=headers) as stream:
            assert (stream.status, stream.content_type) == (200, "text/event-stream")
            async for row in stream.content:
                name, _, value = row.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "event" in fields:
                    yield Seen(fields["id"], fields["event"], json.loads(fields["data"]))
                    fields.clear()

    async def answer(self, thread: str, message: str) -> Any:
        """What the last event says."""
        return [event async for event in self.events(thread, message)][-1].data


def thread() -> str:
    """A thread that no other test has."""
    return f"thread-{next(numbers)}"


def text_of(events: list[Seen]) -> str:
    """The text that a page shows after these events."""
    text = ""
    for event in events:
        text = text + event.data if event.kind == "text" else "" if event.kind in ("started", "restarted") else text
    return text


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture(scope="module")
async def host(port: int, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    data: Path = tmp_path_factory.mktemp("fastapi")
    async with hosting(["examples/fastapi_sse.py"], {"PORT": str(port)}, data) as made:
        yield made


@pytest.fixture
async def web(host: Host, port: int) -> AsyncIterator[Web]:
    """The application, ready."""
    child = await host.up()
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        made = Web(session, host)
        await host.until(made.answers, "the application")
        assert child.returncode is None
        yield made


async def test_a_burst_with_one_request_sent_five_times_more_gets_one_answer_streamed(web: Web) -> None:
    """I6: a request that comes again stores nothing; all messages of the burst have the same reply, whose text grew."""
    chat = thread()
    sent = [await web.say(chat, text) for text in ("hi there", "one thing", "about cats")]
    outcomes = [
        (await web.call("/messages", thread=chat, message=sent[1], text="one thing"))[1]["outcome"] for _ in range(5)
    ]
    assert outcomes == ["duplicate"] * 5
    events = [event async for event in web.events(chat, sent[0])]
    told = events[-1].data
    assert told["text"] == text_of(events) == "I got 3 messages: hi there | one thing | about cats"
    assert (events[0].kind, events[-1].kind, told["messages"]) == ("started", "end", sent)
    assert [(await web.answer(chat, message))["reply"] for message in sent] == [told["reply"]] * 3
    await web.say(chat, "one thing", sent[1])
    last = await web.say(chat, "and finally")
    assert (await web.answer(chat, last))["text"] == "I got 1 messages: and finally"
    assert web.host.asked("one thing") == 1


async def test_a_client_that_left_in_the_middle_goes_on_where_it_was(web: Web) -> None:
    """A closed connection stops nothing; Last-Event-ID brings what came after it, once."""
    chat = thread()
    web.host.steps["halfway"] = Step(text="one two three four", hold=(hold := asyncio.Event()))
    message = await web.say(chat, "halfway")
    seen: list[Seen] = []
    async for event in web.events(chat, message):
        seen.append(event)
        if event.kind == "text":
            break
    assert text_of(seen) == "one "
    hold.set()
    assert (await web.answer(chat, message))["text"] == "one two three four"
    rest = [event async for event in web.events(chat, message, seen[-1].id)]
    assert [event.kind for event in rest if event.kind != "text"] == ["end"]
    assert text_of(seen + rest) == "one two three four"
    assert web.host.asked("halfway") == 1


async def test_kill_9_in_a_run_and_a_restart_give_exactly_one_answer(web: Web) -> None:
    """I1, I4: the browser comes back with its last id, sees that the text is void, and then the one answer."""
    chat, host = thread(), web.host
    host.steps["running"] = Step(text="never to be seen whole", hold=(never := asyncio.Event()))
    sent = [await web.say(chat, text) for text in ("running 1", "running 2")]
    seen: list[Seen] = []
    with suppress(ClientError, ConnectionError):
        async for event in web.events(chat, sent[0]):
            seen.append(event)
            if event.kind == "text":
                await host.kill()
                never.set()
    assert text_of(seen) == "never "
    await host.up()
    await host.until(web.answers, "the application")
    rest = [event async for event in web.events(chat, sent[0], seen[-1].id)]
    assert rest[0].kind == "restarted"
    told = rest[-1].data
    assert told["text"] == text_of(seen + rest) == "I got 2 messages: running 1 | running 2"
    assert [(await web.answer(chat, message))["reply"] for message in sent] == [told["reply"]] * 2
    last = await web.say(chat, "and finally")
    assert (await web.answer(chat, last))["text"] == "I got 1 messages: and finally"
    assert host.asked("running") == 2


async def test_stop_during_a_streamed_answer_ends_it_within_a_second_and_drops_the_backlog(web: Web) -> None:
    """The model's stream is cut, whoever follows is told, what waits is never asked, and the thread goes on."""
    chat, host = thread(), web.host
    host.steps["everything"] = Step(hold=asyncio.Event())
    message = await web.say(chat, "tell me everything")
    took: list[float] = []
    backlog: list[str] = []
    began = 0.0
    async for event in web.events(chat, message):
        if event.kind == "text":
            backlog = [await web.say(chat, f"behind it {n}") for n in range(3)]
            host.model.cut.clear()
            began = time.monotonic()
            assert await web.call("/stop", thread=chat) == (200, {"run": True, "dropped": 3})
        elif event.kind == "end":
            assert event.data == {"error": "RunCancelled", "messages": [message]}
            took.append(time.monotonic() - began)
    await host.until(host.model.cut.is_set, "the end of the model's stream")
    took.append(time.monotonic() - began)
    assert max(took) < 1, took
    assert [(await web.answer(chat, dropped))["error"] for dropped in backlog] == ["RunCancelled"] * 3
    last = await web.say(chat, "and finally")
    assert (await web.answer(chat, last))["text"] == "I got 1 messages: and finally"
    assert host.asked("behind it") == 0


async def test_what_is_refused_says_so_in_its_status(web: Web, port: int) -> None:
    """Too large, not a message, unknown, and no id of an event; each before anything is streamed."""
    chat = thread()
    status, told = await web.call("/messages", thread=chat, message="large", text="x" * 70_000)
    assert (status, told["error"]) == (413, "TooLarge")
    assert (await web.call("/messages", thread=chat, message="no text"))[0] == 422
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get(f"/events/{chat}?message=large") as answer:
            assert answer.status == 404
        message = await web.say(chat, "hello")
        async with session.get(f"/events/{chat}?message={message}", headers={"Last-Event-ID": "x"}) as answer:
            assert answer.status == 400
    await web.answer(chat, message)


async def test_a_request_whose_outcome_nobody_knows_is_sent_again_and_stored_once(web: Web) -> None:
    """503 with Retry-After while the server holds back writes; the same request with the same id, and one answer."""
    chat = thread()
    async with holding(web.host.data) as held:
        status, told = await web.call("/messages", thread=chat, message="in doubt", text="in doubt")
        assert (status, told["error"]) == (503, "OutcomeUnknown")
        await held.release()
    await web.say(chat, "in doubt", "in doubt")
    assert (await web.answer(chat, "in doubt"))["text"] == "I got 1 messages: in doubt"


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (errors.ThreadBusy(), 409, False),
        (errors.QueueFull(), 429, True),
        (errors.TooLarge(), 413, False),
        (errors.ServerAway(), 503, True),
        (errors.QueueClosed(), 503, True),
        (errors.OutcomeUnknown(), 503, True),
        (errors.DurabilityUnknown(), 503, True),
        (errors.StoreError(), 503, True),
        (errors.ReplyExpired(), 404, False),
        (errors.UsageError(), 400, False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_each_error_has_its_status(error: errors.StreambatchError, status: int, again: bool) -> None:
    """And says in the same breath whether the same request is worth another try."""
    spec = spec_from_file_location("fastapi_sse", ROOT / "examples/fastapi_sse.py")
    assert spec is not None
    assert spec.loader is not None
    example: Any = module_from_spec(spec)
    spec.loader.exec_module(example)
    answer = await example.refused(None, error)
    assert (answer.status_code, "Retry-After" in answer.headers) == (status, again)
    assert json.loads(answer.body)["error"] == type(error).__name__


async def test_the_page_speaks_to_what_the_application_has(web: Web, port: int) -> None:
    """It is served as it is, calls paths that there are with the fields they take, and listens to what is sent."""
    page = (ROOT / "examples/fastapi_sse.html").read_text(encoding="utf-8")
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/") as answer:
            assert (await answer.text(), answer.content_type) == (page, "text/html")
        async with session.get("/openapi.json") as answer:
            paths = (await answer.json())["paths"]
    called = set(re.findall(r'fetch\("([^"]+)"', page)) | set(re.findall(r"EventSource\(`(/\w+/)\$", page))
    assert {path.partition("{")[0] for path in paths} - {"/"} == called
    assert set(re.findall(r'addEventListener\("(\w+)"', page)) == {"started", "restarted", "text", "end"}
    assert "const {text, error, messages} = JSON.parse(event.data)" in page
    assert "JSON.stringify({thread, message: id, text})" in page
    assert "https://" not in page


async def test_sigterm_lets_the_running_answer_reach_who_follows_it(web: Web) -> None:
    """Uvicorn takes no more requests, the stream gets its end, the queue finishes all Runs, and nobody complains."""
    chat, other = thread(), thread()
    hold, nobody_there = asyncio.Event(), asyncio.Event()
    web.host.steps |= {"last words": Step(hold=hold), "unheard": Step(hold=nobody_there)}
    unheard = await web.say(other, "unheard")
    message = await web.say(chat, "last words")
    await web.host.until(lambda: web.host.asked("unheard"), "the other Run")
    stopping: asyncio.Task[tuple[int, str]] | None = None
    told: Any = None
    child = await web.host.up()
    async for event in web.events(chat, message):
        if event.kind == "text" and stopping is None:
            stopping = asyncio.create_task(web.host.stop())
            await web.host.until(lambda: any("Shutting down" in line for line in child.errors), "the shutdown")
            hold.set()
        told = event.data
    assert told["text"] == "I got 1 messages: last words"
    assert stopping is not None
    await web.host.until(lambda: any("application shutdown" in line for line in child.errors), "the end of requests")
    nobody_there.set()
    status, said = await stopping
    assert status in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it got
    assert not re.search("Traceback|Error|last words", said)
    await web.host.up()
    await web.host.until(web.answers, "the application")
    assert (await web.answer(other, unheard))["text"] == "I got 1 messages: unheard"
    assert web.host.asked("unheard") == 1


async def test_ctrl_c_again_ends_it_at_once_while_somebody_follows(web: Web) -> None:
    """Uvicorn waits for open streams, and says that Ctrl-C once more ends that: then nothing else is waited for."""
    followed = list[AsyncIterator[Seen]]()

    async def say(text: str) -> None:
        chat = thread()
        followed.append(web.events(chat, await web.say(chat, text)))
        await anext(followed[0])  # and the stream stays open

    await ended_at_once(web.host, say)
