"""What the store asks of the log, and what it hands over to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from jetwire_protocol.errors import Err, JetError
from jetwire_server.redo.position import Position
from jetwire_server.store.embedded.checkpoint import Published
from jetwire_server.store.interface import Commit, Tree
from jetwire_server.store.transaction import StoreTransaction

if TYPE_CHECKING:
    from jetwire_server.store.embedded.store import EmbeddedStore


class Journal(Protocol):
    """One instance's log."""

    signature: bytes
    incarnation: int

    def append(self, kind: int, payload: bytes, pending: Pending, *, durable: bool) -> None:
        """Hands a record over. `pending.publish` is called on the loop, in log order: after the sync of its batch if
        anything in the batch is durable, else after the append. `pending.fail` if that cannot be promised."""
        ...

    async def flush(self) -> Position | None:
        """Everything handed over so far is durable, and published, after this."""
        ...

    def read_checkpoint(self) -> tuple[Position | None, bytes]:
        """What `write_checkpoint` wrote last; (None, b"") if nothing was."""
        ...

    def write_checkpoint(self, position: Position, content: bytes) -> None:
        """Durable and whole, or as it was; recovery begins at the record there. Any thread."""
        ...

    def records(self, start: Position | None) -> Iterator[tuple[int, bytes, Position]]:
        """Kind, payload and position of every record from the one at `start` on; reads only."""
        ...

    async def open(self) -> None:
        """After `records` was read to its end: cuts a torn tail, syncs what was read, and takes new records."""
        ...

    async def close(self) -> None: ...


class Pending:
    """A record between the hand-over to the log and its publishing. Whoever waits for it may be cancelled; it goes on."""

    __slots__ = ("done", "number", "store", "time")

    def __init__(self, store: EmbeddedStore, number: int, time: float) -> None:
        self.store = store
        self.number = number
        self.time = time
        self.done: asyncio.Future[Commit] = asyncio.get_running_loop().create_future()

    def publish(self, position: Position) -> None:
        """On the event loop, in log order: what the record says becomes visible."""
        self.store.published = self.number
        self.store.checkpointer.note(Published(self.number, position))
        self.finish(position)

    def finish(self, position: Position) -> None:
        if not self.done.done():
            self.done.set_result(Commit(self.number, position, self.time))

    def fail(self, reason: str) -> None:
        """The log could not promise the record: what became of it is not known before the next start."""
        if not self.done.done():
            self.done.set_exception(JetError(Err.InstanceUnavailable, reason))
            self.done.exception()  # somebody may have been cancelled, and nobody be waiting


class PendingCommit(Pending):
    """A transaction's commit."""

    __slots__ = ("transaction",)

    def __init__(self, store: EmbeddedStore, number: int, time: float, transaction: StoreTransaction) -> None:
        super().__init__(store, number, time)
        self.transaction = transaction

    def publish(self, position: Position) -> None:
        store, transaction = self.store, self.transaction
        adopted = list(transaction.adopted)
        for tree in transaction.adopted.values():
            tree.published()
        dropped = list(transaction.dropped)
        store.publish(Published(self.number, position, writes=transaction.writes, adopted=adopted, dropped=dropped))
        transaction.release(self.number)
        self.finish(position)

    def fail(self, reason: str) -> None:
        self.transaction.release(0)
        super().fail(reason)


class PendingChunk(Pending):
    """Rows of a tree that nobody knows yet: they go to the pages at once."""

    __slots__ = ("rows", "tree", "writing")

    def __init__(self, store: EmbeddedStore, number: int, time: float, tree: Tree, rows: dict[bytes, bytes | None]) -> None:
        super().__init__(store, number, time)
        self.tree = tree
        self.rows = rows
        self.writing: asyncio.Future[Any] | None = None

    def publish(self, position: Position) -> None:
        store = self.store
        self.writing = store.write_to_pages(self.number, self.tree, self.rows)
        store.published = self.number
        weight = sum(len(key) + len(value or b"") for key, value in self.rows.items())  # of the log that recovery would read again
        store.checkpointer.note(Published(self.number, position, weight))
        self.finish(position)
