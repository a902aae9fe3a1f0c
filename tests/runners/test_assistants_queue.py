"""AssistantsRunner in a queue on a real server: killed at every step at once, refused, cancelled; all is counted.

Theory of operation. One worker process answers many threads, and the provider stops each of them at another step: a
request that does not get in, one that was carried out and gets no answer, a run that goes on, a tool that works. Then
the process is killed, the provider lets everything go, and another worker takes over. Each thread must have each of its
messages once, one run that counts, and one reply.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from streambatch import BatchQueue, Dead, Reply, Retrying, RunCancelled
from tests.conftest import StartChild
from tests.fakes.provider import Call, Fault, Plan, Provider, Request, Thread
from tests.rig import wait_for
from tests.runners.assistants_actor import QUICK, runner
from tests.runners.assistants_here import hire

STEPS = ("out", "in", "known", "held", "unsent", "sent", "said", "steps", "expires", "twin")
#: What is left of each step's runs, and how often each item was ordered over both processes.
RUNS = {"expires": ["expired", "completed"], "twin": ["failed", "completed"]}
ORDERS = {"hold tea": 1, "unsent": 1, "sent": 1, "expires": 1}


class Stage:
    """The provider's side of the play: which thread stops where."""

    def __init__(self, fake: Provider) -> None:
        self.fake = fake
        self.go = asyncio.Event()
        for name in STEPS:
            thread = fake.threads[name] = Thread({})
            thread.object["id"] = name
        submit = "/threads/{}/runs/*/submit_tool_outputs"
        fake.faults = [
            Fault("/threads/out/runs", "POST", times=1, latency=self.go),
            Fault(submit.format("unsent"), "POST", times=1, latency=self.go),
            Fault(submit.format("sent"), "POST", times=1, after=True, cut="hang"),
            Fault("/threads/said/messages", "GET", times=1),
            Fault("/threads/said/messages", "GET", times=1, latency=self.go),
            Fault("/threads/steps/messages", "POST", times=1),
            Fault("/threads/steps/messages", "POST", times=1, after=True, cut="hang"),
            Fault(submit.format("expires"), "POST", times=1, latency=self.go),
        ]
        fake.rule = self.plan

    def plan(self, request: Request) -> Plan | None:
        name = request.path.split("/")[2]
        runs = self.fake.threads[name].runs
        if request.path.endswith("submit_tool_outputs"):
            return Plan(text="ordered")
        if name in ("held", "unsent", "sent", "expires"):
            item = "hold tea" if name == "held" else name
            return Plan(calls=(Call("order", {"item": item}),))
        if name == "twin" and not runs:
            return Plan(end="failed")
        if name == "twin":
            return Plan(text="twin", hold=self.go)
        if name in ("in", "known") or name not in STEPS:
            return Plan(text="a long answer", hold=self.go, latency=self.go if name == "in" else 0.0)
        return None

    async def reached(self) -> None:
        """Every thread stands at its step."""

        def there() -> bool:
            asked = [(one.method, one.path) for one in self.fake.requests]
            waiting = [("POST", "/threads/out/runs")]
            waits = sum(path.endswith("submit_tool_outputs") for _, path in asked) == 3
            said = asked.count(("GET", "/threads/said/messages")) == 2
            steps = asked.count(("POST", "/threads/steps/messages")) == 2
            going = len(self.fake.threads["twin"].runs) == 2 and self.fake.threads["twin"].runs[1].status != "queued"
            running = [self.fake.threads[name].runs for name in ("in", "known", "held")]
            made = [thread.runs for name, thread in self.fake.threads.items() if name not in STEPS]
            return all(one in asked for one in waiting) and all((waits, said, steps, going, *running, *made, made))

        await wait_for(there, "all threads to stand at their steps", deadline=60)

    def let_go(self) -> None:
        for run in self.fake.threads["expires"].runs:
            run.expire()
        self.go.set()


