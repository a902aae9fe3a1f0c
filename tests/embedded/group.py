"""The app as the leader of a process group of its own, as a shell starts it, so that a test can press Ctrl-C."""

import asyncio
import os
import sys

from tests.embedded.app import main

os.setpgid(0, 0)
asyncio.run(main(*sys.argv[1:]))
