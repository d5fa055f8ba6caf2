"""Creating an index on a table that has rows: all its entries, unique clashes, rollback, writers beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit, Prep
from jetwire_protocol.errors import Err
from jetwire_server import limits
from jetwire_server.engine import info, ranges
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.ranges import intersect_indexes
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.engine.values import plan_of
from tests.server.engine.on_files import engine_on, started
from tests.server.engine.refusals import refused
from tests.server.engine.tables_for_tests import FIRST, all_of, ids, insert, key

ROWS = 2500
UNIQUE = int(CreateIndexGrbit.IndexUnique)
TABLE = TableCreate(
    "t",
    columns=(
        ColumnCreate("id", Coltyp.Long),
        ColumnCreate("n", Coltyp.Long),
        ColumnCreate("tags", Coltyp.LongText, grbit=int(AddColumnGrbit.ColumnMultiValued)),
    ),
    indexes=(IndexCreate("pk", ("+id",), int(CreateIndexGrbit.IndexPrimary)),),
)


async def fill(session: Session, cursor: Cursor, value: Callable[[int], int]) -> None:
    plan = plan_of(cursor.table)
    assert plan.rows.maker is not None
    ids = {c.name: c.id for c in cursor.table.columns}
    async with session.operation(write=True) as txn:
        for n in range(ROWS):
            row = plan.codec.encode({ids["id"]: n, ids["n"]: value(n), ids["tags"]: [f"a{n % 7}", f"b{n % 5}"]})
            txn.insert(cursor.table.tree, plan.rows.maker.key([n]), row)


@pytest.fixture
async def cursor(session: Session, dbid: int) -> Cursor:
    return (await session.create_table_column_index(dbid, TABLE)).cursor


async def entries(session: Session, cursor: Cursor, name: str) -> list[tuple[bytes, bytes]]:
    async with session.operation(write=False) as txn:
        table = await session.refresh_table(cursor, txn)
        return await txn.scan(table.index_by_name[name].tree, limit=3 * ROWS)


async def test_every_row_gets_its_entries(session: Session, cursor: Cursor) -> None:
    await fill(session, cursor, lambda n: -n)
    await session.create_index(cursor, [IndexCreate("byN", ("+n",), UNIQUE), IndexCreate("byTag", ("+tags",))])
    unique = await entries(session, cursor, "byn")
    keys = plan_of(cursor.table).rows.maker
    assert keys is not None
    assert [bookmark for _, bookmark in unique] == [keys.key([n]) for n in reversed(range(ROWS))]
    assert len(await entries(session, cursor, "bytag")) == 2 * ROWS


@pytest.mark.parametrize("clash", [1, 1500])
async def test_a_clash_leaves_no_index(session: Session, cursor: Cursor, clash: int) -> None:
    await fill(session, cursor, lambda n: 0 if n == clash else n)
    error = await refused(session.create_index(cursor, [IndexCreate("byN", ("+n",), UNIQUE)]), Err.KeyDuplicate)
    assert error.data["indexname"] == "byN"
    assert await session.get_table_index_info(cursor, level=7) == 1
    await session.create_index(cursor, [IndexCreate("byN", ("+n",))])


async def test_an_empty_index_and_a_rolled_back_one(session: Session, cursor: Cursor) -> None:
    await fill(session, cursor, lambda n: n)
    await session.begin_transaction()
    await session.create_index(cursor, [IndexCreate("byN", ("+n",))])
    assert len(await entries(session, cursor, "byn")) == ROWS
    await session.rollback()
    assert await session.get_table_index_info(cursor, level=7) == 1
    bits = int(CreateIndexGrbit.IndexEmpty | CreateIndexGrbit.IndexIgnoreAnyNull)
    await session.create_index(cursor, [IndexCreate("byN", ("+n",), bits)])
    assert await entries(session, cursor, "byn") == []
    await refused(session.create_index(cursor, [IndexCreate("p", ("+n",), int(CreateIndexGrbit.IndexPrimary))]), Err.IndexHasPrimary)


async def test_writers_and_builders_never_miss_each_other(
    session: Session, other: Session, dbid: int, other_dbid: int, cursor: Cursor
) -> None:
    await fill(session, cursor, lambda n: n)
    cursor.close()
    mine, theirs = await session.open_table(dbid, "t"), await other.open_table(other_dbid, "t")
    plan = plan_of(theirs.table)
    assert plan.rows.maker is not None
    late = plan.rows.maker.key([ROWS]), plan.codec.encode({1: ROWS, 2: ROWS})
    await other.begin_transaction()
    async with other.operation(write=True) as txn:
        txn.lock_schema(theirs.table.tree)
        txn.insert(theirs.table.tree, *late)
    index = IndexCreate("byN", ("+n",))
    await refused(session.create_index(mine, [index]), Err.WriteConflict)
    await session.begin_transaction()
    assert await session.get_table_index_info(mine, level=7) == 1
    await other.commit_transaction()
    await refused(session.create_index(mine, [index]), Err.WriteConflict)
    await session.rollback()
    await session.create_index(mine, [index])
    assert len(await entries(session, mine, "byn")) == ROWS + 1


async def test_a_primary_index_needs_an_empty_table(session: Session, dbid: int) -> None:
    cursor = await session.create_table(dbid, "heap")
    await session.add_column(cursor, "a", ColumnCreate("", Coltyp.Long))
    async with session.operation(write=True) as txn:
        txn.insert(cursor.table.tree, b"\0\0\0\1", plan_of(cursor.table).codec.encode({1: 1}))
    primary = IndexCreate("pk", ("+a",), int(CreateIndexGrbit.IndexPrimary))
    await refused(session.create_index(cursor, [primary]), Err.TableNotEmpty)
    escrow = ColumnCreate("", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnEscrowUpdate), default=0)
    await refused(session.add_column(cursor, "e", escrow), Err.TableNotEmpty)


async def test_a_new_auto_increment_column_numbers_the_rows(session: Session, cursor: Cursor) -> None:
    await fill(session, cursor, lambda n: n)
    column = await session.add_column(cursor, "auto", ColumnCreate("", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnAutoincrement)))
    async with session.operation(write=False) as txn:
        rows = await txn.scan(cursor.table.tree, limit=2 * ROWS)
    codec = plan_of(cursor.table).codec
    assert [codec.decode(row)[column] for _, row in rows] == list(range(1, ROWS + 1))


async def test_statistics_count_records_entries_and_keys(session: Session, cursor: Cursor) -> None:
    await fill(session, cursor, lambda n: n % 10)
    await session.create_index(cursor, [IndexCreate("byN", ("+n",))])
    assert (await session.get_table_info(cursor))["records"] == 0
    await session.compute_stats(cursor)
    assert (await session.get_table_info(cursor))["records"] == ROWS
    row = (await session.get_table_index_info(cursor, "byN"))[0]
    assert (row["keyCount"], row["entryCount"]) == (10, ROWS)
    assert row["pageCount"] > 1


async def test_entries_of_a_new_index_change_in_the_transaction_that_built_it(tmp_path: Path) -> None:
    """Though a checkpoint has gone beyond its snapshot, to pages that do not have the index yet."""
    instance = await started(engine_on(tmp_path))
    session, other = await instance.begin_session(), await instance.begin_session()
    dbid = await session.create_database("a.edb")
    cursor = (await session.create_table_column_index(dbid, TABLE)).cursor
    beside = (await other.create_table_column_index(await other.open_database("a.edb"), replace(TABLE, name="beside"))).cursor
    for n in (1, 2):
        await insert(cursor, id=n, n=n, tags="a")
    await session.begin_transaction()
    await cursor.move(FIRST)
    await insert(beside, id=1)
    await instance.store.checkpoint()
    await session.create_index(cursor, [IndexCreate("byN", ("+n",)), IndexCreate("byTag", ("+tags",))])
    await cursor.move(FIRST)
    await cursor.delete()
    await cursor.move(1)
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(ids(cursor)["n"], 9)
    await cursor.update()
    await session.commit_transaction()
    for name in ("byN", "byTag"):
        await cursor.set_current_index(name)
        assert await all_of(cursor, "n") == [9]
    await instance.term()


@pytest.mark.parametrize("at_once", [None, 0, 1])
async def test_an_intersection_holds_no_more_than_it_may(
    session: Session, cursor: Cursor, monkeypatch: pytest.MonkeyPatch, at_once: int | None
) -> None:
    """Two thirds of the records are in both ranges. The control may hold all of them at once, and does."""
    count = 4 * ROWS
    monkeypatch.setitem(globals(), "ROWS", count)
    await fill(session, cursor, lambda n: n * 7919 % count)
    maker = cursor.plan.rows.maker
    assert maker is not None
    await session.create_index(cursor, [IndexCreate("byN", ("+n",)), IndexCreate("downN", ("-n",))])
    bound = (limits.INTERSECT_BYTES_IN_MEMORY_MAX, 400_000, 80_000)[0 if at_once is None else at_once + 1]
    monkeypatch.setattr(limits, "INTERSECT_BYTES_IN_MEMORY_MAX", bound)
    held = []
    take = ranges._Lowest.take

    def watched(self: ranges._Lowest, bookmarks: list[bytes]) -> None:
        take(self, bookmarks)
        held.append(ranges._weight(self.held))

    monkeypatch.setattr(ranges._Lowest, "take", watched)
    beside = await cursor.dup_cursor()
    await cursor.set_current_index("byN")
    await beside.set_current_index("downN")
    key(cursor, count // 6)
    await cursor.seek(1)
    key(beside, count * 5 // 6 - 1)
    await beside.seek(1)
    found = await intersect_indexes([(cursor, 1), (beside, 1)])
    assert found == [maker.key((n,)) for n in range(count) if count // 6 <= n * 7919 % count < count * 5 // 6]
    assert max(held) <= bound
    monkeypatch.setattr(session.instance.engine, "answer_bytes_max", 5 * len(found) - 1)
    await refused(intersect_indexes([(cursor, 1), (beside, 1)]), Err.OutOfMemory)
    assert (max(held) > 800_000) == (at_once is None)


async def test_whoever_reads_a_whole_index_gives_way_to_the_others(
    session: Session, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(session, cursor, lambda n: -n)
    await session.create_index(cursor, [IndexCreate("byN", ("+n",)), IndexCreate("byTag", ("+tags",))])
    monkeypatch.setattr(limits, "BULK_READ_ROWS", 100)
    monkeypatch.setattr(info, "_SAMPLE_ROWS", 100)
    beside = await cursor.dup_cursor()
    await cursor.set_current_index("byN")
    await beside.set_current_index("byTag")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    for call in (cursor.index_record_count(), intersect_indexes([(cursor, 1), (beside, 1)]), session.compute_stats(cursor)):
        turns = 0
        await call
        assert turns > ROWS // 100 - 5
    task.cancel()
