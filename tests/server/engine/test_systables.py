"""MSysObjects: the catalog as rows, in step with it, as of a snapshot, not to be changed by users."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit, OpenTableGrbit
from jetwire_protocol.errors import Err
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.indexing import normalized_keys
from jetwire_server.engine.schema import Table
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.engine.values import plan_of
from jetwire_server.rows.codec import RowCodec
from jetwire_server.rows.columns import ColumnSpec
from jetwire_server.store.interface import tree_number
from tests.server.engine.refusals import refused
from tests.server.engine.tables_for_tests import all_of, get, ids, key

NAME, TYPE, ROOT = 128, 2, 8


async def rows(session: Session, dbid: int) -> list[dict[int, Any]]:
    cursor = await session.open_table(dbid, "MSysObjects")
    table: Table = cursor.table
    codec = RowCodec(ColumnSpec(c.id, c.name, c.coltyp) for c in table.columns)
    async with session.operation(write=False) as txn:
        found = await txn.scan(table.tree)
    cursor.close()
    assert [key for key, _ in found] == sorted(key for key, _ in found)
    return [codec.decode(row) for _, row in found]


async def names(session: Session, dbid: int) -> set[tuple[int, str]]:
    return {(row[TYPE], row[NAME]) for row in await rows(session, dbid)}


async def test_every_kind_of_ddl_is_mirrored(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    create = TableCreate(
        "t",
        columns=(ColumnCreate("id", Coltyp.Long), ColumnCreate("b", Coltyp.LongText, default="x")),
        indexes=(IndexCreate("pk", ("+id",), int(CreateIndexGrbit.IndexPrimary)),),
    )
    cursor = (await session.create_table_column_index(dbid, create)).cursor
    base = {(1, "t"), (2, "id"), (2, "b"), (3, "pk"), (4, "LV")}
    assert await names(session, dbid) == base
    await other.begin_transaction()
    assert await names(other, other_dbid) == base
    await session.begin_transaction()
    await session.add_column(cursor, "c", ColumnCreate("", Coltyp.Binary))
    await session.create_index(cursor, [IndexCreate("byC", ("-c",))])
    assert await names(session, dbid) == base | {(2, "c"), (3, "byC")}
    assert await names(other, other_dbid) == base
    await session.rollback()
    assert await names(session, dbid) == base
    await session.rename_column(cursor, "b", "d")
    await session.rename_table(dbid, "t", "u")
    await session.delete_column(cursor, "d")
    assert await names(session, dbid) == {(1, "u"), (2, "id"), (3, "pk"), (4, "LV")}
    assert [row[ROOT] for row in await rows(session, dbid) if row[TYPE] == 1] == [True]
    cursor.close()
    await session.delete_table(dbid, "u")
    assert await names(session, dbid) == set()
    assert await names(other, other_dbid) == base


async def test_system_tables_belong_to_the_engine(session: Session, dbid: int) -> None:
    await refused(session.create_table(dbid, "msysobjects"), Err.TableDuplicate)
    await refused(session.delete_table(dbid, "MSysObjects"), Err.CannotDeleteSystemTable)
    await refused(session.rename_table(dbid, "MSysObjects", "mine"), Err.PermissionDenied)
    await refused(session.set_column_default_value(dbid, "MSysObjects", "Name", "x"), Err.PermissionDenied)
    (await session.create_table(dbid, "t")).close()
    await refused(session.rename_table(dbid, "t", "MSYSOBJECTS"), Err.TableDuplicate)
    await refused(session.open_table(dbid, "MSysObjects", int(OpenTableGrbit.TableUpdatable)), Err.PermissionDenied)
    cursor = await session.open_table(dbid, "MSysObjectsShadow")
    assert cursor.grbit & OpenTableGrbit.TableReadOnly
    await refused(session.add_column(cursor, "x", ColumnCreate("", Coltyp.Long)), Err.PermissionDenied)
    listed: Any = await session.get_object_info(dbid, level=1)
    assert [row["objectname"] for row in listed] == ["MSysObjects", "MSysObjectsShadow", "MSysObjids", "t"]
    assert listed[0]["flags"] & 0x80000000


CREATE = TableCreate(
    "Things",
    columns=(ColumnCreate("id", Coltyp.Long), ColumnCreate("Zulu", Coltyp.Binary), ColumnCreate("alpha", Coltyp.Binary)),
    indexes=(IndexCreate("pk", ("+id",), int(CreateIndexGrbit.IndexPrimary)), IndexCreate("byZ", ("+Zulu",))),
)


async def test_the_indexes_of_the_catalog_find_by_name(session: Session, dbid: int) -> None:
    made = (await session.create_table_column_index(dbid, CREATE)).cursor
    for name in ("Other", "another"):
        (await session.create_table(dbid, name)).close()
    msys = await session.open_table(dbid, "MSysObjects")
    await msys.set_current_index("RootObjects")
    assert await all_of(msys, "Name") == ["another", "Other", "Things"]
    key(msys, True, "THINGS")
    await msys.seek(1)
    assert await get(msys, "ObjidTable") == made.table.objid
    await msys.set_current_index("Name")
    key(msys, made.table.objid, 2, "zulu")
    await msys.seek(1)
    assert await get(msys, "Id") == ids(made)["Zulu"]
    await session.rename_column(made, "Zulu", "beta")
    assert [name for name in await all_of(msys, "Name") if name in ("alpha", "beta", "Zulu", "id")] == ["alpha", "beta", "id"]
    made.close()
    await session.rename_table(dbid, "Things", "aardvark")
    await session.delete_table(dbid, "Other")
    await msys.set_current_index("RootObjects")
    assert await all_of(msys, "Name") == ["aardvark", "another"]


async def test_an_object_id_leads_to_its_table(session: Session, dbid: int) -> None:
    made = (await session.create_table_column_index(dbid, CREATE)).cursor
    objids = await session.open_table(dbid, "MSysObjids")
    found = {}
    for number in await all_of(objids, "objid"):
        key(objids, number)
        await objids.seek(1)
        found[number] = (await get(objids, "objidTable"), await get(objids, "type"))
    objid, by_z = made.table.objid, tree_number(made.table.indexes[1].tree)
    assert found == {objid: (objid, 1), by_z: (objid, 3), tree_number(made.table.long_values): (objid, 4)}
    await session.delete_index(made, "byZ")
    assert await all_of(objids, "objid") == sorted({objid, tree_number(made.table.long_values)})


async def test_the_entries_are_those_the_indexes_would_make(session: Session, dbid: int) -> None:
    """The mirror makes keys with makers of its own: they must be the ones cursors seek with."""
    (await session.create_table_column_index(dbid, CREATE)).cursor.close()
    for name in ("MSysObjects", "MSysObjids"):
        cursor = await session.open_table(dbid, name)
        plan = plan_of(cursor.table)
        async with session.operation(write=False) as txn:
            rows = await txn.scan(cursor.table.tree)
            assert [k for k, _ in rows] == [normalized_keys(plan.rows, plan.codec.decode(row))[0] for _, row in rows]
            for index in plan.secondary:
                entries = sorted((k, bookmark) for bookmark, row in rows for k in normalized_keys(index, plan.codec.decode(row)))
                assert await txn.scan(index.tree) == entries
