"""The history as a Conversation at the provider: its items are the truth, and a lock of the provider guards them.

Theory of operation
-------------------
Items of a response, input and output, get into the conversation when the response completes; a response that fails
leaves nothing. Items carry no mark of ours and a POST no idempotency key, so after a crash between the POST and its
first event only the items say whether it was answered. ``base`` is the id of the last item that the thread's state, or
the step before, knows of. Before every POST the items after it are listed:

=========================================  ==========================================================================
what is there                              what is done
=========================================  ==========================================================================
our input, and an answer to it             it was answered: the answer is adopted, nothing is posted (C1, C28)
nothing, and an intent was just sent       nothing yet: it may still be on its way; after `PATIENCE` it cannot be
nothing, or what others said               posted, with the last item as the new base
=========================================  ==========================================================================

If the posted one is still running, the provider's lock is held. So who is unsure asks for the lock first, with a
deletion of nothing, then looks at the items once more for as long as they may be late, and only then posts: a response
that ends between a look and a POST would be there twice. While the lock is held the queue tries again later without
using up an attempt. "Duplicate item found" says that it was posted (C23).

A response is done when its items are there (C12): the next Run reads them. If they do not come within `COMMIT` seconds
they are added by us, provided that the server says it knows the conversation; one that ignored ``conversation`` is an
error of the set-up, and is told (C22).

Broken histories: calls without output get a synthetic one, an output without its call is sent together with the call
(C5, C6). A conversation that was deleted (C21), or that a stuck response keeps locked beyond its deadline (C11), is
replaced by a new one that begins with the thread's local history; at most 20 items can be added in one call, so it is
made step by step, and one that was not finished is left behind (C19).
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from time import time
from typing import Any, NoReturn, cast

from streambatch._messages import Batch, Json
from streambatch.errors import Park, Retry

from . import _history as past
from ._asking import LATE, Asking
from ._client import Client
from ._completion import Completion
from ._errors import Problem, mentions, problem_of
from ._hosted import Parameters, untold
from ._local import Room, Turns
from ._memo import Memo
from ._steps import INTERRUPTED
from ._stream import plain, said_in

KIND = "responses-conversation"
PATIENCE = LATE + 5.0  # seconds after which a POST that was sent cannot arrive any more
COMMIT = 10.0  # seconds in which the items of a completed response must be there
MOST_ITEMS = 20
WAITS = (0.05, 0.2, 0.5, 1.0)


class Talk:
    """A thread's conversation.

    Args:
        batch: the batch, with the thread's state and history.
        memo: its checkpoint; ``conversation``, ``base`` and ``behind`` are written here and nowhere else.
        asking: asks.
        client: where to ask.
        room: what of the local history fits.
        request: the parameters of the next request of a turn; and whether it is the last.
    """

    kind = KIND

    def __init__(
        self, batch: Batch, memo: Memo, asking: Asking, client: Client, room: Room, request: Parameters
    ) -> None:
        self._memo, self._asking, self._client, self._room = memo, asking, client, room
        self._request = request
        self._turns = past.known(batch.history)
        self.kept: Turns = self._turns
        state = past.mapping(batch.state if batch.kind == KIND else None)
        memo.data.setdefault("conversation", state.get("conversation"))
        memo.data.setdefault("base", state.get("base"))
        self._behind = min(int(memo.data.get("behind", state.get("behind")) or 0), len(self._turns))
        self._adopted = False
        self._extra: list[past.Item] = []

    async def ask(self, turn: past.Turn, last: bool) -> Completion:
        """Adopt the answer that is there, or post."""
        self.kept = self._room.kept(self._turns, turn)
        mended: set[str] = set()
        extra: list[past.Item] = []
        while True:
            try:
                conversation = await self._conversation(turn)
                given = [*extra, *self._new(turn)]
                if (found := await self._there(conversation, given)) is not None:
                    self._adopted = True
                    return found
                request = {**self._request(turn, last), "background": True, "store": True, "conversation": conversation}
                self._extra = extra
                return await self._asking.post({**request, "input": given})
            except Problem as found:
                how = await self._mend(found, turn, extra)
                if how in mended:
                    raise
                mended.add(how)

    async def state(self, completion: Completion) -> Json:  # noqa: ARG002 - the protocol's shape
        """The conversation and its last item."""
        return {"v": 1, "conversation": self._memo.data["conversation"], "base": self._memo.data["base"]}

    def _new(self, turn: past.Turn) -> list[past.Item]:
        return untold(turn, self._turns, self._behind)

    # ── the conversation ──

    async def _conversation(self, turn: past.Turn) -> str:
        """Its id; made under the lease, and in the checkpoint before it is used, so there is one (C25)."""
        memo = self._memo.data
        if isinstance(memo.get("conversation"), str):
            return memo["conversation"]
        steps = turn.get("do", ())
        begun: past.Turn = {**turn, "do": steps[:-1], "out": ""}
        items = past.items((*self.kept, begun)) if steps else past.items(self.kept)
        if steps:  # a new one in the middle of a turn: the calls belong to it, their outputs are what is posted
            items += [i for i in past.items(({"in": [], "do": steps[-1:], "out": ""},)) if i["type"] != _OUTPUT]
        api, made = await self._client.get(), None
        try:
            made = await api.conversations.create(items=items[:MOST_ITEMS])
            for start in range(MOST_ITEMS, len(items), MOST_ITEMS):
                await api.conversations.items.create(made.id, items=items[start : start + MOST_ITEMS])
        except Exception as error:  # noqa: BLE001 - whatever the library raises may quote a user
            _refuse(error) if made is None else _raise(error)
        self._behind = memo["behind"] = 0  # for the next attempt, too: what is kept is told
        memo["conversation"], memo["base"] = made.id, await self._last(made.id)
        await self._asking.forget()
        await self._memo.save()
        return made.id

    async def stuck(self) -> None:
        """What is stuck keeps the lock (C11): go on in a new conversation."""
        await self._replace()

    def _calm(self) -> None:
        for name in ("busy", "locked"):
            self._memo.data.pop(name, None)

    async def _replace(self) -> None:
        self._memo.data["conversation"] = self._memo.data["base"] = None
        self._memo.data.pop("unsure", None)
        self._calm()
        await self._asking.forget()
        await self._memo.save()

    async def _last(self, conversation: str) -> str | None:
        api: Any = await self._client.get()
        try:
            page = await api.conversations.items.list(conversation, order="desc", limit=1)
        except Exception as error:  # noqa: BLE001 - as above
            _raise(error)
        return page.data[0].id if page.data else None

    async def _after(self, conversation: str) -> list[Mapping[str, Any]]:
        """The items after the base."""
        api: Any = await self._client.get()
        base = self._memo.data.get("base")
        try:
            pages = api.conversations.items.list(
                conversation, order="asc", limit=100, **({"after": base} if base else {})
            )
            return [plain(item) async for item in pages]
        except Exception as error:  # noqa: BLE001 - as above
            refused = getattr(error, "status_code", 0) in (400, 404)
            if base and refused and mentions(error, base.lower(), "item with id"):
                raise Problem("REPAIR", "the last known item is gone") from None
            _raise(error)

    # ── what is there ──

    async def _there(self, conversation: str, given: Sequence[past.Item]) -> Completion | None:
        """The answer to *given* if it is there; else the base moves to the last item."""
        items = await self._after(conversation)
        found = _answer_in(items, given)
        if found is None and "sent" in self._asking.step:
            left = self._asking.step["sent"] + PATIENCE - time()
            if left > 0:
                reason = "a request may still be on its way to the provider"
                raise Retry(min(left, 15.0, max(1.0, PATIENCE - left)), count=False, reason=reason)
            self._memo.data["unsure"] = True
        if found is None and self._memo.data.get("unsure"):
            await self._probe(conversation)
            items = await self._polled(conversation, given)
            found = _answer_in(items, given)
            self._memo.data["unsure"] = False
        if items:
            self._memo.data["base"] = items[-1].get("id")
        return found

    async def _probe(self, conversation: str) -> None:
        """Raise Problem (BUSY) while the lock is held: taking an item away that is not there does nothing but ask."""
        api: Any = await self._client.get()
        try:
            await api.conversations.items.delete("msg_none", conversation_id=conversation)
        except Exception as error:  # noqa: BLE001 - as above
            found = problem_of(error)
            if found.name in ("BUSY", "AMBIGUOUS", "LIMIT"):
                raise found from None

    async def _polled(
        self, conversation: str, given: Sequence[past.Item], *, silent: bool = False
    ) -> list[Mapping[str, Any]]:
        """The items after the base, when the answer to *given* is among them, or would be if there was one."""
        until, tries = asyncio.get_running_loop().time() + COMMIT, 0
        while True:
            items = await self._after(conversation)
            if _answer_in(items, given, silent=silent) is not None or asyncio.get_running_loop().time() > until:
                return items
            await asyncio.sleep(WAITS[min(tries, len(WAITS) - 1)])
            tries += 1

    async def arrived(self, turn: past.Turn, completion: Completion) -> None:
        """Wait until the items of a completed response are in the conversation; add them if they do not come."""
        self._calm()
        adopted, self._adopted = self._adopted, False
        if adopted:
            return
        conversation, given = cast("str", self._memo.data["conversation"]), [*self._extra, *self._new(turn)]
        silent = not completion.text and not completion.calls
        items = await self._polled(conversation, given, silent=silent)
        if _answer_in(items, given, silent=silent) is not None:
            self._memo.data["base"] = items[-1].get("id")
            return
        if not self._asking.echo.get("conversation"):
            reason = "the server ignores `conversation`; ResponsesRunner(state='chain') or 'local' works there"
            raise Park(60.0, reason=reason)
        calls = [
            {"type": "function_call", "call_id": c.id, "name": c.name, "arguments": c.arguments}
            for c in completion.calls
        ]
        await self._add(conversation, [*given, *past.spoken(completion.text), *calls])

    async def _add(self, conversation: str, items: Sequence[Mapping[str, Any]]) -> None:
        api: Any = await self._client.get()
        try:
            for start in range(0, len(items), MOST_ITEMS):
                await api.conversations.items.create(conversation, items=items[start : start + MOST_ITEMS])
        except Exception as error:  # noqa: BLE001 - as above
            _raise(error)
        self._memo.data["base"] = await self._last(conversation)

    # ── what is broken ──

    async def _mend(self, found: Problem, turn: past.Turn, extra: list[past.Item]) -> str:
        """Put the conversation in order, so that asking once more may work; raises *found* if that is not possible."""
        if found.name == "BUSY":
            busy = int(self._memo.data.get("busy", 0))
            self._memo.data["busy"] = busy + 1
            if time() - self._memo.data.setdefault("locked", time()) > self._asking.deadline + PATIENCE:
                await self._replace()  # whatever holds the lock is stuck, or is none of ours
                return "conversation"
            await self._memo.save()
            # The intent was refused, so it is none; but what holds the lock may be an earlier one of ours.
            raise Retry(min(15.0, 2.0**busy), count=False, reason=f"the provider answered {found.why} (busy)")
        if found.name == "ALREADY":
            await self._asking.forget()
            return "already"
        if found.name != "REPAIR":
            raise found
        conversation = self._memo.data.get("conversation")
        ours = {item.get("call_id") for item in self._new(turn)}
        open_calls = [] if conversation is None else await self._open_calls(conversation, ours)
        if found.phrase == "no tool call found" and turn.get("do"):
            extra[:] = [i for i in past.items(({"in": [], "do": turn["do"][-1:], "out": ""},)) if i["type"] == _CALL]
            return "calls"
        if open_calls:
            outputs = [{"type": _OUTPUT, "call_id": name, "output": INTERRUPTED} for name in open_calls]
            await self._add(cast("str", conversation), outputs)
            return "outputs"
        await self._replace()
        return "conversation"

    async def _open_calls(self, conversation: str, ours: Container[object]) -> list[str]:
        """The calls that nobody answers, over all items: an output may come after other things."""
        api: Any = await self._client.get()
        try:
            items = [plain(item) async for item in api.conversations.items.list(conversation, order="asc", limit=100)]
        except Exception:  # noqa: BLE001 - then it is not there, or nobody knows: a new one is made
            return []
        answered = {item.get("call_id") for item in items if item.get("type") == _OUTPUT}
        asked = [str(item.get("call_id")) for item in items if item.get("type") == _CALL]
        return [name for name in asked if name not in answered and name not in ours]


_CALL, _OUTPUT = "function_call", "function_call_output"


def _answer_in(
    items: Sequence[Mapping[str, Any]], given: Sequence[past.Item], *, silent: bool = False
) -> Completion | None:
    """The answer among *items*, if they begin with what was *given* and something was said to it, or *silent*."""
    size = len(given)
    if len(items) < size or [_said(item) for item in items[:size]] != [_said(item) for item in given]:
        return None
    text, refused, calls = said_in(items[size:])
    if not text and not calls and not silent:
        return None
    done = {item.get("call_id") for item in items[size:] if item.get("type") == _OUTPUT}
    return Completion(text, tuple(c for c in calls if c.id not in done), ("refusal",) if refused else ())


def _said(item: Mapping[str, Any]) -> tuple[str, ...]:
    """What an item says, in a form that a provider does not change."""
    kind = str(item.get("type") or "message")
    if kind in (_CALL, _OUTPUT):
        return kind, str(item.get("call_id"))
    content = item.get("content")
    if isinstance(content, list):
        said = [str(part.get("text") or part.get("type")) for part in cast("list[Mapping[str, Any]]", content)]
    else:
        said = [str(content)]
    return kind, str(item.get("role")), *said


def _refuse(error: Exception) -> NoReturn:
    if getattr(error, "status_code", 0) in (404, 405, 501):
        reason = "the server has no /conversations; ResponsesRunner(state='chain') or 'local' works there"
        raise Park(60.0, reason=reason) from None
    _raise(error)


def _raise(error: Exception) -> NoReturn:
    raise problem_of(error) from None
