"""A random life of a store, from a seed: it keeps a `History` while it acts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from jetwire_server.redo.generation import DATA_START
from jetwire_server.redo.log import Log
from jetwire_server.redo.records import COMMIT_HEADER_BYTES, HEADER_BYTES
from jetwire_server.store.embedded import changes
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import tree_number
from jetwire_server.store.transaction import StoreTransaction
from tests.crash.history import History
from tests.crash.rig import LOG_KB, tree_of

PATHS = ("a.edb", "b.edb", "sub/c.edb")
COUNTER = b"counter"
SIZES = (0, 7, 40, 300, 300, 900, 5_000)
LARGE = 70_000  # more than a log file holds
LOG_FILE_BYTES = LOG_KB * 1024
EDGES = (0, 0, 0, 1, -1, HEADER_BYTES, -HEADER_BYTES)
Changes = dict[tuple[str, int, bytes], bytes | None]


class Workload:
    """`act()` does one random thing."""

    def __init__(self, store: EmbeddedStore, history: History, rng: Random, *, serial: int = 0) -> None:
        self.store = store
        self.history = history
        self.rng = rng
        self._serial = serial
        self._dangling: list[object] = []
        self._actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self.commit_one),
            (20, self.commit_several_at_once),
            (3, self.commit_to_the_edge),
            (8, self.flush),
            (8, self.checkpoint),
            (6, self.build_and_adopt),
            (3, self.build_and_leave),
            (4, self.drop),
            (4, self.roll_back),
            (3, self.create),
            (2, self.detach),
            (3, self.attach),
            (1, self.overwrite),
        ]

    async def run(self, actions: int) -> None:
        await self.create()
        await self.acts(actions)

    async def acts(self, actions: int) -> None:
        for _ in range(actions):
            await self.act()

    async def act(self) -> None:
        weights, actions = zip(*self._actions, strict=True)
        [action] = self.rng.choices(actions, weights)
        await action()

    # -- commits ----------------------------------------------------------------------------------------------
    async def commit_one(self) -> None:
        await self._commit_group(1)

    async def commit_several_at_once(self) -> None:
        await self._commit_group(self.rng.randint(2, 5))

    async def _commit_group(self, count: int) -> None:
        """Transactions that run side by side, and are handed over in this order: the log may take them in one batch."""
        rng, history = self.rng, self.history
        if not history.last.attached:
            return
        begun = [await self.store.begin() for _ in range(count)]
        used: set[tuple[str, int, bytes]] = set()
        waiting = []
        for transaction in begun:
            changes = self._write_some(transaction, used)
            lazy = rng.random() < 0.4
            number = history.hand_over(history.last.written(changes))
            waiting.append(asyncio.ensure_future(self._finish(transaction, number, lazy)))
        await asyncio.gather(*waiting)

    async def _finish(self, transaction: StoreTransaction, number: int, lazy: bool) -> None:
        commit = await transaction.commit(lazy=lazy)
        assert commit.number
        if not lazy:
            self.history.acknowledge(number)

    async def commit_to_the_edge(self) -> None:
        """A record that ends with a log file's last byte, or next to it; it may begin one or two files before."""
        rng, history = self.rng, self.history
        if not history.last.attached:
            return
        await self.flush()
        path, key = rng.choice(sorted(history.last.attached)), b"edge"
        transaction = await self.store.begin()
        tree = tree_of(self.store, path, 1)
        beside = COMMIT_HEADER_BYTES + HEADER_BYTES + len(changes.encode(changes.CommitRecord({tree: {key: bytes(LARGE)}}))) - LARGE
        log = self.store.journal
        assert isinstance(log, Log)
        room = LOG_FILE_BYTES - log.end.offset + rng.choice((1, 1, 2)) * (LOG_FILE_BYTES - DATA_START)
        value = bytes(max(0, room - beside + rng.choice(EDGES)))
        transaction.put(tree, key, value)
        step = history.hand_over(history.last.written({(path, 1, key): value}))
        await self._finish(transaction, step, lazy=rng.random() < 0.4)

    def _write_some(self, transaction: StoreTransaction, used: set[tuple[str, int, bytes]]) -> Changes:
        """Puts, deletes and adds in one to three databases; every commit is different from all others."""
        rng, last = self.rng, self.history.last
        changes: Changes = {}
        paths = rng.sample(sorted(last.attached), rng.randint(1, len(last.attached)))
        self._serial += 1
        for path in paths:
            for _ in range(rng.choice((1, 1, 2, 4, 12))):
                number = rng.choice((1, 2, *(n for n in last.attached[path] if n > 2)))
                place = (path, number, b"k%02d" % rng.randrange(40))
                if place in used:
                    continue
                used.add(place)
                tree = tree_of(self.store, path, number)
                if rng.random() < 0.25:
                    transaction.delete(tree, place[2])
                    changes[place] = None
                else:
                    value = self._value()
                    transaction.put(tree, place[2], value)
                    changes[place] = value
            self._count(transaction, path, changes)
            stamp = (path, 1, b"s%06d" % (self._serial % 300))
            transaction.put(tree_of(self.store, *stamp[:2]), stamp[2], b"%d" % self._serial)
            changes[stamp] = b"%d" % self._serial
        return changes

    def _count(self, transaction: StoreTransaction, path: str, changes: Changes) -> None:
        place = (path, 1, COUNTER)
        before = self.history.last.attached[path].get(1, {}).get(COUNTER)
        if before is not None:
            transaction.add(tree_of(self.store, path, 1), COUNTER, 0, 8, self._serial)
            changes[place] = (int.from_bytes(before, "little") + self._serial).to_bytes(8, "little")

    def _value(self) -> bytes:
        size = LARGE if self.rng.random() < 0.01 else self.rng.choice(SIZES)
        return b"%08d" % self._serial + self.rng.randbytes(size)

    async def roll_back(self) -> None:
        if self.history.last.attached:
            transaction = await self.store.begin()
            self._write_some(transaction, set())
            await transaction.rollback()

    async def flush(self) -> None:
        number = len(self.history.states) - 1
        await self.store.flush()
        self.history.acknowledge(number)

    async def checkpoint(self) -> None:
        await self.store.checkpoint()

    # -- trees ------------------------------------------------------------------------------------------------
    async def build_and_adopt(self) -> None:
        history = self.history
        if not history.last.attached:
            return
        path = self.rng.choice(sorted(history.last.attached))
        bulk, rows = await self._build(path)
        if self.rng.random() < 0.2:
            await bulk.free()  # type: ignore[attr-defined]
            return
        transaction = await self.store.begin()
        transaction.adopt(bulk)  # type: ignore[arg-type]
        number = tree_number(bulk.tree)  # type: ignore[attr-defined]
        transaction.put(tree_of(self.store, path, 2), b"t%06d" % number, b"named")
        changes: Changes = {(path, number, key): value for key, value in rows.items()}
        changes[path, 2, b"t%06d" % number] = b"named"
        step = history.hand_over(history.last.written(changes))
        await self._finish(transaction, step, lazy=self.rng.random() < 0.4)

    async def build_and_leave(self) -> None:
        """Nobody will ever name it: recovery frees it."""
        if self.history.last.attached:
            bulk, _ = await self._build(self.rng.choice(sorted(self.history.last.attached)))
            self._dangling.append(bulk)

    async def _build(self, path: str) -> tuple[object, dict[bytes, bytes]]:
        bulk = await self.store.new_unpublished(tree_of(self.store, path, 1) >> 48)
        rows = {b"b%05d" % i: self.rng.randbytes(30) for i in range(self.rng.choice((3, 60)))}
        await bulk.put_many(rows.items())
        if self.rng.random() < 0.5:
            gone = list(rows)[::3]
            await bulk.delete_many(gone)
            for key in gone:
                del rows[key]
        self.history.trees.setdefault(path, {1, 2}).add(tree_number(bulk.tree))
        return bulk, rows

    async def drop(self) -> None:
        history = self.history
        trees = [(path, number) for path, trees in history.last.attached.items() for number in trees if number > 2]
        if trees:
            path, number = self.rng.choice(sorted(trees))
            transaction = await self.store.begin()
            transaction.drop_tree(tree_of(self.store, path, number))
            step = history.hand_over(history.last.without_tree(path, number))
            await self._finish(transaction, step, lazy=self.rng.random() < 0.4)

    # -- databases --------------------------------------------------------------------------------------------
    async def create(self) -> None:
        history = self.history
        free = [path for path in PATHS if path not in history.last.attached and path not in history.last.detached]
        if free:
            path = self.rng.choice(free)
            step = history.hand_over(history.last.created(path))
            left_behind = self.store.attached.page_files.exists(path)  # by a creation that a crash cut: nobody was told of it
            await self.store.create_database(path, overwrite=left_behind)
            history.acknowledge(step)
            await self._prime(path)

    async def _prime(self, path: str) -> None:
        transaction = await self.store.begin()
        zero = bytes(8)
        transaction.put(tree_of(self.store, path, 1), COUNTER, zero)
        step = self.history.hand_over(self.history.last.written({(path, 1, COUNTER): zero}))
        await self._finish(transaction, step, lazy=False)

    async def detach(self) -> None:
        history = self.history
        if len(history.last.attached) > 1:
            path = self.rng.choice(sorted(history.last.attached))
            step = history.hand_over(history.last.moved_out(path))
            await self.store.detach_database(tree_of(self.store, path, 1) >> 48)
            history.acknowledge(step)

    async def attach(self) -> None:
        history = self.history
        if history.last.detached:
            path = self.rng.choice(sorted(history.last.detached))
            step = history.hand_over(history.last.moved_in(path))
            await self.store.attach_database(path)
            history.acknowledge(step)

    async def overwrite(self) -> None:
        history = self.history
        if history.last.detached:
            path = self.rng.choice(sorted(history.last.detached))
            step = history.hand_over(history.last.forgotten(path))
            step = history.hand_over(history.last.created(path))
            await self.store.create_database(path, overwrite=True)
            history.acknowledge(step)
            await self._prime(path)
