"""An instance on three roots: its directory, its log's, a database's. Parts of different snapshots are refused by name,
and nothing else is: not what ran on, grew, was restored, or was interrupted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit as P
from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints, hosting
from jetwire_server.__main__ import app
from jetwire_server.backup.directory import backup_instance
from jetwire_server.backup.inplace import restore_instance
from jetwire_server.clock import SystemClock
from tests.support.hosted import Hosted, Model, copy_of, rows_of

OWN, LOGS, DATABASES = ROOTS = ("", "logs", "dbs")
MARKER = "snapshot.marker"


class Life(Hosted):
    """The table that is written to lies in `dbs`; another database in the instance's directory."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, LOGS)

    async def began(self) -> Life:
        await self.start()
        await self.session.create_database("own.edb")
        await self.create(f"{DATABASES}/b.edb")
        return self

    async def snapshot(self, copy: Path, grbit: int = 0, *, checkpoint: bool = False) -> Model:
        """Written to, and copied while frozen."""
        await self.write(20)
        if checkpoint:
            await self.instance.store.checkpoint()
        await self.write(20)
        snap = self.hosting.snapshots.prepare(grbit)
        await self.hosting.snapshots.freeze(snap, lease_ms=60_000)
        copy_of(self.data, copy)
        assert (await self.hosting.snapshots.thaw(snap)).held
        return dict(self.model)


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    one = await Life(tmp_path / "data").began()
    yield one
    await one.stop()


async def content(life: Life, data: Path) -> Model:
    """What a server on these files holds."""
    again = Life(data)
    await again.start()
    try:
        snapshot = await again.instance.store.begin(read_only=True)
        try:
            return await rows_of(snapshot, life.tree)
        finally:
            await snapshot.rollback()
    finally:
        await again.stop()


async def refused(life: Life, data: Path) -> list[str]:
    before = contents(data)
    with pytest.raises(JetError) as caught:
        await content(life, data)
    assert caught.value.code == Err.BadRestoreTargetInstance, caught.value
    assert contents(data) == before, "a refused start changes nothing"
    roots: list[str] = caught.value.data["roots"]
    assert all((root or "the instance's directory") in caught.value.detail for root in roots)
    return roots


def contents(data: Path) -> dict[str, bytes]:
    files = [path for path in (data / "default").rglob("*") if path.is_file() and not path.name.endswith("-lock")]
    return {str(path): path.read_bytes() for path in files}


def of_root(data: Path, root: str) -> list[Path]:
    return [path for path in sorted((data / "default" / root).iterdir()) if path.is_file()]


def put(source: Path, root: str, target: Path) -> None:
    """One root as it was there."""
    place = target / "default" / root
    for path in of_root(target, root):
        path.unlink()
    for path in of_root(source, root):
        shutil.copy(path, place)


def mixed(target: Path, copies: tuple[Path, ...]) -> Path:
    """The first root of the first copy, the second of the second ..."""
    shutil.copytree(copies[0], target)
    for root, copy in zip(ROOTS, copies, strict=True):
        put(copy, root, target)
    return target


async def test_the_same_marker_is_on_every_root_of_a_copy(life: Life, tmp_path: Path) -> None:
    await life.snapshot(tmp_path / "copy")
    markers = {(tmp_path / "copy" / "default" / root / MARKER).read_bytes() for root in ROOTS}
    assert len(markers) == 1


async def test_the_manifest_names_the_log_and_the_markers_wherever_they_are(life: Life) -> None:
    snap = life.hosting.snapshots.prepare()
    manifest = (await life.hosting.snapshots.freeze(snap)).manifest
    named = {file.path for file in manifest.instances[0].files}
    markers = {f"{root}/{MARKER}" if root else MARKER for root in ROOTS}
    assert named >= {"logs/edb.log", "logs/edb.chk", "own.edb", "dbs/b.edb"} | markers


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_every_mix_of_two_snapshots_is_refused_naming_the_older_roots(life: Life, tmp_path: Path, checkpoint: bool) -> None:
    copies = {n: tmp_path / f"copy{n}" for n in (1, 2)}
    models = {n: await life.snapshot(copy, int(P.CopySnapshot), checkpoint=checkpoint) for n, copy in copies.items()}
    for which in itertools.product((1, 2), repeat=3):
        target = mixed(tmp_path / "mix{}{}{}".format(*which), tuple(copies[n] for n in which))
        if len(set(which)) == 1:
            assert await content(life, target) == models[which[0]]
        else:
            odd = sorted(root for root, n in zip(ROOTS, which, strict=True) if n == 1)
            assert await refused(life, target) == odd
            for verb in ("verify", "recover", "check"):
                result = await asyncio.to_thread(CliRunner().invoke, app, [verb, str(target / "default")])
                assert result.exit_code != 0
                assert "put back all roots of one snapshot" in result.output.replace("\n", " ")


