"""The queue of ``module:queue``, and why there is none.

Theory of operation
-------------------
The module is the bot's own, and its import runs whatever it has on its top level; so what goes wrong here is somebody's
first day with the command, and each mistake has its sentence, which names the file that was looked at.

*Not the module that was meant.* Python has modules of its own, some of which are loaded long before (``queue``), and
then a file of that name here is not looked at.

*A module that runs the bot.* Without ``if __name__ == "__main__"`` the import ends the program, or does not return.
That the queue is opened while its module is imported is certain to be this mistake: the import is interrupted as by
Ctrl-C, so that the queue is closed in order. An import that is only long is said to be so after `LONG` seconds, with
the line where it stands; it may be a model that takes its time, so it goes on.
"""

from __future__ import annotations

import importlib
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from streambatch import BatchQueue
from streambatch.cli._ends import say
from streambatch.errors import UsageError

EVERY, LONG = 0.05, 10.0  # seconds: between two looks at a module that is being imported; when its import is long
GUARD = "if __name__ == '__main__'"


def queue_of(target: str) -> BatchQueue | None:
    """The queue; None if the module itself failed, which has been said. Raises UsageError for what is no such thing."""
    name, path = _names(target)
    sys.path.insert(0, str(Path.cwd()))
    found: object = None
    with _watched(name, path) as watch:
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                return watch.failed(error)
            raise UsageError(f"there is no module {error.name!r}, neither in {Path.cwd()} nor installed") from None
        except SystemExit as end:
            return watch.left(end)
        except KeyboardInterrupt:
            if not watch.told:
                raise
        except Exception as error:  # noqa: BLE001 - a module of the user's may raise anything
            return watch.failed(error)
    if watch.told:
        return None
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{_described(name)} has no {path}{_others(sys.modules[name])}{_shadowed(name)}")
        found = getattr(found, part)
    return _checked(found, target, name)


def _names(target: str) -> tuple[str, str]:
    """The module's and the queue's. Raises UsageError."""
    module, _, path = target.partition(":")
    path = path or "queue"
    named = all(name.isidentifier() for name in (*module.split("."), *path.split(".")))
    for file in (Path(module), *(() if named else (Path(f"{module}.py"),))):
        if file.suffix == ".py" and file.is_file():
            raise UsageError(f"{file} is a file: {_as_module(file.resolve(), path)}")
    if not named:
        raise UsageError(f"{target!r}: name a module and the queue in it, as in bot:queue or shop.bot:queue")
    return module, path


def _as_module(file: Path, path: str) -> str:
    """How to name the file's module: by its place below this folder if that makes names, or in its own folder."""
    here = Path.cwd()
    parts, there = file.relative_to(here).with_suffix("").parts if file.is_relative_to(here) else (), ""
    if not file.stem.isidentifier():
        name = re.sub(r"\W|^(?=\d)", "_", file.stem)
        return f"no module can have that name, so rename it, for example to {name}.py"
    if not parts or not all(part.isidentifier() for part in parts):
        parts, there = (file.stem,), f"cd {shlex.quote(str(file.parent))}, then "
    return f"name the module, {there}streambatch worker {'.'.join(parts)}:{path}"


# ── while it is imported ──


class Watch:
    """What is known of an import that goes on.

    Args:
        name: the module's.
        path: the queue's, in it.

    Attributes:
        told: it was said that the module runs the bot.
        over: the import is over.
    """

    def __init__(self, name: str, path: str) -> None:
        self.told = False
        self._name, self._path = name, path
        self.over = threading.Event()
        self._main = threading.main_thread().ident or 0

    def failed(self, error: Exception) -> None:
        """Show how the module failed."""
        if not self.told:
            traceback.print_exception(error)
            say(f"streambatch: importing {self._name} failed, see above")

    def left(self, end: SystemExit) -> None:
        """Say that the module ended the program, and what it said itself, as Python would."""
        if self.told:
            return
        if end.code is not None and not isinstance(end.code, int):
            say(str(end.code))
        place = _place(end.__traceback__)
        say(
            f"streambatch: importing {self._name} ended the program{place} (SystemExit); what starts the bot, and reads"
            f" its options, belongs under {GUARD}"
        )

    def look(self) -> None:
        """Until the import is over."""
        waited = 0.0
        while not self.over.wait(EVERY):
            waited += EVERY
            if _opened(self._name, self._path):
                self.told = True
                say(f"streambatch: {opens(self._name)}")
                signal.pthread_kill(self._main, signal.SIGINT)
                return
            if LONG <= waited < LONG + EVERY:
                say(f"importing {self._name} takes long, it is{self._now()}; what runs the bot belongs under {GUARD}")

    def _now(self) -> str:
        frame = sys._current_frames().get(self._main)  # pyright: ignore[reportPrivateUsage]
        return _line(traceback.extract_stack(frame))


@contextmanager
def _watched(name: str, path: str) -> Generator[Watch]:
    watch = Watch(name, path)
    thread = threading.Thread(target=watch.look, name="import", daemon=True)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; it is to interrupt here
        signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        yield watch
    finally:
        with suppress(KeyboardInterrupt):  # the watch's own, which came a moment late
            watch.over.set()
            thread.join()


def _opened(name: str, path: str) -> bool:
    """Whether the queue that is wanted was opened; the module may be imported only in part."""
    found: object = sys.modules.get(name)
    for part in path.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return isinstance(found, BatchQueue) and cast("Any", found)._entered


def _place(trace: TracebackType | None) -> str:
    return _line(traceback.extract_tb(trace))


def _line(frames: traceback.StackSummary) -> str:
    """The line on the top level of the module that was imported last, as `` at file:line``."""
    lines = [frame for frame in frames if frame.name == "<module>" and not frame.filename.startswith("<")]
    return f" at {lines[-1].filename}:{lines[-1].lineno}" if lines else ""


# ── what was found ──


def opens(name: str) -> str:
    """Why a queue that is open before its time is: it is opened once, and its own words would not say by whom."""
    return f"importing {name} already opened its queue: put asyncio.run(main()) under {GUARD}"


def _described(name: str) -> str:
    module = sys.modules[name]
    places = [str(place) for place in getattr(module, "__path__", ())]  # a folder without __init__.py has no file
    return f"module {name} ({getattr(module, '__file__', None) or next(iter(places), 'a part of Python')})"


def _shadowed(name: str) -> str:
    """That a file of this name here was not looked at, because Python had a module of this name already."""
    mine, file = Path.cwd() / f"{name}.py", getattr(sys.modules[name], "__file__", None)
    if not mine.is_file() or (file is not None and Path(file).resolve() == mine.resolve()):
        return ""
    return f". {mine} was not looked at, because another module of that name was there first: rename it"


def _others(module: object) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, BatchQueue)]
    return f"; there is {', '.join(names)}" if names else ", and no other BatchQueue on its top level"


def _checked(found: object, target: str, name: str) -> BatchQueue:
    if not isinstance(found, BatchQueue):
        kind = type(found).__name__
        raise UsageError(f"{target} is no BatchQueue but of type {kind}, in {_described(name)}{_shadowed(name)}")
    if not found.roles:
        raise UsageError(
            f"{target} has neither a runner nor a deliver callback, so it would only submit:"
            " BatchQueue(…, runner=…), @queue.deliver"
        )
    if cast("Any", found)._entered:
        raise UsageError(opens(name))
    return found
