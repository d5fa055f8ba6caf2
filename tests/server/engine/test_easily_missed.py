"""What is easily missed about the engine: lines 11 to 25 of the list of such things, and those it adds at its end.

| line | what is easily missed |
| --- | --- |
| 11 | EndSession undoes and closes everything; ForceSessionClosed means nothing; a context left set is in its way |
| 12 | seven levels; an inner commit makes nothing durable, lazily or not; waiting for commits needs no transaction and no other bit |
| 13 | a rollback closes the cursors of its level, which cannot be closed again |
| 14 | the first writer wins at once, against later commits too, and only leaving the whole transaction helps |
| 15 | an insert that clashes with anything of another session's is a duplicate, not a conflict |
| 16 | Replace locks when it is prepared, except outside a transaction; Insert uses up its number |
| 17 | a failed Update stays prepared until it is cancelled, which navigation and Delete do without a word |
| 18 | Update does not move the cursor; what is pending is read with RetrieveCopy alone |
| 19 | Seek uses up key, range and update even when it fails, and then stands between entries; it must be told a relation |
| 20 | a range is set even where there is no record; it limits one direction and ends with any navigation but a relative Move |
| 21 | keys are cut at 255 bytes without a word: false duplicates and matches; DisallowTruncation says KeyTruncated |
| 22 | EscrowUpdate answers the stored sum, RetrieveColumn one's own; Replace loses a delta; DeleteOnZero acts after the commit |
| 23 | a value set to NULL goes and the rest moves up; value number 0 appends, counts, or is an error, by the call |
| 24 | temporary tables drop duplicates, know no defaults, numbers or multi-values, and take no rows once they are read |
| 25 | an advanced parameter is taken and forgotten while EnableAdvanced is off |
| also | SetOverwriteLV overwrites a range; DDL moves the cursor; pages here, bytes there; ObjectInfoGrbit as in the header |

Lines 1 to 10 are the snapshots': `tests/server/snapshot/test_easily_missed.py`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from jetwire_protocol.data.flags import (
    AddColumnGrbit,
    Coltyp,
    CommitTransactionGrbit,
    CreateIndexGrbit,
    DbInfo,
    EndSessionGrbit,
    ObjectinfoGrbit,
    OpenTempTableGrbit,
    Prep,
    RetrieveColumnGrbit,
    SeekGrbit,
    SetColumnGrbit,
    SetIndexRangeGrbit,
)
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.fileinfo import database_file_info
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.retrieve import RetInfo, RetrieveColumn
from jetwire_server.engine.session import Session
from jetwire_server.engine.setting import SetInfo
from jetwire_server.engine.tables import TableCreate
from jetwire_server.engine.temptable import TempTableCreate, open_temp_table
from tests.server.engine.refusals import refused, refused_now
from tests.support.hosted import Hosted

from .tables_for_tests import FIRST, LAST, all_of, get, ids, insert, key, make_table, refuses, replace, walk

C, G, I = CommitTransactionGrbit, SeekGrbit, CreateIndexGrbit  # noqa: E741
COPY = int(RetrieveColumnGrbit.RetrieveCopy)
INCLUSIVE, UPPER = int(SetIndexRangeGrbit.RangeInclusive), int(SetIndexRangeGrbit.RangeUpperLimit)
EQ, GE = int(G.SeekEQ), int(G.SeekGE)


@pytest.fixture
async def cursor(session: Session, dbid: int) -> Cursor:
    """Records 10, 20, 30, 40 with n = 1, 1, 2, 2."""
    made = await make_table(session, dbid)
    for i in range(1, 5):
        await insert(made, id=10 * i, n=(i + 1) // 2, name=f"name{i}")
    await made.move(FIRST)
    return made


@pytest.fixture
async def theirs(other: Session, other_dbid: int, cursor: Cursor) -> Cursor:
    return await other.open_table(other_dbid, "t")


# -- sessions and transactions ------------------------------------------------------------------------------------------
async def test_line_11_end_session_undoes_and_closes_everything(
    instance: Instance, session: Session, theirs: Cursor, cursor: Cursor
) -> None:
    await session.begin_transaction()
    await session.begin_transaction()
    await cursor.delete()
    sort, _ = await open_temp_table(session, TempTableCreate((ColumnCreate("", Coltyp.Long),)))
    await session.end_session(int(EndSessionGrbit.ForceSessionClosed))
    assert await all_of(theirs) == [10, 20, 30, 40]
    await theirs.move(FIRST)
    await theirs.delete()  # and no lock is left
    for gone in (cursor, sort):
        refused_now(partial(instance.cursor, gone.id), Err.InvalidTableId)
    await refused(session.end_session(), Err.InvalidSesid)


async def test_line_11_force_closes_no_session_whose_context_is_set(session: Session) -> None:
    owner = object()
    session.owner = owner
    session.set_session_context(5, owner)
    await refused(session.end_session(), Err.SessionInUse)
    await refused(session.end_session(int(EndSessionGrbit.ForceSessionClosed)), Err.SessionInUse)


async def test_line_12_levels_and_what_an_inner_commit_is_worth(instance: Instance, session: Session, cursor: Cursor) -> None:
    for _ in range(7):
        await session.begin_transaction()
    await refused(session.begin_transaction(), Err.TransTooDeep)
    await cursor.delete()
    before = session.stats.log_records
    for level in range(6):
        await session.commit_transaction(int(C.CommitLazyFlush) if level % 2 else 0)
    assert session.stats.log_records == before
    assert session.level == 1
    await session.rollback()
    assert await all_of(cursor) == [10, 20, 30, 40]


async def test_line_12_waiting_for_commits(session: Session) -> None:
    for wait in (int(C.WaitLastLevel0Commit), int(C.WaitAllLevel0Commit)):
        await session.commit_transaction(wait)
        await refused(session.commit_transaction(wait | int(C.CommitLazyFlush)), Err.InvalidGrbit)
    await refused(session.commit_transaction(int(C.WaitLastLevel0Commit | C.WaitAllLevel0Commit)), Err.InvalidGrbit)
    await refused(session.commit_transaction(), Err.NotInTransaction)


async def test_line_13_rollback_closes_the_cursors_of_its_level(session: Session, dbid: int, cursor: Cursor) -> None:
    await session.begin_transaction()
    outer = await session.open_table(dbid, "t")
    await session.begin_transaction()
    inner = await session.open_table(dbid, "t")
    await session.rollback()
    await refused(session.close_table(inner.id), Err.InvalidTableId)
    await session.close_table(outer.id)
    await session.rollback()
    await session.close_table(cursor.id)  # opened before any of them


# -- conflicts ----------------------------------------------------------------------------------------------------------
async def test_line_14_only_leaving_the_whole_transaction_helps(session: Session, other: Session, cursor: Cursor, theirs: Cursor) -> None:
    await session.begin_transaction()
    await get(cursor, "id")
    await other.begin_transaction()
    await replace(theirs, n=7)
    with refuses(Err.WriteConflict):
        await replace(cursor, n=8)
    await other.commit_transaction()
    with refuses(Err.WriteConflict):  # what was committed after one's own begin counts as well
        await replace(cursor, n=8)
    await session.begin_transaction()
    with refuses(Err.WriteConflict):
        await cursor.delete()
    await session.rollback()
    with refuses(Err.WriteConflict):
        await replace(cursor, n=8)
    await session.rollback()
    await session.begin_transaction()
    await replace(cursor, n=8)
    await session.commit_transaction()


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("what", ["insert", "replace", "delete"])
async def test_line_15_a_clash_of_an_insert_is_a_duplicate(
    session: Session, other: Session, cursor: Cursor, theirs: Cursor, what: str, committed: bool
) -> None:
    await session.begin_transaction()
    await get(cursor, "id")
    await other.begin_transaction()
    if what == "insert":
        await insert(theirs, id=99)
    elif what == "replace":
        key(theirs, 10)
        await theirs.seek(EQ)
        await replace(theirs, n=7)
    else:
        key(theirs, 10)
        await theirs.seek(EQ)
        await theirs.delete()
    if committed:
        await other.commit_transaction()
    with refuses(Err.KeyDuplicate):
        await insert(cursor, id=99 if what == "insert" else 10)


async def test_line_16_replace_locks_when_it_is_prepared(session: Session, other: Session, cursor: Cursor, theirs: Cursor) -> None:
    await session.begin_transaction()
    await other.begin_transaction()
    await cursor.prepare_update(Prep.Replace)
    with refuses(Err.WriteConflict):
        await theirs.prepare_update(Prep.Replace)
    await theirs.prepare_update(Prep.ReplaceNoLock)
    await theirs.prepare_update(Prep.Cancel)
    await session.rollback()
    await other.rollback()
    await cursor.prepare_update(Prep.Replace)  # outside a transaction: no lock
    await theirs.prepare_update(Prep.Replace)
    await cursor.update()


async def test_line_16_insert_uses_up_its_number(session: Session, dbid: int) -> None:
    column = ColumnCreate("auto", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnAutoincrement))
    cursor = (await session.create_table_column_index(dbid, TableCreate("numbers", columns=(column,)))).cursor
    await cursor.prepare_update(Prep.Insert)
    assert (await cursor.retrieve_column(1, COPY)).value == 1
    await cursor.prepare_update(Prep.Cancel)
    await cursor.prepare_update(Prep.Insert)
    await cursor.update()
    await cursor.move(FIRST)
    assert (await cursor.retrieve_column(1)).value == 2


# -- updates ------------------------------------------------------------------------------------------------------------
async def test_line_17_a_failed_update_stays_prepared(cursor: Cursor) -> None:
    for _ in range(2):
        if cursor.buffer is None:
            await cursor.prepare_update(Prep.Insert)
            await cursor.set_column(ids(cursor)["id"], 10)
        with refuses(Err.KeyDuplicate):
            await cursor.update()
    await cursor.prepare_update(Prep.Cancel)
    with refuses(Err.UpdateNotPrepared):
        await cursor.prepare_update(Prep.Cancel)


async def test_line_17_navigation_and_delete_cancel_it_without_a_word(cursor: Cursor) -> None:
    bookmark = await cursor.get_bookmark()

    async def seek() -> None:
        key(cursor, 20)
        await cursor.seek(EQ)

    ways: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: cursor.move(1),
        lambda: cursor.goto_bookmark(bookmark),
        lambda: cursor.set_current_index("byN"),
        lambda: cursor.set_current_index(None),
        seek,
        cursor.delete,
    )
    for navigate in ways:
        await cursor.prepare_update(Prep.Replace)
        await navigate()
        with refuses(Err.UpdateNotPrepared):
            await cursor.update()
    assert await all_of(cursor) == [10, 30, 40]


async def test_line_18_update_does_not_move_the_cursor(cursor: Cursor) -> None:
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["id"], 25)
    assert (await get(cursor, "id"), await get(cursor, "id", COPY)) == (10, 25)
    bookmark = await cursor.update()
    assert await get(cursor, "id") == 10
    await cursor.goto_bookmark(bookmark)
    assert await get(cursor, "id") == 25


# -- seeking ------------------------------------------------------------------------------------------------------------
async def test_line_19_a_failed_seek_uses_up_key_range_and_update(cursor: Cursor) -> None:
    key(cursor, 30)
    await cursor.set_index_range(INCLUSIVE | UPPER)
    await cursor.prepare_update(Prep.Replace)
    key(cursor, 25)
    with refuses(Err.RecordNotFound):
        await cursor.seek(EQ)
    with refuses(Err.KeyNotMade):
        await cursor.seek(EQ)
    with refuses(Err.UpdateNotPrepared):
        await cursor.update()
    with refuses(Err.NoCurrentRecord):
        await get(cursor, "id")
    await cursor.move(1)
    assert await walk(cursor) == [30, 40]


@pytest.mark.parametrize("step", [1, -1])
async def test_line_19_between_entries_a_move_goes_on(cursor: Cursor, step: int) -> None:
    key(cursor, 25)
    with refuses(Err.RecordNotFound):
        await cursor.seek(EQ)
    await cursor.move(step)
    assert await get(cursor, "id") == (30 if step > 0 else 20)


async def test_line_19_a_seek_without_a_relation(cursor: Cursor) -> None:
    key(cursor, 20)
    with refuses(Err.InvalidParameter):
        await cursor.seek(0)


async def test_line_20_a_range_is_set_even_where_there_is_no_record(cursor: Cursor) -> None:
    await cursor.move(LAST)
    key(cursor, 20)
    with refuses(Err.NoCurrentRecord):
        await cursor.set_index_range(UPPER | INCLUSIVE)
    with refuses(Err.NoCurrentRecord):
        await cursor.move(1)
    await cursor.set_index_range(int(SetIndexRangeGrbit.RangeRemove))  # there was one


async def test_line_20_a_range_limits_one_direction(cursor: Cursor) -> None:
    key(cursor, 20)
    await cursor.seek(EQ)
    key(cursor, 30)
    await cursor.set_index_range(UPPER | INCLUSIVE)
    await cursor.move(-1)
    assert await walk(cursor) == [10, 20, 30]


async def test_line_20_what_ends_a_range(cursor: Cursor) -> None:
    bookmark = await cursor.get_bookmark()

    async def seek() -> None:
        key(cursor, 10)
        await cursor.seek(EQ)

    ways: tuple[tuple[Callable[[], Awaitable[object]], bool], ...] = (
        (lambda: cursor.move(0), False),
        (lambda: cursor.move(1), False),
        (lambda: cursor.move(FIRST), True),
        (lambda: cursor.move(LAST), True),
        (lambda: cursor.goto_bookmark(bookmark), True),
        (lambda: cursor.set_current_index(None), True),
        (seek, True),
    )
    for navigate, dies in ways:
        await cursor.move(FIRST)
        key(cursor, 30)
        await cursor.set_index_range(UPPER)
        await navigate()
        assert (cursor.range_high is None) == dies
        await cursor.move(FIRST)


# -- keys ---------------------------------------------------------------------------------------------------------------
async def test_line_21_keys_are_cut_without_a_word(session: Session, dbid: int) -> None:
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("b", Coltyp.LongBinary))
    strict = IndexCreate("strict", ("+b",), int(I.IndexDisallowTruncation | I.IndexIgnoreNull))
    unique = IndexCreate("unique", ("+b",), int(I.IndexUnique | I.IndexIgnoreNull))
    cut, told = b"x" * 400 + b"1", b"x" * 400 + b"2"
    cursor = (await session.create_table_column_index(dbid, TableCreate("cut", columns=columns, indexes=(unique,)))).cursor
    await insert(cursor, id=1, b=cut)
    with refuses(Err.KeyDuplicate):  # they are not equal
        await insert(cursor, id=2, b=told)
    await cursor.prepare_update(Prep.Cancel)
    await cursor.set_current_index("unique")
    key(cursor, told)
    await cursor.seek(EQ)
    assert (await get(cursor, "id"), session.take_warning()) == (1, 0)
    cursor = (await session.create_table_column_index(dbid, TableCreate("told", columns=columns, indexes=(strict,)))).cursor
    with refuses(Err.KeyTruncated):
        await insert(cursor, id=1, b=cut)
    await cursor.prepare_update(Prep.Cancel)
    await insert(cursor, id=1, b=b"short")


# -- escrow -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("coltyp", [Coltyp.Long, Coltyp.LongLong])
async def test_line_22_the_stored_sum_and_ones_own(session: Session, other: Session, other_dbid: int, dbid: int, coltyp: int) -> None:
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("sum", coltyp, grbit=int(AddColumnGrbit.ColumnEscrowUpdate), default=0))
    made = await session.create_table_column_index(dbid, TableCreate("s", columns=columns, indexes=(IndexCreate("pk", ("+id",), 2),)))
    made.cursor.close()
    mine, theirs = await session.open_table(dbid, "s"), await other.open_table(other_dbid, "s")
    await insert(mine, id=1)
    await session.begin_transaction()
    await other.begin_transaction()
    await mine.move(FIRST)
    await theirs.move(FIRST)
    assert await theirs.escrow_update(2, 5) == 0
    assert await mine.escrow_update(2, 1) == 5
    assert ((await mine.retrieve_column(2)).value, (await theirs.retrieve_column(2)).value) == (1, 5)


async def test_line_22_a_replace_on_another_cursor_loses_the_delta(session: Session, dbid: int, cursor: Cursor) -> None:
    second = await session.open_table(dbid, "t")
    await session.begin_transaction()
    await second.prepare_update(Prep.Replace)
    await cursor.escrow_update(ids(cursor)["sum"], 5)
    assert await get(cursor, "sum") == 5
    await second.set_column(ids(second)["n"], 9)
    await second.update()
    assert (await get(cursor, "n"), await get(cursor, "sum")) == (9, 0)


async def test_line_22_delete_on_zero_acts_after_the_commit(session: Session, dbid: int) -> None:
    bits = int(AddColumnGrbit.ColumnEscrowUpdate | AddColumnGrbit.ColumnDeleteOnZero)
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("refs", Coltyp.Long, grbit=bits, default=1))
    made = await session.create_table_column_index(dbid, TableCreate("z", columns=columns, indexes=(IndexCreate("pk", ("+id",), 2),)))
    made.cursor.close()
    cursor = await session.open_table(dbid, "z")
    await insert(cursor, id=1)
    await session.begin_transaction()
    await cursor.escrow_update(2, -1)
    await session.idle()
    assert await all_of(cursor) == [1]
    await session.commit_transaction()
    assert await all_of(cursor) == [1]
    await session.idle()
    assert await all_of(cursor) == []


# -- multi-values -------------------------------------------------------------------------------------------------------
async def test_line_23_what_value_number_zero_means_and_what_null_does(cursor: Cursor) -> None:
    tags = ids(cursor)["tags"]
    await cursor.prepare_update(Prep.Replace)
    for text in ("a", "b", "c"):
        await cursor.set_column(tags, text, 0, SetInfo(itag=0))  # appends
    await cursor.set_column(tags, None, 0, SetInfo(itag=1))
    await cursor.update()
    assert [(await cursor.retrieve_column(tags, 0, RetInfo(itag=n))).value for n in (1, 2, 3)] == ["b", "c", None]
    count = RetrieveColumn(tags, itag=0)
    await cursor.retrieve_columns([count])
    assert count.itag == 2
    with refuses(Err.BadItagSequence):
        await cursor.retrieve_column(tags, 0, RetInfo(itag=0))


# -- temporary tables ---------------------------------------------------------------------------------------------------
async def test_line_24_what_temporary_tables_do_not_do(session: Session) -> None:
    A, T = AddColumnGrbit, OpenTempTableGrbit
    columns = (
        ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnTTKey)),
        ColumnCreate("", Coltyp.Long, grbit=int(A.ColumnAutoincrement), default=7),
        ColumnCreate("", Coltyp.LongText, grbit=int(A.ColumnTagged | A.ColumnMultiValued), cp=1200),
    )
    cursor, (number, auto, text) = await open_temp_table(session, TempTableCreate(columns, int(T.TTUnique)))
    for _ in range(2):
        await cursor.prepare_update(Prep.Insert)
        await cursor.set_column(number, 1)
        await cursor.set_column(text, "one", 0, SetInfo(itag=0))
        with refuses(Err.BadItagSequence):
            await cursor.set_column(text, "two", 0, SetInfo(itag=2))
        await cursor.update()  # the second is dropped without a word
        assert session.take_warning() == 0
    await cursor.move(FIRST)
    assert (await cursor.retrieve_column(auto)).value is None
    with refuses(Err.NoCurrentRecord):
        await cursor.move(1)
    with refuses(Err.IllegalOperation):
        await cursor.prepare_update(Prep.Insert)
    materialized, (number, *_) = await open_temp_table(session, TempTableCreate(columns, int(T.TTForceMaterialization)))
    for value in (1, 2):
        await materialized.prepare_update(Prep.Insert)
        await materialized.set_column(number, value)
        await materialized.update()
        await materialized.move(FIRST)


async def test_line_25_an_advanced_parameter_is_forgotten(engine: Engine) -> None:
    instance = await engine.create_instance("plain")
    before = instance.parameters.get(Param.MaxVerPages)
    instance.set_parameter(Param.EnableAdvanced, 0)
    instance.set_parameter(Param.MaxVerPages, 77)
    assert instance.parameters.get(Param.MaxVerPages) == before
    instance.set_parameter(Param.EnableAdvanced, 1)
    instance.set_parameter(Param.MaxVerPages, 77)
    assert instance.parameters.get(Param.MaxVerPages) == 77


# -- what the list adds -------------------------------------------------------------------------------------------------
async def test_line_also_overwriting_takes_a_range_of_bytes(cursor: Cursor) -> None:
    await replace(cursor, data=b"0123456789")
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(ids(cursor)["data"], b"ab", int(SetColumnGrbit.SetOverwriteLV), SetInfo(offset=3))
    await cursor.update()
    assert await get(cursor, "data") == b"012ab56789"


async def test_line_also_ddl_moves_the_cursor_before_the_first_record(session: Session, cursor: Cursor) -> None:
    await cursor.move(LAST)
    await session.add_column(cursor, "extra", ColumnCreate("", Coltyp.Long))
    with refuses(Err.NoCurrentRecord):
        await cursor.move(0)
    await cursor.move(1)
    assert await get(cursor, "id") == 10


async def test_line_also_pages_here_and_bytes_there(tmp_path: Path) -> None:
    hosted = await (await Hosted(tmp_path).start()).create()
    dbid = await hosted.session.open_database("a.edb")
    await hosted.session.grow_database(dbid, 100)
    assert await hosted.session.get_database_info(dbid, int(DbInfo.Filesize)) == 100
    size = database_file_info(hosted.instance, "a.edb", int(DbInfo.Filesize))
    page = await hosted.session.get_database_info(dbid, int(DbInfo.PageSize))
    assert size >= page
    assert size % page == 0
    await hosted.stop()


def test_line_also_object_info_bits_are_the_headers() -> None:
    assert (ObjectinfoGrbit.TableInfoUpdatable, ObjectinfoGrbit.TableInfoBookmark, ObjectinfoGrbit.TableInfoRollback) == (1, 2, 4)


# -- and none is left out -----------------------------------------------------------------------------------------------
def test_every_line_has_a_test() -> None:
    """Against the list itself, where it lies beside the project."""
    root = Path(__file__).parents[3]
    sources = [root / "tests/server" / room / "test_easily_missed.py" for room in ("snapshot", "engine")]
    found = {name for source in sources for name in re.findall(r"def test_line_(\d\d|also)_", source.read_text())}
    assert found == {f"{n:02}" for n in range(1, 26)} | {"also"}
    listed = root.parent / "shared" / "ese" / "README.md"
    if listed.exists():
        _, section = listed.read_text().split("## Easily missed")
        lines = re.findall(r"^(\d+)\.|^(Also)", section, re.MULTILINE)
        assert len(lines) == len(found)
