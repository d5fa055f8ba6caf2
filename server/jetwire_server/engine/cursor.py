"""A cursor: a session's place in a table, and what it holds there. Each layer of it stands in a file of its own:

place        where it is; how a call gets at the store
navigation   Move, SetCurrentIndex, filters
seek         MakeKey, RetrieveKey, Seek
ranges       SetIndexRange, counts, prereads, IntersectIndexes
bookmarks    bookmarks and positions
preparing    PrepareUpdate and what it fills
setting      SetColumn, long values
update       Update, Delete, GetLock
retrieve     RetrieveColumn and its kin
record_size  GetRecordSize
escrow       EscrowUpdate
"""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import Cbtyp
from jetwire_protocol.data.flags import SetLSGrbit as L
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.escrow import Escrow

_LS_BITS = int(L.LSReset | L.LSCursor | L.LSTable)


class Cursor(Escrow):
    """Made by `Session.open_table` and the calls that create tables."""

    _storage: Any = None

    async def dup_cursor(self, grbit: int = 0) -> Cursor:
        """Another cursor on the table, on the first record of the clustered index."""
        if grbit:
            raise JetError(Err.InvalidGrbit)
        self.session.check()
        return self.session.duplicate_cursor(self)

    # -- local storage: a value of the application's that the cursor carries, or its table while anybody has it open --------
    def set_ls(self, value: Any, grbit: int = 0) -> None:
        """Attaches the value to the cursor (or with LSTable its table). LSReset takes away what is there and tells nobody."""
        self.session.check()
        if self._of_table(grbit):
            kept = self.database.callbacks.table_storage
            if grbit & L.LSReset:
                kept.pop(self.table.objid, None)
            elif self.table.objid in kept:
                raise JetError(Err.LSAlreadySet)
            else:
                kept[self.table.objid] = value
        elif grbit & L.LSReset:
            self._storage = None
        elif self._storage is not None:
            raise JetError(Err.LSAlreadySet)
        else:
            self._storage = value

    def get_ls(self, grbit: int = 0) -> Any:
        """The value; with LSReset it is taken away."""
        self.session.check()
        of_table = self._of_table(grbit)
        value = self.database.callbacks.table_storage.get(self.table.objid) if of_table else self._storage
        if value is None:
            raise JetError(Err.LSNotSet)
        if grbit & L.LSReset:
            self.set_ls(None, grbit)
        return value

    def _of_table(self, grbit: int) -> bool:
        if grbit & ~_LS_BITS or (grbit & L.LSCursor and grbit & L.LSTable):
            raise JetError(Err.InvalidGrbit)
        return bool(grbit & L.LSTable)

    @property
    def last_on_table(self) -> bool:
        return self.database.use(self.table.objid).cursors == [self]

    def close(self) -> None:
        callbacks = self.database.callbacks
        if self._storage is not None:
            value, self._storage = self._storage, None
            callbacks.tell(self, Cbtyp.FreeCursorLS, value)
        if self.table.objid in callbacks.table_storage and self.last_on_table:
            callbacks.tell(self, Cbtyp.FreeTableLS, callbacks.table_storage.pop(self.table.objid))
        super().close()