async def test_dump_reads_a_mix_with_a_warning_and_shows_the_markers(life: Life, tmp_path: Path) -> None:
    copies = [tmp_path / "copy1", tmp_path / "copy2"]
    for copy in copies:
        await life.snapshot(copy, int(P.CopySnapshot))
    target = mixed(tmp_path / "mix", (copies[1], copies[1], copies[0]))

    async def dump(data: Path, *words: str) -> tuple[str, list[dict[str, Any]]]:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["dump", str(data), *words])
        assert result.exit_code == 0, result.output
        return result.stderr, [json.loads(line) for line in result.stdout.splitlines()]

    said, facts = await dump(target, "--headers")
    snapshots = {one["file"]: one["sealed"]["snap_id"] for one in facts if one["file"].endswith(MARKER)}
    older, newer = snapshots[f"{DATABASES}/{MARKER}"], snapshots[MARKER]
    assert older < newer == snapshots[f"{LOGS}/{MARKER}"]
    assert f"warning: dbs is of snapshot {older}, but the rest of snapshot {newer}" in said
    before = contents(target)
    assert f"warning: dbs is of snapshot {older}" in (await dump(target))[0]
    assert contents(target) == before
    assert (await dump(copies[1]))[0] == "", "one snapshot's parts: nothing to warn of"


