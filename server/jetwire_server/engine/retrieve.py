"""Reading the current record, or the prepared copy of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jetwire_protocol.data.flags import EnumerateColumnsGrbit, RetrieveColumnGrbit
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server.engine import longvalue
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.indexing import sources_in
from jetwire_server.engine.longvalue import Draft
from jetwire_server.engine.place import ON
from jetwire_server.engine.schema import TAGGED_FIRST
from jetwire_server.engine.stored_form import bytes_to_text, size_of, to_bytes
from jetwire_server.engine.update import Updates
from jetwire_server.engine.values import PRIMARY, ColumnPlan
from jetwire_server.keys import NOT_DECODABLE
from jetwire_server.rows import ABSENT, LongRef
from jetwire_server.store.interface import Transaction

R = RetrieveColumnGrbit
_BITS = all_bits(RetrieveColumnGrbit)
_COPY, _FROM_INDEX, _FROM_BOOKMARK = int(R.RetrieveCopy), int(R.RetrieveFromIndex), int(R.RetrieveFromPrimaryBookmark)
_TAG, _NULL, _NO_DEFAULT = int(R.RetrieveTag), int(R.RetrieveNull), int(R.RetrieveIgnoreDefault)
_LONG_ID, _REFS, _TUPLE = int(R.RetrieveLongId), int(R.RetrieveLongValueRefCount), int(R.RetrieveTuple)
E = EnumerateColumnsGrbit
_ENUM_COPY, _ENUM_NO_DEFAULT = int(E.EnumerateCopy), int(E.EnumerateIgnoreDefault | E.EnumerateIgnoreUserDefinedDefault)
_ENUM_PRESENCE, _ENUM_TAGGED, _ENUM_COMPRESS = int(E.EnumeratePresenceOnly), int(E.EnumerateTaggedOnly), int(E.EnumerateCompressOutput)
_ENUM_IN_RECORD = int(E.EnumerateInRecordOnly)
_ENUM_BITS = all_bits(E) & ~int(E.EnumerateLocal)  # which is documented as one that is refused


@dataclass(frozen=True, slots=True)
class RetInfo:
    """JET_RETINFO: where in a long value, and which of a column's values."""

    offset: int = 0
    itag: int = 1


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A column's value. `size` is what is left of it from the offset on; `raw`: the value is bytes of its stored form."""

    value: Any
    size: int = 0
    warning: int = 0
    itag: int = 1
    columnid: int = 0
    raw: bool = False


@dataclass(slots=True)
class RetrieveColumn:
    """JET_RETRIEVECOLUMN: one of several columns to retrieve; the rest is filled in."""

    columnid: int
    grbit: int = 0
    offset: int = 0
    itag: int = 1
    max: int | None = None
    value: Any = None
    size: int = 0
    err: int = 0
    next_tagged: int = 0
    raw: bool = False


@dataclass(frozen=True, slots=True)
class EnumValue:
    itag: int
    err: int
    value: Any = None


@dataclass(frozen=True, slots=True)
class EnumColumn:
    """JET_ENUMCOLUMN: `value` alone if `err` is ColumnSingleValue, else `values`."""

    columnid: int
    err: int = 0
    values: list[EnumValue] = field(default_factory=list)
    value: Any = None


_PLAIN = RetInfo()


