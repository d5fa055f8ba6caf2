"""Long values beside their rows.

In the table's tree of long values: the id (8 bytes) -> how many records share the value, its size, the number of the tree it has to
itself, if it is that big, and the trees its tail goes on in; the id and an offset (8 bytes each) -> a chunk. In a tree of its own: an
offset -> a chunk. A chunk may be shorter than the distance to the next: the rest of it is zeros.

A value that is being set is a `Draft`: chunks laid over what is stored, in memory, and beyond a bound in an unpublished tree, so
that a gigabyte streams: a new value gets a tree of its own, what is appended to a stored one gets a tree for that tail, and one that
is overwritten on end is written anew. Nothing of it is seen before the record's Update.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.autoincrement import LONG_VALUE
from jetwire_server.engine.sorts import Scratch
from jetwire_server.rows import LongRef
from jetwire_server.store.interface import Transaction, Tree, UnpublishedTree, tree_id, tree_number, tree_slot

if TYPE_CHECKING:
    from jetwire_server.engine.autoincrement import Counters
    from jetwire_server.engine.schema import Table
    from jetwire_server.store.interface import Store

_ROOT = struct.Struct("<IQQ")  # records that share it, size, number of its own tree or 0
_REFS_BYTES = 4
_TAIL = struct.Struct("<QQ")  # the first chunk, and the number of the tree it and those behind it are in
CHUNK = limits.LONG_VALUE_CHUNK_BYTES
_SCAN = 64  # chunks read at once: half a MB


def _id(lid: int) -> bytes:
    return lid.to_bytes(8, "big")


def _place(number: int) -> bytes:
    return (number * CHUNK).to_bytes(8, "big")


class Stored:
    """A long value as the transaction sees it."""

    __slots__ = ("lid", "prefix", "refs", "size", "tails", "tree")

    def __init__(self, table: Table, lid: int, root: bytes) -> None:
        self.lid = lid
        self.refs, self.size, own = _ROOT.unpack_from(root)
        slot = tree_slot(table.tree)
        self.tree: Tree = tree_id(slot, own) if own else table.long_values
        self.prefix = b"" if own else _id(lid)
        self.tails: list[tuple[int, Tree]] = [(first, tree_id(slot, tree)) for first, tree in _TAIL.iter_unpack(root[_ROOT.size :])]

    def root(self) -> bytes:
        own = 0 if self.prefix else tree_number(self.tree)
        return _ROOT.pack(self.refs, self.size, own) + b"".join([_TAIL.pack(first, tree_number(tree)) for first, tree in self.tails])

    @property
    def own_trees(self) -> list[Tree]:
        return [*([] if self.prefix else [self.tree]), *(tree for _, tree in self.tails)]

    def move(self, trees: Mapping[Tree, Tree]) -> None:
        """The same value with copies of its own trees."""
        self.tree = trees.get(self.tree, self.tree)
        self.tails = [(first, trees[tree]) for first, tree in self.tails]

    def key(self, number: int) -> bytes:
        """Of a chunk that is not in a tail."""
        return self.prefix + _place(number)

    def place(self, number: int) -> tuple[Tree, bytes]:
        """Where a chunk is."""
        for first, tree in reversed(self.tails):
            if number >= first:
                return tree, _place(number)
        return self.tree, self.key(number)

    def stretches(self, first: int, stop: int) -> Iterator[tuple[Tree, bytes, bytes]]:
        """The ranges of keys that the chunks from `first` to before `stop` have, in order."""
        bounds = [0, *(start for start, _ in self.tails), limits.LONG_VALUE_BYTES_MAX]
        for start, end in pairwise(bounds):
            low, high = max(first, start), min(stop, end)
            if low < high:
                tree, key = self.place(low)
                yield tree, key, key[:-8] + _place(high)


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
        found: dict[bytes, bytes] = {}
        for tree, low, high in stored.stretches(number, stop):
            found.update([(key[-8:], chunk) for key, chunk in await txn.scan(tree, low, high, limit=_SCAN)])
        parts += [found.get(_place(i), b"").ljust(CHUNK, b"\0") for i in range(number, stop)]
        number = stop
    whole = parts[0] if len(parts) == 1 else b"".join(parts)
    return whole[offset - first * CHUNK : end - first * CHUNK]


async def share(txn: Transaction, table: Table, ref: LongRef) -> None:
    """One more record has the value. Sessions that copy at the same time do not stand in each other's way."""
    stored = await load(txn, table, ref)
    if not isinstance(txn, Scratch):
        txn.add(table.long_values, _id(ref.id), 0, _REFS_BYTES, 1)
        return
    stored.refs += 1
    txn.put(table.long_values, _id(ref.id), stored.root())


