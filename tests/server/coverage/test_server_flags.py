"""What the flags of databases, instances, sessions, backups and snapshots do, and what their info levels tell."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.coverage.flags import Player
from tests.server.coverage.steps import OTHER_SESSION
from tests.support.bench import SUCCESS, Bench
from tests.support.calls import DETACHED, OTHER, OWN_DATABASE, THAWED, S, Step
from tests.support.shown import shows

pytestmark = pytest.mark.asyncio(loop_scope="module")


# -- transactions and sessions ------------------------------------------------------------------------------------------
@shows("BeginTransaction", "JET_bitTransactionReadOnly")
@shows("CommitTransaction", "JET_bitCommitLazyFlush", "JET_bitWaitAllLevel0Commit", "JET_bitWaitLastLevel0Commit")
@shows("Rollback", "JET_bitRollbackAll")
async def test_transactions(play: Player) -> None:
    await play("BeginTransaction", grbit=["TransactionReadOnly"])
    assert await play.answer("Delete") == "JET_errTransReadOnly"
    await play("Rollback")
    await play("BeginTransaction")
    await play("Delete")
    lazy = await play("CommitTransaction", grbit=["CommitLazyFlush"])
    assert lazy["commitId"]["commitId"] > 0
    for wait in ("WaitLastLevel0Commit", "WaitAllLevel0Commit"):
        await play("CommitTransaction", grbit=[wait])
    for _ in range(3):
        await play("BeginTransaction")
    await play("Rollback", grbit=["RollbackAll"])
    assert await play.answer("Rollback") == "JET_errNotInTransaction"


PARAMETERS = [f"JET_sesparam{name}" for name in ("CommitDefault", "CorrelationID", "OperationContext")]


@shows("SetSessionParameter", *PARAMETERS)
@shows("GetSessionParameter", *PARAMETERS, "JET_sesparamTransactionLevel")
@shows("EndSession", "JET_bitForceSessionClosed")
async def test_sessions(play: Player) -> None:
    context = {"userID": 1, "operationID": 2, "operationType": 3, "clientType": 4, "flags": 5}
    for name, value in (("CommitDefault", 1), ("CorrelationID", 42), ("OperationContext", context)):
        await play("SetSessionParameter", sesparamid=name, value=value)
        assert (await play("GetSessionParameter", sesparamid=name))["value"] == value
    await play("BeginTransaction")
    assert (await play("GetSessionParameter", sesparamid="TransactionLevel"))["value"] == 1
    assert await play.answer("SetSessionParameter", sesparamid="TransactionLevel", value=0) == "JET_errFeatureNotAvailable"
    other = (await play("DupSession"))["newSesid"]
    await play("EndSession", sesid=other, grbit=["ForceSessionClosed"])  # as without it
    assert await play.answer("EndSession", sesid=other) == "JET_errInvalidSesid"


# -- databases ----------------------------------------------------------------------------------------------------------
@shows("CreateDatabase", "JET_bitDbOverwriteExisting", "JET_bitDbRecoveryOff", "JET_bitDbShadowingOff")
async def test_creating_databases(play: Player) -> None:
    await play.play(*DETACHED)
    name = f"{play.kept['name']}.edb"
    assert await play.answer("CreateDatabase", database=name) == "JET_errDatabaseDuplicate"
    made = await play("CreateDatabase", database=name, grbit=["DbOverwriteExisting"])
    rows = (await play("GetObjectInfo", dbid=made["dbid"]))["rows"]
    assert all(row["objectname"].startswith("MSys") for row in rows)
    await play("CloseDatabase", dbid=made["dbid"])
    await play("DetachDatabase", database=name)
    for flag in ("DbRecoveryOff", "DbShadowingOff"):  # every database is logged, and has one catalog that no copy of it guards
        made = await play("CreateDatabase", database=name, grbit=["DbOverwriteExisting", flag])
        await play("CloseDatabase", dbid=made["dbid"])
        await play("DetachDatabase", database=name)


@shows("AttachDatabase", *(f"JET_bit{flag}" for flag in ("DbReadOnly", "DbUpgrade", "DbDeleteCorruptIndexes", "DbDeleteUnicodeIndexes")))
@shows("OpenDatabase", "JET_bitDbExclusive", "JET_bitDbReadOnly")
async def test_opening_databases(play: Player) -> None:
    await play.play(*DETACHED, *OTHER_SESSION)
    name = f"{play.kept['name']}.edb"
    theirs = {"sesid": play.kept["other"], "database": name}
    for flag in ("DbUpgrade", "DbDeleteCorruptIndexes", "DbDeleteUnicodeIndexes"):  # there are no older formats and no stale sort orders
        await play("AttachDatabase", grbit=[flag])
        await play("DetachDatabase", database=name)
    await play("AttachDatabase", grbit=["DbReadOnly"])
    opened = await play("OpenDatabase", database=name)
    assert await play.answer("CreateTable", dbid=opened["dbid"]) == "JET_errDatabaseFileReadOnly"
    await play("CloseDatabase", dbid=opened["dbid"])
    await play("DetachDatabase", database=name)
    await play("AttachDatabase")
    opened = await play("OpenDatabase", database=name, grbit=["DbReadOnly"])
    assert await play.answer("CreateTable", dbid=opened["dbid"]) == "JET_errDatabaseFileReadOnly"
    await play("CloseDatabase", dbid=opened["dbid"])
    opened = await play("OpenDatabase", database=name, grbit=["DbExclusive"])
    assert await play.answer("OpenDatabase", **theirs) == "JET_errDatabaseLocked"
    await play("EndSession", sesid=theirs["sesid"])


@shows("Defragment", *(f"JET_bitDefragment{bit}" for bit in ("BatchStart", "BatchStop", "AvailSpaceTreesOnly", "BTree", "BTreeBatch")))
@shows("ResizeDatabase", "JET_bitResizeDatabaseOnlyGrow")
@shows("Compact", "JET_bitCompactStats")
@shows("Idle", "JET_bitIdleCompact", "JET_bitIdleStatus")
async def test_space(play: Player) -> None:
    await play.play(*OWN_DATABASE, Step("OpenDatabase", {**S, "database": "$name.edb"}, {"own": "dbid"}))
    dbid = play.kept["own"]
    for more in ([], ["DefragmentAvailSpaceTreesOnly"]):
        await play("Defragment", dbid=dbid, passes=..., grbit=["DefragmentBatchStart", *more])
        assert await play.answer("Defragment", dbid=dbid, passes=..., grbit=["DefragmentBatchStop"]) == SUCCESS
    assert await play.answer("Defragment", tablename=play.kept["table"], passes=1, grbit=["DefragmentBTree"]) == SUCCESS
    assert await play.answer("Defragment", dbid=dbid, passes=1, grbit=["DefragmentBTreeBatch"]) == SUCCESS
    await play("Defragment", dbid=dbid, passes=..., grbit=["DefragmentBatchStop"])
    large = (await play("ResizeDatabase", dbid=dbid, desiredPages=5_000))["actualPages"]
    assert (await play("ResizeDatabase", dbid=dbid, desiredPages=300, grbit=["ResizeDatabaseOnlyGrow"]))["actualPages"] == large
    await play("CloseDatabase", dbid=dbid)
    await play("DetachDatabase")
    await play("Compact", grbit=["CompactStats"])
    for bit in ("IdleCompact", "IdleStatus"):
        assert await play.answer("Idle", grbit=[bit]) == SUCCESS
    assert await play.answer("Idle", grbit=["IdleFlushBuffers"]) == "JET_errInvalidGrbit"


DATABASE_LEVELS = ("Filename", "Filesize", "LCID", "Misc", "Options", "PageSize", "SpaceAvailable", "SpaceOwned", "Transactions", "Version")


@shows("GetDatabaseInfo", *(f"JET_DbInfo{level}" for level in DATABASE_LEVELS))
@shows("GetDatabaseFileInfo", *(f"JET_DbInfo{level}" for level in ("Filesize", "Misc", "DBInUse", "PageSize", "FileType")))
@shows("GetDatabaseFileInfo", "JET_filetypeDatabase", "JET_filetypeLog", "JET_filetypeCheckpoint")
async def test_database_levels(bench: Bench, play: Player) -> None:
    async def level(name: str) -> Any:
        return (await play("GetDatabaseInfo", infoLevel=name))["value"]

    assert await level("Filename") == "world.edb"
    assert (await level("LCID"), await level("Options"), await level("Transactions")) == (1033, 0, 7)
    assert await level("PageSize") == 4096
    assert await level("Filesize") >= await level("SpaceAvailable")
    assert await level("SpaceOwned") >= 1
    assert await level("Version") > 0
    assert (await level("Misc"))["dbstate"] == 2

    async def of_file(name: str, file: str = "world.edb") -> Any:
        return (await play("GetDatabaseFileInfo", databaseName=f"default/{file}", infoLevel=name))["value"]

    assert await of_file("Filesize") >= 4096
    assert await of_file("DBInUse") is True
    assert await of_file("PageSize") == 4096
    assert (await of_file("Misc"))["pageSize"] == 4096
    files = sorted(path.name for path in (bench.data / "default").iterdir())
    for suffix, kind, name in ((".edb", 1, "Database"), (".log", 3, "Log"), (".chk", 4, "Checkpoint")):
        file = next(one for one in files if one.endswith(suffix))
        assert await of_file("FileType", file) == kind
        play.showed("GetDatabaseFileInfo", f"JET_filetype{name}")
    for gone in ("Collate", "Connect", "Country", "Cp", "Isam"):
        assert await play.answer("GetDatabaseInfo", infoLevel=gone) == "JET_errFeatureNotAvailable"
        assert await play.answer("GetDatabaseFileInfo", infoLevel=gone) == "JET_errFeatureNotAvailable"


@shows("GetErrorInfo", "JET_ErrorInfoSpecificErr")
@shows("GetInstanceMiscInfo", "JET_InstanceMiscInfoLogSignature")
@shows(
    "ConfigureProcessForCrashDump",
    *(f"JET_bitDump{bit}" for bit in ("Minimum", "Maximum", "CacheMinimum", "CacheMaximum", "CacheIncludeDirtyPages")),
    *(f"JET_bitDump{bit}" for bit in ("CacheIncludeCachedPages", "CacheIncludeCorruptedPages", "CacheNoDecommit")),
)
async def test_what_else_can_be_asked(play: Player) -> None:
    info = (await play("GetErrorInfo", infoLevel="SpecificErr"))["errinfo"]
    assert info["errValue"] == -1605
    assert (await play("GetInstanceMiscInfo", infoLevel="LogSignature"))["signature"]["random"]
    for bit in ("Minimum", "Maximum", "CacheMinimum", "CacheMaximum"):  # a process of ours leaves no dump of a cache it has not
        await play("ConfigureProcessForCrashDump", grbit=[f"Dump{bit}"])
    for bit in ("IncludeDirtyPages", "IncludeCachedPages", "IncludeCorruptedPages", "NoDecommit"):
        await play("ConfigureProcessForCrashDump", grbit=[f"DumpCache{bit}"])


# -- instances ----------------------------------------------------------------------------------------------------------
@shows("Init", *(f"JET_bit{bit}" for bit in ("ReplayReplicatedLogFiles", "CreateSFSVolumeIfNotExist", "RecoveryWithoutUndo")))
async def test_how_an_instance_starts(play: Player) -> None:
    """Two bits are reserved; and recovery never has anything to undo: what was not committed is in no file."""
    for flag in ("ReplayReplicatedLogFiles", "CreateSFSVolumeIfNotExist", "RecoveryWithoutUndo"):
        await play.play(OTHER)
        other = {"instance": play.kept["other"]}
        await play("Init", **other, grbit=[flag])
        session = (await play("BeginSession", **other))["sesid"]
        if flag != "RecoveryWithoutUndo":
            await play("Term", **other)
            continue
        dbid = (await play("CreateDatabase", sesid=session, database="a.edb"))["dbid"]
        await play("CreateTable", sesid=session, dbid=dbid, tablename="kept")
        await play("BeginTransaction", sesid=session)
        await play("CreateTable", sesid=session, dbid=dbid, tablename="undone")
        await play("Term", **other, grbit=["TermDirty"])
        await play.play(OTHER)
        other = {"instance": play.kept["other"]}
        await play("Init", **other, grbit=[flag])
        session = (await play("BeginSession", **other))["sesid"]
        dbid = (await play("OpenDatabase", sesid=session, database="a.edb"))["dbid"]
        assert await play.answer("OpenTable", sesid=session, dbid=dbid, tablename="kept") == SUCCESS
        assert await play.answer("OpenTable", sesid=session, dbid=dbid, tablename="undone") == "JET_errObjectNotFound"
        await play("Term", **other)


@shows("Term", "JET_bitTermComplete", "JET_bitTermAbrupt", "JET_bitTermStopBackup", "JET_bitTermDirty")
async def test_how_an_instance_ends(play: Player) -> None:
    for flag in ("TermComplete", "TermAbrupt", "TermStopBackup", "TermDirty"):
        await play.play(OTHER, Step("Init", {"instance": "$other"}))
        if flag == "TermStopBackup":
            await play("BeginExternalBackupInstance", instance=play.kept["other"])
            assert await play.answer("Term", instance=play.kept["other"], grbit=["TermComplete"]) == "JET_errBackupInProgress"
        await play("Term", instance=play.kept["other"], grbit=[flag])
        assert await play.answer("Term", instance=play.kept["other"]) == "JET_errInvalidInstance"


@shows("StopServiceInstance", *(f"JET_bitStopService{bit}" for bit in ("All", "BackgroundUserTasks", "QuiesceCaches", "Resume")))
async def test_how_much_of_a_service_stops(play: Player) -> None:
    await play.play(OTHER, Step("Init", {"instance": "$other"}))
    other = {"instance": play.kept["other"]}
    for part in ("StopServiceBackgroundUserTasks", "StopServiceQuiesceCaches"):
        await play("StopServiceInstance", **other, grbit=[part])
        assert await play.answer("BeginSession", **other) == SUCCESS
        await play("StopServiceInstance", **other, grbit=[part, "StopServiceResume"])
    await play("StopServiceInstance", **other, grbit=["StopServiceAll"])
    assert await play.answer("BeginSession", **other) == "JET_errClientRequestToStopJetService"
    assert await play.answer("StopServiceInstance", **other, grbit=["StopServiceResume"]) == "JET_errInvalidParameter"
    await play("Term", **other)


# -- backups and snapshots ----------------------------------------------------------------------------------------------
async def read_everything(play: Player) -> None:
    """A whole streaming backup, up to its end."""
    await play("BeginExternalBackupInstance")
    for listing in ("GetAttachInfoInstance", "GetLogInfoInstance"):
        for name in (await play(listing))["files"]:
            opened = await play("OpenFileInstance", file=name)
            while (await play("ReadFileInstance", handle=opened["handle"], bufferSize=4 << 20))["buffer"]:
                pass
            await play("CloseFileInstance", handle=opened["handle"])


@shows("BackupInstance", "JET_bitBackupAtomic", "JET_bitBackupIncremental")
@shows("Backup", "JET_bitBackupAtomic", "JET_bitBackupIncremental")
@shows("BeginExternalBackup", "JET_bitBackupIncremental")
@shows("BeginExternalBackupInstance", "JET_bitBackupIncremental")
@shows("EndExternalBackupInstance", "JET_bitBackupEndAbort", "JET_bitBackupEndNormal", "JET_bitBackupTruncateDone")
async def test_backups(bench: Bench, play: Player) -> None:
    def found(target: str) -> set[str]:
        return {path.name for path in (bench.data / "default" / target).rglob("*") if path.is_file()}

    for method, prefix in (("BackupInstance", ""), ("Backup", "default/")):
        target = f"{play.kept['name']}-{method}"
        await play(method, destination=prefix + target)
        assert "world.edb" in found(target)
        await play(method, destination=prefix + target, grbit=["BackupIncremental"])
        await play(method, destination=prefix + target, grbit=["BackupAtomic"])
        assert "world.edb" in found(target)
    for method in ("BeginExternalBackup", "BeginExternalBackupInstance"):
        await play(method, grbit=["BackupIncremental"])
        assert await play.answer("GetAttachInfoInstance") == "JET_errInvalidBackupSequence"  # logs alone
        await play("EndExternalBackupInstance", grbit=["BackupEndAbort"])
    for grbit in (["BackupEndNormal"], ["BackupEndNormal", "BackupTruncateDone"]):
        await read_everything(play)
        if "BackupTruncateDone" in grbit:
            await play("TruncateLogInstance")
        await play("EndExternalBackupInstance", grbit=grbit)


KINDS: tuple[tuple[list[str], int], ...] = (([], 2005), (["CopySnapshot"], 2009), (["IncrementalSnapshot"], 2008))


@shows("OSSnapshotPrepare", "JET_bitIncrementalSnapshot", "JET_bitCopySnapshot", "JET_bitContinueAfterThaw", "JET_bitExplicitPrepare")
@shows("OSSnapshotTruncateLog", "JET_bitAllDatabasesSnapshot")
@shows("OSSnapshotTruncateLogInstance", "JET_bitAllDatabasesSnapshot")
@shows("OSSnapshotEnd", "JET_bitAbortSnapshot")
async def test_snapshots(play: Player) -> None:
    for grbit, event in KINDS:
        snap = (await play("OSSnapshotPrepare", grbit=grbit))["snapId"]
        await play("OSSnapshotAbort", snapId=snap)
        events = (await play("GetEvents", limit=1_000))["events"]
        assert event in [one["id"] for one in events]
    snap = (await play("OSSnapshotPrepare", grbit=["ExplicitPrepare"]))["snapId"]
    assert (await play("OSSnapshotFreeze", snapId=snap))["instances"] == []
    await play("OSSnapshotThaw", snapId=snap)
    assert await play.answer("OSSnapshotEnd", snapId=snap) == "JET_errOSSnapshotInvalidSnapId"
    await play.play(*THAWED)  # prepared with ContinueAfterThaw
    await play("OSSnapshotTruncateLog", grbit=["AllDatabasesSnapshot"])
    await play("OSSnapshotTruncateLogInstance", grbit=["AllDatabasesSnapshot"])
    await play("OSSnapshotEnd", grbit=["AbortSnapshot"])
    assert await play.answer("OSSnapshotEnd") == "JET_errOSSnapshotInvalidSnapId"
