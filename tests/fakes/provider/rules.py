"""Ready-made rules: what the model does, told from the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from .plan import Call, Plan
from .wire import Request, fields_of


def answers_tools(request: Request) -> bool:
    """Does this POST bring tool outputs, in whichever API?"""
    if request.path.endswith("/submit_tool_outputs"):
        return True
    body = fields_of(request)
    given = body.get("input") or body.get("messages")
    last: object = cast("list[object]", given)[-1] if isinstance(given, list) and given else None
    if not isinstance(last, dict):
        return False
    item = cast("dict[str, Any]", last)
    return item.get("type") == "function_call_output" or item.get("role") == "tool"


class ToolFirst:
    """A rule: in each turn the model calls these functions, and answers when their outputs are there.

    Example: ``fake.rule = ToolFirst(Call("add", {"a": 1}))``.
    """

    def __init__(self, *calls: Call) -> None:
        self.calls = calls

    def __call__(self, request: Request) -> Plan | None:
        return None if answers_tools(request) else Plan(calls=self.calls)

    @classmethod
    def of(cls, specs: list[Mapping[str, Any]]) -> ToolFirst:
        """The rule from JSON."""
        return cls(*(Call(**spec) for spec in specs))
