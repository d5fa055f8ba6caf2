"""Indexes over columns of many or of long values: which value an entry is of, and which entries a record has."""

from __future__ import annotations

from typing import Any

import pytest

from jetwire_protocol.data.flags import (
    AddColumnGrbit,
    Coltyp,
    Conditionalcolumn,
    CreateIndexGrbit,
    CreateTableColumnIndexGrbit,
    RetrieveColumnGrbit,
    SetCurrentIndexGrbit,
)
from jetwire_protocol.errors import Err
from jetwire_server import limits
from jetwire_server.engine import longvalue
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate, UnicodeIndex
from jetwire_server.engine.retrieve import RetInfo
from jetwire_server.engine.schema import TupleLimits
from jetwire_server.engine.session import Session
from jetwire_server.engine.setting import SetInfo
from jetwire_server.engine.tables import TableCreate
from tests.server.engine.refusals import refused

from .tables_for_tests import FIRST, get, ids, insert

I = CreateIndexGrbit  # noqa: E741
MANY = int(AddColumnGrbit.ColumnTagged | AddColumnGrbit.ColumnMultiValued)
FROM_INDEX = int(RetrieveColumnGrbit.RetrieveFromIndex | RetrieveColumnGrbit.RetrieveTag)
NO_MOVE = int(SetCurrentIndexGrbit.NoMove)
COLUMNS = (
    ColumnCreate("id", Coltyp.Long),
    ColumnCreate("tags", Coltyp.LongText, cp=1252, grbit=MANY),
    ColumnCreate("codes", Coltyp.LongText, cp=1252, grbit=MANY),
    ColumnCreate("blob", Coltyp.LongBinary),
)


async def made(session: Session, dbid: int, *indexes: IndexCreate) -> Cursor:
    every = (IndexCreate("pk", ("+id",), int(I.IndexPrimary)), *indexes)
    return (await session.create_table_column_index(dbid, TableCreate("t", columns=COLUMNS, indexes=every))).cursor


async def put(cursor: Cursor, number: int, tags: list[str], codes: list[str], blob: bytes = b"") -> None:
    columns = ids(cursor)
    await cursor.prepare_update(0)
    await cursor.set_column(columns["id"], number)
    for name, values in (("tags", tags), ("codes", codes)):
        for value in values:
            await cursor.set_column(columns[name], value, 0, SetInfo(0, 0))
    await cursor.set_column(columns["blob"], blob)
    await cursor.update()


async def along(cursor: Cursor, index: str, name: str, grbit: int = FROM_INDEX) -> list[tuple[object, int]]:
    """Of each entry of an index, the value it has of a column, and that value's number."""
    await cursor.set_current_index(index)
    out = []
    for step in range(await cursor.index_record_count()):
        await cursor.move(1 if step else FIRST)
        got = await cursor.retrieve_column(ids(cursor)[name], grbit)
        out.append((got.value, got.itag))
    return out


async def test_each_entry_knows_which_of_a_columns_values_it_is_of(session: Session, dbid: int) -> None:
    cursor = await made(
        session,
        dbid,
        IndexCreate("unique", ("+tags",), int(I.IndexUnique)),
        IndexCreate("nested", ("+tags", "+codes"), int(I.IndexNestedTable)),
        IndexCreate("cross", ("+codes", "-tags"), int(I.IndexCrossProduct)),
        IndexCreate("pieces", ("+tags",), int(I.IndexTuples | I.IndexTupleLimits), tuples=TupleLimits(4, 4)),
        IndexCreate("long", ("+tags", "+blob")),
    )
    await put(cursor, 1, ["pears", "apples"], ["y", "x"], b"\1" * 5_000)
    assert await along(cursor, "unique", "tags") == [("apples", 2), ("pears", 1)]
    assert await along(cursor, "nested", "tags") == [("apples", 2), ("pears", 1)]
    assert await along(cursor, "nested", "codes") == [("x", 2), ("y", 1)]
    assert await along(cursor, "cross", "codes") == [("x", 2), ("x", 2), ("y", 1), ("y", 1)]
    assert await along(cursor, "cross", "tags") == [("pears", 1), ("apples", 2)] * 2
    assert await along(cursor, "long", "tags") == [("apples", 2), ("pears", 1)]
    pieces = await along(cursor, "pieces", "tags", FROM_INDEX | int(RetrieveColumnGrbit.RetrieveTuple))
    assert pieces == [("apples", 2), ("pears", 1), ("pears", 1), ("apples", 2), ("apples", 2)]  # appl, ears, pear, ples, pple


