"""Long values that are bigger than memory should hold: whatever is done to them in pieces, and what it costs."""

from __future__ import annotations

import ctypes
import gc
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit, Prep, RetrieveColumnGrbit, SetColumnGrbit
from jetwire_protocol.errors import Err, Wrn
from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.engine import longvalue
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.retrieve import RetInfo, RetrieveColumn
from jetwire_server.engine.session import Session
from jetwire_server.engine.setting import SetInfo
from jetwire_server.engine.tables import TableCreate
from jetwire_server.engine.whole_records import Wanted, records_from
from jetwire_server.events import EventLog
from jetwire_server.store.interface import Store, UnpublishedTree
from jetwire_server.store.memory import MemoryStore
from tests.server.engine.on_files import crash_image, engine_on, started
from tests.server.engine.tables_for_tests import FIRST, ids, key, refuses

APPEND, OVERWRITE, SIZE = (int(bit) for bit in (SetColumnGrbit.SetAppendLV, SetColumnGrbit.SetOverwriteLV, SetColumnGrbit.SetSizeLV))
MIB = 1 << 20
TABLE = TableCreate(
    "t", columns=(ColumnCreate("id", Coltyp.Long), ColumnCreate("data", Coltyp.LongBinary)), indexes=(IndexCreate("pk", ("+id",), 2),)
)


async def table_in(session: Session, dbid: int) -> Cursor:
    (await session.create_table_column_index(dbid, TABLE)).cursor.close()
    return await session.open_table(dbid, "t")


async def at(cursor: Cursor, record: int) -> None:
    key(cursor, record)
    await cursor.seek(1)


# -- in pieces, against a bytearray -----------------------------------------------------------------------------------------
SIZES = st.integers(1, 60_000)
STEPS = st.one_of(
    st.tuples(st.just("append"), SIZES),
    st.tuples(st.just("overwrite"), st.integers(0, 200_000), SIZES),
    st.tuples(st.just("size"), st.integers(0, 200_000)),
    st.tuples(st.sampled_from(["update", "begin", "commit", "rollback", "duplicate", "share"])),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=3, max_size=25), st.integers(0, 1000))
async def test_pieces_make_the_value_a_bytearray_would_be(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[object, ...]], seed: int
) -> None:
    """Small bounds, so that tails, copies and trees of their own come up; record 2 may share the value, and must keep what it had."""
    monkeypatch.setattr(limits, "LONG_VALUE_STREAM_BYTES", 20_000)
    monkeypatch.setattr(limits, "LONG_VALUE_OVERWRITTEN_BYTES_MAX", 50_000)
    clock = ManualClock()
    instance = await Engine(clock, EventLog(), lambda made: MemoryStore(clock)).create_instance("a")
    await instance.init()
    session = await instance.begin_session()
    cursor = await table_in(session, await session.create_database("a.edb"))
    columns = ids(cursor)
    draw = random.Random(seed)
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(columns["id"], 1)
    await cursor.update()
    model: dict[int, bytes] = {1: b""}
    kept: list[dict[int, bytes]] = []  # one a level
    for step in [*steps, ("update",), *[("commit",)] * 7]:
        value = bytearray(model[1])
        await at(cursor, 1)
        await cursor.prepare_update(Prep.Replace)
        match step:
            case ("append", int(size)):
                value += (piece := draw.randbytes(size))
                await cursor.set_column(columns["data"], piece, APPEND)
            case ("overwrite", int(place), int(size)):
                place = min(place, len(value))
                value[place : place + size] = (piece := draw.randbytes(size))
                await cursor.set_column(columns["data"], piece, OVERWRITE, SetInfo(place))
            case ("size", int(size)):
                value = value[:size].ljust(size, b"\0")
                await cursor.set_column(columns["data"], size, SIZE)
            case ("begin",) if session.level < 6:
                await cursor.prepare_update(Prep.Cancel)
                kept.append(dict(model))
                await session.begin_transaction()
                continue
            case ("commit",) if session.level:
                await cursor.prepare_update(Prep.Cancel)
                kept.pop()
                await session.commit_transaction()
                continue
            case ("rollback",) if session.level:
                await cursor.prepare_update(Prep.Cancel)
                model = kept.pop()
                await session.rollback()
                continue
            case ("duplicate",):  # an update that fails keeps what was prepared
                await cursor.prepare_update(Prep.Cancel)
                await cursor.prepare_update(Prep.Insert)
                await cursor.set_column(columns["id"], 1)
                await cursor.set_column(columns["data"], piece := draw.randbytes(30_000))
                with refuses(Err.KeyDuplicate):
                    await cursor.update()
                await cursor.set_column(columns["id"], number := max(model) + 1)
                await cursor.update()
                model[number] = piece
                continue
            case ("share",):
                await cursor.prepare_update(Prep.Cancel)
                await cursor.prepare_update(Prep.InsertCopy)
                await cursor.set_column(columns["id"], number := max(model) + 1)
                if draw.random() < 0.5:
                    value += (piece := draw.randbytes(25_000))
                    await cursor.set_column(columns["data"], piece, APPEND)
                await cursor.update()
                model[number] = bytes(value)
                continue
        await cursor.update()
        model[1] = bytes(value)
        for record, expected in model.items():
            await at(cursor, record)
            got = await cursor.retrieve_column(columns["data"])
            assert (got.value or b"") == expected, (step, record)
    await session.compact("a.edb", "b.edb")
    await session.attach_database("b.edb")
    copy = await session.open_table(await session.open_database("b.edb"), "t")
    for record, expected in model.items():
        await at(copy, record)
        assert ((await copy.retrieve_column(columns["data"])).value or b"") == expected
    for each in (cursor, copy):
        each.close()
        trees = each.table
        await session.delete_table(each.dbid, "t")
        assert await instance.store.count(trees.long_values) == 0
    await instance.term()


