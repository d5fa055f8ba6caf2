"""Seven levels, save points, cursors of a level, implicit transactions."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from jetwire_protocol.data.flags import (
    AddColumnGrbit,
    BeginTransactionGrbit,
    Coltyp,
    CommitTransactionGrbit,
    EscrowUpdateGrbit,
    Prep,
    RollbackGrbit,
)
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.engine import autoincrement
from jetwire_server.engine.bookmarks import RecordPosition
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.engine.whole_records import Wanted, records_from
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Commit, Transaction
from tests.server.engine.on_files import crash_image, engine_on, started
from tests.server.engine.refusals import refused
from tests.server.engine.tables_for_tests import FIRST, LAST, get, ids, insert, key, make_table, replace


async def test_seven_levels_and_no_more(session: Session) -> None:
    for _ in range(7):
        await session.begin_transaction()
    await refused(session.begin_transaction(), Err.TransTooDeep)
    for _ in range(7):
        await session.commit_transaction()
    await refused(session.commit_transaction(), Err.NotInTransaction)
    await refused(session.rollback(), Err.NotInTransaction)


async def test_rollback_all_leaves_every_level(session: Session) -> None:
    for _ in range(3):
        await session.begin_transaction()
    await session.rollback(int(RollbackGrbit.RollbackAll))
    assert session.level == 0


async def test_commit_bits(session: Session) -> None:
    wait = int(CommitTransactionGrbit.WaitLastLevel0Commit)
    await session.commit_transaction(wait)
    await refused(session.commit_transaction(wait | 1), Err.InvalidGrbit)
    await refused(session.commit_transaction(0x4000), Err.InvalidGrbit)
    await session.begin_transaction()
    await refused(session.commit_transaction(wait), Err.InvalidGrbit)


async def test_read_only_counts_at_the_outermost_level(session: Session, dbid: int) -> None:
    await session.begin_transaction(int(BeginTransactionGrbit.TransactionReadOnly))
    await refused(session.create_table(dbid, "t"), Err.TransReadOnly)
    await session.rollback()
    await session.begin_transaction()
    await session.begin_transaction(int(BeginTransactionGrbit.TransactionReadOnly))
    await session.create_table(dbid, "t")


async def test_rollback_undoes_ddl_and_closes_the_cursors_of_its_level(session: Session, dbid: int) -> None:
    await session.begin_transaction()
    outer = await session.create_table(dbid, "outer")
    await session.begin_transaction()
    inner = await session.create_table(dbid, "inner")
    await session.add_column(outer, "a", ColumnCreate("", Coltyp.Long))
    await session.rollback()
    await refused(session.close_table(inner.id), Err.InvalidTableId)
    await refused(session.open_table(dbid, "inner"), Err.ObjectNotFound)
    assert session.cursor(outer.id) is outer
    txn = await session.enter(False)
    assert (await session.refresh_table(outer, txn)).columns == ()
    await session.rollback()
    await refused(session.open_table(dbid, "outer"), Err.ObjectNotFound)


async def test_an_inner_commit_belongs_to_the_outer_level(session: Session, dbid: int) -> None:
    await session.begin_transaction()
    await session.begin_transaction()
    cursor = await session.create_table(dbid, "t")
    await session.commit_transaction()
    await session.rollback()
    await refused(session.close_table(cursor.id), Err.InvalidTableId)
    await refused(session.open_table(dbid, "t"), Err.ObjectNotFound)


async def test_a_commit_id_grows(session: Session, dbid: int) -> None:
    await session.begin_transaction()
    await session.create_table(dbid, "t")
    first = await session.commit_transaction()
    await session.begin_transaction()
    await session.create_table(dbid, "u")
    second = await session.commit_transaction()
    assert first is not None
    assert second is not None
    assert second.commit_id > first.commit_id
    await session.begin_transaction()
    assert await session.commit_transaction() is None


async def test_a_failed_call_leaves_nothing_in_the_open_transaction(session: Session, dbid: int) -> None:
    from jetwire_server.engine.tables import TableCreate

    await session.begin_transaction()
    bad = TableCreate("t", columns=(ColumnCreate("a", Coltyp.Long), ColumnCreate("a", Coltyp.Long)))
    await refused(session.create_table_column_index(dbid, bad), Err.ColumnDuplicate)
    await refused(session.open_table(dbid, "t"), Err.ObjectNotFound)
    await session.commit_transaction()


async def test_implicit_transactions_end_with_the_call(session: Session, dbid: int, instance: Instance) -> None:
    cursor = await session.create_table(dbid, "t")
    assert session.txn is None
    await refused(session.add_column(cursor, "", ColumnCreate("", Coltyp.Long)), Err.InvalidName)
    assert session.txn is None


async def test_a_long_transaction_keeps_no_save_point_of_calls_that_are_over(session: Session, dbid: int) -> None:
    await session.begin_transaction()
    cursor = await session.create_table(dbid, "t")
    for n in range(50):
        async with session.operation(write=True) as txn:
            txn.put(cursor.table.tree, b"%d" % n, b"v")
    assert session.txn is not None
    assert not session.txn._savepoints  # type: ignore[attr-defined]
    await session.begin_transaction()
    async with session.operation(write=True) as txn:
        txn.put(cursor.table.tree, b"0", b"changed")
    await session.rollback()
    assert await session.txn.get(cursor.table.tree, b"0") == b"v"
    await session.commit_transaction()


# -- where a rollback leaves cursors ----------------------------------------------------------------------------------------
async def four(session: Session, dbid: int) -> Cursor:
    cursor = await make_table(session, dbid)
    for number in (1, 2, 3, 4):
        await insert(cursor, id=number, n=10 - number)
    await cursor.move(FIRST)
    await cursor.move(1)
    return cursor


async def seek(cursor: Cursor) -> None:
    key(cursor, 3)
    await cursor.seek(1)


async def seek_in_vain(cursor: Cursor) -> None:
    key(cursor, 9)
    await refused(cursor.seek(1), Err.RecordNotFound)


async def go_to_position(cursor: Cursor) -> None:
    await cursor.goto_position(RecordPosition(2, 1, 4))


async def insert_and_find(cursor: Cursor) -> None:
    await insert(cursor, id=0)
    await cursor.move(FIRST)


async def page(cursor: Cursor) -> None:
    await records_from(cursor, 1, Wanted(None))


MOVES = [lambda c: c.move(1), lambda c: c.move(-1), lambda c: c.move(LAST), seek, seek_in_vain, go_to_position, insert_and_find, page]


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("move", MOVES)
async def test_a_cursor_that_moved_in_a_level_is_before_the_first_record_after_its_rollback(
    session: Session, dbid: int, move: Callable[[Cursor], Awaitable[None]], inner: bool
) -> None:
    cursor = await four(session, dbid)
    await session.begin_transaction()
    if inner:
        await session.begin_transaction()
    await move(cursor)
    if inner:
        await session.commit_transaction()
    await session.rollback()
    await refused(cursor.retrieve_column(ids(cursor)["id"]), Err.NoCurrentRecord)
    await cursor.move(1)
    assert await get(cursor, "id") == 1


async def test_a_cursor_that_did_not_move_in_it_keeps_its_place(session: Session, dbid: int) -> None:
    """Reading and changing the record is no move; a bookmark on the primary index is none either, as in the engine's source."""
    cursor = await four(session, dbid)
    await session.begin_transaction()
    await cursor.move(1)
    await session.begin_transaction()
    await cursor.move(0)
    await replace(cursor, n=77)
    assert await get(cursor, "n") == 77
    await session.rollback()
    assert (await get(cursor, "id"), await get(cursor, "n")) == (3, 7)
    await session.commit_transaction()
    await session.begin_transaction()
    bookmark = await cursor.get_bookmark()
    await cursor.goto_bookmark(bookmark)
    await cursor.delete()
    await session.rollback()
    assert await get(cursor, "id") == 3
    key(cursor, 4)
    await cursor.set_index_range(2)
    await session.begin_transaction()
    await cursor.move(-1)
    await session.rollback()
    await cursor.move(1)
    assert (await get(cursor, "id"), cursor.range_high is None) == (1, False)  # a range outlives the rollback


