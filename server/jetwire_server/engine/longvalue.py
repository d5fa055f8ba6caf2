"""Long values beside their rows.

In the table's tree of long values: the id (8 bytes) -> how many records share the value, its size, and the number of the tree it
has to itself, if it is that big; the id and an offset (8 bytes each) -> a chunk. In a tree of its own: an offset -> a chunk.
A chunk may be shorter than the distance to the next: the rest of it is zeros.

A value that is being set is a `Draft`: chunks laid over what is stored, in memory, and beyond a bound in an unpublished tree, so
that a gigabyte streams. Nothing of it is seen before the record's Update.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.autoincrement import LONG_VALUE
from jetwire_server.rows import LongRef
from jetwire_server.store.interface import Transaction, Tree, UnpublishedTree, tree_id, tree_number, tree_slot

if TYPE_CHECKING:
    from jetwire_server.engine.autoincrement import Counters
    from jetwire_server.engine.schema import Table
    from jetwire_server.store.interface import Store

_ROOT = struct.Struct("<IQQ")  # records that share it, size, number of its own tree or 0
CHUNK = limits.LONG_VALUE_CHUNK_BYTES
_SCAN = 64  # chunks read at once: half a MB


def _id(lid: int) -> bytes:
    return lid.to_bytes(8, "big")


class Stored:
    """A long value as the transaction sees it."""

    __slots__ = ("lid", "prefix", "refs", "size", "tree")

    def __init__(self, table: Table, lid: int, root: bytes) -> None:
        self.lid = lid
        self.refs, self.size, own = _ROOT.unpack(root)
        self.tree: Tree = tree_id(tree_slot(table.tree), own) if own else table.long_values
        self.prefix = b"" if own else _id(lid)

    def root(self, table: Table) -> bytes:
        own = 0 if self.tree == table.long_values else tree_number(self.tree)
        return _ROOT.pack(self.refs, self.size, own)

    def key(self, number: int) -> bytes:
        return self.prefix + (number * CHUNK).to_bytes(8, "big")


async def load(txn: Transaction, table: Table, ref: LongRef) -> Stored:
    root = await txn.get(table.long_values, _id(ref.id))
    if root is None:
        raise JetError(Err.LVCorrupted, f"long value {ref.id} is missing")
    return Stored(table, ref.id, root)


async def read(txn: Transaction, table: Table, ref: LongRef, offset: int = 0, size: int | None = None) -> bytes:
    """Bytes of a long value, from `offset` on."""
    stored = await load(txn, table, ref)
    end = stored.size if size is None else min(stored.size, offset + size)
    if offset >= end:
        return b""
    first, last = offset // CHUNK, (end - 1) // CHUNK
    parts: list[bytes] = []
    number = first
    while number <= last:
        stop = min(last + 1, number + _SCAN)
        found = dict(await txn.scan(stored.tree, stored.key(number), stored.key(stop), limit=_SCAN))
        parts += [found.get(stored.key(i), b"").ljust(CHUNK, b"\0") for i in range(number, stop)]
        number = stop
    whole = parts[0] if len(parts) == 1 else b"".join(parts)
    return whole[offset - first * CHUNK : end - first * CHUNK]


async def share(txn: Transaction, table: Table, ref: LongRef) -> None:
    """One more record has the value."""
    stored = await load(txn, table, ref)
    stored.refs += 1
    txn.put(table.long_values, _id(ref.id), stored.root(table))


async def release(txn: Transaction, table: Table, ref: LongRef) -> None:
    """One record less has the value; the last one takes it along."""
    stored = await load(txn, table, ref)
    if stored.refs > 1:
        stored.refs -= 1
        txn.put(table.long_values, _id(ref.id), stored.root(table))
        return
    txn.delete(table.long_values, _id(ref.id))
    if stored.tree != table.long_values:
        txn.drop_tree(stored.tree)
        return
    await _delete_chunks(txn, stored, 0)


async def _delete_chunks(txn: Transaction, stored: Stored, first: int) -> None:
    low = stored.key(first)
    high = stored.key(limits.LONG_VALUE_BYTES_MAX // CHUNK + 2)
    while rows := await txn.scan(stored.tree, low, high, limit=_SCAN):
        for key, _ in rows:
            txn.delete(stored.tree, key)
        low = rows[-1][0] + b"\0"


class Draft:
    """A long value being set: what is stored (`base`), and what was written over it."""

    __slots__ = ("_base_bytes", "_held", "_overlay", "_spill", "_store", "_table", "base", "size")

    def __init__(self, store: Store, table: Table, base: LongRef | None = None) -> None:
        self._store = store
        self._table = table
        self.base = base
        self.size = base.size if base else 0
        self._base_bytes = self.size  # of the base, so much still counts
        self._overlay: dict[int, bytes] = {}
        self._held = 0
        self._spill: UnpublishedTree | None = None

    async def _chunk(self, txn: Transaction, stored: Stored | None, number: int) -> bytes:
        found = self._overlay.get(number)
        if found is None and self._spill is not None:
            found = await self._spill.get((number * CHUNK).to_bytes(8, "big"))
        if found is None and stored is not None and number * CHUNK < self._base_bytes:
            found = await txn.get(stored.tree, stored.key(number)) or b""
            found = found[: self._base_bytes - number * CHUNK]
        return found or b""

    async def _stored(self, txn: Transaction) -> Stored | None:
        return await load(txn, self._table, self.base) if self.base else None

    async def read(self, txn: Transaction, offset: int = 0, size: int | None = None) -> bytes:
        end = self.size if size is None else min(self.size, offset + size)
        if offset >= end:
            return b""
        stored = await self._stored(txn)
        first, last = offset // CHUNK, (end - 1) // CHUNK
        whole = b"".join([(await self._chunk(txn, stored, i)).ljust(CHUNK, b"\0") for i in range(first, last + 1)])
        return whole[offset - first * CHUNK : end - first * CHUNK]

    async def write(self, txn: Transaction, offset: int, data: bytes) -> None:
        """Overwrites from `offset` on, and makes the value longer where it must be."""
        stored = await self._stored(txn)
        place = 0
        while place < len(data):
            number, start = divmod(offset + place, CHUNK)
            piece = data[place : place + CHUNK - start]
            if len(piece) == CHUNK:
                chunk = piece
            else:
                old = await self._chunk(txn, stored, number)
                chunk = old[:start].ljust(start, b"\0") + piece + old[start + len(piece) :]
            self._held += len(chunk) - len(self._overlay.get(number, b""))
            self._overlay[number] = chunk
            place += len(piece)
        self.size = max(self.size, offset + len(data))
        if self._held > limits.LONG_VALUE_STREAM_BYTES and self.base is None:
            await self._spill_over()

    async def _spill_over(self) -> None:
        if self._spill is None:
            self._spill = await self._store.new_unpublished(tree_slot(self._table.tree))
        await self._spill.put_many([((n * CHUNK).to_bytes(8, "big"), self._overlay[n]) for n in sorted(self._overlay)])
        self._overlay.clear()
        self._held = 0

    async def resize(self, txn: Transaction, size: int) -> None:
        """Cuts the value, or lengthens it with zeros."""
        if size < self.size:
            edge, keep = divmod(size, CHUNK)
            first_gone = edge + (1 if keep else 0)
            if keep:
                stored = await self._stored(txn)
                self._overlay[edge] = (await self._chunk(txn, stored, edge))[:keep]
            for number in [n for n in self._overlay if n >= first_gone]:
                del self._overlay[number]
            if self._spill is not None:
                last = (self.size - 1) // CHUNK
                await self._spill.delete_many((n * CHUNK).to_bytes(8, "big") for n in range(first_gone, last + 1))
            self._base_bytes = min(self._base_bytes, size)
            self._held = sum(map(len, self._overlay.values()))
        self.size = size

    async def save(self, txn: Transaction, counters: Counters) -> LongRef:
        """Writes it into the transaction; the row then names what this returns."""
        stored = await self._stored(txn)
        if stored is not None and stored.refs == 1 and self.base is not None:
            return await self._save_in_place(txn, stored)
        if stored is not None and self.base is not None:
            copy = Draft(self._store, self._table)
            for start in range(0, self.size, _SCAN * CHUNK):
                await copy.write(txn, start, await self.read(txn, start, _SCAN * CHUNK))
            await copy.resize(txn, self.size)
            await release(txn, self._table, self.base)
            return await copy.save(txn, counters)
        lid = await next_id(counters, self._table)
        table = self._table
        own = 0
        if self._spill is not None:
            if self._overlay:
                await self._spill_over()
            own = tree_number(txn.adopt(self._spill))
        else:
            prefix = _id(lid)
            for number, chunk in self._overlay.items():
                txn.put(table.long_values, prefix + (number * CHUNK).to_bytes(8, "big"), chunk)
        txn.insert(table.long_values, _id(lid), _ROOT.pack(1, self.size, own))
        return LongRef(lid, self.size)

    async def _save_in_place(self, txn: Transaction, stored: Stored) -> LongRef:
        if self._base_bytes < stored.size:
            await _delete_chunks(txn, stored, -(-self._base_bytes // CHUNK))
        for number, chunk in self._overlay.items():
            txn.put(stored.tree, stored.key(number), chunk)
        stored.size = self.size
        txn.put(self._table.long_values, _id(stored.lid), stored.root(self._table))
        return LongRef(stored.lid, self.size)

    async def free(self) -> None:
        """The update was cancelled."""
        if self._spill is not None:
            await self._spill.free()


async def next_id(counters: Counters, table: Table) -> int:
    ready = counters.ready(table.objid, LONG_VALUE)
    if ready is not None:
        return ready

    async def highest(txn: Transaction) -> int:
        rows = await txn.scan(table.long_values, reverse=True, limit=1)
        return int.from_bytes(rows[0][0][:8], "big") if rows else 0

    return await counters.take(table.objid, LONG_VALUE, highest)
