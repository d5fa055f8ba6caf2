"""Preparing, setting, updating, deleting; values in and out; long values; indexes kept true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit, Prep, RetrieveColumnGrbit, SetColumnGrbit
from jetwire_protocol.data.flags import EnumerateColumnsGrbit as E
from jetwire_protocol.errors import Err, Wrn
from jetwire_server import limits
from jetwire_server.engine import longvalue
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.retrieve import RetInfo, RetrieveColumn
from jetwire_server.engine.session import Session
from jetwire_server.engine.setting import SetColumn, SetInfo
from jetwire_server.engine.tables import TableCreate

from .on_files import engine_on, started
from .tables_for_tests import FIRST, LAST, all_of, get, ids, insert, key, make_table, refuses, replace

COPY, FROM_INDEX = 1, 2
APPEND, OVERWRITE, SIZE, ZERO, SEPARATE, UNIQUE_MV, REVERT = 1, 4, 8, 32, 64, 128, 512


@pytest.fixture
async def cursor(session: Session, dbid: int) -> Cursor:
    return await make_table(session, dbid)


# -- prepare and update -------------------------------------------------------------------------------------------------
async def test_pending_values_are_read_from_the_copy_alone(cursor: Cursor) -> None:
    await insert(cursor, id=1, name="old")
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(ids(cursor)["name"], "new")
    assert (await get(cursor, "name"), await get(cursor, "name", COPY)) == ("old", "new")
    await cursor.update()
    assert await get(cursor, "name") == "new"


async def test_update_after_an_insert_does_not_move(cursor: Cursor) -> None:
    await insert(cursor, id=1)
    await cursor.move(FIRST)
    bookmark = await insert(cursor, id=2)
    assert await get(cursor, "id") == 1
    await cursor.goto_bookmark(bookmark)
    assert await get(cursor, "id") == 2


async def test_a_failed_update_stays_prepared(cursor: Cursor) -> None:
    await insert(cursor, id=1)
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["id"], 1)
    with refuses(Err.KeyDuplicate):
        await cursor.update()
    with refuses(Err.AlreadyPrepared):
        await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["id"], 2)
    await cursor.update()
    with refuses(Err.UpdateNotPrepared):
        await cursor.update()
    with refuses(Err.UpdateNotPrepared):
        await cursor.prepare_update(Prep.Cancel)
    assert await all_of(cursor) == [1, 2]


async def test_a_duplicate_in_a_later_index_leaves_nothing_behind(session: Session, cursor: Cursor) -> None:
    await session.begin_transaction()
    await insert(cursor, id=1, n=5, name="one")
    with refuses(Err.KeyDuplicate):
        await insert(cursor, id=2, n=6, name="ONE")
    await cursor.prepare_update(Prep.Cancel)
    await cursor.set_current_index("byN")
    assert await all_of(cursor) == [1]
    await session.commit_transaction()


async def test_replace_locks_at_once_and_not_outside_a_transaction(
    session: Session, other: Session, other_dbid: int, cursor: Cursor
) -> None:
    await insert(cursor, id=1, name="a")
    theirs = await other.open_table(other_dbid, "t")
    await session.begin_transaction()
    await cursor.prepare_update(Prep.Replace)
    await other.begin_transaction()
    with refuses(Err.WriteConflict):
        await theirs.prepare_update(Prep.Replace)
    await session.rollback()
    await other.rollback()
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(ids(cursor)["name"], "mine")
    await replace(theirs, name="theirs")
    with refuses(Err.WriteConflict):
        await cursor.update()


async def test_a_clash_with_uncommitted_work(session: Session, other: Session, other_dbid: int, cursor: Cursor) -> None:
    theirs = await other.open_table(other_dbid, "t")
    await other.begin_transaction()
    await insert(theirs, id=1, name="a")
    with refuses(Err.KeyDuplicate):
        await insert(cursor, id=1)
    await cursor.prepare_update(Prep.Cancel)
    with refuses(Err.KeyDuplicate):
        await insert(cursor, id=2, name="A")
    await other.commit_transaction()
    await cursor.prepare_update(Prep.Cancel)
    await cursor.move(FIRST)
    await cursor.get_cursor_info()
    await other.begin_transaction()
    await theirs.move(FIRST)
    await theirs.delete()
    with refuses(Err.WriteConflict):
        await cursor.get_cursor_info()
    with refuses(Err.WriteConflict):
        await cursor.delete()


async def test_locks(session: Session, other: Session, other_dbid: int, cursor: Cursor) -> None:
    await insert(cursor, id=1)
    theirs = await other.open_table(other_dbid, "t")
    with refuses(Err.NotInTransaction):
        await cursor.get_lock(1)
    await session.begin_transaction()
    await other.begin_transaction()
    await cursor.get_lock(1)
    await theirs.get_lock(1)
    with refuses(Err.WriteConflict):
        await theirs.get_lock(2)
    with refuses(Err.InvalidGrbit):
        await cursor.get_lock(3)


async def test_copies(session: Session, cursor: Cursor) -> None:
    await insert(cursor, id=1, name="a", n=4, tags="x" * 3000)
    await cursor.prepare_update(Prep.InsertCopy)
    await cursor.set_column(ids(cursor)["id"], 2)
    await cursor.set_column(ids(cursor)["name"], "b")
    copy = await cursor.update()
    refs = await cursor.retrieve_column(ids(cursor)["tags"], 128)
    assert refs.value == b"\x02\0\0\0"
    await cursor.delete()
    await cursor.goto_bookmark(copy)
    assert await get(cursor, "tags") == "x" * 3000
    await cursor.prepare_update(Prep.InsertCopyDeleteOriginal)
    await cursor.set_column(ids(cursor)["id"], 3)
    await cursor.update()
    assert await all_of(cursor) == [3]
    assert await all_of(cursor, "tags") == ["x" * 3000]
    await cursor.move(FIRST)
    await cursor.prepare_update(Prep.ReadOnlyCopy)
    with refuses(Err.UpdateNotPrepared):
        await cursor.set_column(ids(cursor)["n"], 1)


async def test_the_primary_key_does_not_change(cursor: Cursor) -> None:
    await insert(cursor, id=1)
    await cursor.move(FIRST)
    with refuses(Err.RecordPrimaryChanged):
        await replace(cursor, id=2)


async def test_the_version_column_counts(cursor: Cursor) -> None:
    await insert(cursor, id=1)
    await cursor.move(FIRST)
    assert await get(cursor, "version") == 0
    await replace(cursor, n=1)
    await replace(cursor, n=2)
    assert await get(cursor, "version") == 2
    await cursor.prepare_update(Prep.Replace)
    with refuses(Err.InvalidColumnType):
        await cursor.set_column(ids(cursor)["version"], 9)


# -- values -------------------------------------------------------------------------------------------------------------
async def test_null_empty_and_default(session: Session, cursor: Cursor) -> None:
    columns = ids(cursor)
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(columns["id"], 1)
    await cursor.set_column(columns["name"], "")
    await cursor.set_column(columns["code"], "", ZERO)
    await cursor.update()
    await cursor.move(FIRST)
    assert (await get(cursor, "name"), session.take_warning()) == (None, Wrn.ColumnNull)
    assert await get(cursor, "code") == ""
    assert await get(cursor, "size") == 7
    assert await get(cursor, "size", 32) is None
    await replace(cursor, size=None)
    assert await get(cursor, "size") is None
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(columns["size"], None, REVERT)
    await cursor.update()
    assert await get(cursor, "size") == 7


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("id", "x", Err.InvalidParameter),
        ("id", 1 << 31, Err.InvalidParameter),
        ("size", 40_000, Err.InvalidParameter),
        ("name", 5, Err.InvalidParameter),
        ("code", "日本", Err.InvalidParameter),
        ("id", b"\1\2", Err.InvalidBufferSize),
    ],
)
async def test_values_that_do_not_fit(cursor: Cursor, name: str, value: Any, error: Err) -> None:
    await cursor.prepare_update(Prep.Insert)
    with refuses(error):
        await cursor.set_column(ids(cursor)[name], value)


async def test_what_is_too_long_is_cut_with_a_warning(session: Session, cursor: Cursor) -> None:
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["id"], 1)
    await cursor.set_column(ids(cursor)["name"], "n" * 200)
    assert session.take_warning() == Wrn.ColumnMaxTruncated
    await cursor.update()
    assert await all_of(cursor, "name") == ["n" * 127]
    with refuses(Err.ColumnNotFound):
        await cursor.retrieve_column(99)
    with refuses(Err.BadColumnId):
        await cursor.retrieve_column(70_000)


@pytest.mark.parametrize("stored", [False, True])
async def test_unique_among_values_beside_the_row(cursor: Cursor, stored: bool) -> None:
    tags = ids(cursor)["tags"]
    normalized = int(SetColumnGrbit.SetUniqueNormalizedMultiValues)
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["id"], 1)
    await cursor.set_column(tags, "x" * 2_000)
    await cursor.set_column(tags, "\u30ab", 0, SetInfo(itag=0))
    if stored:
        await cursor.update()
        await cursor.move(FIRST)
        await cursor.prepare_update(Prep.Replace)
    with refuses(Err.MultiValuedDuplicate):
        await cursor.set_column(tags, "x" * 2_000, UNIQUE_MV, SetInfo(itag=0))
    with refuses(Err.MultiValuedDuplicateAfterTruncation):
        await cursor.set_column(tags, "X" * 1_999, normalized, SetInfo(itag=0))
    with refuses(Err.MultiValuedDuplicate):  # katakana and hiragana
        await cursor.set_column(tags, "\u304b", normalized, SetInfo(itag=0))
    await cursor.set_column(tags, "X" * 2_000, UNIQUE_MV, SetInfo(itag=0))
    await cursor.set_column(tags, "x" * 2_000, UNIQUE_MV, SetInfo(itag=1))
    await cursor.update()


async def test_normalized_values_beside_one_of_an_odd_number_of_bytes(cursor: Cursor) -> None:
    """Which is no text; and beside a very long one, of which no more is read than a key has."""
    tags, normalized = ids(cursor)["tags"], int(SetColumnGrbit.SetUniqueNormalizedMultiValues)
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["id"], 1)
    await cursor.set_column(tags, b"a\0b", APPEND)
    await cursor.set_column(tags, 2**31 - 1, SIZE, SetInfo(itag=0))
    with refuses(Err.MultiValuedDuplicate):
        await cursor.set_column(tags, "A", normalized, SetInfo(itag=0))
    await cursor.set_column(tags, "ab", normalized, SetInfo(itag=0))
    await cursor.update()


async def test_multi_values(cursor: Cursor) -> None:
    tags = (columns := ids(cursor))["tags"]
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(columns["id"], 1)
    for text in ("red", "green", "blue"):
        await cursor.set_column(tags, text, 0, SetInfo(itag=0))
    with refuses(Err.MultiValuedDuplicate):
        await cursor.set_column(tags, "red", UNIQUE_MV, SetInfo(itag=0))
    await cursor.update()
    await cursor.move(FIRST)
    wanted = RetrieveColumn(tags, itag=0)
    await cursor.retrieve_columns([wanted])
    assert wanted.itag == 3
    with refuses(Err.BadItagSequence):
        await cursor.retrieve_column(tags, 0, RetInfo(itag=0))
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(tags, None, 0, SetInfo(itag=2))  # the rest moves up
    await cursor.set_column(tags, "RED", 0, SetInfo(itag=1))
    await cursor.update()
    assert [(await cursor.retrieve_column(tags, 0, RetInfo(itag=i))).value for i in (1, 2, 3)] == ["RED", "blue", None]
    await cursor.set_current_index("byTags")
    assert await all_of(cursor) == [1, 1]
    await cursor.move(LAST)
    assert (await cursor.retrieve_column(tags, FROM_INDEX)).value == "RED"
    await cursor.move(FIRST)
    got = await cursor.retrieve_column(tags, FROM_INDEX)
    assert (got.value, got.itag) == ("blue", 2)
    await cursor.set_current_index(None)
    await cursor.set_current_index("byTags", 2, 2)
    assert (await cursor.retrieve_column(tags, FROM_INDEX)).itag == 2


async def test_several_columns_at_once(session: Session, cursor: Cursor) -> None:
    columns = ids(cursor)
    await cursor.prepare_update(Prep.Insert)
    entries = [SetColumn(columns["id"], 1), SetColumn(columns["name"], "n" * 200), SetColumn(columns["n"], 3)]
    await cursor.set_columns(entries)
    assert [e.err for e in entries] == [0, Wrn.ColumnMaxTruncated, 0]
    await cursor.update()
    await cursor.move(FIRST)
    found = await cursor.enumerate_columns()
    assert {c.columnid for c in found} == {columns[n] for n in ("id", "name", "n", "sum", "version", "size")}
    compressed = await cursor.enumerate_columns([(columns["n"], ()), (0, ()), (columns["code"], ())], None, 524288)
    assert [(c.err, c.value) for c in compressed] == [(Wrn.ColumnSingleValue, 3), (Wrn.ColumnSkipped, None), (Wrn.ColumnNull, None)]
    (odd,) = await cursor.enumerate_columns([(columns["n"], (1, 0, 2, -1, -(2**63), 2**64 - 1))])
    assert [(v.err, v.value) for v in odd.values] == [(0, 3), (Wrn.ColumnSkipped, None), *[(Wrn.ColumnNull, None)] * 4]


async def test_each_value_that_is_enumerated_has_its_own_status(cursor: Cursor) -> None:
    columns = ids(cursor)
    tags, size = columns["tags"], columns["size"]
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(columns["id"], 1)
    for text in ("near", "far" * 1_000):
        await cursor.set_column(tags, text, 0, SetInfo(itag=0))
    await cursor.update()
    await cursor.move(FIRST)

    async def found(
        asked: list[tuple[int, tuple[int, ...]]], grbit: E, most: int | None = None
    ) -> list[tuple[int, list[tuple[int, object]]]]:
        return [(c.err, [(v.err, v.value) for v in c.values]) for c in await cursor.enumerate_columns(asked, most, int(grbit))]

    assert await found([(tags, ())], E.EnumerateInRecordOnly) == [(0, [(0, "near"), (Wrn.ColumnNotInRecord, None)])]
    assert await found([(tags, ())], E.EnumeratePresenceOnly) == [(Wrn.ColumnPresent, [])]
    assert await found([(tags, (3, 2))], E.EnumeratePresenceOnly) == [(0, [(Wrn.ColumnNull, None), (Wrn.ColumnPresent, None)])]
    assert await found([(tags, (2,))], E(0), 3) == [(0, [(Wrn.ColumnTruncated, b"f\0a")])]
    assert await found([(columns["n"], (1,)), (columns["n"], ())], E(0)) == [(0, [(Wrn.ColumnNull, None)]), (Wrn.ColumnNull, [])]
    assert await found([(size, ()), (size, (1,))], E.EnumerateIgnoreDefault) == [(Wrn.ColumnDefault, []), (0, [(Wrn.ColumnDefault, None)])]
    assert await found([(size, (1,))], E.EnumerateCompressOutput) == [(0, [(0, 7)])]  # only who asks for all values gets one compressed
    with refuses(Err.InvalidGrbit):
        await found([(tags, ())], E.EnumerateTaggedOnly)


# -- indexes ------------------------------------------------------------------------------------------------------------
async def test_entries_follow_the_record(cursor: Cursor) -> None:
    for i in range(1, 6):
        await insert(cursor, id=i, n=10 - i, name=f"n{i}")
    await cursor.set_current_index("byN")
    assert await all_of(cursor) == [5, 4, 3, 2, 1]
    await cursor.move(FIRST)
    await replace(cursor, n=100, name="other")
    assert await all_of(cursor) == [4, 3, 2, 1, 5]
    await cursor.move(FIRST)
    await cursor.delete()
    assert await all_of(cursor) == [3, 2, 1, 5]
    await cursor.set_current_index("byName")
    assert await all_of(cursor, "name") == ["n1", "n2", "n3", "other"]


async def test_an_index_built_on_rows_is_the_one_kept_by_updates(session: Session, dbid: int, cursor: Cursor) -> None:
    for i in range(50):
        await insert(cursor, id=i, n=i * 7 % 11, name=f"n{i}")
    alone = await session.open_table(dbid, "t", 2 | 16)  # DenyRead, PermitDDL: nobody else has it
    await session.create_index(alone, [IndexCreate("late", ("+n", "-id"))])
    await alone.set_current_index("late")
    expected = sorted(range(50), key=lambda i: (i * 7 % 11, -i))
    assert await all_of(alone) == expected
    with refuses(Err.KeyDuplicate):
        await session.create_index(alone, [IndexCreate("bad", ("+n",), CreateIndexGrbit.IndexUnique)])


# -- long values --------------------------------------------------------------------------------------------------------
async def test_a_long_value_in_pieces(session: Session, cursor: Cursor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONG_VALUE_STREAM_BYTES", 50_000)
    data = (columns := ids(cursor))["data"]
    expected = bytearray()
    await session.begin_transaction()
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(columns["id"], 1)
    for i in range(30):
        piece = bytes((i,)) * 7_001
        await cursor.set_column(data, piece, APPEND)
        expected += piece
    await cursor.set_column(data, b"middle", OVERWRITE, SetInfo(100_000))
    expected[100_000:100_006] = b"middle"
    assert (await cursor.retrieve_column(data, COPY, RetInfo(99_990), 30)).value == expected[99_990:100_020]
    await cursor.update()
    await session.commit_transaction()
    await cursor.move(FIRST)
    assert await get(cursor, "data") == bytes(expected)
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(data, 150_000, SIZE)
    await cursor.set_column(data, b"tail", APPEND)
    await cursor.set_column(data, b"head", OVERWRITE)
    await cursor.update()
    expected = bytearray(b"head" + expected[4:150_000] + b"tail")
    got = await cursor.retrieve_column(data, 0, RetInfo(149_999), 3)
    assert (got.value, got.size, session.take_warning()) == (bytes(expected[149_999:150_002]), 5, Wrn.BufferTruncated)
    assert await get(cursor, "data") == bytes(expected)
    assert (await cursor.retrieve_all())[data] == bytes(expected)
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(data, 200_000, SIZE)
    await cursor.update()
    assert await get(cursor, "data") == bytes(expected).ljust(200_000, b"\0")
    with refuses(Err.ColumnNoChunk):
        await cursor.prepare_update(Prep.Replace)
        await cursor.set_column(data, b"x", OVERWRITE, SetInfo(300_000))


async def test_deleting_a_record_takes_its_long_values_along(session: Session, cursor: Cursor) -> None:
    await insert(cursor, id=1, data=b"d" * 100_000)
    await insert(cursor, id=2, tags="t" * 5_000)
    store = session.instance.store
    assert await store.count(cursor.table.long_values) > 10
    for _ in range(2):
        await cursor.move(FIRST)
        await cursor.delete()
    assert await store.count(cursor.table.long_values) == 0


async def test_a_copied_record_shares_until_one_is_written(cursor: Cursor) -> None:
    data = (columns := ids(cursor))["data"]
    await insert(cursor, id=1, data=b"a" * 20_000)
    await cursor.move(FIRST)
    await cursor.prepare_update(Prep.InsertCopy)
    await cursor.set_column(columns["id"], 2)
    await cursor.update()
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(data, b"b", APPEND)
    await cursor.update()
    assert [len(v) for v in await all_of(cursor, "data")] == [20_001, 20_000]


async def test_a_row_too_big_moves_long_values_out(cursor: Cursor) -> None:
    columns = ids(cursor)
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(columns["id"], 1)
    for _ in range(60):
        await cursor.set_column(columns["tags"], "t" * 500, 0, SetInfo(itag=0))
    await cursor.set_column(columns["data"], b"x" * 1000)
    bookmark = await cursor.update()
    await cursor.goto_bookmark(bookmark)
    assert (await cursor.retrieve_column(columns["tags"], 0, RetInfo(itag=60))).value == "t" * 500
    assert await get(cursor, "data") == b"x" * 1000


async def test_text_of_odd_bytes_stays_bytes(cursor: Cursor) -> None:
    await insert(cursor, id=1, tags="abc")
    await cursor.move(FIRST)
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(ids(cursor)["tags"], 5, SIZE)
    await cursor.update()
    assert await get(cursor, "tags") == "abc".encode("utf-16-le")[:5]


# -- numbers ------------------------------------------------------------------------------------------------------------
async def test_escrow(session: Session, other: Session, other_dbid: int, cursor: Cursor) -> None:
    total = ids(cursor)["sum"]
    await insert(cursor, id=1)
    theirs = await other.open_table(other_dbid, "t")
    with refuses(Err.NotInTransaction):
        await cursor.escrow_update(total, 1)
    await session.begin_transaction()
    await other.begin_transaction()
    assert await cursor.escrow_update(total, 5) == 0
    assert await theirs.escrow_update(total, 7) == 5  # the raw value, with what others added
    assert (await get(cursor, "sum"), await get(theirs, "sum")) == (5, 7)
    await session.commit_transaction()
    await other.commit_transaction()
    assert await get(cursor, "sum") == 12
    await session.begin_transaction()
    with refuses(Err.InvalidOperation):
        await cursor.escrow_update(ids(cursor)["n"], 1)
    await cursor.prepare_update(Prep.Replace)
    with refuses(Err.AlreadyPrepared):
        await cursor.escrow_update(total, 1)


@pytest.mark.parametrize(("coltyp", "bits"), [(Coltyp.Long, 32), (Coltyp.LongLong, 64)])
async def test_escrow_sums_beyond_the_column_wrap(tmp_path: Path, coltyp: Coltyp, bits: int) -> None:
    """And what is deleted at zero goes at the zero that is stored."""
    instance = await started(engine_on(tmp_path))
    session = await instance.begin_session()
    dbid = await session.create_database("a.edb")
    at_zero = AddColumnGrbit.ColumnFixed | AddColumnGrbit.ColumnEscrowUpdate | AddColumnGrbit.ColumnDeleteOnZero
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("refs", coltyp, grbit=at_zero, default=0))
    cursor = (await session.create_table_column_index(dbid, TableCreate("t", columns=columns))).cursor
    refs = ids(cursor)["refs"]
    await insert(cursor, id=1, refs=4)
    await insert(cursor, id=2, refs=4)
    most = (1 << bits - 1) - 1
    for where in (FIRST, LAST):
        await cursor.move(where)
        await session.begin_transaction()
        told = [await cursor.escrow_update(refs, most) for _ in range(4)]
        assert [value % (1 << bits) for value in told] == [(4 + i * most) % (1 << bits) for i in range(4)]
        assert await get(cursor, "refs") == 0  # 4 + 4 * (2 ** (bits - 1) - 1)
        if where == LAST:
            await cursor.escrow_update(refs, 7)
        await session.commit_transaction()
    await session.idle()
    await instance.term()
    instance = await started(engine_on(tmp_path))
    session = await instance.begin_session()
    cursor = await session.open_table(await session.open_database("a.edb"), "t")
    await cursor.move(FIRST)
    assert (await get(cursor, "id"), await get(cursor, "refs")) == (2, 7)
    await instance.term()


async def test_delete_on_zero_acts_after_the_commit(session: Session, dbid: int) -> None:
    bits = AddColumnGrbit.ColumnFixed | AddColumnGrbit.ColumnEscrowUpdate | AddColumnGrbit.ColumnDeleteOnZero
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("refs", Coltyp.Long, grbit=bits, default=1))
    made = await session.create_table_column_index(dbid, TableCreate("z", columns=columns, indexes=(IndexCreate("pk", ("+id",), 2),)))
    made.cursor.close()
    cursor = await session.open_table(dbid, "z")
    for i in (1, 2, 3):
        await insert(cursor, id=i)
    refs = ids(cursor)["refs"]
    for i, delta, committed in ((1, -1, True), (2, -1, False), (3, 5, True)):
        await session.begin_transaction()
        key(cursor, i)
        await cursor.seek(1)
        await cursor.escrow_update(refs, delta)
        await (session.commit_transaction() if committed else session.rollback())
    assert await all_of(cursor) == [1, 2, 3]
    await session.idle()
    assert await all_of(cursor) == [2, 3]


async def test_auto_increment_is_never_given_twice(session: Session, other: Session, dbid: int, other_dbid: int) -> None:
    columns = (ColumnCreate("auto", Coltyp.Long, grbit=AddColumnGrbit.ColumnAutoincrement), ColumnCreate("n", Coltyp.Long))
    made = await session.create_table_column_index(dbid, TableCreate("auto", columns=columns))
    made.cursor.close()
    cursor, theirs = await session.open_table(dbid, "auto"), await other.open_table(other_dbid, "auto")
    await session.begin_transaction()
    await insert(cursor, n=1)
    await other.begin_transaction()
    await insert(theirs, n=2)
    await session.rollback()
    await other.commit_transaction()
    cursor = await session.open_table(dbid, "auto")
    await cursor.prepare_update(Prep.Insert)  # burns 3
    await cursor.prepare_update(Prep.Cancel)
    await insert(cursor, n=4)
    assert await all_of(cursor, "auto") == [2, 4]


async def test_a_table_without_a_primary_index_keeps_the_order_of_insertion(session: Session, dbid: int) -> None:
    made = await session.create_table_column_index(dbid, TableCreate("heap", columns=(ColumnCreate("n", Coltyp.Long),)))
    for n in (3, 1, 2):
        await insert(made.cursor, n=n)
    assert await all_of(made.cursor, "n") == [3, 1, 2]
    await made.cursor.move(FIRST)
    assert await made.cursor.get_bookmark() == b"\0\0\0\1"
    with refuses(Err.NoCurrentIndex):
        made.cursor.make_key(1, 1)


async def test_rollback_closes_the_cursors_opened_inside_and_drops_updates(session: Session, dbid: int, cursor: Cursor) -> None:
    await session.begin_transaction()
    inside = await session.open_table(dbid, "t")
    await insert(inside, id=1)
    await cursor.prepare_update(Prep.Insert)
    await session.rollback()
    with refuses(Err.InvalidTableId):
        session.cursor(inside.id)
    with refuses(Err.UpdateNotPrepared):
        await cursor.update()
    assert await all_of(cursor) == []


async def test_a_read_only_cursor_and_transaction(session: Session, dbid: int, cursor: Cursor) -> None:
    await insert(cursor, id=1)
    readonly = await session.open_table(dbid, "t", 4)
    with refuses(Err.PermissionDenied):
        await readonly.prepare_update(Prep.Insert)
    with refuses(Err.PermissionDenied):
        await readonly.delete()
    await session.begin_transaction(1)
    for call in (cursor.prepare_update(Prep.Insert), cursor.delete(), cursor.escrow_update(ids(cursor)["sum"], 1)):
        with refuses(Err.TransReadOnly):
            await call


async def test_record_sizes_add_up(cursor: Cursor) -> None:
    await insert(cursor, id=1, name="abc", data=b"x" * 5000)
    await cursor.move(FIRST)
    size = await cursor.get_record_size()
    assert (size.long_value_data, size.long_values, size.tagged_columns) == (5000, 1, 1)
    assert (await cursor.get_record_size(size, 2)).long_value_data == 10_000


async def test_a_new_key_is_found_by_seek_within_the_transaction(session: Session, cursor: Cursor) -> None:
    await session.begin_transaction()
    await insert(cursor, id=1, name="Straße")
    await cursor.set_current_index("byName")
    key(cursor, "straße")
    await cursor.seek(1)
    assert await get(cursor, "id") == 1


def test_chunks_are_smaller_than_what_streams() -> None:
    assert longvalue.CHUNK * 4 < limits.LONG_VALUE_STREAM_BYTES


async def test_a_replace_without_a_lock_minds_what_the_record_is_not_that_it_was_written(
    session: Session, other: Session, dbid: int, other_dbid: int
) -> None:
    """As the engine's source does, by a checksum of the record: equal values written meanwhile are no conflict, others are."""
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("n", Coltyp.Long), ColumnCreate("code", Coltyp.Text))
    made = await session.create_table_column_index(dbid, TableCreate("plain", columns=columns, indexes=(IndexCreate("pk", ("+id",), 2),)))
    made.cursor.close()
    mine, theirs = await session.open_table(dbid, "plain"), await other.open_table(other_dbid, "plain")
    await insert(mine, id=1, n=5)
    await mine.move(FIRST)
    await theirs.move(FIRST)
    for value, conflicts in ((5, False), (6, True)):
        await mine.prepare_update(Prep.Replace)  # at level 0: without a lock
        await mine.set_column(ids(mine)["code"], f"written over {value}")
        await replace(theirs, n=value)
        if conflicts:
            with refuses(Err.WriteConflict):
                await mine.update()
        else:
            await mine.update()


