"""examples/slack_bot.py behind Slack's Events API over HTTP, as Bolt serves it: signatures, and when 200 is said.

The handler and the app are those of the example; what stands for the queue here only says what became of a message.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from importlib.util import module_from_spec, spec_from_file_location
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from slack_bolt.authorization import AuthorizeResult

from streambatch import QueueFull, ServerAway
from tests.rig.moments import wait_for
from tests.rig.process import ROOT

SECRET = "of-this-test"


class Behind:
    """The app over HTTP: `post` sends what Slack would send, signed."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self.submitted: list[dict[str, object]] = []
        self.outcomes: list[Exception | None] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def submit(self, thread: str, text: str, **rest: object) -> None:
        """What the example calls."""
        self.submitted.append({"thread": thread, "text": text} | rest)
        await self.hold.wait()
        if self.outcomes and (error := self.outcomes.pop(0)) is not None:
            raise error

    async def post(self, body: dict[str, Any], secret: str = SECRET, **headers: str) -> tuple[int, str]:
        """One request; returns the status and the body of the answer."""
        data, at = json.dumps(body), str(int(time.time()))
        mac = hmac.new(secret.encode(), f"v0:{at}:{data}".encode(), hashlib.sha256).hexdigest()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {
            "Content-Type": "application/json",
            "X-Slack-Request-Timestamp": at,
            "X-Slack-Signature": f"v0={mac}",
        }
        async with self._session.post("/slack/events", data=data, headers=headers) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def slack(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Behind]:
    monkeypatch.setenv("SLACK_TOKEN", "xoxb-of-this-test")
    monkeypatch.setenv("SLACK_APP_TOKEN", "-")
    monkeypatch.setenv("SLACK_SIGNING_SECRET", SECRET)
    monkeypatch.setattr("streambatch.integrations._patience.PAUSE", 0)
    spec = spec_from_file_location("slack_bot", ROOT / "examples/slack_bot.py")
    assert spec is not None
    assert spec.loader is not None
    example: Any = module_from_spec(spec)
    spec.loader.exec_module(example)
    example.me[0] = AuthorizeResult(enterprise_id=None, team_id="T0LOOP", bot_user_id="U0BOT", bot_token="-")
    runner = web.AppRunner(example.app.web_app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        behind = Behind(session)
        monkeypatch.setattr(example, "queue", SimpleNamespace(submit=behind.submit))
        yield behind
    await runner.cleanup()


def message(ts: str = "1.1") -> dict[str, Any]:
    """An event as Slack sends it."""
    event = {"type": "message", "channel_type": "im", "channel": "D1", "user": "U0ANN", "text": "hi", "ts": ts}
    return {"type": "event_callback", "event_id": f"Ev{ts}", "team_id": "T0LOOP", "event": event}


async def test_slack_is_told_the_challenge_and_nobody_else_is_listened_to(slack: Behind) -> None:
    """`url_verification`, and a request whose signature is made with another secret."""
    status, told = await slack.post({"type": "url_verification", "challenge": "a-challenge", "token": "-"})
    assert (status, "a-challenge" in told) == (200, True)
    assert (await slack.post(message(), secret="another"))[0] == 401
    assert slack.submitted == []


async def test_200_is_said_after_the_message_is_stored(slack: Behind) -> None:
    """While `submit` waits, Slack has no answer, and will send the event again."""
    slack.hold.clear()
    answer = asyncio.create_task(slack.post(message()))
    await wait_for(lambda: slack.submitted, "the message on its way")
    assert (await slack.post({"type": "url_verification", "challenge": "c", "token": "-"}))[0] == 200
    assert not answer.done()
    slack.hold.set()
    assert (await answer)[0] == 200


async def test_an_event_that_could_not_be_stored_is_a_500_and_comes_again_under_the_same_id(slack: Behind) -> None:
    """What Slack sends again, with X-Slack-Retry-Num, is submitted with the id and the thread of the first time."""
    slack.outcomes = [QueueFull(), None]
    assert (await slack.post(message()))[0] == 500
    again = {"X_Slack_Retry_Num": "1", "X_Slack_Retry_Reason": "http_error"}
    assert (await slack.post(message(), **again))[0] == 200
    assert slack.submitted[0] == slack.submitted[1]
    assert (slack.submitted[0]["thread"], slack.submitted[0]["message_id"]) == ("D1", "1.1")


async def test_while_the_server_is_away_an_event_waits_in_its_request(slack: Behind) -> None:
    """It is submitted again under its id until it is stored; there is no 500 on which Slack would give up."""
    slack.outcomes = [ServerAway(), QueueFull(passing=True), None]
    assert (await slack.post(message()))[0] == 200
    assert [given["message_id"] for given in slack.submitted] == ["1.1"] * 3
