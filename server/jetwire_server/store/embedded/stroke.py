"""A stroke: writes that begin and are handed to the log in one breath.

Nothing comes between its first write and its commit, so it needs no snapshot, no save point, and no lock before it is handed
over: what it looks at is the newest state, and is still the newest when it commits. From then on it holds its keys as every
commit does, until it is published. It is what the log reports to, too: one object instead of three.

A stroke may go on top of commits that are on their way to the log: its record comes behind theirs, and nobody has seen anything
of it yet, so it is as if it had come a moment later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.records import Kind
from jetwire_server.store.embedded.changes import CommitRecord
from jetwire_server.store.embedded.journal import Pending
from jetwire_server.store.embedded.published import Published
from jetwire_server.store.embedded.publishing import LARGE_ROWS
from jetwire_server.store.interface import Report, Tree
from jetwire_server.store.locks import Owner, Sharing
from jetwire_server.store.timeline import VERSION_OVERHEAD_BYTES
from jetwire_server.store.transaction import StoreTransaction

if TYPE_CHECKING:
    from jetwire_server.store.embedded.store import EmbeddedStore

_ABSENT: Any = object()


class Stroke(Pending):
    """See `interface.Stroke` for the public half."""

    __slots__ = ("_below", "_schema", "_weight", "from_pages", "looked_at", "succeeded", "writes")

    def __init__(self, store: EmbeddedStore) -> None:
        self.store = store
        self.writes: dict[Tree, dict[bytes, Any]] = {}
        self.looked_at = self.from_pages = 0
        self.succeeded = False  # a later stroke holds a key that this one has written
        self._below: tuple[tuple[Tree, bytes, Owner], ...] = ()  # what this one goes on top of

    # -- before it is handed over -----------------------------------------------------------------------------
    def value(self, tree: Tree, key: bytes) -> bytes | None:
        table = self.store.key_locks.trees.get(tree)
        holder = table.get(key) if table else None
        if holder is None:
            self.looked_at += 1
            return self._newest(tree, key)
        writes = _on_its_way(holder)
        value = writes[tree].get(key) if writes and tree in writes else None
        if type(value) is not bytes:
            raise JetError(Err.WriteConflict, "another session holds the key")
        self._below += ((tree, key, holder),)
        return value

    def insert(self, tree: Tree, key: bytes, value: bytes) -> None:
        own = self.writes.get(tree)
        if own is None:
            own = self._open(tree)
        old = own.get(key, _ABSENT)
        if old is _ABSENT:
            self._check(tree, key, Err.KeyDuplicate)
            old = self._newest(tree, key)
        if old is not None:
            raise JetError(Err.KeyDuplicate)
        own[key] = value

    def put(self, tree: Tree, key: bytes, value: bytes) -> None:
        self._set(tree, key, value)

    def delete(self, tree: Tree, key: bytes) -> None:
        self._set(tree, key, None)

    def commit(self, schema: Tree, told: Report, *, lazy: bool = False) -> bool:
        store, usage = self.store, self.store.timeline.usage
        rows = 0
        for own in self.writes.values():
            rows += len(own)
        if store.timeline.bytes > usage.slow or usage.used > usage.limit or rows > LARGE_ROWS:
            return False
        if not store.schema_locks.take(schema, self, store.published, False):
            return False
        self._schema, self.told, self.written = schema, told, rows
        self.number, self.time = store.next_number, store.clock.now()
        try:
            store.hand_over(Kind.COMMIT, CommitRecord(self.writes), self, durable=not lazy)
        except BaseException:
            store.schema_locks.release(schema, self, False)
            raise
        for tree, own in self.writes.items():
            table = store.key_locks.of(tree)
            for key in own:
                table[key] = self
        for _, _, holder in self._below:
            holder.succeeded = True
        self._below = ()  # else each would keep the one before it in memory, and so on
        self._weight = self.bytes + VERSION_OVERHEAD_BYTES * rows
        usage.used += self._weight
        return True

    # -- the log's answer -------------------------------------------------------------------------------------
    def publish(self, placed: Placed) -> None:
        self.store.publish(Published(self.number, placed, self.writes))
        self._let_go(self.number)

    def fail(self, error: JetError) -> None:
        self._let_go(0)
        self.told(error)

    # -- inside -----------------------------------------------------------------------------------------------
    def _open(self, tree: Tree) -> dict[bytes, Any]:
        self.store.check_writable(tree)
        own: dict[bytes, Any] = {}
        self.writes[tree] = own
        return own

    def _set(self, tree: Tree, key: bytes, value: bytes | None) -> None:
        own = self.writes.get(tree)
        if own is None:
            own = self._open(tree)
        if key not in own:
            self._check(tree, key, Err.WriteConflict, self._below)
        own[key] = value

    def _check(self, tree: Tree, key: bytes, code: Err, below: tuple[tuple[Tree, bytes, Owner], ...] = ()) -> None:
        """Whether the key may be written: nobody holds it, or only what this goes on top of."""
        if len(key) > limits.TREE_KEY_BYTES_MAX:
            raise JetError(Err.KeyTooBig, f"{len(key)} bytes; the store takes {limits.TREE_KEY_BYTES_MAX}")
        table = self.store.key_locks.trees.get(tree)
        if table and key in table and not any(one[:2] == (tree, key) for one in below):
            raise JetError(code, "another session holds the key")

    def _newest(self, tree: Tree, key: bytes) -> bytes | None:
        value, from_pages = self.store.newest(tree, key)
        self.from_pages += from_pages
        return value

    def _let_go(self, committed: int) -> None:
        store = self.store
        for tree, own in self.writes.items():
            store.key_locks.release(tree, own, self)
        store.schema_locks.release(self._schema, self, False, committed)
        store.timeline.usage.used -= self._weight


def _on_its_way(holder: Owner | Sharing) -> Mapping[Tree, Mapping[bytes, Any]] | None:
    """What a holder writes whose record the log has: it will be published, or nothing that comes after it."""
    if type(holder) is Stroke or (type(holder) is StoreTransaction and holder.in_log):
        return holder.writes
    return None
