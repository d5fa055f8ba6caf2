"""A cursor: a session's place in a table, and what it holds there. Each layer of it stands in a file of its own:

place        where it is; how a call gets at the store
navigation   Move, SetCurrentIndex, filters
seek         MakeKey, RetrieveKey, Seek
ranges       SetIndexRange, counts, prereads, IntersectIndexes
bookmarks    bookmarks and positions
update       PrepareUpdate, SetColumn, Update, Delete, GetLock
retrieve     RetrieveColumn and its kin
escrow       EscrowUpdate
"""

from __future__ import annotations

from typing import Any

from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.escrow import Escrow


class Cursor(Escrow):
    """Made by `Session.open_table` and the calls that create tables."""

    _storage: Any = None

    async def dup_cursor(self, grbit: int = 0) -> Cursor:
        """Another cursor on the table, on the first record of the clustered index."""
        if grbit:
            raise JetError(Err.InvalidGrbit)
        self.session.check()
        return self.session.duplicate_cursor(self)

    # -- local storage: a value of the application's that the cursor carries ---------------------------------------------
    def set_ls(self, value: Any, grbit: int = 0) -> None:
        self.session.check()
        if self._storage is not None:
            raise JetError(Err.LSAlreadySet)
        self._storage = value

    def get_ls(self, grbit: int = 0) -> Any:
        """The value; with LSReset it is taken away."""
        self.session.check()
        if self._storage is None:
            raise JetError(Err.LSNotSet)
        value = self._storage
        if grbit & 1:
            self._storage = None
        return value
