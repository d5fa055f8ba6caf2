"""Databases: create, attach, open, close, detach; names, limits, who shares what."""

from __future__ import annotations

import asyncio

import pytest

from jetwire_protocol.data.flags import AttachDatabaseGrbit, CreateDatabaseGrbit, DetachDatabaseGrbit, OpenDatabaseGrbit, OpenTableGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, Wrn
from jetwire_server.clock import ManualClock
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.session import Session
from jetwire_server.events import EventLog
from jetwire_server.store.memory import MemoryStore
from tests.server.engine.refusals import refused, refused_now

READ_ONLY = int(AttachDatabaseGrbit.DbReadOnly)
EXCLUSIVE = int(OpenDatabaseGrbit.DbExclusive)


@pytest.mark.parametrize("name", ["", "../a.edb", "a/../../b.edb", "/etc/a.edb", "C:\\a.edb", "a\0b", "x" * 247, "dir/", "."])
async def test_names_cannot_leave_the_instance(session: Session, name: str) -> None:
    for call in (session.create_database, session.attach_database, session.open_database):
        await refused(call(name), Err.DatabaseInvalidPath)


@pytest.mark.parametrize(
    "name",
    """edb.log EDB.LOG edbtmp.log edb0000002A.log abc.chk edb.chk.new running snapshot.marker logs/edb.log ./edb.log restore.swap
    restore.unfinished restore.staging/a.edb scratch/a.edb scratch a.edb-lock sub\\snapshot.stamp""".split(),  # noqa: SIM905
)
async def test_names_are_none_of_the_instances_own_files(session: Session, name: str) -> None:
    """Overwriting the log by this road would lose every database; a database in `scratch` would be left out of copies."""
    await refused(session.create_database(name, int(CreateDatabaseGrbit.DbOverwriteExisting)), Err.DatabaseInvalidPath)
    for call in (session.create_database, session.attach_database, session.open_database):
        await refused(call(name), Err.DatabaseInvalidPath)


@pytest.mark.parametrize(
    "name", ["catalog.log.edb", "edb.edb", "scratches/a.edb", "mylog.log", "restore.edb", "a-lock.edb", "Running/a.edb"]
)
async def test_names_that_only_look_so_are_good(session: Session, name: str) -> None:
    assert await session.create_database(name)


async def test_create_refuses_what_is_there(session: Session, dbid: int) -> None:
    await refused(session.create_database("TEST.edb"), Err.DatabaseDuplicate)
    await refused(session.create_database("test.edb", int(CreateDatabaseGrbit.DbOverwriteExisting)), Err.DatabaseInUse)
    (await session.create_table(dbid, "old")).close()
    await session.close_database(dbid)
    await session.detach_database("test.edb")
    await refused(session.create_database("test.edb"), Err.DatabaseDuplicate)
    again = await session.create_database("test.edb", int(CreateDatabaseGrbit.DbOverwriteExisting))
    await refused(session.create_database("x.edb", 0x40000000), Err.InvalidGrbit)
    await refused(session.create_database("x.edb", 0, -1), Err.DatabaseInvalidPages)
    assert again != dbid
    await refused(session.open_table(again, "old"), Err.ObjectNotFound)


async def test_what_is_not_for_transactions(session: Session, dbid: int) -> None:
    await session.begin_transaction()
    await refused(session.create_database("x.edb"), Err.InTransaction)
    await refused(session.detach_database("test.edb"), Err.InTransaction)


async def test_attach_and_detach(session: Session, other: Session, dbid: int) -> None:
    await other.attach_database("test.edb")
    assert other.take_warning() == Wrn.DatabaseAttached
    assert other.take_warning() == 0
    await refused(session.detach_database("test.edb"), Err.DatabaseInUse)
    await refused(session.detach_database("nowhere.edb"), Err.DatabaseNotFound)
    await refused(session.detach_database("test.edb", int(DetachDatabaseGrbit.ForceDetach)), Err.ForceDetachNotAllowed)
    await session.close_database(dbid)
    await session.detach_database()
    await refused(session.open_database("test.edb"), Err.DatabaseNotFound)
    await refused(session.attach_database("missing.edb"), Err.FileNotFound)


async def test_six_databases(session: Session, dbid: int) -> None:
    for n in range(5):
        await session.create_database(f"db{n}.edb")
    await refused(session.create_database("seventh.edb"), Err.TooManyAttachedDatabases)


