"""Calls that come at the wrong time: in the order of a backup, of a snapshot, of transactions; and what stands in whose way."""

from __future__ import annotations

from pathlib import Path

from tests.support.calls import (
    BACKUP,
    BEGIN,
    DETACHED,
    FILES,
    FROZEN,
    LOGS,
    NO_BACKUP,
    NO_SNAPSHOT,
    OPENED,
    OTHER,
    OTHER_GONE,
    OWN_DATABASE,
    PREPARED,
    READ,
    D,
    I,
    Params,
    S,
    Step,
)
from tests.support.shown import Case, failures, shows_cases

OF_A_BACKUP: dict[str, Params] = {
    **{name: {} for name in ("GetAttachInfo", "GetLogInfo", "TruncateLog")},
    **dict.fromkeys(("GetAttachInfoInstance", "GetLogInfoInstance", "GetTruncateLogInfoInstance", "TruncateLogInstance"), I),
    **{name: {"file": "world.edb"} for name in ("OpenFile", "OpenFileInstance")},
    **{name: {"handle": 1} for name in ("ReadFile", "ReadFileInstance")},
}
ENDING: dict[str, Params] = {"EndExternalBackup": {}, "EndExternalBackupInstance": {"grbit": 0}}
CLOSING = {"CloseFile": {"handle": 1}, "CloseFileInstance": {"handle": 1}}
STOPPED = (BACKUP, Step("StopBackupInstance", I))
STAMPED = (*LOGS, Step("TruncateLogInstance", I), Step("EndExternalBackupInstance", I))

BACKUPS = [
    *(Case(name, "JET_errNoBackup", params, bare=True) for name, params in {**OF_A_BACKUP, **ENDING, **CLOSING}.items()),
    *(
        Case(name, "JET_errBackupAbortByServer", params, STOPPED, bare=True, after=NO_BACKUP)
        for name, params in {**OF_A_BACKUP, **ENDING}.items()
    ),
    *(
        Case(name, "JET_errInvalidBackupSequence", {}, LOGS, bare=True, after=NO_BACKUP)
        for name in ("GetAttachInfo", "GetAttachInfoInstance")
    ),
    *(
        Case(name, "JET_errInvalidBackupSequence", {}, (BACKUP,), bare=True, after=NO_BACKUP)
        for name in ("GetLogInfo", "GetLogInfoInstance", "GetTruncateLogInfoInstance", "TruncateLog", "TruncateLogInstance")
    ),
    *(
        Case(name, "JET_errInvalidBackupSequence", {"file": "world.edb"}, LOGS, bare=True, after=NO_BACKUP)
        for name in ("OpenFile", "OpenFileInstance")
    ),
    *(
        Case(name, "JET_errOutOfMemory", {"file": "world.edb"}, OPENED, bare=True, after=NO_BACKUP)
        for name in ("OpenFile", "OpenFileInstance")
    ),
    *(
        Case(name, "JET_errMissingFileToBackup", {"file": "edb0000FFFF.log"}, READ + LOGS[len(READ) :], bare=True, after=NO_BACKUP)
        for name in ("OpenFile", "OpenFileInstance")
    ),
    Case("EndExternalBackupInstance", "JET_errBackupAbortByCaller", {"grbit": ["BackupEndNormal"]}, FILES, bare=True),
    # what a backup stands in the way of
    Case("AttachDatabase", "JET_errBackupInProgress", before=(BACKUP,), after=NO_BACKUP),
    Case("DetachDatabase", "JET_errBackupInProgress", before=(BACKUP,), after=NO_BACKUP),
    Case("Term", "JET_errBackupInProgress", {**I, "grbit": ["TermComplete"]}, (BACKUP,), bare=True, after=NO_BACKUP),
    *(
        Case(name, "JET_errBackupInProgress", before=(BACKUP,), bare=True, after=NO_BACKUP)
        for name in ("Backup", "BackupInstance", "BeginExternalBackup", "BeginExternalBackupInstance")
    ),
    # what an incremental one needs
    *(
        Case(name, "JET_errMissingFullBackup", {"grbit": ["BackupIncremental"]}, OWN_DATABASE)
        for name in ("BeginExternalBackup", "BeginExternalBackupInstance")
    ),
]

