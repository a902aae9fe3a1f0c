"""An app with an embedded server, as a process of its own that a test talks to and kills.

It prints ``open <alone> <server's pid> <socket>`` when the server answers, then obeys the lines of its stdin:
``incr`` (prints ``acked <value>``, again after a lost connection), ``count`` (increments without end), ``fork`` (leaves
a child behind), ``close``. SIGINT counts as ``close``. A third argument ``stay`` means that `run` is not run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Lost

from streambatch.embedded import EmbeddedServer


async def incr(redis: Redis) -> None:
    while True:
        try:
            value = await redis.incr("n")
        except (Lost, OSError):
            await asyncio.sleep(0.005)
        else:
            print(f"acked {value}")
            return


async def obey(redis: Redis, commands: asyncio.Queue[str]) -> None:
    while (command := await commands.get()) != "close":
        if command == "incr":
            await incr(redis)
        elif command == "fork":
            if not (pid := os.fork()):
                signal.pause()
            print("forked", pid)
        elif command == "count":
            while commands.empty():
                await incr(redis)


async def main(url: str, mode: str = "run") -> None:
    loop, commands = asyncio.get_running_loop(), asyncio.Queue[str]()

    def listen() -> None:
        for line in os.read(0, 4096).decode().split():
            commands.put_nowait(line)

    loop.add_reader(0, listen)
    loop.add_signal_handler(signal.SIGINT, commands.put_nowait, "close")
    server = await EmbeddedServer.open(url)
    redis = Redis(unix_socket_path=server.socket)
    pid = (await redis.info("server"))["process_id"]  # pyright: ignore[reportUnknownMemberType]
    print("open", server.alone, pid, server.socket)
    task = asyncio.create_task(server.run()) if mode != "stay" else None
    await obey(redis, commands)
    print("draining", await redis.ping())  # pyright: ignore[reportUnknownMemberType]
    await redis.aclose()
    if task:
        task.cancel()
    await server.aclose()
    print("closed")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
