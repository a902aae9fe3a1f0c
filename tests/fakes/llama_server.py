"""What `streambatch/cli/_model.py` needs of a llama-server: options, a key, ``/health``, and an end at SIGTERM.

``FAKE_LLAMA`` says how it behaves: "" (healthy), "ill" (an illegal instruction), "end" (exit code 3) or "busy" (never
healthy). It writes its process id and what it was given to the file named by ``FAKE_LLAMA_NOTE``.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if os.environ.get("FAKE_LLAMA") == "busy" else 200)
        self.end_headers()


def main() -> None:
    note = {"pid": os.getpid(), "arguments": sys.argv[1:], "key": os.environ["LLAMA_API_KEY"]}
    Path(os.environ["FAKE_LLAMA_NOTE"]).write_text(json.dumps(note))
    if os.environ.get("FAKE_LLAMA") == "ill":
        os.kill(os.getpid(), signal.SIGILL)
    if os.environ.get("FAKE_LLAMA") == "end":
        sys.exit(3)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
