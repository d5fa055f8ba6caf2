"""A database in which tables and columns come and go for days: what is remembered of them, in memory and in the catalog."""

from __future__ import annotations

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp
from jetwire_server import limits
from jetwire_server.engine.catalog import CATALOG_TREE
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.store.interface import tree_id
from tests.server.engine.tables_for_tests import all_of, insert

NUMBERED = (ColumnCreate("auto", Coltyp.Long, grbit=AddColumnGrbit.ColumnAutoincrement), ColumnCreate("n", Coltyp.Long))


async def in_the_catalog(instance: Instance) -> set[bytes]:
    txn = await instance.store.begin()
    rows = await txn.scan(tree_id(next(iter(instance.databases)), CATALOG_TREE))
    await txn.rollback()
    return {key for key, _ in rows}


async def a_life(session: Session, dbid: int, name: str) -> None:
    cursor = (await session.create_table_column_index(dbid, TableCreate(name, columns=NUMBERED))).cursor
    await insert(cursor, n=1)
    cursor.close()
    cursor = await session.open_table(dbid, name)
    await insert(cursor, n=2)
    cursor.close()


async def test_tables_that_went_leave_nothing(session: Session, instance: Instance, dbid: int) -> None:
    database = session.database(dbid).database
    before = await in_the_catalog(instance)
    for number in range(10):
        await a_life(session, dbid, f"deleted{number}")
        await session.delete_table(dbid, f"deleted{number}")
    assert await in_the_catalog(instance) == before

    for number in range(10):
        await session.begin_transaction()
        await a_life(session, dbid, f"never{number}")
        await session.begin_transaction()
        await a_life(session, dbid, f"inner{number}")
        await session.rollback()
        await (session.rollback() if number % 2 else session.delete_table(dbid, f"never{number}"))
        if session.level:
            await session.commit_transaction()
    assert not database.counters(instance)._counters
    assert not database.catalog._decoded
    assert database.catalog._weight == 0


async def test_a_table_that_stays_goes_on_numbering(session: Session, instance: Instance, dbid: int) -> None:
    await session.begin_transaction()
    await a_life(session, dbid, "t")
    await session.begin_transaction()
    await session.delete_table(dbid, "t")
    await session.rollback()
    await session.commit_transaction()
    cursor = await session.open_table(dbid, "t")
    assert session.database(dbid).database.catalog._decoded
    await insert(cursor, n=3)
    assert await all_of(cursor, "auto") == [1, 2, 3]


async def test_of_a_table_that_is_changed_again_and_again_two_descriptions_are_kept(session: Session, dbid: int) -> None:
    catalog = session.database(dbid).database.catalog
    cursor = await session.create_table(dbid, "t")
    for number in range(200):
        await session.add_column(cursor, f"c{number}", ColumnCreate("", Coltyp.LongText, cp=1200))
        await insert(cursor)
        if number:
            await session.delete_column(cursor, f"c{number - 1}")
    assert [len(kept) for kept in catalog._decoded.values()] == [2]


async def test_what_is_remembered_of_many_tables_is_bounded(session: Session, dbid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CATALOG_COLUMNS_MAX", 100)
    catalog = session.database(dbid).database.catalog
    for number in range(30):
        await a_life(session, dbid, f"t{number}")
        assert catalog._weight <= 100
    assert 5 < len(catalog._decoded) < 20
    for number in range(30):
        assert (await session.open_table(dbid, f"t{number}")).table.name == f"t{number}"
    assert catalog._weight <= 100
