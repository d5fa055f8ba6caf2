"""DDL: every documented error of tables, columns and indexes; templates; who may change what while others look."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from jetwire_protocol.data.flags import (
    AddColumnGrbit,
    ColInfo,
    Coltyp,
    Conditionalcolumn,
    CreateIndexGrbit,
    CreateTableColumnIndexGrbit,
    MakeKeyGrbit,
    OpenTableGrbit,
    Prep,
    SeekGrbit,
    TblInfo,
)
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate, UnicodeIndex
from jetwire_server.engine.schema import TupleLimits
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from tests.server.engine.refusals import refused, refused_now
from tests.server.engine.tables_for_tests import all_of, get, insert

A, C, I, O = AddColumnGrbit, CreateTableColumnIndexGrbit, CreateIndexGrbit, OpenTableGrbit  # noqa: E741
LONG = ColumnCreate("", Coltyp.Long)
TEXT = ColumnCreate("", Coltyp.LongText, cp=1200)


@pytest.fixture
async def table(session: Session, dbid: int) -> Cursor:
    made = await session.create_table_column_index(
        dbid,
        TableCreate(
            "t",
            columns=(
                replace(LONG, name="id"),
                replace(LONG, name="n"),
                replace(TEXT, name="title"),
                ColumnCreate("tags", Coltyp.LongText, grbit=int(A.ColumnMultiValued)),
                ColumnCreate("escrow", Coltyp.Long, grbit=int(A.ColumnEscrowUpdate), default=0),
                ColumnCreate("secret", Coltyp.LongBinary, grbit=int(A.ColumnEncrypted)),
            ),
            indexes=(IndexCreate("pk", ("+id",), int(I.IndexPrimary)),),
        ),
    )
    assert made.created == 8
    return made.cursor


# -- names ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["", " lead", "a!b", "a.b", "a[b", "a]b", "a\tb", "x" * 65, "é" * 33])
async def test_names(session: Session, dbid: int, table: Cursor, name: str) -> None:
    await refused(session.create_table(dbid, name), Err.InvalidName)
    await refused(session.open_table(dbid, name), Err.InvalidName)
    await refused(session.rename_table(dbid, "t", name), Err.InvalidName)
    await refused(session.add_column(table, name, LONG), Err.InvalidName)
    await refused(session.rename_column(table, "n", name), Err.InvalidName)
    await refused(session.create_index(table, [IndexCreate(name, ("+n",))]), Err.InvalidName)
    await refused(session.delete_index(table, name), Err.InvalidName)


async def test_names_are_kept_as_written_and_compared_without_case(session: Session, dbid: int) -> None:
    cursor = await session.create_table(dbid, "Künde n")
    await refused(session.create_table(dbid, "KÜNDE N"), Err.TableDuplicate)
    cursor.close()
    cursor = await session.open_table(dbid, "künde n")
    assert await session.get_table_info(cursor, 1) == "Künde n"


# -- tables ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("create", "code"),
    [
        (TableCreate("x", grbit=0x100), Err.InvalidGrbit),
        (TableCreate("x", density=19), Err.DensityInvalid),
        (TableCreate("x", density=101), Err.DensityInvalid),
        (TableCreate("x", pages=-1), Err.InvalidParameter),
        (TableCreate("x", options={"seqSpacehints": {"initialDensity": 5}}), Err.DensityInvalid),
        (TableCreate("x", callback="m!f"), Err.CallbackNotResolved),
        (TableCreate("x", template="t", grbit=int(C.TableCreateTemplateTable)), Err.CannotNestDDL),
        (TableCreate("x", template="t"), Err.DDLNotInheritable),
        (TableCreate("x", template="nowhere"), Err.ObjectNotFound),
        (TableCreate("T"), Err.TableDuplicate),
        (TableCreate("x", columns=(replace(LONG, name="a"), replace(LONG, name="A"))), Err.ColumnDuplicate),
        (TableCreate("x", indexes=(IndexCreate("i", ("+a",)),)), Err.ColumnNotFound),
        (
            TableCreate("x", columns=(replace(LONG, name="a"),), indexes=(IndexCreate("i", ("+a",), 2), IndexCreate("j", ("-a",), 2))),
            Err.IndexHasPrimary,
        ),
        (
            TableCreate("x", columns=(replace(LONG, name="a"),), indexes=(IndexCreate("i", ("+a",)), IndexCreate("I", ("-a",)))),
            Err.IndexDuplicate,
        ),
    ],
)
async def test_create_table_refusals(session: Session, dbid: int, table: Cursor, create: TableCreate, code: Err) -> None:
    await refused(session.create_table_column_index(dbid, create), code)
    if create.name == "x":
        await refused(session.open_table(dbid, "x"), Err.ObjectNotFound)


async def test_a_new_table_belongs_to_its_maker(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    cursor = await session.create_table(dbid, "t")
    await refused(other.open_table(other_dbid, "t"), Err.TableLocked)
    await refused(session.delete_table(dbid, "t"), Err.TableInUse)
    cursor.close()
    theirs = await other.open_table(other_dbid, "t")
    await refused(session.delete_table(dbid, "t"), Err.TableInUse)
    await refused(session.open_table(dbid, "t", int(O.TableDenyRead)), Err.TableInUse)
    await refused(session.open_table(dbid, "t", int(O.TableDenyWrite)), Err.TableInUse)
    theirs.close()
    mine = await session.open_table(dbid, "t", int(O.TableDenyWrite))
    await refused(other.open_table(other_dbid, "t"), Err.TableLocked)
    reader = await other.open_table(other_dbid, "t", int(O.TableReadOnly))
    mine.close()
    reader.close()
    await session.delete_table(dbid, "t")
    await refused(other.open_table(other_dbid, "t"), Err.ObjectNotFound)


async def test_open_table_bits(session: Session, dbid: int, table: Cursor) -> None:
    for wrong in (0x80000, int(O.TablePermitDDL), int(O.TableReadOnly | O.TableUpdatable)):
        if wrong != 0x80000:
            await refused(session.open_table(dbid, "t", wrong), Err.InvalidGrbit)
    await refused(session.open_table(dbid, "t", 0x400), Err.InvalidGrbit)
    await session.open_table(dbid, "t", int(O.TableSequential | O.TablePreread | O.TableNoCache))


async def test_rename_and_delete(session: Session, dbid: int, table: Cursor) -> None:
    (await session.create_table(dbid, "u")).close()
    await refused(session.rename_table(dbid, "t", "U"), Err.TableDuplicate)
    await refused(session.rename_table(dbid, "v", "w"), Err.ObjectNotFound)
    await session.rename_table(dbid, "u", "U")
    await session.rename_table(dbid, "t", "moved")
    assert await session.get_table_info(table, 1) == "moved"
    await refused(session.open_table(dbid, "t"), Err.ObjectNotFound)
    table.close()
    await session.delete_table(dbid, "moved")
    await refused(session.delete_table(dbid, "moved"), Err.ObjectNotFound)
    await session.create_table(dbid, "moved")


async def test_read_only_cursors_change_no_schema(session: Session, dbid: int, table: Cursor) -> None:
    table.close()
    reader = await session.open_table(dbid, "t", int(O.TableReadOnly))
    await refused(session.add_column(reader, "x", LONG), Err.PermissionDenied)
    await refused(session.delete_column(reader, "n"), Err.PermissionDenied)
    await refused(session.delete_index(reader, "pk"), Err.PermissionDenied)


# -- templates ------------------------------------------------------------------------------------------------------------
async def test_a_template_that_is_renamed_has_its_new_name_in_the_tables_derived_from_it(
    session: Session, other: Session, dbid: int
) -> None:
    template = TableCreate("base", columns=(ColumnCreate("id", Coltyp.Long),), grbit=int(C.TableCreateTemplateTable))
    for create in (template, TableCreate("kid", template="BASE"), TableCreate("stranger")):
        (await session.create_table_column_index(dbid, create)).cursor.close()
    kid = await session.open_table(dbid, "kid")
    theirs = await other.open_table(await other.open_database("test.edb"), "kid")

    async def told(cursor: Cursor) -> tuple[Any, Any]:
        info: Any = await cursor.session.get_table_column_info(cursor, "id", ColInfo.Base)
        return await cursor.session.get_table_info(cursor, TblInfo.TemplateTableName), info["baseTableName"]

    await session.begin_transaction()
    await session.rename_table(dbid, "base", "Ground")
    assert (await told(kid), await told(theirs)) == (("Ground", "Ground"), ("base", "base"))
    await session.rollback()
    assert await told(kid) == ("base", "base")
    await session.rename_table(dbid, "Base", "Ground")
    assert (await told(kid), await told(theirs)) == (("Ground", "Ground"), ("Ground", "Ground"))
    catalog = await session.open_table(dbid, "MSysObjects")
    templates = {await get(catalog, "TemplateTable")}
    with suppress(JetError):
        while True:
            await catalog.move(1)
            templates.add(await get(catalog, "TemplateTable"))
    assert templates == {None, "Ground"}
    (await session.create_table_column_index(dbid, TableCreate("second", template="ground"))).cursor.close()


async def test_templates(session: Session, dbid: int) -> None:
    made = await session.create_table_column_index(
        dbid,
        TableCreate(
            "base",
            columns=(replace(LONG, name="id"), replace(TEXT, name="title")),
            indexes=(IndexCreate("pk", ("+id",), 2), IndexCreate("byTitle", ("+title",))),
            grbit=int(C.TableCreateTemplateTable | C.TableCreateNoFixedVarColumnsInDerivedTables),
        ),
    )
    made.cursor.close()
    base = await session.open_table(dbid, "base")
    await refused(session.add_column(base, "x", LONG), Err.FixedDDL)
    await refused(session.delete_column(base, "id"), Err.FixedDDL)
    await refused(session.create_index(base, [IndexCreate("i", ("+id",))]), Err.FixedDDL)
    await refused(session.delete_index(base, "byTitle"), Err.FixedDDL)
    base.close()
    await refused(session.delete_table(dbid, "base"), Err.CannotDeleteTemplateTable)
    derived = (await session.create_table_column_index(dbid, TableCreate("kid", template="BASE"))).cursor
    assert await session.get_table_info(derived, 12) == "base"
    await refused(session.add_column(derived, "x", LONG), Err.FixedInheritedDDL)
    await refused(session.add_column(derived, "ID", TEXT), Err.ColumnDuplicate)
    added = await session.add_column(derived, "note", TEXT)
    await refused(session.delete_column(derived, "title"), Err.FixedInheritedDDL)
    await refused(session.delete_column(derived, "title", 1), Err.ColumnNotFound)
    await refused(session.rename_column(derived, "title", "x"), Err.FixedInheritedDDL)
    await refused(session.delete_index(derived, "byTitle"), Err.FixedInheritedDDL)
    assert derived.table.by_name["note"].id == added
    assert {i.name for i in derived.table.indexes} == {"pk", "byTitle"}
    trees = {i.tree for i in derived.table.indexes} | {derived.table.long_values}
    derived.close()
    base = await session.open_table(dbid, "base")
    assert not trees & {i.tree for i in base.table.indexes}


async def test_fixed_ddl_opens_for_who_has_the_table_alone(session: Session, dbid: int) -> None:
    made = await session.create_table_column_index(dbid, TableCreate("t", grbit=int(C.TableCreateFixedDDL)))
    await session.add_column(made.cursor, "a", LONG)
    made.cursor.close()
    await refused(session.add_column(await session.open_table(dbid, "t"), "b", LONG), Err.FixedDDL)
    permitted = await session.open_table(dbid, "t", int(O.TableDenyRead | O.TablePermitDDL))
    await session.add_column(permitted, "b", LONG)


# -- columns --------------------------------------------------------------------------------------------------------------
ESCROW, AUTO, VERSION, TAGGED = A.ColumnEscrowUpdate, A.ColumnAutoincrement, A.ColumnVersion, A.ColumnTagged


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (ColumnCreate("", 0), Err.InvalidColumnType),
        (ColumnCreate("", Coltyp.SLV), Err.InvalidColumnType),
        (ColumnCreate("", 19), Err.InvalidColumnType),
        (ColumnCreate("", -1), Err.InvalidColumnType),
        (ColumnCreate("", Coltyp.Text, cp=437), Err.InvalidCodePage),
        (ColumnCreate("", Coltyp.Long, grbit=1 << 30), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Binary, max=-1), Err.InvalidParameter),
        (ColumnCreate("", Coltyp.LongText, grbit=int(A.ColumnFixed)), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnFixed | TAGGED)), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnMultiValued)), Err.MultiValuedColumnMustBeTagged),
        (ColumnCreate("", Coltyp.Long, grbit=int(TAGGED | A.ColumnNotNULL)), Err.TaggedNotNULL),
        (ColumnCreate("", Coltyp.LongBinary, grbit=int(A.ColumnNotNULL)), Err.TaggedNotNULL),
        (ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnCompressed)), Err.ColumnCannotBeCompressed),
        (ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnEncrypted)), Err.ColumnCannotBeEncrypted),
        (ColumnCreate("", Coltyp.Short, grbit=int(ESCROW), default=0), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Long, grbit=int(ESCROW)), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Long, grbit=int(ESCROW | TAGGED), default=0), Err.CannotBeTagged),
        (ColumnCreate("", Coltyp.Long, grbit=int(ESCROW | VERSION), default=0), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Long, grbit=int(ESCROW | A.ColumnFinalize | A.ColumnDeleteOnZero), default=0), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnFinalize)), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Short, grbit=int(AUTO)), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Long, grbit=int(AUTO | TAGGED)), Err.CannotBeTagged),
        (ColumnCreate("", Coltyp.Long, grbit=int(AUTO | VERSION)), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.LongLong, grbit=int(VERSION)), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.LongText, grbit=int(A.ColumnUserDefinedDefault)), Err.CallbackNotResolved),
        (ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnUserDefinedDefault)), Err.InvalidGrbit),
        (ColumnCreate("", Coltyp.Long, default="x"), Err.InvalidParameter),
        (ColumnCreate("", Coltyp.Long, default=b"abc"), Err.InvalidBufferSize),
        (ColumnCreate("", Coltyp.UnsignedByte, default=256), Err.InvalidParameter),
    ],
)
async def test_column_refusals(session: Session, table: Cursor, column: ColumnCreate, code: Err) -> None:
    before = table.table.columns
    await refused(session.add_column(table, "new", column), code)
    assert await session.get_table_column_info(table, level=1) is not None
    assert table.table.columns == before


async def test_one_auto_increment_and_one_version_column(session: Session, table: Cursor) -> None:
    for bit in (AUTO, VERSION):
        column = ColumnCreate("", Coltyp.Long, grbit=int(bit))
        await session.add_column(table, f"a{int(bit)}", column)
        await refused(session.add_column(table, f"b{int(bit)}", column), Err.ColumnRedundant)


async def test_columns_that_need_the_table_alone(session: Session, dbid: int, table: Cursor) -> None:
    table.close()
    shared = await session.open_table(dbid, "t")
    await refused(session.add_column(shared, "a", ColumnCreate("", Coltyp.Long, grbit=int(AUTO))), Err.ExclusiveTableLockRequired)
    escrow = ColumnCreate("", Coltyp.Long, grbit=int(ESCROW), default=1)
    await refused(session.add_column(shared, "a", escrow), Err.ExclusiveTableLockRequired)
    await session.begin_transaction()
    unversioned = ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnUnversioned))
    await refused(session.add_column(shared, "a", unversioned), Err.InTransaction)
    await refused(session.rename_column(shared, "n", "m"), Err.InTransaction)


@pytest.mark.parametrize(
    ("coltyp", "grbit", "first", "last"),
    [(Coltyp.Long, 0, 1, 127), (Coltyp.Binary, A.ColumnFixed, 1, 127), (Coltyp.Text, 0, 128, 255), (Coltyp.Text, TAGGED, 256, 64_999)],
)
async def test_ids_say_how_a_column_is_stored(session: Session, dbid: int, coltyp: int, grbit: int, first: int, last: int) -> None:
    cursor = await session.create_table(dbid, "wide")
    spec = ColumnCreate("", coltyp, grbit=int(grbit), max=10)
    assert await session.add_column(cursor, "a", spec) == first
    assert await session.add_column(cursor, "b", spec) == first + 1
    await session.delete_column(cursor, "b")
    assert await session.add_column(cursor, "b", spec) == first + 2
    if last < 256:
        many = tuple(replace(spec, name=f"c{n}") for n in range(last - first + 1))
        made = await session.create_table_column_index(dbid, TableCreate("full", columns=many))
        assert made.columnids == tuple(range(first, last + 1))
        await refused(session.add_column(made.cursor, "more", spec), Err.TooManyColumns)


async def test_sizes_and_defaults(session: Session, table: Cursor) -> None:
    await session.add_column(table, "cut", ColumnCreate("", Coltyp.Text, max=300))
    assert session.take_warning() == Wrn.ColumnMaxTruncated
    await session.add_column(table, "short", ColumnCreate("", Coltyp.Text, max=3, default="abcdef"))
    listed: Any = await session.get_table_column_info(table, level=1)
    info = {row["columnname"]: row for row in listed}
    assert info["cut"]["max"] == 255
    assert info["short"]["defaultValue"] == "abc"
    assert info["id"]["max"] == 4
    assert info["escrow"]["defaultValue"] == 0
    await session.set_column_default_value(table.dbid, "t", "short", "xy")
    base: Any = await session.get_table_column_info(table, "short", 4)
    assert base["baseColumnName"] == "short"
    rows: Any = await session.get_table_column_info(table, level=1)
    assert next(r for r in rows if r["columnname"] == "short")["defaultValue"] == "xy"
    await refused(session.set_column_default_value(table.dbid, "t", "id", 5), Err.ColumnInUse)
    await refused(session.set_column_default_value(table.dbid, "t", "nope", 5), Err.ColumnNotFound)
    await refused(session.set_column_default_value(table.dbid, "t", "escrow", None), Err.NullInvalid)


async def test_the_fixed_columns_must_fit_a_record(session: Session, dbid: int) -> None:
    columns = tuple(ColumnCreate(f"c{n}", Coltyp.Binary, 255, int(A.ColumnFixed)) for n in range(126))
    await refused(session.create_table_column_index(dbid, TableCreate("big", columns=columns)), Err.RecordTooBig)


async def test_delete_and_rename_column(session: Session, table: Cursor) -> None:
    await refused(session.delete_column(table, "id"), Err.ColumnInUse)
    await refused(session.delete_column(table, "nope"), Err.ColumnNotFound)
    await refused(session.rename_column(table, "n", "ID"), Err.ColumnDuplicate)
    await session.rename_column(table, "n", "N")
    await session.rename_column(table, "N", "m")
    await session.delete_column(table, "m")
    assert "m" not in table.table.by_name


# -- indexes --------------------------------------------------------------------------------------------------------------
FRENCH = UnicodeIndex(locale="fr-FR")


@pytest.mark.parametrize(
    ("index", "code"),
    [
        (IndexCreate("i", ()), Err.InvalidParameter),
        (IndexCreate("i", ("n",)), Err.IndexInvalidDef),
        (IndexCreate("i", ("+nope",)), Err.ColumnNotFound),
        (IndexCreate("i", ("+escrow",)), Err.CannotIndex),
        (IndexCreate("i", ("+secret",)), Err.CannotIndexOnEncryptedColumn),
        (IndexCreate("i", ("+n", "-n")), Err.IndexInvalidDef),
        (IndexCreate("i", tuple(f"+c{n}" for n in range(17))), Err.IndexInvalidDef),
        (IndexCreate("PK", ("+n",)), Err.IndexDuplicate),
        (IndexCreate("i", ("+n",), int(I.IndexPrimary)), Err.IndexHasPrimary),
        (IndexCreate("i", ("+n",), int(I.IndexPrimary | I.IndexIgnoreNull)), Err.InvalidGrbit),
        (IndexCreate("i", ("+n",), int(I.IndexCrossProduct | I.IndexNestedTable)), Err.InvalidGrbit),
        (IndexCreate("i", ("+n",), int(I.IndexEmpty)), Err.InvalidGrbit),
        (IndexCreate("i", ("+n",), 1 << 28), Err.InvalidGrbit),
        (IndexCreate("i", ("+n",), int(I.IndexPrimary), conditions=(("n", 1),)), Err.IndexInvalidDef),
        (IndexCreate("i", ("+n",), conditions=(("nope", 1),)), Err.ColumnNotFound),
        (IndexCreate("i", ("+n",), conditions=(("id", 3),)), Err.InvalidGrbit),
        (IndexCreate("i", ("+n",), conditions=(("id", 1),) * 13), Err.IndexInvalidDef),
        (IndexCreate("i", ("+n",), density=10), Err.DensityInvalid),
        (IndexCreate("i", ("+n",), hints={"maintDensity": 10}), Err.DensityInvalid),
        (IndexCreate("i", ("+n",), hints={"growth": 50}), Err.SpaceHintsInvalid),
        (IndexCreate("i", ("+n",), hints={"minExtent": 8192, "maxExtent": 4096}), Err.SpaceHintsInvalid),
        (IndexCreate("i", ("+n",), hints={"grbit": 0x30}), Err.SpaceHintsInvalid),
        (IndexCreate("i", ("+n",), hints={"grbit": 0x8000}), Err.InvalidGrbit),
        (IndexCreate("i", ("+n",), int(I.IndexKeyMost), key_most=254), Err.IndexInvalidDef),
        (IndexCreate("i", ("+n",), int(I.IndexKeyMost), key_most=9000), Err.IndexInvalidDef),
        (IndexCreate("i", ("+n",), var_seg_mac=256), Err.IndexInvalidDef),
        (IndexCreate("i", ("+title",), int(I.IndexUnicode)), Err.IndexInvalidDef),
        (IndexCreate("i", ("+title",), int(I.IndexUnicode), unicode=UnicodeIndex(lcid=0)), Err.InvalidLanguageId),
        (IndexCreate("i", ("+title",), int(I.IndexUnicode), unicode=UnicodeIndex(lcid=0x2BAD)), Err.InvalidLanguageId),
        (IndexCreate("i", ("+title",), int(I.IndexUnicode), unicode=UnicodeIndex(locale="no such")), Err.InvalidLanguageId),
        (IndexCreate("i", ("+title",), int(I.IndexUnicode), unicode=replace(FRENCH, flags=0x80)), Err.InvalidLCMapStringFlags),
        (IndexCreate("i", ("+title",), int(I.IndexTuples | I.IndexPrimary)), Err.IndexTuplesSecondaryIndexOnly),
        (IndexCreate("i", ("+title",), int(I.IndexTuples | I.IndexUnique)), Err.IndexTuplesNonUniqueOnly),
        (IndexCreate("i", ("+n",), int(I.IndexTuples)), Err.IndexTuplesTextColumnsOnly),
        (IndexCreate("i", ("+title",), int(I.IndexTuples), var_seg_mac=100), Err.IndexTuplesVarSegMacNotAllowed),
        (IndexCreate("i", ("+title",), int(I.IndexTupleLimits)), Err.IndexInvalidDef),
        (IndexCreate("i", ("+title",), int(I.IndexTupleLimits), tuples=TupleLimits(min=1)), Err.IndexTuplesInvalidLimits),
        (IndexCreate("i", ("+title",), int(I.IndexTupleLimits), tuples=TupleLimits(min=9, max=8)), Err.IndexTuplesInvalidLimits),
        (IndexCreate("i", ("+title",), int(I.IndexTupleLimits), tuples=TupleLimits(total=40_000)), Err.IndexTuplesInvalidLimits),
    ],
)
async def test_index_refusals(session: Session, table: Cursor, index: IndexCreate, code: Err) -> None:
    await refused(session.create_index(table, [index]), code)
    assert [i.name for i in table.table.indexes] == ["pk"]


async def test_indexes_are_made_all_or_none(session: Session, table: Cursor) -> None:
    good, bad = IndexCreate("a", ("+n",)), IndexCreate("b", ("+nope",))
    error = await refused(session.create_index(table, [good, bad]), Err.ColumnNotFound)
    assert error.data["indexPosition"] == 1
    assert await session.get_table_index_info(table, level=7) == 1
    await refused(session.create_index(table, []), Err.InvalidParameter)
    await session.create_index(table, [good])
    await refused(session.delete_index(table, "b"), Err.IndexNotFound)
    await refused(session.delete_index(table, "pk"), Err.IndexMustStay)
    await session.delete_index(table, "a")
    await session.begin_transaction()
    await refused(session.create_index(table, [replace(good, grbit=int(I.IndexUnversioned))]), Err.InTransaction)


async def test_an_index_may_not_be_taken_from_under_a_cursor(session: Session, dbid: int, table: Cursor) -> None:
    await session.create_index(table, [IndexCreate("a", ("+n",))])
    second = await session.open_table(dbid, "t")
    await second.set_current_index("a")  # the table is empty: that is no error
    await refused(session.delete_index(table, "a"), Err.IndexInUse)
    second.close()
    await session.delete_index(table, "a")


async def test_index_info(session: Session, dbid: int, table: Cursor) -> None:
    spec = IndexCreate(
        "mixed",
        ("-n", "+title"),
        int(I.IndexUnique | I.IndexUnicode | I.IndexKeyMost),
        unicode=UnicodeIndex(lcid=0x40C, flags=0x30001),
        key_most=1000,
        var_seg_mac=500,
        conditions=(("tags", int(Conditionalcolumn.IndexColumnMustBeNull)),),
        density=90,
        hints={"growth": 150, "maintDensity": 90},
    )
    tuples = IndexCreate("tuples", ("+title",), int(I.IndexTupleLimits), tuples=TupleLimits(4, 8, 100, 2, 1))
    await session.create_index(table, [spec, tuples])
    made = await session.get_table_index_info(table, "mixed", 13)
    assert made["spaceHints"] == {"growth": 150, "maintDensity": 90}
    assert made["key"] == ["-n", "+title"]
    assert made["unicodeIndex"]["localeName"] == "fr-FR"
    assert made["conditionalColumns"] == [{"name": "tags", "grbit": 1}]
    assert (made["keyMost"], made["varSegMac"], made["density"]) == (1000, 500, 90)
    levels = {level: await session.get_index_info(dbid, "t", "mixed", level) for level in (5, 6, 8, 10, 14)}
    assert levels == {5: 90, 6: 0x40C, 8: 500, 10: 1000, 14: "fr-FR"}
    assert (await session.get_table_index_info(table, "tuples", 13))["tupleLimits"]["increment"] == 2
    rows = await session.get_index_info(dbid, "t")
    assert [(r["indexname"], r["columnIndex"], r["columnname"]) for r in rows] == [
        ("pk", 0, "id"),
        ("mixed", 0, "n"),
        ("mixed", 1, "title"),
        ("tuples", 0, "title"),
    ]
    first = await session.get_table_index_info(table, "mixed", 9)
    await session.delete_index(table, "mixed")
    await session.create_index(table, [spec])
    assert await session.get_table_index_info(table, "mixed", 9) != first
    for level, code in ((3, Err.FeatureNotAvailable), (99, Err.InvalidParameter)):
        await refused(session.get_index_info(dbid, "t", "mixed", level), code)
    await refused(session.get_index_info(dbid, "t", "nope", 6), Err.IndexNotFound)


async def test_tuple_limits_come_from_the_parameters(engine: Any) -> None:
    instance = await engine.create_instance("tuples")
    instance.set_parameter(Param.IndexTuplesLengthMin, 5)
    await instance.init()
    session = await instance.begin_session()
    cursor = await session.create_table(await session.create_database("a.edb"), "t")
    await session.add_column(cursor, "title", TEXT)
    await session.create_index(cursor, [IndexCreate("i", ("+title",), int(I.IndexTuples))])
    assert cursor.table.indexes[0].tuples == TupleLimits(min=5)


# -- objects --------------------------------------------------------------------------------------------------------------
async def test_object_info(session: Session, dbid: int, table: Cursor) -> None:
    info: Any = await session.get_object_info(dbid, 1, "T", 0)
    assert info["objtyp"] == 1
    assert info["records"] == 0
    await refused(session.get_object_info(dbid, 1, "nope", 0), Err.ObjectNotFound)
    await refused(session.get_object_info(dbid, 9, "t", 0), Err.InvalidParameter)
    await refused(session.get_object_info(dbid, 1, "t", 3), Err.FeatureNotAvailable)
    objects: Any = await session.get_object_info(dbid, level=1)
    names = [row["objectname"] for row in objects]
    assert "t" in names


async def test_table_info_levels(session: Session, table: Cursor) -> None:
    assert await session.get_table_info(table, 2) == table.dbid
    assert await session.get_table_info(table, 9) == [1, 80]
    assert await session.get_table_info(table, 10) >= 1
    await refused(session.get_table_info(table, 3), Err.FeatureNotAvailable)
    await refused(session.get_table_info(table, 99), Err.InvalidParameter)


# -- concurrency ----------------------------------------------------------------------------------------------------------
async def test_schema_is_seen_as_of_the_snapshot(session: Session, other: Session, dbid: int, other_dbid: int, table: Cursor) -> None:
    table.close()
    mine, theirs = await session.open_table(dbid, "t"), await other.open_table(other_dbid, "t")
    await other.begin_transaction()
    assert await other.get_table_index_info(theirs, level=7) == 1
    await session.begin_transaction()
    await session.create_index(mine, [IndexCreate("a", ("+n",))])
    assert await session.get_table_index_info(mine, level=7) == 2
    assert await other.get_table_index_info(theirs, level=7) == 1
    await refused(other.add_column(theirs, "x", LONG), Err.WriteConflict)
    await session.commit_transaction()
    assert await other.get_table_index_info(theirs, level=7) == 1
    await refused(other.add_column(theirs, "x", LONG), Err.WriteConflict)
    await other.rollback()
    assert await other.get_table_index_info(theirs, level=7) == 2
    await other.add_column(theirs, "x", LONG)


@pytest.mark.parametrize("looks", ["at the table", "at its indexes", "at its columns", "in vain at its schema"])
async def test_who_looked_at_a_new_description_writes_by_it(
    session: Session, other: Session, dbid: int, other_dbid: int, table: Cursor, looks: str
) -> None:
    """Another's index has all that is written from then on, whatever this cursor was told of the table before."""
    table.close()
    mine, theirs = await session.open_table(dbid, "t"), await other.open_table(other_dbid, "t")
    await insert(mine, id=1, n=1)
    await other.create_index(theirs, [IndexCreate("a", ("+n",), int(I.IndexUnique))])
    if looks == "at the table":
        await session.get_table_info(mine)
    elif looks == "at its indexes":
        await session.get_table_index_info(mine)
    elif looks == "at its columns":
        await session.get_table_column_info(mine, "n")
    else:
        await other.begin_transaction()
        await insert(theirs, id=2, n=2)
        await refused(session.add_column(mine, "x", LONG), Err.WriteConflict)
        await other.commit_transaction()
    await insert(mine, id=7, n=77)
    await theirs.set_current_index("a")
    theirs.make_key(77, int(MakeKeyGrbit.NewKey))
    await theirs.seek(int(SeekGrbit.SeekEQ))
    assert await get(theirs, "id") == 7


