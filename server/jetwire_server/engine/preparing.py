"""Preparing a change: PrepareUpdate and the buffer it fills, which nobody else sees before Update; navigation drops it."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import Coltyp, Prep
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine import autoincrement
from jetwire_server.engine.bookmarks import Bookmarks
from jetwire_server.engine.longvalue import Draft
from jetwire_server.engine.values import ColumnPlan
from jetwire_server.rows import ABSENT
from jetwire_server.store.interface import Transaction, UnpublishedTree

_SEQUENCE_MAX = 0xFFFFFFFF
_AUTO_INCREMENT_MAX = {
    Coltyp.Long: 2**31 - 1,
    Coltyp.Currency: 2**63 - 1,
    Coltyp.LongLong: 2**63 - 1,
    Coltyp.UnsignedLongLong: 2**64 - 1,
}
_PREPARES = frozenset(int(p) for p in Prep)
INSERTS = frozenset(
    {Prep.Insert, Prep.InsertCopy, Prep.InsertCopyDeleteOriginal, Prep.InsertCopyReplaceOriginal, Prep.InsertMustSetAutoIncrement}
)
MOVES = frozenset({Prep.InsertCopyDeleteOriginal, Prep.InsertCopyReplaceOriginal})


class CopyBuffer:
    """A record being prepared."""

    __slots__ = ("adopted", "base", "bookmark", "changes", "intrinsic", "level", "prep", "put_in_row", "separate", "stored")

    def __init__(self, prep: int, base: bytes | None = None, bookmark: bytes = b"", stored: dict[int, Any] | None = None) -> None:
        self.prep = prep
        self.level = 0  # of the transaction it was prepared in: rolled back, it is cancelled
        self.base = base  # the row as it was
        self.bookmark = bookmark
        self.stored = stored if stored is not None else {}  # its values
        self.changes: dict[int, Any] = {}
        self.separate: set[int] = set()  # columns whose values are to lie beside the row, whatever their size
        self.intrinsic: set[int] = set()  # and those that are not
        self.adopted: list[UnpublishedTree] = []  # what the transaction has taken over of its long values
        self.put_in_row: list[UnpublishedTree] = []  # had values that are short in the end: nobody's, once the record is written

    def get(self, columnid: int, defaults: dict[int, Any]) -> Any:
        changes = self.changes
        if columnid in changes:
            value = changes[columnid]
            return defaults.get(columnid) if value is ABSENT else value
        if columnid in self.stored:
            return self.stored[columnid]
        return defaults.get(columnid)

    def merged(self) -> dict[int, Any]:
        """What the row will store."""
        if not self.stored:
            changes = self.changes
            return {k: v for k, v in changes.items() if v is not ABSENT} if ABSENT in changes.values() else changes
        out = {**self.stored, **self.changes}
        return {k: v for k, v in out.items() if v is not ABSENT}


class Preparing(Bookmarks):
    """PrepareUpdate, and what becomes of it when the record is left or the level is undone."""

    buffer: CopyBuffer | None = None

    # -- prepare --------------------------------------------------------------------------------------------------
    async def prepare_update(self, prep: int) -> None:
        """Prepares an insert, a replace or a copy; Cancel drops what was prepared."""
        self.session.check()
        if self.session.unused:
            await self.session.free_unused()
        if prep == Prep.Cancel:
            if self.buffer is None:
                raise JetError(Err.UpdateNotPrepared)
            self.cancel_update()
            return
        if prep not in _PREPARES:
            raise JetError(Err.InvalidParameter, f"prep {prep}")
        if self.buffer is not None:
            raise JetError(Err.AlreadyPrepared)
        if prep != Prep.ReadOnlyCopy:
            self.check_updatable()
            if self.session.level and self.session.read_only:
                raise JetError(Err.TransReadOnly)
        if prep == Prep.Insert or prep == Prep.InsertMustSetAutoIncrement:
            if self.stamp != self.database.catalog.stamp or not self.session.level:
                await self._read(self._look)
            if prep == Prep.InsertMustSetAutoIncrement and self.plan.autoincrement is None:
                raise JetError(Err.IllegalOperation, "the table has no auto-increment column")
            buffer = CopyBuffer(prep)
        else:
            if prep == Prep.Replace and not self.session.level:
                prep = Prep.ReplaceNoLock
            buffer = await self._read(self._prepare_from_record, prep)
        buffer.level = self.session.level
        plan = self.plan
        if prep in INSERTS:
            if plan.autoincrement is not None and prep != Prep.InsertCopyReplaceOriginal:
                buffer.changes[plan.autoincrement] = None if prep == Prep.InsertMustSetAutoIncrement else await self._next_auto()
            for columnid in plan.versions:
                buffer.changes[columnid] = 0
        self.buffer = buffer

    async def _look(self, txn: Transaction) -> None:
        """Only the table's description was to be looked at."""

    async def _prepare_from_record(self, txn: Transaction, prep: int) -> CopyBuffer:
        row = await self._record(txn)
        if prep == Prep.Replace or (prep in MOVES and self.session.level):
            txn.lock(self.plan.rows.tree, self.bookmark)
        buffer = CopyBuffer(prep, row, self.bookmark, self.plan.codec.stored(row))
        if prep == Prep.InsertCopy:
            for columnid in self.plan.escrow:
                buffer.stored.pop(columnid, None)
        return buffer

    async def _check_long_values(self, txn: Transaction, buffer: CopyBuffer) -> None:
        """The long values that are copied are still those of their record: WriteConflict, if it was given others, or is gone."""
        if buffer.base is None or not self.plan.has_long:
            return
        copied = self._references(buffer.base)
        if copied:
            now = await txn.get(self.plan.rows.tree, buffer.bookmark)
            if now is None or not copied <= self._references(now):
                raise JetError(Err.WriteConflict, "the record's long values were changed since it was prepared")

    def _references(self, row: bytes) -> set[int]:
        return {ref.id for _, _, ref in self.plan.codec.references(row)}

    def cancel_update(self) -> None:
        buffer = self.buffer
        if buffer is None:
            return
        self.buffer = None
        self._let_drafts_go(buffer)

    def _recompile(self) -> None:
        before = self.plan.columns
        super()._recompile()
        if self.buffer is not None and before is not self.plan.columns:
            self._leave_out(self.buffer, [c for c, plan in before.items() if not plan.stored_as(self.plan.columns.get(c))])

    def _leave_out(self, buffer: CopyBuffer, columnids: list[int]) -> None:
        """Columns that were deleted since it was prepared: their values go unseen, as those in the rows do."""
        for columnid in columnids:
            value = buffer.changes.pop(columnid, None)
            for one in value if type(value) is list else (value,):
                self._let_go(one)
            buffer.stored.pop(columnid, None)
            buffer.separate.discard(columnid)
            buffer.intrinsic.discard(columnid)

    def _let_drafts_go(self, buffer: CopyBuffer) -> None:
        if self.plan.has_long:
            for value in buffer.changes.values():
                for one in value if type(value) is list else (value,):
                    self._let_go(one)

    def _let_go(self, value: Any) -> None:
        """A draft that nobody will save: its space is given back at the next occasion to wait for that."""
        if isinstance(value, Draft) and value.spill is not None:
            self.session.unused.append(value.spill)

    def level_committed(self, level: int) -> None:
        super().level_committed(level)
        if self.buffer is not None:
            self.buffer.level = min(self.buffer.level, level)

    def rolled_back(self, level: int) -> None:
        super().rolled_back(level)
        if self.buffer is not None and self.buffer.level >= level:
            self.cancel_update()

    def close(self) -> None:
        self.cancel_update()
        super().close()

    # -- numbers ----------------------------------------------------------------------------------------------------
    async def _next_auto(self) -> int:
        counters = self.database.counters(self.session.instance)
        ready = counters.ready(self.table.objid, autoincrement.AUTO_INCREMENT)
        if ready is None:
            ready = await counters.take(self.table.objid, autoincrement.AUTO_INCREMENT, self._highest_auto)
        assert self.plan.autoincrement is not None
        if ready > _AUTO_INCREMENT_MAX[self.plan.columns[self.plan.autoincrement].column.coltyp]:
            raise JetError(Err.OutOfAutoincrementValues)
        return ready

    async def _highest_auto(self, txn: Transaction) -> int:
        columnid = self.plan.autoincrement
        assert columnid is not None
        get, most, low = self.plan.codec.get, 0, None
        while rows := await txn.scan(self.plan.rows.tree, low, limit=limits.READ_AHEAD_ROWS_MAX):
            most = max(most, *(get(row, columnid) or 0 for _, row in rows))
            low = rows[-1][0] + b"\0"
        return most

    async def _next_sequence(self) -> bytes:
        counters = self.database.counters(self.session.instance)
        number = counters.ready(self.table.objid, autoincrement.SEQUENCE)
        if number is None:
            number = await counters.take(self.table.objid, autoincrement.SEQUENCE, self._highest_sequence)
        if number > _SEQUENCE_MAX:
            raise JetError(Err.OutOfSequentialIndexValues)
        return number.to_bytes(4, "big")

    async def _highest_sequence(self, txn: Transaction) -> int:
        rows = await txn.scan(self.plan.rows.tree, reverse=True, limit=1)
        return int.from_bytes(rows[0][0], "big") if rows else 0

    # -- set --------------------------------------------------------------------------------------------------------
    def _column(self, columnid: int) -> ColumnPlan:
        plan = self.plan.columns.get(columnid)
        if plan is None:
            if not 0 < columnid <= 64_999:
                raise JetError(Err.BadColumnId, f"columnid {columnid}")
            raise JetError(Err.ColumnNotFound, f"columnid {columnid}")
        return plan

    def _writable(self) -> CopyBuffer:
        buffer = self.buffer
        if buffer is None or buffer.prep == Prep.ReadOnlyCopy:
            raise JetError(Err.UpdateNotPrepared)
        return buffer
