"""From a function's type hints to the JSON schema of its arguments, and from a model's JSON back to arguments.

Theory of operation
-------------------
pydantic does both, so what a hint means is what its users expect: ``Optional``, ``Literal``, enums, dataclasses and
models nest, ``Annotated[str, Field(description=...)]`` describes a parameter. It is a dependency of the provider's
library and imported here only when a tool is made. The arguments become one TypedDict, because its keys may have any
name, a parameter with a default is simply a key that may be missing, and then the function's own default applies.

The schema is tidied: titles say what the names say already and cost tokens; objects whose fields are known accept no
others. It is *strict* if a provider that insists on the strict subset would take it: every field required, no open
objects, no keyword outside the subset. Hints with defaults or dicts make a schema that is not, and is sent as such.

A validation error is told to the model by place and rule. The value is left out: it is in the call that it has made.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NotRequired, cast, get_type_hints

from streambatch.errors import UsageError

Schema = dict[str, Any]
Parse = Callable[[str], dict[str, Any]]
_STRICT = (
    "type properties required additionalProperties items anyOf enum const description $defs"
    " minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems pattern format"
)
_FORMATS = frozenset({"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_MOST_FAULTS = 8


class BadArguments(Exception):
    """What a model gave does not fit; the text says what is wrong, for the model, and holds no values."""


def arguments_of(function: Callable[..., Any], injected: type, name: str) -> tuple[Schema, Parse, str | None]:
    """The schema of a function's arguments, what makes arguments of JSON, and the parameter that is injected.

    Args:
        function: whose parameters they are.
        injected: a parameter with this hint is filled in by the caller and not part of the schema.
        name: the tool's, for errors.

    Raises:
        UsageError: a parameter without a hint or with one that no JSON fits, ``*args``, positional-only.
    """
    hints = _hints(function, name)
    fields: dict[str, Any] = {}
    filled: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        what = f"parameter {parameter.name} of tool {name}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UsageError(f"{what} is given by position; a model gives arguments by name")
        if parameter.name not in hints:
            raise UsageError(f"{what} has no type hint, so the model cannot be told what it is")
        hint = hints[parameter.name]
        if hint is injected:
            filled.append(parameter.name)
        else:
            fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    if len(filled) > 1:
        raise UsageError(f"tool {name} has more than one parameter of type {injected.__name__}")
    schema, parse = _compiled(fields, name)
    _tell_defaults(schema, function)
    return schema, parse, filled[0] if filled else None


def _tell_defaults(schema: Schema, function: Callable[..., Any]) -> None:
    """What a parameter is if the model leaves it out, where JSON can say it."""
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty and parameter.name in schema["properties"]:
            with suppress(PydanticSerializationError):
                schema["properties"][parameter.name]["default"] = to_jsonable_python(parameter.default)


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        reason = f"a type hint of tool {name} names {error.name!r}, which its module does not have"
        raise UsageError(f"{reason}; types of tools are defined or imported at the top of a module") from None
    except TypeError as error:
        raise UsageError(f"a type hint of tool {name} cannot be read: {error}") from None


def _compiled(fields: Mapping[str, Any], name: str) -> tuple[Schema, Parse]:
    from pydantic import PydanticUserError, TypeAdapter, ValidationError
    from typing_extensions import TypedDict  # pydantic refuses the one of typing before Python 3.12

    made = types.new_class(name, (TypedDict,), {}, lambda body: body.update(__annotations__=dict(fields)))
    made.__pydantic_config__ = {"extra": "forbid"}
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(made)
        schema = adapter.json_schema(mode="validation")
    except (PydanticUserError, TypeError) as error:  # a schema that cannot be made, or not as JSON, is one of these
        reason = str(error).split("\n", 1)[0]
        raise UsageError(f"a type hint of tool {name} has no JSON schema: {reason}") from None

    def parse(text: str) -> dict[str, Any]:
        try:
            return adapter.validate_json(text.strip() or "{}")  # some models send nothing for no arguments
        except ValidationError as error:
            raise BadArguments(_told(error.errors(include_url=False, include_input=False))) from None

    return _tidy(schema), parse


def _told(faults: list[Any]) -> str:
    lines = [f"{'.'.join(map(str, fault['loc'])) or 'the arguments'}: {fault['msg']}" for fault in faults]
    more = [f"and {len(lines) - _MOST_FAULTS} more"] if len(lines) > _MOST_FAULTS else []
    return "; ".join(lines[:_MOST_FAULTS] + more)


def _tidy(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_tidy(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found: Schema = {}
    for key, value in cast("Schema", schema).items():
        if key in ("properties", "$defs"):
            found[key] = {name: _tidy(part) for name, part in value.items()}
        elif key in ("default", "enum", "const", "examples"):  # data, not schemas
            found[key] = value
        elif key != "title":
            found[key] = _tidy(value)
    if found.get("type") == "object" and "additionalProperties" not in found:
        found["additionalProperties"] = "properties" not in found
    return found


def is_strict(schema: Any) -> bool:
    """Whether *schema* keeps to the subset that providers demand for ``strict`` tools."""
    if not isinstance(schema, dict):
        return False
    given = cast("Schema", schema)
    if "$ref" in given:
        return set(given) == {"$ref"}
    if not {"type", "anyOf", "enum", "const"}.intersection(given):
        return False
    if not set(given).issubset(_STRICT.split()) or ("format" in given and given["format"] not in _FORMATS):
        return False
    properties = given.get("properties", {})
    if given.get("type") == "object" and given.get("additionalProperties") is not False:
        return False
    if set(properties) != set(given.get("required", ())):
        return False
    inner = [*properties.values(), *given.get("$defs", {}).values(), *given.get("anyOf", ())]
    if given.get("type") == "array" and "items" not in given:
        return False
    return all(map(is_strict, [*inner, *([given["items"]] if "items" in given else [])]))
