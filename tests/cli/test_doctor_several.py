"""The doctor on a real Cluster: what is well there, and what is found when it is not.

What it says of Sentinels is in tests/integration/test_topologies.py, which has some.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from redis.exceptions import ResponseError

from streambatch import BatchQueue
from streambatch.cli.doctor import examine
from streambatch.cli.doctor._look import look
from tests.cli.tools import BUSY
from tests.rig import Server, wait_for
from tests.rig.servers import kinds
from tests.rig.several import Nodes

#: What the machine and the release are like, and that the servers of the rig have no limit of memory.
ANYWHERE = {"huge-pages warning", "lua-holes note", "maxmemory note", "min-replicas-to-write note"}


async def found(url: str, namespace: str) -> set[str]:
    """What is not well, with where if that is said."""
    facts = await look(url, namespace)
    found = [one for one in examine(facts) if one.level != "ok" and one.code not in BUSY]
    wrong = [one for one in found if f"{one.code} {one.level}" not in ANYWHERE]
    return {f"{one.code} {one.level} {one.where}".strip() for one in wrong}


@pytest.fixture(params=list(kinds()))
def cluster(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """Three masters without replicas."""
    made = Nodes(request.param)
    yield made
    made.close()


def without_slot_0(server: Server) -> bool:
    """Whether a node thinks that nobody serves slot 0; until all do, their gossip gives it back to each other."""
    with contextlib.suppress(ResponseError):
        server.admin().execute_command("CLUSTER", "DELSLOTS", 0)
    said: str = server.admin().execute_command("CLUSTER", "INFO")
    return "cluster_slots_assigned:16383" in said


async def test_a_cluster(cluster: Nodes, namespace: str) -> None:
    """Every master is asked; then a slot has no node, and then a node is dead."""
    names = [f"127.0.0.1:{server.port}" for server in cluster.masters]
    alone = {f"cluster-replicas warning {name}" for name in names}
    usual = alone | {"cluster-require-full-coverage note", "processes note"}
    async with BatchQueue(cluster.url, namespace=namespace, log=False, partitions=12):
        assert await found(cluster.url, namespace) == usual - {"processes note"}
    async with BatchQueue(cluster.url, namespace=f"{namespace}-2", log=False, partitions=2):
        pass
    assert await found(cluster.url, f"{namespace}-2") == usual | {"cluster-partitions note"}
    one = f"redis://bot:bot-secret@127.0.0.1:{cluster.masters[0].port}"
    assert "cluster-url error" in await found(one, "none")
    for server in cluster.servers:
        server.admin().config_set("cluster-require-full-coverage", "no")
        server.admin().config_set("maxmemory-policy", "allkeys-lru" if server is cluster.servers[1] else "noeviction")
    assert await found(cluster.url, namespace) == alone | {"processes note", f"maxmemory-policy error {names[1]}"}
    for server in cluster.servers:
        server.admin().config_set("maxmemory-policy", "noeviction")
    await wait_for(lambda: all(map(without_slot_0, cluster.servers)), "slot 0 to be served by nobody")
    assert "cluster-state error" in await found(cluster.url, namespace)
    assert (await look(cluster.url, namespace)).uncovered == 1
    async with BatchQueue(cluster.url, namespace=f"{namespace}-2", log=False, partitions=2) as queue:
        assert (await queue.submit("anna", "hello", debounce=60)).outcome == "queued"  # the other slots go on
    cluster.servers[2].kill9()
    errors = [one for one in await found(cluster.url, namespace) if one.startswith("reach")]
    assert errors == [f"reach error {names[2]}"]  # the partitions on it have the same trouble, and it is told once
