"""Indexes: what an index may be, creating and deleting them, building one on a table that has rows."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, Conditionalcolumn, CreateIndexGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.catalog import check_name, fold
from jetwire_server.engine.columns import ColumnCalls
from jetwire_server.engine.hints import DENSITIES, check_hints
from jetwire_server.engine.indexing import build
from jetwire_server.engine.locales import check_flags, locale_of
from jetwire_server.engine.parameters import Parameters
from jetwire_server.engine.schema import Column, Condition, Index, Segment, Table, TupleLimits
from jetwire_server.store.interface import tree_number, tree_slot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jetwire_server.engine.cursor import Cursor
    from jetwire_server.store.interface import Transaction

G = CreateIndexGrbit
_KNOWN_BITS = all_bits(G) & ~int(G.IndexDeferredPopulateCreate | G.IndexDeferredPopulateProcess | G.IndexOptionallyUnique)
_IGNORES = G.IndexIgnoreNull | G.IndexIgnoreAnyNull | G.IndexIgnoreFirstNull
_TUPLE_TYPES = frozenset({Coltyp.Text, Coltyp.LongText})
_TUPLE_LENGTHS = range(2, 256)
_TUPLE_TOTAL_MAX = 32_767
_START_DEFAULT = -1
_UNSIGNED_SHORT_MAX = 0xFFFF


@dataclass(frozen=True, slots=True)
class UnicodeIndex:
    """JET_UNICODEINDEX: a locale, by its number or its name, and how text is mapped."""

    lcid: int = 0
    locale: str | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class IndexCreate:
    """JET_INDEXCREATE: an index to be. `key` has `+name` or `-name` for each segment."""

    name: str
    key: tuple[str, ...]
    grbit: int = 0
    density: int = 0
    lcid: int = 0
    unicode: UnicodeIndex | None = None
    var_seg_mac: int = 0
    tuples: TupleLimits | None = None
    conditions: tuple[tuple[str, int], ...] = ()
    key_most: int = 0
    hints: Mapping[str, Any] | None = None  # JET_SPACEHINTS, named as on the wire


_INDEX_ID = struct.Struct("<IQII")


def index_id(table: Table, index: Index) -> bytes:
    """JET_INDEXID: names this very index; one made later under the same name has another."""
    return _INDEX_ID.pack(_INDEX_ID.size, tree_number(index.tree), table.objid & 0xFFFFFFFF, 0)


def index_by_id(table: Table, given: bytes) -> Index:
    """The index of a JET_INDEXID, or InvalidIndexId."""
    for index in table.indexes:
        if index_id(table, index) == given:
            return index
    raise JetError(Err.InvalidIndexId)


def with_index(table: Table, spec: IndexCreate, parameters: Parameters) -> Table:
    """The table with one more index, still without a tree of its own."""
    check_name(spec.name, "index")
    grbit = _check_grbit(spec)
    key_most, var_seg_mac = _check_sizes(spec, grbit)
    if spec.density and spec.density not in DENSITIES:
        raise JetError(Err.DensityInvalid, f"density {spec.density}")
    check_hints(spec.hints)
    segments = _segments(table, spec)
    locale, flags = _locale(spec, grbit, parameters)
    tuples = _tuples(spec, grbit, parameters, segments[0][0], key_most, var_seg_mac)
    if fold(spec.name) in table.index_by_name:
        raise JetError(Err.IndexDuplicate, f"index {spec.name}")
    if grbit & G.IndexPrimary and table.primary is not None:
        raise JetError(Err.IndexHasPrimary, f"index {table.primary.name}")
    index = Index(
        name=spec.name,
        segments=tuple(segment for _, segment in segments),
        grbit=G(grbit),
        tree=table.tree,
        key_most=key_most,
        var_seg_mac=var_seg_mac,
        locale=locale,
        lcmap_flags=flags,
        conditions=_conditions(table, spec),
        tuples=tuples,
        density=spec.density or table.options.get("density", 80),
    )
    options = table.options
    if spec.hints:
        options = {**options, "indexHints": {**options.get("indexHints", {}), fold(spec.name): dict(spec.hints)}}
    return replace(table, indexes=(*table.indexes, index), options=options)


def _check_grbit(spec: IndexCreate) -> int:
    grbit = spec.grbit
    if grbit & ~_KNOWN_BITS:
        raise JetError(Err.InvalidGrbit)
    if grbit & G.IndexTupleLimits:
        grbit |= int(G.IndexTuples)
    if grbit & G.IndexPrimary and grbit & _IGNORES:
        raise JetError(Err.InvalidGrbit, "a primary index has every record")
    if grbit & G.IndexCrossProduct and grbit & G.IndexNestedTable:
        raise JetError(Err.InvalidGrbit)
    if grbit & G.IndexPrimary and spec.conditions:
        raise JetError(Err.IndexInvalidDef, "a primary index has no conditions")
    if grbit & G.IndexEmpty and not grbit & G.IndexIgnoreAnyNull:
        raise JetError(Err.InvalidGrbit, "IndexEmpty needs IndexIgnoreAnyNull")
    if grbit & G.IndexTupleLimits and spec.tuples is None:
        raise JetError(Err.IndexInvalidDef, "tuple limits are announced and missing")
    if grbit & G.IndexUnicode and spec.unicode is None:
        raise JetError(Err.IndexInvalidDef, "a locale is announced and missing")
    return grbit


def _check_sizes(spec: IndexCreate, grbit: int) -> tuple[int, int]:
    key_most = limits.KEY_BYTES_DEFAULT
    if grbit & G.IndexKeyMost:
        if not limits.KEY_BYTES_DEFAULT <= spec.key_most <= limits.KEY_BYTES_MAX:
            raise JetError(Err.IndexInvalidDef, f"keyMost {spec.key_most}")
        key_most = spec.key_most
    var_seg_mac = spec.var_seg_mac or key_most
    if grbit & G.IndexTupleLimits:
        var_seg_mac = key_most
    if not 0 < var_seg_mac <= key_most:
        raise JetError(Err.IndexInvalidDef, f"varSegMac {spec.var_seg_mac}")
    return key_most, var_seg_mac


def _segments(table: Table, spec: IndexCreate) -> list[tuple[Column, Segment]]:
    if not spec.key:
        raise JetError(Err.InvalidParameter, "an index needs a key")
    if len(spec.key) > limits.INDEX_SEGMENTS_MAX:
        raise JetError(Err.IndexInvalidDef, f"{len(spec.key)} segments")
    if spec.key[0][:1] not in ("+", "-"):
        raise JetError(Err.IndexInvalidDef, "each part of a key begins with + or -")
    out = []
    for part in spec.key:
        descending = part[:1] == "-"
        column = _column(table, part[1:] if part[:1] in ("+", "-") else part)
        if column.grbit & AddColumnGrbit.ColumnEncrypted:
            raise JetError(Err.CannotIndexOnEncryptedColumn, f"column {column.name}")
        if column.grbit & AddColumnGrbit.ColumnEscrowUpdate:
            raise JetError(Err.CannotIndex, f"column {column.name} takes escrow updates")
        if spec.grbit & G.IndexPrimary and column.grbit & AddColumnGrbit.ColumnMultiValued:
            raise JetError(Err.IndexInvalidDef, f"column {column.name} has many values")
        out.append((column, Segment(column.id, descending)))
    if len({segment.column for _, segment in out}) < len(out):
        raise JetError(Err.IndexInvalidDef, "a column stands twice in the key")
    return out


def _column(table: Table, name: str) -> Column:
    found = table.by_name.get(fold(name))
    if found is None:
        raise JetError(Err.ColumnNotFound, f"column {name}")
    return found


def _conditions(table: Table, spec: IndexCreate) -> tuple[Condition, ...]:
    if len(spec.conditions) > limits.INDEX_CONDITIONS_MAX:
        raise JetError(Err.IndexInvalidDef, f"{len(spec.conditions)} conditions")
    out = []
    for name, grbit in spec.conditions:
        if grbit not in (Conditionalcolumn.IndexColumnMustBeNull, Conditionalcolumn.IndexColumnMustBeNonNull):
            raise JetError(Err.InvalidGrbit, f"condition on {name}")
        out.append(Condition(_column(table, name).id, grbit == Conditionalcolumn.IndexColumnMustBeNull))
    return tuple(out)


def _locale(spec: IndexCreate, grbit: int, parameters: Parameters) -> tuple[str, int]:
    """The index's locale and mapping: its own, or the instance's (JET_paramUnicodeIndexDefault), or en-US."""
    standard = parameters.get(Param.UnicodeIndexDefault)
    locale = standard.locale or locale_of(standard.lcid) if isinstance(standard, UnicodeIndex) else "en-US"
    flags = standard.flags if isinstance(standard, UnicodeIndex) and standard.flags else 0x00030401
    if grbit & G.IndexUnicode and spec.unicode is not None:
        own = spec.unicode
        if own.locale is None:
            locale = locale_of(own.lcid)
        else:
            locale = own.locale
        flags = own.flags or flags
    elif spec.lcid:
        locale = locale_of(spec.lcid)
    return check_flags(locale, flags)


def _tuples(spec: IndexCreate, grbit: int, parameters: Parameters, first: Column, key_most: int, var_seg_mac: int) -> TupleLimits | None:
    if not grbit & G.IndexTuples:
        return None
    if grbit & G.IndexPrimary:
        raise JetError(Err.IndexTuplesSecondaryIndexOnly)
    if grbit & G.IndexUnique:
        raise JetError(Err.IndexTuplesNonUniqueOnly)
    if var_seg_mac < key_most:
        raise JetError(Err.IndexTuplesVarSegMacNotAllowed)
    if first.coltyp not in _TUPLE_TYPES:
        raise JetError(Err.IndexTuplesTextColumnsOnly, f"column {first.name}")
    wanted = (
        spec.tuples
        if grbit & G.IndexTupleLimits and spec.tuples is not None
        else TupleLimits(
            parameters.number(Param.IndexTuplesLengthMin),
            parameters.number(Param.IndexTuplesLengthMax),
            parameters.number(Param.IndexTuplesToIndexMax),
            parameters.number(Param.IndexTupleIncrement),
            parameters.number(Param.IndexTupleStart),
        )
    )
    if any(not 0 <= n <= _UNSIGNED_SHORT_MAX for n in (wanted.min, wanted.max, wanted.total, wanted.step)):
        raise JetError(Err.IndexTuplesInvalidLimits)
    if wanted.start != _START_DEFAULT and not 0 <= wanted.start <= _UNSIGNED_SHORT_MAX:
        raise JetError(Err.IndexTuplesInvalidLimits)
    standard = TupleLimits()
    out = TupleLimits(
        wanted.min or standard.min,
        wanted.max or standard.max,
        wanted.total or standard.total,
        wanted.step or standard.step,
        0 if wanted.start == _START_DEFAULT else wanted.start,
    )
    if out.min not in _TUPLE_LENGTHS or out.max not in _TUPLE_LENGTHS or out.min > out.max or out.total > _TUPLE_TOTAL_MAX:
        raise JetError(Err.IndexTuplesInvalidLimits)
    return out


class IndexCalls(ColumnCalls):
    """A session's calls on indexes."""

    def grow_index(self, txn: Transaction, table: Table) -> Table:
        """Gives the newest index of an empty table its tree."""
        *others, index = table.indexes
        if index.primary:
            return table
        return replace(table, indexes=(*others, replace(index, tree=txn.new_tree(tree_slot(table.tree)))))

    async def create_index(self, cursor: Cursor, creates: Sequence[IndexCreate]) -> None:
        """Creates indexes one after the other, and fills them from the rows that are there; all or none."""
        if not creates:
            raise JetError(Err.InvalidParameter)
        for spec in creates:
            if spec.grbit & G.IndexUnversioned and self.level:
                raise JetError(Err.InTransaction, "an unversioned index")
        async with self.operation(write=True) as txn:
            table = await self.ddl_table(txn, cursor)
            for position, spec in enumerate(creates):
                try:
                    table = with_index(table, spec, self.instance.parameters)
                    if table.indexes[-1].primary:
                        if await txn.scan(table.tree, limit=1):
                            raise JetError(Err.TableNotEmpty, "a primary index needs an empty table")
                    elif spec.grbit & G.IndexEmpty or not await txn.scan(table.tree, limit=1):
                        table = self.grow_index(txn, table)
                    else:
                        *others, index = table.indexes
                        tree = await build(self.instance.store, txn, table, index)
                        table = replace(table, indexes=(*others, replace(index, tree=tree)))
                except JetError as error:
                    error.data.setdefault("indexPosition", position)
                    raise
            self.publish_table(txn, cursor, table)

    async def delete_index(self, cursor: Cursor, name: str) -> None:
        """Deletes a secondary index. The primary one is the table."""
        check_name(name, "index")
        async with self.operation(write=True) as txn:
            table = await self.ddl_table(txn, cursor)
            index = table.index_by_name.get(fold(name))
            if index is None:
                raise JetError(Err.IndexNotFound, f"index {name}")
            if index.derived:
                raise JetError(Err.FixedInheritedDDL, f"index {name} belongs to the template table")
            if index.primary:
                raise JetError(Err.IndexMustStay, f"index {name}")
            for other in cursor.database.uses[table.objid].cursors:
                if other is not cursor and other.index is not None and fold(other.index.name) == fold(name):
                    raise JetError(Err.IndexInUse, f"index {name}")
            txn.drop_tree(index.tree)
            hints = {key: hint for key, hint in table.options.get("indexHints", {}).items() if key != fold(name)}
            options = {**table.options, "indexHints": hints} if hints else {k: v for k, v in table.options.items() if k != "indexHints"}
            indexes = tuple(i for i in table.indexes if i is not index)
            self.publish_table(txn, cursor, replace(table, indexes=indexes, options=options))
