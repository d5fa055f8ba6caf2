"""All interleavings of sessions, for each anomaly of the literature; at the store's door and above it.

Every order of the steps that keeps each session's own order is run (see `tests.support.interleaving`), and after it the
case says what must hold: which steps were refused, what was read, what is left. The outcomes are ESE's: snapshot isolation,
the first writer wins at once, a clash of inserts is a duplicate, escrow updates do not conflict. Besides, each outcome is
compared with the one that the rules allow (`tests.support.snapshot_isolation`). Three sessions: `test_isolation_of_three`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.session import Session
from jetwire_server.store.transaction import StoreTransaction
from tests.server.engine.refusals import refused
from tests.support.interleaving import (
    C,
    Case,
    Content,
    EngineWorld,
    Outcome,
    R,
    World,
    engine_world,
    interleaved,
    interleavings,
    store_world,
)
from tests.support.snapshot_isolation import what_must_come

WC, KD = Err.WriteConflict, Err.KeyDuplicate


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
            assert outcome == what_must_come(case, order, beside=isinstance(world, EngineWorld))
        except AssertionError as error:
            error.add_note(f"{case.name}: {outcome}")
            raise


@pytest.mark.parametrize("kind", ["memory", "embedded"])
@pytest.mark.parametrize("case", [c for c in CASES if not c.engine_only], ids=lambda c: c.name)
async def test_at_the_stores_door(case: Case, kind: str, tmp_path: Path) -> None:
    async with store_world(kind, tmp_path) as world:
        await holds_in_every_order(world, case, kind)


@pytest.mark.parametrize("kind", ["memory", "embedded"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
async def test_through_the_engine(case: Case, kind: str, tmp_path: Path) -> None:
    async with engine_world(kind, tmp_path) as world:
        await holds_in_every_order(world, case, kind)


@pytest.mark.plain
async def test_the_tester_notices_a_lost_update(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The control: where nobody looks at newer versions, the second writer gets through."""
    monkeypatch.setattr(StoreTransaction, "check_unchanged", lambda *args: None)
    case = next(c for c in CASES if c.name == "lost update")
    async with store_world("memory", tmp_path) as world:
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
