"""The memory store: the timeline without pages. For tests and simulation, and the plainest account of the door."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import Clock
from jetwire_server.store.interface import FIRST_NEW_TREE, Commit, Fault, FileFacts, Report, Row, Tree, Watcher, tree_id, tree_slot
from jetwire_server.store.locks import KeyLocks, SchemaLocks
from jetwire_server.store.snapshots import Snapshots
from jetwire_server.store.sortedkeys import SortedKeys
from jetwire_server.store.timeline import NoPages, Timeline, Usage
from jetwire_server.store.transaction import StoreTransaction
from jetwire_server.store.watchers import Watchers
from jetwire_server.store.writeset import Entry

SCRATCH_SLOT = 0xFFFF


class MemoryStore:
    """One instance's storage, gone with the process. See `interface.Store`."""

    def __init__(self, clock: Clock, *, version_bytes_max: int = limits.VERSION_BYTES_MAX) -> None:
        self._clock = clock
        self.timeline = Timeline(Usage(version_bytes_max))
        self.key_locks = KeyLocks()
        self.schema_locks = SchemaLocks()
        self.current = NoPages()
        self._snapshots = Snapshots()
        self._watchers = Watchers()
        self._published = 0
        self._databases: dict[int, str] = {}
        self._detached: dict[str, int] = {}  # its trees stay in the timeline under the slot it had
        self._read_only: set[int] = set()
        self._reserved: dict[int, int] = {}  # there is no file: what was asked for is remembered
        self._next_tree: dict[int, int] = {}
        self._outdated: deque[tuple[int, Tree, list[bytes]]] = deque()  # commit, tree, keys with versions below it

    # -- life -------------------------------------------------------------------------------------------------
    async def start(self, *, without_missing: bool = False, without_lost_end: bool = False, truncate_log: bool = False) -> bool:
        return False

    async def stop(self, *, checkpoint: bool = True) -> None:
        return None

    # -- databases --------------------------------------------------------------------------------------------
    async def create_database(self, path: str, *, overwrite: bool = False, unfinished: bool = False) -> int:
        if path in self._databases.values():
            raise JetError(Err.DatabaseDuplicate, path)
        if path in self._detached and not overwrite:
            raise JetError(Err.DatabaseDuplicate, path)
        self._give_up(path)
        slot = self._free_slot()
        self._databases[slot] = path
        self._next_tree[slot] = FIRST_NEW_TREE
        return slot

    async def attach_database(self, path: str, *, read_only: bool = False, borrowed: bool = False) -> int:
        if path in self._databases.values():
            return next(slot for slot, other in self._databases.items() if other == path)
        if path not in self._detached:
            raise JetError(Err.FileNotFound, path)
        slot = self._detached.pop(path)
        self._databases[slot] = path
        if read_only:
            self._read_only.add(slot)
        return slot

    async def detach_database(self, slot: int, *, remove: bool = False) -> None:
        if slot not in self._databases:
            raise JetError(Err.InvalidDatabaseId, f"slot {slot}")
        path = self._databases.pop(slot)
        self._watchers.leave(slot)
        self._detached[path] = slot
        if remove:
            self._give_up(path)
        self._read_only.discard(slot)

    def _give_up(self, path: str) -> None:
        """A detached database has no name any more; its slot is not given again, because of what the timeline has there."""
        slot = self._detached.pop(path, None)
        if slot is not None:
            self._detached[f"\0{slot}"] = slot

    def databases(self) -> dict[int, str]:
        return dict(self._databases)

    def read_only(self) -> set[int]:
        return set(self._read_only)

    def unfinished(self) -> list[int]:
        return []  # nothing outlasts a crash here

    borrowed = unfinished

    async def scrub(self, pause_seconds: float) -> list[Fault]:
        return []

    def _free_slot(self) -> int:
        if len(self._databases) >= limits.DATABASES_PER_INSTANCE_MAX:
            raise JetError(Err.TooManyAttachedDatabases)
        slot = 1
        while slot in self._databases or slot in self._detached.values():
            slot += 1
        return slot

    # -- transactions -----------------------------------------------------------------------------------------
    async def begin(self, *, read_only: bool = False) -> StoreTransaction:
        self._snapshots.opened(self._published)
        return StoreTransaction(self, self.current, self._published, read_only)

    async def flush(self) -> Commit:
        return self.nothing_to_commit()

    def nothing_to_commit(self) -> Commit:
        return Commit(0, None, self._clock.now())

    def check_writable(self, tree: Tree) -> None:
        slot = tree_slot(tree)
        if slot not in self._databases:
            raise JetError(Err.InvalidDatabaseId, f"slot {slot} is not attached")
        if slot in self._read_only:
            raise JetError(Err.DatabaseFileReadOnly, self._databases[slot])

    def allocate_tree(self, slot: int) -> Tree:
        number = self._next_tree.get(slot)
        if number is None:
            raise JetError(Err.InvalidDatabaseId, f"slot {slot}")
        self._next_tree[slot] = number + 1
        return tree_id(slot, number)

    def begin_now(self) -> StoreTransaction:
        self._snapshots.opened(self._published)
        return StoreTransaction(self, self.current, self._published, False)

    def stroke(self) -> None:
        return None

    def newest(self, tree: Tree, key: bytes) -> tuple[bytes | None, bool]:
        return self.timeline.newest(tree, key, self.current), False

    def newest_rows(self, tree: Tree, low: bytes, high: bytes | None, limit: int) -> tuple[list[Row], int]:
        txn = self.begin_now()
        try:
            return txn.rows(tree, low, high, False, limit), 0
        finally:
            txn.rollback_now()

    @property
    def published(self) -> int:
        return self._published

    def unchanged(self, since: int) -> bool:
        return since == self._published

    def watcher_of(self, tree: Tree) -> Watcher | None:
        return self._watchers.by_tree.get(tree)

    def watch(self, tree: Tree, watcher: Watcher) -> None:
        self._watchers.add(tree, watcher)

    def crowded(self, rows: int) -> bool:
        return False

    async def relief(self, rows: int) -> None:
        """Nothing moves out of memory."""

    def seal(self, transaction: StoreTransaction, lazy: bool, report: Report) -> None:
        asyncio.get_running_loop().call_soon(report, self._seal(transaction))

    def _seal(self, transaction: StoreTransaction) -> Commit:
        number = self._published + 1
        writes = dict(transaction.writes)
        for tree, unpublished in transaction.adopted.items():  # one version a key: what was written over goes
            rows: dict[bytes, Entry] = dict(unpublished.chunk(None, None, False, 1 << 62))
            writes[tree] = rows | writes.get(tree, {})
        for tree, entries in writes.items():
            again = self.timeline.publish(number, tree, entries, self.current)
            gone = [key for key, entry in entries.items() if entry is None]
            if again or gone:
                self._outdated.append((number, tree, again + gone))
        for tree in transaction.dropped:
            self.timeline.tree(tree).dropped = number
            self._outdated.append((number, tree, []))
        self._published = number
        self._watchers.tell(transaction.writes)
        self._watchers.remove([*transaction.dropped, *transaction.adopted])
        written = sum(map(len, transaction.writes.values()))
        transaction.release(number)
        return Commit(number, None, self._clock.now(), written)

    def ended(self, transaction: StoreTransaction) -> None:
        """Forgets the snapshot, and what only it could read."""
        self._snapshots.closed(transaction.snapshot)
        oldest = self._snapshots.oldest(self._published)
        while self._outdated and self._outdated[0][0] <= oldest:
            _, tree, keys = self._outdated.popleft()
            found = self.timeline.trees.get(tree)
            if found is None:
                continue
            if found.dropped and found.dropped <= oldest:
                self.timeline.forget(tree)
            else:
                kept = self.timeline.trim(tree, keys, None, self._snapshots.all())
                if kept and self._snapshots.any_open():
                    self._outdated.append((self._published, tree, kept))

    # -- trees beside the timeline ----------------------------------------------------------------------------
    async def new_unpublished(self, slot: int) -> MemoryTree:
        return MemoryTree(self.allocate_tree(slot))

    async def new_scratch(self) -> MemoryTree:
        number = self._next_tree.get(SCRATCH_SLOT, FIRST_NEW_TREE)
        self._next_tree[SCRATCH_SLOT] = number + 1
        return MemoryTree(tree_id(SCRATCH_SLOT, number))

    # -- the rest ---------------------------------------------------------------------------------------------
    async def checkpoint(self) -> None:
        return None

    async def count(self, tree: Tree) -> int:
        found = self.timeline.trees.get(tree)
        if found is None or found.dropped:
            return 0
        return sum(1 for version in found.versions.values() if version[1] is not None)

    @property
    def signature(self) -> bytes:
        return b"memory"

    @property
    def frozen(self) -> bool:
        return False

    def fullness(self) -> float:
        return self.timeline.usage.used / self.timeline.usage.limit

    def database_bytes(self, slot: int) -> int:
        return 0

    def space_bytes(self, slot: int) -> int:
        return self._reserved.get(slot, 0)

    async def reserve_space(self, slot: int, size: int) -> None:
        self._reserved[slot] = size

    def file_facts(self, path: str) -> FileFacts:
        if path not in self._detached and path not in self._databases.values():
            raise JetError(Err.FileNotFound, path)
        return FileFacts(0, 0, "database", b"")

    def version_bytes(self) -> int:
        return self.timeline.bytes

    def unsaved_bytes(self) -> int:
        return 0

    def locks_held(self) -> int:
        return len(self.key_locks)

    def problems(self) -> Sequence[str]:
        return ()


