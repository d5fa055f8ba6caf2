"""Engines on real files, and what a crash leaves of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from jetwire_protocol.data.parameters import Param
from jetwire_server.clock import Clock, ManualClock
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.instance import Instance
from jetwire_server.events import EventLog
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.store import EmbeddedStore


def engine_on(root: Path, clock: Clock | None = None) -> Engine:
    """Each of its instances in a directory of its own below `root`."""
    clock = clock or ManualClock()

    def store(instance: Instance) -> EmbeddedStore:
        gate = Gate(clock)
        files = LocalFiles(f"{root}/{instance.name}", watch=gate.wrote)
        files.make_directory("")
        log = Log(files, gate, clock, names=LogNames("", "edb"), file_kb=instance.parameters.number(Param.LogFileSize))
        circular = instance.parameters.get(Param.CircularLog)
        return EmbeddedStore(log, files, LocalFiles(f"{root}/{instance.name}/scratch"), gate, clock, circular=bool(circular))

    return Engine(clock, EventLog(), store)


async def started(engine: Engine, **parameters: int) -> Instance:
    instance = await engine.create_instance("a")
    instance.set_parameter(Param.LogFileSize, 128)
    for name, value in parameters.items():
        instance.set_parameter(Param[name], value)
    await instance.init()
    return instance


async def crash_image(instance: Instance, root: Path, to: Path) -> Path:
    """The instance's files as a crash at this moment would leave them: between two writes, without what memory alone holds."""
    store = instance.store
    assert isinstance(store, EmbeddedStore)
    now = instance.clock.boot()
    await store.gate.freeze(now + 1e6, drain_until=now + 1e6)
    try:
        shutil.copytree(root, to, ignore=shutil.ignore_patterns("scratch", "*-lock"))
    finally:
        store.gate.thaw()
    return to
