"""Slack on loopback, as far as a bot in Socket Mode needs it: the Web API, the WebSocket, and what is sent again.

Theory of operation
-------------------
The real Slack Bolt talks to it over real HTTP and a real WebSocket. What matters to a queue is modelled strictly:

* ``apps.connections.open`` takes the app's token and gives a URL that works once; every other method takes the bot's.
* An event goes to the bot in an envelope, and the bot acknowledges the envelope. What is not acknowledged within
  ``patience`` seconds (3) comes again in another envelope, with the same ``event_id`` and the same message, three times
  at most. Slack waits a minute and then five before the last two; here they come after ``patience`` as well, and
  whatever was not acknowledged comes as soon as a bot connects.
* ``chat.postMessage`` stores and then confirms, and a bot may die between the two. It refuses what Slack refuses: no
  text, too much text, a channel that the bot is not in. ``chat.update`` changes a message of the bot.
* A rate limit is per channel: 429 with ``Retry-After``, until the test lifts it. A method in ``down`` fails.

Everything posted is in ``sent``, as it is after ``edits``, everything refused in ``refused``, each with the time; an
event counts its acknowledgements. ``holds`` stop a post before it is stored or before it is confirmed, so that a test
can kill the bot.

By hand: ``python -m tests.fakes.slack_api [port]`` prints what to set; then type lines: ``text`` or ``channel: text``.
A channel whose name begins with D is a direct message; in the others the bot is mentioned.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.typed import Shown, by_hand, typing

APP_TOKEN, BOT_TOKEN = "xapp-loopback", "xoxb-loopback"
BOT, TEAM = "U0BOT", "T0LOOP"
LIMIT = 12_000
TRIES = 4
Json = Any


class Refusal(Exception):
    """What the API answers instead of a result."""

    def __init__(self, error: str, status: int = 200, **headers: str) -> None:
        super().__init__(error)
        self.error, self.status = error, status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Call:
    """One chat.postMessage."""

    channel: str
    text: str
    thread_ts: str | None
    ts: str = ""
    at: float = field(default_factory=time.monotonic)


@dataclass
class Hold:
    """A chat.postMessage that is stopped; ``stored`` says whether before or after it was stored."""

    stored: bool
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Happening:
    """An event on its way to the bot; ``ts`` is the message's, ``tries`` how often it was sent."""

    payload: dict[str, Json]
    ts: str = ""
    tries: int = 0
    acked: int = 0
    again: asyncio.TimerHandle | None = None


