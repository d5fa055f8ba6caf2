"""Indexes of every kind over columns of many values, against a model: after random changes each has just the entries it must have.

`python -m tests.server.engine.test_index_random FIRST LAST` tries those seeds.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar
from uuid import UUID

import pytest

from jetwire_protocol.data.flags import (
    AddColumnGrbit,
    Coltyp,
    Conditionalcolumn,
    Prep,
    RetrieveColumnGrbit,
    SetColumnGrbit,
    SetCurrentIndexGrbit,
    SetIndexRangeGrbit,
)
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.engine import indexing, row_writes, update
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import IndexCreate, UnicodeIndex
from jetwire_server.engine.schema import TupleLimits
from jetwire_server.engine.session import Session
from jetwire_server.engine.setting import SetInfo
from jetwire_server.engine.tables import TableCreate
from jetwire_server.events import EventLog
from jetwire_server.store.memory import MemoryStore
from tests.support.index_model import BINARY, TEXT, CutRefused, I, ModelColumn, ModelIndex, NullRefused, many_of
from tests.support.seeds import try_seeds

from .tables_for_tests import FIRST, LAST, ids

MANY = int(AddColumnGrbit.ColumnTagged | AddColumnGrbit.ColumnMultiValued)
ZERO_LENGTH = int(SetColumnGrbit.SetZeroLength)
FROM_INDEX = int(RetrieveColumnGrbit.RetrieveFromIndex | RetrieveColumnGrbit.RetrieveTag)
NO_MOVE = int(SetCurrentIndexGrbit.NoMove)
UP_TO = int(SetIndexRangeGrbit.RangeUpperLimit | SetIndexRangeGrbit.RangeInclusive)
STEPS = 45
COLUMNS = (
    ModelColumn("id", Coltyp.Long),
    ModelColumn("numbers", Coltyp.Long, multi=True),
    ModelColumn("words", Coltyp.LongText, 1252, multi=True),
    ModelColumn("names", Coltyp.LongText, 1200, multi=True),
    ModelColumn("blobs", Coltyp.LongBinary, multi=True),
    ModelColumn("small", Coltyp.Short, default=7),
    ModelColumn("long", Coltyp.LongText, 1200),
    ModelColumn("guid", Coltyp.GUID),
    ModelColumn("real", Coltyp.IEEEDouble),
)
BY_NAME = {column.name: column for column in COLUMNS}
Record = dict[str, Any]
Entry = tuple[bytes, bytes]
T = TypeVar("T")


async def tried(call: Awaitable[T]) -> tuple[T | None, int]:
    """What it answers, and the code of the error that it ends in instead, or 0."""
    try:
        return await call, 0
    except JetError as error:
        return None, error.code


class World:
    """One table, twice: in the engine, and as a dictionary of records by bookmark."""

    def __init__(self, session: Session, seed: int) -> None:
        self.session = session
        self.draw = random.Random(seed)
        self.rows: dict[bytes, Record] = {}
        self.indexes: dict[str, ModelIndex] = {}
        self.saved: list[tuple[dict[bytes, Record], dict[str, ModelIndex]]] = []  # one a level
        self.made = 0

    async def open(self, dbid: int) -> None:
        primary = ["+id", "-small"] if self.draw.random() < 0.7 else ["+long", "+id"]
        self.primary = ModelIndex("pk", tuple((BY_NAME[part[1:]], part[0] == "-") for part in primary), int(I.IndexPrimary))
        columns = tuple(ColumnCreate(c.name, c.coltyp, cp=c.cp, grbit=MANY if c.multi else 0, default=c.default) for c in COLUMNS)
        drawn = [self.new_index() for _ in range(3)]
        self.indexes = {index.name: index for index in drawn}
        creates = (IndexCreate("pk", tuple(primary), int(I.IndexPrimary)), *map(self.create, drawn))
        self.cursor = (await self.session.create_table_column_index(dbid, TableCreate("t", columns=columns, indexes=creates))).cursor
        self.ids = ids(self.cursor)

    # -- what is drawn ----------------------------------------------------------------------------------------------------
    def new_index(self) -> ModelIndex:
        draw = self.draw
        columns = draw.sample(COLUMNS, draw.choice([1, 1, 2, 2, 3]))
        many = [c for c in COLUMNS if c.multi]
        columns = list(dict.fromkeys([*draw.sample(many, draw.choice([0, 1, 2])), *columns]))
        draw.shuffle(columns)
        chances = {
            I.IndexUnique: 0.1,
            I.IndexDisallowNull: 0.05,
            I.IndexSortNullsHigh: 0.2,
            I.IndexDotNetGuid: 0.3,
            I.IndexDisallowTruncation: 0.05,
        }
        grbit = sum(int(bit) for bit, chance in chances.items() if draw.random() < chance)
        grbit |= int(draw.choice([0, 0, I.IndexIgnoreNull, I.IndexIgnoreAnyNull, I.IndexIgnoreFirstNull]))
        grbit |= int(draw.choice([0, I.IndexCrossProduct, I.IndexNestedTable]))
        key_most = draw.choice([255, 255, 300, 600])
        part_most = draw.choice([0, 0, 0, 1, 5, 11, 64])
        pieces = None
        if draw.random() < 0.25 and not grbit & I.IndexUnique:
            first = draw.choice([BY_NAME["words"], BY_NAME["long"]])
            columns = [first, *(c for c in columns if c is not first)]
            pieces, part_most = (2, draw.choice([2, 5]), draw.choice([3, 32_767]), draw.choice([1, 2]), draw.choice([0, 1])), 0
        condition = (draw.choice(COLUMNS).name, draw.random() < 0.5) if draw.random() < 0.25 else None
        self.made += 1
        segments = tuple((column, draw.random() < 0.3) for column in columns)
        flags = draw.choice([0x30401, 0x30401, 0x30401, 0x200])
        return ModelIndex(f"i{self.made}", segments, grbit, key_most, part_most, flags, condition, pieces)

    def create(self, index: ModelIndex) -> IndexCreate:
        grbit = index.grbit | int(I.IndexKeyMost | I.IndexUnicode) | (int(I.IndexTuples | I.IndexTupleLimits) if index.pieces else 0)
        must = Conditionalcolumn.IndexColumnMustBeNull, Conditionalcolumn.IndexColumnMustBeNonNull
        return IndexCreate(
            index.name,
            tuple(("-" if descends else "+") + column.name for column, descends in index.segments),
            grbit,
            unicode=UnicodeIndex(0, "en-US", index.flags),
            var_seg_mac=index.part_most,
            key_most=index.key_most,
            tuples=TupleLimits(*index.pieces) if index.pieces else None,
            conditions=((index.condition[0], int(must[not index.condition[1]])),) if index.condition else (),
        )

    def value(self, column: ModelColumn) -> Any:
        draw = self.draw
        if column.coltyp == Coltyp.GUID:
            return UUID(int=draw.choice([1, 2, 1 << 127, 0x01020304_0506_0708_090A0B0C0D0E0F10]))
        if column.coltyp == Coltyp.IEEEDouble:
            return draw.choice([0.0, -1.5, 1.5, 3e30])
        if column.coltyp not in TEXT + BINARY:
            return draw.choice([-1, 0, 1, 2, 300])
        size = draw.choice([0, 1, 2, 3, 7, 8, 9, 16, 17, 30] if draw.random() < 0.85 else [120, 217, 224, 254, 255, 700])
        if column.coltyp in BINARY:
            return bytes(draw.choice(b"\0\1\xff") for _ in range(size))
        letters = "aAb" if draw.random() < 0.6 else "aAbB -_9" if column.cp == 1200 else "aAb {\xe9 5"
        return "".join(draw.choice(letters) for _ in range(size))

    # -- the model's side -------------------------------------------------------------------------------------------------
    def keys(self, index: ModelIndex, record: Record) -> list[bytes]:
        whole = {column.name: record.get(column.name, column.default) for column in COLUMNS}
        if index is self.primary:
            return [index.build([whole[column.name] for column, _ in index.segments])]
        return list(dict.fromkeys(key for key, _ in index.entries(whole)))

    def entries(self, name: str | None) -> list[Entry]:
        if name is None:
            return [(bookmark, bookmark) for bookmark in sorted(self.rows)]
        index = self.indexes[name]
        return sorted((key, bookmark) for bookmark, record in self.rows.items() for key in self.keys(index, record))

    def refusals(self, record: Record, bookmark: bytes | None) -> set[int]:
        """Why such a record cannot be: the one with this bookmark, or a new one."""
        out: set[int] = set()
        key = self.keys(self.primary, record)[0]
        if bookmark is None and key in self.rows:
            out.add(Err.KeyDuplicate)
        if bookmark is not None and key != bookmark:
            out.add(Err.RecordPrimaryChanged)
        for index in self.indexes.values():
            out |= self.refused_by(index, record, [other for at, other in self.rows.items() if at != bookmark])
        return out

    def refused_by(self, index: ModelIndex, record: Record, others: list[Record]) -> set[int]:
        try:
            keys = set(self.keys(index, record))
        except NullRefused:
            return {Err.NullKeyDisallowed}
        except CutRefused:
            return {Err.KeyTruncated}
        clash = index.grbit & I.IndexUnique and any(not keys.isdisjoint(self.keys(index, other)) for other in others)
        return {Err.KeyDuplicate} if clash else set()

    # -- steps ------------------------------------------------------------------------------------------------------------
    async def step(self) -> None:
        calls = [self.insert] * 7 + [self.replace] * 6 + [self.delete] * 2 + [self.begin, self.commit, self.rollback]
        await self.draw.choice([*calls, self.create_index, self.create_index, self.delete_index])()
        if self.draw.random() < 0.25:
            await self.compare()

    async def fill(self, record: Record, chance: float) -> None:
        for column in self.draw.sample(COLUMNS, len(COLUMNS)):
            if self.draw.random() > chance:
                continue
            for _ in range(self.draw.choice([1, 2, 3]) if column.multi else 1):
                values = list(many_of(record.get(column.name)))
                number = self.draw.choice([0, 1, len(values) + 1, self.draw.randint(1, len(values) + 1)]) if column.multi else 1
                value = self.value(column) if self.draw.random() < 0.8 else None
                await self.cursor.set_column(self.ids[column.name], value, ZERO_LENGTH if value in ("", b"") else 0, SetInfo(0, number))
                place = number - 1 if 0 < number <= len(values) else len(values)
                values[place : place + 1] = [] if value is None else [value]
                record[column.name] = values if len(values) > 1 else values[0] if values else None

    async def write(self, record: Record, bookmark: bytes | None) -> None:
        refusals = self.refusals(record, bookmark)
        got, refused = await tried(self.cursor.update())
        assert refused in (refusals or {0}), record
        if got is None:
            self.cursor.cancel_update()
            return
        assert got == self.keys(self.primary, record)[0]
        self.rows[got] = record

    async def insert(self) -> None:
        record: Record = {}
        await self.cursor.prepare_update(Prep.Insert)
        await self.fill(record, 0.8)
        await self.write(record, None)

    async def replace(self) -> None:
        bookmark = await self.go_somewhere()
        if bookmark is not None:
            record = copy.deepcopy(self.rows[bookmark])
            await self.cursor.prepare_update(Prep.Replace)
            await self.fill(record, 0.35)
            await self.write(record, bookmark)

    async def delete(self) -> None:
        bookmark = await self.go_somewhere()
        if bookmark is not None:
            await self.cursor.delete()
            del self.rows[bookmark]

    async def go_somewhere(self) -> bytes | None:
        name = self.draw.choice([None, *self.indexes])
        entries = self.entries(name)
        await self.cursor.set_current_index(name)
        if not entries:
            return None
        key, bookmark = self.draw.choice(entries)
        if name is None:
            await self.cursor.goto_bookmark(bookmark)
        else:
            await self.cursor.goto_secondary_index_bookmark(key, bookmark)
        return bookmark

    async def begin(self) -> None:
        if len(self.saved) < 3:
            await self.session.begin_transaction()
            self.saved.append((copy.deepcopy(self.rows), dict(self.indexes)))

    async def commit(self) -> None:
        if self.saved:
            await self.session.commit_transaction()
            self.saved.pop()

    async def rollback(self) -> None:
        if self.saved:
            await self.session.rollback()
            self.rows, self.indexes = self.saved.pop()

    async def create_index(self) -> None:
        """Over the rows that are there: the same entries as if it had been there before them."""
        index = self.new_index()
        if len(self.indexes) > 5:
            return
        records = list(self.rows.values())
        refusals = set().union(*(self.refused_by(index, record, []) for record in records))
        if not refusals:
            refusals = set().union(*(self.refused_by(index, record, records[:n]) for n, record in enumerate(records)))
        _, refused = await tried(self.session.create_index(self.cursor, [self.create(index)]))
        assert refused in (refusals | {Err.KeyDuplicate} if refusals else {0}), index
        if not refused:
            self.indexes[index.name] = index

    async def delete_index(self) -> None:
        if self.indexes:
            name = self.draw.choice(list(self.indexes))
            await self.session.delete_index(self.cursor, name)
            del self.indexes[name]

    # -- comparing --------------------------------------------------------------------------------------------------------
    async def here(self, name: str | None) -> Entry:
        if name is not None:
            return await self.cursor.get_secondary_index_bookmark()
        bookmark = await self.cursor.get_bookmark()
        return bookmark, bookmark

    async def walk(self, name: str | None, start: int, step: int) -> list[Entry]:
        out = []
        _, ended = await tried(self.cursor.move(start))
        while not ended:
            out.append(await self.here(name))
            _, ended = await tried(self.cursor.move(step))
        assert ended == Err.NoCurrentRecord
        return out

    async def compare(self) -> None:
        for name in (None, *self.indexes):
            entries = self.entries(name)
            await self.cursor.set_current_index(name)
            assert await self.walk(name, FIRST, 1) == entries, self.indexes.get(name or "")
            assert await self.walk(name, LAST, -1) == entries[::-1]
            if entries:
                await self.find(name, entries, self.draw.choice(entries))
                if name is not None:
                    await self.look(self.indexes[name], *self.draw.choice(entries))

    async def find(self, name: str | None, entries: list[Entry], entry: Entry) -> None:
        """By its key, by its place, and the range from there up to another entry."""
        cursor = self.cursor
        cursor.make_key(entry[0], 8)
        await cursor.seek(1)
        place = next(n for n, (key, _) in enumerate(entries) if key == entry[0])
        assert await self.here(name) == entries[place]
        if len(entries) < limits.COUNTED_ENTRIES_MAX:  # in a longer one it is an estimate
            assert (await cursor.get_record_position()).entries_lt == place
        assert await cursor.index_record_count() == len(entries) - place
        last = self.draw.randrange(place, len(entries))
        cursor.make_key(entries[last][0], 8)
        await cursor.set_index_range(UP_TO)
        assert await cursor.index_record_count() == sum(1 for key, _ in entries[place:] if key <= entries[last][0])

    async def look(self, index: ModelIndex, key: bytes, bookmark: bytes) -> None:
        """Which values the entry is of, and the way to it from the record by a value's number."""
        cursor, record = self.cursor, {column.name: self.rows[bookmark].get(column.name, column.default) for column in COLUMNS}
        made = index.entries(record)
        await cursor.goto_secondary_index_bookmark(key, bookmark)
        for place, (column, _) in enumerate(index.segments):
            if index.pieces and not place:
                continue
            got = await cursor.retrieve_column(self.ids[column.name], FROM_INDEX)
            values, numbers = many_of(record[column.name]), [of[place] for one, of in made if one == key]
            assert got.value in [values[n - 1] if n <= len(values) else None for n in numbers], (index, column.name)
            assert got.value is None or not column.multi or got.itag in numbers
        varying = [place for place, (column, _) in enumerate(index.segments) if column.multi]
        if varying and not index.pieces:
            number = self.draw.randint(1, 3)
            wanted = next((one for one, of in made if of[varying[0]] == number), None)
            await cursor.set_current_index(None)
            await cursor.goto_bookmark(bookmark)
            _, refused = await tried(cursor.set_current_index(index.name, NO_MOVE, number))
            assert refused == (Err.BadItagSequence if wanted is None else 0)
            if wanted is not None:
                assert await self.here(index.name) == (wanted, bookmark)


