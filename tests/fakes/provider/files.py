"""/v1/files: what is uploaded is taken, and forgotten; its id is as good as any other in what the model is asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import errors
from . import items as it
from .wire import Answer, Request

if TYPE_CHECKING:
    from .server import Provider


async def upload(_: Provider, request: Request) -> Answer:
    """POST /files, a form."""
    if not isinstance(request.body, bytes):
        raise errors.missing("file")
    told = {"id": it.new_id("file"), "object": "file", "bytes": len(request.body), "created_at": int(time.time())}
    return Answer({**told, "filename": "photo.jpg", "purpose": "vision", "status": "processed"})


ROUTES = (("POST", r"/files", upload),)
