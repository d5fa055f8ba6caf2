"""A slot is given again: nothing that was known of one database, or still to be done with it, is taken for the next one's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jetwire_server.redo.records import Kind
from jetwire_server.store.embedded.checkpoint import Checkpoint
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Tree, tree_slot
from tests.server.store.kinds import embedded

ROWS = {b"%d" % number: b"a" for number in range(5)}


async def tree_in(store: EmbeddedStore, path: str, rows: dict[bytes, bytes]) -> Tree:
    """A new database with one tree."""
    txn_slot = await store.create_database(path)
    txn = store.begin_now()
    tree = txn.new_tree(txn_slot)
    for key, value in rows.items():
        txn.insert(tree, key, value)
    await txn.commit()
    return tree


async def rows_in(store: EmbeddedStore, tree: Tree) -> dict[bytes, bytes]:
    txn = store.begin_now(True)
    try:
        return dict(await txn.scan(tree))
    finally:
        txn.rollback_now()


async def dropped(store: EmbeddedStore, tree: Tree) -> None:
    txn = store.begin_now()
    txn.drop_tree(tree)
    await txn.commit()


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    made = await embedded(str(tmp_path), "real")
    yield made
    await made.stop()


async def test_what_another_database_had_dropped_is_there(store: EmbeddedStore) -> None:
    tree = await tree_in(store, "a.edb", ROWS)
    await store.detach_database(tree_slot(tree))
    assert await tree_in(store, "b.edb", {b"0": b"b"}) == tree
    await dropped(store, tree)
    await store.detach_database(tree_slot(tree))
    assert tree not in store.timeline.trees
    assert await store.attach_database("a.edb") == tree_slot(tree)
    assert await rows_in(store, tree) == ROWS
    assert store.newest(tree, b"0")[0] == b"a"


async def test_nor_does_an_old_snapshot_keep_anything(store: EmbeddedStore) -> None:
    tree = await tree_in(store, "a.edb", ROWS)
    await store.detach_database(tree_slot(tree))
    await tree_in(store, "b.edb", {b"0": b"b", b"other": b"b"})
    old = store.begin_now(True)
    for value in (b"c", b"d"):
        txn = store.begin_now()
        txn.put(tree, b"0", value)
        txn.delete(tree, b"other")
        await txn.commit()
    await store.checkpoint()
    await store.detach_database(tree_slot(tree))
    await store.attach_database("a.edb")
    assert await rows_in(store, tree) == ROWS
    old.rollback_now()
    await asyncio.sleep(0)
    assert await rows_in(store, tree) == ROWS
    assert store.timeline.usage.used == store.timeline.bytes == 0


@pytest.mark.plain
async def test_what_was_to_be_freed_in_one_is_not_freed_in_the_next(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dropped tree's space is given back when nothing else is to be done; its database goes before that, and another comes."""
    tree = await tree_in(store, "a.edb", ROWS)
    slot = tree_slot(tree)
    await store.detach_database(slot)
    await tree_in(store, "b.edb", {b"0": b"b"})
    beside = await tree_in(store, "c.edb", {b"0": b"c"})
    durable = asyncio.Event()
    make_durable, hand_over = store.make_durable, store.hand_over

    async def held() -> None:
        await durable.wait()
        await make_durable()

    def beside_a_commit(kind: Kind, *given: Any, **named: Any) -> None:
        if kind == Kind.DETACH_DATABASE:  # from here on the checkpoint has another database's rows to write first
            monkeypatch.setattr(store, "make_durable", held)
            txn = store.begin_now()
            txn.put(beside, b"0", b"d")
            assert txn.commit_now(lambda _: store.checkpointer.start())
        hand_over(kind, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "_clear_some", lambda *_: False)  # there is more of it than was freed so far
        await dropped(store, tree)
        await store.checkpoint()
        patch.setattr(store, "hand_over", beside_a_commit)
        await store.detach_database(slot)
    assert await store.attach_database("a.edb") == slot
    durable.set()
    await store.checkpoint()
    running = store.checkpointer._running
    assert running is not None
    await running
    assert await rows_in(store, tree) == ROWS