async def run(seed: int) -> None:
    clock = ManualClock()
    instance = await Engine(clock, EventLog(), lambda made: MemoryStore(clock)).create_instance("a")
    await instance.init()
    session = await instance.begin_session()
    world = World(session, seed)
    await world.open(await session.create_database("a.edb"))
    for _ in range(STEPS):
        await world.step()
    await world.compare()
    while world.saved:
        await world.rollback()
    await world.compare()
    await instance.term()


async def run_all(seeds: Iterable[int]) -> None:
    for seed in seeds:
        await run(seed)


@pytest.mark.parametrize("seed", range(30))
async def test_every_index_has_just_its_entries(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONG_VALUE_INTRINSIC_BYTES_MAX", 64)
    await run(seed)


def _one_is_left(txn: Any, index: Any, before: list[bytes], after: list[bytes], bookmark: bytes) -> None:
    indexing.remove_entries(txn, index, [key for key in before if key not in after][1:], bookmark)
    indexing.add_entries(txn, index, [key for key in after if key not in before], bookmark)


def _every_value(maker: Any) -> tuple[int, ...]:
    return tuple(place for place, segment in enumerate(maker.spec.segments) if segment.multi_valued)


def _all_vary(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("jetwire_server.keys.maker.KeyMaker._varying_segments", _every_value)


def _entries_stay(patch: pytest.MonkeyPatch) -> None:
    for room in (row_writes, update):
        patch.setattr(room, "change_entries", _one_is_left)


@pytest.mark.plain
@pytest.mark.parametrize("break_it", [_all_vary, _entries_stay])
async def test_what_is_broken_is_seen(break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    with pytest.raises((AssertionError, JetError)):
        await run_all(range(30))


if __name__ == "__main__":
    limits.LONG_VALUE_INTRINSIC_BYTES_MAX = 64
    try_seeds(run)
