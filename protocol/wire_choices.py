"""What the fact tables do not say about the methods: who may call them, and which names stand for numbers.

Used by generate.py alone.
"""

from __future__ import annotations

# The lowest role that may call the methods of a group; ROLES below says it for single methods.
GROUP_ROLES = {
    "instance": "admin",
    "session": "reader",
    "transaction": "reader",
    "database": "schema",
    "table": "schema",
    "column": "schema",
    "index": "schema",
    "cursor": "reader",
    "record": "writer",
    "temp_table": "reader",
    "backup": "snapshotter",
    "log": "snapshotter",
    "snapshot": "snapshotter",
    "callback": "reader",
    "misc": "reader",
}

ROLES = {
    **dict.fromkeys(("GetInstanceInfo", "GetErrorInfo", "FreeBuffer", "GetThreadStats", "GetVersion"), "any"),
    **dict.fromkeys(("GetInstanceMiscInfo", "GetSystemParameter"), "reader"),
    **dict.fromkeys(("OpenDatabase", "CloseDatabase", "GetDatabaseInfo", "GetObjectInfo", "OpenTable", "CloseTable"), "reader"),
    **dict.fromkeys(("GetTableInfo", "GetColumnInfo", "GetTableColumnInfo", "GetIndexInfo", "GetTableIndexInfo"), "reader"),
    **dict.fromkeys(("IntersectIndexes", "IndexRecordCount", "SetCurrentIndex", "GetCurrentIndex"), "reader"),
    **dict.fromkeys(("RetrieveColumn", "RetrieveColumns", "EnumerateColumns", "GetRecordSize"), "reader"),
    **dict.fromkeys(("GetDatabaseFileInfo", "Compact", "SetDatabaseSize", "GrowDatabase", "ResizeDatabase"), "admin"),
    **dict.fromkeys(("Restore", "RestoreInstance", "ExternalRestore", "ConfigureProcessForCrashDump"), "admin"),
}

# (method or type, member): the tables of names it takes beside its number. `*` stands for every owner.
FLAG_GROUPS = {
    "CloseDatabase": (),
    "OpenTable": ("JetOpenTable", "JetOpenTable.tableClass"),
    "OpenDatabase": ("JetOpenDatabase", "JetAttachDatabase"),
    "CreateDatabase": ("JetCreateDatabase", "JetAttachDatabase"),
    "GetColumnInfo": ("JET_ColInfoGrbit",),
    "GetTableColumnInfo": ("JET_ColInfoGrbit",),
    "RetrieveKey": ("JetRetrieveColumn",),
    "SetTableSequential": ("JetPrereadKeys",),
    "PrereadIndexRanges": ("JetPrereadKeys",),
    "GetLS": ("JetSetLS",),
    "BackupInstance": ("JetBackup",),
    "BeginExternalBackup": ("JetBackup",),
    "BeginExternalBackupInstance": ("JetBackup",),
    "EndExternalBackupInstance": ("JetEndExternalBackup",),
    "OSSnapshotTruncateLogInstance": ("JetOSSnapshotTruncateLog",),
    "EnumerateColumns": ("JetEnumerateColumns", "JetRetrieveColumn"),
    "COLUMNDEF": ("JetAddColumn", "JetOpenTempTable"),
    "COLUMNCREATE": ("JetAddColumn",),
    "CONDITIONALCOLUMN": ("JET_CONDITIONALCOLUMN",),
    "SPACEHINTS": ("JET_SPACEHINTS",),
    "INDEXCREATE": ("JetCreateIndex",),
    "TABLECREATE": ("JetCreateTableColumnIndex",),
    "SETCOLUMN": ("JetSetColumn",),
    "RETRIEVECOLUMN": ("JetRetrieveColumn",),
    "INDEXRANGE": ("JET_INDEXRANGE",),
    "INDEX_COLUMN": ("JET_INDEX_COLUMN",),
    "OPENTEMPORARYTABLE": ("JetOpenTempTable",),
    "PutRecords": ("JetCommitTransaction",),
}

ENUM_GROUPS = {
    ("*", "coltyp"): "JET_coltyp",
    ("*", "objtyp"): "JET_objtyp",
    ("*", "cbtyp"): "JET_cbtyp",
    ("*", "relop"): "JET_relop",
    ("*", "sesparamid"): "JET_sesparam",
    ("*", "prep"): "JET_prep",
    ("Move", "numRows"): "JET_Move",
    ("GetInstanceMiscInfo", "infoLevel"): "JET_InstanceMiscInfo",
    ("GetDatabaseInfo", "infoLevel"): "JET_DbInfo",
    ("GetDatabaseFileInfo", "infoLevel"): "JET_DbInfo",
    ("GetObjectInfo", "infoLevel"): "JET_ObjInfo",
    ("GetTableInfo", "infoLevel"): "JET_TblInfo",
    ("GetColumnInfo", "infoLevel"): "JET_ColInfo",
    ("GetTableColumnInfo", "infoLevel"): "JET_ColInfo",
    ("GetIndexInfo", "infoLevel"): "JET_IdxInfo",
    ("GetTableIndexInfo", "infoLevel"): "JET_IdxInfo",
    ("GetErrorInfo", "infoLevel"): "JET_ErrorInfo",
}

OTHER_NAMES = {
    ("*", "columnid"): "column",
    ("*", "columnsPreread"): "column",
    ("*", "paramid"): "parameter",
    ("GetErrorInfo", "error"): "error",
    ("INDEXCREATE", "key"): "key",
    ("CreateIndex", "keyDescription"): "key",
}

EXTRA_TYPES = {
    ("SetSystemParameter", "paramValue"): "object UNICODEINDEX",
    ("SETSYSPARAM", "paramValue"): "object UNICODEINDEX",
    ("GetSystemParameter", "paramValue"): "object UNICODEINDEX",
    ("COLUMNCREATE", "defaultValue"): "object USERDEFINEDDEFAULT",
}


def role_of(method: str, group: str) -> str:
    return ROLES.get(method, GROUP_ROLES[group])


def accepted_names(owner: str, member: str) -> str:
    """`flags:GROUP,GROUP`, `enum:GROUP`, `column`, `parameter`, `error`, `key`, or nothing."""
    if member == "grbit":
        groups = FLAG_GROUPS.get(owner, (f"Jet{owner}",))
        return "flags:" + ",".join(groups)
    if (group := ENUM_GROUPS.get((owner, member)) or ENUM_GROUPS.get(("*", member))) is not None:
        return f"enum:{group}"
    return OTHER_NAMES.get((owner, member)) or OTHER_NAMES.get(("*", member)) or ""


def extra_type(owner: str, member: str) -> str:
    return EXTRA_TYPES.get((owner, member), "")
