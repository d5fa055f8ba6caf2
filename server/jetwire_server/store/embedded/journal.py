"""What the store asks of the log, and what it hands over to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from jetwire_protocol.errors import Err, JetError
from jetwire_server.redo.checkpoint import Checkpoint
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.position import Position
from jetwire_server.redo.records import Record
from jetwire_server.redo.writer import Append, resolver
from jetwire_server.store.embedded.published import Published
from jetwire_server.store.embedded.publishing import LARGE_ROWS
from jetwire_server.store.interface import Commit, Tree
from jetwire_server.store.interface import Report as Told
from jetwire_server.store.transaction import StoreTransaction

if TYPE_CHECKING:
    from jetwire_server.store.embedded.store import EmbeddedStore


_make_commit = tuple.__new__  # half the time of the class's own


class Journal(Protocol):
    """The part of `redo.log.Log` that the store uses; see there."""

    @property
    def signature(self) -> bytes: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def end_was_lost(self) -> bool: ...
    def checkpoint(self) -> Checkpoint | None: ...
    def save_checkpoint(self, position: Position, body: bytes = b"") -> None: ...
    def create(self, signature: bytes, *, incarnation: int, body: bytes = b"") -> None: ...
    def open(self, start: Position | None = None, *, signature: bytes | None = None, end_is_lost: bool = False) -> bool: ...
    def records(self, start: Position | None = None) -> Iterator[Record]: ...
    def begin(self, *, incarnation: int | None = None) -> None: ...
    @property
    def append(self) -> Append: ...
    async def flush(self) -> Position: ...
    def truncate_before(self, position: Position) -> list[int]: ...
    async def close(self) -> None: ...


class Pending:
    """A record between the hand-over to the log and its publishing; the log reports to it, in its own order.

    `told` hears what becomes of it. Whoever waits for it may be cancelled; it goes on.
    """

    __slots__ = ("bytes", "number", "store", "time", "told", "written")

    def __init__(self, store: EmbeddedStore, number: int, time: float, told: Told) -> None:
        self.store = store
        self.number = number
        self.time = time
        self.told = told
        self.written = 0  # rows
        self.bytes = 0  # of the record

    def __call__(self, placed: Placed | JetError) -> None:
        """The log's answer. It waits its turn behind a large commit that is being published."""
        publishing = self.store.publishing
        if publishing.busy:
            publishing.wait(self, placed)
        elif isinstance(placed, JetError):
            self.fail(placed)
        else:
            try:
                self.publish(placed)
            except BaseException as error:
                self.broken(error)
                raise
            self.visible(placed)

    def broken(self, error: BaseException) -> None:
        """What is logged must be visible: an instance that cannot do that must not go on."""
        self.store.failed(error)
        self.fail(JetError(Err.InstanceUnavailable, str(error)))

    def visible(self, placed: Placed) -> None:
        self.told(_make_commit(Commit, (self.number, placed, self.time, self.written, self.bytes)))

    def publish(self, placed: Placed) -> None:
        """What the record says becomes visible."""
        self.store.published = self.number
        self.store.backlog.note(Published(self.number, placed, {}))

    def fail(self, error: JetError) -> None:
        """The log could not promise the record: what became of it is known after the next start."""
        self.told(error)


class Awaited(Pending):
    """One that a coroutine waits for."""

    __slots__ = ("done",)

    def __init__(self, store: EmbeddedStore, number: int, time: float) -> None:
        self.done: asyncio.Future[Commit] = asyncio.get_running_loop().create_future()
        super().__init__(store, number, time, resolver(self.done))


class PendingCommit(Pending):
    """A transaction's commit."""

    __slots__ = ("transaction",)

    def __init__(self, store: EmbeddedStore, number: int, time: float, transaction: StoreTransaction, told: Told) -> None:
        super().__init__(store, number, time, told)
        self.transaction = transaction
        self.written = transaction.rows_written

    def __call__(self, placed: Placed | JetError) -> None:
        publishing = self.store.publishing
        if self.written > LARGE_ROWS and not publishing.busy and not isinstance(placed, JetError):
            publishing.begin(self, placed)
        else:
            super().__call__(placed)

    def published(self, placed: Placed) -> Published:
        transaction = self.transaction
        for tree in transaction.adopted.values():
            tree.published()
        return Published(self.number, placed, transaction.writes, tuple(transaction.adopted), tuple(transaction.dropped))

    def publish(self, placed: Placed) -> None:
        self.store.publish(self.published(placed))
        self.transaction.release(self.number)

    def fail(self, error: JetError) -> None:
        self.transaction.release(0)
        self.told(error)


class PendingChunk(Awaited):
    """Rows of a tree that nobody knows yet: they go to the pages at once."""

    __slots__ = ("rows", "tree", "writing")

    def __init__(self, store: EmbeddedStore, number: int, time: float, tree: Tree, rows: dict[bytes, bytes | None]) -> None:
        super().__init__(store, number, time)
        self.tree = tree
        self.rows = rows
        self.writing: asyncio.Future[Any] | None = None

    def publish(self, placed: Placed) -> None:
        store = self.store
        self.writing = store.write_to_pages(self.number, self.tree, self.rows)
        store.published = self.number
        weight = sum(len(key) + len(value or b"") for key, value in self.rows.items())  # of the log that recovery would read again
        store.backlog.note(Published(self.number, placed, {}, weight=weight))
