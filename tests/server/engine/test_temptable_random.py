"""Temporary tables against a plain dictionary: random calls, levels and rollbacks, with bounds so small that everything spills.

`python -m tests.server.engine.test_temptable_random FIRST LAST` tries those seeds.
"""

from __future__ import annotations

import random

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, OpenTempTableGrbit, Prep, SetColumnGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.engine import longvalue
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.session import Session
from jetwire_server.engine.temptable import TempTableCreate, open_temp_table
from jetwire_server.events import EventLog
from jetwire_server.store.memory import MemoryStore
from tests.support.seeds import try_seeds

from .tables_for_tests import FIRST, LAST, refuses

T = OpenTempTableGrbit
KEY, DESCENDING = int(AddColumnGrbit.ColumnTTKey), int(AddColumnGrbit.ColumnTTDescending)
STEPS = 100
SIZES = (0, 3, 64, 65, 200, 700, 1_500)
SMALL = {
    "TEMPORARY_BYTES_IN_MEMORY_MAX": 2_500,
    "LONG_VALUE_INTRINSIC_BYTES_MAX": 64,
    "LONG_VALUE_STREAM_BYTES": 900,
    "LONG_VALUE_OVERWRITTEN_BYTES_MAX": 2_000,
}
Row = tuple[int, int | None, bytes | None, int]


def in_order(row: Row) -> tuple[int, bool, int]:
    """NULL is last in the descending column."""
    return row[0], row[1] is None, -(row[1] or 0)


class World:
    """One temporary table, twice."""

    def __init__(self, session: Session, seed: int) -> None:
        self.session = session
        self.draw = random.Random(seed)
        self.unique = self.draw.random() < 0.5
        self.rows: dict[int, Row] = {}
        self.saved: list[dict[int, Row]] = []  # one a level
        self.inserted = 0

    async def open(self) -> None:
        columns = (
            ColumnCreate("", Coltyp.Long, grbit=KEY),
            ColumnCreate("", Coltyp.Short, grbit=KEY | DESCENDING),
            ColumnCreate("", Coltyp.LongBinary),
            ColumnCreate("", Coltyp.Long),
        )
        grbit = T.TTUpdatable | T.TTIndexed | T.TTScrollable
        if self.unique:
            grbit |= T.TTUnique | T.TTErrorOnDuplicateInsertion
        self.cursor, self.ids = await open_temp_table(self.session, TempTableCreate(columns, int(grbit)))
        self.beside = await self.cursor.dup_cursor()

    def value(self) -> bytes | None:
        size = self.draw.choice(SIZES)
        return bytes([self.draw.randint(1, 255)]) * size if size else None

    async def step(self) -> None:
        calls = [self.insert] * 8 + [self.replace] * 5 + [self.delete] * 3 + [self.begin, self.commit, self.rollback] * 2
        await self.draw.choice(calls)()
        if self.beside.id not in self.session.cursors:  # it was opened in a level that was rolled back
            self.beside = await self.cursor.dup_cursor()
        if self.draw.random() < 0.5:
            await self.compare()

    async def insert(self) -> None:
        row = (self.draw.randint(0, 6), self.draw.choice([None, 0, 1]), self.value(), self.draw.randint(0, 9))
        await self.cursor.prepare_update(Prep.Insert)
        for columnid, value in zip(self.ids, row, strict=True):
            await self.cursor.set_column(columnid, value)
        if self.unique and any(row[:2] == there[:2] for there in self.rows.values()):
            with refuses(Err.KeyDuplicate):
                await self.cursor.update()
            await self.cursor.prepare_update(Prep.Cancel)
            return
        await self.cursor.update()
        self.rows[self.inserted] = row
        self.inserted += 1

    async def current(self) -> Row:
        values = await self.beside.retrieve_all()
        first, second, third, fourth = self.ids
        return values[first], values.get(second), values.get(third), values[fourth]

    async def go_somewhere(self) -> int | None:
        """Which row the other cursor is on then."""
        if not self.rows:
            return None
        await self.beside.move(FIRST)
        await self.beside.move(self.draw.randrange(len(self.rows)))
        here = await self.current()
        return next(number for number, row in self.rows.items() if row == here)

    async def replace(self) -> None:
        number = await self.go_somewhere()
        if number is None:
            return
        one, two, old, _ = self.rows[number]
        was = old or b""
        await self.beside.prepare_update(self.draw.choice([Prep.Replace, Prep.ReplaceNoLock]))
        data = old
        match self.draw.choice(["leave", "set", "append", "size"]):
            case "set":
                data = self.value()
                await self.beside.set_column(self.ids[2], data)
            case "append":
                piece = b"z" * self.draw.choice([5, 300, 1_000])
                data = was + piece
                await self.beside.set_column(self.ids[2], piece, int(SetColumnGrbit.SetAppendLV))
            case "size":
                size = self.draw.choice([1, 100, 1_700])
                data = was[:size].ljust(size, b"\0")
                await self.beside.set_column(self.ids[2], size, int(SetColumnGrbit.SetSizeLV))
        last = self.draw.randint(0, 9)
        await self.beside.set_column(self.ids[3], last)
        if self.draw.random() < 0.15:
            await self.beside.prepare_update(Prep.Cancel)
            return
        await self.beside.update()
        self.rows[number] = one, two, data, last

    async def delete(self) -> None:
        number = await self.go_somewhere()
        if number is not None:
            await self.beside.delete()
            del self.rows[number]

    async def begin(self) -> None:
        if len(self.saved) < limits.TRANSACTION_LEVELS_MAX:
            await self.session.begin_transaction()
            self.saved.append(dict(self.rows))

    async def commit(self) -> None:
        if self.saved:
            await self.session.commit_transaction()
            self.saved.pop()

    async def rollback(self) -> None:
        if self.saved:
            await self.session.rollback()
            self.rows = self.saved.pop()

    async def walk(self, start: int, step: int) -> list[Row]:
        out: list[Row] = []
        try:
            await self.beside.move(start)
            while True:
                out.append(await self.current())
                await self.beside.move(step)
        except JetError as error:
            if error.code != Err.NoCurrentRecord:
                raise
        return out

    async def compare(self) -> None:
        found = await self.walk(FIRST, 1)
        assert sorted(map(repr, found)) == sorted(map(repr, self.rows.values()))
        assert list(map(in_order, found)) == sorted(map(in_order, self.rows.values()))
        assert await self.walk(LAST, -1) == found[::-1]


async def run(seed: int) -> None:
    clock = ManualClock()
    instance = await Engine(clock, EventLog(), lambda made: MemoryStore(clock)).create_instance("a")
    await instance.init()
    world = World(await instance.begin_session(), seed)
    await world.open()
    for _ in range(STEPS):
        await world.step()
    while world.saved:
        await world.rollback()
    await world.compare()
    assert world.cursor.storage.spilled
    await instance.term()


def make_small(patch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        patch.setattr(limits, name, value)
    patch.setattr(longvalue, "CHUNK", 200)
    patch.setattr(longvalue, "_SCAN", 4)


@pytest.mark.parametrize("seed", range(25))
async def test_random_calls(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    make_small(monkeypatch)
    await run(seed)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as small:
        make_small(small)
        try_seeds(run)