async def test_an_index_chosen_in_a_level_is_left_with_its_rollback(session: Session, dbid: int) -> None:
    cursor = await four(session, dbid)
    await session.begin_transaction()
    await cursor.set_current_index("byN", 2)
    await session.rollback()
    assert cursor.get_current_index() == "pk"
    await refused(cursor.move(0), Err.NoCurrentRecord)
    await cursor.set_current_index("byN")
    await session.begin_transaction()
    await cursor.set_current_index("byN")
    bookmark = await cursor.get_bookmark()
    await session.rollback()
    assert (cursor.get_current_index(), await get(cursor, "id")) == ("byN", 4)
    await session.begin_transaction()
    await cursor.goto_bookmark(bookmark)  # on a secondary index this seeks
    await session.rollback()
    assert cursor.get_current_index() == "byN"
    await refused(cursor.move(0), Err.NoCurrentRecord)


class FailingCommit:
    """A transaction whose commit the storage refuses."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)

    async def commit(self, *, lazy: bool = False) -> Commit:
        self._txn.rollback_now()
        raise JetError(Err.DiskFull)


async def test_a_commit_that_failed_leaves_cursors_as_a_rollback_does(session: Session, dbid: int) -> None:
    cursor = await four(session, dbid)
    await session.begin_transaction()
    await cursor.move(1)
    await cursor.prepare_update(Prep.Replace)
    assert session.txn is not None
    session.txn = cast("Transaction", FailingCommit(session.txn))
    await refused(session.commit_transaction(), Err.DiskFull)
    await refused(cursor.move(0), Err.NoCurrentRecord)
    await refused(cursor.update(), Err.UpdateNotPrepared)


# -- sums that no rollback undoes -----------------------------------------------------------------------------------------
NO_ROLLBACK = int(EscrowUpdateGrbit.EscrowNoRollback)


async def test_a_sum_that_cannot_be_kept_at_an_inner_level_goes_with_the_rest(session: Session, dbid: int) -> None:
    cursor = await make_table(session, dbid)
    await insert(cursor, id=1)
    await cursor.move(FIRST)
    await session.begin_transaction()
    await session.begin_transaction()
    await cursor.escrow_update(ids(cursor)["sum"], 3, NO_ROLLBACK)

    async def taken(txn: Transaction) -> None:
        raise JetError(Err.WriteConflict)

    session.lasting.add(2, taken)
    await session.rollback()
    assert session.level == 1
    assert await get(cursor, "sum") == 3
    await session.commit_transaction()
    assert await get(cursor, "sum") == 3


async def test_a_rollback_waits_for_no_thaw_though_a_sum_outlasts_it(tmp_path: Path) -> None:
    clock = ManualClock()
    instance = await started(engine_on(tmp_path, clock))
    store = instance.store
    assert isinstance(store, EmbeddedStore)
    session, other = await instance.begin_session(), await instance.begin_session()
    cursor = await make_table(session, await session.create_database("a.edb"))
    theirs = await other.open_table(await other.open_database("a.edb"), "t")
    await insert(cursor, id=1)
    await cursor.move(FIRST)
    await session.begin_transaction()
    await cursor.escrow_update(ids(cursor)["sum"], 3, NO_ROLLBACK)
    await other.begin_transaction()
    await theirs.move(FIRST)
    await theirs.escrow_update(ids(theirs)["sum"], 4, NO_ROLLBACK)
    now = clock.boot()
    await store.gate.freeze(now + 1e6, drain_until=now + 1e6)
    await asyncio.wait_for(session.rollback(), 10)
    await asyncio.wait_for(other.end_session(), 10)
    assert await get(cursor, "sum") == 0
    assert store.gate.thaw().held
    await session.begin_transaction()
    await insert(cursor, id=2)
    await session.commit_transaction()  # in log order: after the two sums
    assert await get(cursor, "sum") == 7
    await session.begin_transaction()
    await cursor.escrow_update(ids(cursor)["sum"], 1, NO_ROLLBACK)
    await session.rollback()
    assert await get(cursor, "sum") == 8  # where nothing is frozen it is seen at once
    await instance.term()


async def test_numbers_are_given_while_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks of them, in a table that gave some before and in one that gave none; none twice, after a crash neither."""
    monkeypatch.setattr(limits, "COUNTER_BLOCK", 3)
    clock = ManualClock()
    instance = await started(engine_on(tmp_path / "live", clock))
    store = instance.store
    assert isinstance(store, EmbeddedStore)
    session = await instance.begin_session()
    dbid = await session.create_database("a.edb")
    columns = (ColumnCreate("number", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnAutoincrement)), ColumnCreate("long", Coltyp.LongText))
    cursors = [(await session.create_table_column_index(dbid, TableCreate(name, columns=columns))).cursor for name in ("a", "b")]
    await insert(cursors[0], long="x" * 3_000)
    await session.begin_transaction()
    now = clock.boot()
    await store.gate.freeze(now + 1e6, drain_until=now + 1e6)
    async with asyncio.timeout(20):
        for cursor in cursors:
            for _ in range(50):
                await insert(cursor, long="x" * 3_000)
    committing = asyncio.create_task(session.commit_transaction())
    await asyncio.sleep(0.05)
    assert not committing.done()
    frozen = shutil.copytree(tmp_path / "live", tmp_path / "frozen", ignore=shutil.ignore_patterns("scratch", "*-lock"))
    assert store.gate.thaw().held
    await committing
    crashed = await crash_image(instance, tmp_path / "live", tmp_path / "crashed")
    for cursor, count in zip(cursors, (51, 50), strict=True):
        await insert(cursor, long="x" * 3_000)
        assert len(set(await numbers_of(cursor))) == count + 1
    await instance.term()
    for image, counts in ((frozen, (1, 0)), (crashed, (51, 50))):
        again = await started(engine_on(image))
        session = await again.begin_session()
        dbid = await session.open_database("a.edb")
        for name, count in zip("ab", counts, strict=True):
            cursor = await session.open_table(dbid, name)
            for _ in range(5):
                await insert(cursor, long="x" * 3_000)
            assert len(set(await numbers_of(cursor))) == count + 5
        await again.term()


