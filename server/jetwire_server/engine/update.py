"""Changing records: Update, Delete, GetLock.

What is prepared stands in the copy buffer (`preparing`), filled by SetColumn (`setting`). An Update that fails leaves it prepared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jetwire_protocol.data.flags import Cbtyp, GetLockGrbit, Prep, UpdateGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine import autoincrement, longvalue
from jetwire_server.engine.indexing import add_entries, change_entries, keys_in, normalized_keys, remove_entries, resolved, sources_in
from jetwire_server.engine.preparing import INSERTS, MOVES, CopyBuffer
from jetwire_server.engine.row_writes import check_required, insert_row, insert_values, next_version, replace_values
from jetwire_server.engine.setting import Setting
from jetwire_server.engine.values import IndexPlan
from jetwire_server.rows import ABSENT
from jetwire_server.store.interface import Transaction

_UPDATE_BITS = int(UpdateGrbit.UpdateCheckESE97Compatibility | UpdateGrbit.UpdateNoVersion)


class Updates(Setting):
    """The calls that change records."""

    # -- update -----------------------------------------------------------------------------------------------------
    async def update(self, grbit: int = 0) -> bytes:
        """Writes the prepared record and returns its bookmark. The cursor does not move."""
        session = self.session
        if session.refusal is not None:
            raise JetError(session.refusal)
        if grbit & ~_UPDATE_BITS:
            raise JetError(Err.InvalidGrbit)
        buffer = self._writable()
        callbacks = self.database.callbacks
        inserts = buffer.prep in INSERTS
        if callbacks:
            callbacks.tell(self, Cbtyp.BeforeInsert if inserts else Cbtyp.BeforeReplace)
        bookmark = await self._write(self._insert if inserts else self._replace, buffer)
        self.buffer = None
        if buffer.adopted and session.level:
            session.adopted += buffer.adopted
        session.unused += buffer.put_in_row
        if callbacks:
            callbacks.tell(self, Cbtyp.AfterInsert if inserts else Cbtyp.AfterReplace)
        return bookmark

    async def _insert(self, txn: Transaction, buffer: CopyBuffer) -> bytes:
        plan = self.plan
        if buffer.prep in MOVES:
            await self._delete_row(txn, buffer.bookmark, copied=buffer.base)
        values = buffer.merged()
        if plan.escrow:  # a sum needs its place in the row from the beginning: adds change it there
            values = {**{c: plan.defaults.get(c) for c in plan.escrow}, **values}
        check_required(plan, values)
        if buffer.prep == Prep.InsertMustSetAutoIncrement and plan.autoincrement is not None:
            await self._take_own_number(values.get(plan.autoincrement))
        if not plan.has_long and plan.rows.maker is not None:
            return insert_values(txn, plan, values)
        if plan.has_long:
            values = await self._settle_drafts(txn, buffer, values)
        row = plan.codec.encode(values)
        if len(row) > limits.RECORD_BYTES_MAX:
            values, row = await self._fitted(txn, buffer, values)
        full: Mapping[int, Any] = {**plan.defaults, **values} if plan.defaults else values
        if plan.rows.maker is None:
            bookmark = await self._next_sequence()
        else:
            bookmark = plan.rows.key_in(await resolved(txn, self.table, plan.rows, full) if plan.has_long else full)
        insert_row(txn, plan.rows, bookmark, row)
        for index in plan.secondary:
            keys = normalized_keys(index, full) if not plan.has_long else await keys_in(txn, self.table, index, full, True)
            add_entries(txn, index, keys, bookmark)
        return bookmark

    async def _take_own_number(self, number: int | None) -> None:
        if number is None:
            raise JetError(Err.AutoIncrementNotSet)
        counters = self.database.counters(self.session.instance)
        await counters.raise_to(self.table.objid, autoincrement.AUTO_INCREMENT, number, self._highest_auto)

    async def _replace(self, txn: Transaction, buffer: CopyBuffer) -> bytes:
        plan = self.plan
        bookmark = buffer.bookmark
        base = buffer.base
        assert base is not None
        now = await txn.get(plan.rows.tree, bookmark)
        if now is None:
            raise JetError(Err.RecordDeleted)
        if buffer.prep == Prep.ReplaceNoLock:
            if now != base:
                raise JetError(Err.WriteConflict, "the record was changed since it was prepared")
            txn.lock(plan.rows.tree, bookmark)  # a record that another holds is a conflict, whatever else is wrong
        changes = dict(buffer.changes)
        for columnid in plan.versions:
            changes[columnid] = next_version(buffer.stored.get(columnid) or 0)
        if not plan.has_long:
            replace_values(txn, plan, bookmark, base, now, changes)
            self._row = None
            return bookmark
        if now != base and self._references(now) != self._references(base):  # by another cursor of this session: they would be lost
            raise JetError(Err.WriteConflict, "the record's long values were changed since it was prepared")
        pending = []  # indexes whose entries may change, with what they have now
        before = {**plan.defaults, **plan.codec.stored(now)} if plan.secondary else {}
        for index in plan.secondary:
            if now != base or not index.reads.isdisjoint(changes):
                pending.append((index, await keys_in(txn, self.table, index, before, True)))
        values = {k: v for k, v in {**buffer.stored, **changes}.items() if v is not ABSENT}
        values = await self._settle_drafts(txn, buffer, values)
        row = plan.codec.encode(values)
        if len(row) > limits.RECORD_BYTES_MAX:
            values, row = await self._fitted(txn, buffer, values)
        after: Mapping[int, Any] = {**plan.defaults, **values}
        key_changes = plan.rows.maker is not None and not plan.rows.reads.isdisjoint(changes)
        if key_changes and plan.rows.key_in(await resolved(txn, self.table, plan.rows, after)) != bookmark:
            raise JetError(Err.RecordPrimaryChanged)
        txn.put(plan.rows.tree, bookmark, row)
        for index, old in pending:
            change_entries(txn, index, old, await keys_in(txn, self.table, index, after, True), bookmark)
        self._row = None
        return bookmark

    # -- delete -----------------------------------------------------------------------------------------------------
    async def delete(self) -> None:
        """Deletes the current record. The cursor stays where it was: the next move goes on from there."""
        self.session.check()
        self.cancel_update()
        callbacks = self.database.callbacks
        if callbacks:
            callbacks.tell(self, Cbtyp.BeforeDelete)
        await self._write(self._delete)
        if callbacks:
            callbacks.tell(self, Cbtyp.AfterDelete)

    async def _delete(self, txn: Transaction) -> None:
        await self._record(txn)
        await self._delete_row(txn, self.bookmark)
        self._row = None

    async def _delete_row(self, txn: Transaction, bookmark: bytes, copied: bytes | None = None) -> None:
        """`copied`: the row whose copy takes its place and its long values."""
        plan = self.plan
        now = await txn.get(plan.rows.tree, bookmark)
        if now is None:
            raise JetError(Err.RecordDeleted)
        if copied is not None and now != copied:
            raise JetError(Err.WriteConflict, "the record was changed since it was prepared")
        txn.delete(plan.rows.tree, bookmark)
        if plan.secondary:
            values = plan.codec.decode(now)
            for index in plan.secondary:
                remove_entries(txn, index, await keys_in(txn, self.table, index, values, plan.has_long), bookmark)
        if plan.has_long and copied is None:
            for _, _, ref in plan.codec.references(now):
                await longvalue.release(txn, self.table, ref)

    # -- locks ------------------------------------------------------------------------------------------------------
    async def get_lock(self, grbit: int) -> None:
        """Locks the current record for reading or writing until the transaction ends; WriteConflict at once if it cannot."""
        self.session.check()
        if grbit not in (GetLockGrbit.ReadLock, GetLockGrbit.WriteLock):
            raise JetError(Err.InvalidGrbit, "one of ReadLock and WriteLock")
        if not self.session.level:
            raise JetError(Err.NotInTransaction)
        if grbit == GetLockGrbit.WriteLock:
            self.check_updatable()
            if self.session.read_only:
                raise JetError(Err.TransReadOnly)
        await self._read(self._lock, grbit == GetLockGrbit.ReadLock)

    async def _lock(self, txn: Transaction, shared: bool) -> None:
        await self._record(txn)
        txn.lock(self.plan.rows.tree, self.bookmark, shared=shared)

    async def get_cursor_info(self) -> None:
        """Succeeds if no other session has changed the current record without committing; else WriteConflict."""
        self.session.check()
        await self._read(self._probe)

    async def _probe(self, txn: Transaction) -> None:
        await self._record(txn)
        mark = txn.savepoint()
        try:
            txn.lock(self.plan.rows.tree, self.bookmark, shared=True)
        finally:
            txn.rollback_to(mark)
            txn.forget(mark)

    async def keys_of(self, txn: Transaction, target: IndexPlan, row: bytes) -> list[bytes]:
        return await keys_in(txn, self.table, target, self.plan.codec.decode(row), self.plan.has_long)

    async def sources_of(self, txn: Transaction, target: IndexPlan, row: bytes) -> list[tuple[bytes, Sequence[int | None]]]:
        return await sources_in(txn, self.table, target, self.plan.codec.decode(row), self.plan.has_long)
