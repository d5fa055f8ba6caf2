"""What starting, backing up and restoring answer to files that are damaged, missing or somebody else's."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from jetwire_protocol.errors import Wrn
from tests.support.bench import Bench, World
from tests.support.calls import LOGS, NO_BACKUP, Step
from tests.support.shown import shows

MARK = b"a value that is easily found"


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 0xFF]))


def flip_all(path: Path, wanted: bytes) -> None:
    data = path.read_bytes()
    place = data.find(wanted)
    assert place >= 0
    while place >= 0:
        flip(path, place)
        place = data.find(wanted, place + 1)


async def written(bench: Bench) -> World:
    """Three generations of the log, a row in each; the pages hold none of it yet."""
    world = await bench.world()
    for number in range(3):
        await world.line.must("PutRecords", world.params("PutRecords", {"records": [{"id": 10 + number, "note": MARK.decode()}]}))
        if number < 2:
            await bench.hosting.backups.storage_of(bench.hosting.engine.instance(bench.instance)).log.roll()
    return world


async def lived(bench: Bench, instance: int, *databases: str) -> None:
    """Starts an instance, makes databases and generations of the log, and ends it as a crash would."""
    await bench.line.must("Init", {"instance": instance})
    sesid = (await bench.line.must("BeginSession", {"instance": instance}))["sesid"]
    for name in databases:
        await bench.line.must("CreateDatabase", {"sesid": sesid, "database": name})
    for _ in range(2):
        await bench.hosting.backups.storage_of(bench.hosting.engine.instance(instance)).log.roll()
    await bench.line.must("Term", {"instance": instance, "grbit": ["TermDirty"]})


async def named(bench: Bench, name: str) -> int:
    handle: int = (await bench.line.must("CreateInstance", {"name": name}))["instance"]
    return handle


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "its checkpoint is damaged": ("JET_errCheckpointCorrupt", lambda path: flip(path / "edb.chk", 20)),
    "a log in the middle is damaged": ("JET_errLogFileCorrupt", lambda path: flip_all(path / "edb00000002.log", MARK)),
    "the header of its log is damaged": ("JET_errLogFileCorrupt", lambda path: flip(path / "edb.log", 20)),
    "its log is missing": ("JET_errMissingLogFile", lambda path: (path / "edb.log").unlink()),
}


@shows("Init", "JET_errCheckpointCorrupt", "JET_errLogFileCorrupt", "JET_errMissingLogFile")
async def test_starting_on_damage(tmp_path: Path) -> None:
    """The file is put back each time: then it starts, with every row."""
    async with Bench(tmp_path) as bench:
        world = await written(bench)
        await bench.line.must("Term", {"instance": bench.instance, "grbit": ["TermDirty"]})
        default, kept = tmp_path / "default", tmp_path.with_name("kept")
        shutil.copytree(default, kept)
        instance = await named(bench, "default")
        for what, (error, damage) in DAMAGE.items():
            damage(default)
            assert await World(bench.line, {"other": instance}).name_of("Init") == error, what
            shutil.rmtree(default)
            shutil.copytree(kept, default)
        await bench.line.must("Init", {"instance": instance})
        sesid = (await bench.line.must("BeginSession", {"instance": instance}))["sesid"]
        dbid = (await bench.line.must("OpenDatabase", {"sesid": sesid, "database": "world.edb"}))["dbid"]
        opened = await bench.line.must("OpenTable", {"sesid": sesid, "dbid": dbid, "tablename": world.kept["table"]})
        counted = await bench.line.must("IndexRecordCount", {"sesid": sesid, **opened})
        assert counted == {"numRecords": 6}


@shows("Init", "JET_errAttachedDatabaseMismatch", "JET_bitReplayIgnoreMissingDB")
async def test_starting_without_a_database(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await written(bench)
        await bench.line.must("Term", {"instance": bench.instance, "grbit": ["TermDirty"]})
        (tmp_path / "default" / "world.edb").unlink()
        instance = await named(bench, "default")
        assert await World(bench.line, {"other": instance}).name_of("Init") == "JET_errAttachedDatabaseMismatch"
        await bench.line.must("Init", {"instance": instance, "grbit": ["ReplayIgnoreMissingDB"]})
        assert (await bench.line.must("GetInstanceInfo", {}))["instances"][0]["databaseFileName"] == []


@shows("Init", "JET_errMissingLogFile", "JET_bitReplayIgnoreLostLogs")
async def test_starting_without_the_end_of_the_log(tmp_path: Path) -> None:
    """The row of the last generation is lost, and so it is said."""
    async with Bench(tmp_path) as bench:
        world = await written(bench)
        await bench.line.must("Term", {"instance": bench.instance, "grbit": ["TermDirty"]})
        (tmp_path / "default" / "edb.log").unlink()
        instance = await named(bench, "default")
        assert await World(bench.line, {"other": instance}).name_of("Init") == "JET_errMissingLogFile"
        begun = await bench.line.must("Init", {"instance": instance, "grbit": ["ReplayIgnoreLostLogs"]})
        assert begun == {"instance": instance, "wrn": Wrn.CommittedLogFilesLost}
        sesid = (await bench.line.must("BeginSession", {"instance": instance}))["sesid"]
        dbid = (await bench.line.must("OpenDatabase", {"sesid": sesid, "database": "world.edb"}))["dbid"]
        opened = await bench.line.must("OpenTable", {"sesid": sesid, "dbid": dbid, "tablename": world.kept["table"]})
        counted = await bench.line.must("IndexRecordCount", {"sesid": sesid, **opened})
        assert counted == {"numRecords": 5}


@shows("Init", "JET_errAttachedDatabaseMismatch")
async def test_starting_on_somebody_else_s_database(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.line.must("Term", {"instance": bench.instance, "grbit": ["TermDirty"]})
        await lived(bench, await named(bench, "other"), "world.edb")
        shutil.copy(tmp_path / "other" / "world.edb", tmp_path / "default" / "world.edb")
        assert await World(bench.line, {"other": await named(bench, "default")}).name_of("Init") == "JET_errAttachedDatabaseMismatch"


@shows("Init", "JET_errInvalidLogSequence")
async def test_starting_on_the_log_of_another_future(tmp_path: Path) -> None:
    """Two instances were one once: the generation that one made afterwards is not the other's."""
    async with Bench(tmp_path) as bench:
        await bench.line.must("Term", {"instance": bench.instance, "grbit": ["TermDirty"]})
        shutil.copytree(tmp_path / "default", tmp_path / "twin")
        for name in ("default", "twin"):
            await lived(bench, await named(bench, name), f"{name}.edb")
        log = max(path.name for path in (tmp_path / "twin").glob("edb0*.log"))
        shutil.copy(tmp_path / "twin" / log, tmp_path / "default" / log)
        assert await World(bench.line, {"other": await named(bench, "default")}).name_of("Init") == "JET_errInvalidLogSequence"


