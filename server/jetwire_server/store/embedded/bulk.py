"""Trees that no committed row names: built beside the timeline, without locks and versions, in bounded memory.

An unpublished tree streams to the log and the pages; a scratch tree to a file that is deleted at the next start. Nobody
but their owner knows them, so they are read from the newest pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.store.embedded.layout import tree_prefix
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.embedded.view import View
from jetwire_server.store.interface import Row, Tree, tree_number, tree_slot
from jetwire_server.store.transaction import StoreTransaction

CHUNK_ROWS = 2_000
CHUNK_BYTES = 1 << 20


class Sink(Protocol):
    """Where a tree's chunks go."""

    files: dict[int, PageFile]  # by slot

    async def write_chunk(self, tree: Tree, rows: dict[bytes, bytes | None]) -> None: ...
    async def free_tree(self, tree: Tree) -> None: ...


class BulkTree:
    """See `interface.UnpublishedTree`."""

    def __init__(self, sink: Sink, tree: Tree, file: PageFile) -> None:
        self._sink = sink
        self._tree = tree
        self._file = file
        self._prefix = tree_prefix(tree_number(tree))
        self._view: View | None = None
        self._owner: StoreTransaction | None = None
        self._freed = False

    @property
    def tree(self) -> Tree:
        return self._tree

    async def put_many(self, rows: Iterable[Row]) -> None:
        chunk: dict[bytes, bytes | None] = {}
        weight = 0
        for key, value in rows:
            if len(key) > limits.TREE_KEY_BYTES_MAX:
                raise JetError(Err.KeyTooBig, f"{len(key)} bytes; the store takes {limits.TREE_KEY_BYTES_MAX}")
            chunk[key] = value
            weight += len(key) + len(value)
            if len(chunk) >= CHUNK_ROWS or weight >= CHUNK_BYTES:
                await self._write(chunk)
                chunk, weight = {}, 0
        await self._write(chunk)

    async def delete_many(self, keys: Iterable[bytes]) -> None:
        chunk: dict[bytes, bytes | None] = {}
        for key in keys:
            chunk[key] = None
            if len(chunk) >= CHUNK_ROWS:
                await self._write(chunk)
                chunk = {}
        await self._write(chunk)

    async def get(self, key: bytes) -> bytes | None:
        return self.get_now(key)

    async def scan(self, low: bytes | None = None, high: bytes | None = None, *, reverse: bool = False, limit: int = 1000) -> list[Row]:
        return self.chunk(low, high, reverse, limit)

    async def free(self) -> None:
        if self._owner is None and not self._freed:
            self._freed = True
            self._refresh()
            if self._sink.files.get(tree_slot(self._tree)) is self._file:  # else a tree of this number is another database's
                await self._sink.free_tree(self._tree)

    # -- as the transaction that adopted it sees it -----------------------------------------------------------
    def get_now(self, key: bytes) -> bytes | None:
        return None if self._freed else self._newest().get(self._prefix, key)

    def chunk(self, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]:
        return [] if self._freed else self._newest().chunk(self._prefix, low, high, reverse, limit)

    def adopted_by(self, transaction: StoreTransaction | None) -> None:
        assert not self._freed, "the tree was freed"
        self._owner = transaction

    def published(self) -> None:
        """Its commit was published: from now on it is read like any other tree."""
        self._refresh()

    # -- inside -----------------------------------------------------------------------------------------------
    async def _write(self, chunk: dict[bytes, bytes | None]) -> None:
        assert self._owner is None, "the tree was adopted: write to it in a transaction"
        if chunk:
            await self._sink.write_chunk(self._tree, chunk)
            self._refresh()

    def _newest(self) -> View:
        if self._view is None:
            self._view = self._file.view()
        return self._view

    def _refresh(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            view.close()
