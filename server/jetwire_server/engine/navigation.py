"""Moving along an index, and from one index to another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jetwire_protocol.data.flags import Move, MoveGrbit, Relop, SetCurrentIndexGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.catalog import check_name
from jetwire_server.engine.indexes import index_by_id
from jetwire_server.engine.place import AFTER, BEFORE, FRESH, GAP, ON, Place
from jetwire_server.engine.stored_form import from_bytes
from jetwire_server.engine.values import PRIMARY, IndexPlan, successor
from jetwire_server.keys import SearchKey
from jetwire_server.store.interface import Transaction

_FIRST, _LAST = int(Move.First), int(Move.Last)
_KEY_NE = int(MoveGrbit.MoveKeyNE)
_LAST_OF_A_TURN = limits.READ_AHEAD_ROWS_MAX - 1  # the usual Move of 1 never gives way
_NO_MOVE = int(SetCurrentIndexGrbit.NoMove)
_BEFORE_FIRST = int(SetCurrentIndexGrbit.MoveBeforeFirst)


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition of a cursor's filter: a column compared with a value."""

    columnid: int
    relop: int
    value: Any
    grbit: int = 0


_RELATIONS: dict[int, Callable[[Any, Any], bool]] = {
    Relop.Equals: lambda a, b: a == b,
    Relop.NotEquals: lambda a, b: a != b,
    Relop.LessThanOrEqual: lambda a, b: a is not None and b is not None and a <= b,
    Relop.LessThan: lambda a, b: a is not None and b is not None and a < b,
    Relop.GreaterThanOrEqual: lambda a, b: a is not None and b is not None and a >= b,
    Relop.GreaterThan: lambda a, b: a is not None and b is not None and a > b,
    Relop.BitmaskEqualsZero: lambda a, b: isinstance(a, int) and isinstance(b, int) and not a & b,
    Relop.BitmaskNotEqualsZero: lambda a, b: isinstance(a, int) and isinstance(b, int) and bool(a & b),
}


