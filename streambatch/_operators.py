"""Operators: the methods of a queue for whoever looks after it: look, pause, count, dead letters, limits.

Theory of operation
-------------------
`BatchQueue` has two kinds of callers. A bot submits and waits for replies; that is ``queue.py``. An operator asks why
nothing happens and mends it: that is here, and `BatchQueue` inherits it. Each method says what is promised, checks what
it was given, and leaves the work to ``_desk.py``; so the command line and a bot's own admin page have the same verbs.

Every method is one bounded call for each partition: none walks all threads, and none waits behind a Run. They need an
open queue, and work in every process, also in one that only submits.
"""

from __future__ import annotations

from ._explain import DeadLetterInfo, Explanation, Health, ScopeInfo, Stats, ThreadInfo
from ._life import Life
from ._messages import id_of
from .errors import QueueClosed


class Operators:
    """The operator's half of a `BatchQueue`.

    All that await something raise QueueClosed if the queue is not open, and StoreError if the server does not answer or
    refuses; the same call again is safe.
    """

    _open: Life | None = None

    @property
    def _up(self) -> Life:
        opened = self._open
        if opened is None:
            raise QueueClosed
        opened.check()
        return opened

    def health(self) -> Health:
        """Readiness of this process; it sends nothing, and may be called from any thread.

        Returns:
            ``ready``, and if it is not, why not in ``reason``.

        Example:
            >>> async with BatchQueue("memory://", log=False) as queue:
            ...     print(200 if queue.health().ready else 503)  # the readiness probe of a web server
            200
        """
        if self._open is None:
            return Health(False, "the queue is not open", None, 0, 0, 0)
        return self._open.health()

    # ── look ──

    async def stats(self) -> Stats:
        """Counts of the namespace, over all processes; never O(threads).

        Returns:
            What waits and is in hand now, and what ever came and went.

        Example:
            >>> receipt = await queue.submit("anna", "hi")
            >>> found = await queue.stats()
            >>> found.messages, found.due, found.dead
            (1, 1, 0)
        """
        return await self._up.desk.stats()

    async def threads(self, state: str = "due", offset: int = 0, count: int = 100) -> tuple[ThreadInfo, ...]:
        """A page of threads, most urgent first.

        Args:
            state: ``"due"`` (they wait, run or retry), ``"outbox"`` (a reply is on its way or waits) or ``"parked"``
                (paused, with something to do).
            offset: how many to leave out, from 0. With several partitions the pages before are read as well.
            count: how many at most, 1 to 1,000.

        Returns:
            The threads and their moments (seconds since 1970, by the server's clock).

        Raises:
            UsageError: no such state, or a number that is out of range.

        Example:
            >>> receipt = await queue.submit("anna", "hi")
            >>> [info.thread for info in await queue.threads("due", count=10)]
            ['anna']
        """
        return await self._up.desk.threads(state, offset, count)

    async def explain(self, thread: str | int) -> Explanation:
        """Why is nothing happening here?

        Args:
            thread: the conversation; one that nobody has heard of is idle.

        Returns:
            Its state, owner, attempt, next wake, and the reason in one sentence, without content.

        Raises:
            UsageError: it is no name of a thread.

        Example:
            >>> receipt = await queue.submit("anna", "hi")
            >>> (await queue.explain("anna")).state
            'waiting'
        """
        return await self._up.desk.explain(id_of(thread, "thread"))

    # ── pause ──

    async def pause(self, thread: str | int | None = None) -> None:
        """No Run of this thread (None: of the namespace) starts until ``resume``; messages are kept.

        A Run that is under way goes on, and its reply is delivered. It holds for all processes, and outlives them.

        Args:
            thread: the conversation, or None for all of the namespace.

        Raises:
            UsageError: it is no name of a thread.

        Example:
            >>> await queue.pause("anna")
            >>> receipt = await queue.submit("anna", "hi")
            >>> (await queue.explain("anna")).state
            'parked'
        """
        await self._up.desk.pause(None if thread is None else id_of(thread, "thread"), on=True)

    async def resume(self, thread: str | int | None = None) -> None:
        """End a pause: of this thread, or (None) of the namespace. Threads that were paused by name stay paused.

        Args:
            thread: the conversation, or None.

        Raises:
            UsageError: it is no name of a thread.

        Example:
            >>> await queue.pause()
            >>> receipt = await queue.submit("anna", "hi")
            >>> await queue.resume()
            >>> (await receipt.reply()).text
            'hi'
        """
        await self._up.desk.pause(None if thread is None else id_of(thread, "thread"), on=False)

    # ── dead letters ──

    async def dead_letters(self, count: int = 100, after: str | None = None) -> tuple[DeadLetterInfo, ...]:
        """A page of what failed for good, batches and replies, oldest first.

        Args:
            count: how many at most, 1 to 1,000.
            after: the ``id`` of the last one of the page before.

        Returns:
            The letters, with the messages or the reply in them.

        Raises:
            UsageError: *count* is out of range, or *after* no id of a dead letter.

        Example:
            >>> for letter in await queue.dead_letters(count=10):
            ...     print(letter.id, letter.thread, letter.kind, letter.reason)
        """
        return await self._up.desk.dead(count, after)

    async def redrive(self, letter: str) -> str:
        """Put a dead letter back: a batch at the tail of its thread, with new entry ids; a reply into the outbox.

        Args:
            letter: its ``id``.

        Returns:
            ``"redriven"``; ``"gone"``: there is no such letter; ``"busy"``: it is a reply, and its thread has a batch
            or a reply in hand (try again later); ``"broken"``: a key of the thread was overwritten, or its stream takes
            no further entry.

        Raises:
            UsageError: it is no id of a dead letter.

        Example:
            >>> for letter in await queue.dead_letters():
            ...     if letter.reason == "the bot is blocked":
            ...         await queue.redrive(letter.id)
            >>> await queue.redrive("0/1732371234567-0")
            'gone'
        """
        return await self._up.desk.redrive(letter)

    async def discard(self, letter: str) -> bool:
        """Delete a dead letter, with the messages that it holds.

        Args:
            letter: its ``id``.

        Returns:
            Whether there was one.

        Raises:
            UsageError: it is no id of a dead letter.

        Example:
            >>> await queue.discard("0/1732371234567-0")
            False
        """
        return await self._up.desk.discard(letter)

    # ── limits ──

    async def scope(self, name: str) -> ScopeInfo:
        """What is used of the limits that runners share under this name, and whether it is parked.

        Args:
            name: of the scope, as in ``Limits(scope=…)``.

        Raises:
            UsageError: it is no name of a scope.

        Example:
            >>> found = await queue.scope("openai")
            >>> found.state, found.running
            ('open', 0)
        """
        return await self._up.desk.scope(name)

    async def unpark(self, name: str) -> None:
        """End a park now; every process notices within a few seconds. A further refusal parks again.

        Args:
            name: of the scope.

        Raises:
            UsageError: it is no name of a scope.

        Example:
            >>> await queue.unpark("openai")  # the key was mended, or the account paid
        """
        await self._up.desk.unpark(name)
