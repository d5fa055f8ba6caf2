"""All interleavings of two and three sessions, for each anomaly of the literature; at the store's door and above it.

A case is what each session does, step by step. Every order of the steps that keeps each session's own order is run, and
after it the case says what must hold: which steps were refused, what was read, what is left. The outcomes are ESE's:
snapshot isolation, the first writer wins at once, a clash of inserts is a duplicate, escrow updates do not conflict.

Steps, on records by key: `get` and `scan` read, `put` replaces, `insert`, `delete`, `add` is an escrow update; `unique`
inserts a record whose unique secondary key is the value; `commit` ends the session. After a refusal the session rolls
back and does no more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

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
from jetwire_server.store.transaction import StoreTransaction
from tests.server.engine.refusals import refused
from tests.server.store.kinds import KINDS
from tests.stateful.engines import make_store

Step = tuple[Any, ...]
Content = dict[int, int]
WC, KD = Err.WriteConflict, Err.KeyDuplicate


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


def one_wins(out: Outcome, code: Err, values: dict[int, Content]) -> None:
    """Of sessions that overlap exactly one gets through, the other has its refusal at once; one after the other, both do."""
    if out.overlap(0, 1):
        assert len(out.winners) == 1
        assert code in out.refusals
        assert out.content == values[out.winners[0]]
    else:
        assert out.winners == [0, 1]
        assert out.content == values[1 if out.ended(0) < out.began(1) else 0]


def dirty_write(out: Outcome) -> None:
    one_wins(out, WC, {0: {1: 10, 2: 10}, 1: {1: 20, 2: 20}})


def only_before_or_after(out: Outcome) -> None:
    """The reader sees the writer's two changes, or neither; and the same each time it looks."""
    assert out.winners == [0, 1]
    assert out.reads[1] in ([0, 0, 0], [5, 5, 5])
    assert out.reads[1][0] == (5 if out.ended(0) < out.began(1) else 0)


def never_uncommitted(out: Outcome) -> None:
    assert out.reads[1] == [0]
    assert out.content == {1: 0}


def lost_update(out: Outcome) -> None:
    if out.overlap(0, 1):
        assert len(out.winners) == 1
        assert WC in out.refusals
    else:
        assert out.winners == [0, 1]
    assert out.content[1] in ({0: 10, 1: 20}[n] for n in out.winners)


def write_skew(out: Outcome) -> None:
    """Snapshot isolation lets it happen: each reads what the other changes, and both commit."""
    assert out.winners == [0, 1]
    assert out.content == {1: 9, 2: 9}
    if out.overlap(0, 1):
        assert out.reads == [[0], [0]]


def no_phantom(out: Outcome) -> None:
    assert out.winners == [0, 1]
    first, second = out.reads[1]
    assert first == second
    assert first == ([1, 2, 3] if out.ended(0) < out.began(1) else [1, 3])


def unique_race(out: Outcome) -> None:
    """However they are ordered, even one after the other, one value stands once; the other is told KeyDuplicate."""
    assert len(out.winners) == 1
    assert out.refusals.count(KD) == len(out.refusals) - 1
    assert len(out.content) == 1


def adds_commute(out: Outcome) -> None:
    assert out.refusals == [None] * len(out.refusals)
    assert out.content == {1: 7 if len(out.refusals) == 2 else 14}


def add_against_put(out: Outcome) -> None:
    """The store has one value, which a put takes away; the engine a column for each."""
    if out.overlap(0, 1):
        assert len(out.winners) == 1
        assert WC in out.refusals
        assert out.content == {1: {0: 3, 1: 100}[out.winners[0]]}
    else:
        assert out.winners == [0, 1]
        assert out.content[1] in ((100, 103) if out.ended(0) < out.began(1) else (103,))


def delete_against_put(out: Outcome) -> None:
    if out.overlap(0, 1):
        assert len(out.winners) == 1
        assert WC in out.refusals
        assert out.content == ({} if out.winners == [0] else {1: 5})
    else:
        assert out.content == {}


