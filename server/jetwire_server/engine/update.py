"""Changing records: PrepareUpdate, SetColumn, Update, Delete, GetLock.

What is prepared stands in a `CopyBuffer`: the record as it was, and the changes. Nothing of it is seen before Update; navigation
drops it. An Update that fails leaves it prepared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, GetLockGrbit, Prep, SetColumnGrbit, UpdateGrbit
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server import limits
from jetwire_server.engine import autoincrement, longvalue
from jetwire_server.engine.bookmarks import Bookmarks
from jetwire_server.engine.indexing import add_entries, change_entries, keys_in, normalized_keys, remove_entries, resolved
from jetwire_server.engine.longvalue import Draft
from jetwire_server.engine.place import FRESH
from jetwire_server.engine.schema import Column
from jetwire_server.engine.values import LONG, ColumnPlan, IndexPlan, from_bytes, size_of, to_bytes
from jetwire_server.rows import ABSENT, LongRef
from jetwire_server.store.interface import Transaction

S = SetColumnGrbit
_SET_BITS = 0
for _bit in SetColumnGrbit:
    _SET_BITS |= int(_bit)
_APPEND, _OVERWRITE, _SIZE = int(S.SetAppendLV), int(S.SetOverwriteLV), int(S.SetSizeLV)
_ZERO_LENGTH, _SEPARATE, _INTRINSIC = int(S.SetZeroLength), int(S.SetSeparateLV), int(S.SetIntrinsicLV)
_UNIQUE, _UNIQUE_NORMALIZED, _REVERT = int(S.SetUniqueMultiValues), int(S.SetUniqueNormalizedMultiValues), int(S.SetRevertToDefaultValue)
_PARTIAL = _APPEND | _OVERWRITE | _SIZE
_UPDATE_BITS = int(UpdateGrbit.UpdateCheckESE97Compatibility | UpdateGrbit.UpdateNoVersion)
_SEQUENCE_MAX = 0xFFFFFFFF
_INSERTS = frozenset(
    {Prep.Insert, Prep.InsertCopy, Prep.InsertCopyDeleteOriginal, Prep.InsertCopyReplaceOriginal, Prep.InsertMustSetAutoIncrement}
)
_COPIES = frozenset({Prep.InsertCopy, Prep.InsertCopyDeleteOriginal, Prep.InsertCopyReplaceOriginal})
_MOVES = frozenset({Prep.InsertCopyDeleteOriginal, Prep.InsertCopyReplaceOriginal})
_VERSION_WRAPS = {Coltyp.Long: 1 << 32}


@dataclass(frozen=True, slots=True)
class SetInfo:
    """JET_SETINFO: where in a long value, and which of a column's values (0: one more)."""

    offset: int = 0
    itag: int = 1


@dataclass(slots=True)
class SetColumn:
    """JET_SETCOLUMN: one of several columns to set; `err` is filled in."""

    columnid: int
    value: Any = None
    grbit: int = 0
    offset: int = 0
    itag: int = 1
    err: int = 0


_PLAIN_SET = SetInfo()


class CopyBuffer:
    """A record being prepared."""

    __slots__ = ("base", "bookmark", "changes", "intrinsic", "level", "prep", "separate", "stored")

    def __init__(self, prep: int, base: bytes | None = None, bookmark: bytes = b"", stored: dict[int, Any] | None = None) -> None:
        self.prep = prep
        self.level = 0  # of the transaction it was prepared in: rolled back, it is cancelled
        self.base = base  # the row as it was
        self.bookmark = bookmark
        self.stored = stored if stored is not None else {}  # its values
        self.changes: dict[int, Any] = {}
        self.separate: set[int] = set()  # columns whose values are to lie beside the row, whatever their size
        self.intrinsic: set[int] = set()  # and those that are not

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


