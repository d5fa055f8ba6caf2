"""ExternalRestore: files of a streaming backup, put where a client wants them, become a database that can be attached."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup.external import Done, Request
from jetwire_server.store.interface import tree_id, tree_number
from tests.server.backup.reading import INCREMENTAL, fetch, take
from tests.support.hosted import Hosted, Model, rows_of

REQUEST = Request("ext/chk", "ext/logs", "ext/bk", [("a.edb", "default/new.edb")])
TARGET = {"target_log_path": "default", "target_checkpoint_path": "default"}


class Placed(Hosted):
    """A server whose instance was backed up, full and incremental, and wrote more; the client has put the files in place."""

    async def prepare(self) -> Placed:
        await self.start()
        await self.create()
        await self.write(300)
        backup = self.data.parent / "backup"
        await take(self.hosting.backups, self.instance, backup)
        await self.write(300)
        await take(self.hosting.backups, self.instance, backup, INCREMENTAL)
        self.saved: Model = dict(self.model)
        await self.write(300)
        self.bk = self.data / "ext" / "bk"
        shutil.copytree(backup, self.bk)
        self.place()
        return self

    def place(self, name: str = "new.edb") -> None:
        shutil.copy(self.data.parent / "backup" / "a.edb", self.directory / name)

    async def restore(self, **other: Any) -> Done:
        return await self.hosting.backups.external.run(replace(REQUEST, **other), lambda *_: None)

    async def rows_in(self, path: str = "new.edb") -> Model:
        """What the restored database holds: attached beside the one it once was."""
        store = self.instance.store
        slot = await store.attach_database(path)
        snapshot = await store.begin(read_only=True)
        try:
            return await rows_of(snapshot, tree_id(slot, tree_number(self.tree)))
        finally:
            await snapshot.rollback()
            await store.detach_database(slot)

    def logs(self) -> list[Path]:
        return sorted(self.bk.glob("edb0*.log"))


@pytest.fixture
async def placed(tmp_path: Path) -> AsyncIterator[Placed]:
    made = await Placed(tmp_path / "data").prepare()
    yield made
    await made.stop()


async def test_the_backup_alone(placed: Placed) -> None:
    done = await placed.restore()
    assert not done.target_runs
    assert [done.gen_low, done.gen_high] == [int(path.name[3:11], 16) for path in (placed.logs()[0], placed.logs()[-1])]
    assert await placed.rows_in() == placed.saved
    assert not (placed.data / "ext" / "chk" / "restore.work").exists()


async def test_rolled_forward_over_the_logs_of_the_running_instance(placed: Placed) -> None:
    done = await placed.restore(**TARGET)
    assert done.target_runs
    assert await placed.rows_in() == placed.model
    await placed.write(1)  # the instance never noticed


async def test_with_circular_logging_the_target_is_not_asked(placed: Placed) -> None:
    placed.instance.parameters.set(Param.CircularLog, 1)
    assert (await placed.restore(**TARGET)).target_runs
    assert await placed.rows_in() == placed.saved


async def test_rolled_forward_over_logs_in_the_log_path(placed: Placed) -> None:
    await placed.hosting.backups.storage_of(placed.instance).log.roll()
    logs = placed.data / "ext" / "logs"
    logs.mkdir()
    for path in placed.directory.glob("edb0*.log"):
        shutil.copy(path, logs)
    await placed.restore()
    assert await placed.rows_in() == placed.model


async def test_only_the_full_backup_of_a_chain(placed: Placed) -> None:
    full = int(placed.logs()[0].name[3:11], 16)
    await placed.restore(gen_low=full, gen_high=full)
    assert await placed.rows_in() == {key: placed.saved[key] for key in sorted(placed.saved)[:300]}


async def test_some_of_the_databases(tmp_path: Path) -> None:
    placed = Placed(tmp_path / "data")
    await placed.start()
    await placed.session.create_database("b.edb")
    await placed.create()
    await placed.write(50)
    await take(placed.hosting.backups, placed.instance, tmp_path / "data" / "ext" / "bk")
    shutil.copy(tmp_path / "data" / "ext" / "bk" / "a.edb", placed.directory / "new.edb")
    await placed.hosting.backups.external.run(REQUEST, lambda *_: None)
    assert await placed.rows_in() == placed.model
    assert not (placed.directory / "ext").exists()
    await placed.stop()


async def test_a_restored_database_may_be_restored_again_after_its_file_was_put_again(placed: Placed) -> None:
    await placed.restore()
    with pytest.raises(JetError) as caught:
        await placed.restore()
    assert caught.value.code == Err.RestoreOfNonBackupDatabase
    placed.place()
    await placed.restore()
    assert await placed.rows_in() == placed.saved


def remove(paths: Iterator[Path]) -> None:
    for path in paths:
        path.unlink()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


Spoil = Callable[[Placed], object]
REFUSED: dict[str, tuple[Err, dict[str, Any], Spoil]] = {
    "one target path": (Err.InvalidParameter, {"target_log_path": "default"}, lambda p: None),
    "the range upside down": (Err.InvalidParameter, {"gen_low": 2, "gen_high": 1}, lambda p: None),
    "one place twice": (Err.InvalidParameter, {"databases": [("a.edb", "default/x"), ("A.EDB", "default/y")]}, lambda p: None),
    "outside": (Err.InvalidPath, {"databases": [("a.edb", "default/../../x")]}, lambda p: None),
    "absolute": (Err.FileNotFound, {"databases": [("a.edb", "/etc/passwd")]}, lambda p: None),
    "the server's own": (Err.InvalidPath, {"log_path": ".server"}, lambda p: None),
    "no log directory": (Err.InvalidPath, {"backup_log_path": "ext/nowhere"}, lambda p: None),
    "no database": (Err.FileNotFound, {}, lambda p: (p.directory / "new.edb").unlink()),
    "no log at all": (Err.FileNotFound, {}, lambda p: remove(p.bk.iterdir())),
    "no manifest": (Err.RestoreOfNonBackupDatabase, {}, lambda p: (p.bk / "backup.json").unlink()),
    "another database": (Err.RestoreOfNonBackupDatabase, {"databases": [("z.edb", "default/new.edb")]}, lambda p: None),
    "a log is missing": (Err.MissingRestoreLogFiles, {}, lambda p: p.logs()[0].unlink()),
    "from later on": (Err.StartingRestoreLogTooHigh, {"gen_low": 2, "gen_high": 9}, lambda p: None),
    "a log of another number": (Err.GivenLogFileIsNotContiguous, {}, lambda p: shutil.copy(p.logs()[0], p.logs()[1])),
    "a bit in a log": (Err.LogCorruptDuringHardRestore, {}, lambda p: flip(p.logs()[0], 9_000)),
    "a bit in the checkpoint file": (Err.CheckpointCorrupt, {}, lambda p: flip(p.bk / "edb.chk", 40)),
    "no database file": (Err.DatabaseCorrupted, {}, lambda p: (p.directory / "new.edb").write_bytes(b"text" * 9_000)),
    "a cut database": (Err.DatabaseCorrupted, {}, lambda p: (p.directory / "new.edb").write_bytes((p.bk / "a.edb").read_bytes()[:-4096])),
    "no such target": (Err.BadRestoreTargetInstance, {"target_log_path": "x", "target_checkpoint_path": "x"}, lambda p: None),
    "a target of another base name": (Err.BadRestoreTargetInstance, {**TARGET, "base_name": "abc"}, lambda p: None),
    "in a running instance": (Err.LogFilePathInUse, {"checkpoint_path": "default/x"}, lambda p: None),
    "over an attached database": (Err.DatabaseSharingViolation, {"databases": [("a.edb", "default/a.edb")]}, lambda p: None),
    "its own place, attached": (Err.DatabaseSharingViolation, {"databases": []}, lambda p: None),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_refused_changes_nothing(placed: Placed, what: str) -> None:
    code, other, spoil = REFUSED[what]
    spoil(placed)
    place = placed.directory / "new.edb"
    before = place.read_bytes() if place.exists() else b""
    with pytest.raises(JetError) as caught:
        await placed.restore(**other)
    assert caught.value.code == code
    assert (place.read_bytes() if place.exists() else b"") == before
    assert not (placed.data / "ext" / "chk" / "restore.work").exists()


async def test_the_end_must_be_reached(tmp_path: Path) -> None:
    """The databases were read while the log went on for some generations: all of them are needed."""
    placed = await Placed(tmp_path / "data").start()
    await placed.create()
    await placed.write(10)
    backups, target = placed.hosting.backups, placed.data / "ext" / "bk"
    log = backups.storage_of(placed.instance).log
    await backups.begin(placed.instance)
    low = log.end.generation
    for _ in range(2):
        await placed.write(10)
        await log.roll()
    await fetch(backups, placed.instance, "a.edb", target)
    for name in (await backups.get_log_info(placed.instance))[0]:
        await fetch(backups, placed.instance, name, target)
    await backups.end(placed.instance)
    shutil.copy(target / "a.edb", placed.directory / "new.edb")
    external = backups.external
    with pytest.raises(JetError) as caught:
        await external.run(replace(REQUEST, gen_high=low), lambda *_: None)
    assert caught.value.code == Err.EndingRestoreLogTooLow
    await external.run(REQUEST, lambda *_: None)
    await placed.stop()


async def test_one_restore_in_a_directory_at_a_time(placed: Placed) -> None:
    first = asyncio.create_task(placed.restore())
    await asyncio.sleep(0)
    with pytest.raises(JetError) as caught:
        await placed.restore()
    assert caught.value.code == Err.RestoreInProgress
    first.cancel()  # its caller goes away: it is finished all the same
    for _ in range(1_000):
        await asyncio.sleep(0.02)
        if not placed.hosting.backups.external._working:
            break
    assert await placed.rows_in() == placed.saved