@pytest.mark.timeout(180)
async def test_c1_c2_c7_c8_c19_c20_c25_c26_a_worker_that_is_killed_at_any_step(
    fake: Provider, url: str, namespace: str, start_child: StartChild, capsys: pytest.CaptureFixture[str]
) -> None:
    hire(fake)
    stage = Stage(fake)
    told = {"url": url, "namespace": namespace, "threads": STEPS}
    child = await start_child("tests/runners/assistants_actor.py", json.dumps(told))
    await child.expect("READY", deadline=60)
    said = {name: [f"{name} {n}" for n in range(34 if name == "steps" else 2)] for name in (*STEPS, "made")}
    replies: list[Reply] = []

    async def deliver(reply: Reply) -> None:
        replies.append(reply)

    async with BatchQueue(url, namespace=namespace, **QUICK) as queue:
        for name, texts in said.items():
            await asyncio.gather(*(queue.submit(name, text, message_id=text, debounce=0.5) for text in texts))
        await stage.reached()
        await child.expect("TOOL hold tea", deadline=60)
        child.kill9()
        await child.wait()
    stage.let_go()
    second = runner(list(STEPS), hold=False)
    async with BatchQueue(url, namespace=namespace, runner=second, deliver=deliver, **QUICK):
        await wait_for(lambda: len(replies) == len(said), "a reply for each thread", deadline=60)
    tools = [line for line in (*child.lines, *capsys.readouterr().out.split("\n")) if line.startswith("TOOL ")]
    assert {item: tools.count(f"TOOL {item}") for item in ORDERS} == ORDERS
    assert len(tools) == sum(ORDERS.values())
    assert not [line for line in child.lines if line.startswith("REPLY")]
    assert sorted(reply.thread for reply in replies) == sorted(said)
    (made,) = [thread for name, thread in fake.threads.items() if name not in STEPS]
    threads: Mapping[str, Thread] = {**{name: fake.threads[name] for name in STEPS}, "made": made}
    for name, thread in threads.items():
        assert [text for kind, text in thread.history if kind == "user"] == said[name], name
        assert [run.status for run in thread.runs] == RUNS.get(name, ["completed"]), name
    assert {reply.thread: reply.text for reply in replies if reply.thread in ("known", "held", "said")} == {
        "known": "a long answer",
        "held": "ordered",
        "said": "I got 2 messages: said 0 | said 1",
    }


async def test_c7_c8_c16_failures_are_retried_and_refused_messages_are_found_out(
    fake: Provider, url: str, namespace: str
) -> None:
    """A failed run, a lost stream, then a batch with one message that is refused: the others are answered."""
    hire(fake)
    replies: list[Reply] = []
    events: list[Any] = []

    async def deliver(reply: Reply) -> None:
        replies.append(reply)

    def refuses(request: Request) -> Plan | None:
        (thread,) = fake.threads.values()
        given = request.body.get("additional_messages") or thread.messages
        poison = any("poison" in str(one["content"]) for one in given)
        return Plan(end="failed", error={"code": "invalid_prompt"}) if poison else Plan(text="fine")

    made = runner([], hold=False)
    slow: dict[str, Any] = {**QUICK, "debounce": 0.2, "listeners": (events.append,)}
    async with BatchQueue(url, namespace=namespace, runner=made, deliver=deliver, **slow) as queue:
        fake.script = [Plan(end="failed"), Plan(cut_after=6, text="first")]
        await queue.submit("t", "hello")
        await wait_for(lambda: len(replies) == 1, "the first reply", deadline=30)
        fake.rule = refuses
        await asyncio.gather(*(queue.submit("t", text) for text in ("a", "b", "poison", "c")))
        await wait_for(lambda: len(replies) == 3, "the replies of all halves but one", deadline=30)
        await wait_for(lambda: [one for one in events if isinstance(one, Dead)], "the dead letter", deadline=30)
    (thread,) = fake.threads.values()
    assert [text for kind, text in thread.history if kind == "user"] == ["hello", "a", "b", "c"]
    assert [reply.text for reply in replies] == ["first", "fine", "fine"]
    assert len([one for one in events if isinstance(one, Retrying)]) >= 1
    assert [run.status for run in thread.runs if run.status == "completed"] == ["completed"] * 3


async def test_cancel_in_the_queue_ends_the_providers_run_and_the_thread_goes_on(
    fake: Provider, url: str, namespace: str
) -> None:
    hire(fake)
    replies: list[Reply] = []

    async def deliver(reply: Reply) -> None:
        replies.append(reply)

    made = runner([], hold=False)
    async with BatchQueue(url, namespace=namespace, runner=made, deliver=deliver, **QUICK) as queue:
        fake.script = [Plan(text="half of it", hold=asyncio.Event())]
        receipt = await queue.submit("t", "hello")
        await wait_for(
            lambda: any(run.thread.messages[-1]["role"] == "assistant" for run in fake.runs.values()), "text"
        )
        await queue.cancel("t", keep=True)
        with pytest.raises(RunCancelled) as caught:
            await receipt.reply(timeout=20)
        assert caught.value.reply is not None
        assert caught.value.reply.text == "half "
        await queue.submit("t", "and now?")
        await wait_for(lambda: len(replies) == 2, "the next reply", deadline=30)
    assert [run.status for run in fake.runs.values()] == ["cancelled", "completed"]
    assert replies[0].flags == ("incomplete", "cancelled")
    (thread,) = fake.threads.values()
    assert [text for kind, text in thread.history if kind == "user"] == ["hello", "and now?"]
