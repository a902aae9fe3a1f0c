"""What a provider's error means for the queue: one table, and the signal that follows from a row.

Theory of operation
-------------------
A provider says what went wrong in up to four places: ``code``, ``type``, the words of the message, and the HTTP status.
The code is what providers promise, so it decides first; some (Assistants, llama.cpp, vLLM) say it only in words, so
those are next; the status is the last resort, because one status means many things (429 is both "slow down" and "you
have not paid"). `class_of` reads ``TABLE`` in this order and nothing else in the package interprets an error.

=========  ==========================================  ==========================================================
class      means                                       signal
=========  ==========================================  ==========================================================
BUSY       another Run of this conversation is active  Retry, gives the attempt back
REPAIR     the provider's history is lost or broken    the runner mends it, then once more; at last Retry
ALREADY    it was posted before                        the runner looks for it; at last Retry
LIMIT      rate limit, overload, nobody is listening   Park for Retry-After, gives the attempt back
PAUSE      key, quota, address or options are wrong    Park, tried again in 30 to 60 s, gives the attempt back
AMBIGUOUS  nobody knows whether it ran                 Retry with the queue's back-off, counts
CONTEXT    the input is too long for the model         the runner forgets more; at last DeadLetter
PERMANENT  it will never work                          DeadLetter
=========  ==========================================  ==========================================================

With ``state="local"`` the provider keeps nothing, so asking again after AMBIGUOUS can only cost tokens.

A provider's message may quote what a user wrote. It is read here and thrown away: what leaves this file names the code,
the type or the status, and only if they look like identifiers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isnan
from typing import Literal, NoReturn, cast

from streambatch.errors import DeadLetter, Park, Retry

Class = Literal["BUSY", "REPAIR", "ALREADY", "LIMIT", "PAUSE", "AMBIGUOUS", "CONTEXT", "PERMANENT"]
LONGEST_WAIT = 86_400.0
_NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})  # of the transport: no byte was sent
_BAD_ADDRESS = frozenset({"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"})
_SAID = frozenset(  # what a refused parameter may be and have to do with this batch; any other is the set-up's
    {"input", "messages", "message", "content", "prompt", "image", "images", "file", "files", "instructions",
     "additional_messages", "attachments", "conversation", "tool_outputs"}
)  # fmt: skip
_PARAMETER = re.compile(r"([A-Za-z_]+)[A-Za-z0-9_.\[\]-]{0,63}")
_VAGUE = frozenset({"server_error", "invalid_request_error"})  # as a type they say less than the words
_ARGUMENT = re.compile(r"unexpected keyword argument '(\w{1,64})'")
UNASKED = "nobody was asked: "
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Row:
    """Signals that mean one class: codes (or types), words of the message in lower case, statuses."""

    name: Class
    codes: frozenset[str]
    words: tuple[str, ...] = ()
    statuses: frozenset[int] = frozenset()


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


TABLE: tuple[Row, ...] = (
    Row(
        "BUSY",
        _codes("conversation_locked"),
        ("already has an active run", "while a run", "already running a task"),
    ),
    Row(
        "REPAIR",
        _codes("previous_response_not_found conversation_not_found"),
        (
            "no tool output found",
            "no tool call found",
            "previous response with id",
            "previous_response_id",
            "conversation with id",
            "conversation not found",
        ),
    ),
    Row("ALREADY", frozenset(), ("duplicate item found with id",)),
    Row(
        "PAUSE",
        _codes(
            "insufficient_quota credit_balance_exhausted billing_not_active billing_hard_limit_reached"
            " spend_limit_exceeded project_spend_limit_exceeded organization_spend_limit_exceeded"
            " usage_limit_exceeded project_usage_limit_exceeded organization_usage_limit_exceeded"
            " invalid_api_key authentication_error permission_error account_deactivated model_not_found no_api_key"
            " wrong_options unsupported_parameter unknown_parameter unsupported_value"
        ),
        ("exceeded your current quota", "incorrect api key provided"),
        frozenset({401, 402, 403, 404, 405, 501}),
    ),
    Row(
        "CONTEXT",
        _codes("context_length_exceeded exceed_context_size_error string_above_max_length"),
        (
            "maximum context length",
            "exceeds the available context size",
            "exceeds the context window",
            "greater than the context length",
            "prompt is too long",
        ),
    ),
    Row(
        "PERMANENT",
        _codes(
            "invalid_prompt content_filter content_policy_violation bio_policy cyber_policy"
            " misalignment_policy_violation data_residency_mismatch invalid_image invalid_image_format"
            " invalid_base64_image invalid_image_url image_too_large image_too_small image_parse_error"
            " image_content_policy_violation invalid_image_mode image_file_too_large unsupported_image_media_type"
            " empty_image_file failed_to_download_image image_file_not_found unsupported_file"
        ),
        ("image input is not supported", "file input is not supported", "your input was flagged"),
        frozenset({400, 413, 415, 422}),
    ),
    Row(
        "LIMIT",
        _codes(
            "rate_limit_exceeded slow_down server_is_overloaded server_overloaded overloaded_error unavailable_error"
            " flex_unavailable tokens requests"
        ),
        ("rate limit reached", "loading model"),
        frozenset({429, 503, 529}),
    ),
    Row(
        "AMBIGUOUS",
        _codes("server_error internal_error vector_store_timeout request_timeout connection_failed no_end"),
        (),
        frozenset({408, 409, 500, 502, 504}),
    ),
)


class Problem(Exception):
    """What a provider refused or failed with: codes and numbers, never its words.

    Attributes:
        name: its class, a row of the table.
        why: its code, type or status, for people.
        after: seconds the provider asked to wait, or None.
        phrase: the words of the table by which it was recognised, or "".
    """

    def __init__(self, name: Class, why: str, after: float | None = None, phrase: str = "") -> None:
        super().__init__(why)
        self.phrase = phrase
        self.name: Class = name
        self.why = why
        self.after = after


def class_of(code: str = "", kind: str = "", words: str = "", status: int = 0) -> Class:
    """The class of an error by its code, else its type, else its words, else its status.

    Args:
        code: the provider's error code, or "".
        kind: the provider's error type, or "".
        words: the provider's message, or "".
        status: the HTTP status, or 0 if there was none.
    """
    for name in (code, "" if kind in _VAGUE else kind):
        for row in TABLE:
            if name in row.codes:
                return row.name
    if (found := _phrase(words)) is not None:
        return found[0]
    for row in TABLE:
        if status in row.statuses:
            return row.name
    return "PERMANENT" if 400 <= status < 500 else "AMBIGUOUS"


def _phrase(words: str) -> tuple[Class, str] | None:
    lowered = words.lower()
    return next(((row.name, phrase) for row in TABLE for phrase in row.words if phrase in lowered), None)


def problem(
    code: object = "",
    kind: object = "",
    words: object = "",
    status: int = 0,
    after: float | None = None,
    parameter: object = "",
) -> Problem:
    """A Problem from the fields of an error object; whatever is not text counts as missing.

    A refused parameter that has nothing to do with what was said is refused for everybody: nobody's messages should
    die of a ``temperature`` that the model does not take.
    """
    code, kind, words, parameter = (v if isinstance(v, str) else "" for v in (code, kind, words, parameter))
    shown = next((name for name in (code, kind) if _WORD.fullmatch(name)), "")
    why = " ".join(([f"HTTP {status}"] if status else []) + ([shown] if shown else [])) or "no reason given"
    name, root = class_of(code, kind, words, status), _PARAMETER.fullmatch(parameter)
    if name == "PERMANENT" and status == 400 and root and root[1] not in _SAID and _unknown(code, words):
        name = "PAUSE"
    elif name == "PAUSE" and root and root[1] in _SAID and status == 400:
        name = "PERMANENT"
    why = f"{why}, parameter {parameter}" if root else why
    return Problem(name, why, after, (_phrase(words) or ("", ""))[1])


def _unknown(code: str, words: str) -> bool:
    """Whether neither the code nor the words say what is wrong."""
    return not any(code in row.codes for row in TABLE if code) and _phrase(words) is None


def problem_of(error: Exception) -> Problem:
    """The Problem behind an exception of the provider's library or of its transport."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TypeError):
        wrong = _ARGUMENT.search(str(error))
        return Problem("PAUSE", f"{UNASKED}{wrong[1]}= is no argument of this API" if wrong else "wrong_options")
    cause = type(error.__cause__).__name__
    if cause in _NOT_SENT:
        return Problem("LIMIT", f"{UNASKED}{cause}")
    if cause in _BAD_ADDRESS:
        return Problem("PAUSE", f"{UNASKED}the address is no http(s) URL ({cause})")
    body = getattr(error, "body", None)
    fields: Mapping[str, object] = cast("Mapping[str, object]", body) if isinstance(body, Mapping) else {}
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", 0) or 0
    found = problem(
        getattr(error, "code", None) or fields.get("code"),
        getattr(error, "type", None) or fields.get("type"),
        getattr(error, "message", "") if status or fields else "",
        status,
        retry_after(getattr(response, "headers", {})),
        getattr(error, "param", None) or fields.get("param"),
    )
    return found if status or fields else Problem("AMBIGUOUS", type(error).__name__)


