"""How many rows a tree has, as one transaction would see them: what the pages count, and what lies above them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jetwire_server.store.embedded.generations import Generation
from jetwire_server.store.interface import Tree
from jetwire_server.store.transaction import StoreTransaction

if TYPE_CHECKING:
    from jetwire_server.store.embedded.store import EmbeddedStore


async def count_rows(store: EmbeddedStore, tree: Tree) -> int:
    """See `interface.Store.count`."""
    reader = await store.begin(read_only=True)
    try:
        return await _count(store, tree, reader)
    finally:
        await reader.rollback()


async def _count(store: EmbeddedStore, tree: Tree, reader: StoreTransaction) -> int:
    found = store.timeline.trees.get(tree)
    pages = reader.pages
    assert isinstance(pages, Generation)
    if found is not None and found.dropped and found.dropped <= reader.snapshot:
        return 0
    total = pages.count(tree)
    for i, key in enumerate(list(found.versions) if found is not None else ()):
        total += (reader.visible(tree, key) is not None) - (pages.get(tree, key) is not None)
        if i % 1000 == 999:
            await asyncio.sleep(0)
    return total
