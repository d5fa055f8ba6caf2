"""Setting columns of a prepared record: SetColumn, SetColumns, and where long values go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, Prep, SetColumnGrbit
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server import limits
from jetwire_server.engine import longvalue
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.indexing import as_keyed
from jetwire_server.engine.longvalue import Draft
from jetwire_server.engine.preparing import INSERTS, MOVES, CopyBuffer, Preparing
from jetwire_server.engine.schema import Column
from jetwire_server.engine.stored_form import LONG, from_bytes, size_of, to_bytes
from jetwire_server.engine.values import ColumnPlan, segment_spec
from jetwire_server.keys import KeyMaker, KeySpec
from jetwire_server.rows import ABSENT, LongRef
from jetwire_server.store.interface import Transaction

S = SetColumnGrbit
_SET_BITS = all_bits(S)
_APPEND, _OVERWRITE, _SIZE = int(S.SetAppendLV), int(S.SetOverwriteLV), int(S.SetSizeLV)
_ZERO_LENGTH, _SEPARATE, _INTRINSIC = int(S.SetZeroLength), int(S.SetSeparateLV), int(S.SetIntrinsicLV)
_UNIQUE, _UNIQUE_NORMALIZED, _REVERT = int(S.SetUniqueMultiValues), int(S.SetUniqueNormalizedMultiValues), int(S.SetRevertToDefaultValue)
_PARTIAL = _APPEND | _OVERWRITE | _SIZE


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


class Setting(Preparing):
    """The calls that fill the copy buffer."""

    async def set_column(self, columnid: int, value: Any, grbit: int = 0, info: SetInfo | None = None) -> None:
        """Sets one value of a column in the prepared record. None is NULL; an empty value is, too, without ZeroLength."""
        session = self.session
        if session.refusal is not None:
            raise JetError(session.refusal)
        buffer = self._writable()
        if columnid not in self.plan.columns:  # it may be a new one
            await self._read(self._look)
        plan = self._column(columnid)
        if not grbit and info is None:
            kind = type(value)
            if kind is str:
                as_given = 0 < len(value) <= plan.ascii_most and value.isascii()
            elif kind is int:
                as_given = plan.least <= value <= plan.most
            else:
                as_given = kind is plan.whole
            if as_given:
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
        own_number = plan.id == self.plan.autoincrement and buffer.prep != Prep.InsertMustSetAutoIncrement
        if plan.read_only and (own_number or (plan.id in self.plan.versions and buffer.prep not in INSERTS)):
            raise JetError(Err.InvalidColumnType, f"column {plan.column.name}", column=plan.column.name)
        if plan.id in self.plan.escrow and buffer.prep not in INSERTS:
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
            if plan.id in self.plan.required:
                raise JetError(Err.NullInvalid, f"column {column.name} has no default", column=column.name)
            for gone in self._list(plan, buffer):
                self._let_go(gone)
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
        if grbit & _SIZE and not grbit & _ZERO_LENGTH and not value:
            self._remove_value(plan, buffer, values, place)  # no size is NULL, as no value is
            return
        if grbit & _PARTIAL:
            made = await self._partial(plan, buffer, values[place] if place < len(values) else None, value, grbit, info.offset)
        elif value is None:
            self._remove_value(plan, buffer, values, place)
            return
        else:
            made, cut = plan.checked(value)
            if cut:
                self.session.warning = Wrn.ColumnMaxTruncated
        if grbit & (_UNIQUE | _UNIQUE_NORMALIZED):
            others = [v for i, v in enumerate(values) if i != place]
            await self._check_unique(plan, buffer, made, others, bool(grbit & _UNIQUE_NORMALIZED))
        if plan.long:
            made = await self._placed(plan, buffer, made, grbit)
            if not plan.stored_as(self.plan.columns.get(plan.id)):  # another session has deleted the column meanwhile
                self._let_go(made)
                raise JetError(Err.ColumnNotFound, f"column {column.name}", column=column.name)
        if place < len(values):
            if values[place] is not made:
                self._let_go(values[place])
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
        if (grbit & _APPEND and grbit & (_OVERWRITE | _SIZE)) or (grbit & _SEPARATE and grbit & _INTRINSIC):
            raise JetError(Err.InvalidGrbit)
        if grbit & _PARTIAL and grbit & (_UNIQUE | _UNIQUE_NORMALIZED):
            raise JetError(Err.InvalidGrbit, "a value that is set in part is not compared with the others")
        if info.itag < 0 or info.offset < 0:
            raise JetError(Err.InvalidParameter, "itagSequence and offset are not negative")
        if info.itag != 1 and not plan.tagged:
            raise JetError(Err.BadItagSequence, f"column {name} has one value", column=name)

    def _list(self, plan: ColumnPlan, buffer: CopyBuffer) -> list[Any]:
        value = buffer.get(plan.id, {}) if plan.id in buffer.changes else buffer.stored.get(plan.id)
        if value is None or value is ABSENT:
            return []
        return list(value) if type(value) is list else [value]

    def _remove_value(self, plan: ColumnPlan, buffer: CopyBuffer, values: list[Any], place: int) -> None:
        """NULL takes a value away, and those behind it move up."""
        if place < len(values):
            self._let_go(values.pop(place))
        if not values:
            self._set_null(plan, buffer)
        else:
            buffer.changes[plan.id] = values if len(values) > 1 else values[0]

    async def _check_unique(self, plan: ColumnPlan, buffer: CopyBuffer, value: Any, others: list[Any], normalized: bool) -> None:
        """Compares a value with a column's others, those beside the row too: as they are stored, or as an index would have them."""
        maker = KeyMaker(KeySpec((segment_spec(plan.column),))) if normalized else None
        mine = value if maker is None else maker.build([value])
        for other in others:
            if isinstance(other, (LongRef, Draft)):
                if maker is None and other.size != size_of(plan.column, value):
                    continue
                other = await self._read(self._comparable, plan, buffer, maker, other)
            if (other if maker is None else maker.build([other])) == mine:
                cut = maker is not None and mine[1]
                code = Err.MultiValuedDuplicateAfterTruncation if cut else Err.MultiValuedDuplicate
                raise JetError(code, f"column {plan.column.name}", column=plan.column.name)

    async def _comparable(
        self, txn: Transaction, plan: ColumnPlan, buffer: CopyBuffer, maker: KeyMaker | None, value: LongRef | Draft
    ) -> Any:
        await self._check_long_values(txn, buffer)
        if maker is not None:
            return await as_keyed(txn, self.table, maker, 0, plan.id, value)
        data = await (longvalue.read(txn, self.table, value) if isinstance(value, LongRef) else value.read(txn))
        return from_bytes(plan.column, data) if self._is_value(plan.column, value) else data

    # -- long values ------------------------------------------------------------------------------------------------
    async def _partial(self, plan: ColumnPlan, buffer: CopyBuffer, old: Any, value: Any, grbit: int, offset: int) -> Any:
        """A long value written in part: appended to, overwritten, or made to be of a size; overwritten with SizeLV it ends there."""
        column = plan.column
        size: int | None
        if grbit & _SIZE and not grbit & _OVERWRITE:
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
            await self._check_long_values(txn, buffer)
            if old is not None and not isinstance(old, (Draft, LongRef)):
                await draft.write(txn, 0, to_bytes(column, old))
            if size is None:
                await draft.write(txn, at, data)
            if grbit & _SIZE:
                await draft.resize(txn, end)

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
        if buffer.prep not in MOVES:  # the original of these is just as it was
            await self._check_long_values(txn, buffer)
        out = dict(values)
        counters = self.database.counters(self.session.instance)
        kept: set[int] = set()
        buffer.adopted, buffer.put_in_row = [], []
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
                        if member.spill is not None:
                            buffer.put_in_row.append(member.spill)
                        continue
                    draft = member
                    member = await draft.save(txn, counters)
                    if draft.spill is not None and txn is self.session.txn:
                        buffer.adopted.append(draft.spill)
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

    def _is_value(self, column: Column, value: LongRef | Draft) -> bool:
        return not (column.coltyp == Coltyp.LongText and column.cp == 1200 and value.size & 1)

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
