"""The checkpoint: moves the timeline's oldest part into the pages, in rounds.

A round takes the oldest commits up to a number, writes every key they touched as it was at that number, in sorted
chunks, and ends in each database with a transaction that stores the position. Halfway through, some keys in the pages
are newer than the position says; that is harmless, because the timeline holds all of them until the round is over, and
after a crash the log is replayed from the position over whatever is there.

The rounds run on the pages thread, one chunk a permit; the event loop only takes the result. A chunk that is not yet
committing turns back when somebody wants to freeze.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Protocol

from jetwire_server import limits
from jetwire_server.files.gate import Gate
from jetwire_server.metrics import Counter, Histogram
from jetwire_server.redo.position import Position
from jetwire_server.store.embedded.backlog import Backlog
from jetwire_server.store.embedded.contents import CONDEMNED, OPEN, Group, Head
from jetwire_server.store.embedded.generations import Generations
from jetwire_server.store.embedded.layout import NUMBER_BYTES, tree_prefix
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.embedded.published import Published
from jetwire_server.store.interface import Tree, tree_number, tree_slot
from jetwire_server.store.locks import SchemaLocks
from jetwire_server.store.timeline import Timeline, TreeVersions, Version, shared_by_all, value_in
from jetwire_server.store.writeset import Entry

if TYPE_CHECKING:
    from jetwire_server.store.embedded.databases import Databases

CHUNK_ROWS = 4_000  # or CHUNK_BYTES: each chunk is one sync, and a freeze waits for at most one
CHUNK_BYTES = 1 << 20
IN_A_HURRY = 3  # so many times larger are the chunks while memory is what is short, or will be
SLICE_KEYS = 250
CLEAR_ROWS = 1_000
ROUND_KEYS = 10_000
SORT_KEYS = 5_000  # sorting more at once would hold the interpreter too long; what is sorted in pieces is soon merged
MARK_ROUNDS = 4  # the checkpoint file is written after so many rounds, not after each, and when the last is over
TRIM_KEYS = 2_500  # a turn; fewer, and a bulk load comes faster than it goes: its dictionary grows
HURRIED_ROUNDS = 3  # after somebody had to wait for one
MAKE_WAY = 3.0  # so many times as long as a chunk took, its rows' sealing included

ROUND_SECONDS = Histogram("jetwire_checkpoint_round_seconds", "How long checkpoint rounds took.")
ROWS_WRITTEN = Counter("jetwire_checkpoint_rows_total", "Rows that checkpoints wrote into pages.")
CHUNKS_TURNED_BACK = Counter("jetwire_checkpoint_chunks_turned_back_total", "Checkpoint chunks given up for a freeze.")


@dataclass(slots=True)
class _Touched:
    """What the commits of a round wrote to a tree."""

    entries: dict[bytes, Entry]  # the commit's own, and not ours to change, if it was one
    number: int  # of that commit; 0: they were several


@dataclass(slots=True)
class _Part:
    """One database's share of a round."""

    file: PageFile
    head: Head
    trees: list[tuple[Tree, TreeVersions, _Touched]]
    note: list[bytes]
    unnote: list[bytes]


class Owner(Protocol):
    """What the checkpoint asks of its store."""

    published: int
    timeline: Timeline
    schema_locks: SchemaLocks
    generations: Generations
    files: dict[int, PageFile]

    attached: Databases

    async def make_durable(self) -> None:
        """Everything published so far is durable in the log after this: pages must never know more than the log."""
        ...

    def failed(self, error: BaseException) -> None: ...
    def problems(self) -> Sequence[str]: ...


