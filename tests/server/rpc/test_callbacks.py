"""Callbacks become notifications, of every session's changes, to the connection that asked; they veto nothing."""

from __future__ import annotations

import json
from typing import Any

from tests.support.declared import misfits_of_notification
from tests.support.server_process import Lines, ServerProcess

BITS = {"insert": (2, 4), "replace": (8, 16), "delete": (32, 64)}


def opened(lines: Lines, database: str, *, create: bool) -> dict[str, int]:
    sesid = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
    if not create:
        dbid = lines.call("OpenDatabase", sesid=sesid, database=database)["dbid"]
        return {"sesid": sesid, "tableid": lines.call("OpenTable", sesid=sesid, dbid=dbid, tablename="t")["tableid"]}
    dbid = lines.call("CreateDatabase", sesid=sesid, database=database)["dbid"]
    columns = [{"name": "id", "coltyp": "Long"}, {"name": "n", "coltyp": "Long"}]
    table = {"name": "t", "columns": columns, "indexes": [{"name": "p", "key": ["+id"], "grbit": ["IndexPrimary"]}]}
    made = lines.call("CreateTableColumnIndex", sesid=sesid, dbid=dbid, tablecreate=table)["tableid"]
    lines.call("CloseTable", sesid=sesid, tableid=made)  # it has the table to itself
    return {"sesid": sesid, "tableid": lines.call("OpenTable", sesid=sesid, dbid=dbid, tablename="t")["tableid"]}


def told(lines: Lines) -> list[dict[str, Any]]:
    """What has been sent until now."""
    lines.send(b'{"jsonrpc":"2.0","id":"now","method":"Ping"}\n')
    out = []
    while (message := lines.read()).get("id") != "now":
        assert message["method"] == "callback"
        assert misfits_of_notification("callback", message["params"]) == []
        out.append(message["params"])
    return out


def test_changes_are_told_before_and_after(server: ServerProcess) -> None:
    with server.connect() as watching, server.connect() as writing:
        mine = opened(watching, "told.edb", create=True)
        theirs = opened(writing, "told.edb", create=False)
        number = watching.call("RegisterCallback", **mine, cbtyp=126, context="mine")["callbackId"]
        inserts = watching.call("RegisterCallback", **mine, cbtyp="AfterInsert")["callbackId"]
        for mode, (before, after) in BITS.items():
            records = [{"id": 1}] if mode != "replace" else [{"id": 1, "n": 2}]
            writing.call("PutRecords", **theirs, records=records, mode=mode)
            got = told(watching)
            expected = [(number, before), (number, after), *([(inserts, after)] if mode == "insert" else [])]
            assert [(one["callbackId"], one["cbtyp"]) for one in got] == expected
            assert {one["sesid"] for one in got} == {theirs["sesid"]}
            assert got[0]["context"] == "mine"
        # An insert that fails was announced, and never done.
        writing.call("PutRecords", **theirs, records=[{"id": 5}])
        told(watching)
        assert writing.error("PutRecords", **theirs, records=[{"id": 5}]) == "JET_errKeyDuplicate"
        assert [one["cbtyp"] for one in told(watching)] == [2]
        assert watching.call("UnregisterCallback", **mine, cbtyp=126, callbackId=number) == {}
        assert watching.call("UnregisterCallback", **mine, cbtyp=126, callbackId=number) == {"wrn": 2100}
        writing.call("PutRecords", **theirs, records=[{"id": 6}])
        assert [one["callbackId"] for one in told(watching)] == [inserts]
        watching.call("CloseTable", **mine)
        writing.call("PutRecords", **theirs, records=[{"id": 7}])
        assert told(watching) == []


def test_a_compaction_tells_how_far_it_is(server: ServerProcess) -> None:
    with server.connect() as lines:
        mine = opened(lines, "long.edb", create=True)
        params = {"sesid": mine["sesid"], "sourceDatabase": "long.edb", "destinationDatabase": "short.edb"}
        for destination, last in (("short.edb", 6), ("long.edb", 3)):  # the second is refused: onto itself
            call = {"jsonrpc": "2.0", "id": "compact", "method": "Compact", "params": {**params, "destinationDatabase": destination}}
            lines.send(json.dumps(call).encode() + b"\n")
            got = []
            while (message := lines.read()).get("id") != "compact":
                assert message["method"] == "status"
                assert misfits_of_notification("status", message["params"]) == []
                got.append(message["params"])
            assert {(one["sesid"], one["snp"]) for one in got} == {(mine["sesid"], 4)}
            assert [one["snt"] for one in got] == [5, *([0] if last == 6 else []), last]
            if last == 6:
                assert got[1]["snprog"] == {"unitDone": 0, "unitTotal": 1}


def test_what_is_refused(server: ServerProcess) -> None:
    with server.connect() as lines:
        mine = opened(lines, "refused.edb", create=True)
        for mask in (0, 128, 4096):
            assert lines.error("RegisterCallback", **mine, cbtyp=mask) == "JET_errInvalidParameter"
        for _ in range(64):
            lines.call("RegisterCallback", **mine, cbtyp=2)
        assert lines.error("RegisterCallback", **mine, cbtyp=2) == "JET_errOutOfMemory"
        temporary = lines.call("OpenTempTable", sesid=mine["sesid"], columns=[{"coltyp": "Long"}])["tableid"]
        assert lines.error("RegisterCallback", sesid=mine["sesid"], tableid=temporary, cbtyp=2) == "JET_errIllegalOperation"
        dbid = lines.call("OpenDatabase", sesid=mine["sesid"], database="refused.edb")["dbid"]
        create = {"name": "bad", "callback": "module!function", "cbtyp": 2}
        assert lines.error("CreateTableColumnIndex", sesid=mine["sesid"], dbid=dbid, tablecreate=create) == "JET_errCallbackNotResolved"
