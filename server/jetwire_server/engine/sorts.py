"""Where temporary tables and sorts live: in memory, and beyond a bound in a scratch tree that vanishes with the process.

`Scratch` offers what a cursor asks of a store transaction. Nothing of it is locked or logged: only one session knows it. Of a
table (not a sort) it remembers what the session's open levels have changed, so that they can be rolled back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.store.interface import Commit, Row, Savepoint, Tree, UnpublishedTree
from jetwire_server.store.sortedkeys import SortedKeys

if TYPE_CHECKING:
    from jetwire_server.store.interface import Store


def _place(tree: Tree, key: bytes) -> bytes:
    return tree.to_bytes(8, "big") + key


class _Change(NamedTuple):
    """What a place held in memory before it was changed; not there: what was spilled counts. Or a long value's own tree."""

    place: bytes | Tree
    old: bytes | UnpublishedTree | None
    had: bool

    @property
    def weight(self) -> int:
        """Bytes of memory, about."""
        return 100 if isinstance(self.place, int) else 100 + len(self.place) + (len(self.old) if isinstance(self.old, bytes) else 0)


class Scratch:
    """The trees of one temporary table."""

    snapshot = 0
    changed = False

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[bytes, bytes | None] = {}  # newer than what was spilled; None: deleted there
        self._order = SortedKeys(self._rows)
        self._bytes = 0
        self._undo: list[_Change] = []  # of the open levels, and of the running call
        self._undo_bytes = 0
        self._levels: list[int] = []  # how long that was when each of the session's levels first wrote
        self._spilled: UnpublishedTree | None = None
        self._whole: dict[Tree, UnpublishedTree] = {}  # long values with a tree of their own

    # -- writes ---------------------------------------------------------------------------------------------------
    def insert(self, tree: Tree, key: bytes, value: bytes) -> None:
        """A key that is not there: what was spilled must be looked at before (`get`)."""
        if self._rows.get(_place(tree, key)) is not None:
            raise JetError(Err.KeyDuplicate)
        self.put(tree, key, value)

    def put(self, tree: Tree, key: bytes, value: bytes) -> None:
        self._set(_place(tree, key), value)

    def delete(self, tree: Tree, key: bytes) -> None:
        self._set(_place(tree, key), None)

    def _set(self, place: bytes, value: bytes | None) -> None:
        had = place in self._rows
        old = self._rows.get(place)
        self._remember(_Change(place, old, had))
        self._rows[place] = value
        self._bytes += len(place) + 100 + len(value or b"") - (len(old or b"") + len(place) + 100 if had else 0)
        if not had:
            self._order.added([place])

    def _remember(self, change: _Change) -> None:
        if self._levels and self._undo_bytes > limits.TEMPORARY_UNDO_BYTES_MAX:
            raise JetError(Err.VersionStoreOutOfMemory, "a transaction changed too much of a temporary table")
        self._undo.append(change)
        self._undo_bytes += change.weight

    # -- what can be undone -----------------------------------------------------------------------------------------
    def in_level(self, level: int) -> None:
        """The session's transaction has so many levels now: what follows belongs to the innermost."""
        while len(self._levels) < level:
            self._levels.append(len(self._undo))

    def level_committed(self, level: int) -> None:
        """The levels above this one belong to it now."""
        del self._levels[level:]
        if not level:
            self._forget()

    def level_rolled_back(self, level: int) -> None:
        if len(self._levels) >= level:
            self.rollback_to(Savepoint(self._levels[level - 1]))
            del self._levels[level - 1 :]

    def savepoint(self) -> Savepoint:
        if not self._levels:
            self._forget()
        return Savepoint(len(self._undo))

    def rollback_to(self, savepoint: Savepoint) -> None:
        """Undoes what was written since."""
        while len(self._undo) > savepoint:
            change = self._undo.pop()
            self._undo_bytes -= change.weight
            place, old, had = change
            if isinstance(place, int):
                if had:
                    assert old is not None
                    assert not isinstance(old, bytes)
                    self._whole[place] = old
                else:
                    self._whole.pop(place)
            elif had:
                assert old is None or isinstance(old, bytes)
                if place not in self._rows:
                    self._order.added([place])
                self._rows[place] = old
            else:
                self._rows.pop(place, None)
                self._order.forget()

    def _forget(self) -> None:
        self._undo.clear()
        self._undo_bytes = 0

    def add(self, tree: Tree, key: bytes, offset: int, size: int, delta: int) -> int:
        raise JetError(Err.InvalidOperation, "a temporary table takes no escrow updates")

    def added(self, tree: Tree, key: bytes, offset: int) -> int | None:
        return None

    def lock(self, tree: Tree, key: bytes, *, shared: bool = False) -> None:
        return None

    def lock_schema(self, tree: Tree, *, exclusive: bool = False) -> None:
        return None

    def new_tree(self, slot: int) -> Tree:
        raise JetError(Err.InvalidOperation)

    def adopt(self, tree: UnpublishedTree) -> Tree:
        self._remember(_Change(tree.tree, None, False))
        self._whole[tree.tree] = tree
        return tree.tree

    def drop_tree(self, tree: Tree) -> None:
        gone = self._whole.pop(tree, None)
        if gone is not None:
            self._remember(_Change(tree, gone, True))

    # -- reads ----------------------------------------------------------------------------------------------------
    async def get(self, tree: Tree, key: bytes) -> bytes | None:
        if tree in self._whole:
            return await self._whole[tree].get(key)
        place = _place(tree, key)
        if place in self._rows:
            return self._rows[place]
        return await self._spilled.get(place) if self._spilled is not None else None

    async def scan(
        self, tree: Tree, low: bytes | None = None, high: bytes | None = None, *, reverse: bool = False, limit: int = 1000
    ) -> list[Row]:
        if tree in self._whole:
            return await self._whole[tree].scan(low, high, reverse=reverse, limit=limit)
        first = _place(tree, low or b"")
        last = _place(tree, high) if high is not None else _place(Tree(tree + 1), b"")
        out: list[Row] = []
        while len(out) < limit and first < last:
            rows, end = await self._stretch(first, last, reverse, limit - len(out))
            out += [(key[8:], value) for key, value in rows]
            if end is None:
                break
            if reverse:
                last = end
            else:
                first = end + b"\0"
        return out[:limit]

    async def _stretch(self, low: bytes, high: bytes, reverse: bool, limit: int) -> tuple[list[Row], bytes | None]:
        """Memory laid over what was spilled, as far as both are known, and where that ends."""
        want = max(limit, 64)
        mine = self._order.run(low, high, reverse, want)
        theirs = [] if self._spilled is None else await self._spilled.scan(low, high, reverse=reverse, limit=want)
        ends = [mine[-1]] if len(mine) == want else []
        if len(theirs) == want:
            ends.append(theirs[-1][0])
        end = (max(ends) if reverse else min(ends)) if ends else None
        merged: dict[bytes, bytes | None] = dict(theirs)
        for key in mine:
            merged[key] = self._rows[key]
        inside = [k for k in merged if end is None or (k >= end if reverse else k <= end)]
        found = [(k, v) for k in sorted(inside, reverse=reverse) if (v := merged[k]) is not None]
        return found, end

    # -- space ----------------------------------------------------------------------------------------------------
    async def spill(self) -> None:
        """Puts what is in memory aside, if it is too much."""
        if self._bytes <= limits.TEMPORARY_BYTES_IN_MEMORY_MAX:
            return
        if self._levels:
            await self._settle_undo()
        if self._spilled is None:
            self._spilled = await self._store.new_scratch()
        await self._spilled.delete_many([k for k, v in self._rows.items() if v is None])
        rows = sorted((k, v) for k, v in self._rows.items() if v is not None)
        for i in range(0, len(rows), limits.READ_AHEAD_ROWS_MAX):
            await self._spilled.put_many(rows[i : i + limits.READ_AHEAD_ROWS_MAX])
        self._rows.clear()
        self._order.forget()
        self._bytes = 0
        if not self._levels:
            self._forget()

    async def _settle_undo(self) -> None:
        """What was spilled is about to change: changes that can be undone must know it as it was."""
        for number, change in enumerate(self._undo):
            place = change.place
            if not change.had and isinstance(place, bytes):
                known = _Change(place, await self._spilled.get(place) if self._spilled is not None else None, True)
                self._undo[number] = known
                self._undo_bytes += known.weight - change.weight

    @property
    def spilled(self) -> bool:
        return self._spilled is not None

    async def free(self) -> None:
        for tree in [*self._whole.values(), *([self._spilled] if self._spilled is not None else [])]:
            await tree.free()
        self._whole.clear()
        self._spilled = None
        self._rows.clear()
        self._order.forget()

    async def commit(self, *, lazy: bool = False) -> Commit:
        raise AssertionError("a scratch is not committed")

    async def rollback(self) -> None:
        raise AssertionError("a scratch is not rolled back")