class SlackApi:
    """The state of the fake; ``url`` goes into SLACK_API."""

    def __init__(self, patience: float = 3.0) -> None:
        self.url = ""
        self.patience = patience
        self.sent: list[Call] = []
        self.edits: list[Call] = []
        self.refused: list[tuple[Call, str]] = []
        self.status: dict[tuple[str, str], list[str]] = {}
        self.calls: Counter[str] = Counter()
        self.connected = asyncio.Event()
        self.limits: dict[str, int] = {}
        self.gone: set[str] = set()
        self.down: set[str] = set()
        self.holds: dict[str, Hold] = {}
        self._happened: list[Happening] = []
        self._envelopes: dict[str, Happening] = {}
        self._socket: web.WebSocketResponse | None = None
        self._tickets: set[str] = set()
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    # ── what a test does ──

    def say(
        self, channel: str, text: str, *, thread_ts: str | None = None, who: str = "U0ANN", **more: Json
    ) -> Happening:
        """Somebody writes, in a channel mentioning the bot (see above); *more* goes into the event."""
        direct, ts = channel.startswith("D"), self._ts()
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        event = {"type": "message", "channel_type": "im"} if direct else {"type": "app_mention"}
        event |= {"user": who, "ts": ts, "event_ts": ts, "channel": channel, "team": TEAM}
        event |= {"text": text if direct else f"<@{BOT}> {text}", "client_msg_id": f"client-{ts}"}
        event |= {"thread_ts": thread_ts} if thread_ts else {}
        return self.happen(event | more)

    def happen(self, event: dict[str, Json]) -> Happening:
        """Any event of the Events API."""
        payload: Json = {"type": "event_callback", "event_id": f"Ev{next(self._numbers)}"}
        payload |= {"event_time": int(time.time()), "token": "-", "team_id": TEAM, "api_app_id": "A0LOOP"}
        payload |= {"event": event, "authorizations": [{"team_id": TEAM, "user_id": BOT, "is_bot": True}]}
        happening = Happening(payload, event.get("ts", ""))
        self._happened.append(happening)
        self._send(happening)
        return happening

    def repeat(self, happening: Happening) -> None:
        """It comes once more, although it was acknowledged: the acknowledgement got lost."""
        happening.tries = min(happening.tries, TRIES - 1)
        self._send(happening)

    def texts(self, channel: str, thread_ts: str | None = None) -> list[str]:
        """What the bot wrote into a channel, or into one of its threads."""
        there = [call for call in self.sent if call.channel == channel]
        return [call.text for call in there if thread_ts is None or call.thread_ts == thread_ts]

    async def disconnect(self) -> None:
        """Slack renews the connection, as it does every few hours."""
        assert self._socket is not None
        self.connected.clear()
        await self._socket.send_json({"type": "disconnect", "reason": "refresh_requested"})

    # ── events on their way ──

    def _ts(self) -> str:
        return f"{int(time.time())}.{next(self._numbers):06}"

    def _send(self, happening: Happening) -> None:
        if self._socket is None or self._socket.closed or happening.tries >= TRIES:
            return
        envelope = f"envelope-{next(self._numbers)}"
        self._envelopes[envelope] = happening
        data: Json = {"envelope_id": envelope, "type": "events_api", "payload": happening.payload}
        data |= {"accepts_response_payload": False, "retry_attempt": happening.tries}
        data["retry_reason"] = "timeout" if happening.tries else ""
        happening.again = asyncio.get_running_loop().call_later(self.patience, self._overdue, happening)
        happening.tries += 1
        task = asyncio.create_task(self._deliver(self._socket, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, socket: web.WebSocketResponse, data: Json) -> None:
        with suppress(ConnectionError):
            await socket.send_json(data)

    def _overdue(self, happening: Happening) -> None:
        if not happening.acked:
            self._send(happening)

    async def link(self, request: web.Request) -> web.WebSocketResponse:
        """The WebSocket: hello, what is not acknowledged yet, and acknowledgements until it closes."""
        if request.query.get("ticket") not in self._tickets:
            raise web.HTTPForbidden
        self._tickets.remove(request.query["ticket"])
        socket = self._socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            await self._listen(socket)
        finally:  # the server cancels this when the bot is gone
            if self._socket is socket:
                self._socket = None
                self.connected.clear()
        return socket

    async def _listen(self, socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A0LOOP"}})
        self.connected.set()
        for happening in [one for one in self._happened if not one.acked]:
            happening.tries = min(happening.tries, TRIES - 1)
            self._send(happening)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                happening = self._envelopes.pop(json.loads(message.data)["envelope_id"])
                happening.acked += 1

    # ── the methods ──

    async def post_message(self, data: dict[str, Json]) -> Json:
        """Refuse, or store and confirm."""
        text = data.get("markdown_text") or data.get("text") or ""
        call = Call(data.get("channel") or "", text, data.get("thread_ts"))
        try:
            self._check(call)
        except Refusal as refusal:
            self.refused.append((call, refusal.error))
            raise
        hold = self.holds.pop(call.channel, None)
        if hold and not hold.stored:
            hold.reached.set()
            await hold.open.wait()
        call.ts = ts = self._ts()
        self.sent.append(call)
        if call.thread_ts and (call.channel, call.thread_ts) in self.status:
            self.status[call.channel, call.thread_ts].append("")  # a message ends what the status said
        if hold and hold.stored:
            hold.reached.set()
            await hold.open.wait()
        return {"channel": call.channel, "ts": ts, "message": {"type": "message", "user": BOT, "text": text, "ts": ts}}

    async def update(self, data: dict[str, Json]) -> Json:
        """Refuse, or change a message of the bot."""
        edit = Call(data.get("channel") or "", data.get("markdown_text") or data.get("text") or "", None)
        self._check(edit)
        known = next((call for call in self.sent if (call.channel, call.ts) == (edit.channel, data["ts"])), None)
        if known is None:
            raise Refusal("message_not_found")
        known.text = edit.text
        self.edits.append(edit)
        return {"channel": known.channel, "ts": known.ts, "text": known.text}

    def _check(self, call: Call) -> None:
        if call.channel in self.gone or not call.channel:
            raise Refusal("channel_not_found")
        if not call.text.strip():
            raise Refusal("no_text")
        if len(call.text) > LIMIT:
            raise Refusal("msg_too_long")
        if call.channel in self.limits:
            raise Refusal("ratelimited", 429, Retry_After=str(self.limits[call.channel]))

    async def set_status(self, data: dict[str, Json]) -> Json:
        """Keep it: what the thread shows, in order; an empty one clears."""
        if not data.get("thread_ts"):
            raise Refusal("invalid_arguments")
        self.status.setdefault((data["channel_id"], data["thread_ts"]), []).append(data["status"])
        return {}

    async def open_connection(self, _: dict[str, Json]) -> Json:
        """A URL that works once."""
        self._tickets.add(ticket := f"ticket-{next(self._numbers)}")
        return {"url": f"{self.url.replace('http', 'ws')}/link?ticket={ticket}"}

    async def auth_test(self, _: dict[str, Json]) -> Json:
        """Who the bot is."""
        return {"url": self.url, "team": "Loop", "team_id": TEAM, "user": "loop", "user_id": BOT, "bot_id": "B0BOT"}

    async def serve(self, request: web.Request) -> web.Response:
        """One request: the method, its token, its parameters as JSON or as a form."""
        methods = {
            "apps.connections.open": self.open_connection,
            "auth.test": self.auth_test,
            "chat.postMessage": self.post_message,
            "chat.update": self.update,
            "assistant.threads.setStatus": self.set_status,
        }
        name = request.match_info["method"]
        self.calls[name] += 1
        json_sent = request.content_type == "application/json"
        data: Json = await request.json() if json_sent else dict(await request.post())
        token = APP_TOKEN if name.startswith("apps.") else BOT_TOKEN
        trouble = "unknown_method" if name not in methods else "internal_error" if name in self.down else ""
        trouble = trouble if request.headers.get("Authorization") == f"Bearer {token}" else "invalid_auth"
        method: Any = _refusing(trouble) if trouble else methods[name]
        try:
            result = await method(data)
        except Refusal as refusal:
            body = {"ok": False, "error": refusal.error}
            return web.json_response(body, status=refusal.status, headers=refusal.headers)
        return web.json_response({"ok": True} | result)

    def close(self) -> None:
        """Send nothing again."""
        for happening in self._happened:
            if happening.again:
                happening.again.cancel()


def _refusing(error: str) -> Any:
    async def method(_: dict[str, Json]) -> Json:
        raise Refusal(error)

    return method


@asynccontextmanager
async def serving(port: int = 0, *, patience: float = 3.0) -> AsyncGenerator[SlackApi]:
    """A running SlackApi on a free port of loopback."""
    fake = SlackApi(patience)
    app = web.Application()
    app.router.add_route("GET", "/link", fake.link)
    app.router.add_route("POST", "/api/{method}", fake.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        fake.close()
        await runner.cleanup()


async def _main(port: int) -> None:
    async with serving(port) as fake:
        fake.sent = Shown(lambda call: f"{call.channel}< {call.text}")
        fake.edits = Shown(lambda call: f"{call.channel}< (edited) {call.text}")
        print(f"SLACK_API={fake.url}/api/ SLACK_APP_TOKEN={APP_TOKEN} SLACK_TOKEN={BOT_TOKEN}", flush=True)
        await typing(fake.say, lambda channel: channel[:1] in tuple("CDG"), "D1", fake.connected)


if __name__ == "__main__":
    by_hand(_main, "Slack", "`text` or `channel: text`")
