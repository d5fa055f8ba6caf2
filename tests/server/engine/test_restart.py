"""The catalog on real files: what was committed is there after a stop, a dirty stop, a detach; what was not, is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit, TermGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err
from jetwire_server.clock import ManualClock
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.tables import TableCreate
from jetwire_server.events import EventLog
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.store import EmbeddedStore
from tests.server.engine.refusals import refused

TABLE = TableCreate(
    "t",
    columns=(ColumnCreate("id", Coltyp.Long), ColumnCreate("title", Coltyp.LongText, cp=1200, default="none")),
    indexes=(IndexCreate("pk", ("+id",), int(CreateIndexGrbit.IndexPrimary)), IndexCreate("byTitle", ("-title",))),
)


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock) -> Engine:
    """Each instance on files of its own."""

    def store(instance: Instance) -> EmbeddedStore:
        gate = Gate(clock)
        files = LocalFiles(f"{tmp_path}/{instance.name}", watch=gate.wrote)
        files.make_directory("")
        log = Log(files, gate, clock, names=LogNames("", "edb"), file_kb=instance.parameters.number(Param.LogFileSize))
        return EmbeddedStore(log, files, LocalFiles(f"{tmp_path}/{instance.name}/scratch"), gate, clock)

    return Engine(clock, EventLog(), store)


async def started(engine: Engine) -> Instance:
    instance = await engine.create_instance("a")
    instance.set_parameter(Param.LogFileSize, 128)
    await instance.init()
    return instance


@pytest.mark.parametrize("grbit", [0, int(TermGrbit.TermComplete), int(TermGrbit.TermAbrupt), int(TermGrbit.TermDirty)])
async def test_the_schema_outlives_the_instance(engine: Engine, grbit: int) -> None:
    instance = await started(engine)
    session = await instance.begin_session()
    dbid = await session.create_database("a.edb")
    made = await session.create_table_column_index(dbid, TABLE)
    table = made.cursor.table
    await session.begin_transaction()
    await session.create_table(dbid, "uncommitted")
    if grbit == TermGrbit.TermComplete:
        await refused(instance.term(grbit), Err.TooManyActiveUsers)
        await session.rollback()
    await instance.term(grbit)

    instance = await started(engine)
    session = await instance.begin_session()
    dbid = await session.open_database("a.edb")
    cursor = await session.open_table(dbid, "T")
    assert cursor.table == table
    await refused(session.open_table(dbid, "uncommitted"), Err.ObjectNotFound)
    await instance.term()


async def test_a_database_may_come_back_in_another_slot(engine: Engine) -> None:
    instance = await started(engine)
    session = await instance.begin_session()
    await session.create_database("a.edb")
    dbid = await session.create_database("b.edb")
    await session.create_table_column_index(dbid, TABLE)
    await session.end_session()
    session = await instance.begin_session()
    await session.detach_database()
    await session.attach_database("b.edb")
    await session.attach_database("a.edb")
    dbid = await session.open_database("b.edb")
    cursor = await session.open_table(dbid, "t")
    assert [c.name for c in cursor.table.columns] == ["id", "title"]
    async with session.operation(write=True) as txn:
        txn.insert(cursor.table.tree, b"k", b"v")
    assert await session.get_database_info(dbid, 10) > 0
    await session.compact("b.edb", "c.edb")
    await session.attach_database("c.edb")
    copy = await session.open_table(await session.open_database("c.edb"), "t")
    txn = await session.enter(False)
    assert await txn.scan(copy.table.tree) == [(b"k", b"v")]
    await session.leave(txn)
    await instance.term()
