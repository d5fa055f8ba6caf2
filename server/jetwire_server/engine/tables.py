"""Tables: create (plain, template, derived), open, rename, delete; and how DDL reaches the catalog and the cursors."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import CreateIndexGrbit, CreateTableColumnIndexGrbit, OpenTableGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine import autoincrement
from jetwire_server.engine.catalog import check_name, fold, table_key
from jetwire_server.engine.columns import ColumnCreate, with_column
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.hints import DENSITIES, check_hints
from jetwire_server.engine.indexes import IndexCalls, IndexCreate, with_index
from jetwire_server.engine.longtrees import values_with_trees
from jetwire_server.engine.schema import Column, Table
from jetwire_server.engine.values import plan_of
from jetwire_server.store.interface import tree_number

if TYPE_CHECKING:
    from jetwire_server.engine.database import OpenDatabase
    from jetwire_server.store.interface import Transaction

C = CreateTableColumnIndexGrbit
O = OpenTableGrbit  # noqa: E741
_CREATE_BITS = int(
    C.TableCreateFixedDDL | C.TableCreateTemplateTable | C.TableCreateNoFixedVarColumnsInDerivedTables | C.TableCreateImmutableStructure
)
_TABLE_CLASSES = 0x1F0000
_OPEN_BITS = _TABLE_CLASSES | int(
    O.TableDenyWrite
    | O.TableDenyRead
    | O.TableReadOnly
    | O.TableUpdatable
    | O.TablePermitDDL
    | O.TableNoCache
    | O.TablePreread
    | O.TableOpportuneRead
    | O.TableAllowOutOfDate
    | O.TableSequential
    | O.TableTryPurgeOnClose
    | O.TableAllowSensitiveOperation
)
CREATED = int(O.TableDenyRead | O.TableDenyWrite | O.TablePermitDDL | O.TableUpdatable)
DENSITY_DEFAULT = 80


@dataclass(frozen=True, slots=True)
class TableCreate:
    """JET_TABLECREATE: a table to be, with its columns and indexes."""

    name: str
    template: str | None = None
    pages: int = 0
    density: int = 0
    columns: tuple[ColumnCreate, ...] = ()
    indexes: tuple[IndexCreate, ...] = ()
    callback: str | None = None
    cbtyp: int = 0
    grbit: int = 0
    options: dict[str, Any] | None = None  # space hints and separateLV: kept for the info calls


@dataclass(frozen=True, slots=True)
class Created:
    """What CreateTableColumnIndex made: the cursor, the count of objects, and the columns' ids in order."""

    cursor: Cursor
    created: int
    columnids: tuple[int, ...]


async def _nothing_higher(txn: Transaction) -> int:
    return 0


def check_density(density: int) -> int:
    if density == 0:
        return DENSITY_DEFAULT
    if density not in DENSITIES:
        raise JetError(Err.DensityInvalid, f"density {density}")
    return density


