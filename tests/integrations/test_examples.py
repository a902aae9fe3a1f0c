"""The examples in the docstrings of the package print what they say."""

from __future__ import annotations

import doctest
import sys

import pytest

from streambatch import integrations


@pytest.mark.parametrize(
    "module", sorted(name for name in sys.modules if name.startswith(f"{integrations.__name__}._"))
)
def test_docstrings(module: str) -> None:
    tried = doctest.testmod(sys.modules[module], raise_on_error=True)
    assert tried.attempted


def test_every_public_name_has_an_example() -> None:
    for name in integrations.__all__:
        assert ">>>" in getattr(integrations, name).__doc__, name
