"""The databases of one instance: which page file is attached in which slot, and what must hold before and after.

Coming and going are log records. Detaching checkpoints the database whole first, so a detached file needs no log, and
any instance may attach it. The checkpoint file names what is attached where recovery begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.failpoints import hit
from jetwire_server.files.interface import Files
from jetwire_server.redo.position import Position
from jetwire_server.redo.records import Kind
from jetwire_server.store.embedded import changes
from jetwire_server.store.embedded.comings import Coming, Going
from jetwire_server.store.embedded.contents import ATTACHED, CONDEMNED, CREATING, DETACHED, FORMAT, OPEN, UNFINISHED, CheckpointFile, Head
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.interface import FIRST_NEW_TREE, Tree, tree_id, tree_number, tree_slot

if TYPE_CHECKING:
    from jetwire_server.store.embedded.store import EmbeddedStore


class Databases:
    """Owned by the store; shares its `files` with the checkpoint."""

    def __init__(self, store: EmbeddedStore, files: Files) -> None:
        self._store = store
        self.page_files = files
        self.files: dict[int, PageFile] = {}
        self._next_tree: dict[int, int] = {}
        self.leaving: set[int] = set()
        self._coming: dict[int, str] = {}  # slot and path of what is not logged yet

    # -- coming and going -------------------------------------------------------------------------------------
    async def create(self, path: str, overwrite: bool, unfinished: bool) -> int:
        slot = self._free_slot(path)
        if self.page_files.exists(path) and not overwrite and not self._is_orphan(path):
            raise JetError(Err.DatabaseDuplicate, f"{path} exists", path=path)
        store = self._store
        log, signature, now = store.journal, store.random_bytes(16), store.clock.now()
        state = UNFINISHED if unfinished else CREATING
        head = Head(FORMAT, signature, log.signature, log.incarnation, (0, 0, 0), 0, FIRST_NEW_TREE, state, now)
        self._coming[slot] = path
        try:
            await self._enter(slot, await store.checkpointer.on_thread(partial(self._create_file, path, head)))
        finally:
            del self._coming[slot]
        return slot

    async def attach(self, path: str, read_only: bool, borrowed: bool) -> int:
        for slot, file in self.files.items():
            if file.path == path:
                return slot
        slot = self._free_slot(path)
        self._coming[slot] = path
        try:
            await self._store.checkpointer.on_thread(partial(PageFile.look, self.page_files, path))
            file = PageFile.open(self.page_files, path, read_only=read_only)
            if file.head.state != DETACHED:
                file.close()
                what = f"{path} was not detached: start the instance it belongs to, or restore it from a backup"
                raise JetError(Err.DatabaseDirtyShutdown, what, path=path)
            file.borrowed = borrowed
            await self._enter(slot, file)
        finally:
            del self._coming[slot]
        self.free_leftovers(slot, set())
        return slot

    async def _enter(self, slot: int, file: PageFile) -> None:
        """Logs the coming, durably; from its publishing on everybody sees the database."""
        store = self._store
        store.next_number = max(store.next_number, file.head.number + 1)
        record = changes.AttachRecord(slot, file.path, file.head.signature, file.head.number, file.read_only, file.borrowed)
        pending = Coming(store, store.next_number, store.clock.now(), slot, file)
        try:
            store.hand_over(Kind.ATTACH_DATABASE, record, pending, durable=True)
        except BaseException:
            file.close()
            raise
        await pending.done
        if pending.marking is not None:
            await asyncio.shield(pending.marking)

    def entered(self, slot: int, file: PageFile) -> None:
        """The database is part of the instance: also recovery's way in."""
        self.files[slot] = file
        self._next_tree[slot] = file.head.next_tree
        self._store.generations.attach(slot, file)

    async def detach(self, slot: int, *, remove: bool = False) -> None:
        file = self.files.get(slot)
        if file is None or slot in self.leaving:
            raise JetError(Err.InvalidDatabaseId, f"slot {slot}")
        store = self._store
        self.leaving.add(slot)
        try:
            await store.flush()
            await store.checkpoint()
            pending = Going(store, store.next_number, store.clock.now(), slot, remove)
            store.hand_over(Kind.DETACH_DATABASE, changes.DetachRecord(slot, remove), pending, durable=True)
            await pending.done
            if pending.closing is not None:
                await asyncio.shield(pending.closing)
        finally:
            self.leaving.discard(slot)

    def left(self, slot: int) -> PageFile | None:
        """The database is no part of the instance any more. Its file is closed by whoever knows that nobody uses it."""
        self._store.generations.detach(slot)
        self._store.timeline.leave(slot)
        self._store.checkpointer.leave(slot)
        self._store.watchers.leave(slot)
        self._next_tree.pop(slot, None)
        return self.files.pop(slot, None)

    def release(self, file: PageFile, head: Head) -> None:
        """On the pages thread, behind all that uses the file: marks it as whole without its log, and closes it."""
        hit("databases.before_release")
        if not file.read_only:
            head.state = DETACHED
            self._store.checkpointer.apply(file, [], head=head)
        file.close()

    def remove(self, file: PageFile) -> None:
        """The same, for a file that nobody wants. Where it cannot be removed it stays, as any leftover would."""
        hit("databases.before_remove")
        file.close()
        with suppress(JetError), self._store.gate.permit("remove database"):
            for name in (file.path + "-lock", file.path):
                if self.page_files.exists(name):
                    self.page_files.remove(name)
            self.page_files.sync_directory(file.path.rpartition("/")[0])

    # -- on the pages thread ----------------------------------------------------------------------------------
    def _create_file(self, path: str, head: Head) -> PageFile:
        with self._store.gate.permit("create database"):
            directory = path.rpartition("/")[0]
            if directory:
                self.page_files.make_directory(directory)
            return PageFile.create(self.page_files, path, head)

    def _mark(self, slot: int, state: int) -> None:
        file = self.files[slot]
        head = self.head_at(slot, file.head.number, Position(*file.head.position))
        head.state = state
        self._store.checkpointer.apply(file, [], head=head)

    def checkpoint_file_writer(self, position: Position, number: int) -> Callable[[], None]:
        """What makes recovery begin at `position` from now on: for the pages thread, after a round."""
        attached = [
            (slot, file.path, file.head.signature, file.read_only)
            for slot, file in sorted(self.files.items())
            if slot in self._next_tree and (file.read_only or file.head.number >= number)  # who came later comes by the log
        ]
        content = CheckpointFile(attached, number, [slot for slot, *_ in attached if self.files[slot].borrowed])
        return partial(self._write_checkpoint_file, position, msgspec.msgpack.encode(content))

    def _write_checkpoint_file(self, position: Position, content: bytes) -> None:
        with self._store.gate.permit("checkpoint file"):
            self._store.journal.save_checkpoint(position, content)
            if self._store.circular:
                self._store.journal.truncate_before(position)

    # -- what is known ----------------------------------------------------------------------------------------
    def head_at(self, slot: int, number: int, position: Position) -> Head:
        """The head of a database whose pages hold everything up to a commit."""
        before = self.files[slot].head
        journal = self._store.journal
        return Head(
            FORMAT,
            before.signature,
            journal.signature,
            journal.incarnation,
            (position.generation, position.sector, position.byte),
            number,
            self._next_tree.get(slot, before.next_tree),
            UNFINISHED if before.state == UNFINISHED else ATTACHED,
            before.created,
            before.ahead if before.ahead > number else 0,
        )

    async def mark(self, state: int) -> None:
        """At a clean stop, when the pages hold everything, the files could go elsewhere; after a start no longer."""
        for slot, file in self.files.items():
            if file.head.state not in (state, UNFINISHED) and not file.read_only:
                await self._store.checkpointer.on_thread(partial(self._mark, slot, state))

    def allocate_tree(self, slot: int) -> Tree:
        number = self._next_tree.get(slot)
        if number is None:
            raise JetError(Err.InvalidDatabaseId, f"slot {slot} is not attached")
        self._next_tree[slot] = number + 1
        return tree_id(slot, number)

    def tree_is_used(self, tree: Tree) -> None:
        """A log record named this tree: its number is never given again."""
        slot = tree_slot(tree)
        if slot in self._next_tree:
            self._next_tree[slot] = max(self._next_tree[slot], tree_number(tree) + 1)

    def free_leftovers(self, slot: int, named: set[Tree]) -> None:
        """Frees what an earlier life dropped, or built and never named."""
        file = self.files[slot]
        if file.read_only:
            return
        view = file.view()
        try:
            for kind in (CONDEMNED, OPEN):
                for number in view.noted(kind):
                    tree = tree_id(slot, number)
                    self.tree_is_used(tree)
                    if kind == CONDEMNED or tree not in named:
                        self._store.checkpointer.condemn(tree)
        finally:
            view.close()

    def close(self) -> None:
        files = list(self.files.values())
        self.files.clear()  # first: nobody is to find one that is being closed
        for file in files:
            file.close()

    def _free_slot(self, path: str) -> int:
        if path in self._coming.values() or any(file.path == path for file in self.files.values()):
            raise JetError(Err.DatabaseDuplicate, f"{path} is attached", path=path)
        for slot in range(1, limits.DATABASES_PER_INSTANCE_MAX + 1):
            if slot not in self.files and slot not in self._coming and slot not in self.leaving:
                return slot
        raise JetError(Err.TooManyAttachedDatabases, f"an instance takes {limits.DATABASES_PER_INSTANCE_MAX}")

    def _is_orphan(self, path: str) -> bool:
        """A file that was made, but whose making never reached the log, or never came to its end."""
        try:
            file = PageFile.open(self.page_files, path, read_only=True)
        except JetError:
            return False
        try:
            return file.head.state in (CREATING, UNFINISHED)
        finally:
            file.close()
