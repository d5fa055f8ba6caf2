"""Who may write what: the first to write a key holds it, and nobody writes over what his snapshot does not see.

Nobody ever waits here: a key that cannot be had is an error at once.
"""

from __future__ import annotations

from typing import NoReturn

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.store.home import AdoptableTree, Home
from jetwire_server.store.interface import Tree
from jetwire_server.store.locks import ADD, Owner, Sharing
from jetwire_server.store.timeline import Base, value_in
from jetwire_server.store.writeset import Entry


class Claims:
    """One transaction's view of what is committed, and the keys that it holds."""

    __slots__ = ("_held", "_home", "_locks", "_trees", "adopted", "dropped", "from_pages", "pages", "snapshot", "writes")

    def __init__(self, home: Home, pages: Base, snapshot: int) -> None:
        self._home = home
        self._trees = home.timeline.trees
        self._locks = home.key_locks
        self.pages = pages
        self.snapshot = snapshot
        self.from_pages = 0
        self.writes: dict[Tree, dict[bytes, Entry]] = {}
        self.dropped: list[Tree] = []
        self.adopted: dict[Tree, AdoptableTree] = {}
        # Locks that no write of this transaction took by itself, and what held the key before, if this one held it too.
        self._held: list[tuple[Tree, bytes, Owner | None]] = []

    def visible(self, tree: Tree, key: bytes) -> bytes | None:
        """The value at the snapshot, this transaction's own writes left out."""
        if self.dropped and tree in self.dropped:
            return None
        found = self._trees.get(tree)
        if found is not None:
            if found.dropped and found.dropped <= self.snapshot:
                return None
            version = found.versions.get(key)
            snapshot = self.snapshot
            while version is not None:
                if version[0] <= snapshot:
                    if version[0] > self.pages.base:
                        return value_in(version, key)
                    break  # the pages have this one, or a newer one that was let go here
                version = version[2]
        if self.adopted and tree in self.adopted:
            return self.adopted[tree].get_now(key)
        self.from_pages += 1
        return self.pages.get(tree, key)

    def claim(self, tree: Tree, key: bytes, code: int) -> bool:
        """Makes the key this transaction's alone, or answers `code`. True if nobody held it, False if this one did."""
        if len(key) > limits.TREE_KEY_BYTES_MAX:
            raise JetError(Err.KeyTooBig, f"{len(key)} bytes; the store takes {limits.TREE_KEY_BYTES_MAX}")
        table = self._locks.trees.get(tree)
        holder = table.get(key) if table is not None else None
        if holder is self:
            return False
        if holder is not None and not self._locks.may_own(tree, key, self):
            self.conflict(code, "another session holds the key")
        found = self._trees.get(tree)
        if (found is not None and (found.dropped or (found.newest > self.snapshot and key in found.versions))) or (
            not self.pages.current and self._home.current.base > self.snapshot
        ):
            self.check_unchanged(tree, key, code)  # else nothing can be newer than this snapshot
        if table is None:
            table = self._locks.of(tree)
        table[key] = self
        if holder is None:
            return True
        self._held.append((tree, key, holder))
        return False

    def claim_adding(self, tree: Tree, key: bytes) -> None:
        if not self._locks.may_share(tree, key, self, ADD):
            self.conflict(Err.WriteConflict, "another session holds the key")
        found = self._trees.get(tree)
        version = found.versions.get(key) if found is not None else None
        if version is None or version[0] <= self.snapshot:
            self.check_unchanged(tree, key, Err.WriteConflict)
        while version is not None and version[0] > self.snapshot:
            if not version[3]:
                self.conflict(Err.WriteConflict, "the value was replaced since this transaction began")
            version = version[2]
        self.share(tree, key, ADD)

    def share(self, tree: Tree, key: bytes, kind: int) -> None:
        table = self._locks.of(tree)
        holder = table.get(key)
        if holder is self:
            return
        if isinstance(holder, Sharing):
            if self in holder.owners:
                if holder.kind != kind:  # alone with both kinds: then it is a lock for one
                    self._held.append((tree, key, holder))
                    table[key] = self
                return
            holder.owners.add(self)
        else:
            table[key] = Sharing(kind, self)
        self._held.append((tree, key, None))

    def check_unchanged(self, tree: Tree, key: bytes, code: int) -> None:
        """The key's newest version must be one that this snapshot sees: nobody's update is ever lost."""
        if self.adopted and tree in self.adopted:
            return  # nobody else has ever seen it, and the newest pages need not have it yet
        found = self._trees.get(tree)
        newest = self._home.current
        if found is not None:
            if found.dropped > self.snapshot:
                self.conflict(code, "the tree was dropped since this transaction began")
            version = found.versions.get(key)
            if version is not None:
                if version[0] > self.snapshot:
                    self.conflict(code, "the key was changed since this transaction began")
                if version[0] > newest.base:
                    return
        if newest is not self.pages and newest.base > self.snapshot:
            in_pages = newest.newest(tree, key)
            if in_pages is None:
                if self.visible(tree, key) is not None:
                    self.conflict(code, "the key was deleted since this transaction began")
            elif in_pages[0] > self.snapshot:
                self.conflict(code, "the key was changed since this transaction began")

    def release_all_keys(self, *, plain: bool) -> None:
        """`plain`: nobody else has taken a key over."""
        if self._held:
            plain = False
            self.release_keys(0)
        tables = self._locks.trees
        for tree, own in self.writes.items():
            if plain and len(tables.get(tree, ())) == len(own) > 0:  # every write holds its key, so nobody else holds any
                del tables[tree]
            else:
                self._locks.release(tree, own, self)

    def release_keys(self, down_to: int) -> None:
        tables = self._locks.trees
        last: Tree | None = None
        table: dict[bytes, Owner | Sharing] = {}
        for tree, key, before in reversed(self._held[down_to:]):
            if tree != last:
                last, table = tree, tables[tree]
            holder = table[key]
            if holder is not self and type(holder) is not Sharing:
                continue  # a stroke on top of this one has taken the key over
            if before is not None:
                table[key] = before
            elif isinstance(holder, Sharing) and len(holder.owners) > 1:
                holder.owners.discard(self)
            else:
                del table[key]
                if not table:
                    del tables[tree]
        del self._held[down_to:]

    def conflict(self, code: int, why: str) -> NoReturn:
        raise JetError(code, why)