async def release(txn: Transaction, table: Table, ref: LongRef) -> None:
    """One record less has the value; the last one takes it along."""
    stored = await load(txn, table, ref)
    if stored.refs > 1:
        stored.refs -= 1
        txn.put(table.long_values, _id(ref.id), stored.root())
        return
    txn.delete(table.long_values, _id(ref.id))
    if stored.prefix:
        await _cut(txn, stored, 0)
    else:
        for tree in stored.own_trees:
            txn.drop_tree(tree)


async def _cut(txn: Transaction, stored: Stored, first: int) -> None:
    """The value ends before that chunk."""
    for start, tree in [tail for tail in stored.tails if tail[0] >= first]:
        txn.drop_tree(tree)
        stored.tails.remove((start, tree))
    for tree, low, high in stored.stretches(first, limits.LONG_VALUE_BYTES_MAX):
        while rows := await txn.scan(tree, low, high, limit=_SCAN):
            for key, _ in rows:
                txn.delete(tree, key)
            low = rows[-1][0] + b"\0"


class Draft:
    """A long value being set: what is stored (`base`), and what was written over it."""

    __slots__ = ("_base_bytes", "_held", "_overlay", "_seen", "_spill_first", "_store", "_table", "base", "size", "spill")

    def __init__(self, store: Store, table: Table, base: LongRef | None = None) -> None:
        self._store = store
        self._table = table
        self.base = base
        self.size = base.size if base else 0
        self._base_bytes = self.size  # of the base, so much still counts
        self._overlay: dict[int, bytes] = {}
        self._seen: dict[int, tuple[int, int]] = {}  # of the base's chunks that are overwritten in part: so many bytes, and their hash
        self._held = 0
        self.spill: UnpublishedTree | None = None
        self._spill_first = 0  # chunks before this one are never in it

    async def _chunk(self, txn: Transaction, stored: Stored | None, number: int) -> bytes:
        found = self._overlay.get(number)
        if found is None and self.spill is not None and number >= self._spill_first:
            found = await self.spill.get(_place(number))
        if found is None and stored is not None and number * CHUNK < self._base_bytes:
            found = await txn.get(*stored.place(number)) or b""
            found = found[: self._base_bytes - number * CHUNK]
        return found or b""

    async def _under(self, txn: Transaction, stored: Stored | None, number: int) -> bytes:
        """What there is of a chunk that is being overwritten in part."""
        chunk = await self._chunk(txn, stored, number)
        if stored is not None and number * CHUNK < self._base_bytes and number not in self._overlay:
            self._seen.setdefault(number, (len(chunk), hash(chunk)))
        return chunk

    async def _check_unchanged(self, txn: Transaction, stored: Stored) -> None:
        """A value of the same size leaves the row as it was, so without a lock on it (at level 0) only the chunks can tell."""
        for number, (size, hashed) in self._seen.items():
            now = await txn.get(*stored.place(number)) or b""
            if number in self._overlay and hash(now[:size]) != hashed:
                raise JetError(Err.WriteConflict, "the long value was changed since it was set in part")

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
                old = await self._under(txn, stored, number)
                chunk = old[:start].ljust(start, b"\0") + piece + old[start + len(piece) :]
            self._held += len(chunk) - len(self._overlay.get(number, b""))
            self._overlay[number] = chunk
            place += len(piece)
        self.size = max(self.size, offset + len(data))
        if self._held > limits.LONG_VALUE_STREAM_BYTES:
            await self._spill_over()
            if self._held > limits.LONG_VALUE_OVERWRITTEN_BYTES_MAX:
                await self._stand_alone(txn)

    async def _spill_over(self) -> None:
        """Puts aside what is in memory, but for what lies over the base: that goes into the base's own trees."""
        if self.spill is None:
            self._spill_first = -(-self._base_bytes // CHUNK)
        aside = sorted(n for n in self._overlay if n >= self._spill_first)
        if not aside:
            return
        if self.spill is None:
            self.spill = await self._store.new_unpublished(tree_slot(self._table.tree))
        await self.spill.put_many([(_place(n), self._overlay.pop(n)) for n in aside])
        self._held = sum(map(len, self._overlay.values()))

    async def _stand_alone(self, txn: Transaction) -> None:
        """Takes over a copy of what is left of the base, which is then the record's to let go."""
        copy = Draft(self._store, self._table)
        try:
            for start in range(0, self.size, _SCAN * CHUNK):
                await copy.write(txn, start, await self.read(txn, start, _SCAN * CHUNK))
        except BaseException:
            await copy.free()
            raise
        await self.free()
        self.base, self._base_bytes = None, 0
        self._seen.clear()
        self._overlay, self._held, self.spill, self._spill_first = copy._overlay, copy._held, copy.spill, 0

    async def resize(self, txn: Transaction, size: int) -> None:
        """Cuts the value, or lengthens it with zeros."""
        if self._base_bytes - size > limits.LONG_VALUE_OVERWRITTEN_BYTES_MAX or size == 0:  # dropped whole, not chunk by chunk
            self.size = self._base_bytes = min(self.size, size) if size == 0 else self.size
            await self._stand_alone(txn)
        if size < self.size:
            edge, keep = divmod(size, CHUNK)
            first_gone = edge + (1 if keep else 0)
            if keep:
                stored = await self._stored(txn)
                self._overlay[edge] = (await self._under(txn, stored, edge))[:keep]
            for number in [n for n in self._overlay if n >= first_gone]:
                del self._overlay[number]
            if self.spill is not None:
                last = (self.size - 1) // CHUNK
                await self.spill.delete_many(_place(n) for n in range(max(first_gone, self._spill_first), last + 1))
            self._base_bytes = min(self._base_bytes, size)
            self._held = sum(map(len, self._overlay.values()))
        self.size = size

    async def save(self, txn: Transaction, counters: Counters) -> LongRef:
        """Writes it into the transaction; the row then names what this returns. A scratch changes nothing in trees it has adopted."""
        stored = await self._stored(txn)
        if stored is not None:
            if stored.refs == 1 and not (stored.own_trees and isinstance(txn, Scratch)):
                return await self._save_in_place(txn, stored)
            base = self.base
            assert base is not None
            await self._stand_alone(txn)
            await release(txn, self._table, base)
        lid = await next_id(counters, self._table)
        table = self._table
        own = 0
        if self.spill is not None:
            await self._spill_over()
            own = tree_number(txn.adopt(self.spill))
        else:
            for number, chunk in self._overlay.items():
                txn.put(table.long_values, _id(lid) + _place(number), chunk)
        txn.insert(table.long_values, _id(lid), _ROOT.pack(1, self.size, own))
        return LongRef(lid, self.size)

    async def _save_in_place(self, txn: Transaction, stored: Stored) -> LongRef:
        await self._check_unchanged(txn, stored)
        if self._base_bytes < stored.size:
            await _cut(txn, stored, -(-self._base_bytes // CHUNK))
        if self.spill is not None:
            await self._spill_over()
            stored.tails.append((self._spill_first, txn.adopt(self.spill)))
        for number, chunk in self._overlay.items():
            txn.put(*stored.place(number), chunk)
        stored.size = self.size
        txn.put(self._table.long_values, _id(stored.lid), stored.root())
        return LongRef(stored.lid, self.size)

    async def free(self) -> None:
        """The update was cancelled."""
        if self.spill is not None:
            await self.spill.free()


async def next_id(counters: Counters, table: Table) -> int:
    ready = counters.ready(table.objid, LONG_VALUE)
    if ready is not None:
        return ready

    async def highest(txn: Transaction) -> int:
        rows = await txn.scan(table.long_values, reverse=True, limit=1)
        return int.from_bytes(rows[0][0][:8], "big") if rows else 0

    return await counters.take(table.objid, LONG_VALUE, highest)
