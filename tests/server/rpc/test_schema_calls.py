"""The schema calls over the wire: what they take and answer, and that it is all there again after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.server_process import Lines, ServerProcess

TABLE: dict[str, Any] = {
    "name": "people",
    "columns": [
        {"name": "id", "coltyp": "Long", "grbit": ["ColumnAutoincrement"]},
        {"name": "name", "coltyp": "Text", "max": 100, "cp": 1200, "defaultValue": "nobody"},
        {"name": "born", "coltyp": "DateTime", "defaultValue": "1900-01-01T12:00:00"},
        {"name": "big", "coltyp": "LongLong", "defaultValue": "9007199254740993"},
        {"name": "tags", "coltyp": 12, "grbit": ["ColumnMultiValued", "ColumnTagged"]},
        {"name": "key", "coltyp": "GUID", "defaultValue": "00112233-4455-6677-8899-aabbccddeeff"},
        {"name": "raw", "coltyp": "Binary", "defaultValue": "AAEC"},
    ],
    "indexes": [
        {"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary", "IndexUnique"]},
        {
            "name": "byName",
            "key": "+name\0-born\0\0",
            "grbit": ["IndexUnicode"],
            "unicodeIndex": {"localeName": "de-DE"},
            "conditionalColumns": [{"name": "tags", "grbit": ["IndexColumnMustBeNonNull"]}],
        },
    ],
}


@pytest.fixture
def session(server: ServerProcess) -> Any:
    with server.connect() as lines:
        yield lines, begin(lines)


def begin(lines: Lines) -> int:
    sesid: int = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
    return sesid


def database(lines: Lines, sesid: int, name: str) -> int:
    dbid: int = lines.call("CreateDatabase", sesid=sesid, database=name)["dbid"]
    return dbid


def test_a_table_with_everything(session: tuple[Lines, int]) -> None:
    lines, sesid = session
    dbid = database(lines, sesid, "schema.edb")
    made = lines.call("CreateTableColumnIndex", sesid=sesid, dbid=dbid, tablecreate=TABLE)
    assert made["created"] == 10
    assert [column["err"] for column in made["columns"]] == [0] * 7
    tableid = made["tableid"]
    names = {"sesid": sesid, "dbid": dbid, "tablename": "people"}
    rows = lines.call("GetColumnInfo", **names, infoLevel="List")["rows"]
    assert {row["columnname"]: row["defaultValue"] for row in rows} == {
        "id": None,
        "name": "nobody",
        "born": 2.5,
        "big": 9007199254740993,
        "tags": None,
        "key": "00112233-4455-6677-8899-aabbccddeeff",
        "raw": "AAEC",
    }
    lines.call("Hello", int64="string")
    rows = lines.call("GetTableColumnInfo", sesid=sesid, tableid=tableid, infoLevel="List")["rows"]
    assert {row["columnname"]: row["defaultValue"] for row in rows}["big"] == "9007199254740993"
    assert lines.call("GetColumnInfo", **names, columnname="NAME")["columndef"]["max"] == 100
    assert (
        lines.call("GetColumnInfo", **names, columnid=rows[0]["columnid"], infoLevel="BaseByColid")["columnbase"]["baseTableName"]
        == "people"
    )
    again = lines.call("GetIndexInfo", **names, indexname="byName", infoLevel="CreateIndex3")["result"]
    assert (again["key"], again["unicodeIndex"]["localeName"]) == (["+name", "-born"], "de-DE")
    parts = lines.call("GetTableIndexInfo", sesid=sesid, tableid=tableid, infoLevel="List")["result"]
    assert [(part["indexname"], part["columnname"], part["keyCount"] >= 0) for part in parts] == [
        ("primary", "id", True),
        ("byName", "name", True),
        ("byName", "born", True),
    ]
    for level in (
        "Default",
        "Name",
        "Dbid",
        "SpaceUsage",
        "SpaceAlloc",
        "SpaceOwned",
        "SpaceAvailable",
        "TemplateTableName",
        "SpaceOwnedLV",
    ):
        lines.call("GetTableInfo", sesid=sesid, tableid=tableid, infoLevel=level)
    lines.call("ComputeStats", sesid=sesid, tableid=tableid)
    assert lines.call("GetObjectInfo", sesid=sesid, dbid=dbid, objtyp="Table", objectName="people")["objectinfo"]["objtyp"] == 1
    for level in ("Filename", "LCID", "Options", "Transactions", "Version", "Filesize", "SpaceOwned", "SpaceAvailable", "Misc", "PageSize"):
        lines.call("GetDatabaseInfo", sesid=sesid, dbid=dbid, infoLevel=level)
    assert lines.call("GetDatabaseFileInfo", databaseName="default/schema.edb", infoLevel="Filesize")["value"] > 0


def test_changing_a_schema(session: tuple[Lines, int]) -> None:
    lines, sesid = session
    dbid = database(lines, sesid, "changing.edb")
    tableid = lines.call("CreateTable", sesid=sesid, dbid=dbid, tablename="t")["tableid"]
    cursor = {"sesid": sesid, "tableid": tableid}
    added = lines.call("AddColumn", **cursor, columnname="a", columndef={"coltyp": "Text", "max": 300})
    assert added["wrn"] == 1512  # JET_wrnColumnMaxTruncated
    lines.call("AddColumn", **cursor, columnname="b", columndef={"coltyp": "Long"}, defaultValue=5)
    refused = lines.ask("AddColumn", **cursor, columnname="c", columndef={"coltyp": "Long"}, defaultValue="five")["error"]
    assert (refused["code"], refused["data"]["member"]) == (-32602, "defaultValue")
    assert lines.error("AddColumn", **cursor, columnname="c", columndef={"coltyp": 99}) == "JET_errInvalidColumnType"
    assert lines.error("AddColumn", **cursor, columnname="A", columndef={"coltyp": "Long"}) == "JET_errColumnDuplicate"
    lines.call("RenameColumn", **cursor, name="b", newName="c")
    lines.call("SetColumnDefaultValue", sesid=sesid, dbid=dbid, tablename="t", columnname="c", data="-7")
    assert lines.error("SetColumnDefaultValue", sesid=sesid, dbid=dbid, tablename="t", columnname="c", data=True) == "Invalid params"
    lines.call("CreateIndex", **cursor, indexname="i", keyDescription=["+a"], grbit=["IndexIgnoreNull"])
    assert lines.call("CreateIndex", **cursor, indexcreates=[{"name": "j", "key": ["-c"]}])["indexcreates"] == [{"err": 0}]
    for wrong in ({"indexname": "k"}, {"keyDescription": ["+a"]}, {"indexcreates": [], "indexname": "k"}):
        assert lines.error("CreateIndex", **cursor, **wrong) == "Invalid params"
    assert lines.error("DeleteColumn", **cursor, columnname="c") == "JET_errColumnInUse"
    lines.call("DeleteIndex", **cursor, indexname="j")
    lines.call("DeleteColumn", **cursor, columnname="c")
    lines.call("CloseTable", **cursor)
    assert lines.error("CloseTable", **cursor) == "JET_errInvalidTableId"
    lines.call("RenameTable", sesid=sesid, dbid=dbid, tablename="t", newTablename="u")
    assert lines.error("OpenTable", sesid=sesid, dbid=dbid, tablename="t") == "JET_errObjectNotFound"
    opened = lines.call("OpenTable", sesid=sesid, dbid=dbid, tablename="u", grbit=["TableReadOnly"])["tableid"]
    assert lines.error("DeleteTable", sesid=sesid, dbid=dbid, tablename="u") in ("JET_errTableInUse", "JET_errTableLocked")
    lines.call("CloseTable", sesid=sesid, tableid=opened)
    lines.call("DeleteTable", sesid=sesid, dbid=dbid, tablename="u")


def test_parameters(session: tuple[Lines, int]) -> None:
    lines, sesid = session
    instance = lines.call("Hello")["instances"][0]["instance"]
    assert lines.call("GetSystemParameter", paramid="MaxSessions") == {"paramValue": 1024, "paramString": None}
    assert lines.call("GetSystemParameter", instance=instance, paramid="BaseName") == {"paramValue": None, "paramString": "edb"}
    assert lines.call("GetSystemParameter", paramid="ErrorToString", paramValue=-1605)["paramString"].startswith("JET_errKeyDuplicate")
    lines.call("SetSystemParameter", paramid="OSSnapshotTimeout", paramValue=1234)
    assert lines.call("GetSystemParameter", paramid=82)["paramValue"] == 1234
    assert lines.error("SetSystemParameter", paramid=99999) == "JET_errInvalidParameter"
    assert lines.error("SetSystemParameter", instance=12345, paramid="MaxSessions") == "JET_errInvalidInstance"
    assert lines.error("SetSystemParameter", paramid="NoSuch") == "Invalid params"
    lines.call("SetSystemParameter", sesid=sesid, paramid="CommitDefault", paramValue=1)
    assert lines.call("GetSessionParameter", sesid=sesid, sesparamid="CommitDefault")["value"] == 1
    lines.call("BeginTransaction", sesid=sesid)
    assert lines.call("GetSessionParameter", sesid=sesid, sesparamid="TransactionLevel")["value"] == 1
    lines.call("Rollback", sesid=sesid, grbit=["RollbackAll"])
    assert lines.call("GetVersion", sesid=sesid)["version"] > 0
    assert lines.call("GetErrorInfo", error="KeyDuplicate")["errinfo"]["categoricalHierarchy"] == [1, 13, 15]
    assert lines.error("GetErrorInfo", error=5) == "JET_errInvalidParameter"
    assert lines.call("EnableMultiInstance", sysParams=[])["succeeded"] == 0


def test_what_was_made_is_there_after_a_kill(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server, server.connect() as lines:
        sesid = begin(lines)
        dbid = database(lines, sesid, "kept.edb")
        lines.call("CreateTableColumnIndex", sesid=sesid, dbid=dbid, tablecreate=TABLE)
        lines.call("BeginTransaction", sesid=sesid)
        lines.call("CreateTable", sesid=sesid, dbid=dbid, tablename="uncommitted")
        server.kill()
    with ServerProcess(tmp_path / "data") as server, server.connect() as lines:
        assert lines.call("GetInstanceInfo")["instances"][0]["databaseFileName"] == ["kept.edb"]
        sesid = begin(lines)
        dbid = lines.call("OpenDatabase", sesid=sesid, database="kept.edb")["dbid"]
        rows = lines.call("GetObjectInfo", sesid=sesid, dbid=dbid, infoLevel="ListNoStats")["rows"]
        assert [row["objectname"] for row in rows if not row["objectname"].startswith("MSys")] == ["people"]
        assert len(lines.call("GetColumnInfo", sesid=sesid, dbid=dbid, tablename="people", infoLevel="List")["rows"]) == 7
        assert server.stop() == 0
