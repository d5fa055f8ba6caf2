"""Many new keys of one commit share a version: what is read, what is in the way of whom, and what it weighs in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Tree, tree_id
from jetwire_server.store.timeline import SHARED_ROWS, NoPages, Timeline, Usage
from jetwire_server.store.writeset import Deltas, Entry
from tests.server.store.kinds import KINDS

TREE = tree_id(1, 16)
ROWS: dict[bytes, Entry] = {b"%04d" % i: b"value" for i in range(SHARED_ROWS)}
ONE = b"0007"


def timeline_with(rows: dict[bytes, Entry]) -> Timeline:
    timeline = Timeline(Usage(1 << 30))
    assert timeline.publish(1, TREE, rows, NoPages()) == []
    return timeline


def is_shared(timeline: Timeline, key: bytes) -> bool:
    return type(timeline.trees[TREE].versions[key][1]) is dict


def test_who_shares() -> None:
    assert is_shared(timeline_with(ROWS), ONE)
    assert not is_shared(timeline_with(dict(list(ROWS.items())[1:])), ONE), "too few"
    assert not is_shared(timeline_with(ROWS | {b"gone": None}), ONE), "a deletion among them"


@pytest.mark.parametrize("ordered", [False, True])
def test_keys_that_had_a_version_are_put_on_top_of_it_and_the_others_share(ordered: bool) -> None:
    timeline = timeline_with(ROWS)
    keys = timeline.trees[TREE].keys
    if ordered:
        assert keys.run(None, None, False, 100) == sorted(ROWS)
    rows: dict[bytes, Entry] = {b"%04d" % i: b"newer" for i in range(SHARED_ROWS // 2, 2 * SHARED_ROWS)}
    both = rows.keys() & ROWS.keys()
    assert set(timeline.publish(2, TREE, rows, NoPages())) == both
    for key in rows:
        assert timeline.newest(TREE, key, NoPages()) == b"newer"
        assert is_shared(timeline, key) == (key not in both)
    assert keys.run(None, None, False, 100) == sorted(ROWS | rows)
    plain = Timeline(Usage(1 << 30))
    for number, of_one in enumerate((ROWS, rows), 1):
        for key, value in of_one.items():
            plain.publish(number, TREE, {key: value}, NoPages())
    assert timeline.bytes == plain.bytes == timeline.usage.used
    timeline.trim(TREE, sorted(ROWS | rows), 2, [])
    assert timeline.bytes == timeline.usage.used == 0


def test_weight_is_what_it_would_be_without_sharing_and_goes_whole() -> None:
    timeline = timeline_with(ROWS)
    plain = Timeline(Usage(1 << 30))
    for key, value in ROWS.items():
        plain.publish(1, TREE, {key: value}, NoPages())
    assert timeline.bytes == plain.bytes == timeline.usage.used > 0
    assert timeline.trim(TREE, list(ROWS), 1, []) == []
    assert timeline.bytes == timeline.usage.used == 0
    assert TREE not in timeline.trees


@pytest.mark.parametrize("snapshots", [[], [1], [2], [1, 2]])
@pytest.mark.parametrize("value", [b"newer", None, Deltas(((0, 1, 1),))])
def test_what_is_put_on_top_is_put_on_one_key(value: Entry, snapshots: list[int]) -> None:
    """And the others' values do not live as long as the past of that one."""
    timeline = timeline_with(ROWS)
    assert timeline.publish(2, TREE, {ONE: value}, NoPages()) == [ONE]
    version = timeline.trees[TREE].versions[ONE]
    assert version[2] == (1, b"value", None, False)
    kept = timeline.trim(TREE, list(ROWS), 2, snapshots)
    assert set(kept) == (set(ROWS) if snapshots else set()), "what older snapshots read stays"
    timeline.trim(TREE, list(ROWS), 2, [])
    assert timeline.bytes == timeline.usage.used == 0


def test_a_snapshot_from_before_needs_none_of_it() -> None:
    timeline = timeline_with(ROWS)
    assert timeline.trim(TREE, list(ROWS), 1, [0]) == []
    assert timeline.bytes == 0


def test_what_the_pages_lack_stays() -> None:
    timeline = timeline_with(ROWS)
    assert timeline.trim(TREE, list(ROWS), 0, []) == []
    assert is_shared(timeline, ONE)


@pytest.fixture
async def loaded(tmp_path: Path) -> tuple[EmbeddedStore, Tree]:
    store = await KINDS["embedded"].open(str(tmp_path))
    tree = tree_id(await store.create_database("a.edb"), 1)
    return store, tree


async def load(store: EmbeddedStore, tree: Tree, rows: dict[bytes, Entry]) -> None:
    writer = await store.begin()
    for key, value in rows.items():
        assert isinstance(value, bytes)
        writer.put(tree, key, value)
    await writer.commit()


@pytest.mark.parametrize("checkpointed", [False, True])
async def test_an_older_snapshot_neither_sees_nor_overwrites_it(loaded: tuple[EmbeddedStore, Tree], checkpointed: bool) -> None:
    store, tree = loaded
    old = await store.begin()
    await load(store, tree, ROWS)
    between = await store.begin()
    await load(store, tree, {ONE: b"newer"})
    if checkpointed:
        await store.checkpoint()
    assert await old.get(tree, ONE) is None
    assert await old.scan(tree) == []
    assert await between.get(tree, ONE) == b"value"
    assert dict(await between.scan(tree)) == ROWS
    for transaction in (old, between):
        with pytest.raises(JetError) as refused:
            transaction.put(tree, ONE, b"lost")
        assert refused.value.code == Err.WriteConflict
    with pytest.raises(JetError) as refused:
        old.insert(tree, b"0001", b"lost")
    assert refused.value.code == Err.KeyDuplicate
    between.delete(tree, b"0001")
    await between.commit()
    await old.rollback()
    reader = await store.begin()
    expected = {key: value for key, value in (ROWS | {ONE: b"newer"}).items() if key != b"0001"}
    assert dict(await reader.scan(tree)) == expected
    assert await reader.scan(tree, reverse=True) == sorted(expected.items(), reverse=True)
    assert store.newest(tree, b"0002")[0] == b"value"
    assert await store.count(tree) == len(expected)
    await reader.rollback()
    await store.checkpoint()
    await store.stop()
    assert store.timeline.usage.used == 0


async def test_it_is_recovered_with_what_came_on_top(tmp_path: Path) -> None:
    store = await KINDS["crashing"].open(str(tmp_path))
    tree = tree_id(await store.create_database("a.edb"), 1)
    await load(store, tree, ROWS)
    await load(store, tree, {ONE: b"newer", b"new": b"one"})
    store = await KINDS["crashing"].reopen(store, str(tmp_path))
    reader = await store.begin()
    assert dict(await reader.scan(tree)) == ROWS | {ONE: b"newer", b"new": b"one"}
    await reader.rollback()
    await store.checkpoint()
    assert store.timeline.bytes == 0
    await store.stop()
