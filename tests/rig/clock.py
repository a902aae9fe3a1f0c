"""A server whose clock a test may step: libfaketime below it, as the Debian package `faketime` installs it.

Theory of operation. The library is loaded before the server's own and reads a file at every look at the clock: an
offset in seconds. Replacing the file steps the clock of the running server, and of nothing else: the workers' clocks,
like those of other machines, go on. The monotonic clock is left alone, as it is when an operator or NTP sets a clock.

What can go wrong: jemalloc looks at the clock while the library is being loaded, and both wait for each other for ever.
So this needs a server that was built with the C library's malloc, which says so of itself, as the tests' Valkey does.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.rig.servers import Server, kinds
from tests.rig.several import until


def _library() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def _plain(program: Path) -> bool:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    return "malloc=libc" in said


class SteppedServer:
    """A server with an AOF, and its clock.

    Attributes:
        server: the server.
        offset: seconds that its clock is ahead.
    """

    def __init__(self) -> None:
        """Start it; without the library the test fails where servers are required, and else is skipped."""
        library = _library()
        kind = next((kind for kind, program in kinds().items() if _plain(program)), None)
        if library is None or kind is None:
            said = "needs the Debian package faketime" if library is None else "needs a server built with malloc=libc"
            if "STREAMBATCH_REQUIRE_SERVERS" in os.environ:
                pytest.fail(f"stepping a server's clock {said}", pytrace=False)
            pytest.skip(f"stepping a server's clock {said}")
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "offset"
        self.offset = 0.0
        self._write()
        env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.server = Server(kind, aof="everysec", env=env)

    def step(self, seconds: float) -> None:
        """Set the clock forward or back by so much, and wait until the server has seen it."""
        self.offset += seconds
        self._write()
        until(lambda: abs(int(self.server.admin().time()[0]) - time.time() - self.offset) < 1.5, "the step")

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{self.offset:+.3f}\n")
        new.replace(self._file)

    def close(self) -> None:
        """End the server."""
        self.server.close()
        self._folder.cleanup()
