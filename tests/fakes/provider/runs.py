"""/v1/threads/{id}/runs: start, follow, look at, cancel, feed with tool outputs.

A run belongs to the server: it goes on when the client that reads its stream goes away. Admission is one step without a
wait, as for responses: of two that come together, one is told of the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors
from . import items as it
from .plan import Json, Plan
from .responses import promised
from .threadrun import TERMINAL, ThreadRun, new_run
from .threads import assistant_of, create_thread, new_messages, stored
from .wire import Answer, Request, Stream, fields_of

if TYPE_CHECKING:
    from .server import Provider


def _admit(fake: Provider, plan: Plan, thread_id: str, body: dict[str, Json]) -> ThreadRun:
    """Judge a POST and start its run; no wait in here."""
    thread = stored(fake, thread_id)
    if thread.active is not None:
        raise errors.has_active_run(thread_id, thread.active.id)
    if not body.get("assistant_id"):
        raise errors.missing("assistant_id")
    assistant = assistant_of(fake, body["assistant_id"])
    body["metadata"] = errors.check_metadata(body.get("metadata"))
    given = new_messages(thread_id, body, "additional_messages")
    fake.take(plan)
    for message in given:
        thread.add(message)
    run = ThreadRun(thread, new_run(thread_id, assistant, body, fake.switches.run_lifetime), fake.spawn, fake.moved)
    fake.runs[run.id] = run
    _start(fake, run, plan, body)
    return run


def _start(fake: Provider, run: ThreadRun, plan: Plan, body: dict[str, Json]) -> None:
    run.start(plan, fake.switches.delay, fake.switches.run_lifetime, streamed=bool(body.get("stream")))


async def _shown(run: ThreadRun) -> Answer | Stream:
    plan, log = run.plan, run.log
    await promised(plan)
    return Stream(log.follow(), plan) if log.keep else Answer(run.object, headers=plan.headers)


async def create(fake: Provider, request: Request, thread_id: str) -> Answer | Stream:
    """POST /threads/{id}/runs."""
    return await _shown(_admit(fake, fake.plan_of(request), thread_id, fields_of(request)))


async def create_both(fake: Provider, request: Request) -> Answer | Stream:
    """POST /threads/runs."""
    body = fields_of(request)
    plan = fake.plan_of(request)
    assistant_of(fake, body.get("assistant_id") or "")
    thread = create_thread(fake, body.pop("thread", None) or {})
    return await _shown(_admit(fake, plan, thread.id, body))


def _stored(fake: Provider, thread_id: str, run_id: str) -> ThreadRun:
    stored(fake, thread_id)
    run = fake.runs.get(run_id)
    if run is None or run.thread.id != thread_id:
        raise errors.refuse(f"No run found with id '{run_id}'.", status=404)
    return run


async def list_runs(fake: Provider, request: Request, thread_id: str) -> Answer:
    """GET /threads/{id}/runs."""
    return Answer(it.page([run.object for run in stored(fake, thread_id).runs], request.query))


async def retrieve(fake: Provider, request: Request, thread_id: str, run_id: str) -> Answer:
    """GET /threads/{id}/runs/{run}."""
    return Answer(_stored(fake, thread_id, run_id).object)


async def update(fake: Provider, request: Request, thread_id: str, run_id: str) -> Answer:
    """POST /threads/{id}/runs/{run}."""
    run = _stored(fake, thread_id, run_id)
    run.object["metadata"] = errors.check_metadata(fields_of(request).get("metadata"))
    return Answer(run.object)


async def list_steps(fake: Provider, request: Request, thread_id: str, run_id: str) -> Answer:
    """GET /threads/{id}/runs/{run}/steps."""
    return Answer(it.page(_stored(fake, thread_id, run_id).steps, request.query))


async def cancel(fake: Provider, request: Request, thread_id: str, run_id: str) -> Answer:
    """POST /threads/{id}/runs/{run}/cancel."""
    run = _stored(fake, thread_id, run_id)
    if fake.switches.cancel == "fails":
        raise errors.Refusal(500, errors.SERVER_ERROR)
    if run.status in (*TERMINAL, "cancelling"):
        raise errors.refuse(f"Cannot cancel run with status '{run.status}'.")
    run.cancelling()
    if fake.switches.cancel == "works":
        run.cancel(fake.switches.cancel_takes)
    return Answer(dict(run.object))


async def submit(fake: Provider, request: Request, thread_id: str, run_id: str) -> Answer | Stream:
    """POST /threads/{id}/runs/{run}/submit_tool_outputs."""
    run = _stored(fake, thread_id, run_id)
    plan = fake.plan_of(request)
    body = fields_of(request)
    if run.status != "requires_action":
        raise errors.refuse(f'Runs in status "{run.status}" do not accept tool outputs.')
    given: list[Json] = body.get("tool_outputs") or []
    got = [one.get("tool_call_id") for one in given]
    if sorted(got) != sorted(run.open_calls):
        raise errors.refuse(f"Expected tool outputs for call_ids {run.open_calls}, got {got}")
    fake.take(plan)
    run.outputs(given)
    _start(fake, run, plan, body)
    return await _shown(run)


ROUTES = (
    ("POST", r"/threads/runs", create_both),
    ("POST", r"/threads/([^/]+)/runs", create),
    ("GET", r"/threads/([^/]+)/runs", list_runs),
    ("GET", r"/threads/([^/]+)/runs/([^/]+)", retrieve),
    ("POST", r"/threads/([^/]+)/runs/([^/]+)", update),
    ("GET", r"/threads/([^/]+)/runs/([^/]+)/steps", list_steps),
    ("POST", r"/threads/([^/]+)/runs/([^/]+)/cancel", cancel),
    ("POST", r"/threads/([^/]+)/runs/([^/]+)/submit_tool_outputs", submit),
)
