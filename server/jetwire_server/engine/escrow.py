"""Escrow updates: sums that many sessions add to at once."""

from __future__ import annotations

from jetwire_protocol.data.flags import EscrowUpdateGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.indexing import change_entries
from jetwire_server.engine.lasting import Again
from jetwire_server.engine.record_size import RecordSizes
from jetwire_server.engine.zeroed import AT_ZERO, marking
from jetwire_server.store.interface import Transaction
from jetwire_server.store.writeset import wrapped


class Escrow(RecordSizes):
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
        before = await self._write(self._add, columnid, delta)
        if grbit:
            self.session.lasting.add(self.session.level, self._adding(columnid, delta))
        return before

    def _adding(self, columnid: int, delta: int) -> Again:
        """The same update once more, where the record is still there."""
        tree, bookmark, codec = self.plan.rows.tree, self.bookmark, self.plan.codec
        place_of_mark = marking(self, columnid) if self._acts_at_zero(columnid) else None

        async def again(txn: Transaction) -> None:
            row = await txn.get(tree, bookmark)
            place = None if row is None else codec.fixed_offset(row, columnid)
            if place is not None:
                txn.add(tree, bookmark, *place, delta)
                if place_of_mark is not None:
                    place_of_mark(txn)

        return again

    async def _add(self, txn: Transaction, columnid: int, delta: int) -> int:
        row = await self._record(txn)
        rows = self.plan.rows
        place = self.plan.codec.fixed_offset(row, columnid)
        if place is None:  # NULL or not stored yet: the row must have a slot to add to
            value = self.plan.codec.get(row, columnid) or 0
            changed = self.plan.codec.patch(row, {columnid: value})
            txn.put(rows.tree, self.bookmark, changed)
            for index in self.plan.secondary:
                if columnid in index.conditions:  # no key can have it, but whether it is NULL may count
                    keys = await self.keys_of(txn, index, row), await self.keys_of(txn, index, changed)
                    change_entries(txn, index, *keys, self.bookmark)
            place = self.plan.codec.fixed_offset(changed, columnid)
            assert place is not None
        offset, size = place
        bits = 8 * size
        if not -(1 << bits - 1) <= delta < 1 << bits - 1:
            raise JetError(Err.InvalidBufferSize, f"delta {delta} does not fit {size} bytes")
        before = txn.add(rows.tree, self.bookmark, offset, size, delta)
        self._row = None
        mine = txn.added(rows.tree, self.bookmark, offset)
        others_at_it = False
        if mine is None:  # this session put the row: nobody else can have added
            raw, others = before, 0
        else:
            others = self._others_add(offset)
            if self._acts_at_zero(columnid):
                others_at_it = self._others_at_it()
            raw = await self._published(columnid, before - (mine - delta)) + mine - delta + others
        if self._acts_at_zero(columnid) and (wrapped(raw + delta, size) == 0 or others_at_it):
            marking(self, columnid)(txn)
        return wrapped(raw, size)

    async def _published(self, columnid: int, otherwise: int) -> int:
        """The sum as committed by now, whatever this transaction's snapshot."""
        now = await self.session.instance.store.begin(read_only=True)
        try:
            row = await now.get(self.plan.rows.tree, self.bookmark)
        finally:
            await now.rollback()
        return otherwise if row is None else int(self.plan.codec.get(row, columnid) or 0)

    def _acts_at_zero(self, columnid: int) -> bool:
        return bool(self.plan.columns[columnid].column.grbit & AT_ZERO)

    def _others_at_it(self) -> bool:
        """Whether another session has an open transaction that added to this record: what it adds to may yet be undone, in part."""
        place = self.plan.rows.tree, self.bookmark
        self.session.added_to.add(place)
        return any(s is not self.session and place in s.added_to for s in self.session.instance.sessions.values())

    def _others_add(self, offset: int) -> int:
        """What other sessions have added and not committed."""
        tree, bookmark = self.plan.rows.tree, self.bookmark
        others = [s.txn for s in self.session.instance.sessions.values() if s is not self.session and s.txn is not None]
        return sum(txn.added(tree, bookmark, offset) or 0 for txn in others)
