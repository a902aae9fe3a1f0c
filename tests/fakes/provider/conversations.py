"""/v1/conversations: a list of items and a lock.

Theory of operation
-------------------
The lock belongs to one response and is taken when that is admitted. When the response ends, its items are appended (if
it completed) and the lock is released; both may be late, each by seconds or until an event. While it is locked, items
can neither be added nor deleted; reading is never locked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import errors
from . import items as it
from .plan import Json, passed
from .record import Record
from .wire import Answer, Request, fields_of

if TYPE_CHECKING:
    from .server import Provider

MOST_ITEMS = 20


class Conversation:
    """A conversation of the store.

    Attributes:
        id: conv_….
        items: oldest first.
        locked_by: the id of the response that holds the lock, or None.
        metadata: of the conversation; items have none.
    """

    def __init__(self, metadata: dict[str, str]) -> None:
        self.id = it.new_id("conv")
        self.created_at = int(time.time())
        self.items: list[Json] = []
        self.locked_by: str | None = None
        self.metadata = metadata
        self._ids: set[str] = set()

    @property
    def object(self) -> Json:
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_at,
            "metadata": self.metadata,
        }

    def check_new(self, items: Sequence[Json]) -> None:
        """Refuse items that are here already."""
        for item in items:
            if item["id"] in self._ids:
                raise errors.duplicate(item["id"])

    def append(self, items: Sequence[Json]) -> None:
        """Add items at the end."""
        self.items += items
        self._ids.update(item["id"] for item in items)

    def remove(self, item: Json) -> None:
        """Take an item out; its id may come again."""
        self.items.remove(item)
        self._ids.discard(item["id"])


def ended(fake: Provider, record: Record) -> None:
    """A response has ended: what that means for the conversation it was part of."""
    conversation, switches = record.conversation, fake.switches
    if conversation is None:
        return
    status = record.response["status"]
    if status in ("completed", "incomplete") or switches.failed_appends:
        if switches.items_late:
            fake.spawn(_append_late(fake, conversation, record))
        else:
            conversation.append([*record.input, *record.response["output"]])
    if switches.lock_extra:
        fake.spawn(_release_late(fake, conversation, record))
    else:
        conversation.locked_by = None


async def _append_late(fake: Provider, conversation: Conversation, record: Record) -> None:
    await passed(fake.switches.items_late)
    conversation.append([*record.input, *record.response["output"]])
    fake.moved()


async def _release_late(fake: Provider, conversation: Conversation, record: Record) -> None:
    await passed(fake.switches.lock_extra)
    if conversation.locked_by == record.id:
        conversation.locked_by = None
        fake.moved()


def _stored(fake: Provider, conversation_id: str, *, to_write: bool = False) -> Conversation:
    conversation = fake.conversations.get(conversation_id)
    if conversation is None:
        raise errors.no_conversation(conversation_id)
    if to_write and conversation.locked_by is not None:
        raise errors.locked(fake.switches.lock_status)
    return conversation


def _new_items(body: Json) -> list[Json]:
    given: list[Json] = body.get("items") or []
    if len(given) > MOST_ITEMS:
        raise errors.too_many("items", MOST_ITEMS, len(given))
    return it.items_of(given)


async def create(fake: Provider, request: Request) -> Answer:
    """POST /conversations."""
    body = fields_of(request)
    conversation = Conversation(errors.check_metadata(body.get("metadata")))
    conversation.append(_new_items(body))
    fake.conversations[conversation.id] = conversation
    return Answer(conversation.object)


async def retrieve(fake: Provider, request: Request, conversation_id: str) -> Answer:
    """GET /conversations/{id}."""
    return Answer(_stored(fake, conversation_id).object)


async def update(fake: Provider, request: Request, conversation_id: str) -> Answer:
    """POST /conversations/{id}."""
    conversation = _stored(fake, conversation_id)
    conversation.metadata = errors.check_metadata(fields_of(request).get("metadata"))
    return Answer(conversation.object)


async def delete(fake: Provider, request: Request, conversation_id: str) -> Answer:
    """DELETE /conversations/{id}."""
    _stored(fake, conversation_id)
    del fake.conversations[conversation_id]
    return Answer({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


async def create_items(fake: Provider, request: Request, conversation_id: str) -> Answer:
    """POST /conversations/{id}/items."""
    conversation = _stored(fake, conversation_id, to_write=True)
    new = _new_items(fields_of(request))
    if not new:
        raise errors.missing("items")
    conversation.check_new(new)
    conversation.append(new)
    return Answer(it.page(new, {"order": "asc", "limit": "100"}))


async def list_items(fake: Provider, request: Request, conversation_id: str) -> Answer:
    """GET /conversations/{id}/items."""
    return Answer(it.page(_stored(fake, conversation_id).items, request.query))


def _item(conversation: Conversation, item_id: str) -> Json:
    for item in conversation.items:
        if item["id"] == item_id:
            return item
    raise errors.refuse(f"Item with id '{item_id}' not found.", status=404)


async def retrieve_item(fake: Provider, request: Request, conversation_id: str, item_id: str) -> Answer:
    """GET /conversations/{id}/items/{item}."""
    return Answer(_item(_stored(fake, conversation_id), item_id))


async def delete_item(fake: Provider, request: Request, conversation_id: str, item_id: str) -> Answer:
    """DELETE /conversations/{id}/items/{item}; answers the conversation."""
    conversation = _stored(fake, conversation_id, to_write=True)
    conversation.remove(_item(conversation, item_id))
    return Answer(conversation.object)


ROUTES = (
    ("POST", r"/conversations", create),
    ("GET", r"/conversations/([^/]+)", retrieve),
    ("POST", r"/conversations/([^/]+)", update),
    ("DELETE", r"/conversations/([^/]+)", delete),
    ("POST", r"/conversations/([^/]+)/items", create_items),
    ("GET", r"/conversations/([^/]+)/items", list_items),
    ("GET", r"/conversations/([^/]+)/items/([^/]+)", retrieve_item),
    ("DELETE", r"/conversations/([^/]+)/items/([^/]+)", delete_item),
)
