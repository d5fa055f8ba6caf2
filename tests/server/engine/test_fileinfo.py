"""Database files: what they take of the disk, and what can be told of them when nobody has them attached."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetwire_protocol.data.flags import Coltyp, DbInfo, Dbstate, Filetype, ResizeDatabaseGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.fileinfo import database_file_info
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.tables import TableCreate
from tests.server.engine.on_files import engine_on, started
from tests.server.engine.refusals import refused
from tests.server.engine.tables_for_tests import all_of, insert, refuses
from tests.support.edb import SAMPLES

PAGE = 4096
TABLE = TableCreate("t", columns=(ColumnCreate("id", Coltyp.Long), ColumnCreate("data", Coltyp.LongBinary)))


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    made = await started(engine_on(tmp_path))
    yield made
    await made.term()


def on_disk(root: Path) -> int:
    return (root / "a" / "a.edb").stat().st_blocks * 512


async def test_space_is_really_taken_and_given_back(tmp_path: Path, instance: Instance) -> None:
    session = await instance.begin_session()
    dbid = await session.create_database("a.edb")
    (await session.create_table_column_index(dbid, TABLE)).cursor.close()
    cursor = await session.open_table(dbid, "t")
    assert await session.grow_database(dbid, 2000) >= 2000
    assert on_disk(tmp_path) >= 2000 * PAGE
    assert await session.get_database_info(dbid, DbInfo.SpaceAvailable) > 1900
    for number in range(300):
        await insert(cursor, id=number, data=os.urandom(9000))
    await session.idle(2)  # a checkpoint: pages are written into the space that was taken
    used = instance.store.database_bytes(1) // PAGE
    assert used > 600
    assert await session.grow_database(dbid, 1000) >= 2000  # it only grows
    assert await session.resize_database(dbid, 10, int(ResizeDatabaseGrbit.ResizeDatabaseOnlyGrow)) >= 2000
    left = await session.resize_database(dbid, 10)
    assert used <= left < 2000
    assert on_disk(tmp_path) < 2000 * PAGE
    assert (await session.get_database_info(dbid, DbInfo.Filesize)) == left
    await insert(cursor, id=300, data=os.urandom(9000))
    await session.idle(2)
    assert await all_of(cursor) == list(range(301))


async def test_a_full_disk_is_said_and_changes_nothing(tmp_path: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await instance.begin_session()
    dbid = await session.create_database("a.edb")
    before = await session.get_database_info(dbid, DbInfo.Filesize)

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        await refused(session.grow_database(dbid, 5000), Err.DiskFull)
    assert await session.get_database_info(dbid, DbInfo.Filesize) <= before
    assert await session.grow_database(dbid, 500) >= 500  # the instance goes on


async def test_the_size_of_a_detached_database(tmp_path: Path, instance: Instance) -> None:
    session = await instance.begin_session()
    dbid = await session.create_database("a.edb")
    await session.close_database(dbid)
    await refused(session.set_database_size("a.edb", 1000), Err.DatabaseInUse)
    await session.detach_database("a.edb")
    assert await session.set_database_size("a.edb", 1000) >= 1000
    assert on_disk(tmp_path) >= 1000 * PAGE
    assert await session.set_database_size("a.edb", 256) >= 1000  # a smaller size is ignored
    await refused(session.set_database_size("a.edb", 255), Err.InvalidParameter)
    await refused(session.set_database_size("missing.edb", 256), Err.FileNotFound)


async def test_what_a_detached_file_tells(tmp_path: Path, instance: Instance) -> None:
    session = await instance.begin_session()
    dbid = await session.create_database("a.edb")
    assert database_file_info(instance, "a.edb", DbInfo.DBInUse) is True
    assert database_file_info(instance, "a.edb", DbInfo.Misc)["dbstate"] == Dbstate.DirtyShutdown
    await session.close_database(dbid)
    await session.detach_database("a.edb")
    assert database_file_info(instance, "a.edb", DbInfo.DBInUse) is False
    assert database_file_info(instance, "a.edb", DbInfo.Misc)["dbstate"] == Dbstate.CleanShutdown
    assert database_file_info(instance, "a.edb", DbInfo.Filesize) == (tmp_path / "a" / "a.edb").stat().st_size
    assert database_file_info(instance, "a.edb", DbInfo.FilesizeOnDisk) == on_disk(tmp_path)
    assert database_file_info(instance, "a.edb", DbInfo.PageSize) == PAGE
    (tmp_path / "a" / "nothing.txt").write_bytes(b"hello")
    (tmp_path / "a" / "empty.edb").write_bytes(b"")
    kinds = {
        name: database_file_info(instance, name, DbInfo.FileType) for name in ("a.edb", "edb.chk", "edb.log", "nothing.txt", "empty.edb")
    }
    assert kinds == {
        "a.edb": Filetype.Database,
        "edb.chk": Filetype.Checkpoint,
        "edb.log": Filetype.Log,
        "nothing.txt": Filetype.Unknown,
        "empty.edb": Filetype.Unknown,
    }
    with refuses(Err.DatabaseCorrupted):
        database_file_info(instance, "nothing.txt", DbInfo.Misc)
    with refuses(Err.FileNotFound):
        database_file_info(instance, "missing.edb", DbInfo.Filesize)
    with refuses(Err.DatabaseInvalidPath):
        database_file_info(instance, "../a/a.edb", DbInfo.Filesize)
    with refuses(Err.InvalidParameter):
        database_file_info(instance, "a.edb", 999)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no real databases here")
async def test_the_header_of_a_real_ese_database(tmp_path: Path, instance: Instance) -> None:
    data = gzip.decompress((SAMPLES / "dissect-basic.edb.gz").read_bytes())
    (tmp_path / "a" / "real.edb").write_bytes(data)
    misc = database_file_info(instance, "real.edb", DbInfo.Misc)
    assert (misc["version"], misc["update"], misc["dbstate"], misc["pageSize"]) == (0x620, 20, Dbstate.CleanShutdown, 4096)
    assert database_file_info(instance, "real.edb", DbInfo.FileType) == Filetype.Database
    assert database_file_info(instance, "real.edb", DbInfo.Filesize) == len(data)
    session = await instance.begin_session()
    with pytest.raises(JetError):  # it is imported, not attached
        await session.attach_database("real.edb")
