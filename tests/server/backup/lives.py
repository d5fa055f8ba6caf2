"""An instance that writes while it is backed up, fully and incrementally; and its restores, read back."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

from jetwire_server.backup.restore import THE_END, Restored, Until, restore
from jetwire_server.clock import SystemClock
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.embedded.assemble import assemble
from jetwire_server.store.interface import Tree
from tests.server.backup.reading import INCREMENTAL, take
from tests.support.hosted import Hosted, Model, rows_of


@dataclass
class Taken:
    """A full and an incremental backup in one directory, and what the table held after each commit."""

    directory: Path
    hosted: Hosted
    tree: Tree
    first: int  # the earliest commit that can be restored
    last: int


async def load(hosted: Hosted, until: asyncio.Event, seed: int) -> None:
    """Commits, also lazy ones, overwriting and adding, with checkpoints among them."""
    dice = random.Random(seed)
    while not until.is_set():
        await hosted.write(dice.randrange(1, 30), first=dice.randrange(0, 3_000), lazy=dice.random() < 0.3)
        if dice.random() < 0.05:
            await hosted.instance.store.checkpoint()
        await asyncio.sleep(0)


async def take_under_load(tmp_path: Path, seed: int = 1) -> Taken:
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    over = asyncio.Event()
    working = asyncio.create_task(load(hosted, over, seed))
    await asyncio.sleep(0.2)
    backups = hosted.hosting.backups
    target = tmp_path / "backup"
    await take(backups, hosted.instance, target)
    first = max(hosted.history)
    for _ in range(2):
        await asyncio.sleep(0.2)
        await take(backups, hosted.instance, target, INCREMENTAL)
    over.set()
    await working
    await hosted.write(1)
    await take(backups, hosted.instance, target, INCREMENTAL)
    last = max(hosted.history)
    await hosted.write(1)  # not in the backup
    await hosted.stop()
    return Taken(target, hosted, hosted.tree, first, last)


async def restored(source: Path, target: Path, tree: Tree, until: Until = THE_END) -> tuple[Restored, Model]:
    result = await restore(LocalFiles(source), LocalFiles(target), SystemClock(), until=until, progress=lambda *_: None)
    storage = assemble(str(target), SystemClock())
    await storage.store.start()
    try:
        snapshot = await storage.store.begin(read_only=True)
        try:
            return result, await rows_of(snapshot, tree)
        finally:
            await snapshot.rollback()
    finally:
        await storage.store.stop()


def points_of(taken: Taken, dice: random.Random) -> tuple[str, Until, int]:
    """A kind of point, a random point of it, and the last commit that must be there."""
    commits = sorted(number for number in taken.hosted.history if taken.first <= number <= taken.last)
    commit = dice.choice(commits)
    kind = dice.choice(("position", "time", "commit"))
    if kind == "commit":
        return kind, Until(commit=commit), commit
    if kind == "position":  # up to it, without the record that begins there
        place = dice.randrange(1, len(commits))
        return kind, Until(position=taken.hosted.places[commits[place]]), commits[place - 1]
    moment = taken.hosted.times[commit]
    return kind, Until(time=moment), max(n for n in commits if taken.hosted.times[n] <= moment)
