"""Assertions about what a bot's queue did. They fail with AssertionError, which may show texts: they are the test's.

They compare what was expected with what `ScriptedRunner` and `ScriptedDeliver` saw, or with what the server has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from streambatch._explain import DeadLetterInfo
from streambatch.errors import UsageError
from streambatch.queue import BatchQueue

from ._bench import left
from ._script import ScriptedDeliver, ScriptedRunner

NONE = " none (too early? await settled(queue))"


def assert_batches(
    runner: ScriptedRunner, expected: Iterable[Sequence[str]], *, thread: str | int | None = None
) -> None:
    """The Runs saw exactly these batches, each a list of texts, in order; a batch that ran again counts once.

    Args:
        runner: who saw them.
        expected: the texts of each batch.
        thread: look only at the batches of this thread.

    Raises:
        AssertionError: they differ; shows both, and every Run.

    Example:
        >>> assert_batches(ScriptedRunner(), [["hi"]])
        Traceback (most recent call last):
        AssertionError: expected batches [['hi']], and there were []; the Runs: none (too early? await settled(queue))
    """
    found = [list(batch) for batch in runner.texts(thread)]
    wanted = [list(batch) for batch in expected]
    if found != wanted:
        runs = "".join(f"\n  {batch!r}: {[message.text for message in batch.messages]}" for batch in runner.batches)
        raise AssertionError(f"expected batches {wanted}, and there were {found}; the Runs:{runs or NONE}")


def assert_replies(deliver: ScriptedDeliver, expected: Iterable[str], *, thread: str | int | None = None) -> None:
    """Exactly these texts were delivered, in order.

    Args:
        deliver: who accepted them.
        expected: the texts.
        thread: look only at the replies of this thread.

    Raises:
        AssertionError: they differ; shows both, and every call.

    Example:
        >>> assert_replies(ScriptedDeliver(), [])
    """
    found, wanted = deliver.texts(thread), list(expected)
    if found != wanted:
        tries = "".join(f"\n  {reply!r}: {reply.text!r}" for reply in deliver.tries)
        raise AssertionError(f"expected replies {wanted}, and there were {found}; the calls:{tries or NONE}")


async def assert_dead_letters(queue: BatchQueue, *expected: str) -> tuple[DeadLetterInfo, ...]:
    """There are exactly so many dead letters, and the reason of each contains its word, in order; none for none.

    Args:
        queue: an open queue of the namespace.
        expected: a part of the reason of each.

    Returns:
        The dead letters, for a closer look.

    Raises:
        AssertionError: there are others; shows their reasons.
        UsageError: a reason is no str, as in a list of lists, which is what `assert_batches` takes.

    Example:
        >>> async def test() -> None:
        ...     async with bench.queue(runner=ScriptedRunner(DeadLetter("content policy"))) as queue:
        ...         await queue.submit("anna", "hi")
        ...         await settled(queue)
        ...         (letter,) = await assert_dead_letters(queue, "policy")
        ...         print(letter.thread, letter.reason)
        >>> with Bench() as bench:
        ...     asyncio.run(test())
        anna content policy
    """
    for word in cast("tuple[object, ...]", expected):
        if not isinstance(word, str):
            raise UsageError(
                f"assert_dead_letters(queue, 'a word of its reason', …): a str each, not {type(word).__name__}"
            )
    letters = await queue.dead_letters(count=1000)
    fits = len(letters) == len(expected) and all(
        word in letter.reason for word, letter in zip(expected, letters, strict=True)
    )
    if not fits:
        told = "".join(f"\n  {letter.kind} of thread {letter.thread!r}: {letter.reason}" for letter in letters)
        raise AssertionError(f"expected dead letters {list(expected)}, and there are {len(letters)}:{told}")
    return letters


async def assert_nothing_pending(queue: BatchQueue) -> None:
    """Nothing is left in the namespace: no message waits or runs, no reply is undelivered, no paused thread has work.

    Dead letters are not pending; see `assert_dead_letters`.

    Args:
        queue: an open queue of the namespace.

    Raises:
        AssertionError: something is; shows counts, and what the first threads wait for.

    Example:
        >>> async def test() -> None:
        ...     async with bench.queue() as queue:
        ...         await assert_nothing_pending(queue)
        >>> with Bench() as bench:
        ...     asyncio.run(test())
    """
    stats = await queue.stats()
    if stats.messages or stats.due or stats.undelivered or stats.parked or stats.in_hand:
        raise AssertionError(f"expected nothing pending, and there is: {await left(queue, stats)}")