# -- big ones -------------------------------------------------------------------------------------------------------------
def anonymous_bytes() -> int:
    """Of this process, now: what mapped files take does not count."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


class Peak:
    """The most memory it has taken more than at the beginning, as far as anybody looked."""

    def __init__(self) -> None:
        gc.collect()  # what earlier tests left would go meanwhile, or be used again
        ctypes.CDLL(None).malloc_trim(0)
        self._start = self._most = anonymous_bytes()

    def look(self) -> int:
        self._most = max(self._most, anonymous_bytes())
        return self._most - self._start


def pieces(total: int, seed: int) -> Iterator[bytes]:
    draw = random.Random(seed)
    block = draw.randbytes(MIB)
    for number in range(total // MIB):
        yield number.to_bytes(8, "big") + block[8:]


async def append_all(cursor: Cursor, total: int, seed: int, peak: Peak) -> None:
    data = ids(cursor)["data"]
    for piece in pieces(total, seed):
        await cursor.set_column(data, piece, APPEND)
        peak.look()


async def check_all(cursor: Cursor, total: int, seed: int, peak: Peak, start: int = 0) -> None:
    data = ids(cursor)["data"]
    for number, piece in enumerate(pieces(total, seed)):
        got = await cursor.retrieve_column(data, 0, RetInfo(start + number * MIB), MIB)
        assert got.value == piece, number
        peak.look()


@pytest.mark.parametrize("total", [64 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.torture)])
async def test_a_big_value_streams_in_bounded_memory(tmp_path: Path, total: int) -> None:
    """Written, rolled back, written again, appended to as much again by a quarter, read, and read after a crash."""
    most = 64 * MIB  # most of it what recovery reads: the log since the last checkpoint
    instance = await started(engine_on(tmp_path / "living"), LogFileSize=5120, CircularLog=1)
    session = await instance.begin_session()
    cursor = await table_in(session, await session.create_database("a.edb"))
    peak = Peak()
    for committed in (False, True):
        await session.begin_transaction()
        await cursor.prepare_update(Prep.Insert)
        await cursor.set_column(ids(cursor)["id"], 1)
        await append_all(cursor, total, 1, peak)
        await cursor.update()
        await (session.commit_transaction() if committed else session.rollback())
    assert peak.look() < most
    await at(cursor, 1)
    await cursor.prepare_update(Prep.Replace)
    await append_all(cursor, total // 4, 2, peak)
    await cursor.update()
    assert peak.look() < most
    await check_all(cursor, total, 1, peak)
    await check_all(cursor, total // 4, 2, peak, total)
    await cursor.prepare_update(Prep.Replace)
    await append_all(cursor, 2 * MIB, 3, peak)  # under way when the machine stops
    left = await crash_image(instance, tmp_path / "living", tmp_path / "crashed")
    await instance.term()

    instance = await started(engine_on(left), LogFileSize=5120, CircularLog=1)
    session = await instance.begin_session()
    cursor = await session.open_table(await session.open_database("a.edb"), "t")
    await at(cursor, 1)
    assert (await cursor.retrieve_column(ids(cursor)["data"], 0, RetInfo(0), 1)).size == total + total // 4
    await check_all(cursor, total, 1, peak)
    await check_all(cursor, total // 4, 2, peak, total)
    assert peak.look() < most
    await instance.term()


async def test_the_control_a_value_set_whole_takes_the_memory_it_has(tmp_path: Path) -> None:
    instance = await started(engine_on(tmp_path), LogFileSize=5120)
    session = await instance.begin_session()
    cursor = await table_in(session, await session.create_database("a.edb"))
    peak = Peak()
    whole = b"".join(pieces(64 * MIB, 1))
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["data"], whole)
    assert peak.look() > 40 * MIB
    await instance.term()


@pytest.mark.parametrize("how", ["rollback", "inner rollback", "cancel", "end of the session", "overwritten"])
async def test_the_space_of_a_value_that_came_to_nothing_is_used_again(tmp_path: Path, how: str) -> None:
    instance = await started(engine_on(tmp_path), LogFileSize=1024, CircularLog=1)
    session = await instance.begin_session()
    await table_in(session, await session.create_database("a.edb"))
    sizes = []
    for _ in range(6):
        writer = await instance.begin_session()
        cursor = await writer.open_table(await writer.open_database("a.edb"), "t")
        await writer.begin_transaction()
        if how == "inner rollback":
            await writer.begin_transaction()
        await cursor.prepare_update(Prep.Insert)
        await append_all(cursor, 8 * MIB, 1, Peak())
        if how == "overwritten":
            await cursor.set_column(ids(cursor)["data"], b"short")
        elif how != "cancel":
            await cursor.update()
        if how == "cancel":
            await cursor.prepare_update(Prep.Cancel)
        if "rollback" in how:
            await writer.rollback()
        if how in ("inner rollback", "cancel"):
            await writer.commit_transaction()
        await writer.end_session()
        await session.idle(2)
        sizes.append(instance.store.database_bytes(1))
    assert sizes[-1] < 3 * 8 * MIB, sizes
    await instance.term()


# -- every tree of a draft is a record's in the end, or free ---------------------------------------------------------------
class Watched:
    """A store whose unpublished trees are remembered, and whether they were freed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trees: list[UnpublishedTree] = []
        self.freed: list[UnpublishedTree] = []

    async def new_unpublished(self, slot: int) -> UnpublishedTree:
        tree = await self._store.new_unpublished(slot)
        whole = tree.free

        async def free() -> None:
            self.freed.append(tree)
            await whole()

        tree.free = free  # type: ignore[method-assign]
        self.trees.append(tree)
        return tree


