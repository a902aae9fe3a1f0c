"""A ``memory://`` server as a test sees its `server`, and clients for it: ``pytest --topology memory``.

It cannot be killed, frozen, configured or reached from another process. A test that needs this is about real servers,
and says so with ``@pytest.mark.standalone`` or ``@pytest.mark.real``.
"""

from __future__ import annotations

from typing import Any, cast
from uuid import uuid4

import fakeredis
import fakeredis.aioredis

from streambatch.testing._memory import Place, forget

_SYNC = cast("Any", fakeredis.FakeStrictRedis)
_ASYNC = cast("Any", fakeredis.aioredis.FakeRedis)


class InMemory:
    """The server of one name.

    Args:
        kind: what the tests are told that it is.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._name = uuid4().hex
        self.url = self.admin_url = f"memory://{self._name}"
        self.direct: Any = Place(self.url)
        self._admin: Any = connect(self.url)

    def admin(self) -> Any:
        """A plain synchronous client; answers are str."""
        return self._admin

    def close(self) -> None:
        """All is gone."""
        self._admin.close()
        forget(self._name)


def connect(url: str) -> Any:
    """A synchronous client whose answers are str."""
    return _SYNC(server=Place(url).server, decode_responses=True, version=(7, 4))


def connect_async(url: str, *, text: bool = True) -> Any:
    """An asynchronous client whose answers are str, or bytes."""
    return _ASYNC(server=Place(url).server, decode_responses=text, version=(7, 4))
