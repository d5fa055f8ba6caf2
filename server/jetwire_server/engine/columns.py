"""Columns: what may be added to a table, and how; deletes, renames, new defaults."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateTableColumnIndexGrbit, DeleteColumnGrbit
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server import limits
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.catalog import check_name, fold
from jetwire_server.engine.database import DatabaseCalls
from jetwire_server.engine.schema import (
    FIXED_FIRST,
    FIXED_LAST,
    TAGGED_FIRST,
    TAGGED_LAST,
    VARIABLE_FIRST,
    VARIABLE_LAST,
    Column,
    Table,
)
from jetwire_server.engine.stored_form import CODES, FIXED_SIZES, LONG, TEXT, UNICODE_PAGE, from_bytes, text_to_bytes

if TYPE_CHECKING:
    from jetwire_server.engine.cursor import Cursor
    from jetwire_server.store.interface import Transaction

G = AddColumnGrbit
_KNOWN_BITS = all_bits(G)
_CODE_PAGES = frozenset({1252, 1200})
_AUTO_INCREMENT = frozenset({Coltyp.Long, Coltyp.LongLong, Coltyp.UnsignedLongLong, Coltyp.Currency})
_ESCROW = frozenset({Coltyp.Long, Coltyp.LongLong})
_COLUMN_BYTES_MAX = 255
_LONG_BYTES_MAX = 0x7FFFFFFF

# A default computed by a function in a DLL excludes these.
_NOT_USER_DEFINED = G.ColumnFixed | G.ColumnNotNULL | G.ColumnVersion | G.ColumnAutoincrement | G.ColumnUpdatable
_NOT_USER_DEFINED |= G.ColumnEscrowUpdate | G.ColumnFinalize | G.ColumnDeleteOnZero | G.ColumnMaybeNull


@dataclass(frozen=True, slots=True)
class ColumnCreate:
    """JET_COLUMNCREATE and JET_COLUMNDEF: one column to be."""

    name: str
    coltyp: int
    max: int = 0
    grbit: int = 0
    default: Any = None
    cp: int = 0


def stored_default(coltyp: Coltyp, cp: int, value: Any) -> bytes | None:
    """A value as ESE stores it; None where there is none. Bytes are taken as they are."""
    if value is None:
        return None
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        if coltyp in TEXT:
            return text_to_bytes(str(value), cp)
        if coltyp == Coltyp.Bit:
            return b"\xff" if value else b"\0"
        if coltyp == Coltyp.GUID:
            return (value if isinstance(value, UUID) else UUID(str(value))).bytes_le
        return struct.pack(CODES[coltyp], value)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise JetError(Err.InvalidParameter, f"default value {value!r}: {error}") from None


def default_value(column: Column) -> Any:
    """A column's default as plain Python, or None."""
    stored = column.default
    if stored is None:
        return None
    if column.coltyp in TEXT and column.cp == UNICODE_PAGE:
        stored = stored[: len(stored) & ~1]  # bytes that were given for a text may be an odd number
    return from_bytes(column, stored)


def _check_kind(spec: ColumnCreate) -> tuple[Coltyp, int]:
    """The type and code page, or what is wrong with them."""
    if spec.coltyp in (Coltyp.Nil, Coltyp.SLV) or not Coltyp.Nil < spec.coltyp < Coltyp.Max:
        raise JetError(Err.InvalidColumnType, f"coltyp {spec.coltyp}")
    coltyp = Coltyp(spec.coltyp)
    if coltyp not in TEXT:
        return coltyp, 0
    if spec.cp and spec.cp not in _CODE_PAGES:
        raise JetError(Err.InvalidCodePage, f"cp {spec.cp}")
    return coltyp, spec.cp or 1252


