"""The door to storage: an ordered, transactional, snapshot-isolated key-value store.

The engine knows nothing else of storage. A store belongs to one instance: one log, several databases, one order of
commits. Trees are ordered maps from `bytes` to `bytes`; a `Tree` is an int that names one in the whole instance
(`tree_id(slot, number)`: the slot of its attached database, and its number in that database's file).

What is in memory is a plain call; what may have to wait is awaitable. Nothing here ever waits for a lock: a conflict is
an answer, at once.

Errors are `JetError`s with these codes: `WriteConflict`, `KeyDuplicate`, `VersionStoreOutOfMemory`,
`InstanceUnavailable`, `ReadVerifyFailure` (a checksum did not match), `DiskFull`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NewType, Protocol

from jetwire_protocol.errors import JetError
from jetwire_server.redo.placed import Placed

Savepoint = NewType("Savepoint", int)
Row = tuple[bytes, bytes]


class Tree(int):
    """A plain int under another name, as a NewType is. Not one of those: compiled code would make a new int for each look-up."""

    def __new__(cls, number: int) -> Tree:
        return number  # type: ignore[return-value]


SLOT_SHIFT = 48
FIRST_NEW_TREE = 16
"""Trees 1 to 15 are there in every database from its birth, for whoever lives above; `new_tree` never answers them."""


def tree_id(slot: int, number: int) -> Tree:
    return Tree(slot << SLOT_SHIFT | number)


def tree_slot(tree: Tree) -> int:
    return tree >> SLOT_SHIFT


def tree_number(tree: Tree) -> int:
    return tree & (1 << SLOT_SHIFT) - 1


class Commit(NamedTuple):
    """What a commit answers. `number` is 0 for a transaction that changed nothing."""

    number: int
    place: Placed | None  # of its log record
    time: float
    rows: int = 0  # written, deleted ones too
    bytes: int = 0  # of its log record


Report = Callable[[Commit | JetError], None]


class FileFacts(NamedTuple):
    """What can be told of a file by looking at its beginning."""

    size: int
    on_disk: int
    kind: str  # "database", "log" or "checkpoint" of this server; "" if it is none of them
    start: bytes


class Writes(Protocol):
    """Where changes of rows go: a transaction, or a stroke. In memory, at once."""

    def insert(self, tree: Tree, key: bytes, value: bytes) -> None:
        """A key that must not exist. `KeyDuplicate` if it does: visible, uncommitted elsewhere, or newer."""
        ...

    def put(self, tree: Tree, key: bytes, value: bytes) -> None:
        """Sets a key, there or not. `WriteConflict` if another session holds it or a newer version exists."""
        ...

    def delete(self, tree: Tree, key: bytes) -> None:
        """Removes a key, there or not. `WriteConflict` as for `put`."""
        ...


class Stroke(Writes, Protocol):
    """A transaction that begins, writes and is handed to the log before anything else happens. One that is not just goes away."""

    looked_at: int
    from_pages: int

    def value(self, tree: Tree, key: bytes) -> bytes | None:
        """The newest value, one of a commit whose record the log has already too: the stroke then goes on top of that.

        `WriteConflict` if another session holds the key in any other way.
        """
        ...

    def commit(self, schema: Tree, told: Report, *, lazy: bool = False) -> bool:
        """Takes the shared lock of a table's schema, and hands the writes in; `told` hears what becomes of them, never before this returns.

        False, and nothing done, if it would have to wait, is a conflict, or is too much.
        """
        ...


class Transaction(Writes, Protocol):
    """One snapshot and one ordered write set. Nested transactions are save points in it."""

    @property
    def snapshot(self) -> int:
        """The commit number whose state this transaction reads."""
        ...

    @property
    def changed(self) -> bool: ...

    looked_at: int
    """Rows that reads have answered or looked for, so far."""
    from_pages: int
    """Those of them for which the pages were asked."""

    # -- more writes, in memory and at once too ---------------------------------------------------------------
    def add(self, tree: Tree, key: bytes, offset: int, size: int, delta: int) -> int:
        """Escrow: adds to the little-endian signed integer of `size` bytes at `offset` in an existing value.

        Commutes with other sessions' adds, conflicts with their put and delete. Made whole at publishing, in log
        order, wrapping at `size`. Returns the integer before this add as this session sees it.
        """
        ...

    def added(self, tree: Tree, key: bytes, offset: int) -> int | None:
        """The sum of this transaction's own adds at a place, not published yet; None if it has put or deleted the value."""
        ...

    def lock(self, tree: Tree, key: bytes, *, shared: bool = False) -> None:
        """Locks a key until the level 0 commit or rollback. A shared lock admits other shared ones, no writer."""
        ...

    def lock_schema(self, tree: Tree, *, exclusive: bool = False) -> None:
        """The lock of a whole tree: shared by its writers, exclusive for its DDL; until the transaction ends.

        A lock whose snapshot is older than the tree's newest exclusive commit is a `WriteConflict`; so is an exclusive
        one whose snapshot is older than the newest commit of a writer: what it builds would miss that writer's rows.
        """
        ...

    def savepoint(self) -> Savepoint: ...
    def rollback_to(self, savepoint: Savepoint) -> None:
        """Undoes every write and lock since the save point. The save point stays good."""
        ...

    def forget(self, savepoint: Savepoint) -> None:
        """Lets go of a save point, and of those made after it: what they cost a long transaction in memory."""
        ...

    # -- trees ------------------------------------------------------------------------------------------------
    def new_tree(self, slot: int) -> Tree:
        """An empty tree of a number never used before in that database. Freed if the transaction does not commit."""
        ...

    def adopt(self, tree: UnpublishedTree) -> Tree:
        """Names a bulk-built tree in this transaction: it becomes visible with the commit, or is freed."""
        ...

    def drop_tree(self, tree: Tree) -> None:
        """The whole tree, in one record, at the commit; its space is freed lazily."""
        ...

    # -- reads ------------------------------------------------------------------------------------------------
    async def get(self, tree: Tree, key: bytes) -> bytes | None: ...
    async def scan(
        self, tree: Tree, low: bytes | None = None, high: bytes | None = None, *, reverse: bool = False, limit: int = 1000
    ) -> list[Row]:
        """At most `limit` rows with `low <= key < high`, ascending (or descending from `high`), own writes included.

        To go on: `low = last key + b"\\0"`, or `high = last key` in reverse.
        """
        ...

    # -- the end ----------------------------------------------------------------------------------------------
    async def commit(self, *, lazy: bool = False) -> Commit:
        """Logs, syncs unless `lazy`, publishes, and answers. After an error the transaction is rolled back."""
        ...

    def commit_now(self, report: Report, *, lazy: bool = False) -> bool:
        """`commit` of changes, for a caller that does not await: `report` is called with its answer, later.

        False, and nothing done, if the store would have to wait before it can take the commit.
        """
        ...

    async def rollback(self) -> None: ...
    def rollback_now(self) -> None: ...