# -- the ends of ranges, and what stands in the way first ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("coltyp", "most"),
    [
        (Coltyp.Long, 2**31 - 1),
        (Coltyp.LongLong, 2**63 - 1),
        (Coltyp.Currency, 2**63 - 1),
        (Coltyp.UnsignedLongLong, 2**64 - 1),
    ],
)
async def test_the_last_auto_increment_number(session: Session, dbid: int, coltyp: Coltyp, most: int) -> None:
    column = ColumnCreate("n", coltyp, grbit=AddColumnGrbit.ColumnFixed | AddColumnGrbit.ColumnAutoincrement)
    made = await session.create_table_column_index(dbid, TableCreate("numbers", columns=(column,)))
    cursor = made.cursor
    await cursor.prepare_update(Prep.InsertMustSetAutoIncrement)
    with refuses(Err.AutoIncrementNotSet):
        await cursor.update()
    await cursor.set_column(made.columnids[0], most - 1)
    await cursor.update()
    assert await insert(cursor)
    with refuses(Err.OutOfAutoincrementValues):
        await cursor.prepare_update(Prep.Insert)
    with refuses(Err.UpdateNotPrepared):
        await cursor.update()
    assert await all_of(cursor, "n") == [most - 1, most]


async def test_a_number_of_ones_own_needs_a_column_for_it(cursor: Cursor) -> None:
    with refuses(Err.IllegalOperation):
        await cursor.prepare_update(Prep.InsertMustSetAutoIncrement)


