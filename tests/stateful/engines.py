"""Engines for the state machines: in memory, or on real files that can be checkpointed and started again."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from typing import Any, TypeVar

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit, TermGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_server.clock import ManualClock
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.events import EventLog
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.memory import MemoryStore
from tests.support.model import IndexShape, Shape

DATABASE, TABLE = "model.edb", "t"
I = CreateIndexGrbit  # noqa: E741

SHAPE = Shape(
    key="id",
    columns=("id", "a", "b", "u", "auto", "esc"),
    indexes=(
        IndexShape("pk", (("id", False),)),
        IndexShape("byA", (("a", False),)),
        IndexShape("byBA", (("b", False), ("a", True))),
        IndexShape("byU", (("u", False),), unique=True, skip_nulls=True),
        IndexShape("downA", (("a", True),), skip_nulls=True),
        IndexShape("uniqueBU", (("b", True), ("u", False)), unique=True, skip_nulls=True),
    ),
    escrow="esc",
    autoincrement="auto",
    defaults={"esc": 0},
)

_COLUMNS = (
    ColumnCreate("id", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnNotNULL)),
    ColumnCreate("a", Coltyp.Long),
    ColumnCreate("b", Coltyp.LongText, cp=1200),
    ColumnCreate("u", Coltyp.Short),
    ColumnCreate("auto", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnAutoincrement)),
    ColumnCreate("esc", Coltyp.Long, grbit=int(AddColumnGrbit.ColumnEscrowUpdate), default=0),
)


def table_create() -> TableCreate:
    """The table that `SHAPE` describes."""
    indexes = []
    for index in SHAPE.indexes:
        bits = I.IndexPrimary if index.name == "pk" else I(0)
        bits |= I.IndexUnique if index.unique else I(0)
        bits |= I.IndexIgnoreAnyNull if index.skip_nulls else I(0)
        indexes.append(IndexCreate(index.name, tuple(f"{'-' if down else '+'}{column}" for column, down in index.segments), int(bits)))
    return TableCreate(TABLE, columns=_COLUMNS, indexes=tuple(indexes))


T = TypeVar("T")


def make_store(kind: str, directory: str, clock: ManualClock) -> Any:
    """A store in memory, or the embedded one on a real log and real files."""
    if kind == "memory":
        return MemoryStore(clock)
    gate = Gate(clock)
    files = LocalFiles(directory, watch=gate.wrote)
    files.make_directory("")
    log = Log(files, gate, clock, names=LogNames("", "edb"), file_kb=128)
    return EmbeddedStore(log, files, LocalFiles(f"{directory}/scratch"), gate, clock)


class Rig:
    """An engine with its own event loop; `kind` is memory or embedded."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.directory = tempfile.mkdtemp() if kind == "embedded" else ""
        self.engine = Engine(self.clock, EventLog(), lambda instance: make_store(kind, self.directory, self.clock))
        self.instance: Instance = self.run(self._start())
        session = self.run(self.instance.begin_session())
        dbid = self.run(session.create_database(DATABASE))
        made = self.run(session.create_table_column_index(dbid, table_create()))
        self.columnids: dict[str, int] = dict(zip(SHAPE.columns, made.columnids, strict=True))
        self.run(session.end_session())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _start(self) -> Instance:
        instance = await self.engine.create_instance("model")
        await _init(instance)
        return instance

    def begin_session(self) -> tuple[Session, int]:
        session = self.run(self.instance.begin_session())
        return session, self.run(session.open_database(DATABASE))

    def restart(self, dirty: bool) -> None:
        """Every session ends; on files, all that was committed comes back from pages and log."""
        self.run(self.instance.term(int(TermGrbit.TermDirty if dirty else TermGrbit.TermComplete)))
        self.instance = self.run(self._start())

    def checkpoint(self) -> None:
        self.run(self.instance.store.checkpoint())

    def close(self) -> None:
        self.run(self.instance.term())
        self.loop.close()
        if self.directory:
            shutil.rmtree(self.directory)


async def _init(instance: Instance) -> None:
    instance.set_parameter(Param.LogFileSize, 128)
    await instance.init()