async def test_an_entry_that_has_run_out_of_a_columns_values(session: Session, dbid: int) -> None:
    """In a key that is full it cannot be seen; the entry has NULL there all the same, and not the column's first value."""
    cursor = await made(session, dbid, IndexCreate("nested", ("+tags", "+codes"), int(I.IndexNestedTable)))
    await put(cursor, 1, ["a", "b" * 300], ["x"])
    assert await along(cursor, "nested", "codes") == [("x", 1), (None, 1)]


async def test_nothing_is_read_behind_a_text_whose_end_is_not_certain(session: Session, dbid: int) -> None:
    """Upper-cased Unicode ends with 0000; a text may have U+0000 in it."""
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("text", Coltyp.Text, cp=1200), ColumnCreate("n", Coltyp.Long))
    upper = UnicodeIndex(0, "en-US", 0x200)
    indexes = (
        IndexCreate("pk", ("+id", "+text", "+n"), int(I.IndexPrimary | I.IndexUnicode), unicode=upper),
        IndexCreate("byText", ("+id", "+text", "+n"), int(I.IndexUnicode), unicode=upper),
    )
    cursor = (await session.create_table_column_index(dbid, TableCreate("t", columns=columns, indexes=indexes))).cursor
    await insert(cursor, id=7, text="a\0\x7f", n=3)
    for index in ("pk", "byText"):
        await cursor.set_current_index(index)
        for grbit in (RetrieveColumnGrbit.RetrieveFromIndex, RetrieveColumnGrbit.RetrieveFromPrimaryBookmark):
            assert [await get(cursor, name, int(grbit)) for name in ("id", "text", "n")] == [7, "a\0\x7f", 3]


async def test_a_key_reads_no_more_of_a_long_text_than_it_has_room_for(
    session: Session, dbid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = I.IndexKeyMost
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("text", Coltyp.LongText, cp=1200))
    indexes = (IndexCreate("pk", ("+id",), int(I.IndexPrimary)), IndexCreate("byText", ("-text", "+id"), int(wide), key_most=300))
    cursor = (await session.create_table_column_index(dbid, TableCreate("t", columns=columns, indexes=indexes))).cursor
    read = []
    one_by_one = longvalue.read

    async def counted(*args: Any) -> bytes:
        read.append(len(data := await one_by_one(*args)))
        return data

    monkeypatch.setattr(longvalue, "read", counted)
    for number, text in enumerate(("b" * 100_000, "\0" * 2_000 + "a" * 3_000, "\0" * 2_000 + "c")):  # U+0000 weighs nothing
        await insert(cursor, id=number, text=text)
    assert sum(read) < 20_000
    await cursor.set_current_index("byText")
    assert [value for value, _ in await along(cursor, "byText", "id")] == [2, 0, 1]


async def test_a_piece_of_an_entrys_value(session: Session, dbid: int) -> None:
    cursor = await made(session, dbid, IndexCreate("byTag", ("+tags",)))
    await put(cursor, 1, ["pears", "apples"], [])
    await cursor.set_current_index("byTag")
    got = await cursor.retrieve_column(ids(cursor)["tags"], FROM_INDEX, RetInfo(2, 1), 3)
    assert (got.value, got.size, got.itag) == (b"ple", 4, 2)


@pytest.mark.parametrize(("itag", "tags", "found"), [(3, ["a", "A", "b"], ("b", 3)), (2, ["b", "a"], ("a", 2)), (2, ["b", "B"], ("b", 1))])
async def test_no_move_goes_to_the_value_of_that_number(
    session: Session, dbid: int, itag: int, tags: list[str], found: tuple[str, int]
) -> None:
    cursor = await made(session, dbid, IndexCreate("cross", ("+tags", "+codes"), int(I.IndexCrossProduct)), IndexCreate("plain", ("+id",)))
    await put(cursor, 1, tags, ["x", "y"])
    await cursor.move(FIRST)
    await cursor.set_current_index("cross", NO_MOVE, itag)
    got = await cursor.retrieve_column(ids(cursor)["tags"], FROM_INDEX)
    assert (got.value, got.itag) == found
    assert (await cursor.retrieve_column(ids(cursor)["codes"], FROM_INDEX)).value == "x"
    await cursor.set_current_index("plain", NO_MOVE, itag)  # of no column that has many values: nothing to choose from
    await refused(cursor.set_current_index("cross", NO_MOVE, 4), Err.BadItagSequence)


