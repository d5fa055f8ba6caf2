"""A cursor: a session's place in a table, and what it holds there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetwire_protocol.data.flags import OpenTableGrbit

if TYPE_CHECKING:
    from jetwire_server.engine.database import Database, OpenDatabase
    from jetwire_server.engine.schema import Index, Table
    from jetwire_server.engine.session import Session

_EXCLUSIVE = int(OpenTableGrbit.TableDenyRead)


class Cursor:
    """Made by `Session.open_table` and the calls that create tables."""

    def __init__(self, session: Session, handle: OpenDatabase, table: Table, tableid: int, grbit: int) -> None:
        self.session = session
        self.database: Database = handle.database
        self.dbid = handle.dbid
        self.table = table
        self.id = tableid
        self.grbit = grbit
        self.level = session.level  # of the transaction it was opened in: a rollback of that level closes it
        self.stamp = -1  # see `Catalog.fresh`
        self.index: Index | None = None  # the secondary index it is on

    @property
    def exclusive(self) -> bool:
        """No other session can have the table open."""
        return bool(self.grbit & _EXCLUSIVE)

    def reset(self) -> None:
        """DDL moved it before the first record."""

    def rolled_back(self) -> None:
        """A level was undone: an update prepared in it is gone."""

    def close(self) -> None:
        self.session.forget_cursor(self)
