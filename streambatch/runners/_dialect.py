"""How a server wants Chat Completions to be spoken: found out from its refusals, once.

Theory of operation
-------------------
Everybody speaks Chat Completions and nobody the same. What can be said in two ways is first said in the way that is
most common; a server that knows only the other refuses with words that name the matter, and is asked again at once in
that way, and from then on always. What a server ignores without a word cannot be found out, so the first way is the one
whose being ignored does no harm: a server that ignores ``max_completion_tokens`` would talk for ever, so it is
``max_tokens``, which OpenAI's newer models refuse by name.

A dialect only grows, and belongs to one runner, which means one model at one server. Requests are built from what is
known at that moment, so parallel Runs that are refused for the same reason both learn it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, cast

from ._errors import mentions
from ._history import Item


@dataclass(slots=True)
class Dialect:
    """What is known about a server.

    Attributes:
        usage: it takes ``stream_options``.
        limit: the name of the parameter that limits the answer.
        system: its chat template has a place for a system message.
        bursts: its chat template takes user messages one after the other.
    """

    usage: bool = True
    limit: str = "max_tokens"
    system: bool = True
    bursts: bool = True

    def request(self, instructions: str, messages: list[Item], most: int | None) -> dict[str, Any]:
        """The parts of a request that depend on the dialect."""
        if instructions:
            messages = [{"role": "system" if self.system else "user", "content": instructions}, *messages]
        if not self.bursts or (instructions and not self.system):
            messages = _merged(messages)
        found: dict[str, Any] = {"messages": messages, "stream": True}
        if self.usage:
            found["stream_options"] = {"include_usage": True}
        if most is not None:
            found[self.limit] = most
        return found

    def learned(self, error: Exception, sent: Mapping[str, Any]) -> bool:
        """Whether a refusal teaches something, so that it is worth asking again."""
        if "stream_options" in sent and mentions(error, "stream_options", "include_usage"):
            self.usage = False
        elif "max_tokens" in sent and mentions(error, "max_completion_tokens"):
            self.limit = "max_completion_tokens"
        elif sent["messages"][0]["role"] == "system" and mentions(error, "system role not supported"):
            self.system = False
        elif _bursts(sent["messages"]) and mentions(error, "roles must alternate", "must alternate between user"):
            self.bursts = False
        else:
            return False
        return True


def _bursts(messages: list[Item]) -> bool:
    roles = [message["role"] for message in messages]
    return any(pair == ("user", "user") for pair in pairwise(roles))


def _merged(messages: list[Item]) -> list[Item]:
    """*messages* with user messages that follow each other made one."""
    found: list[Item] = []
    for role, group in groupby(messages, lambda message: message["role"]):
        said = list(group)
        if role != "user" or len(said) == 1:
            found += said
        elif all(isinstance(message["content"], str) for message in said):
            found.append({"role": "user", "content": "\n".join(message["content"] for message in said)})
        else:
            found.append({"role": "user", "content": [part for message in said for part in _parts(message["content"])]})
    return found


def _parts(content: object) -> list[Item]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else cast("list[Item]", content)