async def test_a_long_primary_key_cuts_no_other_index(session: Session, dbid: int) -> None:
    """What the primary key needs of a long value is not all that another index needs of it."""
    text = ColumnCreate("text", Coltyp.LongText, cp=1252)
    indexes = (
        IndexCreate("pk", ("+text",), int(I.IndexPrimary)),
        IndexCreate("pieces", ("+text",), int(I.IndexTuples | I.IndexTupleLimits), tuples=TupleLimits(3, 3)),
    )
    cursor = (await session.create_table_column_index(dbid, TableCreate("t", columns=(text,), indexes=indexes))).cursor
    await insert(cursor, text="".join(f"{n:04}" for n in range(500)))
    await cursor.move(FIRST)
    await cursor.set_current_index("pieces")
    count = await cursor.index_record_count()
    await cursor.delete()
    await cursor.set_current_index("pieces")
    assert count == len({f"{''.join(f'{n:04}' for n in range(500))}"[i : i + 3] for i in range(1998)})
    await refused(cursor.move(FIRST), Err.NoCurrentRecord)


async def test_a_cross_product_has_its_bound(session: Session, dbid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cursor = await made(session, dbid, IndexCreate("cross", ("+codes", "-tags"), int(I.IndexCrossProduct)))
    many = [f"{n:03}" for n in range(600)]
    await refused(put(cursor, 1, many, many), Err.VersionStoreOutOfMemory)
    cursor.cancel_update()
    monkeypatch.setattr(limits, "KEYS_OF_A_RECORD_MAX", 60)
    await put(cursor, 2, many[:30], many[:2])
    await put(cursor, 3, many[:60], [])
    await session.delete_index(cursor, "cross")
    await put(cursor, 4, many[:31], many[:2])
    await refused(
        session.create_index(cursor, [IndexCreate("cross", ("+codes", "-tags"), int(I.IndexCrossProduct))]), Err.VersionStoreOutOfMemory
    )
    await session.create_index(cursor, [IndexCreate("nested", ("+codes", "-tags"), int(I.IndexNestedTable))])


@pytest.mark.parametrize("must_be", [Conditionalcolumn.IndexColumnMustBeNull, Conditionalcolumn.IndexColumnMustBeNonNull])
async def test_a_sum_that_was_null_counts_for_conditions(session: Session, dbid: int, must_be: int) -> None:
    """The first escrow update of a NULL makes it a value."""
    sum_of = ColumnCreate("sum", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnFixed | AddColumnGrbit.ColumnEscrowUpdate), default=0)
    index = IndexCreate("where", ("+id",), conditions=(("sum", int(must_be)),))
    cursor = (await session.create_table_column_index(dbid, TableCreate("t", columns=(*COLUMNS, sum_of), indexes=(index,)))).cursor
    await insert(cursor, id=1, sum=None)
    for is_null in (True, False):
        await cursor.set_current_index("where")
        assert await cursor.index_record_count() == (is_null == (must_be == Conditionalcolumn.IndexColumnMustBeNull))
        await cursor.set_current_index(None)
        await session.begin_transaction()
        await cursor.escrow_update(ids(cursor)["sum"], 5)
        await session.commit_transaction()
    await cursor.move(FIRST)
    await cursor.delete()
    await cursor.set_current_index("where")
    assert await cursor.index_record_count() == 0


async def test_a_template_tables_defaults_stay(session: Session, dbid: int) -> None:
    columns = ColumnCreate("id", Coltyp.Long), ColumnCreate("n", Coltyp.Long, default=5)
    template = TableCreate("tm", columns=columns, grbit=int(CreateTableColumnIndexGrbit.TableCreateTemplateTable))
    (await session.create_table_column_index(dbid, template)).cursor.close()
    (await session.create_table_column_index(dbid, TableCreate("t", "tm"))).cursor.close()
    await refused(session.set_column_default_value(dbid, "tm", "n", 9), Err.FixedDDL)
    await refused(session.set_column_default_value(dbid, "t", "n", 9), Err.ColumnNotFound)
