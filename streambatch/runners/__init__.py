"""The shipped runners: each one turns a Batch into an Answer by asking a provider, and survives a crash at any step.

Importing this package is cheap: a provider's library is imported when its runner is used for the first time.
"""

from __future__ import annotations

from ._agents_ask import Approval, Approvals
from ._renewable import Renewable
from ._resolved import Resolved
from ._tools import ToolCall, ToolError, tool
from .agents import AgentsRunner
from .assistants import AssistantsRunner
from .chat import ChatRunner
from .responses import ResponsesRunner

__all__ = [
    "AgentsRunner",
    "Approval",
    "Approvals",
    "AssistantsRunner",
    "ChatRunner",
    "Renewable",
    "Resolved",
    "ResponsesRunner",
    "ToolCall",
    "ToolError",
    "tool",
]
