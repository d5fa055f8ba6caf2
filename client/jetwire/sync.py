"""The blocking twin of `jetwire`: the same names, without `async` and `await`."""

from jetwire._sync.connection import Connection
from jetwire._sync.server import Server, connect
from jetwire._sync.session import Database, Session
from jetwire._sync.table import Table

__all__ = ["Connection", "Database", "Server", "Session", "Table", "connect"]
