"""What a provider says about its limits, and the name of the scope that shares them.

Theory of operation
-------------------
OpenAI's headers, which most compatible servers copy, come with every response: ``x-ratelimit-limit-requests``,
``x-ratelimit-remaining-requests``, ``x-ratelimit-reset-requests``, and the same for ``tokens``. A limit and what
remains are whole numbers; a reset is a duration (``6m0s``, ``120ms``, ``1.5s``) or a number of seconds. Whatever looks
otherwise was not said: None. That includes moments in time, which some providers put there.

A scope is what a provider counts together: an account, known by its key, and a model. Its name is read by people and
shown in events, so it says host and model; what else tells two scopes apart (key, path, organization, project, the rest
of a long name) is in a short keyed hash. The key itself is in no name, no log and no key of Redis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2s
from typing import Any

from streambatch._ports import Quota

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_NUMBER = re.compile(r"[0-9]{1,15}")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
LONGEST_RESET = 7 * 86_400.0
HOST, MODEL, HASH = 24, 28, 5  # characters, characters, bytes: a name of at most 64 characters


def quota_of(headers: Mapping[str, str]) -> Quota:
    """What the headers of a response say; what they don't say, or not clearly, is None.

    Example:
        >>> quota_of({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m0.5s"}).tokens_reset
        60.5
    """

    def said(what: str, of: str) -> str:
        return str(headers.get(f"x-ratelimit-{what}-{of}") or "").strip()

    return Quota(
        requests=_number(said("remaining", "requests")),
        requests_reset=duration(said("reset", "requests")),
        tokens=_number(said("remaining", "tokens")),
        tokens_reset=duration(said("reset", "tokens")),
        requests_limit=_number(said("limit", "requests")),
        tokens_limit=_number(said("limit", "tokens")),
    )


def duration(text: str) -> float | None:
    """Seconds from a duration or a number; None if it is neither, or so long that it must be a moment in time."""
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    else:
        return None
    return seconds if seconds <= LONGEST_RESET else None


def scope_of(client: Any, model: str) -> str:
    """The name of the scope of a model at the provider of an ``openai`` client; the same in every process.

    Args:
        client: what the requests are made with; its address, key, organization and project are read.
        model: the model's name.
    """
    address, key = str(getattr(client, "base_url", "")), getattr(client, "api_key", "")
    parts = [address, key if isinstance(key, str) else "", model]
    parts += [str(getattr(client, name, None) or "") for name in ("organization", "project")]
    text = "".join(f"{len(part)}:{part}" for part in parts)  # ("ab", "c") is not ("a", "bc")
    told_apart = blake2s(text.encode(errors="replace"), digest_size=HASH, key=b"streambatch scope").hexdigest()
    host = getattr(getattr(client, "base_url", None), "host", "") or "provider"
    return f"{_plain(host, HOST)}/{_plain(model, MODEL)}:{told_apart}"


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _plain(text: str, most: int) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:most]