async def test_a_record_that_another_holds_is_a_conflict_before_its_key_is_looked_at(
    cursor: Cursor, session: Session, other: Session, other_dbid: int
) -> None:
    await insert(cursor, id=1, name="here")
    theirs = await other.open_table(other_dbid, "t")
    await cursor.move(FIRST)
    await cursor.prepare_update(Prep.ReplaceNoLock)
    await cursor.set_column(ids(cursor)["id"], 2)
    await other.begin_transaction()
    await theirs.move(FIRST)
    await theirs.prepare_update(Prep.Replace)
    with refuses(Err.WriteConflict):
        await cursor.update()
    await other.rollback()
    with refuses(Err.RecordPrimaryChanged):
        await cursor.update()


async def test_a_column_that_must_have_a_value_is_not_reverted_to_none(session: Session, dbid: int) -> None:
    column = ColumnCreate("must", Coltyp.Text, grbit=AddColumnGrbit.ColumnNotNULL)
    made = await session.create_table_column_index(dbid, TableCreate("strict", columns=(column,)))
    await insert(made.cursor, must="value")
    await made.cursor.move(FIRST)
    await made.cursor.prepare_update(Prep.Replace)
    with refuses(Err.NullInvalid):
        await made.cursor.set_column(made.columnids[0], None, REVERT)
    await made.cursor.update()
    assert await get(made.cursor, "must") == "value"


