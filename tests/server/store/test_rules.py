"""Every rule of who may write what, on each store: conflicts, duplicates, escrow, locks, schema locks, save points."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.store.interface import Store, Tree, tree_id

Calls = tuple[Callable[[], object], ...]

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
async def tree(store: Store) -> Tree:
    slot = await store.create_database("a.edb")
    return tree_id(slot, 1)


async def fill(store: Store, tree: Tree, **rows: str) -> None:
    writer = await store.begin()
    for key, value in rows.items():
        writer.put(tree, key.encode(), value.encode())
    await writer.commit()


async def content(store: Store, tree: Tree) -> dict[str, str]:
    reader = await store.begin()
    rows = await reader.scan(tree)
    await reader.rollback()
    return {key.decode(): value.decode() for key, value in rows}


def refused(code: int):  # type: ignore[no-untyped-def]
    return pytest.raises(JetError, check=lambda e: e.code == code)


async def test_a_key_written_by_another_session_conflicts_at_once(store: Store, tree: Tree) -> None:
    await fill(store, tree, k="0")
    one, two = await store.begin(), await store.begin()
    one.put(tree, b"k", b"1")
    with refused(Err.WriteConflict):
        two.put(tree, b"k", b"2")
    with refused(Err.WriteConflict):
        two.delete(tree, b"k")
    with refused(Err.WriteConflict):
        two.lock(tree, b"k")
    with refused(Err.WriteConflict):
        two.lock(tree, b"k", shared=True)
    with refused(Err.KeyDuplicate):
        two.insert(tree, b"k", b"2")
    with refused(Err.WriteConflict):
        two.add(tree, b"k", 0, 1, 1)
    await one.rollback()
    two.put(tree, b"k", b"2")
    await two.commit()
    assert await content(store, tree) == {"k": "2"}


@pytest.mark.parametrize("checkpointed", [False, True])
async def test_no_update_is_lost_across_a_newer_commit(store: Store, tree: Tree, checkpointed: bool) -> None:
    await fill(store, tree, changed="0", deleted="0", untouched="0")
    old = await store.begin()
    newer = await store.begin()
    newer.put(tree, b"changed", b"1")
    newer.delete(tree, b"deleted")
    newer.insert(tree, b"made", b"1")
    await newer.commit()
    if checkpointed:
        await store.checkpoint()
        await store.checkpoint()
    for key in (b"changed", b"deleted", b"made"):
        with refused(Err.WriteConflict):
            old.put(tree, key, b"2")
        with refused(Err.KeyDuplicate):
            old.insert(tree, key, b"2")
        with refused(Err.WriteConflict):
            old.lock(tree, key)
    with refused(Err.WriteConflict):
        old.delete(tree, b"changed")
    assert await old.scan(tree) == [(b"changed", b"0"), (b"deleted", b"0"), (b"untouched", b"0")]
    old.put(tree, b"untouched", b"2")
    await old.commit()
    assert await content(store, tree) == {"changed": "1", "made": "1", "untouched": "2"}


async def test_write_skew_is_allowed(store: Store, tree: Tree) -> None:
    await fill(store, tree, a="on", b="on")
    one, two = await store.begin(), await store.begin()
    assert await one.get(tree, b"b") == b"on"
    assert await two.get(tree, b"a") == b"on"
    one.put(tree, b"a", b"off")
    two.put(tree, b"b", b"off")
    await one.commit()
    await two.commit()
    assert await content(store, tree) == {"a": "off", "b": "off"}


async def test_insert_after_own_delete_and_delete_after_own_insert(store: Store, tree: Tree) -> None:
    await fill(store, tree, k="0")
    one = await store.begin()
    one.delete(tree, b"k")
    assert await one.get(tree, b"k") is None
    one.insert(tree, b"k", b"1")
    with refused(Err.KeyDuplicate):
        one.insert(tree, b"k", b"2")
    one.insert(tree, b"n", b"1")
    one.delete(tree, b"n")
    assert await one.scan(tree) == [(b"k", b"1")]
    await one.commit()
    assert await content(store, tree) == {"k": "1"}


# -- escrow -----------------------------------------------------------------------------------------------------
def number(value: bytes | None) -> int:
    assert value is not None
    return int.from_bytes(value[2:6], "little", signed=True)


async def escrow_row(store: Store, tree: Tree, start: int = 0) -> None:
    writer = await store.begin()
    writer.put(tree, b"k", b"ab" + start.to_bytes(4, "little", signed=True) + b"z")
    await writer.commit()


async def newest(store: Store, tree: Tree) -> int:
    reader = await store.begin()
    value = await reader.get(tree, b"k")
    await reader.rollback()
    return number(value)


@pytest.mark.parametrize("checkpointed", [False, True])
async def test_a_key_that_came_and_went_since_is_a_conflict(store: Store, tree: Tree, checkpointed: bool) -> None:
    old, older = await store.begin(), await store.begin()
    await fill(store, tree, k="1")
    between = await store.begin()
    txn = await store.begin()
    txn.delete(tree, b"k")
    await txn.commit()
    if checkpointed:
        await store.checkpoint()
        await older.rollback()
        await store.checkpoint()
    for txn in (old, between):
        with pytest.raises(JetError) as error:
            txn.insert(tree, b"k", b"2")
        assert error.value.code == Err.KeyDuplicate
        await txn.rollback()
    await older.rollback()
    await fill(store, tree, k="3")
    assert await content(store, tree) == {"k": "3"}


@pytest.mark.parametrize("checkpointed", [False, True])
async def test_adds_commute(store: Store, tree: Tree, checkpointed: bool) -> None:
    await escrow_row(store, tree, 10)
    one, two, old = await store.begin(), await store.begin(), await store.begin()
    assert one.add(tree, b"k", 2, 4, 5) == 10
    assert two.add(tree, b"k", 2, 4, -3) == 10
    assert one.add(tree, b"k", 2, 4, 1) == 15
    assert number(await one.get(tree, b"k")) == 16
    assert [number(value) for _, value in await two.scan(tree)] == [7]
    await one.commit()
    if checkpointed:
        await store.checkpoint()
    assert number(await two.get(tree, b"k")) == 7
    await two.commit()
    if checkpointed:
        await store.checkpoint()
    assert old.add(tree, b"k", 2, 4, 100) == 10  # only adds came since its snapshot
    await old.commit()
    assert await newest(store, tree) == 113
    reader = await store.begin()
    assert await reader.get(tree, b"k") == b"ab" + (113).to_bytes(4, "little") + b"z"
    await reader.rollback()


async def test_adds_and_puts_exclude_each_other(store: Store, tree: Tree) -> None:
    await escrow_row(store, tree)
    adder, putter = await store.begin(), await store.begin()
    adder.add(tree, b"k", 2, 4, 1)
    calls: Calls = (lambda: putter.put(tree, b"k", b""), lambda: putter.delete(tree, b"k"), lambda: putter.lock(tree, b"k", shared=True))
    for call in calls:
        with refused(Err.WriteConflict):
            call()
    await adder.commit()
    with refused(Err.WriteConflict):
        putter.put(tree, b"k", b"")
    late = await store.begin()
    writer = await store.begin()
    writer.put(tree, b"k", bytes(7))
    await writer.commit()
    with refused(Err.WriteConflict):
        late.add(tree, b"k", 2, 4, 1)


async def test_adds_wrap_at_their_size_and_need_a_value(store: Store, tree: Tree) -> None:
    await escrow_row(store, tree, 2**31 - 1)
    one = await store.begin()
    one.add(tree, b"k", 2, 4, 1)
    await one.commit()
    assert await newest(store, tree) == -(2**31)
    two = await store.begin()
    with refused(Err.RecordNotFound):
        two.add(tree, b"none", 0, 4, 1)
    with refused(Err.InvalidParameter):
        two.add(tree, b"k", 5, 4, 1)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
async def test_adds_that_sum_beyond_their_size_wrap_at_the_commit_too(store: Store, tree: Tree, size: int) -> None:
    await fill(store, tree, k="12345678")
    most = (1 << 8 * size - 1) - 1
    one = await store.begin()
    for _ in range(5):
        one.add(tree, b"k", 0, size, most)
    mine = await one.get(tree, b"k")
    await one.commit()
    assert await content_of(store, tree, b"k") == mine
    wrapped = (int.from_bytes(b"12345678"[:size], "little") + 5 * most) % (1 << 8 * size)
    assert mine == wrapped.to_bytes(size, "little") + b"12345678"[size:]


async def test_an_add_becomes_a_put_when_alone(store: Store, tree: Tree) -> None:
    await escrow_row(store, tree)
    one, two = await store.begin(), await store.begin()
    one.add(tree, b"k", 2, 4, 1)
    one.put(tree, b"k", b"whole")
    assert await one.get(tree, b"k") == b"whole"
    with refused(Err.WriteConflict):
        two.add(tree, b"k", 2, 4, 1)
    await one.commit()
    three, four = await store.begin(), await store.begin()
    three.put(tree, b"k", bytes(8))
    assert three.add(tree, b"k", 0, 8, -1) == 0
    await three.commit()
    assert await content_of(store, tree, b"k") == b"\xff" * 8
    await four.rollback()


async def content_of(store: Store, tree: Tree, key: bytes) -> bytes | None:
    reader = await store.begin()
    value = await reader.get(tree, key)
    await reader.rollback()
    return value


# -- locks ------------------------------------------------------------------------------------------------------
async def test_shared_locks_admit_each_other_and_no_writer(store: Store, tree: Tree) -> None:
    await fill(store, tree, k="0")
    one, two, three = await store.begin(), await store.begin(), await store.begin()
    one.lock(tree, b"k", shared=True)
    two.lock(tree, b"k", shared=True)
    for writer in (three, one):
        with refused(Err.WriteConflict):
            writer.put(tree, b"k", b"1")
    with refused(Err.WriteConflict):
        three.lock(tree, b"k")
    await two.rollback()
    one.put(tree, b"k", b"1")
    with refused(Err.WriteConflict):
        three.lock(tree, b"k", shared=True)
    await one.commit()
    assert await content(store, tree) == {"k": "1"}


async def test_a_save_point_gives_back_writes_and_locks(store: Store, tree: Tree) -> None:
    await fill(store, tree, a="0", b="0")
    one, two = await store.begin(), await store.begin()
    one.put(tree, b"a", b"1")
    outer = one.savepoint()
    one.put(tree, b"a", b"2")
    one.put(tree, b"b", b"2")
    one.lock(tree, b"c", shared=True)
    inner = one.savepoint()
    one.delete(tree, b"a")
    assert await one.scan(tree) == [(b"b", b"2")]
    one.rollback_to(inner)
    assert await one.scan(tree) == [(b"a", b"2"), (b"b", b"2")]
    one.rollback_to(outer)
    assert await one.scan(tree) == [(b"a", b"1"), (b"b", b"0")]
    two.put(tree, b"b", b"two")
    two.put(tree, b"c", b"two")
    with refused(Err.WriteConflict):
        two.put(tree, b"a", b"two")
    one.put(tree, b"d", b"1")
    one.rollback_to(outer)  # a save point stays good
    await one.commit()
    await two.commit()
    assert await content(store, tree) == {"a": "1", "b": "two", "c": "two"}


async def test_nothing_left_after_everything_was_rolled_back(store: Store, tree: Tree) -> None:
    one = await store.begin()
    start = one.savepoint()
    one.put(tree, b"a", b"1")
    assert one.changed
    one.rollback_to(start)
    assert not one.changed
    assert (await one.commit()).number == 0


async def test_an_ended_transaction_refuses_everything(store: Store, tree: Tree) -> None:
    one = await store.begin()
    await one.commit()
    await one.rollback()  # harmless: there is nothing left
    for call in (lambda: one.put(tree, b"a", b""), lambda: one.lock(tree, b"a"), one.savepoint):
        with refused(Err.NotInTransaction):
            call()
    with refused(Err.NotInTransaction):
        await one.commit()
    reader = await store.begin(read_only=True)
    with refused(Err.TransReadOnly):
        reader.put(tree, b"a", b"")
    await reader.rollback()


# -- schema -----------------------------------------------------------------------------------------------------
async def test_schema_changes_and_writes_exclude_each_other(store: Store, tree: Tree) -> None:
    writer, other, ddl = await store.begin(), await store.begin(), await store.begin()
    writer.lock_schema(tree)
    other.lock_schema(tree)
    with refused(Err.WriteConflict):
        ddl.lock_schema(tree, exclusive=True)
    await writer.rollback()
    await other.rollback()
    ddl.lock_schema(tree, exclusive=True)
    late = await store.begin()
    with refused(Err.WriteConflict):
        late.lock_schema(tree)
    ddl.put(tree, b"schema", b"2")
    await ddl.commit()
    with refused(Err.WriteConflict):  # its snapshot does not know the new index
        late.lock_schema(tree)
    await late.rollback()
    fresh = await store.begin()
    fresh.lock_schema(tree)
    await fresh.rollback()


async def test_a_schema_change_must_have_seen_every_write(store: Store, tree: Tree) -> None:
    ddl, writer = await store.begin(), await store.begin()
    writer.lock_schema(tree)
    writer.put(tree, b"row", b"1")
    await writer.commit()
    with refused(Err.WriteConflict):  # an index built from this snapshot would miss the row for ever
        ddl.lock_schema(tree, exclusive=True)
    await ddl.rollback()
    ddl = await store.begin()
    ddl.lock_schema(tree, exclusive=True)
    point = ddl.savepoint()
    ddl.rollback_to(point)
    with refused(Err.WriteConflict):
        (await store.begin()).lock_schema(tree)
    await ddl.rollback()


async def test_a_save_point_gives_back_schema_locks(store: Store, tree: Tree) -> None:
    one, two = await store.begin(), await store.begin()
    start = one.savepoint()
    one.lock_schema(tree)
    one.lock_schema(tree, exclusive=True)
    one.rollback_to(start)
    two.lock_schema(tree, exclusive=True)


# -- trees ------------------------------------------------------------------------------------------------------
async def test_a_dropped_tree_stays_for_older_snapshots(store: Store, tree: Tree) -> None:
    await fill(store, tree, k="0")
    old, writer, dropper = await store.begin(), await store.begin(), await store.begin()
    writer.put(tree, b"n", b"1")
    with refused(Err.WriteConflict):
        dropper.drop_tree(tree)
    await writer.rollback()
    dropper.drop_tree(tree)
    assert await dropper.scan(tree) == []
    assert await dropper.get(tree, b"k") is None
    await dropper.commit()
    await store.checkpoint()
    assert await old.scan(tree) == [(b"k", b"0")]
    with refused(Err.WriteConflict):
        old.put(tree, b"k", b"1")
    await old.rollback()
    assert await content(store, tree) == {}
    assert await store.count(tree) == 0


async def test_an_adopted_tree_appears_with_the_commit(store: Store, tree: Tree) -> None:
    bulk = await store.new_unpublished(tree >> 48)
    before = await store.begin()
    await bulk.put_many((b"%05d" % i, b"v") for i in range(3000))
    await bulk.delete_many(b"%05d" % i for i in range(1000))
    assert await bulk.get(b"02999") == b"v"
    assert [key for key, _ in await bulk.scan(reverse=True, limit=2)] == [b"02999", b"02998"]
    one = await store.begin()
    named = one.adopt(bulk)
    one.put(tree, b"names", str(named).encode())
    one.delete(named, b"01000")
    one.put(named, b"99999", b"w")
    assert len(await one.scan(named, limit=5000)) == 2000
    await one.commit()
    await bulk.free()  # does nothing: it is named
    after = await store.begin()
    rows = await after.scan(named, limit=5000)
    assert (len(rows), rows[0], rows[-1]) == (2000, (b"01001", b"v"), (b"99999", b"w"))
    assert await after.get(named, b"01500") == b"v"
    assert await before.scan(tree) == []
    assert await store.count(named) == 2000


async def test_a_tree_whose_transaction_rolls_back_is_free_again(store: Store, tree: Tree) -> None:
    bulk = await store.new_unpublished(tree >> 48)
    await bulk.put_many([(b"a", b"1")])
    one = await store.begin()
    start = one.savepoint()
    one.adopt(bulk)
    one.rollback_to(start)
    assert not one.changed
    one.adopt(bulk)
    await one.rollback()
    await bulk.free()
    assert await bulk.scan() == []


async def test_new_trees_are_numbered_once(store: Store, tree: Tree) -> None:
    one = await store.begin()
    first, second = one.new_tree(tree >> 48), one.new_tree(tree >> 48)
    assert len({tree, first, second}) == 3
    one.put(first, b"a", b"1")
    await one.commit()
    two = await store.begin()
    assert two.new_tree(tree >> 48) not in (first, second)
    assert await two.scan(first) == [(b"a", b"1")]


async def test_scratch_trees(store: Store) -> None:
    scratch = await store.new_scratch()
    await scratch.put_many([(b"b", b"2"), (b"a", b"1"), (b"b", b"3")])
    assert await scratch.scan() == [(b"a", b"1"), (b"b", b"3")]
    await scratch.free()


# -- limits -----------------------------------------------------------------------------------------------------
async def test_writes_beyond_the_version_store_are_refused(store: Store, tree: Tree) -> None:
    store.timeline.usage.limit = 100_000  # type: ignore[attr-defined]
    one = await store.begin()
    with refused(Err.VersionStoreOutOfMemory):
        for i in range(1000):
            one.put(tree, b"%d" % i, bytes(1000))
    await one.rollback()
    assert store.timeline.usage.used == 0  # type: ignore[attr-defined]
    two = await store.begin()
    two.put(tree, b"k", bytes(1000))
    await two.commit()


async def test_keys_have_a_limit(store: Store, tree: Tree) -> None:
    one = await store.begin()
    one.put(tree, bytes(1969), b"")
    with refused(Err.KeyTooBig):
        one.put(tree, bytes(1970), b"")
    await one.commit()
    assert await content_of(store, tree, bytes(1969)) == b""


async def test_unknown_databases_are_refused(store: Store) -> None:
    one = await store.begin()
    with refused(Err.InvalidDatabaseId):
        one.put(tree_id(3, 1), b"k", b"v")
    with refused(Err.InvalidDatabaseId):
        one.new_tree(3)


async def test_a_refused_lock_leaves_nothing_behind(store: Store, tree: Tree) -> None:
    old = await store.begin()
    await fill(store, tree, k="0")
    calls: Calls = (lambda: old.lock(tree, b"k"), lambda: old.lock(tree, b"k", shared=True), lambda: old.put(tree, b"k", b""))
    for call in calls:
        with refused(Err.WriteConflict):
            call()
    await old.rollback()
    assert store.key_locks.trees == {}  # type: ignore[attr-defined]
