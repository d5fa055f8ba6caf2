"""A process that works on a store until it is killed, and says over a pipe what it began and what was acknowledged.

What each committer writes in its n-th commit follows from the seed alone, so a whole committer's rows follow from how
many of its commits the store has: between what was acknowledged and what was begun, and nothing in between.

As a program (`python -m tests.crash.worker DIRECTORY SEED`) it runs until its commits fail, goes on asking for a while,
and ends: for faults that are injected from outside.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from jetwire_protocol.errors import JetError
from jetwire_server import failpoints
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import tree_id, tree_number
from tests.crash.rig import LOG_KB, abandon, faults, settle

MESSAGE = struct.Struct("<cBI")
BEGUN, LAZY, DONE, FAILED = b"S", b"L", b"A", b"E"
COMMITTERS = 4
BUILDER = COMMITTERS  # builds trees beside the timeline, names them and drops the one before
CHECKPOINTS = 255  # who fails in a message: the checkpoint
PATHS = ("a.edb", "b.edb")
SLOTS = (1, 2)
COUNTER = b"counter"
AFTER_FAILURES = 25
Rows = dict[tuple[int, bytes], bytes]  # (slot, key) of tree 1


def said(messages: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Whole messages: the last one may be cut."""
    return MESSAGE.iter_unpack(messages[: len(messages) // MESSAGE.size * MESSAGE.size])


def rows_of(seed: int, who: int, n: int) -> tuple[dict[tuple[int, bytes], bytes | None], bool]:
    """What commit `n` of a committer changes, and whether it is lazy."""
    rng = Random(f"{seed}/{who}/{n}")
    changes: dict[tuple[int, bytes], bytes | None] = {}
    for slot in SLOTS:
        for _ in range(rng.choice((1, 2, 6))):
            gone = rng.random() < 0.25
            changes[slot, b"%d/%02d" % (who, rng.randrange(25))] = None if gone else rng.randbytes(rng.choice((0, 20, 200, 2_000)))
        changes[slot, b"%d/n" % who] = b"%d" % n
    return changes, rng.random() < 0.3


def tree_rows(seed: int, n: int) -> dict[bytes, bytes]:
    rng = Random(f"{seed}/tree/{n}")
    return {b"%04d" % i: rng.randbytes(40) for i in range(rng.choice((1, 30, 200)))}


@dataclass
class Expectation:
    """What the store must have, per committer: at least `floor` commits, at most `ceiling`. The rows are those at `at`."""

    seed: int
    at: list[int] = field(default_factory=lambda: [0] * (COMMITTERS + 1))
    floor: list[int] = field(default_factory=lambda: [0] * (COMMITTERS + 1))
    ceiling: list[int] = field(default_factory=lambda: [0] * (COMMITTERS + 1))
    rows: list[Rows] = field(default_factory=lambda: [{} for _ in range(COMMITTERS)])

    def take(self, messages: bytes) -> int:
        """What a worker said. A durable commit that was acknowledged makes durable what was lazily done before it began.

        Answers how many commits were acknowledged.
        """
        count = 0
        lazily = [0] * (COMMITTERS + 1)
        covered: dict[tuple[int, int], list[int]] = {}
        for what, who, n in said(messages):
            if what == BEGUN:
                self.ceiling[who] = max(self.ceiling[who], n)
                covered[who, n] = list(lazily)
            elif what == LAZY:
                lazily[who] = max(lazily[who], n)
            elif what == DONE:
                count += 1
                lazily[who] = max(lazily[who], n)
                for other, floor in enumerate(covered.get((who, n), ())):
                    self.floor[other] = max(self.floor[other], floor)
                self.floor[who] = max(self.floor[who], n)
        return count

    def advance(self, found: list[int]) -> None:
        """The store was seen to have so many commits: from here on nobody may lose them."""
        for who in range(COMMITTERS):
            for n in range(self.at[who] + 1, found[who] + 1):
                for place, value in rows_of(self.seed, who, n)[0].items():
                    if value is None:
                        self.rows[who].pop(place, None)
                    else:
                        self.rows[who][place] = value
        self.at, self.floor, self.ceiling = list(found), list(found), list(found)


def open_store(directory: str) -> EmbeddedStore:
    clock = SystemClock()
    gate = Gate(clock)
    files = LocalFiles(directory, watch=gate.wrote)
    files.make_directory("")
    log = Log(files, gate, clock, names=LogNames("log"), file_kb=LOG_KB)
    return EmbeddedStore(log, files, LocalFiles(f"{directory}/scratch"), gate, clock, circular=True)


async def verify(store: EmbeddedStore, expectation: Expectation) -> list[int]:
    """How many commits of each there are; an AssertionError says which promise was broken."""
    reader = await store.begin(read_only=True)
    try:
        found: Rows = {}
        for slot in SLOTS:
            if slot in store.databases():
                found |= {(slot, key): value for key, value in await reader.scan(tree_id(slot, 1), limit=1_000_000)}
        counts = [int(found.get((SLOTS[0], b"%d/n" % who), b"0")) for who in range(COMMITTERS)]
        built = await reader.get(tree_id(SLOTS[0], 2), b"built") if SLOTS[0] in store.databases() else None
        n, number = (int(part) for part in (built or b"0 0").split())
        counts.append(n)
        for who, (low, count, high) in enumerate(zip(expectation.floor, counts, expectation.ceiling, strict=True)):
            assert low <= count <= high, f"committer {who} has {count} commits; {low} were acknowledged, {high} begun"
        expectation.advance(counts)
        expected = {place: value for rows in expectation.rows for place, value in rows.items()}
        for slot in store.databases():
            total = sum(counts[:COMMITTERS])
            raised = int.from_bytes(found.pop((slot, COUNTER), bytes(8)), "little")
            assert raised == total, f"slot {slot}: the counter is {raised} after {total} commits"
        assert found == expected, f"half a commit: {sorted(set(found.items()) ^ set(expected.items()))[:4]}"
        if n:
            rows = dict(await reader.scan(tree_id(SLOTS[0], number), limit=1_000_000))
            assert rows == tree_rows(expectation.seed, n), f"tree {number} of build {n} has {len(rows)} rows"
        return counts
    finally:
        await reader.rollback()


class Worker:
    """Committers, a builder and checkpoints on one store. `lying`: the control, which acknowledges before it commits."""

    def __init__(self, store: EmbeddedStore, seed: int, counts: list[int], say: Callable[[bytes], object], *, lying: bool = False) -> None:
        self._store = store
        self._seed = seed
        self._counts = counts
        self._say = say
        self._lying = lying

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for who in range(COMMITTERS):
                group.create_task(self._until_it_fails(who, self._commit))
            group.create_task(self._until_it_fails(BUILDER, self._build))
            group.create_task(self._checkpoints())

    async def prepare(self) -> None:
        """The databases, with a counter in each, the first time."""
        for slot, path in zip(SLOTS, PATHS, strict=True):
            if slot not in self._store.databases():
                with suppress(JetError):
                    os.remove(self._store.attached.page_files.real_path(path)) if self._store.attached.page_files.exists(path) else None
                assert await self._store.create_database(path) == slot
        writer = await self._store.begin()
        for slot in SLOTS:
            if await writer.get(tree_id(slot, 1), COUNTER) is None:
                writer.put(tree_id(slot, 1), COUNTER, bytes(8))
        await writer.commit()

    async def _until_it_fails(self, who: int, act: Callable[[int, int], object]) -> None:
        failures = 0
        while failures < AFTER_FAILURES:
            n = self._counts[who] + 1
            try:
                await act(who, n)  # type: ignore[misc]
                self._counts[who] = n
            except JetError:
                failures += 1
                self._tell(FAILED, who, n)
                await asyncio.sleep(0.001)

    async def _commit(self, who: int, n: int) -> None:
        changes, lazy = rows_of(self._seed, who, n)
        writer = await self._store.begin()
        for (slot, key), value in changes.items():
            if value is None:
                writer.delete(tree_id(slot, 1), key)
            else:
                writer.put(tree_id(slot, 1), key, value)
        for slot in SLOTS:
            writer.add(tree_id(slot, 1), COUNTER, 0, 8, 1)
        self._tell(BEGUN, who, n)
        if self._lying:
            self._tell(DONE, who, n)
            await asyncio.sleep(0.001)
        await writer.commit(lazy=lazy)
        self._tell(LAZY if lazy else DONE, who, n)

    async def _build(self, who: int, n: int) -> None:
        store = self._store
        bulk = await store.new_unpublished(SLOTS[0])
        await bulk.put_many(tree_rows(self._seed, n).items())
        writer = await store.begin()
        catalog = tree_id(SLOTS[0], 2)
        before = await writer.get(catalog, b"built")
        writer.adopt(bulk)
        writer.put(catalog, b"built", b"%d %d" % (n, tree_number(bulk.tree)))
        if before:
            writer.drop_tree(tree_id(SLOTS[0], int(before.split()[1])))
        self._tell(BEGUN, who, n)
        await writer.commit()
        self._tell(DONE, who, n)
        await asyncio.sleep(0.002)

    async def _checkpoints(self) -> None:
        rng = Random(self._seed)
        failures = 0
        while failures < AFTER_FAILURES:
            try:
                await self._store.checkpoint()
                await asyncio.sleep(rng.choice((0.001, 0.01, 0.03)))
            except JetError:
                failures += 1
                self._tell(FAILED, CHECKPOINTS, 0)
                await asyncio.sleep(0.001)

    def _tell(self, what: bytes, who: int, n: int) -> None:
        self._say(MESSAGE.pack(what, who, n))


async def main(directory: str, seed: int, *, lying: bool) -> None:
    """Works from nothing until all commits fail; tells on standard output."""
    store = open_store(directory)
    try:
        await store.start()
        worker = Worker(store, seed, [0] * (COMMITTERS + 1), lambda message: os.write(1, message), lying=lying)
        await worker.prepare()
        await worker.run()
    except JetError as error:
        print(f"did not start: {error}", file=sys.stderr)
    finally:
        await abandon(store)


async def verify_directory(directory: str, expectation: Expectation) -> list[int]:
    """Recovers what a process left, and checks it whole."""
    store = open_store(directory)
    try:
        await store.start()
        await settle(store)
        counts = await verify(store, expectation)
        found = faults(store)
        assert not found, f"check finds {found[:3]}"
        return counts
    finally:
        await abandon(store)


if __name__ == "__main__":
    failpoints.arm_from_environment(os.environ.get("JETWIRE_FAILPOINTS", ""))
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), lying=sys.argv[3:] == ["lying"]))