async def test_control_without_the_check_older_databases_are_taken(life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log rolls them forward: nothing else would notice. So such refusals are the markers' work."""
    for n in (1, 2):
        newest = await life.snapshot(tmp_path / f"copy{n}", int(P.CopySnapshot))
    target = mixed(tmp_path / "mix", (tmp_path / "copy2", tmp_path / "copy2", tmp_path / "copy1"))
    assert await refused(life, target) == [DATABASES]
    monkeypatch.setattr(hosting, "refuse_mixed", lambda *_: None)
    assert await content(life, target) == newest


async def test_a_root_without_a_marker_beside_roots_that_name_it_is_refused(life: Life, tmp_path: Path) -> None:
    """As if it came from before the first snapshot."""
    await life.snapshot(tmp_path / "copy")
    (tmp_path / "copy" / "default" / DATABASES / MARKER).unlink()
    assert await refused(life, tmp_path / "copy") == [DATABASES]


# -- what must start ----------------------------------------------------------------------------------------------------
async def test_an_instance_that_ran_on_starts_cleanly_stopped_or_not(life: Life, tmp_path: Path) -> None:
    await life.snapshot(tmp_path / "copy")
    await life.write(30)
    copy_of(life.data, tmp_path / "crashed")
    assert await content(life, tmp_path / "crashed") == life.model
    assert await content(life, tmp_path / "crashed") == life.model


async def test_a_copy_that_was_served_and_snapshot_again_starts(life: Life, tmp_path: Path) -> None:
    await life.snapshot(tmp_path / "copy")
    again = Life(tmp_path / "copy")
    await again.start()
    again.tree, again.model = life.tree, dict(life.model)
    await again.snapshot(tmp_path / "second")
    await again.stop()
    for data in ("copy", "second"):
        assert await content(life, tmp_path / data) == again.model


async def test_databases_that_came_or_went_since_a_snapshot_do_not_matter(life: Life, tmp_path: Path) -> None:
    await life.session.create_database("other/c.edb")
    await life.snapshot(tmp_path / "copy1")
    await life.session.create_database("new/d.edb")
    copy_of(life.data, tmp_path / "came")
    assert await content(life, tmp_path / "came") == life.model
    await life.stop()
    await life.start()
    await life.session.detach_database("other/c.edb")
    await life.snapshot(tmp_path / "copy2")
    assert (tmp_path / "copy2/default/other" / MARKER).read_bytes() != (tmp_path / "copy2/default/new" / MARKER).read_bytes()
    assert await content(life, tmp_path / "copy2") == life.model


async def test_a_root_that_was_removed_and_made_again_needs_no_marker(life: Life, tmp_path: Path) -> None:
    await life.session.create_database("other/c.edb")
    await life.snapshot(tmp_path / "copy1")
    await life.stop()
    await life.start()
    await life.session.detach_database("other/c.edb")
    shutil.rmtree(life.directory / "other")
    await life.session.create_database("other/c.edb")
    copy_of(life.data, tmp_path / "again")
    assert not (tmp_path / "again/default/other" / MARKER).exists()
    assert await content(life, tmp_path / "again") == life.model
    put(tmp_path / "copy1", "other", tmp_path / "again")  # the old one: it has its marker, and its log is another's
    with pytest.raises(JetError, match=r"other/c\.edb"):
        await content(life, tmp_path / "again")


@pytest.mark.parametrize("place", ["snapshot.between_markers", "snapshot.freezing", "snapshot.marked"])
async def test_a_freeze_that_failed_between_two_markers_is_no_mix(life: Life, tmp_path: Path, place: str) -> None:
    await life.snapshot(tmp_path / "copy1")

    def fail() -> None:
        copy_of(life.data, tmp_path / "crashed")
        raise OSError(5, "failpoint")

    failpoints.arm(place, fail)
    try:
        with pytest.raises(OSError, match="failpoint"):
            await life.hosting.snapshots.freeze(life.hosting.snapshots.prepare())
    finally:
        failpoints.disarm(place)
    assert await content(life, tmp_path / "crashed") == life.model


async def test_logs_of_an_incremental_snapshot_belong_beside_the_full_one_s_databases(life: Life, tmp_path: Path) -> None:
    await life.snapshot(tmp_path / "full")
    newest = await life.snapshot(tmp_path / "incremental", int(P.IncrementalSnapshot), checkpoint=True)
    full, incremental = tmp_path / "full", tmp_path / "incremental"
    restored = mixed(tmp_path / "restored", (full, incremental, full))
    shutil.copy(full / "default" / LOGS / "edb.chk", restored / "default" / LOGS)  # recovery begins where the full one's pages end
    assert await content(life, restored) == newest
    assert await refused(life, mixed(tmp_path / "torn", (incremental, full, incremental))) == [LOGS]


async def test_what_was_restored_from_a_backup_starts_whatever_its_markers_say(life: Life, tmp_path: Path) -> None:
    """RestoreInstance leaves the markers where they are: they are of another incarnation than the log from then on."""
    await life.snapshot(tmp_path / "copy1")
    await backup_instance(life.hosting.backups, life.instance, "bk", 0, lambda *_: None)
    await life.snapshot(tmp_path / "copy2", int(P.CopySnapshot))
    await life.stop()
    shutil.copy(tmp_path / "copy1/default/dbs" / MARKER, life.directory / DATABASES)
    assert await refused(life, life.data) == [DATABASES]
    instance = await life.hosted().engine.create_instance("default")
    await restore_instance(instance, str(life.directory), SystemClock(), "bk", None, lambda *_: None)
    assert await content(life, life.data) == life.model
    await life.start()


async def test_a_damaged_marker_is_named(life: Life, tmp_path: Path) -> None:
    await life.snapshot(tmp_path / "copy")
    path = tmp_path / "copy" / "default" / DATABASES / MARKER
    path.write_bytes(path.read_bytes()[:-2])
    result = await asyncio.to_thread(CliRunner().invoke, app, ["check", str(tmp_path / "copy")])
    assert (result.exit_code, "snapshot.marker: the snapshot marker of dbs" in result.output) == (1, True), result.output
    with pytest.raises(JetError) as caught:
        await content(life, tmp_path / "copy")
    assert "the snapshot marker of dbs" in caught.value.detail
    assert caught.value.code == Err.BadRestoreTargetInstance
