"""Databases that come and go between a full backup and the incremental ones after it."""

from __future__ import annotations

from pathlib import Path

from jetwire_server.backup.restore import THE_END, restore
from jetwire_server.clock import SystemClock
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.embedded.assemble import assemble
from tests.server.backup.reading import INCREMENTAL, take
from tests.support.hosted import Hosted, rows_of


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
