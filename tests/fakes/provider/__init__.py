"""A provider on loopback that speaks OpenAI's HTTP to the real SDK, with switchable faults; see `server`."""

from __future__ import annotations

from .conversations import Conversation
from .plan import Call, Fault, Plan, Switches
from .record import Record
from .rules import ToolFirst
from .server import Provider, serving
from .threadrun import ThreadRun
from .threads import Thread
from .wire import Request

__all__ = [
    "Call",
    "Conversation",
    "Fault",
    "Plan",
    "Provider",
    "Record",
    "Request",
    "Switches",
    "Thread",
    "ThreadRun",
    "ToolFirst",
    "serving",
]
