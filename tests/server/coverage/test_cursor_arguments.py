"""What calls that move cursors, and sorts, answer to wrong arguments: a table of calls and their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.server.coverage.steps import BEFORE_FIRST, BY_NAME, DELETED, INSERTING, LONG, PRIMARY, TEXT, made
from tests.support.calls import KEY, S, Step, T
from tests.support.shown import Case, failures, shows_cases

NO_PRIMARY = (
    Step(
        "CreateTableColumnIndex",
        {**S, "dbid": "$dbid", "tablecreate": {"name": "$name", "columns": [{"name": "x", **LONG}]}},
        {"tableid": "tableid"},
    ),
    *INSERTING,
    Step("Update", T),
    Step("Move", {**T, "numRows": "First"}),
)
PIECES = (
    *made(
        (), [{"name": "id", **LONG}, {"name": "title", **TEXT}], [PRIMARY, {"name": "pieces", "key": ["+title"], "grbit": ["IndexTuples"]}]
    ),
    Step("SetCurrentIndex", {**T, "indexname": "pieces"}),
)
TAGGED = (
    *made(
        (),
        [{"name": "id", **LONG}, {"name": "tags", **TEXT, "grbit": ["ColumnTagged", "ColumnMultiValued"]}],
        [PRIMARY, {"name": "byTags", "key": ["+tags"]}],
    ),
    *INSERTING,
    Step("SetColumn", {**T, "columnid": "id", "data": 1}),
    Step("Update", T),
    Step("Move", {**T, "numRows": "First"}),
)
LAST = (Step("Move", {**T, "numRows": "Last"}),)
SECOND_RANGE = (Step("DupCursor", T, {"second": "newTableid"}), Step("SetCurrentIndex", {**S, "tableid": "$second", "indexname": "byName"}))
SORT = (Step("OpenTempTable", {**S, "columns": [{**LONG, "grbit": ["ColumnTTKey"]}]}, {"tableid": "tableid"}),)
KEY_OF_ONE = (Step("MakeKey", {**T, "data": 1, "grbit": ["NewKey"]}),)
KEY_OF_NOBODY = (Step("MakeKey", {**T, "data": 77, "grbit": ["NewKey"]}),)


def temporary(answer: str, columns: list[dict[str, Any]] | None = None, grbit: Any = 0, **more: Any) -> list[Case]:
    """The same for OpenTempTable and OpenTemporaryTable."""
    given: dict[str, Any] = {"columns": columns or [{**LONG, "grbit": ["ColumnTTKey"]}], "grbit": grbit}
    return [
        Case("OpenTempTable", answer, {**given, **more}),
        Case("OpenTemporaryTable", answer, {"temporarytable": {**given, **more}}),
    ]


MOVING = [
    Case("Move", "JET_errNoCurrentRecord", {"numRows": 100}),
    Case("Move", "JET_errRecordDeleted", {"numRows": 0}, DELETED),
    Case("Move", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("Move", "JET_errIllegalOperation", {"numRows": "Last"}, SORT),
    Case("Seek", "JET_errKeyNotMade", bare=True),
    Case("Seek", "JET_errRecordNotFound", before=KEY_OF_NOBODY),
    Case("Seek", "JET_wrnSeekNotEqual", {"grbit": ["SeekLE"]}, KEY_OF_NOBODY),
    Case("Seek", "JET_wrnUniqueKey", {"grbit": ["SeekEQ", "CheckUniqueness"]}),
    Case("Seek", "JET_errInvalidParameter", {"grbit": 0}),
    Case("Seek", "JET_errInvalidGrbit", {"grbit": 1 << 30 | 1}),
    Case("Seek", "JET_errIllegalOperation", before=SORT, bare=True),
    Case("MakeKey", "JET_errIndexTuplesKeyTooSmall", {"data": "a"}, PIECES),
    Case("MakeKey", "JET_errInvalidBufferSize", {"data": {"base64": "AAE="}}),
    Case("MakeKey", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("MakeKey", "JET_errInvalidGrbit", {"grbit": ["NewKey", "PartialColumnEndLimit"]}),
    Case("MakeKey", "JET_errInvalidParameter", {"data": "A" * 800, "grbit": ["NormalizedKey"]}),
    Case("MakeKey", "JET_errKeyIsMade", {"grbit": 0}, (KEY,)),
    Case("MakeKey", "JET_errKeyNotMade", {"grbit": 0}),
    Case("MakeKey", "JET_errNoCurrentIndex", before=NO_PRIMARY),
    Case("RetrieveKey", "JET_errKeyNotMade", {"grbit": ["RetrieveCopy"]}),
    Case("RetrieveKey", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("RetrieveKey", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("SetIndexRange", "JET_errInvalidOperation", {"grbit": ["RangeRemove"]}, bare=True),
    Case("SetIndexRange", "JET_errKeyNotMade", bare=True),
    Case("SetIndexRange", "JET_errNoCurrentIndex", before=NO_PRIMARY, bare=True),
    Case("SetIndexRange", "JET_errNoCurrentRecord", before=(*LAST, *KEY_OF_ONE)),
    Case("SetIndexRange", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("SetCurrentIndex", "JET_errBadItagSequence", {"indexname": "byTags", "grbit": ["NoMove"], "itagSequence": 5}, TAGGED),
    Case("SetCurrentIndex", "JET_errInvalidIndexId", {"indexid": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}),
    Case("SetCurrentIndex", "JET_errInvalidName", {"indexname": "a!"}),
    Case("SetCurrentIndex", "JET_errNoCurrentRecord", {"grbit": ["NoMove"]}, BEFORE_FIRST),
    Case("SetCurrentIndex", "JET_errIndexNotFound", {"indexname": "nowhere"}),
    Case("SetCurrentIndex", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case(
        "SetCursorFilter", "JET_errFilteredMoveNotSupported", {"filters": [{"columnid": "note", "relop": "Equals", "data": "a"}]}, BY_NAME
    ),
    Case("IndexRecordCount", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("IndexRecordCount", "JET_errInvalidParameter", {"maxRecordsToCount": -1}),
    Case("IntersectIndexes", "JET_errInvalidGrbit", {"ranges": [{"tableid": "$tableid", "grbit": 2}]}),
    Case("IntersectIndexes", "JET_errInvalidParameter", {"ranges": [{"tableid": "$tableid"}, {"tableid": "$second"}]}, SECOND_RANGE),
    Case("IntersectIndexes", "JET_errInvalidParameter", {"ranges": []}),
    Case("IntersectIndexes", "JET_errInvalidSesid", {"sesid": 999_999}),
    Case("GetBookmark", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("GotoBookmark", "JET_errInvalidBookmark", {"bookmark": ""}),
    Case(
        "GotoBookmark",
        "JET_errNoCurrentRecord",
        before=(
            Step("CreateIndex", {**T, "indexname": "byBlob", "keyDescription": ["+blob"], "density": 80, "grbit": ["IndexIgnoreNull"]}),
            Step("SetCurrentIndex", {**T, "indexname": "byBlob"}),
        ),
    ),
    Case("GotoBookmark", "JET_errRecordDeleted", before=DELETED),
    Case("GetSecondaryIndexBookmark", "JET_errNoCurrentIndex", bare=True),
    Case(
        "GetSecondaryIndexBookmark",
        "JET_errNoCurrentRecord",
        before=(Step("SetCurrentIndex", {**T, "indexname": "byName", "grbit": ["MoveBeforeFirst"]}),),
    ),
    Case("GotoSecondaryIndexBookmark", "JET_errInvalidBookmark", {"secondaryKey": ""}),
    Case("GotoSecondaryIndexBookmark", "JET_errNoCurrentIndex", before=(Step("SetCurrentIndex", T),)),
    Case("GotoSecondaryIndexBookmark", "JET_errRecordDeleted", before=DELETED),
    Case("GotoSecondaryIndexBookmark", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("GetRecordPosition", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("GotoPosition", "JET_errInvalidParameter", {"recpos": {"entriesLT": 4, "entriesTotal": 3}}),
    Case("GotoPosition", "JET_errRecordNotFound", before=made()),
    Case("PrereadKeys", "JET_errInvalidGrbit", {"grbit": 0}),
    Case("PrereadKeys", "JET_errInvalidBufferSize", {"keys": ["A" * 800]}),
    Case("PrereadKeys", "JET_errInvalidBufferSize", {"keys": [""]}),
    Case("PrereadKeys", "JET_errInvalidParameter", {"keys": ["BBBB", "AAAA"]}),
    Case("PrereadIndexRanges", "JET_errInvalidGrbit", {"grbit": 0}),
    Case("PrereadIndexRanges", "JET_errInvalidParameter", {"indexRanges": []}),
    Case("SetLS", "JET_errInvalidGrbit", {"grbit": ["LSCursor", "LSTable"]}),
    Case("SetLS", "JET_errLSAlreadySet", before=(Step("SetLS", {**T, "ls": 5}),)),
    Case("GetLS", "JET_errInvalidGrbit", {"grbit": ["LSCursor", "LSTable"]}),
    Case("GetLS", "JET_errLSNotSet", bare=True),
    Case("RegisterCallback", "JET_errInvalidParameter", {"cbtyp": 0}),
    Case("UnregisterCallback", "JET_wrnCallbackNotRegistered", {"callbackId": 999_999}),
]
SORTING = [
    *temporary("JET_errCannotMaterializeForwardOnlySort", grbit=["TTForwardOnly", "TTIndexed"]),
    *temporary("JET_errInvalidGrbit", grbit=1 << 30),
    *temporary("JET_errIndexInvalidDef", [{**LONG, "grbit": ["ColumnTTKey"]}] * 17),
    *temporary("JET_errInvalidCodePage", [{"coltyp": "Text", "cp": 437}]),
    *temporary("JET_errInvalidColumnType", [{"coltyp": 0}]),
    *temporary("JET_errInvalidLanguageId", unicodeIndex={"lcid": 5}),
    *temporary("JET_errInvalidLCMapStringFlags", unicodeIndex={"lcid": 1033, "mapFlags": 1 << 30}),
    *temporary("JET_errTooManyColumns", [LONG] * 128),
    *(
        Case("OpenTemporaryTable", "JET_errInvalidParameter", {"temporarytable": {"columns": [LONG], **given}})
        for given in ({"keyMost": 254}, {"keyMost": 2001}, {"varSegMac": 256})
    ),
    Case("OpenTempTable", "JET_errInvalidSesid", {"sesid": 999_999}),
    Case("OpenTemporaryTable", "JET_errInvalidSesid", {"sesid": 999_999}),
]
CASES = [*MOVING, *SORTING]


@shows_cases(CASES)
async def test_wrong_arguments(tmp_path: Path) -> None:
    assert await failures(tmp_path, CASES) == []