async def test_exclusive_keeps_others_out(session: Session, other: Session, dbid: int) -> None:
    await session.close_database(dbid)
    mine = await session.open_database("test.edb", EXCLUSIVE)
    await refused(other.open_database("test.edb"), Err.DatabaseLocked)
    await refused(other.attach_database("test.edb"), Err.DatabaseSharingViolation)
    await session.close_database(mine)
    theirs = await other.open_database("test.edb")
    await refused(session.open_database("test.edb", EXCLUSIVE), Err.DatabaseInUse)
    await other.close_database(theirs)
    await session.open_database("test.edb", EXCLUSIVE)


async def test_read_only_attach(session: Session, dbid: int) -> None:
    cursor = await session.create_table(dbid, "t")
    cursor.close()
    await session.close_database(dbid)
    await session.detach_database("test.edb")
    await session.attach_database("test.edb", READ_ONLY)
    dbid = await session.open_database("test.edb")
    assert session.take_warning() == Wrn.FileOpenReadOnly
    await refused(session.create_table(dbid, "u"), Err.DatabaseFileReadOnly)
    await refused(session.delete_table(dbid, "t"), Err.DatabaseFileReadOnly)
    await refused(session.open_table(dbid, "t", int(OpenTableGrbit.TableUpdatable)), Err.InvalidGrbit)
    await session.open_table(dbid, "t")


async def test_closing_a_dbid_closes_its_cursors(session: Session, dbid: int) -> None:
    second = await session.open_database("test.edb")
    cursor = await session.create_table(dbid, "t")
    cursor.close()
    by_first, by_second = await session.open_table(dbid, "t"), await session.open_table(second, "t")
    await session.close_database(dbid)
    refused_now(lambda: session.cursor(by_first.id), Err.InvalidTableId)
    assert session.cursor(by_second.id) is by_second
    await refused(session.close_database(dbid), Err.InvalidDatabaseId)
    await refused(session.open_table(dbid, "t"), Err.InvalidDatabaseId)


async def test_one_database_per_session(engine: Engine) -> None:
    engine.set_parameter(Param.OneDatabasePerSession, 1)
    instance = await engine.create_instance("single")
    await instance.init()
    session = await instance.begin_session()
    await session.create_database("a.edb")
    await session.open_database("a.edb")
    await refused(session.create_database("b.edb"), Err.OneDatabasePerSession)


async def test_a_database_closed_in_a_transaction_stays_attached_until_its_end(session: Session, other: Session, dbid: int) -> None:
    await session.begin_transaction()
    await session.create_table(dbid, "t")
    await session.close_database(dbid)
    await refused(other.detach_database("test.edb"), Err.DatabaseInUse)
    await session.commit_transaction()
    theirs = await other.open_database("test.edb")
    await other.open_table(theirs, "t")
    await other.close_database(theirs)
    await other.detach_database("test.edb")


async def test_two_who_attach_at_once_share_one_database(session: Session, other: Session, dbid: int) -> None:
    await session.close_database(dbid)
    await session.detach_database("test.edb")
    await asyncio.gather(session.attach_database("test.edb"), other.attach_database("test.edb"))
    assert sorted((session.take_warning(), other.take_warning())) == [0, Wrn.DatabaseAttached]
    first, second = await session.open_database("test.edb"), await other.open_database("test.edb")
    assert session.database(first).database is other.database(second).database


class Unhurried(MemoryStore):
    """Databases come and go when it is told that they may."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.go = asyncio.Event()
        self.go.set()

    async def create_database(self, path: str, *, overwrite: bool = False, unfinished: bool = False) -> int:
        await self.go.wait()
        return await super().create_database(path, overwrite=overwrite, unfinished=unfinished)

    async def detach_database(self, slot: int, *, remove: bool = False) -> None:
        await self.go.wait()
        await super().detach_database(slot, remove=remove)


@pytest.mark.parametrize("coming", [True, False])
async def test_a_database_comes_or_goes_though_its_caller_has_gone(clock: ManualClock, coming: bool) -> None:
    """What the storage has begun it ends, and the instance knows of it."""
    store = Unhurried(clock)
    engine = Engine(clock, EventLog(), lambda instance: store)
    instance = await engine.create_instance("a")
    await instance.init()
    session = await instance.begin_session()
    if not coming:
        await session.close_database(await session.create_database("a.edb"))
    store.go.clear()
    calling: asyncio.Task[object] = asyncio.create_task(session.create_database("a.edb") if coming else session.detach_database("a.edb"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait([calling])
    store.go.set()
    await asyncio.sleep(0.01)
    if coming:
        await session.close_database(await session.open_database("a.edb"))
        await session.detach_database("a.edb")
    else:
        await refused(session.open_database("a.edb"), Err.DatabaseNotFound)
    assert store.databases() == {}
