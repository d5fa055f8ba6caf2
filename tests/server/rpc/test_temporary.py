"""Temporary tables over the wire, and the counters of a connection."""

from __future__ import annotations

from typing import Any

from tests.support.server_process import Lines, ServerProcess


def begin(lines: Lines) -> int:
    sesid: int = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
    return sesid


def test_a_temporary_table_sorts_by_its_locale_and_is_refused_what_the_engine_refuses(server: ServerProcess) -> None:
    with server.connect() as lines:
        sesid = begin(lines)
        text = {"coltyp": "LongText", "cp": 1200, "grbit": ["ColumnTTKey"]}
        made = lines.call("OpenTempTable", sesid=sesid, columns=[text, {"coltyp": "Long"}], lcid=1031, grbit=["TTIndexed"])
        cursor, (name, number) = {"sesid": sesid, "tableid": made["tableid"]}, made["columnids"]
        for place, word in enumerate(["zeta", "Äpfel", "apfel", "beta"]):
            lines.call("PrepareUpdate", **cursor, prep="Insert")
            lines.call("SetColumns", **cursor, setcolumns=[{"columnid": name, "data": word}, {"columnid": number, "data": place}])
            lines.call("Update", **cursor)
        found, step = [], "First"
        while "result" in lines.ask("Move", **cursor, numRows=step):
            found.append(lines.call("RetrieveColumn", **cursor, columnid=name)["data"])
            step = "Next"
        assert found == ["apfel", "Äpfel", "beta", "zeta"]
        lines.call("CloseTable", **cursor)
        assert lines.error("Move", **cursor, numRows="First") == "JET_errInvalidTableId"
        for refused, name_of_error in (
            ({"lcid": 0x9999}, "JET_errInvalidLanguageId"),
            ({"unicodeIndex": {"localeName": "no such locale"}}, "JET_errInvalidLanguageId"),
            ({"grbit": ["TTForwardOnly", "TTIndexed"]}, "JET_errCannotMaterializeForwardOnlySort"),
        ):
            assert lines.error("OpenTempTable", sesid=sesid, columns=[text], **refused) == name_of_error
        table: dict[str, Any] = {"columns": [text], "keyMost": 99_999}
        assert lines.error("OpenTemporaryTable", sesid=sesid, temporarytable=table) == "JET_errInvalidParameter"


def test_the_counters_are_this_connections_and_count_what_was_done(server: ServerProcess) -> None:
    with server.connect() as lines, server.connect() as other:
        sesid = begin(lines)
        dbid = lines.call("CreateDatabase", sesid=sesid, database="counted.edb")["dbid"]
        columns = [{"name": "id", "coltyp": "Long"}]
        create = {"name": "t", "columns": columns, "indexes": [{"name": "p", "key": ["+id"], "grbit": ["IndexPrimary"]}]}
        tableid = lines.call("CreateTableColumnIndex", sesid=sesid, dbid=dbid, tablecreate=create)["tableid"]
        before = lines.call("GetThreadStats")["threadstats"]
        lines.call("PutRecords", sesid=sesid, tableid=tableid, records=[{"id": n} for n in range(50)])
        written = lines.call("GetThreadStats")["threadstats"]
        assert (written["logRecord"] - before["logRecord"], written["pageDirtied"] - before["pageDirtied"]) == (1, 50)
        assert written["logRecordBytes"] - before["logRecordBytes"] > 50 * 4
        lines.call("Move", sesid=sesid, tableid=tableid, numRows="First")
        lines.call("GetRecords", sesid=sesid, tableid=tableid, limit=100)
        read = lines.call("GetThreadStats")["threadstats"]
        assert read["pageReferenced"] - written["pageReferenced"] >= 50
        assert (read["logRecord"], read["pageDirtied"]) == (written["logRecord"], written["pageDirtied"])
        lines.call("EndSession", sesid=sesid)
        assert lines.call("GetThreadStats")["threadstats"]["logRecord"] == read["logRecord"]
        assert set(other.call("GetThreadStats")["threadstats"].values()) == {0}
