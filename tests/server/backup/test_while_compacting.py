"""Copies taken in the middle of a Compact: what it was making is in them, and the start of a server on them removes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit
from jetwire_server.__main__ import app
from jetwire_server.store.embedded.bulk import BulkTree
from jetwire_server.store.interface import Row
from tests.server.backup.lives import restored
from tests.server.backup.reading import INCREMENTAL, take
from tests.support.hosted import Hosted, copy_of, rows_of

COPY = "c.edb"


class Compacting(Hosted):
    """Stands still after the first rows that are copied, until it is told to go on."""

    async def compact(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, standing = asyncio.Event(), asyncio.Event()
        put_many = BulkTree.put_many

        async def slow(tree: BulkTree, rows: list[Row]) -> None:
            await put_many(tree, rows)
            standing.set()
            await self.go_on.wait()

        monkeypatch.setattr(BulkTree, "put_many", slow)
        self.copying = asyncio.create_task(self.session.compact("a.edb", COPY))
        await standing.wait()


@pytest.fixture
async def compacting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Compacting]:
    hosted = Compacting(tmp_path / "data")
    await (await hosted.start()).create()
    await hosted.write(3_000)
    await hosted.compact(monkeypatch)
    yield hosted
    hosted.go_on.set()
    await hosted.copying
    await hosted.stop()


async def served(data: Path, like: Hosted) -> bool:
    """A server starts on it and has every row; in the copy too, if it is there. Whether it is."""
    hosted = await Hosted(data).start()
    try:
        assert list(hosted.instance.store.databases().values()) == ["a.edb"]
        trees = [like.tree]
        if (hosted.directory / COPY).exists():
            await hosted.session.attach_database(COPY)
            trees.append((await hosted.session.open_table(await hosted.session.open_database(COPY), "t")).table.tree)
        snapshot = await hosted.instance.store.begin(read_only=True)
        for tree in trees:
            assert await rows_of(snapshot, tree) == like.model
        await snapshot.rollback()
        return len(trees) == 2
    finally:
        await hosted.stop()


async def test_a_snapshot_verifies_and_starts_without_it(compacting: Compacting, tmp_path: Path) -> None:
    snapshots = compacting.hosting.snapshots
    snap = snapshots.prepare(int(OSSnapshotPrepareGrbit.ContinueAfterThaw))
    await snapshots.freeze(snap, lease_ms=60_000)
    copy = copy_of(compacting.data, tmp_path / "copy")
    assert (await snapshots.thaw(snap)).held
    for _ in range(500):
        manifest = snapshots.status().manifest
        assert manifest is not None, "it is thawed"
        if all(database.digest for database in manifest.instances[0].databases):
            break
        await asyncio.sleep(0.02)
    assert manifest is not None
    assert [database.name for database in manifest.instances[0].databases] == ["a.edb", COPY]
    (tmp_path / "manifest.json").write_text(json.dumps([{"url": "tcp://there", **manifest.to_wire()}]))
    words = ["verify", str(copy), "--manifest", str(tmp_path / "manifest.json")]
    result = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert result.exit_code == 0, result.output
    assert (copy / "default" / COPY).exists()
    assert not await served(copy, compacting)


@pytest.mark.parametrize("to_its_end", [False, True])
async def test_a_backup_is_restored_without_it_or_with_all_of_it(compacting: Compacting, tmp_path: Path, to_its_end: bool) -> None:
    """All of it if a later backup has the log of the Compact's end."""
    await take(compacting.hosting.backups, compacting.instance, tmp_path / "backup")
    if to_its_end:
        compacting.go_on.set()
        await compacting.copying
        await take(compacting.hosting.backups, compacting.instance, tmp_path / "backup", INCREMENTAL)
    _, rows = await restored(tmp_path / "backup", tmp_path / "new" / "default", compacting.tree)
    assert rows == compacting.model
    assert await served(tmp_path / "new", compacting) == to_its_end
