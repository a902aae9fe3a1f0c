"""Discord on loopback, its REST API and its gateway, as far as a bot that reads and answers messages needs them.

Theory of operation
-------------------
The real discord.py talks to it over real HTTP and a real WebSocket (`tests.bots.discord_here` turns its two addresses
to this one). What matters to a queue is modelled strictly:

* The gateway sends a message to whoever is connected, and never again: what is said while nobody listens is lost. It
  tells a bot of its own messages, too. With ``times=2`` it repeats a message, as it may after a resume.
* A message with ``enforce_nonce`` and a nonce that was seen stores nothing and answers with the message of that nonce,
  whatever the channel. It refuses what Discord refuses: an empty or too long text, an unknown channel.
* 429 has a body with ``retry_after`` and the header ``Via``, without which discord.py takes it for a ban.

What was sent is in ``sent``, what was refused in ``refused``. ``hold`` stops a message before it is stored or before it
is confirmed, so that a test can kill the bot right there.

A bot that asks to resume a session of a gateway that was there before is told that it is invalid, and identifies anew.

By hand: ``python -m tests.fakes.discord_api [port]`` prints what to set for `tests.bots.discord_here`; type ``text`` or
``channel: text``, which is said when the bot is connected.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.typed import Shown, by_hand, typing

TOKEN = "loopback-token"
LIMIT = 2000
Json = Any


def user(name: str, *, bot: bool = False) -> dict[str, Json]:
    """A user's payload."""
    number = str(10**17 + sum(name.encode()))
    return {
        "id": number,
        "username": name.lower(),
        "global_name": name,
        "discriminator": "0",
        "avatar": None,
        "bot": bot,
    }


BOT = user("Loop", bot=True)


@dataclass
class Call:
    """One message the bot sent."""

    channel: int
    text: str
    answers: int | None
    mentions: Json
    id: int = 0


@dataclass
class Hold:
    """A message that is stopped; ``stored`` says whether before or after it was stored."""

    stored: bool
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)


