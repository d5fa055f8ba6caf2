"""What outlives a change of the schema, or a database's stay in its slot, and must not: handles, drafts, prepared values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit, Prep
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import Created, TableCreate
from jetwire_server.store.embedded.store import EmbeddedStore
from tests.server.engine.on_files import engine_on, started
from tests.server.engine.refusals import refused

_PRIMARY = IndexCreate("pk", ("+id",), int(CreateIndexGrbit.IndexPrimary))
_COLUMNS = (ColumnCreate("id", Coltyp.Long), ColumnCreate("text", Coltyp.LongText, cp=1200))


@pytest.fixture
async def on_files(tmp_path: Path) -> AsyncIterator[Instance]:
    made = await started(engine_on(tmp_path))
    yield made
    await made.term()


async def table(session: Session, dbid: int, name: str = "t") -> Created:
    return await session.create_table_column_index(dbid, TableCreate(name, columns=_COLUMNS, indexes=(_PRIMARY,)))


async def names(session: Session, dbid: int) -> list[str]:
    handle = session.database(dbid)
    async with session.operation(write=False) as txn:
        return [table.name for table in await handle.database.catalog.tables(txn)]


async def answer(call: Awaitable[object]) -> object:
    """The error's code instead, if there is one."""
    try:
        return await call
    except JetError as error:
        return error.code


# -- slots ------------------------------------------------------------------------------------------------------------------
async def test_nobody_opens_a_database_that_is_being_detached(on_files: Instance) -> None:
    session, other = await on_files.begin_session(), await on_files.begin_session()
    for name in ("a.edb", "b.edb"):
        await session.close_database(await session.create_database(name))
    for turns in (0, 1, 2, 3, 5, 10):
        detach = asyncio.create_task(other.detach_database())
        for _ in range(turns):
            await asyncio.sleep(0)
        opened = await answer(session.open_database("b.edb"))
        assert await answer(detach) == (None if opened == Err.DatabaseNotFound else Err.DatabaseInUse)
        for dbid in list(session.opened):
            await session.close_database(dbid)
        for name in ("a.edb", "b.edb"):
            await other.attach_database(name)


