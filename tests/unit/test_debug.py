"""Who is told the whole of an error: whoever develops, and no log."""

from __future__ import annotations

import asyncio

import pytest

from streambatch import Batch, DeadLetter, Reply
from streambatch.testing import Bench, settled

SAID = "my neighbour's name is Anna"


@pytest.mark.parametrize("where", ["the runner", "the deliver callback"])
@pytest.mark.parametrize("debug", [True, False])
def test_a_traceback_with_its_text_is_shown_in_debug_mode_only(
    where: str, debug: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """`python -X dev` is asyncio's debug mode. Else type and place are told, as the text may quote a person."""

    def fails(here: str) -> None:
        if here == where:
            raise ValueError(SAID)

    async def answer(batch: Batch) -> str:
        fails("the runner")
        return "yes"

    async def send(reply: Reply) -> None:
        fails("the deliver callback")

    async def main() -> None:
        with Bench() as bench:
            async with bench.queue(
                runner=answer, deliver=send, max_attempts=2, max_delivery_attempts=2, log=True
            ) as queue:
                await queue.submit("t", "hi")
                await settled(queue)

    asyncio.run(main(), debug=debug)
    said = "".join(capfd.readouterr())
    assert "ValueError at test_debug.py" in said
    shown = [line for line in said.splitlines() if line == f"ValueError: {SAID}"]
    assert len(shown) == (2 if debug else 0)
    assert said.count(SAID) == len(shown)


def test_what_a_runner_says_on_purpose_has_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    async def answer(batch: Batch) -> str:
        raise DeadLetter("no image can be read")

    async def main() -> None:
        with Bench() as bench:
            async with bench.queue(runner=answer, log=True) as queue:
                await queue.submit("t", "hi")
                await settled(queue)

    asyncio.run(main(), debug=True)
    said = "".join(capfd.readouterr())
    assert "no image can be read" in said
    assert "Traceback" not in said
