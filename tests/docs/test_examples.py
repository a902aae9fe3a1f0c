"""Every example in a docstring of the package is run; what it prints is what it says.

Theory of operation. The modules are walked, so that an example of a new one is run without being named here, and the
examples of a lazy face are found where they stand. An example sees what a reader would have imported: the public names.
No provider and no chat is contacted: what needs one is defined in an example, and not called.
"""

from __future__ import annotations

import asyncio
import doctest
import pkgutil
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

import streambatch
from streambatch import Receipt, instrumentation, integrations, runners, testing

FACES: tuple[ModuleType, ...] = (streambatch, runners, integrations, instrumentation, testing)


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


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_example_is_true(name: str) -> None:
    """It runs without an error, and prints what stands there."""
    test = EXAMPLES[name]
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