async def test_a_database_detached_before_its_maker_has_it_open(on_files: Instance) -> None:
    session, other = await on_files.begin_session(), await on_files.begin_session()
    making = asyncio.create_task(session.create_database("a.edb"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # it is at it
    await other.detach_database("a.edb")
    await refused(making, Err.DatabaseNotFound)
    assert not session.opened
    assert await names(other, await other.create_database("b.edb")) == []


async def test_a_draft_is_given_back_to_its_own_database(on_files: Instance) -> None:
    session, other = await on_files.begin_session(), await on_files.begin_session()
    dbid = await other.create_database("other.edb")
    for number in range(4):
        made = await table(other, dbid, f"t{number}")
        for record in range(3):
            await made.cursor.prepare_update(Prep.Insert)
            await made.cursor.set_column(made.columnids[0], record)
            await made.cursor.update()
    await other.close_database(dbid)
    await other.detach_database("other.edb")

    made = await table(session, await session.create_database("mine.edb"))
    await made.cursor.prepare_update(Prep.Insert)
    await made.cursor.set_column(made.columnids[1], "x" * limits.LONG_VALUE_STREAM_BYTES)
    made.cursor.close()
    (draft,) = session.unused
    await session.close_database(next(iter(session.opened)))
    await session.detach_database("mine.edb")

    await other.attach_database("other.edb")
    dbid = await other.open_database("other.edb")
    trees = [(await other.open_table(dbid, f"t{number}")).table.tree for number in range(4)]
    assert draft.tree in trees, "the test needs a tree of the same number"
    await session.end_session()
    for _ in range(2):  # the second generation of pages shows what was freed after the first
        (await other.create_table(dbid, f"more{_}")).close()
        await on_files.store.checkpoint()
        await asyncio.sleep(0.05)
    assert [await on_files.store.count(tree) for tree in trees] == [3, 3, 3, 3]


# -- plans ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prep", [Prep.Insert, Prep.Replace, Prep.InsertCopy])
async def test_a_column_deleted_under_a_prepared_update(session: Session, other: Session, dbid: int, other_dbid: int, prep: Prep) -> None:
    made = await table(session, dbid)
    extra = await session.add_column(made.cursor, "extra", ColumnCreate("", Coltyp.Long))
    long = await session.add_column(made.cursor, "long", ColumnCreate("", Coltyp.LongBinary))
    await made.cursor.prepare_update(Prep.Insert)
    for columnid, value in ((made.columnids[0], 1), (extra, 7), (long, b"x" * 2_000)):
        await made.cursor.set_column(columnid, value)
    await made.cursor.update()
    made.cursor.close()

    cursor, changing = await session.open_table(dbid, "t"), await other.open_table(other_dbid, "t")
    await cursor.move(0)
    await cursor.prepare_update(prep)
    await cursor.set_column(extra, 8)
    await cursor.set_column(long, b"y" * (limits.LONG_VALUE_STREAM_BYTES + 1))
    if prep != Prep.Replace:
        await cursor.set_column(made.columnids[0], 2)
    await cursor.set_column(made.columnids[1], "kept")
    await other.delete_column(changing, "extra")
    await other.delete_column(changing, "long")

    await cursor.goto_bookmark(await cursor.update())
    assert (await cursor.retrieve_column(made.columnids[1])).value == "kept"
    await refused(cursor.retrieve_column(extra), Err.ColumnNotFound)


async def test_a_column_that_another_one_has_the_place_of(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    """Its adding was rolled back while a value of it was prepared; the next column gets its number."""
    (await table(session, dbid)).cursor.close()
    cursor, changing = await session.open_table(dbid, "t"), await other.open_table(other_dbid, "t")
    await cursor.prepare_update(Prep.Insert)
    await session.begin_transaction()
    gone = await session.add_column(cursor, "text2", ColumnCreate("", Coltyp.LongText, cp=1200))
    await cursor.set_column(gone, "text")
    await session.rollback()
    again = await other.add_column(changing, "bytes2", ColumnCreate("", Coltyp.LongBinary))
    assert gone == again
    await cursor.set_column(cursor.plan.rows.columns[0], 1)
    await cursor.goto_bookmark(await cursor.update())
    assert (await cursor.retrieve_column(again)).value is None


async def test_a_column_deleted_while_a_value_of_it_is_set(on_files: Instance) -> None:
    session, other = await on_files.begin_session(), await on_files.begin_session()
    dbid = await session.create_database("a.edb")
    made = await table(session, dbid)
    made.cursor.close()
    cursor = await session.open_table(dbid, "t")
    changing = await other.open_table(await other.open_database("a.edb"), "t")
    value = "x" * (3 * limits.LONG_VALUE_STREAM_BYTES)
    for turns in (0, 1, 2, 5, 10, 20):
        extra = await other.add_column(changing, "extra", ColumnCreate("", Coltyp.LongText, cp=1200))
        await cursor.prepare_update(Prep.Insert)
        await cursor.set_column(made.columnids[0], turns)
        setting = asyncio.create_task(cursor.set_column(extra, value))
        for _ in range(turns):
            await asyncio.sleep(0)
        await other.delete_column(changing, "extra")
        assert await answer(setting) in (None, Err.ColumnNotFound)
        await cursor.update()


async def test_a_column_added_since_the_update_was_prepared(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    made = await table(session, dbid)
    made.cursor.close()
    cursor, changing = await session.open_table(dbid, "t"), await other.open_table(other_dbid, "t")
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(made.columnids[0], 1)
    extra = await other.add_column(changing, "extra", ColumnCreate("", Coltyp.Long))
    await cursor.set_column(extra, 7)
    await cursor.goto_bookmark(await cursor.update())
    assert (await cursor.retrieve_column(extra)).value == 7


# -- tables that come and go ------------------------------------------------------------------------------------------------
async def _what_is_remembered(instance: Instance, dbid: int, session: Session) -> tuple[int, ...]:
    store = instance.store
    assert isinstance(store, EmbeddedStore)
    for number in range(2):  # a round frees the rows, the next one's pages show that they have gone
        (await session.create_table(dbid, f"round{number}")).close()
        await session.delete_table(dbid, f"round{number}")
        await store.checkpoint()
        if store.checkpointer._running is not None:
            await asyncio.wait({store.checkpointer._running})
    locks, counters = store.schema_locks, session.database(dbid).database.counters(instance)
    return len(store.timeline.trees), len(locks._changed), len(locks._written), len(counters._counters)


async def test_tables_that_have_gone_are_forgotten(on_files: Instance) -> None:
    session, other = await on_files.begin_session(), await on_files.begin_session()
    dbid = await session.create_database("a.edb")
    before = await _what_is_remembered(on_files, dbid, session)
    reader = await other.open_database("a.edb")
    kept = await table(session, dbid, "kept")
    kept.cursor.close()
    for level in (0, 1):
        if level:  # an old snapshot, of before they were dropped
            await other.begin_transaction()
            assert await names(other, reader) == ["kept"]
        for _ in range(20):
            made = await table(session, dbid)
            await made.cursor.prepare_update(Prep.Insert)
            await made.cursor.set_column(made.columnids[0], 1)
            await made.cursor.set_column(made.columnids[1], "x" * 3_000)
            await made.cursor.update()
            made.cursor.close()
            await session.delete_table(dbid, "t")
        remembered = await _what_is_remembered(on_files, dbid, session)
        if level:
            assert remembered > before
            await other.rollback()
            remembered = await _what_is_remembered(on_files, dbid, session)
        assert all(now <= then + 4 for now, then in zip(remembered, before, strict=True)), f"{before} became {remembered}"
    assert await names(session, dbid) == ["kept"]


async def test_nobody_opens_a_new_table_before_its_maker_has_it_to_himself(on_files: Instance) -> None:
    """Between the commit and the maker's hearing of it there was a moment."""
    maker, other = await on_files.begin_session(), await on_files.begin_session()
    dbid = await maker.create_database("a.edb")
    other_dbid = await other.open_database("a.edb")
    answers: list[object] = []

    async def intrude(name: str) -> None:
        while Err.TableLocked not in answers:
            answers.append(await answer(other.open_table(other_dbid, name)))
            await asyncio.sleep(0)

    for number in range(10):
        answers.clear()
        intruder = asyncio.create_task(intrude(f"t{number}"))
        await asyncio.sleep(0)
        await maker.create_table(dbid, f"t{number}")
        await intruder
        assert set(answers) <= {Err.ObjectNotFound, Err.TableLocked}
    await refused(maker.create_table(dbid, "t1"), Err.TableDuplicate)
    assert len(maker.cursors) == 10, "one that was not made leaves no cursor"
