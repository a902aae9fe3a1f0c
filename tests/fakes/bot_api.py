"""Telegram's Bot API on loopback, as far as a bot that polls needs it, with switchable troubles.

Theory of operation
-------------------
The real aiogram talks to it over real HTTP. What matters to a queue is modelled strictly:

* getUpdates with an offset confirms every update below it for good; without, it returns the same updates again. It
  waits up to ``timeout`` seconds; a second call ends the first with 409, as when two bots share a token.
* sendMessage stores and then confirms, and a bot may die between the two. It refuses what Telegram refuses: an empty
  or too long text, a topic or an answered message that does not exist.
* editMessageText changes a message of the bot. It refuses the same texts, one that changes nothing, and a message that
  is not there.
* Flood control is per chat: 429 with ``retry_after``, until the test lifts it; for messages and edits.
* A photo is a message of its own, an album's too; getFile and a download give its bytes.

Everything sent is in ``sent``, as it is after edits; ``edits`` and ``refused`` hold what their names say, each with the
time.
``hold`` stops a sendMessage before it is stored or before it is confirmed, so that a test can kill the bot right there.

By hand: ``python -m tests.fakes.bot_api [port]`` prints what to set; then type ``text`` or ``chat: text``. ``/photo 3``
sends an album of three photos. Its ids begin at the clock: Telegram never gives one twice, so a queue with the
messages of an earlier start has not seen those of this one, and a bot that was polling then has not confirmed them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from aiohttp import web

from tests.fakes.typed import Shown, by_hand, typing

TOKEN = "123456:loopback"
BOT = {"id": 123456, "is_bot": True, "first_name": "Loop", "username": "loop_bot"}
LIMIT = 4096
Json = Any


class Refusal(Exception):
    """What the API answers instead of a result."""

    def __init__(self, status: int, description: str, **parameters: Json) -> None:
        super().__init__(description)
        self.status, self.description, self.parameters = status, description, parameters


@dataclass
class Call:
    """One sendMessage; or one editMessageText, which answers nothing."""

    chat: int
    text: str
    topic: int | None = None
    answers: int | None = None
    at: float = field(default_factory=time.monotonic)
    id: int = 0


@dataclass
class Hold:
    """A sendMessage that is stopped; ``stored`` says whether before or after it was stored."""

    stored: bool
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Flood:
    """Flood control of a chat, after ``free`` further messages."""

    retry_after: int
    free: int = 0


class BotApi:
    """The state of the fake; ``url`` goes into TELEGRAM_API. Ids of messages and updates are counted from *first*."""

    def __init__(self, first: int = 0) -> None:
        self.url = ""
        self.sent: list[Call] = []
        self.edits: list[Call] = []
        self.refused: list[tuple[Call, int]] = []
        self.actions: Counter[tuple[int, int | None]] = Counter()
        self.polls = 0
        self.confirmed = 0
        self.floods: dict[int, Flood] = {}
        self.blocked: set[int] = set()
        self.broken: dict[str, Refusal] = {}
        self.holds: dict[int, Hold] = {}
        self._updates: list[dict[str, Json]] = []
        self._again: list[dict[str, Json]] = []
        self.times: Counter[int] = Counter()
        self._known: dict[int, set[int]] = {}
        self._topics: set[tuple[int, int]] = set()
        self._arrived = asyncio.Event()
        self._poll: asyncio.Future[None] | None = None
        self._next = {"update": first + 1000, "message": first}

    # ── what a test does ──

    def say(self, chat: int, text: str, *, topic: int | None = None, who: str = "Ann") -> int:
        """Somebody writes; returns the update's id."""
        message = self._message(chat, text, topic)
        if text.startswith("/"):
            message["entities"] = [{"type": "bot_command", "offset": 0, "length": len(text.split(maxsplit=1)[0])}]
        return self._said(message, topic, who)

    def album(self, chat: int, group: str, photos: list[str], caption: str) -> list[int]:
        """Somebody sends an album: an update for each photo, the first with the caption; returns their ids."""
        updates: list[int] = []
        for name in photos:
            message = self._message(chat, "", None) | {"media_group_id": group}
            del message["text"]
            message |= {"caption": caption} if not updates else {}
            sizes = (("small", 90), ("large", 1280))
            message["photo"] = [
                {"file_id": f"{name}-{size}", "file_unique_id": f"{name}{width}", "width": width, "height": width}
                for size, width in sizes
            ]
            updates.append(self._said(message, None, "Ann"))
        return updates

    def _said(self, message: dict[str, Json], topic: int | None, who: str) -> int:
        message["from"] = {"id": sum(who.encode()), "is_bot": False, "first_name": who}
        self._next["update"] += 1
        self._updates.append({"update_id": self._next["update"], "message": message})
        if topic:
            self._topics.add((message["chat"]["id"], topic))
        self._arrived.set()
        return self._next["update"]

    def repeat(self, update: int) -> None:
        """The update comes once more after it was handed out, although it was confirmed."""
        self._again += [known for known in self._updates if known["update_id"] == update]
        self._arrived.set()

    def handed(self, update: int) -> bool:
        """Whether the bot has been given the update."""
        return self.times[update] > 0

    def texts(self, chat: int) -> list[str]:
        """What the bot wrote into a chat, as it is now."""
        return [call.text for call in self.sent if call.chat == chat]

    def message_of(self, update: int) -> int:
        """The message id of an update."""
        return next(known["message"]["message_id"] for known in self._updates if known["update_id"] == update)

    # ── the methods ──

    async def get_updates(self, data: dict[str, str]) -> Json:
        """Confirm, then answer what is not confirmed, or wait for it."""
        self.polls += 1
        self.confirmed = max(self.confirmed, int(data.get("offset") or 0))
        if self._poll is not None and self.polling:
            self._poll.set_exception(Refusal(409, "Conflict: terminated by other getUpdates request"))
        mine = self._poll = asyncio.get_running_loop().create_future()
        ends = time.monotonic() + float(data.get("timeout") or 0)
        try:
            while not (found := self._fresh(int(data.get("limit") or 100))) and (left := ends - time.monotonic()) > 0:
                self._arrived.clear()
                arrived = asyncio.ensure_future(self._arrived.wait())
                await asyncio.wait([arrived, mine], timeout=left, return_when=asyncio.FIRST_COMPLETED)
                arrived.cancel()
                if mine.done():
                    mine.result()
        finally:
            mine.cancel()
        self.times.update(update["update_id"] for update in found)
        return found

    @property
    def polling(self) -> bool:
        """Whether a getUpdates waits."""
        return self._poll is not None and not self._poll.done()

    def _fresh(self, limit: int) -> list[dict[str, Json]]:
        again = [update for update in self._again if self.times[update["update_id"]]]
        self._again = [update for update in self._again if update not in again]
        return again or [update for update in self._updates if update["update_id"] >= self.confirmed][:limit]

    async def send_message(self, data: dict[str, str]) -> Json:
        """Refuse, or store and confirm."""
        answers: Json = json.loads(data.get("reply_parameters") or "{}")
        topic = int(data["message_thread_id"]) if data.get("message_thread_id") else None
        call = Call(int(data.get("chat_id") or 0), data.get("text") or "", topic, answers.get("message_id"))
        self._check(call, bool(answers.get("allow_sending_without_reply")))
        hold = self.holds.pop(call.chat, None)
        if hold and not hold.stored:
            hold.reached.set()
            await hold.open.wait()
        message = self._message(call.chat, call.text, topic)
        call.id = message["message_id"]
        self.sent.append(call)
        if hold and hold.stored:
            hold.reached.set()
            await hold.open.wait()
        return message | {"from": BOT}

    async def edit_message_text(self, data: dict[str, str]) -> Json:
        """Refuse, or change a message."""
        edit = Call(int(data.get("chat_id") or 0), data.get("text") or "", id=int(data["message_id"]))
        known = next((call for call in self.sent if (call.chat, call.id) == (edit.chat, edit.id)), None)
        self._check(edit, orphan=True)
        if known is None:
            self._refuse(edit, 400, "Bad Request: message to edit not found")
        if known.text == edit.text:
            self._refuse(edit, 400, "Bad Request: message is not modified")
        known.text = edit.text
        self.edits.append(edit)
        return self._described(edit.id, edit.chat, edit.text, known.topic) | {"from": BOT}

    async def get_file(self, data: dict[str, str]) -> Json:
        """Where a file is."""
        name = data["file_id"]
        return {"file_id": name, "file_unique_id": name, "file_size": len(name), "file_path": f"photos/{name}.jpg"}

    async def download(self, request: web.Request) -> web.Response:
        """The bytes of a file: its name."""
        return web.Response(body=request.match_info["name"].encode())

    def _check(self, call: Call, orphan: bool) -> None:
        if call.chat in self.blocked:
            self._refuse(call, 403, "Forbidden: bot was blocked by the user")
        if call.chat not in self._known:
            self._refuse(call, 400, "Bad Request: chat not found")
        if not call.text.strip():
            self._refuse(call, 400, "Bad Request: message text is empty")
        if len(call.text) > LIMIT:
            self._refuse(call, 400, "Bad Request: message is too long")
        if call.topic is not None and (call.chat, call.topic) not in self._topics:
            self._refuse(call, 400, "Bad Request: message thread not found")
        if call.answers is not None and call.answers not in self._known[call.chat] and not orphan:
            self._refuse(call, 400, "Bad Request: message to be replied not found")
        flood = self.floods.get(call.chat)
        if flood and flood.free <= 0:
            after = flood.retry_after
            self._refuse(call, 429, f"Too Many Requests: retry after {after}", retry_after=after)
        if flood:
            flood.free -= 1

    def _refuse(self, call: Call, status: int, description: str, **parameters: Json) -> NoReturn:
        self.refused.append((call, status))
        raise Refusal(status, description, **parameters)

    async def send_chat_action(self, data: dict[str, str]) -> Json:
        """Count it."""
        topic = data.get("message_thread_id")
        self.actions[int(data["chat_id"]), int(topic) if topic else None] += 1
        return True

    def _message(self, chat: int, text: str, topic: int | None) -> dict[str, Json]:
        self._next["message"] += 1
        number = self._next["message"]
        self._known.setdefault(chat, set()).add(number)
        return self._described(number, chat, text, topic)

    def _described(self, number: int, chat: int, text: str, topic: int | None) -> dict[str, Json]:
        kind = {"id": chat, "type": "private", "first_name": "Ann"}
        if chat < 0:
            kind = {"id": chat, "type": "supergroup", "title": "Group", "is_forum": topic is not None}
        message: dict[str, Json] = {"message_id": number, "date": int(time.time()), "chat": kind, "text": text}
        return message | ({"message_thread_id": topic, "is_topic_message": True} if topic else {})

    async def serve(self, request: web.Request) -> web.Response:
        """One request: the token, the method, its parameters as a form."""
        methods = {
            "getupdates": self.get_updates,
            "sendmessage": self.send_message,
            "editmessagetext": self.edit_message_text,
            "getfile": self.get_file,
            "sendchataction": self.send_chat_action,
            "getme": _constant(BOT),
            "deletewebhook": _constant(True),
            "getwebhookinfo": _constant({"url": "", "has_custom_certificate": False, "pending_update_count": 0}),
        }
        known = request.match_info["token"] == TOKEN
        unknown = _refusing(Refusal(404, "Not Found") if known else Refusal(401, "Unauthorized"))
        name = request.match_info["method"].lower()
        method = methods.get(name, unknown) if known else unknown
        method = _refusing(self.broken[name]) if name in self.broken else method
        try:
            result = await method({name: str(value) for name, value in (await request.post()).items()})
        except Refusal as refusal:
            body = {"ok": False, "error_code": refusal.status, "description": refusal.description}
            body |= {"parameters": refusal.parameters} if refusal.parameters else {}
            return web.json_response(body, status=refusal.status)
        return web.json_response({"ok": True, "result": result})


