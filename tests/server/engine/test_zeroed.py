"""Sums at zero: DeleteOnZero and Finalize act when Idle looks, on what is committed then; a crash forgets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Cbtyp, Coltyp, EscrowUpdateGrbit
from jetwire_protocol.data.flags import DefragmentGrbit as D
from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.engine.zeroed import finish_zeroed
from tests.server.engine.on_files import crash_image, engine_on, started
from tests.server.engine.tables_for_tests import all_of, ids, insert, key

A = AddColumnGrbit
DELETE, FINALIZE = A.ColumnDeleteOnZero, A.ColumnFinalize


async def counting(session: Session, dbid: int, what: AddColumnGrbit, name: str = "z") -> Cursor:
    bits = A.ColumnFixed | A.ColumnEscrowUpdate | what
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("refs", Coltyp.Long, grbit=bits, default=1))
    made = await session.create_table_column_index(dbid, TableCreate(name, columns=columns, indexes=(IndexCreate("pk", ("+id",), 2),)))
    made.cursor.close()
    cursor = await session.open_table(dbid, name)
    for i in (1, 2, 3):
        await insert(cursor, id=i)
    return cursor


async def add(cursor: Cursor, record: int, delta: int) -> int:
    key(cursor, record)
    await cursor.seek(1)
    return await cursor.escrow_update(ids(cursor)["refs"], delta)


async def added(cursor: Cursor, record: int, delta: int) -> None:
    await cursor.session.begin_transaction()
    await add(cursor, record, delta)
    await cursor.session.commit_transaction()


async def test_a_sum_that_is_no_longer_zero_keeps_its_record(session: Session, dbid: int) -> None:
    cursor = await counting(session, dbid, DELETE)
    await added(cursor, 1, -1)
    await added(cursor, 1, 1)
    await added(cursor, 2, -1)
    assert await finish_zeroed(session) == 1
    assert await all_of(cursor) == [1, 3]
    assert await finish_zeroed(session) == 0  # the marks are gone
    await added(cursor, 1, -1)
    assert await finish_zeroed(session) == 1


async def test_a_sum_may_reach_zero_through_two_sessions_neither_of_which_saw_it(
    session: Session, other: Session, dbid: int, other_dbid: int
) -> None:
    cursor = await counting(session, dbid, DELETE)
    await added(cursor, 1, 1)
    theirs = await other.open_table(other_dbid, "z")
    await session.begin_transaction()
    await other.begin_transaction()
    assert await add(cursor, 1, -1) == 2
    assert await add(theirs, 1, -1) == 1
    await other.commit_transaction()
    await session.commit_transaction()
    await session.idle()
    assert await all_of(cursor) == [2, 3]


async def test_a_rolled_back_sum_leaves_nothing(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    cursor = await counting(session, dbid, DELETE)
    await added(cursor, 1, 1)
    theirs = await other.open_table(other_dbid, "z")
    await session.begin_transaction()
    await other.begin_transaction()
    await add(cursor, 1, -2)
    await add(theirs, 1, -2)
    await other.commit_transaction()
    await session.rollback()
    assert await finish_zeroed(session) == 1  # theirs alone made it zero
    assert await all_of(await session.open_table(dbid, "z")) == [2, 3]


async def test_what_cancels_out_may_be_undone_by_half(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    cursor = await counting(session, dbid, DELETE)
    theirs = await other.open_table(other_dbid, "z")
    await other.begin_transaction()
    await add(theirs, 1, 1)
    await other.begin_transaction()
    await add(theirs, 1, -1)  # all of it together: nothing
    await added(cursor, 1, -2)
    await other.rollback()
    await other.commit_transaction()  # 1 + 1 - 2
    assert await finish_zeroed(session) == 1
    assert await all_of(cursor) == [2, 3]


@pytest.mark.parametrize("levels", [1, 2])
async def test_a_sum_that_no_rollback_undoes_may_be_zero(session: Session, dbid: int, levels: int) -> None:
    cursor = await counting(session, dbid, DELETE)
    for _ in range(levels):
        await session.begin_transaction()
    key(cursor, 1)
    await cursor.seek(1)
    await cursor.escrow_update(ids(cursor)["refs"], -1, int(EscrowUpdateGrbit.EscrowNoRollback))
    await session.rollback()
    if levels == 2:
        await session.commit_transaction()
    assert await finish_zeroed(session) == 1
    assert await all_of(cursor) == [2, 3]


async def test_a_record_somebody_adds_to_waits(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    cursor = await counting(session, dbid, DELETE)
    await added(cursor, 1, -1)
    theirs = await other.open_table(other_dbid, "z")
    await other.begin_transaction()
    await add(theirs, 1, 5)
    assert await finish_zeroed(session) == 0
    await other.rollback()
    assert await finish_zeroed(session) == 1


async def test_finalize_tells_who_registered_and_deletes_nothing(session: Session, dbid: int) -> None:
    cursor = await counting(session, dbid, FINALIZE)
    told: list[tuple[int, bytes]] = []
    callbacks = cursor.database.callbacks
    number = callbacks.register(cursor, Cbtyp.Finalize, lambda told_id, at, what, arg: told.append((what, at.bookmark)))
    await added(cursor, 2, -1)
    assert told == []
    await session.idle()
    assert told == [(Cbtyp.Finalize, cursor.bookmark)]
    callbacks.unregister(cursor, Cbtyp.Finalize, number)
    await added(cursor, 1, -1)
    await session.idle()
    assert len(told) == 1
    assert await all_of(cursor) == [1, 2, 3]


async def test_defragmentation_finishes_sums_pass_by_pass_until_it_is_over(
    session: Session, dbid: int, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DEFRAGMENT_PAUSE_SECONDS", 0.001)
    cursor = await counting(session, dbid, DELETE)
    told: list[int] = []
    cursor.database.callbacks.register(cursor, Cbtyp.OnlineDefragCompleted, lambda number, at, what, arg: told.append(what))
    await added(cursor, 1, -1)
    assert await session.defragment(dbid, passes=100_000, seconds=60, grbit=D.DefragmentBatchStart) == (1, 0)
    running = cursor.database.defragmenting
    assert running is not None
    assert await all_of(cursor) == [2, 3]
    await added(cursor, 2, -1)  # nobody calls Idle: the task does what is to do
    passes = running.passes
    await until(lambda: running.passes > passes + 2)
    assert await all_of(cursor) == [3]
    assert told == []
    clock.advance(61)
    await until(lambda: cursor.database.defragmenting is None)
    assert told == [Cbtyp.OnlineDefragCompleted]
    await session.defragment(dbid, grbit=D.DefragmentBatchStart)  # without a limit: until the database is detached
    await session.close_database(dbid)
    await session.detach_database()
    assert defragmentations() == []


async def test_an_instance_that_ends_ends_its_defragmentations(engine: Engine) -> None:
    instance = await engine.create_instance("ends")
    await instance.init()
    session = await instance.begin_session()
    await session.defragment(await session.create_database("a.edb"), grbit=D.DefragmentBatchStart)
    assert len(defragmentations()) == 1
    await instance.term()
    assert defragmentations() == []


def defragmentations() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "Defragmentation" in repr(task.get_coro())]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # a task beside this one makes it hold
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_crash_between_the_commit_and_idle_forgets_nothing(tmp_path: Path, durable: bool) -> None:
    instance = await started(engine_on(tmp_path / "living"))
    session = await instance.begin_session()
    cursor = await counting(session, await session.create_database("z.edb"), DELETE)
    await added(cursor, 1, -1)
    await session.begin_transaction()
    await add(cursor, 2, -1)
    if durable:
        await session.commit_transaction()
    left = await crash_image(instance, tmp_path / "living", tmp_path / "crashed")
    await instance.term()

    instance = await started(engine_on(left))
    session = await instance.begin_session()
    dbid = await session.open_database("z.edb")
    assert await all_of(await session.open_table(dbid, "z")) == [1, 2, 3]
    await session.idle()
    assert await all_of(await session.open_table(dbid, "z")) == ([3] if durable else [2, 3])
    await instance.term()


async def test_marks_go_along_when_a_database_is_compacted(tmp_path: Path) -> None:
    instance = await started(engine_on(tmp_path))
    session = await instance.begin_session()
    dbid = await session.create_database("z.edb")
    (await session.create_table(dbid, "first")).close()  # object ids differ in the copy
    await session.delete_table(dbid, "first")
    cursor = await counting(session, dbid, DELETE)
    await added(cursor, 3, -1)
    await session.compact("z.edb", "y.edb")
    await session.attach_database("y.edb")
    copy = await session.open_database("y.edb")
    await session.idle()
    assert await all_of(await session.open_table(copy, "z")) == [1, 2]
    await instance.term()
