"""What the store in memory makes of a tree that was built beside it and written to in the transaction that named it."""

from __future__ import annotations

from jetwire_server.clock import ManualClock
from jetwire_server.store.memory import MemoryStore


async def test_an_adopted_tree_has_one_version_of_each_key() -> None:
    """Two of one commit are never let go: whoever ends a snapshot would look for the older one's reader for ever."""
    store = MemoryStore(ManualClock())
    bulk = await store.new_unpublished(await store.create_database("a"))
    await bulk.put_many([(b"a", b"1"), (b"b", b"1")])
    before, one = await store.begin(), await store.begin()
    named = one.adopt(bulk)
    one.delete(named, b"a")
    one.put(named, b"b", b"2")
    await one.commit()
    assert all(version[2] is None for version in store.timeline.trees[named].versions.values())
    await (await store.begin()).rollback()
    await before.rollback()
    assert await store.count(named) == 1
