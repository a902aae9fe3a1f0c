"""Every example in a docstring of the package is run; what it prints is what it says.

Theory of operation. The modules are walked, so that an example of a new one is run without being named here, and the
examples of a lazy face are found where they stand. An example sees what a reader would have imported: the public names.
No provider and no chat is contacted: what needs one is defined in an example, and not called.

One that awaits at its top is run as ``python -m asyncio`` would, on a bench, and has a ``queue`` whose Runs say what
they were told. A ``listener`` that an example of an event defines is called with each event.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import io
import pkgutil
from contextlib import redirect_stdout
from dataclasses import fields
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

import streambatch
from streambatch import Event, Receipt, instrumentation, integrations, runners, testing
from streambatch.testing import Bench, Says, ScriptedDeliver, ScriptedRunner

FACES: tuple[ModuleType, ...] = (streambatch, runners, integrations, instrumentation, testing)
AWAITS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def modules() -> list[str]:
    """All modules of the package but those that are run as a program."""
    found = pkgutil.walk_packages(streambatch.__path__, "streambatch.")
    return sorted(one.name for one in found if not one.name.endswith("__main__"))


def examples() -> dict[str, doctest.DocTest]:
    """Every docstring with an example, by its name."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in modules() for test in finder.find(import_module(name), name, extraglobs=public())]
    return {test.name: test for test in found if test.examples}


def public() -> dict[str, Any]:
    """What a reader would have imported."""
    names = {name: getattr(face, name) for face in FACES for name in face.__all__}
    return {**names, "asyncio": asyncio, "timedelta": timedelta}


EXAMPLES = examples()


def awaits(test: doctest.DocTest) -> bool:
    """Whether an example awaits outside of a function."""
    codes = [compile(one.source, test.name, "single", AWAITS) for one in test.examples]
    return any(code.co_flags & inspect.CO_COROUTINE for code in codes)


async def echoes(batch: streambatch.Batch, run: streambatch.Run) -> Any:
    """What the Runs of the example's queue do: they say what they were told, and show it before."""
    return Says(batch.text)


async def console(test: doctest.DocTest, bench: Bench) -> None:
    """Run it line by line, on one loop."""
    deliver = ScriptedDeliver()
    async with bench.queue(runner=ScriptedRunner(then=echoes), deliver=deliver) as queue:
        names = {**test.globs, "queue": queue}
        for line in test.examples:
            said = io.StringIO()
            with redirect_stdout(said):
                result = eval(compile(line.source, test.name, "single", AWAITS), names)
                if inspect.isawaitable(result):
                    await result
            assert doctest.OutputChecker().check_output(line.want, said.getvalue(), doctest.ELLIPSIS), (
                f"{line.source}says {line.want!r}, and it is {said.getvalue()!r}"
            )


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_example_is_true(name: str) -> None:
    """It runs without an error, and prints what stands there."""
    test = EXAMPLES[name]
    if awaits(test):
        with Bench() as bench:
            asyncio.run(console(test, bench))
        return
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed, tried = runner.run(test, out=report.append)
    assert (failed, tried) == (0, len(test.examples)), "".join(report)


def documented(face: ModuleType) -> dict[str, str]:
    """The docstrings of a face's public names and of their public methods, by dotted name."""
    found: dict[str, str] = {}
    for name in set(face.__all__) - {"__version__"}:
        value = getattr(face, name)
        found[f"{face.__name__}.{name}"] = value.__doc__ or ""
        members = vars(value).items() if isinstance(value, type) else ()
        for member, inner in members:
            if not member.startswith("_"):
                found[f"{face.__name__}.{name}.{member}"] = getattr(inner, "__doc__", "") or ""
    return found


def test_no_public_example_is_left_out() -> None:
    """Whatever a reader sees with `help()` and looks like an example is among those that are run."""
    run = {test.docstring for test in EXAMPLES.values()}
    shown = {name: text for face in FACES for name, text in documented(face).items() if ">>>" in text}
    assert len(shown) > 25
    assert [name for name, text in shown.items() if text not in run] == []
    assert Receipt.events.__doc__ in run