async def test_two_makers_of_one_table(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    await session.begin_transaction()
    await other.begin_transaction()
    await session.create_table(dbid, "t")
    await refused(other.create_table(other_dbid, "T"), Err.TableDuplicate)
    await session.rollback()
    await other.create_table(other_dbid, "T")
    refused_now(lambda: session.cursor(10**9), Err.InvalidTableId)


async def test_numbers_of_a_new_auto_increment_column_go_on_beyond_those_it_gave_to_the_rows(session: Session, dbid: int) -> None:
    """Also where the table had one before, whose numbers have not come so far."""
    numbers = ColumnCreate("numbers", Coltyp.Long, grbit=A.ColumnAutoincrement)
    made = await session.create_table_column_index(dbid, TableCreate("t", columns=(numbers, replace(LONG, name="n"))))
    cursor = made.cursor
    await cursor.prepare_update(Prep.Insert)
    await cursor.update()
    await session.delete_column(cursor, "numbers")
    for _ in range(4):
        await cursor.prepare_update(Prep.Insert)
        await cursor.update()
    column = await session.add_column(cursor, "again", numbers)
    await cursor.prepare_update(Prep.Insert)
    await cursor.update()
    assert len(set(await all_of(cursor, "again"))) == 6
    assert cursor.table.by_name["again"].id == column


@pytest.mark.parametrize("given", ["a\x81\u20ac", b"a\x81\x80"])
async def test_a_default_reads_as_a_value_that_was_set_does(session: Session, dbid: int, given: str | bytes) -> None:
    """Also with the bytes that code page 1252 leaves open."""
    made = await session.create_table_column_index(dbid, TableCreate("t", columns=(ColumnCreate("c", Coltyp.Text, default=given),)))
    for value in (None, given):
        await made.cursor.prepare_update(Prep.Insert)
        if value is not None:
            await made.cursor.set_column(made.columnids[0], value)
        await made.cursor.update()
    assert await all_of(made.cursor, "c") == ["a\x81\u20ac"] * 2
