"""Who holds which key, and which tree's schema. Nobody ever waits: a lock is had at once, or it is a conflict.

A key's holder is a transaction (alone), or a `Sharing` of several. Sharing is of two kinds that exclude each other:
readers, and adders (escrow).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jetwire_server.store.interface import Tree

Owner = Any  # a transaction; only its identity matters here

READ, ADD = 0, 1


class Sharing:
    """A key held by several, for one kind of use."""

    __slots__ = ("kind", "owners")

    def __init__(self, kind: int, owner: Owner) -> None:
        self.kind = kind
        self.owners: set[Owner] = {owner}


class KeyLocks:
    """The locks of all keys of one store: per tree, a dictionary from key to holder."""

    def __init__(self) -> None:
        self.trees: dict[Tree, dict[bytes, Owner | Sharing]] = {}

    def of(self, tree: Tree) -> dict[bytes, Owner | Sharing]:
        """The tree's table, to put a holder into; whoever takes the last one out removes the table."""
        table = self.trees.get(tree)
        if table is None:
            table = self.trees[tree] = {}
        return table

    def release(self, tree: Tree, keys: Iterable[bytes], owner: Owner) -> None:
        """Lets go of those that the owner holds alone; others may have taken some over."""
        table = self.trees.get(tree)
        if table is None:
            return
        for key in keys:
            if table.get(key) is owner:
                del table[key]
        if not table:
            del self.trees[tree]

    def __len__(self) -> int:
        return sum(map(len, self.trees.values()))

    def holder(self, tree: Tree, key: bytes) -> Owner | Sharing | None:
        table = self.trees.get(tree)
        return table.get(key) if table else None

    def may_own(self, tree: Tree, key: bytes, owner: Owner) -> bool:
        """Whether the key is free for one owner alone (his own sharing with nobody else included)."""
        holder = self.holder(tree, key)
        if holder is None or holder is owner:
            return True
        return type(holder) is Sharing and len(holder.owners) == 1 and owner in holder.owners

    def may_share(self, tree: Tree, key: bytes, owner: Owner, kind: int) -> bool:
        holder = self.holder(tree, key)
        if holder is None or holder is owner:
            return True
        return type(holder) is Sharing and (holder.kind == kind or holder.owners == {owner})

    def shared_by_others(self, tree: Tree, owner: Owner) -> bool:
        """Whether anybody else holds any key of the tree."""
        for holder in self.trees.get(tree, {}).values():
            if holder is not owner and not (type(holder) is Sharing and holder.owners == {owner}):
                return True
        return False


class SchemaLocks:
    """The locks of whole trees: shared by writers, exclusive for DDL.

    What remains after the holders have gone is the number of the last commit of each kind: a writer whose snapshot is
    older than the last schema change would miss an index, and a schema change whose snapshot is older than the last
    write would build an index that misses a row.
    """

    def __init__(self) -> None:
        self._shared: dict[Tree, set[Owner]] = {}
        self._exclusive: dict[Tree, Owner] = {}
        self._changed: dict[Tree, int] = {}
        self._written: dict[Tree, int] = {}

    def take(self, tree: Tree, owner: Owner, snapshot: int, exclusive: bool) -> bool | None:
        """True: taken now. None: it was held already. False: a conflict."""
        holder = self._exclusive.get(tree)
        if holder is not None:
            return None if holder is owner else False
        sharers = self._shared.get(tree)
        if self._changed.get(tree, 0) > snapshot:
            return False
        if exclusive:
            if (sharers and sharers != {owner}) or self._written.get(tree, 0) > snapshot:
                return False
            self._exclusive[tree] = owner
            return True
        if sharers is None:
            self._shared[tree] = {owner}
            return True
        if owner in sharers:
            return None
        sharers.add(owner)
        return True

    def release(self, tree: Tree, owner: Owner, exclusive: bool, committed: int = 0) -> None:
        """Lets go; `committed` is the number of the commit that ends the holding, 0 for a rollback."""
        if exclusive:
            del self._exclusive[tree]
            if committed:
                self._changed[tree] = committed
            return
        sharers = self._shared[tree]
        sharers.discard(owner)
        if not sharers:
            del self._shared[tree]
        if committed:
            self._written[tree] = committed

    def forget(self, tree: Tree) -> None:
        """The tree has gone, and nobody is left who could ask for it."""
        self._changed.pop(tree, None)
        self._written.pop(tree, None)