class Updates(Bookmarks):
    """The calls that change records."""

    buffer: CopyBuffer | None = None
    _unused: tuple[Draft, ...] = ()  # dropped drafts that may hold space

    # -- prepare --------------------------------------------------------------------------------------------------
    async def prepare_update(self, prep: int) -> None:
        """Prepares an insert, a replace or a copy; Cancel drops what was prepared."""
        self.session.check()
        if self._unused:
            await self._free_drafts()
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
            self.buffer = buffer = CopyBuffer(prep)
        else:
            if prep == Prep.Replace and not self.session.level:
                prep = Prep.ReplaceNoLock
            self.buffer = buffer = await self._read(self._prepare_from_record, prep)
        buffer.level = self.session.level
        plan = self.plan
        if prep in _INSERTS:
            if plan.autoincrement is not None and prep not in _MOVES:
                buffer.changes[plan.autoincrement] = None if prep == Prep.InsertMustSetAutoIncrement else await self._next_auto()
            for columnid in plan.versions:
                buffer.changes[columnid] = 0

    async def _look(self, txn: Transaction) -> None:
        """Only the table's description was to be looked at."""

    async def _prepare_from_record(self, txn: Transaction, prep: int) -> CopyBuffer:
        row = await self._record(txn)
        if prep == Prep.Replace:
            txn.lock(self.plan.rows.tree, self.bookmark)
        buffer = CopyBuffer(prep, row, self.bookmark, self.plan.codec.stored(row))
        if prep == Prep.InsertCopy:
            for columnid in self.plan.escrow:
                buffer.stored.pop(columnid, None)
        return buffer

    def cancel_update(self) -> None:
        buffer = self.buffer
        if buffer is None:
            return
        self.buffer = None
        if self.plan.has_long:
            drafts = tuple(d for v in buffer.changes.values() for d in (v if type(v) is list else (v,)) if isinstance(d, Draft))
            self._unused += drafts

    async def _free_drafts(self) -> None:
        unused, self._unused = self._unused, ()
        for draft in unused:
            await draft.free()

    def level_committed(self, level: int) -> None:
        """What was opened and prepared in the level that ended belongs to the one around it."""
        self.level = min(self.level, level)
        if self.buffer is not None:
            self.buffer.level = min(self.buffer.level, level)

    def rolled_back(self) -> None:
        """A level was undone: an update prepared in it is gone."""
        if self.buffer is not None and self.buffer.level >= self.session.level:
            self.cancel_update()
        self.session.writes += 1
        self._schema_held = -1
        self._row = None
        self._chunk = []

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
        if self.plan.columns[self.plan.autoincrement].column.coltyp == Coltyp.Long and ready > 0x7FFFFFFF:
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

    async def set_column(self, columnid: int, value: Any, grbit: int = 0, info: SetInfo | None = None) -> None:
        """Sets one value of a column in the prepared record. None is NULL; an empty value is, too, without ZeroLength."""
        session = self.session
        if session.refusal is not None:
            raise JetError(session.refusal)
        buffer = self._writable()
        plan = self._column(columnid)
        if not grbit and info is None and type(value) is str and 0 < len(value) <= plan.ascii_most and value.isascii():
            buffer.changes[columnid] = value
            return
        if plan.simple and not grbit and info is None:
            if value is None or value == "" or value == b"":
                self._check_settable(plan, buffer)
                self._set_null(plan, buffer)
                return
            value, cut = plan.checked(value)
            if cut:
                session.warning = Wrn.ColumnMaxTruncated
            if plan.id in self.plan.escrow:
                self._check_settable(plan, buffer)
            buffer.changes[columnid] = value
            return
        await self._set_carefully(plan, buffer, value, grbit, info or _PLAIN_SET)

    async def set_columns(self, columns: Sequence[SetColumn]) -> None:
        """Sets several; each entry's `err` tells of it, the first error is the call's own, after all that came before."""
        for entry in columns:
            self.session.warning = 0
            try:
                await self.set_column(entry.columnid, entry.value, entry.grbit, SetInfo(entry.offset, entry.itag))
                entry.err = self.session.warning
            except JetError as error:
                entry.err = error.code
                raise

    def _check_settable(self, plan: ColumnPlan, buffer: CopyBuffer) -> None:
        if plan.read_only and not (plan.id == self.plan.autoincrement and buffer.prep == Prep.InsertMustSetAutoIncrement):
            raise JetError(Err.ColumnNotUpdatable, f"column {plan.column.name}", column=plan.column.name)
        if plan.id in self.plan.escrow and buffer.prep not in _INSERTS:
            raise JetError(Err.ColumnNotUpdatable, f"column {plan.column.name} takes escrow updates", column=plan.column.name)

    def _set_null(self, plan: ColumnPlan, buffer: CopyBuffer) -> None:
        if plan.column.grbit & AddColumnGrbit.ColumnNotNULL:
            raise JetError(Err.NullInvalid, f"column {plan.column.name}", column=plan.column.name)
        buffer.changes[plan.id] = None

    async def _set_carefully(self, plan: ColumnPlan, buffer: CopyBuffer, value: Any, grbit: int, info: SetInfo) -> None:
        column = plan.column
        self._check_set_grbit(plan, grbit, info)
        self._check_settable(plan, buffer)
        if grbit & _REVERT:
            if value is not None or grbit & ~_REVERT:
                raise JetError(Err.InvalidGrbit, "RevertToDefaultValue stands alone and takes no value")
            buffer.changes[plan.id] = ABSENT
            return
        if isinstance(value, (bytearray, memoryview)):
            value = bytes(value)
        if value is not None and not grbit & _PARTIAL and value in ("", b""):
            if not grbit & _ZERO_LENGTH:
                value = None
            elif not (plan.text or plan.long or column.coltyp == Coltyp.Binary) or column.fixed:
                raise JetError(Err.InvalidBufferSize, f"column {column.name} cannot be empty", column=column.name)
            elif plan.text:
                value = ""
        values = self._list(plan, buffer)
        place = info.itag - 1 if 0 < info.itag <= len(values) else len(values)
        if grbit & _PARTIAL:
            made = await self._partial(plan, values[place] if place < len(values) else None, value, grbit, info.offset)
        elif value is None:
            self._remove_value(plan, buffer, values, place)
            return
        else:
            made, cut = plan.checked(value)
            if cut:
                self.session.warning = Wrn.ColumnMaxTruncated
        if plan.long:
            made = await self._placed(plan, buffer, made, grbit)
        if grbit & (_UNIQUE | _UNIQUE_NORMALIZED):
            self._check_unique(plan, made, [v for i, v in enumerate(values) if i != place], bool(grbit & _UNIQUE_NORMALIZED))
        if place < len(values):
            values[place] = made
        else:
            values.append(made)
        buffer.changes[plan.id] = values if len(values) > 1 else values[0]

    def _check_set_grbit(self, plan: ColumnPlan, grbit: int, info: SetInfo) -> None:
        if grbit & ~_SET_BITS:
            raise JetError(Err.InvalidGrbit)
        name = plan.column.name
        if grbit & (_PARTIAL | _SEPARATE) and not plan.long:
            raise JetError(Err.InvalidGrbit, f"column {name} is no long value", column=name)
        if (grbit & _APPEND and grbit & _OVERWRITE) or (grbit & _SEPARATE and grbit & _INTRINSIC):
            raise JetError(Err.InvalidGrbit)
        if info.itag < 0 or info.offset < 0:
            raise JetError(Err.InvalidParameter, "itagSequence and offset are not negative")
        if info.itag != 1 and not plan.tagged:
            raise JetError(Err.BadItagSequence, f"column {name} has one value", column=name)
        if info.itag != 1 and not plan.multi and info.itag != 0:
            raise JetError(Err.BadItagSequence, f"column {name} is not multi-valued", column=name)

    def _list(self, plan: ColumnPlan, buffer: CopyBuffer) -> list[Any]:
        value = buffer.get(plan.id, {}) if plan.id in buffer.changes else buffer.stored.get(plan.id)
        if value is None or value is ABSENT:
            return []
        return list(value) if type(value) is list else [value]

    def _remove_value(self, plan: ColumnPlan, buffer: CopyBuffer, values: list[Any], place: int) -> None:
        """NULL takes a value away, and those behind it move up."""
        if place < len(values):
            gone = values.pop(place)
            if isinstance(gone, Draft):
                self._unused += (gone,)
        if not values:
            self._set_null(plan, buffer)
        else:
            buffer.changes[plan.id] = values if len(values) > 1 else values[0]

    def _check_unique(self, plan: ColumnPlan, value: Any, others: list[Any], normalized: bool) -> None:
        def plain(one: Any) -> Any:
            return one.upper() if normalized and isinstance(one, str) else one

        if any(plain(other) == plain(value) for other in others):
            raise JetError(Err.MultiValuedDuplicate, f"column {plan.column.name}", column=plan.column.name)

    # -- long values ------------------------------------------------------------------------------------------------
    async def _partial(self, plan: ColumnPlan, old: Any, value: Any, grbit: int, offset: int) -> Any:
        """A long value written in part: appended to, overwritten, or made to be of a size."""
        column = plan.column
        if grbit & _SIZE:
            size = value if type(value) is int else len(to_bytes(column, value)) if value is not None else 0
            if size < 0:
                raise JetError(Err.InvalidParameter, f"size {size}")
            data = b""
        else:
            data = b"" if value is None else to_bytes(column, plan.checked(value)[0] if not isinstance(value, bytes) else value)
            size = None
        draft = old if isinstance(old, Draft) else Draft(self.store, self.table, old if isinstance(old, LongRef) else None)
        start = draft.size
        if old is not None and draft.size == 0 and not isinstance(old, (Draft, LongRef)):
            start = size_of(column, old)
        at = start if grbit & _APPEND else offset
        end = size if size is not None else at + len(data)
        if end > plan.max:
            raise JetError(Err.ColumnTooBig, f"column {column.name} takes {plan.max} bytes", column=column.name)
        if at > start and size is None:
            raise JetError(Err.ColumnNoChunk, f"offset {at} is beyond the value's end", column=column.name)

        async def work(txn: Transaction) -> None:
            if old is not None and not isinstance(old, (Draft, LongRef)):
                await draft.write(txn, 0, to_bytes(column, old))
            if size is not None:
                await draft.resize(txn, size)
            else:
                await draft.write(txn, at, data)

        await self._read(work)
        return draft

    async def _placed(self, plan: ColumnPlan, buffer: CopyBuffer, value: Any, grbit: int) -> Any:
        """A long value that is too long for the row becomes a draft of one beside it."""
        if grbit & _SEPARATE:
            buffer.separate.add(plan.id)
        if grbit & _INTRINSIC:
            buffer.intrinsic.add(plan.id)
        if isinstance(value, Draft):
            return value
        size = size_of(plan.column, value)
        if not grbit & _SEPARATE and (size <= limits.LONG_VALUE_INTRINSIC_BYTES_MAX or grbit & _INTRINSIC):
            return value
        draft = Draft(self.store, self.table)
        data = to_bytes(plan.column, value)

        async def work(txn: Transaction) -> None:
            await draft.write(txn, 0, data)

        await self._read(work)
        return draft

    async def _settle_drafts(self, txn: Transaction, buffer: CopyBuffer, values: dict[int, Any]) -> dict[int, Any]:
        """The values as the row stores them: drafts saved (short ones put into the row), dropped long values let go."""
        out = dict(values)
        counters = self.database.counters(self.session.instance)
        kept: set[int] = set()
        for columnid, value in values.items():
            column = self.plan.columns[columnid].column
            if column.coltyp not in LONG:
                continue
            members = value if type(value) is list else [value]
            made = []
            for member in members:
                if isinstance(member, Draft):
                    if member.base is not None:
                        kept.add(member.base.id)
                        if buffer.prep == Prep.InsertCopy:  # the original keeps its own
                            await longvalue.share(txn, self.table, member.base)
                    elif (
                        member.size <= limits.LONG_VALUE_INTRINSIC_BYTES_MAX
                        and columnid not in buffer.separate
                        and self._is_value(column, member)
                    ):
                        made.append(from_bytes(column, await member.read(txn)))
                        continue
                    member = await member.save(txn, counters)
                elif isinstance(member, LongRef):
                    kept.add(member.id)
                    if buffer.prep == Prep.InsertCopy:
                        await longvalue.share(txn, self.table, member)
                made.append(member)
            out[columnid] = made if type(value) is list else made[0]
        if buffer.base is not None and buffer.prep != Prep.InsertCopy:
            for _, _, ref in self.plan.codec.references(buffer.base):
                if ref.id not in kept:
                    await longvalue.release(txn, self.table, ref)
        return out

    def _is_value(self, column: Column, draft: Draft) -> bool:
        return not (column.coltyp == Coltyp.LongText and column.cp == 1200 and draft.size & 1)

    async def _fitted(self, txn: Transaction, buffer: CopyBuffer, values: dict[int, Any]) -> tuple[dict[int, Any], bytes]:
        """The row, with its longest long values moved out of it until it is no bigger than a row may be."""
        encode = self.plan.codec.encode
        row = encode(values)
        while len(row) > limits.RECORD_BYTES_MAX:
            best, place, most = 0, -1, 16
            for columnid, value in values.items():
                column = self.plan.columns[columnid].column
                if column.coltyp in LONG and columnid not in buffer.intrinsic:
                    for i, member in enumerate(value if type(value) is list else [value]):
                        if isinstance(member, (str, bytes)) and size_of(column, member) > most:
                            best, place, most = columnid, i, size_of(column, member)
            if not best:
                raise JetError(Err.RecordTooBig, f"{len(row)} bytes")
            draft = Draft(self.store, self.table)
            members = list(values[best]) if type(values[best]) is list else [values[best]]
            await draft.write(txn, 0, to_bytes(self.plan.columns[best].column, members[place]))
            members[place] = await draft.save(txn, self.database.counters(self.session.instance))
            values = {**values, best: members if len(members) > 1 else members[0]}
            row = encode(values)
        return values, row

    # -- update -----------------------------------------------------------------------------------------------------
    async def update(self, grbit: int = 0) -> bytes:
        """Writes the prepared record and returns its bookmark. The cursor does not move."""
        session = self.session
        if session.refusal is not None:
            raise JetError(session.refusal)
        if grbit & ~_UPDATE_BITS:
            raise JetError(Err.InvalidGrbit)
        buffer = self._writable()
        if buffer.prep in _INSERTS:
            bookmark = await self._write(self._insert, buffer)
        else:
            bookmark = await self._write(self._replace, buffer)
        self.buffer = None
        return bookmark

    async def _insert(self, txn: Transaction, buffer: CopyBuffer) -> bytes:
        plan = self.plan
        if buffer.prep in _MOVES:
            await self._delete_row(txn, buffer.bookmark, buffer.base, keep_long_values=True)
        values = buffer.merged()
        if plan.escrow:  # a sum needs its place in the row from the beginning: adds change it there
            values = {**{c: plan.defaults.get(c) for c in plan.escrow}, **values}
        for columnid in plan.required:
            if values.get(columnid) is None:
                raise JetError(Err.NullInvalid, f"column {plan.columns[columnid].column.name}", column=plan.columns[columnid].column.name)
        if buffer.prep == Prep.InsertMustSetAutoIncrement and plan.autoincrement is not None:
            await self._take_own_number(values.get(plan.autoincrement))
        if plan.has_long:
            values = await self._settle_drafts(txn, buffer, values)
        row = plan.codec.encode(values)
        if len(row) > limits.RECORD_BYTES_MAX:
            values, row = await self._fitted(txn, buffer, values)
        full: Mapping[int, Any] = {**plan.defaults, **values} if plan.defaults else values
        maker = plan.rows.maker
        if maker is None:
            bookmark = await self._next_sequence()
        else:
            if plan.has_long:
                full = await resolved(txn, self.table, plan.rows, full)
            get = full.get
            bookmark = maker.key([get(c) for c in plan.rows.columns])
        try:
            txn.insert(plan.rows.tree, bookmark, row)
        except JetError as error:
            if error.code == Err.KeyDuplicate:
                raise JetError(Err.KeyDuplicate, f"index {plan.rows.name}", index=plan.rows.name) from None
            raise
        for index in plan.secondary:
            keys = normalized_keys(index, full) if not plan.has_long else await keys_in(txn, self.table, index, full, True)
            add_entries(txn, index, keys, bookmark)
        return bookmark

    async def _take_own_number(self, number: int | None) -> None:
        if number is None:
            raise JetError(Err.NullInvalid, "the auto-increment column must be set")
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
        if now != base and buffer.prep == Prep.ReplaceNoLock:
            raise JetError(Err.WriteConflict, "the record was changed since it was prepared")
        changes = dict(buffer.changes)
        for columnid in plan.versions:
            changes[columnid] = _next_version(plan.columns[columnid].column, buffer.stored.get(columnid) or 0)
        pending = []  # indexes whose entries may change, with what they have now
        before = {**plan.defaults, **plan.codec.stored(now)} if plan.secondary else {}
        for index in plan.secondary:
            if now != base or not index.reads.isdisjoint(changes):
                pending.append((index, await keys_in(txn, self.table, index, before, plan.has_long)))
        values = {k: v for k, v in {**buffer.stored, **changes}.items() if v is not ABSENT}
        if plan.has_long:
            values = await self._settle_drafts(txn, buffer, values)
            row = plan.codec.encode(values)
        else:
            row = plan.codec.patch(base, changes)
        if len(row) > limits.RECORD_BYTES_MAX:
            values, row = await self._fitted(txn, buffer, values)
        after: Mapping[int, Any] = {**plan.defaults, **values}
        maker = plan.rows.maker
        if maker is not None and not plan.rows.reads.isdisjoint(changes):
            resolved_after = await resolved(txn, self.table, plan.rows, after) if plan.has_long else after
            if maker.key([resolved_after.get(c) for c in plan.rows.columns]) != bookmark:
                raise JetError(Err.RecordPrimaryChanged)
        txn.put(plan.rows.tree, bookmark, row)
        for index, old in pending:
            change_entries(txn, index, old, await keys_in(txn, self.table, index, after, plan.has_long), bookmark)
        self._row = None
        return bookmark

    # -- delete -----------------------------------------------------------------------------------------------------
    async def delete(self) -> None:
        """Deletes the current record. The cursor stays where it was: the next move goes on from there."""
        self.session.check()
        self.cancel_update()
        await self._write(self._delete)

    async def _delete(self, txn: Transaction) -> None:
        if self.state == FRESH:
            await self._settle(txn)
        row = await self._record(txn)
        await self._delete_row(txn, self.bookmark, row)
        self._row = None

    async def _delete_row(self, txn: Transaction, bookmark: bytes, row: bytes | None, *, keep_long_values: bool = False) -> None:
        plan = self.plan
        now = await txn.get(plan.rows.tree, bookmark)
        if now is None:
            raise JetError(Err.RecordDeleted)
        txn.delete(plan.rows.tree, bookmark)
        if plan.secondary:
            values = plan.codec.decode(now)
            for index in plan.secondary:
                remove_entries(txn, index, await keys_in(txn, self.table, index, values, plan.has_long), bookmark)
        if plan.has_long and not keep_long_values:
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

    async def keys_of(self, txn: Transaction, target: IndexPlan, row: bytes) -> list[bytes]:
        return await keys_in(txn, self.table, target, self.plan.codec.decode(row), self.plan.has_long)


_PREPARES = frozenset(int(p) for p in Prep)


def _next_version(column: Column, version: int) -> int:
    """One more, and from the greatest to the smallest."""
    wrap = _VERSION_WRAPS.get(column.coltyp, 1 << 64)
    following = (version + 1) % wrap
    return following - wrap if following >= wrap // 2 else following