@pytest.mark.parametrize("prep", [Prep.InsertCopyDeleteOriginal, Prep.InsertCopyReplaceOriginal])
async def test_a_record_is_not_moved_over_what_another_wrote_into_it(
    cursor: Cursor, session: Session, other: Session, other_dbid: int, prep: Prep
) -> None:
    await insert(cursor, id=1, n=1, tags="x" * 3_000)
    theirs = await other.open_table(other_dbid, "t")
    await cursor.move(FIRST)
    await cursor.prepare_update(prep)
    await cursor.set_column(ids(cursor)["id"], 2)
    await theirs.move(FIRST)
    await replace(theirs, n=5, tags="y" * 4_000)
    with refuses(Err.WriteConflict):
        await cursor.update()
    assert (await all_of(cursor), await all_of(cursor, "n"), await all_of(cursor, "tags")) == ([1], [5], ["y" * 4_000])
    await session.begin_transaction()
    await cursor.move(FIRST)
    await cursor.prepare_update(prep)  # in a transaction it is locked from here on
    with refuses(Err.WriteConflict):
        await replace(theirs, n=6)
    await cursor.set_column(ids(cursor)["id"], 2)
    await cursor.update()
    await session.commit_transaction()
    assert (await all_of(theirs), await all_of(theirs, "tags")) == ([2], ["y" * 4_000])


