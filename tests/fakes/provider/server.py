"""The provider: state, routes, faults; and how it starts and stops.

Theory of operation
-------------------
A request passes four gates: the switches (key, storm, rate, limits), the faults, its route, and the plan of the step it
starts. Every gate may refuse. What it has started belongs to the provider, not to the connection: tasks run until they
end or the provider closes, which cancels and awaits all of them and all connections, so that nothing outlives it.

Tests wait for what they want to see with `until`: its condition is looked at again whenever a request arrives, a run
ends, a lock is released, or a connection is lost.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any, cast

from . import chat, control, conversations, errors, files, responses, runs, threads
from .items import Entry, entries, new_id
from .limits import Limits, slow_down
from .plan import Fault, Json, Plan, Switches, passed
from .record import Record
from .threadrun import ThreadRun
from .wire import Answer, Connection, Cut, Request, Stream, for_ever

Rule = Callable[[Request], Plan | None]
Handler = Callable[..., Awaitable[Answer | Stream]]
_MODULES = (responses, conversations, chat, runs, threads, files, control)
#: The paths whose POST makes the model work.
_WORK = re.compile(r"/responses|/chat/completions|/threads/runs|/threads/[^/]+/runs(/[^/]+/submit_tool_outputs)?")


class Provider:
    """A running fake; `serving` makes one.

    Attributes:
        url: for the SDK's base_url.
        requests: every request that came, in order.
        script: plans for the next POSTs that make the model work, one each.
        rule: makes a plan from a request when the script is empty.
        default: the plan when neither has one.
        faults: what befalls requests; a fault that is used up is removed.
        resumes: plans that shape the next streams that are resumed, one each (cut, hang; nothing else).
        switches: properties of the server.
        responses: the objects of all responses by id, running ones too.
        records: the same with input, plan and events.
        conversations: by id.
        assistants: their objects by id.
        threads: by id.
        runs: the runs of all threads by id.
        models: the names of GET /models.
        asked: set by every POST that makes the model work; clear it to wait for the next.
        cut: set when a client goes away before its answer has ended.
        random: of the rates; seed it for the same faults again.
    """

    def __init__(self, rule: Rule | None = None, **switches: Any) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.script: list[Plan] = []
        self.rule = rule
        self.default = Plan()
        self.faults: list[Fault] = []
        self.resumes: list[Plan] = []
        self.switches = Switches()
        self.switches.update(switches)
        self.responses: dict[str, Json] = {}
        self.records: dict[str, Record] = {}
        self.conversations: dict[str, conversations.Conversation] = {}
        self.assistants: dict[str, Json] = {}
        self.threads: dict[str, threads.Thread] = {}
        self.runs: dict[str, ThreadRun] = {}
        self.models = ["gpt-5.6", "m"]
        self.asked = asyncio.Event()
        self.cut = asyncio.Event()
        self.random = random.Random()
        self._routes = [(m, re.compile(p), cast("Handler", h)) for module in _MODULES for m, p, h in module.ROUTES]
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._limits = Limits()
        self._watchers: list[asyncio.Future[None]] = []

    # What a test asks.

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def posts(self, path: str = "*") -> list[Request]:
        """The POSTs to a path without /v1, or to all that match a pattern of `fnmatch`."""
        return [one for one in self.requests if one.method == "POST" and fnmatchcase(one.path, path)]

    def history(self, of: str) -> list[Entry]:
        """What was said, oldest first, as (role or item type, text): along a response's chain, or in a conversation
        or thread.

        Args:
            of: the id of a response, conversation or thread.
        """
        if of in self.threads:
            return self.threads[of].history
        if of in self.conversations:
            return entries(self.conversations[of].items)
        return responses.history(self, of)

    def storm(self, seconds: float) -> None:
        """Answer 429 to everybody for so long."""
        self.switches.storm = asyncio.get_running_loop().time() + seconds

    async def until(self, condition: Callable[[], object], within: float = 10.0) -> None:
        """Wait until something has happened after which *condition* is true; TimeoutError after *within* seconds."""
        async with asyncio.timeout(within):
            while not condition():
                watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._watchers.append(watcher)
                await watcher

    # What the handlers use.

    def moved(self) -> None:
        """Something happened: look at the conditions again."""
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._watchers.clear()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that belongs to the provider."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (broken := task.exception()) is not None:
            context = {"message": "the fake provider is broken", "exception": broken}
            asyncio.get_running_loop().call_exception_handler(context)

    def plan_of(self, request: Request) -> Plan:
        """The plan for a request; a refusal is raised, and everything else is used up by `take`."""
        plan = self.script[0] if self.script else (self.rule and self.rule(request)) or self.default
        if plan.status != 200:
            self.take(plan)
            raise errors.Refusal(plan.status, plan.body, plan.headers)
        return plan

    def take(self, plan: Plan) -> None:
        """The request has been accepted: its plan is used up."""
        if self.script and self.script[0] is plan:
            del self.script[0]

    def keep(self, record: Record) -> None:
        """Store a response and start it."""
        self.records[record.id] = record
        self.responses[record.id] = record.response
        record.on_end = self._record_ended
        record.accepted()
        record.task = self.spawn(record.perform(self.switches.delay))

    def _record_ended(self, record: Record) -> None:
        conversations.ended(self, record)
        self.moved()

    # One request.

    async def serve(self, connection: Connection, request: Request) -> None:
        """Answer one request on its connection."""
        self.requests.append(request)
        works = request.method == "POST" and _WORK.fullmatch(request.path) is not None
        if works:
            self.asked.set()
        self.moved()
        told = {"x-request-id": new_id("req")}
        try:
            answer = await self._answer(request, told, works=works)
            if isinstance(answer, Stream):
                await connection.stream(answer, told)
            else:
                connection.answer(answer, told)
        except errors.Refusal as refusal:
            connection.answer(Answer(refusal.body, refusal.status, refusal.headers), told)
        except Cut:
            connection.reset()
        except asyncio.CancelledError:
            if connection.lost:
                self.cut.set()
                if request.left is not None:
                    request.left()
                self.moved()
            raise

    async def _answer(self, request: Request, told: dict[str, str], *, works: bool) -> Answer | Stream:
        if self.switches.latency:
            await asyncio.sleep(self.switches.latency)
        if not request.path.startswith("/_"):
            self._gate(request, told, works=works)
        fault = self._fault(request)
        if fault is not None:
            await passed(fault.latency)
            if not fault.after:
                await _strike(fault)
        answer = await self._route(request)
        if fault is not None and fault.after:
            await _strike(fault)
        return answer

    def _gate(self, request: Request, told: dict[str, str], *, works: bool) -> None:
        switches = self.switches
        if switches.api_key and request.headers.get("authorization") != f"Bearer {switches.api_key}":
            raise errors.Refusal(401, errors.BAD_KEY)
        if not works:
            return
        now = asyncio.get_running_loop().time()
        if switches.limits:
            self._limits.admit(switches, now, int(request.headers.get("content-length", 0)), told)
        if now < switches.storm:
            raise slow_down(switches, switches.storm - now)
        if switches.fail_rate and self.random.random() < switches.fail_rate:
            raise slow_down(switches, switches.retry_after)

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            matches = fault.method in ("", request.method) and fnmatchcase(request.path, fault.path)
            if matches and (fault.rate >= 1 or self.random.random() < fault.rate):
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                return fault
        return None

    async def _route(self, request: Request) -> Answer | Stream:
        for method, pattern, handler in self._routes:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                return await handler(self, request, *found.groups())
        raise errors.no_path(request.method, request.path)

    # Life.

    def protocol(self) -> Connection:
        """One more connection."""
        return Connection(self.serve, self._connections, self)

    async def close(self) -> None:
        """Cancel and await everything."""
        for connection in list(self._connections):
            connection.transport.abort()
        while self._tasks:  # the end of one may start another, such as the late release of a lock
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.until(lambda: not self._connections)


async def _strike(fault: Fault) -> None:
    if fault.cut == "reset":
        raise Cut
    if fault.cut == "hang":
        await for_ever()
    if fault.status:
        raise errors.Refusal(fault.status, fault.body, fault.headers)


@asynccontextmanager
async def serving(port: int = 0, rule: Rule | None = None, **switches: Any) -> AsyncGenerator[Provider]:
    """A running Provider on loopback.

    Args:
        port: 0 takes a free one.
        rule: makes a plan from a request, or None for the default one.
        **switches: fields of `Switches`.
    """
    fake = Provider(rule, **switches)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(fake.protocol, "127.0.0.1", port, backlog=1024)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield fake
    finally:
        server.close()
        await fake.close()
        await server.wait_closed()
