"""/v1/responses: accept, run, follow, resume, cancel, forget.

Theory of operation
-------------------
A POST is judged and admitted in one step without a wait in it: two POSTs that arrive together see each other's lock. A
refused POST uses up no plan of the script (unless the plan is the refusal), takes no lock and leaves nothing behind.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from . import errors
from . import items as it
from .plan import Json, Plan, passed
from .record import Record, new_response
from .wire import Answer, Cut, Request, Stream, fields_of, for_ever

if TYPE_CHECKING:
    from .conversations import Conversation
    from .server import Provider

_KNOWN = (
    "background context_management conversation include input instructions max_output_tokens max_tool_calls metadata"
    " model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options"
    " prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature text"
    " tool_choice tools top_logprobs top_p truncation user"
)
_ENOUGH = ("input", "previous_response_id", "prompt", "conversation")


def check(fake: Provider, body: dict[str, Json]) -> dict[str, Json]:
    """The body of a POST as the server understands it."""
    if unknown := sorted(set(body) - set(_KNOWN.split())):
        raise errors.refuse(f"Unknown parameter: '{unknown[0]}'.", unknown[0], "unknown_parameter")
    if not body.get("model"):
        raise errors.missing("model")
    if not any(body.get(name) for name in _ENOUGH):
        said = """One of "input" or "previous_response_id" or 'prompt' or 'conversation_id' must be provided."""
        raise errors.refuse(said)
    body["metadata"] = errors.check_metadata(body.get("metadata"))
    switches = fake.switches
    if switches.ignore_background:
        body["background"] = False
    if switches.ignore_conversation:
        body["conversation"] = None
    if body.get("previous_response_id") and body.get("conversation"):
        said = "Ensure you are only providing one of: 'previous_response_id' or 'conversation'."
        raise errors.refuse(f"Mutually exclusive parameters: {said}", None, "mutually_exclusive_parameters")
    return body


def _head(fake: Provider, body: Json) -> Record | None:
    if not (wanted := body.get("previous_response_id")):
        return None
    head = fake.records.get(wanted)
    if head is None or not head.visible:
        raise errors.no_previous(wanted)
    return head


def _conversation(fake: Provider, body: Json) -> Conversation | None:
    if not (wanted := body.get("conversation")):
        return None
    wanted = wanted if isinstance(wanted, str) else wanted.get("id")
    conversation = fake.conversations.get(wanted)
    if conversation is None:
        raise errors.no_conversation(wanted)
    if conversation.locked_by is not None:
        raise errors.locked(fake.switches.lock_status)
    return conversation


def admit(fake: Provider, request: Request) -> Record:
    """Judge a POST and start its response; no wait in here."""
    plan = fake.plan_of(request)
    body = check(fake, fields_of(request))
    head, conversation = _head(fake, body), _conversation(fake, body)
    given = it.items_of(body.get("input"))
    known: list[Json] = [*head.input, *head.response["output"]] if head else []
    if conversation:
        known = list(conversation.items)
        conversation.check_new(given)
    it.check_tools(known, given)
    before = it.tokens(it.entries(known)) if known else 0
    if head and head.response["usage"]:
        before = head.response["usage"]["total_tokens"]
    if 0 < fake.switches.context_tokens < before + it.tokens(it.entries(given)):
        raise errors.Refusal(400, errors.TOO_LONG)
    fake.take(plan)
    background = bool(body.get("background"))
    response = new_response(body, background=background, conversation=conversation.id if conversation else None)
    record = Record(response, given, plan, streamed=bool(body.get("stream")))
    record.before = before
    record.visible = (response["store"] or background) and not fake.switches.ignore_store
    if conversation:
        record.context = known
        record.conversation = conversation
        conversation.locked_by = record.id
    fake.keep(record)
    return record


async def create(fake: Provider, request: Request) -> Answer | Stream:
    """POST /responses."""
    record = admit(fake, request)
    plan = record.plan
    if not record.response["background"]:
        request.left = partial(_left, fake, record)
    await promised(plan)
    if record.streamed:
        return Stream(record.log.follow(), plan)
    if not record.response["background"]:
        await record.log.ended()
        if plan.end in ("nothing", "reset"):
            raise Cut
        if plan.end in ("error", "nested"):
            raise errors.Refusal(500, {"error": {"type": "server_error", "param": None, **plan.problem}})
    return Answer(record.response, headers=plan.headers)


async def promised(plan: Plan) -> None:
    """What a plan has in store for the connection of an accepted request, before the first byte of an answer."""
    if plan.accepted_but_cut:
        raise Cut
    if plan.never_answers:
        await for_ever()
    await passed(plan.latency)


def _left(fake: Provider, record: Record) -> None:
    if not fake.switches.foreground_goes_on:
        record.cancel()


def _stored(fake: Provider, response_id: str) -> Record:
    record = fake.records.get(response_id)
    if record is None or not record.visible or (fake.switches.gone and not record.running):
        raise errors.no_response(response_id)
    return record


async def retrieve(fake: Provider, request: Request, response_id: str) -> Answer | Stream:
    """GET /responses/{id}, as an object or as the rest of its stream."""
    record = _stored(fake, response_id)
    if request.query.get("stream") != "true":
        return Answer(record.response)
    if not (record.streamed and record.response["background"]):
        said = "Only a background response that was created with stream=true can be streamed."
        raise errors.refuse(said, "stream")
    after = int(request.query.get("starting_after", -1))
    return Stream(record.log.follow(after + 1), fake.resumes.pop(0) if fake.resumes else Plan())


async def cancel(fake: Provider, request: Request, response_id: str) -> Answer:
    """POST /responses/{id}/cancel."""
    record = _stored(fake, response_id)
    switches = fake.switches
    if not record.response["background"]:
        raise errors.refuse("Cannot cancel a synchronous response.")
    if switches.cancel == "fails":
        raise errors.Refusal(500, errors.SERVER_ERROR)
    if not record.running and record.response["status"] != "cancelled" and switches.cancel_finished == "errors":
        raise errors.refuse(f"Cannot cancel a {record.response['status']} response.")
    if switches.cancel == "works":
        record.cancel()
    return Answer(record.response)


async def delete(fake: Provider, request: Request, response_id: str) -> Answer:
    """DELETE /responses/{id}."""
    record = _stored(fake, response_id)
    record.cancel()
    record.visible = False
    return Answer({"id": response_id, "object": "response", "deleted": True})


async def input_items(fake: Provider, request: Request, response_id: str) -> Answer:
    """GET /responses/{id}/input_items."""
    return Answer(it.page(_stored(fake, response_id).input, request.query))


def history(fake: Provider, response_id: str) -> list[it.Entry]:
    """Everything the model was told and said up to and including a response, along its chain or conversation."""
    found: list[list[Json]] = []
    record = fake.records.get(response_id)
    while record is not None:
        found += [record.response["output"], record.input, record.context]
        record = fake.records.get(record.response["previous_response_id"] or "")
    return it.entries(item for part in reversed(found) for item in part)


ROUTES = (
    ("POST", r"/responses", create),
    ("GET", r"/responses/([^/]+)", retrieve),
    ("DELETE", r"/responses/([^/]+)", delete),
    ("POST", r"/responses/([^/]+)/cancel", cancel),
    ("GET", r"/responses/([^/]+)/input_items", input_items),
)
