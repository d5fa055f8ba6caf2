"""Recovery: what the log knows and the pages lack goes down the same road as every commit.

It begins at the checkpoint file's position with the databases that were attached there. Each database skips what its
pages already have. Puts and deletes may be taken again without harm; an `add` may not, so it looks at the number in the
pages. Nothing on disk is changed before the whole log has been read and found good.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server.metrics import Counter
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.position import Position
from jetwire_server.redo.records import COMMIT_HEADER_BYTES, Kind, Record, commit_number
from jetwire_server.store.embedded import changes
from jetwire_server.store.embedded.contents import ATTACHED, DETACHED, CheckpointFile, Head
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.embedded.published import Published
from jetwire_server.store.interface import SLOT_SHIFT, Tree, tree_slot
from jetwire_server.store.writeset import Deltas, Entry

if TYPE_CHECKING:
    from jetwire_server.store.embedded.store import EmbeddedStore

RECORDS = Counter("jetwire_recovered_records_total", "Log records that recovery took.")
GATHER_RECORDS = 500
_decode_checkpoint = msgspec.msgpack.Decoder(CheckpointFile).decode


def _place(read: Record) -> Placed:
    """The place alone: the record's payload must not live until the next checkpoint."""
    return Placed(read.generation, read.offset, read.end_generation, read.end_offset)


class Recovered(NamedTuple):
    """What it was done without."""

    a_database: bool  # taken for gone, because its file is
    the_end: bool  # of the log: the newest commits are lost


async def recover(store: EmbeddedStore, *, without_missing: bool = False, without_lost_end: bool = False) -> Recovered:
    """Brings the store to the end of its log."""
    recovery = _Recovery(store, without_missing, without_lost_end)
    await recovery.run()
    return Recovered(recovery.went_without, recovery.end_was_lost)


