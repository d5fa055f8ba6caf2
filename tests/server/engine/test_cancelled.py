"""Calls whose caller is cancelled while they wait (its connection was lost): what is begun is carried through, or was never begun.

Each call is cancelled where it waits for the first time, for the second time, and so on until it is over before that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, Prep
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.instance import Instance, State
from jetwire_server.engine.misc import database_pages
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.store.embedded.bulk import BulkTree
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Row
from tests.server.engine.on_files import crash_image, engine_on, started
from tests.server.engine.refusals import refused
from tests.server.engine.tables_for_tests import all_of, ids, insert, make_table
from tests.support.cancelling import cut_short

_WAITS_MAX = 60


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    made = await started(engine_on(tmp_path / "live"))
    yield made
    if made.state is State.RUNNING:
        await made.term()


@pytest.fixture
async def session(instance: Instance) -> Session:
    return await instance.begin_session()


async def filled(session: Session, name: str = "a.edb") -> Cursor:
    cursor = await make_table(session, await session.create_database(name))
    await session.begin_transaction()
    for number in range(1, 4):
        await insert(cursor, id=number, data=b"x" * 2_000)
    await session.commit_transaction()
    return cursor


async def rest(instance: Instance) -> None:
    """Until what is carried through is over."""
    while instance._carried:
        await asyncio.wait(instance._carried)


async def cut(instance: Instance, work: Coroutine[Any, Any, Any], at: int) -> bool:
    cancelled = await cut_short(work, at)
    await rest(instance)
    assert at < _WAITS_MAX
    return cancelled


async def records(session: Session, name: str) -> list[Any]:
    found = await all_of(await session.open_table(await session.open_database(name), "t"))
    for dbid in list(session.opened):
        await session.close_database(dbid)
    return found


async def _check_init(instance: Instance, tmp_path: Path) -> None:
    session = await instance.begin_session()
    await filled(session)
    for at in range(1, _WAITS_MAX):
        image = await crash_image(instance, tmp_path / "live", tmp_path / f"copy{at}")
        again = await engine_on(image).create_instance("a")
        again.set_parameter(Param.LogFileSize, 128)
        cancelled = await cut(again, again.init(), at)
        assert again.state is State.RUNNING
        assert await records(await again.begin_session(), "a.edb") == [1, 2, 3]
        await again.term()
        if not cancelled:
            return


async def test_init(instance: Instance, tmp_path: Path) -> None:
    await _check_init(instance, tmp_path)


async def test_databases_come_and_go(instance: Instance, session: Session) -> None:
    await filled(session)
    for at in range(1, _WAITS_MAX):
        name = f"new{at}.edb"
        cut_each = [await cut(instance, session.create_database(name), at)]
        for dbid in list(session.opened):
            await session.close_database(dbid)
        assert name in [d.path for d in instance.databases.values()]
        cut_each.append(await cut(instance, session.detach_database(name), at))
        assert name not in [d.path for d in instance.databases.values()]
        cut_each.append(await cut(instance, session.attach_database(name), at))
        await session.open_database(name)
        assert list(instance.store.databases()) == list(instance.databases)
        for dbid in list(session.opened):
            await session.close_database(dbid)
        await session.detach_database(name)
        if not any(cut_each):
            return


async def _check_set_size(instance: Instance, session: Session) -> None:
    await filled(session)
    for dbid in list(session.opened):
        await session.close_database(dbid)
    await session.detach_database("a.edb")
    for at in range(1, _WAITS_MAX):
        cancelled = await cut(instance, session.set_database_size("a.edb", 256 + at), at)
        assert instance.store.databases() == {}
        await session.attach_database("a.edb")
        assert database_pages(instance, next(iter(instance.databases.values()))) >= 256 + at
        assert await records(session, "a.edb") == [1, 2, 3]
        await session.detach_database("a.edb")
        if not cancelled:
            return


async def test_set_database_size(instance: Instance, session: Session) -> None:
    await _check_set_size(instance, session)


def _tell(told: list[tuple[int, int]], done: int, total: int) -> None:
    told.append((done, total))


async def _check_compact(instance: Instance, session: Session) -> None:
    await filled(session)
    for at in range(1, _WAITS_MAX):
        told: list[tuple[int, int]] = []
        work = session.compact("a.edb", f"c{at}.edb", 0, partial(_tell, told))
        task_over = await cut_short(work, at)
        so_far = len(told)
        await rest(instance)
        assert not task_over or len(told) == so_far  # who has left is told nothing more
        assert list(instance.store.databases().values()) == ["a.edb"]
        await session.attach_database(f"c{at}.edb")
        assert await records(session, f"c{at}.edb") == [1, 2, 3]
        await session.detach_database(f"c{at}.edb")
        if not task_over:
            return


async def test_compact(instance: Instance, session: Session) -> None:
    await _check_compact(instance, session)


async def _check_numbers(instance: Instance, session: Session) -> None:
    """What one caller left half-way is no conflict for the next."""
    dbid = await session.create_database("n.edb")
    number = ColumnCreate("number", Coltyp.Long, grbit=AddColumnGrbit.ColumnAutoincrement)
    for at in range(1, _WAITS_MAX):
        table = TableCreate(f"t{at}", columns=(number, ColumnCreate("text", Coltyp.LongText)))
        (await session.create_table_column_index(dbid, table)).cursor.close()
        cursor = await session.open_table(dbid, f"t{at}")
        cancelled = await cut_short(cursor.prepare_update(Prep.Insert), at)
        other = await instance.begin_session()
        theirs = await other.open_table(await other.open_database("n.edb"), f"t{at}")
        given = [await insert_and_tell(theirs) for _ in range(3 * limits.COUNTER_BLOCK)]
        assert given == list(range(given[0], given[0] + len(given)))
        await other.end_session()
        if not cancelled:
            return


async def insert_and_tell(cursor: Cursor) -> Any:
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["text"], "x")
    await cursor.goto_bookmark(await cursor.update())
    return (await cursor.retrieve_column(ids(cursor)["number"])).value


@pytest.mark.parametrize("crowded", [False, True])
async def test_numbers_that_are_given_once(instance: Instance, session: Session, monkeypatch: pytest.MonkeyPatch, crowded: bool) -> None:
    """Where the store is crowded, reservations are waited for."""
    monkeypatch.setattr(limits, "COUNTER_BLOCK", 3)
    if crowded:
        cast(EmbeddedStore, instance.store).timeline.usage.slow = -1
    await _check_numbers(instance, session)


async def test_schema(instance: Instance, session: Session) -> None:
    """Who looks while the commit is on its way, and writes after it, knows of the index or it is not there."""
    dbid = await session.create_database("s.edb")
    other = await instance.begin_session()
    other_dbid = await other.open_database("s.edb")
    for at in range(1, _WAITS_MAX):
        (await make_table(session, dbid, f"t{at}")).close()
        theirs = await other.open_table(other_dbid, f"t{at}")
        for number in range(3):
            await insert(theirs, id=number, n=number)
        mine = await session.open_table(dbid, f"t{at}")
        cancelled = await cut_short(session.create_index(mine, [IndexCreate("late", ("-n",))]), at)
        assert await all_of(theirs) == [0, 1, 2]
        await rest(instance)
        await instance.store.flush()
        await insert(theirs, id=3, n=3)
        again = await other.open_table(other_dbid, f"t{at}")
        if cancelled:
            with suppress(JetError):  # it is there, or can be made now
                await session.create_index(mine, [IndexCreate("late", ("-n",))])
        await again.set_current_index("late")
        assert await all_of(again) == [3, 2, 1, 0]
        for cursor in (mine, again, theirs):
            cursor.close()
        await session.delete_table(dbid, f"t{at}")
        if not cancelled:
            return


async def test_term(tmp_path: Path) -> None:
    for at in range(1, _WAITS_MAX):
        instance = await started(engine_on(tmp_path / str(at)))
        await filled(await instance.begin_session())
        cancelled = await cut(instance, instance.term(), at)
        assert instance.state is State.ENDED
        again = await started(engine_on(tmp_path / str(at)))
        assert await records(await again.begin_session(), "a.edb") == [1, 2, 3]
        await again.term()
        if not cancelled:
            return


# -- the controls: with nothing carried through each of these fails -----------------------------------------------------------
@pytest.mark.parametrize("what", ["init", "size", "compact"])
async def test_the_control_what_is_not_carried_through_is_left_half_way(
    instance: Instance, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async def carries_nothing(self: Instance, work: Coroutine[Any, Any, Any]) -> Any:
        return await work

    monkeypatch.setattr(Instance, "carry_through", carries_nothing)
    checks = {
        "init": lambda: _check_init(instance, tmp_path),
        "size": lambda: _check_set_size(instance, session),
        "compact": lambda: _check_compact(instance, session),
    }
    with pytest.raises((AssertionError, JetError)):
        await checks[what]()


# -- what fails is undone ---------------------------------------------------------------------------------------------------
async def test_a_copy_that_fails_leaves_no_file(
    instance: Instance, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(session)
    put_many = BulkTree.put_many
    left = failures = 0

    async def fails(self: BulkTree, rows: list[Row]) -> None:
        nonlocal left
        if left == 0:
            raise JetError(Err.DiskFull)
        left -= 1
        await put_many(self, rows)

    monkeypatch.setattr(BulkTree, "put_many", fails)
    while "c.edb" not in os.listdir(tmp_path / "live" / "a"):
        failures += 1
        left = failures
        with suppress(JetError):
            await session.compact("a.edb", "c.edb")
        assert list(instance.store.databases().values()) == ["a.edb"]
    assert failures > 3
    await session.attach_database("c.edb")
    assert await records(session, "c.edb") == [1, 2, 3]


async def test_a_removed_copy_is_nothing_to_recovery(
    instance: Instance, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(session)

    async def fails(self: BulkTree, rows: list[Row]) -> None:
        raise JetError(Err.DiskFull)

    monkeypatch.setattr(BulkTree, "put_many", fails)
    await refused(session.compact("a.edb", "c.edb"), Err.DiskFull)
    monkeypatch.undo()
    again = await started(engine_on(await crash_image(instance, tmp_path / "live", tmp_path / "copy")))
    assert await records(await again.begin_session(), "a.edb") == [1, 2, 3]
    assert [d.path for d in again.databases.values()] == ["a.edb"]
    await again.term()


@pytest.mark.parametrize("ends", ["term", "shut down", "stop"])
async def test_a_copy_does_not_outlast_its_instance(
    instance: Instance, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    cursor = await filled(session)
    await session.begin_transaction()
    for number in range(4, 3_000):
        await insert(cursor, id=number)
    await session.commit_transaction()
    begun, go_on = asyncio.Event(), asyncio.Event()
    put_many = BulkTree.put_many

    async def slow(self: BulkTree, rows: list[Row]) -> None:
        begun.set()
        await go_on.wait()
        await put_many(self, rows)

    monkeypatch.setattr(BulkTree, "put_many", slow)
    copying = asyncio.get_running_loop().create_task(session.compact("a.edb", "c.edb"))
    await begun.wait()
    ending = asyncio.get_running_loop().create_task(
        instance.term() if ends == "term" else instance.shut_down() if ends == "shut down" else asyncio.sleep(0)
    )
    if ends == "stop":
        instance.stop_service()
    await asyncio.sleep(0.01)
    go_on.set()
    code = Err.ClientRequestToStopJetService if ends == "stop" else Err.TermInProgress
    await refused(copying, code)
    await ending
    if ends == "stop":
        await instance.term()
    assert not list((tmp_path / "live" / "a").glob("c.edb"))
    again = await started(engine_on(tmp_path / "live"))
    assert len(await records(await again.begin_session(), "a.edb")) == 2_999
    with suppress(JetError):
        await again.term()
