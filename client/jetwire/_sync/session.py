# Generated from jetwire/_async by client/twins.py; do not edit.
"""A session: the unit of transactions. Not for use by two tasks at once; take one each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from jetwire._sync.connection import Connection
from jetwire._sync.table import ColumnSpec, Table, column_create, index_create
from jetwire._sync.transaction import Transaction
from jetwire._sync.transport import leaving
from jetwire.errors import DatabaseDuplicate, EngineError, HandleDead, JetwireError
from jetwire_protocol.errors import Err

T = TypeVar("T")
_RETRY_PAUSE_SECONDS = 0.005
_CLOSED = "the session is closed"
_NOT_THERE = (Err.FileNotFound, Err.DatabaseNotFound, Err.ObjectNotFound)


class Database:
    """An open database of a session."""

    def __init__(self, session: Session, dbid: int, name: str) -> None:
        self.session = session
        self.id = dbid
        self.name = name

    def tables(self) -> list[str]:
        """The names of the user's tables."""
        answer = self.session.connection.GetObjectInfo(self.session.use(), self.id, objtyp="Table", infoLevel="ListNoStats")
        return [row["objectname"] for row in answer["rows"] if not row.get("flags", 0) & 0x80000000]

    def create_table(
        self,
        name: str,
        columns: Mapping[str, str | ColumnSpec],
        *,
        primary: str | Sequence[str] | None = None,
        indexes: Mapping[str, str | Sequence[str]] | None = None,
        unique: Mapping[str, str | Sequence[str]] | None = None,
    ) -> Table:
        """Creates a table and opens it.

            db.create_table("people", {"id": "Long", "name": "Text"}, primary="id", indexes={"byName": "+name"})

        A column is a type's name, or a dictionary with the members of JET_COLUMNCREATE. An index is a list of columns,
        each with `+` (or nothing) for ascending and `-` for descending.
        """
        spec: dict[str, Any] = {"name": name, "columns": [column_create(n, c) for n, c in columns.items()], "indexes": []}
        if primary is not None:
            spec["indexes"].append(index_create("primary", primary, ["IndexPrimary"]))
        spec["indexes"] += [index_create(n, key, ["IndexUnique"]) for n, key in (unique or {}).items()]
        spec["indexes"] += [index_create(n, key, []) for n, key in (indexes or {}).items()]
        made = self.session.connection.CreateTableColumnIndex(self.session.use(), self.id, spec)
        # Its maker has it for itself until it is closed; a table that is opened is for all.
        self.session.connection.CloseTable(self.session.id, made["tableid"])
        return self.table(name)

    def table(self, name: str, *, grbit: int | Sequence[str] = 0) -> Table:
        """Opens a table."""
        answer = self.session.connection.OpenTable(self.session.use(), self.id, name, grbit=grbit)
        return Table.opened(self.session, answer["tableid"], name)

    def delete_table(self, name: str) -> None:
        self.session.connection.DeleteTable(self.session.use(), self.id, name)


class Session:
    """See `Server.session`. `id` is its JET_SESID."""

    def __init__(self, connection: Connection, sesid: int) -> None:
        self.connection = connection
        self.id = sesid
        self.depth = 0  # of open transactions
        self._opened = connection.opened
        self._dead = ""  # why it is of no use any more

    def use(self) -> int:
        """The session's id, if it is alive."""
        if self._dead:
            raise HandleDead(self._dead)
        if not self._connected:
            raise HandleDead("the session ended with its connection")
        return self.id

    def doubt(self, why: str) -> None:
        """From now on nobody knows how many transactions are open: the session can only be closed."""
        self._dead = f"{why}: close the session and take another"

    @property
    def alive(self) -> bool:
        return not self._dead and self._connected

    @property
    def _connected(self) -> bool:
        """Whether its connection is still there; one that was opened again is another, on which its number may be another's."""
        return self.connection.alive and self.connection.opened == self._opened

    def close(self) -> None:
        """Ends the session: what is not committed is rolled back."""
        if self._dead != _CLOSED:
            self._dead = _CLOSED
            if self._connected:
                self.connection.EndSession(self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            with leaving(error):
                self.close()
        except (JetwireError, TimeoutError):
            if error is None:
                raise

    def transaction(self, *, lazy: bool = False, read_only: bool = False) -> Transaction:
        """`with session.transaction(): ...` commits at the end and rolls back on an exception.

        A `lazy` commit answers before it is on disk; a crash may lose it, never tear it.
        """
        self.use()
        return Transaction(self, lazy=lazy, read_only=read_only)

    def retry(self, work: Callable[[], T], *, attempts: int = 10) -> T:
        """Runs `work` in a transaction, again if it meets a write conflict. `work` must be safe to run twice.

        Within another transaction it runs once: a conflict can only be mended by beginning the outermost one again.
        """
        attempts = 1 if self.depth else max(attempts, 1)
        for attempt in range(1, attempts + 1):
            try:
                with self.transaction():
                    return work()
            except EngineError as error:
                if not error.retryable or attempt == attempts:
                    raise
            time.sleep(_RETRY_PAUSE_SECONDS * attempt * random.random())
        raise AssertionError("unreachable")

    def open(self, name: str, *, create: bool = False) -> Database:
        """Opens a database of the instance, attaching it if need be; `create` makes it if it is not there."""
        sesid = self.use()
        try:
            opened = self.connection.OpenDatabase(sesid, name)
        except EngineError as error:  # not attached; a reader may open what is, and no more
            if error.code not in _NOT_THERE:
                raise
            try:
                self.connection.AttachDatabase(sesid, name)
            except EngineError as missing:
                if not create or missing.code not in _NOT_THERE:
                    raise
                try:
                    answer = self.connection.CreateDatabase(sesid, name)
                except DatabaseDuplicate:  # somebody else was faster
                    pass
                else:
                    return Database(self, answer["dbid"], name)
            opened = self.connection.OpenDatabase(sesid, name)
        return Database(self, opened["dbid"], name)
