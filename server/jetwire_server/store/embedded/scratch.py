"""The file of sorts and temporary trees: never logged, never synced, deleted at the next start."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from jetwire_protocol.errors import JetError
from jetwire_server.files.interface import Files
from jetwire_server.store.embedded.bulk import BulkTree
from jetwire_server.store.embedded.contents import ATTACHED, FORMAT, Head, chunk_group
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.interface import FIRST_NEW_TREE, Tree, tree_id, tree_number

SCRATCH_SLOT = 0xFFFF
_NAME = "scratch.tmp"
_CLEAR_ROWS = 5_000


class Scratch:
    """All scratch trees of one instance, in one file that is made when the first is asked for, and goes with the last.

    Where that is the only one, nothing is deleted row by row: the disk has its space back at once. It could not be had
    otherwise where the disk is full, since LMDB reuses what a transaction has freed in the next but one.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self.files: dict[int, PageFile] = {}  # the one there is, by its slot
        self._thread: ThreadPoolExecutor | None = None
        self._next = FIRST_NEW_TREE
        self._alive: set[Tree] = set()

    def clear(self) -> None:
        """Deletes what an earlier life left."""
        for name in (_NAME, _NAME + "-lock"):
            with suppress(JetError):
                if self._files.exists(name):
                    self._files.remove(name)

    def new_tree(self) -> BulkTree:
        file = self.files.get(SCRATCH_SLOT)
        if file is None:
            self._files.make_directory("")
            file = self.files[SCRATCH_SLOT] = PageFile.create(
                self._files, _NAME, Head(FORMAT, b"", b"", 0, (0, 0, 0), 0, 0, ATTACHED), scratch=True
            )
            self._thread = self._thread or ThreadPoolExecutor(1, "scratch")
        tree = tree_id(SCRATCH_SLOT, self._next)
        self._next += 1
        self._alive.add(tree)
        return BulkTree(self, tree, file)

    async def write_chunk(self, tree: Tree, rows: dict[bytes, bytes | None]) -> None:
        await self._run(self.files[SCRATCH_SLOT], tree, rows)

    async def _run(self, file: PageFile, tree: Tree, rows: dict[bytes, bytes | None]) -> None:
        work = partial(self._apply, file, tree, rows)
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    @staticmethod
    def _apply(file: PageFile, tree: Tree, rows: dict[bytes, bytes | None]) -> None:
        file.apply([chunk_group(tree_number(tree), 0, rows)])

    async def free_tree(self, tree: Tree) -> None:
        file = self.files[SCRATCH_SLOT]
        done = self._alive == {tree}
        try:
            while not done:
                work = partial(file.clear_some, tree_number(tree), _CLEAR_ROWS, ())
                done = await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))
        finally:
            self._alive.discard(tree)  # not sooner: the file must not go while it is being cleared
        if not self._alive:
            del self.files[SCRATCH_SLOT]
            self.clear()  # the name alone: a new file may want it at once
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, file.close))

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        for file in self.files.values():
            file.close()
        self.files.clear()
        self.clear()
