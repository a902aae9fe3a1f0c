"""``python -m tests.recorded``: record the set of this version; see the package's docstring."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import tomllib
from pathlib import Path
from socket import gethostname
from typing import Any

from tests.recorded.keys import taken
from tests.recorded.scene import NAMESPACE, scene
from tests.rig.process import ROOT
from tests.rig.servers import Server, kinds

DATA = ROOT / "tests" / "data"


def path_of(version: str) -> Path:
    """Where the set of a version is."""
    return DATA / f"namespace-{version}.json"


def this_version() -> str:
    """The version in pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


async def recorded(server: Server) -> dict[str, Any]:
    """The keys of a scene played on a server."""
    async with scene(server.url):
        return taken(server.admin(), NAMESPACE)


def main(path: Path) -> None:
    """Record, unless there is a set already."""
    if path.exists():
        sys.exit(f"{path.name} exists and is what that release left behind: it is never written again")
    kind = next(iter(kinds()))
    server = Server(kind)
    try:
        keys = asyncio.run(recorded(server))
    finally:
        server.close()
    at = round(time.time() * 1000)
    told = {"at": at, "version": this_version(), "server": kind, "namespace": NAMESPACE, "keys": keys}
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(told, indent=1, sort_keys=True).replace(gethostname(), "host") + "\n")
    print(f"{path.name}: {len(keys)} keys, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(path_of(this_version()))
