"""The client of a Jetwire server.

    async with jetwire.connect("tcp://127.0.0.1:3731") as server:
        async with server.session() as session:
            db = await session.open("app.edb", create=True)

`jetwire.sync` has the same names, blocking. `Connection` has every method of the engine by its own name.
"""

from jetwire import errors
from jetwire._async.connection import Connection
from jetwire._async.server import Server, connect
from jetwire._async.session import Database, Session
from jetwire._async.table import Table
from jetwire.errors import ConnectionLost, EngineError, HandleDead, JetwireError, RpcError
from jetwire.persistent import PersistentDict

__all__ = [
    "Connection",
    "ConnectionLost",
    "Database",
    "EngineError",
    "HandleDead",
    "JetwireError",
    "PersistentDict",
    "RpcError",
    "Server",
    "Session",
    "Table",
    "connect",
    "errors",
]
