"""Sessions that take turns in a given order, on a store or through the engine, and what came of it.

A case says what each session does, step by step; the order says whose step is next. Steps, on records by key: `get` and
`scan` read, `put` replaces, `upsert` replaces what it can see, `insert`, `delete`, `add` is an escrow update; `unique`
inserts a record whose unique secondary key is the value; `commit` or `rollback` ends the session. After a refusal the
session rolls back and does no more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit, Prep
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import ManualClock
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.events import EventLog
from jetwire_server.store.interface import Store, Tree, tree_id
from tests.server.store.kinds import KINDS
from tests.stateful.engines import make_store

Step = tuple[Any, ...]
Content = dict[int, int]


@dataclass
class Outcome:
    """What one interleaving led to."""

    order: tuple[int, ...]  # which session made each step
    reads: list[list[Any]]  # by session, what each of its reads answered
    refusals: list[Err | None]  # by session
    refused_at: list[int | None]  # the step of the session that was refused
    content: Content

    @property
    def winners(self) -> list[int]:
        return [n for n, refusal in enumerate(self.refusals) if refusal is None]

    def began(self, session: int) -> int:
        return self.order.index(session)

    def ended(self, session: int) -> int:
        return len(self.order) - 1 - self.order[::-1].index(session)

    def overlap(self, one: int, two: int) -> bool:
        """Neither had ended when the other began."""
        return self.began(one) < self.ended(two) and self.began(two) < self.ended(one)


C, R = ("commit",), ("rollback",)


@dataclass(frozen=True)
class Case:
    name: str
    start: Content
    sessions: tuple[tuple[Step, ...], ...]
    holds: Callable[[Outcome], None]
    engine_only: bool = False


def interleavings(counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every order of steps that keeps each session's own; a session's first step is its begin."""
    if not any(counts):
        yield ()
    for session, count in enumerate(counts):
        if count:
            rest = (*counts[:session], count - 1, *counts[session + 1 :])
            for tail in interleavings(rest):
                yield (session, *tail)


class World(Protocol):
    """Where the steps are made: on the store, or through the engine."""

    async def prepare(self, start: Content) -> None: ...
    async def begin(self) -> Any: ...
    async def step(self, session: Any, step: Step) -> Any: ...
    async def content(self) -> Content: ...


async def interleaved(world: World, case: Case, order: tuple[int, ...]) -> Outcome:
    await world.prepare(case.start)
    count = len(case.sessions)
    live: list[Any] = [None] * count
    place = [0] * count
    out = Outcome(order, [[] for _ in range(count)], [None] * count, [None] * count, {})
    for number in order:
        if live[number] is None:
            live[number] = await world.begin()
            continue
        step = case.sessions[number][place[number]]
        place[number] += 1
        if out.refusals[number] is not None:
            continue
        try:
            answer = await world.step(live[number], step)
        except JetError as error:
            out.refusals[number] = Err(error.code)
            out.refused_at[number] = place[number] - 1
            await world.step(live[number], R)
        else:
            if step[0] in ("get", "scan"):
                out.reads[number].append(answer)
    out.content = await world.content()
    return out


# -- the store's door -------------------------------------------------------------------------------------------------
class StoreWorld:
    """Records are keys of one tree, values little-endian integers."""

    def __init__(self, store: Store, tree: Tree) -> None:
        self.store = store
        self.tree = tree

    async def prepare(self, start: Content) -> None:
        writer = await self.store.begin()
        for key in await self.content():
            writer.delete(self.tree, b"%d" % key)
        for key, value in start.items():
            writer.put(self.tree, b"%d" % key, value.to_bytes(4, "little", signed=True))
        await writer.commit()

    async def begin(self) -> Any:
        return await self.store.begin()

    async def step(self, session: Any, step: Step) -> Any:
        what, *args = step
        key = b"%d" % args[0] if args else b""
        if what in ("commit", "rollback"):
            await getattr(session, what)()
            return None
        if what == "scan":
            return [int(k) for k, _ in await session.scan(self.tree)]
        if what == "get":
            return number(await session.get(self.tree, key))
        if what == "delete":
            return session.delete(self.tree, key)
        if what == "add":
            return session.add(self.tree, key, 0, 4, args[1])
        if what == "upsert":  # a replace of a record that may be gone
            if await session.get(self.tree, key) is None:
                return None
            what = "put"
        return getattr(session, what)(self.tree, key, args[1].to_bytes(4, "little", signed=True))

    async def content(self) -> Content:
        reader = await self.store.begin(read_only=True)
        rows = await reader.scan(self.tree)
        await reader.rollback()
        return {int(key): number(value) for key, value in rows}


