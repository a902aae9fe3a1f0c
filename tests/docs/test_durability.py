"""The durability classes that need more than one kill: D0 loses at a restart, D3 is counted.

D1 and D2, which lose nothing at kill -9 of the server, are in tests/chaos/test_kill_server.py.
"""

from __future__ import annotations

import pytest

from streambatch import BatchQueue, DurabilityUnknown, OutcomeUnknown, Replicas
from tests.conftest import StartServer
from tests.rig.moments import wait_for
from tests.rig.servers import ADMIN_PASSWORD


async def test_d0_a_server_without_an_aof_loses_what_waits(start_server: StartServer, namespace: str) -> None:
    """D0 survives the end of every worker, and nothing of it survives the server; the queue then goes on with new."""
    server = start_server()
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        await queue.submit("anna", "hi")
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        assert len(await queue.pending("anna")) == 1
        server.restart()
        assert await queue.pending("anna") == ()
        assert (await queue.submit("anna", "hi")).outcome == "queued"


async def test_d3_without_enough_replicas_it_is_said_that_nobody_knows(
    start_server: StartServer, namespace: str
) -> None:
    """Stored, but the asked class is not confirmed: an error of its own, and a retry stores nothing twice."""
    async with BatchQueue(start_server().url, namespace=namespace, log=False, durability=Replicas(1, 0.2)) as queue:
        with pytest.raises(DurabilityUnknown) as unknown:
            await queue.submit("anna", "hi", message_id="m1")
        assert isinstance(unknown.value, OutcomeUnknown)
        assert unknown.value.message_id == "m1"
        again = await queue.submit("anna", "hi", message_id="m1", durability="server")
        assert again.outcome == "duplicate"
        assert len(await queue.pending("anna")) == 1


async def test_d3_a_message_is_on_the_replica_when_submit_returns(start_server: StartServer, namespace: str) -> None:
    """Replicas(1): the master dies right after submit, its replica is promoted, and the message is there."""
    master = start_server(options=("--repl-diskless-sync-delay", "0"))
    replica = start_server(
        options=("--replicaof", "127.0.0.1", str(master.port), "--masteruser", "admin", "--masterauth", ADMIN_PASSWORD)
    )
    await wait_for(lambda: replica.admin().info("replication")["master_link_status"] == "up", "the replica's link")
    async with BatchQueue(master.url, namespace=namespace, log=False, durability=Replicas(1, 5)) as queue:
        await queue.submit("anna", "hi")
        master.stop()
        replica.admin().execute_command("REPLICAOF", "NO", "ONE")
        async with BatchQueue(replica.url, namespace=namespace, log=False) as heir:
            assert [message.text for message in await heir.pending("anna")] == ["hi"]
        master.cont()
