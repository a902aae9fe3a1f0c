"""The child process of the local model: ``python -P _llama.py MODEL PORT THREADS CONTEXT LONGEST``.

It starts the llama.cpp server that is inside the package ``xllamacpp`` and sleeps until it is ended. It is a process of
its own so that a crash in native code, or a long computation, is never the chat's; it imports nothing of ours. The key
clients must show comes in LLAMA_API_KEY, because arguments are visible to everybody on the machine.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module


def main(model: str, port: str, threads: str, context: str, longest: str) -> None:
    """Serve *model* on *port* of loopback with *threads* threads until SIGTERM; the last two are in tokens."""
    llama = import_module("xllamacpp")
    wanted = llama.CommonParams()
    wanted.model.path = model
    wanted.hostnames = ["127.0.0.1"]
    wanted.port = int(port)
    wanted.n_ctx = int(context)
    wanted.n_predict = int(longest)
    wanted.n_parallel = 1
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = int(threads)
    wanted.api_keys = [os.environ["LLAMA_API_KEY"]]
    server = llama.Server(wanted)
    sys.stderr.write(f"serving on {server.listening_address}\n")
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
