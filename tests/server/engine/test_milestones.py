"""Positions in long indexes: near the truth, kept near it by looking, and cheap."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jetwire_protocol.errors import Err
from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.engine import milestones
from jetwire_server.engine.bookmarks import RecordPosition
from jetwire_server.engine.milestones import MilestoneBook
from jetwire_server.engine.session import Session
from jetwire_server.store.interface import Row, Transaction, Tree
from jetwire_server.store.memory import MemoryStore
from tests.server.engine.tables_for_tests import get, key, make_table, refuses

ROWS = 100_000


def at(number: int) -> bytes:
    return number.to_bytes(4, "big")


@pytest.fixture
async def store() -> tuple[MemoryStore, Tree]:
    made = MemoryStore(ManualClock())
    await made.start()
    slot = await made.create_database("a.edb")
    tree = await made.new_unpublished(slot)
    await tree.put_many((at(10 * n), b"") for n in range(ROWS))
    txn = await made.begin()
    named = txn.adopt(tree)
    await txn.commit()
    return made, named


@pytest.fixture
async def txn(store: tuple[MemoryStore, Tree]) -> AsyncIterator[tuple[Transaction, Tree]]:
    made = await store[0].begin()
    yield made, store[1]
    await made.rollback()


async def test_a_position_in_a_long_index_is_exact_at_rest_and_cheap(txn: tuple[Transaction, Tree]) -> None:
    now, tree = txn
    book = MilestoneBook()
    await book.of(now, tree)
    assert now.looked_at >= ROWS  # the control: once, everything is read
    for number in random.Random(1).sample(range(ROWS), 20):
        before = now.looked_at
        milestones = await book.of(now, tree)
        assert await milestones.position(now, tree, at(10 * number)) == (number, ROWS)
        found = await milestones.at(now, tree, number, ROWS)
        assert found is not None
        assert found[0] == at(10 * number)
        assert now.looked_at - before < 6 * limits.COUNTED_ENTRIES_MAX


async def test_looking_corrects_what_changed(txn: tuple[Transaction, Tree]) -> None:
    now, tree = txn
    book = MilestoneBook()
    await book.of(now, tree)
    for number in range(500_000, 540_000):  # crowds four stretches of a thousand
        now.put(tree, at(number), b"")
    for number in range(10_000):
        now.delete(tree, at(10 * number))
    for number in range(20_000):
        now.put(tree, at(10 * ROWS + number), b"")  # and the end grows
    keys = [k for k, _ in await now.scan(tree, limit=1 << 20)]
    milestones = await book.of(now, tree)
    for number in range(12):
        await milestones.position(now, tree, at(number * 10_000))
    for number in (505_000, 515_000, 525_000, 535_000):
        await milestones.position(now, tree, at(number))
    for number in (0, 400_000, 505_000, 539_999, 700_000, 10 * ROWS + 19_999):
        about, total = await milestones.position(now, tree, at(number))
        true = sum(1 for k in keys if k < at(number))
        assert abs(about - true) <= ROWS // 50, number
        assert abs(total - len(keys)) <= ROWS // 50
        found = await milestones.at(now, tree, true, len(keys))
        assert found is not None
        assert abs(keys.index(found[0]) - true) <= ROWS // 50


# What is done to most of the index at once: what goes, and what comes between two entries.
MASS = {
    "the first half goes": (range(ROWS // 2), range(0)),
    "the last nine tenths go": (range(ROWS // 10, ROWS), range(0)),
    "all but the middle goes": ([*range(ROWS * 2 // 5), *range(ROWS * 3 // 5, ROWS)], range(0)),
    "two of three go": ([n for n in range(ROWS) if n % 3], range(0)),
    "as many come in the third quarter": (range(0), range(5 * ROWS + 1, 15 * ROWS // 2, 2)),
}


@pytest.mark.parametrize("what", MASS)
@pytest.mark.parametrize("looks", [None, 0], ids=["", "control"])
async def test_mass_changes_that_nobody_looked_at_are_soon_seen(
    txn: tuple[Transaction, Tree], what: str, looks: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who ask keep asking about other places. The control looks at nothing else, and stays wrong by much."""
    if looks is not None:
        monkeypatch.setattr(milestones, "_LOOKS", looks)
    now, tree = txn
    book = MilestoneBook()
    await book.of(now, tree)
    gone, come = MASS[what]
    for number in gone:
        now.delete(tree, at(10 * number))
    for number in come:
        now.put(tree, at(number), b"")
    keys = [found for found, _ in await now.scan(tree, limit=1 << 20)]
    errors = []
    for call in range(8):
        asked = keys[-1 - call]
        before, total = await (await book.of(now, tree)).position(now, tree, asked)
        errors.append(abs(before / total - (len(keys) - 1 - call) / len(keys)) + abs(total - len(keys)) / len(keys))
    if looks is None:
        assert errors[-1] < 0.1, errors
    else:
        assert errors[-1] > 0.3, errors