class UnpublishedTree(Protocol):
    """A tree no committed row names yet (index build, bulk load, long value), or a scratch tree of a sort.

    No locks, no versions: writes stream to the log and the pages in chunks of bounded memory. Scratch trees are not
    logged, and vanish with the process.
    """

    @property
    def tree(self) -> Tree: ...
    async def put_many(self, rows: Iterable[Row]) -> None:
        """In any order; ascending keys are fastest. A later put of the same key wins."""
        ...

    async def get(self, key: bytes) -> bytes | None: ...
    async def delete_many(self, keys: Iterable[bytes]) -> None: ...
    async def scan(self, low: bytes | None = None, high: bytes | None = None, *, reverse: bool = False, limit: int = 1000) -> list[Row]: ...
    async def free(self) -> None:
        """Gives the space back; for a tree that was adopted it does nothing."""
        ...


class Watcher(Protocol):
    """Who keeps what it read of a tree."""

    def written(self, keys: Collection[bytes]) -> None:
        """Whoever begins to read after this sees changes to these keys."""
        ...

    def forget(self) -> None:
        """Nobody will tell it of changes any more."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a database's file. `tree` is -1 where no tree can be told."""

    path: str
    tree: int
    key: bytes
    what: str

    def __str__(self) -> str:
        where = f", tree {self.tree}" if self.tree >= 0 else ""
        return f"{self.path}{where}{f', key {self.key.hex()}' if self.key else ''}: {self.what}"