async def numbers_of(cursor: Cursor) -> list[object]:
    found = []
    await cursor.move(FIRST)
    with suppress(JetError):
        while True:
            found.append(await get(cursor, "number"))
            await cursor.move(1)
    return found


class NothingIsWaitedFor(asyncio.Event):
    async def wait(self) -> Literal[True]:
        return True


@pytest.mark.parametrize("waited_for", [True, False], ids=["", "control"])
async def test_the_block_after_the_one_that_was_taken_while_frozen_waits_for_the_thaw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waited_for: bool
) -> None:
    monkeypatch.setattr(limits, "COUNTER_BLOCK_FROZEN", 3)
    if not waited_for:
        monkeypatch.setattr(autoincrement, "Event", NothingIsWaitedFor)
    clock = ManualClock()
    instance = await started(engine_on(tmp_path, clock))
    store = instance.store
    assert isinstance(store, EmbeddedStore)
    session = await instance.begin_session()
    columns = (ColumnCreate("number", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnAutoincrement)),)
    dbid = await session.create_database("a.edb")
    cursor = (await session.create_table_column_index(dbid, TableCreate("t", columns=columns))).cursor
    await session.begin_transaction()
    now = clock.boot()
    await store.gate.freeze(now + 1e6, drain_until=now + 1e6)
    for _ in range(3):
        await insert(cursor)
    fourth = asyncio.create_task(insert(cursor))
    await asyncio.wait({fourth}, timeout=0.05)
    assert fourth.done() == (not waited_for)
    assert store.gate.thaw().held
    if waited_for:
        await fourth
        await session.commit_transaction()
        assert await numbers_of(cursor) == [1, 2, 3, 4]
    else:
        await refused(fourth, Err.WriteConflict)
    await instance.term()
