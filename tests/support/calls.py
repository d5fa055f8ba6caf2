"""Every method with the least params that succeed, and what has to be done before: the one table of valid calls.

`$name` stands for something kept: `instance sesid dbid tableid table name keeper` come with a `World` (tests.support.bench),
the rest is kept by the steps before. The table that a world's cursor stands on is made of `COLUMNS`, `INDEXES`, `RECORDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Params = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A call that has to succeed; `keeps` says what of its result is kept, and where it stands in it."""

    method: str
    params: Params = field(default_factory=dict)
    keeps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """A valid call: its params, what comes before it, and what takes its effect away again."""

    params: Params = field(default_factory=dict)
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    keeps: dict[str, str] = field(default_factory=dict)
    answer: str = "JET_errSuccess"
    alone: bool = False  # it wants a server of its own: it ends it, or is true of a fresh one only


TEXT: dict[str, Any] = {"coltyp": "LongText", "cp": 1200}
COLUMNS = [
    {"name": "id", "coltyp": "Long"},
    {"name": "name", **TEXT},
    {"name": "note", **TEXT},
    {"name": "sum", "coltyp": "Long", "grbit": ["ColumnEscrowUpdate"], "defaultValue": 0},
    {"name": "blob", "coltyp": "LongBinary"},
    {"name": "tags", **TEXT, "grbit": ["ColumnTagged", "ColumnMultiValued"]},
]
INDEXES = [
    {"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary"]},
    {"name": "byName", "key": ["+name"]},
]
RECORDS = [{"id": 1, "name": "one", "note": "a", "tags": ["x", "y"]}, {"id": 2, "name": "two"}, {"id": 3, "name": "three"}]

I = {"instance": "$instance"}  # noqa: E741
S = {"sesid": "$sesid"}
T = {**S, "tableid": "$tableid"}
D = {**S, "dbid": "$dbid"}
SNAP = {"snapId": "$snap"}

BEGIN = Step("BeginTransaction", S)
BY_NAME = (Step("SetCurrentIndex", {**T, "indexname": "byName"}), Step("Move", {**T, "numRows": "First"}))
KEY = Step("MakeKey", {**T, "data": 2, "grbit": ["NewKey"]})
KEY_KEPT = (KEY, Step("RetrieveKey", {**T, "grbit": ["RetrieveCopy"]}, {"key": "data"}))
NAME_RANGE = (
    *BY_NAME,
    Step("MakeKey", {**T, "data": "one", "grbit": ["NewKey"]}),
    Step("Seek", {**T, "grbit": ["SeekGE", "SetIndexRange"]}),
)
REPLACING = Step("PrepareUpdate", {**T, "prep": "Replace"})
OWN_DATABASE = (Step("CreateDatabase", {**S, "database": "$name.edb"}, {"own": "dbid"}), Step("CloseDatabase", {**S, "dbid": "$own"}))
DETACHED = (*OWN_DATABASE, Step("DetachDatabase", {**S, "database": "$name.edb"}))
OTHER = Step("CreateInstance", {"name": "$name"}, {"other": "instance"})
OTHER_GONE = (Step("Term", {"instance": "$other"}),)


def _read_whole() -> tuple[Step, ...]:
    """The file that is open in a backup, to its end."""
    reading = {**I, "handle": "$handle"}
    return (
        Step("ReadFileInstance", {**reading, "bufferSize": 4 << 20}),
        Step("ReadFileInstance", {**reading, "bufferSize": 4 << 20}),
        Step("CloseFileInstance", reading),
    )


BACKUP = Step("BeginExternalBackupInstance", I)
FILES = (BACKUP, Step("GetAttachInfoInstance", I, {"file": "files.0"}))
OPENED = (*FILES, Step("OpenFileInstance", {**I, "file": "$file"}, {"handle": "handle"}))
READ = (*OPENED, *_read_whole())
LOGS = (
    *READ,
    Step("GetLogInfoInstance", I, {"chk": "files.0", "log": "files.1", "manifest": "files.2"}),
    *(
        step
        for name in ("$chk", "$log", "$manifest")
        for step in (Step("OpenFileInstance", {**I, "file": name}, {"handle": "handle"}), *_read_whole())
    ),
)
NO_BACKUP = (Step("EndExternalBackupInstance", {**I, "grbit": ["BackupEndAbort"]}),)
PREPARED = Step("OSSnapshotPrepare", {"grbit": ["ContinueAfterThaw"]}, {"snap": "snapId"})
FROZEN = (PREPARED, Step("OSSnapshotFreeze", SNAP))
THAWED = (*FROZEN, Step("OSSnapshotThaw", SNAP))
NO_SNAPSHOT = (Step("OSSnapshotAbort", SNAP),)
TAKEN = (  # a backup of `default` where an instance that is not running can restore it from
    Step("BackupInstance", {**I, "destination": "$name"}),
)