def insert_after_delete(out: Outcome) -> None:
    """The record that another session deleted, uncommitted or after one's own begin, is still in the way."""
    assert out.refusals[0] is None
    if out.ended(0) < out.began(1):
        assert out.refusals[1] is None
        assert out.content == {1: 8}
    else:
        assert out.refusals[1] is KD
        assert out.content == {}


def three_writers(out: Outcome) -> None:
    """Whoever wrote first wins; the others overlap with it or come after its end."""
    assert out.winners
    last = max(out.winners, key=out.ended)
    assert out.content == {1: last}
    for loser in set(range(3)) - set(out.winners):
        assert out.refusals[loser] is WC
        assert any(out.overlap(loser, winner) for winner in range(3) if winner != loser)


@dataclass(frozen=True)
class Case:
    name: str
    start: Content
    sessions: tuple[tuple[Step, ...], ...]
    holds: Callable[[Outcome], None]
    engine_only: bool = False


C, R = ("commit",), ("rollback",)
CASES = [
    Case("dirty write", {1: 0, 2: 0}, ((("put", 1, 10), ("put", 2, 10), C), (("put", 1, 20), ("put", 2, 20), C)), dirty_write),
    Case("dirty read", {1: 0}, ((("put", 1, 5), R), (("get", 1), C)), never_uncommitted),
    Case("fuzzy read", {1: 0}, ((("put", 1, 5), C), (("get", 1), ("get", 1), ("get", 1), C)), only_before_or_after),
    Case("read skew", {1: 0, 2: 0}, ((("put", 1, 5), ("put", 2, 5), C), (("get", 1), ("get", 2), ("get", 1), C)), only_before_or_after),
    Case("lost update", {1: 0}, ((("get", 1), ("put", 1, 10), C), (("get", 1), ("put", 1, 20), C)), lost_update),
    Case("write skew", {1: 0, 2: 0}, ((("get", 2), ("put", 1, 9), C), (("get", 1), ("put", 2, 9), C)), write_skew),
    Case("phantom", {1: 0, 3: 0}, ((("insert", 2, 0), C), (("scan",), ("scan",), C)), no_phantom),
    Case("insert race", {}, ((("insert", 1, 1), C), (("insert", 1, 2), C)), unique_race),
    Case("insert race of three", {}, tuple((("insert", 1, n), C) for n in range(3)), unique_race),
    Case("unique race", {}, ((("unique", 1, 7), C), (("unique", 2, 7), C)), unique_race, engine_only=True),
    Case("unique race of three", {}, tuple((("unique", n, 7), C) for n in (1, 2, 3)), unique_race, engine_only=True),
    Case("adds", {1: 0}, ((("add", 1, 3), C), (("add", 1, 4), C)), adds_commute),
    Case("adds of three", {1: 0}, tuple((("add", 1, n), C) for n in (3, 4, 7)), adds_commute),
    Case("add and replace", {1: 0}, ((("add", 1, 3), C), (("put", 1, 100), C)), add_against_put),
    Case("delete and replace", {1: 0}, ((("delete", 1), C), (("upsert", 1, 5), C)), delete_against_put),
    Case("insert after delete", {1: 0}, ((("delete", 1), C), (("insert", 1, 8), C)), insert_after_delete),
    Case("three writers", {1: -1}, tuple((("put", 1, n), C) for n in range(3)), three_writers),
]


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


# -- the tests --------------------------------------------------------------------------------------------------------
EMBEDDED_EVERY = 9  # of the many orders of three sessions; files are slow, and the rules are the same


def orders(case: Case, kind: str) -> list[tuple[int, ...]]:
    every = list(interleavings(tuple(len(steps) + 1 for steps in case.sessions)))
    return every[::EMBEDDED_EVERY] if kind == "embedded" and len(case.sessions) > 2 else every


async def holds_in_every_order(world: World, case: Case, kind: str) -> None:
    for order in orders(case, kind):
        outcome = await interleaved(world, case, order)
        try:
            case.holds(outcome)
        except AssertionError as error:
            error.add_note(f"{case.name}: {outcome}")
            raise


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


