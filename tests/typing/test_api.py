"""What the type checkers cannot see: that the list of options is that of the settings, and where it is given."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import streambatch
from streambatch import BatchQueue, Settings
from streambatch._settings import Options


def test_the_options_are_the_fields_of_settings() -> None:
    """A field that is missing among the options could be set, but no editor would know."""
    assert list(Options.__annotations__) == [field.name for field in fields(Settings)]
    assert Options.__total__ is False


def test_a_queue_takes_the_options_by_name() -> None:
    """The signature says so, and everything else is named too."""
    parameters = inspect.signature(BatchQueue).parameters
    assert parameters["overrides"].annotation == "Unpack[Options]"
    assert all(one.annotation is not inspect.Parameter.empty for one in parameters.values())


def test_the_package_says_that_it_is_typed() -> None:
    """Without the marker (PEP 561) every type is Any for a user."""
    assert (Path(streambatch.__file__).parent / "py.typed").is_file()
