"""Sizes, idle work, Compact, what is asked about databases; a commit that waits while the service stops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetwire_protocol.data.flags import Coltyp, CompactGrbit, DefragmentGrbit, IdleGrbit, ResizeDatabaseGrbit
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server.clock import ManualClock
from jetwire_server.engine import longvalue
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.fileinfo import database_file_info
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.longtrees import values_with_trees
from jetwire_server.engine.longvalue import _ROOT as ROOT
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.events import EventLog
from jetwire_server.rows import LongRef
from jetwire_server.store.interface import Commit, Report, tree_number, tree_slot
from jetwire_server.store.memory import MemoryStore
from jetwire_server.store.transaction import StoreTransaction
from tests.server.engine.refusals import refused, refused_now

START, STOP = int(DefragmentGrbit.DefragmentBatchStart), int(DefragmentGrbit.DefragmentBatchStop)


async def test_idle(session: Session, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    await session.idle(int(IdleGrbit.IdleCompact | IdleGrbit.IdleStatus))
    assert session.take_warning() == 0
    monkeypatch.setattr(instance.store, "fullness", lambda: 0.51)
    await session.idle(int(IdleGrbit.IdleStatus))
    assert session.take_warning() == Wrn.IdleFull
    await refused(session.idle(int(IdleGrbit.IdleFlushBuffers)), Err.InvalidGrbit)
    await refused(session.idle(0x1000), Err.InvalidParameter)


async def test_defragment(session: Session, dbid: int, clock: ManualClock) -> None:
    assert await session.defragment(dbid, grbit=STOP) == (0, 0)
    assert session.take_warning() == Wrn.DefragNotRunning
    await session.defragment(dbid, grbit=START)
    await session.defragment(dbid, grbit=START)
    assert session.take_warning() == Wrn.DefragAlreadyRunning
    clock.advance(5)
    assert await session.defragment(dbid, grbit=STOP) == (1, 5)
    await refused(session.defragment(dbid), Err.InvalidGrbit)
    await refused(session.defragment(dbid, grbit=START | STOP), Err.InvalidGrbit)
    await refused(session.defragment(dbid, "t", grbit=START), Err.InvalidParameter)
    await refused(session.defragment(dbid, "t", grbit=int(DefragmentGrbit.DefragmentBTree)), Err.ObjectNotFound)
    await refused(session.defragment(99, grbit=START), Err.InvalidDatabaseId)
    await session.begin_transaction(1)
    await refused(session.defragment(dbid, grbit=START), Err.TransReadOnly)


async def test_sizes(session: Session, dbid: int) -> None:
    assert await session.grow_database(dbid, 100) == 100
    assert await session.grow_database(dbid, 50) == 100
    assert await session.resize_database(dbid, 50, int(ResizeDatabaseGrbit.ResizeDatabaseOnlyGrow)) == 100
    assert await session.resize_database(dbid, 50) == 50
    assert await session.resize_database(dbid, 90, int(ResizeDatabaseGrbit.ResizeDatabaseOnlyShrink)) == 50
    assert await session.get_database_info(dbid, 10) == 50
    await refused(session.resize_database(dbid, 0), Err.InvalidParameter)
    await refused(session.resize_database(dbid, 5, 8), Err.InvalidGrbit)
    await refused(session.set_database_size("test.edb", 256), Err.DatabaseInUse)
    await refused(session.set_database_size("test.edb", 255), Err.InvalidParameter)
    await session.close_database(dbid)
    await session.detach_database("test.edb")
    assert await session.set_database_size("test.edb", 277) == 277
    await refused(session.set_database_size("missing.edb", 256), Err.FileNotFound)


async def test_database_info(session: Session, instance: Instance, dbid: int) -> None:
    assert await session.get_database_info(dbid, 0) == "test.edb"
    assert await session.get_database_info(dbid, 17) == 4096
    assert (await session.get_database_info(dbid, 14))["dbstate"] == 2
    await refused(session.get_database_info(dbid, 1), Err.FeatureNotAvailable)
    await refused(session.get_database_info(dbid, 999), Err.InvalidParameter)
    assert database_file_info(instance, "test.edb", 15) is True
    refused_now(lambda: database_file_info(instance, "no.edb", 15), Err.FileNotFound)
    refused_now(lambda: database_file_info(instance, "test.edb", 999), Err.InvalidParameter)


async def test_compact_copies_the_schema_and_every_row(session: Session, dbid: int, instance: Instance) -> None:
    made = await session.create_table_column_index(
        dbid,
        TableCreate(
            "t",
            columns=(ColumnCreate("id", Coltyp.Long), ColumnCreate("b", Coltyp.LongText)),
            indexes=(IndexCreate("pk", ("+id",), 2), IndexCreate("byB", ("+b",))),
        ),
    )
    rows = [(n.to_bytes(4, "big"), b"row %d" % n) for n in range(2500)]
    async with session.operation(write=True) as txn:
        for key, value in rows:
            txn.insert(made.cursor.table.tree, key, value)
        own = txn.new_tree(1)
        txn.put(own, bytes(8), b"a big value")
        txn.put(made.cursor.table.long_values, (7).to_bytes(8, "big"), ROOT.pack(1, 11, tree_number(own)))
        txn.put(made.cursor.table.long_values, (8).to_bytes(8, "big"), ROOT.pack(1, 5, 0))
        txn.put(made.cursor.table.long_values, (8).to_bytes(8, "big") + bytes(8), b"small")
        txn.put(instance.databases[1].catalog.tree, b"C" + made.cursor.table.objid.to_bytes(6, "big") + b"A", b"42")
    await session.compact("test.edb", "small.edb")
    await refused(session.compact("test.edb", "small.edb"), Err.DatabaseDuplicate)
    await refused(session.compact("test.edb", "TEST.edb"), Err.InvalidParameter)
    await refused(session.compact("test.edb", "x.edb", int(CompactGrbit.CompactRepair)), Err.FeatureNotAvailable)
    await session.attach_database("small.edb")
    copy = await session.open_table(await session.open_database("small.edb"), "t")
    assert copy.table.columns == made.cursor.table.columns
    assert [i.name for i in copy.table.indexes] == ["pk", "byB"]
    assert copy.table.indexes[0].tree == copy.table.tree
    txn = await session.enter(False)
    assert await txn.scan(copy.table.tree, limit=5000) == rows
    assert await longvalue.read(txn, copy.table, LongRef(7, 11)) == b"a big value"
    assert await longvalue.read(txn, copy.table, LongRef(8, 5)) == b"small"
    big = await values_with_trees(txn, copy.table)
    assert list(big) == [(7).to_bytes(8, "big")]
    slot = tree_slot(copy.table.tree)
    assert tree_slot(big[(7).to_bytes(8, "big")].tree) == slot != 1
    key = b"C" + copy.table.objid.to_bytes(6, "big") + b"A"
    assert await txn.get(instance.databases[slot].catalog.tree, key) == b"42"
    await session.leave(txn)
    copy.close()
    await session.delete_table(copy.dbid, "t")
    async with session.operation(write=False) as txn:
        assert await txn.scan(big[(7).to_bytes(8, "big")].tree) == []
    await session.begin_transaction()
    await refused(session.compact("test.edb", "y.edb"), Err.InTransaction)


class Frozen(MemoryStore):
    """Commits wait until they are let go, as they do while a snapshot is taken."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.thawed = asyncio.Event()
        self.thawed.set()

    def seal(self, transaction: StoreTransaction, lazy: bool, report: Report) -> None:
        async def queued() -> None:
            await self.thawed.wait()
            MemoryStore.seal(self, transaction, lazy, report)

        self.queued = asyncio.create_task(queued())


