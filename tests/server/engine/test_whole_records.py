"""Whole records, where a batch of them fails half-way: all of it is undone, and nothing else."""

from __future__ import annotations

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, OpenTempTableGrbit, Prep
from jetwire_protocol.errors import Err
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.session import Session
from jetwire_server.engine.temptable import TempTableCreate, open_temp_table
from jetwire_server.engine.whole_records import Wanted, put_records, records_from

from .tables_for_tests import FIRST, all_of, get, ids, insert, make_table, refuses

T = OpenTempTableGrbit


async def test_a_batch_that_fails_in_a_transaction_leaves_the_rest_of_it(session: Session, dbid: int) -> None:
    """What the level did before stays: records, temporary tables, updates being prepared; and what was read is looked up anew."""
    cursor = await make_table(session, dbid)
    column = ColumnCreate("", Coltyp.Long, grbit=AddColumnGrbit.ColumnTTKey)
    beside, (only,) = await open_temp_table(session, TempTableCreate((column,), int(T.TTUpdatable)))
    await session.begin_transaction()
    await insert(cursor, id=1, name="first")
    await beside.prepare_update(Prep.Insert)
    await beside.set_column(only, 7)
    await beside.update()
    await cursor.move(FIRST)
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(ids(cursor)["name"], "changed")

    columns = ids(cursor)
    with refuses(Err.KeyDuplicate):
        await put_records(cursor, [{columns["id"]: 2}, {columns["id"]: 1}], "insert")

    await cursor.update()
    assert await get(cursor, "name") == "changed"
    assert await all_of(cursor) == [1]
    await beside.move(FIRST)
    assert (await beside.retrieve_column(only)).value == 7
    await session.commit_transaction()
    assert await all_of(cursor) == [1]


async def test_a_move_after_get_records_goes_on_behind_them(session: Session, dbid: int) -> None:
    """In a transaction a Move reads ahead; GetRecords leaves the cursor elsewhere."""
    cursor = await make_table(session, dbid)
    for n in range(20):
        await insert(cursor, id=n)
    await session.begin_transaction()
    await cursor.move(FIRST)
    assert len((await records_from(cursor, 3, Wanted()))[0]) == 3
    assert await get(cursor, "id") == 3
    await cursor.move(1)
    assert await get(cursor, "id") == 4
    assert len((await records_from(cursor, 2, Wanted(), forward=False))[0]) == 2
    await cursor.move(-1)
    assert await get(cursor, "id") == 1


async def test_an_empty_list_is_null_in_columns_of_every_kind(session: Session, dbid: int) -> None:
    cursor = await make_table(session, dbid)
    columns = ids(cursor)
    full = {"n": 5, "name": "a", "tags": ["b", "c"], "size": 1}
    await put_records(cursor, [{columns["id"]: 1, **{columns[name]: value for name, value in full.items()}}], "insert")
    await put_records(cursor, [{columns["id"]: 1, **{columns[name]: [] for name in full}}], "replace")
    await put_records(cursor, [{columns["id"]: 2, **{columns[name]: [] for name in full}}], "insert")
    await cursor.move(FIRST)
    assert [await get(cursor, name) for name in full] == [None] * 4
    await cursor.move(1)
    assert [await get(cursor, name) for name in full] == [None] * 4
