"""Every method outside the backup group, called once on a real server: each answers what its declaration says it does."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.declarations import METHODS
from tests.support.bench import at
from tests.support.declared import misfits
from tests.support.server_process import ServerProcess

S = {"sesid": "$sesid"}
T = {**S, "tableid": "$tableid"}
D = {**S, "dbid": "$dbid"}
TEXT = {"coltyp": "LongText", "cp": 1200}

# Method, params, what is kept of the result and under which name. `$name` in params is something kept before.
Step = tuple[str, dict[str, Any], dict[str, str]]
STORY: list[Step] = [
    ("Ping", {}, {}),
    ("Hello", {"client": "a test"}, {"instance": "instances.0.instance"}),
    ("rpc.discover", {}, {}),
    ("EnableMultiInstance", {"sysParams": []}, {}),
    ("GetInstanceInfo", {}, {}),
    ("GetInstanceMiscInfo", {"instance": "$instance"}, {}),
    ("GetErrorInfo", {"error": -1605, "infoLevel": 1}, {}),
    ("ConfigureProcessForCrashDump", {}, {}),
    ("FreeBuffer", {}, {}),
    ("Subscribe", {"topics": ["snapshot"]}, {"subscription": "subscription"}),
    ("Unsubscribe", {"subscription": "$subscription"}, {}),
    # sessions
    ("BeginSession", {"instance": "$instance"}, {"sesid": "sesid"}),
    ("DupSession", S, {"other": "newSesid"}),
    ("SetSessionContext", {"sesid": "$other", "context": 5}, {}),
    ("ResetSessionContext", {"sesid": "$other"}, {}),
    ("SetSessionParameter", {**S, "sesparamid": "CommitDefault", "value": 0}, {}),
    ("GetSessionParameter", {**S, "sesparamid": "TransactionLevel"}, {}),
    ("GetVersion", S, {}),
    ("GetSystemParameter", {"instance": "$instance", "paramid": "CacheSizeMax"}, {}),
    ("SetSystemParameter", {"instance": "$instance", "paramid": "OSSnapshotTimeout", "paramValue": 20000}, {}),
    # databases
    ("CreateDatabase", {**S, "database": "every.edb"}, {"dbid": "dbid"}),
    ("GetDatabaseInfo", {**D, "infoLevel": "Misc"}, {}),
    ("GetDatabaseFileInfo", {"databaseName": "default/every.edb", "infoLevel": "Filesize"}, {}),
    ("GrowDatabase", {**D, "desiredPages": 300}, {}),
    ("ResizeDatabase", {**D, "desiredPages": 400}, {}),
    ("Defragment", {**D, "grbit": ["DefragmentBatchStart"], "passes": 1}, {}),
    # tables, columns, indexes
    ("CreateTable", {**D, "tablename": "plain"}, {"plain": "tableid"}),
    ("CloseTable", {**S, "tableid": "$plain"}, {}),
    ("RenameTable", {**D, "tablename": "plain", "newTablename": "renamed"}, {}),
    ("DeleteTable", {**D, "tablename": "renamed"}, {}),
    (
        "CreateTableColumnIndex",
        {
            **D,
            "tablecreate": {
                "name": "t",
                "columns": [
                    {"name": "id", "coltyp": "Long"},
                    {"name": "name", **TEXT},
                    {"name": "note", **TEXT},
                    {"name": "sum", "coltyp": "Long", "grbit": ["ColumnEscrowUpdate"], "defaultValue": 0},
                ],
                "indexes": [{"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary"]}, {"name": "byName", "key": ["+name"]}],
            },
        },
        {"made": "tableid"},
    ),
    ("CloseTable", {**S, "tableid": "$made"}, {}),
    ("SetColumnDefaultValue", {**D, "tablename": "t", "columnname": "note", "data": "nothing"}, {}),
    ("OpenTable", {**D, "tablename": "t", "grbit": ["TableDenyRead"]}, {"tableid": "tableid"}),
    ("AddColumn", {**T, "columnname": "extra", "columndef": {"coltyp": "Long"}}, {}),
    ("RenameColumn", {**T, "name": "extra", "newName": "more"}, {}),
    ("DeleteColumn", {**T, "columnname": "more"}, {}),
    ("CreateIndex", {**T, "indexname": "byId", "keyDescription": ["-id"], "density": 90}, {}),
    ("DeleteIndex", {**T, "indexname": "byId"}, {}),
    ("GetTableInfo", {**T, "infoLevel": "Name"}, {}),
    ("GetObjectInfo", {**D, "objtyp": "Table", "infoLevel": "List"}, {}),
    ("GetColumnInfo", {**D, "tablename": "t", "infoLevel": "List"}, {}),
    ("GetTableColumnInfo", {**T, "columnname": "id"}, {}),
    ("GetIndexInfo", {**D, "tablename": "t", "infoLevel": "List"}, {}),
    ("GetTableIndexInfo", {**T, "infoLevel": "List"}, {}),
    # records
    ("RegisterCallback", {**T, "cbtyp": 4, "context": "mine"}, {"callback": "callbackId"}),
    ("BeginTransaction", S, {}),
    ("PrepareUpdate", {**T, "prep": "Insert"}, {}),
    ("SetColumn", {**T, "columnid": "id", "data": 1}, {}),
    ("SetColumns", {**T, "setcolumns": [{"columnid": "name", "data": "one"}]}, {}),
    ("Update", T, {"bookmark": "bookmark"}),
    ("UnregisterCallback", {**T, "cbtyp": 4, "callbackId": "$callback"}, {}),
    ("CommitTransaction", S, {}),
    ("PutRecords", {**T, "records": [{"id": 2, "name": "two"}, {"id": 3, "name": "three"}]}, {}),
    ("GotoBookmark", {**T, "bookmark": "$bookmark"}, {}),
    ("GetBookmark", T, {}),
    ("RetrieveColumn", {**T, "columnid": "name", "retinfo": {}}, {}),
    ("RetrieveColumns", {**T, "retrievecolumns": [{"columnid": "id"}]}, {}),
    ("EnumerateColumns", T, {}),
    ("GetRecordSize", T, {}),
    ("BeginTransaction", S, {}),
    ("EscrowUpdate", {**T, "columnid": "sum", "delta": 5}, {}),
    ("CommitTransaction", S, {}),
    ("GetRecord", {**T, "key": [2]}, {}),
    ("GetRecords", {**T, "limit": 1}, {}),
    ("GetCursorInfo", T, {}),
    ("ComputeStats", T, {}),
    # cursors
    ("Move", {**T, "numRows": "First"}, {}),
    ("MakeKey", {**T, "data": 2, "grbit": ["NewKey"]}, {}),
    ("Seek", {**T, "grbit": ["SeekEQ"]}, {}),
    ("MakeKey", {**T, "data": 3, "grbit": ["NewKey"]}, {}),
    ("RetrieveKey", {**T, "grbit": ["RetrieveCopy"]}, {"key": "data"}),
    ("SetIndexRange", {**T, "grbit": ["RangeInclusive", "RangeUpperLimit"]}, {}),
    ("IndexRecordCount", T, {}),
    ("GetRecordPosition", T, {"recpos": "recpos"}),
    ("GotoPosition", {**T, "recpos": "$recpos"}, {}),
    ("SetTableSequential", T, {}),
    ("ResetTableSequential", T, {}),
    ("PrereadKeys", {**T, "keys": ["$key"], "grbit": ["PrereadForward"]}, {}),
    ("DupCursor", T, {"second": "newTableid"}),
    ("SetLS", {**T, "ls": 99}, {}),
    ("GetLS", T, {}),
    ("SetCurrentIndex", {**T, "indexname": "byName"}, {}),
    ("GetCurrentIndex", T, {}),
    ("Move", {**T, "numRows": "First"}, {}),
    ("GetSecondaryIndexBookmark", T, {"secondary": "secondaryKey", "primary": "primaryKey"}),
    ("GotoSecondaryIndexBookmark", {**T, "secondaryKey": "$secondary", "primaryKey": "$primary"}, {}),
    (
        "PrereadIndexRanges",
        {
            **T,
            "indexRanges": [{"startColumns": [{"columnid": "name", "data": "one"}]}],
            "columnsPreread": ["id"],
            "grbit": ["PrereadForward"],
        },
        {},
    ),
    ("SetCursorFilter", {**T, "filters": []}, {}),
    ("MakeKey", {**T, "data": "one", "grbit": ["NewKey"]}, {}),
    ("Seek", {**T, "grbit": ["SeekGE", "SetIndexRange"]}, {}),
    ("IntersectIndexes", {**S, "ranges": [{"tableid": "$tableid"}]}, {}),
    ("BeginTransaction", S, {}),
    ("GetLock", {**T, "grbit": ["ReadLock"]}, {}),
    ("Delete", T, {}),
    ("Rollback", S, {}),
    ("Batch", {"calls": [{"method": "Ping"}, {"method": "Move", "params": {**T, "numRows": "Last"}}]}, {}),
    ("CloseTable", {**S, "tableid": "$second"}, {}),
    ("CloseTable", T, {}),
    # temporary tables
    (
        "OpenTempTable",
        {**S, "columns": [{"coltyp": "Long", "grbit": ["ColumnTTKey"]}], "lcid": 1033, "grbit": ["TTUpdatable"]},
        {"temporary": "tableid"},
    ),
    ("OpenTemporaryTable", {**S, "temporarytable": {"columns": [TEXT], "unicodeIndex": {"localeName": "de-DE"}}}, {}),
    ("CloseTable", {**S, "tableid": "$temporary"}, {}),
    ("GetThreadStats", {}, {}),
    ("Idle", {**S, "grbit": ["IdleCompact"]}, {}),
    # snapshots
    ("OSSnapshotPrepare", {"grbit": ["ExplicitPrepare", "ContinueAfterThaw"]}, {"snap": "snapId"}),
    ("OSSnapshotPrepareInstance", {"snapId": "$snap", "instance": "$instance"}, {}),
    ("OSSnapshotFreeze", {"snapId": "$snap", "leaseMs": 10000}, {}),
    ("SnapshotRenew", {"snapId": "$snap", "leaseMs": 10000}, {}),
    ("SnapshotStatus", {}, {}),
    ("OSSnapshotGetFreezeInfo", {"snapId": "$snap"}, {}),
    ("OSSnapshotThaw", {"snapId": "$snap"}, {}),
    ("OSSnapshotTruncateLogInstance", {"snapId": "$snap", "instance": "$instance"}, {}),
    ("OSSnapshotTruncateLog", {"snapId": "$snap"}, {}),
    ("OSSnapshotEnd", {"snapId": "$snap"}, {}),
    ("OSSnapshotPrepare", {}, {"snap": "snapId"}),
    ("OSSnapshotAbort", {"snapId": "$snap"}, {}),
    ("GetEvents", {"limit": 5}, {}),
    # back again
    ("CloseDatabase", D, {}),
    ("DetachDatabase", {**S, "database": "every.edb"}, {}),
    ("SetDatabaseSize", {**S, "database": "every.edb", "desiredPages": 500}, {}),
    ("Compact", {**S, "sourceDatabase": "every.edb", "destinationDatabase": "compact.edb"}, {}),
    ("AttachDatabase", {**S, "database": "compact.edb"}, {}),
    ("OpenDatabase", {**S, "database": "compact.edb"}, {}),
    ("EndSession", S, {}),
    # another instance
    ("CreateInstance", {"name": "second"}, {"added": "instance"}),
    ("Init", {"instance": "$added"}, {}),
    ("StopServiceInstance", {"instance": "$added"}, {}),
    ("Term", {"instance": "$added"}, {}),
    ("StopService", {}, {}),
]
OTHERS = {name for name, method in METHODS.items() if method.group in ("backup", "log")}


def filled(value: Any, kept: dict[str, Any]) -> Any:
    if isinstance(value, str) and value.startswith("$"):
        return kept.get(value[1:])
    if isinstance(value, list):
        return [filled(one, kept) for one in value]
    if isinstance(value, dict):
        return {name: filled(one, kept) for name, one in value.items()}
    return value


def test_every_method_answers_what_it_declares(server: ServerProcess) -> None:
    kept: dict[str, Any] = {}
    wrong: list[str] = []
    with server.connect() as lines:
        for method, params, keeps in STORY:
            answer = lines.ask(method, **filled(params, kept))
            if "error" in answer:
                wrong.append(f"{method}: {answer['error']}")
                continue
            wrong += misfits(method, answer["result"])
            for name, path in keeps.items():
                kept[name] = at(answer["result"], path)
    assert not wrong, "\n".join(wrong)


def test_the_story_leaves_no_method_out() -> None:
    assert {method for method, _, _ in STORY} | OTHERS == METHODS.keys()