async def test_which_copies_get_a_number_of_their_own(session: Session, dbid: int) -> None:
    columns = (
        ColumnCreate("id", Coltyp.Long),
        ColumnCreate("auto", Coltyp.Long, grbit=AddColumnGrbit.ColumnFixed | AddColumnGrbit.ColumnAutoincrement),
    )
    indexes = (IndexCreate("pk", ("+id",), CreateIndexGrbit.IndexPrimary),)
    cursor = (await session.create_table_column_index(dbid, TableCreate("auto", columns=columns, indexes=indexes))).cursor
    await insert(cursor, id=1)
    first = (await all_of(cursor, "auto"))[0]
    for prep, number in ((Prep.InsertCopyReplaceOriginal, first), (Prep.InsertCopyDeleteOriginal, first + 1)):
        await cursor.move(FIRST)
        await cursor.prepare_update(prep)
        await cursor.update()
        assert await all_of(cursor, "auto") == [number]


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("prep", [Prep.Replace, Prep.InsertCopy])
async def test_a_long_value_that_went_while_an_update_was_prepared(
    session: Session, dbid: int, cursor: Cursor, prep: Prep, level: int
) -> None:
    """A row never names a long value that another cursor has let go, and nobody is told of damage."""
    await insert(cursor, id=1, tags="x" * 3_000, data=b"d" * 3_000)
    if level:
        await session.begin_transaction()
    await cursor.move(FIRST)
    await cursor.prepare_update(prep)
    await cursor.set_column(ids(cursor)["id"], 1 if prep == Prep.Replace else 2)
    beside = await session.open_table(dbid, "t")
    await beside.move(FIRST)
    await replace(beside, tags=None)
    for refused in (
        cursor.update(),
        cursor.retrieve_column(ids(cursor)["tags"], int(RetrieveColumnGrbit.RetrieveCopy)),
        cursor.set_column(ids(cursor)["data"], b"more", int(SetColumnGrbit.SetAppendLV)),
        cursor.set_column(ids(cursor)["tags"], "x" * 3_000, UNIQUE_MV, SetInfo(itag=0)),
    ):
        with refuses(Err.WriteConflict):
            await refused
    await cursor.prepare_update(Prep.Cancel)
    assert (await all_of(cursor), await all_of(cursor, "tags"), await all_of(cursor, "data")) == ([1], [None], [b"d" * 3_000])


async def test_a_long_value_that_came_while_an_update_was_prepared(session: Session, dbid: int, cursor: Cursor) -> None:
    """Two cursors of a session: a long value is never left without a record."""
    await insert(cursor, id=1, n=1)
    await session.begin_transaction()
    await cursor.move(FIRST)
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(ids(cursor)["n"], 2)
    beside = await session.open_table(dbid, "t")
    await beside.move(FIRST)
    await replace(beside, data=b"d" * 3_000)
    with refuses(Err.WriteConflict):
        await cursor.update()
    await cursor.prepare_update(Prep.Cancel)
    assert (await all_of(cursor, "data"), await all_of(cursor, "n")) == ([b"d" * 3_000], [1])