class Store(Protocol):
    """One instance's storage."""

    async def start(self, *, without_missing: bool = False, without_lost_end: bool = False, truncate_log: bool = False) -> bool:
        """Recovers and opens. Every database that was attached at the last stop or crash is attached again.

        One whose file is not there is an error, or is taken for gone (`without_missing`): what the log says of it is passed over.
        So is the log's newest file, which has commits that the pages do not need (`without_lost_end`); True if it was lost.
        `truncate_log` removes the log files that are not needed any more; an incremental backup then needs a full one first.
        """
        ...

    async def stop(self, *, checkpoint: bool = True) -> None: ...

    # -- databases --------------------------------------------------------------------------------------------
    async def create_database(self, path: str, *, overwrite: bool = False, unfinished: bool = False) -> int:
        """Creates, attaches, and returns the slot. Logged: it survives a crash from here on.

        One that is `unfinished` is worth nothing until it is detached: a start that finds it attached tells of it.
        """
        ...

    async def attach_database(self, path: str, *, read_only: bool = False, borrowed: bool = False) -> int:
        """One that is `borrowed` is to be detached by the same call: a start that finds it attached tells of it."""
        ...

    async def detach_database(self, slot: int, *, remove: bool = False) -> None:
        """Checkpoints the database whole and lets go of its file, or removes it."""
        ...

    def databases(self) -> dict[int, str]: ...
    def read_only(self) -> set[int]:
        """The slots of those that were attached so."""
        ...

    def unfinished(self) -> list[int]:
        """The slots of those that were to be detached when they are whole, and are not yet."""
        ...

    def borrowed(self) -> list[int]:
        """The slots of those that were attached for one call."""
        ...

    # -- transactions -----------------------------------------------------------------------------------------
    async def begin(self, *, read_only: bool = False) -> Transaction: ...
    def stroke(self) -> Stroke | None:
        """None where the store has none: a transaction does the same."""
        ...

    def newest(self, tree: Tree, key: bytes) -> tuple[bytes | None, bool]:
        """What a transaction that began now would get, and whether the pages were asked for it."""
        ...

    def newest_rows(self, tree: Tree, low: bytes, high: bytes | None, limit: int) -> tuple[list[Row], int]:
        """At most `limit` rows with `low <= key < high`, as a transaction that began now would scan them, and how many the pages gave."""
        ...

    @property
    def published(self) -> int:
        """The number of the newest commit that `newest` sees."""
        ...

    def unchanged(self, since: int) -> bool:
        """Whether what `newest` answered when `published` was `since` is still its answer. False also while the instance is unavailable."""
        ...

    def watcher_of(self, tree: Tree) -> Watcher | None:
        """Who is told of changes to the tree. `InstanceUnavailable` if nothing may be read."""
        ...

    def watch(self, tree: Tree, watcher: Watcher) -> None:
        """From now on `watcher` is told of changes to the tree, and whoever was before forgets.

        It forgets too when the tree goes, with its database or alone, and when there are too many.
        """
        ...

    @property
    def frozen(self) -> bool:
        """Whether what is committed now waits for a thaw."""
        ...

    async def flush(self) -> Commit:
        """Everything committed lazily so far is durable after this (`WaitLastLevel0Commit`)."""
        ...

    async def new_unpublished(self, slot: int) -> UnpublishedTree: ...
    async def new_scratch(self) -> UnpublishedTree: ...

    async def checkpoint(self) -> None:
        """Moves all that is published into the pages. Never needed for safety."""
        ...

    async def count(self, tree: Tree) -> int:
        """The number of committed keys; counts, so it costs a scan where no statistic is kept."""
        ...

    @property
    def signature(self) -> bytes:
        """Names this log and no other; commit numbers compare only under the same one."""
        ...

    def fullness(self) -> float:
        """How full the memory for versions is, from 0 to 1: at 1 writes answer VersionStoreOutOfMemory."""
        ...

    def database_bytes(self, slot: int) -> int:
        """What the database takes in its file; 0 where there is none."""
        ...

    def space_bytes(self, slot: int) -> int:
        """What the database's file takes on the disk: what it holds, and what was reserved for it."""
        ...

    async def reserve_space(self, slot: int, size: int) -> None:
        """Makes the file take so much of the disk, but never less than it holds. `DiskFull`, and nothing done, if it has no room."""
        ...

    def file_facts(self, path: str) -> FileFacts:
        """What a file of the instance is, attached or not. `FileNotFound`."""
        ...

    async def scrub(self, pause_seconds: float) -> list[Fault]:
        """Reads everything while everything goes on, with a pause after every slice, and names what is wrong."""
        ...

    def version_bytes(self) -> int:
        """Held above the pages: recent versions, and those kept for old snapshots."""
        ...

    def unsaved_bytes(self) -> int:
        """Of published changes that are not in the pages yet."""
        ...

    def locks_held(self) -> int:
        """How many keys are locked now."""
        ...

    def problems(self) -> Sequence[str]:
        """Why the instance is unavailable; empty when it is not."""
        ...
