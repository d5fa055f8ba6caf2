"""Documented errors and flags that no call can get from Jetwire, and why: a reason, and who is meant by it.

Strict: what could occur and was merely never tried does not belong here. `EVERYWHERE` stands for all functions that
document the name. A name that is shown after all fails a test (tests/quality/test_coverage.py).
"""

from __future__ import annotations

EVERYWHERE = "*"

# reason -> C name of an error or flag -> the functions it is impossible for
REASONS: dict[str, dict[str, tuple[str, ...]]] = {
    "calls of one session queue, and another connection's session is InvalidSesid": {"JET_errSessionSharingViolation": (EVERYWHERE,)},
    "served after StopService: it gives something back": {"JET_errClientRequestToStopJetService": ("EndSession", "Rollback")},
    "it names its instance": {
        "JET_errRunningInMultiInstanceMode": (
            *("BeginExternalBackupInstance", "EndExternalBackupInstance", "GetAttachInfoInstance", "GetLogInfoInstance"),
            *("OpenFileInstance", "ReadFileInstance", "CloseFileInstance", "TruncateLogInstance", "RestoreInstance"),
        ),
    },
    "the server always runs in multi-instance mode": {"JET_errRunningInOneInstanceMode": (EVERYWHERE,)},
    "it takes a session, and there is none before the instance runs": {
        "JET_errInitInProgress": ("SetSessionParameter",),
        "JET_errInvalidInstance": ("SetSessionParameter",),
    },
    "no session parameter is a path, a tuple length or fixed at Init": {
        "JET_errAlreadyInitialized": ("SetSessionParameter",),
        "JET_errInvalidPath": ("SetSessionParameter",),
        "JET_errIndexTuplesInvalidLimits": ("SetSessionParameter",),
    },
    "an instance that was never initialised is given back": {"JET_errNotInitialized": ("Term",)},
    "results have no buffer of the caller's that could be too small": {
        "JET_errBufferTooSmall": (
            *("GetBookmark", "GetSecondaryIndexBookmark", "Update", "GetSystemParameter", "GetThreadStats", "GetInstanceMiscInfo"),
            *("GetDatabaseFileInfo", "GetDatabaseInfo", "GetObjectInfo", "GetTableInfo"),
        ),
        "JET_errInvalidBufferSize": ("GetDatabaseFileInfo", "GetDatabaseInfo", "GetTableInfo"),
        "JET_wrnBufferTruncated": ("GetCurrentIndex", "GetIndexInfo", "GetTableIndexInfo", "GetSystemParameter", "RetrieveKey"),
    },
    "pages are written by the checkpoint; a log that finds no room is LogDiskFull": {"JET_errDiskFull": ("Update",)},
    "damaged page structure is DatabaseCorrupted, a damaged value is told when it is read": {"JET_errReadVerifyFailure": ("Init",)},
    "there is no running without a log": {"JET_errLoggingDisabled": (EVERYWHERE,)},
    "there are no distributed transactions": {"JET_errDistributedTransactionAlreadyPreparedToCommit": (EVERYWHERE,)},
    "no page buffers are reserved for a session": {"JET_errOutOfBuffers": ("EndSession",)},
    "undoing is forgetting: nothing is read or written for it": {"JET_errRollbackError": (EVERYWHERE,)},
    "callbacks are notifications: they cannot fail the call": {"JET_errCallbackFailed": ("Delete",)},
    "taken, and without effect": {"JET_errInternalError": ("ConfigureProcessForCrashDump",)},
    "a file that exists is DatabaseDuplicate": {
        "JET_errDatabaseSharingViolation": ("CreateDatabase",),
        "JET_errDatabaseLocked": ("CreateDatabase",),
        "JET_errDatabaseNotFound": ("CreateDatabase",),
        "JET_errInvalidDatabase": ("CreateDatabase",),
        "JET_wrnDatabaseAttached": ("CreateDatabase",),
        "JET_wrnFileOpenReadOnly": ("CreateDatabase",),
    },
    "only attached databases are opened, and what is none is not attached": {"JET_errInvalidDatabase": ("OpenDatabase",)},
    "temporary tables have no database that could be named": {
        "JET_errInvalidDatabase": ("RenameTable",),
        "JET_errCannotDeleteTempTable": ("DeleteTable",),
    },
    "a handle that is not open is InvalidDatabaseId": {"JET_errDatabaseNotFound": ("CloseDatabase",)},
    "an instance's directory is locked: no other process has its files": {
        "JET_errDatabaseInUse": ("AttachDatabase",),
        "JET_errDatabaseSharingViolation": ("Init",),
    },
    "a table is made without columns and indexes": dict.fromkeys(
        (
            *("JET_errCallbackNotResolved", "JET_errCannotIndex", "JET_errCannotNestDDL", "JET_errColumnDuplicate"),
            *("JET_errColumnNotFound", "JET_errColumnRedundant", "JET_errDDLNotInheritable", "JET_errIndexDuplicate"),
            *("JET_errIndexHasPrimary", "JET_errIndexInvalidDef", "JET_errIndexTuplesInvalidLimits", "JET_errIndexTuplesNonUniqueOnly"),
            *("JET_errIndexTuplesOneColumnOnly", "JET_errIndexTuplesSecondaryIndexOnly", "JET_errIndexTuplesTextColumnsOnly"),
            *("JET_errIndexTuplesVarSegMacNotAllowed", "JET_errInvalidCodePage", "JET_errInvalidColumnType"),
            *("JET_errInvalidCreateIndex", "JET_errInvalidLanguageId", "JET_errRecordTooBig", "JET_errTooManyColumns"),
            "JET_errUnicodeTranslationFail",
        ),
        ("CreateTable",),
    ),
    "there are no SLV columns": {"JET_errNotInTransaction": ("PrepareUpdate",)},
    "a session that is none is InvalidSnapId": {"JET_errOSSnapshotInvalidSequence": ("OSSnapshotGetFreezeInfo",)},
    "no other session's use stands in its way": {
        "JET_errTableInUse": ("SetColumnDefaultValue", "GetTableInfo"),
        "JET_errTableLocked": ("GetTableInfo",),
    },
    "no table is the system's alone": {"JET_wrnTableInUseBySystem": ("GetTableInfo", "OpenTable")},
    "local storage is told of with or without a callback": {"JET_errLSCallbackNotSpecified": ("SetLS",)},
    "files grow by themselves: it takes no space": {
        "JET_errDiskFull": ("GrowDatabase", "ResizeDatabase"),
        "JET_errDiskIO": ("GrowDatabase", "ResizeDatabase"),
    },
    "it answers bookmarks: it opens no cursor, table or sort": {
        "JET_errOutOfCursors": ("IntersectIndexes",),
        "JET_errTooManyOpenTables": ("IntersectIndexes",),
        "JET_errTooManyOpenIndexes": ("IntersectIndexes",),
        "JET_errTooManySorts": ("IntersectIndexes",),
    },
    "a temporary table counts as a sort, and opens no index": {
        "JET_errTooManyOpenTables": ("OpenTempTable", "OpenTemporaryTable"),
        "JET_errTooManyOpenIndexes": ("OpenTempTable", "OpenTemporaryTable"),
    },
    "an index needs no cursor of its own": {"JET_errOutOfCursors": ("SetCurrentIndex",)},
    "to begin writes no log": {"JET_errLogWriteFail": ("BeginExternalBackup", "BeginExternalBackupInstance")},
    "it makes no versions: what is set waits in the update": {"JET_errVersionStoreOutOfMemory": ("SetColumn",)},
    "it makes no versions: space is given back as the checkpoint goes": {"JET_errVersionStoreOutOfMemory": ("Defragment",)},
    "a log is verified when it is listed, not when it is read": {"JET_errLogReadVerifyFailure": ("ReadFile", "ReadFileInstance")},
    "page size does not shape the files": {"JET_errPageSizeMismatch": ("Restore", "RestoreInstance")},
    "what could be at fault is a pointer or the size of a structure, and JSON has neither": {
        "JET_errInvalidParameter": (
            *("BeginSession", "DupSession", "EnumerateColumns", "GetAttachInfo", "GetAttachInfoInstance", "GetCursorInfo"),
            *(
                "GetInstanceInfo",
                "GetLogInfo",
                "GetLogInfoInstance",
                "OSSnapshotGetFreezeInfo",
                "GetRecordPosition",
                "GetRecordSize",
                "GetTruncateLogInfoInstance",
            ),
            *("RenameColumn", "RenameTable", "SetCurrentIndex", "TruncateLog", "Backup", "BackupInstance", "Restore"),
        ),
        "JET_errInvalidBufferSize": ("RetrieveColumn", "RetrieveColumns"),
        "JET_errInvalidCreateIndex": ("CreateTableColumnIndex",),
    },
    "a handle that is none is InvalidInstance": {
        "JET_errInvalidParameter": ("RestoreInstance", "StopBackupInstance", "TruncateLogInstance")
    },
    "a wrong kind of update is refused by PrepareUpdate": {"JET_errInvalidParameter": ("Update",)},
    "another name of a number that is shown under its newer one": {
        "JET_errColumnIllegalNull": (EVERYWHERE,),
        "JET_errIndexTuplesTextColumnsOnly": ("CreateIndex", "CreateTableColumnIndex"),
        "JET_errDatabaseInconsistent": ("SetDatabaseSize",),
    },
    "lifted: nothing in the engine's source answers it, and such an index can be made": {
        "JET_errIndexTuplesOneColumnOnly": ("CreateIndex", "CreateTableColumnIndex"),
    },
    "text is mapped by a table in memory": {"JET_errUnicodeTranslationFail": ("CreateIndex", "CreateTableColumnIndex")},
    "equal keys of one record are one entry": {"JET_errMultiValuedIndexViolation": ("Update",)},
    "a record's size is looked at when it is written: Update answers it": {"JET_errRecordTooBig": ("SetColumn", "SetColumns")},
    "outside a transaction it has one of its own": {"JET_errNotInTransaction": ("SetColumn", "SetColumns")},
    "refused in transactions of any kind": {"JET_errTransReadOnly": ("RenameColumn",)},
    "it has no indexes that could be unversioned, and no grbit": {
        "JET_errInTransaction": ("CreateTable",),
        "JET_errInvalidGrbit": ("CreateTable",),
    },
    "of Windows 2000; MissingFileToBackup since": {"JET_errFileNotFound": ("OpenFile", "OpenFileInstance")},
    "AttachDatabase answers it, of what Init has attached": {"JET_wrnDatabaseAttached": ("Init",)},
    "refused, as documented: deprecated, reserved or not supported": {
        "JET_bitColumnUserDefinedDefault": ("AddColumn",),
        "JET_bitCompactRepair": ("Compact",),
        "JET_bitBackupAtomic": ("BeginExternalBackup", "BeginExternalBackupInstance"),
        "JET_bitBackupSnapshot": (EVERYWHERE,),
        "JET_bitForceDetach": ("DetachDatabase",),
        "JET_bitForceCloseAndDetach": ("DetachDatabase",),
        "JET_bitIdleFlushBuffers": ("Idle",),
        "JET_bitRecordNotInIndex": ("IntersectIndexes",),
        "JET_sesparamTransactionLevel": ("SetSessionParameter",),
        **dict.fromkeys(("JET_cbtypNull", "JET_cbtypUserDefinedDefaultValue"), ("RegisterCallback", "UnregisterCallback")),
        "JET_ColInfoSysTabCursor": ("GetColumnInfo", "GetTableColumnInfo"),
        **dict.fromkeys((f"JET_DbInfo{n}" for n in ("Collate", "Connect", "Country", "Cp", "Isam", "Upgrade")), (EVERYWHERE,)),
        **dict.fromkeys((f"JET_IdxInfo{n}" for n in ("OLC", "ResetOLC", "SysTabCursor")), (EVERYWHERE,)),
        **dict.fromkeys((f"JET_ObjInfo{n}" for n in ("ListACM", "Max", "RulesLoaded", "SysTabCursor", "SysTabReadOnly")), (EVERYWHERE,)),
        **dict.fromkeys((f"JET_TblInfo{n}" for n in ("DumpTable", "MostMany", "OLC", "Rvt", "ResetOLC")), (EVERYWHERE,)),
    },
    "attaching reads no index, and no sort order is older than the files: damage shows where it is read": {
        "JET_errPrimaryIndexCorrupted": ("AttachDatabase",),
        "JET_errSecondaryIndexCorrupted": ("AttachDatabase",),
    },
    "Init takes no map of databases": {"JET_bitReplayMissingMapEntryDB": ("Init",)},
    "sorts spill into a file that has no name": {"JET_filetypeTempDatabase": ("GetDatabaseFileInfo",)},
    "it can be switched off in no configuration": {"JET_errDisabledFunctionality": ("GetErrorInfo",)},
}


def reason(function: str, name: str) -> str | None:
    """Why the function never answers it; None if it can."""
    for why, names in REASONS.items():
        if function in names.get(name, ()) or EVERYWHERE in names.get(name, ()):
            return why
    return None
