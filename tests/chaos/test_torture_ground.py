"""The server under torture: reached over TLS with a password, its keys looked at and deleted with a queue's rights.

The certificate beside this file is for these tests only; who has its key can do nothing with it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from streambatch import BatchQueue
from streambatch.torture import Ground
from streambatch.torture._proxy import Proxy
from tests.rig import Server, wait_for
from tests.rig.servers import BOT_PASSWORD

PEM = Path(__file__).with_name("tls.pem")


@asynccontextmanager
async def encrypted(server: Server) -> AsyncGenerator[int]:
    """A port that speaks TLS and passes everything on to the server."""

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
        target.close()

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(PEM)
    listener = await asyncio.start_server(come, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def test_a_queue_works_through_a_proxy_to_a_server_with_tls(server: Server, namespace: str) -> None:
    """Workers speak plainly to the proxy, and the proxy speaks TLS, as the URL says; so its faults can see calls."""
    async with encrypted(server) as port:
        ground = Ground(f"rediss://bot:{BOT_PASSWORD}@127.0.0.1:{port}/0?ssl_ca_certs={PEM}")
        about = await ground.about()
        assert about["process_id"] == str(server.pid)
        async with Proxy(ground.connect) as proxy:
            async with BatchQueue(ground.url_at(proxy.port), namespace=namespace, log=False) as queue:
                await queue.submit("t", "hi", message_id="m")
            assert f"sb1:{{{namespace}.00}}:stream:t" in proxy.keys
            await wait_and_delete(ground, proxy, server)
        await ground.aclose()


async def wait_and_delete(ground: Ground, proxy: Proxy, server: Server) -> None:
    """What would stay for good is known, and all keys can be deleted, by the restricted user."""
    lasting = await ground.lasting(proxy.keys)
    assert {key.split(":")[2] for key in lasting} == {"stream", "window", "due"}
    assert await ground.lasting(proxy.keys) == []  # they have a TTL by now
    await ground.delete(proxy.keys)
    await wait_for(lambda: not any(server.admin().exists(key) for key in proxy.keys), "the keys to be gone")


@pytest.mark.parametrize(
    ("url", "behind"),
    [
        ("redis://h:7/3", "redis://127.0.0.1:9/3"),
        ("redis://:p%40%2F@h", "redis://:p%40%2F@127.0.0.1:9/0"),
        ("unix://u:p@/tmp/a b.sock?db=2", "redis://u:p@127.0.0.1:9/2"),
    ],
)
def test_who_one_is_behind_the_proxy(url: str, behind: str) -> None:
    assert Ground(url).url_at(9) == behind
