"""The catalog on real files: what was committed is there after a stop, a dirty stop, a detach; what was not, is not."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.flags import AttachDatabaseGrbit, Coltyp, CreateIndexGrbit, InitGrbit, TermGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, Wrn
from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.events import EventLog
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.backlog import Backlog
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.embedded.published import Published
from jetwire_server.store.embedded.store import EmbeddedStore
from tests.server.engine import on_files
from tests.server.engine.on_files import crash_image, engine_on
from tests.server.engine.refusals import refused
from tests.server.engine.tables_for_tests import all_of, insert, make_table

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


# -- what Init may be told --------------------------------------------------------------------------------------------------
async def test_a_database_that_is_gone_is_done_without_if_so_asked(tmp_path: Path) -> None:
    """Of the others everything is there; once started so, the next start needs no word of it."""
    instance = await on_files.started(engine_on(tmp_path / "live"))
    session = await instance.begin_session()
    for name in ("here.edb", "gone.edb"):
        cursor = await make_table(session, await session.create_database(name))
        await insert(cursor, id=1, name=name)
        await insert(cursor, id=2, data=b"x" * 100_000)
    image = await crash_image(instance, tmp_path / "live", tmp_path / "copy")
    await instance.term()
    (image / "a" / "gone.edb").unlink()

    engine = engine_on(image)
    again = await engine.create_instance("a")
    again.set_parameter(Param.LogFileSize, 128)
    await refused(again.init(), Err.AttachedDatabaseMismatch)
    await again.init(int(InitGrbit.ReplayIgnoreMissingDB))
    for _ in range(2):
        assert [database.path for database in again.databases.values()] == ["here.edb"]
        session = await again.begin_session()
        cursor = await session.open_table(await session.open_database("here.edb"), "t")
        assert await all_of(cursor) == [1, 2]
        await refused(session.attach_database("gone.edb"), Err.FileNotFound)
        await again.term(int(TermGrbit.TermDirty))
        again = await on_files.started(engine_on(image))
    await again.term()


@pytest.mark.parametrize("truncates", [True, False])
async def test_log_files_that_recovery_read_are_removed_if_so_asked(tmp_path: Path, truncates: bool) -> None:
    instance = await on_files.started(engine_on(tmp_path / "live"))
    session = await instance.begin_session()
    cursor = await make_table(session, await session.create_database("a.edb"))
    for number in range(8):
        await insert(cursor, id=number, data=b"x" * 60_000)
    image = await crash_image(instance, tmp_path / "live", tmp_path / "copy")
    await instance.term()
    before = len(list((image / "a").glob("edb0*.log")))
    assert before > 2

    engine = engine_on(image)
    again = await engine.create_instance("a")
    again.set_parameter(Param.LogFileSize, 128)
    await again.init(int(InitGrbit.TruncateLogsAfterRecovery) if truncates else 0)
    assert len(list((image / "a").glob("edb0*.log"))) == (0 if truncates else before)
    await again.term(int(TermGrbit.TermDirty))
    last = await on_files.started(engine_on(image))
    session = await last.begin_session()
    assert await all_of(await session.open_table(await session.open_database("a.edb"), "t")) == list(range(8))
    await last.term()


# -- a log that lost its end ------------------------------------------------------------------------------------------------
LOST = int(InitGrbit.ReplayIgnoreLostLogs)


async def stopped_at(root: Path, image_of: Callable[[Instance, Session], Awaitable[Path]]) -> Path:
    """What is left of an instance with some generations of log, in each some records of one table."""
    instance = await on_files.started(engine_on(root / "live"))
    session = await instance.begin_session()
    cursor = await make_table(session, await session.create_database("a.edb"))
    for number in range(1, 28):
        await insert(cursor, id=number, name=f"name {number}", data=b"x" * (60_000 if number < 25 else 10))
    image = await image_of(instance, session)
    await instance.term()
    return image / "a"


async def with_a_later_database(instance: Instance, session: Session, root: Path) -> Path:
    """The log is needed from its beginning, and only the pages of a database that it creates near its end know more than the rest of it."""
    later = await make_table(session, await session.create_database("b.edb"))
    cursor = await session.open_table(await session.open_database("a.edb"), "t")
    for number in range(100, 105):
        await insert(cursor, id=number, data=b"x" * 60_000)
    await insert(later, id=1)
    image = await crash_image(instance, root / "live", root / "copy")
    await instance.store.checkpoint()
    shutil.copy(await crash_image(instance, root / "live", root / "later") / "a" / "b.edb", image / "a")
    return image


async def ready(image: Path) -> Instance:
    instance = await engine_on(image.parent).create_instance("a")
    instance.set_parameter(Param.LogFileSize, 128)
    return instance


def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """For 200 KB of versions a replay waits until they are in the pages."""
    monkeypatch.setattr(limits, "VERSION_BYTES_SLOW", 200_000)
    monkeypatch.setattr("jetwire_server.store.embedded.recovery.GATHER_RECORDS", 2)


@pytest.mark.plain
@pytest.mark.parametrize("short", [False, True])
async def test_commits_of_a_lost_log_file_are_done_without_if_so_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    image = await stopped_at(tmp_path, lambda instance, session: crash_image(instance, tmp_path / "live", tmp_path / "copy"))
    lost = (image / "edb.log").read_bytes()
    (image / "edb.log").unlink()
    await refused((await ready(image)).init(), Err.MissingLogFile)
    if short:
        short_of_memory(monkeypatch)
    note, versions = Backlog.note, 0

    def noted(self: Backlog, published: Published) -> None:
        nonlocal versions
        note(self, published)
        versions = max(versions, self._timeline.bytes)

    monkeypatch.setattr(Backlog, "note", noted)
    instance = await ready(image)
    assert await instance.init(LOST) == Wrn.CommittedLogFilesLost
    assert versions < 500_000 if short else versions > 1_000_000, "the replay of a long log takes bounded memory"
    for _ in range(2):
        session = await instance.begin_session()
        cursor = await session.open_table(await session.open_database("a.edb"), "t")
        there = await all_of(cursor)
        assert there == list(range(1, len(there) + 1))
        assert 15 < len(there) < 27
        await cursor.set_current_index("byName")
        assert sorted(await all_of(cursor)) == there
        await cursor.set_current_index(None)
        await insert(cursor, id=len(there) + 1, name=f"later {len(there)}", data=b"y" * 60_000)
        await instance.term(int(TermGrbit.TermDirty))
        instance = await ready(image)
        assert await instance.init(LOST) == 0  # nothing is lost a second time
    await instance.term()
    (image / "edb.log").write_bytes(lost)
    await refused((await ready(image)).init(), Err.CommittedLogFilesMissing)  # it belongs to a future that was given up


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("how", ["pages", "half a round", "pages of a database that comes later", "all of it", "a gap"])
async def test_a_log_file_that_the_pages_need_cannot_be_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, short: bool
) -> None:
    """The pages know more than the log that is left: all of the last generation's commits, or some rows of them."""

    async def image_of(instance: Instance, session: Session) -> Path:
        store = instance.store
        if how == "pages":
            await store.checkpoint()
        if how == "pages of a database that comes later":
            return await with_a_later_database(instance, session, tmp_path)
        if how != "half a round":
            return await crash_image(instance, tmp_path / "live", tmp_path / "copy")
        monkeypatch.setattr("jetwire_server.store.embedded.checkpoint.CHUNK_BYTES", 1)
        monkeypatch.setattr("jetwire_server.store.embedded.checkpoint.SLICE_KEYS", 1)
        whole, seen = PageFile.apply, 0

        def apply(self: PageFile, groups: Any, **more: Any) -> bool:
            nonlocal seen
            done = whole(self, groups, **more)
            seen += 1
            if seen == 3:
                shutil.copytree(tmp_path / "live", tmp_path / "copy", ignore=shutil.ignore_patterns("scratch", "*-lock"))
            return done

        monkeypatch.setattr(PageFile, "apply", apply)
        await store.checkpoint()
        assert seen > 5
        return tmp_path / "copy"

    image = await stopped_at(tmp_path, image_of)
    archived = sorted(image.glob("edb0*.log"))
    for path in {"all of it": [image / "edb.log", *archived], "a gap": archived[3:4]}.get(how, [image / "edb.log"]):
        path.unlink()
    kept = {path.name: path.read_bytes() for path in image.iterdir() if path.is_file()}
    if short:
        short_of_memory(monkeypatch)
    code = Err.MissingPreviousLogFile if how == "a gap" else Err.RequiredLogFilesMissing
    await refused((await ready(image)).init(LOST), code)
    assert {name: (image / name).read_bytes() for name in kept} == kept


async def test_a_database_that_was_attached_read_only_is_so_after_a_restart(engine: Engine) -> None:
    """It was writable to look at, and every write failed in the store."""
    instance = await started(engine)
    session = await instance.begin_session()
    await session.close_database(await session.create_database("a.edb"))
    await session.detach_database("a.edb")
    await session.attach_database("a.edb", int(AttachDatabaseGrbit.DbReadOnly))
    await instance.term()
    instance = await started(engine)
    session = await instance.begin_session()
    dbid = await session.open_database("a.edb")
    assert session.take_warning() == Wrn.FileOpenReadOnly
    assert session.database(dbid).read_only
    await refused(session.create_table(dbid, "t"), Err.DatabaseFileReadOnly)
    await instance.term()