class _Recovery:
    def __init__(self, store: EmbeddedStore, without_missing: bool, without_lost_end: bool) -> None:
        self.store = store
        self.without_missing = without_missing
        self.without_lost_end = without_lost_end
        self.went_without = False
        self.end_was_lost = False
        self.pages_suffice: bool | None = None  # though the end was lost: known when it is asked for
        self.databases = store.attached
        self.begun_number = 0  # every database that the checkpoint file names has all commits up to this one
        self.base: dict[int, int] = {}  # per slot: the pages have all commits up to this one
        self.lost: dict[int, JetError] = {}  # attached as far as we have read, but not to be had
        self.unmarked: dict[str, Head | None] = {}  # detached by the log, but their files do not know yet; None: to be removed
        self.leaving: PageFile | None = None  # detached just now
        self.behind: set[int] = set()  # slots whose pages lack something that was read: only after a restore do they when detached
        self.named: set[Tree] = set()
        self.chunks: list[tuple[int, Tree, dict[bytes, bytes | None]]] = []
        # Commits that are on the timeline, and of which the checkpoint is told together: nobody reads in between.
        self.gathered: dict[Tree, dict[bytes, Entry]] = {}
        self.gathered_last: tuple[int, Record] | None = None
        self.gathered_bytes = 0  # what the timeline weighed before them

    async def run(self) -> None:
        store = self.store
        journal = store.journal
        store.checkpointer.paused = True
        found = journal.checkpoint()
        start = found.position if found else None
        signature = found.signature if found else None
        if not await asyncio.to_thread(journal.open, start, signature=signature, end_is_lost=self.without_lost_end):
            journal.create(store.random_bytes(16), incarnation=1)
            found = None
        self.end_was_lost = journal.end_was_lost
        begun = _decode_checkpoint(found.body) if found and found.body else CheckpointFile()
        store.published = self.begun_number = begun.number
        for slot, path, signature, read_only in begun.attached:
            await asyncio.to_thread(self._look, slot, path)
            if self._attach(slot, path, signature, read_only, None):
                self.databases.files[slot].borrowed = slot in begun.borrowed
        count = 0
        for count, record in enumerate(journal.records(start), 1):
            if record.kind == Kind.DETACH_DATABASE:
                await self._complete(record)
            self._take(record)
            if self.leaving is not None:  # behind what the pages thread still does with it, if some of the log went to the pages
                file, self.leaving = self.leaving, None
                await store.checkpointer.on_thread(file.close)
            if count % GATHER_RECORDS == 0:
                self._tell_gathered()
                RECORDS.value = count
                await asyncio.sleep(0)
                if store.timeline.bytes > store.timeline.usage.slow and await self._may_spill(start, begun):
                    await self._spill()
        self._tell_gathered()
        RECORDS.value = count
        for error in self.lost.values():
            raise error
        # A checkpoint is at the last record that the pages have. A log that ends before it has lost it.
        self._check_log_reaches_pages(begun.number - 1 if not count else self.store.published)
        self._begin()
        await self._write_chunks()
        await self._mark_detached()
        await self.databases.mark(ATTACHED)
        for slot in self.databases.files:
            self.databases.free_leftovers(slot, self.named)

    def _check_log_reaches_pages(self, last: int) -> None:
        """Pages never know more than the log. If they do, its newest files are gone, or these pages are of another past."""
        for slot, base in self.base.items():
            if self.end_was_lost:  # else the log has what a round under way may have brought: it was synced before
                base = max(base, self.databases.files[slot].head.ahead)
            if base > max(last, 0):
                path = self.databases.files[slot].path
                raise JetError(
                    Err.RequiredLogFilesMissing,
                    f"{path} holds commit {base}, but the log ends with {last}: its newest files are missing or "
                    "from another time; put them back, or restore a backup",
                    path=path,
                )

    def _begin(self) -> None:
        """The log is whole, and what it says is being taken: from here on things may be written."""
        if self.store.checkpointer.paused:
            incarnation = None
            if self.end_was_lost:  # files that turn up again belong to a future that was given up
                incarnation = max(self.store.journal.incarnation + 1, int(self.store.clock.now() * 1000))
            self.store.journal.begin(incarnation=incarnation)
            self.store.checkpointer.paused = False
        self.store.next_number = self.store.published + 1

    async def _may_spill(self, start: Position | None, begun: CheckpointFile) -> bool:
        """Before the end of the log nothing is written that a refusal at its end could not take back."""
        if self.end_was_lost and self.pages_suffice is None:
            heads = {file.path: file.head for file in self.databases.files.values()}
            self.pages_suffice = await asyncio.to_thread(self._pages_suffice, start, begun, heads)
        return not self.lost and self.pages_suffice is not False

    def _pages_suffice(self, start: Position | None, begun: CheckpointFile, heads: dict[str, Head]) -> bool:
        """Reads a log whose end was lost: whether it has all that the databases need which it leaves attached. `heads`: of open files."""
        last = begun.number - 1
        attached = {slot: (path, signature) for slot, path, signature, _ in begun.attached}
        for read in self.store.journal.records(start):
            last = commit_number(read.payload)
            if read.kind in changes.ABOUT_DATABASES:
                record = changes.decode(memoryview(read.payload)[COMMIT_HEADER_BYTES:])
                if isinstance(record, changes.AttachRecord):
                    attached[record.slot] = record.path, record.signature
                elif isinstance(record, changes.DetachRecord):
                    attached.pop(record.slot, None)
        for path, signature in attached.values():
            try:
                head = heads.get(path) or self._head_of(path)
            except JetError:
                return False
            ours = head.log_signature == self.store.journal.signature
            if head.signature != signature or (ours and max(head.number, head.ahead) > last):
                return False
        return True

    def _head_of(self, path: str) -> Head:
        PageFile.look(self.databases.page_files, path)
        with closing(PageFile.open(self.databases.page_files, path, read_only=True)) as file:
            return file.head

    async def _spill(self) -> None:
        """A long log, as after a restore: what is recovered so far goes to the pages before the rest is read."""
        self._begin()
        await self._write_chunks()
        await self._mark_detached()
        await self.store.checkpointer.relief()

    async def _write_chunks(self) -> None:
        """Before the commit that adopts their tree goes to the pages, as in life: its round takes the mark of the unnamed off."""
        chunks, self.chunks = self.chunks, []
        for number, tree, rows in chunks:
            await self.store.write_to_pages(number, tree, rows)
        if chunks:
            self.store.generations.advance(self.store.current.base, self.store.files)

    async def _complete(self, read: Record) -> None:
        """In life a database is whole before it is detached; one that comes from a backup must be made so."""
        record = changes.decode(memoryview(read.payload)[COMMIT_HEADER_BYTES:])
        if not isinstance(record, changes.DetachRecord) or record.slot not in self.behind:
            return
        self.behind.discard(record.slot)
        self._tell_gathered()
        self._begin()
        await self._write_chunks()
        await self._mark_detached()
        await self.store.checkpointer.save()
        self.store.check_available()

    # -- records ----------------------------------------------------------------------------------------------
    def _take(self, read: Record) -> None:
        payload = read.payload
        number = commit_number(payload)
        record = changes.decode(memoryview(payload)[COMMIT_HEADER_BYTES:])
        if type(record) is changes.CommitRecord:
            if record.created or record.adopted or record.dropped:
                self._commit(number, record, read)
            else:
                self._commit_rows(number, record.writes, read)
            return
        self._tell_gathered()
        if isinstance(record, changes.ChunkRecord):
            self.databases.tree_is_used(record.tree)
            if number > self.base.get(tree_slot(record.tree), number):
                self.behind.add(tree_slot(record.tree))
                self.chunks.append((number, record.tree, record.rows))
        elif isinstance(record, changes.AttachRecord):
            known = record.slot in self.databases.files
            if not known and self._attach(record.slot, record.path, record.signature, record.read_only, record.base):
                self.base.setdefault(record.slot, number)
                self.databases.files[record.slot].borrowed = record.borrowed
        else:
            self._detach(record, number, read)
        self.store.published = number
        weight = len(payload) if isinstance(record, changes.ChunkRecord) else 0
        self.store.backlog.note(Published(number, _place(read), {}, weight=weight))

    def _commit_rows(self, number: int, writes: dict[Tree, Any], read: Record) -> None:
        """A commit as most are: recovery's hot path."""
        timeline, base, gathered = self.store.timeline, self.base, self.gathered
        if self.gathered_last is None:
            self.gathered_bytes = timeline.bytes
        self.gathered_last = number, read
        for tree, rows in writes.items():
            slot = tree >> SLOT_SHIFT
            if number > base.get(slot, number):
                self.behind.add(slot)
                entries = self._entries(number, tree, rows)
                timeline.publish(number, tree, entries, self.store.current)
                together = gathered.get(tree)
                if together is None:
                    gathered[tree] = dict(entries)  # they are the timeline's now
                else:
                    together.update(entries)

    def _tell_gathered(self) -> None:
        if self.gathered_last is None:
            return
        number, read = self.gathered_last
        weight = self.store.timeline.bytes - self.gathered_bytes
        published = Published(number, _place(read), self.gathered, weight=weight)
        self.gathered, self.gathered_last = {}, None
        self.store.published = number
        self.store.backlog.note(published)

    def _commit(self, number: int, record: changes.CommitRecord, read: Record) -> None:
        self._tell_gathered()
        base = self.base
        writes: dict[Tree, dict[bytes, Entry]] = {}
        for tree, rows in record.writes.items():
            if number > base.get(tree >> SLOT_SHIFT, number):
                self.behind.add(tree >> SLOT_SHIFT)
                writes[tree] = self._entries(number, tree, rows)
        for tree in (*record.created, *record.adopted):
            self.databases.tree_is_used(tree)
        self.named.update(record.adopted)
        adopted = [tree for tree in record.adopted if number > base.get(tree_slot(tree), number)]
        dropped = [tree for tree in record.dropped if number > base.get(tree_slot(tree), number)]
        self.store.publish(Published(number, _place(read), writes, adopted, dropped))

    def _entries(self, number: int, tree: Tree, rows: changes.Rows) -> dict[bytes, Entry]:
        """The rows without the adds that the pages have: those must not be added twice."""
        for value in rows.values():
            if type(value) is tuple:
                break
        else:
            return cast("dict[bytes, Entry]", rows)
        out: dict[bytes, Entry] = {}
        found = self.store.timeline.trees.get(tree)
        for key, value in rows.items():
            if not isinstance(value, tuple):
                out[key] = value
            elif found is not None and key in found.versions:
                out[key] = Deltas(value)
            else:
                in_pages = self.store.current.newest(tree, key)
                if in_pages is not None and in_pages[0] < number:
                    out[key] = Deltas(value)
        return out

    # -- databases --------------------------------------------------------------------------------------------
    def _look(self, slot: int, path: str) -> None:
        """Before LMDB does."""
        try:
            PageFile.look(self.databases.page_files, path)
        except JetError as error:
            self.lost[slot] = error

    def _attach(self, slot: int, path: str, signature: bytes, read_only: bool, base: int | None) -> bool:
        """Opens a database that the log says is attached; if that fails, a later detaching may excuse it."""
        if slot in self.lost:
            return False
        if path in self.store.left_out:
            return False
        if not self.databases.page_files.exists(path):
            if self.without_missing:
                self.went_without = True
            else:
                detail = f"{path}: the database file is missing; put it back, or restore a backup"
                self.lost[slot] = JetError(Err.AttachedDatabaseMismatch, detail, path=path)
            return False
        try:
            file = PageFile.open(self.databases.page_files, path, read_only=read_only)
        except JetError as error:
            self.lost[slot] = error
            return False
        head = file.head
        ours = head.log_signature == self.store.journal.signature
        untouched = base is not None and head.state == DETACHED and head.number == base
        if head.signature != signature or not (ours or untouched or read_only):
            file.close()
            self.lost[slot] = JetError(
                Err.AttachedDatabaseMismatch,
                f"{path} is not the database that this instance had there, or another instance has changed it: "
                "put the right file back, or restore a backup",
                path=path,
            )
            return False
        detached = self.unmarked.get(path)
        number = max(head.number, detached.number if detached is not None else 0)  # its pages were made whole when this log detached it
        least = self.begun_number if base is None else base
        if ours and not read_only and number < least:
            file.close()
            self.lost[slot] = JetError(
                Err.DatabaseCorrupted,
                f"{path} is older than it must be: its pages end with commit {number}, and the log that is needed begins after "
                f"commit {least}; its newest pages are damaged, or it is an old copy: restore a backup",
                path=path,
            )
            return False
        self.databases.entered(slot, file)
        self.unmarked.pop(path, None)
        if ours:
            self.base[slot] = number
        return True

    def _detach(self, record: changes.DetachRecord, number: int, read: Record) -> None:
        slot = record.slot
        self.lost.pop(slot, None)
        self.base.pop(slot, None)
        if slot not in self.databases.files:
            return
        head = self.databases.head_at(slot, number, _place(read).position)
        file = self.databases.left(slot)
        assert file is not None
        if file.head.state != DETACHED and not file.read_only and file.head.number <= number:  # else it came again, as the log will say
            self.unmarked[file.path] = None if record.remove else head
        self.leaving = file

    async def _mark_detached(self) -> None:
        """The crash came between the log record of a detaching and the mark in the file, or its removal: the pages were whole by then.

        Before any round: from where that lets the next start begin, the log does not say any more that it was detached.
        """
        unmarked, self.unmarked = self.unmarked, {}
        for path, head in unmarked.items():
            file = PageFile.open(self.databases.page_files, path)
            give_up = partial(self.databases.remove, file) if head is None else partial(self.databases.release, file, head)
            await self.store.checkpointer.on_thread(give_up)
