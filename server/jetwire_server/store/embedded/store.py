"""The embedded store: a timeline over page files, behind one log.

The road of a change: `seal` hands a record to the log; the log answers in its own order; `publish` puts the change on
the timeline, and only then is it reported; the checkpoint moves it into the pages. Recovery (`recovery`) takes the
records that the pages lack down the same road.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import Clock
from jetwire_server.files.gate import Gate
from jetwire_server.files.interface import Files
from jetwire_server.redo.records import Kind, encode_commit
from jetwire_server.store.embedded import changes, life
from jetwire_server.store.embedded.backlog import Backlog
from jetwire_server.store.embedded.bulk import BulkTree
from jetwire_server.store.embedded.check import scrub
from jetwire_server.store.embedded.checkpoint import Checkpoint
from jetwire_server.store.embedded.contents import OPEN, UNFINISHED, Group, chunk_group
from jetwire_server.store.embedded.counting import count_rows
from jetwire_server.store.embedded.databases import Databases
from jetwire_server.store.embedded.facts import facts_of
from jetwire_server.store.embedded.generations import Generation, Generations
from jetwire_server.store.embedded.journal import Journal, Pending, PendingChunk, PendingCommit
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.embedded.published import Published
from jetwire_server.store.embedded.publishing import Publishing
from jetwire_server.store.embedded.scratch import Scratch
from jetwire_server.store.embedded.stroke import Stroke
from jetwire_server.store.interface import SLOT_SHIFT, Commit, Fault, FileFacts, Report, Row, Tree, Watcher, tree_number, tree_slot
from jetwire_server.store.locks import KeyLocks, SchemaLocks
from jetwire_server.store.timeline import Timeline, Usage, value_in
from jetwire_server.store.transaction import StoreTransaction
from jetwire_server.store.watchers import Watchers

_COMMIT: Final = Kind.COMMIT


class EmbeddedStore:
    """One instance's storage. See `interface.Store`."""

    def __init__(
        self,
        journal: Journal,
        files: Files,
        scratch: Files,
        gate: Gate,
        clock: Clock,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
        circular: bool = False,
        version_bytes_max: int = limits.VERSION_BYTES_MAX,
    ) -> None:
        self.journal = journal
        self.random_bytes = random_bytes
        self.left_out: frozenset[str] = frozenset()  # databases that recovery takes for gone: others are restored without them
        self.circular = circular  # JET_paramCircularLog: log files that recovery does not need are removed
        self.gate = gate
        self.clock = clock
        self.timeline = Timeline(Usage(version_bytes_max))
        self.key_locks = KeyLocks()
        self.schema_locks = SchemaLocks()
        self.generations = Generations()
        self.attached: Databases = Databases(self, files)
        self.files = self.attached.files
        self.checkpointer = Checkpoint(self, gate)
        self.backlog: Backlog = self.checkpointer.backlog
        self.relief = self.checkpointer.relief
        self.publishing: Publishing = Publishing(self)
        self.watchers = Watchers()
        self.published: int = 0
        self.next_number: int = 1
        self.ending = False
        self.scratch = Scratch(scratch)
        self._problems: list[str] = []

    # -- life -------------------------------------------------------------------------------------------------
    async def start(self, *, without_missing: bool = False, without_lost_end: bool = False, truncate_log: bool = False) -> bool:
        return await life.start(self, without_missing, without_lost_end, truncate_log)

    async def stop(self, *, checkpoint: bool = True) -> None:
        await life.stop(self, checkpoint)

    def let_go(self) -> None:
        """It has ended. Whoever still holds it, by a session of then perhaps, is not to hold what was above the pages."""
        self.timeline.trees.clear()
        self.checkpointer.let_go()

    @property
    def signature(self) -> bytes:
        return self.journal.signature

    @property
    def frozen(self) -> bool:
        return self.gate.look()

    def fullness(self) -> float:
        return self.timeline.usage.used / self.timeline.usage.limit

    def database_bytes(self, slot: int) -> int:
        return self.files[slot].size()

    def space_bytes(self, slot: int) -> int:
        return self.files[slot].space()

    async def reserve_space(self, slot: int, size: int) -> None:
        self.check_available()
        await self.checkpointer.on_thread(partial(self._reserve_space, self.files[slot], size))

    def _reserve_space(self, file: PageFile, size: int) -> None:
        with self.gate.permit("sizes of databases"):
            file.reserve(size)

    def file_facts(self, path: str) -> FileFacts:
        return facts_of(self.attached.page_files, path)

    def version_bytes(self) -> int:
        return self.timeline.bytes

    def unsaved_bytes(self) -> int:
        return self.backlog.bytes

    def locks_held(self) -> int:
        return len(self.key_locks)

    def problems(self) -> Sequence[str]:
        if not self._problems and self.gate.latched:
            self._problems.append(self.gate.latched)
        return self._problems

    def failed(self, error: BaseException) -> None:
        """A write failed that must not: nothing is acknowledged any more until the instance was restarted."""
        self._problems.append(str(error))
        self.gate.latch(str(error))

    def check_available(self) -> None:
        if self._problems or self.gate.latched:
            raise JetError(Err.InstanceUnavailable, self.problems()[0])

    # -- databases --------------------------------------------------------------------------------------------
    async def create_database(self, path: str, *, overwrite: bool = False, unfinished: bool = False) -> int:
        self.check_available()
        return await self.attached.create(path, overwrite, unfinished)

    async def attach_database(self, path: str, *, read_only: bool = False, borrowed: bool = False) -> int:
        self.check_available()
        return await self.attached.attach(path, read_only, borrowed)

    async def detach_database(self, slot: int, *, remove: bool = False) -> None:
        self.check_available()
        await self.attached.detach(slot, remove=remove)

    def databases(self) -> dict[int, str]:
        return {slot: file.path for slot, file in sorted(self.files.items())}

    def read_only(self) -> set[int]:
        return {slot for slot, file in self.files.items() if file.read_only}

    def unfinished(self) -> list[int]:
        return [slot for slot, file in self.files.items() if file.head.state == UNFINISHED]

    def borrowed(self) -> list[int]:
        return [slot for slot, file in self.files.items() if file.borrowed]

    # -- transactions -----------------------------------------------------------------------------------------
    @property
    def current(self) -> Generation:
        return self.generations.alive[-1]

    @property
    def commits_waiting(self) -> int:
        """Records that the log has taken and not reported yet: while frozen, the commits that wait for the thaw."""
        return self.next_number - 1 - self.published

    async def begin(self, *, read_only: bool = False) -> StoreTransaction:
        return self.begin_now(read_only)

    def begin_now(self, read_only: bool = False) -> StoreTransaction:
        if self._problems or self.gate.latched:
            self.check_available()
        snapshot = self.published
        return StoreTransaction(self, self.generations.enter(snapshot), snapshot, read_only)

    def stroke(self) -> Stroke:
        if self._problems or self.gate.latched:
            self.check_available()
        return Stroke(self)

    def newest(self, tree: Tree, key: bytes) -> tuple[bytes | None, bool]:
        if self._problems or self.gate.latched:
            self.check_available()
        found = self.timeline.trees.get(tree)
        pages = self.generations.alive[-1]
        if found is not None:
            if found.dropped:
                return None, False
            version = found.versions.get(key)
            while version is not None and version[0] > self.published:
                version = version[2]  # of a large commit that is on its way
            if version is not None and version[0] > pages.base:
                return value_in(version, key), False
        return pages.get(tree, key), True

    def newest_rows(self, tree: Tree, low: bytes, high: bytes | None, limit: int) -> tuple[list[Row], int]:
        txn = self.begin_now(True)
        try:
            return txn.rows(tree, low, high, False, limit), txn.from_pages
        finally:
            txn.rollback_now()

    def unchanged(self, since: int) -> bool:
        return since == self.published and not self._problems and not self.gate.latched

    def watcher_of(self, tree: Tree) -> Watcher | None:
        if self._problems or self.gate.latched:
            self.check_available()
        return self.watchers.by_tree.get(tree)

    def watch(self, tree: Tree, watcher: Watcher) -> None:
        self.watchers.add(tree, watcher)

    def ended(self, transaction: StoreTransaction) -> None:
        generation = transaction.pages
        assert isinstance(generation, Generation)
        if self.generations.leave(generation, transaction.snapshot):
            self.checkpointer.old_snapshot_ended()

    def crowded(self, rows: int) -> bool:
        return self.backlog.crowded(rows)

    def check_writable(self, tree: Tree) -> None:
        slot = tree >> SLOT_SHIFT
        file = self.files.get(slot)
        if file is None or slot in self.attached.leaving:
            raise JetError(Err.InvalidDatabaseId, f"slot {slot} is not attached")
        if file.read_only:
            raise JetError(Err.DatabaseFileReadOnly, file.path)

    def allocate_tree(self, slot: int) -> Tree:
        return self.attached.allocate_tree(slot)

    def nothing_to_commit(self) -> Commit:
        return Commit(0, None, self.clock.now())

    def seal(self, transaction: StoreTransaction, lazy: bool, report: Report) -> None:
        self.check_available()
        undone = False
        for tree, own in transaction.writes.items():
            self.check_writable(tree)  # it may have been detached meanwhile
            undone = undone or not own
        if transaction.adopted and len(self.generations.alive) >= limits.PAGE_VIEWS_MAX // 2:
            raise JetError(Err.VersionStoreOutOfMemory, "too many old snapshots are open")
        if undone:
            # What was rolled back leaves trees without a write; the checkpoint would look for what they have on the timeline.
            transaction.writes = {tree: own for tree, own in transaction.writes.items() if own}
        pending = PendingCommit(self, self.next_number, self.clock.now(), transaction, report)
        writes: dict[Tree, Any] = transaction.writes
        record = changes.CommitRecord(writes, transaction.created, list(transaction.adopted), transaction.dropped)
        self.hand_over(_COMMIT, record, pending, durable=not lazy)
        transaction.in_log = True

    def hand_over(self, kind: Kind, record: changes.Record, pending: Pending, *, durable: bool) -> None:
        """From here on the log owns the record: it is published, or the instance is unavailable."""
        if self.ending:  # a commit that waited for relief, say: it must not come behind the last checkpoint
            raise JetError(Err.TermInProgress)
        number = pending.number
        journal = self.journal
        payload = encode_commit(number, number, pending.time, journal.incarnation, changes.encode(record))
        pending.bytes = len(payload)
        journal.append(kind, payload, durable, pending)
        self.next_number = number + 1

    def publish(self, published: Published) -> None:
        """A commit becomes visible, whole. Also recovery's way."""
        timeline, number = self.timeline, published.number
        if published.adopted:
            self.reach_adopted()
        pages = self.generations.alive[-1]
        before = timeline.bytes
        for tree, own in published.writes.items():
            timeline.publish(number, tree, own, pages)
        published.weight = timeline.bytes - before
        self.show(published)

    def reach_adopted(self) -> None:
        """The rows of trees that a commit adopts are in newer pages than the timeline's base."""
        self.generations.advance(self.current.base, self.files)

    def show(self, published: Published) -> None:
        """The rows are on the timeline: from here on everybody who begins sees them."""
        for tree in published.dropped:
            self.timeline.tree(tree).dropped = published.number
        if self.watchers.by_tree:
            self.watchers.tell(published.writes)
            self.watchers.remove([*published.dropped, *published.adopted])
        self.published = published.number
        self.backlog.note(published)

    async def flush(self) -> Commit:
        self.check_available()
        await self.journal.flush()
        await self.publishing.idle()
        return Commit(self.published, None, self.clock.now())

    async def make_durable(self) -> None:
        await self.journal.flush()

    # -- trees beside the timeline ----------------------------------------------------------------------------
    async def new_unpublished(self, slot: int) -> BulkTree:
        self.check_available()
        tree = self.allocate_tree(slot)
        self.check_writable(tree)
        return BulkTree(self, tree, self.files[slot])

    async def new_scratch(self) -> BulkTree:
        return self.scratch.new_tree()

    async def write_chunk(self, tree: Tree, rows: dict[bytes, bytes | None]) -> None:
        self.check_available()
        self.check_writable(tree)
        pending = PendingChunk(self, self.next_number, self.clock.now(), tree, rows)
        self.hand_over(Kind.TREE_CHUNK, changes.ChunkRecord(tree, rows), pending, durable=False)
        await pending.done
        if pending.writing is not None:
            await asyncio.shield(pending.writing)

    def write_to_pages(self, number: int, tree: Tree, rows: dict[bytes, bytes | None]) -> asyncio.Future[Any]:
        """Hands a chunk of an unpublished tree to the pages thread: in log order, before any later checkpoint round."""
        file = self.files[tree_slot(tree)]
        return self.checkpointer.hand_over(partial(self._apply_chunk, file, number, tree, rows))

    def _apply_chunk(self, file: PageFile, number: int, tree: Tree, rows: dict[bytes, bytes | None]) -> None:
        group: Group = chunk_group(tree_number(tree), number, rows)
        self.checkpointer.apply(file, [group], note=[OPEN + group.prefix])

    async def free_tree(self, tree: Tree) -> None:
        if tree_slot(tree) in self.files:
            self.checkpointer.condemn(tree)

    # -- the rest ---------------------------------------------------------------------------------------------
    async def checkpoint(self) -> None:
        self.check_available()
        await self.checkpointer.save()
        self.check_available()

    async def scrub(self, pause_seconds: float = 0.0) -> list[Fault]:
        self.check_available()
        return await scrub(self.files, self.checkpointer.on_thread, pause_seconds)

    async def copy_database(self, slot: int, descriptor: int) -> None:
        """Writes one consistent state of a database's file to a descriptor, while everything goes on: for a backup.

        The copy's head says from which position on it needs the log; so the log is to be kept from before the copy began.
        """
        self.check_available()
        file = self.files.get(slot)
        if file is None:
            raise JetError(Err.InvalidDatabaseId, f"slot {slot}")
        await asyncio.to_thread(file.copy_to, descriptor)

    async def count(self, tree: Tree) -> int:
        return await count_rows(self, tree)