class TableCalls(IndexCalls):
    """A session's calls on tables."""

    # -- create -----------------------------------------------------------------------------------------------
    async def create_table(self, dbid: int, name: str, pages: int = 0, density: int = 0) -> Cursor:
        """An empty table; the cursor has it to itself."""
        return (await self.create_table_column_index(dbid, TableCreate(name, pages=pages, density=density))).cursor

    async def create_table_column_index(self, dbid: int, create: TableCreate) -> Created:
        """A table with its columns and indexes at once, or nothing of it."""
        self.check()
        handle = self.database(dbid)
        check_name(create.name, "table")
        if create.grbit & ~_CREATE_BITS:
            raise JetError(Err.InvalidGrbit)
        if create.callback:
            raise JetError(Err.CallbackNotResolved, create.callback)
        if create.template is not None and create.grbit & C.TableCreateTemplateTable:
            raise JetError(Err.CannotNestDDL)
        if create.pages < 0:
            raise JetError(Err.InvalidParameter, "pages")
        if self.level and any(index.grbit & CreateIndexGrbit.IndexUnversioned for index in create.indexes):
            raise JetError(Err.InTransaction, "an unversioned index")
        density = check_density(create.density)
        for name in ("seqSpacehints", "lvSpacehints"):
            check_hints((create.options or {}).get(name))
        self._room_for_cursor(handle)
        with ExitStack() as unless_made:
            async with self.operation(write=True) as txn:
                self.check_writable(handle)
                catalog = handle.database.catalog
                table = await self._blank(txn, handle, create, density)
                if await catalog.find(txn, create.name) is not None:
                    raise JetError(Err.TableDuplicate, f"table {create.name}")
                ids: list[int] = []
                warning = 0
                for position, column in enumerate(create.columns):
                    try:
                        table, made, warned = with_column(table, column, exclusive=True)
                    except JetError as error:
                        error.data.setdefault("columnPosition", position)
                        raise
                    ids.append(made.id)
                    warning = warning or warned
                for position, index in enumerate(create.indexes):
                    try:
                        table = with_index(table, index, self.instance.parameters)
                        table = self.grow_index(txn, table)
                    except JetError as error:
                        error.data.setdefault("indexPosition", position)
                        raise
                catalog.add(txn, table)
                txn.lock_schema(table.tree, exclusive=True)
                self.schema_changed(handle.database.slot)
                self._forget_if_gone(handle, table)
                cursor = self._open_cursor(handle, table, CREATED)  # before others see the table: it has it to itself
                unless_made.callback(cursor.close)
            unless_made.pop_all()
        self.warning = warning
        created = 1 + len(create.columns) + len(create.indexes)
        return Created(cursor, created, tuple(ids))

    async def _blank(self, txn: Transaction, handle: OpenDatabase, create: TableCreate, density: int) -> Table:
        """A table without columns, or with those of its template."""
        slot = handle.database.slot
        grbit = create.grbit
        if grbit & C.TableCreateTemplateTable:
            grbit |= int(C.TableCreateFixedDDL)
        tree = txn.new_tree(slot)
        options = {"density": density, "pages": create.pages, "created": self.instance.clock.now(), **(create.options or {})}
        table = Table(create.name, tree_number(tree), tree, txn.new_tree(slot), grbit=int(grbit), options=options)
        if create.template is None:
            return table
        template = await handle.database.catalog.find(txn, create.template)
        if template is None:
            raise JetError(Err.ObjectNotFound, f"template table {create.template}")
        if not template.grbit & C.TableCreateTemplateTable:
            raise JetError(Err.DDLNotInheritable, f"{create.template} is no template table")
        table = replace(
            table,
            template=template.name,
            columns=tuple(replace(c, derived=True) for c in template.columns),
            grbit=int(grbit | template.grbit & C.TableCreateNoFixedVarColumnsInDerivedTables),
        )
        for index in template.indexes:
            own = tree if index.primary else txn.new_tree(slot)
            table = replace(table, indexes=(*table.indexes, replace(index, derived=True, tree=own)))
        return table

    # -- open and close -----------------------------------------------------------------------------------------
    async def open_table(self, dbid: int, name: str, grbit: int = 0) -> Cursor:
        """A cursor on the table, on its clustered index, before use on its first record."""
        self.check()
        handle = self.database(dbid)
        check_name(name, "table")
        if grbit & ~_OPEN_BITS or (grbit & O.TableReadOnly and grbit & O.TableUpdatable):
            raise JetError(Err.InvalidGrbit)
        if grbit & O.TablePermitDDL and not grbit & O.TableDenyRead:
            raise JetError(Err.InvalidGrbit, "PermitDDL needs DenyRead")
        self._room_for_cursor(handle)
        if handle.read_only:
            if grbit & O.TableUpdatable:
                raise JetError(Err.InvalidGrbit, "the database is read only")
            grbit |= int(O.TableReadOnly)
        txn = await self.enter(False)
        try:
            table = await handle.database.catalog.table(txn, name)
            snapshot = txn.snapshot
        finally:
            if self.level == 0:
                await self.leave(txn)
        if table.grbit & C.TableCreateSystemTable:
            if grbit & (O.TableUpdatable | O.TableDenyRead | O.TableDenyWrite):
                raise JetError(Err.PermissionDenied, f"table {name}")
            grbit |= int(O.TableReadOnly)
        use = handle.database.uses.get(table.objid)
        if use is not None:
            use.check(self, grbit)
        else:
            self._room_for_table()
        cursor = self._open_cursor(handle, table, grbit)
        cursor.stamp = handle.database.catalog.fresh(snapshot)
        return cursor

    async def close_table(self, tableid: int) -> None:
        """Closes a cursor. Also after StopService."""
        if self.refusal is not None and self.refusal != Err.ClientRequestToStopJetService:
            raise JetError(self.refusal)
        self.cursor(tableid).close()

    def cursor(self, tableid: int) -> Cursor:
        found = self.cursors.get(tableid)
        if found is None:
            raise JetError(Err.InvalidTableId, f"tableid {tableid}")
        return found

    async def refresh_table(self, cursor: Cursor, txn: Transaction) -> Table:
        """The cursor's table as the transaction sees it now, kept in the cursor for as long as it stays true."""
        catalog = cursor.database.catalog
        stamp = catalog.fresh(txn.snapshot)
        table = await catalog.by_objid(txn, cursor.table.objid)
        if table is None:
            raise JetError(Err.ObjectNotFound, f"table {cursor.table.name}")
        cursor.take_description(table, stamp)
        return table

    # -- rename and delete ----------------------------------------------------------------------------------------
    async def rename_table(self, dbid: int, name: str, new_name: str) -> None:
        self.check()
        handle = self.database(dbid)
        check_name(name, "table")
        check_name(new_name, "table")
        async with self.operation(write=True) as txn:
            self.check_writable(handle)
            table = await handle.database.catalog.table(txn, name)
            if table.grbit & C.TableCreateSystemTable:
                raise JetError(Err.PermissionDenied, f"table {name}")
            txn.lock_schema(table.tree, exclusive=True)
            catalog = handle.database.catalog
            catalog.rename(txn, table, replace(table, name=new_name))
            if table.grbit & C.TableCreateTemplateTable:
                for derived in await catalog.tables(txn):
                    if derived.template is not None and fold(derived.template) == fold(name):
                        catalog.replace(txn, derived, replace(derived, template=new_name))
            self.schema_changed(handle.database.slot)

    async def delete_table(self, dbid: int, name: str, grbit: int = 0) -> None:
        """Deletes a table that nobody has open. Its space is freed lazily, after the commit."""
        self.check()
        if grbit:
            raise JetError(Err.InvalidGrbit)
        handle = self.database(dbid)
        check_name(name, "table")
        async with self.operation(write=True) as txn:
            self.check_writable(handle)
            table = await handle.database.catalog.table(txn, name)
            if table.grbit & C.TableCreateSystemTable:
                raise JetError(Err.CannotDeleteSystemTable, f"table {name}")
            if table.grbit & C.TableCreateTemplateTable:
                raise JetError(Err.CannotDeleteTemplateTable, f"table {name}")
            if table.objid in handle.database.uses:
                raise JetError(Err.TableInUse, f"table {name}")
            txn.lock_schema(table.tree, exclusive=True)
            handle.database.catalog.remove(txn, table)
            big = [tree for value in (await values_with_trees(txn, table)).values() for tree in value.own_trees]
            for tree in {table.tree, table.long_values, *big, *(i.tree for i in table.indexes)}:
                txn.drop_tree(tree)
            self.schema_changed(handle.database.slot)
            self._forget_if_gone(handle, table)

    def _forget_if_gone(self, handle: OpenDatabase, table: Table) -> None:
        """At the transaction's end, whichever that is: what is remembered of a table that is not there."""
        database, instance = handle.database, self.instance

        def ended(committed: bool) -> None:
            with suppress(JetError):  # the storage failed, and nothing is remembered for long
                if instance.store.newest(database.catalog.tree, table_key(table.objid))[0] is None:
                    database.counters(instance).forget(table.objid)
                    database.catalog.forget(table.objid)

        self.at_end.append(ended)

    # -- what all DDL does ----------------------------------------------------------------------------------------
    async def ddl_table(self, txn: Transaction, cursor: Cursor, *, fixed_ddl: bool = True) -> Table:
        if not cursor.stored:
            raise JetError(Err.IllegalOperation, "a temporary table keeps the columns and the index it was made with")
        if cursor.grbit & O.TableReadOnly:
            raise JetError(Err.PermissionDenied, "the cursor is read only")
        table = await self.refresh_table(cursor, txn)
        if fixed_ddl and table.grbit & C.TableCreateFixedDDL and not cursor.grbit & O.TablePermitDDL:
            raise JetError(Err.FixedDDL, f"table {table.name}")
        txn.lock_schema(table.tree, exclusive=True)
        return table

    async def number_rows(self, txn: Transaction, cursor: Cursor, table: Table, column: Column) -> None:
        codec = plan_of(table).codec
        number = 0
        low: bytes | None = None
        while rows := await txn.scan(table.tree, low):
            for key, row in rows:
                number += 1
                txn.put(table.tree, key, codec.patch(row, {column.id: number}))
            low = rows[-1][0] + b"\0"
        if number:
            counters = cursor.database.counters(self.instance)
            await counters.raise_to(table.objid, autoincrement.AUTO_INCREMENT, number, _nothing_higher)

    def publish_table(self, txn: Transaction, cursor: Cursor, table: Table) -> None:
        cursor.database.catalog.replace(txn, cursor.table, table)
        self.schema_changed(cursor.database.slot)
        cursor.table = table
        cursor.stamp = -1
        cursor.reset()

    # -- inside -----------------------------------------------------------------------------------------------
    def check_writable(self, handle: OpenDatabase) -> None:
        if handle.read_only:
            raise JetError(Err.DatabaseFileReadOnly, handle.database.path)

    def _room_for_cursor(self, handle: OpenDatabase) -> None:
        if len(self.instance.cursors) >= self.instance.parameters.number(Param.MaxCursors):
            raise JetError(Err.OutOfCursors)

    def _room_for_table(self) -> None:
        if sum(len(d.uses) for d in self.instance.databases.values()) >= self.instance.parameters.number(Param.MaxOpenTables):
            raise JetError(Err.TooManyOpenTables)

    def _open_cursor(self, handle: OpenDatabase, table: Table, grbit: int) -> Cursor:
        cursor = Cursor(self, handle, table, self.instance.engine.new_handle(), grbit)  # type: ignore[arg-type]
        self.cursors[cursor.id] = cursor
        self.instance.cursors[cursor.id] = cursor
        handle.database.use(table.objid).cursors.append(cursor)
        return cursor

    def duplicate_cursor(self, cursor: Cursor) -> Cursor:
        """Another cursor on the same table, opened as the first one was."""
        handle = self.database(cursor.dbid)
        self._room_for_cursor(handle)
        return self._open_cursor(handle, cursor.table, cursor.grbit)

    def forget_cursor(self, cursor: Cursor) -> None:
        """A closed cursor: the table may be deleted, the handle is dead."""
        self.cursors.pop(cursor.id, None)
        self.instance.cursors.pop(cursor.id, None)
        cursor.database.release(cursor)
