"""An instance brought up in a process of its own, without sockets: recovered, read, checked, put down again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup.restore import settle_unfinished
from jetwire_server.clock import Clock
from jetwire_server.files.interface import Files
from jetwire_server.offline.places import Place
from jetwire_server.redo.generation import read_header
from jetwire_server.redo.position import Position
from jetwire_server.snapshot.digest import digest_database
from jetwire_server.snapshot.participant import DatabaseDigest
from jetwire_server.snapshot.roots import refuse_mixed
from jetwire_server.store.embedded.assemble import Storage, assemble
from jetwire_server.store.interface import Fault


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came out of it."""

    name: str
    position: Position
    incarnation: int
    commits: int
    databases: list[str]


@asynccontextmanager
async def recovered(place: Place, clock: Clock) -> AsyncIterator[Storage]:
    """The instance after recovery; at the end everything is moved into the pages and closed cleanly."""
    settle_unfinished(place.files)
    refuse_mixed(place.files, place.names)
    storage = assemble(str(place.root), clock, names=place.names, file_kb=log_file_kb(place.files, place))
    await storage.store.start()
    try:
        yield storage
    finally:
        await storage.store.stop()


def log_file_kb(files: Files, place: Place) -> int:
    """New log files are made as large as those that are there."""
    names = [place.names.current, *(place.names.path(n) for n in files.list(place.names.directory) if place.names.number(n) is not None)]
    for name in names:
        if files.exists(name):
            file = files.open(name, read_only=True)
            try:
                return read_header(file).file_bytes // 1024
            finally:
                file.close()
    raise JetError(Err.MissingLogFile, f"{place.root} has no log")


async def recover(place: Place, clock: Clock) -> Recovered:
    async with recovered(place, clock) as storage:
        return summary(place, storage)


def summary(place: Place, storage: Storage) -> Recovered:
    store = storage.store
    return Recovered(place.name, storage.log.end, storage.log.incarnation, store.published, list(store.databases().values()))


async def scrubbed(storage: Storage) -> list[Fault]:
    """Moves everything into the pages and reads them whole."""
    await storage.store.checkpoint()
    return await storage.store.scrub()


async def digests(storage: Storage) -> list[DatabaseDigest]:
    """What every database holds now."""
    snapshot = await storage.store.begin(read_only=True)
    try:
        return [await digest_database(path, slot, snapshot) for slot, path in storage.store.databases().items()]
    finally:
        await snapshot.rollback()
