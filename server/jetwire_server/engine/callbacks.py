"""Callbacks of tables: who wants to be told of changes to records, before or after them, and of the rest that JET_CBTYP lists.

Nobody waits for whoever is told, and nobody can veto: the change is the caller's alone. A registration ends with the cursor it was
made on. `Finalize` is told by `zeroed`, `FreeCursorLS` and `FreeTableLS` when a cursor closes, `OnlineDefragCompleted` by Defragment.
Since nobody waits, nobody can be asked for a user-defined default either: that bit is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import Cbtyp
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server import limits

if TYPE_CHECKING:
    from jetwire_server.engine.update import Updates

_RECORDS = Cbtyp.BeforeInsert | Cbtyp.AfterInsert | Cbtyp.BeforeReplace | Cbtyp.AfterReplace | Cbtyp.BeforeDelete | Cbtyp.AfterDelete
_TOLD = int(_RECORDS | Cbtyp.Finalize | Cbtyp.OnlineDefragCompleted | Cbtyp.FreeCursorLS | Cbtyp.FreeTableLS)

Tell = Callable[[int, "Updates", int, Any], None]
"""The callback's id, the cursor that changes a record (or closes), the one bit of what happens, and pvArg1: a freed local storage."""


@dataclass(frozen=True, slots=True)
class Callback:
    id: int
    cursor: Updates  # it was registered on
    mask: int
    tell: Tell

    @property
    def alive(self) -> bool:
        return self.cursor.id in self.cursor.session.cursors


class Callbacks:
    """Those of one database, by table."""

    def __init__(self) -> None:
        self.by_table: dict[int, list[Callback]] = {}
        self.table_storage: dict[int, Any] = {}  # what SetLS with LSTable put there; FreeTableLS tells of its end

    def __bool__(self) -> bool:
        return bool(self.by_table)

    def __len__(self) -> int:
        return sum(map(len, self.by_table.values()))

    def register(self, cursor: Updates, mask: int, tell: Tell) -> int:
        """`mask` has the bits of what is to be told; answers the callback's id."""
        cursor.session.check()
        if not mask or mask & ~_TOLD:
            raise JetError(Err.InvalidParameter, f"cbtyp {mask}")
        mine = [one for one in self.by_table.get(cursor.table.objid, ()) if one.alive]
        if len(mine) >= limits.CALLBACKS_PER_TABLE_MAX:
            raise JetError(Err.OutOfMemory, f"{limits.CALLBACKS_PER_TABLE_MAX} callbacks on the table")
        instance = cursor.session.instance
        callback = Callback(instance.engine.new_handle(), cursor, mask, tell)
        if instance.parameters.get(Param.DisableCallbacks):
            return callback.id  # nobody is ever told
        self.by_table[cursor.table.objid] = [*mine, callback]
        return callback.id

    def unregister(self, cursor: Updates, mask: int, callback_id: int) -> None:
        """The warning CallbackNotRegistered if this session has no such callback on the table."""
        session = cursor.session
        session.check()
        there = self.by_table.get(cursor.table.objid, [])
        kept = [one for one in there if not (one.id == callback_id and one.mask == mask and one.cursor.session is session)]
        if len(kept) == len(there):
            session.warning = Wrn.CallbackNotRegistered
        self._keep(cursor.table.objid, kept)

    def tell(self, cursor: Updates, what: int, arg: Any = None) -> None:
        """Something happens to a record under `cursor`, or to the cursor."""
        there = self.by_table.get(cursor.table.objid)
        if there is None:
            return
        alive = [one for one in there if one.alive]
        if len(alive) < len(there):
            self._keep(cursor.table.objid, alive)
        for one in alive:
            if one.mask & what:
                one.tell(one.id, cursor, what, arg)

    def tell_all(self, what: int) -> None:
        """Something happened to the whole database."""
        for there in list(self.by_table.values()):
            for one in there:
                if one.alive and one.mask & what:
                    one.tell(one.id, one.cursor, what, None)

    def _keep(self, objid: int, callbacks: list[Callback]) -> None:
        if callbacks:
            self.by_table[objid] = callbacks
        else:
            self.by_table.pop(objid, None)
