"""What a database holds, as a number that fits on a line: computed from a snapshot, so that it can be compared with
what a restored copy holds, whatever happened since."""

from __future__ import annotations

import asyncio
import hashlib

from jetwire_server.engine.catalog import Catalog
from jetwire_server.snapshot.participant import DatabaseDigest
from jetwire_server.store.interface import Transaction, Tree, tree_number

_CHUNK_ROWS = 200  # a digest runs beside commits, the thaw's among them: the loop is held for a fraction of a millisecond


async def digest_database(name: str, slot: int, txn: Transaction) -> DatabaseDigest:
    """Reads every tree of a database through one snapshot: rows, long values, indexes and the catalog itself."""
    catalog = Catalog(slot)
    tables = sorted(await catalog.tables(txn), key=lambda t: t.objid)
    total = hashlib.blake2b(digest_size=16)
    await _add_tree(total, txn, catalog.tree)
    records = 0
    for table in tables:
        records += await _add_tree(total, txn, table.tree)
        trees = {table.long_values, *(index.tree for index in table.indexes)} - {table.tree, Tree(0)}
        for tree in sorted(trees):
            await _add_tree(total, txn, tree)
    return DatabaseDigest(name, len(tables), records, total.hexdigest())


async def _add_tree(total: hashlib.blake2b, txn: Transaction, tree: Tree) -> int:
    """Adds a tree's rows in order, each with the lengths of its parts, and says how many there were."""
    total.update(b"T%d:" % tree_number(tree))
    rows = 0
    low: bytes | None = None
    while True:
        chunk = await txn.scan(tree, low, limit=_CHUNK_ROWS)
        total.update(b"".join([b"%d:%d:%b%b" % (len(key), len(value), key, value) for key, value in chunk]))
        rows += len(chunk)
        if len(chunk) < _CHUNK_ROWS:
            return rows
        low = chunk[-1][0] + b"\0"
        await asyncio.sleep(0)
