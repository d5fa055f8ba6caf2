"""What the flags of the calls that move cursors do, and those of temporary tables and callbacks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.coverage.flags import Player
from tests.server.coverage.steps import LONG, PRIMARY, TEXT, made
from tests.support.bench import SUCCESS
from tests.support.calls import Step, T
from tests.support.shown import shows

pytestmark = pytest.mark.asyncio(loop_scope="module")
WORDS = made((), [{"name": "id", **LONG}, {"name": "a", **TEXT}, {"name": "b", **TEXT}], [PRIMARY, {"name": "words", "key": ["+a", "+b"]}])
ROWS = [
    {"id": n, "a": a, "b": b} for n, (a, b) in enumerate([("", ""), ("ab", "x"), ("ab", "y"), ("abc", "x"), ("b", None), (None, "x")], 1)
]


# -- moving -------------------------------------------------------------------------------------------------------------
@shows("Move", "JET_MoveFirst", "JET_MoveLast", "JET_MoveNext", "JET_MovePrevious", "JET_bitMoveKeyNE")
async def test_where_moves_lead(play: Player) -> None:
    for rows, number in (("Last", 3), ("Previous", 2), ("First", 1), ("Next", 2)):
        await play("Move", numRows=rows)
        assert await play.value("id") == number
    await play.insert(id=4, name="one")
    await play("SetCurrentIndex", indexname="byName")
    assert await play.walk() == [1, 4, 3, 2]
    assert await play.walk(grbit=["MoveKeyNE"]) == [1, 3, 2]


@shows("Seek", *(f"JET_bit{bit}" for bit in ("SeekEQ", "SeekGE", "SeekGT", "SeekLE", "SeekLT", "SetIndexRange", "CheckUniqueness")))
async def test_seeking(play: Player) -> None:
    for bits, number, answer in (
        (["SeekEQ"], 2, SUCCESS),
        (["SeekGE"], 2, SUCCESS),
        (["SeekGT"], 3, SUCCESS),
        (["SeekLE"], 2, SUCCESS),
        (["SeekLT"], 1, SUCCESS),
        (["SeekEQ", "CheckUniqueness"], 2, "JET_wrnUniqueKey"),
    ):
        await play("MakeKey")
        assert await play.answer("Seek", grbit=bits) == answer
        assert await play.value("id") == number
    await play("MakeKey")
    await play("Seek", grbit=["SeekEQ", "SetIndexRange"])
    assert await play.walk(start=None) == [2]


@shows("SetIndexRange", *(f"JET_bitRange{bit}" for bit in ("Inclusive", "UpperLimit", "InstantDuration", "Remove")))
async def test_ranges(play: Player) -> None:
    for bits, step, start, seen in (
        (["RangeUpperLimit"], "Next", "First", [1]),
        (["RangeUpperLimit", "RangeInclusive"], "Next", "First", [1, 2]),
        (["RangeInclusive"], "Previous", "Last", [3, 2]),
        (["RangeUpperLimit", "RangeInstantDuration"], "Next", "First", [1, 2, 3]),
    ):
        await play("Move", numRows=start)
        await play("MakeKey")
        await play("SetIndexRange", grbit=bits)
        assert await play.walk(start=None, step=step) == seen
    await play("Move", numRows="First")
    await play("MakeKey")
    await play("SetIndexRange", grbit=["RangeUpperLimit"])
    await play("SetIndexRange", grbit=["RangeRemove"])
    assert await play.walk(start=None) == [1, 2, 3]


KEYS: list[tuple[list[tuple[Any, list[str]]], str, Any]] = [
    # parts of the key, a relation, and the record it leads to
    ([("ab", ["NewKey"]), ("y", [])], "SeekEQ", 3),
    ([("ab", ["NewKey", "FullColumnStartLimit"])], "SeekGE", 2),
    ([("ab", ["NewKey", "FullColumnEndLimit"])], "SeekLE", 3),
    ([("ab", ["NewKey", "PartialColumnStartLimit"])], "SeekGE", 2),
    ([("ab", ["NewKey", "PartialColumnEndLimit"])], "SeekLE", 4),
    ([("ab", ["NewKey", "StrLimit"])], "SeekLE", 3),
    ([("ab", ["NewKey", "SubStrLimit"])], "SeekLE", 4),
    ([("", ["NewKey", "KeyDataZeroLength"]), ("", ["KeyDataZeroLength"])], "SeekEQ", 1),
    ([(None, ["NewKey"]), ("x", [])], "SeekEQ", 6),
]


@shows(
    "MakeKey",
    *(f"JET_bit{bit}" for bit in ("NewKey", "NormalizedKey", "KeyDataZeroLength", "StrLimit", "SubStrLimit")),
    *(f"JET_bit{kind}Column{end}Limit" for kind in ("Full", "Partial") for end in ("Start", "End")),
)
@shows("RetrieveKey", "JET_bitRetrieveCopy")
async def test_keys(play: Player) -> None:
    await play.play(*WORDS)
    for row in ROWS:
        await play("PrepareUpdate", prep="Insert")
        for name, value in row.items():
            await play("SetColumn", columnid=name, data=value, grbit=["SetZeroLength"] if value == "" else [])
        await play("Update")
    await play("SetCurrentIndex", indexname="words")
    wrong = []
    for parts, relation, number in KEYS:
        for data, bits in parts:
            await play("MakeKey", data=data, grbit=bits)
        answer = await play.answer("Seek", grbit=[relation])
        found = await play.value("id") if answer in (SUCCESS, "JET_wrnSeekNotEqual") else answer
        if found != number:
            wrong.append((parts, relation, found))
    assert not wrong
    for data, bits in (("ab", ["NewKey"]), ("y", [])):
        await play("MakeKey", data=data, grbit=bits)
    whole = (await play("RetrieveKey", grbit=["RetrieveCopy"]))["data"]
    await play("MakeKey", data=whole, grbit=["NormalizedKey"])
    await play("Seek", grbit=["SeekEQ"])
    assert (await play("RetrieveKey"))["data"] == whole


@shows("SetCurrentIndex", "JET_bitMoveFirst", "JET_bitNoMove")
async def test_changing_the_index(play: Player) -> None:
    await play("Move", numRows="Last")
    await play("SetCurrentIndex", grbit=["NoMove"])
    assert await play.value("id") == 3
    await play("SetCurrentIndex", grbit=["MoveFirst"])
    assert await play.value("id") == 1


@shows("GotoSecondaryIndexBookmark", "JET_bitBookmarkPermitVirtualCurrency")
async def test_to_where_an_entry_was(play: Player) -> None:
    await play.ready("GotoSecondaryIndexBookmark")
    await play("Delete")
    assert await play.answer("GotoSecondaryIndexBookmark", grbit=["BookmarkPermitVirtualCurrency"]) == "JET_errRecordDeleted"
    await play("Move", numRows="Next")
    assert await play.value("name") == "three"
    play.showed("GotoSecondaryIndexBookmark", "JET_bitBookmarkPermitVirtualCurrency")


@shows("IntersectIndexes", "JET_bitRecordInIndex")
async def test_what_is_in_all_ranges(play: Player) -> None:
    await play.ready("IntersectIndexes")
    found = await play("IntersectIndexes", ranges=[{"tableid": play.kept["tableid"], "grbit": ["RecordInIndex"]}])
    assert len(found["bookmarks"]) == 3
    refused = await play.answer("IntersectIndexes", ranges=[{"tableid": play.kept["tableid"], "grbit": ["RecordNotInIndex"]}])
    assert refused == "JET_errInvalidGrbit"


@shows("PrereadKeys", "JET_bitPrereadForward", "JET_bitPrereadBackward")
@shows("PrereadIndexRanges", "JET_bitPrereadForward", "JET_bitPrereadBackward", "JET_bitPrereadFirstPage", "JET_bitPrereadNormalizedKey")
@shows("SetTableSequential", "JET_bitPrereadForward", "JET_bitPrereadBackward")
async def test_hints(play: Player) -> None:
    """They say in which order records will be wanted; what is found does not depend on them."""
    keys = []
    for number in (1, 2):
        await play("MakeKey", data=number)
        keys.append((await play("RetrieveKey", grbit=["RetrieveCopy"]))["data"])
    for direction, ordered in (("PrereadForward", keys), ("PrereadBackward", keys[::-1])):
        assert (await play("PrereadKeys", keys=ordered, grbit=[direction]))["keysPreread"] == 2
        assert await play.answer("PrereadKeys", keys=ordered[::-1], grbit=[direction]) == "JET_errInvalidParameter"
        for more in ([], ["PrereadFirstPage"], ["PrereadNormalizedKey"]):
            assert (await play("PrereadIndexRanges", grbit=[direction, *more]))["rangesPreread"] == 1
        await play("SetTableSequential", grbit=[direction])
        assert await play.walk() == [1, 2, 3]


@shows("SetLS", "JET_bitLSCursor", "JET_bitLSTable", "JET_bitLSReset")
@shows("GetLS", "JET_bitLSCursor", "JET_bitLSTable", "JET_bitLSReset")
async def test_local_storage(play: Player) -> None:
    second = (await play("DupCursor"))["newTableid"]
    await play("SetLS", ls=5, grbit=["LSCursor"])
    await play("SetLS", ls=6, grbit=["LSTable"])
    assert (await play("GetLS", grbit=["LSCursor"]))["ls"] == 5
    assert (await play("GetLS", tableid=second, grbit=["LSTable"]))["ls"] == 6
    assert await play.answer("GetLS", tableid=second, grbit=["LSCursor"]) == "JET_errLSNotSet"
    assert (await play("GetLS", grbit=["LSTable", "LSReset"]))["ls"] == 6
    assert await play.answer("GetLS", grbit=["LSTable"]) == "JET_errLSNotSet"
    await play("SetLS", ls=0, grbit=["LSCursor", "LSReset"])
    assert await play.answer("GetLS") == "JET_errLSNotSet"


# -- temporary tables ---------------------------------------------------------------------------------------------------
KEY: dict[str, Any] = {**LONG, "grbit": ["ColumnTTKey"]}
KINDS: list[tuple[list[str], list[dict[str, Any]], list[Any], list[Any]]] = [
    # flags, key columns, what is inserted, what is read
    ([], [KEY], [3, 1, 2, 1], [1, 1, 2, 3]),
    ([], [{**LONG, "grbit": ["ColumnTTKey", "ColumnTTDescending"]}], [3, 1, 2], [3, 2, 1]),
    (["TTUnique"], [KEY], [3, 1, 1], [1, 3]),
    (["TTSortNullsHigh"], [KEY], [None, 5], [5, None]),
    (["TTForwardOnly"], [KEY], [2, 1], [1, 2]),
    (["TTScrollable"], [KEY], [2, 1], [1, 2]),
    (["TTForceMaterialization"], [KEY], [2, 1], [1, 2]),
    (["TTIntrinsicLVsOnly"], [KEY], [2, 1], [1, 2]),
]


@shows("OpenTempTable", "JET_bitColumnTTKey", "JET_bitColumnTTDescending", *(f"JET_bit{bit}" for kind in KINDS for bit in kind[0]))
@shows("OpenTempTable", "JET_bitTTIndexed", "JET_bitTTUpdatable", "JET_bitTTErrorOnDuplicateInsertion")
@shows("OpenTemporaryTable", *(f"JET_bit{bit}" for kind in KINDS for bit in kind[0]), "JET_bitTTDotNetGuid")
@shows("OpenTemporaryTable", "JET_bitTTIndexed", "JET_bitTTUpdatable", "JET_bitTTErrorOnDuplicateInsertion")
async def test_kinds_of_temporary_tables(play: Player) -> None:
    async def opened(method: str, columns: list[dict[str, Any]], grbit: list[str]) -> Any:
        given: dict[str, Any] = {"columns": columns, "grbit": grbit}
        made = await play(method, **(given if method == "OpenTempTable" else {"temporarytable": given}))
        play.kept["tableid"] = made["tableid"]
        return made["columnids"][0]

    async def insert(column: int, value: Any) -> str:
        await play("PrepareUpdate", prep="Insert")
        await play("SetColumn", columnid=column, data=value)
        return await play.answer("Update")

    for method in ("OpenTempTable", "OpenTemporaryTable"):
        for grbit, columns, given, expected in KINDS:
            column: Any = await opened(method, columns, grbit)
            for value in given:
                assert await insert(column, value) == SUCCESS
            assert await play.walk(column) == expected
            scrolls = "TTScrollable" in grbit or "TTForceMaterialization" in grbit
            assert await play.answer("Move", numRows="Last") == (SUCCESS if scrolls else "JET_errIllegalOperation")
        column = await opened(method, [KEY], ["TTIndexed", "TTUpdatable", "TTUnique", "TTErrorOnDuplicateInsertion"])
        assert [await insert(column, value) for value in (2, 1, 2)] == [SUCCESS, SUCCESS, "JET_errKeyDuplicate"]
        await play("PrepareUpdate", prep="Cancel")
        await play("MakeKey", data=2)
        await play("Seek")
        await play("Delete")
        assert await play.walk(column) == [1]
    guids = ["00000000-0000-0000-0000-000000000100", "01000000-0000-0000-0000-000000000000"]
    for grbit, expected in (([], guids[::-1]), (["TTDotNetGuid"], guids)):
        column = await opened("OpenTemporaryTable", [{"coltyp": "GUID", "grbit": ["ColumnTTKey"]}], grbit)
        for value in guids:
            await insert(column, value)
        assert await play.walk(column) == expected


# -- callbacks ----------------------------------------------------------------------------------------------------------
TOLD = ("BeforeInsert", "AfterInsert", "BeforeReplace", "AfterReplace", "BeforeDelete", "AfterDelete")


@shows("RegisterCallback", *(f"JET_cbtyp{kind}" for kind in TOLD))
@shows("UnregisterCallback", *(f"JET_cbtyp{kind}" for kind in TOLD))
async def test_who_is_told_of_what(play: Player) -> None:
    notes = play.world.line.notifications
    before = len(notes)
    callbacks = {kind: (await play("RegisterCallback", cbtyp=kind))["callbackId"] for kind in TOLD}
    await play.insert(id=7)
    await play("Move", numRows="Last")
    await play.play(Step("PrepareUpdate", {**T, "prep": "Replace"}), Step("Update", T), Step("Delete", T))
    told = [note["params"]["callbackId"] for note in notes[before:] if note["method"] == "callback"]
    assert told == [callbacks[kind] for kind in TOLD]
    for kind, callback in callbacks.items():
        assert await play.answer("UnregisterCallback", cbtyp=kind, callbackId=callback) == SUCCESS
    before = len(notes)
    await play.insert(id=8)
    assert len(notes) == before


LATER = ("Finalize", "OnlineDefragCompleted", "FreeCursorLS", "FreeTableLS")


@shows("RegisterCallback", *(f"JET_cbtyp{kind}" for kind in LATER))
@shows("UnregisterCallback", *(f"JET_cbtyp{kind}" for kind in LATER))
async def test_who_is_told_of_what_happens_beside_records(play: Player) -> None:
    create = {
        "name": f"sums-{play.kept['name']}",
        "columns": [{"name": "id", **LONG}, {"name": "sum", **LONG, "grbit": ["ColumnEscrowUpdate", "ColumnFinalize"], "defaultValue": 1}],
        "indexes": [PRIMARY],
    }
    play.kept["tableid"] = (await play("CreateTableColumnIndex", tablecreate=create))["tableid"]
    notes = play.world.line.notifications
    callbacks = {kind: (await play("RegisterCallback", cbtyp=kind))["callbackId"] for kind in LATER}
    other = (await play("DupCursor"))["newTableid"]
    await play.insert(id=1)
    await play("Move", numRows="First")
    await play("BeginTransaction")
    await play("EscrowUpdate", delta=-1)
    await play("CommitTransaction")
    await play("Idle")
    await play("SetLS", tableid=other, ls=7, grbit=["LSCursor"])
    await play("CloseTable", tableid=other)
    told = {note["params"]["callbackId"] for note in notes if note["method"] == "callback"}
    assert callbacks["Finalize"] in told
    assert callbacks["FreeCursorLS"] in told
    for kind, callback in callbacks.items():
        assert await play.answer("UnregisterCallback", cbtyp=kind, callbackId=callback) == SUCCESS
