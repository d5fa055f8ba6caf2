"""What calls that make, change and describe tables answer to wrong arguments: a table of calls and their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.server.coverage.steps import (
    DERIVED,
    IN_TRANSACTION,
    LONG,
    OTHER_SESSION,
    OTHERS,
    PRIMARY,
    READ_ONLY,
    TEXT,
    made,
    reopened,
)
from tests.support.calls import D, S, Step, T
from tests.support.shown import Case, failures, shows_cases

FIXED_DDL = made(("TableCreateFixedDDL",), [{"name": "id", **LONG}, {"name": "x", **TEXT}], [PRIMARY, {"name": "byX", "key": ["+x"]}])
OF_MANY = made((), [{"name": f"c{n}", **LONG} for n in range(127)], [{"name": "pk", "key": ["+c0"], "grbit": ["IndexPrimary"]}])
WIDE: dict[str, Any] = {"coltyp": "Binary", "max": 255, "grbit": ["ColumnFixed"]}
OF_WIDE = made((), [{"name": f"c{n}", **WIDE} for n in range(125)], [{"name": "pk", "key": ["+c0"], "grbit": ["IndexPrimary"]}])
NUMBERED = (Step("AddColumn", {**T, "columnname": "v", "columndef": {**LONG, "grbit": ["ColumnVersion"]}}),)
INDEXED = (Step("OpenTempTable", {**S, "columns": [LONG], "grbit": ["TTIndexed"]}, {"tableid": "tableid"}),)
TEMPORARY = (Step("OpenTempTable", {**S, "columns": [LONG]}, {"tableid": "tableid"}),)


def column(answer: str, before: tuple[Step, ...] = (), name: str = "new", default: Any = None, **columndef: Any) -> Case:
    """AddColumn of such a column, and the same column in CreateTableColumnIndex where that can be."""
    return Case("AddColumn", answer, {"columnname": name, "columndef": {**LONG, **columndef}, "defaultValue": default}, before)


def index(answer: str, before: tuple[Step, ...] = (), **create: Any) -> Case:
    given = {"name": "new", "key": ["+note"], **create}
    return Case("CreateIndex", answer, {"indexcreates": [given]}, before, drop=("indexname", "keyDescription", "density"))


def table(answer: str, before: tuple[Step, ...] = (), **create: Any) -> Case:
    return Case("CreateTableColumnIndex", answer, {"tablecreate": {"name": "$name", **create}}, before)


def table_with_column(answer: str, **given: Any) -> Case:
    return table(answer, columns=[{"name": "new", **LONG, **given}])


def table_with_index(answer: str, **given: Any) -> Case:
    columns = [
        {"name": "id", **LONG},
        {"name": "text", **TEXT},
        {"name": "sum", **LONG, "grbit": ["ColumnEscrowUpdate"], "defaultValue": 0},
    ]
    return table(answer, columns=columns, indexes=[{"name": "new", "key": ["+text"], **given}])


TUPLE_LIMITS = ["IndexTupleLimits"]
COLUMNS = [
    column("JET_errFixedDDL", FIXED_DDL),
    column("JET_errInvalidParameter", max=-1),
    column("JET_errInTransaction", IN_TRANSACTION, grbit=["ColumnUnversioned"]),
    column("JET_errColumnDuplicate", name="NAME"),
    column("JET_errTableNotEmpty", grbit=["ColumnEscrowUpdate"], default=0),
    column("JET_errRecordTooBig", OF_WIDE, **WIDE),
    column("JET_errTooManyColumns", OF_MANY),
    column("JET_errColumnRedundant", NUMBERED, grbit=["ColumnVersion"]),
    column("JET_errCallbackNotResolved", **TEXT, grbit=["ColumnUserDefinedDefault"]),
    column("JET_wrnColumnMaxTruncated", coltyp="Text", max=300),
    column("JET_errInvalidName", name="a.b"),
    column("JET_errInvalidColumnType", coltyp=99),
    column("JET_errInvalidCodePage", coltyp="Text", cp=437),
    column("JET_errTaggedNotNULL", grbit=["ColumnTagged", "ColumnNotNULL"]),
    column("JET_errInvalidGrbit", grbit=1 << 30),
    column("JET_errMultiValuedColumnMustBeTagged", grbit=["ColumnMultiValued"]),
    column("JET_errCannotBeTagged", grbit=["ColumnTagged", "ColumnAutoincrement"]),
    column("JET_errExclusiveTableLockRequired", reopened(), grbit=["ColumnAutoincrement"]),
    column("JET_errTransReadOnly", READ_ONLY),
    # DeleteColumn and RenameColumn
    Case("DeleteColumn", "JET_errColumnInUse", {"columnname": "id"}),
    Case("DeleteColumn", "JET_errColumnNotFound", {"columnname": "nowhere"}),
    Case("DeleteColumn", "JET_errFixedDDL", {"columnname": "id"}, FIXED_DDL),
    Case("DeleteColumn", "JET_errFixedInheritedDDL", {"columnname": "x"}, DERIVED),
    Case("DeleteColumn", "JET_errInvalidName", {"columnname": "a!"}),
    Case("DeleteColumn", "JET_errPermissionDenied", before=reopened("TableReadOnly")),
    Case("DeleteColumn", "JET_errTransReadOnly", before=READ_ONLY),
    Case("RenameColumn", "JET_errColumnNotFound", {"name": "nowhere"}),
    Case("RenameColumn", "JET_errInvalidName", {"newName": "a["}),
    Case("RenameColumn", "JET_errInTransaction", before=IN_TRANSACTION),
    Case("RenameColumn", "JET_errColumnDuplicate", {"newName": "id"}),
    Case("SetColumnDefaultValue", "JET_errColumnInUse", {"columnname": "name"}),
    Case("SetColumnDefaultValue", "JET_errColumnNotFound", {"columnname": "nowhere"}),
    Case("SetColumnDefaultValue", "JET_errInvalidDatabaseId", {"dbid": 999_999}),
    Case("SetColumnDefaultValue", "JET_errInvalidName", {"tablename": "a!"}),
    Case("SetColumnDefaultValue", "JET_errNullInvalid", {"data": None}),
    Case("SetColumnDefaultValue", "JET_errObjectNotFound", {"tablename": "nowhere"}),
    Case("SetColumnDefaultValue", "JET_errTransReadOnly", before=READ_ONLY),
    Case(
        "SetColumnDefaultValue",
        "JET_errWriteConflict",
        before=(
            *OTHERS,
            Step("BeginTransaction", {"sesid": "$other"}),
            Step("AddColumn", {"sesid": "$other", "tableid": "$theirs", "columnname": "theirs", "columndef": LONG}),
        ),
    ),
]
INDEXES = [
    index("JET_errCannotIndex", key=["+sum"]),
    index("JET_errColumnNotFound", key=["+nowhere"]),
    index("JET_errDensityInvalid", density=19),
    index("JET_errIndexDuplicate", name="BYNAME"),
    index("JET_errIndexHasPrimary", key=["+id"], grbit=["IndexPrimary"]),
    index("JET_errIndexInvalidDef", key=["+note", "-note"]),
    index("JET_errIndexTuplesInvalidLimits", grbit=TUPLE_LIMITS, tupleLimits={"lengthMin": 1}),
    index("JET_errIndexTuplesNonUniqueOnly", grbit=["IndexTuples", "IndexUnique"]),
    index("JET_errIndexTuplesTextBinaryColumnsOnly", key=["+id"], grbit=["IndexTuples"]),
    index("JET_errIndexTuplesVarSegMacNotAllowed", grbit=["IndexTuples"], varSegMac=50),
    index("JET_errInTransaction", IN_TRANSACTION, grbit=["IndexUnversioned"]),
    index("JET_errInvalidGrbit", grbit=1 << 30),
    index("JET_errInvalidLanguageId", lcid=5),
    index("JET_errInvalidName", name="a!"),
    index("JET_errInvalidParameter", key=[]),
    index("JET_errSpaceHintsInvalid", spaceHints={"growth": 50}),
    index("JET_errTransReadOnly", READ_ONLY),
    index(
        "JET_errKeyDuplicate",
        key=["+sum2"],
        grbit=["IndexUnique"],
        before=(Step("AddColumn", {**T, "columnname": "sum2", "columndef": LONG, "defaultValue": 7}),),
    ),
    Case(
        "CreateIndex",
        "JET_errIndexTuplesSecondaryIndexOnly",
        {"tableid": "$made", "indexname": "p", "keyDescription": ["+x"], "grbit": ["IndexPrimary", "IndexTuples"]},
        (Step("CreateTableColumnIndex", {**D, "tablecreate": {"name": "$name", "columns": [{"name": "x", **TEXT}]}}, {"made": "tableid"}),),
    ),
    Case("DeleteIndex", "JET_errFixedDDL", {"indexname": "byX"}, FIXED_DDL),
    Case("DeleteIndex", "JET_errFixedInheritedDDL", {"indexname": "byX"}, DERIVED),
    Case("DeleteIndex", "JET_errIndexNotFound", {"indexname": "nowhere"}),
    Case("DeleteIndex", "JET_errPermissionDenied", before=reopened("TableReadOnly")),
    Case("DeleteIndex", "JET_errTransReadOnly", before=READ_ONLY),
]
TABLES = [
    Case("CreateTable", "JET_errDensityInvalid", {"density": 19}),
    Case("CreateTable", "JET_errInvalidParameter", {"pages": -1}),
    Case("CreateTable", "JET_errInvalidName", {"tablename": ""}),
    Case("CreateTable", "JET_errTableDuplicate", {"tablename": "$table"}),
    table("JET_errCallbackNotResolved", callback="module!function"),
    table_with_index("JET_errCannotIndex", key=["+sum"]),
    table("JET_errCannotNestDDL", templateTableName="$table", grbit=["TableCreateTemplateTable"]),
    table("JET_errColumnDuplicate", columns=[{"name": "a", **LONG}, {"name": "A", **LONG}]),
    table_with_index("JET_errColumnNotFound", key=["+nowhere"]),
    table("JET_errColumnRedundant", columns=[{"name": name, **LONG, "grbit": ["ColumnAutoincrement"]} for name in "ab"]),
    table("JET_errDensityInvalid", density=101),
    table("JET_errDDLNotInheritable", templateTableName="$table"),
    table("JET_errIndexDuplicate", columns=[{"name": "id", **LONG}], indexes=[PRIMARY, {"name": "PK", "key": ["-id"]}]),
    table("JET_errIndexHasPrimary", columns=[{"name": "id", **LONG}], indexes=[PRIMARY, {**PRIMARY, "name": "pk2"}]),
    table_with_index("JET_errIndexInvalidDef", key=["+text", "-text"]),
    table_with_index("JET_errIndexTuplesInvalidLimits", grbit=TUPLE_LIMITS, tupleLimits={"lengthMin": 9, "lengthMax": 8}),
    table_with_index("JET_errIndexTuplesNonUniqueOnly", grbit=["IndexTuples", "IndexUnique"]),
    table_with_index("JET_errIndexTuplesSecondaryIndexOnly", grbit=["IndexTuples", "IndexPrimary"]),
    table_with_index("JET_errIndexTuplesTextBinaryColumnsOnly", key=["+id"], grbit=["IndexTuples"]),
    table_with_index("JET_errIndexTuplesVarSegMacNotAllowed", grbit=["IndexTuples"], varSegMac=50),
    table(
        "JET_errInTransaction",
        IN_TRANSACTION,
        columns=[{"name": "id", **LONG}],
        indexes=[{"name": "i", "key": ["+id"], "grbit": ["IndexUnversioned"]}],
    ),
    table_with_column("JET_errInvalidCodePage", coltyp="Text", cp=437),
    table_with_column("JET_errInvalidColumnType", coltyp=0),
    table("JET_errInvalidGrbit", grbit=0x100),
    table_with_index("JET_errInvalidLanguageId", lcid=5),
    table("JET_errInvalidParameter", pages=-1),
    table("JET_errRecordTooBig", columns=[{"name": f"c{n}", **WIDE} for n in range(126)]),
    table("JET_errTooManyColumns", columns=[{"name": f"c{n}", **LONG} for n in range(128)]),
    Case("CreateTableColumnIndex", "JET_errTableDuplicate", {"tablecreate": {"name": "$table"}}),
    table("JET_errSpaceHintsInvalid", seqSpacehints={"growth": 50}),
    Case("DeleteTable", "JET_errTableInUse", bare=True),
    Case(
        "DeleteTable",
        "JET_errCannotDeleteTemplateTable",
        {"tablename": "$name"},
        (*made(("TableCreateTemplateTable",)), Step("CloseTable", T)),
        bare=True,
    ),
    Case("DeleteTable", "JET_errObjectNotFound", {"tablename": "nowhere"}),
    Case("DeleteTable", "JET_errTransReadOnly", before=READ_ONLY),
    Case("RenameTable", "JET_errInvalidDatabaseId", {"dbid": 999_999}),
    Case("RenameTable", "JET_errInvalidName", {"newTablename": "a!"}),
    Case("RenameTable", "JET_errObjectNotFound", {"tablename": "nowhere"}),
    Case("RenameTable", "JET_errTransReadOnly", before=READ_ONLY),
    Case("OpenTable", "JET_errInvalidDatabaseId", {"dbid": 999_999}),
    Case("OpenTable", "JET_errInvalidGrbit", {"grbit": ["TablePermitDDL"]}),
    Case("OpenTable", "JET_errInvalidName", {"tablename": "a!"}),
    Case("OpenTable", "JET_errObjectNotFound", {"tablename": "nowhere"}),
    Case("OpenTable", "JET_errTableInUse", {"grbit": ["TableDenyRead"]}, OTHERS),
    Case("OpenTable", "JET_errTableLocked", {"sesid": "$other", "dbid": "$otherDbid"}, OTHER_SESSION),
]
INFOS = [
    *(
        case
        for method in ("GetColumnInfo", "GetTableColumnInfo")
        for case in (
            Case(method, "JET_errColumnNotFound", {"columnname": "nowhere", "infoLevel": 0}),
            Case(method, "JET_errFeatureNotAvailable", {"columnname": "id", "infoLevel": "SysTabCursor"}),
            Case(method, "JET_errInvalidName", {"columnname": "a!", "infoLevel": 0}),
            Case(method, "JET_errInvalidParameter", {"infoLevel": 77}),
        )
    ),
    Case("GetIndexInfo", "JET_errIndexNotFound", {"indexname": "nowhere", "infoLevel": "LCID"}),
    Case("GetTableIndexInfo", "JET_errIndexNotFound", {"indexname": "nowhere", "infoLevel": "LCID"}),
    Case("GetObjectInfo", "JET_errInvalidName", {"objectName": "a!", "infoLevel": 0}),
    Case("GetObjectInfo", "JET_errInvalidParameter", {"infoLevel": 77}),
    Case("GetObjectInfo", "JET_errObjectNotFound", {"objectName": "nowhere", "infoLevel": 0}),
    Case("GetTableInfo", "JET_errFeatureNotAvailable", {"infoLevel": "OLC"}),
    Case("GetTableInfo", "JET_errQueryNotSupported", {"infoLevel": "Rvt"}),
    Case("GetTableInfo", "JET_errInvalidOperation", {"infoLevel": "SpaceUsage"}, TEMPORARY),
    Case("GetTableInfo", "JET_errObjectNotFound", {"infoLevel": "Default"}, INDEXED),
]
CASES = [*COLUMNS, *INDEXES, *TABLES, *INFOS]


@shows_cases(CASES)
async def test_wrong_arguments(tmp_path: Path) -> None:
    assert await failures(tmp_path, CASES) == []