def number(value: bytes) -> int:
    return int.from_bytes(value, "little", signed=True)


# -- the engine -------------------------------------------------------------------------------------------------------
TABLE = TableCreate(
    "t",
    columns=(
        ColumnCreate("id", Coltyp.Long),
        ColumnCreate("value", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnEscrowUpdate), default=0),
        ColumnCreate("copy", Coltyp.Long),
        ColumnCreate("u", Coltyp.Long),
    ),
    indexes=(
        IndexCreate("pk", ("+id",), int(CreateIndexGrbit.IndexPrimary)),
        IndexCreate("u", ("+u",), int(CreateIndexGrbit.IndexUnique | CreateIndexGrbit.IndexIgnoreAnyNull)),
    ),
)


class EngineWorld:
    """Records of a table; each step with a cursor of its own. What is replaced is `copy`, what is added to is `value`."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.columns: dict[str, int] = {}
        self.dbids: dict[int, int] = {}

    async def create(self) -> None:
        session = await self.instance.begin_session()
        dbid = await session.create_database("t.edb")
        made = await session.create_table_column_index(dbid, TABLE)
        self.columns = dict(zip(("id", "value", "copy", "u"), made.columnids, strict=True))
        await session.end_session()

    async def session(self) -> Session:
        session = await self.instance.begin_session()
        self.dbids[session.id] = await session.open_database("t.edb")
        return session

    async def prepare(self, start: Content) -> None:
        for left in list(self.instance.sessions.values()):
            await left.end_session()
        session = await self.session()
        await session.begin_transaction()
        for key in await self.content():
            await self.step(session, ("delete", key))
        for key, value in start.items():
            await self.step(session, ("insert", key, value))
        await session.commit_transaction()
        await session.end_session()

    async def begin(self) -> Any:
        session = await self.session()
        await session.begin_transaction()
        return session

    async def step(self, session: Session, step: Step) -> Any:
        what, *args = step
        if what == "commit":
            return await session.commit_transaction()
        if what == "rollback":
            return await session.rollback()
        cursor = await session.open_table(self.dbids[session.id], "t")
        try:
            if what == "scan":
                return list(await self.rows(cursor))
            if what in ("insert", "unique"):
                await cursor.prepare_update(Prep.Insert)
                await cursor.set_column(self.columns["id"], args[0])
                await cursor.set_column(self.columns["copy"], args[1])
                if what == "unique":
                    await cursor.set_column(self.columns["u"], args[1])
                return await cursor.update()
            cursor.make_key(args[0], 1)
            try:
                await cursor.seek(1)
            except JetError as error:
                if what == "upsert" and error.code == Err.RecordNotFound:
                    return None
                raise
            if what == "get":
                return await self.value(cursor)
            if what == "delete":
                return await cursor.delete()
            if what == "add":
                return await cursor.escrow_update(self.columns["value"], args[1])
            await cursor.prepare_update(Prep.Replace)
            await cursor.set_column(self.columns["copy"], args[1])
            return await cursor.update()
        finally:
            cursor.close()

    async def value(self, cursor: Any) -> int:
        """What was put, and all that was added."""
        return sum([(await cursor.retrieve_column(self.columns[c])).value for c in ("value", "copy")])

    async def rows(self, cursor: Any) -> Content:
        found: Content = {}
        step = -(1 << 31)
        while True:
            try:
                await cursor.move(step)
            except JetError as error:
                if error.code != Err.NoCurrentRecord:
                    raise
                return found
            found[(await cursor.retrieve_column(self.columns["id"])).value] = await self.value(cursor)
            step = 1

    async def content(self) -> Content:
        session = await self.session()
        cursor = await session.open_table(self.dbids[session.id], "t")
        found = await self.rows(cursor)
        await session.end_session()
        return found


@asynccontextmanager
async def store_world(kind: str, directory: Path) -> AsyncIterator[StoreWorld]:
    store = await KINDS[kind].open(str(directory))
    yield StoreWorld(store, tree_id(await store.create_database("a.edb"), 1))
    await store.stop()


@asynccontextmanager
async def engine_world(kind: str, directory: Path) -> AsyncIterator[EngineWorld]:
    clock = ManualClock()
    engine = Engine(clock, EventLog(), lambda instance: make_store(kind, str(directory), clock))
    instance = await engine.create_instance("t")
    instance.set_parameter(Param.LogFileSize, 128)
    await instance.init()
    world = EngineWorld(instance)
    await world.create()
    yield world
    await instance.term()