#: Public names without an example of their own, and why.
WITHOUT = {
    "streambatch.Listener": "an alias for type checkers; the examples of the events are listeners",
    "streambatch.ThreadBusy": 'nothing raises it in this version, which refuses every overlap but "collect"',
    "streambatch.Retracted": "nothing raises it in this version, which has no retract",
}
#: Events that the example of another one matches, because one does not go without the other.
TOGETHER = {
    "Cancelled": "Answered",
    "DeliveryFailed": "Retrying",
    "Lost": "Released",
    "Repaired": "Warned",
    "Restarted": "Preview",
    "StoreAway": "StoreBack",
    "Unparked": "Parked",
}
#: Packages with public names that are no part of the library's API.
NO_FACES = {"streambatch.torture": "what `streambatch torture` is made of; docs/torture.md shows the command"}


def example_of(name: str) -> str:
    """The code of a public name's example."""
    text = getattr(streambatch, name).__doc__ or ""
    return "".join(one.source for one in doctest.DocTestParser().get_examples(text))


def test_every_public_name_has_an_example() -> None:
    """Of its class or function, that is; a method is shown by its class, or has one of its own."""
    lacking = {
        f"{face.__name__}.{name}"
        for face in FACES
        for name in set(face.__all__) - {"__version__"}
        if ">>>" not in (getattr(face, name).__doc__ or "")
    }
    shown = {f"streambatch.{name}" for name, other in TOGETHER.items() if name in example_of(other)}
    assert lacking == set(WITHOUT) | shown
    assert len(shown) == len(TOGETHER)


#: Methods of the two objects that a bot calls, without an example, and why.
METHODS_WITHOUT = {
    "BatchQueue.edit": "refused in this version",
    "BatchQueue.retract": "refused in this version",
    "BatchQueue.limits": "the example of `Limits` reads it",
}


def test_every_method_of_a_queue_and_a_receipt_has_an_example() -> None:
    """Inherited ones, too: an editor shows the docstring of the method that is typed, not that of its class."""
    lacking = {
        f"{kind.__name__}.{name}"
        for kind in (streambatch.BatchQueue, Receipt)
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property))
        and ">>>" not in (member.__doc__ or "")
    }
    assert lacking == set(METHODS_WITHOUT)


def test_every_face_is_looked_at() -> None:
    """A new package with public names is one of the faces, or it is said why not."""
    packages = [one.name for one in pkgutil.iter_modules(streambatch.__path__, "streambatch.") if one.ispkg]
    found = {name for name in packages if "._" not in name and hasattr(import_module(name), "__all__")}
    assert found | {"streambatch"} == {face.__name__ for face in FACES} | set(NO_FACES)


def sample(kind: type[Event]) -> Event:
    """An event with something in each field."""
    by_type: dict[str, Any] = {"str": "x", "int": 2, "float": 60.0, "bool": True, "Any": "x"}
    given = {one.name: by_type[str(one.type)] for one in fields(kind)}
    return kind(**{**given, **({"outcome": "duplicate"} if "outcome" in given else {})})


SAMPLES = {kind.__name__: sample(kind) for kind in Event.__subclasses__()}


@pytest.mark.parametrize("name", ["Event", *sorted(SAMPLES)])
def test_the_listener_of_an_event_hears_it_and_nothing_else(name: str) -> None:
    """What it says of an event can be said of each one of that kind, and no other event makes it speak."""
    shows = TOGETHER.get(name, name)
    names = public()
    exec(example_of(shows), names)
    heard: set[str] = set()
    for kind, event in SAMPLES.items():
        said = io.StringIO()
        with redirect_stdout(said):
            names["listener"](event)
        heard |= {kind} if said.getvalue() else set()
    together = {one for one, other in TOGETHER.items() if other == shows}
    assert heard == ({"Started", "Dead"} if name == "Event" else {shows, *together})