class DiscordApi:
    """The state of the fake; ``url`` goes into DISCORD_API."""

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[Call] = []
        self.refused: list[tuple[Call, int]] = []
        self.typing: Counter[int] = Counter()
        self.limits: dict[int, list[float]] = {}
        self.forbidden: set[int] = set()
        self.holds: dict[int, Hold] = {}
        self.ready = asyncio.Event()
        self._gateway: web.WebSocketResponse | None = None
        self._sequence = 0
        self._channels: set[int] = set()
        self._nonces: dict[str, dict[str, Json]] = {}
        self._last = 0

    # ── what a test does ──

    async def say(
        self, channel: int, text: str, *, who: str = "Ann", bot: bool = False, guild: int | None = None, times: int = 1
    ) -> int:
        """Somebody writes; returns the message's id. Nobody hears it if no bot is connected."""
        message = self.payload(channel, text, user(who, bot=bot))
        if guild is not None:
            message |= {"guild_id": str(guild), "member": {"roles": [], "joined_at": None, "flags": 0}}
        for _ in range(times):
            await self._dispatch("MESSAGE_CREATE", message)
        return int(message["id"])

    def texts(self, channel: int) -> list[str]:
        """What the bot wrote into a channel."""
        return [call.text for call in self.sent if call.channel == channel]

    # ── REST ──

    async def messages(self, request: web.Request) -> web.Response:
        """Create a message."""
        given: Json = await request.json()
        channel, reference = int(request.match_info["channel"]), given.get("message_reference")
        answers = int(reference["message_id"]) if reference else None
        call = Call(channel, given.get("content") or "", answers, given.get("allowed_mentions"))
        refusal = self._refusal(call)
        if refusal is not None:
            self.refused.append((call, refusal.status))
            return refusal
        hold = self.holds.pop(channel, None)
        if hold and not hold.stored:
            hold.reached.set()
            await hold.open.wait()
        nonce = given.get("nonce") if given.get("enforce_nonce") else None
        message = self._nonces.get(nonce) if nonce else None
        if message is None:
            message = self.payload(channel, call.text, BOT) | {"nonce": given.get("nonce")}
            self._nonces |= {nonce: message} if nonce else {}
            call.id = int(message["id"])
            self.sent.append(call)
            await self._dispatch("MESSAGE_CREATE", message)
        if hold and hold.stored:
            hold.reached.set()
            await hold.open.wait()
        return _json(message)

    def _refusal(self, call: Call) -> web.Response | None:
        if waits := self.limits.get(call.channel):
            body = {"message": "You are being rate limited.", "retry_after": waits.pop(0), "global": False}
            return _json(body, 429, {"Via": "1.1 google"})
        if call.channel in self.forbidden:
            return _json({"code": 50001, "message": "Missing Access"}, 403)
        if call.channel not in self._channels:
            return _json({"code": 10003, "message": "Unknown Channel"}, 404)
        if not 0 < len(call.text.strip()) <= len(call.text) <= LIMIT:
            return _json({"code": 50035, "message": "Invalid Form Body"}, 400)
        return None

    async def type(self, request: web.Request) -> web.Response:
        """Count it."""
        self.typing[int(request.match_info["channel"])] += 1
        return web.Response(status=204)

    # ── the gateway ──

    async def gateway(self, request: web.Request) -> web.WebSocketResponse:
        """Hello, identify, ready; then messages as they come."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 41250}, "s": None, "t": None})
        try:
            await self._listen(socket)
        finally:  # the server cancels this when the bot is gone
            if self._gateway is socket:
                self._gateway = None
                self.ready.clear()
        return socket

    async def _listen(self, socket: web.WebSocketResponse) -> None:
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                continue
            packet: Json = json.loads(frame.data)
            if packet["op"] == 1:
                await socket.send_json({"op": 11, "d": None, "s": None, "t": None})
            elif packet["op"] == 2 and packet["d"]["token"] != TOKEN:
                await socket.close(code=4004)
            elif packet["op"] == 6:  # resume what another gateway began: there is no such session
                await socket.send_json({"op": 9, "d": False, "s": None, "t": None})
            elif packet["op"] == 2:
                self._gateway = socket
                await self._dispatch(
                    "READY", {"v": 10, "user": BOT, "guilds": [], "session_id": "s"} | self._addresses()
                )
                self.ready.set()

    def _addresses(self) -> Json:
        return {"resume_gateway_url": self.url.replace("http", "ws"), "application": {"id": BOT["id"], "flags": 0}}

    async def _dispatch(self, name: str, data: Json) -> None:
        self._sequence += 1
        if self._gateway is not None:
            with suppress(ConnectionError):
                await self._gateway.send_json({"op": 0, "d": data, "s": self._sequence, "t": name})

    def payload(self, channel: int, text: str, author: Json) -> dict[str, Json]:
        """A new message as Discord describes it."""
        self._channels.add(channel)
        self._last = max(self._last + 1, int(time.time() * 1000 - 1420070400000) << 22)
        message: dict[str, Json] = {
            "id": str(self._last),
            "channel_id": str(channel),
            "author": author,
            "content": text,
        }
        message |= {"timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None, "tts": False, "type": 0}
        message |= {name: [] for name in ("mentions", "mention_roles", "attachments", "embeds", "components")}
        return message | {"mention_everyone": False, "pinned": False, "flags": 0}

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[_authorised])
        application = {"id": BOT["id"], "name": "Loop", "description": "", "icon": None, "owner": user("Owner")}
        application |= {
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "",
            "summary": "",
            "flags": 0,
        }
        app.router.add_get("/users/@me", _constant(BOT))
        app.router.add_get("/oauth2/applications/@me", _constant(application))
        app.router.add_post("/channels/{channel}/messages", self.messages)
        app.router.add_post("/channels/{channel}/typing", self.type)
        app.router.add_get("/", self.gateway)
        return app


def _json(body: Json, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    # discord.py reads a body as JSON only if the header says so without a charset.
    exact = {"Content-Type": "application/json", **(headers or {})}
    return web.Response(body=json.dumps(body).encode(), status=status, headers=exact)


def _constant(body: Json) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return _json(body)

    return answer


@web.middleware
async def _authorised(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.path != "/" and request.headers.get("Authorization") != f"Bot {TOKEN}":
        return _json({"code": 0, "message": "401: Unauthorized"}, 401)
    return await handler(request)


@asynccontextmanager
async def serving(port: int = 0) -> AsyncGenerator[DiscordApi]:
    """A running DiscordApi on a free port of loopback."""
    fake = DiscordApi()
    runner = web.AppRunner(fake.app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


async def _main(port: int) -> None:
    async with serving(port) as fake:
        fake.sent = Shown(lambda call: f"{call.channel}< {call.text}")
        print(f"DISCORD_API={fake.url} DISCORD_TOKEN={TOKEN}", flush=True)
        await typing(lambda channel, text: fake.say(int(channel), text), str.isdigit, "1", fake.ready)


if __name__ == "__main__":
    by_hand(_main, "Discord", "`text` or `channel: text`")