SNAPSHOTS = [
    *(
        Case(name, "JET_errOSSnapshotInvalidSnapId", {"snapId": 1 << 40}, bare=True)
        for name in (
            *("OSSnapshotAbort", "OSSnapshotEnd", "OSSnapshotFreeze", "OSSnapshotGetFreezeInfo", "OSSnapshotPrepareInstance"),
            *("OSSnapshotThaw", "OSSnapshotTruncateLog", "OSSnapshotTruncateLogInstance", "SnapshotRenew"),
        )
    ),
    Case("OSSnapshotEnd", "JET_errOSSnapshotInvalidSequence", before=FROZEN, bare=True, after=NO_SNAPSHOT),
    Case("OSSnapshotFreeze", "JET_errOSSnapshotInvalidSequence", before=FROZEN, bare=True),
    Case("OSSnapshotPrepare", "JET_errOSSnapshotInvalidSequence", before=(PREPARED,), bare=True),
    Case("OSSnapshotPrepareInstance", "JET_errOSSnapshotInvalidSequence", before=FROZEN, bare=True),
    Case("OSSnapshotTruncateLog", "JET_errOSSnapshotInvalidSequence", before=FROZEN, bare=True),
    Case("OSSnapshotTruncateLogInstance", "JET_errOSSnapshotInvalidSequence", before=FROZEN, bare=True),
    Case("OSSnapshotPrepareInstance", "JET_errOSSnapshotNotAllowed", before=(BACKUP,), after=NO_BACKUP),
    Case("OSSnapshotFreeze", "JET_errOSSnapshotNotAllowed", before=(PREPARED, BACKUP), bare=True, after=NO_BACKUP),
]

IN_ONE = (BEGIN,)
READ_ONLY = (Step("BeginTransaction", {**S, "grbit": ["TransactionReadOnly"]}),)
TRANSACTIONS = [
    *(Case(name, "JET_errNotInTransaction", bare=True) for name in ("CommitTransaction", "Rollback")),
    *(Case(name, "JET_errInTransaction", before=IN_ONE) for name in ("Compact", "CreateDatabase", "DetachDatabase")),
    Case("BeginTransaction", "JET_errTransTooDeep", before=(BEGIN,) * 7),
    Case("Defragment", "JET_errTransReadOnly", before=READ_ONLY),
    Case(
        "EndSession",
        "JET_errSessionInUse",
        before=(Step("SetSessionContext", {**S, "context": 7}),),
        after=(Step("ResetSessionContext", S),),
    ),
    Case("ResetSessionContext", "JET_errSessionContextNotSetByThisThread", bare=True),
    Case("SetSessionContext", "JET_errSessionContextAlreadySet", before=(Step("SetSessionContext", {**S, "context": 7}),)),
]

