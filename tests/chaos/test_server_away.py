"""The server is refused, black-holed, frozen, full or restarted while 1,000 submits are outstanding.

Theory of operation. A fault begins; half of the messages are submitted and on their way when the other half comes, so
both the call under way and the buffer behind it are met. Each submit must end, in time, in one of three ways: stored,
NotAccepted (and then it is not stored), OutcomeUnknown (it may be). Whether that was the truth is counted in the
server. Then the fault ends, and nobody is told: the workers, one of them with a Run in hand, and the queue of this
process must go on by themselves. Whatever was not stored is submitted again, unknown ones with the id on the error, and
in the end every message was answered exactly once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from streambatch import BatchQueue, NotAccepted, OutcomeUnknown, QueueFull, Receipt, ServerAway, StoreError
from streambatch.torture._proxy import Proxy
from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.ledger import Ledger
from tests.chaos.tools import drained
from tests.conftest import StartServer
from tests.rig import Child, Server, wait_for

TIMEOUT, BOUND = 1.0, 3.0  # without its limit a submit would wait for as long as the server is away
LONG = 20.0  # seconds; where it is back in time, however long a busy machine takes to start it
SUBMITS = 1_000
THREADS = 40


@dataclass
class Scene:
    """The server, and the proxy in front of it."""

    server: Server
    proxy: Proxy

    async def refuse(self) -> None:
        self.server.kill9()

    async def swallow(self) -> None:
        self.proxy.swallow()

    async def swallow_answers(self) -> None:
        self.proxy.swallow(answers_only=True)

    async def freeze(self) -> None:
        self.server.stop()

    async def fill(self) -> None:
        self.server.admin().config_set("maxmemory", "1")

    async def nothing(self) -> None:
        pass

    async def restart(self) -> None:
        self.server.restart()

    async def heal(self) -> None:
        await self.proxy.heal()

    async def thaw(self) -> None:
        self.server.cont()

    async def empty(self) -> None:
        self.server.admin().config_set("maxmemory", "0")


Step = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """What happens before the submits, while they are outstanding, and after they have ended; and how they may end."""

    name: str
    begin: Step
    during: Step = Scene.nothing
    end: Step = Scene.nothing
    ends: frozenset[str] = frozenset()
    aof: str | None = "everysec"
    proxied: bool = False


FAULTS = [
    Fault("refused", Scene.refuse, end=Scene.restart, ends=frozenset({"refused"})),
    Fault("black hole", Scene.swallow, end=Scene.heal, ends=frozenset({"refused", "unknown"}), proxied=True),
    Fault("lost answers", Scene.swallow_answers, end=Scene.heal, ends=frozenset({"refused", "unknown"}), proxied=True),
    Fault("frozen", Scene.freeze, end=Scene.thaw, ends=frozenset({"refused", "unknown"})),
    Fault("full", Scene.fill, end=Scene.empty, ends=frozenset({"full"})),
    Fault("restarted", Scene.freeze, during=Scene.restart, ends=frozenset({"stored"})),
    Fault("restarted bare", Scene.freeze, during=Scene.restart, ends=frozenset({"stored", "unknown"}), aof=None),
]


@dataclass
class Submits:
    """All submits of a test, and how each ended."""

    queue: BatchQueue
    ended: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    slowest: float = 0.0
    doubts: int = 0

    def all(self, how: str) -> list[str]:
        """The message ids that ended so."""
        return self.ended.get(how, [])

    async def one(self, name: str) -> None:
        """Submit a message and remember how that ended."""
        began = time.monotonic()
        how = await self._one(name)
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.ended.setdefault(how, []).append(name)

    async def _one(self, name: str) -> str:
        try:
            await self.queue.submit(f"t{int(name) % THREADS}", "text", message_id=name)
        except OutcomeUnknown as error:
            return "unknown" if error.message_id == name else "wrong id"
        except QueueFull:
            return "full"
        except NotAccepted:
            return "refused"
        return "stored"

    async def again(self, names: list[str]) -> Counter[str]:
        """Submit once more what was not stored; all of it must be now. Returns the outcomes."""
        receipts: list[Receipt] = await asyncio.gather(*(self._certain(name) for name in names))
        return Counter(receipt.outcome for receipt in receipts)

    async def _certain(self, name: str) -> Receipt:
        while True:  # on a busy machine a thousand at once may take longer than the short limit of this queue
            try:
                return await self.queue.submit(f"t{int(name) % THREADS}", "text", message_id=name)
            except OutcomeUnknown:
                self.doubts += 1
            except ServerAway:  # nothing of it was sent in time
                continue


async def outstanding(submits: Submits, during: Callable[[], Awaitable[None]]) -> None:
    """1,000 submits in two waves, the second behind the call of the first; one more is refused at once."""
    queue, names = submits.queue, [str(number) for number in range(SUBMITS)]
    first = [asyncio.create_task(submits.one(name)) for name in names[: SUBMITS // 2]]
    await wait_for(lambda: queue.health().intake == len(first) or first[0].done(), "the first wave")
    second = [asyncio.create_task(submits.one(name)) for name in names[SUBMITS // 2 :]]
    await wait_for(lambda: queue.health().intake == SUBMITS or second[0].done(), "the second wave")
    if not second[0].done():
        with pytest.raises(QueueFull) as full:
            await queue.submit("t", "one too many")
        assert full.value.passing  # it is this process that is full, not the thread
    await during()
    await asyncio.gather(*first, *second)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
async def test_submits_and_workers_survive(
    start_server: StartServer, act: StartActor, open_queue: OpenQueue, ledger: Ledger, fault: Fault
) -> None:
    """Every submit ends truthfully and in time, memory stays bounded, and all goes on by itself (I1, I6, I9, I16)."""
    server = start_server(aof=fault.aof)
    server.admin().execute_command("ACL", "SETUSER", "default", "off", "allkeys", "allchannels", "+@all")
    server.admin().execute_command("ACL", "SAVE")
    async with Proxy(server.socket, path=server.dir / "hole.sock") as proxy:
        scene = Scene(server, proxy)
        url = server.url.replace(server.socket.name, "hole.sock") if fault.proxied else server.url
        worker = await act("worker", url)
        timeout = LONG if "stored" in fault.ends else TIMEOUT
        queue = await open_queue(url, submit_timeout=timeout, intake_limit=SUBMITS)
        await queue.submit("busy", "hold", message_id="busy")
        await worker.expect("HELD run")
        submits = Submits(queue)

        await fault.begin(scene)
        if fault.name == "refused":  # the ends of the connections are seen before the first submit
            with pytest.raises(StoreError):
                await queue.stats()
        await outstanding(submits, lambda: fault.during(scene))
        await fault.end(scene)
        healed = time.monotonic()
        ended = {how: len(names) for how, names in submits.ended.items()}
        assert set(ended) == fault.ends or (not fault.aof and set(ended) <= fault.ends), ended
        assert sum(ended.values()) == SUBMITS
        assert submits.slowest <= timeout + BOUND

        await judge(fault, submits, queue, worker)
        drain = time.monotonic() - healed
        answered = Counter(ledger.answered())
        assert answered == Counter(["busy", "after", *map(str, range(SUBMITS))])
        assert worker.returncode is None
        assert queue.health().ready
    first = min(note.at for note in ledger.notes("deliver") if note.at > healed) - healed
    assert first <= 2.5
    print(f"{server.kind} {fault.name}: {ended}, the slowest in {submits.slowest:.2f} s")
    print(f"    after the fault: first reply in {first:.2f} s, drained in {drain:.2f} s")


async def judge(fault: Fault, submits: Submits, queue: BatchQueue, worker: Child) -> None:
    """The fault is over: the server agrees with what the callers were told, and everything is stored in the end."""
    before = 1 if fault.aof else 0  # without AOF the restart has lost the busy thread's message
    stored, unknown = len(submits.all("stored")), len(submits.all("unknown"))

    async def received() -> int:
        try:
            return (await queue.stats()).received + 1
        except StoreError:
            return 0

    count = await wait_for(received, "the server to be there again") - 1 - before
    assert stored <= count <= stored + unknown
    await wait_for(lambda: queue.health().intake == 0, "the answer to the call that was under way")
    outcomes = await submits.again(submits.all("unknown") + submits.all("refused") + submits.all("full"))
    assert outcomes["duplicate"] <= unknown + submits.doubts
    if not before:
        await queue.submit("busy", "text", message_id="busy")
    await queue.submit("after", "text", message_id="after")
    await worker.send("go")
    await drained(queue)