@shows("BeginExternalBackup", "JET_errCheckpointCorrupt", "JET_errCheckpointFileNotFound")
@shows("BeginExternalBackupInstance", "JET_errCheckpointCorrupt", "JET_errCheckpointFileNotFound")
async def test_a_backup_begins_at_the_checkpoint(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        world = await written(bench)
        checkpoint = tmp_path / "default" / "edb.chk"
        whole = checkpoint.read_bytes()
        for method in ("BeginExternalBackup", "BeginExternalBackupInstance"):
            flip(checkpoint, 20)
            assert await world.name_of(method) == "JET_errCheckpointCorrupt"
            checkpoint.unlink()
            assert await world.name_of(method) == "JET_errCheckpointFileNotFound"
            checkpoint.write_bytes(whole)
            assert await world.name_of(method) == "JET_errSuccess"
            await world.do(NO_BACKUP)


@shows("Backup", "JET_errReadVerifyFailure")
@shows("BackupInstance", "JET_errReadVerifyFailure")
@shows("ReadFile", "JET_errReadVerifyFailure")
@shows("ReadFileInstance", "JET_errReadVerifyFailure")
async def test_damage_in_a_database_is_found_by_its_backup(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await written(bench)
        await bench.line.must("Idle", {"sesid": bench.keeper, "grbit": ["IdleCompact"]})
        flip_all(tmp_path / "default" / "world.edb", MARK)
        for method in ("Backup", "BackupInstance", "ReadFile", "ReadFileInstance"):
            world = await bench.world()
            await world.ready(method)
            assert await world.name_of(method) == "JET_errReadVerifyFailure", method
            await world.over(method)


@shows("Backup", "JET_errLogReadVerifyFailure")
@shows("BackupInstance", "JET_errLogReadVerifyFailure")
async def test_damage_in_a_log_is_found_by_its_backup(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        world = await written(bench)
        flip_all(tmp_path / "default" / "edb00000002.log", MARK)
        for method in ("Backup", "BackupInstance"):
            assert await world.name_of(method) == "JET_errLogReadVerifyFailure"
        await world.do(LOGS[: len(LOGS) // 3])  # a log is verified when it is listed, not first when it is read
        assert await world.name_of("GetLogInfoInstance") == "JET_errLogReadVerifyFailure"


@shows("OSSnapshotThaw", "JET_errOSSnapshotTimeOut")
@shows("OSSnapshotEnd", "JET_errOSSnapshotTimeOut")
async def test_a_freeze_that_ran_out(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        for method in ("OSSnapshotThaw", "OSSnapshotEnd"):
            world = await bench.world()
            await world.do(
                (Step("OSSnapshotPrepare", {}, {"snap": "snapId"}), Step("OSSnapshotFreeze", {"snapId": "$snap", "leaseMs": 30}))
            )
            await asyncio.sleep(0.05)
            assert await world.name_of(method) == "JET_errOSSnapshotTimeOut"


@shows("SetDatabaseSize", "JET_errDatabaseDirtyShutdown")
async def test_a_database_whose_log_is_elsewhere(tmp_path: Path) -> None:
    """A file that was copied while it was in use is half of a database."""
    async with Bench(tmp_path) as bench:
        world = await written(bench)
        shutil.copy(tmp_path / "default" / "world.edb", tmp_path / "default" / f"{world.kept['name']}.edb")
        assert await world.name_of("SetDatabaseSize") == "JET_errDatabaseDirtyShutdown"


WRONG_EXTERNAL: dict[str, tuple[dict[str, object], Callable[[Path], object]]] = {
    "JET_errInvalidParameter": ({"targetInstanceLogPath": "default"}, lambda copy: None),
    "JET_errInvalidPath": ({"backupLogPath": "default/nowhere"}, lambda copy: None),
    "JET_errFileNotFound": ({}, lambda copy: (copy / "world.edb").unlink()),
    "JET_errDatabaseCorrupted": ({}, lambda copy: (copy / "world.edb").write_bytes(b"text" * 9_000)),
    "JET_errRestoreOfNonBackupDatabase": ({}, lambda copy: (copy / "backup.json").unlink()),
    "JET_errStartingRestoreLogTooHigh": ({"genLow": 2, "genHigh": 9}, lambda copy: None),
    "JET_errEndingRestoreLogTooLow": ({"genHigh": 1}, lambda copy: None),
    "JET_errBadRestoreTargetInstance": ({"targetInstanceLogPath": "x", "targetInstanceCheckpointPath": "x"}, lambda copy: None),
}


@shows("ExternalRestore", *WRONG_EXTERNAL)
async def test_files_of_a_backup_that_were_put_in_place_wrongly(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await written(bench)
        for error, (params, spoil) in WRONG_EXTERNAL.items():
            world = await bench.world()
            await world.ready("ExternalRestore")
            spoil(tmp_path / "default" / world.kept["name"])
            assert await world.name_of("ExternalRestore", params) == error


@shows("Restore", "JET_errInvalidPath", "JET_errInvalidLogSequence")
@shows("RestoreInstance", "JET_errInvalidPath", "JET_errInvalidLogSequence")
async def test_a_backup_that_is_not_there_and_logs_that_do_not_belong_to_it(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        world = await written(bench)
        await bench.line.must("BackupInstance", {"instance": bench.instance, "destination": world.kept["name"]})
        await bench.line.must("Term", {"instance": bench.instance})
        await lived(bench, await named(bench, "other"), "world.edb")
        shutil.copy(tmp_path / "other" / "edb.log", tmp_path / "default" / "edb.log")
        world.kept["again"] = await named(bench, "default")
        for method, nowhere in (("RestoreInstance", "nowhere"), ("Restore", "default/nowhere")):
            assert await world.name_of(method, {"source": nowhere}) == "JET_errInvalidPath"
            assert await world.name_of(method) == "JET_errInvalidLogSequence"


@shows("AttachDatabase", "JET_errDatabaseFileReadOnly", "JET_bitDbReadOnly")
async def test_a_file_that_nobody_may_write(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        world = await bench.world()
        await world.ready("AttachDatabase")
        file = tmp_path / "default" / f"{world.kept['name']}.edb"
        file.chmod(0o444)
        assert await world.name_of("AttachDatabase") == "JET_errDatabaseFileReadOnly"
        assert await world.name_of("AttachDatabase", {"grbit": ["DbReadOnly"]}) == "JET_errSuccess"
