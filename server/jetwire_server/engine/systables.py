"""The catalog as tables: MSysObjects, with ESE's columns and indexes, one row for each table, column, index and long-value tree;
and MSysObjids, which finds the table of an object id.

Their rows are written by the same transaction that changes a description, so they can be read, searched and ranged over
like any others, as of the reader's snapshot. MSysObjectsShadow is a second name of the same rows: what ESE keeps twice
against damage is kept once here, under checksums. There is no MSysLocales: an index carries its locale, and the sort weights
have one version.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from jetwire_protocol.data.flags import (
    AddColumnGrbit,
    Coltyp,
    CreateIndexGrbit,
    CreateTableColumnIndexGrbit,
)
from jetwire_server.engine.locales import lcid_of
from jetwire_server.engine.schema import Column, Index, Segment, Table
from jetwire_server.keys.maker import KeyMaker
from jetwire_server.keys.spec import KeySpec, SegmentSpec
from jetwire_server.rows.codec import RowCodec
from jetwire_server.rows.columns import ColumnSpec
from jetwire_server.store.interface import Tree, tree_id, tree_number, tree_slot

MSYS_TREE, MSYS_LONG_TREE = 2, 3  # 4 is `zeroed`'s
NAME_TREE, ROOT_TREE, OBJIDS_TREE, OBJIDS_LONG_TREE = 5, 6, 7, 8
_TYPE_TABLE, _TYPE_COLUMN, _TYPE_INDEX, _TYPE_LONG = 1, 2, 3, 4
_DERIVED = 0x10000000  # JET_bitObjectTableDerived

_COLUMNS = (
    (1, "ObjidTable", Coltyp.Long),
    (2, "Type", Coltyp.Short),
    (3, "Id", Coltyp.Long),
    (4, "ColtypOrPgnoFDP", Coltyp.Long),
    (5, "SpaceUsage", Coltyp.Long),
    (6, "Flags", Coltyp.Long),
    (7, "PagesOrLocale", Coltyp.Long),
    (8, "RootFlag", Coltyp.Bit),
    (9, "RecordOffset", Coltyp.Short),
    (10, "LCMapFlags", Coltyp.Long),
    (11, "KeyMost", Coltyp.UnsignedShort),
    (12, "LVChunkMax", Coltyp.Long),
    (128, "Name", Coltyp.Text),
    (129, "Stats", Coltyp.Binary),
    (130, "TemplateTable", Coltyp.Text),
    (131, "DefaultValue", Coltyp.Binary),
    (132, "KeyFldIDs", Coltyp.Binary),
    (133, "VarSegMac", Coltyp.Binary),
    (134, "ConditionalColumns", Coltyp.Binary),
    (135, "TupleLimits", Coltyp.Binary),
    (256, "CallbackData", Coltyp.LongBinary),
    (257, "CallbackDependencies", Coltyp.LongBinary),
    (258, "SeparateLV", Coltyp.LongBinary),
    (259, "SpaceHints", Coltyp.LongBinary),
    (260, "SpaceDeferredLVHints", Coltyp.LongBinary),
    (261, "LocaleName", Coltyp.LongBinary),
)
_ID = {name: number for number, name, _ in _COLUMNS}
_CODEC = RowCodec(ColumnSpec(number, name, coltyp) for number, name, coltyp in _COLUMNS)
_OBJID_COLUMNS = ((256, "objid", Coltyp.Long), (257, "objidTable", Coltyp.Long), (258, "type", Coltyp.Short))
_OBJID_CODEC = RowCodec(ColumnSpec(number, name, coltyp) for number, name, coltyp in _OBJID_COLUMNS)
_LONG, _SHORT, _BIT = (SegmentSpec(kind, fixed=True) for kind in (Coltyp.Long, Coltyp.Short, Coltyp.Bit))
_NAME = SegmentSpec(Coltyp.Text, cp=1252, max=255)
_PRIMARY = CreateIndexGrbit.IndexPrimary
_UNIQUE_NAMES = CreateIndexGrbit.IndexUnique | CreateIndexGrbit.IndexDisallowNull
_ROOTS = CreateIndexGrbit.IndexUnique | CreateIndexGrbit.IndexIgnoreFirstNull
_KEY = KeyMaker(KeySpec((_LONG, _SHORT, _LONG), _PRIMARY))
_NAME_KEY = KeyMaker(KeySpec((_LONG, _SHORT, _NAME), _UNIQUE_NAMES))
_ROOT_KEY = KeyMaker(KeySpec((_BIT, _NAME), _ROOTS))
_OBJID_KEY = KeyMaker(KeySpec((SegmentSpec(Coltyp.Long),), _PRIMARY))
_SYSTEM = int(CreateTableColumnIndexGrbit.TableCreateSystemTable | CreateTableColumnIndexGrbit.TableCreateFixedDDL)
_NAMES = {"msysobjects": "MSysObjects", "msysobjectsshadow": "MSysObjectsShadow", "msysobjids": "MSysObjids"}
_BINARY_BYTES_MAX = 255

# The engine's own bits of a column and of an index.
_COLUMN_FLAGS = (
    (AddColumnGrbit.ColumnNotNULL, 0x1),
    (AddColumnGrbit.ColumnVersion, 0x2),
    (AddColumnGrbit.ColumnAutoincrement, 0x4),
    (AddColumnGrbit.ColumnMultiValued, 0x8),
    (AddColumnGrbit.ColumnEscrowUpdate, 0x20),
    (AddColumnGrbit.ColumnFinalize, 0x40),
    (AddColumnGrbit.ColumnDeleteOnZero, 0x200),
    (AddColumnGrbit.ColumnCompressed, 0x1000),
    (AddColumnGrbit.ColumnEncrypted, 0x2000),
)
_COLUMN_HAS_DEFAULT = 0x10
_INDEX_FLAGS = (
    (CreateIndexGrbit.IndexDisallowNull, 0x10),
    (CreateIndexGrbit.IndexPrimary, 0x20),
    (CreateIndexGrbit.IndexUnicode, 0x40),
    (CreateIndexGrbit.IndexSortNullsHigh, 0x800),
    (CreateIndexGrbit.IndexCrossProduct, 0x2000),
    (CreateIndexGrbit.IndexDisallowTruncation, 0x4000),
    (CreateIndexGrbit.IndexNestedTable, 0x8000),
)
_UNIQUE, _ALL_NULLS, _FIRST_NULL, _SOME_NULLS, _DERIVED_INDEX = 0x1, 0x2, 0x4, 0x8, 0x200


@lru_cache(maxsize=64)
def system_table(slot: int, folded: str) -> Table | None:
    """The description of a system table of the database in that slot."""
    name = _NAMES.get(folded)
    if name is None:
        return None
    if folded == "msysobjids":
        tree = tree_id(slot, OBJIDS_TREE)
        columns = tuple(_column(*column) for column in _OBJID_COLUMNS)
        indexes: tuple[Index, ...] = (Index("primary", (Segment(256),), _PRIMARY, tree),)
        return Table(name, OBJIDS_TREE, tree, tree_id(slot, OBJIDS_LONG_TREE), columns, indexes, _SYSTEM)
    tree = tree_id(slot, MSYS_TREE)
    columns = tuple(_column(*column) for column in _COLUMNS)
    indexes = (
        Index("Id", (Segment(1), Segment(2), Segment(3)), _PRIMARY, tree),
        Index("Name", (Segment(1), Segment(2), Segment(_ID["Name"])), _UNIQUE_NAMES, tree_id(slot, NAME_TREE)),
        Index("RootObjects", (Segment(_ID["RootFlag"]), Segment(_ID["Name"])), _ROOTS, tree_id(slot, ROOT_TREE)),
    )
    return Table(name, MSYS_TREE, tree, tree_id(slot, MSYS_LONG_TREE), columns, indexes, _SYSTEM)


def system_table_of(slot: int, objid: int) -> Table | None:
    return system_table(slot, {MSYS_TREE: "msysobjects", OBJIDS_TREE: "msysobjids"}.get(objid, ""))


def system_tables(slot: int) -> list[Table]:
    return [table for folded in _NAMES if (table := system_table(slot, folded)) is not None]


def _column(number: int, name: str, coltyp: Coltyp) -> Column:
    sizes = {Coltyp.Bit: 1, Coltyp.Short: 2, Coltyp.UnsignedShort: 2, Coltyp.Long: 4, Coltyp.LongBinary: 0}
    return Column(number, name, coltyp, 1252 if coltyp == Coltyp.Text else 0, sizes.get(coltyp, 255))


# -- rows -----------------------------------------------------------------------------------------------------------------
def rows_of(table: Table | None) -> dict[tuple[Tree, bytes], bytes]:
    """What the system tables hold of a table: its own row, and those of its columns, indexes and long values."""
    if table is None:
        return {}
    rows = [_table_row(table)]
    rows += [_column_row(table, column) for column in table.columns if not column.deleted and not column.derived]
    rows += [_index_row(table, index) for index in table.indexes]
    rows.append({**_base(table, _TYPE_LONG, tree_number(table.long_values), "LV"), "ColtypOrPgnoFDP": tree_number(table.long_values)})
    slot = tree_slot(table.tree)
    out: dict[tuple[Tree, bytes], bytes] = {}
    for row in rows:
        kind, number, name = row["Type"], row["Id"], row["Name"]
        bookmark = _KEY.key((table.objid, kind, number))
        out[tree_id(slot, MSYS_TREE), bookmark] = _CODEC.encode({_ID[column]: value for column, value in row.items()})
        out[tree_id(slot, NAME_TREE), _NAME_KEY.key((table.objid, kind, name))] = bookmark
        if kind == _TYPE_TABLE:
            out[tree_id(slot, ROOT_TREE), _ROOT_KEY.key((True, name))] = bookmark
        if kind == _TYPE_TABLE or (kind != _TYPE_COLUMN and number != table.objid):
            described = _OBJID_CODEC.encode({256: number, 257: table.objid, 258: kind})
            out[tree_id(slot, OBJIDS_TREE), _OBJID_KEY.key((number,))] = described
    return out


def _base(table: Table, kind: int, number: int, name: str) -> dict[str, Any]:
    return {"ObjidTable": table.objid, "Type": kind, "Id": number, "Flags": 0, "Name": name}


def _table_row(table: Table) -> dict[str, Any]:
    row = {
        **_base(table, _TYPE_TABLE, table.objid, table.name),
        "ColtypOrPgnoFDP": tree_number(table.tree),
        "SpaceUsage": table.options.get("density", 80),
        "PagesOrLocale": table.options.get("pages", 0),
        "RootFlag": True,
    }
    if table.template:
        row["TemplateTable"] = table.template
        row["Flags"] = _DERIVED
    return row


def _column_row(table: Table, column: Column) -> dict[str, Any]:
    flags = sum(flag for bit, flag in _COLUMN_FLAGS if column.grbit & bit)
    row = {
        **_base(table, _TYPE_COLUMN, column.id, column.name),
        "ColtypOrPgnoFDP": int(column.coltyp),
        "SpaceUsage": column.max,
        "Flags": flags | (_COLUMN_HAS_DEFAULT if column.default is not None else 0),
        "PagesOrLocale": column.cp,
    }
    if column.default is not None:
        row["DefaultValue"] = column.default[:_BINARY_BYTES_MAX]
    return row


def _index_row(table: Table, index: Index) -> dict[str, Any]:
    multi = any(table.by_id[s.column].grbit & AddColumnGrbit.ColumnMultiValued for s in index.segments)
    row = {
        **_base(table, _TYPE_INDEX, tree_number(index.tree), index.name),
        "ColtypOrPgnoFDP": tree_number(index.tree),
        "SpaceUsage": index.density,
        "Flags": _index_flags(index) | (0x80 if multi else 0),
        "PagesOrLocale": lcid_of(index.locale),
        "LCMapFlags": index.lcmap_flags,
        "KeyMost": index.key_most,
        "KeyFldIDs": b"".join(struct.pack("<HH", s.descending, s.column) for s in index.segments),
        "VarSegMac": struct.pack("<H", index.var_seg_mac),
        "LocaleName": index.locale.encode("utf-16-le"),
    }
    if index.conditions:
        row["ConditionalColumns"] = b"".join(struct.pack("<HH", c.must_be_null, c.column) for c in index.conditions)
    if index.tuples:
        limits_of = index.tuples
        row["TupleLimits"] = struct.pack("<HHHHH", limits_of.min, limits_of.max, limits_of.total, limits_of.step, limits_of.start)
    return row


def _index_flags(index: Index) -> int:
    grbit = index.grbit
    flags = sum(flag for bit, flag in _INDEX_FLAGS if grbit & bit)
    if index.unique:
        flags |= _UNIQUE
    if index.derived:
        flags |= _DERIVED_INDEX
    if not grbit & (CreateIndexGrbit.IndexDisallowNull | CreateIndexGrbit.IndexIgnoreAnyNull):
        flags |= _SOME_NULLS
        if not grbit & CreateIndexGrbit.IndexIgnoreFirstNull:
            flags |= _FIRST_NULL
            if not grbit & CreateIndexGrbit.IndexIgnoreNull:
                flags |= _ALL_NULLS
    return flags
