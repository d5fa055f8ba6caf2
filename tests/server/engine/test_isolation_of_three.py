"""The anomalies with three sessions: a sample of the orders always, all of them under torture, on both stores.

`holds` says what the literature says of the anomaly: whether snapshot isolation lets it happen, and what it looks like if
so. The exact outcome of each order, refusals and reads and what is left, is that of the rules (`snapshot_isolation`).

All orders of, say, three sessions of three steps after their begin are 34,650. `ORDERS_KEPT` of each case are run in
`make test`; `pytest -m torture tests/server/engine/test_isolation_of_three.py -s` runs all and prints how many there were.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jetwire_protocol.errors import Err
from jetwire_server.store.transaction import StoreTransaction
from tests.support.interleaving import C, Case, EngineWorld, Outcome, R, World, engine_world, interleaved, interleavings, store_world
from tests.support.snapshot_isolation import what_must_come

ORDERS_KEPT = {"memory": 60, "embedded": 12}
WC, KD = Err.WriteConflict, Err.KeyDuplicate


def before(out: Outcome, one: int, two: int) -> bool:
    return out.ended(one) < out.began(two)


# -- what may be seen ---------------------------------------------------------------------------------------------------
def nothing_uncommitted(out: Outcome) -> None:
    """Nobody reads what is rolled back in the end, whoever else reads or writes."""
    assert all(value == 0 for reads in out.reads for value in reads)
    assert out.refusals[1] is None
    assert {out.refusals[0], out.refusals[2]} <= {None, WC}


def one_instant(out: Outcome) -> None:
    """The reader sees both records as of its begin: the newest pair that was committed before."""
    reads = out.reads[1]
    assert reads[0] == reads[1] == reads[2]
    writers = [n for n in (0, 2) if out.refusals[n] is None and before(out, n, 1)]
    newest = max(writers, key=out.ended, default=None)
    assert reads[0] == {None: 0, 0: 5, 2: 6}[newest]


def no_phantom(out: Outcome) -> None:
    first, second = out.reads[1]
    assert first == second
    expected = {1, 3}
    if before(out, 0, 1):
        expected.add(2)
    if before(out, 2, 1):
        expected.discard(3)
    assert first == sorted(expected)


# -- who gets through ---------------------------------------------------------------------------------------------------
def no_update_lost(out: Outcome) -> None:
    """Of sessions that overlap one changes the record at most: what it read is what it changed."""
    for one in out.winners:
        for two in out.winners:
            assert one == two or not out.overlap(one, two)
    assert out.winners
    assert out.content[1] == 10 + max(out.winners, key=out.ended)


def whole_writes(out: Outcome) -> None:
    """Both records come from the same session."""
    assert out.winners
    assert len(set(out.content.values())) == 1
    no_update_lost(out)


def skew_happens(out: Outcome) -> None:
    """Snapshot isolation lets it: each changes what another read, and all commit."""
    assert out.winners == [0, 1, 2]
    assert out.content == {1: 9, 2: 9, 3: 9}


def nobody_is_refused(out: Outcome) -> None:
    """The read-only anomaly: snapshot isolation lets a reader see what no order of the three explains."""
    assert out.winners == [0, 1, 2]
    assert out.content == {1: -11, 2: 20}


def one_inserts(out: Outcome) -> None:
    assert len(out.winners) == 1
    assert out.refusals.count(KD) == 2
    assert len(out.content) == 1


def one_inserts_unless_undone(out: Outcome) -> None:
    """The first session rolls back: of the others at most one gets through, and none if both met what was undone later."""
    assert out.refusals.count(None) >= 1
    assert set(out.refusals) <= {None, KD}
    committed = [n for n in out.winners if n != 0]
    assert len(committed) <= 1
    assert len(out.content) == len(committed)
    if before(out, 0, 1) or before(out, 0, 2):
        assert committed


def one_changes_the_record(out: Outcome) -> None:
    """Delete, replace and insert of one record: conflicts for the former two, a duplicate for the latter."""
    assert out.refusals[0] in (None, WC)
    assert out.refusals[1] in (None, WC)
    assert out.refusals[2] in (None, KD)
    if out.refusals[2] is None:  # it found the record deleted before it began
        assert before(out, 0, 2)


# -- escrow -------------------------------------------------------------------------------------------------------------
def sums_are_whole(out: Outcome) -> None:
    assert out.refusals == [None] * 3
    assert out.content == {1: 3 + 4 + 7}
    for me, own in enumerate((3, 4, 7)):
        assert out.reads[me] == [own + sum(delta for n, delta in enumerate((3, 4, 7)) if before(out, n, me))]


def the_undone_is_not_counted(out: Outcome) -> None:
    assert out.refusals == [None] * 3
    assert out.content == {1: 4 + 7}


def adds_or_a_replace(out: Outcome) -> None:
    """Adds do not meet each other, but a replace meets each."""
    assert set(out.refusals) <= {None, WC}
    if out.refusals[2] is None:
        assert all(out.refusals[n] is WC for n in (0, 1) if out.overlap(n, 2))
    else:
        assert any(out.refusals[n] is None and out.overlap(n, 2) for n in (0, 1))


CASES = [
    Case("dirty read", {1: 0}, ((("put", 1, 5), R), (("get", 1), ("get", 1), C), (("put", 1, 6), R)), nothing_uncommitted),
    Case(
        "fuzzy read",
        {1: 0},
        ((("put", 1, 5), C), (("get", 1), ("get", 1), ("get", 1), C), (("put", 1, 6), C)),
        one_instant,
    ),
    Case(
        "read skew",
        {1: 0, 2: 0},
        ((("put", 1, 5), ("put", 2, 5), C), (("get", 1), ("get", 2), ("get", 1), C), (("put", 2, 6), ("put", 1, 6), C)),
        one_instant,
    ),
    Case("lost update", {1: 0}, tuple((("get", 1), ("put", 1, 10 + n), C) for n in range(3)), no_update_lost),
    Case("dirty write", {1: 0, 2: 0}, tuple((("put", 1 + n % 2, 10 + n), ("put", 2 - n % 2, 10 + n), C) for n in range(3)), whole_writes),
    Case("write skew", {1: 0, 2: 0, 3: 0}, tuple((("get", 1 + (n + 1) % 3), ("put", 1 + n, 9), C) for n in range(3)), skew_happens),
    Case(
        "read-only anomaly",
        {1: 0, 2: 0},
        ((("get", 2), ("put", 1, -11), C), (("put", 2, 20), C), (("get", 1), ("get", 2), C)),
        nobody_is_refused,
    ),
    Case("phantom", {1: 0, 3: 0}, ((("insert", 2, 0), C), (("scan",), ("scan",), C), (("delete", 3), C)), no_phantom),
    Case("insert race", {}, tuple((("insert", 1, n), C) for n in range(3)), one_inserts),
    Case("insert race, one undone", {}, ((("insert", 1, 0), R), (("insert", 1, 1), C), (("insert", 1, 2), C)), one_inserts_unless_undone),
    Case("unique race", {}, tuple((("unique", 1 + n, 7), C) for n in range(3)), one_inserts, engine_only=True),
    Case(
        "unique race, one undone",
        {},
        ((("unique", 1, 7), R), (("unique", 2, 7), C), (("unique", 3, 7), C)),
        one_inserts_unless_undone,
        engine_only=True,
    ),
    Case("delete, replace, insert", {1: 0}, ((("delete", 1), C), (("upsert", 1, 5), C), (("insert", 1, 8), C)), one_changes_the_record),
    Case("adds", {1: 0}, tuple((("add", 1, n), ("get", 1), C) for n in (3, 4, 7)), sums_are_whole),
    Case("adds, one undone", {1: 0}, ((("add", 1, 3), R), (("add", 1, 4), C), (("add", 1, 7), C)), the_undone_is_not_counted),
    Case("adds and a replace", {1: 0}, ((("add", 1, 3), C), (("add", 1, 4), C), (("put", 1, 100), C)), adds_or_a_replace),
]
AT_THE_DOOR = [case for case in CASES if not case.engine_only]


def all_orders(case: Case) -> list[tuple[int, ...]]:
    return list(interleavings(tuple(len(steps) + 1 for steps in case.sessions)))


def sample(case: Case, kind: str) -> list[tuple[int, ...]]:
    every = all_orders(case)
    return every[:: max(1, len(every) // ORDERS_KEPT[kind] + 1)]


async def holds(world: World, case: Case, orders: list[tuple[int, ...]]) -> None:
    beside = isinstance(world, EngineWorld)
    for order in orders:
        outcome = await interleaved(world, case, order)
        try:
            case.holds(outcome)
            assert outcome == what_must_come(case, order, beside=beside)
        except AssertionError as error:
            error.add_note(f"{case.name}: {outcome}")
            raise


@pytest.mark.parametrize("kind", ["memory", "embedded"])
@pytest.mark.parametrize("case", AT_THE_DOOR, ids=lambda c: c.name)
async def test_at_the_stores_door(case: Case, kind: str, tmp_path: Path) -> None:
    async with store_world(kind, tmp_path) as world:
        await holds(world, case, sample(case, kind))


@pytest.mark.parametrize("kind", ["memory", "embedded"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
async def test_through_the_engine(case: Case, kind: str, tmp_path: Path) -> None:
    async with engine_world(kind, tmp_path) as world:
        await holds(world, case, sample(case, kind))


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["memory", "embedded"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
async def test_every_order(case: Case, kind: str, tmp_path: Path) -> None:
    began, orders, ran = time.monotonic(), all_orders(case), 0
    if not case.engine_only:
        async with store_world(kind, tmp_path / "store") as at_door:
            await holds(at_door, case, orders)
            ran += len(orders)
    async with engine_world(kind, tmp_path / "engine") as above:
        await holds(above, case, orders)
        ran += len(orders)
    print(f"\n{case.name} ({kind}): {ran} of {len(orders)} orders, {time.monotonic() - began:.0f} s")


def test_the_impossible_is_really_seen() -> None:
    """The read-only anomaly happens in some order: the second session's change is seen, the first one's is not, which read neither."""
    case = next(case for case in CASES if case.name == "read-only anomaly")
    found = [
        out for order in all_orders(case) if (out := what_must_come(case, order, beside=True)).reads[2] == [0, 20] and out.reads[0] == [0]
    ]
    assert found
    assert all(out.winners == [0, 1, 2] and out.content == {1: -11, 2: 20} for out in found)


@pytest.mark.plain
@pytest.mark.parametrize("name", ["lost update", "dirty write", "delete, replace, insert"])
async def test_the_tester_notices(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The control: where nobody looks at newer versions, somebody gets through who must not."""
    monkeypatch.setattr(StoreTransaction, "check_unchanged", lambda *args: None)
    case = next(case for case in CASES if case.name == name)
    async with store_world("memory", tmp_path) as world:
        with pytest.raises(AssertionError):
            await holds(world, case, all_orders(case))
