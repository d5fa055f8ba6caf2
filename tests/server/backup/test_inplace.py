"""RestoreInstance over an instance's own files: its later logs are replayed, none is lost, a crash leaves one or the other."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jetwire_protocol.data.flags import CreateDatabaseGrbit, OSSnapshotPrepareGrbit, OSSnapshotTruncateLogGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.backup.directory import backup_instance
from jetwire_server.backup.inplace import restore_instance
from jetwire_server.backup.restore import Restored
from jetwire_server.clock import SystemClock
from jetwire_server.engine.instance import Instance, State
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import Hosting
from jetwire_server.offline.checking import check_instance
from jetwire_server.offline.places import instances_at
from jetwire_server.redo.generation import read_header
from tests.support.hosted import Hosted, Model, copy_of, rows_of


async def back_up(hosted: Hosted, where: str = "bk", grbit: int = 0) -> None:
    service = hosted.hosting.backups
    await backup_instance(service, hosted.instance, where, grbit, lambda *_: None)


async def prepared(data: Path) -> Hosted:
    """A full backup in `bk`, and commits and log files after it."""
    hosted = await (await Hosted(data).start()).create()
    await hosted.write(300)
    await back_up(hosted)
    hosted.saved = dict(hosted.model)  # type: ignore[attr-defined]
    log = hosted.hosting.backups.storage_of(hosted.instance).log
    for _ in range(3):
        await hosted.write(50)
        await log.roll()
    await hosted.write(50)
    return hosted


async def uninitialised(data: Path) -> Instance:
    return await Hosting(LocalFiles(data), SystemClock(), EventLog()).engine.create_instance("default")


async def restored(data: Path, destination: str | None = None) -> Restored:
    return await restore_instance(await uninitialised(data), str(data / "default"), SystemClock(), "bk", destination, lambda *_: None)


async def content(data: Path, hosted: Hosted) -> Model:
    again = await Hosted(data).start()
    try:
        snapshot = await again.instance.store.begin(read_only=True)
        try:
            return await rows_of(snapshot, hosted.tree)
        finally:
            await snapshot.rollback()
    finally:
        await again.stop()


def generations(directory: Path) -> dict[int, bytes]:
    """Every log file by its number, however it is named now."""
    files = LocalFiles(directory)
    found = {}
    for path in [*directory.glob("edb*.log")]:
        if path.name == "edbtmp.log":
            continue
        file = files.open(path.name, read_only=True)
        found[read_header(file).number] = path.read_bytes()
        file.close()
    return found


async def test_newer_logs_are_replayed_and_every_log_file_stays(tmp_path: Path) -> None:
    hosted = await prepared(tmp_path / "data")
    await hosted.stop()
    before = generations(hosted.directory)
    for lost in ("a.edb", "edb.chk"):
        (hosted.directory / lost).unlink()
    result = await restored(hosted.data)
    after = generations(hosted.directory)
    assert {n: after[n] for n in before} == before
    assert max(after) == max(before) + 1
    assert result.incarnation > 1
    assert await content(hosted.data, hosted) == hosted.model
    assert list(check_instance(instances_at(hosted.directory)[0], lambda _: None)) == []


async def test_without_its_current_log_file_the_full_ones_are_replayed(tmp_path: Path) -> None:
    hosted = await prepared(tmp_path / "data")
    await hosted.stop()
    (hosted.directory / "edb.log").unlink()
    await restored(hosted.data)
    found = await content(hosted.data, hosted)
    assert len(hosted.saved) < len(found) < len(hosted.model)  # type: ignore[attr-defined]


async def test_without_logs_the_backup_alone_is_restored(tmp_path: Path) -> None:
    hosted = await prepared(tmp_path / "data")
    await hosted.stop()
    for path in hosted.directory.glob("edb*"):
        path.unlink()
    await restored(hosted.data)
    assert await content(hosted.data, hosted) == hosted.saved  # type: ignore[attr-defined]


async def test_restored_twice_goes_through_both_lives(tmp_path: Path) -> None:
    hosted = await prepared(tmp_path / "data")
    await hosted.stop()
    first = await restored(hosted.data)
    again = await Hosted(hosted.data).start()
    again.tree, again.model, again.history = hosted.tree, hosted.model, {0: {}, 1: {}}
    await again.write(10)
    await again.stop()
    second = await restored(hosted.data)
    assert second.incarnation > first.incarnation
    assert await content(hosted.data, hosted) == hosted.model


async def test_beside_the_instance_it_is_rolled_forward_too(tmp_path: Path) -> None:
    hosted = await prepared(tmp_path / "data")
    await hosted.stop()
    before = {p: p.read_bytes() for p in hosted.directory.glob("*.*") if p.is_file() and not p.name.endswith("-lock")}
    await restored(hosted.data, "beside")
    assert {p: p.read_bytes() for p in before} == before
    (tmp_path / "other").mkdir()
    shutil.move(hosted.directory / "beside", tmp_path / "other" / "default")
    assert await content(tmp_path / "other", hosted) == hosted.model


async def test_a_database_that_came_after_the_backup_comes_along(tmp_path: Path) -> None:
    for lost in (False, True):
        hosted = await (await Hosted(tmp_path / str(lost)).start()).create()
        await back_up(hosted)
        await hosted.create("b.edb")
        await hosted.write(400)
        await hosted.stop()
        if lost:
            (hosted.directory / "b.edb").unlink()
        result = await restored(hosted.data)
        assert sorted(result.databases) == ["a.edb", "b.edb"]
        assert await content(hosted.data, hosted) == hosted.model


def other_log(directory: Path, elsewhere: Path) -> None:
    for path in directory.glob("edb*"):
        path.unlink()
    for path in elsewhere.glob("edb*.log"):
        shutil.copy(path, directory)


def older_log(directory: Path, _: Path) -> None:
    for path in directory.glob("edb*.log"):
        path.unlink()
    shutil.copy(sorted((directory / "bk").glob("edb0*.log"))[-1], directory / "edb.log")


UNFIT: dict[str, tuple[Callable[[Path, Path], object], Err]] = {
    "another instance's": (other_log, Err.InvalidLogSequence),
    "a gap": (lambda d, _: sorted(d.glob("edb0*.log"))[-2].unlink(), Err.MissingCurrentLogFiles),
    "older than the backup": (
        older_log,
        Err.InvalidLogSequence,
    ),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_logs_that_do_not_fit_are_refused_and_nothing_is_touched(tmp_path: Path, what: str) -> None:
    hosted = await prepared(tmp_path / "data")
    await hosted.stop()
    other = await prepared(tmp_path / "other")
    await other.stop()
    spoil, code = UNFIT[what]
    spoil(hosted.directory, other.directory)
    before = {p.name: p.read_bytes() for p in hosted.directory.iterdir() if p.is_file()}
    with pytest.raises(JetError) as caught:
        await restored(hosted.data)
    assert caught.value.code == code
    assert {p.name: p.read_bytes() for p in hosted.directory.iterdir() if p.is_file()} == before


async def test_callers_meanwhile_are_told(tmp_path: Path) -> None:
    hosted = await prepared(tmp_path / "data")
    await hosted.stop()
    instance = await uninitialised(hosted.data)
    root = str(hosted.directory)

    def restoring() -> asyncio.Task[Restored]:
        return asyncio.create_task(restore_instance(instance, root, SystemClock(), "bk", None, lambda *_: None))

    work = restoring()
    for _ in range(3):
        await asyncio.sleep(0)
    assert instance.state is State.RESTORING
    for call in (instance.init(), instance.begin_session(), instance.term(), restoring()):
        with pytest.raises(JetError) as caught:
            await call
        assert caught.value.code == Err.RestoreInProgress
    work.cancel()  # its caller goes away: the restore does not
    for _ in range(1_000):
        if instance.state is State.CREATED:
            break
        await asyncio.sleep(0.02)
    assert await content(hosted.data, hosted) == hosted.model


class Died(Exception):
    """The machine stops here."""


SWAP = ("before_plan", "planned", "removed", "moved", "before_done", "done")


@pytest.mark.parametrize("place", SWAP)
async def test_a_crash_in_the_swap_leaves_the_old_instance_or_the_restored_one(tmp_path: Path, place: str) -> None:
    base = await prepared(tmp_path / "data")
    await base.stop()
    (base.directory / "a.edb").write_bytes(b"damaged")
    met = 0
    for nth in range(1, 20):
        data = copy_of(base.data, tmp_path / f"{place}{nth}")
        (data / ".server").mkdir(exist_ok=True)
        left = nth

        def die() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Died

        failpoints.arm(f"restore.swap.{place}", die)
        try:
            await restored(data)
        except Died:
            met += 1
        finally:
            failpoints.disarm()
        if left > 0:
            break
        if place == "before_plan":
            with pytest.raises(JetError):  # as it was: damaged; and the restore can be repeated
                await content(data, base)
            await restored(data)
        elif place != "done":
            assert any(fault.path == "restore.swap" for fault in check_instance(instances_at(data / "default")[0], lambda _: None))
        assert await content(data, base) == base.model
        shutil.rmtree(data)
    assert met >= (3 if place == "moved" else 1)


async def test_after_a_restore_no_incremental_snapshot_continues_a_full_one_of_before(tmp_path: Path) -> None:
    """The copy of the full snapshot and the log files of the new life do not belong together."""
    hosted = await prepared(tmp_path / "data")

    async def snapshot(hosted: Hosted, grbit: int) -> None:
        snapshots = hosted.hosting.snapshots
        snap = snapshots.prepare(grbit)
        try:
            await snapshots.freeze(snap)
        except JetError:
            await snapshots.abort(snap)
            raise
        await snapshots.thaw(snap)

    incremental = int(OSSnapshotPrepareGrbit.IncrementalSnapshot)
    await snapshot(hosted, 0)
    await snapshot(hosted, incremental)  # control: before the restore one may
    await hosted.stop()
    await restored(hosted.data)
    again = await Hosted(hosted.data).start()
    with pytest.raises(JetError) as caught:
        await snapshot(again, incremental)
    assert caught.value.code == Err.MissingFullBackup
    await snapshot(again, 0)
    await snapshot(again, incremental)
    await again.stop()


@pytest.mark.parametrize("who", ["the snapshot", "a backup"])
async def test_what_is_written_after_a_full_snapshot_is_in_the_incremental_one(tmp_path: Path, who: str) -> None:
    """Its log files were removed: by its own truncation, if a checkpoint came before that, or by a streaming backup."""
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    log, snapshots = hosted.hosting.backups.storage_of(hosted.instance).log, hosted.hosting.snapshots

    async def write() -> None:
        for _ in range(3):
            await hosted.write(10)
            await log.roll()
        await hosted.write(1)
        await hosted.instance.store.checkpoint()

    await write()
    snap = snapshots.prepare(int(OSSnapshotPrepareGrbit.ContinueAfterThaw))
    await snapshots.freeze(snap)
    frozen = log.end
    await snapshots.thaw(snap)
    await write()
    if who == "the snapshot":
        await snapshots.truncate_log(snap, int(OSSnapshotTruncateLogGrbit.AllDatabasesSnapshot))
        assert log.generations()[0] == frozen.generation
    await snapshots.end(snap)
    if who == "a backup":
        await backup_instance(hosted.hosting.backups, hosted.instance, None, 0, lambda *_: None)
        assert log.generations()[0] > frozen.generation
    snap = snapshots.prepare(int(OSSnapshotPrepareGrbit.IncrementalSnapshot))
    if who == "a backup":
        with pytest.raises(JetError) as caught:
            await snapshots.freeze(snap)
        assert caught.value.code == Err.MissingFullBackup
        await snapshots.abort(snap)
    else:
        await snapshots.freeze(snap)
        await snapshots.thaw(snap)
    await hosted.stop()


async def test_the_way_out_where_a_database_was_made_anew_since_the_backup(tmp_path: Path) -> None:
    """Refused, with the log files to move away; then the backup alone is restored, over what the refused one had put together."""
    data = tmp_path / "data"
    hosted = await (await Hosted(data).start()).create()
    await hosted.write(100)
    await back_up(hosted)
    model, tree = dict(hosted.model), hosted.tree
    await hosted.session.end_session()
    hosted.session = await hosted.instance.begin_session()
    await hosted.session.detach_database("a.edb")
    await hosted.session.create_database("a.edb", int(CreateDatabaseGrbit.DbOverwriteExisting))
    await hosted.stop()
    with pytest.raises(JetError, match="move them away") as caught:
        await restored(data)
    assert caught.value.code == Err.AttachedDatabaseMismatch
    assert "go on after it, edb.log, cannot" in caught.value.detail
    (data / "default/edb.log").rename(tmp_path / "edb.log")
    await restored(data)
    hosted.tree = tree
    assert await content(data, hosted) == model