OTHERS = (Step("BeginSession", I, {"theirs": "sesid"}),)
NOT_OTHERS = (Step("EndSession", {"sesid": "$theirs"}),)
OWN = {**S, "database": "$name.edb"}
THEIRS = {"sesid": "$theirs", "database": "$name.edb"}
ATTACHED_READ_ONLY = (*DETACHED, Step("AttachDatabase", {**OWN, "grbit": ["DbReadOnly"]}))
FIVE_MORE = tuple(Step("CreateDatabase", {**S, "database": f"$name.{n}.edb"}) for n in range(5))
FIVE_LESS = (Step("EndSession", S), *(Step("DetachDatabase", {"sesid": "$keeper", "database": f"$name.{n}.edb"}) for n in range(5)))
ONE_ONLY = (Step("SetSystemParameter", {"paramid": "OneDatabasePerSession", "paramValue": 1}),)  # of the whole server
MANY_AGAIN = (Step("SetSystemParameter", {"paramid": "OneDatabasePerSession", "paramValue": 0}),)
DATABASES = [
    Case("AttachDatabase", "JET_wrnDatabaseAttached", bare=True, before=OWN_DATABASE),
    Case("AttachDatabase", "JET_errFileNotFound", bare=True),
    Case("AttachDatabase", "JET_errDatabaseInvalidPath", {"database": "../out.edb"}, bare=True),
    Case(
        "AttachDatabase",
        "JET_errDatabaseSharingViolation",
        bare=True,
        before=(*OWN_DATABASE, *OTHERS, Step("OpenDatabase", {**THEIRS, "grbit": ["DbExclusive"]})),
        after=NOT_OTHERS,
    ),
    Case("AttachDatabase", "JET_errTooManyAttachedDatabases", before=FIVE_MORE, after=FIVE_LESS),
    Case("CreateDatabase", "JET_errTooManyAttachedDatabases", before=FIVE_MORE, after=FIVE_LESS),
    Case("CreateDatabase", "JET_errDatabaseDuplicate", before=OWN_DATABASE),
    Case("CreateDatabase", "JET_errDatabaseInUse", {"grbit": ["DbOverwriteExisting"]}, before=OWN_DATABASE),
    Case("CreateDatabase", "JET_errDatabaseInvalidPath", {"database": "../out.edb"}),
    Case("CreateDatabase", "JET_errDatabaseInvalidPages", {"maxPages": -1}),
    Case("CreateDatabase", "JET_errOneDatabasePerSession", before=ONE_ONLY, after=MANY_AGAIN),
    Case("OpenDatabase", "JET_errOneDatabasePerSession", {"database": "$name.edb"}, (*OWN_DATABASE, *ONE_ONLY), after=MANY_AGAIN),
    Case("OpenDatabase", "JET_errDatabaseNotFound", {"database": "$name.edb"}),
    Case("OpenDatabase", "JET_errDatabaseInvalidPath", {"database": "../out.edb"}),
    Case("OpenDatabase", "JET_wrnFileOpenReadOnly", {"database": "$name.edb"}, before=ATTACHED_READ_ONLY),
    Case(
        "OpenDatabase",
        "JET_errDatabaseLocked",
        {"database": "$name.edb"},
        before=(*OWN_DATABASE, *OTHERS, Step("OpenDatabase", {**THEIRS, "grbit": ["DbExclusive"]})),
        after=NOT_OTHERS,
    ),
    Case(
        "OpenDatabase",
        "JET_errDatabaseInUse",
        {"database": "$name.edb", "grbit": ["DbExclusive"]},
        before=(*OWN_DATABASE, *OTHERS, Step("OpenDatabase", THEIRS)),
        after=NOT_OTHERS,
    ),
    Case("CloseDatabase", "JET_errInvalidDatabaseId", {"dbid": 1 << 40}),
    Case("Defragment", "JET_errInvalidDatabaseId", {"dbid": 1 << 40}),
    Case(
        "Defragment",
        "JET_errDatabaseFileReadOnly",
        {"dbid": "$own"},
        before=(*ATTACHED_READ_ONLY, Step("OpenDatabase", OWN, {"own": "dbid"})),
    ),
    Case("Defragment", "JET_wrnDefragNotRunning", {"grbit": ["DefragmentBatchStop"]}),
    Case(
        "Defragment",
        "JET_wrnDefragAlreadyRunning",
        {"passes": 2},
        before=(Step("Defragment", {**D, "grbit": ["DefragmentBatchStart"]}),),
        after=(Step("Defragment", {**D, "grbit": ["DefragmentBatchStop"]}),),
    ),
    Case("DetachDatabase", "JET_errDatabaseNotFound", bare=True),
    Case("DetachDatabase", "JET_errDatabaseInUse", before=(Step("OpenDatabase", OWN),)),
    Case("DetachDatabase", "JET_errForceDetachNotAllowed", {"grbit": ["ForceDetach"]}),
    Case("SetDatabaseSize", "JET_errFileNotFound", bare=True),
    Case("SetDatabaseSize", "JET_errDatabaseInvalidPath", {"database": "../out.edb"}),
    Case("SetDatabaseSize", "JET_errInvalidParameter", {"desiredPages": 0}),
    Case("Compact", "JET_errFeatureNotAvailable", {"grbit": ["CompactRepair"]}),
]

INSTANCES = [
    Case("CreateInstance", "JET_errInstanceNameInUse", {"name": "default"}),
    Case("CreateInstance", "JET_errInvalidParameter", {"name": "a/b"}),
    Case("EnableMultiInstance", "JET_errSystemParamsAlreadySet", before=(OTHER,), after=OTHER_GONE),
    Case("Restore", "JET_errAlreadyInitialized", {"source": "default/none"}, bare=True),
    Case("RestoreInstance", "JET_errAlreadyInitialized", {**I, "source": "none"}, bare=True),
    Case("SetSystemParameter", "JET_errAlreadyInitialized", {"paramid": "LogFileSize", "paramValue": 1024}),
]


async def run(tmp_path: Path, cases: list[Case]) -> None:
    wrong = await failures(tmp_path, cases)
    assert not wrong, "\n".join(wrong)


@shows_cases(BACKUPS)
async def test_backups(tmp_path: Path) -> None:
    await run(tmp_path, BACKUPS)


@shows_cases(SNAPSHOTS)
async def test_snapshots(tmp_path: Path) -> None:
    await run(tmp_path, SNAPSHOTS)


@shows_cases(TRANSACTIONS)
async def test_transactions_and_contexts(tmp_path: Path) -> None:
    await run(tmp_path, TRANSACTIONS)


@shows_cases(DATABASES)
async def test_databases(tmp_path: Path) -> None:
    await run(tmp_path, DATABASES)


@shows_cases(INSTANCES)
async def test_instances(tmp_path: Path) -> None:
    await run(tmp_path, INSTANCES)
