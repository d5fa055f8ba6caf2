"""A data directory with a running default instance, in this process: a table of numbered rows, and a model of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from jetwire_protocol.data.parameters import Param
from jetwire_server.clock import SystemClock
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.events import Event, EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import Hosting
from jetwire_server.redo.position import Position
from jetwire_server.store.interface import Transaction, Tree

Model = dict[bytes, bytes]


class Hosted:
    """`start`, `write` some rows, `crash` or `stop`. Rows are put into the table's tree as they are."""

    def __init__(self, data: Path, log_path: str = "") -> None:
        self.data = data
        self.log_path = log_path
        self.clock = SystemClock()
        self.model: Model = {}
        self.history: dict[int, Model] = {}  # what the table held after each commit
        self.times: dict[int, float] = {}
        self.places: dict[int, Position] = {}  # where a commit's log record begins
        self.events: list[Event] = []

    async def start(self) -> Hosted:
        self.hosting = self.hosted()
        await self.hosting.start()
        self.instance: Instance = next(iter(self.hosting.engine.instances.values()))
        self.session: Session = await self.instance.begin_session()
        return self

    def hosted(self) -> Hosting:
        """The instances of the directory, none of them initialised."""
        log = EventLog()
        log.listen(self.events.append)
        hosting = Hosting(LocalFiles(self.data), self.clock, log)
        if self.log_path:
            hosting.engine.set_parameter(Param.LogFilePath, self.log_path)
        return hosting

    async def create(self, path: str = "a.edb") -> Hosted:
        dbid = await self.session.create_database(path)
        cursor = await self.session.create_table(dbid, "t")
        self.tree: Tree = cursor.table.tree
        return self

    async def write(self, count: int = 1, *, first: int | None = None, size: int = 100, lazy: bool = False) -> int:
        """One commit of so many rows, numbered on from `first` or from what is there; its number."""
        txn = await self.instance.store.begin()
        start = len(self.model) if first is None else first
        for n in range(start, start + count):
            key = n.to_bytes(4, "big")
            value = b"%d of %d " % (n, len(self.history)) + b"x" * size
            txn.put(self.tree, key, value)
            self.model[key] = value
        commit = await txn.commit(lazy=lazy)
        self.history[commit.number] = dict(self.model)
        self.times[commit.number] = commit.time
        if commit.place is not None:
            self.places[commit.number] = commit.place.position
        return commit.number

    async def stop(self) -> None:
        await self.hosting.stop()

    @property
    def directory(self) -> Path:
        return self.data / "default"


async def rows_of(txn: Transaction, tree: Tree) -> Model:
    out: Model = {}
    low: bytes | None = None
    while chunk := await txn.scan(tree, low, limit=1000):
        out.update(chunk)
        low = chunk[-1][0] + b"\0"
    return out


def copy_of(source: Path, target: Path) -> Path:
    """What `cp -a` would bring, without what is scratch."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("jetwire.lock", "*-lock", "scratch"))
    return target
