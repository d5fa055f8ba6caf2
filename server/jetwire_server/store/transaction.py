"""A transaction: one snapshot, one write set, and the rules of who may write what.

Both stores use it. What differs between them is the `Home`: where pages come from, and what sealing a commit means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import Final

from jetwire_protocol.errors import Err, JetError
from jetwire_server.redo.writer import resolver
from jetwire_server.store.claims import Claims
from jetwire_server.store.home import AdoptableTree, Home, relieved
from jetwire_server.store.interface import Commit, Report, Row, Savepoint, Tree, UnpublishedTree
from jetwire_server.store.layers import scan_layers
from jetwire_server.store.locks import READ
from jetwire_server.store.sortedkeys import SortedKeys
from jetwire_server.store.timeline import VERSION_OVERHEAD_BYTES, Base, TreeVersions
from jetwire_server.store.writeset import HELD, MISSING, Deltas, Entry, _Missing, integer_at, made_whole

_CONFLICT: Final = int(Err.WriteConflict)  # looking at an enum's member takes compiled code longer than a dictionary
_DUPLICATE: Final = int(Err.KeyDuplicate)
ACTIVE, COMMITTING, ENDED = "active", "committing", "ended"

CHARGE_BYTES = 1 << 16
_NO_WRITES: dict[Tree, dict[bytes, Entry]] = {}
_NO_TREES: dict[Tree, AdoptableTree] = {}


class StoreTransaction(Claims):
    """See `interface.Transaction` for the public half."""

    __slots__ = (
        "_charged",
        "_left",
        "_orders",
        "_savepoints",
        "_undo",
        "_usage",
        "created",
        "in_log",
        "looked_at",
        "read_only",
        "schema_held",
        "state",
        "succeeded",
    )

    def __init__(self, home: Home, pages: Base, snapshot: int, read_only: bool) -> None:
        super().__init__(home, pages, snapshot)
        self._usage = home.timeline.usage
        self.read_only = read_only
        self.state = ACTIVE
        self.looked_at = 0
        self.created: list[Tree] = []
        self.schema_held: list[tuple[Tree, bool]] = []
        self._orders: dict[Tree, SortedKeys] = {}  # only of trees that were scanned with own writes in them
        self._undo: list[tuple[Tree, bytes, Entry | _Missing]] = []  # since the first save point
        self._savepoints: list[tuple[int, ...]] = []
        self.in_log = False  # the log has its record: it will be published, or nothing that comes after it
        self.succeeded = False  # a later stroke holds a key that this one has written
        self._charged = self._left = 0  # bytes taken from the store's allowance, and how much of that is not used yet

    @property
    def changed(self) -> bool:
        return self.rows_written > 0 or bool(self.dropped or self.adopted)

    @property
    def rows_written(self) -> int:
        rows = 0
        for own in self.writes.values():
            rows += len(own)
        return rows

    # -- writes -----------------------------------------------------------------------------------------------
    def insert(self, tree: Tree, key: bytes, value: bytes) -> None:
        own = self.writes.get(tree)
        if own is None:
            own = self._open(tree)
        old = own.get(key, MISSING)
        if old is not None:
            if old is not MISSING or self.visible(tree, key) is not None:
                raise JetError(Err.KeyDuplicate)
            if not self.claim(tree, key, _DUPLICATE):
                old = HELD
        self._write(tree, own, key, old, value, VERSION_OVERHEAD_BYTES + len(key) + len(value))

    def put(self, tree: Tree, key: bytes, value: bytes) -> None:
        own = self.writes.get(tree)
        if own is None:
            own = self._open(tree)
        old = own.get(key, MISSING)
        if old is MISSING:
            if not self.claim(tree, key, _CONFLICT):
                old = HELD
        elif type(old) is Deltas:
            self.claim(tree, key, _CONFLICT)
        self._write(tree, own, key, old, value, VERSION_OVERHEAD_BYTES + len(key) + len(value))

    def delete(self, tree: Tree, key: bytes) -> None:
        own = self.writes.get(tree)
        if own is None:
            own = self._open(tree)
        old = own.get(key, MISSING)
        if old is MISSING:
            if not self.claim(tree, key, _CONFLICT):
                old = HELD
        elif type(old) is Deltas:
            self.claim(tree, key, _CONFLICT)
        self._write(tree, own, key, old, None, VERSION_OVERHEAD_BYTES + len(key))

    def add(self, tree: Tree, key: bytes, offset: int, size: int, delta: int) -> int:
        own = self.writes.get(tree)
        if own is None:
            own = self._open(tree)
        old = own.get(key, MISSING)
        if old is MISSING:
            base = self.visible(tree, key)
            deltas: Deltas | None = Deltas()
        elif type(old) is Deltas:
            base, deltas = made_whole(self.visible(tree, key), old), old
        else:
            assert not isinstance(old, (Deltas, _Missing))
            base, deltas = old, None  # this transaction put the value: the sum is as private as the put
        if base is None:
            raise JetError(Err.RecordNotFound, "no value to add to")
        before = integer_at(base, offset, size)
        if deltas is None:
            self._write(tree, own, key, old, made_whole(base, Deltas(((offset, size, delta),))), VERSION_OVERHEAD_BYTES + len(base))
            return before
        if old is MISSING:
            self.claim_adding(tree, key)
            old = HELD
        self._write(tree, own, key, old, deltas.plus(offset, size, delta), VERSION_OVERHEAD_BYTES + len(base))
        return before

    def added(self, tree: Tree, key: bytes, offset: int) -> int | None:
        own = self.writes.get(tree)
        entry = own.get(key, MISSING) if own else MISSING
        if type(entry) is Deltas:
            return sum(delta for at, _, delta in entry if at == offset)
        return 0 if entry is MISSING else None

    def lock(self, tree: Tree, key: bytes, *, shared: bool = False) -> None:
        self._check_active()
        if not shared:
            if self.claim(tree, key, _CONFLICT):
                self._held.append((tree, key, None))
            return
        if not self._locks.may_share(tree, key, self, READ):
            raise JetError(Err.WriteConflict, "another session holds the key")
        self.check_unchanged(tree, key, Err.WriteConflict)
        self.share(tree, key, READ)

    def lock_schema(self, tree: Tree, *, exclusive: bool = False) -> None:
        self._check_active()
        taken = self._home.schema_locks.take(tree, self, self.snapshot, exclusive)
        if taken:
            self.schema_held.append((tree, exclusive))
        elif taken is False:
            raise JetError(Err.WriteConflict, "another session uses the table's schema, or has changed it since this transaction began")

    def savepoint(self) -> Savepoint:
        self._check_active()
        lists: tuple[Sized, ...] = (self._undo, self._held, self.schema_held, self.created, self.dropped, self.adopted)
        self._savepoints.append((*map(len, lists), self._charged - self._left))
        return Savepoint(len(self._savepoints) - 1)

    def rollback_to(self, savepoint: Savepoint) -> None:
        self._check_active()
        undo, held, schema, created, dropped, adopted, weight = self._savepoints[savepoint]
        del self._savepoints[savepoint + 1 :]
        while len(self._undo) > undo:
            tree, key, old = self._undo.pop()
            own = self.writes[tree]
            if not isinstance(old, _Missing):
                own[key] = old
                continue
            del own[key]
            if old is MISSING:  # the write took the lock
                table = self._locks.trees[tree]
                del table[key]
                if not table:
                    del self._locks.trees[tree]
        self.release_keys(held)
        self._release_schemas(schema, 0)
        del self.created[created:]
        del self.dropped[dropped:]
        for tree in list(self.adopted)[adopted:]:
            self.adopted.pop(tree).adopted_by(None)
        self._orders.clear()
        self._left = self._charged - weight

    def forget(self, savepoint: Savepoint) -> None:
        del self._savepoints[savepoint:]
        if not self._savepoints:
            self._undo.clear()

    # -- trees ------------------------------------------------------------------------------------------------
    def new_tree(self, slot: int) -> Tree:
        self._check_active()
        tree = self._home.allocate_tree(slot)
        self._home.check_writable(tree)
        self.created.append(tree)
        return tree

    def adopt(self, tree: UnpublishedTree) -> Tree:
        self._check_active()
        self._home.check_writable(tree.tree)
        adoptable: AdoptableTree = tree  # type: ignore[assignment]  # every store's own trees are
        adoptable.adopted_by(self)
        self.adopted[tree.tree] = adoptable
        return tree.tree

    def drop_tree(self, tree: Tree) -> None:
        self._check_active()
        self._home.check_writable(tree)
        if self._locks.shared_by_others(tree, self):
            raise JetError(Err.WriteConflict, "another session has written to the tree")
        self.lock_schema(tree, exclusive=True)
        self.dropped.append(tree)

    # -- reads ------------------------------------------------------------------------------------------------
    async def get(self, tree: Tree, key: bytes) -> bytes | None:
        self.looked_at += 1
        own = self.writes.get(tree)
        if own:
            entry = own.get(key, MISSING)
            if type(entry) is bytes or entry is None:
                return entry
            if type(entry) is Deltas:
                return made_whole(self.visible(tree, key), entry)
        found = self._trees.get(tree)
        if found is None and not self.adopted and not self.dropped:
            self.from_pages += 1
            return self.pages.get(tree, key)
        return self.visible(tree, key)

    async def scan(
        self, tree: Tree, low: bytes | None = None, high: bytes | None = None, *, reverse: bool = False, limit: int = 1000
    ) -> list[Row]:
        return self.rows(tree, low, high, reverse, limit)

    def rows(self, tree: Tree, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]:
        """`scan`, for the store itself."""
        own = self.writes.get(tree)
        found = self._trees.get(tree)
        if self.dropped and tree in self.dropped:
            return []
        if found is not None and found.dropped and found.dropped <= self.snapshot:
            return []
        if not own and (found is None or not found.versions) and not self.adopted:
            rows = self.pages.chunk(tree, low, high, reverse, limit)
            self.from_pages += len(rows)
        else:
            rows = scan_layers(self, tree, low, high, reverse, limit)
        self.looked_at += len(rows)
        return rows

    def versions_of(self, tree: Tree) -> TreeVersions | None:
        """The tree's part of the timeline, if it has one."""
        return self._trees.get(tree)

    # -- the end ----------------------------------------------------------------------------------------------
    async def commit(self, *, lazy: bool = False) -> Commit:
        self._check_active()
        self.state = COMMITTING
        home = self._home
        if not self.changed:
            self.release(0)
            return home.nothing_to_commit()
        rows = self.rows_written
        if home.crowded(rows):
            await relieved(home, self, rows)
        done: asyncio.Future[Commit] = asyncio.get_running_loop().create_future()
        self._seal(lazy, resolver(done))
        return await done

    def commit_now(self, report: Report, *, lazy: bool = False) -> bool:
        self._check_active()
        if self._home.crowded(0):
            return False
        self.state = COMMITTING
        self._seal(lazy, report)
        return True

    def _seal(self, lazy: bool, report: Report) -> None:
        try:
            self._home.seal(self, lazy, report)
        except BaseException:
            self.release(0)
            raise

    async def rollback(self) -> None:
        self.rollback_now()

    def rollback_now(self) -> None:
        if self.state == ACTIVE:
            self.release(0)

    def release(self, committed: int) -> None:
        """Ends the transaction: at the publishing of commit number `committed`, or 0 for a rollback."""
        if self.state == ENDED:
            return
        self.state = ENDED
        self.release_all_keys(plain=not self.succeeded)
        if self.schema_held:
            self._release_schemas(0, committed)
        self._usage.used -= self._charged
        self._charged = self._left = 0
        if not committed:
            for tree in self.adopted.values():
                tree.adopted_by(None)
        self._home.ended(self)
        self.writes, self.adopted = _NO_WRITES, _NO_TREES  # large ones must not live as long as whoever holds this
        self._undo.clear()
        self._orders.clear()

    # -- inside -----------------------------------------------------------------------------------------------
    def _check_active(self) -> None:
        if self.state != ACTIVE:
            raise JetError(Err.NotInTransaction, f"the transaction is {self.state}")

    def _open(self, tree: Tree) -> dict[bytes, Entry]:
        self._check_active()
        if self.read_only:
            raise JetError(Err.TransReadOnly)
        self._home.check_writable(tree)
        assert tree not in self.dropped, "a write to a tree that this transaction dropped"
        own: dict[bytes, Entry] = {}
        self.writes[tree] = own
        return own

    def own_keys(self, tree: Tree, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[bytes]:
        """The keys this transaction has written, in order."""
        own = self.writes.get(tree)
        if not own:
            return []
        order = self._orders.get(tree)
        if order is None:
            order = self._orders[tree] = SortedKeys(own)
        return order.run(low, high, reverse, limit)

    def _write(self, tree: Tree, own: dict[bytes, Entry], key: bytes, old: Entry | _Missing, new: Entry, weight: int) -> None:
        self._left -= weight
        if self._left < 0:
            self._charge()
        if self._savepoints:
            self._undo.append((tree, key, old))
        own[key] = new
        if self._orders and isinstance(old, _Missing) and tree in self._orders:
            self._orders[tree].added([key])

    def _charge(self) -> None:
        """Takes more of the store's allowance for write sets and versions."""
        usage = self._usage
        needed = -self._left
        more = max(needed, min(CHARGE_BYTES, usage.limit - usage.used))
        if usage.used + more > usage.limit:
            self._left = 0
            raise JetError(Err.VersionStoreOutOfMemory, f"{usage.used >> 20} MiB of uncommitted and recent changes are held")
        usage.used += more
        self._charged += more
        self._left += more

    def _release_schemas(self, down_to: int, committed: int) -> None:
        while len(self.schema_held) > down_to:
            tree, exclusive = self.schema_held.pop()
            self._home.schema_locks.release(tree, self, exclusive, committed)