async def test_the_ends_are_never_an_estimate(txn: tuple[Transaction, Tree]) -> None:
    now, tree = txn
    milestones = await MilestoneBook().of(now, tree)
    for number in range(990_001, 990_500):  # the last stretch with anything in it has more than is remembered
        now.put(tree, at(number), b"")
    now.put(tree, at(0) + b"0", b"")
    now.delete(tree, at(0))
    (first,), (last,) = await now.scan(tree, limit=1), await now.scan(tree, reverse=True, limit=1)
    assert await milestones.at(now, tree, 0, 7) == first
    assert await milestones.at(now, tree, 7, 7) == last


async def test_an_index_that_was_emptied_has_no_position() -> None:
    store = MemoryStore(ManualClock())
    now = await store.begin()
    tree = now.new_tree(await store.create_database("a.edb"))
    for number in range(3_000):
        now.put(tree, at(number), b"")
    book = MilestoneBook()
    milestones = await book.of(now, tree)
    for number in range(3_000):
        now.delete(tree, at(number))
    assert await milestones.at(now, tree, 50, 100) is None
    assert await (await book.of(now, tree)).at(now, tree, 0, 1) is None
    await now.rollback()


async def test_a_failed_goto_leaves_the_cursor_where_it_is(session: Session, dbid: int) -> None:
    cursor = await make_table(session, dbid)
    with refuses(Err.RecordNotFound):
        await cursor.goto_position(RecordPosition(0, 1, 1))
    async with session.operation(write=True) as txn:
        for number in range(5_000):
            txn.put(cursor.table.tree, cursor.plan.rows.maker.key((number,)), cursor.plan.codec.encode({1: number}))  # type: ignore[union-attr]
    key(cursor, 4_321)
    await cursor.seek(1)
    assert await cursor.get_record_position() == RecordPosition(4_321, 1, 5_000)
    with refuses(Err.InvalidParameter):
        await cursor.goto_position(RecordPosition(2, 1, 1))
    assert await get(cursor, "id") == 4_321
    await cursor.goto_position(RecordPosition(1, 1, 5))
    assert await get(cursor, "id") == 1_000


class Slow:
    """A transaction whose scans let others run, as those that ask the pages do."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn

    async def scan(self, *args: Any, **kwargs: Any) -> list[Row]:
        rows = await self._txn.scan(*args, **kwargs)
        await asyncio.sleep(0)
        return rows


async def test_several_who_look_at_once_do_not_spoil_what_is_remembered(store: tuple[MemoryStore, Tree]) -> None:
    made, tree = store
    book = MilestoneBook()
    txn: Any = Slow(await made.begin())
    milestones = await book.of(txn, tree)
    writer = await made.begin()
    for n in range(20_000):
        writer.put(tree, at(5 * n) + b"+", b"")
    await writer.commit()
    later: Any = Slow(await made.begin(read_only=True))
    asked = [at(10 * n) for n in range(0, ROWS, 1_000)]
    await asyncio.gather(*(milestones.position(later, tree, one) for one in asked))
    assert milestones._keys == sorted(set(milestones._keys))
    for place, one in enumerate(asked):
        before, total = await milestones.position(later, tree, one)
        assert total == ROWS + 20_000
        assert before == 1_000 * place + min(20_000, 2_000 * place)
