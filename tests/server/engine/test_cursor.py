"""Moving, seeking, ranges, bookmarks: where a cursor is after each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server.engine.bookmarks import RecordPosition
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.navigation import Filter
from jetwire_server.engine.ranges import intersect_indexes
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate

from .tables_for_tests import FIRST, LAST, all_of, get, ids, insert, key, make_table, refuses, replace, walk

EQ, LT, LE, GE, GT, SET_RANGE, CHECK_UNIQUE = 1, 2, 4, 8, 16, 32, 64
INCLUSIVE, UPPER, INSTANT, REMOVE = 1, 2, 4, 8
FULL_START, FULL_END = 256, 512


@pytest.fixture
async def cursor(session: Session, dbid: int) -> Cursor:
    """Records 10, 20 ... 60 with n = 1, 1, 2, 2, 3, 3."""
    made = await make_table(session, dbid)
    for i in range(1, 7):
        await insert(made, id=10 * i, n=(i + 1) // 2, name=f"name{i}")
    return await session.open_table(dbid, "t")


@pytest.mark.parametrize("level", [0, 1])
async def test_an_opened_cursor_is_on_the_first_record(session: Session, cursor: Cursor, level: int) -> None:
    if level:
        await session.begin_transaction()
    assert await get(cursor, "id") == 10
    await cursor.move(1)
    assert await get(cursor, "id") == 20


@pytest.mark.parametrize("level", [0, 1])
async def test_before_first_and_after_last(session: Session, cursor: Cursor, level: int) -> None:
    if level:
        await session.begin_transaction()
    await cursor.move(FIRST)
    with refuses(Err.NoCurrentRecord):
        await cursor.move(-1)
    for call in (cursor.get_bookmark(), cursor.retrieve_column(1), cursor.move(0), cursor.delete(), cursor.retrieve_key()):
        with refuses(Err.NoCurrentRecord):
            await call
    with refuses(Err.NoCurrentRecord):
        await cursor.move(-1)
    await insert(cursor, id=5, n=0, name="zero")
    await cursor.move(1)
    assert await get(cursor, "id") == 5
    await cursor.move(LAST)
    assert await get(cursor, "id") == 60
    with refuses(Err.NoCurrentRecord):
        await cursor.move(1)
    await insert(cursor, id=70, n=9, name="nine")
    await cursor.move(-1)
    assert await get(cursor, "id") == 70
    with refuses(Err.NoCurrentRecord):
        await cursor.move(100)
    await cursor.move(-7)
    assert await get(cursor, "id") == 10


async def test_an_empty_table_has_no_record(session: Session, dbid: int) -> None:
    cursor = await make_table(session, dbid)
    for call in (cursor.move(FIRST), cursor.move(1), cursor.move(0), cursor.move(LAST), cursor.retrieve_all()):
        with refuses(Err.NoCurrentRecord):
            await call


@pytest.mark.parametrize("level", [0, 1])
async def test_a_deleted_record_is_left_in_both_directions(session: Session, cursor: Cursor, level: int) -> None:
    if level:
        await session.begin_transaction()
    key(cursor, 30)
    await cursor.seek(EQ)
    await cursor.delete()
    for call in (cursor.move(0), cursor.retrieve_column(1), cursor.delete(), cursor.prepare_update(2)):
        with refuses(Err.RecordDeleted):
            await call
    await cursor.move(1)
    assert await get(cursor, "id") == 40
    await cursor.move(-1)
    assert await get(cursor, "id") == 20


@pytest.mark.parametrize(
    ("relation", "wanted", "found", "warning"),
    [
        (EQ, 30, 30, 0),
        (GE, 30, 30, 0),
        (GE, 25, 30, Wrn.SeekNotEqual),
        (GT, 30, 40, 0),
        (GT, 25, 30, 0),
        (LE, 30, 30, 0),
        (LE, 35, 30, Wrn.SeekNotEqual),
        (LT, 30, 20, 0),
        (LT, 35, 30, 0),
        (EQ | CHECK_UNIQUE, 30, 30, Wrn.UniqueKey),
    ],
)
async def test_seek(session: Session, cursor: Cursor, relation: int, wanted: int, found: int, warning: int) -> None:
    key(cursor, wanted)
    await cursor.seek(relation)
    assert (await get(cursor, "id"), session.take_warning()) == (found, warning)


async def test_seek_on_equal_keys_takes_the_one_nearest_to_the_start(session: Session, cursor: Cursor) -> None:
    await cursor.set_current_index("byN")
    for relation, found in ((EQ, 30), (GE, 30), (GT, 50), (LE, 30), (LT, 20)):
        key(cursor, 2)
        await cursor.seek(relation)
        assert await get(cursor, "id") == found
    key(cursor, 2)
    await cursor.seek(EQ | CHECK_UNIQUE)
    assert session.take_warning() == 0


async def test_seek_uses_up_the_key_and_a_failed_one_leaves_the_cursor_between_entries(cursor: Cursor) -> None:
    key(cursor, 35)
    with refuses(Err.RecordNotFound):
        await cursor.seek(EQ)
    with refuses(Err.NoCurrentRecord):
        await cursor.retrieve_column(1)
    with refuses(Err.KeyNotMade):
        await cursor.seek(EQ)
    await cursor.move(1)
    assert await get(cursor, "id") == 40
    key(cursor, 35)
    with refuses(Err.RecordNotFound):
        await cursor.seek(EQ)
    await cursor.move(-1)
    assert await get(cursor, "id") == 30
    key(cursor, 30)
    with refuses(Err.InvalidParameter):
        await cursor.seek(0)
    with refuses(Err.InvalidParameter):
        await cursor.seek(EQ | GE)


async def test_navigation_cancels_an_update(cursor: Cursor) -> None:
    bookmark = await cursor.get_bookmark()
    ways: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: cursor.move(0),
        lambda: cursor.move(1),
        lambda: cursor.goto_bookmark(bookmark),
        lambda: cursor.set_current_index(None),
    )
    for navigate in ways:
        await cursor.prepare_update(2)
        await navigate()
        with refuses(Err.UpdateNotPrepared):
            await cursor.update()


# -- ranges -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bound", "grbit", "seen"),
    [
        (40, INCLUSIVE | UPPER, [20, 30, 40]),
        (40, UPPER, [20, 30]),
        (45, UPPER | INCLUSIVE, [20, 30, 40]),
    ],
)
async def test_a_range_ends_moves_forward(session: Session, cursor: Cursor, bound: int, grbit: int, seen: list[int]) -> None:
    await session.begin_transaction()
    key(cursor, 20)
    await cursor.seek(EQ)
    key(cursor, bound)
    await cursor.set_index_range(grbit)
    assert await cursor.index_record_count() == len(seen)
    assert await walk(cursor) == seen
    await cursor.move(-1)
    assert await get(cursor, "id") == seen[-1]
    await cursor.move(FIRST)
    assert await walk(cursor) == [10, 20, 30, 40, 50, 60]


async def test_a_range_backward_limits_only_backward(cursor: Cursor) -> None:
    key(cursor, 40)
    await cursor.seek(EQ)
    key(cursor, 20)
    await cursor.set_index_range(INCLUSIVE)
    assert await walk(cursor, step=-1) == [40, 30, 20]
    await cursor.move(5)
    assert await get(cursor, "id") == 60


async def test_a_range_is_set_even_where_there_is_no_record(cursor: Cursor) -> None:
    key(cursor, 50)
    await cursor.seek(EQ)
    key(cursor, 20)
    with refuses(Err.NoCurrentRecord):
        await cursor.set_index_range(INCLUSIVE | UPPER)
    with refuses(Err.NoCurrentRecord):
        await cursor.move(1)
    key(cursor, 10)
    await cursor.seek(EQ)
    key(cursor, 20)
    await cursor.set_index_range(INCLUSIVE | UPPER)
    await cursor.set_index_range(REMOVE)
    assert len(await walk(cursor)) == 6
    with refuses(Err.InvalidOperation):
        await cursor.set_index_range(REMOVE)
    with refuses(Err.KeyNotMade):
        await cursor.set_index_range(UPPER)


async def test_seek_sets_the_range_of_one_key(cursor: Cursor) -> None:
    await cursor.set_current_index("byN")
    key(cursor, 2)
    await cursor.seek(EQ | SET_RANGE)
    assert await walk(cursor) == [30, 40]


async def test_wildcards(cursor: Cursor) -> None:
    await cursor.set_current_index("down")
    assert await all_of(cursor) == [50, 60, 30, 40, 10, 20]
    key(cursor, 2, last=FULL_START)
    await cursor.seek(GE)
    key(cursor, 2, last=FULL_END)
    await cursor.set_index_range(UPPER | INCLUSIVE)
    assert await walk(cursor) == [30, 40]


async def test_move_key_ne_skips_equal_keys(cursor: Cursor) -> None:
    await cursor.set_current_index("byN")
    assert await walk(cursor, grbit=1) == [10, 30, 50]
    await cursor.move(LAST)
    assert await walk(cursor, step=-1, grbit=1) == [60, 40, 20]


# -- bookmarks, indexes, positions --------------------------------------------------------------------------------------
async def test_bookmarks(cursor: Cursor) -> None:
    key(cursor, 40)
    await cursor.seek(EQ)
    bookmark = await cursor.get_bookmark()
    assert bookmark == await cursor.retrieve_key()
    await cursor.move(FIRST)
    await cursor.goto_bookmark(bookmark)
    assert await get(cursor, "id") == 40
    await cursor.set_current_index("byN", 2)
    assert await get(cursor, "id") == 40
    secondary, primary = await cursor.get_secondary_index_bookmark()
    assert primary == bookmark
    assert secondary == b"\x7f\x80\x00\x00\x02"
    await cursor.move(FIRST)
    await cursor.goto_secondary_index_bookmark(secondary, primary)
    assert await get(cursor, "id") == 40
    await cursor.move(1)
    assert await get(cursor, "id") == 50
    await cursor.goto_bookmark(bookmark)
    await cursor.delete()
    with refuses(Err.RecordDeleted):
        await cursor.goto_bookmark(bookmark)
    with refuses(Err.InvalidBookmark):
        await cursor.goto_bookmark(b"")
    await cursor.set_current_index(None)
    with refuses(Err.NoCurrentIndex):
        await cursor.get_secondary_index_bookmark()


async def test_changing_the_index_moves_or_not(cursor: Cursor) -> None:
    await cursor.move(LAST)
    await cursor.set_current_index("byName")
    assert (cursor.get_current_index(), await get(cursor, "id")) == ("byName", 10)
    await cursor.set_current_index("byN", 1)
    with refuses(Err.NoCurrentRecord):
        await cursor.move(0)
    await cursor.move(1)
    assert await get(cursor, "id") == 10
    with refuses(Err.IndexNotFound):
        await cursor.set_current_index("nowhere")
    with refuses(Err.NoCurrentRecord):
        await cursor.set_current_index("byTags", 2)


async def test_positions(cursor: Cursor) -> None:
    key(cursor, 40)
    await cursor.seek(EQ)
    assert await cursor.get_record_position() == RecordPosition(3, 1, 6)
    await cursor.set_current_index("byN", 2)
    assert await cursor.get_record_position() == RecordPosition(3, 1, 6)  # the second of two equal keys
    await cursor.goto_position(RecordPosition(5, 1, 6))
    assert await get(cursor, "id") == 60
    with refuses(Err.InvalidParameter):
        await cursor.goto_position(RecordPosition(7, 1, 6))


async def test_intersection(session: Session, dbid: int, cursor: Cursor) -> None:
    other = await session.open_table(dbid, "t")
    await cursor.set_current_index("byN")
    key(cursor, 2)
    await cursor.seek(EQ | SET_RANGE)
    await other.set_current_index("byName")
    key(other, "name4")
    await other.seek(GE)
    found = await intersect_indexes([(cursor, 1), (other, 1)])
    assert found == [b"\x7f\x80\x00\x00\x28"]
    with refuses(Err.InvalidParameter):
        await intersect_indexes([(cursor, 1), (cursor, 1)])


async def test_a_filter(cursor: Cursor) -> None:
    cursor.set_cursor_filter([Filter(ids(cursor)["n"], 5, 2)])
    assert await all_of(cursor) == [30, 40, 50, 60]
    with refuses(Err.FilteredMoveNotSupported):
        await cursor.set_current_index("byN")
    cursor.set_cursor_filter([])
    assert len(await all_of(cursor)) == 6


async def test_a_copied_cursor_starts_on_the_first_record_of_the_table(cursor: Cursor) -> None:
    await cursor.set_current_index("byN")
    await cursor.move(LAST)
    copy = await cursor.dup_cursor()
    assert (copy.get_current_index(), await get(copy, "id")) == ("pk", 10)
    assert copy.id != cursor.id


async def test_what_was_read_ahead_is_forgotten_after_a_write(session: Session, dbid: int, cursor: Cursor) -> None:
    other = await session.open_table(dbid, "t")
    await session.begin_transaction()
    await cursor.move(FIRST)
    await cursor.move(1)  # reads ahead
    await insert(other, id=25, n=8, name="between")
    key(other, 40)
    await other.seek(EQ)
    await other.delete()
    assert await walk(cursor) == [20, 25, 30, 50, 60]
    await session.rollback()
    assert await all_of(cursor) == [10, 20, 30, 40, 50, 60]


async def test_a_snapshot_does_not_move_under_a_cursor(session: Session, other: Session, other_dbid: int, cursor: Cursor) -> None:
    theirs = await other.open_table(other_dbid, "t")
    await session.begin_transaction()
    await cursor.move(FIRST)
    await insert(theirs, id=15, n=1, name="later")
    assert await walk(cursor) == [10, 20, 30, 40, 50, 60]
    await session.commit_transaction()
    assert await all_of(cursor) == [10, 15, 20, 30, 40, 50, 60]


async def test_a_replaced_key_moves_the_entry_and_not_the_cursor(session: Session, cursor: Cursor) -> None:
    await session.begin_transaction()
    await cursor.set_current_index("byN")
    await replace(cursor, n=9)
    with refuses(Err.RecordDeleted):
        await cursor.move(0)
    assert await all_of(cursor) == [20, 30, 40, 50, 60, 10]


async def test_errors_carry_names(cursor: Cursor) -> None:
    with pytest.raises(JetError, match="JET_errNoCurrentRecord"):
        await cursor.move(-1)


async def test_a_key_that_no_key_is_above(session: Session, dbid: int) -> None:
    """NULL in a descending index is a key of nothing but 0xff: its range, its neighbours and its position are like any other's."""
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("n", Coltyp.Long))
    indexes = (IndexCreate("pk", ("+id",), CreateIndexGrbit.IndexPrimary), IndexCreate("down", ("-n",)))
    made = await session.create_table_column_index(dbid, TableCreate("nulls", columns=columns, indexes=indexes))
    cursor = made.cursor
    for number, n in enumerate((5, None, None), start=1):
        await insert(cursor, id=number, n=n)
    await cursor.set_current_index("down")
    key(cursor, None)
    await cursor.seek(EQ)
    assert await get(cursor, "id") == 2
    position = await cursor.get_record_position()
    assert (position.entries_lt, position.entries_total) == (1, 3)
    key(cursor, None)
    await cursor.set_index_range(UPPER | INCLUSIVE)
    await cursor.move(1)
    await cursor.set_index_range(REMOVE)
    key(cursor, None)
    with refuses(Err.RecordNotFound):
        await cursor.seek(GT)
    await cursor.move(-1)
    assert await get(cursor, "id") == 3
