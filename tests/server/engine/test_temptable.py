"""Temporary tables and sorts."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, OpenTempTableGrbit, Prep, SetColumnGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.session import Session
from jetwire_server.engine.setting import SetInfo
from jetwire_server.engine.temptable import TempCursor, TempTableCreate, open_temp_table

from .tables_for_tests import FIRST, LAST, refuses

T = OpenTempTableGrbit
KEY, DESCENDING = AddColumnGrbit.ColumnTTKey, AddColumnGrbit.ColumnTTDescending


async def temp(session: Session, grbit: int, *, descending: bool = False, key: bool = True) -> tuple[TempCursor, list[int]]:
    bits = (int(KEY) if key else 0) | (int(DESCENDING) if descending else 0)
    columns = (ColumnCreate("", Coltyp.Long, grbit=bits), ColumnCreate("", Coltyp.LongText, cp=1200))
    return await open_temp_table(session, TempTableCreate(columns, grbit))


async def fill(cursor: TempCursor, ids: list[int], rows: list[tuple[Any, str]]) -> None:
    for number, text in rows:
        await cursor.prepare_update(0)
        await cursor.set_column(ids[0], number)
        await cursor.set_column(ids[1], text)
        await cursor.update()


async def read(cursor: TempCursor, ids: list[int]) -> list[tuple[Any, Any]]:
    out: list[tuple[Any, Any]] = []
    step = FIRST
    while True:
        try:
            await cursor.move(step)
        except JetError:
            return out
        values = await cursor.retrieve_all()
        out.append((values.get(ids[0]), values.get(ids[1])))
        step = 1


async def test_a_sort_sorts_and_keeps_equal_keys(session: Session) -> None:
    cursor, ids = await temp(session, 0)
    await fill(cursor, ids, [(3, "c"), (1, "a"), (2, "b"), (1, "again")])
    assert await read(cursor, ids) == [(1, "a"), (1, "again"), (2, "b"), (3, "c")]


async def test_unique_drops_equal_keys_without_a_word(session: Session) -> None:
    cursor, ids = await temp(session, T.TTUnique, descending=True)
    await fill(cursor, ids, [(1, "a"), (3, "c"), (1, "b")])
    assert [n for n, _ in await read(cursor, ids)] == [3, 1]


async def test_unique_answers_if_it_was_asked_to(session: Session) -> None:
    cursor, ids = await temp(session, T.TTUnique | T.TTErrorOnDuplicateInsertion)
    await fill(cursor, ids, [(1, "a")])
    with refuses(Err.KeyDuplicate):
        await fill(cursor, ids, [(1, "b")])


@pytest.mark.parametrize("asked", [0, T.TTErrorOnDuplicateInsertion])
async def test_a_long_key_that_was_spilled_is_still_a_duplicate(session: Session, monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    monkeypatch.setattr(limits, "TEMPORARY_BYTES_IN_MEMORY_MAX", 200)
    monkeypatch.setattr(limits, "LONG_VALUE_STREAM_BYTES", 4_000)
    columns = (ColumnCreate("", Coltyp.LongText, cp=1200, grbit=KEY), ColumnCreate("", Coltyp.LongText, cp=1200))
    cursor, ids = await open_temp_table(session, TempTableCreate(columns, T.TTUnique | T.TTUpdatable | asked))
    longs = [letter * 3_000 for letter in "abc"]
    await fill(cursor, ids, [(long, "first") for long in longs])
    assert cursor.storage.spilled
    for long in longs:
        if asked:
            with refuses(Err.KeyDuplicate):
                await fill(cursor, ids, [(long, "again")])
            await cursor.prepare_update(Prep.Cancel)
        else:
            await fill(cursor, ids, [(long, "again")])
    assert len(session.unused) == 1  # the last one's draft; those before are given back already
    assert await read(cursor, ids) == [(long, "first") for long in longs]


async def test_a_record_may_be_copied_in_its_own_place(session: Session) -> None:
    cursor, ids = await temp(session, T.TTUnique | T.TTUpdatable | T.TTErrorOnDuplicateInsertion)
    await fill(cursor, ids, [(1, "a")])
    await cursor.move(FIRST)
    await cursor.prepare_update(Prep.InsertCopyReplaceOriginal)
    await cursor.set_column(ids[1], "copied")
    await cursor.update()
    assert await read(cursor, ids) == [(1, "copied")]


async def test_a_table_without_keys_keeps_the_order_of_insertion(session: Session) -> None:
    cursor, ids = await temp(session, T.TTScrollable, key=False)
    await fill(cursor, ids, [(3, "c"), (1, "a")])
    assert await read(cursor, ids) == [(3, "c"), (1, "a")]
    await cursor.move(LAST)
    assert (await cursor.retrieve_column(ids[0])).value == 1


async def test_reading_ends_the_inserting_unless_it_is_materialized(session: Session) -> None:
    cursor, ids = await temp(session, T.TTScrollable)
    await fill(cursor, ids, [(1, "a")])
    await cursor.move(FIRST)
    with refuses(Err.IllegalOperation):
        await cursor.prepare_update(0)
    with refuses(Err.IllegalOperation):
        await cursor.delete()
    free, ids = await temp(session, T.TTUpdatable | T.TTIndexed)
    await fill(free, ids, [(1, "a"), (3, "c")])
    assert len(await read(free, ids)) == 2
    await fill(free, ids, [(2, "b")])
    free.make_key(2, 1)
    await free.seek(1)
    await free.prepare_update(2)
    await free.set_column(ids[1], "changed")
    await free.update()
    free.make_key(3, 1)
    await free.seek(1)
    await free.delete()
    assert await read(free, ids) == [(1, "a"), (2, "changed")]


async def test_what_a_sort_does_not_do(session: Session) -> None:
    cursor, ids = await temp(session, T.TTForwardOnly)
    await fill(cursor, ids, [(1, "a"), (2, "b")])
    await cursor.move(FIRST)
    with refuses(Err.IllegalOperation):
        await cursor.move(LAST)
    with refuses(Err.IllegalOperation):
        await cursor.seek(1)
    with refuses(Err.IllegalOperation):
        await cursor.set_current_index(None)
    with refuses(Err.CannotMaterializeForwardOnlySort):
        await temp(session, T.TTForwardOnly | T.TTIndexed)
    with refuses(Err.InvalidGrbit):
        await temp(session, 1 << 20)


async def test_nulls_high(session: Session) -> None:
    cursor, ids = await temp(session, T.TTSortNullsHigh)
    await fill(cursor, ids, [(None, "null"), (5, "five")])
    assert [n for n, _ in await read(cursor, ids)] == [5, None]


@pytest.mark.parametrize("grbit", [T.TTUnique | T.TTUpdatable, T.TTUpdatable])
async def test_what_does_not_fit_memory_spills(session: Session, monkeypatch: pytest.MonkeyPatch, grbit: int) -> None:
    monkeypatch.setattr(limits, "TEMPORARY_BYTES_IN_MEMORY_MAX", 2_000)
    cursor, ids = await temp(session, grbit)
    numbers = [(i * 37) % 101 for i in range(101)]
    await fill(cursor, ids, [(n, f"text {n}") for n in numbers])
    assert cursor.storage.spilled
    assert await read(cursor, ids) == [(n, f"text {n}") for n in range(101)]
    await cursor.move(FIRST)
    await cursor.move(49)
    await cursor.delete()
    assert [n for n, _ in await read(cursor, ids)] == [n for n in range(101) if n != 49]


async def test_closing_frees_and_the_handle_is_dead(session: Session) -> None:
    cursor, ids = await temp(session, 0)
    await fill(cursor, ids, [(1, "x" * 5000)])
    assert await read(cursor, ids) == [(1, "x" * 5000)]
    await session.close_table(cursor.id)
    with refuses(Err.InvalidTableId):
        session.cursor(cursor.id)
    await temp(session, 0)
    assert session.instance.unused_scratch == []


# -- transactions -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("grbit", [T.TTUpdatable, T.TTForceMaterialization | T.TTUpdatable | T.TTUnique])
@pytest.mark.parametrize("memory", [1_500, 1 << 20])
async def test_a_rollback_undoes_what_its_level_changed(session: Session, monkeypatch: pytest.MonkeyPatch, grbit: int, memory: int) -> None:
    """With little memory everything is spilled between the changes."""
    monkeypatch.setattr(limits, "TEMPORARY_BYTES_IN_MEMORY_MAX", memory)
    monkeypatch.setattr(limits, "LONG_VALUE_STREAM_BYTES", 40_000)
    cursor, ids = await temp(session, grbit | T.TTIndexed)
    model = {n: f"text {n}" for n in range(30)}
    await fill(cursor, ids, list(model.items()))
    draw = random.Random(memory)
    kept: list[dict[int, str]] = []
    for step in range(400):
        what = draw.choice(["insert", "insert", "replace", "delete", "begin", "commit", "rollback"])
        if what == "begin" and session.level < 6:
            kept.append(dict(model))
            await session.begin_transaction()
        elif what == "commit" and session.level:
            kept.pop()
            await session.commit_transaction()
        elif what == "rollback" and session.level:
            model = kept.pop()
            await session.rollback()
        elif what == "insert":
            number = 100 + step
            model[number] = f"new {number} " + "x" * draw.choice([0, 3000, 60_000])
            await fill(cursor, ids, [(number, model[number])])
        elif model:
            number = draw.choice(list(model))
            cursor.make_key(number, 1)
            await cursor.seek(1)
            if what == "delete":
                await cursor.delete()
                del model[number]
            elif what == "replace":
                await cursor.prepare_update(2)
                model[number] = f"changed {step}"
                await cursor.set_column(ids[1], model[number])
                await cursor.update()
        if step % 20 == 0:
            assert await read(cursor, ids) == sorted(model.items()), step
    while session.level:
        await session.rollback()
        model = kept.pop()
    assert await read(cursor, ids) == sorted(model.items())


async def test_a_sort_keeps_what_was_inserted_whatever_becomes_of_the_transaction(session: Session) -> None:
    cursor, ids = await temp(session, 0)
    await session.begin_transaction()
    await fill(cursor, ids, [(2, "b"), (1, "a")])
    await session.rollback()
    assert await read(cursor, ids) == [(1, "a"), (2, "b")]


async def test_a_table_opened_in_a_transaction_goes_with_its_rollback(session: Session) -> None:
    await session.begin_transaction()
    cursor, ids = await temp(session, T.TTUpdatable)
    await fill(cursor, ids, [(1, "a")])
    await session.rollback()
    with refuses(Err.InvalidTableId):
        session.cursor(cursor.id)
    await session.begin_transaction()
    cursor, ids = await temp(session, T.TTUpdatable)
    await fill(cursor, ids, [(1, "a")])
    await session.commit_transaction()
    assert await read(cursor, ids) == [(1, "a")]


async def test_a_transaction_cannot_change_more_than_can_be_undone(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TEMPORARY_UNDO_BYTES_MAX", 5_000)
    cursor, ids = await temp(session, T.TTUpdatable)
    await session.begin_transaction()
    with refuses(Err.VersionStoreOutOfMemory):
        await fill(cursor, ids, [(n, "x") for n in range(1000)])
    await session.rollback()
    assert await read(cursor, ids) == []
    await fill(cursor, ids, [(n, "x") for n in range(1000)])


async def test_cursors_of_a_table_that_is_more_than_a_sort_can_be_duplicated(session: Session) -> None:
    cursor, ids = await temp(session, T.TTUpdatable | T.TTScrollable)
    await fill(cursor, ids, [(2, "b"), (1, "a")])
    second = await cursor.dup_cursor()
    assert isinstance(second, TempCursor)
    assert (await second.retrieve_column(ids[0])).value == 1
    await fill(second, ids, [(3, "c")])
    cursor.close()
    assert await read(second, ids) == [(1, "a"), (2, "b"), (3, "c")]
    second.close()
    assert len(session.instance.unused_scratch) == 1
    sort, _ = await temp(session, 0)
    with refuses(Err.IllegalOperation):
        await sort.dup_cursor()


async def test_there_are_so_many_temporary_tables_and_no_more(engine: Engine) -> None:
    instance = await engine.create_instance("few")
    instance.set_parameter(Param.MaxTemporaryTables, 2)
    await instance.init()
    session = await instance.begin_session()
    first, _ = await temp(session, T.TTUpdatable)
    await first.dup_cursor()  # another cursor is no other table
    await temp(session, 0)
    with refuses(Err.TooManySorts):
        await temp(session, 0)
    first.close()
    with refuses(Err.TooManySorts):
        await temp(session, 0)
    await instance.term()


async def test_a_temporary_table_keeps_its_columns_and_its_index(session: Session) -> None:
    """It was an internal error to change them."""
    cursor, _ = await temp(session, T.TTUpdatable | T.TTIndexed)
    name = cursor.table.columns[0].name
    changes: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: session.add_column(cursor, "more", ColumnCreate("", Coltyp.Long)),
        lambda: session.delete_column(cursor, name),
        lambda: session.rename_column(cursor, name, "other"),
        lambda: session.create_index(cursor, [IndexCreate("i", (f"+{name}",))]),
        lambda: session.delete_index(cursor, "i"),
    )
    for change in changes:
        with refuses(Err.IllegalOperation):
            await change()


async def test_a_long_value_in_a_tree_of_its_own_is_written_in_part(session: Session) -> None:
    """A value that was streamed, and one with a streamed tail: what is written over them, and undone, is there to be read."""
    cursor, ids = await temp(session, int(T.TTUpdatable | T.TTScrollable))
    size = limits.LONG_VALUE_STREAM_BYTES  # in bytes; a character has two
    await fill(cursor, ids, [(1, "a" * size), (2, "b" * 3_000)])
    expected = {1: "a" * size, 2: "b" * 3_000}

    async def set_part(number: int, text: str, grbit: SetColumnGrbit, offset: int = 0) -> None:
        await cursor.move(FIRST)
        await cursor.move(number - 1)
        await cursor.prepare_update(Prep.Replace)
        await cursor.set_column(ids[1], text, int(grbit), SetInfo(offset))
        await cursor.update()
        was = expected[number]
        at = offset // 2 if grbit == SetColumnGrbit.SetOverwriteLV else len(was)
        expected[number] = was[:at] + text + was[at + len(text) :]

    await set_part(2, "c" * size, SetColumnGrbit.SetAppendLV)
    before = dict(expected)
    await session.begin_transaction()
    for number in (1, 2):
        await set_part(number, "over", SetColumnGrbit.SetOverwriteLV, 2_000)
        await set_part(number, "over", SetColumnGrbit.SetOverwriteLV, size)
        await set_part(number, "end", SetColumnGrbit.SetAppendLV)
    assert dict(await read(cursor, ids)) == expected
    await session.rollback()
    assert dict(await read(cursor, ids)) == before


async def test_what_was_rolled_back_no_longer_counts(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TEMPORARY_UNDO_BYTES_MAX", 5_000)
    cursor, ids = await temp(session, int(T.TTUpdatable | T.TTScrollable))
    await fill(cursor, ids, [(1, "x" * 500)])
    await session.begin_transaction()
    for _ in range(20):
        await session.begin_transaction()
        await cursor.move(FIRST)
        await cursor.prepare_update(Prep.Replace)
        await cursor.set_column(ids[1], "y" * 500)
        await cursor.update()
        await session.rollback()
    assert await read(cursor, ids) == [(1, "x" * 500)]