LAST_WORDS: dict[str, Callable[[Cursor, int], Awaitable[None]]] = {
    "a short text": lambda cursor, column: cursor.set_column(column, "short"),
    "NULL": lambda cursor, column: cursor.set_column(column, None),
    "cut short": lambda cursor, column: cursor.set_column(column, 10, SIZE),
    "cut to nothing": lambda cursor, column: cursor.set_column(column, 0, SIZE),
    "the default": lambda cursor, column: cursor.set_column(column, None, int(SetColumnGrbit.SetRevertToDefaultValue)),
    "another long one": lambda cursor, column: cursor.set_column(column, "y" * 30_000),
}


@pytest.mark.parametrize("how", LAST_WORDS)
@pytest.mark.parametrize("prep", [Prep.Insert, Prep.Replace, Prep.InsertCopy])
async def test_a_draft_that_is_replaced_before_its_update_leaves_no_tree(
    session: Session, dbid: int, monkeypatch: pytest.MonkeyPatch, how: str, prep: Prep
) -> None:
    monkeypatch.setattr(limits, "LONG_VALUE_STREAM_BYTES", 20_000)
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("text", Coltyp.LongText, cp=1252), ColumnCreate("n", Coltyp.Long))
    table = TableCreate("t", columns=columns, indexes=(IndexCreate("byN", ("+n",), int(CreateIndexGrbit.IndexUnique)),))
    (await session.create_table_column_index(dbid, table)).cursor.close()
    cursor = await session.open_table(dbid, "t")
    watched = cursor.store = Watched(session.instance.store)
    text, n = ids(cursor)["text"], ids(cursor)["n"]
    for number in (1, 2):
        await cursor.prepare_update(Prep.Insert)
        await cursor.set_column(n, number)
        await cursor.set_column(text, "z" * 50_000)
        await cursor.update()
    await cursor.move(FIRST)
    kept = len(watched.trees)
    await session.begin_transaction()
    await cursor.prepare_update(prep)
    for _ in range(4):
        await cursor.set_column(text, b"x" * 30_000, APPEND)
    await cursor.set_column(n, 2)
    await LAST_WORDS[how](cursor, text)
    with refuses(Err.KeyDuplicate):
        await cursor.update()  # it stays prepared, with all it has
    await cursor.set_column(n, 3)
    await cursor.update()
    await session.commit_transaction()
    await session.end_session()
    assert len(watched.trees) > kept
    assert [tree for tree in watched.trees[kept:] if tree not in watched.freed] == []  # of one that is a record's that changes nothing