class Checkpoint:
    """One store's checkpoint. All methods are called on the event loop."""

    def __init__(self, owner: Owner, gate: Gate) -> None:
        self._owner = owner
        self._gate = gate
        self._thread = ThreadPoolExecutor(1, "pages")
        self.backlog = Backlog(owner.timeline, self._due)
        self._untrimmed: dict[Tree, set[bytes]] = {}  # in the pages, but no generation is new enough to show them
        self._retained: dict[Tree, dict[bytes, None]] = {}  # older versions are kept for old snapshots
        self._condemned: deque[Tree] = deque()
        self._emptied: deque[tuple[int, Tree]] = deque()  # those that were, each with the base of the first pages that may show it
        self._running: asyncio.Task[None] | None = None
        self._goal = 0  # the number of the newest commit that the rounds are for: those that come meanwhile may wait
        self._hurried = 0  # so many more rounds are in a hurry
        self._losing_ground = False  # more came during the last round than it moved
        self._unmarked = 0  # rounds since the checkpoint file was written
        self._published_before = 0
        self.paused = False  # while recovery reads a log that is not known to be whole yet
        self._round = asyncio.Event()  # set and replaced at the end of each round

    # -- when ---------------------------------------------------------------------------------------------------
    @property
    def busy(self) -> bool:
        return self._running is not None and not self._running.done()

    def _due(self, hurried: bool) -> None:
        """The backlog is long."""
        if hurried:
            self._hurried = HURRIED_ROUNDS
        self.start()

    def start(self) -> None:
        """Begins to move what is there now; if it is moving already, goes on to what is newest now."""
        if self.backlog.waiting:
            self._goal = self.backlog.waiting[-1].number
        if not self.paused and not self.busy:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def relief(self, rows: int = 0) -> None:
        """Back-pressure: waits while too much is above the pages and a checkpoint can change that."""
        while self.backlog.crowded(rows) and self.backlog.waiting and not self._owner.problems():
            self._due(True)
            await self._round.wait()

    async def save(self) -> None:
        """Moves all that is published now."""
        waiting = self.backlog.waiting
        last = waiting[-1].number if waiting else 0
        while waiting and waiting[0].number <= last and not self._owner.problems():
            self.start()
            await self._round.wait()

    def hand_over(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Runs something on the pages thread, after all that was handed to it before; its failure is the instance's."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(self._handed_over)
        return future

    def _handed_over(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._owner.failed(error)

    async def on_thread(self, work: Callable[[], Any]) -> Any:
        """The same, awaited; a failure is the caller's, and cancellation does not stop it."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def condemn(self, tree: Tree) -> None:
        """The tree's rows are to be freed, a little at a time, when nothing else is to do."""
        self._condemned.append(tree)
        self.start()

    def leave(self, slot: int) -> None:
        """A database went: nothing of what was still to be done with its trees may be done to the next one's in its slot."""
        self._condemned = deque(tree for tree in self._condemned if tree_slot(tree) != slot)
        self._emptied = deque(one for one in self._emptied if tree_slot(one[1]) != slot)
        for keys in (self._untrimmed, self._retained):
            for tree in [tree for tree in keys if tree_slot(tree) == slot]:
                del keys[tree]

    def old_snapshot_ended(self) -> None:
        """A generation died: what was kept for it can go."""
        if self._retained:
            asyncio.get_running_loop().create_task(self._trim_retained())

    def let_go(self) -> None:
        """Its store has ended."""
        self.backlog.waiting.clear()
        self._untrimmed.clear()
        self._retained.clear()

    async def stop(self) -> None:
        if self._running is not None:
            await asyncio.wait({self._running})
        self._thread.shutdown(wait=True)

    # -- rounds -----------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        try:
            while self._behind or self._condemned:
                if self._behind:
                    started = perf_counter()
                    await self._one_round()
                    ROUND_SECONDS.observe(perf_counter() - started)
                    self._wake_waiters()
                else:
                    await self._free_some()
        except Exception as error:
            self._owner.failed(error)
        finally:
            self._wake_waiters()

    def _wake_waiters(self) -> None:
        done, self._round = self._round, asyncio.Event()
        done.set()

    @property
    def _behind(self) -> bool:
        waiting = self.backlog.waiting
        return bool(waiting) and waiting[0].number <= self._goal

    async def _one_round(self) -> None:
        owner = self._owner
        taken: list[Published] = []
        keys = 0
        for published in self.backlog.waiting:
            taken.append(published)
            keys += sum(map(len, published.writes.values()))
            if keys >= ROUND_KEYS:
                break
        number, position = taken[-1].number, taken[-1].place.position
        before = self.backlog.bytes
        await owner.make_durable()
        touched = self._touched(taken)
        parts = self._parts(taken, touched, number, position)
        await self.on_thread(partial(self._write, parts, number))
        for published in taken:
            self.backlog.saved()
            for tree in published.dropped:
                self.condemn(tree)
        self._losing_ground = self.backlog.bytes > before
        self._hurried = max(0, self._hurried - 1)
        room = len(owner.generations.alive) < limits.GENERATIONS_MAX
        if self._untrimmed or not room:
            for tree, found in touched.items():
                self._untrimmed.setdefault(tree, set()).update(found.entries)
        if room:
            owner.generations.advance(number, owner.files)
            ready, self._untrimmed = self._untrimmed, {}
            await self._trim(list(ready.items()) or [(tree, found.entries) for tree, found in touched.items()])
        self._forget_emptied()
        self._unmarked += 1
        if not self._behind or self._unmarked >= MARK_ROUNDS:
            self._unmarked = 0
            await self.on_thread(owner.attached.checkpoint_file_writer(position, number))

    def _touched(self, taken: list[Published]) -> dict[Tree, _Touched]:
        touched: dict[Tree, _Touched] = {}
        for published in taken:
            for tree, entries in published.writes.items():
                found = touched.get(tree)
                if found is None:
                    touched[tree] = _Touched(entries, published.number)
                elif found.number:
                    touched[tree] = _Touched(found.entries | entries, 0)
                else:
                    found.entries.update(entries)
        return touched

    def _parts(self, taken: list[Published], touched: dict[Tree, _Touched], number: int, position: Position) -> list[_Part]:
        owner = self._owner
        dropped = {tree for published in taken for tree in published.dropped}
        adopted = {tree for published in taken for tree in published.adopted}
        parts = []
        for slot, file in owner.files.items():
            if file.read_only:
                continue
            trees = [
                (tree, owner.timeline.trees[tree], found)
                for tree, found in touched.items()
                if tree_slot(tree) == slot and tree not in dropped
            ]
            note = [CONDEMNED + tree_prefix(tree_number(tree)) for tree in dropped if tree_slot(tree) == slot]
            unnote = [OPEN + tree_prefix(tree_number(tree)) for tree in adopted if tree_slot(tree) == slot]
            parts.append(_Part(file, owner.attached.head_at(slot, number, position), trees, note, unnote))
        return parts

    # -- on the pages thread ----------------------------------------------------------------------------------
    def _write(self, parts: list[_Part], number: int) -> None:
        for part in parts:
            pending: list[Group] = []
            started = perf_counter()
            for groups in _chunks(part.trees, number, IN_A_HURRY if self._in_a_hurry else 1):
                if pending:
                    self.apply(part.file, pending, head=part.file.head_ahead(number))
                    self._make_way(perf_counter() - started)
                    started = perf_counter()
                pending = groups
            self.apply(part.file, pending, head=part.head, note=part.note, unnote=part.unnote)
            self._make_way(perf_counter() - started)

    def apply(self, file: PageFile, groups: list[Group], **more: Any) -> None:
        """One chunk under one permit, as often as it takes: a freeze may send it back."""
        while True:
            with self._gate.permit("checkpoint"):
                if file.apply(groups, turn_back=partial(getattr, self._gate, "closing"), **more):
                    break
            CHUNKS_TURNED_BACK.value += 1
        ROWS_WRITTEN.value += sum(len(group.keys) for group in groups)

    @property
    def _in_a_hurry(self) -> bool:
        """Memory is short, or will be."""
        return self._losing_ground or self._hurried > 0 or self.backlog.bytes > 2 * self._owner.timeline.usage.due

    def _make_way(self, took_seconds: float) -> None:
        """Leaves disk and interpreter to others for a while if somebody commits, unless memory is what is short."""
        published = self._owner.published
        if published != self._published_before and not self._in_a_hurry:
            sleep(took_seconds * MAKE_WAY)
        self._published_before = published

    def _clear_some(self, file: PageFile, number: int) -> bool:
        prefix = tree_prefix(number)
        with self._gate.permit("checkpoint"):
            return file.clear_some(number, CLEAR_ROWS, (CONDEMNED + prefix, OPEN + prefix))

    # -- letting go -------------------------------------------------------------------------------------------
    async def _trim(self, touched: list[tuple[Tree, Iterable[bytes]]]) -> None:
        """Lets go of what the pages have now, a little at a time so that the loop stays awake."""
        owner = self._owner
        for tree, entries in touched:
            keys = list(entries)
            for start in range(0, len(keys), TRIM_KEYS):
                some = keys[start : start + TRIM_KEYS]
                kept = owner.timeline.trim(tree, some, owner.generations.current.base, owner.generations.old_snapshots())
                if kept:
                    self._retained.setdefault(tree, {}).update(dict.fromkeys(kept))
                await asyncio.sleep(0)

    async def _trim_retained(self) -> None:
        again, self._retained = self._retained, {}
        await self._trim(list(again.items()))

    async def _free_some(self) -> None:
        tree = self._condemned[0]
        files, slot = self._owner.files, tree_slot(tree)
        file = files.get(slot)
        cleared = file is None or file.read_only or await self.on_thread(partial(self._clear_some, file, tree_number(tree)))
        if cleared and files.get(slot) is file and tree in self._condemned:  # else another database came into its slot meanwhile
            self._condemned.remove(tree)
            self._emptied.append((self._owner.generations.current.base + 1, tree))

    def _forget_emptied(self) -> None:
        """That a tree was dropped is remembered as long as somebody reads on pages that have rows of it."""
        owner = self._owner
        while self._emptied and self._emptied[0][0] <= owner.generations.alive[0].base:
            _, tree = self._emptied.popleft()
            owner.timeline.forget(tree)
            owner.schema_locks.forget(tree)


def _chunks(trees: list[tuple[Tree, TreeVersions, _Touched]], up_to: int, larger: int) -> Iterator[list[Group]]:
    """Sorted, sealed rows as of commit `up_to`, in chunks of bounded size."""
    rows_max, bytes_max = CHUNK_ROWS * larger, CHUNK_BYTES * larger
    groups: list[Group] = []
    count = weight = 0
    for tree, found, touched in sorted(trees, key=lambda item: item[0]):
        group = Group(tree_number(tree))
        groups.append(group)
        keys = _sorted(list(touched.entries))
        for start in range(0, len(keys), SLICE_KEYS):
            some = keys[start : start + SLICE_KEYS]
            weight += _seal_some(group, touched, found.versions, some, up_to)
            count += len(some)
            if count >= rows_max or weight >= bytes_max:
                yield groups
                group = Group(group.number)
                groups = [group]
                count = weight = 0
    yield groups


def _sorted(keys: list[bytes]) -> list[bytes]:
    runs: list[bytes] = []
    for start in range(0, len(keys), SORT_KEYS):
        runs += sorted(keys[start : start + SORT_KEYS])
    runs.sort()  # finds the runs
    return runs


def _seal_some(group: Group, touched: _Touched, versions: dict[bytes, Version], keys: list[bytes], up_to: int) -> int:
    """Adds the keys as they were at commit `up_to` to the group; answers what they weigh. The checkpoint's hot loop."""
    shared: Any = (touched.number, touched.entries) if touched.number else shared_by_all(versions, keys)
    values = [*map(shared[1].__getitem__, keys)] if shared is not None else []
    if set(map(type, values)) == {bytes}:
        number_bytes = shared[0].to_bytes(NUMBER_BYTES, "little")
        bodies = [number_bytes + value for value in values]
    else:
        keys, bodies = _as_they_were(group, versions, keys, up_to)
    group.add(keys, bodies)
    return sum(map(len, bodies))


def _as_they_were(group: Group, versions: dict[bytes, Version], keys: list[bytes], up_to: int) -> tuple[list[bytes], list[bytes]]:
    """The keys that were there, and what stands before their checksums; the others are the group's deletes."""
    there: list[bytes] = []
    bodies: list[bytes] = []
    last, number_bytes = -1, b""
    for key in keys:
        version = versions[key]
        while version[0] > up_to:
            version = version[2]
        value = value_in(version, key)
        if value is None:
            group.deletes.append(group.prefix + key)
            continue
        if version[0] != last:
            last, number_bytes = version[0], version[0].to_bytes(NUMBER_BYTES, "little")
        there.append(key)
        bodies.append(number_bytes + value)
    return there, bodies
