"""Errors in OpenAI's form, with OpenAI's words, and the exception that carries one to the client.

The words matter: for the locks of Assistants there is no code, and only the text says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Any


def error(message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None) -> Json:
    """The JSON of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Refusal(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


def refuse(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> Refusal:
    """A refusal of type invalid_request_error."""
    return Refusal(status, error(message, param=param, code=code))


RATE_LIMIT = error("Rate limit reached for requests. Please try again later.", "requests", None, "rate_limit_exceeded")
QUOTA = error(
    "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota",
    None,
    "insufficient_quota",
)
BAD_KEY = error("Incorrect API key provided.", code="invalid_api_key")
SERVER_ERROR = error("The server had an error while processing your request. Sorry about that!", "server_error")
OVERLOADED = error(
    "The engine is currently overloaded, please try again later.", "server_error", None, "server_is_overloaded"
)
TOO_LONG = error(
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    param="input",
    code="context_length_exceeded",
)


def no_path(method: str, path: str) -> Refusal:
    return refuse(f"Invalid URL ({method} {path})", status=404)


def missing(param: str) -> Refusal:
    return refuse(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def wrong_type(param: str, wanted: str) -> Refusal:
    return refuse(f"Invalid type for '{param}': expected {wanted}.", param, "invalid_type")


def too_many(param: str, most: int, got: int) -> Refusal:
    said = f"Expected an array with maximum length {most}, but got an array with length {got} instead."
    return refuse(f"Invalid '{param}': array too long. {said}", param, "array_above_max_length")


def no_response(response_id: str) -> Refusal:
    return refuse(f"Response with id '{response_id}' not found.", status=404)


def no_previous(response_id: str) -> Refusal:
    said = f"Previous response with id '{response_id}' not found."
    return refuse(said, "previous_response_id", "previous_response_not_found")


def no_conversation(conversation_id: str) -> Refusal:
    return refuse(f"Conversation with id '{conversation_id}' not found.", status=404)


def locked(status: int) -> Refusal:
    said = "Another process is currently operating on this conversation. Please retry in a few seconds."
    return refuse(said, "conversation", "conversation_locked", status)


def duplicate(item_id: str) -> Refusal:
    said = f"Duplicate item found with id {item_id}. Remove duplicate items from your input and try again."
    return refuse(said, "input")


def no_tool_output(call_id: str) -> Refusal:
    return refuse(f"No tool output found for function call {call_id}.", "input")


def no_tool_call(call_id: str) -> Refusal:
    return refuse(f"No tool call found for function call output with call_id {call_id}.", "input")


def run_is_active(thread_id: str, run_id: str) -> Refusal:
    return refuse(f"Can't add messages to {thread_id} while a run {run_id} is active.")


def has_active_run(thread_id: str, run_id: str) -> Refusal:
    return refuse(f"Thread {thread_id} already has an active run {run_id}.")


def check_metadata(value: Json) -> dict[str, str]:
    """The metadata of a request: at most 16 texts, keys of 64 and values of 512 characters."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type("metadata", "an object")
    found: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
    if len(found) > 16:
        raise refuse("Invalid 'metadata': too many properties.", "metadata", "object_above_max_properties")
    for key, text in found.items():
        param = f"metadata.{key}"
        if not isinstance(text, str):
            raise wrong_type(param, "a string")
        for length, most in ((len(key), 64), (len(text), 512)):
            if length > most:
                said = f"Expected a string with maximum length {most}, but got a string with length {length} instead."
                raise refuse(f"Invalid '{param}': string too long. {said}", param, "string_above_max_length")
    return found
