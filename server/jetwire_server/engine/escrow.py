"""Escrow updates: sums that many sessions add to at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetwire_protocol.data.flags import AddColumnGrbit, EscrowUpdateGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.retrieve import Retrieval
from jetwire_server.store.interface import Transaction

if TYPE_CHECKING:
    from jetwire_server.engine.database import OpenDatabase
    from jetwire_server.engine.session import Session


class Escrow(Retrieval):
    """EscrowUpdate."""

    async def escrow_update(self, columnid: int, delta: int, grbit: int = 0) -> int:
        """Adds to an escrow column and returns what was there before. Never conflicts with other sessions' adds."""
        self.session.check()
        if grbit & ~int(EscrowUpdateGrbit.EscrowNoRollback):
            raise JetError(Err.InvalidGrbit)
        self.check_updatable()
        if not self.session.level:
            raise JetError(Err.NotInTransaction)
        if self.buffer is not None:
            raise JetError(Err.AlreadyPrepared)
        if columnid not in self.plan.escrow:
            self._column(columnid)
            raise JetError(Err.InvalidOperation, f"columnid {columnid} takes no escrow updates")
        return await self._write(self._add, columnid, delta)

    async def _add(self, txn: Transaction, columnid: int, delta: int) -> int:
        row = await self._record(txn)
        rows = self.plan.rows
        place = self.plan.codec.fixed_offset(row, columnid)
        if place is None:  # NULL or not stored yet: the row must have a slot to add to
            value = self.plan.codec.get(row, columnid) or 0
            txn.put(rows.tree, self.bookmark, self.plan.codec.patch(row, {columnid: value}))
            place = self.plan.codec.fixed_offset(self.plan.codec.patch(row, {columnid: value}), columnid)
            assert place is not None
        offset, size = place
        bits = 8 * size
        if not -(1 << bits - 1) <= delta < 1 << bits - 1:
            raise JetError(Err.InvalidBufferSize, f"delta {delta} does not fit {size} bytes")
        before = txn.add(rows.tree, self.bookmark, offset, size, delta)
        column = self.plan.columns[columnid].column
        if column.grbit & (AddColumnGrbit.ColumnDeleteOnZero | AddColumnGrbit.ColumnFinalize) and before + delta == 0:
            self._finish_at_zero(columnid, bool(column.grbit & AddColumnGrbit.ColumnDeleteOnZero))
        self._row = None
        mine = txn.added(rows.tree, self.bookmark, offset)
        if mine is None:  # this session put the row: nobody else can have added
            return before
        raw = await self._published(columnid, before - (mine - delta)) + mine - delta + self._others_add(offset)
        return _wrapped(raw, bits)

    async def _published(self, columnid: int, otherwise: int) -> int:
        """The sum as committed by now, whatever this transaction's snapshot."""
        now = await self.session.instance.store.begin(read_only=True)
        try:
            row = await now.get(self.plan.rows.tree, self.bookmark)
        finally:
            await now.rollback()
        return otherwise if row is None else int(self.plan.codec.get(row, columnid) or 0)

    def _others_add(self, offset: int) -> int:
        """What other sessions have added and not committed."""
        tree, bookmark = self.plan.rows.tree, self.bookmark
        others = [s.txn for s in self.session.instance.sessions.values() if s is not self.session and s.txn is not None]
        return sum(txn.added(tree, bookmark, offset) or 0 for txn in others)

    def _finish_at_zero(self, columnid: int, delete: bool) -> None:
        """A sum reached zero: once that is committed, the record goes, if the sum is zero still when `Idle` looks."""
        found = (self.table.objid, self.bookmark, columnid)
        database = self.database

        def at_end(committed: bool) -> None:
            if committed and delete:
                database.zeroed.append(found)

        self.session.at_end.append(at_end)


def _wrapped(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


async def finish_zeroed(session: Session) -> int:
    """Deletes the records whose DeleteOnZero sums were committed at zero and still are; how many. `Idle` does it."""
    if session.level:
        return 0
    done = 0
    for handle in list(session.opened.values()):
        database = handle.database
        waiting, database.zeroed = database.zeroed, []
        for objid, bookmark, columnid in waiting:
            try:
                done += await _delete_if_zero(session, handle, objid, bookmark, columnid)
            except JetError as error:
                if error.code == Err.WriteConflict:  # somebody is at it: next time
                    database.zeroed.append((objid, bookmark, columnid))
                elif error.code not in (Err.RecordDeleted, Err.ObjectNotFound, Err.ColumnNotFound):
                    raise
    return done


async def _delete_if_zero(session: Session, handle: OpenDatabase, objid: int, bookmark: bytes, columnid: int) -> bool:
    async with session.operation(write=False) as txn:
        table = await handle.database.catalog.by_objid(txn, objid)
    if table is None:
        return False
    cursor = session._open_cursor(handle, table, 0)
    try:
        await session.begin_transaction()
        await cursor.goto_bookmark(bookmark)
        zero = bool((await cursor.retrieve_column(columnid)).value == 0)
        if zero:
            await cursor.delete()
        await session.commit_transaction(1)
        return zero
    finally:
        if session.level:
            await session.rollback()
        cursor.close()