CALLS: dict[str, Form] = {
    # instances
    "CreateInstance": Form({"name": "$name"}, (), OTHER_GONE, {"other": "instance"}),
    "Init": Form({"instance": "$other"}, (OTHER,), OTHER_GONE),
    "Term": Form({"instance": "$other"}, (OTHER, Step("Init", {"instance": "$other"}))),
    "EnableMultiInstance": Form({"sysParams": []}, alone=True),
    "GetInstanceInfo": Form(),
    "GetInstanceMiscInfo": Form({**I, "infoLevel": "LogSignature"}),
    "StopService": Form(alone=True),
    "StopServiceInstance": Form({"instance": "$other"}, (OTHER, Step("Init", {"instance": "$other"})), OTHER_GONE),
    "SetSystemParameter": Form({**I, "paramid": "CacheSizeMax", "paramValue": 1000}),
    "GetSystemParameter": Form({**I, "paramid": "CacheSizeMax"}),
    # sessions and transactions
    "BeginSession": Form(I),
    "EndSession": Form(S),
    "DupSession": Form(S),
    "SetSessionContext": Form({**S, "context": 7}, after=(Step("ResetSessionContext", S),)),
    "ResetSessionContext": Form(S, (Step("SetSessionContext", {**S, "context": 7}),)),
    "GetSessionParameter": Form({**S, "sesparamid": "TransactionLevel"}),
    "SetSessionParameter": Form({**S, "sesparamid": "CommitDefault", "value": 0}),
    "BeginTransaction": Form(S),
    "CommitTransaction": Form(S, (BEGIN,)),
    "Rollback": Form(S, (BEGIN,)),
    # databases
    "CreateDatabase": Form({**S, "database": "$name.edb"}),
    "AttachDatabase": Form({**S, "database": "$name.edb"}, DETACHED),
    "DetachDatabase": Form({**S, "database": "$name.edb"}, OWN_DATABASE),
    "OpenDatabase": Form({**S, "database": "world.edb"}),
    "CloseDatabase": Form(D),
    "GetDatabaseInfo": Form({**D, "infoLevel": "Misc"}),
    "GetDatabaseFileInfo": Form({"databaseName": "default/world.edb", "infoLevel": "Filesize"}),
    "GetObjectInfo": Form({**D, "objtyp": "Table", "infoLevel": "List"}),
    "GrowDatabase": Form({**D, "desiredPages": 300}),
    "ResizeDatabase": Form({**D, "desiredPages": 400}),
    "SetDatabaseSize": Form({**S, "database": "$name.edb", "desiredPages": 500}, DETACHED),
    "Compact": Form({**S, "sourceDatabase": "$name.edb", "destinationDatabase": "$name.compact.edb"}, DETACHED),
    "Defragment": Form({**D, "grbit": ["DefragmentBatchStart"], "passes": 1}),
    # tables
    "CreateTable": Form({**D, "tablename": "$name"}),
    "CreateTableColumnIndex": Form({**D, "tablecreate": {"name": "$name", "columns": COLUMNS, "indexes": INDEXES}}),
    "DeleteTable": Form({**D, "tablename": "$table"}, (Step("CloseTable", T),)),
    "RenameTable": Form({**D, "tablename": "$table", "newTablename": "$name"}, (Step("CloseTable", T),)),
    "OpenTable": Form({**D, "tablename": "$table"}),
    "CloseTable": Form(T),
    "GetTableInfo": Form({**T, "infoLevel": "Name"}),
    "ComputeStats": Form(T),
    # columns and indexes
    "AddColumn": Form({**T, "columnname": "more", "columndef": {"coltyp": "Long"}}),
    "DeleteColumn": Form({**T, "columnname": "blob"}),
    "RenameColumn": Form({**T, "name": "note", "newName": "remark"}),
    "SetColumnDefaultValue": Form({**D, "tablename": "$table", "columnname": "note", "data": "nothing"}),
    "GetColumnInfo": Form({**D, "tablename": "$table", "infoLevel": "List"}),
    "GetTableColumnInfo": Form({**T, "columnname": "id"}),
    "CreateIndex": Form({**T, "indexname": "byNote", "keyDescription": ["-note"], "density": 90}),
    "DeleteIndex": Form({**T, "indexname": "byName"}),
    "GetIndexInfo": Form({**D, "tablename": "$table", "infoLevel": "List"}),
    "GetTableIndexInfo": Form({**T, "infoLevel": "List"}),
    "SetCurrentIndex": Form({**T, "indexname": "byName"}),
    "GetCurrentIndex": Form(T),
    "IndexRecordCount": Form(T),
    "IntersectIndexes": Form({**S, "ranges": [{"tableid": "$tableid"}]}, NAME_RANGE),
    # cursors
    "Move": Form({**T, "numRows": "Next"}),
    "Seek": Form({**T, "grbit": ["SeekEQ"]}, (KEY,)),
    "MakeKey": Form({**T, "data": 2, "grbit": ["NewKey"]}),
    "RetrieveKey": Form(T),
    "SetIndexRange": Form({**T, "grbit": ["RangeInclusive", "RangeUpperLimit"]}, (KEY,)),
    "GetBookmark": Form(T),
    "GotoBookmark": Form({**T, "bookmark": "$bookmark"}, (Step("GetBookmark", T, {"bookmark": "bookmark"}),)),
    "GetSecondaryIndexBookmark": Form(T, BY_NAME),
    "GotoSecondaryIndexBookmark": Form(
        {**T, "secondaryKey": "$secondary", "primaryKey": "$primary"},
        (*BY_NAME, Step("GetSecondaryIndexBookmark", T, {"secondary": "secondaryKey", "primary": "primaryKey"})),
    ),
    "GetRecordPosition": Form(T),
    "GotoPosition": Form({**T, "recpos": {"entriesLT": 1, "entriesTotal": 3}}),
    "DupCursor": Form(T),
    "GetCursorInfo": Form(T),
    "SetTableSequential": Form(T),
    "ResetTableSequential": Form(T),
    "PrereadKeys": Form({**T, "keys": ["$key"], "grbit": ["PrereadForward"]}, KEY_KEPT),
    "PrereadIndexRanges": Form(
        {**T, "indexRanges": [{"startColumns": [{"columnid": "id", "data": 1}]}], "columnsPreread": ["blob"], "grbit": ["PrereadForward"]}
    ),
    "SetCursorFilter": Form({**T, "filters": []}),
    "SetLS": Form({**T, "ls": 99}),
    "GetLS": Form(T, (Step("SetLS", {**T, "ls": 99}),)),
    # records
    "PrepareUpdate": Form({**T, "prep": "Replace"}),
    "Update": Form(T, (REPLACING,)),
    "Delete": Form(T),
    "SetColumn": Form({**T, "columnid": "note", "data": "b"}, (REPLACING,)),
    "SetColumns": Form({**T, "setcolumns": [{"columnid": "note", "data": "b"}]}, (REPLACING,)),
    "RetrieveColumn": Form({**T, "columnid": "name"}),
    "RetrieveColumns": Form({**T, "retrievecolumns": [{"columnid": "id"}]}),
    "EnumerateColumns": Form(T),
    "EscrowUpdate": Form({**T, "columnid": "sum", "delta": 5}, (BEGIN,)),
    "GetLock": Form({**T, "grbit": ["ReadLock"]}, (BEGIN,)),
    "GetRecordSize": Form(T),
    # temporary tables
    "OpenTempTable": Form({**S, "columns": [{"coltyp": "Long", "grbit": ["ColumnTTKey"]}]}),
    "OpenTemporaryTable": Form({**S, "temporarytable": {"columns": [{"coltyp": "Long", "grbit": ["ColumnTTKey"]}]}}),
    # backup: the calls that name no instance mean the only one
    "Backup": Form({"destination": "default/$name"}),
    "BackupInstance": Form({**I, "destination": "$name"}),
    "BeginExternalBackup": Form({}, after=NO_BACKUP),
    "BeginExternalBackupInstance": Form(I, after=NO_BACKUP),
    "EndExternalBackup": Form({}, LOGS, NO_BACKUP, answer="JET_errBackupAbortByCaller"),
    "EndExternalBackupInstance": Form({**I, "grbit": ["BackupEndAbort"]}, (BACKUP,)),
    "StopBackup": Form({}, (BACKUP,), NO_BACKUP),
    "StopBackupInstance": Form(I, (BACKUP,), NO_BACKUP),
    "OpenFile": Form({"file": "$file"}, FILES, NO_BACKUP),
    "OpenFileInstance": Form({**I, "file": "$file"}, FILES, NO_BACKUP),
    "ReadFile": Form({"handle": "$handle", "bufferSize": 65536}, OPENED, NO_BACKUP),
    "ReadFileInstance": Form({**I, "handle": "$handle", "bufferSize": 65536}, OPENED, NO_BACKUP),
    "CloseFile": Form({"handle": "$handle"}, OPENED, NO_BACKUP),
    "CloseFileInstance": Form({**I, "handle": "$handle"}, OPENED, NO_BACKUP),
    "GetAttachInfo": Form({}, (BACKUP,), NO_BACKUP),
    "GetAttachInfoInstance": Form(I, (BACKUP,), NO_BACKUP),
    "GetLogInfo": Form({}, READ, NO_BACKUP),
    "GetLogInfoInstance": Form(I, READ, NO_BACKUP),
    "GetTruncateLogInfoInstance": Form(I, READ, NO_BACKUP),
    "TruncateLog": Form({}, LOGS, NO_BACKUP, alone=True),
    "TruncateLogInstance": Form(I, LOGS, NO_BACKUP, alone=True),
    # an instance is restored before it is initialised
    "Restore": Form({"source": "default/$name"}, (*TAKEN, Step("Term", I), Step("CreateInstance", {"name": "default"})), alone=True),
    "RestoreInstance": Form(
        {"instance": "$again", "source": "$name"},
        (*TAKEN, Step("Term", I), Step("CreateInstance", {"name": "default"}, {"again": "instance"})),
        alone=True,
    ),
    "ExternalRestore": Form(
        {
            "checkpointFilePath": "$name.work",
            "logPath": "$name.work",
            "backupLogPath": "default/$name",
            "rstmap": [{"databaseName": "world.edb", "newDatabaseName": "default/$name/world.edb"}],
        },
        TAKEN,
    ),
    # snapshots
    "OSSnapshotPrepare": Form({}, (), NO_SNAPSHOT, {"snap": "snapId"}),
    "OSSnapshotPrepareInstance": Form(
        {**SNAP, **I}, (Step("OSSnapshotPrepare", {"grbit": ["ExplicitPrepare"]}, {"snap": "snapId"}),), NO_SNAPSHOT
    ),
    "OSSnapshotFreeze": Form(SNAP, (PREPARED,), NO_SNAPSHOT),
    "OSSnapshotThaw": Form(SNAP, FROZEN, NO_SNAPSHOT),
    "OSSnapshotAbort": Form(SNAP, (PREPARED,)),
    "OSSnapshotEnd": Form(SNAP, THAWED),
    "OSSnapshotGetFreezeInfo": Form(SNAP, (PREPARED,), NO_SNAPSHOT),
    "OSSnapshotTruncateLog": Form(SNAP, THAWED, NO_SNAPSHOT),
    "OSSnapshotTruncateLogInstance": Form({**SNAP, **I}, THAWED, NO_SNAPSHOT),
    "SnapshotStatus": Form(),
    "SnapshotRenew": Form({**SNAP, "leaseMs": 10_000}, FROZEN, NO_SNAPSHOT),
    # the rest
    "RegisterCallback": Form({**T, "cbtyp": "BeforeInsert"}),
    "UnregisterCallback": Form(
        {**T, "cbtyp": "BeforeInsert", "callbackId": "$callback"},
        (Step("RegisterCallback", {**T, "cbtyp": "BeforeInsert"}, {"callback": "callbackId"}),),
    ),
    "FreeBuffer": Form(),
    "GetVersion": Form(S),
    "Idle": Form({**S, "grbit": ["IdleCompact"]}),
    "GetThreadStats": Form(),
    "ConfigureProcessForCrashDump": Form(),
    "GetErrorInfo": Form({"error": -1605, "infoLevel": "SpecificErr"}),
    "rpc.discover": Form(),
    "Ping": Form(),
    "Hello": Form(),
    "Batch": Form({"calls": [{"method": "Move", "params": {**T, "numRows": "Last"}}]}),
    "GetRecord": Form({**T, "key": [2]}),
    "GetRecords": Form({**T, "limit": 2}),
    "PutRecords": Form({**T, "records": [{"id": 4, "name": "four"}]}),
    "GetEvents": Form({"limit": 5}),
    "Subscribe": Form({"topics": ["snapshot"]}),
    "Unsubscribe": Form(
        {"subscription": "$subscription"}, (Step("Subscribe", {"topics": ["snapshot"]}, {"subscription": "subscription"}),)
    ),
}
