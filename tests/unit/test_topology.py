"""The map of a Cluster's slots, without a Cluster: who waits for it while it is read, and while the queue closes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from streambatch._scripts import Wire
from streambatch._topology import Cluster
from streambatch.errors import StoreError


class Silent:
    """In the place of redis-py's client: it never learns the map."""

    def __init__(self) -> None:
        self.nodes_manager = self
        self.asked = asyncio.Event()
        self.closed: list[str] = []

    async def initialize(self) -> None:
        """Ask, and hear nothing."""
        self.asked.set()
        await asyncio.Event().wait()

    async def aclose(self, attr: str = "nodes_cache") -> None:
        """Remember."""
        self.closed.append(attr)

    def keyslot(self, key: str) -> int:
        """Every key is in one slot."""
        return len(key) and 7


async def test_whoever_waits_for_the_map_is_told_that_the_queue_closed() -> None:
    """Not cancelled: that would look like a cancellation of their own. Whoever comes later is told, too."""
    client = Silent()
    cluster = Cluster(cast("Any", client), ours=True)
    wires = [Wire(cast("Any", cluster.at("k")), 60) for _ in range(2)]
    waiting = [asyncio.create_task(wire.exchange(())) for wire in wires]
    await client.asked.wait()
    await cluster.aclose()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    for error in found:
        assert isinstance(error, StoreError), repr(error)
        assert str(error) == "the queue was closed"
    client.asked.clear()
    with pytest.raises(StoreError, match="the queue was closed"):
        await cluster.master(7)
    assert not client.asked.is_set()
    assert client.closed


async def test_one_who_waits_for_the_map_and_is_cancelled_takes_it_from_nobody() -> None:
    """I11: the reading goes on for the others."""
    client = Silent()
    cluster = Cluster(cast("Any", client), ours=True)
    first, second = (asyncio.create_task(cluster.master(7)) for _ in range(2))
    await client.asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0)
    assert not second.done()
    await cluster.aclose()
    with pytest.raises(StoreError, match="the queue was closed"):
        await second