async def test_stop_service_answers_a_waiting_commit_which_still_commits(clock: ManualClock) -> None:
    store = Frozen(clock)
    engine = Engine(clock, EventLog(), lambda instance: store)
    instance = await engine.create_instance("a")
    await instance.init()
    session = await instance.begin_session()
    dbid = await session.create_database("a.edb")
    await session.begin_transaction()
    await session.create_table(dbid, "t")
    store.thawed.clear()
    waiting = asyncio.create_task(session.commit_transaction())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    instance.stop_service()
    await refused(waiting, Err.ClientRequestToStopJetService)
    store.thawed.set()
    await asyncio.sleep(0.01)
    reader: Any = await store.begin()
    assert await instance.databases[1].catalog.find(reader, "t") is not None


class Slow(MemoryStore):
    """Publishes a commit, and reports it later: others may begin in between."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.report, self.sealed = asyncio.Event(), asyncio.Event()
        self.report.set()

    def seal(self, transaction: StoreTransaction, lazy: bool, report: Report) -> None:
        def sealed(answer: Commit | JetError) -> None:
            self.sealed.set()
            self.telling = asyncio.create_task(told(answer))

        async def told(answer: Commit | JetError) -> None:
            await self.report.wait()
            report(answer)

        super().seal(transaction, lazy, sealed)


async def test_a_schema_change_published_but_not_reported_is_seen_by_whom_it_concerns(clock: ManualClock) -> None:
    store = Slow(clock)
    engine = Engine(clock, EventLog(), lambda instance: store)
    instance = await engine.create_instance("a")
    await instance.init()
    maker, early, late = [await instance.begin_session() for _ in range(3)]
    dbid = await maker.create_database("a.edb")
    (await maker.create_table(dbid, "t")).close()
    cursors = {}
    for session in (maker, early, late):
        cursors[session.id] = await session.open_table(await session.open_database("a.edb"), "t")
    await early.begin_transaction()
    await maker.begin_transaction()
    await maker.add_column(cursors[maker.id], "a", ColumnCreate("", Coltyp.Long))
    store.report.clear()
    store.sealed.clear()
    commit = asyncio.create_task(maker.commit_transaction())
    await store.sealed.wait()

    async def columns(session: Session) -> list[str]:
        async with session.operation(write=False) as txn:
            cursor, catalog = cursors[session.id], instance.databases[1].catalog
            if cursor.stamp != catalog.stamp or txn.snapshot < catalog.newest:
                await session.refresh_table(cursor, txn)
            return [c.name for c in cursor.table.columns]

    await late.begin_transaction()
    for _ in range(2):
        assert await columns(late) == ["a"]
        assert await columns(early) == []
        assert cursors[early.id].stamp == -1
        store.report.set()
        await commit
    assert await columns(late) == ["a"]
    assert cursors[late.id].stamp == instance.databases[1].catalog.stamp
    await early.commit_transaction()
    assert await columns(early) == ["a"]


async def test_a_defragmentation_stopped_in_its_first_pass_has_no_second(
    session: Session, other: Session, dbid: int, other_dbid: int, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        going.set()
        await go_on.wait()

    monkeypatch.setattr(instance.store, "checkpoint", slow)
    first = asyncio.create_task(session.defragment(dbid, grbit=START))
    await going.wait()
    await other.defragment(other_dbid, grbit=STOP)
    go_on.set()
    assert (await first)[0] == 1
    tasks = [task for task in asyncio.all_tasks() if "_go_on" in repr(task)]
    assert not tasks
    await session.defragment(dbid, grbit=STOP)
    assert session.take_warning() == Wrn.DefragNotRunning
