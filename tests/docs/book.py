"""Every code block of the README and of docs/ is run: how a page becomes a test.

Theory of operation. A page is read by Sybil and its blocks are run from top to bottom, in an empty directory, with one
event loop for the page; the loop stands still between two blocks, so a page can look at any moment as long as it likes.
What a block's language means:

=========== ==========================================================================================================
``python``  run in the page's namespace, with top-level ``await``; one that calls ``asyncio.run`` is a file of its own
            and run as a program; one under ``<!-- from FILE -->`` must stand in that file, whose own test runs it;
            one under ``<!-- save as FILE -->`` becomes that file of the directory, and a test is run by pytest there
``toml``    becomes a file in the same way
``pycon``   a session, which can be pasted without its prompts: what each line prints is compared
``text``    what the program above it printed
``console`` a session of a shell: ``$ streambatch …`` is run on the server in ``bot-data``; of what it prints times,
            processes, entry ids and the width of columns may differ
``redis``   a session of redis-cli: the first line says with which server, ``> `` begins a command
``sh``      lines for a shell: each must be known to `commands` and is checked there
``acl``     an ACL user: compared with the one all tests run as
``conf``    lines of a server's configuration: a server started with them must be accepted without a warning
=========== ==========================================================================================================

In what is compared ``…`` stands for anything on its line. A language that is not in this table fails the page.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from streambatch import BatchQueue, QueueClosed

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = ("python", "toml", "pycon", "text", "console", "redis", "sh", "acl", "conf")
Check = Callable[[str], None]
_redis: Any = Redis  # without a type, for the same reason as in tests/rig/clients.py


def differs(wanted: str, got: str) -> str | None:
    """What is wrong with *got*, or None; ``…`` in *wanted* stands for anything on its line."""
    pattern = ".*".join(re.escape(piece) for piece in wanted.strip().split("…"))
    if re.fullmatch(pattern, got.strip()):
        return None
    return f"The page says:\n{wanted.strip()}\n\nbut it is:\n{got.strip()}"


class Book:
    """Runs pages.

    Args:
        folder: an empty directory, which becomes the working directory of the page's programs.
        checks: what to do with blocks that are not code (``sh``, ``acl``, ``conf``), by language.
    """

    def __init__(self, folder: Path, checks: dict[str, Check]) -> None:
        self._folder = folder
        self._checks = checks
        self._loop = asyncio.Runner()
        self._printed = ""
        kinds = {"python": self._python, "pycon": self._pycon, "text": self._text, "console": self._console}
        kinds |= {"redis": self._redis, "toml": self._saved}
        readers = [CodeBlockParser(name, kinds.get(name) or partial(self._check, name)) for name in LANGUAGES]
        self._sybil = Sybil(parsers=readers, patterns=["*.md"])

    def run(self, page: Path) -> int:
        """Run all blocks of *page*, in order; returns how many. Raises SybilFailure."""
        document = self._sybil.parse(page)
        examples: list[Example] = list(document.examples())
        fences = re.findall(r"^```(\w+)", document.text, re.MULTILINE)
        assert sorted(set(fences) - set(LANGUAGES)) == [], "a language that nobody runs"
        assert len(examples) >= len(fences), "a block that nobody reads"  # more: there are invisible ones
        with self._loop:
            try:
                for example in examples:
                    example.evaluate()
            finally:
                self._loop.run(_closed(document.namespace.values()))
        return len(examples)

    def _python(self, example: Example) -> str | None:
        source = str(example.parsed)
        if _above("save as", example):
            return self._saved(example)
        if origin := _above("from", example):
            text = (ROOT / origin).read_text(encoding="utf-8")
            block = example.document.text[example.start : example.end].split("\n", 1)[1].rsplit("```", 1)[0]
            return None if block in text else f"this is not in {origin}"  # with the indentation that it has there
        if "asyncio.run(" in source:
            self._printed = self._program(source)
            return None
        self._execute(source, example, "exec")
        return None

    def _saved(self, example: Example) -> str | None:
        name = _above("save as", example)
        assert name is not None, "the page does not say which file this is"
        (self._folder / name).write_text(str(example.parsed), encoding="utf-8")
        if name.startswith("test_"):  # without the plugins that only our own tests have
            words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:valkey", "-p", "no:randomly")
            self._printed = self._python_of(*words).splitlines()[-1]
        return None

    def _program(self, source: str) -> str:
        file = self._folder / "bot.py"
        file.write_text(source, encoding="utf-8")
        return self._python_of(str(file))

    def _python_of(self, *words: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *words], cwd=self._folder, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _execute(self, source: str, example: Example, how: str) -> None:
        code = compile(source, example.path, how, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, example.namespace)
        if asyncio.iscoroutine(result):
            self._loop.run(result)

    def _pycon(self, example: Example) -> str | None:
        lines = doctest.DocTestParser().get_examples(str(example.parsed))
        if loops := [line.source for line in lines[:-1] if _has_a_body(line.source)]:
            return f"pasted, this takes the next line for its own:\n{loops[0]}"
        for line in lines:
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                self._execute(line.source, example, "single")
            if wrong := differs(line.want, said.getvalue()):
                return f"{line.source}{wrong}"
        return None

    def _text(self, example: Example) -> str | None:
        return differs(str(example.parsed), self._printed)

    def _console(self, example: Example) -> str | None:
        _, *steps = re.split(r"^\$ ", str(example.parsed), flags=re.MULTILINE)
        code = 0
        for step in steps:
            line, _, wanted = step.partition("\n")
            if line == "echo $?":
                got = str(code)
            else:
                program, *words = shlex.split(line)
                assert program == "streambatch", line
                code, got = self._run(words)
            if wrong := differs(_steady(wanted), _steady(got)):
                return f"$ {line}\n{wrong}"
        return None

    def _run(self, words: list[str]) -> tuple[int, str]:
        """The exit code of a verb and all that it says, as a terminal of 110 columns would show it."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ("LINES", "STREAMBATCH_URL", "PYTHONUNBUFFERED")
        }
        env = {**kept, "PYTHONPATH": str(ROOT), "STREAMBATCH_URL": "embedded:./bot-data"}
        done = subprocess.run(
            [sys.executable, "-m", "streambatch", *words], cwd=self._folder, env=env, text=True, timeout=60,
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout

    def _redis(self, example: Example) -> str | None:
        first, *rest = re.split(r"^> ", str(example.parsed), flags=re.MULTILINE)
        shown = re.fullmatch(r"\$ redis-cli -s (\S+)", first.strip())
        assert shown is not None, "the first line says which server: $ redis-cli -s path"
        with _redis(unix_socket_path=str(self._folder / shown[1]), decode_responses=True, protocol=2) as client:
            pool = client.connection_pool
            for step in rest:
                line, _, wanted = step.partition("\n")
                answer = pool.get_connection()
                try:
                    answer.send_command(*shlex.split(line))
                    got = "\n".join(_shown(answer.read_response()))
                finally:
                    pool.release(answer)
                if wrong := differs(wanted, got):
                    return f"> {line}\n{wrong}"
        return None

    def _check(self, language: str, example: Example) -> None:
        self._checks[language](str(example.parsed))


async def _closed(values: Iterable[object]) -> None:
    """Close the queues that a page which failed left open; the others are closed already."""
    for queue in [value for value in values if isinstance(value, BatchQueue)]:
        with contextlib.suppress(QueueClosed):
            await queue.drain(0)
        await queue.__aexit__(None, None, None)


#: What differs between two runs of the same verb, and what stands for it.
_PASSING = (
    (r"\d{4}-\d\d-\d\d ", "DAY "),
    (r"\d\d:\d\d:\d\d", "TIME"),
    (r"-?\b\d+(\.\d+)? [smhd]\b( \d+ [smh]\b)?", "SPAN"),
    (r"\b\d{13}-\d+(\.\d+-[0-9a-f]{8})?", "ENTRY"),
    (r"\b[\w.-]+:\d{2,}(:[0-9a-f]{8})?\b", "PROCESS"),
    (r"  +", " "),
)


def _steady(text: str) -> str:
    """What a verb printed, without what passes."""
    for pattern, stands in _PASSING:
        text = re.sub(pattern, stands, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _has_a_body(source: str) -> bool:
    """Whether it is a loop or its kind, which a shell takes for ended at an empty line and not before."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return hasattr(compile(source, "page", "single", flags).body[0], "body")


def _above(word: str, example: Example) -> str | None:
    """The file named after *word* in the comment right above a block."""
    found = re.search(rf"<!-- {word} (\S+) -->\s*\Z", example.document.text[: example.start])
    return found[1] if found else None


def _shown(answer: object) -> Iterator[str]:
    """An answer as redis-cli prints it, line by line."""
    if answer is None:
        yield "(nil)"
    elif isinstance(answer, int):
        yield f"(integer) {answer}"
    elif answer == "OK":  # a status; that of no other command is shown on a page
        yield "OK"
    elif isinstance(answer, list):
        items: list[object] = answer  # pyright: ignore[reportUnknownVariableType]
        wide = len(str(len(items)))
        if not items:
            yield "(empty array)"
        for number, item in enumerate(items, 1):
            for row, line in enumerate(_shown(item)):
                yield (f"{number:>{wide}}) " if row == 0 else " " * (wide + 2)) + line
    else:
        text = str(answer).replace("\\", "\\\\").replace('"', '\\"')
        yield f'"{text}"'
