"""The lines for a shell in docs/slack.md and docs/fastapi.md: what each is, so that the pages say what was tried.

``LINES`` are run by test_by_hand.py, with free ports for those of the page and a folder for the data. Installing from
an index is the one thing that no test does; `installs` knows whether such a line names what the tests have installed.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SLACK_FAKE = "python -m tests.fakes.slack_api 8083"
_LOOPBACK = "SLACK_API=http://127.0.0.1:8083/api/ SLACK_TOKEN=xoxb-loopback SLACK_APP_TOKEN=xapp-loopback"
SLACK = f"{_LOOPBACK} python examples/slack_bot.py"
SLACK_ALONE = "SLACK_TOKEN=xoxb-… SLACK_APP_TOKEN=xapp-… .venv/bin/python slack_bot.py"
WEB = "python examples/fastapi_sse.py"
WEB_ALONE = ".venv/bin/python fastapi_sse.py"
LINES = [SLACK_FAKE, SLACK, SLACK_ALONE, WEB, WEB_ALONE]


def installs(line: str) -> bool:
    """Whether a line makes an environment with this package, and with libraries that the tests have in theirs."""
    found = re.fullmatch(r'python3 -m venv \.venv && \.venv/bin/pip install -q "([\w-]+)\[embedded\]" (.+)', line)
    if found is None:
        return False
    told: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tested = {re.split(r"[>=\[]", name)[0] for name in told["dependency-groups"]["test"] if isinstance(name, str)}
    return found[1] == told["project"]["name"] and set(found[2].split()) <= tested


def split(line: str) -> tuple[dict[str, str], str, list[str]]:
    """A line as its variables, its Python file and that file's arguments."""
    words = shlex.split(line)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program = words[len(variables) + 1 :]  # after the name of the interpreter
    if program[0] == "-m":
        return variables, f"{program[1].replace('.', '/')}.py", program[2:]
    return variables, program[0], program[1:]
