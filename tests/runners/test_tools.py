"""What becomes a tool, and what the model is told about it."""

from __future__ import annotations

import enum
import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from streambatch import UsageError
from streambatch.runners import ToolCall, tool
from streambatch.runners._schema import BadArguments
from streambatch.runners._tools import Tool, tools_of

CALL = ToolCall("c", "f", "t", "b")


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclass
class Place:
    city: str
    country: str = "FR"


class Wish(BaseModel):
    title: str
    stars: int = Field(ge=1, le=5)


class Opaque:
    pass


def schema(hint: Any, default: Any = ...) -> Any:
    """The schema of one parameter of that type."""

    async def f(x: Any = default) -> None: ...

    f.__annotations__["x"] = hint
    if default is ...:
        f.__defaults__ = None
    made = tool(f)
    assert made.schema["additionalProperties"] is False
    assert made.schema["type"] == "object"
    assert made.schema.get("required", []) == (["x"] if default is ... else [])
    return made.schema["properties"]["x"], made.schema.get("$defs"), made.strict


PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string", "default": "FR"}},
    "required": ["city"],
    "additionalProperties": False,
}
WISH = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["title", "stars"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("hint", "expected", "strict"),
    [
        (str, {"type": "string"}, True),
        (int, {"type": "integer"}, True),
        (float, {"type": "number"}, True),
        (bool, {"type": "boolean"}, True),
        (list[int], {"type": "array", "items": {"type": "integer"}}, True),
        (list, {"type": "array", "items": {}}, False),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, False),
        (dict, {"type": "object", "additionalProperties": True}, False),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, True),  # noqa: UP045 - people write it
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}, True),
        (datetime, {"type": "string", "format": "date-time"}, True),
        (Annotated[str, Field(description="which")], {"type": "string", "description": "which"}, True),
        (Any, {}, False),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, False),
    ],
    ids=str,
)
def test_a_hint_becomes_a_schema(hint: Any, expected: Any, strict: bool) -> None:
    assert schema(hint) == (expected, None, strict)


def test_types_with_a_name_become_definitions() -> None:
    assert schema(Unit) == (
        {"$ref": "#/$defs/Unit"},
        {"Unit": {"enum": ["celsius", "fahrenheit"], "type": "string"}},
        True,
    )
    assert schema(Place) == ({"$ref": "#/$defs/Place"}, {"Place": PLACE}, False)
    assert schema(Wish) == ({"$ref": "#/$defs/Wish"}, {"Wish": WISH}, True)


def test_a_parameter_with_a_default_may_be_left_out_and_the_default_is_told_if_json_can_say_it() -> None:
    assert schema(int, 3) == ({"type": "integer", "default": 3}, None, False)
    assert schema(str | None, None)[0]["default"] is None
    assert schema(Unit, Unit.C)[0]["default"] == "celsius"
    assert "default" not in schema(Any, Opaque())[0]


async def test_arguments_arrive_as_what_the_hints_say_and_the_call_is_injected_unseen() -> None:
    seen: list[Any] = []

    async def order(place: Place, unit: Unit, call: ToolCall, wishes: list[Wish], *, json: int = 7) -> str:
        """Order things.

        In a city.
        """
        seen.extend([place, unit, call, wishes, json])
        return "done"

    made = tool(order)
    assert (made.name, made.description, made.policy, made.timeout) == (
        "order",
        "Order things.\n\nIn a city.",
        "fail_output",
        None,
    )
    assert list(made.schema["properties"]) == ["place", "unit", "wishes", "json"]
    given = '{"place":{"city":"Rome"},"unit":"celsius","wishes":[{"title":"x","stars":"5"}]}'
    assert await made.call(given, CALL) == "done"
    assert seen == [Place("Rome"), Unit.C, CALL, [Wish(title="x", stars=5)], 7]