def mentions(error: Exception, *phrases: str) -> bool:
    """Whether a refused request was refused with one of *phrases*, given in lower case."""
    if not getattr(error, "status_code", 0):
        return False
    words = f"{getattr(error, 'message', '')} {getattr(error, 'body', '')}".lower()
    return any(phrase in words for phrase in phrases)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds a provider asks to wait (``retry-after-ms``, ``retry-after`` as seconds or date), at most a day."""
    value = headers.get("retry-after-ms")
    scale = 0.001 if value else 1.0
    value = value or headers.get("retry-after")
    if not value:
        return None
    try:
        wait = float(value) * scale
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        wait = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return None if isnan(wait) else min(max(wait, 0.0), LONGEST_WAIT)


def signal(found: Problem, *, split: bool = False) -> NoReturn:
    """Raise what the queue must do about *found*: Park, Retry or DeadLetter. Its text is the class and the code.

    Args:
        found: what the provider said.
        split: one message of several may be the cause: what is refused is halved until that one is alone.
    """
    said = found.why if found.why.startswith(UNASKED) else f"the provider answered {found.why}"
    if found.name in ("CONTEXT", "PERMANENT"):
        too_long = "the messages are too long for the model's context, even with all earlier turns forgotten; "
        raise DeadLetter((too_long if found.name == "CONTEXT" else "") + said, split=split) from None
    after, count = found.after, found.name in ("AMBIGUOUS", "REPAIR", "ALREADY")
    if after is None and not count:
        low = {"BUSY": 1.0, "LIMIT": 5.0, "PAUSE": 30.0}[found.name]
        after = random.uniform(low, 2 * low)
    reason = f"{said}; its state is unknown" if count else f"{said} ({found.name.lower()})"
    if found.name in ("LIMIT", "PAUSE"):  # not this thread's business: everybody who uses the same key and model waits
        raise Park(after, reason=reason) from None
    raise Retry(after, count=count, reason=reason) from None
