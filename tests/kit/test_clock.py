"""The clock: waits take no time, happen in order and at their moment, and what is outside of the loop is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest

from streambatch import UsageError
from streambatch.testing import Clock

REAL = 5.0  # seconds; nothing here may take as long, and what is slept is minutes


@pytest.fixture
def clock() -> Iterator[Clock]:
    began = time.perf_counter()
    with Clock() as made:
        yield made
    assert time.perf_counter() - began < REAL


async def test_sleeping_takes_no_time_and_all_clocks_agree(clock: Clock) -> None:
    await clock.idle()
    loop = asyncio.get_running_loop()
    before, wall, moment = loop.time(), time.time(), datetime.now(UTC)
    await asyncio.sleep(90.0)
    assert loop.time() - before == pytest.approx(90.0)
    assert time.time() - wall == pytest.approx(90.0)
    assert datetime.now(UTC) - moment == timedelta(seconds=90)
    assert (clock.elapsed, clock.now) == (90.0, clock.start + timedelta(seconds=90))


async def test_timers_fire_in_their_order_and_at_their_moment(clock: Clock) -> None:
    await clock.idle()
    seen: list[tuple[str, float]] = []

    async def after(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, clock.elapsed))

    tasks = [asyncio.create_task(after(*what)) for what in (("c", 3), ("a", 1), ("b", 2.0004))]
    await asyncio.gather(*tasks)
    assert seen == [("a", 1.0), ("b", 2.001), ("c", 3.0)]  # whole milliseconds, never early


async def test_advance_stops_at_its_moment_and_lets_everything_happen_that_is_due_then(clock: Clock) -> None:
    seen: list[str] = []

    async def chain() -> None:
        await asyncio.sleep(2.0)
        for _ in range(5):
            await asyncio.sleep(0)
        seen.append("done")

    task = asyncio.create_task(chain())
    await clock.advance(1.999)
    assert not seen
    await clock.advance(timedelta(milliseconds=1))
    assert seen == ["done"]
    assert clock.elapsed == 2.0
    await task


async def test_a_step_goes_to_the_next_moment(clock: Clock) -> None:
    sleeping = asyncio.create_task(asyncio.sleep(0.25))
    assert [await clock.step(), await clock.step()] == [0.25, 1.0]  # and a second where there is none
    assert sleeping.done()


async def test_time_does_not_pass_while_a_thread_works(clock: Clock) -> None:
    await clock.idle()
    go = Event()

    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        working = group.create_task(asyncio.to_thread(go.wait, REAL))
        timer = group.create_task(asyncio.sleep(30))
        await asyncio.sleep(0)
        threading = Thread(target=lambda: (time.sleep(0.05), go.set()))
        threading.start()
        assert await working
        assert clock.elapsed == 0.0
        await timer
    threading.join()
    assert clock.elapsed == 30.0


def test_a_loop_that_ends_joins_its_threads_in_real_time() -> None:
    """From Python 3.12 on with five minutes for it, which must not pass at once: a thread is still joined."""
    begun, go = Event(), Event()

    async def life(clock: Clock) -> None:
        await clock.idle()
        job = asyncio.get_running_loop().run_in_executor(None, lambda: (begun.set(), go.wait(REAL)))
        assert begun.wait(REAL)
        job.cancel()  # nobody waits for it any more
        releasing = Thread(target=lambda: (time.sleep(0.05), go.set()))
        releasing.start()
        async with asyncio.timeout(300):
            await asyncio.get_running_loop().shutdown_default_executor()
        releasing.join()

    with Clock() as clock:
        asyncio.run(life(clock))
    assert clock.elapsed == 0.0


async def test_time_does_not_pass_while_a_socket_has_something(clock: Clock) -> None:
    await clock.idle()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()
    assert clock.elapsed == 0.0


def test_patience_waits_for_threads_that_the_loop_does_not_know() -> None:
    async def outside() -> float:
        clock.hold()
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        thread = Thread(target=lambda: (time.sleep(0.05), loop.call_soon_threadsafe(done.set)))
        thread.start()
        async with asyncio.timeout(60):
            await done.wait()
        thread.join()
        return clock.elapsed

    with Clock(patience=REAL) as clock:
        assert asyncio.run(outside()) == 0.0


def test_a_test_that_waits_for_nothing_ends_and_says_so() -> None:
    async def never() -> None:
        clock.hold()
        ticking = asyncio.create_task(tick())
        await asyncio.Event().wait()  # here
        await ticking

    async def tick() -> None:
        for _ in range(10_000):
            await asyncio.sleep(1)

    with Clock(limit=60) as clock, pytest.raises(TimeoutError, match="did not happen in 60 s of its clock") as caught:
        asyncio.run(never())
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert f"test_clock.py:{source.index('        await asyncio.Event().wait()  # here') + 1};" in str(caught.value)


def test_a_test_that_waits_while_nothing_has_a_timer_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """No queue is open, so there is no poll that would let time pass."""
    monkeypatch.setattr("streambatch.testing._clock.SILENCE", 0.05)

    async def never() -> None:
        await clock.idle()
        await asyncio.Future[None]()  # without a timer

    with Clock() as clock, pytest.raises(TimeoutError, match=r"did not happen in 0\.05 real seconds") as caught:
        asyncio.run(never())
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = source.index("        await asyncio.Future[None]()  # without a timer") + 1
    assert f"test_clock.py:{line} (" in str(caught.value)


async def test_advancing_for_a_day_is_no_such_wait() -> None:
    with Clock(limit=60) as clock:
        await clock.advance(86_400)
        assert clock.elapsed == 86_400


async def test_the_loop_goes_on_afterwards_and_its_time_does_not_go_back() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(2):
        with Clock() as clock:
            await clock.advance(100)
            late = loop.time()
        assert late <= loop.time() < late + REAL
        began = time.perf_counter()
        await asyncio.sleep(0.02)
        assert time.perf_counter() - began >= 0.015  # real again
    assert abs(datetime.now(UTC).timestamp() - time.time()) < REAL


def test_one_clock_holds_one_loop_after_the_other() -> None:
    with Clock() as clock:
        asyncio.run(clock.advance(5))
        asyncio.run(clock.advance(5))
        assert clock.elapsed == 10.0


async def test_a_clock_that_is_misused_says_so(clock: Clock) -> None:
    with pytest.raises(UsageError, match="another clock is on"):
        Clock().__enter__()
    with pytest.raises(UsageError, match="goes neither back"):
        await clock.advance(-1)
    with pytest.raises(UsageError, match="aware"):
        Clock(datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(UsageError, match="not on"):
        await Clock().idle()