async def test_a_tool_without_parameters_takes_nothing_in_every_spelling() -> None:
    async def now() -> str:
        return "noon"

    made = tool(now)
    assert made.schema == {"type": "object", "properties": {}, "additionalProperties": False}
    assert [await made.call(text, CALL) for text in ("", " ", "{}")] == ["noon"] * 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{", "Invalid JSON"),
        ("[]", "should be an object"),
        ("{}", "stars: Field required"),
        ('{"stars": "secret"}', "stars: Input should be a valid integer"),
        ('{"stars": 1, "extra": "secret"}', "extra: Extra inputs are not permitted"),
        ('{"stars": ["secret"]}', "stars: Input should be a valid integer"),
    ],
)
async def test_what_does_not_fit_is_told_without_the_value(arguments: str, told: str) -> None:
    async def rate(stars: int) -> None: ...

    with pytest.raises(BadArguments) as caught:
        await tool(rate).call(arguments, CALL)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_many_faults_are_told_in_a_few_words() -> None:
    async def rate(stars: list[int]) -> None: ...

    with pytest.raises(BadArguments) as caught:
        await tool(rate).call(str({"stars": ["x"] * 500}).replace("'", '"'), CALL)
    assert str(caught.value).endswith("and 492 more")


async def test_the_decorator_says_more_and_the_tool_is_called_like_its_function() -> None:
    @tool(policy="rerun", name="get-weather", description="Weather.", timeout=timedelta(minutes=1))
    async def weather(city: str) -> str:
        """For people who read the code."""
        return f"sunny in {city}"

    assert isinstance(weather, Tool)
    assert (weather.name, weather.description, weather.policy, weather.timeout) == (
        "get-weather",
        "Weather.",
        "rerun",
        60,
    )
    assert await weather("Rome") == "sunny in Rome"
    assert list(tools_of([weather])) == ["get-weather"]


async def test_methods_are_tools() -> None:
    class Shop:
        async def stock(self, item: str) -> str:
            return f"3 of {item}"

    made = tools_of([Shop().stock])["stock"]
    assert list(made.schema["properties"]) == ["item"]
    assert await made.call('{"item":"pens"}', CALL) == "3 of pens"


async def f(x: int) -> None: ...


def with_hints(name: str, **hints: Any) -> Any:
    """A function whose hints are these."""

    async def made(x: Any) -> None: ...

    made.__name__ = name
    made.__annotations__ = hints
    return made


async def by_position(x: int, /) -> None: ...


async def star(*x: int) -> None: ...


async def stars(**x: int) -> None: ...


async def opaque(x: Opaque) -> None: ...


async def callback(x: Callable[[int], int]) -> None: ...


async def twice(x: ToolCall, y: ToolCall) -> None: ...


def plain(x: int) -> None: ...


async def generator(x: int) -> AsyncIterator[int]:
    yield x


NO_TOOLS: list[tuple[Any, str]] = [
    ([plain], "async def, and plain is not"),
    ([generator], "async def, and generator is not"),
    ([functools.partial(f, x=1)], "partial is not"),
    ([len], "len is not"),
    (["f"], "str is not"),
    (f, "not function"),
    ({"f": f}, "not dict"),
    ("f", "not str"),
    ([with_hints("unhinted")], "parameter x of tool unhinted has no type hint"),
    ([by_position], "parameter x of tool by_position is given by position"),
    ([star], "by position"),
    ([stars], "by position"),
    ([opaque], "tool opaque has no JSON schema"),
    ([callback], "tool callback has no JSON schema"),
    ([with_hints("nowhere", x="Nowhere")], "'Nowhere'"),
    ([twice], "more than one parameter of type ToolCall"),
    ([f, tool(f)], "two tools have the name f"),
]


@pytest.mark.parametrize(("given", "told"), NO_TOOLS, ids=[told for _, told in NO_TOOLS])
def test_what_is_no_tool_is_refused_at_once_with_a_reason(given: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        tools_of(given)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "a b"}, "'a b'"),
        ({"name": ""}, "''"),
        ({"name": "x" * 65}, "1 to 64"),
        ({"name": 3}, "not 3"),
        ({"policy": "again"}, "not 'again'"),
        ({"timeout": 0}, "seconds above 0"),
        ({"timeout": float("inf")}, "seconds above 0"),
        ({"timeout": True}, "seconds above 0"),
        ({"timeout": "1"}, "seconds above 0"),
        ({"description": 3}, "not int"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        tool(**options)(f)
    assert told in str(caught.value)