def _constant(value: Json) -> Any:
    async def method(_: dict[str, str]) -> Json:
        return value

    return method


def _refusing(refusal: Refusal) -> Any:
    async def method(_: dict[str, str]) -> Json:
        raise refusal

    return method


@asynccontextmanager
async def serving(port: int = 0, first: int = 0) -> AsyncGenerator[BotApi]:
    """A running BotApi on a free port of loopback."""
    fake = BotApi(first)
    app = web.Application()
    app.router.add_route("*", "/bot{token}/{method}", fake.serve)
    app.router.add_get(f"/file/bot{TOKEN}/photos/{{name}}", fake.download)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def typed(fake: BotApi, chat: int, text: str) -> None:
    """What a typed line is: a message, or with ``/photo [n]`` an album of n photos."""
    command, _, number = text.partition(" ")
    if command == "/photo" and (not number or (number.isdecimal() and 1 <= int(number) <= 10)):
        photos = int(number or 1)
        group = f"album{time.time_ns()}"
        fake.album(chat, group, [f"{group}-{n}" for n in range(1, photos + 1)], f"An album of {photos}.")
    else:
        fake.say(chat, text)


async def _main(port: int) -> None:
    async with serving(port, int(time.time() * 1000)) as fake:
        fake.sent = Shown(lambda call: f"{call.chat}< {call.text}")
        fake.edits = Shown(lambda call: f"{call.chat}< (edited) {call.text}")
        print(f"TELEGRAM_API={fake.url} TELEGRAM_TOKEN={TOKEN}", flush=True)
        await typing(lambda chat, text: typed(fake, int(chat), text), lambda chat: chat.lstrip("-").isdigit(), "1")


if __name__ == "__main__":
    by_hand(_main, "Telegram", "`text`, `chat: text` or `/photo [n]`")