class Retrieval(Updates):
    """RetrieveColumn and its kin."""

    _told = 0  # bytes of long values that this call has read

    # -- where the values are ---------------------------------------------------------------------------------------
    async def _stored_now(self, txn: Transaction, copy: bool) -> dict[int, Any]:
        """The stored values of the record, without defaults; None for a NULL that was set."""
        buffer = self.buffer
        if copy and buffer is not None:
            await self._check_long_values(txn, buffer)
            values = {**buffer.stored, **buffer.changes}
            return {k: v for k, v in values.items() if v is not ABSENT}
        return self.plan.codec.stored(await self._record(txn))

    async def retrieve_all(self) -> dict[int, Any]:
        """All values of the current record that are not NULL, by column id, long ones included: the fastest way."""
        if self.state == ON:
            row = None
            txn = self.inside
            if txn is not None:
                row = await self._record(txn)
            elif self.ordinary:
                self._chunk = []
                row = self._newest_record()
                if row is None:
                    raise JetError(Err.RecordDeleted)
            if row is not None and (not self.plan.has_long or not self.plan.codec.references(row)):
                return self.plan.codec.decode(row)
        return await self._read(self._all)

    async def _all(self, txn: Transaction) -> dict[int, Any]:
        self._told = 0
        values = self.plan.codec.decode(await self._record(txn))
        if self.plan.has_long:
            for columnid, value in values.items():
                if type(value) is LongRef or type(value) is list:
                    values[columnid] = await self._whole(txn, columnid, value)
        return values

    async def _whole(self, txn: Transaction, columnid: int, value: Any) -> Any:
        """A value, or a list of them, with long values in place of references."""
        if type(value) is list:
            return [await self._whole(txn, columnid, v) for v in value]
        if isinstance(value, (LongRef, Draft)):
            return self._natural(columnid, await self._bytes(txn, value))
        return value

    def _natural(self, columnid: int, data: bytes) -> Any:
        plan = self.plan.columns[columnid]
        if not plan.text:
            return data
        text = bytes_to_text(data, plan.column.cp)
        return data if text is None else text

    async def _bytes(self, txn: Transaction, value: LongRef | Draft, offset: int = 0, size: int | None = None) -> bytes:
        left = max(0, value.size - offset)
        self._told += left if size is None else min(left, size)
        self.check_told(self._told)
        if isinstance(value, Draft):
            return await value.read(txn, offset, size)
        return await longvalue.read(txn, self.table, value, offset, size)

    # -- one column ---------------------------------------------------------------------------------------------------
    async def retrieve_column(self, columnid: int, grbit: int = 0, info: RetInfo | None = None, most: int | None = None) -> Retrieved:
        """One value. Warns ColumnNull, and BufferTruncated if it is longer than `most` bytes."""
        if self.session.refusal is not None:
            raise JetError(self.session.refusal)
        if grbit & ~_BITS:
            raise JetError(Err.InvalidGrbit)
        self._told = 0
        got = await self._read(self._retrieve, columnid, grbit, info or _PLAIN, most)
        if got.warning:
            self.session.warning = got.warning
        return got

    async def _retrieve(self, txn: Transaction, columnid: int, grbit: int, info: RetInfo, most: int | None) -> Retrieved:
        if info.itag < 1:
            raise JetError(Err.BadItagSequence, f"itagSequence {info.itag}")
        if info.offset < 0:
            raise JetError(Err.InvalidParameter, f"offset {info.offset}")
        if columnid == 0:
            columnid, itag = await self._nth_tagged(txn, grbit, info.itag)
            if not columnid:
                return Retrieved(None, 0, Wrn.ColumnNull, 0, 0)
            info = RetInfo(info.offset, itag)
        plan = self._column(columnid)
        if grbit & (_FROM_INDEX | _FROM_BOOKMARK) and not grbit & _COPY:
            got = await self._from_entry(txn, plan, grbit)
            if got is not None:
                value, itag = got
                if value is None:
                    return Retrieved(None, 0, Wrn.ColumnNull, itag, columnid)
                return await self._cut(txn, plan, value, grbit, RetInfo(info.offset, itag), most)
        if self.buffer is not None and grbit & _COPY:
            if plan.long:
                await self._check_long_values(txn, self.buffer)
            changes = self.buffer.changes
            value = changes[columnid] if columnid in changes else self.buffer.stored.get(columnid, ABSENT)
        else:
            row = await self._record(txn)
            value = self.plan.codec.get(row, columnid, 1) if info.itag == 1 else self.plan.codec.decode(row).get(columnid)
            if grbit & _NO_DEFAULT and columnid not in self.plan.codec.stored(row):
                value = None
        if value is ABSENT:
            value = None if grbit & _NO_DEFAULT else self.plan.defaults.get(columnid)
        if type(value) is list:
            value = value[info.itag - 1] if info.itag <= len(value) else None
        elif info.itag > 1:
            value = None
        if value is None:
            return Retrieved(None, 0, Wrn.ColumnNull, info.itag, columnid)
        return await self._cut(txn, plan, value, grbit, info, most)

    async def _cut(self, txn: Transaction, plan: ColumnPlan, value: Any, grbit: int, info: RetInfo, most: int | None) -> Retrieved:
        """As much of a value as was asked for."""
        columnid, itag, offset = plan.id, info.itag, info.offset
        beside = isinstance(value, (LongRef, Draft))
        if grbit & (_LONG_ID | _REFS):
            return await self._about_long(txn, plan, value, grbit, itag)
        if not beside:
            if not offset and most is None:
                return Retrieved(value, size_of(plan.column, value), 0, itag, columnid)
            data = to_bytes(plan.column, value)
            left = max(0, len(data) - offset)
            if not offset and (most is None or left <= most):
                return Retrieved(value, left, 0, itag, columnid)
            piece = data[offset:] if most is None else data[offset : offset + most]
            return Retrieved(piece, left, Wrn.BufferTruncated if len(piece) < left else 0, itag, columnid, True)
        left = max(0, value.size - offset)
        data = await self._bytes(txn, value, offset, most)
        if len(data) < left:
            return Retrieved(data, left, Wrn.BufferTruncated, itag, columnid, True)
        if offset:
            return Retrieved(data, left, 0, itag, columnid, True)
        natural = self._natural(columnid, data)
        return Retrieved(natural, left, 0, itag, columnid, plan.text and isinstance(natural, bytes))

    async def _about_long(self, txn: Transaction, plan: ColumnPlan, value: Any, grbit: int, itag: int) -> Retrieved:
        if not plan.long:
            raise JetError(Err.InvalidGrbit, f"column {plan.column.name} is no long value")
        if not isinstance(value, LongRef):
            return Retrieved(None, 0, Wrn.ColumnNull, itag, plan.id)
        if grbit & _LONG_ID:
            return Retrieved(value.id.to_bytes(8, "little"), 8, 0, itag, plan.id, True)
        refs = (await longvalue.load(txn, self.table, value)).refs
        return Retrieved(refs.to_bytes(4, "little"), 4, 0, itag, plan.id, True)

    async def _nth_tagged(self, txn: Transaction, grbit: int, number: int) -> tuple[int, int]:
        """The column and itagSequence of the record's tagged value number `number`."""
        stored = await self._stored_now(txn, bool(grbit & _COPY))
        for columnid in sorted(stored):
            if columnid < TAGGED_FIRST:
                continue
            value = stored[columnid]
            count = len(value) if type(value) is list else 1 if value is not None or grbit & _NULL else 0
            if number <= count:
                return columnid, number
            number -= count
        return 0, 0

    async def _from_entry(self, txn: Transaction, plan: ColumnPlan, grbit: int) -> tuple[Any, int] | None:
        """The value out of the current index entry's key, and its itagSequence; None if the column's first value is meant."""
        at = self.plan.rows if grbit & _FROM_BOOKMARK else self.at
        if at.kind != PRIMARY and at.index is not None and at.index.tuples is not None and not grbit & _TUPLE and plan.id == at.columns[0]:
            raise JetError(Err.IndexTuplesCannotRetrieveFromIndex)
        if at.maker is None or plan.id not in at.columns:
            return None
        if self.state != ON:
            await self._record(txn)
        key = self.bookmark if grbit & _FROM_BOOKMARK else self.entry_key()
        segment = at.columns.index(plan.id)
        value = at.maker.value_in(key, segment)
        if value is None or not plan.multi:
            return None if value is NOT_DECODABLE else (value, 1)
        values = self.plan.codec.decode(await self._record(txn))
        for made, numbers in await sources_in(txn, self.table, at, values, self.plan.has_long):
            if made == key:
                members, number = values.get(plan.id), numbers[segment]
                if number is None:  # of a nested table: this column has fewer values than the others
                    return None, 1
                return (members[number - 1] if type(members) is list else members), number
        return None  # the record has changed since

    # -- several columns ------------------------------------------------------------------------------------------------
    async def retrieve_columns(self, columns: Sequence[RetrieveColumn]) -> None:
        """Fills in each entry; itagSequence 0 asks how many values a column has. Of the warnings only BufferTruncated is the call's own."""
        self.session.check()
        self._told = 0
        await self._read(self._retrieve_many, columns)
        if any(c.err == Wrn.BufferTruncated for c in columns):
            self.session.warning = Wrn.BufferTruncated

    async def _retrieve_many(self, txn: Transaction, columns: Sequence[RetrieveColumn]) -> None:
        for entry in columns:
            if entry.grbit & ~_BITS:
                raise JetError(Err.InvalidGrbit)
            if entry.itag == 0 and entry.columnid:
                self._column(entry.columnid)
                stored = await self._stored_now(txn, bool(entry.grbit & _COPY))
                defaults = {} if entry.grbit & _NO_DEFAULT else self.plan.defaults
                value = stored[entry.columnid] if entry.columnid in stored else defaults.get(entry.columnid)
                entry.itag = len(value) if type(value) is list else int(value is not None)
                continue
            got = await self._retrieve(txn, entry.columnid, entry.grbit, RetInfo(entry.offset, entry.itag), entry.max)
            entry.value, entry.size, entry.err, entry.raw = got.value, got.size, got.warning, got.raw
            entry.itag, entry.next_tagged = got.itag, got.columnid

    async def enumerate_columns(
        self, columns: Sequence[tuple[int, Sequence[int]]] | None = None, most: int | None = None, grbit: int = 0
    ) -> list[EnumColumn]:
        """The values of these columns (and of these itagSequences of them), or of all that have any."""
        self.session.check()
        if grbit & ~_ENUM_BITS or (columns is not None and grbit & _ENUM_TAGGED):
            raise JetError(Err.InvalidGrbit)
        self._told = 0
        return await self._read(self._enumerate, columns, most, grbit)

    async def _enumerate(
        self, txn: Transaction, columns: Sequence[tuple[int, Sequence[int]]] | None, most: int | None, grbit: int
    ) -> list[EnumColumn]:
        values = await self._stored_now(txn, bool(grbit & _ENUM_COPY))
        if not grbit & _ENUM_NO_DEFAULT:
            values = {**self.plan.defaults, **values}
        else:
            values = {k: v for k, v in values.items() if k not in self.plan.defaults or v != self.plan.defaults[k]}
        if columns is None:
            first = TAGGED_FIRST if grbit & _ENUM_TAGGED else 1
            asked: Sequence[tuple[int, Sequence[int]]] = [(c, ()) for c in sorted(values) if c >= first]
        else:
            asked = columns
        return [await self._enumerate_one(txn, columnid, tags, values, most, grbit) for columnid, tags in asked]

    async def _enumerate_one(
        self, txn: Transaction, columnid: int, tags: Sequence[int], values: dict[int, Any], most: int | None, grbit: int
    ) -> EnumColumn:
        if columnid == 0:
            return EnumColumn(0, Wrn.ColumnSkipped)
        self._column(columnid)
        value = values.get(columnid)
        members = value if type(value) is list else [] if value is None else [value]
        missing = Wrn.ColumnDefault if grbit & _ENUM_NO_DEFAULT and columnid not in values else Wrn.ColumnNull
        if not tags:
            if not members:
                return EnumColumn(columnid, missing)
            if grbit & _ENUM_PRESENCE:
                return EnumColumn(columnid, Wrn.ColumnPresent)
        out = []
        for itag in tags or range(1, len(members) + 1):
            if itag == 0:
                out.append(EnumValue(0, Wrn.ColumnSkipped))
            elif not 0 < itag <= len(members):  # in C it is unsigned
                out.append(EnumValue(itag, missing))
            elif grbit & _ENUM_PRESENCE:
                out.append(EnumValue(itag, Wrn.ColumnPresent))
            elif grbit & _ENUM_IN_RECORD and isinstance(members[itag - 1], (LongRef, Draft)):
                out.append(EnumValue(itag, Wrn.ColumnNotInRecord))
            else:
                out.append(await self._enum_value(txn, columnid, itag, members[itag - 1], most))
        if grbit & _ENUM_COMPRESS and not tags and len(out) == 1 and not out[0].err:
            return EnumColumn(columnid, Wrn.ColumnSingleValue, value=out[0].value)
        return EnumColumn(columnid, 0, out)

    async def _enum_value(self, txn: Transaction, columnid: int, itag: int, member: Any, most: int | None) -> EnumValue:
        if isinstance(member, (LongRef, Draft)):
            if most is not None and member.size > most:
                return EnumValue(itag, Wrn.ColumnTruncated, await self._bytes(txn, member, 0, most))
            return EnumValue(itag, 0, self._natural(columnid, await self._bytes(txn, member)))
        return EnumValue(itag, 0, member)
