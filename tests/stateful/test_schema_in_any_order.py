"""DDL at any level of one session's transaction, beside others that read and write by the straight road: all against a model.

One session changes columns, defaults, indexes and rows, commits, and rolls back levels. Two others have cursors open all the while
and work outside transactions, where remembered rows, plans and rows kept as JSON are used. `run(seed, steps, root)`
is the whole of one run; the same seed gives the same run.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit, MakeKeyGrbit, Prep, SeekGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.place import Place
from jetwire_server.engine.schema import Table
from jetwire_server.engine.session import Session
from jetwire_server.engine.straight import Put, read_by_key
from jetwire_server.engine.straight_scan import scan_from
from jetwire_server.engine.tables import TableCreate
from jetwire_server.store.interface import Commit
from tests.server.engine.on_files import engine_on, started

pytestmark = pytest.mark.plain

NEW_KEY, SEEK_EQ, FIRST = int(MakeKeyGrbit.NewKey), int(SeekGrbit.SeekEQ), -(2**31)
KEYS, VALUES = 8, 5
REFUSALS = {
    Err.WriteConflict,
    Err.ColumnDuplicate,
    Err.ColumnNotFound,
    Err.ColumnInUse,
    Err.IndexDuplicate,
    Err.IndexNotFound,
    Err.IndexInUse,
    Err.InTransaction,
    Err.KeyDuplicate,  # of what another session has inserted, seen or not
}


@dataclass
class State:
    """What one view of the table has: columns by id with name and default, indexes with their column, rows with what was set."""

    columns: dict[int, tuple[str, int | None]]
    indexes: dict[str, int] = field(default_factory=dict)
    rows: dict[int, dict[int, int]] = field(default_factory=dict)

    def copy(self) -> State:
        return State(dict(self.columns), dict(self.indexes), {key: dict(row) for key, row in self.rows.items()})

    def seen(self, key: int) -> dict[int, int | None]:
        return {column: self.rows[key].get(column, default) for column, (_, default) in self.columns.items()}

    def told(self, key: int) -> dict[str, int]:
        """The row as JSON has it."""
        return {self.columns[column][0]: value for column, value in self.seen(key).items() if value is not None}

    def along(self, column: int) -> list[dict[int, int | None]]:
        rows = [(self.seen(key), key) for key in self.rows]
        return [row for row, key in sorted(rows, key=lambda one: (one[0][column] is not None, one[0][column] or 0, one[1]))]

    def number_of(self, name: str) -> int:
        return next((number for number, (named, _) in self.columns.items() if named == name), 0)


class Handed(Put):
    """A straight write that is waited for."""

    def __init__(self, cursor: Cursor, values: dict[int, int], mode: str, lazy: bool) -> None:
        super().__init__(cursor, [values], mode, int(lazy))
        self.done: asyncio.Future[Commit | JetError] = asyncio.get_running_loop().create_future()

    def told(self, answer: Commit | JetError) -> None:
        self.done.set_result(answer)


class Run:
    """One run: `changer` is the session with transactions, `cursors` those of the others."""

    def __init__(self, seed: int, changer: Session, dbid: int, state: State) -> None:
        self.random = random.Random(seed)
        self.changer, self.dbid = changer, dbid
        self.id = next(iter(state.columns))
        self.committed = state
        self.inside: State | None = None  # as the open transaction sees it
        self.levels: list[tuple[State, set[int], bool]] = []
        self.wrote: set[int] = set()
        self.changed = False  # the schema, in this transaction
        self.own: list[Cursor] = []
        self.cursors: list[Cursor] = []
        self.straight = 0

    @property
    def now(self) -> State:
        return self.committed if self.inside is None else self.inside

    async def step(self) -> None:
        done: Any = self.random.choices(
            [self.begin, self.commit, self.roll_back, self.change_schema, self.write, self.put, self.read, self.look_at_all],
            [8, 6, 6, 25, 15, 15, 15, 10],
        )[0]
        try:
            await done()
        except JetError as error:
            if error.code not in REFUSALS:
                raise
            for cursor in self.own + self.cursors:
                cursor.cancel_update()

    # -- the one that changes ---------------------------------------------------------------------------------------
    async def begin(self) -> None:
        if self.inside is None:
            self.inside, self.wrote, self.changed = self.committed.copy(), set(), False
        elif self.changer.level < 3:
            self.levels.append((self.inside.copy(), set(self.wrote), self.changed))
        else:
            return
        await self.changer.begin_transaction()

    async def commit(self) -> None:
        if self.inside is None:
            return
        if self.levels:
            self.levels.pop()
            await self.changer.commit_transaction()
            return
        inside, self.inside = self.inside, None
        await self.changer.commit_transaction(self.random.choice([0, 1]))
        for key in self.wrote:
            self.committed.rows.pop(key, None)
            if key in inside.rows:
                self.committed.rows[key] = inside.rows[key]
        if self.changed:
            self.committed.columns, self.committed.indexes = inside.columns, inside.indexes

    async def roll_back(self) -> None:
        if self.inside is None:
            return
        await self.changer.rollback()
        if self.levels:
            self.inside, self.wrote, self.changed = self.levels.pop()
        else:
            self.inside = None

    async def change_schema(self) -> None:
        session, state, choose = self.changer, self.now, self.random.randrange
        cursor, name, number = self.random.choice(self.own), f"n{choose(3)}", choose(6)
        column = state.number_of(name)
        default = self.random.choice([None, 5, 6])
        if number == 0:
            made = await session.add_column(cursor, name, ColumnCreate("", Coltyp.Long, default=default))
            state.columns[made] = name, default
        elif number == 1:
            await session.delete_column(cursor, name)
            del state.columns[column]
        elif number == 2:
            await session.set_column_default_value(self.dbid, "t", name, 7)
            state.columns[column] = name, 7
        elif number == 3:
            indexed = self.random.choice(list(state.columns))
            await session.create_index(cursor, [IndexCreate(f"by_{name}", ("+" + state.columns[indexed][0],))])
            state.indexes[f"by_{name}"] = indexed
        elif number == 4:
            await session.delete_index(cursor, f"by_{name}")
            del state.indexes[f"by_{name}"]
        elif self.inside is None and column:
            await session.rename_column(cursor, name, "renamed")
            await session.rename_column(cursor, "renamed", name)
        self.changed = True

    async def write(self) -> None:
        cursor, state, key = self.random.choice(self.own), self.now, self.random.randrange(KEYS)
        if key in state.rows and self.random.random() < 0.4:
            await self.find(cursor, key)
            await cursor.delete()
            del state.rows[key]
        else:
            await self.update(cursor, state, self.values(state, key))
        self.wrote.add(key)

    # -- all of them ------------------------------------------------------------------------------------------------
    def values(self, state: State, key: int) -> dict[int, int]:
        some = [column for column in state.columns if column != self.id and self.random.random() < 0.5]
        return {self.id: key, **{column: self.random.randrange(VALUES) for column in some}}

    async def find(self, cursor: Cursor, key: int) -> None:
        await cursor.set_current_index(None)
        cursor.make_key(key, NEW_KEY)
        await cursor.seek(SEEK_EQ)

    async def update(self, cursor: Cursor, state: State, values: dict[int, int]) -> None:
        key = values[self.id]
        there = key in state.rows
        if there:
            await self.find(cursor, key)
        await cursor.prepare_update(Prep.Replace if there else Prep.Insert)
        for column, value in values.items():
            if not there or column != self.id:
                await cursor.set_column(column, value)
        await cursor.update()
        state.rows.setdefault(key, {}).update(values)

    # -- the others, outside transactions ---------------------------------------------------------------------------
    async def put(self) -> None:
        cursor, state, key = self.random.choice(self.cursors), self.committed, self.random.randrange(KEYS)
        values = self.values(state, key)
        await cursor.set_current_index(None)
        handed = Handed(cursor, values, "replace" if key in state.rows else "insert", self.random.random() < 0.5)
        if set(values) <= set(cursor.plan.columns) and handed.begin():
            self.straight += 1
            answer = await handed.done
            if isinstance(answer, JetError):
                raise answer
            state.rows.setdefault(key, {}).update(values)
        else:
            await self.update(cursor, state, values)

    async def read(self) -> None:
        cursor, state, key = self.random.choice(self.cursors), self.committed, self.random.randrange(KEYS)
        await cursor.set_current_index(None)
        scanned = scan_from(cursor, [(0, NEW_KEY)], [], 50, False)
        if scanned is not None:
            self.straight += 1
            assert _json(b"[" + b",".join(scanned.records) + b"]") == [state.told(one) for one in sorted(state.rows)]
        found = read_by_key(cursor, [key], False)
        if found is not None:
            assert _json(b"[" + found[0] + b"]") == [state.told(key)]
        try:
            await self.find(cursor, key)
        except JetError as error:
            if error.code != Err.RecordNotFound or key in state.rows:
                raise
        else:
            assert {column: (await cursor.retrieve_column(column)).value for column in state.columns} == state.seen(key)

    async def look_at_all(self) -> None:
        if self.random.random() < 0.5:
            await self.compare(self.random.choice(self.own), self.now)
        else:
            await self.compare(self.random.choice(self.cursors), self.committed)

    async def compare(self, cursor: Cursor, state: State) -> None:
        for name, column in [(None, self.id), *state.indexes.items()]:
            await cursor.set_current_index(name)
            rows, step = [], FIRST
            try:
                while True:
                    await cursor.move(step)
                    rows.append({one: (await cursor.retrieve_column(one)).value for one in state.columns})
                    step = 1
            except JetError as error:
                if error.code != Err.NoCurrentRecord:
                    raise
            assert rows == state.along(column), f"index {name}"


def _json(text: bytes) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if value is not None} for row in msgspec.json.decode(text)]


async def run(seed: int, steps: int, root: Path) -> int:
    """Answers how many calls went by the straight road."""
    instance = await started(engine_on(root))
    changer = await instance.begin_session()
    dbid = await changer.create_database("a.edb")
    primary = IndexCreate("pk", ("+id",), int(CreateIndexGrbit.IndexPrimary))
    columns = (ColumnCreate("id", Coltyp.Long), ColumnCreate("a", Coltyp.Long))
    made = await changer.create_table_column_index(dbid, TableCreate("t", columns=columns, indexes=(primary,)))
    made.cursor.close()
    this = Run(seed, changer, dbid, State(dict(zip(made.columnids, [("id", None), ("a", None)], strict=True))))
    this.own = [await changer.open_table(dbid, "t") for _ in range(2)]
    for _ in range(2):
        other = await instance.begin_session()
        opened = await other.open_database("a.edb")
        this.cursors += [await other.open_table(opened, "t") for _ in range(2)]
    for number in range(steps):
        await this.step()
        if number % 50 == 49:
            await instance.store.checkpoint()
    while this.inside is not None:
        await this.roll_back()
    for cursor in this.own + this.cursors:
        await this.compare(cursor, this.committed)
    await instance.term()
    return this.straight


@pytest.mark.parametrize("seed", range(4))
async def test_every_answer_is_the_models(seed: int, tmp_path: Path) -> None:
    assert await run(seed, 300, tmp_path) > 30


async def test_control_a_cursor_that_keeps_its_old_plan_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def take_description(self: Place, table: Table, stamp: int) -> None:
        self.table, self.stamp = table, stamp

    monkeypatch.setattr(Place, "take_description", take_description)
    with pytest.raises((AssertionError, KeyError)):
        await run(0, 2_000, tmp_path)
