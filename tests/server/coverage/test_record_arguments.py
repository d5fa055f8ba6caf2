"""What calls that read and write records answer to wrong arguments: a table of calls and their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.server.coverage.steps import (
    BEFORE_FIRST,
    DELETED,
    INSERTING,
    LONG,
    OTHER_CHANGED,
    PRIMARY,
    READ_ONLY,
    REPLACING,
    TEXT,
    made,
    reopened,
)
from tests.support.calls import S, Step, T
from tests.support.shown import Case, failures, shows_cases

STRICT = made(
    (),
    [
        {"name": "id", **LONG},
        {"name": "must", **LONG, "grbit": ["ColumnNotNULL"]},
        {"name": "auto", **LONG, "grbit": ["ColumnAutoincrement"]},
        {"name": "version", **LONG, "grbit": ["ColumnVersion"]},
        {"name": "key", "coltyp": "LongBinary"},
        {"name": "many", "coltyp": "LongBinary", "grbit": ["ColumnTagged", "ColumnMultiValued"]},
        {"name": "short", "coltyp": "LongBinary", "max": 10},
        {"name": "fixed", "coltyp": "Binary", "max": 4, "grbit": ["ColumnFixed"]},
        {"name": "title", **TEXT},
        *({"name": f"wide{n}", "coltyp": "Binary", "max": 255, "grbit": ["ColumnTagged"]} for n in range(140)),
    ],
    [
        PRIMARY,
        {"name": "byKey", "key": ["+key"], "grbit": ["IndexUnique", "IndexDisallowTruncation", "IndexIgnoreNull"]},
        {"name": "byMany", "key": ["+many"], "grbit": ["IndexIgnoreNull"]},
        {"name": "byMust", "key": ["+short"], "grbit": ["IndexDisallowNull"]},
        {"name": "pieces", "key": ["+title"], "grbit": ["IndexTuples", "IndexIgnoreNull"]},
    ],
)


def strict(**values: Any) -> tuple[Step, ...]:
    """A record of the strict table prepared, with these values."""
    given = [{"columnid": name, "data": value} for name, value in values.items()]
    set_all = (Step("SetColumns", {**T, "setcolumns": given}),) if given else ()
    return (*STRICT, *INSERTING, *set_all)


def strict_record(**values: Any) -> tuple[Step, ...]:
    return (*strict(**values), Step("Update", T), Step("Move", {**T, "numRows": "First"}))


GOOD = {"id": 1, "must": 1, "short": "AAAA", "title": "a title"}
PIECES = (*strict_record(**GOOD), Step("SetCurrentIndex", {**T, "indexname": "pieces"}), Step("Move", {**T, "numRows": "First"}))


def setting(answer: str, before: tuple[Step, ...] = (), columnid: Any = "note", data: Any = "b", **more: Any) -> list[Case]:
    """The same for SetColumn and SetColumns."""
    info = {name: more.pop(name) for name in ("offset", "itagSequence") if name in more}
    one = {"columnid": columnid, "data": data, **more}
    bare = bool(before)
    return [
        Case("SetColumn", answer, {**one, **({"setinfo": info} if info else {})}, before, bare=bare),
        Case("SetColumns", answer, {"setcolumns": [{**one, **info}]}, before, bare=bare),
    ]


def retrieving(answer: str, before: tuple[Step, ...] = (), columnid: Any = "name", **more: Any) -> list[Case]:
    info = {name: more.pop(name) for name in ("offset", "itagSequence") if name in more}
    one = {"columnid": columnid, **more}
    return [
        Case("RetrieveColumn", answer, {**one, **({"retinfo": info} if info else {})}, before),
        Case("RetrieveColumns", answer, {"retrievecolumns": [{**one, **info}]}, before),
    ]


SETTING = [
    *setting("JET_errBadColumnId", columnid=70_000),
    *setting("JET_errColumnNotFound", columnid=77),
    *setting("JET_errColumnNotFound", columnid="nowhere"),
    *setting("JET_errColumnNotUpdatable", columnid="sum", data=1),
    *setting("JET_errColumnTooBig", strict(), columnid="short", data="AAAAAAAAAAAAAAAAAAAAAAAA"),
    *setting("JET_errInvalidBufferSize", columnid="id", data={"base64": "AAE="}),
    *setting("JET_errInvalidColumnType", strict(), columnid="auto", data=1),
    *setting("JET_errInvalidColumnType", (*strict_record(**GOOD), *REPLACING), columnid="version", data=1),
    *setting("JET_errInvalidGrbit", grbit=1 << 30),
    *setting("JET_errInvalidGrbit", columnid="id", data=1, grbit=["SetAppendLV"]),
    *setting("JET_errInvalidParameter", offset=-1),
    *setting("JET_errMultiValuedDuplicate", columnid="tags", data="x", itagSequence=0, grbit=["SetUniqueMultiValues"]),
    *setting("JET_errNullInvalid", strict(), columnid="must", data=None),
    *setting("JET_errUpdateNotPrepared", (Step("Move", {**T, "numRows": "First"}),)),
    *setting("JET_wrnColumnMaxTruncated", strict(), columnid="wide0", data={"base64": "A" * 400}),
    *setting("JET_errBadItagSequence", columnid="id", data=1, itagSequence=2),
    *setting("JET_errColumnNoChunk", columnid="blob", data="AAAA", offset=10, grbit=["SetOverwriteLV"]),
]
RETRIEVING = [
    *retrieving("JET_errBadColumnId", columnid=70_000),
    *retrieving("JET_errColumnNotFound", columnid=77),
    *retrieving("JET_errInvalidGrbit", grbit=1 << 30),
    *retrieving("JET_errInvalidParameter", offset=-1),
    *retrieving("JET_errNoCurrentRecord", BEFORE_FIRST),
    *retrieving("JET_errIndexTuplesCannotRetrieveFromIndex", PIECES, columnid="title", grbit=["RetrieveFromIndex"]),
    *retrieving("JET_wrnBufferTruncated", maxDataSize=2),
    Case("RetrieveColumn", "JET_wrnColumnNull", {"columnid": "blob"}),
    Case("RetrieveColumn", "JET_errBadItagSequence", {"retinfo": {"itagSequence": 0}}),
    Case("RetrieveColumns", "JET_errBadItagSequence", {"retrievecolumns": [{"columnid": "name", "itagSequence": -1}]}),
    Case("EnumerateColumns", "JET_errBadColumnId", {"columnids": [{"columnid": 70_000}]}),
    Case("EnumerateColumns", "JET_errColumnNotFound", {"columnids": [{"columnid": 77}]}),
    Case("EnumerateColumns", "JET_errInvalidGrbit", {"grbit": ["EnumerateLocal"]}),
    Case("EnumerateColumns", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("EnumerateColumns", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("EnumerateColumns", "JET_errRecordDeleted", before=DELETED),
    Case("GetRecordSize", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("GetRecordSize", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("GetRecordSize", "JET_errRecordDeleted", before=DELETED),
    Case("GetRecordSize", "JET_errUpdateNotPrepared", {"grbit": ["RecordSizeInCopyBuffer"]}),
]
UPDATING = [
    Case("PrepareUpdate", "JET_errAlreadyPrepared", before=REPLACING),
    Case("PrepareUpdate", "JET_errInvalidParameter", {"prep": 99}),
    Case("PrepareUpdate", "JET_errUpdateNotPrepared", {"prep": "Cancel"}),
    Case("PrepareUpdate", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("PrepareUpdate", "JET_errPermissionDenied", before=reopened("TableReadOnly")),
    Case("PrepareUpdate", "JET_errTransReadOnly", before=READ_ONLY),
    Case("PrepareUpdate", "JET_errWriteConflict", before=OTHER_CHANGED),
    Case("Update", "JET_errKeyDuplicate", before=(*INSERTING, Step("SetColumn", {**T, "columnid": "id", "data": 2})), bare=True),
    Case("Update", "JET_errKeyTruncated", before=strict(**GOOD, key="A" * 400), bare=True),
    Case("Update", "JET_errNullInvalid", before=strict(id=1, short="AAAA"), bare=True),
    Case("Update", "JET_errNullKeyDisallowed", before=strict(id=1, must=1), bare=True),
    Case("Update", "JET_errRecordPrimaryChanged", before=(*REPLACING, Step("SetColumn", {**T, "columnid": "id", "data": 9})), bare=True),
    Case("Update", "JET_errRecordTooBig", before=strict(**GOOD, **{f"wide{n}": {"base64": "A" * 340} for n in range(140)}), bare=True),
    Case("Update", "JET_errTransReadOnly", before=(*REPLACING, *READ_ONLY), bare=True),
    Case("Update", "JET_errUpdateNotPrepared", bare=True),
    Case("Update", "JET_errWriteConflict", before=(*OTHER_CHANGED, Step("PrepareUpdate", {**T, "prep": "ReplaceNoLock"})), bare=True),
    Case("Update", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("Delete", "JET_errIllegalOperation", before=(Step("OpenTempTable", {**S, "columns": [LONG]}, {"tableid": "tableid"}),)),
    Case("Delete", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("Delete", "JET_errPermissionDenied", before=reopened("TableReadOnly")),
    Case("Delete", "JET_errRecordDeleted", before=DELETED),
    Case("Delete", "JET_errTransReadOnly", before=READ_ONLY),
    Case("Delete", "JET_errWriteConflict", before=OTHER_CHANGED),
    Case("EscrowUpdate", "JET_errAlreadyPrepared", before=REPLACING),
    Case("EscrowUpdate", "JET_errInvalidBufferSize", {"delta": 1 << 40}),
    Case("EscrowUpdate", "JET_errInvalidOperation", {"columnid": "id"}),
    Case("EscrowUpdate", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("EscrowUpdate", "JET_errNotInTransaction", bare=True),
    Case("EscrowUpdate", "JET_errPermissionDenied", before=reopened("TableReadOnly")),
    Case("EscrowUpdate", "JET_errTransReadOnly", before=READ_ONLY, bare=True),
    Case("EscrowUpdate", "JET_errWriteConflict", before=OTHER_CHANGED, bare=True),
    Case("EscrowUpdate", "JET_errInvalidGrbit", {"grbit": 1 << 30}),
    Case("GetLock", "JET_errInvalidGrbit", {"grbit": 0}),
    Case("GetLock", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("GetLock", "JET_errNotInTransaction", bare=True),
    Case("GetLock", "JET_errPermissionDenied", {"grbit": ["WriteLock"]}, reopened("TableReadOnly")),
    Case("GetLock", "JET_errTransReadOnly", {"grbit": ["WriteLock"]}, READ_ONLY, bare=True),
    Case("GetLock", "JET_errWriteConflict", before=OTHER_CHANGED, bare=True),
    Case("GetCursorInfo", "JET_errNoCurrentRecord", before=BEFORE_FIRST),
    Case("GetCursorInfo", "JET_errWriteConflict", before=OTHER_CHANGED),
]
CASES = [*SETTING, *RETRIEVING, *UPDATING]


@shows_cases(CASES)
async def test_wrong_arguments(tmp_path: Path) -> None:
    assert await failures(tmp_path, CASES) == []
