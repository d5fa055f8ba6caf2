"""The trees that big long values have to themselves: what deletes or copies a whole table must know of them."""

from __future__ import annotations

from jetwire_server.engine.longvalue import Stored
from jetwire_server.engine.schema import Table
from jetwire_server.store.interface import Transaction

_ROOT_KEY_BYTES = 8  # an id alone; the keys of chunks go on with an offset
_BATCH = 64


async def values_with_trees(txn: Transaction, table: Table) -> dict[bytes, Stored]:
    """The long values with trees of their own, by the keys of their roots. Chunks are leapt over, not read one by one."""
    found: dict[bytes, Stored] = {}
    low = b""
    while rows := await txn.scan(table.long_values, low, limit=_BATCH):
        for key, value in rows:
            if len(key) == _ROOT_KEY_BYTES:
                stored = Stored(table, int.from_bytes(key, "big"), value)
                if stored.own_trees:
                    found[key] = stored
        last = rows[-1][0]
        low = last + b"\0" if len(last) == _ROOT_KEY_BYTES else (int.from_bytes(last[:_ROOT_KEY_BYTES], "big") + 1).to_bytes(9, "big")[1:]
    return found
