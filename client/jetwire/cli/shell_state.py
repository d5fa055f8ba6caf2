"""What a shell remembers between its lines: the session, the database, the table; and what a line means by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jetwire._sync.connection import Connection
from jetwire._sync.server import Server
from jetwire._sync.session import Database
from jetwire.cli import words
from jetwire.cli.context import Wrong
from jetwire.errors import EngineError
from jetwire_protocol.errors import Err

# A handle that a call returned, and where it is kept for the calls that need one.
_KEPT = {
    "BeginSession": {"sesid": "sesid"},
    "OpenDatabase": {"dbid": "dbid"},
    "CreateDatabase": {"dbid": "dbid"},
    "OpenTable": {"tableid": "tableid"},
    "CreateTable": {"tableid": "tableid"},
    "OpenTempTable": {"tableid": "tableid"},
    "CreateInstance": {"instance": "instance"},
    "OSSnapshotPrepare": {"snapId": "snapId"},
}
_LET_GO = {
    "EndSession": ("sesid", "dbid", "tableid"),
    "CloseDatabase": ("dbid", "tableid"),
    "CloseTable": ("tableid",),
    "OSSnapshotEnd": ("snapId",),
}


class ShellState:
    """One connection with one session, begun when the shell begins."""

    def __init__(self, server: Server, instance: str) -> None:
        self.server = server
        session = server.begin_session(instance)
        self.session = session
        self.handles: dict[str, int] = {"instance": server.instances()[instance], "sesid": session.id}
        self.database = ""
        self.table = ""

    @property
    def connection(self) -> Connection:
        return self.session.connection

    @property
    def prompt(self) -> str:
        place = ":".join(filter(None, (self.database, self.table)))
        return f"jetwire {place}> " if place else "jetwire> "

    def call(self, line: list[str]) -> Any:
        """Makes a call; handles that are not given are the ones at hand."""
        name, *rest = line
        method = words.method_named(name)
        given = words.by_name(method, words.params(rest))
        if method is not None:
            missing = {m.name: self.handles[m.name] for m in method.params if m.name in self.handles and m.name not in given}
            given = {**missing, **given}
        result = words.call(self.connection, name, given)
        if method is not None:
            self._remember(method.name, result)
        return result

    def open(self, database: str) -> None:
        """Opens a database for the calls to come; asks nothing twice if it is open."""
        opened = self.session.open(database)
        self.handles["dbid"] = opened.id
        self.handles.pop("tableid", None)
        self.database, self.table = database, ""

    def use(self, table: str) -> None:
        """Opens a table for the calls to come, and goes to its first record."""
        opened = self.opened().table(table)
        self.handles["tableid"] = opened.id
        self.table = table
        try:
            self.connection.Move(self.session.id, opened.id, "First")
        except EngineError as error:
            if error.code != Err.NoCurrentRecord:  # an empty table is as good
                raise

    def opened(self) -> Database:
        if "dbid" not in self.handles:
            raise Wrong("no database is open: .open NAME")
        return Database(self.session, self.handles["dbid"], self.database)

    def table_names(self) -> list[str]:
        return self.opened().tables() if "dbid" in self.handles else []

    def _remember(self, method: str, result: Mapping[str, Any]) -> None:
        for member, handle in _KEPT.get(method, {}).items():
            self.handles[handle] = result[member]
        for handle in _LET_GO.get(method, ()):
            self.handles.pop(handle, None)
        if "tableid" not in self.handles:
            self.table = ""
        if "dbid" not in self.handles:
            self.database = ""
