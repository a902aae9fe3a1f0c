"""What the pages are compared with: the ACL of the tests, and servers started as the runbook says."""

from __future__ import annotations

import asyncio

from streambatch import BatchQueue, Event, Warned
from tests.rig.servers import ACL_RULES, Server, kinds


def acl_lines() -> list[str]:
    """The commands that the user of all tests may run."""
    return [rule for rule in ACL_RULES if rule.startswith("+")]


def check_configuration(block: str) -> None:
    """A server with these lines is accepted without a warning, on each kind of server."""
    lines = [line.split() for line in block.splitlines() if line and not line.startswith("#")]
    options = [word for name, *values in lines for word in (f"--{name}", " ".join(values))]
    for kind in kinds():
        server = Server(kind, options=options)
        try:
            assert asyncio.run(_warnings(server.url)) == []
        finally:
            server.close()


def check_user(block: str) -> None:
    """A server whose ACL file has these lines as they stand lets the user open a queue, on each kind of server."""
    _, name, _, password, *_ = block.split()
    for kind in kinds():
        server = Server(kind)
        try:
            file = server.dir / "users.acl"
            others = [line for line in file.read_text().splitlines() if line.split()[1] != name]
            file.write_text("\n".join([*others, block]))
            server.admin().execute_command("ACL", "LOAD")
            asyncio.run(_warnings(f"unix://{name}:{password.removeprefix('>')}@{server.socket}"))
        finally:
            server.close()


async def _warnings(url: str) -> list[str]:
    heard: list[Event] = []
    async with BatchQueue(url, listeners=[heard.append], log=False):
        return [event.message for event in heard if isinstance(event, Warned)]