def _check_grbit(coltyp: Coltyp, grbit: int, *, default: bool, exclusive: bool) -> None:
    """The rules of which bits go with which types and with each other, in the engine's order."""
    if grbit & ~_KNOWN_BITS:
        raise JetError(Err.InvalidGrbit)
    tagged = bool(grbit & G.ColumnTagged) or coltyp in LONG
    if grbit & G.ColumnCompressed and coltyp not in LONG:
        raise JetError(Err.ColumnCannotBeCompressed)
    if grbit & G.ColumnEncrypted and (coltyp not in LONG or grbit & G.ColumnMultiValued or default):
        raise JetError(Err.ColumnCannotBeEncrypted)
    if tagged and grbit & G.ColumnFixed:
        raise JetError(Err.InvalidGrbit, "a tagged column cannot be fixed")
    if grbit & G.ColumnMultiValued and not tagged:
        raise JetError(Err.MultiValuedColumnMustBeTagged)
    if grbit & G.ColumnNotNULL and tagged:
        raise JetError(Err.TaggedNotNULL)
    if grbit & G.ColumnEscrowUpdate:
        if coltyp not in _ESCROW:
            raise JetError(Err.InvalidGrbit, "an escrow column is Long or LongLong")
        if grbit & G.ColumnTagged:
            raise JetError(Err.CannotBeTagged)
        if grbit & (G.ColumnVersion | G.ColumnAutoincrement) or not default:
            raise JetError(Err.InvalidGrbit, "an escrow column needs a default, and is neither version nor auto-increment")
        if not exclusive:
            raise JetError(Err.ExclusiveTableLockRequired)
        if grbit & G.ColumnFinalize and grbit & G.ColumnDeleteOnZero:
            raise JetError(Err.InvalidGrbit)
    elif grbit & (G.ColumnFinalize | G.ColumnDeleteOnZero):
        raise JetError(Err.InvalidGrbit, "only escrow columns finalize")
    elif grbit & (G.ColumnVersion | G.ColumnAutoincrement):
        if coltyp not in (_AUTO_INCREMENT if grbit & G.ColumnAutoincrement else {Coltyp.Long}):
            raise JetError(Err.InvalidGrbit)
        if grbit & G.ColumnTagged:
            raise JetError(Err.CannotBeTagged)
        if grbit & G.ColumnVersion and grbit & G.ColumnAutoincrement:
            raise JetError(Err.InvalidGrbit)
        if grbit & G.ColumnAutoincrement and not exclusive:
            raise JetError(Err.ExclusiveTableLockRequired)
    if grbit & G.ColumnUserDefinedDefault:
        if grbit & _NOT_USER_DEFINED or not tagged:
            raise JetError(Err.InvalidGrbit)
        raise JetError(Err.CallbackNotResolved, "a default computed by a function of a DLL")


def _size(coltyp: Coltyp, wanted: int) -> tuple[int, bool]:
    """The longest value in bytes (0: the type's own limit), and whether the wish was cut."""
    if wanted < 0 or wanted > _LONG_BYTES_MAX:
        raise JetError(Err.InvalidParameter, f"cbMax {wanted}")
    if coltyp in FIXED_SIZES:
        return FIXED_SIZES[coltyp], False
    if coltyp in LONG:
        return wanted, False
    if wanted > _COLUMN_BYTES_MAX:
        return _COLUMN_BYTES_MAX, True
    return wanted or _COLUMN_BYTES_MAX, False


def _range(coltyp: Coltyp, grbit: int) -> tuple[int, int]:
    """The ids that say how the column will be stored."""
    if coltyp in LONG or grbit & G.ColumnTagged:
        return TAGGED_FIRST, TAGGED_LAST
    if coltyp in FIXED_SIZES or grbit & G.ColumnFixed:
        return FIXED_FIRST, FIXED_LAST
    return VARIABLE_FIRST, VARIABLE_LAST


def with_column(table: Table, spec: ColumnCreate, *, exclusive: bool) -> tuple[Table, Column, int]:
    """The table with one more column, the column, and a warning or 0."""
    check_name(spec.name, "column")
    coltyp, cp = _check_kind(spec)
    default = stored_default(coltyp, cp, spec.default)
    has_default = bool(default)
    _check_grbit(coltyp, spec.grbit, default=has_default, exclusive=exclusive)
    size, cut = _size(coltyp, spec.max)
    if default and coltyp in FIXED_SIZES and len(default) != size:
        raise JetError(Err.InvalidBufferSize, f"a default of {len(default)} bytes")
    if fold(spec.name) in table.by_name:
        raise JetError(Err.ColumnDuplicate, f"column {spec.name}")
    for bit in (G.ColumnAutoincrement, G.ColumnVersion):
        if spec.grbit & bit and any(c.grbit & bit for c in table.by_id.values()):
            raise JetError(Err.ColumnRedundant, f"the table has a column with {bit.name}")
    first, last = _range(coltyp, spec.grbit)
    if first != TAGGED_FIRST and table.template and table.grbit & CreateTableColumnIndexGrbit.TableCreateNoFixedVarColumnsInDerivedTables:
        raise JetError(Err.FixedInheritedDDL, "only tagged columns may be added to this derived table")
    number = max((c.id for c in table.columns if first <= c.id <= last), default=first - 1) + 1
    if number > last:
        raise JetError(Err.TooManyColumns)
    if has_default and default is not None and size and len(default) > size:
        default = default[:size]  # cut without a word, as documented
    column = Column(number, spec.name, coltyp, cp, size, AddColumnGrbit(spec.grbit), default if has_default else None)
    if column.fixed and sum(c.max for c in table.by_id.values() if c.fixed) + size > limits.FIXED_COLUMNS_BYTES_MAX:
        raise JetError(Err.RecordTooBig, "the fixed columns together")
    return replace(table, columns=(*table.columns, column)), column, Wrn.ColumnMaxTruncated if cut else 0


def column_of(table: Table, name_or_id: str | int) -> Column:
    """A column by name or id, or ColumnNotFound (BadColumnId for a number)."""
    if isinstance(name_or_id, str):
        check_name(name_or_id, "column")
        found = table.by_name.get(fold(name_or_id))
        if found is None:
            raise JetError(Err.ColumnNotFound, f"column {name_or_id}")
        return found
    found = table.by_id.get(name_or_id)
    if found is None:
        raise JetError(Err.ColumnNotFound, f"columnid {name_or_id}")
    return found


