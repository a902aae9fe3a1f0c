"""Is what the fake says what the SDK's own types say?

The SDK builds its objects without validation, so a fake may answer nonsense and nobody notices. `check` validates the
data of an object again, strictly, and names every field the type does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openai import BaseModel
from pydantic import TypeAdapter

#: Fields that the API sends and the SDK's types do not name.
KNOWN = frozenset({"store"})


def check(told: BaseModel, kind: Any = None) -> Any:
    """Validate an SDK object as its own type, or as *kind*; returns the validated object."""
    data = told.to_dict(mode="python", exclude_unset=True)
    found = TypeAdapter[Any](kind or type(told)).validate_python(data, strict=True)
    assert not (more := sorted(set(extras(found)) - KNOWN)), f"{type(found).__name__} has no {more}"
    return found


def extras(value: Any) -> Iterator[str]:
    """The fields of a validated object that its type does not have, at any depth."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from extras(getattr(value, name))
    elif isinstance(value, list):
        for one in value:  # pyright: ignore[reportUnknownVariableType]
            yield from extras(one)
