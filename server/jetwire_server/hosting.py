"""What stands below an instance, put together: its directory, gate, log and store, and its part in snapshots."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec

from jetwire_protocol.data.parameters import PARAMETERS, Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.external import ExternalRestore
from jetwire_server.backup.restore import settle_unfinished
from jetwire_server.backup.service import BackupService
from jetwire_server.clock import Clock
from jetwire_server.engine.catalog import fold
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.indexes import UnicodeIndex
from jetwire_server.engine.instance import Instance, State
from jetwire_server.engine.parameters import Parameters
from jetwire_server.event_table import EventTable
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.paths import plain
from jetwire_server.files.whole import read_if_there
from jetwire_server.redo.names import LogNames
from jetwire_server.snapshot.instance import InstanceParticipant
from jetwire_server.snapshot.memo import FreezeMemo
from jetwire_server.snapshot.roots import refuse_mixed
from jetwire_server.snapshot.service import SnapshotService
from jetwire_server.store.embedded.assemble import Storage, assemble
from jetwire_server.store.interface import Store

DEFAULT_INSTANCE = "default"
RUNNING_FILE = "running"  # in the directory of an instance that a client initialised and did not terminate: with which parameters
SERVER_DIRECTORY = ".server"  # the event table and the snapshot memo: of the server, not of an instance

log = logging.getLogger(__name__)


class Hosting:
    """The instances of a data directory, with all that the engine does not know about them."""

    def __init__(self, files: LocalFiles, clock: Clock, events: EventLog) -> None:
        self._files = files
        self._clock = clock
        self.not_started: dict[str, Exception] = {}  # the instances that should run and do not, and why
        self._marked: dict[str, tuple[Instance, bytes]] = {}  # those with a mark in their directories, and what it says
        self._remembering = asyncio.Lock()  # one at a time: instances begin and end beside each other
        self._storages: dict[int, Storage] = {}
        self._participants: dict[int, InstanceParticipant] = {}
        self.engine = Engine(clock, events, self._new_store, files.root)
        external = ExternalRestore(files, clock, lambda: list(self.engine.instances.values()), self._storage_of)
        self.backups = BackupService(clock, self._storage_of, external)
        self._own_files = LocalFiles(f"{files.root}/{SERVER_DIRECTORY}")
        self.event_table = EventTable(self._own_files, events, lambda: self.snapshots.holding)
        self.snapshots = SnapshotService(
            clock=clock,
            events=events,
            participants=self._running,
            timeout_ms=lambda: self.engine.parameters.number(Param.OSSnapshotTimeout),
            memo=FreezeMemo(self._own_files),
            settle=self.event_table.settle,
        )

    # -- life ---------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Brings up `default`, and every instance that ran when the server last stopped or crashed.

        One that cannot be brought up does not keep the others from it; it keeps its mark. An error only if none can.
        """
        self._own_files.make_directory("")
        await self.event_table.start()
        await self.snapshots.sessions.start()
        marked = self._remembered()
        names = marked if DEFAULT_INSTANCE in map(fold, marked) else [DEFAULT_INSTANCE, *marked]
        self._make_room(len(names))
        for name in names:
            try:
                await self._bring_up(name, marked=name in marked)
            except Exception as error:
                if not isinstance(error, JetError):
                    log.exception("the instance %s", name)
                self.not_started[name] = error
        if len(self.not_started) == len(names):
            raise self.not_started[names[0]]
        self.engine.created_any = False  # EnableMultiInstance counts only those that a client made
        await self.remember()

    def _make_room(self, instances: int) -> None:
        """They ran beside each other, so whoever made them had raised the limit."""
        parameters = self.engine.parameters
        most = PARAMETERS[Param.MaxInstances][3] or instances
        parameters.set(Param.MaxInstances, min(max(parameters.number(Param.MaxInstances), instances), most))

    async def _bring_up(self, name: str, *, marked: bool) -> None:
        instance = await self.engine.create_instance(name)
        if marked:
            mark = read_if_there(self._files, f"{name}/{RUNNING_FILE}") or b""
            self._marked[name] = instance, mark
            instance.parameters.take(_parameters_in(mark))
        await instance.init()

    async def stop(self) -> list[BaseException]:
        """Ends every instance, whatever the others do; the errors there were. What is frozen stays frozen."""
        for storage in self._storages.values():
            if storage.gate.look():  # who waits for the thaw would hold up the end until the deadline
                storage.gate.latch("the server ended while it was frozen")
        ended = await asyncio.gather(*(one.shut_down() for one in list(self.engine.instances.values())), return_exceptions=True)
        await self.snapshots.sessions.stop()
        await self.event_table.stop()
        return [error for error in ended if error is not None]

    def _remembered(self) -> list[str]:
        directories = [name for name in self._files.list() if Path(self._files.root, name).is_dir() and not name.startswith(".")]
        return [name for name in directories if self._files.exists(f"{name}/{RUNNING_FILE}")]

    async def remember(self) -> None:
        """Marks, in its own directory, each instance that runs: those are brought up at the next start."""
        # Shielded: cancelled, the thread would go on with files that the next one means to change.
        await asyncio.shield(self._remember())

    async def _remember(self) -> None:
        self._forget_ended()
        async with self._remembering:
            # Those that ended first: their names may have gone to others.
            for name, (one, _) in list(self._marked.items()):
                if one.state is State.ENDED:
                    await asyncio.to_thread(self._unmark, f"{name}/{RUNNING_FILE}")
                    del self._marked[name]
            for one in list(self.engine.instances.values()):
                mark = one, _written(one.parameters)
                if one.state in (State.RUNNING, State.STOPPED) and self._marked.get(one.name) != mark:
                    await asyncio.to_thread(self._files.replace, f"{one.name}/{RUNNING_FILE}", mark[1])
                    self._marked[one.name] = mark

    def _unmark(self, path: str) -> None:
        if self._files.exists(path):
            self._files.remove(path)

    def _storage_of(self, instance: Instance) -> Storage:
        return self._storages[instance.handle]

    # -- one instance -------------------------------------------------------------------------------------------
    def _new_store(self, instance: Instance) -> Store:
        parameters = instance.parameters
        settle_unfinished(LocalFiles(f"{self._files.root}/{instance.name}"))
        storage = assemble(
            f"{self._files.root}/{instance.name}",
            self._clock,
            names=LogNames(plain(parameters.text(Param.LogFilePath)), parameters.text(Param.BaseName)),
            file_kb=parameters.number(Param.LogFileSize),
            circular=bool(parameters.get(Param.CircularLog)),
            version_bytes_max=_version_bytes_max(parameters),
        )
        refuse_mixed(storage.files, storage.log.names)
        storage.gate.when_latched(instance.storage_failed)
        self._storages[instance.handle] = storage
        self._participants[instance.handle] = InstanceParticipant(instance, storage.store, storage.log, storage.files)
        return storage.store

    def _running(self) -> list[InstanceParticipant]:
        self._forget_ended()
        instances = self.engine.instances
        return [one for handle, one in self._participants.items() if instances[handle].state in (State.RUNNING, State.STOPPED)]

    def _forget_ended(self) -> None:
        instances = self.engine.instances
        self._storages = {handle: one for handle, one in self._storages.items() if handle in instances}
        self._participants = {handle: one for handle, one in self._participants.items() if handle in instances}


def _version_bytes_max(parameters: Parameters) -> int:
    """JET_paramMaxVerPages in bytes. Its documented default of 64 pages stands for this server's own limit."""
    pages = parameters.chosen(Param.MaxVerPages)
    if pages is None:
        return limits.VERSION_BYTES_MAX
    return max(limits.VERSION_BYTES_MIN, pages * max(limits.VERSION_PAGE_BYTES, parameters.number(Param.VerPageSize)))


def _written(parameters: Parameters) -> bytes:
    """What was set for an instance, but for what only its clients' programs know: where its log is, above all."""
    return msgspec.json.encode({k: v for k, v in parameters.given().items() if PARAMETERS[k][0] != "callback"})


def _parameters_in(data: bytes) -> dict[int, Any]:
    try:
        values = msgspec.json.decode(data or b"{}", type=dict[int, Any])  # empty: written by a server that did not keep them
        return {k: msgspec.convert(v, UnicodeIndex) if PARAMETERS[k][0].startswith("object") else v for k, v in values.items()}
    except (msgspec.MsgspecError, KeyError) as error:
        raise JetError(Err.InvalidParameter, f"{RUNNING_FILE} is damaged, the parameters in it are lost: {error}") from error
