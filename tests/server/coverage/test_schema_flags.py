"""What the flags of the schema's calls do, and what each level of the info calls tells."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.coverage.flags import Player
from tests.server.coverage.steps import DERIVED, LONG, OTHER_SESSION, PRIMARY, TEXT, made, reopened
from tests.support.bench import SUCCESS, Bench
from tests.support.calls import S, Step
from tests.support.shown import shows

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONGS = {"name": "id", **LONG}


# -- columns ------------------------------------------------------------------------------------------------------------
@shows("AddColumn", "JET_bitColumnFixed", "JET_bitColumnTagged", "JET_bitColumnMaybeNull")
async def test_how_a_column_is_stored(play: Player) -> None:
    for name, flag, first in (("f", "ColumnFixed", 1), ("v", "ColumnMaybeNull", 128), ("t", "ColumnTagged", 256)):
        added = await play("AddColumn", columnname=name, columndef={"coltyp": "Binary", "max": 4, "grbit": [flag]})
        assert first <= added["columnid"] < first + 127
    await play.insert(id=9, f="AA==", v="AA==")
    await play("Move", numRows="Last")
    assert [await play.value(name) for name in "fvt"] == ["AAAAAA==", "AA==", None]


@shows("AddColumn", "JET_bitColumnNotNULL", "JET_bitColumnVersion", "JET_bitColumnAutoincrement", "JET_bitColumnMultiValued")
async def test_what_a_column_holds(play: Player) -> None:
    await play("AddColumn", columnname="auto", columndef={**LONG, "grbit": ["ColumnAutoincrement"]})
    await play("AddColumn", columnname="version", columndef={**LONG, "grbit": ["ColumnVersion"]})
    await play("AddColumn", columnname="many", columndef={**TEXT, "grbit": ["ColumnTagged", "ColumnMultiValued"]})
    await play("AddColumn", columnname="must", columndef={**LONG, "grbit": ["ColumnNotNULL"]}, defaultValue=5)
    await play("Move", numRows="First")
    assert await play.walk("auto") == [1, 2, 3]
    await play("Move", numRows="First")
    for _ in range(2):
        await play("PrepareUpdate")
        await play("SetColumn", columnid="many", data="x", setinfo={"itagSequence": 0})
        assert await play.answer("SetColumn", columnid="must", data=None) == "JET_errNullInvalid"
        await play("Update")
    assert await play.value("version") == 2
    assert await play.value("many", retinfo={"itagSequence": 2}) == "x"


@shows("AddColumn", "JET_bitColumnEscrowUpdate", "JET_bitColumnFinalize", "JET_bitColumnDeleteOnZero")
async def test_sums(play: Player) -> None:
    await play.play(*made())
    await play("CloseTable")
    await play.play(
        Step("OpenTable", {"sesid": "$sesid", "dbid": "$dbid", "tablename": "$name", "grbit": ["TableDenyRead"]}, {"tableid": "tableid"})
    )
    for name, flags in (("sum", []), ("final", ["ColumnFinalize"]), ("gone", ["ColumnDeleteOnZero"])):
        await play("AddColumn", columnname=name, columndef={**LONG, "grbit": ["ColumnEscrowUpdate", *flags]}, defaultValue=1)
    await play.insert(id=1)
    await play.insert(id=2)
    for column, left in (("sum", [1, 2]), ("final", [1, 2]), ("gone", [2])):
        await play("Move", numRows="First")
        await play("BeginTransaction")
        await play("EscrowUpdate", columnid=column, delta=-1)
        await play("CommitTransaction")
        await play("Idle")
        assert await play.walk() == left


@shows("AddColumn", "JET_bitColumnUnversioned", "JET_bitColumnCompressed")
async def test_columns_that_differ_in_nothing_else(play: Player) -> None:
    """Unversioned: not in a transaction. Compressed: kept with the column; values are stored as they are."""
    await play("AddColumn", columnname="u", columndef={**LONG, "grbit": ["ColumnUnversioned"]})
    await play("AddColumn", columnname="c", columndef={**TEXT, "grbit": ["ColumnCompressed"]})
    info = (await play("GetTableColumnInfo", columnname="c", infoLevel="Default"))["columndef"]
    assert info["grbit"] & 0x80000
    await play("BeginTransaction")
    refused = await play.answer("AddColumn", columnname="w", columndef={**LONG, "grbit": ["ColumnUnversioned"]})
    assert refused == "JET_errInTransaction"


@shows("DeleteColumn", "JET_bitDeleteColumnIgnoreTemplateColumns")
async def test_a_templates_columns_are_overlooked(play: Player) -> None:
    await play.play(*DERIVED)
    assert await play.answer("DeleteColumn", columnname="x") == "JET_errFixedInheritedDDL"
    assert await play.answer("DeleteColumn", columnname="x", grbit=["DeleteColumnIgnoreTemplateColumns"]) == "JET_errColumnNotFound"
    await play("AddColumn", columnname="own", columndef=LONG)
    await play("DeleteColumn", columnname="own", grbit=["DeleteColumnIgnoreTemplateColumns"])


# -- indexes ------------------------------------------------------------------------------------------------------------
INDEXED = made(
    (),
    [
        LONGS,
        {"name": "a", **LONG},
        {"name": "b", **TEXT},
        {"name": "g", "coltyp": "GUID"},
        *({"name": m, **TEXT, "grbit": ["ColumnTagged", "ColumnMultiValued"]} for m in "mn"),
    ],
)
ROWS: list[dict[str, Any]] = [
    {"id": 1, "a": 1, "b": "Bee", "m": ["x", "y"], "n": ["1", "2"], "g": "00000000-0000-0000-0000-000000000100"},
    {"id": 2, "a": None, "b": "ant", "g": "00000000-0000-0000-0001-000000000000"},
    {"id": 3, "a": 2, "b": None, "g": "01000000-0000-0000-0000-000000000000"},
    {"id": 4},
]
SEEN: list[tuple[list[str], list[str], dict[str, Any], list[int]]] = [  # a key, flags, what else, and the records along the index
    (["+a"], ["IndexUnicode"], {"unicodeIndex": {"localeName": "de-DE"}}, [2, 4, 1, 3]),
    (["+a"], [], {}, [2, 4, 1, 3]),
    (["+a", "+b"], ["IndexIgnoreNull"], {}, [2, 1, 3]),
    (["+a", "+b"], ["IndexIgnoreAnyNull"], {}, [1]),
    (["+a", "+b"], ["IndexIgnoreFirstNull"], {}, [1, 3]),
    (["+a"], ["IndexSortNullsHigh"], {}, [1, 3, 2, 4]),
    (["+a"], ["IndexLazyFlush"], {}, [2, 4, 1, 3]),
    (["+a"], ["IndexUnversioned"], {}, [2, 4, 1, 3]),
    (["+a"], ["IndexImmutableStructure"], {}, [2, 4, 1, 3]),
    (["+a"], ["IndexEmpty", "IndexIgnoreAnyNull"], {}, []),
    (["+b"], ["IndexKeyMost"], {"keyMost": 500}, [3, 4, 2, 1]),
    (["+b"], ["IndexTuples"], {}, [2, 1]),
    (["+b"], ["IndexTupleLimits"], {"tupleLimits": {"lengthMin": 2, "lengthMax": 2}}, [2, 1, 1, 2]),
    (["+m", "+n"], ["IndexIgnoreNull"], {}, [1, 1]),
    (["+m", "+n"], ["IndexIgnoreNull", "IndexCrossProduct"], {}, [1, 1, 1, 1]),
    (["+m", "+n"], ["IndexIgnoreNull", "IndexNestedTable"], {}, [1, 1]),
    (["+g"], ["IndexIgnoreNull"], {}, [3, 2, 1]),
    (["+g"], ["IndexIgnoreNull", "IndexDotNetGuid"], {}, [1, 2, 3]),
]


@shows(
    "CreateIndex",
    *(f"JET_bit{flag}" for flag in dict.fromkeys(flag for _, flags, _, _ in SEEN for flag in flags)),
)
async def test_what_an_index_has_and_in_which_order(play: Player) -> None:
    await play.play(*INDEXED)
    await play("PutRecords", records=ROWS)
    wrong = []
    for number, (key, flags, more, expected) in enumerate(SEEN):
        create = {"name": f"i{number}", "key": key, "grbit": flags, **more}
        await play("CreateIndex", indexcreates=[create], indexname=..., keyDescription=..., density=...)
        await play("SetCurrentIndex", indexname=f"i{number}")
        found = await play.walk()
        if found != expected:
            wrong.append((key, flags, found))
        await play("SetCurrentIndex", indexname=None)
        await play("DeleteIndex", indexname=f"i{number}")
    assert not wrong


@shows("CreateIndex", "JET_bitIndexPrimary", "JET_bitIndexUnique", "JET_bitIndexDisallowNull", "JET_bitIndexDisallowTruncation")
async def test_what_an_index_refuses(play: Player) -> None:
    await play.play(
        Step(
            "CreateTableColumnIndex",
            {**S, "dbid": "$dbid", "tablecreate": {"name": "$name", "columns": [LONGS, {"name": "b", "coltyp": "LongBinary"}]}},
            {"tableid": "tableid"},
        )
    )
    for name, key, flags in (
        ("p", ["+id"], ["IndexPrimary"]),
        ("u", ["+b"], ["IndexUnique", "IndexIgnoreNull"]),
        ("n", ["+b"], ["IndexDisallowNull"]),
        ("t", ["+b"], ["IndexDisallowTruncation"]),
    ):
        await play("CreateIndex", indexname=name, keyDescription=key, grbit=flags)
    await play.insert(id=1, b="AAAA")
    for record, answer in (
        ({"id": 1, "b": "BBBB"}, "JET_errKeyDuplicate"),
        ({"id": 2, "b": "AAAA"}, "JET_errKeyDuplicate"),
        ({"id": 2}, "JET_errNullKeyDisallowed"),
        ({"id": 2, "b": "A" * 600}, "JET_errKeyTruncated"),
    ):
        assert await play.answer("PutRecords", records=[record]) == answer


# -- tables -------------------------------------------------------------------------------------------------------------
@shows(
    "CreateTableColumnIndex",
    "JET_bitTableCreateFixedDDL",
    "JET_bitTableCreateTemplateTable",
    "JET_bitTableCreateNoFixedVarColumnsInDerivedTables",
    "JET_bitTableCreateImmutableStructure",
)
async def test_kinds_of_tables(play: Player) -> None:
    await play.play(*made(("TableCreateFixedDDL",)))
    assert await play.answer("AddColumn") == "JET_errFixedDDL"
    create: dict[str, Any] = {"columns": [LONGS], "indexes": [PRIMARY]}
    kinds = ["TableCreateTemplateTable", "TableCreateNoFixedVarColumnsInDerivedTables"]
    base = await play("CreateTableColumnIndex", tablecreate={"name": f"base-{play.kept['name']}", **create, "grbit": kinds})
    await play("CloseTable", tableid=base["tableid"])
    derived = await play(
        "CreateTableColumnIndex", tablecreate={"name": f"kid-{play.kept['name']}", "templateTableName": f"base-{play.kept['name']}"}
    )
    assert (await play("GetTableColumnInfo", tableid=derived["tableid"]))["columndef"]["columnid"]
    assert await play.answer("AddColumn", tableid=derived["tableid"]) == "JET_errFixedInheritedDDL"
    still = await play(
        "CreateTableColumnIndex", tablecreate={"name": f"still-{play.kept['name']}", **create, "grbit": ["TableCreateImmutableStructure"]}
    )
    assert await play("GetTableColumnInfo", tableid=still["tableid"])  # a promise to the engine; nothing is refused for it


@shows(
    "OpenTable",
    *("JET_bitTableDenyRead", "JET_bitTableDenyWrite", "JET_bitTableReadOnly", "JET_bitTableUpdatable", "JET_bitTablePermitDDL"),
    *("JET_bitTableNoCache", "JET_bitTablePreread", "JET_bitTableSequential"),
)
async def test_how_a_table_is_opened(play: Player) -> None:
    await play.play(*OTHER_SESSION)
    theirs = {"sesid": play.kept["other"], "dbid": play.kept["otherDbid"]}
    for flag, reading, writing in (
        ("TableDenyRead", "JET_errTableLocked", "JET_errTableLocked"),
        ("TableDenyWrite", SUCCESS, "JET_errTableLocked"),
        ("TableUpdatable", SUCCESS, SUCCESS),
    ):
        await play.play(*reopened(flag))
        for mode, answer in (("TableReadOnly", reading), ("TableUpdatable", writing)):
            assert await play.answer("OpenTable", **theirs, grbit=[mode]) == answer
        await play("EndSession", sesid=theirs["sesid"])
        await play.play(*OTHER_SESSION)
        theirs = {"sesid": play.kept["other"], "dbid": play.kept["otherDbid"]}
    await play.play(*reopened("TableReadOnly"))
    assert await play.answer("Delete") == "JET_errPermissionDenied"
    await play.play(*made(("TableCreateFixedDDL",)))
    await play("CloseTable")
    opened = await play("OpenTable", tablename=play.kept["name"], grbit=["TableDenyRead", "TablePermitDDL"])
    await play("AddColumn", tableid=opened["tableid"])
    for hint in ("TableNoCache", "TablePreread", "TableSequential"):  # hints: how rows are read ahead
        opened = await play("OpenTable", grbit=[hint])
        assert await play.answer("Move", tableid=opened["tableid"]) == SUCCESS


# -- what can be asked --------------------------------------------------------------------------------------------------
def only_member(result: dict[str, Any]) -> Any:
    found = [value for value in result.values() if value not in (None, [])]
    assert len(found) == 1, result
    return found[0]


COLUMN_LEVELS = [f"JET_ColInfo{level}" for level in ("", "Base", "ByColid", "List", "ListCompact", "ListSortColumnid", "BaseByColid")]
COLUMN_BITS = [f"JET_ColInfoGrbit{bit}" for bit in ("NonDerivedColumnsOnly", "MinimalInfo", "SortByColumnid")]


@shows("GetColumnInfo", *COLUMN_LEVELS, *COLUMN_BITS)
@shows("GetTableColumnInfo", *COLUMN_LEVELS, *COLUMN_BITS)
async def test_column_levels(bench: Bench) -> None:
    for method in ("GetColumnInfo", "GetTableColumnInfo"):
        play = Player(bench, await bench.world())
        ids = {row["columnname"]: row["columnid"] for row in (await play(method, infoLevel="List"))["rows"]}
        for level in ("Default", "Base"):
            assert only_member(await play(method, columnname="note", infoLevel=level))["columnid"] == ids["note"]
        for level in ("ByColid", "BaseByColid"):
            found = await play(method, columnname=..., columnid=ids["sum"], infoLevel=level)
            assert only_member(found)["columnid"] == ids["sum"]
        for level in ("List", "ListCompact", "ListSortColumnid"):
            assert {row["columnname"] for row in (await play(method, infoLevel=level))["rows"]} == ids.keys()
        for sorting in ({"infoLevel": "ListSortColumnid"}, {"infoLevel": "List", "grbit": ["SortByColumnid"]}):
            assert [row["columnid"] for row in (await play(method, **sorting))["rows"]] == sorted(ids.values())
        rows = (await play(method, infoLevel="List", grbit=["MinimalInfo"]))["rows"]
        assert {row["columnid"] for row in rows} == set(ids.values())
        await play.play(*DERIVED)
        where = {"tablename": f"d-{play.kept['name']}"} if method == "GetColumnInfo" else {}
        await play("AddColumn", columnname="own", columndef=LONG)
        rows = (await play(method, infoLevel="List", grbit=["NonDerivedColumnsOnly"], **where))["rows"]
        assert [row["columnname"] for row in rows] == ["own"]


INDEX_LEVELS = (
    *("", "List", "Count", "IndexId", "Langid", "LCID", "VarSegMac", "KeyMost", "CreateIndex", "CreateIndex2"),
    *("SpaceAlloc", "SpaceOwned", "SpaceAvailable"),
)
INDEX_REFUSED = ("OLC", "ResetOLC", "SysTabCursor")


@shows("GetIndexInfo", *(f"JET_IdxInfo{level}" for level in INDEX_LEVELS))
@shows("GetTableIndexInfo", *(f"JET_IdxInfo{level}" for level in INDEX_LEVELS))
async def test_index_levels(play: Player) -> None:
    create = {"name": "own", "key": ["-note"], "grbit": ["IndexUnicode", "IndexKeyMost"], "unicodeIndex": {"localeName": "fr-FR"}}
    await play(
        "CreateIndex",
        indexcreates=[{**create, "keyMost": 300, "varSegMac": 200, "density": 85}],
        indexname=...,
        keyDescription=...,
        density=...,
    )
    for method in ("GetIndexInfo", "GetTableIndexInfo"):

        async def level(name: str, index: str | None = "own", method: str = method) -> Any:
            return (await play(method, indexname=index, infoLevel=name))["result"]

        for name in ("Default", "List"):
            assert [row["columnname"] for row in await level(name)] == ["note"]
        assert [row["indexname"] for row in await level("List", None)] == ["primary", "byName", "own"]
        assert await level("Count", None) == 3
        assert (await level("Langid"), await level("LCID")) == (0x40C, 0x40C)
        assert (await level("KeyMost"), await level("VarSegMac"), await level("SpaceAlloc")) == (300, 200, 85)
        for name in ("CreateIndex", "CreateIndex2"):
            made_of = await level(name)
            assert (made_of["name"], made_of["key"]) == ("own", ["-note"])
        assert await level("SpaceOwned") >= 0
        assert await level("SpaceAvailable") == 0
        identity = await level("IndexId")
        await play("SetCurrentIndex", indexname=None, indexid=identity)
        assert (await play("GetCurrentIndex"))["indexname"] == "own"
        for refused in INDEX_REFUSED:
            assert await play.answer(method, indexname="own", infoLevel=refused) == "JET_errFeatureNotAvailable"


@shows("GetObjectInfo", *(f"JET_ObjInfo{level}" for level in ("", "List", "NoStats", "ListNoStats")))
async def test_object_levels(play: Player) -> None:
    await play("ComputeStats")
    table = play.kept["table"]
    counted = (await play("GetObjectInfo", objectName=table, infoLevel="Default"))["objectinfo"]
    quick = (await play("GetObjectInfo", objectName=table, infoLevel="NoStats"))["objectinfo"]
    assert (counted["records"], quick["records"]) == (3, 0)
    for level, records in (("List", 3), ("ListNoStats", 0)):
        rows = (await play("GetObjectInfo", infoLevel=level))["rows"]
        assert {row["objectname"]: row["records"] for row in rows}[table] == records
    for refused in ("ListACM", "SysTabCursor"):
        assert await play.answer("GetObjectInfo", objectName=table, infoLevel=refused) == "JET_errFeatureNotAvailable"
    for unknown in ("RulesLoaded", "SysTabReadOnly", "Max"):
        assert await play.answer("GetObjectInfo", objectName=table, infoLevel=unknown) == "JET_errInvalidParameter"


TABLE_LEVELS = ("", "Dbid", "Name", "SpaceAlloc", "SpaceAvailable", "SpaceOwned", "SpaceUsage", "TemplateTableName")


@shows("GetTableInfo", *(f"JET_TblInfo{level}" for level in TABLE_LEVELS))
async def test_table_levels(play: Player) -> None:
    async def level(name: str) -> Any:
        return (await play("GetTableInfo", infoLevel=name))["result"]

    assert await level("Name") == play.kept["table"]
    assert await level("Dbid") == play.kept["dbid"]
    assert (await level("Default"))["objtyp"] == 1
    assert await level("SpaceAlloc") == [1, 80]
    assert await level("SpaceOwned") >= 1
    assert await level("SpaceAvailable") == 0
    assert (await level("SpaceUsage"))[0] >= 1
    for refused in ("OLC", "ResetOLC", "DumpTable", "MostMany"):
        assert await play.answer("GetTableInfo", infoLevel=refused) == "JET_errFeatureNotAvailable"
    assert await play.answer("GetTableInfo", infoLevel="Rvt") == "JET_errQueryNotSupported"
    await play.play(*DERIVED)
    assert await level("TemplateTableName") == play.kept["name"]
