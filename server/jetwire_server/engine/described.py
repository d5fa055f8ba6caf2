"""A table, its columns and its indexes as info calls tell of them: each structure a dictionary, named as on the wire."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import (
    AddColumnGrbit,
    ColInfo,
    ColInfoGrbit,
    Conditionalcolumn,
    CreateTableColumnIndexGrbit,
    ObjectinfoFlags,
    ObjectinfoGrbit,
    Objtyp,
)
from jetwire_server.engine.catalog import Stats, fold
from jetwire_server.engine.columns import default_value
from jetwire_server.engine.locales import lcid_of
from jetwire_server.engine.schema import Column, Index, Table

A = AddColumnGrbit
Answer = dict[str, Any]
_STORED_BITS = (
    A.ColumnNotNULL
    | A.ColumnVersion
    | A.ColumnAutoincrement
    | A.ColumnMultiValued
    | A.ColumnEscrowUpdate
    | A.ColumnFinalize
    | A.ColumnDeleteOnZero
    | A.ColumnCompressed
    | A.ColumnEncrypted
)
_FLAGS = (
    (CreateTableColumnIndexGrbit.TableCreateFixedDDL, ObjectinfoFlags.ObjectTableFixedDDL),
    (CreateTableColumnIndexGrbit.TableCreateTemplateTable, ObjectinfoFlags.ObjectTableTemplate),
    (
        CreateTableColumnIndexGrbit.TableCreateNoFixedVarColumnsInDerivedTables,
        ObjectinfoFlags.ObjectTableNoFixedVarColumnsInDerivedTables,
    ),
    (CreateTableColumnIndexGrbit.TableCreateSystemTable, ObjectinfoFlags.ObjectSystem),
)
_KEY_DESCENDING = 1


def column_grbit(column: Column, *, updatable: bool = True) -> int:
    """A column's bits as info calls show them: how it is stored, and what it was created with."""
    grbit = column.grbit & _STORED_BITS
    if column.fixed:
        grbit |= A.ColumnFixed
    if column.tagged:
        grbit |= A.ColumnTagged
    if updatable:
        grbit |= A.ColumnUpdatable
    return int(grbit)


def column_def(column: Column, *, updatable: bool = True) -> Answer:
    return {
        "columnid": column.id,
        "coltyp": int(column.coltyp),
        "cp": column.cp,
        "max": column.max,
        "grbit": column_grbit(column, updatable=updatable),
    }


def column_base(table: Table, column: Column) -> Answer:
    base = table.template if column.derived and table.template else table.name
    return {**column_def(column), "baseTableName": base, "baseColumnName": column.name}


def column_rows(table: Table, level: int, grbit: int) -> list[Answer]:
    """One row a column: by name, or by columnid where that is asked."""
    columns = [c for c in table.by_id.values() if not (c.derived and grbit & ColInfoGrbit.NonDerivedColumnsOnly)]
    if level == ColInfo.ListSortColumnid or grbit & ColInfoGrbit.SortByColumnid:
        columns.sort(key=lambda c: c.id)
    else:
        columns.sort(key=lambda c: fold(c.name))
    order = {c.id: position for position, c in enumerate(table.by_id.values(), 1)}
    if grbit & ColInfoGrbit.MinimalInfo:
        return [{"columnname": c.name, "columnid": c.id} for c in columns]
    return [
        {
            "presentationOrder": order[c.id],
            "columnname": c.name,
            **column_base(table, c),
            "defaultValue": default_value(c),
        }
        for c in columns
    ]


def index_create(table: Table, index: Index) -> Answer:
    """JET_INDEXCREATE of an index that is there."""
    names = {c.id: c.name for c in table.columns}
    return {
        "name": index.name,
        "key": [("-" if s.descending else "+") + names[s.column] for s in index.segments],
        "grbit": int(index.grbit),
        "density": index.density,
        "lcid": lcid_of(index.locale),
        "unicodeIndex": {"lcid": lcid_of(index.locale), "localeName": index.locale, "mapFlags": index.lcmap_flags},
        "varSegMac": index.var_seg_mac,
        "tupleLimits": index.tuples
        and {
            "lengthMin": index.tuples.min,
            "lengthMax": index.tuples.max,
            "toIndexMax": index.tuples.total,
            "increment": index.tuples.step,
            "start": index.tuples.start,
        },
        "conditionalColumns": [
            {
                "name": names[c.column],
                "grbit": int(Conditionalcolumn.IndexColumnMustBeNull if c.must_be_null else Conditionalcolumn.IndexColumnMustBeNonNull),
            }
            for c in index.conditions
        ],
        "keyMost": index.key_most,
        "spaceHints": table.options.get("indexHints", {}).get(fold(index.name)),
    }


def index_rows(table: Table, indexes: list[Index], stats: Stats) -> list[Answer]:
    """One row for each key column of each index."""
    out = []
    for index in indexes:
        entries, keys, pages = stats.indexes.get(fold(index.name), (0, 0, 0))
        for position, segment in enumerate(index.segments):
            column = table.by_id[segment.column]
            out.append(
                {
                    "indexname": index.name,
                    "grbitIndex": int(index.grbit),
                    "keyCount": keys,
                    "entryCount": entries,
                    "pageCount": pages,
                    "columnCount": len(index.segments),
                    "columnIndex": position,
                    "columnid": column.id,
                    "coltyp": int(column.coltyp),
                    "langid": lcid_of(index.locale),
                    "localeName": index.locale,
                    "cp": column.cp,
                    "grbitColumn": _KEY_DESCENDING if segment.descending else 0,
                    "columnname": column.name,
                    "mapFlags": index.lcmap_flags,
                }
            )
    return out


def object_info(table: Table, stats: Stats, *, updatable: bool) -> Answer:
    grbit = ObjectinfoGrbit.TableInfoBookmark | ObjectinfoGrbit.TableInfoRollback
    if updatable:
        grbit |= ObjectinfoGrbit.TableInfoUpdatable
    flags = 0
    for bit, flag in _FLAGS:
        if table.grbit & bit:
            flags |= int(flag)
    if table.template:
        flags |= int(ObjectinfoFlags.ObjectTableDerived)
    return {"objtyp": int(Objtyp.Table), "grbit": int(grbit), "flags": flags, "records": stats.records, "pages": stats.pages}
