"""The test rig: real servers, least privilege, the key-leak check, child processes, and waiting for moments."""

from tests.rig.clients import connect, connect_async
from tests.rig.moments import wait_for
from tests.rig.names import key_of, neighbour
from tests.rig.process import Child
from tests.rig.servers import Server

__all__ = ["Child", "Server", "connect", "connect_async", "key_of", "neighbour", "wait_for"]
