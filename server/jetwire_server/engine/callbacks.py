"""Callbacks of tables: who wants to be told of changes to records, before or after them.

Nobody waits for whoever is told, and nobody can veto: the change is the caller's alone. A registration ends with the cursor it was
made on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jetwire_protocol.data.flags import Cbtyp
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server import limits

if TYPE_CHECKING:
    from jetwire_server.engine.update import Updates

_TOLD = int(Cbtyp.BeforeInsert | Cbtyp.AfterInsert | Cbtyp.BeforeReplace | Cbtyp.AfterReplace | Cbtyp.BeforeDelete | Cbtyp.AfterDelete)

Tell = Callable[[int, "Updates", int], None]  # the callback's id, the cursor that changes a record, the one bit of what happens


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
        self._by_table: dict[int, list[Callback]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_table)

    def register(self, cursor: Updates, mask: int, tell: Tell) -> int:
        """`mask` has the bits of what is to be told; answers the callback's id."""
        cursor.session.check()
        if not mask or mask & ~_TOLD:
            raise JetError(Err.InvalidParameter, f"cbtyp {mask}: only changes of records are told")
        mine = [one for one in self._by_table.get(cursor.table.objid, ()) if one.alive]
        if len(mine) >= limits.CALLBACKS_PER_TABLE_MAX:
            raise JetError(Err.OutOfMemory, f"{limits.CALLBACKS_PER_TABLE_MAX} callbacks on the table")
        callback = Callback(cursor.session.instance.engine.new_handle(), cursor, mask, tell)
        self._by_table[cursor.table.objid] = [*mine, callback]
        return callback.id

    def unregister(self, cursor: Updates, mask: int, callback_id: int) -> None:
        """The warning CallbackNotRegistered if this session has no such callback on the table."""
        session = cursor.session
        session.check()
        there = self._by_table.get(cursor.table.objid, [])
        kept = [one for one in there if not (one.id == callback_id and one.mask == mask and one.cursor.session is session)]
        if len(kept) == len(there):
            session.warning = Wrn.CallbackNotRegistered
        self._keep(cursor.table.objid, kept)

    def tell(self, cursor: Updates, what: int) -> None:
        """Something happens to a record under `cursor`."""
        there = self._by_table.get(cursor.table.objid)
        if there is None:
            return
        alive = [one for one in there if one.alive]
        if len(alive) < len(there):
            self._keep(cursor.table.objid, alive)
        for one in alive:
            if one.mask & what:
                one.tell(one.id, cursor, what)

    def _keep(self, objid: int, callbacks: list[Callback]) -> None:
        if callbacks:
            self._by_table[objid] = callbacks
        else:
            self._by_table.pop(objid, None)