class Navigation(Place):
    """Move, SetCurrentIndex, filters."""

    filters: tuple[Filter, ...] = ()

    # -- move -------------------------------------------------------------------------------------------------
    async def move(self, rows: int, grbit: int = 0) -> None:
        """First, Last (which end any range), 0 (is the current entry there?), or an offset within the range."""
        if grbit & ~_KEY_NE:
            raise JetError(Err.InvalidGrbit)
        self.cancel_update()
        await self._read(self._move, rows, grbit)

    async def _move(self, txn: Transaction, rows: int, grbit: int) -> None:
        if rows:
            self.moved_in = self.session.level
        if rows in (_FIRST, _LAST):
            self._drop_range()
            forward = rows == _FIRST
            self._put_at(BEFORE if forward else AFTER)
            if not await self._step_filtered(txn, forward):
                raise JetError(Err.NoCurrentRecord)
            return
        if rows == 0:
            await self._test(txn)
            return
        forward = rows > 0
        for step in range(abs(rows)):
            if step % limits.READ_AHEAD_ROWS_MAX == _LAST_OF_A_TURN:
                await asyncio.sleep(0)  # the pages are usually in memory, and nothing else would wait
            if grbit & _KEY_NE and self.state in (ON, FRESH):
                await self._skip_key(txn, forward)
            if not await self._step_filtered(txn, forward):
                self._run_out(forward)
                raise JetError(Err.NoCurrentRecord)

    async def _test(self, txn: Transaction) -> None:
        if self.state == FRESH:
            await self._settle(txn)
        if self.state != ON:
            raise JetError(Err.NoCurrentRecord)
        value = await txn.get(self.at.tree, self.key)
        if value is None:
            raise JetError(Err.RecordDeleted)

    def _run_out(self, forward: bool) -> None:
        """Where the entry after the last one (of the range) would be."""
        bound = self.range_high if forward else self.range_low
        if bound is None:
            self._put_at(AFTER if forward else BEFORE)
        else:
            self._put_at(GAP, bound)

    async def _skip_key(self, txn: Transaction, forward: bool) -> None:
        """Beside all entries that have the current entry's key."""
        if self.state == FRESH:
            await self._settle(txn)
        if self.state != ON or self.at.kind == PRIMARY:
            return
        key = self.entry_key()
        self._put_at(GAP, successor(key) if forward else key)

    async def _step_filtered(self, txn: Transaction, forward: bool) -> bool:
        if not self.filters:
            return await self._step(txn, forward)
        while await self._step(txn, forward):
            if self._passes(await self._record(txn)):
                return True
        return False

    def _passes(self, row: bytes) -> bool:
        get = self.plan.codec.get
        return all(_RELATIONS[f.relop](get(row, f.columnid), f.value) for f in self.filters)

    def set_cursor_filter(self, filters: Sequence[Filter], grbit: int = 0) -> None:
        """Only records that meet all conditions are moved to; none clears it. On the primary index alone."""
        self.session.check()
        if grbit:
            raise JetError(Err.InvalidGrbit)
        if filters and self.at.kind != PRIMARY:
            raise JetError(Err.FilteredMoveNotSupported)
        checked = []
        for condition in filters:
            plan = self.plan.columns.get(condition.columnid)
            if plan is None:
                raise JetError(Err.ColumnNotFound, f"columnid {condition.columnid}")
            if condition.relop not in _RELATIONS:
                raise JetError(Err.InvalidParameter, f"relop {condition.relop}")
            if plan.multi or plan.long:
                raise JetError(Err.FilteredMoveNotSupported, f"column {plan.column.name}")
            value = condition.value
            if isinstance(value, bytes):
                value = from_bytes(plan.column, value)
            elif value is not None:
                value = plan.checked(value)[0]
            checked.append(Filter(condition.columnid, condition.relop, value))
        self.filters = tuple(checked)

    # -- indexes ------------------------------------------------------------------------------------------------
    async def set_current_index(self, name: str | None = None, grbit: int = 0, itag: int = 1, indexid: bytes | None = None) -> None:
        """Goes to another index: to its first entry, before it (MoveBeforeFirst), or to the current record's entry (NoMove)."""
        if grbit & ~(_NO_MOVE | _BEFORE_FIRST) or grbit == _NO_MOVE | _BEFORE_FIRST:
            raise JetError(Err.InvalidGrbit)
        self.cancel_update()
        await self._read(self._set_current_index, name, grbit, itag, indexid)

    async def _set_current_index(self, txn: Transaction, name: str | None, grbit: int, itag: int, indexid: bytes | None) -> None:
        target = self._index_named(name, indexid)
        if grbit & _NO_MOVE:
            await self._change_index(txn, target, itag)
            return
        self._on_index(target)
        self._put_at(BEFORE)
        if not grbit and not await self._step_filtered(txn, True):
            self._put_at(FRESH)  # an empty index: not an error, the first use looks again

    def _index_named(self, name: str | None, indexid: bytes | None) -> IndexPlan:
        if indexid is not None:
            name = index_by_id(self.table, indexid).name
        if not name:
            return self.plan.rows
        check_name(name, "index")
        found = self.plan.by_name.get(name.lower())
        if found is None:
            raise JetError(Err.IndexNotFound, f"index {name}")
        return found

    def _on_index(self, target: IndexPlan) -> None:
        if self.filters and target.kind != PRIMARY:
            raise JetError(Err.FilteredMoveNotSupported)
        if target is not self.at:
            self.index_in = self.session.level if target.kind != PRIMARY else 0
        self._drop_range()
        self.at = target
        self.search = SearchKey(target.maker)
        self._chunk = []

    async def _change_index(self, txn: Transaction, target: IndexPlan, itag: int) -> None:
        """To the entry of the same record: of its value number `itag`, where the key is multi-valued."""
        row = await self._record(txn)
        bookmark = self.bookmark
        if target.kind == PRIMARY:
            self._on_index(target)
            self._put_on(bookmark, row)
            return
        keys = await self.keys_of(txn, target, row)
        if not keys:
            raise JetError(Err.NoCurrentRecord, f"the record is not in index {target.name}")
        key = keys[0]
        if itag > 1 and target.maker is not None and target.maker.varying:
            varying = target.maker.varying if target.maker.nested else target.maker.varying[:1]  # all together, or the first alone
            made = await self.sources_of(txn, target, row)
            found = next((key for key, numbers in made if any(numbers[segment] == itag for segment in varying)), None)
            if found is None:
                raise JetError(Err.BadItagSequence, f"itagSequence {itag}")
            key = found
        self._on_index(target)
        self._put_on(*target.entry(key, bookmark))
        self.moved_in = self.session.level

    def _leave_chosen_index(self) -> None:
        self._on_index(self.plan.rows)
        self._put_at(BEFORE)

    async def keys_of(self, txn: Transaction, target: IndexPlan, row: bytes) -> list[bytes]:
        """The normalized keys of a stored row in an index."""
        raise NotImplementedError

    async def sources_of(self, txn: Transaction, target: IndexPlan, row: bytes) -> list[tuple[bytes, Sequence[int | None]]]:
        """The same, each with which of the columns' values it was made of."""
        raise NotImplementedError

    def get_current_index(self) -> str:
        """The current index's name; empty on the sequence of a table without a primary index."""
        self.session.check()
        return self.at.name
