"""What a transaction asks of the store it belongs to, and of trees that were built beside the timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jetwire_server.store.interface import Commit, Report, Row, Tree, UnpublishedTree
from jetwire_server.store.locks import KeyLocks, SchemaLocks
from jetwire_server.store.timeline import Base, Timeline

if TYPE_CHECKING:
    from jetwire_server.store.transaction import StoreTransaction


class Home(Protocol):
    """What a transaction asks of its store."""

    timeline: Timeline
    key_locks: KeyLocks
    schema_locks: SchemaLocks

    @property
    def current(self) -> Base:
        """The newest pages."""
        ...

    def check_writable(self, tree: Tree) -> None: ...
    def allocate_tree(self, slot: int) -> Tree: ...
    def nothing_to_commit(self) -> Commit: ...
    def ended(self, transaction: StoreTransaction) -> None:
        """The transaction holds nothing any more: its snapshot may be forgotten."""
        ...

    def crowded(self, rows: int) -> bool:
        """Whether a commit of so many rows should wait for `relief`; of none: whether even a small one should."""
        ...

    async def relief(self, rows: int) -> None: ...
    def seal(self, transaction: StoreTransaction, lazy: bool, report: Report) -> None:
        """Logs and publishes the write set, and calls `release(number)` at the publishing. Never reports before it has returned."""
        ...


async def relieved(home: Home, transaction: StoreTransaction, rows: int) -> None:
    """Waits until a commit of so many rows may go on. A transaction that does not wait it out is over."""
    try:
        await home.relief(rows)
    except BaseException:
        transaction.release(0)
        raise


class AdoptableTree(UnpublishedTree, Protocol):
    """An unpublished tree, as the transaction that named it reads it."""

    def get_now(self, key: bytes) -> bytes | None: ...
    def chunk(self, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]: ...
    def published(self) -> None:
        """The commit that names it is about to be visible."""
        ...

    def adopted_by(self, transaction: StoreTransaction | None) -> None:
        """Named by a transaction (None: no longer, it was rolled back)."""
        ...