@pytest.mark.parametrize("kind", ["memory", "embedded"])
@pytest.mark.parametrize("case", [c for c in CASES if not c.engine_only], ids=lambda c: c.name)
async def test_at_the_stores_door(case: Case, kind: str, tmp_path: Path) -> None:
    store = await KINDS[kind].open(str(tmp_path))
    world = StoreWorld(store, tree_id(await store.create_database("a.edb"), 1))
    await holds_in_every_order(world, case, kind)
    await store.stop()


@pytest.mark.parametrize("kind", ["memory", "embedded"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
async def test_through_the_engine(case: Case, kind: str, tmp_path: Path) -> None:
    async with engine_world(kind, tmp_path) as world:
        await holds_in_every_order(world, case, kind)


async def test_the_tester_notices_a_lost_update(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The control: where nobody looks at newer versions, the second writer gets through."""
    monkeypatch.setattr(StoreTransaction, "_check_unchanged", lambda *args: None)
    case = next(c for c in CASES if c.name == "lost update")
    store = await KINDS["memory"].open(str(tmp_path))
    world = StoreWorld(store, tree_id(await store.create_database("a.edb"), 1))
    with pytest.raises(AssertionError):
        await holds_in_every_order(world, case, "memory")


# -- schema beside data -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["memory", "embedded"])
async def test_an_index_built_beside_an_insert_never_misses_the_row(kind: str, tmp_path: Path) -> None:
    """One session inserts, one builds an index, in every order: what both committed, both have."""
    async with engine_world(kind, tmp_path) as world:
        for order in interleavings((3, 3)):
            await index_beside_insert(world, order)


async def index_beside_insert(world: EngineWorld, order: tuple[int, ...]) -> None:
    await world.prepare({1: 1})
    name = "".join("ib"[n] for n in order)  # each order its own index
    sessions: list[Session | None] = [None, None]
    place, refusals = [0, 0], [0, 0]
    for n in order:
        session = sessions[n]
        place[n] += 1
        if session is None:
            sessions[n] = await world.begin()
        elif refusals[n]:
            continue
        elif place[n] == 3:
            await session.commit_transaction()
        else:
            try:
                if n == 0:
                    await world.step(session, ("insert", 2, 2))
                else:
                    cursor = await session.open_table(world.dbids[session.id], "t")
                    await session.create_index(cursor, [IndexCreate(name, ("+copy",))])
                    cursor.close()
            except JetError as error:
                refusals[n] = error.code
                await session.rollback()
    one_after_the_other = order in ((0, 0, 0, 1, 1, 1), (1, 1, 1, 0, 0, 0))
    assert refusals[0] in (0, Err.WriteConflict), order
    assert refusals[1] in (0, Err.WriteConflict), order
    if one_after_the_other:
        assert refusals == [0, 0], order
    if refusals[1] == 0:
        session = await world.session()
        cursor = await session.open_table(world.dbids[session.id], "t")
        await cursor.set_current_index(name)
        assert await world.rows(cursor) == await world.content(), order
        cursor.close()
        await session.end_session()


# -- escrow -----------------------------------------------------------------------------------------------------------
async def test_a_record_changed_by_escrow_cannot_be_prepared_or_deleted_elsewhere(tmp_path: Path) -> None:
    async with engine_world("memory", tmp_path) as world:
        await world.prepare({1: 0})
        one, two = await world.begin(), await world.begin()
        await world.step(one, ("add", 1, 3))
        await refused(world.step(two, ("put", 1, 9)), WC)
        await refused(world.step(two, ("delete", 1)), WC)
        await world.step(two, ("add", 1, 4))
        assert [await world.step(s, ("get", 1)) for s in (one, two)] == [3, 4]


RAW = [("a", 4, 0), ("b", 3, 4), ("a", 2, 7), ("a", -7, 9)]


async def test_escrow_update_answers_the_stored_value(tmp_path: Path) -> None:
    """The documentation's own table: what is answered counts the adds of other sessions that are not committed."""
    async with engine_world("memory", tmp_path) as world:
        await world.prepare({1: 0})
        sessions = {"a": await world.begin(), "b": await world.begin()}
        for who, delta, before in RAW:
            assert await world.step(sessions[who], ("add", 1, delta)) == before