def check_unused(table: Table, column: Column) -> None:
    for index in table.indexes:
        if any(s.column == column.id for s in index.segments) or any(c.column == column.id for c in index.conditions):
            raise JetError(Err.ColumnInUse, f"index {index.name} uses it")


class ColumnCalls(DatabaseCalls):
    """A session's calls on columns."""

    async def ddl_table(self, txn: Transaction, cursor: Cursor, *, fixed_ddl: bool = True) -> Table:
        """The table as this transaction sees it, with its schema locked against everyone else."""
        raise NotImplementedError

    async def number_rows(self, txn: Transaction, cursor: Cursor, table: Table, column: Column) -> None:
        """Gives every row that is there a value of its new auto-increment column."""
        raise NotImplementedError

    def publish_table(self, txn: Transaction, cursor: Cursor, table: Table) -> None:
        raise NotImplementedError

    async def add_column(self, cursor: Cursor, name: str, columndef: ColumnCreate, default: Any = None) -> int:
        """Adds a column; answers its id. Rows that are there read it as its default."""
        if columndef.grbit & G.ColumnUnversioned and self.level:
            raise JetError(Err.InTransaction, "an unversioned column")
        spec = replace(columndef, name=name, default=columndef.default if default is None else default)
        async with self.operation(write=True) as txn:
            table = await self.ddl_table(txn, cursor)
            changed, column, self.warning = with_column(table, spec, exclusive=cursor.exclusive)
            if spec.grbit & G.ColumnEscrowUpdate and await txn.scan(table.tree, limit=1):
                raise JetError(Err.TableNotEmpty, f"column {name}")
            if spec.grbit & G.ColumnAutoincrement:
                await self.number_rows(txn, cursor, changed, column)
            self.publish_table(txn, cursor, changed)
            return column.id

    async def delete_column(self, cursor: Cursor, name: str, grbit: int = 0) -> None:
        """Deletes a column. Its values stay in the rows unseen; its id is never given again."""
        if grbit & ~int(DeleteColumnGrbit.DeleteColumnIgnoreTemplateColumns):
            raise JetError(Err.InvalidGrbit)
        check_name(name, "column")
        async with self.operation(write=True) as txn:
            table = await self.ddl_table(txn, cursor)
            column = table.by_name.get(fold(name))
            if column is None or (column.derived and grbit):
                raise JetError(Err.ColumnNotFound, f"column {name}")
            if column.derived:
                raise JetError(Err.FixedInheritedDDL, f"column {name} belongs to the template table")
            check_unused(table, column)
            self.publish_table(txn, cursor, _changed(table, column, replace(column, deleted=True)))

    async def rename_column(self, cursor: Cursor, name: str, new_name: str, grbit: int = 0) -> None:
        """Renames a column. Not inside a transaction."""
        self.check()
        if grbit & ~int(G.ColumnRenameConvertToPrimaryIndexPlaceholder):
            raise JetError(Err.InvalidGrbit)
        if self.level:
            raise JetError(Err.InTransaction)
        check_name(new_name, "column")
        async with self.operation(write=True) as txn:
            table = await self.ddl_table(txn, cursor, fixed_ddl=False)
            column = column_of(table, name)
            if column.derived:
                raise JetError(Err.FixedInheritedDDL, f"column {name} belongs to the template table")
            other = table.by_name.get(fold(new_name))
            if other is not None and other is not column:
                raise JetError(Err.ColumnDuplicate, f"column {new_name}")
            self.publish_table(txn, cursor, _changed(table, column, replace(column, name=new_name)))

    async def set_column_default_value(self, dbid: int, table_name: str, name: str, value: Any, grbit: int = 0) -> None:
        """A new default, also for the rows that never set the column."""
        self.check()
        if grbit:
            raise JetError(Err.InvalidGrbit)
        handle = self.database(dbid)
        check_name(table_name, "table")
        async with self.operation(write=True) as txn:
            if handle.read_only:
                raise JetError(Err.DatabaseFileReadOnly)
            table = await handle.database.catalog.table(txn, table_name)
            if table.grbit & CreateTableColumnIndexGrbit.TableCreateSystemTable:
                raise JetError(Err.PermissionDenied, f"table {table_name}")
            if table.grbit & CreateTableColumnIndexGrbit.TableCreateTemplateTable:
                raise JetError(Err.FixedDDL, f"template table {table_name}")
            txn.lock_schema(table.tree, exclusive=True)
            column = column_of(table, name)
            if column.derived:
                raise JetError(Err.ColumnNotFound, f"column {name} belongs to the template table")
            check_unused(table, column)
            default = stored_default(column.coltyp, column.cp, value)
            if not default:
                raise JetError(Err.NullInvalid, "a default cannot be taken back")
            if column.max and len(default) > column.max:
                raise JetError(Err.DefaultValueTooBig)
            handle.database.catalog.replace(txn, table, _changed(table, column, replace(column, default=default)))
            self.schema_changed(handle.database.slot)


def _changed(table: Table, old: Column, new: Column) -> Table:
    return replace(table, columns=tuple(new if c.id == old.id else c for c in table.columns))
