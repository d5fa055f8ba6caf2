"""What can be asked about tables, columns, indexes, objects: each level's answer, named as on the wire.

Record and page counts in object infos are the last ComputeStats' result, as in ESE; space levels are measured when asked.
Pages are counted as bytes of rows by the instance's page size: the storage below has pages of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import (
    ColInfo,
    IdxInfo,
    ObjInfo,
    Objtyp,
    OpenTableGrbit,
    TblInfo,
)
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.catalog import Stats, check_name, fold
from jetwire_server.engine.columns import column_of
from jetwire_server.engine.described import Answer, column_base, column_def, column_rows, index_create, index_rows, object_info
from jetwire_server.engine.indexes import index_id
from jetwire_server.engine.locales import lcid_of
from jetwire_server.engine.schema import Index, Table
from jetwire_server.engine.systables import system_tables
from jetwire_server.engine.tables import TableCalls
from jetwire_server.engine.temptable import TempCursor
from jetwire_server.engine.values import plan_of

if TYPE_CHECKING:
    from jetwire_server.engine.cursor import Cursor
    from jetwire_server.engine.database import Database
    from jetwire_server.store.interface import Transaction, Tree

_UNAVAILABLE_TABLE_LEVELS = frozenset({TblInfo.OLC, TblInfo.ResetOLC, TblInfo.DumpTable, TblInfo.MostMany})
_SAMPLE_ROWS = 1000


class InfoCalls(TableCalls):
    """A session's questions."""

    # -- tables -----------------------------------------------------------------------------------------------
    async def get_table_info(self, cursor: Cursor, level: int = 0) -> Any:
        """The answer of a `TblInfo` level for the cursor's table."""
        if level in _UNAVAILABLE_TABLE_LEVELS:
            raise JetError(Err.FeatureNotAvailable, f"level {level}")
        if level == TblInfo.Rvt:
            raise JetError(Err.QueryNotSupported, f"level {level}")
        if isinstance(cursor, TempCursor):
            cursor.check_table_info(level)
        ask = _TABLE_LEVELS.get(level)
        if ask is None:
            raise JetError(Err.InvalidParameter, f"level {level}")
        async with self.operation(write=False) as txn:
            return await ask(self, txn, cursor, await self.refresh_table(cursor, txn))

    async def compute_stats(self, cursor: Cursor) -> None:
        """Counts records, entries and pages of the table and its indexes, for the info calls."""
        async with self.operation(write=True) as txn:
            table = await self.refresh_table(cursor, txn)
            _, records, pages = await self._measure(txn, table.tree)
            indexes = {}
            for index in table.indexes:
                key_of = plan_of(table).by_name[fold(index.name)].key_of
                keys, entries, index_pages = (records, records, pages) if index.primary else await self._measure(txn, index.tree, key_of)
                indexes[fold(index.name)] = (entries, keys, index_pages)
            cursor.database.catalog.put_stats(txn, table.objid, Stats(records, pages, indexes))

    async def _measure(
        self, txn: Transaction, tree: Tree, key_of: Callable[[bytes, bytes], bytes] = lambda key, value: key
    ) -> tuple[int, int, int]:
        """What a transaction sees in a tree: its distinct keys, its rows, and the pages their bytes fill."""
        keys = count = weight = 0
        last: bytes | None = None
        low: bytes | None = None
        while True:
            rows = await txn.scan(tree, low, limit=_SAMPLE_ROWS)
            count += len(rows)
            for key, value in rows:
                weight += len(key) + len(value)
                distinct = key_of(key, value)
                keys += distinct != last
                last = distinct
            if len(rows) < _SAMPLE_ROWS:
                page = self.instance.parameters.number(Param.DatabasePageSize)
                return keys, count, -(-weight // page) or 1
            low = rows[-1][0] + b"\0"
            await asyncio.sleep(0)

    async def _pages(self, txn: Transaction, table: Table) -> int:
        trees = {table.tree, table.long_values, *(i.tree for i in table.indexes)}
        return sum([(await self._measure(txn, tree))[2] for tree in trees])

    # -- columns ----------------------------------------------------------------------------------------------
    async def get_column_info(
        self, dbid: int, table_name: str, column: str | int | None = None, level: int = 0, grbit: int = 0
    ) -> Answer | list[Answer]:
        """A column's definition, or all of them, of a table by name."""
        handle = self.database(dbid)
        check_name(table_name, "table")
        async with self.operation(write=False) as txn:
            return self._column_info(await handle.database.catalog.table(txn, table_name), column, level, grbit)

    async def get_table_column_info(
        self, cursor: Cursor, column: str | int | None = None, level: int = 0, grbit: int = 0
    ) -> Answer | list[Answer]:
        async with self.operation(write=False) as txn:
            return self._column_info(await self.refresh_table(cursor, txn), column, level, grbit)

    def _column_info(self, table: Table, column: str | int | None, level: int, grbit: int) -> Answer | list[Answer]:
        if level in (ColInfo.List, ColInfo.ListCompact, ColInfo.ListSortColumnid):
            return column_rows(table, level, grbit)
        if level == ColInfo.SysTabCursor:
            raise JetError(Err.FeatureNotAvailable)
        if level not in (ColInfo.Default, ColInfo.ByColid, ColInfo.Base, ColInfo.BaseByColid) or column is None:
            raise JetError(Err.InvalidParameter, f"level {level}")
        found = column_of(table, column)
        return column_base(table, found) if level in (ColInfo.Base, ColInfo.BaseByColid) else column_def(found)

    # -- indexes ----------------------------------------------------------------------------------------------
    async def get_index_info(self, dbid: int, table_name: str, name: str | None = None, level: int = 0) -> Any:
        """The answer of an `IdxInfo` level for an index, of a table by name."""
        handle = self.database(dbid)
        check_name(table_name, "table")
        async with self.operation(write=False) as txn:
            table = await handle.database.catalog.table(txn, table_name)
            return await self._index_info(txn, handle.database, table, name, level)

    async def get_table_index_info(self, cursor: Cursor, name: str | None = None, level: int = 0) -> Any:
        async with self.operation(write=False) as txn:
            return await self._index_info(txn, cursor.database, await self.refresh_table(cursor, txn), name, level)

    async def _index_info(self, txn: Transaction, database: Database, table: Table, name: str | None, level: int) -> Any:
        if level in (IdxInfo.SysTabCursor, IdxInfo.OLC, IdxInfo.ResetOLC):
            raise JetError(Err.FeatureNotAvailable)
        if level == IdxInfo.Count:
            return len(table.indexes) + (table.primary is None)
        if level in (IdxInfo.Default, IdxInfo.List):
            some = [_index_of(table, name)] if name else list(table.indexes)
            return index_rows(table, some, await database.catalog.stats(txn, table.objid))
        index = _index_of(table, name) if name else table.primary
        if level in (IdxInfo.SpaceOwned, IdxInfo.SpaceAvailable):
            tree = index.tree if index else table.tree
            return (await self._measure(txn, tree))[2] if level == IdxInfo.SpaceOwned else 0
        answer = _INDEX_LEVELS.get(level)
        if answer is None:
            raise JetError(Err.InvalidParameter, f"level {level}")
        if index is None:
            raise JetError(Err.IndexNotFound, "the table has no primary index")
        return answer(table, index)

    # -- objects ----------------------------------------------------------------------------------------------
    async def get_object_info(self, dbid: int, objtyp: int = 0, name: str | None = None, level: int = 0) -> Answer | list[Answer]:
        """One table's object information, or that of all. Tables are the only objects there are."""
        handle = self.database(dbid)
        if objtyp not in (Objtyp.Nil, Objtyp.Table):
            raise JetError(Err.InvalidParameter, f"objtyp {objtyp}")
        catalog = handle.database.catalog
        async with self.operation(write=False) as txn:
            if level in (ObjInfo.List, ObjInfo.ListNoStats):
                rows = []
                for table in [*system_tables(catalog.slot), *await catalog.tables(txn)]:
                    stats = await catalog.stats(txn, table.objid) if level == ObjInfo.List else Stats()
                    info = object_info(table, stats, updatable=not handle.read_only)
                    rows.append({"containername": "Tables", "objectname": table.name, **info})
                return sorted(rows, key=lambda row: fold(row["objectname"]))
            if level not in (ObjInfo.Default, ObjInfo.NoStats):
                raise JetError(
                    Err.FeatureNotAvailable if level in (ObjInfo.SysTabCursor, ObjInfo.ListACM) else Err.InvalidParameter, f"level {level}"
                )
            check_name(name, "object")
            table = await catalog.table(txn, name or "")
            stats = await catalog.stats(txn, table.objid) if level == ObjInfo.Default else Stats()
            return object_info(table, stats, updatable=not handle.read_only)


def _index_of(table: Table, name: str) -> Index:
    check_name(name, "index")
    found = table.index_by_name.get(fold(name))
    if found is None:
        raise JetError(Err.IndexNotFound, f"index {name}")
    return found


# -- one function a level -------------------------------------------------------------------------------------------------
async def _default(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> Answer:
    stats = await cursor.database.catalog.stats(txn, table.objid)
    return object_info(table, stats, updatable=not cursor.grbit & OpenTableGrbit.TableReadOnly)


async def _name(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> str:
    return table.name


async def _dbid(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> int:
    return cursor.dbid


async def _template(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> str:
    return table.template or ""


async def _alloc(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> list[int]:
    return [table.options.get("pages", 0) or 1, table.options.get("density", 80)]


async def _owned(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> int:
    return await calls._pages(txn, table)


async def _available(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> int:
    return 0


async def _usage(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> list[int]:
    return [await calls._pages(txn, table), 0]


async def _owned_long(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> int:
    return (await calls._measure(txn, table.long_values))[2]


async def _chunk(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> int:
    return calls.instance.parameters.number(Param.LVChunkSizeMost)


async def _objid(calls: InfoCalls, txn: Transaction, cursor: Cursor, table: Table) -> int:
    return table.objid


_TABLE_LEVELS: dict[int, Callable[[InfoCalls, Transaction, Cursor, Table], Awaitable[Any]]] = {
    TblInfo.Default: _default,
    TblInfo.Name: _name,
    TblInfo.Dbid: _dbid,
    TblInfo.SpaceUsage: _usage,
    TblInfo.SpaceAlloc: _alloc,
    TblInfo.SpaceOwned: _owned,
    TblInfo.SpaceAvailable: _available,
    TblInfo.TemplateTableName: _template,
    TblInfo.LVChunkMax: _chunk,
    TblInfo.SpaceOwnedLV: _owned_long,
    TblInfo.SpaceAvailableLV: _available,
    TblInfo.ObjectId: _objid,
}

_INDEX_LEVELS: dict[int, Callable[[Table, Index], Any]] = {
    IdxInfo.SpaceAlloc: lambda table, index: index.density,
    IdxInfo.LCID: lambda table, index: lcid_of(index.locale),
    IdxInfo.LocaleName: lambda table, index: index.locale,
    IdxInfo.VarSegMac: lambda table, index: index.var_seg_mac,
    IdxInfo.KeyMost: lambda table, index: index.key_most,
    IdxInfo.IndexId: index_id,
    IdxInfo.CreateIndex: index_create,
    IdxInfo.CreateIndex2: index_create,
    IdxInfo.CreateIndex3: index_create,
}
