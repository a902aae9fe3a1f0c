"""The lines for a shell in docs/bots.md, slack.md and fastapi.md: what each is, so that the pages say what was tried.

Those without an account are run by test_by_hand.py, with the tests' own environment for those of the page, free ports,
and a folder for the bot and its data. Those that install from an index are run by `python -m tests.bots.first_minutes`
and by no test; `installs` knows whether such a line names what the tests have installed.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: What the fakes need, all of it: test_ended.py imports them with nothing else.
FOR_FAKES = "python3 -m venv .venv && .venv/bin/pip install -q aiohttp"
TELEGRAM_FAKE = ".venv/bin/python -m tests.fakes.bot_api 8081"
_TELEGRAM = "TELEGRAM_API=http://127.0.0.1:8081 TELEGRAM_TOKEN=123456:loopback .venv/bin/python"
TELEGRAM = [f"{_TELEGRAM} {name}.py" for name in ("telegram_aiogram", "telegram_streaming", "telegram_ptb")]
PROVIDER = ".venv/bin/python -m tests.fakes.provider --port 8084"
PHOTOS = f"OPENAI_API_KEY=none OPENAI_BASE_URL=http://127.0.0.1:8084/v1 {_TELEGRAM} telegram_ptb.py"
DISCORD_FAKE = ".venv/bin/python -m tests.fakes.discord_api 8082"
_GATEWAY = "DISCORD_API=http://127.0.0.1:8082 DISCORD_TOKEN=loopback-token"
DISCORD = f"{_GATEWAY} .venv/bin/python discord_here.py discord_bot.py"
SLACK_FAKE = ".venv/bin/python -m tests.fakes.slack_api 8083"
_LOOPBACK = "SLACK_API=http://127.0.0.1:8083/api/ SLACK_TOKEN=xoxb-loopback SLACK_APP_TOKEN=xapp-loopback"
SLACK = f"{_LOOPBACK} .venv/bin/python slack_bot.py"
SLACK_ALONE = "SLACK_TOKEN=xoxb-… SLACK_APP_TOKEN=xapp-… .venv/bin/python slack_bot.py"
WEB = "python examples/fastapi_sse.py"
WEB_ALONE = ".venv/bin/python fastapi_sse.py"
_JSON = "curl {}-H 'content-type: application/json' -d '{}' http://127.0.0.1:8000/{}"
#: What the page of the web chat does from a shell: store, follow, stop.
CURL = [
    _JSON.format("-i ", '{"thread": "t", "message": "m1", "text": "hi"}', "messages"),
    "curl -N 'http://127.0.0.1:8000/events/t?message=m1'",
    _JSON.format("", '{"thread": "t"}', "stop"),
]
#: How each example is started in an empty folder.
ALONE = {
    "telegram_aiogram": "TELEGRAM_TOKEN=… .venv/bin/python telegram_aiogram.py",
    "telegram_streaming": "TELEGRAM_TOKEN=… .venv/bin/python telegram_streaming.py",
    "telegram_ptb": "TELEGRAM_TOKEN=… .venv/bin/python telegram_ptb.py",
    "discord_bot": "DISCORD_TOKEN=… .venv/bin/python discord_bot.py",
    "slack_bot": SLACK_ALONE,
    "fastapi_sse": WEB_ALONE,
}
PAGES = {"slack_bot": "docs/slack.md", "fastapi_sse": "docs/fastapi.md"}
FAKES = [FOR_FAKES, TELEGRAM_FAKE, DISCORD_FAKE, SLACK_FAKE, PROVIDER]
LINES = [*FAKES, *TELEGRAM, PHOTOS, DISCORD, SLACK, WEB, *CURL, *ALONE.values()]


def page_of(example: str) -> str:
    """The text of the page that says how an example is started."""
    return (ROOT / PAGES.get(example, "docs/bots.md")).read_text(encoding="utf-8")


def install_of(example: str) -> str:
    """The line of an example's page that makes its environment: the last one before the line that starts it."""
    before = page_of(example).partition(f"\n{ALONE[example]}\n")[0]
    return next(line for line in reversed(before.splitlines()) if line.startswith("python3 -m venv"))


def installs(line: str) -> bool:
    """Whether a line makes an environment with this package, and with libraries that the tests have in theirs."""
    found = re.fullmatch(r'python3 -m venv \.venv && \.venv/bin/pip install -q "([\w-]+)\[embedded\]" (.+)', line)
    if found is None:
        return False
    told: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tested = {re.split(r"[>=\[]", name)[0] for name in told["dependency-groups"]["test"] if isinstance(name, str)}
    wanted = {re.split(r"[>=]", name)[0] for name in shlex.split(found[2])}
    return found[1] == told["project"]["name"] and wanted <= tested


def split(line: str) -> tuple[dict[str, str], str, list[str]]:
    """A line as its variables, its Python file and that file's arguments."""
    words = shlex.split(line)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program = words[len(variables) + 1 :]  # after the name of the interpreter
    if program[0] == "-m":
        return variables, f"{program[1].replace('.', '/')}.py", program[2:]
    return variables, program[0], program[1:]
