"""/v1/assistants, /v1/threads and the messages in them.

A thread is a list of messages and at most one active run, which is its lock: while there is one, no message can be
added and no run started. Errors name the run, because that is how a client finds out what to wait for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import errors
from . import items as it
from .plan import Json
from .wire import Answer, Request, fields_of

if TYPE_CHECKING:
    from .server import Provider
    from .threadrun import ThreadRun


class Thread:
    """A thread of the store.

    Attributes:
        object: as a retrieve shows it.
        messages: oldest first.
        runs: oldest first.
        active: the run that is not in a terminal state, or None.
        story: messages, and the calls and outputs of its runs as entries, in the order they came.
    """

    def __init__(self, metadata: dict[str, str]) -> None:
        self.object: Json = {
            "id": it.new_id("thread"),
            "object": "thread",
            "created_at": int(time.time()),
            "metadata": metadata,
            "tool_resources": {},
        }
        self.messages: list[Json] = []
        self.runs: list[ThreadRun] = []
        self.active: ThreadRun | None = None
        self.story: list[Json | it.Entry] = []

    @property
    def id(self) -> str:
        return self.object["id"]

    @property
    def history(self) -> list[it.Entry]:
        return [(m["role"], message_text(m)) if isinstance(m, dict) else m for m in self.story]

    def add(self, message: Json) -> Json:
        """Append a message."""
        self.messages.append(message)
        self.story.append(message)
        return message


def message_text(message: Json) -> str:
    """The text of a message."""
    return "".join(p["text"]["value"] if p["type"] == "text" else f"[{p['type']}]" for p in message["content"])


def text_part(text: str) -> Json:
    return {"type": "text", "text": {"value": text, "annotations": []}}


def new_message(thread_id: str, body: dict[str, Json], where: str = "") -> Json:
    """A message as the store has it, from one as a request has it."""
    for name in ("role", "content"):
        if not body.get(name):
            raise errors.missing(f"{where}{name}")
    content = body["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {
        "id": it.new_id("msg"),
        "object": "thread.message",
        "created_at": int(time.time()),
        "assistant_id": None,
        "attachments": body.get("attachments") or [],
        "completed_at": int(time.time()),
        "content": [text_part(part["text"]) if part["type"] == "text" else part for part in parts],
        "incomplete_at": None,
        "incomplete_details": None,
        "metadata": errors.check_metadata(body.get("metadata")),
        "role": body["role"],
        "run_id": None,
        "status": "completed",
        "thread_id": thread_id,
    }


def new_messages(thread_id: str, body: dict[str, Json], name: str) -> list[Json]:
    """The messages of a list in a request, which may have 32."""
    given = body.get(name) or ()
    if len(given) > 32:
        raise errors.too_many(name, 32, len(given))
    return [new_message(thread_id, message, f"{name}[{number}].") for number, message in enumerate(given)]


def stored(fake: Provider, thread_id: str) -> Thread:
    """The thread, or a refusal."""
    if thread_id not in fake.threads:
        raise errors.refuse(f"No thread found with id '{thread_id}'.", status=404)
    return fake.threads[thread_id]


def assistant_of(fake: Provider, assistant_id: str) -> Json:
    """The assistant, or a refusal."""
    if assistant_id not in fake.assistants:
        raise errors.refuse(f"No assistant found with id '{assistant_id}'.", status=404)
    return fake.assistants[assistant_id]


async def create_assistant(fake: Provider, request: Request) -> Answer:
    """POST /assistants."""
    body = fields_of(request)
    if not body.get("model"):
        raise errors.missing("model")
    made: Json = {
        "id": it.new_id("asst"),
        "object": "assistant",
        "created_at": int(time.time()),
        "description": body.get("description"),
        "instructions": body.get("instructions"),
        "metadata": errors.check_metadata(body.get("metadata")),
        "model": body["model"],
        "name": body.get("name"),
        "response_format": "auto",
        "temperature": 1.0,
        "tool_resources": {},
        "tools": list(body.get("tools") or ()),
        "top_p": 1.0,
    }
    fake.assistants[made["id"]] = made
    return Answer(made)


async def retrieve_assistant(fake: Provider, request: Request, assistant_id: str) -> Answer:
    """GET /assistants/{id}."""
    return Answer(assistant_of(fake, assistant_id))


async def delete_assistant(fake: Provider, request: Request, assistant_id: str) -> Answer:
    """DELETE /assistants/{id}."""
    assistant_of(fake, assistant_id)
    del fake.assistants[assistant_id]
    return Answer({"id": assistant_id, "object": "assistant.deleted", "deleted": True})


def create_thread(fake: Provider, body: dict[str, Json]) -> Thread:
    """A new thread with its first messages."""
    thread = Thread(errors.check_metadata(body.get("metadata")))
    for message in new_messages(thread.id, body, "messages"):
        thread.add(message)
    fake.threads[thread.id] = thread
    return thread


async def create(fake: Provider, request: Request) -> Answer:
    """POST /threads."""
    return Answer(create_thread(fake, fields_of(request)).object)


async def retrieve(fake: Provider, request: Request, thread_id: str) -> Answer:
    """GET /threads/{id}."""
    return Answer(stored(fake, thread_id).object)


async def update(fake: Provider, request: Request, thread_id: str) -> Answer:
    """POST /threads/{id}."""
    thread = stored(fake, thread_id)
    thread.object["metadata"] = errors.check_metadata(fields_of(request).get("metadata"))
    return Answer(thread.object)


async def delete(fake: Provider, request: Request, thread_id: str) -> Answer:
    """DELETE /threads/{id}."""
    thread = stored(fake, thread_id)
    if thread.active is not None:
        thread.active.end("cancelled")
    del fake.threads[thread_id]
    return Answer({"id": thread_id, "object": "thread.deleted", "deleted": True})


async def create_message(fake: Provider, request: Request, thread_id: str) -> Answer:
    """POST /threads/{id}/messages."""
    thread = stored(fake, thread_id)
    if thread.active is not None:
        raise errors.run_is_active(thread_id, thread.active.id)
    return Answer(thread.add(new_message(thread_id, fields_of(request))))


async def list_messages(fake: Provider, request: Request, thread_id: str) -> Answer:
    """GET /threads/{id}/messages."""
    wanted = request.query.get("run_id")
    messages = stored(fake, thread_id).messages
    return Answer(it.page([one for one in messages if wanted in (None, one["run_id"])], request.query))


async def retrieve_message(fake: Provider, request: Request, thread_id: str, message_id: str) -> Answer:
    """GET /threads/{id}/messages/{message}."""
    for message in stored(fake, thread_id).messages:
        if message["id"] == message_id:
            return Answer(message)
    raise errors.refuse(f"No message found with id '{message_id}'.", status=404)


async def delete_message(fake: Provider, request: Request, thread_id: str, message_id: str) -> Answer:
    """DELETE /threads/{id}/messages/{message}."""
    thread = stored(fake, thread_id)
    if thread.active is not None:
        raise errors.run_is_active(thread_id, thread.active.id)
    for message in thread.messages:
        if message["id"] == message_id:
            thread.messages.remove(message)
            thread.story.remove(message)
            return Answer({"id": message_id, "object": "thread.message.deleted", "deleted": True})
    raise errors.refuse(f"No message found with id '{message_id}'.", status=404)


ROUTES = (
    ("POST", r"/assistants", create_assistant),
    ("GET", r"/assistants/([^/]+)", retrieve_assistant),
    ("DELETE", r"/assistants/([^/]+)", delete_assistant),
    ("POST", r"/threads", create),
    ("GET", r"/threads/([^/]+)", retrieve),
    ("POST", r"/threads/([^/]+)", update),
    ("DELETE", r"/threads/([^/]+)", delete),
    ("POST", r"/threads/([^/]+)/messages", create_message),
    ("GET", r"/threads/([^/]+)/messages", list_messages),
    ("GET", r"/threads/([^/]+)/messages/([^/]+)", retrieve_message),
    ("DELETE", r"/threads/([^/]+)/messages/([^/]+)", delete_message),
)
