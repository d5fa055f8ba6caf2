"""Databases come and go in the same slots, trees are made, dropped and changed, the store stops and crashes: a model says what is there.

More seeds: `python -m tests.server.store.test_slots_in_any_order 1000 200`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jetwire_protocol.errors import JetError
from jetwire_server.store.embedded import journal, publishing, stroke
from jetwire_server.store.embedded.checkpoint import Checkpoint
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Commit, Tree, tree_id, tree_number
from jetwire_server.store.timeline import Timeline
from jetwire_server.store.transaction import StoreTransaction
from tests.server.store.kinds import embedded

STEPS = 60
DATABASES = 3  # in two slots
Rows = dict[bytes, bytes]


class Play:
    """One run. `model` has each database's trees by number."""

    def __init__(self, store: EmbeddedStore, directory: str, seed: int) -> None:
        self.store, self.directory, self.seed = store, directory, seed
        self.dice = random.Random(seed)
        self.model: dict[str, dict[int, Rows]] = {}
        self.slots: dict[str, int] = {}
        self.old: list[StoreTransaction] = []
        self.done: list[str] = []

    # -- steps ------------------------------------------------------------------------------------------------
    async def create(self) -> None:
        if len(self.model) < DATABASES and len(self.slots) < DATABASES - 1:
            path = f"{len(self.model)}.edb"
            self.slots[path] = await self.store.create_database(path)
            self.model[path] = {}

    async def detach(self) -> None:
        if self.slots:
            await self.store.detach_database(self.slots.pop(self.dice.choice(list(self.slots))))

    async def attach(self) -> None:
        away = [path for path in self.model if path not in self.slots]
        if away and len(self.slots) < DATABASES - 1:
            path = self.dice.choice(away)
            self.slots[path] = await self.store.attach_database(path)

    async def make(self) -> None:
        if not self.slots:
            return
        path = self.dice.choice(list(self.slots))
        rows = self.rows(self.dice.choice([3, 10, 40]))
        txn = self.store.begin_now()
        if self.dice.random() < 0.6:
            tree = txn.new_tree(self.slots[path])
            for key, value in rows.items():
                txn.insert(tree, key, value)
        else:
            built = await self.store.new_unpublished(self.slots[path])
            await built.put_many(sorted(rows.items()))
            tree = txn.adopt(built)
        await txn.commit(lazy=self.dice.random() < 0.3)
        self.model[path][tree_number(tree)] = rows

    async def drop(self) -> None:
        found = self.any_tree()
        if found is not None:
            tree, path = found
            txn = self.store.begin_now()
            txn.drop_tree(tree)
            await txn.commit()
            del self.model[path][tree_number(tree)]

    async def change(self) -> None:
        found = self.any_tree()
        if found is None:
            return
        tree, path = found
        rows, writes = self.model[path][tree_number(tree)], self.rows(self.dice.choice([1, 5, 60]))
        gone = [key for key in rows if self.dice.random() < 0.05]
        told: asyncio.Future[Commit | JetError] = asyncio.get_running_loop().create_future()
        if self.dice.random() < 0.5:
            on: StoreTransaction | stroke.Stroke = self.store.begin_now()
        else:
            on = self.store.stroke()
        for key in gone:
            on.delete(tree, key)
            del rows[key]
        for key, value in writes.items():
            on.put(tree, key, value)
        rows.update(writes)
        if not isinstance(on, stroke.Stroke):
            await on.commit()
        elif on.commit(tree, told.set_result):
            assert isinstance(await told, Commit)
        else:
            txn = self.store.begin_now()
            for key, entry in on.writes[tree].items():
                txn.delete(tree, key) if entry is None else txn.put(tree, key, entry)
            await txn.commit()

    async def look_back(self) -> None:
        self.old.append(self.store.begin_now(True))

    async def look_away(self) -> None:
        if self.old:
            self.old.pop(self.dice.randrange(len(self.old))).rollback_now()

    async def checkpoint(self) -> None:
        await self.store.checkpoint()

    async def restart(self) -> None:
        for old in self.old:
            old.rollback_now()
        self.old.clear()
        await self.store.flush()
        if self.dice.random() < 0.5:
            self.store.gate.latch("a crash")
        await self.store.stop()
        self.store = await embedded(self.directory, "real")
        assert {path: slot for slot, path in self.store.databases().items()} == self.slots, self.where

    # -- within -----------------------------------------------------------------------------------------------
    def rows(self, count: int) -> Rows:
        return {b"%d" % self.dice.randrange(2 * count + 20): self.dice.randbytes(9) for _ in range(count)}

    def any_tree(self) -> tuple[Tree, str] | None:
        trees = [(tree_id(slot, number), path) for path, slot in self.slots.items() for number in self.model[path]]
        return self.dice.choice(trees) if trees else None

    @property
    def where(self) -> str:
        return f"seed {self.seed}: {' '.join(self.done)}"

    def check(self) -> None:
        txn = self.store.begin_now(True)
        for path, slot in self.slots.items():
            for number, rows in self.model[path].items():
                assert dict(txn.rows(tree_id(slot, number), None, None, False, 1 << 20)) == rows, f"{self.where}: {path} {number}"
                for key in list(rows)[:3]:
                    assert self.store.newest(tree_id(slot, number), key)[0] == rows[key], f"{self.where}: {path} {number}"
        txn.rollback_now()

    async def run(self) -> None:
        steps: list[Callable[[], Awaitable[None]]] = [self.create, self.detach, self.detach, self.attach, self.attach, self.attach]
        steps += [
            self.make,
            self.make,
            self.make,
            self.drop,
            self.drop,
            self.change,
            self.change,
            self.look_back,
            self.look_away,
            self.checkpoint,
        ]
        for _ in range(STEPS):
            step = self.restart if self.dice.random() < 0.03 else self.dice.choice(steps)
            self.done.append(step.__name__)
            await step()
            self.check()
            if self.dice.random() < 0.3:
                await asyncio.sleep(self.dice.choice([0, 0.001]))
        self.done.append("end")
        await self.restart()
        self.check()
        assert not await self.store.scrub(), self.where


async def play(seed: int, directory: str) -> None:
    one = Play(await embedded(directory, "real"), directory, seed)
    try:
        await one.run()
    finally:
        for old in one.old:
            old.rollback_now()
        await one.store.stop()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits of a few rows count as large, and are published a few rows a turn."""
    for module in (publishing, stroke, journal):
        monkeypatch.setattr(module, "LARGE_ROWS", 25)
    monkeypatch.setattr(publishing, "SLICE_ROWS", 7)


@pytest.mark.parametrize("seed", range(8))
async def test_each_database_has_its_own(seed: int, tmp_path: Path) -> None:
    await play(seed, str(tmp_path))


async def test_control_a_slot_that_remembers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timeline, "leave", lambda *_: None)
    monkeypatch.setattr(Checkpoint, "leave", lambda *_: None)
    with pytest.raises(AssertionError, match="seed"):
        await play_many(range(12), tmp_path)


async def play_many(seeds: range, directory: Path) -> None:
    for seed in seeds:
        await play(seed, str(directory / str(seed)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(play_many(range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])), Path(made)))
