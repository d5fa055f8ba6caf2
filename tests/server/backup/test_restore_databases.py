"""Databases that come and go between a full backup and the incremental ones after it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jetwire_protocol.data.flags import CreateDatabaseGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.restore import THE_END, restore
from jetwire_server.clock import SystemClock
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.position import Position
from jetwire_server.store.embedded import recovery
from jetwire_server.store.embedded.assemble import assemble
from jetwire_server.store.interface import tree_slot
from tests.server.backup.lives import restored
from tests.server.backup.reading import INCREMENTAL, take
from tests.support.hosted import Hosted, copy_of, rows_of


async def test_a_database_detached_after_the_full_backup_is_restored_with_all_its_commits(tmp_path: Path) -> None:
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    await hosted.write(100)
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b")
    await hosted.write(500)
    for dbid in list(hosted.session.opened):
        await hosted.session.close_database(dbid)
    await hosted.session.detach_database("a.edb")
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b", INCREMENTAL)
    model = dict(hosted.model)
    await hosted.stop()
    result = await restore(LocalFiles(tmp_path / "b"), LocalFiles(tmp_path / "r"), SystemClock(), until=THE_END, progress=lambda *_: None)
    assert result.databases == []
    storage = assemble(str(tmp_path / "r"), SystemClock())
    await storage.store.start()
    try:
        await storage.store.attach_database("a.edb")
        snapshot = await storage.store.begin(read_only=True)
        try:
            assert await rows_of(snapshot, hosted.tree) == model
        finally:
            await snapshot.rollback()
    finally:
        await storage.store.stop()


@pytest.mark.parametrize("spilling", [False, True])
async def test_a_tree_built_after_the_full_backup_is_still_there_after_another_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spilling: bool
) -> None:
    """Its rows and the commit that names it come from the log; a long log goes to the pages before it is at its end."""
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b")
    store = hosted.instance.store
    built = await store.new_unpublished(tree_slot(hosted.tree))
    rows = [(n.to_bytes(4, "big"), b"row %d" % n) for n in range(3_000)]
    await built.put_many(rows)
    transaction = await store.begin()
    tree = transaction.adopt(built)
    await transaction.commit()
    for _ in range(60):
        await hosted.write(20, size=500)
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b", INCREMENTAL)
    await hosted.stop()
    if spilling:
        monkeypatch.setattr(limits, "VERSION_BYTES_SLOW", 10_000)
        monkeypatch.setattr("jetwire_server.store.embedded.recovery.GATHER_RECORDS", 5)
    await restore(LocalFiles(tmp_path / "b"), LocalFiles(tmp_path / "r"), SystemClock(), until=THE_END, progress=lambda *_: None)
    for _ in range(2):
        storage = assemble(str(tmp_path / "r"), SystemClock())
        await storage.store.start()
        snapshot = await storage.store.begin(read_only=True)
        assert await rows_of(snapshot, tree) == dict(rows)
        await snapshot.rollback()
        await storage.store.checkpoint()
        await storage.store.stop()


async def test_databases_detached_and_attached_after_the_full_backup_are_restored(tmp_path: Path) -> None:
    """As any program does that attaches when it starts and detaches when it ends."""
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    await hosted.write(100)
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b")
    for count in (0, 100):  # with something between and without
        if count:
            await hosted.write(count)
        for dbid in list(hosted.session.opened):
            await hosted.session.close_database(dbid)
        await hosted.session.detach_database("a.edb")
        await hosted.session.attach_database("a.edb")
    await hosted.write(50)
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b", INCREMENTAL)
    await hosted.session.detach_database("a.edb")  # and one in each of two incremental backups
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b", INCREMENTAL)
    await hosted.session.attach_database("a.edb")
    await hosted.write(50)
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b", INCREMENTAL)
    await hosted.stop()
    _, rows = await restored(tmp_path / "b", tmp_path / "r", hosted.tree)
    assert rows == hosted.model


async def test_a_recovery_that_is_cut_short_between_two_detachings_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older files beside the whole log, as incremental snapshots leave them: what the first recovery moved, the second need not find."""
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    first = hosted.tree
    await hosted.create("b.edb")
    await hosted.write(100)
    await hosted.instance.store.checkpoint()
    older = copy_of(hosted.directory, tmp_path / "older")
    await hosted.write(100)
    for dbid in list(hosted.session.opened):
        await hosted.session.close_database(dbid)
    for name in ("a.edb", "b.edb"):
        await hosted.session.detach_database(name)
    for name in ("a.edb", "b.edb"):
        await hosted.session.attach_database(name)
    await hosted.write(50)
    await hosted.stop()
    for log in hosted.directory.glob("edb*.log"):
        shutil.copy(log, older)
    attach = recovery._Recovery._attach

    def cut_short(this: recovery._Recovery, slot: int, path: str, signature: bytes, read_only: bool, base: int | None) -> bool:
        if base:
            raise JetError(Err.OutOfMemory)
        return attach(this, slot, path, signature, read_only, base)

    with monkeypatch.context() as patched:
        patched.setattr(recovery._Recovery, "_attach", cut_short)
        with pytest.raises(JetError, match="OutOfMemory"):
            await assemble(str(older), SystemClock()).store.start()
    storage = assemble(str(older), SystemClock())
    await storage.store.start()
    try:
        assert set(storage.store.databases().values()) == {"a.edb", "b.edb"}
        snapshot = await storage.store.begin(read_only=True)
        assert await rows_of(snapshot, hosted.tree) == hosted.model
        assert await rows_of(snapshot, first) == {}
        await snapshot.rollback()
    finally:
        await storage.store.stop()


@pytest.mark.parametrize("how", ["made anew", "changed elsewhere", "made while it began"])
async def test_no_incremental_backup_of_a_database_that_is_not_the_one_of_the_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It was taken, and could not be restored."""
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    backups, instance, session = hosted.hosting.backups, hosted.instance, hosted.session
    await take(backups, instance, tmp_path / "b")
    if how == "made while it began":
        roll = Log.roll

        async def late(log: Log) -> Position:
            await instance.store.create_database("b.edb")  # what had looked for backups before
            return await roll(log)

        monkeypatch.setattr(Log, "roll", late)
    else:
        for dbid in list(session.opened):
            await session.close_database(dbid)
        await session.detach_database("a.edb")
        if how == "made anew":
            await session.create_database("a.edb", int(CreateDatabaseGrbit.DbOverwriteExisting))
        else:
            elsewhere = await Hosted(tmp_path / "elsewhere").start()
            shutil.copy(hosted.directory / "a.edb", elsewhere.directory)
            await elsewhere.session.attach_database("a.edb")
            await elsewhere.session.detach_database("a.edb")
            await elsewhere.stop()
            shutil.copy(elsewhere.directory / "a.edb", hosted.directory)
            await session.attach_database("a.edb")
    with pytest.raises(JetError, match="MissingFullBackup"):
        await take(backups, instance, tmp_path / "b", INCREMENTAL)
    monkeypatch.undo()
    await take(backups, instance, tmp_path / "next")
    await hosted.write() if how == "made while it began" else None
    await take(backups, instance, tmp_path / "next", INCREMENTAL)
    databases = list(instance.store.databases().values())
    await hosted.stop()
    result = await restore(
        LocalFiles(tmp_path / "next"), LocalFiles(tmp_path / "r"), SystemClock(), until=THE_END, progress=lambda *_: None
    )
    assert result.databases == databases