@pytest.mark.parametrize("size", [10, 3_000, 30_000])
async def test_overwritten_and_sized(session: Session, dbid: int, size: int) -> None:
    """Together they overwrite a range and end the value behind it; no size is NULL, or empty with ZeroLength."""
    cursor = await table_in(session, dbid)
    columns = ids(cursor)
    data = columns["data"]
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(columns["id"], 1)
    await cursor.set_column(data, bytes(range(10)) * (size // 10))
    await cursor.update()
    await at(cursor, 1)
    for stored in (False, True):
        await cursor.prepare_update(Prep.Replace)
        await cursor.set_column(data, b"abc", OVERWRITE | SIZE, SetInfo(2))
        assert (await cursor.retrieve_column(data, int(RetrieveColumnGrbit.RetrieveCopy))).value == b"\x00\x01abc"
        await cursor.set_column(data, b"longer than it was", OVERWRITE | SIZE, SetInfo(5))
        with refuses(Err.ColumnNoChunk):
            await cursor.set_column(data, b"x", OVERWRITE | SIZE, SetInfo(24))
        with refuses(Err.InvalidGrbit):
            await cursor.set_column(data, b"x", APPEND | SIZE)
        await cursor.update()
        assert (await cursor.retrieve_column(data)).value == b"\x00\x01abclonger than it was", stored
        await cursor.prepare_update(Prep.Replace)
        await cursor.set_column(data, 0, SIZE | int(SetColumnGrbit.SetZeroLength))
        await cursor.update()
        assert (await cursor.retrieve_column(data)).value == b""
        await cursor.prepare_update(Prep.Replace)
        await cursor.set_column(data, bytes(range(10)) * (size // 10), APPEND)
        await cursor.update()
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(data, 0, SIZE)
    await cursor.update()
    assert (await cursor.retrieve_column(data)).warning == Wrn.ColumnNull
    await cursor.prepare_update(Prep.Replace)
    with refuses(Err.InvalidGrbit):
        await cursor.set_column(data, b"x", APPEND | int(SetColumnGrbit.SetUniqueMultiValues))


async def test_no_call_reads_more_than_an_answer_can_have(session: Session, dbid: int) -> None:
    """Two gigabytes of zeros are set with a few bytes; they are there, and read in pieces."""
    columns = (ColumnCreate("x", Coltyp.LongBinary), ColumnCreate("y", Coltyp.LongBinary))
    cursor = (await session.create_table_column_index(dbid, TableCreate("big", columns=columns))).cursor
    x, y = (c.id for c in cursor.table.columns)
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(x, limits.LONG_VALUE_BYTES_MAX, int(SetColumnGrbit.SetSizeLV))
    await cursor.set_column(y, 2_000, int(SetColumnGrbit.SetSizeLV))
    await cursor.update()
    await cursor.move(FIRST)
    for call in (
        lambda: cursor.retrieve_column(x),
        lambda: cursor.retrieve_columns([RetrieveColumn(x)]),
        lambda: cursor.enumerate_columns(),
        lambda: records_from(cursor, 1, Wanted()),
        lambda: cursor.retrieve_all(),
    ):
        with refuses(Err.OutOfMemory):
            await call()
    got = await cursor.retrieve_column(x, 0, RetInfo(limits.LONG_VALUE_BYTES_MAX - 3), 10)
    assert (got.value, got.size) == (bytes(3), 3)
    session.instance.engine.answer_bytes_max = 3_000
    assert (await cursor.retrieve_column(y)).value == bytes(2_000)
    with refuses(Err.OutOfMemory):  # each of them would do
        await cursor.retrieve_columns([RetrieveColumn(y), RetrieveColumn(y)])
    with refuses(Err.OutOfMemory):
        await records_from(cursor, 1, Wanted())
    assert (await records_from(cursor, 1, Wanted((y,))))[1] is False


# -- two who overwrite at level 0 ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("whole_chunks", [False, True])
async def test_two_overwrites_in_place_prepared_at_level_0_do_not_undo_each_other(
    session: Session, other: Session, dbid: int, other_dbid: int, whole_chunks: bool
) -> None:
    """The row stays as it is, byte for byte: what tells is the chunk that both have changed in part."""
    cursor = await table_in(session, dbid)
    theirs = await other.open_table(other_dbid, "t")
    size, apart = 4 * longvalue.CHUNK, longvalue.CHUNK if whole_chunks else 2_000
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["id"], 1)
    await cursor.set_column(ids(cursor)["data"], bytes(size))
    await cursor.update()
    for one, place, what in ((cursor, 0, b"a"), (theirs, apart, b"b")):
        await at(one, 1)
        await one.prepare_update(Prep.Replace)
        await one.set_column(ids(one)["data"], what * apart, OVERWRITE, SetInfo(offset=place))
    await cursor.update()
    if whole_chunks:
        await theirs.update()
        assert (await theirs.retrieve_column(ids(theirs)["data"])).value == b"a" * apart + b"b" * apart + bytes(size - 2 * apart)
        return
    with refuses(Err.WriteConflict):
        await theirs.update()
    theirs.cancel_update()
    await theirs.prepare_update(Prep.Replace)
    await theirs.set_column(ids(theirs)["data"], b"b" * apart, OVERWRITE, SetInfo(offset=apart))
    await theirs.update()
    assert (await theirs.retrieve_column(ids(theirs)["data"])).value == b"a" * apart + b"b" * apart + bytes(size - 2 * apart)


@pytest.mark.parametrize("meanwhile", ["overwritten", "deleted"])
async def test_two_who_copy_a_record_at_once_share_its_long_value(
    session: Session, other: Session, dbid: int, other_dbid: int, meanwhile: str
) -> None:
    """Who takes the value away or overwrites it in place cannot do so beside them."""
    cursor = await table_in(session, dbid)
    theirs = await other.open_table(other_dbid, "t")
    third = await session.instance.begin_session()
    thirds = await third.open_table(await third.open_database("test.edb"), "t")
    whole = b"z" * (3 * longvalue.CHUNK)
    await cursor.prepare_update(Prep.Insert)
    await cursor.set_column(ids(cursor)["id"], 1)
    await cursor.set_column(ids(cursor)["data"], whole)
    await cursor.update()
    for number, one in ((2, cursor), (3, theirs)):
        await one.session.begin_transaction()
        await at(one, 1)
        await one.prepare_update(Prep.InsertCopy)
        await one.set_column(ids(one)["id"], number)
        await one.update()
    await at(thirds, 1)
    with refuses(Err.WriteConflict):
        if meanwhile == "deleted":
            await thirds.delete()
        else:
            await thirds.prepare_update(Prep.Replace)
            await thirds.set_column(ids(thirds)["data"], b"y", OVERWRITE)
            await thirds.update()
    thirds.cancel_update()
    await session.commit_transaction()
    await other.commit_transaction()
    for number in (1, 2, 3):
        await at(thirds, number)
        assert (await thirds.retrieve_column(ids(thirds)["data"])).value == whole
        await thirds.delete()
    reader = await session.instance.store.begin(read_only=True)
    assert await reader.scan(thirds.table.long_values) == []
    await reader.rollback()
