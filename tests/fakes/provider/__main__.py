"""By hand, or for a test in other processes: prints the URL and serves until it is ended."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress

from tests.fakes.provider.server import serving


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.provider", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds per word (0.05)")
    parser.add_argument("--fail-rate", type=float, default=0.0, help="share of the POSTs answered 429")
    parser.add_argument("--seed", type=int, default=None, help="of the rates, for the same faults again")
    return parser.parse_args()


async def _main(told: argparse.Namespace) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with serving(told.port, delay=told.delay, fail_rate=told.fail_rate) as fake:
        fake.random.seed(told.seed)
        print(fake.url, flush=True)
        await ended.wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main(_arguments()))