class MemoryTree:
    """An unpublished or scratch tree in memory. See `interface.UnpublishedTree`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._rows: dict[bytes, bytes] = {}
        self._keys = SortedKeys(self._rows)
        self._owner: StoreTransaction | None = None

    @property
    def tree(self) -> Tree:
        return self._tree

    async def put_many(self, rows: Iterable[Row]) -> None:
        assert self._owner is None, "the tree was adopted"
        for i, (key, value) in enumerate(rows):
            if len(key) > limits.TREE_KEY_BYTES_MAX:
                raise JetError(Err.KeyTooBig, f"{len(key)} bytes")
            self._rows[key] = value
            if i % 1000 == 999:
                await asyncio.sleep(0)
        self._keys.forget()

    async def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    async def delete_many(self, keys: Iterable[bytes]) -> None:
        assert self._owner is None, "the tree was adopted"
        for key in keys:
            self._rows.pop(key, None)
        self._keys.forget()

    async def scan(self, low: bytes | None = None, high: bytes | None = None, *, reverse: bool = False, limit: int = 1000) -> list[Row]:
        return self.chunk(low, high, reverse, limit)

    async def free(self) -> None:
        if self._owner is None:
            self._rows.clear()
            self._keys.forget()

    # -- as the transaction that adopted it sees it -----------------------------------------------------------
    def get_now(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def chunk(self, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]:
        rows = self._rows
        return [(key, rows[key]) for key in self._keys.run(low, high, reverse, limit)]

    def published(self) -> None:
        return None

    def adopted_by(self, transaction: StoreTransaction | None) -> None:
        self._owner = transaction
