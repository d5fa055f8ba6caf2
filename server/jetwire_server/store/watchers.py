"""Who is told when changes to a tree become visible: at most one for each tree, and not many."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from jetwire_server import limits
from jetwire_server.store.interface import Tree, Watcher, tree_slot


class Watchers:
    """One store's. Oldest first."""

    def __init__(self) -> None:
        self.by_tree: dict[Tree, Watcher] = {}

    def add(self, tree: Tree, watcher: Watcher) -> None:
        self.remove([tree])
        while len(self.by_tree) >= limits.SCAN_CACHES_MAX:
            self.remove([next(iter(self.by_tree))])
        self.by_tree[tree] = watcher

    def tell(self, writes: Mapping[Tree, Collection[bytes]]) -> None:
        for tree, keys in writes.items():
            watcher = self.by_tree.get(tree)
            if watcher is not None:
                watcher.written(keys)

    def remove(self, trees: Iterable[Tree]) -> None:
        for tree in trees:
            watcher = self.by_tree.pop(tree, None)
            if watcher is not None:
                watcher.forget()

    def leave(self, slot: int) -> None:
        """A database goes, and another one may have its slot, and trees of the same numbers."""
        self.remove([tree for tree in self.by_tree if tree_slot(tree) == slot])
