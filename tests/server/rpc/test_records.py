"""Records over the wire: written, found, ranged over, read as a whole; values exact; and there again after a kill."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server_process import Lines, ServerProcess

COLUMNS: list[tuple[str, str, dict[str, Any], Any]] = [
    ("id", "Long", {}, 1),
    ("flag", "Bit", {}, True),
    ("tiny", "UnsignedByte", {}, 255),
    ("short", "Short", {}, -32768),
    ("word", "UnsignedShort", {}, 65535),
    ("unsigned", "UnsignedLong", {}, 2**32 - 1),
    ("money", "Currency", {}, 2**53 + 1),
    ("long", "LongLong", {}, -(2**63)),
    ("ulong", "UnsignedLongLong", {}, 2**64 - 1),
    ("single", "IEEESingle", {}, 0.5),
    ("double", "IEEEDouble", {}, "NaN"),
    ("born", "DateTime", {}, 2.5),
    ("key", "GUID", {}, "00112233-4455-6677-8899-aabbccddeeff"),
    ("name", "Text", {"max": 100, "cp": 1200}, "h\u00e9llo % \u4f60"),
    ("latin", "Text", {"cp": 1252}, "caf\u00e9"),
    ("raw", "Binary", {}, "AP8="),
    ("story", "LongText", {"cp": 1200}, "once upon a time"),
    ("blob", "LongBinary", {}, ""),
    ("tags", "LongText", {"cp": 1200, "grbit": ["ColumnMultiValued", "ColumnTagged"]}, ["a", "b", "c"]),
]
RECORD = {name: value for name, _, _, value in COLUMNS}


class Desk:
    """A session with one table open."""

    def __init__(self, lines: Lines, name: str) -> None:
        self.lines = lines
        self.sesid = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
        made = lines.ask("CreateDatabase", sesid=self.sesid, database="records.edb")
        if "error" in made:
            made = lines.ask("OpenDatabase", sesid=self.sesid, database="records.edb")
        self.dbid = made["result"]["dbid"]
        create = {
            "name": name,
            "columns": [{"name": n, "coltyp": t, **more} for n, t, more, _ in COLUMNS],
            "indexes": [
                {"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary", "IndexUnique"]},
                {"name": "byName", "key": ["+name"]},
            ],
        }
        self.tableid = lines.call("CreateTableColumnIndex", sesid=self.sesid, dbid=self.dbid, tablecreate=create)["tableid"]

    def call(self, method: str, **params: Any) -> Any:
        return self.lines.call(method, sesid=self.sesid, tableid=self.tableid, **params)

    def error(self, method: str, **params: Any) -> str:
        name: str = self.lines.error(method, sesid=self.sesid, tableid=self.tableid, **params)
        return name

    def put(self, *records: Any, mode: str = "insert") -> int:
        count: int = self.call("PutRecords", records=list(records), mode=mode)["count"]
        return count

    def transaction(self, method: str) -> None:
        self.lines.call(method, sesid=self.sesid)


@pytest.fixture
def desk(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Desk]:
    with server.connect() as lines:
        yield Desk(lines, request.node.name)


# -- by the engine's calls --------------------------------------------------------------------------------------------
def test_a_record_column_by_column(desk: Desk) -> None:
    desk.transaction("BeginTransaction")
    desk.call("PrepareUpdate", prep="Insert")
    for name, value in RECORD.items():
        for place, one in enumerate(value if isinstance(value, list) else [value]):
            grbit = ["SetZeroLength"] if one == "" else 0
            desk.call("SetColumn", columnid=name, data=one, grbit=grbit, setinfo={"itagSequence": place + 1})
    bookmark = desk.call("Update")["bookmark"]
    desk.transaction("CommitTransaction")
    desk.call("GotoBookmark", bookmark=bookmark)
    for name, value in RECORD.items():
        for place, one in enumerate(value if isinstance(value, list) else [value]):
            got = desk.call("RetrieveColumn", columnid=name, retinfo={"itagSequence": place + 1})
            assert got["data"] == one, name
    asked = [{"columnid": name} for name in RECORD]
    got = desk.call("RetrieveColumns", retrievecolumns=asked)["retrievecolumns"]
    assert [row["data"] for row in got] == [v[0] if isinstance(v, list) else v for v in RECORD.values()]
    values = desk.call("EnumerateColumns")["columnValues"]
    assert len(values) == len(RECORD)
    desk.lines.call("Hello", int64="string")
    assert desk.call("RetrieveColumn", columnid="long")["data"] == str(-(2**63))
    assert desk.call("RetrieveColumn", columnid="id")["data"] == 1


def test_update_replace_delete(desk: Desk) -> None:
    desk.put({"id": 5, "name": "five"})
    desk.call("MakeKey", data=5, grbit=["NewKey"])
    desk.call("Seek", grbit=["SeekEQ"])
    desk.transaction("BeginTransaction")
    desk.call("PrepareUpdate", prep="Replace")
    desk.call("SetColumns", setcolumns=[{"columnid": "name", "data": "FIVE"}, {"columnid": "short", "data": 5}])
    assert desk.call("RetrieveColumn", columnid="name")["data"] == "five"
    assert desk.call("RetrieveColumn", columnid="name", grbit=["RetrieveCopy"])["data"] == "FIVE"
    desk.call("Update")
    assert desk.call("RetrieveColumn", columnid="name")["data"] == "FIVE"
    desk.transaction("Rollback")
    assert desk.call("RetrieveColumn", columnid="name")["data"] == "five"
    desk.call("Delete")
    assert desk.error("RetrieveColumn", columnid="name") == "JET_errRecordDeleted"
    assert desk.error("Move", numRows="First") == "JET_errNoCurrentRecord"
    assert desk.error("RetrieveColumn", columnid="nothing") == "JET_errColumnNotFound"
    for wrong in (5, True, None):
        if wrong is not None:
            assert desk.error("MakeKey", data=str(wrong) + "x", grbit=["NewKey"]) == "Invalid params"


def test_moving_and_ranges(desk: Desk) -> None:
    desk.put(*[{"id": i, "name": f"n{i:03}"} for i in range(100)])
    desk.call("SetCurrentIndex", indexname="byName")
    assert desk.call("GetCurrentIndex")["indexname"] == "byName"
    desk.call("MakeKey", data="n010", grbit=["NewKey"])
    desk.call("Seek", grbit=["SeekGE"])
    desk.call("MakeKey", data="n019", grbit=["NewKey"])
    desk.call("SetIndexRange", grbit=["RangeInclusive", "RangeUpperLimit"])
    assert desk.call("IndexRecordCount")["numRecords"] == 10
    count = 1
    while "error" not in desk.lines.ask("Move", sesid=desk.sesid, tableid=desk.tableid, numRows="Next"):
        count += 1
    assert count == 10
    desk.call("Move", numRows="Last")
    assert desk.call("RetrieveColumn", columnid="id")["data"] == 99
    position = desk.call("GetRecordPosition")["recpos"]
    assert position["entriesTotal"] == 100
    first = desk.call("GetBookmark")["bookmark"]
    secondary = desk.call("GetSecondaryIndexBookmark")
    assert secondary["primaryKey"] == first
    desk.call("Move", numRows="First")
    desk.call("GotoSecondaryIndexBookmark", **secondary)
    assert desk.call("RetrieveColumn", columnid="id")["data"] == 99
    key = desk.call("RetrieveKey")["data"]
    desk.call("MakeKey", data=key, grbit=["NormalizedKey"])
    assert desk.call("Seek", grbit=["SeekEQ"]) == {}


# -- whole records ----------------------------------------------------------------------------------------------------
def test_a_whole_record(desk: Desk) -> None:
    assert desk.put(RECORD, {"id": 2}) == 2
    got = desk.call("GetRecord", key=[1])
    assert got["record"] == RECORD
    desk.call("GotoBookmark", bookmark=got["bookmark"])
    assert desk.call("GetRecord", key=[2])["record"] == {"id": 2}
    assert desk.call("GetRecord", key=[2], columns=["name", "id"])["record"] == {"name": None, "id": 2}
    assert desk.call("GetRecord", key=[1], columns=["name"])["record"] == {"name": RECORD["name"]}
    assert desk.call("GetRecord", key=[RECORD["name"]], indexname="byName", columns=["id"])["record"] == {"id": 1}
    assert desk.error("GetRecord", key=[3], indexname="primary") == "JET_errRecordNotFound"
    assert desk.error("GetRecord", key=["x"]) == "Invalid params"
    assert desk.error("GetRecord", key=[1], columns=["nothing"]) == "JET_errColumnNotFound"
    assert desk.error("GetRecord", key=[1], indexname="nothing") == "JET_errIndexNotFound"
    desk.lines.call("Hello", int64="string")
    record = desk.call("GetRecord", key=[1])["record"]
    assert {n: record[n] for n in ("long", "ulong", "money", "id")} == {
        "long": str(-(2**63)),
        "ulong": str(2**64 - 1),
        "money": str(2**53 + 1),
        "id": 1,
    }


def test_pages_of_records(desk: Desk) -> None:
    desk.put(*[{"id": i, "name": f"n{99 - i:03}"} for i in range(100)])
    desk.call("Move", numRows="First")
    seen: list[int] = []
    more = True
    while more:
        page = desk.call("GetRecords", limit=7, columns=["id"])
        seen += [record["id"] for record in page["records"]]
        more = page["more"]
    assert seen == list(range(100))
    assert desk.call("GetRecords", limit=7) == {"records": [], "more": False}
    page = desk.call("GetRecords", limit=3, direction="backward")
    assert [record["id"] for record in page["records"]] == [99, 98, 97]
    assert page["more"] is True
    assert desk.call("RetrieveColumn", columnid="id")["data"] == 96
    desk.call("SetCurrentIndex", indexname="byName")
    desk.call("MakeKey", data="n005", grbit=["NewKey"])
    desk.call("Seek", grbit=["SeekGE"])
    desk.call("MakeKey", data="n007", grbit=["NewKey"])
    desk.call("SetIndexRange", grbit=["RangeInclusive", "RangeUpperLimit"])
    page = desk.call("GetRecords", limit=50, columns=["name"])
    assert page == {"records": [{"name": "n005"}, {"name": "n006"}, {"name": "n007"}], "more": False}
    assert desk.error("GetRecords", limit=0) == "JET_errInvalidParameter"
    assert desk.error("GetRecords", direction="sideways") == "Invalid params"


def test_put_records_in_all_ways(desk: Desk) -> None:
    assert desk.put({"id": 1, "name": "one", "short": 1}, {"id": 2, "name": "two"}) == 2
    assert desk.error("PutRecords", records=[{"id": 3}, {"id": 1}]) == "JET_errKeyDuplicate"
    assert desk.error("GetRecord", key=[3]) == "JET_errRecordNotFound"  # all or none
    assert desk.put({"id": 1, "name": "ONE"}, mode="replace") == 1
    assert desk.call("GetRecord", key=[1])["record"] == {"id": 1, "name": "ONE", "short": 1}
    assert desk.error("PutRecords", records=[{"id": 9, "name": "x"}], mode="replace") == "JET_errRecordNotFound"
    assert desk.put({"id": 2, "short": 2}, {"id": 3, "short": 3}, mode="upsert") == 2
    assert desk.call("GetRecord", key=[2])["record"] == {"id": 2, "name": "two", "short": 2}
    assert desk.put({"id": 2, "short": None, "tags": ["x", "y"]}, mode="replace") == 1
    assert desk.call("GetRecord", key=[2])["record"] == {"id": 2, "name": "two", "tags": ["x", "y"]}
    assert desk.put({"id": 2, "tags": ["z"]}, mode="replace") == 1
    assert desk.call("GetRecord", key=[2])["record"]["tags"] == "z"
    assert desk.put({"id": 1}, {"id": 2}, mode="delete") == 2
    assert desk.error("PutRecords", records=[{"id": 3}, {"id": 1}], mode="delete") == "JET_errRecordNotFound"
    assert desk.call("GetRecord", key=[3])["record"] == {"id": 3, "short": 3}
    assert desk.put() == 0
    for wrong in ([{"id": "x"}], [{"id": 1, "nothing": 1}], [5], [{"id": [1, 2]}], [{"id": 4, "name": True}]):
        assert desk.error("PutRecords", records=wrong) in ("Invalid params", "JET_errColumnNotFound", "JET_errBadItagSequence")
    assert desk.error("PutRecords", records=[], mode="merge") == "Invalid params"
    desk.transaction("BeginTransaction")
    assert desk.put({"id": 50}) == 1
    assert desk.error("PutRecords", records=[{"id": 51}, {"id": 50}]) == "JET_errKeyDuplicate"
    assert desk.call("GetRecord", key=[50])["record"] == {"id": 50}
    assert desk.error("GetRecord", key=[51]) == "JET_errRecordNotFound"
    desk.transaction("Rollback")
    assert desk.error("GetRecord", key=[50]) == "JET_errRecordNotFound"


def test_several_values_of_which_the_first_is_indexed(desk: Desk) -> None:
    """ColumnMultiValued only says that an index has an entry for each of them."""
    columns = [{"name": "id", "coltyp": "Long"}, {"name": "note", "coltyp": "LongText", "cp": 1200, "grbit": ["ColumnTagged"]}]
    indexes = [{"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary"]}, {"name": "notes", "key": ["+note"]}]
    create = {"name": "several", "columns": columns, "indexes": indexes}
    desk.tableid = desk.lines.call("CreateTableColumnIndex", sesid=desk.sesid, dbid=desk.dbid, tablecreate=create)["tableid"]
    desk.put({"id": 1, "note": ["b", "x"]}, {"id": 2, "note": "a"}, {"id": 3, "note": ["c"]})
    desk.put({"id": 3, "note": ["0", "y"]}, mode="replace")
    assert desk.call("GetRecord", key=[1])["record"] == {"id": 1, "note": ["b", "x"]}
    desk.call("SetCurrentIndex", indexname="notes")
    assert [record["id"] for record in desk.call("GetRecords", limit=10)["records"]] == [3, 2, 1]


def test_long_values_travel_whole(desk: Desk) -> None:
    story = "x\u00e9" * 300_000
    desk.put({"id": 1, "story": story, "blob": "AAEC" * 50_000})
    record = desk.call("GetRecord", key=[1])["record"]
    assert (record["story"], record["blob"]) == (story, "AAEC" * 50_000)
    part = desk.call("RetrieveColumn", columnid="story", maxDataSize=4, retinfo={"offset": 2})
    assert part["data"] == {"base64": "6QB4AA=="}
    assert part["wrn"] == 1006  # JET_wrnBufferTruncated
    assert part["actualDataSize"] == 2 * len(story) - 2


def test_a_page_ends_at_its_bytes(desk: Desk) -> None:
    """However many records are asked for, and however large they are, a page ends at about 16 MiB; the next goes on."""
    megabyte = base64.b64encode(bytes(1 << 20)).decode()
    for first in range(0, 24, 4):
        desk.put(*({"id": number, "blob": megabyte} for number in range(first, first + 4)))
    sizes, found = [], []
    more = True
    while more:
        answer = desk.call("GetRecords", limit=1_000)
        found += [record["id"] for record in answer["records"]]
        sizes.append(len(answer["records"]))
        more = answer["more"]
    assert found == list(range(24))
    assert sizes == [12, 12], "1.4 MiB each as base64: the twelfth goes beyond 16 MiB"
    desk.call("Move", numRows="First")
    assert len(desk.call("GetRecords", limit=1_000, columns=["id"])["records"]) == 24, "what is not told does not count"


def test_conflicts_between_sessions(server: ServerProcess, desk: Desk) -> None:
    desk.put({"id": 1, "name": "one"})
    with server.connect() as lines:
        sesid = lines.call("BeginSession", instance=1)["sesid"]
        dbid = lines.call("OpenDatabase", sesid=sesid, database="records.edb")["dbid"]
        assert lines.error("OpenTable", sesid=sesid, dbid=dbid, tablename="test_conflicts_between_sessions") == "JET_errTableLocked"
        own = desk.tableid
        desk.tableid = desk.lines.call("OpenTable", sesid=desk.sesid, dbid=desk.dbid, tablename="test_conflicts_between_sessions")[
            "tableid"
        ]
        desk.lines.call("CloseTable", sesid=desk.sesid, tableid=own)
        tableid = lines.call("OpenTable", sesid=sesid, dbid=dbid, tablename="test_conflicts_between_sessions")["tableid"]
        desk.transaction("BeginTransaction")
        desk.put({"id": 1, "name": "mine"}, mode="replace")
        refused = lines.ask("PutRecords", sesid=sesid, tableid=tableid, records=[{"id": 1, "name": "theirs"}], mode="replace")["error"]
        assert (refused["message"], refused["data"]["retryable"]) == ("JET_errWriteConflict", True)
        assert lines.call("GetRecord", sesid=sesid, tableid=tableid, key=[1])["record"]["name"] == "one"
        desk.transaction("CommitTransaction")
        assert lines.call("GetRecord", sesid=sesid, tableid=tableid, key=[1])["record"]["name"] == "mine"


# -- a thin slice through all floors ----------------------------------------------------------------------------------
def test_committed_records_survive_a_kill_and_no_others(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server, server.connect() as lines:
        desk = Desk(lines, "slice")
        desk.put(RECORD)
        desk.transaction("BeginTransaction")
        desk.put({"id": 2})
        desk.transaction("CommitTransaction")
        desk.transaction("BeginTransaction")
        desk.put({"id": 3})
        server.kill()
    with ServerProcess(tmp_path / "data") as server, server.connect() as lines:
        sesid = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
        dbid = lines.call("OpenDatabase", sesid=sesid, database="records.edb")["dbid"]
        tableid = lines.call("OpenTable", sesid=sesid, dbid=dbid, tablename="slice")["tableid"]
        page = lines.call("GetRecords", sesid=sesid, tableid=tableid)
        assert page == {"records": [RECORD, {"id": 2}], "more": False}
        assert server.stop() == 0
